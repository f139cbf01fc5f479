//! The calling side: one multiplexed connection per peer and lane.

use super::tls::{server_name, Identity};
use super::wire::{
    decode, encode, read_frame, write_frame, Hello, Introduced, Introduction, PeerError, Reply, Request, Welcome,
    INTRODUCES, INTRODUCTION, PROTOCOL,
};
use crate::disks::Disks;
use claviger_log::Member;
use claviger_types::name::Id128;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Time to connect and greet: several round trips of a region, and short enough to try again within an election.
const CONNECT: Duration = Duration::from_millis(1_000);

/// Requests that may wait for the socket of one lane.
const SEND_QUEUE: usize = 1024;

/// Separate connections, so that a large message never holds up a small urgent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Entries.
    Append,
    /// Heartbeats, votes, read indexes, status.
    Control,
    /// Forwarded proposals.
    Propose,
    /// Snapshots.
    Snapshot,
}

/// Connections to the other nodes. Clones share them.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    world: Id128,
    node: u64,
    name: String,
    identity: Option<Identity>,
    /// Of a node; operators' commands have none.
    disks: OnceLock<Arc<Disks>>,
    connections: Mutex<HashMap<(String, Lane), Arc<Connection>>>,
}

impl Peers {
    /// Calls as node `node` with its certificate; without one, every call is [`PeerError::Unreachable`].
    pub fn new(world: Id128, node: u64, name: String, identity: Option<Identity>) -> Self {
        Self {
            inner: Arc::new(Inner {
                world,
                node,
                name,
                identity,
                disks: OnceLock::new(),
                connections: Mutex::default(),
            }),
        }
    }

    /// From now on this node says on which disk it has its log, and looks at those of others; set once, before the first
    /// call.
    pub(crate) fn introduce(&self, disks: Arc<Disks>) {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.disks.set(disks).ok();
    }

    /// Asks a peer and waits for its answer.
    pub async fn call(&self, to: &Member, lane: Lane, request: &Request, limit: Duration) -> Result<Reply, PeerError> {
        let unreachable = |error: io::Error| PeerError::Unreachable(format!("{}: {error}", to.peer));
        let message = encode(request).map_err(unreachable)?;
        let connection = self.connection(to, lane).await.map_err(unreachable)?;
        let answer = connection.call(message, limit).await?;
        decode::<Result<Reply, PeerError>>(&answer).map_err(|error| PeerError::NoAnswer(error.to_string()))?
    }

    async fn connection(&self, to: &Member, lane: Lane) -> io::Result<Arc<Connection>> {
        let key = (to.peer.clone(), lane);
        {
            let mut known = self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(connection) = known.get(&key) {
                if !connection.closed.load(Ordering::Acquire) && self.is_trusted(connection, lane) {
                    return Ok(connection.clone());
                }
                known.remove(&key);
            }
        }
        let connection = timeout(CONNECT, self.connect(to))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
        let mut known = self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, connection.clone());
        Ok(connection)
    }

    /// Whether a connection still leads to the disk that the node must have: that may have been written down since. Asked
    /// where votes travel, which is not where throughput is.
    fn is_trusted(&self, connection: &Connection, lane: Lane) -> bool {
        let disks = self.inner.disks.get().filter(|_| lane == Lane::Control);
        disks.is_none_or(|disks| disks.check(connection.node, connection.disk).is_ok())
    }

    /// Tells each other which disks there are; the called one's.
    async fn exchange<S>(&self, stream: &mut S, node: u64) -> io::Result<Option<Id128>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(disks) = self.inner.disks.get() else { return Ok(None) };
        let introduction = Introduction { disk: disks.own(), yours: disks.expected(node) };
        write_frame(stream, INTRODUCTION, &encode(&introduction)?).await?;
        stream.flush().await?;
        let (_, answer) = read_frame(stream).await?;
        let disk = decode::<Introduced>(&answer)?.map_err(io::Error::other)?;
        disks.check(node, Some(disk)).map_err(io::Error::other)?;
        Ok(Some(disk))
    }

    async fn connect(&self, to: &Member) -> io::Result<Arc<Connection>> {
        let identity =
            self.inner.identity.as_ref().ok_or_else(|| io::Error::other("this node has no peer certificate"))?;
        let socket = TcpStream::connect(&to.peer).await?;
        super::set_up(&socket)?;
        let stream = identity.connector.connect(server_name(&to.name)?, socket).await?;
        let mut stream = BufStream::new(stream);
        let hello =
            Hello { protocol: PROTOCOL, world: self.inner.world, node: self.inner.node, name: self.inner.name.clone() };
        write_frame(&mut stream, 0, &encode(&hello)?).await?;
        stream.flush().await?;
        let (_, answer) = read_frame(&mut stream).await?;
        let welcome = decode::<Welcome>(&answer)?.map_err(io::Error::other)?;
        let node = welcome.node;
        let disk = if welcome.protocol >= INTRODUCES { self.exchange(&mut stream, node).await? } else { None };
        if let Some(disks) = self.inner.disks.get() {
            disks.saw(node, disk);
        }
        let (mut reader, mut writer) = tokio::io::split(stream);

        let (send, mut queue) = mpsc::channel::<(u64, Vec<u8>)>(SEND_QUEUE);
        let connection = Arc::new(Connection {
            send,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
            node,
            disk,
        });
        let for_reader = connection.clone();
        let read = tokio::spawn(async move {
            while let Ok((id, answer)) = read_frame(&mut reader).await {
                if let Some(waiter) = for_reader.waiting().remove(&id) {
                    // Whoever asked may have given up.
                    waiter.send(answer).ok();
                }
            }
            for_reader.close();
        });
        let for_writer = Arc::downgrade(&connection);
        tokio::spawn(async move {
            while let Some((id, message)) = queue.recv().await {
                let sent = async {
                    write_frame(&mut writer, id, &message).await?;
                    while let Ok((id, message)) = queue.try_recv() {
                        write_frame(&mut writer, id, &message).await?;
                    }
                    writer.flush().await
                };
                if sent.await.is_err() {
                    break;
                }
            }
            if let Some(connection) = for_writer.upgrade() {
                connection.close();
            }
            read.abort();
        });
        Ok(connection)
    }
}

struct Connection {
    send: mpsc::Sender<(u64, Vec<u8>)>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>,
    closed: AtomicBool,
    /// Where it leads.
    node: u64,
    disk: Option<Id128>,
}

impl Connection {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waiting().clear();
    }

    async fn call(&self, message: Vec<u8>, limit: Duration) -> Result<Vec<u8>, PeerError> {
        // Never reused: an answer can only be matched with the request that it belongs to (etcd issue 20418).
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (waiter, answer) = oneshot::channel();
        self.waiting().insert(id, waiter);
        if self.closed.load(Ordering::Acquire) {
            self.waiting().remove(&id);
            return Err(PeerError::Unreachable("the connection was closed".into()));
        }
        let whole = async {
            if self.send.send((id, message)).await.is_err() {
                return Err(PeerError::Unreachable("the connection was closed".into()));
            }
            answer.await.map_err(|_| PeerError::NoAnswer("the connection was closed".into()))
        };
        let result = timeout(limit, whole).await.unwrap_or_else(|_| Err(PeerError::NoAnswer("out of time".into())));
        if result.is_err() {
            self.waiting().remove(&id);
        }
        result
    }
}

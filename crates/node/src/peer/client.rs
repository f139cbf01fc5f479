//! The calling side: one multiplexed connection per peer and lane.

use super::tls::{server_name, Identity};
use super::wire::{
    decode, encode, read_frame, write_frame, Hello, Introduced, Introduction, PeerError, Reply, Request, Welcome,
    INTRODUCES, INTRODUCTION, PROTOCOL,
};
use crate::disks::Disks;
use claviger_log::Member;
use claviger_types::name::Id128;
use futures::future::{BoxFuture, FutureExt, Shared};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    links: Mutex<HashMap<Key, Link>>,
}

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The node that must answer; `None` is anyone.
    id: Option<u64>,
    address: String,
    lane: Lane,
}

enum Link {
    /// Being made.
    Dialling(Shared<BoxFuture<'static, Result<Arc<Connection>, String>>>),
    /// Made; it may have been closed since.
    Up(Arc<Connection>),
}

impl Peers {
    /// Calls as node `node` with its certificate; without one, every call is [`PeerError::Unreachable`].
    pub fn new(world: Id128, node: u64, name: String, identity: Option<Identity>) -> Self {
        Self { inner: Arc::new(Inner { world, node, name, identity, disks: OnceLock::new(), links: Mutex::default() }) }
    }

    /// From now on this node says on which disk it has its log, and looks at those of others; set once, before the first
    /// call.
    pub(crate) fn introduce(&self, disks: Arc<Disks>) {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.disks.set(disks).ok();
    }

    /// Asks whoever answers at an address, and waits for the answer: for operators, and for nodes that are no members yet.
    pub async fn call(&self, to: &Member, lane: Lane, request: &Request, limit: Duration) -> Result<Reply, PeerError> {
        self.ask(None, to, lane, request, limit).await
    }

    /// Asks a member and waits for its answer. Another node at its address is not asked: it would vote and acknowledge in the
    /// member's name.
    pub async fn call_node(
        &self,
        id: u64,
        to: &Member,
        lane: Lane,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        self.ask(Some(id), to, lane, request, limit).await
    }

    async fn ask(
        &self,
        id: Option<u64>,
        to: &Member,
        lane: Lane,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        let unreachable = |error: String| PeerError::Unreachable(format!("{}: {error}", to.peer));
        let message = encode(request).map_err(|error| unreachable(error.to_string()))?;
        let key = Key { id, address: to.peer.clone(), lane };
        let connection = self.connection(key, to).await.map_err(unreachable)?;
        let answer = connection.call(message, limit).await?;
        decode::<Result<Reply, PeerError>>(&answer).map_err(|error| PeerError::NoAnswer(error.to_string()))?
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Key, Link>> {
        self.inner.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for a key. All who ask while there is none wait for the same one.
    async fn connection(&self, key: Key, to: &Member) -> Result<Arc<Connection>, String> {
        let known = match self.links().get(&key) {
            Some(Link::Up(connection)) if !connection.closed.load(Ordering::Acquire) => Some(connection.clone()),
            _ => None,
        };
        match known {
            Some(connection) if self.is_trusted(&connection, key.lane) => return Ok(connection),
            Some(connection) => connection.close(),
            None => {}
        }
        let dial = {
            let mut links = self.links();
            match links.get(&key) {
                Some(Link::Dialling(dial)) => dial.clone(),
                // Another one came up meanwhile.
                Some(Link::Up(connection)) if !connection.closed.load(Ordering::Acquire) => {
                    return Ok(connection.clone())
                }
                _ => {
                    // A task of its own: whoever began it may give up before the others do.
                    let task = tokio::spawn(self.clone().dial(key.clone(), to.clone()));
                    let dial = task.map(|end| end.map_err(|error| error.to_string())?).boxed().shared();
                    links.insert(key, Link::Dialling(dial.clone()));
                    dial
                }
            }
        };
        dial.await
    }

    async fn dial(self, key: Key, to: Member) -> Result<Arc<Connection>, String> {
        let connected = timeout(CONNECT, self.connect(key.id, &to)).await;
        let result = match connected {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no connection in time".to_owned()),
        };
        let mut links = self.links();
        match &result {
            Ok(connection) => links.insert(key, Link::Up(connection.clone())),
            Err(_) => links.remove(&key),
        };
        result
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

    async fn connect(&self, id: Option<u64>, to: &Member) -> io::Result<Arc<Connection>> {
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
        if id.is_some_and(|id| id != node) {
            return Err(io::Error::other(format!("node {node} answers there")));
        }
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
        // Not held by its own tasks: it ends when nobody has it any more.
        let for_reader = Arc::downgrade(&connection);
        let read = tokio::spawn(async move {
            while let Ok((id, answer)) = read_frame(&mut reader).await {
                let Some(connection) = for_reader.upgrade() else { return };
                let waiter = connection.waiting().remove(&id);
                if let Some(waiter) = waiter {
                    // Whoever asked may have given up.
                    waiter.send(answer).ok();
                }
            }
            if let Some(connection) = for_reader.upgrade() {
                connection.close();
            }
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
        let _waits = Waits { connection: self, id };
        if self.closed.load(Ordering::Acquire) {
            return Err(PeerError::Unreachable("the connection was closed".into()));
        }
        let whole = async {
            if self.send.send((id, message)).await.is_err() {
                return Err(PeerError::Unreachable("the connection was closed".into()));
            }
            answer.await.map_err(|_| PeerError::NoAnswer("the connection was closed".into()))
        };
        timeout(limit, whole).await.unwrap_or_else(|_| Err(PeerError::NoAnswer("out of time".into())))
    }
}

/// A place among those who wait for an answer, given up with the wait itself.
struct Waits<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.connection.waiting().remove(&self.id);
    }
}

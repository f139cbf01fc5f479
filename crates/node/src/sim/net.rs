//! The network: requests and answers with delay and loss, link by link and way by way.
//!
//! A request that was cut off is never heard of again: its sender waits as long as it likes. What is sent to a node that is
//! down fails at once, and what was on its way there fails too.

use super::clock::Time;
use super::rng::Rng;
use super::store::Image;
use crate::gate::{self, ReadAt};
use crate::hooks::{self, Sent};
use crate::lease::{Lease, Transport};
use crate::peer::{PeerError, Reply, Request};
use claviger_lease::{LeaseAck, LeaseMessage};
use claviger_log::{Member, SnapshotMeta, TypeConfig, Vote};
use futures::future::{select, Either};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::OptionalSend;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// One round, as in the real node.
const ROUND: Duration = Duration::from_millis(1_000);

/// Time for a snapshot to arrive and to be installed.
const INSTALL: Duration = Duration::from_millis(2_000);

/// A snapshot with its contents.
pub(super) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Arc<Image>>;

/// What nodes ask of each other.
pub(super) enum Call {
    Peer(Request),
    Snapshot(Vote, SnapshotMeta, Arc<Image>),
}

type Answer = Result<Reply, PeerError>;

/// A request as it arrives.
pub(super) struct Ask {
    pub(super) call: Call,
    pub(super) answer: AnswerTo,
}

/// The way back of an answer. Dropped with the node that should have given it.
pub(super) struct AnswerTo {
    net: Net,
    from: u64,
    to: u64,
    number: u64,
    sender: Option<oneshot::Sender<Answer>>,
}

impl AnswerTo {
    pub(super) fn send(mut self, answer: Answer) {
        if let Some(sender) = self.sender.take() {
            self.net.inner().send(self.from, self.to, Packet::Answer(sender, answer));
        }
    }
}

enum Packet {
    Ask(Box<Call>, oneshot::Sender<Answer>),
    Answer(oneshot::Sender<Answer>, Answer),
}

/// What is wrong with one way of a link.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fault {
    pub(super) cut: bool,
    /// Most milliseconds that a message takes beside the usual ones.
    pub(super) slow: u64,
    /// Messages lost, of a thousand.
    pub(super) loss: u64,
}

struct Inner {
    time: Arc<Time>,
    rng: Rng,
    faults: BTreeMap<(u64, u64), Fault>,
    down: BTreeSet<u64>,
    queue: BTreeMap<(u64, u64), (u64, u64, Packet)>,
    sent: u64,
    /// Those who wait for these find out by their own patience.
    lost: Vec<oneshot::Sender<Answer>>,
    /// These hear of it next.
    broken: BTreeMap<u64, oneshot::Sender<Answer>>,
    trace: u64,
}

/// All links. Clones share them.
#[derive(Clone)]
pub(super) struct Net {
    inner: Arc<Mutex<Inner>>,
}

impl Inner {
    fn send(&mut self, from: u64, to: u64, packet: Packet) {
        let fault = self.faults.get(&(from, to)).copied().unwrap_or_default();
        // Two thirds within the millisecond, the rest a little later.
        let usual = [0, 0, 0, 1, 1, 2];
        let delay = self.rng.pick(&usual).copied().unwrap_or(0) + self.rng.within(0..=fault.slow);
        let lost = self.rng.chance(fault.loss);
        if !lost {
            self.sent += 1;
            self.queue.insert((self.time.ms() + delay, self.sent), (from, to, packet));
        } else {
            let (Packet::Ask(_, sender) | Packet::Answer(sender, _)) = packet;
            self.lost.push(sender);
        }
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.faults.get(&(from, to)).is_some_and(|fault| fault.cut)
    }
}

impl Drop for AnswerTo {
    /// The connection breaks, if that can be heard of at all. In order: a runtime that is dropped drops its tasks in an order
    /// that depends on what the process did before.
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let mut inner = self.net.inner();
            if inner.is_cut(self.from, self.to) {
                inner.lost.push(sender);
            } else {
                inner.broken.insert(self.number, sender);
            }
        }
    }
}

impl Net {
    pub(super) fn new(time: Arc<Time>, rng: Rng) -> Self {
        let inner = Inner {
            time,
            rng,
            faults: BTreeMap::new(),
            down: BTreeSet::new(),
            queue: BTreeMap::new(),
            sent: 0,
            lost: Vec::new(),
            broken: BTreeMap::new(),
            trace: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn set_fault(&self, from: u64, to: u64, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.inner().faults.insert((from, to), fault),
            None => self.inner().faults.remove(&(from, to)),
        };
    }

    pub(super) fn heal(&self) {
        self.inner().faults.clear();
    }

    pub(super) fn set_down(&self, node: u64, down: bool) {
        let mut inner = self.inner();
        if down {
            inner.down.insert(node);
        } else {
            inner.down.remove(&node);
        }
    }

    /// What has happened so far, as one number.
    pub(super) fn trace(&self) -> u64 {
        self.inner().trace
    }

    /// Hands over what is due. Answers go to whoever waits; requests are returned, with the node that they are for.
    pub(super) fn deliver(&self) -> Vec<(u64, Ask)> {
        let mut asks = Vec::new();
        let mut inner = self.inner();
        while inner.broken.pop_first().is_some() {}
        let now = inner.time.ms();
        while inner.queue.first_key_value().is_some_and(|((due, _), _)| *due <= now) {
            let Some(((due, number), (from, to, packet))) = inner.queue.pop_first() else { break };
            if inner.is_cut(from, to) {
                match packet {
                    Packet::Ask(_, sender) | Packet::Answer(sender, _) => inner.lost.push(sender),
                }
                continue;
            }
            for word in [due, number, from, to] {
                inner.trace = (inner.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
            }
            match packet {
                Packet::Answer(sender, answer) => {
                    sender.send(answer).ok();
                }
                Packet::Ask(_, sender) if inner.down.contains(&to) => {
                    sender.send(Err(PeerError::Unreachable("down".into()))).ok();
                }
                Packet::Ask(call, sender) => {
                    let answer = AnswerTo { net: self.clone(), from: to, to: from, number, sender: Some(sender) };
                    asks.push((to, Ask { call: *call, answer }));
                }
            }
        }
        asks
    }
}

/// One node's way to the others. Clones share it.
#[derive(Clone)]
pub(super) struct SimPeers {
    pub(super) id: u64,
    pub(super) net: Net,
}

pub(super) fn member(id: u64) -> Member {
    Member { peer: id.to_string(), name: format!("node{id}") }
}

impl SimPeers {
    pub(super) async fn call(&self, to: u64, call: Call, limit: Duration) -> Answer {
        let (sender, wait) = oneshot::channel();
        self.net.inner().send(self.id, to, Packet::Ask(Box::new(call), sender));
        match timeout(limit, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(PeerError::NoAnswer("it went down".into())),
            Err(_) => Err(PeerError::NoAnswer("late".into())),
        }
    }

    pub(super) async fn ask(&self, to: u64, request: Request, limit: Duration) -> Answer {
        self.call(to, Call::Peer(request), limit).await
    }
}

impl Transport for SimPeers {
    async fn send(&self, id: u64, _to: &Member, message: LeaseMessage, limit: Duration) -> Option<LeaseAck> {
        match self.ask(id, Request::Lease(message), limit).await {
            Ok(Reply::Leased(ack)) => Some(ack),
            _ => None,
        }
    }
}

/// Read indexes, from here or from the node that leads.
#[derive(Clone)]
pub(super) struct Rounds {
    pub(super) raft: super::node::Raft,
    pub(super) peers: SimPeers,
    pub(super) lease: Lease,
}

impl gate::Leader for Rounds {
    async fn read_at(&self) -> Result<ReadAt, PeerError> {
        let leader = self.raft.metrics().borrow_watched().current_leader;
        match leader {
            Some(id) if id == self.peers.id => hooks::read_at(&self.raft, &self.lease).await,
            Some(id) => match self.peers.ask(id, Request::ReadAt, ROUND).await? {
                Reply::ReadAt { index, barrier } => Ok(ReadAt { index, barrier }),
                _ => Err(PeerError::NoAnswer("an answer of another kind".into())),
            },
            None => Err(PeerError::NotLeader { leader: None }),
        }
    }
}

/// Makes clients for openraft.
pub(super) struct Network {
    pub(super) peers: SimPeers,
    pub(super) lease: Lease,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &Member) -> Client {
        Client { peers: self.peers.clone(), lease: self.lease.clone(), target }
    }
}

/// openraft's way to one peer.
pub(super) struct Client {
    peers: SimPeers,
    lease: Lease,
    target: u64,
}

fn rpc_error(error: PeerError) -> RPCError<TypeConfig> {
    match error {
        PeerError::Unreachable(_) | PeerError::Stopped(_) => RPCError::Unreachable(Unreachable::new(&error)),
        other => RPCError::Network(NetworkError::new(&other)),
    }
}

fn other_kind<T>() -> Result<T, RPCError<TypeConfig>> {
    Err(rpc_error(PeerError::NoAnswer("an answer of another kind".into())))
}

impl Client {
    async fn ask(&self, request: Request, limit: Duration) -> Result<Reply, RPCError<TypeConfig>> {
        self.peers.ask(self.target, request, limit).await.map_err(rpc_error)
    }

    async fn send(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let call = Call::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        match self.peers.call(self.target, call, INSTALL).await.map_err(rpc_error)? {
            Reply::Installed(response) => Ok(response),
            _ => other_kind().map_err(Into::into),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Arc<Image>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let sent = Sent::new(&self.lease, &rpc);
        let Reply::Append(response) = self.ask(Request::Append(rpc), option.hard_ttl()).await? else {
            return other_kind();
        };
        sent.answered(&self.lease, self.target, &response);
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let vote = rpc.vote;
        match self.ask(Request::Vote(rpc), option.hard_ttl()).await? {
            Reply::Voted(response, age) => {
                hooks::voted(&self.lease, &vote, self.target, &response, age);
                Ok(response)
            }
            _ => other_kind(),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Request::PreVote(rpc), option.hard_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            _ => other_kind(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        match select(pin!(self.send(vote, snapshot)), pin!(cancel)).await {
            Either::Left((result, _)) => result,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Request::TransferLeader(rpc), option.hard_ttl()).await? {
            Reply::TransferLeader(response) => Ok(response),
            _ => other_kind(),
        }
    }
}

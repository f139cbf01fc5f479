//! One replica, as the rest of the service sees it.

use crate::clock::boottime;
use crate::disks::Disks;
use crate::error::{NodeError, StartError};
use crate::gate::{self, ReadAt, ReadGate};
use crate::hooks::{self, stopped, write_error, WriteStage};
use crate::lease::{self, Ground, Lease, Transport};
use crate::network::{Incoming, Network};
use crate::peer::{AdminRequest, Decided, Lane, PeerError, Peers, Reply, Request};
use crate::purge::{purgeable, HELD_SNAPSHOTS};
use crate::status::{LeaseStatus, MemberStatus, Role, Status};
use claviger_lease::{LeaseAck, LeaseMessage};
use claviger_log::{check_order, Member, RaftLog, StateMachine, StateStore, TypeConfig, View, CHECK_EVERY};
use claviger_state_machine::read;
use claviger_types::command::{Actor, Command, Entry, NoteDisk};
use claviger_types::name::Id128;
use claviger_types::outcome::Outcome;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::{ChangeMembers, Config, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// openraft with our types.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// How long a proposal is tried: longer than an election, shorter than the time-out of any SDK (60 s and more).
const PROPOSE: Duration = Duration::from_secs(10);

/// How long one forwarded attempt waits: a commit takes milliseconds, an election less than a second.
const ATTEMPT: Duration = Duration::from_millis(1_500);

/// One round: an answer later than this means that the leader has gone.
const ROUND: Duration = Duration::from_millis(1_000);

/// How long other nodes' clocks are waited for.
const CLOCKS: Duration = Duration::from_secs(2);

/// Wait before asking again who leads.
const NO_LEADER: Duration = Duration::from_millis(30);

/// Hints that are followed at once; then there is a wait as without one.
const HINTS_AT_ONCE: u32 = 3;

/// How long a new member may take to catch up before an operator is told to look.
const JOIN: Duration = Duration::from_secs(300);

/// A sync that takes longer than this is taken for a disk that hangs: a slow one takes a tenth.
const STUCK: Duration = Duration::from_secs(1);

/// How often the leader looks at its disk.
const STUCK_LOOK: Duration = Duration::from_millis(250);

/// How long the leader's answer is waited for when a lease is given back (design R6).
const RESIGN: Duration = Duration::from_millis(50);

/// How long a snapshot may take that erasure waits for.
const ERASE_SNAPSHOT: Duration = Duration::from_secs(600);

/// How long a node that is to lead may take to answer.
const HAND_OVER: Duration = Duration::from_millis(500);

/// How long a node that joins may take to answer.
const GREET: Duration = Duration::from_secs(2);

/// How long the leader may take to write down where a node is reached.
const MOVE: Duration = Duration::from_secs(10);

/// How often it is looked whether the disks and addresses of members are written down.
const NOTE_LOOK: Duration = Duration::from_millis(1_000);

/// How often it is looked whether entries behind a snapshot can go.
const PURGE_LOOK: Duration = Duration::from_millis(500);

/// Settings of one replica. Times are in milliseconds.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Unique in the cluster, never reused with an empty disk.
    pub id: u64,
    /// Name in its peer certificate.
    pub name: String,
    /// `host:port` where peers reach it.
    pub advertise: String,
    /// The world: peers of another are refused.
    pub world: Id128,
    /// Between two heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// Silence after which a follower begins to wait for an election.
    pub election_min_ms: u64,
    /// Longest such wait.
    pub election_max_ms: u64,
    /// Entries after which a snapshot is made.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot, for followers that are a little behind.
    pub keep_entries: u64,
}

/// Reads without a leader, as operators allow them at one node (design B7).
#[derive(Debug, Clone, Copy)]
pub struct Emergency {
    /// How far behind an answer may be.
    pub bound: Duration,
    /// After which time it is over by itself.
    pub lasts: Duration,
}

/// The stores of one replica.
pub struct Storage {
    log: RaftLog,
    state: StateStore,
    /// See [`RaftLog::disk`].
    disk: Id128,
    /// Why this state must not be served any more, if that is so.
    quarantine: PathBuf,
}

impl Storage {
    /// Opens or creates both stores under `dir` and refuses what does not belong together.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let log = RaftLog::open(&dir.join("raft"))?;
        let state = StateStore::open(&dir.join("state"))?;
        check_order(&log, &state)?;
        let disk = log.disk(fresh_id()?)?;
        state.tell(log.fence());
        let quarantine = dir.join("QUARANTINE");
        match std::fs::read_to_string(&quarantine) {
            Ok(why) => state.report_fault(why),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { log, state, disk, quarantine })
    }

    /// The state tables.
    pub fn state(&self) -> &StateStore {
        &self.state
    }
}

type Service = Box<dyn Fn(Vec<u8>) -> futures::future::BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// A running replica. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    raft: Raft,
    state: StateStore,
    peers: Peers,
    disks: Arc<Disks>,
    gate: ReadGate,
    lease: Lease,
    leasing: tokio::task::AbortHandle,
    incoming: Incoming,
    service: OnceLock<Service>,
    clock: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    write_times: OnceLock<Box<dyn Fn(WriteStage, Duration) + Send + Sync>>,
}

impl Node {
    /// Starts the replica: recovers what is on disk and takes part from then on.
    pub async fn start(config: NodeConfig, storage: Storage, peers: Peers) -> Result<Self, StartError> {
        let Storage { log, state, disk, quarantine } = storage;
        check_owner(&config, &log, &state)?;
        state.check_in_background(CHECK_EVERY)?;
        let raft_config = raft_config(&config)?;
        if boottime() == 0 {
            return Err(StartError::Config("the system has no clock that counts while it sleeps".into()));
        }
        let disks = Arc::new(Disks::new(disk, state.clone()));
        peers.introduce(disks.clone());
        let lease = Lease::new(ground(config.id, &log, &state));
        let disk = log.clone();
        let raft = Raft::new(
            config.id,
            Arc::new(raft_config),
            Network::new(peers.clone(), lease.clone()),
            log,
            StateMachine::new(state.clone()),
        )
        .await
        .map_err(|e| StartError::Consensus(e.to_string()))?;
        lease.watch(raft.metrics());
        let leasing = tokio::spawn(lease::run(lease.clone(), peers.clone())).abort_handle();
        let rounds = Rounds { id: config.id, raft: raft.clone(), peers: peers.clone(), lease: lease.clone() };
        let gate = ReadGate::start(rounds, state.applied(), state.fault(), lease.clone());
        let incoming = Incoming::new(state.incoming_dir());
        let inner = Inner {
            config,
            raft,
            state,
            peers,
            disks,
            gate,
            lease,
            leasing,
            incoming,
            service: OnceLock::new(),
            clock: OnceLock::new(),
            write_times: OnceLock::new(),
        };
        let node = Self { inner: Arc::new(inner) };
        tokio::spawn(leave_stuck_disk(Arc::downgrade(&node.inner), disk));
        tokio::spawn(purge_log(Arc::downgrade(&node.inner)));
        tokio::spawn(keep_address(Arc::downgrade(&node.inner)));
        tokio::spawn(keep_disks_noted(Arc::downgrade(&node.inner)));
        tokio::spawn(stop_serving(Arc::downgrade(&node.inner), quarantine));
        Ok(node)
    }

    /// Answers operators' requests of the layer above; set once, before peers are served.
    pub fn set_service<F, Fut>(&self, service: F)
    where
        F: Fn(Vec<u8>) -> Fut + Send + Sync + 'static,
        Fut: std::future::Future<Output = Result<Vec<u8>, String>> + Send + 'static,
    {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.service.set(Box::new(move |bytes| Box::pin(service(bytes)))).ok();
    }

    /// The wall clock, in milliseconds since 1970; set once, at the start. With it the leader stamps every entry itself
    /// (design C1), so that the clock of the node that took a request does not matter.
    pub fn set_clock(&self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.clock.set(Box::new(now_ms)).ok();
    }

    /// Is told how long the stages of each write took that this node carried out as the leader; set once, at the start.
    pub fn set_write_times(&self, observe: impl Fn(WriteStage, Duration) + Send + Sync + 'static) {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.write_times.set(Box::new(observe)).ok();
    }

    fn wall_ms(&self) -> Option<u64> {
        self.inner.clock.get().map(|now_ms| now_ms())
    }

    /// The latest time that the clocks of a majority of the voters have reached, this node's included; `None` when a
    /// majority does not answer. One clock that is far ahead must not bring forward what cannot be undone.
    pub async fn agreed_ms(&self) -> Option<u64> {
        let own = self.wall_ms()?;
        let voters: Vec<u64> = self.inner.raft.voter_ids().collect();
        let others = voters.iter().filter(|id| **id != self.id()).filter_map(|id| Some((*id, self.member_of(*id)?)));
        let asked = others.map(|(id, member)| async move {
            let call = self.inner.peers.call_node(id, &member, Lane::Control, &Request::Status, CLOCKS).await;
            match call {
                Ok(Reply::Status(status)) if status.wall_ms > 0 => Some(status.wall_ms),
                _ => None,
            }
        });
        let mut clocks: Vec<u64> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        clocks.push(own);
        clocks.sort_unstable_by(|a, b| b.cmp(a));
        // The n-th latest of n: so many clocks are at least there.
        clocks.get(voters.len() / 2).copied()
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.inner.config.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    pub(crate) fn hello_world(&self) -> Id128 {
        self.inner.config.world
    }

    pub(crate) fn disks(&self) -> &Disks {
        &self.inner.disks
    }

    fn member(&self) -> Member {
        Member { peer: self.inner.config.advertise.clone(), name: self.inner.config.name.clone() }
    }

    /// Makes a new cluster with this node as its only member. Refused when it has a log already.
    pub async fn initialize(&self) -> Result<(), NodeError> {
        let members = BTreeMap::from([(self.id(), self.member())]);
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(NodeError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(_)) => Err(NodeError::Refused("this node belongs to a cluster already".into())),
        }
    }

    /// Whether the node belongs to a cluster.
    pub async fn is_initialized(&self) -> Result<bool, NodeError> {
        self.inner.raft.is_initialized().await.map_err(|fatal| NodeError::Stopped(fatal.to_string()))
    }

    /// Stands for election at once: what the only voter does at start-up instead of waiting for a leader.
    pub async fn elect_if_alone(&self) -> Result<(), NodeError> {
        let voters = self.inner.raft.voter_ids().collect::<Vec<_>>();
        if voters == [self.id()] {
            self.inner.raft.trigger().elect(false).await.map_err(|fatal| NodeError::Stopped(fatal.to_string()))?;
        }
        Ok(())
    }

    /// The leases of this node, for metrics.
    pub fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    /// Lets this node answer reads although nobody leads, from a state that is at most so far behind, for some time; `None`
    /// ends it. Writes still need a majority.
    pub fn set_emergency(&self, emergency: Option<Emergency>) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        match emergency {
            Some(Emergency { bound, lasts }) => {
                tracing::error!(?bound, ?lasts, "EMERGENCY: this node answers from its own state, which may be old");
                self.inner.lease.set_emergency(Some((nanos(bound), nanos(lasts))));
            }
            None => {
                tracing::error!("EMERGENCY is over");
                self.inner.lease.set_emergency(None);
            }
        }
    }

    /// The door for reads: see [`ReadGate`].
    pub fn gate(&self) -> &ReadGate {
        &self.inner.gate
    }

    /// A consistent view of what is applied here. Linearizable only behind the gate.
    pub fn view<T>(&self, query: impl FnOnce(&View<'_>) -> T) -> T {
        self.inner.state.view(query)
    }

    /// The state store, for maintenance.
    pub fn state(&self) -> &StateStore {
        &self.inner.state
    }

    /// Whether this node leads as far as it knows: for timers, never for reads.
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// Proposes an entry and waits for its outcome; forwards it to the leader where that is another node.
    ///
    /// While time is left, an unknown outcome is tried again under the same request id, which the state machine
    /// recognizes: so it acts once. [`NodeError::Unknown`] when the time is over.
    pub async fn propose(&self, entry: &Entry) -> Result<Outcome, NodeError> {
        Ok(self.decide(entry).await?.outcome)
    }

    /// As [`Node::propose`], and says at which log index it was decided.
    pub async fn decide(&self, entry: &Entry) -> Result<Decided, NodeError> {
        let bytes = entry.to_bytes().map_err(|e| NodeError::Refused(e.to_string()))?;
        let deadline = Instant::now() + PROPOSE;
        let mut maybe_done = false;
        let mut hint = None;
        // Two nodes that take each other for the leader must not keep us busy.
        let mut hints = 0;
        loop {
            let target = match hint.take() {
                Some(id) => Some(id),
                None => self.inner.raft.metrics().borrow_watched().current_leader,
            };
            let result = match target {
                Some(id) if id != self.id() => match self.member_of(id) {
                    Some(member) => self.forward(id, &member, bytes.clone(), deadline).await,
                    None => Err(PeerError::NotLeader { leader: None }),
                },
                Some(_) => self.propose_here(bytes.clone(), deadline).await,
                None => Err(PeerError::NotLeader { leader: None }),
            };
            match result {
                Ok(decided) => return Ok(decided),
                Err(PeerError::Refused(why)) => return Err(NodeError::Refused(why)),
                Err(PeerError::NotLeader { leader }) => {
                    hints += 1;
                    hint = leader.filter(|l| Some(*l) != target && hints % HINTS_AT_ONCE != 0);
                }
                Err(PeerError::Unreachable(_)) => {}
                // This node cannot find out any more what became of the entry.
                Err(PeerError::Stopped(_)) if target == Some(self.id()) => return Err(NodeError::Unknown),
                Err(PeerError::Unknown | PeerError::NoQuorum | PeerError::NoAnswer(_) | PeerError::Stopped(_)) => {
                    maybe_done = true;
                }
            }
            if Instant::now() + NO_LEADER >= deadline {
                return Err(if maybe_done { NodeError::Unknown } else { NodeError::Unavailable("no leader in time") });
            }
            if hint.is_none() {
                tokio::time::sleep(NO_LEADER).await;
            }
        }
    }

    async fn forward(&self, id: u64, to: &Member, bytes: Vec<u8>, deadline: Instant) -> Result<Decided, PeerError> {
        // One attempt must not wait for a leader that has gone; the next one is recognized as a retry.
        let left = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT);
        let request = Request::Propose(bytes);
        let answer = self.inner.peers.call_node(id, to, Lane::Propose, &request, left);
        match unless_replaced(&self.inner.raft, id, answer).await? {
            Reply::Decided(decided) => Ok(*decided),
            Reply::Outcome(outcome) => Ok(Decided { outcome: *outcome, index: 0 }),
            _ => Err(PeerError::NoAnswer("an answer of another kind".into())),
        }
    }

    async fn propose_here(&self, bytes: Vec<u8>, deadline: Instant) -> Result<Decided, PeerError> {
        let bytes = self.stamp(bytes)?;
        let took = |stage, time| {
            if let Some(observe) = self.inner.write_times.get() {
                observe(stage, time);
            }
        };
        hooks::write(&self.inner.raft, &self.inner.lease, bytes, deadline, took).await
    }

    /// Gives an entry the leader's time. It is no part of what makes a retry a retry.
    fn stamp(&self, bytes: Vec<u8>) -> Result<Vec<u8>, PeerError> {
        let Some(now_ms) = self.wall_ms() else { return Ok(bytes) };
        let malformed = |error: claviger_types::codec::CodecError| PeerError::Refused(error.to_string());
        let mut entry = Entry::from_bytes(&bytes).map_err(malformed)?;
        entry.time_ms = now_ms;
        entry.to_bytes().map_err(malformed)
    }

    fn member_of(&self, id: u64) -> Option<Member> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let member = metrics.membership_config.membership().get_node(&id).cloned();
        member
    }

    /// An operator's command, carried out by the leader.
    pub async fn admin(&self, request: AdminRequest) -> Result<Vec<u8>, NodeError> {
        match self.answer(Request::Admin(request)).await {
            Ok(Reply::Done(bytes)) => Ok(bytes),
            Ok(_) => Err(NodeError::Refused("an answer of another kind".into())),
            Err(error) => Err(NodeError::Refused(error.to_string())),
        }
    }

    /// Answers a peer.
    pub(crate) async fn answer(&self, request: Request) -> Result<Reply, PeerError> {
        let raft = &self.inner.raft;
        Ok(match request {
            Request::Append(rpc) => Reply::Append(hooks::append(raft, &self.inner.lease, rpc).await?),
            Request::Vote(rpc) => {
                let (response, age) = hooks::vote(raft, &self.inner.lease, rpc).await?;
                Reply::Voted(response, age)
            }
            Request::PreVote(rpc) => Reply::Vote(raft.pre_vote(rpc).await.map_err(stopped)?),
            Request::TransferLeader(rpc) => {
                Reply::TransferLeader(raft.handle_transfer_leader(rpc).await.map_err(stopped)?)
            }
            Request::Snapshot(step) => self.inner.incoming.step(step, raft).await?,
            Request::Propose(bytes) => {
                Reply::Decided(Box::new(self.propose_here(bytes, Instant::now() + PROPOSE).await?))
            }
            Request::ReadIndex => Reply::ReadIndex(hooks::read_at(raft, &self.inner.lease).await?.index),
            Request::ReadAt => {
                let read = hooks::read_at(raft, &self.inner.lease).await?;
                Reply::ReadAt { index: read.index, barrier: read.barrier }
            }
            Request::Lease(message) => {
                let ack = self.inner.lease.receive(&message).ok_or(PeerError::NotLeader { leader: None })?;
                Reply::Leased(ack)
            }
            Request::GiveBack(id, ack) => {
                self.inner.lease.given_back(id, &ack);
                Reply::Done(Vec::new())
            }
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Admin(AdminRequest::Service(bytes)) => match self.inner.service.get() {
                Some(service) => Reply::Done(service(bytes).await.map_err(PeerError::Refused)?),
                None => return Err(PeerError::Refused("this node does not serve yet".into())),
            },
            Request::Admin(AdminRequest::Snapshot) => {
                raft.trigger().snapshot().await.map_err(stopped)?;
                Reply::Done(Vec::new())
            }
            Request::Admin(command) => {
                // A task of its own: what is half done when an operator loses patience would stay so.
                let node = self.clone();
                let task = tokio::spawn(async move { node.change_membership(command).await });
                task.await.map_err(stopped)??;
                Reply::Done(Vec::new())
            }
        })
    }

    async fn change_membership(&self, command: AdminRequest) -> Result<(), PeerError> {
        if !self.is_leader() {
            let leader = self.inner.raft.metrics().borrow_watched().current_leader;
            return Err(PeerError::NotLeader { leader });
        }
        match command {
            AdminRequest::Join { id, member } => self.join(id, member).await,
            AdminRequest::Move { id, member } => self.moved(id, member).await,
            AdminRequest::Remove { id } => self.remove(id).await,
            AdminRequest::TransferLeader { to } => self.transfer_leader(to).await,
            AdminRequest::Snapshot | AdminRequest::Service(_) => Ok(()),
        }
    }

    async fn join(&self, id: u64, member: Member) -> Result<(), PeerError> {
        let raft = &self.inner.raft;
        let voters: Vec<u64> = raft.voter_ids().collect();
        let known = self.member_of(id);
        if voters.contains(&id) && known.as_ref() == Some(&member) {
            return self.still_has_its_log(id, &member).await;
        }
        if voters.contains(&id) {
            return self.moved(id, member).await;
        }
        self.is_free(id, &member)?;
        let is_new = known.is_none();
        // It says which disk it has when it is called, and votes only after that is written down.
        let status = self.inner.peers.call_node(id, &member, Lane::Control, &Request::Status, GREET).await?;
        let Reply::Status(status) = status else { return Err(PeerError::NoAnswer("an answer of another kind".into())) };
        // Logs of two clusters may look alike: by term and index alone nobody could tell them apart later.
        let ours = status.members.iter().any(|member| self.at_address(&member.peer) == Some(member.id));
        if status.last_index > 0 && !ours {
            return Err(PeerError::Refused(format!(
                "node {id} belongs to another cluster: stop it, and let it join with an empty data directory"
            )));
        }
        if known.is_some_and(|known| known != member) {
            self.set_address(id, member.clone()).await?;
        }
        let nodes: Vec<u64> = self.members().into_iter().filter(|known| *known != id).chain([id]).collect();
        self.note_disks(&nodes).await.map_err(|error| PeerError::Refused(error.to_string()))?;
        hooks::join(raft, &self.inner.lease, id, member, is_new, JOIN).await?;
        tracing::info!(node = id, "node joined as a voter");
        Ok(())
    }

    /// A member is reached at another address. It answers there, and has the disk that it must have: so it is the one.
    async fn moved(&self, id: u64, member: Member) -> Result<(), PeerError> {
        let known = self.member_of(id).ok_or_else(|| PeerError::Refused(format!("node {id} is not a member")))?;
        if known == member {
            return Ok(());
        }
        if known.name != member.name {
            let name = known.name;
            return Err(PeerError::Refused(format!("node {id} is a member under the name `{name}`: remove it first")));
        }
        self.is_free(id, &member)?;
        if id != self.id() {
            self.still_has_its_log(id, &member).await?;
        }
        self.set_address(id, member.clone()).await?;
        tracing::info!(node = id, peer = member.peer, "a node is reached elsewhere");
        Ok(())
    }

    async fn set_address(&self, id: u64, member: Member) -> Result<(), PeerError> {
        let nodes = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
        self.inner.raft.change_membership(nodes, true).await.map(|_| ()).map_err(write_error)
    }

    /// Whether no other member is reached where this one wants to be.
    fn is_free(&self, id: u64, member: &Member) -> Result<(), PeerError> {
        match self.at_address(&member.peer).filter(|other| *other != id) {
            None => Ok(()),
            Some(other) => Err(PeerError::Refused(format!(
                "node {other} is a member at `{}`: remove it first, or give node {id} an address of its own",
                member.peer
            ))),
        }
    }

    /// Tells the cluster where this node is reached, if that is not what the cluster knows.
    async fn announce_address(&self) -> Result<(), NodeError> {
        let (id, member) = (self.id(), self.member());
        if self.member_of(id).is_none_or(|known| known == member) {
            return Ok(());
        }
        let request = AdminRequest::Move { id, member };
        if self.is_leader() {
            return self.admin(request).await.map(|_| ());
        }
        // The leader cannot be heard by who is called elsewhere: somebody knows it.
        let mut said = NodeError::Unavailable("no other member answers");
        for other in self.members().into_iter().filter(|other| *other != id) {
            let Some(to) = self.member_of(other) else { continue };
            let request = Request::Admin(request.clone());
            match self.inner.peers.call_node(other, &to, Lane::Control, &request, MOVE).await {
                Ok(_) => return Ok(()),
                Err(PeerError::NotLeader { .. } | PeerError::Unreachable(_)) => {}
                Err(error) => said = NodeError::Refused(error.to_string()),
            }
        }
        Err(said)
    }

    /// The member that is reached at an address.
    fn at_address(&self, peer: &str) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let found = metrics.membership_config.membership().nodes().find(|(_, member)| member.peer == peer);
        found.map(|(id, _)| *id)
    }

    fn members(&self) -> Vec<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, _)| *id).collect()
    }

    /// Writes down on which disks these nodes have their logs. Before the first time all of them must have said so: one of
    /// an older release would not know the command, and stop.
    async fn note_disks(&self, nodes: &[u64]) -> Result<(), NodeError> {
        let disks = &self.inner.disks;
        let disk_of = |node: u64| if node == self.id() { Some(disks.own()) } else { disks.seen(node) };
        let mut noted = Vec::new();
        for node in nodes {
            noted.push(
                self.view(|view| read::disk(view, *node)).map_err(|error| NodeError::Stopped(error.to_string()))?,
            );
        }
        if noted.iter().all(Option::is_none) && nodes.iter().any(|node| disk_of(*node).is_none()) {
            return Ok(());
        }
        for (node, noted) in nodes.iter().copied().zip(noted) {
            let Some(disk) = disk_of(node) else { continue };
            // A member's is never replaced: that is what it is for.
            if disks.expected(node).is_some() || noted == Some(disk) {
                continue;
            }
            let stopped = |error: io::Error| NodeError::Stopped(error.to_string());
            let command = Command::NoteDisk(NoteDisk { node, disk });
            let entry = Entry::new(
                fresh_id().map_err(stopped)?,
                Actor::System,
                self.wall_ms().unwrap_or(0),
                &command,
                Vec::new(),
            );
            self.propose(&entry.map_err(|error| NodeError::Refused(error.to_string()))?).await?;
            tracing::info!(node, "the disk of a node is written down");
        }
        Ok(())
    }

    /// A voter that comes back with an empty log could vote twice in one term: it must be removed first.
    async fn still_has_its_log(&self, id: u64, member: &Member) -> Result<(), PeerError> {
        if id == self.id() {
            return Ok(());
        }
        match self.inner.peers.call_node(id, member, Lane::Control, &Request::Status, GREET).await? {
            Reply::Status(status) if status.last_index == 0 => Err(PeerError::Refused(format!(
                "node {id} is a voter, but its disk is empty: remove it first, then join it again"
            ))),
            _ => Ok(()),
        }
    }

    async fn remove(&self, id: u64) -> Result<(), PeerError> {
        let raft = &self.inner.raft;
        let voters: BTreeSet<u64> = raft.voter_ids().collect();
        if self.member_of(id).is_none() {
            return Err(PeerError::Refused(format!("node {id} is not a member")));
        }
        if voters == BTreeSet::from([id]) {
            return Err(PeerError::Refused(format!("node {id} is the last voter")));
        }
        if id == self.id() {
            return Err(PeerError::Refused(format!(
                "node {id} leads: hand the leadership over first (`claviger cluster transfer-leader`)"
            )));
        }
        hooks::remove(raft, &self.inner.lease, id).await?;
        tracing::info!(node = id, "node removed");
        Ok(())
    }

    async fn transfer_leader(&self, to: u64) -> Result<(), PeerError> {
        if !self.inner.raft.voter_ids().any(|id| id == to) {
            return Err(PeerError::Refused(format!("node {to} is not a voter")));
        }
        // A leader that waits for one that is not there writes nothing more, and keeps the others from an election.
        if let Some(member) = self.member_of(to).filter(|_| to != self.id()) {
            let answer = self.inner.peers.call_node(to, &member, Lane::Control, &Request::Status, HAND_OVER).await;
            answer.map_err(|error| PeerError::Refused(format!("node {to} cannot take over: {error}")))?;
        }
        self.inner.raft.trigger().transfer_leader(to).await.map_err(stopped)?;
        let wait = self.inner.raft.wait(Some(Duration::from_secs(5)));
        let done = wait.metrics(|m| m.current_leader == Some(to), "leadership handed over").await;
        done.map(|_| ()).map_err(|_| PeerError::Refused(format!("node {to} did not take over in time")))
    }

    /// Hands the leadership to another voter, if this node has it and there is one; for a clean stop.
    pub async fn step_down(&self) {
        if !self.is_leader() {
            return;
        }
        // The voter that has most of the log: the others would have to wait for it.
        let matched = |id: &u64| {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            let known = metrics.replication.as_ref().and_then(|known| known.get(id).cloned().flatten());
            known.map_or(0, |id| id.index)
        };
        let own = self.id();
        let other = self.inner.raft.voter_ids().filter(|id| *id != own).max_by_key(matched);
        if let Some(to) = other {
            if let Err(error) = self.transfer_leader(to).await {
                tracing::warn!(%error, to, "leadership was not handed over");
            }
        }
    }

    /// Gives this node's lease back, so that nobody waits for it (design R6); for a clean stop. The leader is told once.
    pub async fn resign(&self) {
        let ack = self.inner.lease.resign();
        let leader = self.inner.raft.metrics().borrow_watched().current_leader.filter(|id| *id != self.id());
        if let Some((id, leader)) = leader.and_then(|id| Some((id, self.member_of(id)?))) {
            let told = self
                .inner
                .peers
                .call_node(id, &leader, Lane::Control, &Request::GiveBack(self.id(), ack), RESIGN)
                .await;
            if let Err(error) = told {
                tracing::debug!(%error, "the leader waits for the end of this node's lease");
            }
        }
    }

    /// Makes sealed material that was purged after log index `erased` leave this node's files: a snapshot without it, the log
    /// purged up to there, the tables rewritten. Answers the index up to which nothing is left; costs what the state's
    /// material costs to rewrite, and nothing when nothing was purged.
    pub async fn erase_purged(&self, erased: u64) -> Result<u64, NodeError> {
        let fault = |error: String| NodeError::Stopped(error);
        let purged = self.view(|view| read::last_purge(view)).map_err(|e| fault(e.to_string()))?;
        if purged <= erased {
            return Ok(erased);
        }
        let raft = &self.inner.raft;
        raft.trigger().snapshot().await.map_err(|e| fault(e.to_string()))?;
        let wait = raft.wait(Some(ERASE_SNAPSHOT));
        let built = wait.metrics(|m| m.snapshot.is_some_and(|id| id.index >= purged), "snapshot after a purge").await;
        let built = built.map_err(|_| NodeError::Unavailable("no snapshot in time"))?;
        let upto = built.snapshot.map_or(purged, |id| id.index);
        raft.trigger().purge_log(upto).await.map_err(|e| fault(e.to_string()))?;
        let state = self.inner.state.clone();
        let done = tokio::task::spawn_blocking(move || state.compact_material()).await;
        done.map_err(|e| fault(e.to_string()))?.map_err(|e| fault(e.to_string()))?;
        tracing::info!(index = upto, "purged material was erased");
        Ok(upto)
    }

    /// Stops taking part. What was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        self.inner.leasing.abort();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
    }

    /// Waits until consensus has stopped by itself: a failed disk, a command of a newer release.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "consensus has ended".into();
            }
        }
    }

    /// What this node says of itself.
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner if membership.get_node(&self.id()).is_some() => Role::Learner,
            _ => Role::Outside,
        };
        let index = |id: Option<claviger_log::LogId>| id.map_or(0, |id| id.index);
        let (applied, chain) = self.view(|view| (*self.inner.state.applied().borrow(), read::chain(view)));
        let chain = chain.map(|hash| hash.iter().map(|b| format!("{b:02x}")).collect()).unwrap_or_default();
        Status {
            id: self.id(),
            name: self.name().to_owned(),
            peer: self.inner.config.advertise.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role,
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_index: metrics.last_log_index.unwrap_or(0),
            committed: index(metrics.local_committed),
            applied,
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            chain,
            wall_ms: self.wall_ms().unwrap_or(0),
            read_mode: self.inner.gate.mode(None).to_string(),
            emergency: self.inner.lease.is_emergency(),
            lease: LeaseStatus::from(self.inner.lease.view()),
            members: membership
                .nodes()
                .map(|(id, member)| MemberStatus {
                    id: *id,
                    name: member.name.clone(),
                    peer: member.peer.clone(),
                    voter: voters.contains(id),
                })
                .collect(),
            stopped: metrics.running_state.err().map(|fatal| fatal.to_string()),
            fault: self.inner.state.fault().borrow().clone().or_else(|| self.inner.disks.turned_away()),
        }
    }
}

/// Once the state is known to be wrong: marks it, so that a restart does not forget, gives the lease back and the leadership
/// away. The gate lets nothing through any more. The log is right, so the node goes on voting.
async fn stop_serving(node: Weak<Inner>, quarantine: PathBuf) {
    let mut fault = match node.upgrade() {
        Some(inner) => inner.state.fault(),
        None => return,
    };
    let Ok(why) = fault.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default()) else { return };
    tracing::error!(why, "this node serves no more: remove it and join it again with an empty disk under a new id");
    if let Err(error) = std::fs::write(&quarantine, &why) {
        tracing::error!(%error, "the quarantine could not be written down");
    }
    loop {
        let Some(inner) = node.upgrade() else { return };
        let node = Node { inner };
        node.resign().await;
        node.step_down().await;
        drop(node);
        // Another node may have given up, or be down, and this one have been elected again.
        tokio::time::sleep(STUCK).await;
    }
}

/// Has the cluster call this node where it is.
async fn keep_address(node: Weak<Inner>) {
    let mut said = None;
    loop {
        let Some(inner) = node.upgrade() else { return };
        let error = (Node { inner }).announce_address().await.err();
        // Once for each reason: it is tried for as long as it takes.
        if let Some(error) = error.as_ref().filter(|error| said.as_ref() != Some(*error)) {
            tracing::warn!(%error, "the cluster does not know where this node is reached");
        }
        said = error;
        tokio::time::sleep(NOTE_LOOK).await;
    }
}

/// Writes down which disks the members have, where that is not in the log yet.
async fn keep_disks_noted(node: Weak<Inner>) {
    loop {
        tokio::time::sleep(NOTE_LOOK).await;
        let Some(inner) = node.upgrade() else { return };
        let node = Node { inner };
        let members = node.members();
        // Nobody can take the place of the only one.
        if !node.is_leader() || members.len() < 2 {
            continue;
        }
        if let Err(error) = node.note_disks(&members).await {
            tracing::debug!(%error, "the disks of the members were not written down");
        }
    }
}

/// Removes entries of the log that nobody needs any more.
async fn purge_log(node: Weak<Inner>) {
    loop {
        tokio::time::sleep(PURGE_LOOK).await;
        let Some(inner) = node.upgrade() else { return };
        let upto = purgeable(&inner.raft.metrics().borrow_watched(), inner.config.keep_entries);
        let Some(upto) = upto else { continue };
        if inner.raft.trigger().purge_log(upto).await.is_err() {
            return;
        }
    }
}

/// Hands the leadership over when the disk hangs: a network that is well would keep followers and leases content while no
/// write ends (design B8, gray leader).
async fn leave_stuck_disk(node: Weak<Inner>, disk: RaftLog) {
    loop {
        tokio::time::sleep(STUCK_LOOK).await;
        let Some(inner) = node.upgrade() else { return };
        let node = Node { inner };
        if node.is_leader() && disk.stuck_for() > STUCK {
            tracing::error!("the disk of the log hangs: another node shall lead");
            node.step_down().await;
        }
    }
}

/// The answer of the leader, or none as soon as this node hears of a later one: who was stopped or cut off is not waited
/// for longer than an election takes.
async fn unless_replaced(
    raft: &Raft,
    leader: u64,
    answer: impl Future<Output = Result<Reply, PeerError>>,
) -> Result<Reply, PeerError> {
    let mut metrics = raft.metrics();
    // Only a later one: `leader` may be a hint that is newer than what is known here.
    let term = metrics.borrow_watched().current_term;
    let replaced = async {
        loop {
            let later = {
                let metrics = metrics.borrow_watched();
                metrics.current_term > term && metrics.current_leader.is_some_and(|id| id != leader)
            };
            if later {
                return;
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = replaced => Err(PeerError::NoAnswer("another node leads now".into())),
    }
}

/// Whether the data is this node's, and of this world.
fn check_owner(config: &NodeConfig, log: &RaftLog, state: &StateStore) -> Result<(), StartError> {
    let owner = log.owner(config.id)?;
    if owner != config.id {
        return Err(StartError::Config(format!("the data is that of node {owner}, not of node {}", config.id)));
    }
    let world = state.view(|view| read::world(view)).map_err(|error| StartError::Consensus(error.to_string()))?;
    match world.filter(|world| world.id != config.world) {
        Some(world) => Err(StartError::Config(format!(
            "the data belongs to world {}, and the world key to world {}",
            world.id.guid(),
            config.world.guid()
        ))),
        None => Ok(()),
    }
}

/// An id that nothing else has. Not a secret.
fn fresh_id() -> io::Result<Id128> {
    let mut bytes = [0; 16];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? {
        16 => Ok(Id128::from_random(bytes)),
        // The kernel gives sixteen bytes or none.
        short => Err(io::Error::other(format!("{short} random bytes"))),
    }
}

/// A number that no other life of a node has. Not a secret.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // The kernel gives eight bytes or none; then the time will do.
        _ => boottime(),
    }
}

/// What leases stand on in a real node.
fn ground(id: u64, log: &RaftLog, state: &StateStore) -> Ground {
    let (stood, runs, appended) = (state.clone(), state.clone(), log.clone());
    let (newest, older, condemned) = (state.clone(), state.clone(), state.clone());
    Ground {
        id,
        now: Box::new(boottime),
        random: Box::new(random),
        fence: log.fence(),
        applied: state.applied(),
        applying: Box::new(move || runs.applying()),
        applied_at: Box::new(move || stood.applied_at()),
        membership_index: Box::new(move || appended.membership_index()),
        reads: state.reads(),
        checkpoint: Box::new(move || newest.checkpoint()),
        checkpoint_at: Box::new(move |index| older.checkpoint_at(index)),
        condemn: Box::new(move |why| condemned.report_fault(why.to_owned())),
    }
}

/// Read indexes, from here or from the node that leads.
#[derive(Clone)]
struct Rounds {
    id: u64,
    raft: Raft,
    peers: Peers,
    lease: Lease,
}

impl gate::Leader for Rounds {
    async fn read_at(&self) -> Result<ReadAt, PeerError> {
        let leader = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let id = metrics.current_leader;
            id.map(|id| (id, metrics.membership_config.membership().get_node(&id).cloned()))
        };
        match leader {
            Some((id, _)) if id == self.id => hooks::read_at(&self.raft, &self.lease).await,
            Some((id, Some(member))) => {
                let answer = self.peers.call_node(id, &member, Lane::Control, &Request::ReadAt, ROUND);
                match unless_replaced(&self.raft, id, answer).await? {
                    Reply::ReadAt { index, barrier } => Ok(ReadAt { index, barrier }),
                    _ => Err(PeerError::NoAnswer("an answer of another kind".into())),
                }
            }
            Some((_, None)) | None => Err(PeerError::NotLeader { leader: None }),
        }
    }
}

impl Transport for Peers {
    async fn send(&self, id: u64, to: &Member, message: LeaseMessage, limit: Duration) -> Option<LeaseAck> {
        match self.call_node(id, to, Lane::Control, &Request::Lease(message), limit).await {
            Ok(Reply::Leased(ack)) => Some(ack),
            _ => None,
        }
    }
}

fn raft_config(config: &NodeConfig) -> Result<Config, StartError> {
    let raft = Config {
        cluster_name: config.world.guid(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_min_ms,
        election_timeout_max: config.election_max_ms,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        // The bound. What nobody needs goes earlier: see `purge_log`.
        max_in_snapshot_log_to_keep: config
            .snapshot_entries
            .saturating_mul(HELD_SNAPSHOTS)
            .saturating_add(config.keep_entries),
        // A follower further behind than what is kept gets a snapshot.
        replication_lag_threshold: config.snapshot_entries.saturating_add(config.keep_entries),
        install_snapshot_timeout: 600_000,
        // A leader that is not heard falls silent, so that others may elect one: or one that hears nothing would lead, with
        // nothing to show for it, for as long as its heartbeats arrive. Long enough for an election.
        quorum_loss_probe_interval: Some(config.election_max_ms.saturating_mul(3)),
        // A node that was cut off must not disturb the others when it comes back.
        enable_pre_vote: Some(true),
        // A restarted leader stands for election like everyone else: its old leadership proves nothing.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate().map_err(|e| StartError::Config(e.to_string()))
}

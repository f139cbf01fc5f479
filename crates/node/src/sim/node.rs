//! One replica: what `Node` is made of, over simulated network, disk and clock.

use super::client::{self, Work};
use super::clock::Clock;
use super::net::{Ask, Call, Network, Rounds, SimPeers};
use super::record::Record;
use super::rng::Rng;
use super::store::{Disk, Machine, SimLog, Store};
use super::Mutant;
use crate::gate::ReadGate;
use crate::hooks;
use crate::lease::{self, Ground, Lease};
use crate::peer::{PeerError, Reply, Request};
use claviger_log::TypeConfig;
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Config, SnapshotPolicy};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(super) type Raft = openraft::Raft<TypeConfig, Machine>;

/// How long a proposal that came from another node is tried.
const PROPOSE: Duration = Duration::from_secs(10);

/// How long the leader's answer is waited for when a lease is given back.
const RESIGN: Duration = Duration::from_millis(50);

/// How long a learner may take to catch up.
const JOIN: Duration = Duration::from_secs(3);

/// What is told to a node from outside the cluster.
pub(super) enum Order {
    /// A request of a client.
    Work(Work),
    Join(u64),
    Remove(u64),
    TransferLeader(u64),
    Snapshot,
    /// Give the lease back, hand the leadership over: it will be stopped.
    Resign,
    Initialize(Vec<u64>),
}

/// How openraft runs.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    pub(super) heartbeat_ms: u64,
    pub(super) election_ms: u64,
    /// Of all nodes.
    pub(super) slowest_election_ms: u64,
    pub(super) snapshot_entries: u64,
    pub(super) keep_entries: u64,
}

/// What a node is started with.
pub(super) struct Setup {
    pub(super) id: u64,
    pub(super) timing: Timing,
    pub(super) clock: Arc<Clock>,
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) peers: SimPeers,
    pub(super) record: Record,
    pub(super) rng: Rng,
    pub(super) mutant: Mutant,
}

/// A running replica. Clones share it.
#[derive(Clone)]
pub(super) struct SimNode {
    pub(super) id: u64,
    pub(super) raft: Raft,
    pub(super) lease: Lease,
    pub(super) gate: ReadGate,
    pub(super) store: Store,
    pub(super) log: SimLog,
    pub(super) peers: SimPeers,
    pub(super) record: Record,
    pub(super) mutant: Mutant,
}

/// The same settings as the real node's, but for election time-outs without a random part: each node has its own.
///
/// openraft also draws the phase of its tick. A heartbeat below 10 ms makes the tick 1 ms, and the clock here moves by
/// whole milliseconds: so every phase is the same.
fn config(timing: &Timing) -> Config {
    let raft = Config {
        cluster_name: "sim".into(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_ms,
        election_timeout_max: timing.election_ms + 1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_entries),
        max_in_snapshot_log_to_keep: timing.keep_entries,
        replication_lag_threshold: timing.snapshot_entries + timing.keep_entries,
        install_snapshot_timeout: 2_000,
        quorum_loss_probe_interval: Some(3 * timing.slowest_election_ms),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate().unwrap()
}

impl SimNode {
    pub(super) async fn start(
        setup: Setup,
        orders: mpsc::UnboundedReceiver<Order>,
        asks: Asks,
    ) -> Result<Self, String> {
        let Setup { id, timing, clock, disk, peers, record, rng, mutant } = setup;
        let log = SimLog::open(disk.clone(), mutant);
        let appended = log.appended();
        let store = Store::open(id, disk, appended.fence(), record.clone(), mutant);
        let (stood, runs, memberships) = (store.clone(), store.clone(), appended.clone());
        let (newest, older, judge) = (store.clone(), store.clone(), record.clone());
        let random = Mutex::new(rng);
        let ground = Ground {
            id,
            now: Box::new(move || clock.now()),
            random: Box::new(move || random.lock().unwrap().next()),
            fence: appended.fence(),
            applied: store.applied(),
            applying: Box::new(move || runs.applying()),
            applied_at: Box::new(move || stood.applied_at()),
            membership_index: Box::new(move || memberships.membership_index()),
            reads: store.reads(),
            checkpoint: Box::new(move || newest.checkpoint()),
            checkpoint_at: Box::new(move |index| older.checkpoint_at(index)),
            condemn: Box::new(move |why| judge.wrong(format!("node {id} is condemned: {why}"))),
        };
        let lease = Lease::new(ground);
        if let Mutant::Rule(rule) = mutant {
            lease.break_rule(rule);
        }
        let network = Network { peers: peers.clone(), lease: lease.clone() };
        let machine = Machine { store: store.clone() };
        let raft = Raft::new(id, Arc::new(config(&timing)), network, log.clone(), machine).await;
        let raft = raft.map_err(|fatal| fatal.to_string())?;
        lease.watch(raft.metrics());
        tokio::spawn(lease::run(lease.clone(), peers.clone()));
        let rounds = Rounds { raft: raft.clone(), peers: peers.clone(), lease: lease.clone() };
        let gate = ReadGate::start(rounds, store.applied(), store.fault(), lease.clone());
        let node = Self { id, raft, lease, gate, store, log, peers, record, mutant };
        tokio::spawn(serve(node.clone(), asks));
        tokio::spawn(obey(node.clone(), orders));
        Ok(node)
    }

    pub(super) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Answers a peer, as the real node does.
    async fn answer(&self, call: Call) -> Result<Reply, PeerError> {
        let (raft, lease) = (&self.raft, &self.lease);
        let request = match call {
            Call::Peer(request) => request,
            Call::Snapshot(vote, meta, snapshot) => {
                let snapshot = super::net::Snapshot { meta, snapshot };
                let installed = raft.install_full_snapshot(vote, snapshot).await;
                return installed.map(Reply::Installed).map_err(hooks::stopped);
            }
        };
        Ok(match request {
            Request::Append(rpc) if self.mutant == Mutant::NoServing => {
                Reply::Append(raft.append_entries(rpc).await.map_err(hooks::stopped)?)
            }
            Request::Append(rpc) => Reply::Append(hooks::append(raft, lease, rpc).await?),
            Request::Vote(rpc) => {
                let (response, age) = hooks::vote(raft, lease, rpc).await?;
                Reply::Voted(response, age)
            }
            Request::PreVote(rpc) => Reply::Vote(raft.pre_vote(rpc).await.map_err(hooks::stopped)?),
            Request::TransferLeader(rpc) => {
                Reply::TransferLeader(raft.handle_transfer_leader(rpc).await.map_err(hooks::stopped)?)
            }
            Request::Propose(bytes) => {
                let outcome = client::write(self, bytes, Instant::now() + PROPOSE).await?;
                Reply::Outcome(Box::new(outcome))
            }
            Request::ReadAt => {
                let read = hooks::read_at(raft, lease).await?;
                Reply::ReadAt { index: read.index, barrier: read.barrier }
            }
            Request::Lease(message) => {
                let ack = lease.receive(&message).ok_or(PeerError::NotLeader { leader: None })?;
                self.record.visible(Some(lease));
                Reply::Leased(ack)
            }
            Request::GiveBack(id, ack) => {
                lease.given_back(id, &ack);
                Reply::Done(Vec::new())
            }
            _ => return Err(PeerError::Refused("not here".into())),
        })
    }

    /// As the real node's: catch up as a learner, then vote.
    async fn join(&self, id: u64) -> Result<(), PeerError> {
        let is_new = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let known = membership.get_node(&id).is_some();
            !known
        };
        hooks::join(&self.raft, &self.lease, id, super::net::member(id), is_new, JOIN).await?;
        self.record.count("membership change");
        Ok(())
    }

    async fn remove(&self, id: u64) -> Result<(), PeerError> {
        if self.mutant == Mutant::NoRetire {
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
            self.raft.change_membership(change, false).await.map_err(hooks::write_error)?;
        } else {
            hooks::remove(&self.raft, &self.lease, id).await?;
        }
        self.record.count("removal (R7)");
        // The next leader does not know the one who was removed.
        if let (true, Some(to)) = (id.is_multiple_of(2), self.raft.voter_ids().find(|id| *id != self.id)) {
            self.raft.trigger().transfer_leader(to).await.ok();
        }
        Ok(())
    }

    /// As the real node's: the leader is told once.
    async fn resign(&self) {
        if let (true, Some(to)) = (self.raft.is_leader(), self.raft.voter_ids().find(|id| *id != self.id)) {
            self.raft.trigger().transfer_leader(to).await.ok();
            let wait = self.raft.wait(Some(Duration::from_millis(300)));
            wait.metrics(|m| m.current_leader == Some(to), "leadership handed over").await.ok();
        }
        let ack = self.lease.resign();
        if let Some(leader) = self.leader().filter(|id| *id != self.id) {
            if self.peers.ask(leader, Request::GiveBack(self.id, ack), RESIGN).await.is_ok() {
                self.record.count("renounce (R6)");
            }
        }
    }

    async fn carry_out(&self, order: Order) {
        let id = self.id;
        match order {
            Order::Work(work) => client::serve(self, work).await,
            Order::Join(other) => {
                let done = self.join(other).await;
                self.record.say(|| format!("{id}: join of {other}: {done:?}"));
            }
            Order::Remove(other) => {
                let done = self.remove(other).await;
                self.record.say(|| format!("{id}: removal of {other}: {done:?}"));
            }
            Order::TransferLeader(to) => {
                self.raft.trigger().transfer_leader(to).await.ok();
            }
            Order::Snapshot => {
                self.raft.trigger().snapshot().await.ok();
            }
            Order::Resign => self.resign().await,
            Order::Initialize(ids) => {
                self.raft.initialize(super::record::members(ids)).await.unwrap();
            }
        }
    }
}

/// Requests of other nodes.
pub(super) type Asks = mpsc::UnboundedReceiver<Ask>;

async fn serve(node: SimNode, mut asks: Asks) {
    while let Some(Ask { call, answer }) = asks.recv().await {
        let node = node.clone();
        tokio::spawn(async move { answer.send(node.answer(call).await) });
    }
}

async fn obey(node: SimNode, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        let node = node.clone();
        tokio::spawn(async move { node.carry_out(order).await });
    }
}

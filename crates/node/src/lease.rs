//! The lease protocol ([`claviger_lease`]) on real time and real openraft.
//!
//! [`Lease`] is what the rest of the node touches: openraft's messages are told to it as they pass (design B4, hooks), the
//! read gate asks it, writes wait in it. [`run`] is the loop that sends the leader's messages. openraft itself is not
//! changed, and its own notion of a lease is not used.

use crate::divergence::{Comparison, Verdict};
pub(crate) use claviger_lease::Nanos;
use claviger_lease::{Ballot, Fence, Holder, Leader, LeaseAck, LeaseCell, LeaseMessage, Members, Params, Taken};
use claviger_log::{Member, TypeConfig, Vote};
use claviger_state_machine::records::Reads;
use claviger_state_machine::ConflictKey;
use claviger_types::reads::{ReadMode, ReadTiming};
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ServerState};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{watch, Notify};
use tokio::task::JoinSet;
use tokio::time::{timeout_at, Instant};

#[cfg(all(test, feature = "sim"))]
mod probe;
#[cfg(all(test, feature = "sim"))]
pub(crate) use probe::Probe;

/// openraft's word on itself, and its changes.
pub(crate) type Metrics = WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

/// A message goes out at once when something became visible, but not more often than this: writes come in bursts.
const PUSH: Duration = Duration::from_millis(1);

/// Messages per lease time: a lost one, or two, do not end a lease.
const MESSAGES_PER_LEASE: u32 = 20;

/// Between two messages where no lease time says how often: stale reads, or nothing.
const MESSAGE_MAX: Duration = Duration::from_millis(500);

/// How long a node's lease may take to end: the longest there is, and a freeze before it.
const RETIRE: Duration = Duration::from_secs(30);

/// Ballots for which vote ages are remembered: the candidate's own, and a few that failed before.
const BALLOTS: usize = 4;

/// What a lease stands on; all of it comes from outside, so that a simulation can bring its own.
pub(crate) struct Ground {
    /// This node.
    pub(crate) id: u64,
    /// Its monotonic clock, which counts the time in which it does not run.
    pub(crate) now: Box<dyn Fn() -> Nanos + Send + Sync>,
    /// Random numbers.
    pub(crate) random: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What the newest log entries touch.
    pub(crate) fence: Arc<Fence>,
    /// Index of the last applied entry.
    pub(crate) applied: watch::Receiver<u64>,
    /// Index up to which entries may be in the state already, never behind `applied`.
    pub(crate) applying: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Index and term of the last applied entry, both of the same one.
    pub(crate) applied_at: Box<dyn Fn() -> (u64, u64) + Send + Sync>,
    /// Index of the newest membership entry that was appended, 0 when it is not newer than the start.
    pub(crate) membership_index: Box<dyn Fn() -> u64 + Send + Sync>,
    /// How reads are made.
    pub(crate) reads: watch::Receiver<Option<Arc<Reads>>>,
    /// Newest checkpoint of the state: index and root hash.
    pub(crate) checkpoint: Box<dyn Fn() -> Option<(u64, [u8; 32])> + Send + Sync>,
    /// The root hash at an index, while it is remembered.
    pub(crate) checkpoint_at: Box<dyn Fn(u64) -> Option<[u8; 32]> + Send + Sync>,
    /// Stops this node from serving, for its state is not the others'.
    pub(crate) condemn: Box<dyn Fn(&str) + Send + Sync>,
}

/// The leases of one node: what it holds and, when it leads, what it gives. Clones share it.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Ground,
    metrics: OnceLock<Metrics>,
    /// When this node's lease ends, 0 without one.
    end: LeaseCell,
    visible: watch::Sender<u64>,
    core: Mutex<Core>,
    emergency: Mutex<Option<Emergency>>,
    /// Wakes the loop: a lease was given, leadership has changed.
    changed: Notify,
    #[cfg(all(test, feature = "sim"))]
    broken: OnceLock<claviger_lease::Broken>,
}

/// Stale reads that operators have allowed at this node for a while.
#[derive(Debug, Clone, Copy)]
struct Emergency {
    /// How far behind an answer may be.
    bound: Nanos,
    /// When it is over, on this node's clock.
    end: Nanos,
}

struct Core {
    holder: Holder,
    leader: Option<Leader>,
    /// The last office, when this node does not lead as far as it knows. Should it lead on under the same ballot, then
    /// with what it knows of its leases: an office that began anew would not wait for those who hold them.
    resting: Option<Leader>,
    /// When this process last accepted an append, or counted itself into a proof of its own office; at first, when it
    /// started. No proof of a quorum that this node was part of is newer.
    served: Nanos,
    /// The highest ballot that this node has voted for since it started: openraft tells of it a moment later.
    given: Ballot,
    ages: BTreeMap<Ballot, BTreeMap<u64, Nanos>>,
    members: (MembersKey, Arc<Members>),
    /// What the nodes say of their states, and whose is wrong.
    comparison: Comparison,
    wrong: BTreeSet<u64>,
}

/// Log ids of the effective and the committed membership: while they stay, so do the members.
type MembersKey = (Option<claviger_log::LogId>, Option<claviger_log::LogId>);

impl Core {
    /// This node does not lead, as far as it knows.
    fn rest(&mut self, now: Nanos) {
        if let Some(leader) = self.leader.as_ref().filter(|leader| leader.is_complete()) {
            if let Some(evidence) = leader.evidence(now) {
                self.holder.heard(leader.visible(), evidence);
            }
        }
        self.resting = self.leader.take().or(self.resting.take());
    }
}

/// What the leases look like from one node, for operators and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// Whether this node may answer by itself now.
    pub valid: bool,
    /// For how long, in milliseconds.
    pub remaining_ms: u64,
    /// Everything up to this index is visible, as far as the node knows.
    pub visible: u64,
    /// Entries that are appended here and not yet applied and visible.
    pub pending: usize,
    /// At the leader: the nodes for which visibility waits now.
    pub blocked_by: Vec<u64>,
    /// At the leader: for each other node, how long its lease lasts, in milliseconds.
    pub holders: BTreeMap<u64, u64>,
    /// At the leader: how old its proof is that a quorum follows it, in milliseconds.
    pub evidence_age_ms: Option<u64>,
    /// At the leader: how long it still waits for the leases of earlier leaders, in milliseconds.
    pub freeze_ms: u64,
    /// Times that this node's clock was found wrong.
    pub clock_alarms: u64,
    /// At the leader: nodes left out for being slow, counted in this term.
    pub evictions: u64,
}

fn params(timing: &ReadTiming) -> Params {
    let ms = |ms: u32| u64::from(ms) * 1_000_000;
    Params { lease: ms(timing.lease_ms), rho_ppm: timing.rho_ppm, eps: ms(timing.eps_ms) }
}

/// Whose office a vote is for.
pub(crate) fn ballot_of(vote: &Vote) -> Ballot {
    Ballot { term: vote.leader_id.term, node: vote.leader_id.voted_for }
}

impl Lease {
    pub(crate) fn new(ground: Ground) -> Self {
        let core = Core {
            holder: Holder::new((ground.random)()),
            leader: None,
            resting: None,
            served: (ground.now)(),
            given: Ballot::default(),
            ages: BTreeMap::new(),
            members: ((None, None), Arc::default()),
            comparison: Comparison::default(),
            wrong: BTreeSet::new(),
        };
        let inner = Inner {
            ground,
            metrics: OnceLock::new(),
            end: LeaseCell::new(),
            visible: watch::Sender::new(0),
            core: Mutex::new(core),
            emergency: Mutex::new(None),
            changed: Notify::new(),
            #[cfg(all(test, feature = "sim"))]
            broken: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Has it watch openraft; set once, when openraft runs.
    pub(crate) fn watch(&self, metrics: Metrics) {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.metrics.set(metrics).ok();
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.inner.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        (self.inner.ground.now)()
    }

    fn applied(&self) -> u64 {
        *self.inner.ground.applied.borrow()
    }

    fn reads(&self) -> Option<Arc<Reads>> {
        self.inner.ground.reads.borrow().clone()
    }

    /// How reads of a vault are made; without a vault, those of the world.
    pub(crate) fn mode(&self, vault: Option<claviger_types::name::Id128>) -> ReadMode {
        let reads = self.inner.ground.reads.borrow();
        let mode = reads.as_ref().map(|reads| vault.map_or(reads.mode, |vault| reads.of(vault)));
        mode.unwrap_or(ReadMode::ReadIndex)
    }

    /// The numbers in force, and those of the longest leases ever given; asked after what is applied.
    fn timing(&self) -> (Params, Option<Params>) {
        let reads = self.reads();
        let timing = params(&reads.as_ref().map_or_else(ReadTiming::default, |reads| reads.timing));
        (timing, reads.and_then(|reads| reads.longest.as_ref().map(params)))
    }

    /// Whether a lease was ever given, as far as this node knows.
    pub(crate) fn was_leased(&self) -> bool {
        self.reads().is_some_and(|reads| reads.longest.is_some())
    }

    // What openraft's messages say.

    /// To be asked before an append is sent.
    pub(crate) fn sending(&self) -> Nanos {
        self.now()
    }

    /// `to` accepted an append of `vote` that was sent at `sent`, and has our log up to `matched`.
    pub(crate) fn accepted(&self, to: u64, vote: &Vote, sent: Nanos, matched: u64) {
        let mut core = self.core();
        let now = self.now();
        self.observe(&mut core);
        match &mut core.leader {
            Some(leader) if leader.ballot() == ballot_of(vote) => leader.accepted(to, sent, matched),
            _ => return,
        }
        self.refresh(&mut core, now);
    }

    /// Somebody knows a later vote than `vote`, which this node leads under.
    pub(crate) fn overtaken(&self, vote: &Vote) {
        let mut core = self.core();
        if core.leader.as_ref().is_some_and(|leader| leader.ballot() == ballot_of(vote)) {
            core.rest(self.now());
            self.set_end(&core, self.now());
        }
    }

    /// To be called before an append is answered with success.
    pub(crate) fn serving(&self) {
        self.core().served = self.now();
    }

    /// This node has given its vote, and is about to say so: whatever office it had is over before anyone can be elected by
    /// that. Answers how long ago it last accepted an append, or started: sent with the vote.
    pub(crate) fn granted(&self, vote: &Vote) -> Nanos {
        let mut core = self.core();
        let now = self.now();
        core.given = core.given.max(ballot_of(vote));
        if core.leader.as_ref().is_some_and(|leader| leader.ballot() < core.given) {
            // Who led until now was part of its own proof until now.
            core.served = now;
            core.rest(now);
            self.set_end(&core, now);
        }
        now.saturating_sub(core.served)
    }

    /// A voter granted its vote to this node, and gave its age.
    pub(crate) fn voted(&self, vote: &Vote, voter: u64, age: Nanos) {
        let ballot = ballot_of(vote);
        let mut core = self.core();
        core.ages.entry(ballot).or_default().insert(voter, age);
        while core.ages.len() > BALLOTS {
            core.ages.pop_first();
        }
        if let Some(leader) = core.leader.as_mut().filter(|leader| leader.ballot() == ballot) {
            leader.voted(voter, age);
        }
    }

    // Leading.

    /// Finds out whether this node leads, and who the members are.
    fn observe(&self, core: &mut Core) {
        let Some(metrics) = self.inner.metrics.get() else { return };
        let metrics = metrics.borrow_watched();
        let leads = metrics.state == ServerState::Leader && metrics.vote.committed;
        let ballot = ballot_of(&metrics.vote);
        if !leads || ballot.node != self.inner.ground.id || ballot < core.holder.seen().max(core.given) {
            core.rest(self.now());
            return;
        }
        if core.resting.as_ref().is_some_and(|leader| leader.ballot() == ballot) {
            core.leader = core.resting.take();
        }
        let key = (*metrics.membership_config.log_id(), *metrics.committed_membership_config.log_id());
        if core.members.0 != key {
            core.members = (key, Arc::new(members_of(&metrics)));
        }
        let effective = core.members.0 .0.as_ref().map_or(0, |id| id.index);
        // A membership that is in the log but not yet known here: elections may go by it already.
        let known = effective >= (self.inner.ground.membership_index)();
        let members = if known { core.members.1.clone() } else { Arc::default() };
        match &mut core.leader {
            Some(leader) if leader.ballot() == ballot => leader.set_members(members),
            _ => {
                core.holder.follow(ballot);
                // Not earlier than the moment at which openraft said so: the freeze counts from here.
                let now = self.now();
                let mut leader = Leader::new(ballot, members, core.holder.visible(), now);
                #[cfg(feature = "break-lease")]
                leader.break_rule(claviger_lease::Broken::Barrier);
                for (voter, age) in core.ages.get(&ballot).into_iter().flatten() {
                    leader.voted(*voter, *age);
                }
                leader.voted(self.inner.ground.id, now.saturating_sub(core.served));
                #[cfg(all(test, feature = "sim"))]
                leader.break_rule(self.broken());
                core.leader = Some(leader);
                self.inner.changed.notify_one();
            }
        }
    }

    /// What follows from what is known now: what is visible, and how long this node may answer.
    fn refresh(&self, core: &mut Core, now: Nanos) {
        if let Some(leader) = &mut core.leader {
            core.served = now;
            // In this order: the numbers must be as new as what is applied, or a freeze could be missed. Index and term
            // belong together: with the index of before, an office would think less needed than is; with the term of before,
            // it would take entries of the next office for its own.
            let (applied, term) = (self.inner.ground.applied_at)();
            let (current, longest) = self.timing();
            if leader.advance(&current, longest.as_ref(), applied, term, now) {
                core.holder.heard_visible(leader.visible());
            }
        }
        self.set_end(core, now);
        self.set_visible(core);
    }

    fn set_end(&self, core: &Core, now: Nanos) {
        let own = core.leader.as_ref().and_then(|leader| {
            let reads = self.reads().filter(|reads| reads.mode == ReadMode::Lease)?;
            leader.own_lease(&params(&reads.timing), now)
        });
        self.inner.end.set(own.unwrap_or_else(|| core.holder.lease_end()));
    }

    fn set_visible(&self, core: &Core) {
        let visible = core.holder.visible();
        let more = self.inner.visible.send_if_modified(|known| {
            let more = visible > *known;
            *known = visible.max(*known);
            more
        });
        if more {
            self.inner.ground.fence.set_done(visible.min(self.applied()));
        }
    }

    /// Looks again: time has passed, or something was applied.
    pub(crate) fn look(&self) {
        let mut core = self.core();
        let now = self.now();
        self.observe(&mut core);
        self.refresh(&mut core, now);
    }

    /// When to look again although nothing happens.
    fn next_look(&self) -> Option<Duration> {
        let core = self.core();
        let now = self.now();
        let reads = self.reads()?;
        let longest = reads.longest.as_ref().map(params);
        let end = core.leader.as_ref()?.next_end(&params(&reads.timing), longest.as_ref(), now)?;
        Some(Duration::from_nanos(end.saturating_sub(now)))
    }

    /// The message for a node, when this one leads: also where no leases are given, for the nodes' states are compared.
    fn message(&self, to: u64) -> Option<LeaseMessage> {
        let mut core = self.core();
        let core = &mut *core;
        let now = self.now();
        self.observe(core);
        // What is applied by now may already be shown: whoever gets a lease must have it.
        self.refresh(core, now);
        let reads = self.reads()?;
        let timing = params(&reads.timing);
        let applied = self.applied();
        let wrong = core.wrong.contains(&to);
        let leader = core.leader.as_mut()?;
        core.served = now;
        let leases = reads.mode == ReadMode::Lease && !wrong;
        let loose = matches!(reads.mode, ReadMode::Bounded { .. }) && !wrong;
        Some(LeaseMessage { wrong, ..leader.message(to, &timing, leases, loose, applied, now) })
    }

    fn answered(&self, from: u64, ack: Option<&LeaseAck>) {
        let mut core = self.core();
        let now = self.now();
        if let Some(leader) = &mut core.leader {
            match ack {
                Some(ack) => leader.answered(from, ack, now),
                None => leader.lost(from),
            }
        }
        if let Some((index, root)) = ack.and_then(|ack| ack.checkpoint) {
            self.compare(&mut core, from, index, root);
        }
        self.refresh(&mut core, now);
    }

    /// Compares a node's state with the others' at one index. Whoever is wrong gets no lease and is told to stop serving.
    fn compare(&self, core: &mut Core, from: u64, index: u64, root: [u8; 32]) {
        let own = (self.inner.ground.checkpoint_at)(index);
        let voters: BTreeSet<u64> = core.members.1.configs.iter().flatten().copied().collect();
        let mut verdict = core.comparison.report(from, index, root, &voters);
        if let Some(own) = own {
            verdict = core.comparison.report(self.inner.ground.id, index, own, &voters);
        }
        match verdict {
            Verdict::Agreed => {}
            Verdict::Wrong(nodes) => {
                for node in nodes {
                    if core.wrong.insert(node) {
                        tracing::error!(node, index, "DIVERGENCE: the state of a node is not that of the majority");
                    }
                    if node == self.inner.ground.id {
                        (self.inner.ground.condemn)("its state is not that of the majority");
                    }
                }
            }
            Verdict::Split => {
                tracing::error!(index, "DIVERGENCE: no majority has the same state");
                (self.inner.ground.condemn)("no majority of the nodes has the same state");
            }
        }
    }

    /// No more leases for a node; `true` when it has none. `false` when that takes too long, or when this office is over:
    /// another leader may give it one.
    pub(crate) async fn retire(&self, id: u64) -> bool {
        let ballot = {
            let mut core = self.core();
            self.observe(&mut core);
            let Some(leader) = &mut core.leader else { return false };
            leader.retire(id, true);
            leader.ballot()
        };
        self.inner.changed.notify_one();
        let deadline = Instant::now() + RETIRE;
        while Instant::now() < deadline {
            match self.is_free(id, ballot) {
                Some(false) => tokio::time::sleep(Duration::from_millis(10)).await,
                Some(true) => return true,
                None => return false,
            }
        }
        false
    }

    /// Whether a node holds no lease; `None` when this office is over.
    fn is_free(&self, id: u64, ballot: Ballot) -> Option<bool> {
        let core = self.core();
        let leader = core.leader.as_ref().filter(|leader| leader.ballot() == ballot)?;
        // An office that is not complete may not know which leases were given.
        let complete = leader.is_complete();
        let (timing, longest) = self.timing();
        Some(complete && leader.is_free(id, &timing, longest.as_ref(), self.now()))
    }

    /// Leases again for a node that was not removed after all.
    pub(crate) fn keep(&self, id: u64) {
        if let Some(leader) = &mut self.core().leader {
            leader.retire(id, false);
        }
    }

    /// A node that was no member is about to join.
    pub(crate) fn renew(&self, id: u64) {
        if let Some(leader) = &mut self.core().leader {
            leader.renew(id);
        }
    }

    /// Another node gives its lease back.
    pub(crate) fn given_back(&self, from: u64, ack: &LeaseAck) {
        self.answered(from, Some(ack));
    }

    /// Whether reads that were confirmed by a quorum must wait for visibility, for some node may hold a lease.
    pub(crate) fn barrier(&self) -> bool {
        let mut core = self.core();
        self.observe(&mut core);
        self.refresh(&mut core, self.now());
        // An office that is not complete may not know which leases were given.
        let Some(leader) = core.leader.as_ref().filter(|leader| leader.is_complete()) else { return true };
        let (timing, longest) = self.timing();
        self.mode(None) == ReadMode::Lease || leader.has_holders(&timing, longest.as_ref(), self.now())
    }

    /// Waits until everything up to `index` is visible; `false` when that takes too long.
    pub(crate) async fn until_visible(&self, index: u64, deadline: Instant) -> bool {
        self.look();
        let mut visible = self.inner.visible.subscribe();
        let reached = timeout_at(deadline, visible.wait_for(|visible| *visible >= index)).await;
        matches!(reached, Ok(Ok(_)))
    }

    // Holding.

    /// Takes a leader's message in; `None` when it is not the leader any more.
    pub(crate) fn receive(&self, message: &LeaseMessage) -> Option<LeaseAck> {
        let checkpoint = (self.inner.ground.checkpoint)();
        let mut core = self.core();
        // The clock after the lock: a stamp that is too old is safe, but shortens the lease.
        let now = self.now();
        let (last, applied) = (self.inner.ground.fence.last(), self.applied());
        let next_life = (self.inner.ground.random)();
        let alarms = core.holder.alarms();
        let taken = core.holder.receive(message, last, applied, checkpoint, next_life, now);
        if core.holder.alarms() > alarms {
            tracing::warn!("this node's clock runs behind the leader's more than leases allow: no lease for a while");
        }
        let Taken::Answer(ack) = taken else { return None };
        if message.wrong {
            (self.inner.ground.condemn)("its state is not that of the majority");
        }
        if core.leader.as_ref().is_some_and(|leader| leader.ballot() < message.ballot) {
            core.rest(self.now());
        }
        self.set_end(&core, now);
        self.set_visible(&core);
        Some(ack)
    }

    /// Gives the lease back for good; answers what to tell the leader.
    pub(crate) fn resign(&self) -> LeaseAck {
        let mut core = self.core();
        let now = self.now();
        let ack = core.holder.resign((self.inner.ground.random)(), now);
        self.set_end(&core, now);
        ack
    }

    /// Whether this node may answer by itself at some instant during this call.
    pub(crate) fn is_valid(&self) -> bool {
        self.inner.end.is_valid(|| self.now())
    }

    /// Whether an answer made from what was applied at `at` is right: the last thing to do before it is sent (R4).
    ///
    /// First the lease, then the fence: what was visible while the lease was valid is in the fence by then.
    pub(crate) fn validate(&self, parts: &[ConflictKey], at: u64) -> bool {
        self.is_valid() && self.is_clean(parts, at)
    }

    /// Whether nothing is under way in these parts that an answer made from what was applied at `at` would miss or show too
    /// early.
    pub(crate) fn is_clean(&self, parts: &[ConflictKey], at: u64) -> bool {
        #[cfg(all(test, feature = "sim"))]
        if let Some(clean) = self.is_clean_broken(parts, at) {
            return clean;
        }
        self.inner.ground.fence.is_clean(Some(parts), at.min(*self.inner.visible.borrow()))
    }

    /// What this node knows to be visible, and its changes.
    pub(crate) fn visible(&self) -> watch::Receiver<u64> {
        self.inner.visible.subscribe()
    }

    /// A view that was taken until now shows nothing after this index.
    pub(crate) fn applying(&self) -> u64 {
        (self.inner.ground.applying)().max(self.applied())
    }

    pub(crate) fn fence(&self) -> &Fence {
        &self.inner.ground.fence
    }

    /// How far this node's state is behind at most, when it may answer so: within the bound of its mode, or of an emergency.
    pub(crate) fn behind(&self, mode: ReadMode) -> Option<Nanos> {
        let bound = match (mode, self.emergency()) {
            (ReadMode::Bounded { bound_ms }, _) => u64::from(bound_ms) * 1_000_000,
            (_, Some(emergency)) => emergency.bound,
            _ => return None,
        };
        let core = self.core();
        let applied = self.applied();
        let now = self.now();
        let own = core.leader.as_ref().filter(|leader| leader.is_complete()).and_then(|leader| leader.evidence(now));
        let own = own.map(|evidence| now.saturating_sub(evidence));
        let heard = core.holder.behind(applied, now);
        own.into_iter().chain(heard).min().filter(|behind| *behind <= bound)
    }

    /// Lets this node answer although nobody leads, late by `bound` at most, for `duration` from now on; or no more.
    pub(crate) fn set_emergency(&self, emergency: Option<(Nanos, Nanos)>) {
        let emergency = emergency.map(|(bound, duration)| Emergency { bound, end: self.now() + duration });
        *self.inner.emergency.lock().unwrap_or_else(PoisonError::into_inner) = emergency;
    }

    /// The emergency that is on, if one is.
    fn emergency(&self) -> Option<Emergency> {
        let mut emergency = self.inner.emergency.lock().unwrap_or_else(PoisonError::into_inner);
        *emergency = emergency.filter(|emergency| self.now() < emergency.end);
        *emergency
    }

    /// Whether an emergency is on.
    pub(crate) fn is_emergency(&self) -> bool {
        self.emergency().is_some()
    }

    /// For operators and metrics.
    pub fn view(&self) -> LeaseView {
        let core = self.core();
        let now = self.now();
        let ms = |nanos: Nanos| nanos / 1_000_000;
        let end = self.inner.end.end();
        let applied = self.applied();
        let visible = core.holder.visible();
        let mut view = LeaseView {
            valid: now < end,
            remaining_ms: ms(end.saturating_sub(now)),
            visible,
            pending: self.inner.ground.fence.pending(visible.min(applied)),
            clock_alarms: core.holder.alarms(),
            ..LeaseView::default()
        };
        if let Some(leader) = &core.leader {
            let reads = self.reads();
            let timing = params(&reads.as_ref().map_or_else(ReadTiming::default, |reads| reads.timing));
            let longest = reads.and_then(|reads| reads.longest.as_ref().map(params));
            view.blocked_by = leader.blockers(&timing, applied, now);
            view.holders = leader.holders(now).map(|(id, left)| (id, ms(left))).collect();
            view.evidence_age_ms = leader.evidence(now).map(|evidence| ms(now.saturating_sub(evidence)));
            view.freeze_ms = ms(leader.frozen_until(longest.as_ref()).saturating_sub(now));
            view.evictions = leader.evictions();
        }
        view
    }

    /// Between two messages to one node.
    fn interval(&self) -> Duration {
        let lease = self.reads().map(|reads| Duration::from_millis(u64::from(reads.timing.lease_ms)));
        lease.map_or(MESSAGE_MAX, |lease| (lease / MESSAGES_PER_LEASE).min(MESSAGE_MAX))
    }

    /// Where a node is reached, as the newest membership says.
    pub(crate) fn address(&self, id: u64) -> Option<Member> {
        let metrics = self.inner.metrics.get()?.borrow_watched();
        metrics.membership_config.membership().get_node(&id).cloned()
    }

    fn members(&self) -> Vec<(u64, Member)> {
        let Some(metrics) = self.inner.metrics.get() else { return Vec::new() };
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.filter(|(id, _)| **id != self.inner.ground.id).map(|(id, member)| (*id, member.clone())).collect()
    }
}

fn members_of(metrics: &RaftMetrics<TypeConfig>) -> Members {
    let both = [&metrics.membership_config, &metrics.committed_membership_config];
    let ids = |nodes: &claviger_log::StoredMembership| -> BTreeSet<u64> {
        nodes.membership().nodes().map(|(id, _)| *id).collect()
    };
    Members {
        configs: both.iter().flat_map(|stored| stored.membership().get_joint_config().clone()).collect(),
        nodes: both.iter().flat_map(|stored| ids(stored)).collect(),
        committed: &ids(&metrics.committed_membership_config) & &ids(&metrics.membership_config),
    }
}

/// How messages get to other nodes.
pub(crate) trait Transport: Clone + Send + Sync + 'static {
    /// Sends a message and waits for the answer; `None` when there is none in time.
    fn send(
        &self,
        id: u64,
        to: &Member,
        message: LeaseMessage,
        limit: Duration,
    ) -> impl Future<Output = Option<LeaseAck>> + Send;
}

/// Keeps the leases of this node up to date, for as long as the task lives.
pub(crate) async fn run(lease: Lease, transport: impl Transport) {
    let mut applied = lease.inner.ground.applied.clone();
    let mut metrics = lease.inner.metrics.get().cloned();
    let mut senders: BTreeMap<u64, (Member, tokio::task::AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        lease.look();
        let members = lease.members();
        senders.retain(|id, (member, task)| {
            let stays = members.iter().any(|(known, at)| known == id && at == member);
            if !stays {
                task.abort();
            }
            stays
        });
        for (id, member) in members {
            if let std::collections::btree_map::Entry::Vacant(place) = senders.entry(id) {
                let task = tasks.spawn(send(lease.clone(), transport.clone(), id, member.clone()));
                place.insert((member, task));
            }
        }
        while tasks.try_join_next().is_some() {}
        let tick = lease.interval().min(lease.next_look().unwrap_or(MESSAGE_MAX));
        let news = async {
            match &mut metrics {
                Some(metrics) => metrics.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = lease.inner.changed.notified() => {}
            changed = applied.changed() => if changed.is_err() { return },
            going_on = news => if !going_on { return },
        }
    }
}

/// The leader's messages to one node, one at a time.
async fn send(lease: Lease, transport: impl Transport, id: u64, member: Member) {
    let mut visible = lease.visible();
    loop {
        let interval = lease.interval();
        if let Some(message) = lease.message(id) {
            visible.borrow_and_update();
            let ack = transport.send(id, &member, message, interval * 5).await;
            lease.answered(id, ack.as_ref());
            if ack.is_none() {
                tokio::time::sleep(interval).await;
                continue;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            changed = visible.changed() => match changed {
                Ok(()) => tokio::time::sleep(PUSH).await,
                Err(_) => return,
            },
        }
    }
}

//! The simulation: time, messages, faults, clients, an operator.

use crate::history::{Op, What};
use crate::node::{Clock, Node, Question};
use crate::raft::{Body, Entry, Id, Membership, Progress, Role, Set, Snapshot};
use crate::random::Random;
use crate::state::{self, bits, touched, Parts, Shown, State};
use claviger_lease::{validate, Broken, Fence, Holder, LeaseAck, LeaseMessage, Nanos, Params, Taken};
use claviger_state_machine::ConflictKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub(crate) const MS: Nanos = 1_000_000;
/// Nodes that may become learners, beyond the first voters.
const SPARE: usize = 2;
/// Faults end after this much time.
const FAULTS: Nanos = 8_000 * MS;
/// Then everything must be well again within this much: a node that was left out may have to keep up for a minute first.
const HEALING: Nanos = 75_000 * MS;
/// A client does not wait longer than this for a read.
const PATIENCE: Nanos = 1_500 * MS;
/// A node that has heard from a leader within this time votes for nobody else, in half of the seeds.
const STICKY: Nanos = 300 * MS;

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    Nothing,
    /// A rule of the core, or of the reading.
    Rule(Broken),
    /// A1: clocks run up to 40 % fast or slow.
    BadClock,
    /// A1: a clock does not count the time in which its node does not run.
    SuspendedClock,
    /// R5: a restarted leader keeps its office and waits for nothing.
    RestoreLeader,
    /// R5a: a leader that votes for another tells when it last *followed*, as if it had not led since.
    LeaderAge,
    /// A read by index judges what it saw by the index that is announced as applied, not by that of the state.
    Announced,
    /// R7: nodes are removed although they may hold a lease.
    NoRetire,
}

impl Mutant {
    pub(crate) fn rule(self) -> Broken {
        match self {
            Self::Rule(rule) => rule,
            _ => Broken::Nothing,
        }
    }

    /// What is wrong shows only when several things coincide: then the seeds are taken from where that is likelier.
    fn is_rare(self) -> bool {
        matches!(self, Self::LeaderAge | Self::Rule(Broken::LateVotes | Broken::OneRound))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) from: Id,
    pub(crate) to: Id,
    /// Which start of the receiver it is for: an answer does not outlive who asked.
    boot: Option<u64>,
    /// Which start of the sender it is from.
    sender: u64,
    message: Message,
}

#[derive(Debug, Clone)]
enum Message {
    Vote { term: u64, last: (u64, u64), transfer: bool },
    Voted { term: u64, granted: bool, age: Nanos },
    Append { term: u64, prev: (u64, u64), entries: Vec<Entry>, commit: u64, sent: Nanos },
    Appended { term: u64, sent: Nanos, result: Result<u64, u64> },
    Snapshot { term: u64, snapshot: Snapshot },
    Installed { term: u64, index: u64 },
    Transfer { term: u64 },
    Lease(LeaseMessage),
    Leased(LeaseAck),
    GiveBack(LeaseAck),
    Ask { read: usize },
    Answer { read: usize, index: u64 },
}

#[derive(Debug)]
enum Event {
    Deliver(Envelope),
    Tick(Id, u64),
    LeaseTick(Id, u64),
    Push(Id, u64),
    Synced { node: Id, boot: u64, epoch: u64, end: u64 },
    Apply(Id, u64),
    Announce(Id, u64),
    Swap(Id, u64, Snapshot),
    Read(usize, Step),
    Client,
    Fault,
    Operate,
    Stop(Id, u64),
    Restart(Id),
    Mend(Id, Id),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Enter,
    Asked,
    Settle,
    Look,
    LookRest,
    Confirm,
    Shown,
}

/// A read that is under way.
#[derive(Debug)]
struct Read {
    op: usize,
    node: Id,
    boot: u64,
    parts: Parts,
    /// Of everything at once, as lists of vaults are.
    view: bool,
    began: Nanos,
    tries: u32,
    /// By a read index, not by a lease.
    round: bool,
    asked: u32,
    need: u64,
    at: u64,
    used: u64,
    shown: Shown,
}

/// A change that waits until some nodes have no lease.
#[derive(Debug, Clone, Copy)]
struct Plan {
    leader: Id,
    term: u64,
    to: Membership,
    leaving: Set,
}

struct Queued {
    at: Reverse<(Nanos, u64)>,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// What differs from seed to seed.
struct Knobs {
    params: Params,
    crypto: Nanos,
    batch: usize,
    loss: u64,
    spread: Nanos,
    sticky: bool,
    /// Faults strike just when there is a new leader.
    spite: bool,
    /// Until then, the leader's lease messages are slow: when they are not any more, clocks seem to have jumped.
    slow_leases_until: Nanos,
    hold: Nanos,
    fence: Option<(usize, usize)>,
    keep_log: u64,
    beat: Nanos,
}

pub(crate) struct Sim {
    mutant: Mutant,
    knobs: Knobs,
    random: Random,
    now: Nanos,
    /// Number of the event that is being handled: the time that histories go by.
    event: u64,
    scheduled: u64,
    queue: BinaryHeap<Queued>,
    nodes: Vec<Node>,
    cut: Vec<Set>,
    slow: BTreeMap<(Id, Id), Nanos>,
    keys: Vec<Vec<ConflictKey>>,
    reads: Vec<Read>,
    plan: Option<Plan>,
    healing: bool,
    healed_from: u64,
    served_after: Set,
    acked_after: bool,
    pub(crate) ops: Vec<Op>,
    pub(crate) committed: Vec<Entry>,
    /// Highest index that any leader made visible.
    visible: u64,
    /// The newest entry up to there that touches anything.
    visible_touched: u64,
    /// The first that is wrong, whether or not a client could tell.
    pub(crate) wrong: Option<String>,
    /// What a client could tell.
    pub(crate) unlinearizable: Option<String>,
    /// Goes on when an invariant is broken, to see what clients are told.
    pub(crate) patient: bool,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Sim {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let voters = if random.chance(60) { 3 } else { 5 };
        let rho_ppm: u32 = random.of(&[1_000, 10_000, 50_000]);
        let lease = random.of(&[150, 300, 600, 1_000, 2_500]) * MS;
        let mut knobs = Knobs {
            params: Params { lease, rho_ppm, eps: MS / 10 },
            crypto: random.of(&[MS / 2, 4 * MS, 30 * MS]),
            batch: random.of(&[1, 3, 64]),
            loss: random.of(&[0, 1, 5, 15]),
            spread: random.of(&[MS, 5 * MS, 15 * MS]),
            sticky: random.chance(50),
            spite: random.chance(50),
            slow_leases_until: random.of(&[0, 0, 0, 0, 5_000]) * MS,
            hold: random.of(&[20, 100, 400]) * MS,
            fence: random.of(&[None, Some((1, 4)), Some((4, 16)), Some((16, 64))]),
            keep_log: random.of(&[3, 20, 1_000_000]),
            beat: random.of(&[30, 50]) * MS,
        };
        if mutant.is_rare() {
            let lease = random.of(&[150, 300]) * MS;
            knobs = Knobs { spite: true, sticky: false, slow_leases_until: 0, ..knobs };
            knobs.params = Params { lease, rho_ppm: 1_000, ..knobs.params };
        }
        let Params { lease, rho_ppm, .. } = knobs.params;
        let members = Membership { voters: Set::of(0..voters), nodes: Set::of(0..voters), ..Membership::default() };
        let state = State { shown: Shown::default(), lease, longest: lease };
        let bound = if mutant == Mutant::BadClock { 400_000 } else { i64::from(rho_ppm / 2) };
        let nodes = (0..voters + SPARE).map(|id| {
            let rate = match random.below(4) {
                0 => -bound,
                1 => bound,
                _ => random.between(0, 2 * bound as u64) as i64 - bound,
            };
            let offset = random.between(10_000 * MS, 1_000_000 * MS) as i64;
            let members = if id < voters { members } else { Membership::default() };
            Node::new(id, members, state, Clock { offset, rate, lost: 0 })
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut sim = Self {
            mutant,
            knobs,
            random,
            now: 0,
            event: 0,
            scheduled: 0,
            queue: BinaryHeap::new(),
            cut: vec![Set::default(); nodes.len()],
            nodes,
            slow: BTreeMap::new(),
            keys: state::keys(),
            reads: Vec::new(),
            plan: None,
            healing: false,
            healed_from: 0,
            served_after: Set::default(),
            acked_after: false,
            ops: Vec::new(),
            committed: Vec::new(),
            visible: 0,
            visible_touched: 0,
            wrong: None,
            unlinearizable: None,
            patient: false,
            counts: BTreeMap::new(),
        };
        for id in 0..sim.nodes.len() {
            sim.start(id);
        }
        sim.after(20 * MS, Event::Client);
        sim.after(500 * MS, Event::Fault);
        sim.after(700 * MS, Event::Operate);
        sim
    }

    /// Runs to the end; what is wrong is in `wrong`.
    pub(crate) fn run(&mut self) {
        while let Some(Queued { at: Reverse((time, _)), event }) = self.queue.pop() {
            self.now = time;
            self.event += 1;
            if !self.healing && time > FAULTS {
                self.heal();
            }
            self.handle(event);
            if self.is_well() || self.wrong.is_some() && (!self.patient || time > FAULTS) {
                break;
            }
            if time > FAULTS + HEALING {
                self.fail(format!("not well again: reads at {:?}, a write: {}", self.served_after, self.acked_after));
            }
        }
        if self.wrong.is_none() || self.patient {
            self.unlinearizable = crate::history::check(&self.ops, &self.committed).err();
            self.wrong = self.wrong.take().or_else(|| self.unlinearizable.clone());
        }
    }

    fn fail(&mut self, what: String) {
        let now = self.now as f64 / MS as f64;
        self.wrong.get_or_insert_with(|| format!("at {now:.3} ms: {what}"));
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    fn after(&mut self, delay: Nanos, event: Event) {
        self.scheduled += 1;
        self.queue.push(Queued { at: Reverse((self.now + delay, self.scheduled)), event });
    }

    fn clock(&self, id: Id) -> Nanos {
        self.nodes[id].clock.at(self.now)
    }

    // Nodes.

    fn start(&mut self, id: Id) {
        let now = self.clock(id);
        let timeout = self.random.between(300, 600) * MS;
        let life = self.random.next();
        let room = self.knobs.fence;
        let known = self.random.of(&[0, 2, 1_000]);
        // Without its last entries it would break Raft itself, leases or not.
        let whole = !self.nodes[id].lost_tail;
        let restores = self.mutant == Mutant::RestoreLeader && self.nodes[id].raft.is_leader() && whole;
        let node = &mut self.nodes[id];
        node.up = true;
        node.boot += 1;
        let (index, state) = node.disk;
        (node.state, node.written, node.applied) = (state, index, index);
        node.applied_term = node.raft.log.term_at(index).unwrap_or(0);
        (node.applying, node.installing, node.push_due) = (false, false, false);
        node.raft.commit = index;
        node.raft.heard = now;
        node.raft.timeout = timeout;
        node.served = now;
        if restores {
            let next = node.raft.log.last() + 1;
            for progress in node.raft.progress.values_mut() {
                *progress = Progress { next, matched: 0, acked: None, snapshot_sent: None };
            }
        } else {
            let term = node.raft.term;
            node.raft.follow(term, None);
        }
        node.replies.clear();
        node.waiting.clear();
        node.questions.clear();
        node.ages.clear();
        // As the log store does: the newest entries one by one, of older ones only that they may touch anything.
        let from = node.raft.log.base().max(node.raft.log.last().saturating_sub(known));
        node.fence = match room {
            Some((kept, most)) => Fence::with_room(from, kept, most),
            None => Fence::new(from),
        };
        for index in from + 1..=node.raft.log.last() {
            let entry = node.raft.log.get(index).copied().expect("it is in the log");
            node.fence.add(index, self.keys[touched(&entry) as usize].clone());
        }
        node.holder = Holder::new(life);
        node.holder.break_rule(self.mutant.rule());
        node.leader = None;
        node.lease.clear();
        let boot = node.boot;
        self.refresh(id);
        if restores {
            if let Some(leader) = &mut self.nodes[id].leader {
                leader.break_rule(Broken::Freeze);
            }
        }
        let delay = self.random_tick();
        self.after(delay, Event::Tick(id, boot));
        self.after(MS, Event::LeaseTick(id, boot));
    }

    fn random_tick(&mut self) -> Nanos {
        self.random.between(8 * MS, 12 * MS)
    }

    fn crash(&mut self, id: Id) {
        // A process that dies leaves what it wrote; a machine that dies leaves what was synced.
        let power = self.random.chance(50);
        let reboots = power && self.random.chance(50);
        let offset = self.random.between(10_000 * MS, 1_000_000 * MS) as i64;
        let node = &mut self.nodes[id];
        if !node.up {
            return;
        }
        node.up = false;
        node.lost_tail = power && node.raft.log.synced() < node.raft.log.last();
        if power {
            let synced = node.raft.log.synced();
            node.raft.log.truncate(synced);
        } else {
            let last = node.raft.log.last();
            node.raft.log.set_synced(last);
        }
        if reboots {
            node.clock.offset = offset;
        }
        self.count("crashes");
    }

    fn refresh(&mut self, id: Id) {
        let now = self.clock(id);
        let (params, mutant) = (self.knobs.params, self.mutant);
        let before = self.nodes[id].leader.as_ref().map_or(0, |leader| leader.visible());
        let (more, new) = self.nodes[id].refresh(&params, now, mutant);
        if new {
            self.count("offices");
        }
        if more {
            self.saw_visible(id, before);
        }
        self.finish_writes(id);
        self.check_lease(id);
    }

    fn saw_visible(&mut self, id: Id, before: u64) {
        let now = self.clock(id);
        let node = &self.nodes[id];
        let leader = node.leader.as_ref().expect("only a leader advances");
        let visible = leader.visible();
        let (longest, since) = (node.longest(&self.knobs.params), node.since);
        let ages = node.ages.values().copied().max().unwrap_or(0).max(since.saturating_sub(node.served));
        let by_time = now >= since + longest.freeze();
        if before < node.raft.first && !by_time && self.mutant == Mutant::Nothing {
            let dropped = leader.frozen_until(Some(&longest)) == since && longest.shorter(ages) < longest.freeze();
            self.count(if dropped { "freezes ended by all (R5b)" } else { "freezes shortened by ages (R5a)" });
        }
        let due = !self.nodes[id].push_due;
        self.nodes[id].push_due = true;
        if due {
            let boot = self.nodes[id].boot;
            self.after(MS, Event::Push(id, boot));
        }
        if visible > self.visible {
            if visible > self.committed.len() as u64 {
                return self.fail(format!("node {id} made {visible} visible, which is not committed"));
            }
            self.visible = visible;
            let touches = |index: &u64| touched(&self.committed[*index as usize - 1]) != 0;
            self.visible_touched = (1..=visible).rev().find(touches).unwrap_or(0);
            for other in 0..self.nodes.len() {
                self.check_lease(other);
            }
        }
    }

    /// I1: what is visible is fenced or applied wherever there is a valid lease; and the leader that gave it knows of it.
    fn check_lease(&mut self, id: Id) {
        let now = self.clock(id);
        let node = &self.nodes[id];
        if !node.has_lease(now) {
            return;
        }
        let visible = self.visible;
        let log = &node.raft.log;
        let has = visible <= node.written
            || visible < log.base()
            || visible == 0
            || log.term_at(visible) == Some(self.committed[visible as usize - 1].term);
        let fenced = node.fence.newest_up_to(None, visible) >= self.visible_touched || node.applied >= visible;
        if !has || !fenced {
            let (last, end) = (log.last(), node.lease.end());
            return self.fail(format!(
                "node {id} has a lease until {end} (now {now}), but {visible} is visible and its log ends at {last}"
            ));
        }
        let ballot = node.holder.seen();
        let held = node.clock.true_span(node.holder.lease_end().saturating_sub(now));
        let giver = &self.nodes[ballot.node as usize];
        let office = giver.leader.as_ref().filter(|leader| giver.up && leader.ballot() == ballot);
        let Some(office) = office.filter(|_| ballot.node != id as u64 && held > 0) else { return };
        let there = giver.clock.at(self.now);
        let known = office.holders(there).find(|(holder, _)| *holder == id as u64).map_or(0, |(_, span)| span);
        let known = giver.clock.true_span(known + self.knobs.params.eps);
        if held > known {
            self.fail(format!("node {id} holds a lease for {held} ns, its leader knows of {known} ns"));
        }
    }

    fn finish_writes(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        let reached = node.applied.min(node.visible());
        let mut done = Vec::new();
        let log = &node.raft.log;
        node.waiting.retain(|(index, term, op)| {
            // Written over, or purged, which is to say applied.
            let mine = *index <= log.base() || log.term_at(*index) == Some(*term);
            if mine && *index <= reached {
                done.push(*op);
            }
            mine && *index > reached
        });
        for op in done {
            self.ops[op].returned = Some(self.event);
            self.acked_after |= self.healing && self.ops[op].invoked >= self.healed_from;
            self.count("writes acknowledged");
        }
    }

    // Messages.

    fn send(&mut self, from: Id, to: Id, boot: Option<u64>, message: Message) {
        let sender = self.nodes[from].boot;
        self.post(Envelope { from, to, boot, sender, message });
    }

    fn post(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        if from == to {
            return self.after(0, Event::Deliver(envelope));
        }
        if self.healing {
            let delay = self.random.between(MS / 5, 2 * MS);
            return self.after(delay, Event::Deliver(envelope));
        }
        if self.cut[from].has(to) || self.random.chance(self.knobs.loss) {
            return;
        }
        let mut slow = self.slow.get(&(from, to)).copied().unwrap_or(0);
        if self.now < self.knobs.slow_leases_until && matches!(envelope.message, Message::Lease(_)) {
            slow += 300 * MS;
        }
        let delay = match self.random.below(100) {
            0 => self.random.below(2_000 * MS),
            1..4 => self.random.below(100 * MS),
            _ => MS / 5 + self.random.below(self.knobs.spread),
        };
        let delay = delay + slow;
        if self.random.chance(2) {
            let again = slow + self.random.below(600 * MS);
            self.after(again, Event::Deliver(envelope.clone()));
        }
        self.after(delay, Event::Deliver(envelope));
    }

    /// Whether an event finds its node running; if the node is paused, it waits.
    fn finds(&mut self, id: Id, boot: Option<u64>) -> bool {
        let node = &self.nodes[id];
        node.up && boot.is_none_or(|boot| boot == node.boot)
    }

    fn handle(&mut self, event: Event) {
        let node = match &event {
            Event::Deliver(envelope) => Some((envelope.to, envelope.boot)),
            Event::Tick(id, boot) | Event::LeaseTick(id, boot) | Event::Push(id, boot) => Some((*id, Some(*boot))),
            Event::Apply(id, boot) | Event::Announce(id, boot) | Event::Stop(id, boot) => Some((*id, Some(*boot))),
            Event::Swap(id, boot, _) => Some((*id, Some(*boot))),
            Event::Synced { node, boot, .. } => Some((*node, Some(*boot))),
            Event::Read(read, _) => Some((self.reads[*read].node, Some(self.reads[*read].boot))),
            Event::Client | Event::Fault | Event::Operate | Event::Restart(_) | Event::Mend(..) => None,
        };
        if let Some((id, boot)) = node {
            if !self.finds(id, boot) {
                return;
            }
            if self.nodes[id].paused_until > self.now {
                let delay = self.nodes[id].paused_until - self.now + self.random.below(MS / 20);
                return self.after(delay, event);
            }
        }
        match event {
            Event::Deliver(envelope) => self.deliver(envelope),
            Event::Tick(id, boot) => {
                self.tick(id);
                let delay = self.random_tick();
                self.after(delay, Event::Tick(id, boot));
            }
            Event::LeaseTick(id, boot) => {
                self.lease_round(id);
                let interval = (self.nodes[id].state.lease / 20).clamp(10 * MS, 100 * MS);
                self.after(interval, Event::LeaseTick(id, boot));
            }
            Event::Push(id, _) => {
                self.nodes[id].push_due = false;
                self.lease_round(id);
            }
            Event::Synced { node, epoch, end, .. } => self.synced(node, epoch, end),
            Event::Apply(id, boot) => self.apply(id, boot),
            Event::Announce(id, _) => self.announce(id),
            Event::Swap(id, _, snapshot) => self.swap(id, snapshot),
            Event::Read(read, step) => self.read(read, step),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Operate => self.operate(),
            Event::Stop(id, _) => {
                self.crash(id);
                let delay = self.random.between(0, 800 * MS);
                self.after(delay, Event::Restart(id));
            }
            Event::Mend(from, to) => self.cut[from] = self.cut[from].without(to),
            Event::Restart(id) => {
                if !self.nodes[id].up {
                    self.start(id);
                }
            }
        }
    }

    fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, sender, message, .. } = envelope;
        let now = self.clock(to);
        match message {
            Message::Vote { term, last, transfer } => self.on_vote(from, to, sender, term, last, transfer),
            Message::Voted { term, granted, age } => self.on_voted(from, to, term, granted, age),
            Message::Append { term, prev, entries, commit, sent } => {
                // Before Raft sees it: a vote that is given later must not look older than this.
                self.nodes[to].served = now;
                if term < self.nodes[to].raft.term {
                    let term = self.nodes[to].raft.term;
                    return self.send(to, from, Some(sender), Message::Appended { term, sent, result: Err(0) });
                }
                self.heed(to, term, Some(from));
                self.nodes[to].raft.heard = now;
                let result = self.take(to, prev, &entries);
                let term_now = self.nodes[to].raft.term;
                let envelope = Envelope {
                    from: to,
                    to: from,
                    boot: Some(sender),
                    sender: self.nodes[to].boot,
                    message: Message::Appended { term: term_now, sent, result },
                };
                let node = &mut self.nodes[to];
                match result {
                    // Only what is on disk counts.
                    Ok(matched) if matched > node.raft.log.synced() => node.replies.push((matched, envelope)),
                    _ => self.post(envelope),
                }
                if let Ok(matched) = result {
                    self.commit_to(to, commit.min(matched));
                }
            }
            Message::Appended { term, sent, result } => self.on_appended(from, to, term, sent, result),
            Message::Snapshot { term, snapshot } => {
                if term < self.nodes[to].raft.term {
                    let term = self.nodes[to].raft.term;
                    let answer = Message::Appended { term, sent: 0, result: Err(0) };
                    return self.send(to, from, Some(sender), answer);
                }
                self.heed(to, term, Some(from));
                self.nodes[to].raft.heard = now;
                self.install(to, from, sender, snapshot);
            }
            Message::Installed { term, index } => {
                let raft = &mut self.nodes[to].raft;
                if raft.is_leader() && raft.term == term {
                    if let Some(progress) = raft.progress.get_mut(&from) {
                        progress.next = progress.next.max(index + 1);
                        progress.snapshot_sent = None;
                        self.replicate(to, from);
                    }
                }
            }
            Message::Transfer { term } => {
                if self.nodes[to].raft.term == term && !self.nodes[to].raft.is_leader() {
                    self.campaign(to, true);
                }
            }
            Message::Lease(message) => self.on_lease(from, to, sender, &message),
            Message::Leased(ack) | Message::GiveBack(ack) => {
                let node = &mut self.nodes[to];
                if let Some(leader) = &mut node.leader {
                    leader.answered(from as u64, &ack, now);
                    node.answered.insert(from, now);
                }
                self.refresh(to);
                self.check_lease(from);
            }
            Message::Ask { read } => self.on_ask(from, to, sender, read),
            Message::Answer { read, index } => {
                // The first answer counts.
                if self.reads[read].round && self.reads[read].need == u64::MAX {
                    self.reads[read].need = index;
                    self.after(0, Event::Read(read, Step::Settle));
                }
            }
        }
    }

    // Raft.

    /// Hears of a leader or a candidate of some term.
    fn heed(&mut self, id: Id, term: u64, leader: Option<Id>) {
        let now = self.clock(id);
        let node = &mut self.nodes[id];
        if node.raft.is_leader() && term > node.raft.term {
            // It led until now.
            if self.mutant != Mutant::LeaderAge {
                node.served = now;
            }
            node.questions.clear();
        }
        node.raft.follow(term, leader);
    }

    fn on_vote(&mut self, from: Id, to: Id, sender: u64, term: u64, last: (u64, u64), transfer: bool) {
        let now = self.clock(to);
        let sticky = self.knobs.sticky && !transfer;
        let raft = &self.nodes[to].raft;
        let mine = (raft.log.last_term(), raft.log.last());
        let follows = match raft.role {
            Role::Leader => raft.confirmed(now).is_some_and(|confirmed| confirmed + STICKY > now),
            _ => raft.leader.is_some() && raft.heard + STICKY > now,
        };
        if last < mine || sticky && follows {
            return;
        }
        if term > raft.term {
            self.heed(to, term, None);
        }
        let node = &mut self.nodes[to];
        let granted = term == node.raft.term && node.raft.voted.is_none_or(|voted| voted == from);
        if granted {
            node.raft.voted = Some(from);
            node.raft.heard = now;
        }
        let (term, age) = (node.raft.term, node.age(now));
        self.send(to, from, Some(sender), Message::Voted { term, granted, age });
    }

    fn campaign(&mut self, id: Id, transfer: bool) {
        let now = self.clock(id);
        let timeout = self.random.between(300, 600) * MS;
        let node = &mut self.nodes[id];
        let members = node.raft.log.effective().1;
        if !members.is_voter(id) {
            return;
        }
        let term = node.raft.term + 1;
        node.raft.follow(term, None);
        node.raft.role = Role::Candidate;
        node.raft.voted = Some(id);
        node.raft.votes = Set::of([id]);
        (node.raft.heard, node.raft.timeout) = (now, timeout);
        node.ages.clear();
        let last = (node.raft.log.last_term(), node.raft.log.last());
        let others = members.configs().fold(Set::default(), Set::and).without(id);
        if self.knobs.spite && !self.healing && self.random.chance(40) {
            if let Some(other) = self.one_of(others) {
                let delay = self.random.between(40 * MS, 250 * MS);
                self.slow.insert((id, other), delay);
            }
        }
        for other in others.ids() {
            self.send(id, other, None, Message::Vote { term, last, transfer });
        }
        self.count_votes(id);
    }

    fn on_voted(&mut self, from: Id, to: Id, term: u64, granted: bool, age: Nanos) {
        if term > self.nodes[to].raft.term {
            return self.heed(to, term, None);
        }
        let node = &mut self.nodes[to];
        if !granted || term != node.raft.term {
            return;
        }
        match node.raft.role {
            Role::Candidate => {
                node.raft.votes = node.raft.votes.with(from);
                node.ages.insert(from, age);
                self.count_votes(to);
            }
            // As the driver does; the core does not listen any more.
            Role::Leader => {
                if let Some(leader) = &mut node.leader {
                    leader.voted(from as u64, age);
                }
            }
            Role::Follower => {}
        }
    }

    fn count_votes(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        if node.raft.role != Role::Candidate || !node.raft.log.effective().1.has_quorum(node.raft.votes) {
            return;
        }
        node.raft.role = Role::Leader;
        node.raft.leader = Some(id);
        node.raft.first = node.raft.log.last() + 1;
        self.propose(id, Body::Blank);
        self.refresh(id);
        if self.knobs.spite && !self.healing && self.random.chance(60) {
            // Rather one that has not voted yet.
            let peers = self.peers(id);
            let silent = peers.except(self.nodes[id].raft.votes);
            if let Some(other) = self.one_of(if silent.is_empty() { peers } else { silent }) {
                self.cut_for_a_while(id, other);
                if self.random.chance(30) {
                    self.cut_for_a_while(other, id);
                }
                self.count("new leaders that cannot reach a node");
            }
        }
    }

    fn propose(&mut self, id: Id, body: Body) -> u64 {
        let term = self.nodes[id].raft.term;
        let entry = Entry { term, body };
        let index = self.nodes[id].raft.log.last() + 1;
        let forgotten = self.nodes[id].forgotten();
        self.nodes[id].fence.add(index, self.keys[touched(&entry) as usize].clone());
        if self.nodes[id].forgotten() > forgotten {
            self.count("fence entries forgotten");
        }
        self.nodes[id].raft.log.push(entry);
        self.sync(id);
        self.replicate_all(id);
        index
    }

    fn sync(&mut self, id: Id) {
        let slow = self.nodes[id].slow_disk_until > self.now;
        let delay = if slow { self.random.between(20 * MS, 300 * MS) } else { self.random.between(MS / 10, 2 * MS) };
        let node = &self.nodes[id];
        let event = Event::Synced { node: id, boot: node.boot, epoch: node.raft.log.epoch, end: node.raft.log.last() };
        self.after(delay, event);
    }

    fn synced(&mut self, id: Id, epoch: u64, end: u64) {
        let node = &mut self.nodes[id];
        if node.raft.log.epoch != epoch {
            return;
        }
        node.raft.log.set_synced(end);
        let synced = node.raft.log.synced();
        let (ready, rest) = std::mem::take(&mut node.replies).into_iter().partition(|(needs, _)| *needs <= synced);
        node.replies = rest;
        let ready: Vec<(u64, Envelope)> = ready;
        for (_, envelope) in ready {
            self.post(envelope);
        }
        self.advance_commit(id);
    }

    fn peers(&self, id: Id) -> Set {
        let log = &self.nodes[id].raft.log;
        log.effective().1.nodes.and(log.members_at(self.nodes[id].raft.commit).1.nodes).without(id)
    }

    fn replicate_all(&mut self, id: Id) {
        for other in self.peers(id).ids() {
            self.replicate(id, other);
        }
    }

    fn replicate(&mut self, id: Id, to: Id) {
        let now = self.clock(id);
        let batch = self.knobs.batch;
        let node = &mut self.nodes[id];
        let raft = &mut node.raft;
        let next = raft.log.last() + 1;
        let fresh = Progress { next, matched: 0, acked: None, snapshot_sent: None };
        let progress = raft.progress.entry(to).or_insert(fresh);
        let term = raft.term;
        if progress.next <= raft.log.base() {
            if progress.snapshot_sent.is_some_and(|sent| now < sent + 200 * MS) {
                return;
            }
            progress.snapshot_sent = Some(now);
            let (index, state) = node.disk;
            let term_then = raft.log.term_at(index).expect("the log reaches back to the state on disk");
            let members = raft.log.members_at(index).1;
            let snapshot = Snapshot { index, term: term_then, state, members };
            return self.send(id, to, None, Message::Snapshot { term, snapshot });
        }
        let prev = progress.next - 1;
        let entries = raft.log.after(prev, batch).to_vec();
        let prev = (prev, raft.log.term_at(prev).expect("it is in the log"));
        let message = Message::Append { term, prev, entries, commit: raft.commit, sent: now };
        self.send(id, to, None, message);
    }

    fn take(&mut self, id: Id, prev: (u64, u64), entries: &[Entry]) -> Result<u64, u64> {
        let node = &mut self.nodes[id];
        let (raft, fence, keys) = (&mut node.raft, &node.fence, &self.keys);
        let (before, epoch) = (raft.log.last(), raft.log.epoch);
        let result = raft.take(
            prev,
            entries,
            |last| fence.truncate(last),
            |index, entry| fence.add(index, keys[touched(entry) as usize].clone()),
        );
        let cut = raft.log.epoch != epoch;
        if raft.log.last() > before || cut {
            self.sync(id);
        }
        if cut {
            self.nodes[id].replies.clear();
            self.count("logs truncated");
            self.finish_writes(id);
        }
        result
    }

    fn on_appended(&mut self, from: Id, to: Id, term: u64, sent: Nanos, result: Result<u64, u64>) {
        if term > self.nodes[to].raft.term {
            self.heed(to, term, None);
            return self.refresh(to);
        }
        let node = &mut self.nodes[to];
        let last = node.raft.log.last();
        if !node.raft.is_leader() || node.raft.term != term {
            return;
        }
        let Some(progress) = node.raft.progress.get_mut(&from) else { return };
        let more = match result {
            Ok(matched) => {
                progress.acked = progress.acked.max(Some(sent));
                progress.matched = progress.matched.max(matched);
                let more = progress.next <= matched;
                progress.next = progress.next.max(matched + 1);
                if let Some(leader) = &mut node.leader {
                    leader.accepted(from as u64, sent, matched);
                }
                more && matched < last
            }
            Err(hint) => {
                let next = (hint + 1).max(progress.matched + 1).min(last + 1);
                let more = next < progress.next;
                progress.next = next.min(progress.next);
                more
            }
        };
        if more {
            self.replicate(to, from);
        }
        self.advance_commit(to);
        self.answer_questions(to);
        self.refresh(to);
    }

    fn advance_commit(&mut self, id: Id) {
        let raft = &mut self.nodes[id].raft;
        if !raft.is_leader() || !raft.advance_commit() {
            return;
        }
        let commit = raft.commit;
        for index in self.committed.len() as u64 + 1..=commit {
            let entry = self.nodes[id].raft.log.get(index).copied();
            self.committed.push(entry.expect("a leader has what is committed"));
        }
        let (from, members) = self.nodes[id].raft.log.effective();
        if from <= commit && !members.is_voter(id) {
            let term = self.nodes[id].raft.term;
            self.nodes[id].raft.follow(term, None);
            self.refresh(id);
        } else {
            self.replicate_all(id);
            self.answer_questions(id);
        }
        self.apply_soon(id);
    }

    fn commit_to(&mut self, id: Id, commit: u64) {
        let raft = &mut self.nodes[id].raft;
        if commit > raft.commit {
            raft.commit = commit;
            self.apply_soon(id);
        }
    }

    fn tick(&mut self, id: Id) {
        let now = self.clock(id);
        if self.nodes[id].raft.is_leader() {
            if now >= self.nodes[id].next_beat {
                self.nodes[id].next_beat = now + self.knobs.beat;
                self.replicate_all(id);
            }
            self.advance_commit(id);
            self.answer_questions(id);
            self.complete_joint(id);
        } else if now > self.nodes[id].raft.heard + self.nodes[id].raft.timeout {
            self.campaign(id, false);
        }
        self.refresh(id);
    }

    // The state machine.

    fn apply_soon(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        if node.applying || node.installing || node.written >= node.raft.commit {
            return;
        }
        node.applying = true;
        let boot = node.boot;
        let slow = self.random.chance(3);
        let delay = if slow { self.random.below(40 * MS) } else { self.random.below(MS) };
        self.after(delay, Event::Apply(id, boot));
    }

    /// Writes a few entries into the state. That they are applied is known only a moment later.
    fn apply(&mut self, id: Id, boot: u64) {
        let batch = self.random.between(1, 4);
        let node = &mut self.nodes[id];
        if node.installing {
            return;
        }
        for index in node.written + 1..=node.raft.commit.min(node.written + batch) {
            let entry = node.raft.log.get(index).copied().expect("what is applied is in the log");
            if self.committed.get(index as usize - 1) != Some(&entry) {
                return self.fail(format!("node {id} applies {entry:?} at {index}, which is not what was committed"));
            }
            node.state.apply(index, &entry);
            node.written = index;
        }
        let delay = self.random.below(MS);
        self.after(delay, Event::Announce(id, boot));
    }

    fn announce(&mut self, id: Id) {
        let (saves, purges) = (self.random.chance(15), self.random.chance(20));
        let keep = self.knobs.keep_log;
        let node = &mut self.nodes[id];
        if node.installing {
            return;
        }
        node.applied = node.written;
        node.applied_term = node.raft.log.term_at(node.applied).expect("what is applied is in the log");
        if saves {
            node.disk = (node.written, node.state);
        }
        if purges && node.written > node.raft.log.base() + 2 * keep {
            node.disk = (node.written, node.state);
            let to = node.written - keep;
            node.raft.log.purge(to);
            self.count("logs purged");
        }
        self.nodes[id].applying = false;
        self.refresh(id);
        self.apply_soon(id);
    }

    fn install(&mut self, id: Id, from: Id, sender: u64, snapshot: Snapshot) {
        let delay = self.random.between(MS, 30 * MS);
        let node = &mut self.nodes[id];
        if snapshot.index <= node.raft.commit {
            let (term, index) = (node.raft.term, node.raft.commit.min(node.raft.log.last()));
            return self.send(id, from, Some(sender), Message::Installed { term, index });
        }
        if node.installing {
            return;
        }
        (node.installing, node.applying) = (true, false);
        // Before anyone sees the new state.
        node.fence.install(snapshot.index);
        let boot = node.boot;
        self.after(delay, Event::Swap(id, boot, snapshot));
    }

    fn swap(&mut self, id: Id, snapshot: Snapshot) {
        let boot = self.nodes[id].boot;
        let node = &mut self.nodes[id];
        if node.written < snapshot.index {
            // The state first; that it is applied is known in the next step.
            node.state = snapshot.state;
            node.written = snapshot.index;
            node.disk = (snapshot.index, snapshot.state);
            // What became of them is not known here any more.
            node.waiting.retain(|(index, ..)| *index > snapshot.index);
            if !node.raft.log.install(&snapshot) {
                node.fence.truncate(snapshot.index);
                node.replies.clear();
            }
            node.raft.commit = node.raft.commit.max(snapshot.index);
            self.count("snapshots installed");
            self.check_lease(id);
            let delay = self.random.below(2 * MS);
            return self.after(delay, Event::Swap(id, boot, snapshot));
        }
        node.applied = node.applied.max(snapshot.index);
        node.applied_term = node.applied_term.max(snapshot.term);
        node.installing = false;
        let (term, leader) = (node.raft.term, node.raft.leader);
        if let Some(leader) = leader {
            self.send(id, leader, None, Message::Installed { term, index: snapshot.index });
        }
        self.refresh(id);
        self.apply_soon(id);
    }

    // Leases.

    fn lease_round(&mut self, id: Id) {
        self.refresh(id);
        for other in self.peers(id).ids() {
            self.lease_to(id, other);
        }
    }

    fn lease_to(&mut self, id: Id, to: Id) {
        let now = self.clock(id);
        let node = &mut self.nodes[id];
        let params = node.params(&self.knobs.params);
        let applied = node.applied;
        let Some(leader) = &mut node.leader else { return };
        let heard = *node.answered.entry(to).or_insert(now);
        if now > heard + params.lease / 4 {
            leader.lost(to as u64);
        }
        let message = leader.message(to as u64, &params, true, false, applied, now);
        if message.grant.is_some() {
            let learner = !node.raft.log.effective().1.is_voter(to);
            let joint = node.raft.log.effective().1.is_joint();
            self.count("leases given");
            if learner {
                self.count("leases given to learners");
            }
            if joint {
                self.count("leases given in joint consensus");
            }
        }
        self.send(id, to, None, Message::Lease(message));
    }

    fn on_lease(&mut self, from: Id, to: Id, sender: u64, message: &LeaseMessage) {
        let now = self.clock(to);
        let life = self.random.next();
        let node = &mut self.nodes[to];
        let (alarms, seen) = (node.holder.alarms(), node.holder.seen());
        let taken = node.holder.receive(message, node.fence.last(), node.applied, None, life, now);
        let alarmed = node.holder.alarms() > alarms;
        let Taken::Answer(ack) = taken else { return };
        if node.leader.as_ref().is_some_and(|leader| leader.ballot() < message.ballot) {
            node.leader = None;
        }
        if alarmed {
            self.count("clock alarms");
        }
        self.refresh(to);
        self.send(to, from, Some(sender), Message::Leased(ack));
        if self.knobs.spite && !self.healing && seen < message.ballot && self.random.chance(20) {
            self.crash(to);
            let delay = self.random.below(5 * MS);
            self.after(delay, Event::Restart(to));
            if self.random.chance(50) {
                self.cut_for_a_while(from, to);
            }
            self.count("crashes after hearing of a leader");
        }
    }

    // Clients.

    fn client(&mut self) {
        let pace = if self.healing { 20 } else { 6 };
        let delay = self.random.between(MS, pace * 2 * MS);
        self.after(delay, Event::Client);
        if self.random.chance(30) {
            self.write();
        } else {
            let id = self.random.below(self.nodes.len() as u64) as Id;
            let object = self.random.of(&state::OBJECTS);
            let (parts, view) = match self.random.below(10) {
                0 => (state::ALL, true),
                1 | 2 => (state::WORLD | state::VAULT | state::LIST, false),
                3..6 => (object, false),
                _ => (state::WORLD | state::VAULT | object, false),
            };
            if !self.nodes[id].up {
                return;
            }
            let what = What::Read { parts, shown: Shown::default(), way: "" };
            self.ops.push(Op { node: id, invoked: self.event, returned: None, what });
            let read = self.reads.len();
            self.reads.push(Read {
                op: self.ops.len() - 1,
                node: id,
                boot: self.nodes[id].boot,
                parts,
                view,
                began: self.now,
                tries: 0,
                round: false,
                asked: 0,
                need: 0,
                at: 0,
                used: 0,
                shown: Shown::default(),
            });
            self.after(0, Event::Read(read, Step::Enter));
        }
    }

    fn newest_leader(&self) -> Option<Id> {
        let runs = |node: &&Node| node.up && node.paused_until <= self.now && node.raft.is_leader();
        self.nodes.iter().filter(runs).max_by_key(|node| node.raft.term).map(|node| node.id)
    }

    fn write(&mut self) {
        let any = self.random.below(self.nodes.len() as u64) as Id;
        let known = self.newest_leader().filter(|_| self.random.chance(85));
        let id = known.unwrap_or(any);
        let node = &self.nodes[id];
        if !node.up || node.paused_until > self.now || !node.raft.is_leader() {
            return;
        }
        let object = self.random.of(&state::OBJECTS);
        let op = self.ops.len();
        let body = match self.random.below(100) {
            0..75 => Body::Write(op, object | state::LIST),
            75..83 => Body::Write(op, state::WORLD | state::VAULT | state::LIST),
            83..90 => Body::Write(op, state::VAULT),
            90..97 => Body::Write(op, state::WORLD),
            _ => Body::Lease(self.random.of(&[150, 400, 1_500]) * MS),
        };
        let term = node.raft.term;
        if let Body::Write(_, parts) = body {
            if bits(parts).count() > 1 {
                self.count("commands with several parts");
            }
            self.ops.push(Op { node: id, invoked: self.event, returned: None, what: What::Write });
            let index = self.propose(id, body);
            self.nodes[id].waiting.push((index, term, op));
        } else {
            self.propose(id, body);
        }
        self.advance_commit(id);
    }

    // Reads: a faithful copy of what a node does.

    fn is_clean(&self, read: &Read, node: &Node) -> bool {
        let (keys, at) = (node.keys(&self.keys, read.parts), read.at);
        match self.mutant.rule() {
            Broken::Reveal => node.fence.is_clean(Some(keys), at),
            Broken::Pending => node.fence.newest_up_to(Some(keys), at) <= node.visible(),
            _ => node.fence.is_clean(Some(keys), at.min(node.visible())),
        }
    }

    fn validate(&self, read: &Read, node: &Node, now: Nanos) -> bool {
        match self.mutant.rule() {
            Broken::CheckBefore => true,
            Broken::Reveal | Broken::Pending => node.lease.is_valid(|| now) && self.is_clean(read, node),
            _ => validate(
                &node.lease,
                &node.fence,
                &node.visible,
                read.at,
                Some(node.keys(&self.keys, read.parts)),
                || now,
            ),
        }
    }

    fn read(&mut self, i: usize, step: Step) {
        let id = self.reads[i].node;
        let now = self.clock(id);
        let waited = self.now - self.reads[i].began;
        if waited > PATIENCE {
            self.count("reads refused");
            return;
        }
        let poll = self.random.between(MS / 2, 3 * MS);
        match step {
            Step::Enter => {
                let node = &self.nodes[id];
                let read = &mut self.reads[i];
                read.tries += 1;
                read.round = false;
                if !node.lease.is_valid(|| now) || waited > self.knobs.hold {
                    return self.ask(i);
                }
                if read.view {
                    // What was visible while the lease was valid is fenced here, and so in the log that is here now.
                    read.need = node.fence.newest();
                    return self.after(0, Event::Read(i, Step::Settle));
                }
                read.at = node.applied;
                let next = if self.is_clean(&self.reads[i], &self.nodes[id]) { Step::Look } else { Step::Enter };
                self.after(if next == Step::Look { 0 } else { poll }, Event::Read(i, next));
            }
            Step::Asked => {
                // No answer in time, unless the read has moved on since.
                let read = &mut self.reads[i];
                read.asked -= 1;
                if read.round && read.need == u64::MAX && read.asked == 0 {
                    self.ask(i);
                }
            }
            Step::Settle => {
                let read = &mut self.reads[i];
                let node = &self.nodes[id];
                if node.applied >= read.need {
                    read.at = node.applied;
                    self.after(0, Event::Read(i, Step::Look));
                } else if read.view && !read.round && waited > self.knobs.hold {
                    self.ask(i);
                } else {
                    self.after(poll, Event::Read(i, Step::Settle));
                }
            }
            Step::Look => {
                let read = &mut self.reads[i];
                let state = &self.nodes[id].state;
                let first = if read.view { state::COUNT } else { 1 };
                for bit in bits(read.parts).take(first) {
                    read.shown[bit] = state.shown[bit];
                }
                let delay = if read.view { 0 } else { self.random.below(MS) };
                self.after(delay, Event::Read(i, Step::LookRest));
            }
            Step::LookRest => {
                let read = &mut self.reads[i];
                let state = &self.nodes[id].state;
                let first = if read.view { state::COUNT } else { 1 };
                for bit in bits(read.parts).skip(first) {
                    read.shown[bit] = state.shown[bit];
                }
                let crypto = self.random.below(self.knobs.crypto);
                self.after(crypto, Event::Read(i, Step::Confirm));
            }
            Step::Confirm => {
                let (read, node) = (&self.reads[i], &self.nodes[id]);
                if !read.round && !read.view {
                    if self.validate(read, node, now) {
                        return self.finish_read(i);
                    }
                    self.count("reads repeated");
                    return self.after(0, Event::Read(i, Step::Enter));
                }
                let keys = (!read.view).then(|| node.keys(&self.keys, read.parts));
                // What the state itself says: what is announced as applied may be older than what was just seen.
                let applied = if self.mutant == Mutant::Announced { node.applied } else { node.written };
                if !read.view && node.fence.newest_up_to(keys, applied) > read.at {
                    self.count("reads repeated");
                    return self.after(0, Event::Read(i, Step::Enter));
                }
                let upto = if read.view { applied } else { read.at };
                self.reads[i].used = node.fence.newest_up_to(keys, upto);
                self.read(i, Step::Shown);
            }
            Step::Shown => {
                let shown = self.nodes[id].visible() >= self.reads[i].used;
                if shown || matches!(self.mutant.rule(), Broken::Reveal | Broken::CheckBefore) {
                    return self.finish_read(i);
                }
                self.after(poll, Event::Read(i, Step::Shown));
            }
        }
    }

    fn finish_read(&mut self, i: usize) {
        let read = &self.reads[i];
        let node = &self.nodes[read.node];
        let way = match (read.view, read.round, read.tries) {
            (true, true, _) => "reads: view by round",
            (true, false, _) => "reads: view under a lease",
            (false, true, _) => "reads: round",
            (false, false, _) if node.leader.is_some() => "reads: at the leader",
            (false, false, 1) => "reads: local",
            (false, false, _) => "reads: held",
        };
        let newest = bits(read.parts).map(|bit| read.shown[bit]).max().unwrap_or(0);
        let (op, shown, id, round) = (read.op, read.shown, read.node, read.round);
        if newest > self.visible {
            self.fail(format!("node {id} shows {newest}, which is not visible anywhere ({way})"));
        }
        let done = &mut self.ops[op];
        done.returned = Some(self.event);
        if let What::Read { shown: place, way: how, .. } = &mut done.what {
            (*place, *how) = (shown, way);
        }
        if self.healing && done.invoked >= self.healed_from && !round {
            self.served_after = self.served_after.with(id);
        }
        self.count(way);
    }

    fn ask(&mut self, i: usize) {
        let read = &mut self.reads[i];
        read.round = true;
        read.need = u64::MAX;
        read.asked += 1;
        let id = read.node;
        if let Some(leader) = self.nodes[id].raft.leader {
            self.send(id, leader, None, Message::Ask { read: i });
        }
        self.after(150 * MS, Event::Read(i, Step::Asked));
    }

    fn on_ask(&mut self, from: Id, to: Id, sender: u64, read: usize) {
        let asked = self.clock(to);
        if !self.nodes[to].raft.is_leader() {
            return;
        }
        self.nodes[to].questions.push(Question { from, boot: sender, read, asked });
        self.replicate_all(to);
        self.answer_questions(to);
    }

    fn answer_questions(&mut self, id: Id) {
        let now = self.clock(id);
        let node = &mut self.nodes[id];
        if !node.raft.is_leader() || node.raft.commit < node.raft.first || node.questions.is_empty() {
            return;
        }
        let Some(confirmed) = node.raft.confirmed(now) else { return };
        let commit = node.raft.commit;
        let all = std::mem::take(&mut node.questions);
        let (ready, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|question| question.asked <= confirmed);
        node.questions = rest;
        for Question { from, boot, read, .. } in ready {
            self.send(id, from, Some(boot), Message::Answer { read, index: commit });
        }
    }

    // Operators.

    fn operate(&mut self) {
        if self.healing {
            return;
        }
        if self.plan.is_some() {
            self.go_on();
            return self.after(10 * MS, Event::Operate);
        }
        let delay = self.random.between(100 * MS, 900 * MS);
        self.after(delay, Event::Operate);
        let Some(id) = self.newest_leader() else { return };
        if self.random.chance(15) {
            return self.resign();
        }
        if self.random.chance(20) {
            return self.transfer(id);
        }
        let raft = &self.nodes[id].raft;
        let (from, members) = raft.log.effective();
        if from > raft.commit || members.is_joint() || raft.commit < raft.first {
            return;
        }
        let Membership { voters, nodes, .. } = members;
        let learners = nodes.except(voters);
        let strangers = Set::of(0..self.nodes.len()).except(nodes);
        let learner = self.one_of(learners);
        let stranger = self.one_of(strangers);
        let voter = self.one_of(voters.without(id));
        let joint = |to: Set, leaving: Set| Membership { old: voters, voters: to, nodes, leaving };
        let to = match (self.random.below(6), learner, stranger, voter) {
            (0 | 1, _, Some(stranger), _) => Membership { nodes: nodes.with(stranger), ..members },
            (2, Some(learner), ..) => joint(voters.with(learner), Set::default()),
            (3, Some(learner), _, Some(voter)) => joint(voters.with(learner).without(voter), Set::of([voter])),
            (4, _, _, Some(voter)) if voters.len() > 3 => joint(voters.without(voter), Set::of([voter])),
            // It stays, as a learner.
            (5, _, _, Some(voter)) if voters.len() > 3 => joint(voters.without(voter), Set::default()),
            (_, Some(learner), ..) => Membership { nodes: nodes.without(learner), ..members },
            _ => return,
        };
        let leaving = to.leaving.and(nodes.except(to.nodes));
        self.plan = Some(Plan { leader: id, term: self.nodes[id].raft.term, to, leaving });
        self.retire(id, leaving, true);
        self.go_on();
    }

    fn one_of(&mut self, set: Set) -> Option<Id> {
        let ids: Vec<Id> = set.ids().collect();
        (!ids.is_empty()).then(|| self.random.of(&ids))
    }

    fn retire(&mut self, id: Id, nodes: Set, retiring: bool) {
        if let Some(leader) = self.nodes[id].leader.as_mut().filter(|_| self.mutant != Mutant::NoRetire) {
            nodes.ids().for_each(|node| leader.retire(node as u64, retiring));
        }
    }

    fn are_free(&self, id: Id, nodes: Set) -> bool {
        let now = self.clock(id);
        let node = &self.nodes[id];
        let (current, longest) = (node.params(&self.knobs.params), node.longest(&self.knobs.params));
        let free = |other: Id| {
            let leader = node.leader.as_ref();
            leader.is_some_and(|leader| leader.is_free(other as u64, &current, Some(&longest), now))
        };
        self.mutant == Mutant::NoRetire || nodes.ids().all(free)
    }

    fn go_on(&mut self) {
        let Some(Plan { leader, term, to, leaving }) = self.plan else { return };
        let node = &self.nodes[leader];
        if node.up && node.paused_until > self.now {
            return;
        }
        if !node.up || !node.raft.is_leader() || node.raft.term != term || node.leader.is_none() {
            self.plan = None;
            return;
        }
        if self.are_free(leader, leaving) {
            self.plan = None;
            self.propose(leader, Body::Members(to));
            self.refresh(leader);
            self.count("memberships proposed");
            if !leaving.is_empty() {
                self.count("removals proposed (R7)");
            }
        }
    }

    /// The second half of a change of voters: by whoever leads then.
    fn complete_joint(&mut self, id: Id) {
        let raft = &self.nodes[id].raft;
        let (from, members) = raft.log.effective();
        if !members.is_joint() || from > raft.commit || raft.commit < raft.first || self.plan.is_some() {
            return;
        }
        if !members.voters.has(id) {
            return self.transfer(id);
        }
        self.retire(id, members.leaving, true);
        if self.are_free(id, members.leaving) {
            let (voters, nodes) = (members.voters, members.nodes.except(members.leaving));
            self.propose(id, Body::Members(Membership { voters, nodes, ..Membership::default() }));
            self.refresh(id);
            self.count("joint consensus completed");
            if self.random.chance(50) {
                self.transfer(id);
            }
        }
    }

    fn transfer(&mut self, id: Id) {
        let raft = &self.nodes[id].raft;
        let (members, last, term) = (raft.log.effective().1, raft.log.last(), raft.term);
        let ready = |other: &Id| raft.progress.get(other).is_some_and(|progress| progress.matched == last);
        let ready = Set::of(members.voters.without(id).ids().filter(ready));
        if let Some(to) = self.one_of(ready) {
            self.send(id, to, None, Message::Transfer { term });
            self.count("leadership handed over");
        }
    }

    /// A node is stopped in an orderly way.
    fn resign(&mut self) {
        let id = self.random.below(self.nodes.len() as u64) as Id;
        let now = self.clock(id);
        if !self.nodes[id].up || self.nodes[id].paused_until > self.now {
            return;
        }
        let life = self.random.next();
        let ack = self.nodes[id].holder.resign(life, now);
        self.refresh(id);
        if let Some(leader) = self.nodes[id].raft.leader.filter(|leader| *leader != id) {
            self.send(id, leader, None, Message::GiveBack(ack));
        }
        self.count("leases given back (R6)");
        let boot = self.nodes[id].boot;
        self.after(50 * MS, Event::Stop(id, boot));
    }

    // Faults.

    fn fault(&mut self) {
        if self.healing {
            return;
        }
        let delay = self.random.between(30 * MS, 700 * MS);
        self.after(delay, Event::Fault);
        let all = self.nodes.len();
        let any = self.random.below(all as u64) as Id;
        let leads = self.nodes.iter().find(|node| node.up && node.raft.is_leader()).map(|node| node.id);
        let id = leads.filter(|_| self.random.chance(50)).unwrap_or(any);
        let other = self.random.below(all as u64) as Id;
        match self.random.below(16) {
            15 => {
                for id in 0..all {
                    self.crash(id);
                    let delay = self.random.below(200 * MS);
                    self.after(delay, Event::Restart(id));
                }
                self.count("blackouts");
            }
            0 | 1 => {
                if self.nodes.iter().filter(|node| !node.up).count() < all / 3 {
                    self.crash(id);
                    let short = self.random.chance(50);
                    let delay = if short { self.random.below(30 * MS) } else { self.random.below(1_500 * MS) };
                    self.after(delay, Event::Restart(id));
                }
            }
            2..5 => {
                let span = self.random.between(10 * MS, 1_500 * MS);
                let node = &mut self.nodes[id];
                if node.paused_until <= self.now {
                    node.paused_until = self.now + span;
                    if self.mutant == Mutant::SuspendedClock {
                        node.clock.lost += span as i64;
                    }
                    self.count("pauses");
                }
            }
            5 => {
                for node in (0..all).filter(|node| *node != id) {
                    self.cut[id] = self.cut[id].with(node);
                    self.cut[node] = self.cut[node].with(id);
                }
                self.count("nodes cut off");
            }
            6 => {
                self.cut[id] = self.cut[id].with(other);
                self.count("one-way cuts");
            }
            7 => {
                let side = Set::of([id, other]);
                for from in 0..all {
                    for to in (0..all).filter(|to| side.has(from) != side.has(*to)) {
                        self.cut[from] = self.cut[from].with(to);
                    }
                }
                self.count("splits");
            }
            8 => {
                let span = self.random.between(20 * MS, 300 * MS);
                self.slow.insert((id, other), span);
                self.count("slow links");
            }
            9 => {
                self.nodes[id].slow_disk_until = self.now + self.random.between(100 * MS, 1_000 * MS);
                self.count("slow disks");
            }
            _ => self.mend(),
        }
    }

    fn cut_for_a_while(&mut self, from: Id, to: Id) {
        self.cut[from] = self.cut[from].with(to);
        let delay = self.random.between(30 * MS, 1_500 * MS);
        self.after(delay, Event::Mend(from, to));
    }

    fn mend(&mut self) {
        self.cut.fill(Set::default());
        self.slow.clear();
    }

    fn heal(&mut self) {
        self.mend();
        self.healing = true;
        self.healed_from = self.event;
        self.plan = None;
        for id in 0..self.nodes.len() {
            self.nodes[id].paused_until = self.nodes[id].paused_until.min(self.now);
            self.nodes[id].slow_disk_until = 0;
            // A node that was about to be removed is not.
            self.retire(id, Set::of(0..self.nodes.len()), false);
            if !self.nodes[id].up {
                self.start(id);
            }
        }
    }

    /// Every member has answered a read under a lease, and a write was acknowledged, since the faults ended.
    fn is_well(&self) -> bool {
        let Some(leader) = self.newest_leader().filter(|_| self.healing && self.acked_after) else { return false };
        let raft = &self.nodes[leader].raft;
        let members = raft.log.members_at(raft.commit).1;
        !members.is_joint() && members.nodes.except(self.served_after).is_empty()
    }
}

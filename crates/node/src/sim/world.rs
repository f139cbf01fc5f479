//! The world: nodes, clients and faults, moved a millisecond at a time.
//!
//! Every node has a tokio runtime of its own with stopped time, so that it can be killed (the runtime is dropped) and
//! paused (it is not run; when it goes on, its time jumps, and its clock has gone on all the while).

use super::check::{self, Watch};
use super::client::{self, AskFor, Work, Write, OBJECTS, PRINCIPALS, VAULTS};
use super::clock::{Clock, Time, MS};
use super::net::{Ask, Fault, Net, SimPeers};
use super::node::{Order, Setup, SimNode, Timing};
use super::plan::Plan;
use super::record::{End, Op, Record, What};
use super::rng::Rng;
use super::store::{Disk, Health};
use super::Mutant;
use claviger_types::outcome::Outcome;
use claviger_types::reads::ReadMode;
use openraft::async_runtime::WatchReceiver;
use openraft::ServerState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Within this much, in milliseconds, everything works again when everything is healed.
const LIVE: u64 = 10_000;

/// In which a change of the membership ends that was ordered before all was healed.
const CHANGED: u64 = 4_000;

/// How long a client waits for an answer, in milliseconds.
const PATIENCE: u64 = 1_500;

/// How long nobody asks a node that did not answer, in milliseconds.
const AVOID: u64 = 300;

struct Life {
    runtime: Runtime,
    node: SimNode,
    orders: mpsc::UnboundedSender<Order>,
    asks: mpsc::UnboundedSender<Ask>,
}

struct Slot {
    disk: Arc<Mutex<Disk>>,
    clock: Arc<Clock>,
    timing: Timing,
    life: Option<Life>,
    /// When it goes on, and since when it is paused.
    paused: Option<(u64, u64)>,
    /// When it is started again; `None` while it lives or when it is gone for good.
    start_at: Option<u64>,
    /// When it is stopped, for it was told to resign.
    stop_at: Option<u64>,
}

#[derive(Default)]
struct Client {
    busy: Option<(usize, Option<Vec<u8>>, u64)>,
    next: u64,
}

enum Undo {
    Links(Vec<(u64, u64)>),
    Disk(u64),
}

pub(super) struct World {
    plan: Plan,
    rng: Rng,
    time: Arc<Time>,
    net: Net,
    record: Record,
    nodes: BTreeMap<u64, Slot>,
    clients: Vec<Client>,
    /// Nodes that did not answer, and until when they are not asked.
    avoid: BTreeMap<u64, u64>,
    watch: Watch,
    undo: Vec<(u64, Undo)>,
    mutant: Mutant,
    now: u64,
    next_fault: u64,
    next_member: u64,
    target: usize,
    next_id: u64,
    /// A node that is about to join, and until when it is waited for.
    joining: Option<(u64, u64)>,
    /// A node that is to be removed, and until when that is waited for.
    leaving: Option<(u64, u64)>,
    steps: bool,
    trace: u64,
}

fn runtime(rng: &mut Rng) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&rng.next().to_be_bytes()));
    #[cfg(not(tokio_unstable))]
    rng.next();
    builder.build().unwrap()
}

impl World {
    pub(super) fn new(plan: Plan, mutant: Mutant) -> Self {
        let mut rng = Rng::new(plan.seed);
        let time = Arc::new(Time::default());
        let net = Net::new(time.clone(), rng.fork());
        let record = Record::new(time.clone());
        let mut world = Self {
            rng,
            time,
            net,
            record,
            nodes: BTreeMap::new(),
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            avoid: BTreeMap::new(),
            watch: Watch::default(),
            undo: Vec::new(),
            mutant,
            now: 1,
            next_fault: u64::MAX,
            next_member: u64::MAX,
            target: plan.nodes,
            next_id: 1,
            joining: None,
            leaving: None,
            steps: false,
            trace: 0,
            plan,
        };
        world.time.set_ms(world.now);
        for _ in 0..world.plan.nodes {
            world.add_node();
        }
        world
    }

    fn rate(&mut self) -> i64 {
        let half = u64::from(self.plan.timing.rho_ppm) / 2;
        i64::try_from(self.rng.within(0..=2 * half)).unwrap() - i64::try_from(half).unwrap()
    }

    fn add_node(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let shown = self.rng.within(MS..=1_000_000_000 * MS);
        let rate = self.rate();
        let slot = Slot {
            disk: Arc::new(Mutex::new(Disk::new(self.rng.fork()))),
            clock: Arc::new(Clock::new(self.time.clone(), shown, rate)),
            timing: self.plan.raft(id),
            life: None,
            paused: None,
            start_at: Some(self.now),
            stop_at: None,
        };
        self.nodes.insert(id, slot);
        self.start(id);
        id
    }

    fn start(&mut self, id: u64) {
        let runtime = runtime(&mut self.rng);
        let Some(slot) = self.nodes.get_mut(&id) else { return };
        let (orders, order) = mpsc::unbounded_channel();
        let (asks, ask) = mpsc::unbounded_channel();
        let setup = Setup {
            id,
            timing: slot.timing.clone(),
            clock: slot.clock.clone(),
            disk: slot.disk.clone(),
            peers: SimPeers { id, net: self.net.clone() },
            record: self.record.clone(),
            rng: self.rng.fork(),
            mutant: self.mutant,
        };
        slot.start_at = None;
        self.record.say(|| format!("{id} starts"));
        match runtime.block_on(SimNode::start(setup, order, ask)) {
            Ok(node) => {
                slot.life = Some(Life { runtime, node, orders, asks });
                self.net.set_down(id, false);
            }
            Err(error) => self.record.wrong(format!("node {id} does not start: {error}")),
        }
    }

    /// A node dies; what its clients asked has no answer.
    fn kill(&mut self, id: u64, power: bool, again_at: Option<u64>) {
        let Some(slot) = self.nodes.get_mut(&id) else { return };
        let Some(life) = slot.life.take() else { return };
        self.net.set_down(id, true);
        let Life { runtime, node, orders, asks } = life;
        drop((node, orders, asks));
        drop(runtime);
        slot.paused = None;
        slot.stop_at = None;
        slot.start_at = again_at;
        let lost = if power { slot.disk.lock().unwrap().power_cut() } else { 0 };
        self.record.inner().seen.add("lost entries", lost);
        self.record.say(|| format!("{id} dies (power: {power}, {lost} entries lost)"));
        let now = self.time.look();
        let mut inner = self.record.inner();
        for client in &self.clients {
            let Some((op, ..)) = &client.busy else { continue };
            if let Some(op) = inner.ops.get_mut(*op).filter(|op| op.node == id && op.end.is_none()) {
                op.end = Some((now, 0, if op.what == What::Read { End::Failed } else { End::Unknown }));
            }
        }
    }

    fn alive(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, slot)| slot.life.is_some()).map(|(id, _)| *id).collect()
    }

    fn running(&self) -> BTreeMap<u64, SimNode> {
        let lives = self.nodes.iter().filter_map(|(id, slot)| Some((*id, slot.life.as_ref()?.node.clone())));
        lives.collect()
    }

    fn order(&self, id: u64, order: Order) {
        if let Some(life) = self.nodes.get(&id).and_then(|slot| slot.life.as_ref()) {
            life.orders.send(order).ok();
        }
    }

    /// Who leads: the one with the highest term that thinks so.
    fn leader(&self) -> Option<u64> {
        let lives = self.nodes.iter().filter_map(|(id, slot)| Some((*id, slot.life.as_ref()?)));
        let leaders = lives.filter_map(|(id, life)| {
            let metrics = life.node.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.state == ServerState::Leader).then(|| (metrics.vote.leader_id.term, id))
        });
        leaders.max().map(|(_, id)| id)
    }

    /// Voters and learners as the leader knows them.
    fn members(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let leader = self.leader().and_then(|id| self.nodes.get(&id)?.life.as_ref());
        let Some(leader) = leader else { return Default::default() };
        let metrics = leader.node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        (membership.voter_ids().collect(), membership.learner_ids().collect())
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += 1;
        self.time.set_ms(self.now);
        self.mend();
        if self.now >= self.next_fault {
            self.next_fault = self.now + self.rng.within(0..=2 * self.plan.fault_every);
            self.fault();
        }
        if self.now >= self.next_member {
            self.next_member = self.now + self.rng.within(50..=400);
            self.change_members();
        }
        self.serve_clients();
        for (to, ask) in self.net.deliver() {
            if let Some(life) = self.nodes.get(&to).and_then(|slot| slot.life.as_ref()) {
                life.asks.send(ask).ok();
            }
        }
        let mut order: Vec<u64> = self.alive();
        self.rng.shuffle(&mut order);
        for id in order {
            let slot = self.nodes.get(&id);
            if let Some(life) = slot.filter(|slot| slot.paused.is_none()).and_then(|slot| slot.life.as_ref()) {
                life.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            }
        }
        self.look();
    }

    fn look(&mut self) {
        let nodes = self.running();
        let timing = self.plan.timing;
        self.watch.step(&nodes, &self.record, u64::from(timing.rho_ppm), u64::from(timing.eps_ms) * MS);
        if self.now.is_multiple_of(97) {
            check::logs(&nodes, &self.record);
        }
        for (id, node) in &nodes {
            let (applied, visible) = (*node.store.applied().borrow(), *node.lease.visible().borrow());
            for word in [*id, applied, visible] {
                self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
            }
            let stopped = node.raft.metrics().borrow_watched().running_state.clone().err();
            let Some(fatal) = stopped else { continue };
            let slot = self.nodes.get(id);
            if slot.is_some_and(|slot| slot.disk.lock().unwrap().health.full) {
                self.record.count("disk full");
            } else {
                self.record.wrong(format!("node {id} has stopped: {fatal}"));
            }
            let again = self.now + self.rng.within(20..=500);
            self.kill(*id, false, Some(again));
            if let Some(slot) = self.nodes.get(id) {
                slot.disk.lock().unwrap().health.full = false;
            }
        }
    }

    /// What ends now.
    fn mend(&mut self) {
        let now = self.now;
        let (over, stays): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = stays;
        for (_, undo) in over {
            match undo {
                Undo::Links(links) => links.into_iter().for_each(|(from, to)| self.net.set_fault(from, to, None)),
                Undo::Disk(id) => {
                    if let Some(slot) = self.nodes.get(&id) {
                        slot.disk.lock().unwrap().health = Health { slow: 0, full: false };
                    }
                }
            }
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let Some(slot) = self.nodes.get_mut(&id) else { continue };
            if let Some((until, since)) = slot.paused.filter(|(until, _)| *until <= now) {
                slot.paused = None;
                if let Some(life) = &slot.life {
                    life.runtime.block_on(async { tokio::time::advance(Duration::from_millis(until - since)).await });
                }
            }
            if slot.stop_at.is_some_and(|at| at <= now) {
                let again = now + self.rng.within(5..=400);
                self.kill(id, false, Some(again));
            } else if slot.start_at.is_some_and(|at| at <= now) {
                self.start(id);
            }
        }
    }

    fn some_links(&mut self) -> Vec<(u64, u64)> {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let (Some(one), Some(other)) = (self.some_node(), self.rng.pick(&ids).copied()) else { return Vec::new() };
        let others: Vec<u64> = ids.iter().copied().filter(|id| *id != one).collect();
        let links: Vec<(u64, u64)> = match self.rng.below(6) {
            // One link, one way or both.
            0 => vec![(one, other)],
            1 => vec![(one, other), (other, one)],
            // One node, one way or both.
            2 => others.iter().map(|other| (one, *other)).collect(),
            3 => others.iter().map(|other| (*other, one)).collect(),
            4 => others.iter().flat_map(|other| [(one, *other), (*other, one)]).collect(),
            // Two halves.
            _ => {
                let side: BTreeSet<u64> = ids.iter().copied().filter(|_| self.rng.chance(500)).collect();
                let across = |(a, b): &(u64, u64)| side.contains(a) != side.contains(b);
                ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))).filter(across).collect()
            }
        };
        links.into_iter().filter(|(from, to)| from != to).collect()
    }

    /// A node, the leader more often than others.
    fn some_node(&mut self) -> Option<u64> {
        let alive = self.alive();
        let leader = self.leader().filter(|_| self.rng.chance(350));
        leader.or_else(|| self.rng.pick(&alive).copied())
    }

    /// Mostly short, sometimes long.
    fn while_ms(&mut self) -> u64 {
        let most = self.rng.pick(&[30, 150, 500, 1_500]).copied().unwrap_or(30);
        self.rng.within(1..=most)
    }

    fn fault(&mut self) {
        let Some(id) = self.some_node() else { return };
        let length = self.while_ms();
        let until = self.now + length;
        match self.rng.below(100) {
            0..35 => {
                let links = self.some_links();
                let fault = match self.rng.below(10) {
                    0..6 => Fault { cut: true, ..Fault::default() },
                    6..8 => Fault { slow: self.rng.within(3..=500), ..Fault::default() },
                    _ => Fault { loss: self.rng.within(50..=600), ..Fault::default() },
                };
                self.record.say(|| format!("{fault:?} for {length} ms: {links:?}"));
                for (from, to) in &links {
                    self.net.set_fault(*from, *to, Some(fault));
                }
                self.undo.push((until, Undo::Links(links)));
            }
            35..55 => {
                let power = self.rng.chance(600);
                self.kill(id, power, Some(until));
                if self.rng.chance(80) {
                    for id in self.alive() {
                        let until = self.now + self.rng.within(1..=400);
                        self.kill(id, power, Some(until));
                    }
                }
            }
            55..75 => {
                self.record.say(|| format!("{id} is paused for {length} ms"));
                let now = self.now;
                if let Some(slot) = self.nodes.get_mut(&id).filter(|slot| slot.paused.is_none()) {
                    slot.paused = Some((until, now));
                }
            }
            75..80 => {
                let rate = self.rate();
                if let Some(slot) = self.nodes.get(&id) {
                    slot.clock.set_rate(rate);
                }
            }
            80..87 => {
                let to = self.rng.pick(&self.alive()).copied();
                if let (Some(leader), Some(to)) = (self.leader(), to.filter(|to| Some(*to) != self.leader())) {
                    self.record.say(|| format!("{leader} hands over to {to}"));
                    self.order(leader, Order::TransferLeader(to));
                }
            }
            87..91 => {
                self.record.say(|| format!("{id} resigns"));
                self.order(id, Order::Resign);
                let at = self.now + self.rng.within(20..=400);
                if let Some(slot) = self.nodes.get_mut(&id) {
                    slot.stop_at = Some(at);
                }
            }
            91..97 => {
                let health = match self.rng.below(5) {
                    0 => Health { slow: 0, full: true },
                    _ => Health { slow: self.rng.within(2..=300), full: false },
                };
                self.record.say(|| format!("disk of {id}: {health:?} for {length} ms"));
                if let Some(slot) = self.nodes.get(&id) {
                    slot.disk.lock().unwrap().health = health;
                }
                self.undo.push((until, Undo::Disk(id)));
            }
            _ => self.order(id, Order::Snapshot),
        }
    }

    /// Toward the size that is wanted, one node at a time; then another size is wanted.
    fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let (voters, learners) = self.members();
        let now = self.now;
        if self.joining.is_some_and(|(id, until)| now < until && !voters.contains(&id)) {
            return;
        }
        if self.leaving.is_some_and(|(id, until)| now < until && voters.contains(&id)) {
            return;
        }
        if let Some((id, _)) = self.joining.take().filter(|(id, _)| !voters.contains(id) && learners.contains(id)) {
            self.joining = Some((id, now + 3_000));
            self.order(leader, Order::Join(id));
            return;
        }
        // Who was removed stays for a while, and is then stopped for good.
        let outside: Vec<u64> =
            self.nodes.keys().copied().filter(|id| !voters.contains(id) && !learners.contains(id)).collect();
        for id in outside {
            if self.rng.chance(300) {
                self.kill(id, false, None);
                self.nodes.remove(&id);
            }
        }
        if voters.len() < self.target {
            let id = self.add_node();
            self.joining = Some((id, now + 3_000));
            self.order(leader, Order::Join(id));
        } else if voters.len() > self.target {
            let others: Vec<u64> = voters.iter().copied().filter(|id| *id != leader).collect();
            if let Some(id) = self.rng.pick(&others).copied() {
                self.record.say(|| format!("{leader} removes {id}"));
                self.leaving = Some((id, now + 2_000));
                self.order(leader, Order::Remove(id));
            }
        } else if self.rng.chance(300) {
            self.target = 8 - self.target;
        }
    }

    fn serve_clients(&mut self) {
        for at in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(at) else { continue };
            let Some((op, bytes, since)) = client.busy.take() else {
                if self.steps && self.now >= client.next {
                    self.ask(at);
                }
                continue;
            };
            let end = self.record.inner().ops.get(op).and_then(|op| op.end.clone());
            if end.is_some() {
                let inner = self.record.inner();
                self.record.say(|| format!("{op}: {:?}", inner.ops.get(op)));
            }
            if matches!(end, Some((_, _, End::Failed | End::Unknown))) || self.now > since + PATIENCE {
                let node = self.record.inner().ops.get(op).map_or(0, |op| op.node);
                self.avoid.insert(node, self.now + AVOID);
            }
            match end {
                None if self.now > since + PATIENCE => {
                    let now = self.time.look();
                    let unknown = if bytes.is_none() { End::Failed } else { End::Unknown };
                    if let Some(op) = self.record.inner().ops.get_mut(op) {
                        op.end = Some((now, 0, unknown));
                    }
                }
                None => client.busy = Some((op, bytes, since)),
                Some((_, _, End::Unknown)) if bytes.is_some() && self.rng.chance(600) => {
                    self.again(at, op, bytes.unwrap_or_default());
                }
                Some(_) => client.next = self.now + self.rng.within(0..=self.plan.think),
            }
        }
    }

    /// An unknown outcome is asked for again, at another node, with the same request id.
    fn again(&mut self, at: usize, op: usize, bytes: Vec<u8>) {
        let Some(node) = self.some_door() else { return };
        if let Some(op) = self.record.inner().ops.get_mut(op) {
            (op.node, op.end) = (node, None);
        }
        self.record.count("retry");
        let work = Work { op, ask: AskFor::Write(bytes.clone()), rng: self.rng.fork() };
        self.order(node, Order::Work(work));
        if let Some(client) = self.clients.get_mut(at) {
            client.busy = Some((op, Some(bytes), self.now));
        }
    }

    fn ask(&mut self, at: usize) {
        if self.plan.modes && self.rng.chance(4) {
            let mode = match self.rng.below(4) {
                0 => ReadMode::ReadIndex,
                1 => ReadMode::Bounded { bound_ms: u32::try_from(self.rng.within(100..=500)).unwrap() },
                _ => ReadMode::Lease,
            };
            let write = client::set_reads(self.rng.next(), mode, self.plan.timing);
            return self.write(at, write);
        }
        if self.rng.chance(self.plan.writes) {
            let write = client::some_write(&mut self.rng);
            return self.write(at, write);
        }
        let vault = usize::try_from(self.rng.below(VAULTS as u64)).unwrap();
        let who = usize::try_from(self.rng.below(PRINCIPALS as u64)).unwrap();
        let object = usize::try_from(self.rng.below(OBJECTS as u64)).unwrap();
        let ask = match self.rng.below(10) {
            0..7 => AskFor::Object { vault, object, who },
            7..9 => AskFor::List { vault, who },
            _ => AskFor::Settled { vault, who },
        };
        self.begin(at, What::Read, ask, None);
    }

    /// The node that a client asks next.
    fn some_door(&mut self) -> Option<u64> {
        let mut doors = self.alive();
        doors.retain(|id| self.avoid.get(id).is_none_or(|until| *until <= self.now));
        if doors.is_empty() {
            doors = self.alive();
        }
        self.rng.pick(&doors).copied()
    }

    fn write(&mut self, at: usize, write: Write) {
        let Write { bytes, request, name, power } = write;
        self.begin(at, What::Write { request, name, power }, AskFor::Write(bytes.clone()), Some(bytes));
    }

    fn begin(&mut self, at: usize, what: What, ask: AskFor, bytes: Option<Vec<u8>>) {
        let Some(node) = self.some_door() else { return };
        let op = {
            let begin = self.time.look();
            let mut inner = self.record.inner();
            inner.ops.push(Op { what, node, begin, end: None });
            inner.ops.len() - 1
        };
        let rng = self.rng.fork();
        self.order(node, Order::Work(Work { op, ask, rng }));
        if let Some(client) = self.clients.get_mut(at) {
            client.busy = Some((op, bytes, self.now));
        }
    }

    /// Writes until it is acknowledged, by the first client, which has nothing else to do.
    fn write_now(&mut self, write: &Write, limit: u64) -> bool {
        let until = self.now + limit;
        while self.now < until {
            self.step();
            let Some(client) = self.clients.first() else { return false };
            if client.busy.is_some() {
                continue;
            }
            let Write { bytes, request, name, power } = write;
            let (what, ask) =
                (What::Write { request: *request, name, power: power.clone() }, AskFor::Write(bytes.clone()));
            self.begin(0, what, ask, Some(bytes.clone()));
            let Some((op, ..)) = self.clients.first().and_then(|client| client.busy.clone()) else { continue };
            while self.now < until {
                self.step();
                let end = self.record.inner().ops.get(op).and_then(|op| op.end.clone());
                match end {
                    Some((_, _, End::Outcome(Outcome::Refused(_)))) => return false,
                    Some((_, _, End::Outcome(_))) => return true,
                    Some((_, _, End::Failed)) => break,
                    _ => {}
                }
            }
        }
        false
    }

    fn want_leases(&mut self) {
        let leader = self.leader().and_then(|id| self.nodes.get(&id)?.life.as_ref());
        let other = leader.is_some_and(|life| life.node.gate.mode(None) != ReadMode::Lease);
        let idle = self.clients.iter().position(|client| client.busy.is_none());
        if let (true, Some(at)) = (other, idle) {
            let write = client::set_reads(self.rng.next(), ReadMode::Lease, self.plan.timing);
            self.write(at, write);
        }
    }

    /// Nodes that have answered reads since then.
    fn readers(&self, from: u64) -> BTreeSet<u64> {
        let inner = self.record.inner();
        let later = inner.ops.iter().rev().take_while(|op| op.begin > from * MS);
        later.filter(|op| matches!(op.end, Some((_, _, End::Seen(..))))).map(|op| op.node).collect()
    }

    /// Everything works again within the time: each of these nodes answers under a lease, and a write is acknowledged.
    fn must_live(&mut self, nodes: &BTreeSet<u64>, when: &str) {
        let from = self.now;
        let writes = |world: &Self| {
            let inner = world.record.inner();
            let later = inner.ops.iter().rev().take_while(|op| op.begin > from * MS);
            let ended = |op: &Op| matches!((&op.what, &op.end), (What::Write { .. }, Some((_, _, End::Outcome(_)))));
            later.filter(|op| ended(op)).count()
        };
        let mut missing: Vec<u64> = Vec::new();
        while self.now < from + LIVE {
            self.step();
            if !self.now.is_multiple_of(20) {
                continue;
            }
            // A change of mode that nobody waited for any more may have come after all.
            if self.now.is_multiple_of(100) {
                self.want_leases();
            }
            missing.clear();
            let running = self.running();
            let readers = self.readers(from);
            let serves = |id: &u64| readers.contains(id) && running.get(id).is_some_and(|node| node.lease.is_valid());
            missing.extend(nodes.iter().filter(|id| !serves(id)));
            if missing.is_empty() && writes(self) > 0 {
                self.record.say(|| format!("alive after {} ms: {when}", self.now - from));
                return;
            }
        }
        let leader = self.leader();
        let writes = writes(self);
        for op in self.record.inner().ops.iter().filter(|op| op.begin > from * MS) {
            self.record.say(|| format!("{op:?}"));
        }
        let running = self.running();
        let view = |id: &u64| running.get(id).map(|node| node.lease.view());
        let views: Vec<_> = nodes.iter().map(|id| (*id, view(id))).collect();
        let why = format!("no leases at {missing:?}, {writes} writes, leader {leader:?}, {views:?}");
        self.record.wrong(format!("not alive {when}: {why}"));
    }

    fn heal(&mut self) {
        self.next_fault = u64::MAX;
        self.next_member = u64::MAX;
        self.undo.clear();
        self.net.heal();
        for slot in self.nodes.values_mut() {
            slot.disk.lock().unwrap().health = Health { slow: 0, full: false };
            if let Some((_, since)) = slot.paused.take() {
                slot.paused = Some((self.now, since));
            }
            if slot.life.is_none() {
                slot.start_at = Some(self.now);
            }
        }
        self.record.say(|| "healed".into());
        self.step();
        // Who was about to be stopped is, and comes back.
        while self.nodes.values().any(|slot| slot.life.is_none() || slot.stop_at.is_some()) {
            self.step();
        }
    }

    /// The whole run.
    pub(super) fn run(mut self) -> Report {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        self.order(1, Order::Initialize(ids));
        for write in client::first_writes(&mut self.rng, self.plan.timing) {
            if !self.write_now(&write, LIVE) {
                self.record.wrong(format!("{} is not acknowledged at the start", write.name));
            }
        }
        self.steps = true;
        self.next_fault = self.now + 200;
        if self.plan.membership {
            self.next_member = self.now + 100;
        }
        let until = self.now + self.plan.ms;
        while self.now < until && self.record.inner().wrong.is_empty() {
            self.step();
        }
        if self.record.inner().wrong.is_empty() {
            self.finish();
        }
        self.report()
    }

    fn finish(&mut self) {
        self.heal();
        let timing = self.plan.timing;
        // Nobody changes the mode any more.
        self.plan.modes = false;
        let until = self.now + LIVE;
        while self.now < until && self.is_changing_mode() {
            self.step();
        }
        let mut writes = vec![client::set_reads(self.rng.next(), ReadMode::Lease, timing)];
        writes.extend(client::plain_reads(&mut self.rng));
        for write in writes {
            if !self.write_now(&write, LIVE) {
                self.record.say(|| format!("{} is not acknowledged", write.name));
            }
        }
        // A change of the membership that was under way comes to its end first.
        if self.joining.is_some() || self.leaving.is_some() {
            let until = self.now + CHANGED;
            while self.now < until {
                self.step();
            }
        }
        let (voters, _) = self.members();
        self.must_live(&voters, "after all is healed");
        self.cut_minority(&voters);
        self.heal();
        self.steps = false;
        self.must_agree(&voters);
    }

    fn is_changing_mode(&self) -> bool {
        let inner = self.record.inner();
        let ops = self.clients.iter().filter_map(|client| inner.ops.get(client.busy.as_ref()?.0));
        ops.into_iter().any(|op| matches!(op.what, What::Write { name: "SetReads", .. }))
    }

    /// Whether there is a quorum without this node, of every configuration in force.
    fn can_lose(&self, id: u64) -> bool {
        let leader = self.leader().and_then(|id| self.nodes.get(&id)?.life.as_ref());
        let Some(leader) = leader else { return false };
        let metrics = leader.node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let both = [&metrics.membership_config, &metrics.committed_membership_config];
        let configs = both.iter().flat_map(|stored| stored.membership().get_joint_config().clone());
        let mut left = configs.map(|config| (config.iter().filter(|voter| **voter != id).count(), config.len()));
        left.all(|(left, all)| left > all / 2)
    }

    /// A minority is cut off for good, one way or both.
    fn cut_minority(&mut self, voters: &BTreeSet<u64>) {
        let all: Vec<u64> = voters.iter().copied().collect();
        let leader = self.leader().filter(|_| self.rng.chance(600));
        let one = leader.or_else(|| self.rng.pick(&all).copied());
        let Some(one) = one.filter(|one| self.can_lose(*one)) else { return };
        let way = self.rng.below(3);
        for other in self.nodes.keys().copied().filter(|other| *other != one) {
            let cut = Some(Fault { cut: true, ..Fault::default() });
            if way != 1 {
                self.net.set_fault(one, other, cut);
            }
            if way != 0 {
                self.net.set_fault(other, one, cut);
            }
        }
        let what = ["what it says", "what it hears", "both"].get(usize::try_from(way).unwrap_or(0)).copied();
        let rest: BTreeSet<u64> = voters.iter().copied().filter(|id| *id != one).collect();
        self.must_live(&rest, &format!("with {one} cut off ({}, leader {leader:?})", what.unwrap_or_default()));
    }

    /// When nothing more is asked, all come to the same state.
    fn must_agree(&mut self, voters: &BTreeSet<u64>) {
        let until = self.now + LIVE;
        let all_same = |world: &Self| {
            let running = world.running();
            let reached = |node: &SimNode| [*node.store.applied().borrow(), node.store.applying()];
            let applied: BTreeSet<u64> = voters.iter().flat_map(|id| running.get(id).map_or([0, 0], reached)).collect();
            let busy = world.clients.iter().any(|client| client.busy.is_some());
            !busy && applied.len() == 1
        };
        while self.now < until && !all_same(self) {
            self.step();
        }
        for (id, node) in self.running() {
            self.record
                .say(|| format!("{id} has applied {} {}", *node.store.applied().borrow(), node.store.applying()));
        }
        let running = self.running();
        let mut first: Option<(u64, &SimNode)> = None;
        for (id, node) in running.iter().filter(|(id, _)| voters.contains(id)) {
            match first {
                None => first = Some((*id, node)),
                Some((other, there)) => {
                    let rows = |node: &SimNode| -> BTreeSet<_> {
                        node.store.view(|kv| kv.rows().map(|(t, k, v)| (t, k.clone(), v.clone())).collect())
                    };
                    let (here, there) = (rows(node), rows(there));
                    if let Some((table, key, _)) = here.symmetric_difference(&there).next() {
                        let what = format!("{table:?} {}", String::from_utf8_lossy(key));
                        self.record.wrong(format!("the states of {other} and {id} differ in the end: {what}"));
                    }
                }
            }
        }
    }

    fn report(mut self) -> Report {
        for node in self.running().values() {
            let counts = node.gate.counts();
            let mut inner = self.record.inner();
            for (what, n) in [
                ("local read", &counts.local),
                ("held read", &counts.held),
                ("fallback round", &counts.round),
                ("stale read", &counts.stale),
                ("repeated read", &counts.repeated),
            ] {
                inner.seen.add(what, n.load(Relaxed));
            }
        }
        check::run(&self.record);
        for id in self.alive() {
            self.kill(id, false, None);
        }
        let inner = self.record.inner();
        let mut trace = self.trace ^ self.net.trace();
        for op in &inner.ops {
            for byte in format!("{op:?}").bytes() {
                trace = (trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        let modes = inner.ops.iter().filter(|op| {
            let reads = matches!(op.what, What::Write { name: "SetReads", .. });
            reads && matches!(op.end, Some((_, _, End::Outcome(Outcome::Done))))
        });
        let mut seen = inner.seen.clone();
        seen.add("mode change", modes.count() as u64);
        Report { wrong: inner.wrong.clone(), seen, trace, ms: self.now }
    }
}

/// What a run has come to.
pub(super) struct Report {
    pub(super) wrong: Vec<String>,
    pub(super) seen: super::record::Seen,
    pub(super) trace: u64,
    /// Virtual time.
    pub(super) ms: u64,
}

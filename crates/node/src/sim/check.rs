//! What must hold: at every step, and of a whole run.

use super::client::{request_of, subjects, value};
use super::clock::MS;
use super::node::SimNode;
use super::record::{shown, End, Inner, Op, Power, Record, Subject, Value, What};
use claviger_log::LogId;
use claviger_state_machine::{apply, touches, MemKv};
use claviger_types::command::{Command, Entry};
use claviger_types::outcome::Outcome;
use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftEntry as _;
use openraft::{EntryPayload, ServerState};
use std::collections::{BTreeMap, BTreeSet};

/// What is remembered between two steps.
#[derive(Default)]
pub(super) struct Watch {
    /// Who led in a term.
    leaders: BTreeMap<u64, u64>,
    /// Whose lease was valid at the last step.
    valid: BTreeSet<u64>,
    /// For each office: the first and the last end of its freeze.
    freezes: BTreeMap<(u64, u64), u64>,
}

impl Watch {
    /// After every step: leaders, I1, I3, held leases.
    pub(super) fn step(&mut self, nodes: &BTreeMap<u64, SimNode>, record: &Record, rho_ppm: u64, eps: u64) {
        for node in nodes.values() {
            let before = record.visible(None);
            let visible = record.visible(Some(&node.lease));
            if visible > before {
                record.say(|| format!("{visible} is visible at {}", node.id));
            }
        }
        let visible = record.visible(None);
        let last_applied = record.inner().applied.last_key_value().map_or(0, |(index, _)| *index);
        if visible > last_applied {
            record.wrong(format!("I3: {visible} is visible, but only {last_applied} is applied anywhere"));
        }
        let probes: BTreeMap<u64, _> = nodes.iter().map(|(id, node)| (*id, node.lease.probe())).collect();
        for (id, node) in nodes {
            self.leader(*id, node, record);
            let Some(probe) = probes.get(id) else { continue };
            let fence = node.lease.fence();
            let applied = *node.store.applied().borrow();
            if probe.valid {
                let (fenced, log) = (fence.last().max(applied), node.log.last().max(applied));
                if fenced < visible || log < visible {
                    let (ballot, end) = probe.held;
                    let left = end.saturating_sub(probe.now) / 1000;
                    let what = format!(
                        "log {log}, fence {fenced}, applied {applied}, visible {visible}; lease of term {} for {left} us",
                        ballot.term
                    );
                    record.wrong(format!("I1: node {id} may answer by itself with {what}"));
                }
                for (index, entry) in node.log.entries(applied.min(visible) + 1..=visible) {
                    let parts = claviger_log::touched_by(&entry);
                    if !parts.is_empty() && fence.is_clean(Some(&parts), index - 1) {
                        record.wrong(format!("I1: node {id} may answer by itself, but {index} is not fenced"));
                    }
                }
                self.valid.insert(*id);
            } else if self.valid.remove(id) {
                record.count("expired lease");
            }
            self.held(*id, probe, &probes, record, rho_ppm, eps);
            self.freeze(*id, probe, record);
        }
        self.valid.retain(|id| nodes.contains_key(id));
    }

    fn leader(&mut self, id: u64, node: &SimNode, record: &Record) {
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        if metrics.state != ServerState::Leader || !metrics.vote.committed {
            return;
        }
        if membership.get_joint_config().len() > 1 {
            record.count("joint consensus (ms)");
        }
        if membership.learner_ids().next().is_some() {
            record.count("learner (ms)");
        }
        let term = metrics.vote.leader_id.term;
        let known = self.leaders.insert(term, id);
        if known.is_some_and(|known| known != id) {
            record.wrong(format!("two leaders in term {term}: {known:?} and {id}"));
        }
        if known.is_none() {
            record.count("leader change");
            record.say(|| format!("{id} leads in term {term}"));
            // Leader completeness.
            let log = node.log.ids();
            let first = log.first_key_value().map_or(u64::MAX, |(index, _)| *index);
            let earlier = |id: &LogId| id.committed_leader_id().term < term;
            for (index, entry) in record.inner().applied.range(first..).filter(|(_, entry)| earlier(&entry.log_id())) {
                if log.get(index) != Some(&entry.log_id()) {
                    // Told after the lock is gone.
                    let there = shown(log.get(index));
                    drop(log);
                    record.say(|| format!("{id} has {there} where {index} was applied"));
                    self.leaders.insert(u64::MAX, id);
                    break;
                }
            }
        }
        if self.leaders.remove(&u64::MAX).is_some() {
            record.wrong(format!("node {id} leads in term {term} without all that was applied before"));
        }
    }

    /// The leader must know of every lease that it has given.
    fn held(
        &self,
        id: u64,
        probe: &crate::lease::Probe,
        probes: &BTreeMap<u64, crate::lease::Probe>,
        record: &Record,
        rho_ppm: u64,
        eps: u64,
    ) {
        let (ballot, end) = probe.held;
        let left = end.saturating_sub(probe.now);
        let office = probes.get(&ballot.node).and_then(|leader| leader.office.as_ref());
        let Some(office) = office.filter(|office| office.ballot == ballot && left > 0 && ballot.node != id) else {
            return;
        };
        let known = office.holders.iter().find(|(holder, _)| *holder == id).map_or(0, |(_, left)| *left);
        if left > known + eps + left * rho_ppm / 1_000_000 {
            record.wrong(format!("node {id} holds a lease for {left} ns more, its leader knows of {known}"));
        }
    }

    fn freeze(&mut self, id: u64, probe: &crate::lease::Probe, record: &Record) {
        let Some((office, (until, whole))) = probe.office.as_ref().and_then(|o| Some((o, o.frozen_until?))) else {
            return;
        };
        let key = (office.ballot.term, id);
        if !self.freezes.contains_key(&key) {
            let (left, whole) = (until.saturating_sub(probe.now) / 1000, whole / 1000);
            record.say(|| format!("{id} waits for {left} us of {whole}"));
        }
        match self.freezes.insert(key, until) {
            None if until > probe.now && until + 2 * MS < probe.now + whole => record.count("vote ages (R5a)"),
            None if until <= probe.now => record.count("no freeze (R5a)"),
            Some(before) if before > probe.now && until + 2 * MS < before && until <= probe.now => {
                record.count("shortcut (R5b)");
            }
            _ => {}
        }
    }
}

/// Log matching: where two logs have the same entry, everything before it is the same.
pub(super) fn logs(nodes: &BTreeMap<u64, SimNode>, record: &Record) {
    let logs: Vec<(u64, BTreeMap<u64, LogId>)> = nodes.values().map(|node| (node.id, node.log.ids())).collect();
    for (at, (a, one)) in logs.iter().enumerate() {
        for (b, other) in logs.iter().skip(at + 1) {
            let same = |index: &u64| one.get(index) == other.get(index);
            let Some(upto) = one.keys().rev().find(|index| other.contains_key(index) && same(index)) else { continue };
            let common = one.range(..upto).map(|(index, _)| index).filter(|index| other.contains_key(index));
            for index in common.filter(|index| !same(index)) {
                record.wrong(format!("logs of {a} and {b} are the same at {upto}, but not at {index}"));
            }
        }
    }
}

/// What every subject showed after every index.
struct History {
    /// Index and value, where it changed.
    values: BTreeMap<Subject, Vec<(u64, Value)>>,
    /// Request id to the index that carried it out, and the outcome.
    writes: BTreeMap<u64, (u64, Outcome)>,
    last: u64,
}

impl History {
    fn new(record: &mut Inner, wrong: &mut Vec<String>) -> Self {
        let mut kv = MemKv::default();
        let mut history = Self { values: BTreeMap::new(), writes: BTreeMap::new(), last: 0 };
        for subject in subjects() {
            history.values.insert(subject.clone(), vec![(0, value(&kv, &subject))]);
        }
        let mut several = 0;
        for (index, entry) in &record.applied {
            if *index != history.last + 1 && history.last != 0 {
                wrong.push(format!("nobody applied {}", history.last + 1));
            }
            history.last = *index;
            let EntryPayload::Normal(payload) = &entry.payload else { continue };
            let entry = Entry::from_bytes(&payload.0).unwrap();
            let outcome = apply(&mut kv, *index, &entry).unwrap();
            let command = Command::decode(entry.cmd, entry.cmd_v, &entry.body).unwrap().unwrap();
            several += u64::from(touches(&command).len() > 1);
            history.writes.entry(request_of(&payload.0)).or_insert((*index, outcome));
            for (subject, values) in &mut history.values {
                let now = value(&kv, subject);
                if values.last().is_some_and(|(_, before)| *before != now) {
                    values.push((*index, now));
                }
            }
        }
        record.seen.add("several keys in one command", several);
        history
    }

    /// The value after `index`, and the next index at which it changes.
    fn at(&self, subject: &Subject, index: u64) -> Option<(&Value, u64)> {
        let values = self.values.get(subject)?;
        let end = values.partition_point(|(from, _)| *from <= index);
        let next = values.get(end).map_or(u64::MAX, |(from, _)| *from);
        Some((&values.get(end.checked_sub(1)?)?.1, next))
    }

    /// The first index from `from` on after which all of this was to be seen.
    fn find(&self, seen: &[(Subject, Value)], from: u64) -> Option<u64> {
        let mut index = from;
        'next: while index <= self.last {
            for (subject, value) in seen {
                let (there, next) = self.at(subject, index)?;
                if there != value {
                    index = next;
                    continue 'next;
                }
            }
            return Some(index);
        }
        None
    }
}

/// Judges a whole run: is there one order of all operations, that of the log, that nobody can contradict?
///
/// Writes are ordered by their index; every read is put behind the first index that shows what it saw and is not before
/// anything that had ended when it began. The earliest place is the best one: it asks the least of what comes later.
pub(super) fn run(record: &Record) {
    let mut wrong = Vec::new();
    {
        let mut inner = record.inner();
        let history = History::new(&mut inner, &mut wrong);
        order(&inner.ops, &history, &mut wrong);
        revocations(&inner.ops, &mut wrong);
        let ended = |op: &&Op| matches!(op.end, Some((_, _, End::Seen(..) | End::Outcome(_))));
        let ops = inner.ops.iter().filter(ended).count() as u64;
        inner.seen.add("operations", ops);
    }
    for text in wrong {
        record.wrong(text);
    }
}

fn order(ops: &[Op], history: &History, wrong: &mut Vec<String>) {
    // Writes that begin later must come later: the least index of all that begin after a time.
    let mut begins: Vec<(u64, u64)> = Vec::new();
    for op in ops {
        if let What::Write { request, .. } = &op.what {
            if let Some((index, _)) = history.writes.get(request) {
                begins.push((op.begin, *index));
            }
        }
    }
    begins.sort_unstable();
    let mut least = u64::MAX;
    for (_, index) in begins.iter_mut().rev() {
        least = least.min(*index);
        *index = least;
    }
    let least_after = |time: u64| begins.get(begins.partition_point(|(t, _)| *t <= time)).map_or(u64::MAX, |(_, i)| *i);

    let mut by_end: Vec<&Op> = ops.iter().filter(|op| op.end.is_some()).collect();
    by_end.sort_by_key(|op| op.end.as_ref().map(|(end, ..)| *end));
    // What had ended, and the highest index that it tells of.
    let mut ended: Vec<(u64, u64)> = vec![(0, 0)];
    let known_at = |ended: &[(u64, u64)], time: u64| {
        let at = ended.partition_point(|(end, _)| *end < time);
        at.checked_sub(1).and_then(|at| ended.get(at)).map_or(0, |(_, index)| *index)
    };
    for op in by_end {
        let Some((end, visible, result)) = &op.end else { continue };
        let from = known_at(&ended, op.begin);
        let place = match (&op.what, result) {
            (What::Write { request, name, .. }, End::Outcome(outcome)) => match history.writes.get(request) {
                None => {
                    wrong.push(format!("{name} was acknowledged at {}, but nobody applied it", op.node));
                    continue;
                }
                Some((index, there)) => {
                    if there != outcome {
                        wrong.push(format!("{name} at {index} came to {there:?}, but was told as {outcome:?}"));
                    }
                    if index > visible {
                        wrong.push(format!("I2: {name} at {index} was acknowledged when {visible} was visible"));
                    }
                    *index
                }
            },
            (What::Read, End::Seen(seen, None)) => match history.find(seen, from) {
                Some(index) if index < least_after(*end) => index,
                found => {
                    let (begin, end) = (op.begin / MS, end / MS);
                    let before = history.find(seen, 0);
                    wrong.push(format!(
                        "a read at node {} from {begin} to {end} ms saw {seen:?}, as it was after {before:?}; but {from} \
                         was known when it began (next place: {found:?})",
                        op.node
                    ));
                    continue;
                }
            },
            (What::Read, End::Seen(seen, Some(behind))) => {
                // As old as it says, at most; a millisecond and a hundredth for rounding and clocks.
                let then = op.begin.saturating_sub((behind + 1 + behind / 100) * MS);
                if history.find(seen, known_at(&ended, then)).is_none() {
                    wrong.push(format!("a read at node {} is older than the {behind} ms that it admits", op.node));
                }
                continue;
            }
            _ => continue,
        };
        let highest = ended.last().map_or(0, |(_, index)| *index).max(place);
        ended.push((*end, highest));
        if let What::Write { name, .. } = &op.what {
            if place <= from {
                wrong.push(format!("{name} at {place} began when {from} was known already"));
            }
        }
    }
}

/// After an acknowledged revocation nothing works by the old authority: needs no index at all.
fn revocations(ops: &[Op], wrong: &mut Vec<String>) {
    let changes: Vec<(&Op, &Power)> = ops
        .iter()
        .filter_map(|op| match &op.what {
            What::Write { power: Some(power), .. } => Some((op, power)),
            _ => None,
        })
        .collect();
    let refused = |op: &Op| matches!(op.end, Some((_, _, End::Outcome(Outcome::Refused(_)) | End::Failed)));
    let gives = |power: &Power, subject: &Subject| match (power, subject) {
        (Power::Vault { vault, gives }, Subject::Vault { vault: of, who }) if vault == of => gives.get(*who).copied(),
        (Power::Object { vault, object, gives }, Subject::Object { vault: of, object: it }) => {
            (vault == of && object == it).then_some(*gives)
        }
        _ => None,
    };
    for subject in subjects() {
        // When it was taken for certain; when it may have been given.
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut given: Vec<(u64, u64)> = Vec::new();
        for (op, power) in &changes {
            match (gives(power, &subject), &op.end) {
                (Some(false), Some((end, _, End::Outcome(outcome)))) if !matches!(outcome, Outcome::Refused(_)) => {
                    taken.push((op.begin, *end));
                }
                (Some(true), _) if !refused(op) => {
                    let end = match &op.end {
                        Some((end, _, End::Outcome(_))) => *end,
                        _ => u64::MAX,
                    };
                    given.push((op.begin, end));
                }
                _ => {}
            }
        }
        taken.sort_by_key(|(_, end)| *end);
        for op in ops {
            let Some((end, _, End::Seen(seen, None))) = &op.end else { continue };
            let usable = seen.iter().any(|(of, value)| *of == subject && value.get(1) == Some(&1));
            if !usable {
                continue;
            }
            let before = taken.partition_point(|(_, acknowledged)| *acknowledged < op.begin);
            let Some((began, at)) = before.checked_sub(1).and_then(|i| taken.get(i)) else { continue };
            if !given.iter().any(|(begin, done)| begin < end && done > began) {
                let (at, begin) = (at / MS, op.begin / MS);
                wrong.push(format!("{subject:?} was usable at node {} at {begin} ms, revoked at {at} ms", op.node));
            }
        }
    }
}

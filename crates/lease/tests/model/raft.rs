//! As much of Raft as leases stand on: terms, durable votes, a log that conflicts, is truncated and purged, next-index
//! probing, joint consensus. Messages and time are the simulation's.

use crate::state::{Parts, State};
use claviger_lease::Nanos;
use std::collections::BTreeMap;

pub(crate) type Id = usize;

/// A set of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set(u16);

impl Set {
    pub(crate) fn of(ids: impl IntoIterator<Item = Id>) -> Self {
        ids.into_iter().fold(Self(0), Self::with)
    }

    pub(crate) fn with(self, id: Id) -> Self {
        Self(self.0 | 1 << id)
    }

    pub(crate) fn without(self, id: Id) -> Self {
        Self(self.0 & !(1 << id))
    }

    pub(crate) fn has(self, id: Id) -> bool {
        self.0 & 1 << id != 0
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn except(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn ids(self) -> impl Iterator<Item = Id> {
        (0..16).filter(move |id| self.has(*id))
    }

    fn is_majority_of(self, all: Self) -> bool {
        (self.0 & all.0).count_ones() as usize > all.len() / 2
    }
}

/// Voters, and in joint consensus those of before too; all nodes, learners among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Membership {
    pub(crate) old: Set,
    pub(crate) voters: Set,
    pub(crate) nodes: Set,
    /// In joint consensus: nodes that are none any more when it ends.
    pub(crate) leaving: Set,
}

impl Membership {
    pub(crate) fn is_joint(&self) -> bool {
        !self.old.is_empty()
    }

    pub(crate) fn configs(&self) -> impl Iterator<Item = Set> {
        [self.voters, self.old].into_iter().filter(|config| !config.is_empty())
    }

    pub(crate) fn is_voter(&self, id: Id) -> bool {
        self.configs().any(|config| config.has(id))
    }

    /// Whether these are a majority of every configuration.
    pub(crate) fn has_quorum(&self, of: Set) -> bool {
        self.configs().all(|config| of.is_majority_of(config))
    }

    /// The largest value that a quorum has reached.
    pub(crate) fn reached<T: Ord + Copy>(&self, value: impl Fn(Id) -> Option<T>) -> Option<T> {
        let mut least = None;
        for config in self.configs() {
            let mut values: Vec<T> = config.ids().filter_map(&value).collect();
            values.sort_unstable();
            let majority = config.len() / 2 + 1;
            let reached = values.len().checked_sub(majority).map(|i| values[i])?;
            least = Some(least.map_or(reached, |least: T| least.min(reached)));
        }
        least
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// A leader's first.
    Blank,
    /// The number of the operation, and the parts of the state that it changes.
    Write(usize, Parts),
    /// How long leases are from now on.
    Lease(Nanos),
    Members(Membership),
}

/// What a snapshot holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) state: State,
    pub(crate) members: Membership,
}

/// Entries, the oldest of which are gone. Indexes begin at 1.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The last entry that is gone: index and term.
    base: (u64, u64),
    entries: Vec<Entry>,
    /// What a crash leaves.
    synced: u64,
    /// Counts truncations: a sync that was begun before one says nothing about what came after.
    pub(crate) epoch: u64,
    /// Where each membership begins; the first holds at `base`.
    members: Vec<(u64, Membership)>,
}

impl Log {
    pub(crate) fn new(members: Membership) -> Self {
        Self { base: (0, 0), entries: Vec::new(), synced: 0, epoch: 0, members: vec![(0, members)] }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base.0
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.entries.last().map_or(self.base.1, |entry| entry.term)
    }

    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let i = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(i as usize)
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    pub(crate) fn after(&self, index: u64, count: usize) -> &[Entry] {
        let from = (index - self.base.0) as usize;
        &self.entries[from..(from + count).min(self.entries.len())]
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        if let Body::Members(members) = entry.body {
            self.members.push((self.last(), members));
        }
    }

    pub(crate) fn truncate(&mut self, last: u64) {
        self.entries.truncate((last - self.base.0) as usize);
        self.members.retain(|(index, _)| *index <= last);
        self.synced = self.synced.min(last);
        self.epoch += 1;
    }

    pub(crate) fn set_synced(&mut self, index: u64) {
        self.synced = self.synced.max(index.min(self.last()));
    }

    /// Forgets the entries up to `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        let Some(term) = self.term_at(index) else { return };
        self.entries.drain(..(index - self.base.0) as usize);
        self.base = (index, term);
        // The state that stands for them is on disk.
        self.synced = self.synced.max(index);
        let at_base = self.members.iter().rposition(|(begin, _)| *begin <= index).unwrap_or(0);
        self.members.drain(..at_base);
    }

    /// A snapshot has replaced everything up to its index; what follows stays if it is of the same history. Answers
    /// whether it did.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) -> bool {
        if self.term_at(snapshot.index) == Some(snapshot.term) {
            self.purge(snapshot.index);
            return true;
        }
        let epoch = self.epoch + 1;
        *self = Self { epoch, ..Self::new(snapshot.members) };
        self.members[0].0 = snapshot.index;
        self.base = (snapshot.index, snapshot.term);
        self.synced = snapshot.index;
        false
    }

    /// Newest membership up to `index`, and where it begins.
    pub(crate) fn members_at(&self, index: u64) -> (u64, Membership) {
        let at = self.members.iter().rposition(|(begin, _)| *begin <= index).unwrap_or(0);
        self.members[at]
    }

    /// The membership that elections and quorums go by.
    pub(crate) fn effective(&self) -> (u64, Membership) {
        *self.members.last().expect("a log has a membership from the start")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    Candidate,
    Leader,
}

/// A leader's view of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) next: u64,
    pub(crate) matched: u64,
    /// Newest send time of an append that it accepted.
    pub(crate) acked: Option<Nanos>,
    pub(crate) snapshot_sent: Option<Nanos>,
}

/// Raft on one node.
#[derive(Debug, Clone)]
pub(crate) struct Raft {
    pub(crate) id: Id,
    pub(crate) term: u64,
    pub(crate) voted: Option<Id>,
    pub(crate) log: Log,
    pub(crate) commit: u64,
    pub(crate) role: Role,
    pub(crate) votes: Set,
    pub(crate) progress: BTreeMap<Id, Progress>,
    /// When a leader was last heard, or a vote given: own clock.
    pub(crate) heard: Nanos,
    pub(crate) timeout: Nanos,
    pub(crate) leader: Option<Id>,
    /// Index of the first entry of this leader.
    pub(crate) first: u64,
}

impl Raft {
    pub(crate) fn new(id: Id, members: Membership) -> Self {
        Self {
            id,
            term: 0,
            voted: None,
            log: Log::new(members),
            commit: 0,
            role: Role::Follower,
            votes: Set::default(),
            progress: BTreeMap::new(),
            heard: 0,
            timeout: 0,
            leader: None,
            first: 0,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Hears of a term, which may be a new one.
    pub(crate) fn follow(&mut self, term: u64, leader: Option<Id>) {
        if term > self.term {
            self.term = term;
            self.voted = None;
        }
        self.role = Role::Follower;
        self.progress.clear();
        self.leader = leader;
    }

    /// Newest instant of which it is certain that a quorum followed this leader.
    pub(crate) fn confirmed(&self, now: Nanos) -> Option<Nanos> {
        let acked = |id: Id| if id == self.id { Some(now) } else { self.progress.get(&id)?.acked };
        self.log.effective().1.reached(acked)
    }

    /// Commits what a quorum has on disk; answers whether that is more than before.
    pub(crate) fn advance_commit(&mut self) -> bool {
        let matched = |id: Id| {
            if id == self.id {
                return Some(self.log.synced());
            }
            self.progress.get(&id).map(|progress| progress.matched)
        };
        let Some(reached) = self.log.effective().1.reached(matched) else { return false };
        let more = reached > self.commit && self.log.term_at(reached) == Some(self.term);
        if more {
            self.commit = reached;
        }
        more
    }

    /// Takes a leader's entries in that follow `prev`. Answers up to where the logs are alike now, or where to try next,
    /// and calls `cut` and `add` as the log changes.
    pub(crate) fn take(
        &mut self,
        (prev, prev_term): (u64, u64),
        entries: &[Entry],
        mut cut: impl FnMut(u64),
        mut add: impl FnMut(u64, &Entry),
    ) -> Result<u64, u64> {
        let end = prev + entries.len() as u64;
        if prev >= self.log.base() {
            match self.log.term_at(prev) {
                Some(term) if term == prev_term => {}
                Some(_) => {
                    assert!(prev > self.commit, "a committed entry conflicts");
                    self.log.truncate(prev - 1);
                    cut(prev - 1);
                    return Err(prev - 1);
                }
                None => return Err(self.log.last()),
            }
        }
        for (index, entry) in (prev + 1..).zip(entries) {
            if index <= self.log.base() {
                continue;
            }
            match self.log.term_at(index) {
                Some(term) if term == entry.term => continue,
                Some(_) => {
                    assert!(index > self.commit, "a committed entry conflicts");
                    self.log.truncate(index - 1);
                    cut(index - 1);
                }
                None => {}
            }
            add(index, entry);
            self.log.push(*entry);
        }
        Ok(end)
    }
}

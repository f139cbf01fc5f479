//! One node: Raft, the state machine, and what the real driver does around the lease protocol's core.

use crate::raft::{Id, Membership, Raft, Set};
use crate::sim::{Envelope, Mutant};
use crate::state::{Parts, State};
use claviger_lease::{Ballot, Fence, Holder, Leader, LeaseCell, Members, Nanos, Params};
use claviger_state_machine::ConflictKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

/// A node's own clock: true time, shifted, a little fast or slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) offset: i64,
    /// Millionths.
    pub(crate) rate: i64,
    /// Time that it did not count.
    pub(crate) lost: i64,
}

impl Clock {
    pub(crate) fn at(&self, time: Nanos) -> Nanos {
        let time = time as i64;
        (self.offset + time + time * self.rate / 1_000_000 - self.lost) as Nanos
    }

    /// What of its own time is how much true time.
    pub(crate) fn true_span(&self, span: Nanos) -> Nanos {
        (span as i128 * 1_000_000 / (1_000_000 + self.rate as i128)) as Nanos
    }
}

/// Somebody wants a read index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) from: Id,
    pub(crate) boot: u64,
    pub(crate) read: usize,
    pub(crate) asked: Nanos,
}

pub(crate) struct Node {
    pub(crate) id: Id,
    pub(crate) up: bool,
    /// Counts starts: what was meant for an earlier one is dropped.
    pub(crate) boot: u64,
    pub(crate) paused_until: Nanos,
    pub(crate) clock: Clock,
    pub(crate) slow_disk_until: Nanos,
    /// The last crash took entries that were not synced.
    pub(crate) lost_tail: bool,

    pub(crate) raft: Raft,
    pub(crate) next_beat: Nanos,
    /// Answers that wait for the disk, and for which entry.
    pub(crate) replies: Vec<(u64, Envelope)>,
    /// Writes that wait for visibility: index, term, operation.
    pub(crate) waiting: Vec<(u64, u64, usize)>,
    pub(crate) questions: Vec<Question>,

    /// The state as a crash leaves it, and its index.
    pub(crate) disk: (u64, State),
    pub(crate) state: State,
    /// The state holds everything up to here; a moment later that is announced as `applied`.
    pub(crate) written: u64,
    pub(crate) applied: u64,
    pub(crate) applied_term: u64,
    pub(crate) applying: bool,
    pub(crate) installing: bool,

    pub(crate) fence: Fence,
    pub(crate) holder: Holder,
    pub(crate) leader: Option<Leader>,
    pub(crate) lease: LeaseCell,
    pub(crate) visible: AtomicU64,
    /// When this node last accepted an append, led, or started.
    pub(crate) served: Nanos,
    pub(crate) ages: BTreeMap<Id, Nanos>,
    pub(crate) members: ((u64, u64), Members),
    /// When each node last answered a lease message.
    pub(crate) answered: BTreeMap<Id, Nanos>,
    pub(crate) push_due: bool,
    /// When this office was seen, for counting what shortened the freeze.
    pub(crate) since: Nanos,
}

fn ids(set: Set) -> BTreeSet<u64> {
    set.ids().map(|id| id as u64).collect()
}

impl Node {
    pub(crate) fn new(id: Id, members: Membership, state: State, clock: Clock) -> Self {
        Self {
            id,
            up: true,
            boot: 0,
            paused_until: 0,
            clock,
            slow_disk_until: 0,
            lost_tail: false,
            raft: Raft::new(id, members),
            next_beat: 0,
            replies: Vec::new(),
            waiting: Vec::new(),
            questions: Vec::new(),
            disk: (0, state),
            state,
            written: 0,
            applied: 0,
            applied_term: 0,
            applying: false,
            installing: false,
            fence: Fence::new(0),
            holder: Holder::new(0),
            leader: None,
            lease: LeaseCell::new(),
            visible: AtomicU64::new(0),
            served: 0,
            ages: BTreeMap::new(),
            members: ((u64::MAX, 0), Members::default()),
            answered: BTreeMap::new(),
            push_due: false,
            since: 0,
        }
    }

    pub(crate) fn ballot(&self) -> Ballot {
        Ballot { term: self.raft.term, node: self.id as u64 }
    }

    pub(crate) fn params(&self, of: &Params) -> Params {
        Params { lease: self.state.lease, ..*of }
    }

    pub(crate) fn longest(&self, of: &Params) -> Params {
        Params { lease: self.state.longest, ..*of }
    }

    fn members(&mut self) -> Members {
        let (effective_from, effective) = self.raft.log.effective();
        let (committed_from, committed) = self.raft.log.members_at(self.raft.commit);
        let key = (effective_from, committed_from);
        if self.members.0 != key {
            let members = Members {
                configs: effective.configs().chain(committed.configs()).map(ids).collect(),
                nodes: ids(effective.nodes.and(committed.nodes)),
                // Whoever the newest membership leaves out may be gone at any moment.
                committed: ids(committed.nodes.both(effective.nodes)),
            };
            self.members = (key, members);
        }
        self.members.1.clone()
    }

    /// Finds out whether this node leads. Answers whether that is new.
    fn observe(&mut self, now: Nanos, mutant: Mutant) -> bool {
        let ballot = self.ballot();
        if !self.raft.is_leader() || ballot < self.holder.seen() {
            self.leader = None;
            return false;
        }
        let members = self.members();
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.ballot() == ballot) {
            leader.set_members(Arc::new(members));
            return false;
        }
        self.holder.follow(ballot);
        let mut leader = Leader::new(ballot, Arc::new(members), self.holder.visible(), now);
        for (voter, age) in &self.ages {
            leader.voted(*voter as u64, *age);
        }
        leader.voted(self.id as u64, self.age(now));
        leader.break_rule(mutant.rule());
        self.leader = Some(leader);
        self.since = now;
        self.answered.clear();
        true
    }

    /// What follows from what is known now. Answers whether more became visible at this leader, and whether it is a new one.
    pub(crate) fn refresh(&mut self, of: &Params, now: Nanos, mutant: Mutant) -> (bool, bool) {
        let new = self.observe(now, mutant);
        let (current, longest) = (self.params(of), self.longest(of));
        let mut more = false;
        if let Some(leader) = &mut self.leader {
            more = leader.advance(&current, Some(&longest), self.applied, self.applied_term, now);
            self.holder.heard_visible(leader.visible());
        }
        let own = self.leader.as_ref().and_then(|leader| leader.own_lease(&current, now));
        self.lease.set(own.unwrap_or_else(|| self.holder.lease_end()));
        self.visible.store(self.holder.visible(), SeqCst);
        self.fence.set_done(self.holder.visible().min(self.applied));
        (more, new)
    }

    /// How long ago this node last followed, or led.
    pub(crate) fn age(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.served)
    }

    pub(crate) fn has_lease(&self, now: Nanos) -> bool {
        self.up && now < self.lease.end()
    }

    pub(crate) fn visible(&self) -> u64 {
        self.visible.load(SeqCst)
    }

    /// Up to where the fence knows only that something may have been touched.
    pub(crate) fn forgotten(&self) -> u64 {
        self.fence.newest_up_to(Some(&[]), u64::MAX)
    }

    pub(crate) fn keys<'a>(&self, all: &'a [Vec<ConflictKey>], parts: Parts) -> &'a [ConflictKey] {
        &all[parts as usize]
    }
}

//! Which disk each node keeps its log on, so that a voter that lost its log is not taken for the one that it was: it could
//! vote a second time in a term, and be counted for entries that it no longer has (Raft, section 5.2, takes votes and logs
//! for durable).
//!
//! Every log has a random id. The leader writes the ids of all members into the log (`NoteDisk`); whoever has applied that
//! refuses a member that comes with another one, called or calling. A node that is no member may have any: it joins with it.

use claviger_log::StateStore;
use claviger_state_machine::read;
use claviger_types::name::Id128;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a node knows of its own disk and of the others'.
pub(crate) struct Disks {
    own: Id128,
    state: StateStore,
    /// What peers said last, by node; `None` from one of a release that does not say.
    seen: Mutex<HashMap<u64, Option<Id128>>>,
    /// Why a peer would not have this node.
    turned_away: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disks {
    pub(crate) fn new(own: Id128, state: StateStore) -> Self {
        Self { own, state, seen: Mutex::default(), turned_away: Mutex::default() }
    }

    /// Of this node.
    pub(crate) fn own(&self) -> Id128 {
        self.own
    }

    /// The disk that a member must have, where that was written down.
    pub(crate) fn expected(&self, node: u64) -> Option<Id128> {
        // What cannot be read is refused elsewhere: nothing is served from a state like that.
        let noted = self.state.view(|view| read::disk(view, node)).ok().flatten()?;
        self.state.has_member(node).ok()?.then_some(noted)
    }

    /// Whether `node` may be talked to, having `disk`.
    pub(crate) fn check(&self, node: u64, disk: Option<Id128>) -> Result<(), String> {
        match (disk, self.expected(node)) {
            (Some(disk), Some(expected)) if disk != expected => Err(lost(node)),
            _ => Ok(()),
        }
    }

    /// A peer said what disk it has.
    pub(crate) fn saw(&self, node: u64, disk: Option<Id128>) {
        lock(&self.seen).insert(node, disk);
    }

    /// What a node said last.
    pub(crate) fn seen(&self, node: u64) -> Option<Id128> {
        lock(&self.seen).get(&node).copied().flatten()
    }

    /// A peer expects a disk of this node, or none in particular: refused, and remembered, if it is not the one that is here.
    pub(crate) fn is_expected(&self, node: u64, expected: Option<Id128>) -> Result<(), String> {
        let Some(expected) = expected else { return Ok(()) };
        let mut turned_away = lock(&self.turned_away);
        if expected == self.own {
            *turned_away = None;
            return Ok(());
        }
        let why = lost(node);
        if turned_away.is_none() {
            tracing::error!("{why}");
        }
        *turned_away = Some(why.clone());
        Err(why)
    }

    /// Why a peer would not have this node, when it asked last.
    pub(crate) fn turned_away(&self) -> Option<String> {
        lock(&self.turned_away).clone()
    }
}

fn lost(node: u64) -> String {
    format!(
        "the log of node {node} is not on the disk that it has now: it may have voted, and acknowledged, what it no longer \
         knows. Remove it from the cluster, then join it under a new id with an empty data directory"
    )
}

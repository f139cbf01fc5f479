//! What is known of a run: what was applied, who asked what and was told what, and what was found wrong.

use super::clock::Time;
use super::net::member;
use crate::lease::Lease;
use claviger_log::{LogId, RaftEntry};
use claviger_types::outcome::Outcome;
use openraft::entry::RaftEntry as _;
use openraft::EntryPayload;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Which part of the state a value is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    /// A vault, as one principal sees it.
    Vault { vault: usize, who: usize },
    /// An object.
    Object { vault: usize, object: usize },
    /// All objects of a vault.
    List { vault: usize },
}

/// What was seen of a subject, in numbers: log indexes of last changes, versions, flags.
pub(super) type Value = Vec<u64>;

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A read: what was seen, from which index on it was evaluated, and how old it may be in milliseconds, where it may.
    Seen(Vec<(Subject, Value)>, Option<u64>),
    /// A write.
    Outcome(Outcome),
    /// Nothing has happened.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Read,
    /// The request id, what it is for people, and what it takes away or gives, if it does.
    Write {
        request: u64,
        name: &'static str,
        power: Option<Power>,
    },
}

/// What a write does to the right to use something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Power {
    /// Takes or gives a principal's right in a vault, or everyone's.
    Vault { vault: usize, gives: Vec<bool> },
    /// Takes or gives an object.
    Object { vault: usize, object: usize, gives: bool },
}

/// One operation of a client.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) what: What,
    pub(super) node: u64,
    /// When it was asked.
    pub(super) begin: u64,
    /// When the answer was made, and what was visible anywhere then.
    pub(super) end: Option<(u64, u64, End)>,
}

/// Things that a run must have seen, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen(pub(super) BTreeMap<&'static str, u64>);

impl Seen {
    pub(super) fn add(&mut self, what: &'static str, n: u64) {
        *self.0.entry(what).or_default() += n;
    }

    pub(super) fn merge(&mut self, other: &Seen) {
        for (what, n) in &other.0 {
            self.add(what, *n);
        }
    }
}

#[derive(Default)]
pub(super) struct Inner {
    /// Every entry that any node has applied.
    pub(super) applied: BTreeMap<u64, RaftEntry>,
    pub(super) ops: Vec<Op>,
    pub(super) seen: Seen,
    pub(super) wrong: Vec<String>,
}

/// The record of a run. Clones share it.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) time: Arc<Time>,
    inner: Arc<Mutex<Inner>>,
    /// The highest index that any node knew to be visible.
    visible: Arc<AtomicU64>,
    loud: bool,
}

impl Record {
    pub(super) fn new(time: Arc<Time>) -> Self {
        let loud = std::env::var_os("CLAVIGER_SIM_LOG").is_some();
        Self { time, inner: Arc::default(), visible: Arc::default(), loud }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn count(&self, what: &'static str) {
        self.inner().seen.add(what, 1);
    }

    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if self.loud {
            eprintln!("{:>7} {}", self.time.ms(), text());
        }
    }

    pub(super) fn wrong(&self, text: String) {
        self.say(|| format!("WRONG: {text}"));
        let at = self.time.ms();
        let mut inner = self.inner();
        if inner.wrong.len() < 20 {
            inner.wrong.push(format!("at {at} ms: {text}"));
        }
    }

    /// A node knows this much to be visible; answers what is visible anywhere.
    pub(super) fn visible(&self, lease: Option<&Lease>) -> u64 {
        let here = lease.map_or(0, |lease| *lease.visible().borrow());
        self.visible.fetch_max(here, Relaxed).max(here)
    }

    /// A node applies an entry: it must be the one that all others applied there.
    pub(super) fn apply(&self, node: u64, entry: &RaftEntry) {
        let (index, id) = (entry.log_id().index, entry.log_id());
        let same = {
            let mut inner = self.inner();
            let known = inner.applied.entry(index).or_insert_with(|| entry.clone());
            known.log_id() == id && same_payload(known, entry)
        };
        if !same {
            self.wrong(format!("node {node} applied another entry than others at {index}"));
        }
    }
}

fn same_payload(a: &RaftEntry, b: &RaftEntry) -> bool {
    match (&a.payload, &b.payload) {
        (EntryPayload::Normal(a), EntryPayload::Normal(b)) => a.0 == b.0,
        (EntryPayload::Blank, EntryPayload::Blank) => true,
        (EntryPayload::Membership(a), EntryPayload::Membership(b)) => a == b,
        _ => false,
    }
}

/// A log id for people.
pub(super) fn shown(id: Option<&LogId>) -> String {
    id.map_or("none".into(), |id| format!("{}.{}", id.committed_leader_id().term, id.index))
}

/// Who the members are, for openraft.
pub(super) fn members(ids: impl IntoIterator<Item = u64>) -> BTreeMap<u64, claviger_log::Member> {
    ids.into_iter().map(|id| (id, member(id))).collect()
}

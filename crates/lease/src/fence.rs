//! Which parts of the state the newest log entries touch.

use crate::sync::{AtomicU64, Mutex, MutexGuard};
use claviger_state_machine::ConflictKey;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::PoisonError;

/// Entries that are remembered although everyone has them: a read that takes long need not start again because of a burst
/// of writes to other objects meanwhile.
const KEPT: usize = 4096;

/// Entries that are remembered at most. Beyond, the oldest are forgotten and reads wait until those are visible: safe, and
/// reached only when a node gets a long log and no word from a leader.
const KEPT_MAX: usize = 16_384;

/// Which parts of the state the newest log entries touch. Every log entry is added before it is durable.
///
/// A question that needs no lock: is the newest entry that touches anything old enough? Only while something is under way
/// are the parts looked up.
#[derive(Debug)]
pub struct Fence {
    /// Entries that are remembered although everyone has them, and at most.
    kept: usize,
    kept_max: usize,
    /// Newest index that touches anything.
    newest: AtomicU64,
    /// What is known of indexes up to here is "something may have been touched".
    forgotten: AtomicU64,
    /// End of the log.
    last: AtomicU64,
    /// Every reader may rely on what is up to here: `min(applied, visible)`.
    done: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Ascending.
    entries: VecDeque<(u64, Vec<ConflictKey>)>,
    /// The indexes of `entries` that touch a part, ascending.
    parts: HashMap<ConflictKey, VecDeque<u64>>,
}

impl Default for Fence {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Fence {
    /// A fence for a log whose entries up to `index` are not known one by one; `last` is its end.
    pub fn new(index: u64) -> Self {
        Self::with_room(index, KEPT, KEPT_MAX)
    }

    /// The same with other limits: how many entries are remembered although everyone has them, and how many at most.
    pub fn with_room(index: u64, kept: usize, kept_max: usize) -> Self {
        Self {
            kept,
            kept_max,
            newest: AtomicU64::new(0),
            forgotten: AtomicU64::new(index),
            last: AtomicU64::new(index),
            done: AtomicU64::new(0),
            known: Mutex::new(Known::default()),
        }
    }

    /// What is up to here is applied and visible: it may be forgotten.
    pub fn set_done(&self, index: u64) {
        self.done.fetch_max(index, SeqCst);
    }

    /// Adds an appended entry.
    pub fn add(&self, index: u64, touches: Vec<ConflictKey>) {
        let mut known = self.known();
        // Written over: openraft truncates first, so this is the log's second line of defence.
        while known.entries.back().is_some_and(|(there, _)| *there >= index) {
            known.forget_last();
        }
        if !touches.is_empty() {
            for part in &touches {
                known.parts.entry(part.clone()).or_default().push_back(index);
            }
            known.entries.push_back((index, touches));
            self.newest.store(index, SeqCst);
        }
        self.last.store(index, SeqCst);
        while known.entries.len() > self.kept {
            let old = known.entries.front().map_or(0, |(old, _)| *old);
            if old > self.done.load(SeqCst) && known.entries.len() <= self.kept_max {
                break;
            }
            self.forgotten.fetch_max(old, SeqCst);
            known.forget_first();
        }
    }

    /// Removes the entries after `last`: they were never committed.
    pub fn truncate(&self, last: u64) {
        let mut known = self.known();
        while known.entries.back().is_some_and(|(index, _)| *index > last) {
            known.forget_last();
        }
        self.newest.store(known.entries.back().map_or(0, |(index, _)| *index), SeqCst);
        self.last.fetch_min(last, SeqCst);
    }

    /// The state is about to be replaced by one at `index`, brought by a snapshot. To be called before anyone sees it.
    pub fn install(&self, index: u64) {
        let mut known = self.known();
        while known.entries.front().is_some_and(|(old, _)| *old <= index) {
            known.forget_first();
        }
        self.forgotten.fetch_max(index, SeqCst);
        self.last.fetch_max(index, SeqCst);
    }

    /// Index of the last entry in the log.
    pub fn last(&self) -> u64 {
        self.last.load(SeqCst)
    }

    /// The newest entry that touches anything, or may do so.
    pub fn newest(&self) -> u64 {
        self.newest.load(SeqCst).max(self.forgotten.load(SeqCst))
    }

    /// Entries that are neither applied nor visible, or not both.
    pub fn pending(&self, done: u64) -> usize {
        if self.newest.load(SeqCst) <= done {
            return 0;
        }
        let known = self.known();
        known.entries.len() - known.entries.partition_point(|(index, _)| *index <= done)
    }

    /// Whether no entry after `index` touches any of these parts; all parts when `parts` is `None`.
    pub fn is_clean(&self, parts: Option<&[ConflictKey]>, index: u64) -> bool {
        if self.newest() <= index {
            return true;
        }
        let Some(parts) = parts else { return false };
        let known = self.known();
        self.forgotten.load(SeqCst) <= index
            && parts.iter().all(|part| known.parts.get(part).and_then(VecDeque::back).is_none_or(|n| *n <= index))
    }

    /// The newest entry up to `index` that may touch one of these parts, 0 if none does.
    pub fn newest_up_to(&self, parts: Option<&[ConflictKey]>, index: u64) -> u64 {
        let known = self.known();
        let before = |indexes: &VecDeque<u64>| {
            let end = indexes.partition_point(|i| *i <= index);
            end.checked_sub(1).and_then(|i| indexes.get(i)).copied().unwrap_or(0)
        };
        let newest = match parts {
            Some(parts) => parts.iter().filter_map(|part| known.parts.get(part)).map(before).max().unwrap_or(0),
            None => {
                let end = known.entries.partition_point(|(i, _)| *i <= index);
                end.checked_sub(1).and_then(|i| known.entries.get(i)).map_or(0, |(i, _)| *i)
            }
        };
        newest.max(self.forgotten.load(SeqCst).min(index))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget_first(&mut self) {
        if let Some((_, touched)) = self.entries.pop_front() {
            self.drop_from(touched, |indexes| indexes.pop_front());
        }
    }

    fn forget_last(&mut self) {
        if let Some((_, touched)) = self.entries.pop_back() {
            self.drop_from(touched, |indexes| indexes.pop_back());
        }
    }

    fn drop_from(&mut self, touched: Vec<ConflictKey>, pop: impl Fn(&mut VecDeque<u64>) -> Option<u64>) {
        for part in touched {
            if let Some(indexes) = self.parts.get_mut(&part) {
                pop(indexes);
                if indexes.is_empty() {
                    self.parts.remove(&part);
                }
            }
        }
    }
}

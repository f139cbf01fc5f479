//! The last step of a read: is the lease valid, and is what the answer was made of still all there is?
//!
//! Looked at are the clock, the end of the lease, and then the fence and what is visible. That the fence comes last is the
//! point: if the lease is valid at some instant, everything visible at that instant is in the fence here (design B3, I1), and a
//! look at the fence *after* it finds that. A look before might miss an entry that arrives between the two and makes a new
//! lease possible (`tests/loom.rs` finds it).
//!
//! Whether the clock or the end is read first does not matter for what is shown. In either order there is an instant during
//! the call at which the lease was there and had not run out: the read takes effect then, and whatever happens to the lease
//! afterwards, nobody was told of anything newer before the read began. The clock comes first because then, of a lease that is
//! given back meanwhile, nothing is used.

use crate::sync::AtomicU64;
use crate::{Fence, Nanos};
use claviger_state_machine::ConflictKey;
use std::sync::atomic::Ordering::SeqCst;

/// Until when this node may answer by itself. Set under the lock of whoever decides, read without one.
#[derive(Debug, Default)]
pub struct LeaseCell {
    /// On the node's own clock; 0 for none.
    end: AtomicU64,
}

impl LeaseCell {
    /// No lease.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lease ends then.
    pub fn set(&self, end: Nanos) {
        self.end.store(end, SeqCst);
    }

    /// There is no lease.
    pub fn clear(&self) {
        self.set(0);
    }

    /// Until when the lease lasts, 0 without one.
    pub fn end(&self) -> Nanos {
        self.end.load(SeqCst)
    }

    /// Whether this node had a lease at some instant during this call.
    pub fn is_valid(&self, now: impl FnOnce() -> Nanos) -> bool {
        let now = now();
        now < self.end.load(SeqCst)
    }
}

/// Whether an answer is right that was made from these parts of the state (all of them when `parts` is `None`) after `at`
/// was seen to be applied: nothing newer touches them that was visible at some instant during this call, and everything
/// that it used is visible.
pub fn validate(
    lease: &LeaseCell,
    fence: &Fence,
    visible: &AtomicU64,
    at: u64,
    parts: Option<&[ConflictKey]>,
    now: impl FnOnce() -> Nanos,
) -> bool {
    lease.is_valid(now) && fence.is_clean(parts, at.min(visible.load(SeqCst)))
}

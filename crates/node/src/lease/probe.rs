//! What the simulation sees of a lease, and how it takes a rule away.

use super::{params, Lease};
use claviger_lease::{Ballot, Broken, Nanos};
use claviger_state_machine::ConflictKey;

/// A look at one node's leases.
pub(crate) struct Probe {
    /// The node's clock.
    pub(crate) now: Nanos,
    /// Whether it may answer by itself.
    pub(crate) valid: bool,
    /// Until when the lease that it was given lasts, and by whom.
    pub(crate) held: (Ballot, Nanos),
    /// Its office, if it leads.
    pub(crate) office: Option<Office>,
}

/// A look at a leader.
pub(crate) struct Office {
    pub(crate) ballot: Ballot,
    /// For how long other nodes may hold its leases.
    pub(crate) holders: Vec<(u64, Nanos)>,
    /// Until when it waits for leases of earlier leaders, on its clock, and how long that is without shortcuts.
    pub(crate) frozen_until: Option<(Nanos, Nanos)>,
}

impl Lease {
    /// Takes a rule away, before anything happens.
    pub(crate) fn break_rule(&self, rule: Broken) {
        self.core().holder.break_rule(rule);
        self.inner.broken.set(rule).ok();
    }

    pub(super) fn broken(&self) -> Broken {
        self.inner.broken.get().copied().unwrap_or_default()
    }

    pub(super) fn is_clean_broken(&self, parts: &[ConflictKey], at: u64) -> Option<bool> {
        let fence = &self.inner.ground.fence;
        match self.broken() {
            Broken::Reveal => Some(fence.is_clean(Some(parts), at)),
            Broken::Pending => Some(fence.newest_up_to(Some(parts), at) <= *self.inner.visible.borrow()),
            _ => None,
        }
    }

    /// Looks, and changes nothing.
    pub(crate) fn probe(&self) -> Probe {
        let core = self.core();
        let now = self.now();
        let longest = self.reads().and_then(|reads| reads.longest.as_ref().map(params));
        let office = core.leader.as_ref().map(|leader| Office {
            ballot: leader.ballot(),
            holders: leader.holders(now).collect(),
            frozen_until: longest.map(|longest| (leader.frozen_until(Some(&longest)), longest.freeze())),
        });
        Probe { now, valid: now < self.inner.end.end(), held: (core.holder.seen(), core.holder.lease_end()), office }
    }
}

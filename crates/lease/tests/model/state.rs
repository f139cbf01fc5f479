//! The state that the log makes: for every part, which entry changed it last. A read shows exactly that.

use crate::raft::{Body, Entry};
use claviger_lease::Nanos;
use claviger_state_machine::ConflictKey;
use claviger_types::name::{Id128, Kind};

/// A set of parts, by bit: see [`keys`].
pub(crate) type Parts = u8;

pub(crate) const WORLD: Parts = 1;
pub(crate) const VAULT: Parts = 2;
/// What a list of the vault's objects depends on.
pub(crate) const LIST: Parts = 4;
pub(crate) const OBJECTS: [Parts; 3] = [8, 16, 32];
pub(crate) const ALL: Parts = 63;
pub(crate) const COUNT: usize = 6;

/// Where a state was changed last, by part.
pub(crate) type Shown = [u64; COUNT];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) shown: Shown,
    /// How long leases are.
    pub(crate) lease: Nanos,
    /// The longest that they ever were.
    pub(crate) longest: Nanos,
}

impl State {
    pub(crate) fn apply(&mut self, index: u64, entry: &Entry) {
        for part in bits(touched(entry)) {
            self.shown[part] = index;
        }
        if let Body::Lease(lease) = entry.body {
            self.lease = lease;
            self.longest = self.longest.max(lease);
        }
    }
}

/// The numbers of the parts in a set.
pub(crate) fn bits(parts: Parts) -> impl Iterator<Item = usize> {
    (0..COUNT).filter(move |bit| parts & 1 << bit != 0)
}

/// What an entry changes.
pub(crate) fn touched(entry: &Entry) -> Parts {
    match entry.body {
        Body::Blank | Body::Members(_) => 0,
        Body::Write(_, parts) => parts,
        Body::Lease(_) => WORLD,
    }
}

/// The conflict keys of every set of parts.
pub(crate) fn keys() -> Vec<Vec<ConflictKey>> {
    let vault = Id128([7; 16]);
    let object = |name: &str| ConflictKey::Object(vault, Kind::Key, name.into());
    let all = [
        ConflictKey::World,
        ConflictKey::Vault(vault),
        ConflictKey::VaultAny(vault),
        object("a"),
        object("b"),
        object("c"),
    ];
    (0..=ALL).map(|parts| bits(parts).map(|bit| all[bit].clone()).collect()).collect()
}

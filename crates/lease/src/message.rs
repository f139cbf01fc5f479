//! What leader and holders tell each other.

use crate::Nanos;
use serde::{Deserialize, Serialize};

/// A leader's term of office: its Raft vote. Totally ordered; one leader per term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// Raft term.
    pub term: u64,
    /// Its leader.
    pub node: u64,
}

/// The numbers that every node must use alike (design B8). They live in the replicated state and travel in every message:
/// where they differ, there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// `L`: how long a lease is.
    pub lease: Nanos,
    /// `rho`: how much the rates of two clocks may differ, in millionths.
    pub rho_ppm: u32,
    /// `eps`: rounding and reading of clocks.
    pub eps: Nanos,
}

impl Params {
    /// `x (1 - rho)`, rounded down.
    pub fn shorter(&self, x: Nanos) -> Nanos {
        x - self.drift(x)
    }

    /// `W`: how long a new leader waits for leases of older ones, `L (1 + rho) + eps`.
    pub fn freeze(&self) -> Nanos {
        self.lease + self.drift(self.lease) + self.eps
    }

    fn drift(&self, x: Nanos) -> Nanos {
        let part = u128::from(x) * u128::from(self.rho_ppm.min(1_000_000));
        u64::try_from(part.div_ceil(1_000_000)).unwrap_or(x)
    }
}

/// A lease, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of the holder's life that it is meant for (see [`LeaseAck::life`]).
    pub life: u64,
    /// The holder's own stamp, from which the duration counts: so that a slow message only shortens it.
    pub stamp: Nanos,
    /// How long, in nanoseconds.
    pub duration: Nanos,
}

/// Leader to node, every few tens of milliseconds and whenever something became visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseMessage {
    /// Who leads.
    pub ballot: Ballot,
    /// Never repeated by one leader; the answer echoes it.
    pub seq: u64,
    /// Everything up to this index is visible.
    pub visible: u64,
    /// Nothing that was ever acknowledged lies above `visible` but for what this leader acknowledged since.
    pub complete: bool,
    /// The leader's clock: opaque, for comparing rates only.
    pub sent: Nanos,
    /// The numbers that the leader reckons with.
    pub params: Params,
    /// A lease, or none.
    pub grant: Option<Grant>,
    /// The node shall give its lease back: it is about to be removed.
    pub give_back: bool,
    /// The node's state is not the others': it must not serve.
    pub wrong: bool,
    /// Whether the grant is for reads that may be stale: nobody waits for its holder.
    pub loose: bool,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAck {
    /// Of the message.
    pub ballot: Ballot,
    /// Of the message.
    pub seq: u64,
    /// Drawn at random at start and whenever the lease is given back: grants for another life are void.
    pub life: u64,
    /// The holder's clock when the answer was made.
    pub stamp: Nanos,
    /// The last index applied there.
    pub applied: u64,
    /// It holds no lease of any leader, and takes none.
    pub gave_back: bool,
    /// Newest checkpoint of its state: index and root hash, for comparing replicas.
    pub checkpoint: Option<(u64, [u8; 32])>,
}

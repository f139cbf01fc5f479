//! Local linearizable reads: the protocol of design B, without I/O and without a clock of its own.
//!
//! - [`Fence`]: which parts of the state the newest log entries touch. Filled when an entry is appended, before it is
//!   durable, and so before anyone can know it to be committed.
//! - [`Leader`]: grants leases, and says which entries are *visible*: committed, and fenced at every node that may hold a
//!   lease. Only visible entries are acknowledged; only visible effects are shown.
//! - [`Holder`]: what a node may answer by itself, and until when.
//!
//! Time is `u64` nanoseconds of the node's own monotonic clock, which must count the time in which the node did not run.
//! A time of one node means nothing to another; those that travel come back to where they were read.
//!
//! The invariant (design B3, I1): at any moment, whatever is visible is fenced or applied at every node whose lease is
//! valid. So a read that finds its lease valid, and then no entry in the fence that is newer than what it used, has seen
//! everything that anyone was told.

mod cell;
mod fence;
mod holder;
mod leader;
mod message;
mod sync;

pub use cell::{validate, LeaseCell};
pub use fence::Fence;
pub use holder::{Holder, Taken};
pub use leader::{Leader, Members};
pub use message::{Ballot, Grant, LeaseAck, LeaseMessage, Params};

/// Nanoseconds of a node's own clock.
pub type Nanos = u64;

/// What a test can switch off, to see that the rule was needed. Nothing is off in a build without the feature
/// `break-lease`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    /// Every rule holds.
    #[default]
    Nothing,
    /// R3: visible without waiting for those who may hold a lease.
    Barrier,
    /// R4: what is not visible yet may be shown.
    Reveal,
    /// R4: pending entries are not looked at.
    Pending,
    /// R4: checked before the answer is made, not after.
    CheckBefore,
    /// R5: a new leader does not wait for older leases to end.
    Freeze,
    /// R1: leases are granted from now on, not from what a quorum has proved.
    Evidence,
    /// R1: granted to nodes that lack entries from before the leader's term.
    Floor,
    /// R1: the duration counts from the message's arrival, not from the stamp that it echoes.
    Stamp,
    /// R5a: votes that were given after the office began shorten the freeze too.
    LateVotes,
    /// R5b: one answer of every node ends the freeze.
    OneRound,
    /// R8: a lease counts as given back although the answer that says so is older than the lease.
    LateAnswers,
}

//! One replica: openraft over the stores, peers over mutual TLS, the read gate, forwarding, timers.
//!
//! The rest of the service sees [`Node`]: propose an entry, pass the read gate, look at a consistent view, change the
//! membership. That openraft does the consensus is known here and in `claviger-log` only.
//!
//! Invariants: an outcome is returned only after the entry is committed (durable at a quorum) and applied here or at the
//! leader; a view taken after [`ReadGate::check`] holds everything that was acknowledged before the check was called,
//! anywhere in the cluster; a retry inside the cluster repeats the entry's request id, so it can never act twice.

mod clock;
mod disks;
mod divergence;
mod error;
mod gate;
mod hooks;
mod lease;
mod network;
mod node;
pub mod peer;
mod purge;
#[cfg(all(test, feature = "sim"))]
mod sim;
mod status;
mod timers;

pub use error::{NodeError, StartError};
pub use gate::{ReadCounts, ReadGate, Reading};
pub use hooks::WriteStage;
pub use lease::{Lease, LeaseView};
pub use node::{Emergency, Node, NodeConfig, Raft, Storage};
pub use peer::{Decided, Identity, PeerError, Peers};
pub use status::{LeaseStatus, Role, Status};
pub use timers::{run_erasure, run_timers};

pub use claviger_log::{Member, View};

//! A deterministic simulation of the real code (design B9, T3): real openraft, the real leases, gate, fence and state
//! machine, over a network, disks and clocks that a seed decides.
//!
//! ```text
//! RUSTFLAGS="--cfg tokio_unstable" cargo test --release -p claviger-node --features sim --lib sim::
//! CLAVIGER_SIM_SEEDS=1000 ...   as many seeds
//! CLAVIGER_SIM_SEED=17 ...      this one only; with CLAVIGER_SIM_LOG=1 it tells what happens
//! ```
//!
//! tokio draws random numbers, to be fair: the cfg lets them come from the seed.

mod check;
mod client;
mod clock;
mod net;
mod node;
mod plan;
mod record;
mod rng;
mod store;
mod tests;
mod world;

use claviger_lease::Broken;

/// What is taken away, to see that it was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// Nothing: the real thing.
    None,
    /// A rule of the protocol.
    Rule(Broken),
    /// Answers go out without being confirmed.
    NoConfirm,
    /// Entries are fenced when they are durable, not when they are appended.
    LateFence,
    /// A snapshot comes without telling the fence.
    NoInstall,
    /// An accepted append does not count for the age of a vote.
    NoServing,
    /// A write is acknowledged when it is applied.
    EarlyAck,
    /// A node is removed while it holds a lease.
    NoRetire,
    /// What was looked up is shown before it is visible.
    NoSettle,
}

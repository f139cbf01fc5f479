//! How reads are made, for a world and for single vaults (design B7). Changed through the log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Limits of [`ReadTiming::lease_ms`]: below, a lease ends before the next message; above, a dead node stalls writes for
/// longer than clients wait.
pub const LEASE_MS: std::ops::RangeInclusive<u32> = 100..=10_000;

/// Limits of the bound of a stale read, in milliseconds: below, it ends before the next message; above an hour nobody
/// wants to know.
pub const BOUND_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

/// How reads are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadMode {
    /// One round trip to the leader, shared by the reads of the moment. Needs no clock.
    ReadIndex,
    /// From the node's own state under a lease, never stale.
    Lease,
    /// From the node's own state, at most so far behind, and saying so.
    Bounded {
        /// How far, in milliseconds.
        bound_ms: u32,
    },
}

impl ReadMode {
    /// The name in configuration and status.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadMode::ReadIndex => "read_index",
            ReadMode::Lease => "lease",
            ReadMode::Bounded { .. } => "bounded",
        }
    }

    /// Whether it asks for less trust than `other`: what a vault may choose over its world's mode.
    pub fn is_stricter_than(self, other: Self) -> bool {
        let trust = |mode| match mode {
            ReadMode::ReadIndex => 0,
            ReadMode::Lease => 1,
            ReadMode::Bounded { .. } => 2,
        };
        trust(self) < trust(other)
    }

    /// From its name; `bound_ms` belongs to `bounded` and to no other.
    pub fn parse(name: &str, bound_ms: Option<u32>) -> Result<Self, &'static str> {
        match (name, bound_ms) {
            ("read_index", None) => Ok(ReadMode::ReadIndex),
            ("lease", None) => Ok(ReadMode::Lease),
            ("bounded", Some(bound_ms)) if BOUND_MS.contains(&bound_ms) => Ok(ReadMode::Bounded { bound_ms }),
            ("bounded", Some(_)) => Err("a bound is 100 ms to 1 h"),
            ("bounded", None) => Err("`bounded` needs a bound"),
            ("read_index" | "lease", Some(_)) => Err("only `bounded` has a bound"),
            _ => Err("a read mode is `lease`, `read_index` or `bounded`"),
        }
    }
}

impl fmt::Display for ReadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadMode::Bounded { bound_ms } => write!(f, "bounded({bound_ms} ms)"),
            mode => f.write_str(mode.as_str()),
        }
    }
}

/// The numbers that every node must reckon with alike (design B8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTiming {
    /// How long a lease is.
    pub lease_ms: u32,
    /// How much the rates of two clocks may differ, in millionths.
    pub rho_ppm: u32,
    /// Rounding and reading of clocks.
    pub eps_ms: u32,
}

impl Default for ReadTiming {
    /// The balanced profile: a lease outlasts the finding of a new leader, and a dead node stalls writes for a second.
    fn default() -> Self {
        Self { lease_ms: 1_000, rho_ppm: 1_000, eps_ms: 5 }
    }
}

impl ReadTiming {
    /// Whether the numbers make sense together.
    pub fn check(&self) -> Result<(), &'static str> {
        if !LEASE_MS.contains(&self.lease_ms) {
            return Err("a lease is 100 ms to 10 s");
        }
        if self.rho_ppm > 100_000 {
            return Err("clocks that differ by more than a tenth are broken");
        }
        if self.eps_ms == 0 || self.eps_ms > self.lease_ms / 4 {
            return Err("eps is 1 ms to a quarter of the lease");
        }
        Ok(())
    }
}

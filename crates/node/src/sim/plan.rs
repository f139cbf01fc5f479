//! What a seed stands for.

use super::node::Timing;
use super::rng::Rng;
use claviger_types::reads::ReadTiming;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    /// Time under faults, in milliseconds.
    pub(super) ms: u64,
    pub(super) clients: usize,
    /// Writes of a thousand requests.
    pub(super) writes: u64,
    /// Longest pause of a client between two requests.
    pub(super) think: u64,
    /// Time between two faults, on average.
    pub(super) fault_every: u64,
    pub(super) timing: ReadTiming,
    /// From three voters to five and back.
    pub(super) membership: bool,
    /// Read modes change.
    pub(super) modes: bool,
    heartbeat_ms: u64,
    election_ms: u64,
    election_gap_ms: u64,
    snapshot_entries: u64,
    keep_entries: u64,
}

impl Plan {
    /// Everything that is drawn once. Times are about a fifth of a real cluster's: what happens there in a minute happens
    /// here in twelve seconds.
    pub(super) fn of(seed: u64, ms: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let lease_ms = u32::try_from(rng.within(100..=400)).unwrap();
        let rho_ppm = rng.pick(&[1_000, 1_000, 10_000, 50_000]).copied().unwrap_or(1_000);
        Self {
            seed,
            nodes: if seed % 4 == 3 { 5 } else { 3 },
            ms,
            clients: usize::try_from(rng.within(6..=12)).unwrap(),
            writes: rng.within(100..=400),
            think: rng.within(0..=30),
            fault_every: rng.within(60..=400),
            timing: ReadTiming { lease_ms, rho_ppm, eps_ms: u32::try_from(rng.within(1..=5)).unwrap() },
            membership: seed % 4 == 1,
            modes: seed % 4 == 2,
            heartbeat_ms: rng.within(5..=9),
            election_ms: rng.within(30..=120),
            election_gap_ms: rng.within(3..=20),
            snapshot_entries: rng.within(20..=120),
            keep_entries: rng.within(0..=20),
        }
    }

    pub(super) fn raft(&self, id: u64) -> Timing {
        Timing {
            heartbeat_ms: self.heartbeat_ms,
            election_ms: self.election_ms + (id * 7 % 5) * self.election_gap_ms + id,
            slowest_election_ms: self.election_ms + 5 * self.election_gap_ms + id,
            snapshot_entries: self.snapshot_entries,
            keep_entries: self.keep_entries,
        }
    }
}

//! The clock of leases.

use nix::time::{clock_gettime, ClockId};

/// Nanoseconds since the machine started, the time in which it slept or the process was stopped included. `std`'s clock
/// stops while the machine sleeps. 0 where the system has no such clock, so that no lease is ever valid.
pub(crate) fn boottime() -> u64 {
    let nanos = |time: nix::sys::time::TimeSpec| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
    };
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, nanos)
}

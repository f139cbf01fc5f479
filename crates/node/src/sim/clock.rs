//! Time: one true time, and a clock for every node that shows its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Nanoseconds in a millisecond, the step of the simulation.
pub(super) const MS: u64 = 1_000_000;

/// Every look at the time takes so long, so that things that happen one after the other have different times.
const LOOK: u64 = 20;

/// The true time.
#[derive(Debug, Default)]
pub(super) struct Time {
    ns: AtomicU64,
}

impl Time {
    /// A new time each time, in the order of asking.
    pub(super) fn look(&self) -> u64 {
        let now = self.ns.load(Relaxed);
        if (now + LOOK) / MS == now / MS {
            self.ns.store(now + LOOK, Relaxed);
        }
        now
    }

    pub(super) fn set_ms(&self, ms: u64) {
        self.ns.store(ms * MS, Relaxed);
    }

    pub(super) fn ms(&self) -> u64 {
        self.ns.load(Relaxed) / MS
    }
}

/// A node's clock. It goes on while the node is paused or down.
#[derive(Debug)]
pub(super) struct Clock {
    time: Arc<Time>,
    /// True time and shown time at the last change of rate, and the rate's error since, in millionths.
    state: Mutex<(u64, u64, i64)>,
}

impl Clock {
    pub(super) fn new(time: Arc<Time>, shown: u64, ppm: i64) -> Self {
        let now = time.look();
        Self { time, state: Mutex::new((now, shown, ppm)) }
    }

    pub(super) fn now(&self) -> u64 {
        let now = self.time.look();
        let (since, shown, ppm) = *self.state.lock().unwrap();
        let elapsed = i128::from(now - since);
        let elapsed = elapsed + elapsed * i128::from(ppm) / 1_000_000;
        shown + u64::try_from(elapsed).unwrap()
    }

    pub(super) fn set_rate(&self, ppm: i64) {
        let shown = self.now();
        *self.state.lock().unwrap() = (self.time.ns.load(Relaxed), shown, ppm);
    }
}

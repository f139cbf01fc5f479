//! The service's one clock.
//!
//! Everything that asks what time it is asks here: token times, validity of keys, time stamps of commands, timers. `dev` can
//! move the clock forward, so that tests see what the service does months from now; nothing can move it back, because state
//! time never runs backwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall clock plus what it was moved forward by. Clones share the offset.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        now_ms().saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock forward. For `dev` and tests: the times of a cluster are those of its machines.
    pub fn forward(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Wall clock, in milliseconds since 1970: for what is not the service's own business, such as certificates.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

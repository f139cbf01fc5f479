//! Points of a request at which a test can stop the whole process, to see what an answer is worth that was made before a
//! revocation and sent after it (`tests/pause`). Only builds with the feature `pause-points` can be stopped; in all others
//! nothing is here.

/// Where a request on a vault can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The gate has let it in.
    Begun,
    /// The answer is made.
    Evaluated,
    /// The gate has confirmed it.
    Confirmed,
    /// The response is complete and about to be sent.
    Rendered,
}

#[cfg(not(feature = "pause-points"))]
pub(crate) fn reach(_: Point) {}

#[cfg(feature = "pause-points")]
pub(crate) use armed::{arm, reach};

#[cfg(feature = "pause-points")]
mod armed {
    use super::Point;
    use nix::sys::signal::{raise, Signal};
    use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

    const NAMES: &[(&str, Point)] = &[
        ("begun", Point::Begun),
        ("evaluated", Point::Evaluated),
        ("confirmed", Point::Confirmed),
        ("rendered", Point::Rendered),
    ];

    /// One more than the place in [`NAMES`] of the point that stops the next request, 0 when none does.
    static ARMED: AtomicU8 = AtomicU8::new(0);

    /// Has the next request that comes to a point stop the process there, once. `false` when there is no such point.
    pub(crate) fn arm(name: &str) -> bool {
        let place = (1..).zip(NAMES).find(|(_, (known, _))| *known == name).map(|(place, _)| place);
        if let Some(place) = place {
            ARMED.store(place, SeqCst);
        }
        place.is_some()
    }

    /// To be called at a point. Returns after the process was continued.
    pub(crate) fn reach(point: Point) {
        let place = (1..).zip(NAMES).find(|(_, (_, known))| *known == point).map_or(0, |(place, _)| place);
        if ARMED.compare_exchange(place, 0, SeqCst, SeqCst).is_ok() {
            // To this thread, so that it goes no step further; the kernel stops the others with it.
            raise(Signal::SIGSTOP).expect("a process may stop itself");
        }
    }
}

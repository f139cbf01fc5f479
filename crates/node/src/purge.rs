//! Which entries of the log can go: those behind a snapshot, but for what a follower still needs. While one installs a
//! snapshot, the next one would else make the entries go that follow the first, and under load it would install snapshots for
//! ever. openraft's own policy knows nothing of that; it is the bound.

use claviger_log::TypeConfig;
use openraft::{Instant as _, RaftMetrics};
use std::time::Duration;

/// A follower that was heard within this time may still need entries; for one that is away a snapshot is made anyway.
const HEARD: Duration = Duration::from_secs(3);

/// So many snapshots' worth of entries are kept at most for followers that are behind.
pub(crate) const HELD_SNAPSHOTS: u64 = 10;

type Metrics = RaftMetrics<TypeConfig>;

/// The index of the last entry that can go, if any can.
pub(crate) fn purgeable(metrics: &Metrics, keep: u64) -> Option<u64> {
    let upto = metrics.snapshot.as_ref()?.index.checked_sub(keep)?;
    if metrics.purged.as_ref().is_some_and(|purged| purged.index >= upto) {
        return None;
    }
    let heard = |id: &u64| {
        let times = metrics.heartbeat.as_ref().and_then(|times| times.get(id)).and_then(Option::as_ref);
        times.is_some_and(|time| time.elapsed() < HEARD)
    };
    // Only a leader knows how far the others are.
    let needed = metrics.replication.iter().flatten().any(|(id, matching)| {
        *id != metrics.id && matching.as_ref().is_none_or(|matching| matching.index < upto) && heard(id)
    });
    (!needed).then_some(upto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::impls::leader_id_std::LeaderId;
    use openraft::metrics::SerdeInstant;
    use openraft::type_config::alias::InstantOf;
    use openraft::type_config::TypeConfigExt as _;
    use openraft::vote::RaftLeaderId as _;

    fn at(index: u64) -> Option<claviger_log::LogId> {
        Some(openraft::LogId::new(LeaderId::new(1, 1).to_committed(), index))
    }

    #[tokio::test]
    async fn entries_stay_for_followers_that_are_heard_and_behind() {
        let now = TypeConfig::now();
        let long_ago = now - HEARD * 2;
        let case = |matching: Option<u64>, heard: Option<InstantOf<TypeConfig>>| {
            let mut metrics = Metrics::new_initial(1);
            metrics.snapshot = at(1_000);
            metrics.purged = at(400);
            metrics.replication = Some([(1, at(1_500)), (2, at(1_400)), (3, matching.and_then(at))].into());
            let fresh = Some(SerdeInstant::new(now));
            metrics.heartbeat = Some([(1, None), (2, fresh), (3, heard.map(SerdeInstant::new))].into());
            metrics
        };
        assert_eq!(purgeable(&case(Some(1_300), Some(now)), 100), Some(900));
        assert_eq!(purgeable(&case(Some(900), Some(now)), 100), Some(900));
        // It installs a snapshot, or is new.
        assert_eq!(purgeable(&case(Some(899), Some(now)), 100), None);
        assert_eq!(purgeable(&case(None, Some(now)), 100), None);
        // It is away.
        assert_eq!(purgeable(&case(Some(500), Some(long_ago)), 100), Some(900));
        assert_eq!(purgeable(&case(None, None), 100), Some(900));
        // A follower keeps none for others.
        let mut follower = case(None, Some(now));
        (follower.replication, follower.heartbeat) = (None, None);
        assert_eq!(purgeable(&follower, 100), Some(900));
        // Nothing to do.
        assert_eq!(purgeable(&case(Some(1_300), Some(now)), 600), None);
        assert_eq!(purgeable(&case(Some(1_300), Some(now)), 2_000), None);
        assert_eq!(purgeable(&Metrics::new_initial(1), 0), None);
    }
}

//! The start-up check that log and state belong together.

use crate::{LogId, RaftLog, StateStore};
use std::io;

/// Refuses a log that ends before what is applied, and a state that ends before what is purged: one of the two was lost or
/// is from another time, and to go on would lose acknowledged writes or vote twice in one term.
///
/// A snapshot counts as well: after an interrupted install the state may be ahead of the log, or the snapshot of the
/// state; openraft then finishes the work.
pub fn check_order(log: &RaftLog, state: &StateStore) -> io::Result<()> {
    let bounds = log.bounds()?;
    let (purged, last) = (index(bounds.last_purged_log_id), index(bounds.last_log_id));
    let applied = index(state.applied_log_id()?);
    let snapshot = index(state.snapshot_log_id()?);
    let refuse = |why: &str| {
        let shown = |i: Option<u64>| i.map_or("none".to_owned(), |i| i.to_string());
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{why}: purged {}, snapshot {}, applied {}, last {}; remove this node from the cluster, clear its data and \
                 add it again, or restore a backup",
                shown(purged),
                shown(snapshot),
                shown(applied),
                shown(last)
            ),
        ))
    };
    if applied.is_some() && log.vote()?.is_none() {
        return refuse("the state has applied entries, but the log is new: the log was lost");
    }
    if applied > last.max(snapshot) {
        return refuse("the state is ahead of the log: the end of the log was lost");
    }
    if purged > applied.max(snapshot) {
        return refuse("the log starts after the state: the state was lost");
    }
    Ok(())
}

fn index(id: Option<LogId>) -> Option<u64> {
    id.map(|id| id.index)
}

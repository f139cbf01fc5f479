//! Work that the service does by itself: the leader proposes it as ordinary commands.

use crate::error::NodeError;
use crate::node::Node;
use claviger_state_machine::read;
use claviger_types::command::{Actor, Command, Entry, ObjectRef, VaultRef};
use claviger_types::name::Id128;
use std::time::Duration;

/// How often the leader looks for work: retention is counted in days, so that seconds do not matter.
const TICK: Duration = Duration::from_secs(5);

/// Objects purged in one go; the rest waits for the next.
const PURGES_MAX: usize = 64;

/// How often a node looks whether purged material still lies in its files. The promise is a day (design C2, erasure).
const ERASE_TICK: Duration = Duration::from_secs(600);

/// Erases what was purged from this node's files, for as long as the task lives: every node has files of its own.
pub async fn run_erasure(node: Node) {
    let mut erased = 0;
    loop {
        tokio::time::sleep(ERASE_TICK).await;
        match node.erase_purged(erased).await {
            Ok(upto) => erased = upto,
            Err(error) => tracing::warn!(%error, "purged material will be erased later"),
        }
    }
}

/// Purges what has come to the end of its retention, for as long as the task lives. `now_ms` is the wall clock, `fresh_id`
/// draws request ids (`None`: it cannot now): both come from the edge.
pub async fn run_timers(node: Node, now_ms: impl Fn() -> u64, fresh_id: impl Fn() -> Option<Id128>) {
    loop {
        tokio::time::sleep(TICK).await;
        if !node.is_leader() {
            continue;
        }
        // A leader whose clock is far ahead would purge what is not due: a majority's clocks must have come that far.
        let Some(agreed) = node.agreed_ms().await else { continue };
        let now_ms = now_ms().min(agreed);
        if let Err(error) = purge_due(&node, now_ms, &fresh_id).await {
            tracing::warn!(%error, "scheduled purge will be tried again");
        }
        if let Err(error) = purge_vaults(&node, now_ms, &fresh_id).await {
            tracing::warn!(%error, "scheduled purge of vaults will be tried again");
        }
    }
}

/// Purges vaults at the end of their retention, and erases the rows of purged ones, a step for each in every round.
async fn purge_vaults(node: &Node, now_ms: u64, fresh_id: &impl Fn() -> Option<Id128>) -> Result<(), NodeError> {
    let found = node.view(|view| {
        let due = read::vaults_due(view, now_ms / 1000, PURGES_MAX)?;
        Ok::<_, claviger_state_machine::ApplyError>((due, read::erasures(view, PURGES_MAX)?))
    });
    let (due, erasures) = found.map_err(|error| NodeError::Stopped(error.to_string()))?;
    let purges = due.into_iter().map(|vault| Command::PurgeVault(VaultRef { vault }));
    let steps = erasures.into_iter().map(|vault| Command::EraseVault(VaultRef { vault }));
    for command in purges.chain(steps) {
        let Some(id) = fresh_id() else { return Ok(()) };
        let entry = Entry::new(id, Actor::System, now_ms, &command, Vec::new())
            .map_err(|error| NodeError::Refused(error.to_string()))?;
        node.propose(&entry).await?;
    }
    Ok(())
}

async fn purge_due(node: &Node, now_ms: u64, fresh_id: &impl Fn() -> Option<Id128>) -> Result<(), NodeError> {
    let due = node.view(|view| read::due(view, now_ms / 1000, PURGES_MAX));
    let due = due.map_err(|error| NodeError::Stopped(error.to_string()))?;
    for (vault, kind, found) in due {
        let object = ObjectRef { vault, kind, name: found.head.name };
        let Some(id) = fresh_id() else { return Ok(()) };
        let entry = Entry::new(id, Actor::System, now_ms, &Command::PurgeObject(object), Vec::new())
            .map_err(|error| NodeError::Refused(error.to_string()))?;
        // Somebody may have recovered or purged it meanwhile: a refusal is as good as success.
        node.propose(&entry).await?;
    }
    Ok(())
}

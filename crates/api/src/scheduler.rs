//! What the service does with keys by itself (contract 10.4): the leader rotates what is due and writes near-expiry events.
//!
//! This is here and not with the node's timers because a new version has to be generated and sealed. Every proposal names
//! the newest version that it was decided on, so that it can be made twice, by two leaders, or after somebody rotated by
//! hand, and still happens once: the state machine answers `NotDue`.
//!
//! A near-expiry event is a row of the table `notices` (read with `read::notices`, by log index), a line of the log (target
//! `claviger::event`) and a count in the metrics. Nothing delivers them to subscribers yet.

use crate::error::ServiceError;
use crate::ops::keys::NewKey;
use crate::sealing::Label;
use crate::service::{fresh_id, Service};
use claviger_state_machine::read::{self, DueRow};
use claviger_state_machine::records::{Head, Vault};
use claviger_state_machine::rotation::Due;
use claviger_types::command::{Actor, Command, Content, NoteNearExpiry, ObjectRef, RotateDue};
use claviger_types::name::Kind;
use claviger_types::outcome::{ObjectVersion, Outcome, Refusal};
use std::sync::Arc;
use std::time::Duration;

/// How often the leader looks: policies are counted in days, so that seconds do not matter.
const TICK: Duration = Duration::from_secs(5);

/// Rows looked at in one read.
const PAGE: usize = 64;

/// Does what falls due, for as long as the task lives.
pub async fn run_scheduler(service: Arc<Service>) {
    loop {
        tokio::time::sleep(TICK).await;
        if service.node.is_leader() {
            service.do_what_is_due().await;
        }
    }
}

/// A live key with what belongs to it.
struct Found {
    vault: Vault,
    head: Head,
    newest: ObjectVersion,
}

impl Service {
    /// One round. What fails is logged and stays due; it does not keep the rest from being done.
    pub async fn do_what_is_due(&self) {
        let mut after = Vec::new();
        loop {
            let now = self.now_ms() / 1000;
            let rows = match self.node.view(|view| read::rotation_due(view, now, &after, PAGE)) {
                Ok(rows) => rows,
                Err(error) => return tracing::error!(%error, "what is due cannot be read"),
            };
            let Some(last) = rows.last() else { return };
            after.clone_from(&last.key);
            for row in &rows {
                let done = self.carry_out(row).await;
                let outcome = match &done {
                    Ok(Some(_)) => "done",
                    Ok(None) => "not_due",
                    Err(_) => "failed",
                };
                let what = match row.due {
                    Due::Rotate => "rotate",
                    Due::NearExpiry => "near_expiry",
                };
                self.metrics.scheduled.with_label_values(&[what, outcome]).inc();
                if let Err(error) = done {
                    let why = error.to_wire().1.error.message;
                    tracing::warn!(what, vault = %row.vault.guid(), key = row.folded, why, "will be tried again");
                    if error == ServiceError::Unavailable {
                        return;
                    }
                }
            }
        }
    }

    /// `None`: somebody was quicker, or the key is gone.
    async fn carry_out(&self, row: &DueRow) -> Result<Option<()>, ServiceError> {
        let found = self.node.view(|view| {
            // Nothing happens in a vault that is soft-deleted; its keys fall due again when it is recovered.
            let vault = read::live_vault(view, row.vault)?;
            let head = read::head(view, row.vault, Kind::Key, &row.folded)?;
            let newest = read::version(view, row.vault, Kind::Key, &row.folded, row.version)?;
            Ok::<_, claviger_state_machine::ApplyError>((vault, head, newest))
        })?;
        let (Some(vault), Some(head), Some(newest)) = found else { return Ok(None) };
        let found = Found { vault, head, newest };
        match row.due {
            Due::Rotate => self.rotate_due(row, found).await,
            Due::NearExpiry => self.tell_near_expiry(row, found).await,
        }
    }

    async fn rotate_due(&self, row: &DueRow, found: Found) -> Result<Option<()>, ServiceError> {
        let Found { vault, head, newest } = found;
        let Content::Key { kty, public, .. } = &newest.content else { return Err(ServiceError::Internal) };
        if kty.is_hsm() && !self.config.hsm_in_software {
            return Err(ServiceError::HsmUnavailable("no hardware provider is configured"));
        }
        let now = self.now_ms().max(self.node.view(|view| read::clock_ms(view))?) / 1000;
        let made = self.keygen.generate(public.spec()).await?;
        let new = NewKey::successor(made, newest, head.rotation.as_ref(), now).ok_or(ServiceError::Internal)?;
        let version = fresh_id()?;
        let label = Label { vault: vault.id, kind: Kind::Key, name: &row.folded, version };
        let sealed = self.sealer.seal(&vault, label, new.private.expose())?;
        let put = new.into_put(vault.id, head.name.clone(), version);
        let command = Command::RotateDue(RotateDue { put, newest: row.version });
        match self.propose(Actor::System, &command, vec![sealed]).await? {
            Outcome::Version(_) => {
                let (vault, key) = (vault.name.as_str(), head.name.as_str());
                tracing::info!(target: "claviger::event", vault, key, version = version.hex(), "key rotated by its policy");
                Ok(Some(()))
            }
            other => not_due(&other),
        }
    }

    async fn tell_near_expiry(&self, row: &DueRow, found: Found) -> Result<Option<()>, ServiceError> {
        let Found { vault, head, newest } = found;
        let object = ObjectRef { vault: vault.id, kind: Kind::Key, name: head.name.clone() };
        let command = Command::NoteNearExpiry(NoteNearExpiry { object, newest: row.version });
        match self.propose(Actor::System, &command, Vec::new()).await? {
            Outcome::Done => {
                let (vault, key, expires) = (vault.name.as_str(), head.name.as_str(), newest.attributes.expires);
                tracing::warn!(target: "claviger::event", vault, key, version = row.version.hex(), expires, "key near expiry");
                Ok(Some(()))
            }
            other => not_due(&other),
        }
    }
}

fn not_due(outcome: &Outcome) -> Result<Option<()>, ServiceError> {
    match outcome {
        Outcome::Refused(Refusal::NotDue | Refusal::DeletedButRecoverable | Refusal::VaultNotFound) => Ok(None),
        other => Err(crate::call::unexpected(other)),
    }
}

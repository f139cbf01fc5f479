//! Backup and restore of one object (contract section 9).
//!
//! A blob holds every version with its material, sealed under a key that belongs to the world and the subscription, so
//! that it opens nowhere else. Restore seals the material anew under the vault that it goes to.

use super::keys::check_hsm;
use crate::call::{Call, Reply};
use crate::error::{from_refusal, ServiceError};
use crate::wire::{b64, BackupJson};
use claviger_state_machine::read::{self, BACKUP_VERSIONS_MAX};
use claviger_types::codec;
use claviger_types::command::{Command, Content, ObjectRef, RestoreObject, RestoredVersion, RotationPolicy};
use claviger_types::name::{Kind, ObjectName};
use claviger_types::outcome::Outcome;
use serde::{Deserialize, Serialize};

/// What is inside a blob; the blob's own first bytes say that it is of this form.
#[derive(Serialize, Deserialize)]
struct BackupV1 {
    kind: Kind,
    name: ObjectName,
    versions: Vec<RestoredVersion>,
    /// Material of the version at the same position.
    material: Vec<Vec<u8>>,
    rotation: Option<RotationPolicy>,
}

impl Drop for BackupV1 {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.material);
    }
}

/// Largest body of a restore: 500 versions of the largest secret with all tags in two-byte letters, in base64.
pub(crate) const RESTORE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a restore has around the blob: `{"value":"..."}`, and white space.
const AROUND_BLOB: usize = 1024;

pub(crate) fn backup(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let (vault, kind, folded) = (call.vault().id, call.kind(), call.name()?.folded());
    let found = call.view(|view| {
        let Some(head) = read::head(view, vault, kind, &folded)? else { return Ok(None) };
        let Some(versions) = read::all_versions(view, vault, kind, &folded, BACKUP_VERSIONS_MAX + 1)? else {
            return Ok(None);
        };
        let mut sealed = Vec::with_capacity(versions.len());
        for version in &versions {
            sealed.push(read::material(view, vault, kind, &folded, version.version)?.unwrap_or_default());
        }
        Ok(Some((head, versions, sealed)))
    })?;
    let (head, versions, sealed) = found.ok_or_else(|| call.not_found())?;
    if versions.len() > BACKUP_VERSIONS_MAX {
        return Err(ServiceError::BadParameter(format!(
            "An object with more than {BACKUP_VERSIONS_MAX} versions cannot be backed up."
        )));
    }
    let mut blob = BackupV1 { kind, name: head.name, versions: vec![], material: vec![], rotation: head.rotation };
    for (version, sealed) in versions.into_iter().zip(sealed) {
        let plain = call.service.sealer.open(call.vault(), call.label(&folded, version.version), &sealed)?;
        blob.material.push(plain.expose().to_vec());
        blob.versions.push(RestoredVersion {
            version: version.version,
            created: version.created,
            updated: version.updated,
            attributes: version.attributes,
            tags: version.tags,
            content: version.content,
        });
    }
    let plain = zeroize::Zeroizing::new(codec::encode(&blob).map_err(|_| ServiceError::Internal)?);
    let sealed = call.service.sealer.seal_backup(call.vault().subscription, kind, &plain)?;
    let value = b64(&sealed);
    // Better none than one that nobody can restore.
    if value.len() + AROUND_BLOB > RESTORE_BYTES_MAX {
        return Err(ServiceError::BadParameter(format!(
            "The backup would have {} bytes, and could not be restored: at most {} are allowed. Fewer versions or tags \
             make it smaller.",
            value.len(),
            RESTORE_BYTES_MAX - AROUND_BLOB
        )));
    }
    Reply::ok(&BackupJson { value: Some(value) })
}

pub(crate) async fn restore(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: BackupJson = call.json()?;
    let corrupt = || ServiceError::BadParameter("Backup blob contains invalid or corrupt version.".into());
    let blob = body.value.as_deref().and_then(crate::wire::decode_b64).ok_or_else(corrupt)?;
    let vault = call.vault();
    let plain = call.service.sealer.open_backup(vault.subscription, call.kind(), &blob)?;
    let mut backup: BackupV1 = codec::decode(plain.expose()).map_err(|_| corrupt())?;
    if backup.kind != call.kind() || backup.versions.len() != backup.material.len() {
        return Err(corrupt());
    }
    // What only a premium vault may make, only a premium vault may take back.
    for version in &backup.versions {
        if let Content::Key { kty, .. } = &version.content {
            check_hsm(call, *kty)?;
        }
    }
    let folded = backup.name.folded();
    let mut blobs = Vec::with_capacity(backup.material.len());
    for (version, material) in backup.versions.iter().zip(&backup.material) {
        blobs.push(call.service.sealer.seal(vault, call.label(&folded, version.version), material)?);
    }
    let newest = backup.versions.last().map(|v| v.version.hex()).ok_or_else(corrupt)?;
    let name = backup.name.clone();
    let object = ObjectRef { vault: vault.id, kind: call.kind(), name: name.clone() };
    let command = Command::RestoreObject(RestoreObject {
        object,
        versions: std::mem::take(&mut backup.versions),
        rotation: backup.rotation.take(),
    });
    match call.propose_raw(command, blobs).await? {
        Outcome::Version(object) => Reply::ok(&call.render.bundle(&object)),
        Outcome::Refused(refusal) => {
            let id = format!("{}/{newest}", call.render.object_id(call.kind(), name.as_str()));
            Err(from_refusal(refusal, call.kind(), name.as_str(), id, call.forbidden()))
        }
        other => Err(crate::call::unexpected(&other)),
    }
}

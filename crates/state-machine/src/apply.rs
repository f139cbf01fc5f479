//! `apply`: one committed entry, one outcome.
//!
//! The shape of every command is the same: load what it touches, decide, write. Decisions are made against the state as it
//! is now, whatever the proposing node saw.

use crate::access::{self, Subject};
use crate::keys;
use crate::kv::{Kv, Read, StoreError, Table};
use crate::policy::required_permission;
use crate::read;
use crate::records::{
    Answered, DeletedHead, Event, Head, Reads, Remembered, Subscription, Tenant, TokenKey, World, FORMAT,
};
use crate::rotation;
use claviger_types::codec::{self, CodecError};
use claviger_types::command::{
    Actor, Command, Content, Entry, InitWorld, NoteNearExpiry, ObjectRef, Origin, PutSubscription, PutTenant,
    PutTokenKey, PutVersion, RestoreObject, RotateDue, RotationPolicy, SetReads, SetRotationPolicy, SetVaultReads,
    UpdateVersion,
};
use claviger_types::name::{Id128, Kind};
use claviger_types::outcome::{Deletion, ObjectVersion, Outcome, Refusal};
use claviger_types::reads::{ReadMode, ReadTiming, BOUND_MS};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Rows that one purge removes at most in one scan step; a purge takes as many steps as it needs.
pub const PURGE_ROWS_MAX: usize = 1024;

/// How long an outcome is remembered for retries, in milliseconds of state time. Retries happen inside the cluster within
/// one request's deadline (seconds); an hour leaves room for a proposal that was stuck in a partition.
const REMEMBER_MS: u64 = 3_600_000;

/// How long after a request a client may ask for its outcome again, in milliseconds of state time: SDKs give up within a
/// minute of the last answer unless they are told otherwise.
const CLIENT_RETRY_MS: u64 = 60_000;

/// Vaults with a read mode of their own: every node keeps all of them in memory.
const VAULT_READS_MAX: usize = 1_000;

/// Tenants of a world: they are looked through where a sign-in names one.
const TENANTS_MAX: usize = 100;

/// Outcomes forgotten per entry: more than one, so that the queue shrinks after a burst.
const FORGET_PER_ENTRY: usize = 4;

/// Why this node cannot go on. Never an answer to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The store below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored row or an entry does not decode.
    #[error("corrupt state: {0}")]
    Corrupt(#[from] CodecError),
    /// The entry holds a command of a newer binary: skipping it would diverge (design C3).
    #[error("UNKNOWN_COMMAND {cmd} version {cmd_v} at index {index}: this binary is too old for the cluster")]
    UnknownCommand {
        /// Command number.
        cmd: u16,
        /// Its version.
        cmd_v: u8,
        /// Log index.
        index: u64,
    },
}

/// Applies the entry at `index`. The caller makes the changes durable together with the applied index.
pub fn apply<K: Kv>(kv: &mut K, index: u64, entry: &Entry) -> Result<Outcome, ApplyError> {
    let Some(command) = Command::decode(entry.cmd, entry.cmd_v, &entry.body)? else {
        return Err(ApplyError::UnknownCommand { cmd: entry.cmd, cmd_v: entry.cmd_v, index });
    };
    let clock = read::clock_ms(kv)?.max(entry.time_ms);
    put(kv, Table::Meta, keys::CLOCK.to_vec(), &clock)?;
    let content_hash = content_hash(entry);

    let outcome = match remembered(kv, entry.request_id)? {
        // The same entry: a retry inside the cluster.
        Some(first) if first.entry_hash == content_hash => first.outcome,
        // The same request of a client, with new random parts.
        Some(first) if is_retry(kv, clock, entry, &command)? => first.outcome,
        Some(_) | None => {
            let by = Subject::of(&entry.actor).map(|who| who.oid);
            let outcome = Apply { kv, index, now: clock / 1000, by }.run(entry, command)?;
            remember(kv, index, clock, entry, content_hash, &outcome)?;
            outcome
        }
    };
    forget(kv, clock)?;
    chain(kv, index, clock, entry, &outcome)?;
    Ok(outcome)
}

pub(crate) fn put<T: Serialize>(kv: &mut impl Kv, table: Table, key: Vec<u8>, value: &T) -> Result<(), ApplyError> {
    kv.put(table, key, codec::to_versioned(FORMAT, value)?);
    Ok(())
}

/// Hash of what is asked, without time: a retry carries a later time but asks the same.
fn content_hash(entry: &Entry) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(entry.cmd.to_be_bytes());
    hash.update([entry.cmd_v]);
    hash.update(Sha256::digest(&entry.body));
    for blob in &entry.blobs {
        hash.update(Sha256::digest(blob));
    }
    hash.finalize().into()
}

fn remembered(kv: &impl Read, request: Id128) -> Result<Option<Remembered>, ApplyError> {
    let bytes = kv.get(Table::Idempotency, &keys::idempotency(request))?;
    Ok(bytes.map(|b| codec::from_versioned(FORMAT, &b)).transpose()?)
}

/// Whether a client asks again for what was just done: the same request under the same id, soon after, and nothing has
/// happened to the object since. Clients that send one id for ever are served all the same.
fn is_retry(kv: &impl Read, clock: u64, entry: &Entry, command: &Command) -> Result<bool, ApplyError> {
    let Some((vault, kind, name)) = command.object().filter(|_| entry.request_id.is_digest()) else { return Ok(false) };
    let bytes = kv.get(Table::Idempotency, &keys::answered(entry.request_id))?;
    let Some(bytes) = bytes else { return Ok(false) };
    let first: Answered = codec::from_versioned(FORMAT, &bytes)?;
    let folded = name.folded();
    let live = read::head(kv, vault, kind, &folded)?.map(|head| head.mod_index);
    let deleted = read::deleted_head(kv, vault, kind, &folded)?.map(|found| found.head.mod_index);
    let untouched = match command {
        Command::PurgeObject(_) => live.is_none() && deleted.is_none(),
        _ => live.or(deleted) == Some(first.index),
    };
    Ok(first.cmd == entry.cmd && clock - first.time_ms <= CLIENT_RETRY_MS && untouched)
}

fn remember(
    kv: &mut impl Kv,
    index: u64,
    clock: u64,
    entry: &Entry,
    entry_hash: [u8; 32],
    outcome: &Outcome,
) -> Result<(), ApplyError> {
    let request = entry.request_id;
    if request.is_digest() && !matches!(outcome, Outcome::Refused(_)) {
        put(kv, Table::Idempotency, keys::answered(request), &Answered { cmd: entry.cmd, index, time_ms: clock })?;
    }
    let value = Remembered { entry_hash, outcome: outcome.clone() };
    put(kv, Table::Idempotency, keys::idempotency(request), &value)?;
    put(kv, Table::Idempotency, keys::idempotency_queue(clock, index), &request)
}

fn forget(kv: &mut impl Kv, clock: u64) -> Result<(), ApplyError> {
    let until = keys::idempotency_queue(clock.saturating_sub(REMEMBER_MS), 0);
    for (key, value) in kv.scan(Table::Idempotency, keys::IDEMPOTENCY_QUEUE, &until, FORGET_PER_ENTRY)? {
        let request: Id128 = codec::from_versioned(FORMAT, &value)?;
        kv.delete(Table::Idempotency, keys::idempotency(request));
        if request.is_digest() {
            kv.delete(Table::Idempotency, keys::answered(request));
        }
        kv.delete(Table::Idempotency, key);
    }
    Ok(())
}

/// Extends the audit chain: `h_i = SHA-256(1 || world || i || time || SHA-256(entry, blobs as hashes) || h_{i-1})`.
fn chain(kv: &mut impl Kv, index: u64, clock: u64, entry: &Entry, outcome: &Outcome) -> Result<(), ApplyError> {
    let world = read::world(kv)?.map_or(Id128([0; 16]), |w| w.id);
    let mut whole = Sha256::new();
    whole.update(content_hash(entry));
    whole.update(entry.request_id.0);
    whole.update(codec::encode(&entry.actor)?);
    whole.update(entry.time_ms.to_be_bytes());
    let entry_hash: [u8; 32] = whole.finalize().into();

    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(world.0);
    hash.update(index.to_be_bytes());
    hash.update(clock.to_be_bytes());
    hash.update(entry_hash);
    hash.update(read::chain(kv)?);
    let chain: [u8; 32] = hash.finalize().into();

    put(kv, Table::Meta, keys::CHAIN.to_vec(), &chain)?;
    let event = Event {
        time_ms: clock,
        cmd: (entry.cmd, entry.cmd_v),
        request_id: entry.request_id,
        entry_hash,
        chain,
        refused: matches!(outcome, Outcome::Refused(_)),
    };
    put(kv, Table::Events, keys::event(index), &event)
}

/// One command being applied: the state, the index it is at, and state time in seconds.
pub(crate) struct Apply<'a, K> {
    pub(crate) kv: &'a mut K,
    pub(crate) index: u64,
    pub(crate) now: u64,
    /// Object id of who asked; `None` is the service itself.
    pub(crate) by: Option<Id128>,
}

pub(crate) type Step = Result<Outcome, ApplyError>;

pub(crate) fn refuse(refusal: Refusal) -> Step {
    Ok(Outcome::Refused(refusal))
}

impl<K: Kv> Apply<'_, K> {
    fn run(&mut self, entry: &Entry, command: Command) -> Step {
        if let Some(who) = Subject::of(&entry.actor) {
            if !access::has(self.kv, &who, &required_permission(&command))? {
                return refuse(Refusal::Forbidden);
            }
        }
        let blob = |i: usize| entry.blobs.get(i).cloned().unwrap_or_default();
        match command {
            Command::InitWorld(c) => self.init_world(c),
            Command::CreateVault(c) => self.create_vault(c, blob(0)),
            Command::SetPolicies(c) => self.set_policies(c),
            Command::PutApplication(c) => self.put_application(c),
            Command::PutTokenKey(c) => self.put_token_key(c, blob(0)),
            Command::PutTenant(c) => self.put_tenant(c),
            Command::PutSubscription(c) => self.put_subscription(c),
            Command::AddClientSecret(c) => self.add_client_secret(c),
            Command::RemoveClientSecret(c) => self.remove_client_secret(c),
            Command::SetCertificates(c) => self.set_certificates(c),
            Command::DeleteApplication(c) => self.delete_application(c),
            Command::PutUser(c) => self.put_user(c),
            Command::PutGroup(c) => self.put_group(c),
            Command::SetMember(c) => self.set_member(c),
            Command::CreateUser(c) => self.create_user(c),
            Command::UpdateUser(c) => self.update_user(c),
            Command::DeleteUser(c) => self.delete_user(c),
            Command::DeleteGroup(c) => self.delete_group(c),
            Command::PutFederatedCredential(c) => self.put_federated_credential(c),
            Command::DeleteFederatedCredential(c) => self.delete_federated_credential(c),
            Command::ApproveDevice(c) => self.approve_device(c),
            Command::TakeDevice(c) => self.take_device(c),
            Command::UpdateVault(c) => self.update_vault(c),
            Command::DeleteVault(c) => self.delete_vault(c),
            Command::RecoverVault(c) => self.recover_vault(c),
            Command::PurgeVault(c) => self.purge_vault(c, entry.actor == Actor::System),
            Command::EraseVault(c) => self.erase_vault(c),
            Command::PutResourceGroup(c) => self.put_resource_group(c),
            Command::DeleteResourceGroup(c) => self.delete_resource_group(c),
            Command::PutRoleAssignment(c) => self.put_role_assignment(c),
            Command::DeleteRoleAssignment(c) => self.delete_role_assignment(c),
            Command::PutRoleDefinition(c) => self.put_role_definition(c),
            Command::DeleteRoleDefinition(c) => self.delete_role_definition(c),
            Command::PutVersion(c) => self.put_version(c, blob(0)),
            Command::UpdateVersion(c) => self.update_version(c),
            Command::DeleteObject(c) => self.delete_object(c),
            Command::RecoverObject(c) => self.recover_object(c),
            Command::PurgeObject(c) => self.purge_object(c, entry.actor == Actor::System),
            Command::RestoreObject(c) => self.restore_object(c, &entry.blobs),
            Command::SetRotationPolicy(c) => self.set_rotation_policy(c),
            Command::RotateDue(c) => self.rotate_due(c, blob(0)),
            Command::NoteNearExpiry(c) => self.note_near_expiry(c),
            Command::SetReads(c) => self.set_reads(c, &entry.actor),
            Command::NoteEmergency(_) if entry.actor == Actor::System => Ok(Outcome::Done),
            Command::NoteEmergency(_) => refuse(Refusal::Forbidden),
            Command::SetVaultReads(c) => self.set_vault_reads(c, &entry.actor),
            Command::NoteDisk(c) if entry.actor == Actor::System => {
                put(self.kv, Table::Meta, keys::disk(c.node), &c.disk)?;
                Ok(Outcome::Done)
            }
            Command::NoteDisk(_) => refuse(Refusal::Forbidden),
        }
    }

    fn init_world(&mut self, c: InitWorld) -> Step {
        if read::world(self.kv)?.is_some() {
            return refuse(Refusal::WorldState);
        }
        put(self.kv, Table::Meta, keys::WORLD.to_vec(), &World { id: c.world, region: c.region })?;
        Ok(Outcome::Done)
    }

    fn set_reads(&mut self, c: SetReads, actor: &Actor) -> Step {
        let bound = match c.mode {
            ReadMode::Bounded { bound_ms } => BOUND_MS.contains(&bound_ms),
            ReadMode::ReadIndex | ReadMode::Lease => true,
        };
        if *actor != Actor::System {
            return refuse(Refusal::Forbidden);
        }
        if !bound || c.timing.check().is_err() {
            return refuse(Refusal::BadReads);
        }
        let old = read::reads(self.kv)?;
        let (mut longest, vaults) = old.map_or((None, BTreeMap::new()), |old| (old.longest, old.vaults));
        if c.mode == ReadMode::Lease {
            let before = longest.unwrap_or(c.timing);
            longest = Some(ReadTiming {
                lease_ms: before.lease_ms.max(c.timing.lease_ms),
                rho_ppm: before.rho_ppm.max(c.timing.rho_ppm),
                eps_ms: before.eps_ms.max(c.timing.eps_ms),
            });
        }
        let reads = Reads { mode: c.mode, timing: c.timing, longest, vaults };
        put(self.kv, Table::Meta, keys::READS.to_vec(), &reads)?;
        Ok(Outcome::Done)
    }

    fn set_vault_reads(&mut self, c: SetVaultReads, actor: &Actor) -> Step {
        if *actor != Actor::System {
            return refuse(Refusal::Forbidden);
        }
        if read::vault(self.kv, c.vault)?.is_none() {
            return refuse(Refusal::VaultNotFound);
        }
        let Some(mut reads) = read::reads(self.kv)? else { return refuse(Refusal::BadReads) };
        match c.mode {
            Some(mode) if !mode.is_stricter_than(reads.mode) => return refuse(Refusal::BadReads),
            Some(_) if reads.vaults.len() >= VAULT_READS_MAX => return refuse(Refusal::BadReads),
            Some(mode) => reads.vaults.insert(c.vault, mode),
            None => reads.vaults.remove(&c.vault),
        };
        put(self.kv, Table::Meta, keys::READS.to_vec(), &reads)?;
        Ok(Outcome::Done)
    }

    fn put_token_key(&mut self, c: PutTokenKey, sealed: Vec<u8>) -> Step {
        let key = TokenKey { kid: c.kid, public: c.public, sealed };
        put(self.kv, Table::Identity, keys::token_key(self.index), &key)?;
        Ok(Outcome::Done)
    }

    fn put_tenant(&mut self, c: PutTenant) -> Step {
        let others: Vec<_> = read::tenants(self.kv)?.into_iter().filter(|known| known.tenant != c.tenant).collect();
        if others.iter().any(|known| known.domain.eq_ignore_ascii_case(&c.domain)) {
            return refuse(Refusal::PrincipalExists);
        }
        if others.len() >= TENANTS_MAX {
            return refuse(Refusal::TooMany);
        }
        let tenant = Tenant { tenant: c.tenant, domain: c.domain, display_name: c.display_name };
        put(self.kv, Table::Identity, keys::tenant(c.tenant), &tenant)?;
        Ok(Outcome::Done)
    }

    fn put_subscription(&mut self, c: PutSubscription) -> Step {
        let subscription =
            Subscription { subscription: c.subscription, tenant: c.tenant, display_name: c.display_name };
        put(self.kv, Table::Identity, keys::subscription(c.subscription), &subscription)?;
        Ok(Outcome::Done)
    }

    fn put_version(&mut self, c: PutVersion, sealed: Vec<u8>) -> Step {
        let folded = c.name.folded();
        if read::live_vault(self.kv, c.vault)?.is_none() {
            return refuse(Refusal::VaultNotFound);
        }
        if read::deleted_head(self.kv, c.vault, c.kind, &folded)?.is_some() {
            return refuse(Refusal::DeletedButRecoverable);
        }
        if bad_validity(c.attributes.not_before, c.attributes.expires) {
            return refuse(Refusal::BadValidity);
        }
        if read::version(self.kv, c.vault, c.kind, &folded, c.version)?.is_some() {
            return refuse(Refusal::VersionExists);
        }
        let old = read::head(self.kv, c.vault, c.kind, &folded)?;
        if c.origin == Origin::Rotate && old.is_none() {
            return refuse(Refusal::NotFound);
        }
        let name = old.as_ref().map_or(c.name, |head| head.name.clone());
        let sequence = old.as_ref().map_or(0, |head| head.next_sequence);
        let rotation = old.and_then(|head| head.rotation);
        let version = ObjectVersion {
            kind: c.kind,
            name: name.clone(),
            version: c.version,
            created: self.now,
            updated: self.now,
            attributes: c.attributes,
            tags: c.tags,
            content: c.content,
            sequence,
            mod_index: self.index,
        };
        rotation::unschedule(self.kv, c.vault, c.kind, &folded)?;
        self.write_version(c.vault, &folded, &version, Some(sealed))?;
        let head = Head { name, newest: c.version, next_sequence: sequence + 1, rotation, mod_index: self.index };
        put(self.kv, Table::Objects, keys::object(c.vault, c.kind, &folded), &head)?;
        rotation::reschedule(self.kv, c.vault, c.kind, &folded)?;
        Ok(Outcome::Version(Box::new(version)))
    }

    fn set_rotation_policy(&mut self, c: SetRotationPolicy) -> Step {
        let ObjectRef { vault, kind, name } = c.object;
        let folded = name.folded();
        let Some(mut head) = read::head(self.kv, vault, kind, &folded)? else { return refuse(Refusal::NotFound) };
        rotation::unschedule(self.kv, vault, kind, &folded)?;
        let created = head.rotation.as_ref().map_or(self.now, |old| old.created);
        head.rotation = c.policy.map(|policy| RotationPolicy { created, updated: self.now, ..policy });
        head.mod_index = self.index;
        put(self.kv, Table::Objects, keys::object(vault, kind, &folded), &head)?;
        rotation::reschedule(self.kv, vault, kind, &folded)?;
        Ok(Outcome::Rotation(head.rotation))
    }

    /// A rotation by the service itself. It names the version that it was decided on, so that it happens once, whoever
    /// leads and however often it is proposed.
    fn rotate_due(&mut self, c: RotateDue, sealed: Vec<u8>) -> Step {
        let due = match self.newest_of_key(&c.put.name.folded(), c.put.vault, c.put.kind)? {
            Some((head, newest)) if newest.version == c.newest => rotation::rotation_time(&head, &newest),
            _ => None,
        };
        match due {
            Some(time) if time <= self.now => self.put_version(PutVersion { origin: Origin::Rotate, ..c.put }, sealed),
            _ => refuse(Refusal::NotDue),
        }
    }

    fn note_near_expiry(&mut self, c: NoteNearExpiry) -> Step {
        let (vault, folded) = (c.object.vault, c.object.name.folded());
        let Some((head, newest)) = self.newest_of_key(&folded, vault, c.object.kind)? else {
            return refuse(Refusal::NotDue);
        };
        let due = rotation::notice_time(&head, &newest).is_some_and(|time| time <= self.now);
        if newest.version != c.newest || !due || rotation::was_noticed(self.kv, vault, &newest)? {
            return refuse(Refusal::NotDue);
        }
        rotation::unschedule(self.kv, vault, Kind::Key, &folded)?;
        rotation::notice(self.kv, self.index, self.now, vault, &newest)?;
        rotation::reschedule(self.kv, vault, Kind::Key, &folded)?;
        Ok(Outcome::Done)
    }

    fn newest_of_key(
        &self,
        folded: &str,
        vault: Id128,
        kind: Kind,
    ) -> Result<Option<(Head, ObjectVersion)>, ApplyError> {
        if kind != Kind::Key || read::live_vault(self.kv, vault)?.is_none() {
            return Ok(None);
        }
        let Some(head) = read::head(self.kv, vault, kind, folded)? else { return Ok(None) };
        let newest = self.newest(vault, kind, folded, &head)?;
        Ok(Some((head, newest)))
    }

    fn write_version(
        &mut self,
        vault: Id128,
        folded: &str,
        version: &ObjectVersion,
        sealed: Option<Vec<u8>>,
    ) -> Result<(), ApplyError> {
        let key = keys::version(vault, version.kind, folded, version.version);
        put(self.kv, Table::Versions, key.clone(), version)?;
        if let Some(sealed) = sealed {
            self.kv.put(Table::Material, key, sealed);
        }
        Ok(())
    }

    fn update_version(&mut self, c: UpdateVersion) -> Step {
        let folded = c.name.folded();
        let Some(mut head) = read::head(self.kv, c.vault, c.kind, &folded)? else { return refuse(Refusal::NotFound) };
        let id = c.version.unwrap_or(head.newest);
        let Some(mut version) = read::version(self.kv, c.vault, c.kind, &folded, id)? else {
            return refuse(Refusal::NotFound);
        };
        let attributes = &mut version.attributes;
        attributes.enabled = c.enabled.unwrap_or(attributes.enabled);
        attributes.not_before = c.not_before.or(attributes.not_before);
        attributes.expires = c.expires.or(attributes.expires);
        if bad_validity(attributes.not_before, attributes.expires) {
            return refuse(Refusal::BadValidity);
        }
        if let Some(tags) = c.tags {
            version.tags = tags;
        }
        match &mut version.content {
            Content::Key { key_ops, exportable, release_policy, .. } => {
                if let Some(new) = c.key_ops {
                    *key_ops = new;
                }
                if let Some(new) = c.release_policy {
                    if !*exportable {
                        return refuse(Refusal::NotExportable);
                    }
                    if release_policy.as_ref().is_some_and(|old| old.immutable && *old != new) {
                        return refuse(Refusal::ImmutablePolicy);
                    }
                    *release_policy = Some(new);
                }
            }
            Content::Secret { content_type } => {
                if c.content_type.is_some() {
                    *content_type = c.content_type;
                }
            }
        }
        version.updated = self.now;
        version.mod_index = self.index;
        head.mod_index = self.index;
        rotation::unschedule(self.kv, c.vault, c.kind, &folded)?;
        self.write_version(c.vault, &folded, &version, None)?;
        put(self.kv, Table::Objects, keys::object(c.vault, c.kind, &folded), &head)?;
        rotation::reschedule(self.kv, c.vault, c.kind, &folded)?;
        Ok(Outcome::Version(Box::new(version)))
    }

    fn delete_object(&mut self, c: ObjectRef) -> Step {
        let folded = c.name.folded();
        let Some(vault) = read::live_vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        let Some(mut head) = read::head(self.kv, c.vault, c.kind, &folded)? else { return refuse(Refusal::NotFound) };
        let version = self.newest(c.vault, c.kind, &folded, &head)?;
        rotation::unschedule(self.kv, c.vault, c.kind, &folded)?;
        head.mod_index = self.index;
        let purge = self.now + u64::from(vault.retention_days) * 86_400;
        let deletion = Deletion { deleted: self.now, purge };
        let key = keys::object(c.vault, c.kind, &folded);
        self.kv.delete(Table::Objects, key.clone());
        put(self.kv, Table::Due, keys::due(purge, &key), &(c.vault, c.kind, folded))?;
        put(self.kv, Table::Deleted, key, &DeletedHead { head, deletion })?;
        Ok(Outcome::Deleted(Box::new(version), deletion))
    }

    fn recover_object(&mut self, c: ObjectRef) -> Step {
        let folded = c.name.folded();
        let Some(found) = read::deleted_head(self.kv, c.vault, c.kind, &folded)? else {
            return refuse(Refusal::DeletedNotFound);
        };
        let version = self.newest(c.vault, c.kind, &folded, &found.head)?;
        let key = keys::object(c.vault, c.kind, &folded);
        self.kv.delete(Table::Deleted, key.clone());
        self.kv.delete(Table::Due, keys::due(found.deletion.purge, &key));
        put(self.kv, Table::Objects, key, &Head { mod_index: self.index, ..found.head })?;
        rotation::reschedule(self.kv, c.vault, c.kind, &folded)?;
        Ok(Outcome::Version(Box::new(version)))
    }

    fn purge_object(&mut self, c: ObjectRef, by_system: bool) -> Step {
        let folded = c.name.folded();
        let Some(vault) = read::vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        let Some(found) = read::deleted_head(self.kv, c.vault, c.kind, &folded)? else {
            return refuse(Refusal::DeletedNotFound);
        };
        if by_system && self.now < found.deletion.purge {
            return refuse(Refusal::NotDue);
        }
        if !by_system && vault.purge_protection {
            return refuse(Refusal::PurgeProtected);
        }
        let key = keys::object(c.vault, c.kind, &folded);
        put(self.kv, Table::Meta, keys::PURGED.to_vec(), &self.index)?;
        self.remove_all(Table::Versions, &key)?;
        self.remove_all(Table::Material, &key)?;
        self.kv.delete(Table::Rotation, keys::notified(&key));
        self.kv.delete(Table::Due, keys::due(found.deletion.purge, &key));
        self.kv.delete(Table::Deleted, key);
        Ok(Outcome::Done)
    }

    fn restore_object(&mut self, c: RestoreObject, blobs: &[Vec<u8>]) -> Step {
        let ObjectRef { vault, kind, name } = c.object;
        let folded = name.folded();
        if read::live_vault(self.kv, vault)?.is_none() {
            return refuse(Refusal::VaultNotFound);
        }
        if read::deleted_head(self.kv, vault, kind, &folded)?.is_some() {
            return refuse(Refusal::DeletedButRecoverable);
        }
        if read::head(self.kv, vault, kind, &folded)?.is_some() {
            return refuse(Refusal::Exists);
        }
        let mut newest = None;
        for (sequence, (restored, sealed)) in (0u64..).zip(c.versions.into_iter().zip(blobs)) {
            let version = ObjectVersion {
                kind,
                name: name.clone(),
                version: restored.version,
                created: restored.created,
                updated: restored.updated,
                attributes: restored.attributes,
                tags: restored.tags,
                content: restored.content,
                sequence,
                mod_index: self.index,
            };
            self.write_version(vault, &folded, &version, Some(sealed.clone()))?;
            newest = Some(version);
        }
        let Some(newest) = newest else { return refuse(Refusal::NotFound) };
        let head = Head {
            name,
            newest: newest.version,
            next_sequence: newest.sequence + 1,
            rotation: c.rotation,
            mod_index: self.index,
        };
        put(self.kv, Table::Objects, keys::object(vault, kind, &folded), &head)?;
        rotation::reschedule(self.kv, vault, kind, &folded)?;
        Ok(Outcome::Version(Box::new(newest)))
    }

    fn newest(&self, vault: Id128, kind: Kind, folded: &str, head: &Head) -> Result<ObjectVersion, ApplyError> {
        read::version(self.kv, vault, kind, folded, head.newest)?
            .ok_or_else(|| CodecError::Malformed("an object's newest version is missing".into()).into())
    }

    pub(crate) fn remove_all(&mut self, table: Table, prefix: &[u8]) -> Result<(), ApplyError> {
        let end = keys::after(prefix);
        loop {
            let rows = self.kv.scan(table, prefix, &end, PURGE_ROWS_MAX)?;
            let done = rows.len() < PURGE_ROWS_MAX;
            for (key, _) in rows {
                self.kv.delete(table, key);
            }
            if done {
                return Ok(());
            }
        }
    }
}

fn bad_validity(not_before: Option<u64>, expires: Option<u64>) -> bool {
    matches!((not_before, expires), (Some(nbf), Some(exp)) if nbf > exp)
}

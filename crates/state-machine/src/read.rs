//! Reading the state: the queries that the API asks, each of which costs what it returns.

use crate::access::{self, Subject};
use crate::keys;
use crate::kv::{Read, Table};
use crate::policy::Need;
use crate::records::{
    Application, DeletedHead, DeviceApproval, Event, Group, Head, Notice, Notified, Reads, ResourceGroup,
    RoleAssignment, SignIn, Subscription, Tenant, TokenKey, User, Vault, World, FORMAT,
};
use crate::rotation::Due;
use crate::ApplyError;
use claviger_types::codec::{self, CodecError};
use claviger_types::command::FederatedCredential;
use claviger_types::name::{Id128, Kind, VaultName};
use claviger_types::outcome::{Deletion, ObjectVersion};
use claviger_types::permission::AccessPolicy;
use claviger_types::role::{self, RoleDefinition};
use serde::de::DeserializeOwned;

/// A read fails only for the node's own reasons.
pub type Result<T> = std::result::Result<T, ApplyError>;

/// Most versions of one object that are read at once: the contract's limit for backups (section 9).
pub const BACKUP_VERSIONS_MAX: usize = 500;

fn row<T: DeserializeOwned>(kv: &impl Read, table: Table, key: &[u8]) -> Result<Option<T>> {
    kv.get(table, key)?.map(|bytes| codec::from_versioned(FORMAT, &bytes)).transpose().map_err(Into::into)
}

/// The world, once it exists.
pub fn world(kv: &impl Read) -> Result<Option<World>> {
    row(kv, Table::Meta, keys::WORLD)
}

/// State time in milliseconds: the greatest time of any applied entry.
pub fn clock_ms(kv: &impl Read) -> Result<u64> {
    Ok(row(kv, Table::Meta, keys::CLOCK)?.unwrap_or(0))
}

/// How reads are made; `None` before anyone said so.
pub fn reads(kv: &impl Read) -> Result<Option<Reads>> {
    row(kv, Table::Meta, keys::READS)
}

/// The disk on which a node keeps its log, where that is known.
pub fn disk(kv: &impl Read, node: u64) -> Result<Option<Id128>> {
    row(kv, Table::Meta, &keys::disk(node))
}

/// Head of the audit chain.
pub fn chain(kv: &impl Read) -> Result<[u8; 32]> {
    Ok(row(kv, Table::Meta, keys::CHAIN)?.unwrap_or([0; 32]))
}

/// Log index of the last purge, 0 before the first: sealed material up to it may still lie in old files.
pub fn last_purge(kv: &impl Read) -> Result<u64> {
    Ok(row(kv, Table::Meta, keys::PURGED)?.unwrap_or(0))
}

/// The event of one log index.
pub fn event(kv: &impl Read, index: u64) -> Result<Option<Event>> {
    row(kv, Table::Events, &keys::event(index))
}

/// A vault by id.
pub fn vault(kv: &impl Read, id: Id128) -> Result<Option<Vault>> {
    row(kv, Table::Vaults, &id.0)
}

/// A vault by name.
pub fn vault_by_name(kv: &impl Read, name: &VaultName) -> Result<Option<Vault>> {
    match row::<Id128>(kv, Table::VaultNames, name.as_str().as_bytes())? {
        Some(id) => vault(kv, id),
        None => Ok(None),
    }
}

/// All vaults, for start-up and status; at most `limit`.
pub fn vaults(kv: &impl Read, limit: usize) -> Result<Vec<Vault>> {
    let rows = kv.scan(Table::Vaults, &[], &[0xff; 17], limit)?;
    rows.iter().map(|(_, v)| codec::from_versioned(FORMAT, v).map_err(Into::into)).collect()
}

/// A vault by id, unless it is soft-deleted: what the data plane may reach.
pub fn live_vault(kv: &impl Read, id: Id128) -> Result<Option<Vault>> {
    Ok(vault(kv, id)?.filter(|vault| vault.deletion.is_none()))
}

/// Most access policies of one vault.
pub const POLICIES_MAX: usize = 1024;

/// The access policies of a vault.
pub fn policies(kv: &impl Read, vault: Id128) -> Result<Vec<AccessPolicy>> {
    rows(kv, Table::Policies, &vault.0, POLICIES_MAX)
}

/// A principal's policy in a vault: its own, or the one that it has through an application.
pub fn policy(
    kv: &impl Read,
    vault: Id128,
    tenant: Id128,
    oid: Id128,
    application: Option<Id128>,
) -> Result<Option<AccessPolicy>> {
    row(kv, Table::Policies, &keys::policy(vault, tenant, oid, application))
}

/// Whether a principal may do something in a vault, by its policies or its roles.
pub fn permitted(kv: &impl Read, vault: Id128, who: &Subject<'_>, need: Need<'_>) -> Result<bool> {
    Ok(match live_vault(kv, vault)? {
        Some(vault) => access::allowed(kv, &vault, who, need)?.is_granted(),
        None => false,
    })
}

/// A principal and the groups it belongs to.
pub fn principals(kv: &impl Read, oid: Id128) -> Result<Vec<Id128>> {
    let mut found = vec![oid];
    found.extend(rows::<Id128>(kv, Table::Identity, &keys::memberships(oid), DIRECTORY_ROWS_MAX)?);
    Ok(found)
}

/// Most resources of a kind that are listed: subscriptions of the public cloud have limits of this order.
pub const RESOURCES_MAX: usize = 10_000;

/// A resource group, by name in any case.
pub fn resource_group(kv: &impl Read, subscription: Id128, name: &str) -> Result<Option<ResourceGroup>> {
    row(kv, Table::Resources, &keys::group(subscription, name))
}

/// The resource groups of a subscription, by name.
pub fn resource_groups(kv: &impl Read, subscription: Id128) -> Result<Vec<ResourceGroup>> {
    rows(kv, Table::Resources, &keys::groups(subscription), RESOURCES_MAX)
}

/// A principal's own assignments.
pub fn assignments_of(kv: &impl Read, principal: Id128) -> Result<Vec<RoleAssignment>> {
    rows(kv, Table::Resources, &keys::assignments(principal), RESOURCES_MAX)
}

/// All assignments, by principal.
pub fn assignments(kv: &impl Read) -> Result<Vec<RoleAssignment>> {
    rows(kv, Table::Resources, keys::ASSIGNMENTS, RESOURCES_MAX)
}

/// An assignment by its id.
pub fn assignment(kv: &impl Read, id: Id128) -> Result<Option<RoleAssignment>> {
    match row::<Id128>(kv, Table::Resources, &keys::assignment_index(id))? {
        Some(principal) => row(kv, Table::Resources, &keys::assignment(principal, id)),
        None => Ok(None),
    }
}

/// A role, built in or custom.
pub fn role(kv: &impl Read, id: Id128) -> Result<Option<RoleDefinition>> {
    match role::built_in_by_id(id) {
        Some(found) => Ok(Some(found)),
        None => row(kv, Table::Resources, &keys::role(id)),
    }
}

/// All roles, built-in ones first.
pub fn roles(kv: &impl Read) -> Result<Vec<RoleDefinition>> {
    let mut all = role::built_in();
    all.extend(rows::<RoleDefinition>(kv, Table::Resources, keys::ROLES, RESOURCES_MAX)?);
    Ok(all)
}

/// Soft-deleted vaults whose retention is over at `now` (seconds), at most `limit`.
pub fn vaults_due(kv: &impl Read, now: u64, limit: usize) -> Result<Vec<Id128>> {
    let until = keys::vault_due(now.saturating_add(1), Id128([0; 16]));
    let found = kv.scan(Table::Resources, keys::VAULTS_DUE, &until, limit)?;
    found.iter().map(|(_, value)| codec::from_versioned(FORMAT, value).map_err(Into::into)).collect()
}

/// Purged vaults that still have rows to erase, at most `limit`.
pub fn erasures(kv: &impl Read, limit: usize) -> Result<Vec<Id128>> {
    rows(kv, Table::Resources, keys::ERASURES, limit)
}

fn rows<T: DeserializeOwned>(kv: &impl Read, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<T>> {
    let found = kv.scan(table, prefix, &keys::after(prefix), limit)?;
    found.iter().map(|(_, value)| codec::from_versioned(FORMAT, value).map_err(Into::into)).collect()
}

/// The head of a live object.
pub fn head(kv: &impl Read, vault: Id128, kind: Kind, folded: &str) -> Result<Option<Head>> {
    row(kv, Table::Objects, &keys::object(vault, kind, folded))
}

/// The head of a soft-deleted object.
pub fn deleted_head(kv: &impl Read, vault: Id128, kind: Kind, folded: &str) -> Result<Option<DeletedHead>> {
    row(kv, Table::Deleted, &keys::object(vault, kind, folded))
}

/// One version of an object, live or deleted.
pub fn version(kv: &impl Read, vault: Id128, kind: Kind, folded: &str, id: Id128) -> Result<Option<ObjectVersion>> {
    row(kv, Table::Versions, &keys::version(vault, kind, folded, id))
}

/// A version of a live object; `None` asks for the newest.
pub fn live(
    kv: &impl Read,
    vault: Id128,
    kind: Kind,
    folded: &str,
    id: Option<Id128>,
) -> Result<Option<ObjectVersion>> {
    match head(kv, vault, kind, folded)? {
        Some(head) => version(kv, vault, kind, folded, id.unwrap_or(head.newest)),
        None => Ok(None),
    }
}

/// A soft-deleted object's newest version.
pub fn deleted(kv: &impl Read, vault: Id128, kind: Kind, folded: &str) -> Result<Option<(ObjectVersion, Deletion)>> {
    let Some(found) = deleted_head(kv, vault, kind, folded)? else { return Ok(None) };
    Ok(version(kv, vault, kind, folded, found.head.newest)?.map(|v| (v, found.deletion)))
}

/// Sealed material of a version.
pub fn material(kv: &impl Read, vault: Id128, kind: Kind, folded: &str, id: Id128) -> Result<Option<Vec<u8>>> {
    Ok(kv.get(Table::Material, &keys::version(vault, kind, folded, id))?)
}

/// One page of a list: the items, and the cursor that the next page starts at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as asked for.
    pub items: Vec<T>,
    /// Folded name or version to go on with; `None` on the last page.
    pub next: Option<String>,
}

/// Live objects by name, each with its newest version. `from` is the folded name to start at.
pub fn list(kv: &impl Read, vault: Id128, kind: Kind, from: &str, limit: usize) -> Result<Page<ObjectVersion>> {
    page_of_heads(kv, Table::Objects, vault, kind, from, limit, |bytes| {
        let head: Head = codec::from_versioned(FORMAT, bytes)?;
        Ok((head, ()))
    })
    .map(|page| Page { items: page.items.into_iter().map(|(v, ())| v).collect(), next: page.next })
}

/// Soft-deleted objects by name.
pub fn list_deleted(
    kv: &impl Read,
    vault: Id128,
    kind: Kind,
    from: &str,
    limit: usize,
) -> Result<Page<(ObjectVersion, Deletion)>> {
    page_of_heads(kv, Table::Deleted, vault, kind, from, limit, |bytes| {
        let found: DeletedHead = codec::from_versioned(FORMAT, bytes)?;
        Ok((found.head, found.deletion))
    })
}

fn page_of_heads<E>(
    kv: &impl Read,
    table: Table,
    vault: Id128,
    kind: Kind,
    from: &str,
    limit: usize,
    head_of: impl Fn(&[u8]) -> Result<(Head, E)>,
) -> Result<Page<(ObjectVersion, E)>> {
    let prefix = keys::collection(vault, kind);
    let start = if from.is_empty() { prefix.clone() } else { keys::object(vault, kind, from) };
    let mut rows = kv.scan(table, &start, &keys::after(&prefix), limit + 1)?;
    let next = if rows.len() > limit { rows.pop() } else { None };
    let next = next.map(|(_, bytes)| head_of(&bytes)).transpose()?.map(|(head, _)| head.name.folded());
    let mut items = Vec::with_capacity(rows.len());
    for (_, bytes) in rows {
        let (head, extra) = head_of(&bytes)?;
        if let Some(found) = version(kv, vault, kind, &head.name.folded(), head.newest)? {
            items.push((found, extra));
        }
    }
    Ok(Page { items, next })
}

/// Versions of a live object by version id (contract section 7); empty when there is no such object.
pub fn list_versions(
    kv: &impl Read,
    vault: Id128,
    kind: Kind,
    folded: &str,
    from: Option<Id128>,
    limit: usize,
) -> Result<Page<ObjectVersion>> {
    if head(kv, vault, kind, folded)?.is_none() {
        return Ok(Page { items: Vec::new(), next: None });
    }
    let prefix = keys::object(vault, kind, folded);
    let start = match from {
        Some(id) => keys::version(vault, kind, folded, id),
        None => prefix.clone(),
    };
    let rows = kv.scan(Table::Versions, &start, &keys::after(&prefix), limit + 1)?;
    let mut items: Vec<ObjectVersion> = Vec::with_capacity(rows.len());
    for (_, bytes) in &rows {
        items.push(codec::from_versioned(FORMAT, bytes)?);
    }
    let next = if items.len() > limit { items.pop().map(|v| v.version.hex()) } else { None };
    Ok(Page { items, next })
}

/// All versions of a live object, oldest first; `None` when there is no such object.
pub fn all_versions(
    kv: &impl Read,
    vault: Id128,
    kind: Kind,
    folded: &str,
    limit: usize,
) -> Result<Option<Vec<ObjectVersion>>> {
    if head(kv, vault, kind, folded)?.is_none() {
        return Ok(None);
    }
    let mut versions = list_versions(kv, vault, kind, folded, None, limit)?.items;
    versions.sort_by_key(|v| v.sequence);
    Ok(Some(versions))
}

/// Soft-deleted objects whose retention is over at `now` (seconds), at most `limit`.
pub fn due(kv: &impl Read, now: u64, limit: usize) -> Result<Vec<(Id128, Kind, DeletedHead)>> {
    let mut found = Vec::new();
    for (_, value) in kv.scan(Table::Due, &[], &keys::due(now.saturating_add(1), &[]), limit)? {
        let (vault, kind, folded): (Id128, Kind, String) = codec::from_versioned(FORMAT, &value)?;
        if let Some(head) = deleted_head(kv, vault, kind, &folded)? {
            found.push((vault, kind, head));
        }
    }
    Ok(found)
}

/// Something that falls due for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRow {
    /// Since when, in seconds.
    pub time: u64,
    /// What.
    pub due: Due,
    /// The vault.
    pub vault: Id128,
    /// Folded name of the key.
    pub folded: String,
    /// The newest version at the time of writing; what is proposed must name it.
    pub version: Id128,
    /// Where the row is: a later look may start after it.
    pub key: Vec<u8>,
}

/// Rotations and near-expiry events that are due at `now` (seconds), at most `limit`, from just behind the row `after`.
pub fn rotation_due(kv: &impl Read, now: u64, after: &[u8], limit: usize) -> Result<Vec<DueRow>> {
    let from = if after.is_empty() { keys::ROTATIONS.to_vec() } else { [after, &[0]].concat() };
    let rows = kv.scan(Table::Rotation, &from, &keys::rotation(now.saturating_add(1), 0, &[]), limit)?;
    let mut found = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let (vault, folded, version): (Id128, String, Id128) = codec::from_versioned(FORMAT, &value)?;
        let number = |range: std::ops::Range<usize>| key.get(range).unwrap_or_default();
        let time = number(2..10).try_into().map(u64::from_be_bytes).unwrap_or_default();
        let Some(due) = number(10..11).first().copied().and_then(Due::from_number) else { continue };
        found.push(DueRow { time, due, vault, folded, version, key });
    }
    Ok(found)
}

/// Near-expiry events from log index `from` on, with their indexes, at most `limit`.
pub fn notices(kv: &impl Read, from: u64, limit: usize) -> Result<Vec<(u64, Notice)>> {
    let rows = kv.scan(Table::Notices, &keys::event(from), &[0xff; 9], limit)?;
    let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let index = key.as_slice().try_into().map(u64::from_be_bytes);
        let index = index.map_err(|_| CodecError::Malformed("a notice's key".into()))?;
        Ok((index, codec::from_versioned(FORMAT, value)?))
    };
    rows.iter().map(decode).collect()
}

pub(crate) fn notified(kv: &impl Read, object_key: &[u8]) -> Result<Option<Notified>> {
    row(kv, Table::Rotation, &keys::notified(object_key))
}

/// An application by client id.
pub fn application(kv: &impl Read, app: Id128) -> Result<Option<Application>> {
    row(kv, Table::Identity, &keys::application(app))
}

/// All applications.
pub fn applications(kv: &impl Read) -> Result<Vec<Application>> {
    rows(kv, Table::Identity, keys::APPLICATIONS, RESOURCES_MAX)
}

/// All users.
pub fn users(kv: &impl Read) -> Result<Vec<User>> {
    rows(kv, Table::Identity, keys::USERS, RESOURCES_MAX)
}

/// A user by object id.
pub fn user(kv: &impl Read, oid: Id128) -> Result<Option<User>> {
    row(kv, Table::Identity, &keys::user(oid))
}

/// A user by its name, in any case.
pub fn user_by_name(kv: &impl Read, upn: &str) -> Result<Option<User>> {
    match row::<Id128>(kv, Table::Identity, &keys::user_name(upn))? {
        Some(oid) => user(kv, oid),
        None => Ok(None),
    }
}

/// How a user signs in; `None` for one that cannot.
pub fn sign_in(kv: &impl Read, oid: Id128) -> Result<Option<SignIn>> {
    row(kv, Table::Identity, &keys::sign_in(oid))
}

/// The federated credentials of an application.
pub fn federated_credentials(kv: &impl Read, app: Id128) -> Result<Vec<FederatedCredential>> {
    rows(kv, Table::Identity, &keys::federated_credentials(app), RESOURCES_MAX)
}

/// Who signed in for the device that shows a code.
pub fn device(kv: &impl Read, code: &[u8; 32]) -> Result<Option<DeviceApproval>> {
    row(kv, Table::Identity, &keys::device(code))
}

/// A group by object id.
pub fn group(kv: &impl Read, oid: Id128) -> Result<Option<Group>> {
    row(kv, Table::Identity, &keys::directory_group(oid))
}

/// All groups.
pub fn groups(kv: &impl Read) -> Result<Vec<Group>> {
    rows(kv, Table::Identity, keys::GROUPS, RESOURCES_MAX)
}

/// A subscription.
pub fn subscription(kv: &impl Read, id: Id128) -> Result<Option<Subscription>> {
    row(kv, Table::Identity, &keys::subscription(id))
}

/// Whether there is any application: whether anybody was ever given credentials.
pub fn has_applications(kv: &impl Read) -> Result<bool> {
    let prefix = keys::APPLICATIONS;
    Ok(!kv.scan(Table::Identity, prefix, &keys::after(prefix), 1)?.is_empty())
}

/// Most tenants and subscriptions that are listed: a world has a handful.
pub const DIRECTORY_ROWS_MAX: usize = 1000;

/// All tenants.
pub fn tenants(kv: &impl Read) -> Result<Vec<Tenant>> {
    let rows = kv.scan(Table::Identity, keys::TENANTS, &keys::after(keys::TENANTS), DIRECTORY_ROWS_MAX)?;
    rows.iter().map(|(_, v)| codec::from_versioned(FORMAT, v).map_err(Into::into)).collect()
}

/// All subscriptions.
pub fn subscriptions(kv: &impl Read) -> Result<Vec<Subscription>> {
    let rows = kv.scan(Table::Identity, keys::SUBSCRIPTIONS, &keys::after(keys::SUBSCRIPTIONS), DIRECTORY_ROWS_MAX)?;
    rows.iter().map(|(_, v)| codec::from_versioned(FORMAT, v).map_err(Into::into)).collect()
}

/// Token-signing keys, oldest first.
pub fn token_keys(kv: &impl Read) -> Result<Vec<TokenKey>> {
    let rows = kv.scan(Table::Identity, keys::TOKEN_KEYS, &keys::after(keys::TOKEN_KEYS), 64)?;
    rows.iter().map(|(_, v)| codec::from_versioned(FORMAT, v).map_err(Into::into)).collect()
}

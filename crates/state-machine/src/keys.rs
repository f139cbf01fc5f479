//! The one place where row keys are made.
//!
//! Fixed-width parts are written big-endian, so that byte order is numeric order. A name is folded to lower case and ended
//! by a zero byte, which no name contains: so no name is a prefix of another's key, and names sort as text.

use claviger_types::name::{Id128, Kind};

pub(crate) const WORLD: &[u8] = b"world";
pub(crate) const CLOCK: &[u8] = b"clock";
pub(crate) const CHAIN: &[u8] = b"chain";
pub(crate) const PURGED: &[u8] = b"purged";
/// How reads are made. Public: whoever applies watches it.
pub const READS: &[u8] = b"reads";

/// The disk of a node.
pub(crate) fn disk(node: u64) -> Vec<u8> {
    [&b"disk/"[..], &node.to_be_bytes()].concat()
}

/// (vault, kind): the prefix of all of a vault's objects of a kind.
pub(crate) fn collection(vault: Id128, kind: Kind) -> Vec<u8> {
    let mut key = vault.0.to_vec();
    key.push(kind.number());
    key
}

pub(crate) fn object(vault: Id128, kind: Kind, folded: &str) -> Vec<u8> {
    let mut key = collection(vault, kind);
    key.extend(folded.as_bytes());
    key.push(0);
    key
}

pub(crate) fn version(vault: Id128, kind: Kind, folded: &str, version: Id128) -> Vec<u8> {
    let mut key = object(vault, kind, folded);
    key.extend(version.0);
    key
}

pub(crate) fn policy(vault: Id128, tenant: Id128, oid: Id128, application: Option<Id128>) -> Vec<u8> {
    [vault.0, tenant.0, oid.0, application.map_or([0; 16], |id| id.0)].concat()
}

/// Vaults that are soft-deleted, by the time of their purge.
pub(crate) const VAULTS_DUE: &[u8] = b"vdue/";

pub(crate) fn vault_due(purge: u64, vault: Id128) -> Vec<u8> {
    [VAULTS_DUE, &purge.to_be_bytes(), &vault.0].concat()
}

/// Purged vaults whose objects are still being erased.
pub(crate) const ERASURES: &[u8] = b"erase/";

pub(crate) fn erasure(vault: Id128) -> Vec<u8> {
    [ERASURES, &vault.0].concat()
}

/// The prefix of a subscription's resource groups.
pub(crate) fn groups(subscription: Id128) -> Vec<u8> {
    [b"rg/".as_slice(), &subscription.0].concat()
}

pub(crate) fn group(subscription: Id128, name: &str) -> Vec<u8> {
    [groups(subscription), name.to_lowercase().into_bytes()].concat()
}

/// Assignments by principal: what an access check asks for.
pub(crate) const ASSIGNMENTS: &[u8] = b"ra/";

pub(crate) fn assignments(principal: Id128) -> Vec<u8> {
    [ASSIGNMENTS, &principal.0].concat()
}

pub(crate) fn assignment(principal: Id128, id: Id128) -> Vec<u8> {
    [ASSIGNMENTS, &principal.0, &id.0].concat()
}

pub(crate) fn assignment_index(id: Id128) -> Vec<u8> {
    [b"rai/".as_slice(), &id.0].concat()
}

pub(crate) const ROLES: &[u8] = b"rd/";

pub(crate) fn role(id: Id128) -> Vec<u8> {
    [ROLES, &id.0].concat()
}

pub(crate) fn due(purge: u64, object_key: &[u8]) -> Vec<u8> {
    let mut key = purge.to_be_bytes().to_vec();
    key.extend(object_key);
    key
}

/// Rows of what falls due: `d`, time, number of what, object.
pub(crate) fn rotation(time: u64, what: u8, object_key: &[u8]) -> Vec<u8> {
    [ROTATIONS, &time.to_be_bytes(), &[what], object_key].concat()
}

pub(crate) const ROTATIONS: &[u8] = b"d/";

/// Which version of a key near-expiry was told of last.
pub(crate) fn notified(object_key: &[u8]) -> Vec<u8> {
    [b"n/".as_slice(), object_key].concat()
}

pub(crate) const APPLICATIONS: &[u8] = b"app/";

pub(crate) fn application(app: Id128) -> Vec<u8> {
    [APPLICATIONS, &app.0].concat()
}

pub(crate) const USERS: &[u8] = b"usr/";

pub(crate) fn user(oid: Id128) -> Vec<u8> {
    [USERS, &oid.0].concat()
}

/// A user's password and state.
pub(crate) fn sign_in(oid: Id128) -> Vec<u8> {
    [b"pwd/".as_slice(), &oid.0].concat()
}

/// A user's name -> its object id.
pub(crate) fn user_name(upn: &str) -> Vec<u8> {
    [b"upn/".as_slice(), upn.to_lowercase().as_bytes()].concat()
}

/// The prefix of an application's federated credentials.
pub(crate) fn federated_credentials(app: Id128) -> Vec<u8> {
    [b"fed/".as_slice(), &app.0].concat()
}

pub(crate) fn federated_credential(app: Id128, id: Id128) -> Vec<u8> {
    [b"fed/".as_slice(), &app.0, &id.0].concat()
}

/// What a device may fetch a token for, by its code.
pub(crate) fn device(code: &[u8; 32]) -> Vec<u8> {
    [b"dev/".as_slice(), code].concat()
}

/// The same by the time at which it is forgotten.
pub(crate) const DEVICE_QUEUE: &[u8] = b"dvq/";

pub(crate) fn device_queue(expires: u64, code: &[u8; 32]) -> Vec<u8> {
    [DEVICE_QUEUE, &expires.to_be_bytes(), code].concat()
}

pub(crate) const GROUPS: &[u8] = b"grp/";

pub(crate) fn directory_group(oid: Id128) -> Vec<u8> {
    [GROUPS, &oid.0].concat()
}

pub(crate) const MEMBERSHIPS: &[u8] = b"mem/";

/// The prefix of a principal's memberships: what an access check asks for.
pub(crate) fn memberships(member: Id128) -> Vec<u8> {
    [MEMBERSHIPS, &member.0].concat()
}

pub(crate) fn membership(member: Id128, group: Id128) -> Vec<u8> {
    [MEMBERSHIPS, &member.0, &group.0].concat()
}

pub(crate) const TENANTS: &[u8] = b"ten/";

pub(crate) fn tenant(tenant: Id128) -> Vec<u8> {
    [TENANTS, &tenant.0].concat()
}

pub(crate) const SUBSCRIPTIONS: &[u8] = b"sub/";

pub(crate) fn subscription(subscription: Id128) -> Vec<u8> {
    [SUBSCRIPTIONS, &subscription.0].concat()
}

pub(crate) const TOKEN_KEYS: &[u8] = b"tok/";

pub(crate) fn token_key(index: u64) -> Vec<u8> {
    [TOKEN_KEYS, &index.to_be_bytes()].concat()
}

pub(crate) fn event(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

pub(crate) fn idempotency(request: Id128) -> Vec<u8> {
    [b"r/".as_slice(), &request.0].concat()
}

/// Beside the outcome: what a client's retry is recognized by.
pub(crate) fn answered(request: Id128) -> Vec<u8> {
    [b"c/".as_slice(), &request.0].concat()
}

pub(crate) const IDEMPOTENCY_QUEUE: &[u8] = b"q/";

pub(crate) fn idempotency_queue(time_ms: u64, index: u64) -> Vec<u8> {
    [IDEMPOTENCY_QUEUE, &time_ms.to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The first key after every key that starts with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0xff; prefix.len() + 1]
}

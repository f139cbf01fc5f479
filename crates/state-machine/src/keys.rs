//! The one place where row keys are made.
//!
//! Fixed-width parts are written big-endian, so that byte order is numeric order. A name is folded to lower case and ended
//! by a zero byte, which no name contains: so no name is a prefix of another's key, and names sort as text.

use claviger_types::name::{Id128, Kind};

pub(crate) const WORLD: &[u8] = b"world";
pub(crate) const CLOCK: &[u8] = b"clock";
pub(crate) const CHAIN: &[u8] = b"chain";
pub(crate) const PURGED: &[u8] = b"purged";

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

pub(crate) fn policy(vault: Id128, tenant: Id128, oid: Id128) -> Vec<u8> {
    [vault.0, tenant.0, oid.0].concat()
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

//! Tests of the whole service in one process, through the real handler.

mod identity;
mod issuers;
mod keys;
mod management;
mod permissions;
mod release;
mod rotation;
mod rubbish;

use crate::testing::World;
use crate::wire::b64;
use claviger_crypto::provider::{default_provider, LoadedKey};
use claviger_types::alg::{KeySpec, PublicKey};
use serde_json::{json, Value};
use std::sync::Arc;

/// A new key of somebody else's: an issuer, an authority, an environment.
fn fresh(spec: KeySpec) -> Arc<dyn LoadedKey> {
    let made = default_provider().generate(spec).unwrap();
    default_provider().load(spec, &made.private).unwrap()
}

/// Its public part, with more members.
fn jwk(key: &PublicKey, more: Value) -> Value {
    let mut jwk = match key {
        PublicKey::Rsa { n, e } => json!({"kty": "RSA", "n": b64(n), "e": b64(e)}),
        PublicKey::Ec { curve, x, y } => json!({"kty": "EC", "crv": curve.as_str(), "x": b64(x), "y": b64(y)}),
        PublicKey::Oct { .. } => json!({"kty": "oct"}),
    };
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

//! Rubbish of every kind at every body that is parsed: nothing panics, nothing is a 5xx, every refusal has its envelope.
//!
//! Three kinds: bytes, JSON of any shape, and good bodies with one part replaced, which get past the first checks. The draws
//! are proptest's and the same in every run.

use super::World;
use crate::wire::b64;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{json, Value};

/// Draws of each kind for each body: a fraction of a second for all of them.
const DRAWS: usize = 40;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-Za-z0-9_+/=.-]{0,40}".prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..600).prop_map(|bytes| b64(&bytes).into()),
        prop::sample::select(vec![
            "RSA", "EC-HSM", "oct", "P-256", "sign", "import", "RS256", "A256GCM", "1.0.0", "dir"
        ])
        .prop_map(Value::from),
    ];
    let name = prop_oneof![
        "[a-z_]{0,8}",
        prop::sample::select(vec!["kty", "key", "n", "e", "alg", "value", "attributes", "tags", "anyOf", "data"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Every place in a JSON value, the whole included.
fn places(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in inside {
        found.extend(places(value).into_iter().map(|place| format!("/{name}{place}")));
    }
    found
}

/// Good bodies, with the paths that they go to.
async fn good_bodies(world: &World) -> Vec<(&'static str, &'static str, Value)> {
    let digest = "A".repeat(43);
    let policy = json!({"version": "1.0.0", "anyOf": [
        {"authority": "https://a.test", "allOf": [{"claim": "x.y", "equals": true}]},
    ]});
    let release_policy = json!({"data": b64(policy.to_string().as_bytes()), "contentType": "application/json"});
    let rsa_number = b64(&[0xc1; 256]);
    let key = json!({"kty": "RSA", "n": rsa_number, "e": "AQAB", "d": rsa_number, "p": b64(&[0xc1; 128]),
        "q": b64(&[0xc3; 128]), "dp": "AQ", "dq": "AQ", "qi": "AQ", "key_ops": ["sign"]});
    let ec = json!({"kty": "EC", "crv": "P-256", "x": b64(&[1; 32]), "y": b64(&[2; 32]), "d": b64(&[3; 32])});
    let kek = world.ok("POST", "keys/kek/create", json!({"kty": "RSA-HSM", "key_ops": ["import"]})).await;
    let blob = json!({"schema_version": "1.0.0", "generator": "test", "ciphertext": b64(&[5; 300]),
        "header": {"kid": kek["key"]["kid"], "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"}});
    let byok = json!({"key": {"kty": "EC-HSM", "crv": "P-256", "key_hsm": b64(blob.to_string().as_bytes())}});
    for (name, body) in [("rsa", json!({"kty": "RSA"})), ("ec", json!({"kty": "EC"}))] {
        world.ok("POST", &format!("keys/{name}/create"), body).await;
    }
    let exportable = json!({"kty": "oct-HSM", "attributes": {"exportable": true}, "release_policy": release_policy});
    world.ok("POST", "keys/oct/create", exportable.clone()).await;
    world.ok("PUT", "secrets/s", json!({"value": "v"})).await;
    let backup = world.ok("POST", "keys/ec/backup", Value::Null).await;
    let secret_backup = world.ok("POST", "secrets/s/backup", Value::Null).await;
    let gcm = json!({"alg": "A256GCM", "value": b64(&[1; 32]), "iv": b64(&[2; 12]), "tag": b64(&[3; 16]), "aad": "AA"});
    let cbc = json!({"alg": "A256CBCPAD", "value": b64(&[1; 32]), "iv": b64(&[2; 16])});
    let oaep = json!({"alg": "RSA-OAEP", "value": b64(&[1; 256])});
    let attributes = json!({"enabled": true, "nbf": 1, "exp": 2, "exportable": false});
    vec![
        (
            "POST",
            "keys/new/create",
            json!({"kty": "EC", "crv": "P-256", "key_size": 256, "public_exponent": 65537,
            "key_ops": ["sign"], "attributes": attributes, "tags": {"a": "b"}}),
        ),
        ("POST", "keys/new/create", exportable),
        ("PUT", "keys/imported", json!({"key": key, "Hsm": true, "attributes": attributes, "tags": {"a": "b"}})),
        ("PUT", "keys/imported", json!({"key": ec, "Hsm": false})),
        ("PUT", "keys/imported", json!({"key": {"kty": "oct", "k": b64(&[1; 32])}})),
        ("PUT", "keys/imported", byok),
        ("PATCH", "keys/ec", json!({"key_ops": ["sign", "verify"], "attributes": attributes, "tags": {}})),
        ("PATCH", "keys/oct", json!({"release_policy": release_policy})),
        (
            "PUT",
            "keys/ec/rotationpolicy",
            json!({"attributes": {"expiryTime": "P2Y"}, "lifetimeActions": [
            {"trigger": {"timeAfterCreate": "P18M"}, "action": {"type": "Rotate"}},
            {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}]}),
        ),
        ("POST", "keys/oct/release", json!({"target": "e30.e30.AA", "enc": "CKM_RSA_AES_KEY_WRAP", "nonce": "1"})),
        ("POST", "keys/restore", backup),
        ("POST", "secrets/restore", secret_backup),
        ("POST", "keys/rsa/sign", json!({"alg": "RS256", "value": digest})),
        ("POST", "keys/ec/sign", json!({"alg": "ES256", "value": digest})),
        ("POST", "keys/ec/verify", json!({"alg": "ES256", "digest": digest, "value": b64(&[1; 64])})),
        ("POST", "keys/rsa/verify", json!({"alg": "PS256", "digest": digest, "value": b64(&[1; 256])})),
        ("POST", "keys/rsa/verify", json!({"alg": "RSNULL", "digest": digest, "value": b64(&[1; 256])})),
        ("POST", "keys/rsa/encrypt", oaep.clone()),
        ("POST", "keys/rsa/decrypt", oaep.clone()),
        ("POST", "keys/rsa/wrapkey", oaep.clone()),
        ("POST", "keys/rsa/unwrapkey", oaep),
        ("POST", "keys/oct/encrypt", cbc.clone()),
        ("POST", "keys/oct/decrypt", cbc),
        ("POST", "keys/oct/encrypt", gcm.clone()),
        ("POST", "keys/oct/decrypt", gcm),
        ("POST", "keys/oct/wrapkey", json!({"alg": "A256KW", "value": b64(&[1; 32])})),
        ("POST", "keys/oct/unwrapkey", json!({"alg": "CKM_AES_KEY_WRAP_PAD", "value": b64(&[1; 40])})),
        ("PUT", "secrets/s", json!({"value": "v", "contentType": "t", "attributes": attributes, "tags": {"a": "b"}})),
        ("PATCH", "secrets/s", json!({"contentType": "t", "attributes": attributes, "tags": {"a": "b"}})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_refused_and_nothing_else_happens() {
    // Authorities, so that tokens are looked at.
    let jwks = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
        "y":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}]}"#;
    let authority = crate::attestation::Authority::from_jwks("https://a.test", jwks).unwrap();
    let world = World::start_with(|config| config.authorities = vec![authority]).await;
    let token = world.token(world.owner);
    let mut runner = TestRunner::deterministic();
    let json = any_json();
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let mut seen = std::collections::BTreeSet::new();
    for (method, path, good) in good_bodies(&world).await {
        let places = places(&good);
        let place = prop::sample::select(places);
        for draw in 0..DRAWS * 3 {
            let body = match draw % 3 {
                0 => bytes.new_tree(&mut runner).unwrap().current(),
                1 => json.new_tree(&mut runner).unwrap().current().to_string().into_bytes(),
                _ => {
                    let mut body = good.clone();
                    let place = place.new_tree(&mut runner).unwrap().current();
                    *body.pointer_mut(&place).unwrap() = json.new_tree(&mut runner).unwrap().current();
                    body.to_string().into_bytes()
                }
            };
            let what = String::from_utf8_lossy(&body).into_owned();
            let (status, answer) = world.send_as(&token, method, path, body).await;
            seen.insert(status);
            assert!(status == 200 || (400..500).contains(&status), "{method} {path} {what}: {status} {answer}");
            if status != 200 {
                let error = &answer["error"];
                assert!(error["code"].is_string() && error["message"].is_string(), "{method} {path} {what}: {answer}");
            }
        }
    }
    assert!(seen.contains(&400) && seen.contains(&200), "{seen:?}");
    world.ok("GET", "keys/ec", Value::Null).await;
    world.stop().await;
}

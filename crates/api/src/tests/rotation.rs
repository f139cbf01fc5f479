//! Automatic rotation and near-expiry events, with the clock moved forward.

use super::World;
use claviger_state_machine::read;
use serde_json::json;

fn policy(rotate: serde_json::Value, expiry: Option<&str>) -> serde_json::Value {
    json!({
        "lifetimeActions": [
            {"trigger": rotate, "action": {"type": "Rotate"}},
            {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}},
        ],
        "attributes": {"expiryTime": expiry},
    })
}

async fn versions(world: &World, key: &str) -> usize {
    world.ok("GET", &format!("keys/{key}/versions"), json!(null)).await["value"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_when_its_policy_says() {
    let world = World::start().await;
    let created = json!({"kty": "EC", "crv": "P-384", "key_ops": ["sign"], "tags": {"a": "b"}});
    let first = world.ok("POST", "keys/k/create", created).await;
    world.ok("PUT", "keys/k/rotationpolicy", policy(json!({"timeAfterCreate": "P30D"}), Some("P90D"))).await;
    world.ok("POST", "keys/quiet/create", json!({"kty": "EC"})).await;

    world.service.do_what_is_due().await;
    assert_eq!(versions(&world, "k").await, 1, "not yet");
    world.forward_days(29);
    world.service.do_what_is_due().await;
    assert_eq!(versions(&world, "k").await, 1, "not yet");
    world.forward_days(2);
    // Two leaders at once: one of them is too late.
    tokio::join!(world.service.do_what_is_due(), world.service.do_what_is_due());
    world.service.do_what_is_due().await;
    assert_eq!(versions(&world, "k").await, 2, "once");
    assert_eq!(versions(&world, "quiet").await, 1);

    let second = world.ok("GET", "keys/k", json!(null)).await;
    assert_ne!(second["key"]["kid"], first["key"]["kid"]);
    assert_ne!(second["key"]["x"], first["key"]["x"]);
    for same in ["kty", "crv", "key_ops"] {
        assert_eq!(second["key"][same], first["key"][same], "{same}");
    }
    assert_eq!(second["tags"], first["tags"]);
    let life = second["attributes"]["exp"].as_u64().unwrap() - second["attributes"]["created"].as_u64().unwrap();
    assert_eq!(life / 86_400, 90);
    // It works, and the old version still does.
    let digest = json!({"alg": "ES384", "value": "A".repeat(64)});
    for kid in [&first["key"]["kid"], &second["key"]["kid"]] {
        let path = kid.as_str().unwrap().trim_start_matches("https://demo.vault.azure.net/");
        let signed = world.ok("POST", &format!("{path}/sign"), digest.clone()).await;
        assert_eq!(&signed["kid"], kid);
    }

    world.forward_days(31);
    world.service.do_what_is_due().await;
    assert_eq!(versions(&world, "k").await, 3, "and again");
    world.ok("PATCH", "keys/k", json!({"attributes": {"enabled": false}})).await;
    world.forward_days(31);
    world.service.do_what_is_due().await;
    assert_eq!(versions(&world, "k").await, 3, "not while it is switched off");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn near_expiry_is_told_once() {
    let world = World::start().await;
    let exp = world.service.now_ms() / 1000 + 60 * 86_400;
    world.ok("POST", "keys/k/create", json!({"kty": "EC", "attributes": {"exp": exp}})).await;
    let told = || world.node.view(|view| read::notices(view, 0, 10)).unwrap();
    world.service.do_what_is_due().await;
    assert!(told().is_empty());
    world.forward_days(31);
    tokio::join!(world.service.do_what_is_due(), world.service.do_what_is_due());
    world.service.do_what_is_due().await;
    let told = told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].1.name.as_str(), told[0].1.expires), ("k", exp));
    world.stop().await;
}

/// The answer to a change is what is read afterwards, times included.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_set_is_what_is_read() {
    let world = World::start().await;
    world.ok("POST", "keys/k/create", json!({"kty": "EC"})).await;
    world.forward_days(1);
    for body in [
        policy(json!({"timeAfterCreate": "P30D"}), None),
        json!({"lifetimeActions": []}),
        json!({"attributes": {"expiryTime": "P28D"}}),
    ] {
        let set = world.ok("PUT", "keys/k/rotationpolicy", body).await;
        assert_eq!(set, world.ok("GET", "keys/k/rotationpolicy", json!(null)).await);
    }
    world.stop().await;
}

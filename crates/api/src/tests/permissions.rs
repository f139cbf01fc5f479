//! Operation x permission x granted or denied (contract section 14). The table is written out here once more, by the names of
//! the contract, so that it does not follow the code where the code is wrong.

use super::World;
use crate::route::{Op, Route, ROUTES};
use crate::service::fresh_id;
use claviger_types::permission::{KeyPermission, SecretPermission};
use serde_json::{json, Value};

/// Operation, permission.
const KEYS: &[(&str, &str)] = &[
    ("KeyRestore", "restore"),
    ("KeyList", "list"),
    ("KeyVersions", "list"),
    ("KeyRotationPolicy", "getrotationpolicy"),
    ("KeySetRotationPolicy", "setrotationpolicy"),
    ("KeyCreate", "create"),
    ("KeyRotate", "rotate"),
    ("KeyBackup", "backup"),
    ("KeyEncrypt", "encrypt"),
    ("KeyDecrypt", "decrypt"),
    ("KeyWrap", "wrapKey"),
    ("KeyUnwrap", "unwrapKey"),
    ("KeySign", "sign"),
    ("KeyVerify", "verify"),
    ("KeyRelease", "release"),
    ("KeySecureWrap", "wrapKey"),
    ("KeySecureUnwrap", "unwrapKey"),
    ("KeyAttestation", "get"),
    ("KeyImport", "import"),
    ("KeyDelete", "delete"),
    ("KeyGet", "get"),
    ("KeyUpdate", "update"),
    ("DeletedKeyList", "list"),
    ("DeletedKeyGet", "get"),
    ("DeletedKeyRecover", "recover"),
    ("DeletedKeyPurge", "purge"),
    ("RandomBytes", "get"),
];

/// Operation, permission.
const SECRETS: &[(&str, &str)] = &[
    ("SecretRestore", "restore"),
    ("SecretList", "list"),
    ("SecretVersions", "list"),
    ("SecretBackup", "backup"),
    ("SecretSet", "set"),
    ("SecretDelete", "delete"),
    ("SecretGet", "get"),
    ("SecretUpdate", "set"),
    ("DeletedSecretList", "list"),
    ("DeletedSecretGet", "get"),
    ("DeletedSecretRecover", "recover"),
    ("DeletedSecretPurge", "purge"),
];

fn wanted(op: Op) -> (&'static str, &'static str) {
    let find = |table: &'static [(&str, &'static str)]| table.iter().find(|(name, _)| *name == op.name());
    match (find(KEYS), find(SECRETS)) {
        (Some((_, permission)), None) => ("keys", permission),
        (None, Some((_, permission))) => ("secrets", permission),
        _ => panic!("{} has no row, or two", op.name()),
    }
}

/// Bodies that are good for all operations at once, so that what is granted goes through.
fn body(op: Op) -> Value {
    match op {
        Op::KeyCreate => json!({"kty": "EC"}),
        Op::KeyImport => json!({"key": {"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAA"}}),
        Op::KeyUpdate | Op::SecretUpdate => json!({"tags": {"a": "b"}}),
        Op::SecretSet => json!({"value": "v"}),
        Op::KeySetRotationPolicy => json!({"lifetimeActions": []}),
        Op::KeySign => json!({"alg": "RS256", "value": "A".repeat(43)}),
        Op::KeyVerify => json!({"alg": "RS256", "digest": "A".repeat(43), "value": "AA"}),
        Op::KeyRelease => json!({"target": "a.b.c"}),
        Op::KeyEncrypt | Op::KeyWrap => json!({"alg": "RSA-OAEP", "value": "AA"}),
        _ => Value::Null,
    }
}

fn path(route: &Route) -> String {
    route.pattern.replace("{name}", "n").replace("/{version}", "")
}

struct Scene {
    world: World,
    key_backup: Value,
    secret_backup: Value,
    ciphertext: Value,
}

impl Scene {
    /// Puts back whatever an operation may need.
    async fn prepare(&self, op: Op) {
        let world = &self.world;
        let collection = wanted(op).0;
        let (live, deleted) = (format!("{collection}/n"), format!("deleted{collection}/n"));
        let is_live = world.call("GET", &live, Value::Null).await.0 == 200;
        let is_deleted = world.call("GET", &deleted, Value::Null).await.0 == 200;
        let name = op.name();
        if name.starts_with("Deleted") {
            if is_live {
                world.ok("DELETE", &live, Value::Null).await;
            } else if !is_deleted {
                self.restore(collection).await;
                world.ok("DELETE", &live, Value::Null).await;
            }
            return;
        }
        if is_deleted {
            world.ok("POST", &format!("{deleted}/recover"), Value::Null).await;
        } else if !is_live {
            self.restore(collection).await;
        }
        if name.ends_with("Restore") {
            world.ok("DELETE", &live, Value::Null).await;
            world.ok("DELETE", &deleted, Value::Null).await;
        }
    }

    async fn restore(&self, collection: &str) {
        let blob = if collection == "keys" { &self.key_backup } else { &self.secret_backup };
        self.world.ok("POST", &format!("{collection}/restore"), blob.clone()).await;
    }

    async fn granted(&self, token: &str, route: &Route) {
        self.prepare(route.op).await;
        let (status, answer) = self.world.send_as(token, route.method, &path(route), self.body(route.op)).await;
        let beyond = match route.op {
            // Past the permission, refused for what they are.
            Op::KeySecureWrap | Op::KeySecureUnwrap | Op::KeyAttestation | Op::RandomBytes => 400,
            Op::KeyRelease => 403,
            _ => 200,
        };
        assert_ne!(answer["error"]["innererror"]["code"], "ForbiddenByPolicy", "{} granted: {answer}", route.op.name());
        assert!(status == beyond || status == 204, "{} granted: {status} {answer}", route.op.name());
    }

    async fn denied(&self, token: &str, route: &Route) {
        // The permission is looked at before the body and before there is anything of that name.
        let missing = path(route).replace("/n", "/missing");
        let (status, answer) = self.world.send_as(token, route.method, &missing, b"{".to_vec()).await;
        let what = format!("{} denied: {status} {answer}", route.op.name());
        assert_eq!(status, 403, "{what}");
        let error = &answer["error"];
        assert_eq!(
            (error["code"].as_str(), error["innererror"]["code"].as_str()),
            (Some("Forbidden"), Some("ForbiddenByPolicy"))
        );
        let (collection, permission) = wanted(route.op);
        let text = format!("does not have {collection} {permission} permission on key vault 'demo;location=local'. ");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(&text)), "{what}");
    }

    fn body(&self, op: Op) -> Vec<u8> {
        let value = match op {
            Op::KeyRestore => self.key_backup.clone(),
            Op::SecretRestore => self.secret_backup.clone(),
            Op::KeyDecrypt | Op::KeyUnwrap => json!({"alg": "RSA-OAEP", "value": self.ciphertext}),
            other => body(other),
        };
        if value.is_null() {
            Vec::new()
        } else {
            value.to_string().into_bytes()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_takes_exactly_its_permission() {
    assert_eq!(ROUTES.len(), KEYS.len() + SECRETS.len());
    let world = World::start().await;
    world.ok("POST", "keys/n/create", json!({"kty": "RSA"})).await;
    world.ok("PUT", "secrets/n", json!({"value": "v"})).await;
    let sealed = world.ok("POST", "keys/n/encrypt", json!({"alg": "RSA-OAEP", "value": "AA"})).await;
    let key_backup = world.ok("POST", "keys/n/backup", Value::Null).await;
    let secret_backup = world.ok("POST", "secrets/n/backup", Value::Null).await;
    let scene = Scene { world, key_backup, secret_backup, ciphertext: sealed["value"].clone() };
    let stranger = fresh_id().unwrap();
    let token = scene.world.token(stranger);

    let keys = KeyPermission::ALL.iter().map(|p| ("keys", p.as_str(), p.bit(), 0));
    let secrets = SecretPermission::ALL.iter().map(|p| ("secrets", p.as_str(), 0, p.bit()));
    let all = (KeyPermission::everything(), SecretPermission::everything());
    for (collection, permission, key_bit, secret_bit) in keys.chain(secrets) {
        // Alone: what needs it goes through, everything else is refused.
        scene.world.grant(stranger, key_bit, secret_bit).await;
        for route in ROUTES {
            if wanted(route.op) == (collection, permission) {
                scene.granted(&token, route).await;
            } else {
                scene.denied(&token, route).await;
            }
        }
        // Everything but this: what needs it is refused.
        scene.world.grant(stranger, all.0 & !key_bit, all.1 & !secret_bit).await;
        for route in ROUTES.iter().filter(|route| wanted(route.op) == (collection, permission)) {
            scene.denied(&token, route).await;
        }
    }
    // Somebody without a policy, somebody who is gone, and somebody without a token.
    let (nobody, gone) = (fresh_id().unwrap(), scene.world.token(fresh_id().unwrap()));
    scene.world.application(nobody).await;
    let nobody = scene.world.token(nobody);
    for route in ROUTES {
        let path = path(route);
        let (status, _) = scene.world.send_as(&nobody, route.method, &path, vec![]).await;
        assert_eq!(status, 403, "{}", route.op.name());
        for token in [gone.as_str(), "x.y.z"] {
            let (status, _) = scene.world.send_as(token, route.method, &path, vec![]).await;
            assert_eq!(status, 401, "{}", route.op.name());
        }
    }
    scene.world.stop().await;
}

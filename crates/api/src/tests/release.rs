//! Secure key release (contract 10.6), with authorities and an environment of the test's own.

use super::{fresh, jwk, World};
use crate::attestation::Authority;
use crate::wire::{b64, decode_b64};
use claviger_crypto::byok;
use claviger_crypto::provider::{default_provider, CipherParams, LoadedKey};
use claviger_crypto::secret::SecretBytes;
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

const AUTHORITY: &str = "https://attest.test";

fn sign(key: &dyn LoadedKey, header: Value, claims: &Value) -> String {
    let signed = format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
    let alg = SignAlg::parse(header["alg"].as_str().unwrap()).unwrap_or(SignAlg::Rs256);
    format!("{signed}.{}", b64(&key.sign(alg, &Sha256::digest(signed.as_bytes())).unwrap()))
}

fn policy(immutable: bool) -> Value {
    let policy = json!({"version": "1.0.0", "anyOf": [
        {"authority": AUTHORITY, "allOf": [{"claim": "x-ms-isolation-tee.debug", "equals": false}]},
    ]});
    json!({"data": b64(policy.to_string().as_bytes()), "immutable": immutable,
        "contentType": "application/json; charset=utf-8"})
}

/// An authority (one RSA key by certificate, one EC key by numbers), an environment's key, and a service that believes it.
struct Scene {
    world: World,
    rsa: Arc<dyn LoadedKey>,
    ec: Arc<dyn LoadedKey>,
    environment: Arc<dyn LoadedKey>,
}

impl Scene {
    async fn new() -> Self {
        let rsa = fresh(KeySpec::Rsa { bits: 2048 });
        let ec = fresh(KeySpec::Ec { curve: Curve::P256 });
        let certificate = crate::certificate::self_signed(&*rsa, "authority").unwrap();
        let certificate = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
        let keys = json!({"keys": [
            {"kty": "RSA", "kid": "r", "use": "sig", "x5c": [certificate]},
            jwk(ec.public(), json!({"kid": "e"})),
            {"kty": "oct", "k": "AAAA"},
        ]});
        let authority = Authority::from_jwks("https://attest.test/", keys.to_string().as_bytes()).unwrap();
        let world = World::start_with(|config| config.authorities = vec![authority]).await;
        Self { world, rsa, ec, environment: fresh(KeySpec::Rsa { bits: 2048 }) }
    }

    fn claims(&self) -> Value {
        let now = self.world.service.now_ms() / 1000;
        json!({
            "iss": AUTHORITY,
            "nbf": now,
            "exp": now + 600,
            "x-ms-isolation-tee": {"debug": false},
            "x-ms-runtime": {"keys": [
                jwk(self.rsa.public(), json!({"kid": "signing", "key_use": "sig"})),
                jwk(self.environment.public(), json!({"kid": "TransferKey", "key_ops": ["encrypt"]})),
            ]},
        })
    }

    fn token(&self, claims: &Value) -> String {
        sign(&*self.rsa, json!({"alg": "RS256", "kid": "r"}), claims)
    }

    async fn refused(&self, body: Value) -> (u16, String) {
        let (status, _, _, text) = self.world.refused("POST", "keys/k/release", body).await;
        (status, text)
    }
}

/// Checks the answer as a client would, and returns its payload.
fn open(answer: &Value) -> Value {
    let token = answer["value"].as_str().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&decode_b64(header).unwrap()).unwrap();
    let leaf = decode_b64(header["x5c"][0].as_str().unwrap()).unwrap();
    assert_eq!(header["x5t#S256"], b64(&Sha256::digest(&leaf)));
    let (_, certificate) = X509Certificate::from_der(&leaf).unwrap();
    let x509_parser::public_key::PublicKey::RSA(key) = certificate.public_key().parsed().unwrap() else { panic!() };
    let key = PublicKey::Rsa { n: key.modulus[1..].to_vec(), e: key.exponent.to_vec() };
    let digest = Sha256::digest(signed.as_bytes());
    assert!(default_provider().verify(&key, SignAlg::Rs256, &digest, &decode_b64(signature).unwrap()).unwrap());
    serde_json::from_slice(&decode_b64(payload).unwrap()).unwrap()
}

fn transfer(payload: &Value) -> Value {
    let blob = payload["response"]["key"]["key"]["key_hsm"].as_str().unwrap();
    serde_json::from_slice(&decode_b64(blob).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_released_to_attested_environments() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let kinds = [json!({"kty": "RSA-HSM"}), json!({"kty": "EC-HSM", "crv": "P-521"}), json!({"kty": "oct-HSM"})];
    for (mut create, family) in kinds.into_iter().zip([Family::Rsa, Family::Ec, Family::Oct]) {
        create["attributes"] = json!({"exportable": true, "exp": 1});
        create["release_policy"] = policy(false);
        let made = world.ok("POST", "keys/k/create", create).await;
        assert_eq!(made["attributes"]["exportable"], true);
        let ops = made["key"]["key_ops"].as_array().unwrap();
        assert!(ops.contains(&json!("export")), "{ops:?}");
        let target = scene.token(&scene.claims());
        let answer = world.ok("POST", "keys/k/release", json!({"target": target, "nonce": "n-1"})).await;
        let payload = open(&answer);
        let kid = &made["key"]["kid"];
        let request = json!({"api-version": "2026-04-01", "enc": "CKM_RSA_AES_KEY_WRAP", "kid": kid, "nonce": "n-1"});
        assert_eq!(payload["request"], request);
        assert_eq!(&payload["response"]["key"]["key"]["kid"], kid);
        assert_eq!(payload["response"]["key"]["release_policy"], made["release_policy"]);
        let blob = transfer(&payload);
        assert_eq!(blob["header"], json!({"kid": "TransferKey", "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"}));
        let ciphertext = decode_b64(blob["ciphertext"].as_str().unwrap()).unwrap();
        let target = byok::unwrap_transfer(&*scene.environment, &ciphertext).unwrap();
        let key = byok::parse_pkcs8(family, None, &target).unwrap();
        match &key.public {
            PublicKey::Rsa { n, .. } => assert_eq!(made["key"]["n"], b64(n)),
            PublicKey::Ec { x, .. } => assert_eq!(made["key"]["x"], b64(x)),
            PublicKey::Oct { bits } => assert_eq!(*bits, 256),
        }
    }
    // The other ways to wrap; an EC key of the authority signs as well.
    let target = sign(&*scene.ec, json!({"alg": "ES256", "kid": "e"}), &scene.claims());
    let answer = world.ok("POST", "keys/k/release", json!({"target": target, "enc": "RSA_AES_KEY_WRAP_256"})).await;
    let ciphertext = decode_b64(transfer(&open(&answer))["ciphertext"].as_str().unwrap()).unwrap();
    let (head, wrapped) = ciphertext.split_at(256);
    let none = CipherParams::default();
    let aes: SecretBytes = scene.environment.decrypt(EncAlg::RsaOaep256, head, &none).unwrap();
    let aes = default_provider().load(KeySpec::Oct { bits: 256 }, &aes).unwrap();
    assert_eq!(aes.decrypt(EncAlg::CkmAesKeyWrapPad, wrapped, &none).unwrap().len(), 32);
    let answer = world.ok("POST", "keys/k/release", json!({"target": target, "enc": "RSA_AES_KEY_WRAP_384"})).await;
    assert_eq!(open(&answer)["request"]["enc"], "RSA_AES_KEY_WRAP_384");
    scene.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_attested_gets_nothing() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let create = json!({"kty": "EC-HSM", "attributes": {"exportable": true}, "release_policy": policy(false)});
    world.ok("POST", "keys/k/create", create).await;
    let unverified = (403, "Target environment attestation statement cannot be verified.".to_owned());
    let unmet = (403, "Target environment attestation statement does not satisfy the key release policy.".to_owned());

    let good = scene.token(&scene.claims());
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = scene.claims();
        change(&mut claims);
        claims
    };
    let now = world.service.now_ms() / 1000;
    let stranger = fresh(KeySpec::Rsa { bits: 2048 });
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = scene.token(&changed(&|claims| claims["x-ms-isolation-tee"]["debug"] = json!(true)));
    let header = |text: Value| format!("{}.{}", b64(text.to_string().as_bytes()), good.split_once('.').unwrap().1);
    let bad = [
        "rubbish".to_owned(),
        "a.b.c".to_owned(),
        format!("{signed}."),
        format!("{}.{signature}", other.rsplit_once('.').unwrap().0),
        header(json!({"alg": "none"})),
        header(json!({"alg": "HS256", "kid": "r"})),
        header(json!({"alg": "RSNULL", "kid": "r"})),
        sign(&*stranger, json!({"alg": "RS256", "kid": "r"}), &scene.claims()),
        sign(&*stranger, json!({"alg": "RS256"}), &scene.claims()),
        sign(&*scene.rsa, json!({"alg": "RS256", "kid": "e"}), &scene.claims()),
        sign(&*scene.rsa, json!({"alg": "RS256", "kid": "r", "crit": ["b64"]}), &scene.claims()),
        scene.token(&changed(&|claims| claims["iss"] = json!("https://elsewhere.test"))),
        scene.token(&changed(&|claims| claims["exp"] = json!(now - 301))),
        scene.token(&changed(&|claims| claims["exp"] = json!(null))),
        scene.token(&changed(&|claims| claims["nbf"] = json!(now + 400))),
        scene.token(&json!([])),
    ];
    for token in bad {
        assert_eq!(scene.refused(json!({"target": token})).await, unverified, "{token}");
    }
    assert_eq!(scene.refused(json!({"target": other})).await, unmet);
    let missing = scene.token(&changed(&|claims| claims["x-ms-isolation-tee"] = json!({})));
    assert_eq!(scene.refused(json!({"target": missing})).await, unmet);
    for runtime in [json!({}), json!({"keys": []}), json!({"keys": [{"kty": "RSA", "key_use": "enc", "n": "AQ"}]})] {
        let token = scene.token(&changed(&|claims| claims["x-ms-runtime"] = runtime.clone()));
        assert_eq!(scene.refused(json!({"target": token})).await.0, 400, "{runtime}");
    }
    let small = json!({"keys": [{"kty": "RSA", "key_use": "enc", "n": b64(&[0xff; 128]), "e": "AQAB"}]});
    let token = scene.token(&changed(&|claims| claims["x-ms-runtime"] = small.clone()));
    assert_eq!(scene.refused(json!({"target": token})).await.0, 400);
    for body in [json!({}), json!({"target": ""}), json!({"target": 1}), json!({"target": good, "enc": "none"})] {
        assert_eq!(scene.refused(body.clone()).await.0, 400, "{body}");
    }

    // What is done with the key here does not say whether it may leave.
    world.ok("PATCH", "keys/k", json!({"key_ops": ["sign"]})).await;
    let target = json!({"target": good});
    let denied = (403, "Operation release is not permitted on this key.".to_owned());
    world.ok("POST", "keys/k/release", target.clone()).await;
    world.ok("PATCH", "keys/k", json!({"attributes": {"enabled": false}})).await;
    assert_eq!(scene.refused(target.clone()).await.1, "Operation release is not allowed on a disabled key.");
    world.ok("POST", "keys/plain/create", json!({"kty": "EC-HSM"})).await;
    let (status, _, _, text) = world.refused("POST", "keys/plain/release", target).await;
    assert_eq!((status, text), denied);
    scene.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_checked_when_they_are_set() {
    let world = World::start().await;
    let create = |attributes: Value, kty: &str, policy: Value| json!({"kty": kty, "attributes": attributes, "release_policy": policy});
    let exportable = json!({"exportable": true});
    let garbage = json!({"data": b64(br#"{"version":"1.0.0"}"#)});
    let cases = [
        (create(json!({}), "EC-HSM", policy(false)), "AKV.SKR.1005: Non-exportable keys must not have release policy."),
        (create(exportable.clone(), "EC-HSM", json!(null)), "AKV.SKR.1004: Exportable keys must have release policy."),
        (create(exportable.clone(), "EC", policy(false)), "Exportable keys must be of a hardware-protected type."),
        (create(exportable.clone(), "EC-HSM", garbage), "'release_policy.data' is not a key release policy: 'anyOf'"),
    ];
    for (body, want) in cases {
        let (status, code, _, text) = world.refused("POST", "keys/k/create", body.clone()).await;
        assert_eq!((status, code.as_str()), (400, "BadParameter"));
        assert!(text.starts_with(want), "{body}: {text}");
    }
    let made = world.ok("POST", "keys/k/create", create(exportable.clone(), "EC-HSM", policy(false))).await;
    assert_eq!(made["release_policy"]["contentType"], "application/json; charset=utf-8");
    assert_eq!(made["release_policy"].get("immutable"), None);
    // Whether a key may leave is said once.
    for (name, then) in
        [("k", create(json!({}), "EC-HSM", json!(null))), ("l", create(exportable, "EC-HSM", policy(false)))]
    {
        if name == "l" {
            world.ok("POST", "keys/l/create", create(json!({}), "EC-HSM", json!(null))).await;
        }
        let (status, _, _, text) = world.refused("POST", &format!("keys/{name}/create"), then).await;
        assert_eq!(status, 400);
        assert_eq!(text, "AKV.SKR.1003: exportable attribute of an existing key cannot be changed.");
    }
    world.ok("PATCH", "keys/k", json!({"release_policy": policy(true)})).await;
    let other = json!({"version": "1.0.0", "anyOf": [
        {"authority": AUTHORITY, "anyOf": [{"claim": "a", "equals": 1}]},
    ]});
    for other in [other.to_string().into_bytes(), b"{}".to_vec()] {
        let other = json!({"release_policy": {"data": b64(&other)}});
        let (_, _, _, text) = world.refused("PATCH", "keys/k", other).await;
        assert_eq!(text, "AKV.SKR.1020: Immutable Key Release Policy cannot be modified.");
    }
    let (status, _, _, text) = world.refused("POST", "keys/k/release", json!({"target": "a.b.c"})).await;
    assert_eq!(status, 403);
    let want = "Target environment attestation statement cannot be verified: no attestation authority is configured";
    assert!(text.starts_with(want), "{text}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_managed_hsm_has_is_refused() {
    let world = World::start().await;
    world.ok("POST", "keys/k/create", json!({"kty": "EC"})).await;
    for (method, path) in [
        ("POST", "rng"),
        ("POST", "keys/k/securewrapkey"),
        ("POST", "keys/k/secureunwrapkey"),
        ("GET", "keys/k/attestation"),
        ("GET", "settings"),
        ("POST", "backup"),
        ("POST", "securitydomain/download"),
    ] {
        let (status, code, _, text) = world.refused(method, path, json!({})).await;
        assert_eq!((status, code.as_str()), (400, "BadParameter"), "{path}");
        assert!(text.ends_with(" is supported by Managed HSM only."), "{path}: {text}");
    }
    world.stop().await;
}

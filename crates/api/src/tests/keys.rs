//! Rules of keys that take several requests to see (contract sections 6, 8, 9 and 10).

use super::World;
use crate::wire::{b64, decode_b64};
use claviger_crypto::byok::{wrap_transfer, TransferAlg};
use claviger_crypto::jwk;
use claviger_crypto::provider::default_provider;
use claviger_crypto::secret::SecretBytes;
use claviger_types::alg::{Curve, KeySpec, PublicKey};
use serde_json::{json, Value};

fn path_of(bundle: &Value) -> String {
    bundle["key"]["kid"].as_str().unwrap().trim_start_matches("https://demo.vault.azure.net/").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn validity_and_state_decide_what_a_key_does() {
    let world = World::start().await;
    let now = world.service.now_ms() / 1000;
    let plain = json!({"alg": "RSA-OAEP", "value": b64(b"x")});
    let digest = b64(&[1; 32]);
    let sign = json!({"alg": "RS256", "value": digest});
    let made = world.ok("POST", "keys/k/create", json!({"kty": "RSA"})).await;
    let sealed = world.ok("POST", "keys/k/encrypt", plain.clone()).await["value"].clone();
    let signature = world.ok("POST", "keys/k/sign", sign.clone()).await["value"].clone();
    let sealed = json!({"alg": "RSA-OAEP", "value": sealed});
    let verify = json!({"alg": "RS256", "digest": digest, "value": signature});
    for (attributes, inner, text) in [
        (json!({"nbf": 1, "exp": now - 5}), "KeyExpired", "an expired key."),
        (json!({"nbf": now + 500, "exp": now + 900}), "KeyNotYetValid", "a not yet valid key."),
    ] {
        world.ok("PATCH", "keys/k", json!({"attributes": attributes})).await;
        for (op, name, body) in
            [("encrypt", "encrypt", &plain), ("wrapkey", "wrapKey", &plain), ("sign", "sign", &sign)]
        {
            let refused = world.refused("POST", &format!("keys/k/{op}"), body.clone()).await;
            let want = format!("Operation {name} is not allowed on {text}");
            assert_eq!(refused, (403, "Forbidden".into(), inner.into(), want));
        }
        for op in ["decrypt", "unwrapkey"] {
            assert_eq!(world.ok("POST", &format!("keys/k/{op}"), sealed.clone()).await["value"], b64(b"x"));
        }
        assert_eq!(world.ok("POST", "keys/k/verify", verify.clone()).await, json!({"value": true}));
        world.ok("GET", "keys/k", Value::Null).await;
    }
    world.ok("PATCH", "keys/k", json!({"attributes": {"enabled": false}})).await;
    for (op, name, body) in [("decrypt", "decrypt", &sealed), ("verify", "verify", &verify)] {
        let refused = world.refused("POST", &format!("keys/k/{op}"), body.clone()).await;
        let want = format!("Operation {name} is not allowed on a disabled key.");
        assert_eq!(refused, (403, "Forbidden".into(), "KeyDisabled".into(), want));
    }
    assert_eq!(world.refused("GET", "keys/k", Value::Null).await.2, "KeyDisabled");
    // Lists, changes and deletion go on.
    world.ok("PATCH", &path_of(&made), json!({"attributes": {"enabled": true}})).await;
    world.ok("GET", "keys/k", Value::Null).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn byok_takes_keys_of_every_family() {
    let world = World::start().await;
    let kek = world.ok("POST", "keys/kek/create", json!({"kty": "RSA-HSM", "key_ops": ["import"]})).await;
    let number = |name: &str| decode_b64(kek["key"][name].as_str().unwrap()).unwrap();
    let public = PublicKey::Rsa { n: number("n"), e: number("e") };
    let file = |ciphertext: &[u8], kid: &Value, enc: &str| {
        let blob = json!({"schema_version": "1.0.0", "header": {"kid": kid, "alg": "dir", "enc": enc},
            "ciphertext": b64(ciphertext), "generator": "test"});
        b64(blob.to_string().as_bytes())
    };
    let specs = [
        ("RSA-HSM", KeySpec::Rsa { bits: 2048 }),
        ("EC-HSM", KeySpec::Ec { curve: Curve::P521 }),
        ("oct-HSM", KeySpec::Oct { bits: 192 }),
    ];
    for (kty, spec) in specs {
        let made = default_provider().generate(spec).unwrap();
        let wrapped = wrap_transfer(&public, TransferAlg::RsaAesKeyWrap, &made.private).unwrap();
        let good = file(&wrapped, &kek["key"]["kid"], "CKM_RSA_AES_KEY_WRAP");
        let key = json!({"kty": kty, "crv": "P-521", "key_hsm": good});
        let imported = world.ok("PUT", "keys/imported", json!({"key": key})).await;
        assert_eq!(imported["key"]["kty"], kty);
        match &made.public {
            PublicKey::Rsa { n, .. } => assert_eq!(imported["key"]["n"], b64(n)),
            PublicKey::Ec { y, .. } => assert_eq!(imported["key"]["y"], b64(y)),
            PublicKey::Oct { .. } => {}
        }
        let mut broken = wrapped.clone();
        broken[270] ^= 1;
        for (blob, soft) in [
            (file(&broken, &kek["key"]["kid"], "CKM_RSA_AES_KEY_WRAP"), kty),
            (file(&wrapped, &json!("https://demo.vault.azure.net/keys/none/0"), "CKM_RSA_AES_KEY_WRAP"), kty),
            (file(&wrapped, &imported["key"]["kid"], "CKM_RSA_AES_KEY_WRAP"), kty),
            (file(&wrapped, &kek["key"]["kid"], "RSA_AES_KEY_WRAP_256"), kty),
            (b64(b"rubbish"), kty),
            (good.clone(), kty.trim_end_matches("-HSM")),
        ] {
            let key = json!({"kty": soft, "crv": "P-521", "key_hsm": blob});
            assert_eq!(world.refused("PUT", "keys/other", json!({"key": key})).await.0, 400);
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_are_generous_with_zeros_and_strict_with_nonsense() {
    let world = World::start().await;
    let made = default_provider().generate(KeySpec::Rsa { bits: 2048 }).unwrap();
    let private = jwk::export(made.public.spec(), &made.private).unwrap();
    let zeros = |bytes: &[u8]| b64(&[&[0, 0], bytes].concat());
    let secret = |bytes: &Option<SecretBytes>| zeros(bytes.as_ref().unwrap().expose());
    let mut key =
        json!({"kty": "RSA", "n": zeros(private.n.as_ref().unwrap()), "e": zeros(private.e.as_ref().unwrap())});
    for (name, number) in [
        ("d", &private.d),
        ("p", &private.p),
        ("q", &private.q),
        ("dp", &private.dp),
        ("dq", &private.dq),
        ("qi", &private.qi),
    ] {
        key[name] = secret(number).into();
    }
    let whole = world.ok("PUT", "keys/k", json!({"key": key})).await;
    assert_eq!(whole["key"]["n"], b64(private.n.as_ref().unwrap()));
    for gone in [["dp", "dq", "qi"].as_slice(), &["p", "q", "dp", "dq", "qi"]] {
        let mut less = key.clone();
        for name in gone {
            less.as_object_mut().unwrap().remove(*name);
        }
        assert_eq!(world.ok("PUT", "keys/k", json!({"key": less})).await["key"]["n"], whole["key"]["n"]);
    }
    for (name, value) in
        [("d", json!(b64(&[1; 256]))), ("n", json!(b64(&[0xff; 256]))), ("e", json!("AQ")), ("p", json!("AQ"))]
    {
        let mut wrong = key.clone();
        wrong[name] = value;
        assert_eq!(world.refused("PUT", "keys/k", json!({"key": wrong})).await.0, 400, "{name}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_vaults_have_no_hardware_keys() {
    let world = World::start().await;
    world.ok("POST", "keys/k/create", json!({"kty": "EC-HSM"})).await;
    let blob = world.ok("POST", "keys/k/backup", Value::Null).await;
    let create = json!({"op": "create_vault", "name": "plain", "client_id": world.app, "standard": true});
    world.service.admin(create.to_string().as_bytes()).await.unwrap();
    let token = world.token(world.owner);
    for (method, path, body) in [
        ("POST", "keys/k/create", json!({"kty": "EC-HSM"})),
        ("PUT", "keys/k", json!({"key": {"kty": "oct", "k": b64(&[1; 32])}, "Hsm": true})),
        ("POST", "keys/restore", blob.clone()),
    ] {
        let body = body.to_string().into_bytes();
        let (status, answer) = world.send_to("plain.vault.azure.net", &token, method, path, body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("BadParameter")), "{path} {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("premium"), "{answer}");
    }
    for ops in [json!(["sign", "sign"]), json!(["import", "sign"]), json!(["Sign"])] {
        assert_eq!(world.refused("POST", "keys/k/create", json!({"kty": "EC", "key_ops": ops})).await.0, 400);
    }
    world.stop().await;
}

/// What operators see of the keys made ahead: every size from the start, and a number once keys of a size were asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_stock_of_keys_is_a_metric() {
    let world = World::start().await;
    let ready = |bits: u16| {
        let text = world.service.metrics.render(&world.service);
        let line = format!("claviger_rsa_keys_ready{{bits=\"{bits}\"}} ");
        let number = text.lines().find_map(|found| found.strip_prefix(&line).map(str::to_owned));
        number.expect("the metric is there").parse::<u32>().expect("a number")
    };
    assert_eq!([2048, 3072, 4096].map(ready), [0, 0, 0]);
    world.ok("POST", "keys/k/create", json!({"kty": "RSA"})).await;
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ready(2048) == 0 {
        assert!(std::time::Instant::now() < patience, "no key was made ahead");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!([3072, 4096].map(ready), [0, 0]);
    world.stop().await;
}

/// Their bodies are large, and read before it is known who may send them.
#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_restores_are_read_at_once() {
    let world = World::start().await;
    let places = world.service.restores.try_acquire_many(8).unwrap();
    assert_eq!(world.refused("POST", "keys/restore", json!({"value": "AA"})).await.0, 429);
    assert_eq!(world.refused("POST", "keys/k/create", json!({})).await.0, 400, "others are not held up");
    drop(places);
    assert_eq!(world.refused("POST", "keys/restore", json!({"value": "AA"})).await.0, 400);
    world.stop().await;
}

//! The targets. Each takes any bytes; how a target cuts them up is said where it does.

use crate::scene::{attest, b64, fixed_key, kek, seal_backup, send, AUTHORITY};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use claviger_api::testing::release_allowed;
use claviger_crypto::byok::parse_pkcs8;
use claviger_crypto::provider::{CipherParams, CryptoProvider, Hybrid, LoadedKey, RustCrypto};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::{jwk, jwt};
use claviger_state_machine::{apply as apply_entry, kv::MemKv, records};
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};
use claviger_types::codec;
use claviger_types::command::{Actor, Command, CreateVault, Entry, InitWorld, PutResourceGroup, PutSubscription, Tags};
use claviger_types::name::{Id128, Kind, VaultName};
use claviger_types::outcome::Outcome;
use claviger_types::permission::AccessPolicy;
use claviger_types::vault::VaultSettings;
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{json, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

type Target = fn(&[u8]);

/// By name; `tests/fuzz.sh` has the same list, with the runs of the smoke test.
const TARGETS: &[(&str, Target)] = &[
    ("create", |data| drop(send("POST", "keys/new/create", data))),
    ("import", import),
    ("byok", byok),
    ("pkcs8", pkcs8),
    ("policy", policy),
    ("restore", restore),
    ("use", use_key),
    ("release", release),
    ("rotation", |data| drop(send("PUT", "keys/ec/rotationpolicy", data))),
    ("change", change),
    ("request", request),
    ("codec", codec),
    ("apply", apply),
    ("rsa", rsa),
    ("curves", curves),
    ("ciphers", ciphers),
    ("token", token),
];

/// The target that the environment names.
pub(crate) fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("CLAVIGER_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        found.unwrap_or_else(|| panic!("CLAVIGER_FUZZ_TARGET must be one of {names:?}, not {name:?}")).1
    })
}

/// The choice that the first byte makes, where `a` is the first one, and the rest.
fn choose<'a, 'd, T>(choices: &'a [T], data: &'d [u8]) -> Option<(&'a T, &'d [u8])> {
    let (first, rest) = data.split_first()?;
    Some((&choices[usize::from(first.wrapping_sub(b'a')) % choices.len()], rest))
}

/// A key that was taken must work: whoever imports it finds out now, not when it is needed.
fn must_work(bundle: &Value) {
    let kid = bundle["key"]["kid"].as_str().expect("a key has an id");
    let path = kid.split_once(".net/").expect("an id is an address").1;
    let (op, alg, length) = match (bundle["key"]["kty"].as_str(), bundle["key"]["crv"].as_str()) {
        (Some("RSA" | "RSA-HSM"), _) => ("sign", "RS256", 32),
        (_, Some("P-256")) => ("sign", "ES256", 32),
        (_, Some("P-384")) => ("sign", "ES384", 48),
        (_, Some("P-521")) => ("sign", "ES512", 64),
        (_, Some("P-256K")) => ("sign", "ES256K", 32),
        // Of a symmetric key nothing shows the size.
        _ => return,
    };
    let ops = bundle["key"]["key_ops"].as_array().expect("a key has operations");
    let enabled = bundle["attributes"]["enabled"] == json!(true);
    let timed = bundle["attributes"]["nbf"].is_u64() || bundle["attributes"]["exp"].is_u64();
    if enabled && !timed && ops.iter().any(|known| known == op) {
        let body = json!({"alg": alg, "value": b64(&vec![1; length])});
        let (status, answer) = send("POST", &format!("{path}/{op}"), body.to_string().as_bytes());
        assert_eq!(status, 200, "an imported key does not {op}: {answer}");
    }
}

/// A JWK in an import request.
fn import(data: &[u8]) {
    if let (200, bundle) = send("PUT", "keys/imported", data) {
        must_work(&bundle);
    }
}

/// A `.byok` file; the first byte says what it should hold.
fn byok(data: &[u8]) {
    let kinds = [json!({"kty": "RSA-HSM"}), json!({"kty": "EC-HSM", "crv": "P-256"}), json!({"kty": "oct-HSM"})];
    let Some((kind, blob)) = choose(&kinds, data) else { return };
    // The id of the key for imports is known to the scene only, so it is put in before the file is encoded.
    let blob = String::from_utf8_lossy(blob).replace("@kek@", &kek());
    let mut key = kind.clone();
    key["key_hsm"] = json!(b64(blob.as_bytes()));
    if let (200, bundle) = send("PUT", "keys/imported", json!({"key": key}).to_string().as_bytes()) {
        must_work(&bundle);
    }
}

/// What comes out of a `.byok` file: PKCS#8, or the bytes of a symmetric key. The first byte says what it should be.
fn pkcs8(data: &[u8]) {
    let kinds = [
        (Family::Rsa, None),
        (Family::Oct, None),
        (Family::Ec, None),
        (Family::Ec, Some(Curve::P256)),
        (Family::Ec, Some(Curve::P384)),
        (Family::Ec, Some(Curve::P521)),
        (Family::Ec, Some(Curve::P256K)),
    ];
    let Some(((family, curve), target)) = choose(&kinds, data) else { return };
    if let Ok(imported) = parse_pkcs8(*family, *curve, &SecretBytes::new(target.to_vec())) {
        // What was taken goes out as JWK and comes in again as the same bytes.
        let jwk = jwk::export(imported.spec, &imported.private).expect("an imported key can be exported");
        let again = jwk::import(&jwk).expect("an exported key can be imported");
        assert_eq!(again.private.expose(), imported.private.expose());
        assert_eq!(again.public, imported.public);
    }
}

/// A release policy, a zero byte, claims.
fn policy(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (policy, claims) = (&data[..split], data.get(split + 1..).unwrap_or_default());
    let claims: Value = serde_json::from_slice(claims).unwrap_or_default();
    if release_allowed(policy, AUTHORITY, &claims).is_ok() {
        // There are no empty conditions: without claims nothing is allowed.
        assert_eq!(release_allowed(policy, AUTHORITY, &json!({})), Ok(false));
    }
}

/// What the `restore` operations get: after `a` and `b` a blob as it comes, after `c` and `d` what is inside a blob.
fn restore(data: &[u8]) {
    let choices = [(Kind::Key, false), (Kind::Secret, false), (Kind::Key, true), (Kind::Secret, true)];
    let Some(((kind, sealed), data)) = choose(&choices, data) else { return };
    let blob = if *sealed { seal_backup(*kind, data) } else { data.to_vec() };
    let body = json!({"value": b64(&blob)}).to_string();
    let (status, _) = send("POST", &format!("{}/restore", kind.collection()), body.as_bytes());
    assert!(*sealed || status != 200, "a blob that the service did not make was restored");
}

/// The operations on keys; the first byte says which.
fn use_key(data: &[u8]) {
    const PATHS: &[&str] = &[
        "keys/rsa/sign",
        "keys/rsa/verify",
        "keys/rsa/encrypt",
        "keys/rsa/decrypt",
        "keys/rsa/wrapkey",
        "keys/rsa/unwrapkey",
        "keys/ec/sign",
        "keys/ec/verify",
        "keys/p256k/sign",
        "keys/p256k/verify",
        "keys/oct/encrypt",
        "keys/oct/decrypt",
        "keys/oct/wrapkey",
        "keys/oct/unwrapkey",
        "keys/oct192/encrypt",
        "keys/oct192/decrypt",
        "keys/oct192/wrapkey",
        "keys/oct192/unwrapkey",
        "keys/rsa/securewrapkey",
        "keys/rsa/secureunwrapkey",
        "rng",
    ];
    let Some((path, body)) = choose(PATHS, data) else { return };
    send("POST", path, body);
}

/// Releases: after `a` a request, after `b` a request with this token, after `c` one with a token of the authority with these
/// claims.
fn release(data: &[u8]) {
    let Some((how, data)) = choose(&['a', 'b', 'c'], data) else { return };
    let body = match how {
        'a' => data.to_vec(),
        'b' => json!({"target": String::from_utf8_lossy(data)}).to_string().into_bytes(),
        _ => json!({"target": attest(data)}).to_string().into_bytes(),
    };
    if let (200, _) = send("POST", "keys/oct/release", &body) {
        // The scene's policy, read anew.
        assert_eq!(*how, 'c', "no token of the authority, and the key went");
        let claims: Value = serde_json::from_slice(data).expect("claims are JSON");
        let debugged = &claims["debug"];
        assert!(*debugged == json!(false), "the key went in spite of {claims}");
    }
}

/// The other bodies of the data plane; the first byte says which.
fn change(data: &[u8]) {
    const ROUTES: &[(&str, &str)] = &[
        ("PATCH", "keys/ec"),
        ("PATCH", "keys/oct"),
        ("PUT", "secrets/s"),
        ("PATCH", "secrets/s"),
        ("POST", "keys/rsa/rotate"),
    ];
    let Some(((method, path), body)) = choose(ROUTES, data) else { return };
    send(method, path, body);
}

/// A method, a space, a path with a query, a line feed, a body.
fn request(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, body) = (&data[..split], data.get(split + 1..).unwrap_or_default());
    let Some((method, path)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else { return };
    send(method, path, body);
}

/// Decodes; what decodes must survive being encoded.
fn decode<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes) {
        let again = codec::encode(&value).expect("what was decoded can be encoded");
        assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
    }
}

/// Stored forms; the first byte says which.
fn codec(data: &[u8]) {
    const FORMS: &[Target] = &[
        |data| drop(Entry::from_bytes(data).map(|entry| Command::decode(entry.cmd, entry.cmd_v, &entry.body))),
        decode::<Entry>,
        decode::<Outcome>,
        decode::<records::World>,
        decode::<records::Vault>,
        decode::<records::ResourceGroup>,
        decode::<records::RoleAssignment>,
        decode::<records::Head>,
        decode::<records::DeletedHead>,
        decode::<records::Application>,
        decode::<records::User>,
        decode::<records::Group>,
        decode::<records::Tenant>,
        decode::<records::Subscription>,
        decode::<records::TokenKey>,
        decode::<records::Notified>,
        decode::<records::Notice>,
        decode::<records::Event>,
        decode::<records::Remembered>,
        decode::<records::Answered>,
    ];
    if let Some((form, bytes)) = choose(FORMS, data) {
        form(bytes);
    }
}

/// A state with a vault in it.
fn small_state() -> MemKv {
    let id = |byte: u8| Id128([byte; 16]);
    let (tenant, subscription) = (id(1), id(3));
    let commands = [
        Command::InitWorld(InitWorld { world: id(9), region: "local".into() }),
        Command::PutSubscription(PutSubscription { subscription, tenant, display_name: "S".into() }),
        Command::PutResourceGroup(PutResourceGroup {
            subscription,
            name: "g".into(),
            location: "local".into(),
            tags: Tags::new(),
        }),
        Command::CreateVault(CreateVault {
            id: id(7),
            name: VaultName::parse("demo").expect("a good name"),
            display_name: "demo".into(),
            tenant,
            subscription,
            group: "g".into(),
            location: "local".into(),
            retention_days: 7,
            purge_protection: false,
            settings: VaultSettings { premium: true, ..VaultSettings::default() },
            policies: vec![AccessPolicy::everything(tenant, id(2))],
        }),
    ];
    let mut kv = MemKv::default();
    for (index, command) in (1..).zip(&commands) {
        let entry = Entry::new(id(100 + index as u8), Actor::System, 1_000, command, vec![vec![0xee; 4]]);
        let outcome = apply_entry(&mut kv, index, &entry.expect("a command can be encoded"));
        assert_eq!(outcome, Ok(Outcome::Done));
    }
    kv
}

/// Commands, each as: number, actor, hours, blobs, length of the body (one byte each but the last, two), body. Two replicas
/// come to the same state, and a retry to the same outcome.
fn apply(mut data: &[u8]) {
    static STATE: OnceLock<MemKv> = OnceLock::new();
    let mut kv = STATE.get_or_init(small_state).clone();
    let mut other = kv.clone();
    let (mut index, mut time_ms) = (4, 1_000);
    while let [cmd, actor, hours, blobs, low, high, rest @ ..] = data {
        let (body, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
        data = rest;
        index += 1;
        time_ms += u64::from(*hours) * 3_600_000;
        let entry = Entry {
            cmd: u16::from(*cmd),
            cmd_v: 1,
            request_id: Id128([index as u8; 16]),
            actor: match actor {
                b's' => Actor::System,
                oid => Actor::Principal { tenant: Id128([1; 16]), oid: Id128([*oid; 16]) },
            },
            time_ms,
            body: body.to_vec(),
            blobs: vec![vec![0xcc; 3]; usize::from(*blobs % 4)],
        };
        let Ok(outcome) = apply_entry(&mut kv, index, &entry) else { return };
        assert_eq!(apply_entry(&mut other, index, &entry), Ok(outcome.clone()));
        assert!(kv == other, "two replicas differ after {entry:?}");
        let mut retried = kv.clone();
        assert_eq!(apply_entry(&mut retried, index + 1, &entry), Ok(outcome), "a retry of {entry:?}");
    }
}

/// `message ^ exponent mod n`, all big-endian: RSA without padding. `None` when the message is not below the modulus.
fn raw_rsa(n: &[u8], exponent: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, n.len() as u32 * 8).ok();
    let modulus = Option::from(Odd::new(number(n)?))?;
    let exponent = BoxedUint::from_be_slice(exponent, exponent.len() as u32 * 8).ok()?;
    let message = number(message)?;
    if message >= number(n)? {
        return None;
    }
    let form = BoxedMontyForm::new(message, &BoxedMontyParams::new(modulus));
    Some(form.pow(&exponent).retrieve().to_be_bytes().to_vec())
}

/// Bytes cut or filled with zeros to this length.
fn block(length: usize, bytes: &[u8]) -> Vec<u8> {
    let mut block = bytes.to_vec();
    block.resize(length, 0);
    block
}

/// `d` of the fixed RSA key.
fn private_exponent() -> &'static [u8] {
    static D: OnceLock<Vec<u8>> = OnceLock::new();
    D.get_or_init(|| {
        let spec = KeySpec::Rsa { bits: 2048 };
        let made = fixed_key(spec).expect("a constant key");
        let jwk = jwk::export(spec, &made.private).expect("a constant key");
        jwk.d.expect("a private key").expose().to_vec()
    })
}

/// What makes of `first byte || seed || data` a block of OAEP (RFC 8017 section 7.1.1 step 2 e to i), whatever is in it.
fn mask<D: Digest>(block: &mut [u8]) {
    let mgf1 = |seed: &[u8]| -> Vec<u8> {
        let hash = |counter: u32| D::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
        (0..16).flat_map(|counter| hash(counter).to_vec()).collect()
    };
    let (_, rest) = block.split_at_mut(1);
    let (seed, data) = rest.split_at_mut(<D as Digest>::output_size());
    let xor = |to: &mut [u8], by: &[u8]| to.iter_mut().zip(by).for_each(|(byte, mask)| *byte ^= mask);
    xor(data, &mgf1(seed));
    xor(seed, &mgf1(data));
}

/// Both libraries on the same key.
fn both(spec: KeySpec) -> [Arc<dyn LoadedKey>; 2] {
    let made = fixed_key(spec).expect("a constant key");
    [&Hybrid as &dyn CryptoProvider, &RustCrypto].map(|provider| provider.load(spec, &made.private).expect("loads"))
}

/// One library against the other on RSA. The input is the padded block (that of OAEP before it is masked), of which the
/// signature or ciphertext is made: nothing else could reach the padding. The first byte says which algorithm; before the block of a signature comes the
/// digest.
fn rsa(data: &[u8]) {
    static KEY: OnceLock<[Arc<dyn LoadedKey>; 2]> = OnceLock::new();
    let [serving, checking] = KEY.get_or_init(|| both(KeySpec::Rsa { bits: 2048 }));
    let PublicKey::Rsa { n, e } = serving.public() else { unreachable!("the key is RSA") };
    let signatures: Vec<SignAlg> = SignAlg::ALL.iter().copied().filter(|alg| alg.family() == Family::Rsa).collect();
    let ciphers = [EncAlg::Rsa15, EncAlg::RsaOaep, EncAlg::RsaOaep256];
    let choices: Vec<usize> = (0..signatures.len() + ciphers.len()).collect();
    let Some((choice, data)) = choose(&choices, data) else { return };
    if let Some(alg) = signatures.get(*choice) {
        let (digest, data) = data.split_at(alg.digest_bytes().unwrap_or(20).min(data.len()));
        let Some(signature) = raw_rsa(n, private_exponent(), &block(n.len(), data)) else { return };
        let (one, two) = (serving.verify(*alg, digest, &signature), checking.verify(*alg, digest, &signature));
        assert_eq!(one, two, "{alg} of {data:?}");
        return;
    }
    let alg = ciphers[choice - signatures.len()];
    let mut block = block(n.len(), data);
    match alg {
        EncAlg::RsaOaep => mask::<Sha1>(&mut block),
        EncAlg::RsaOaep256 => mask::<Sha256>(&mut block),
        _ => {}
    }
    let Some(ciphertext) = raw_rsa(n, e, &block) else { return };
    let none = CipherParams::default();
    match (serving.decrypt(alg, &ciphertext, &none), checking.decrypt(alg, &ciphertext, &none)) {
        (Ok(one), Ok(two)) => assert_eq!(one.expose(), two.expose(), "{alg} of {block:?}"),
        (Err(_), Err(_)) => {}
        // What the second library does not refuse, on purpose (crates/crypto/src/provider/rust_crypto.rs).
        (Err(_), Ok(_)) => assert!(alg == EncAlg::Rsa15 || block[0] != 0, "{alg} of {block:?}"),
        (Ok(_), Err(_)) => panic!("{alg} of {block:?}: only the first library takes it"),
    }
}

/// One library against the other on curves: the first byte says which, then come the digest and the signature.
fn curves(data: &[u8]) {
    static KEYS: OnceLock<Vec<[Arc<dyn LoadedKey>; 2]>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| Curve::ALL.iter().map(|curve| both(KeySpec::Ec { curve: *curve })).collect());
    let Some(([serving, checking], data)) = choose(keys, data) else { return };
    let KeySpec::Ec { curve } = serving.public().spec() else { unreachable!("the keys are of curves") };
    let alg = curve.sign_alg();
    let (digest, signature) = data.split_at(alg.digest_bytes().unwrap_or_default().min(data.len()));
    assert_eq!(serving.verify(alg, digest, signature), checking.verify(alg, digest, signature), "{alg}");
}

/// One library against the other on symmetric ciphers. The first byte says which, the second which parameters there are;
/// they come next, the rest is the ciphertext.
fn ciphers(data: &[u8]) {
    static KEYS: OnceLock<Vec<[Arc<dyn LoadedKey>; 2]>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| [128, 192, 256].map(|bits| both(KeySpec::Oct { bits })).into());
    let algs: Vec<EncAlg> = EncAlg::ALL.iter().copied().filter(|alg| alg.family() == Family::Oct).collect();
    let Some((alg, data)) = choose(&algs, data) else { return };
    let Some((shape, mut rest)) = data.split_first() else { return };
    let mut take = |bit: u8, length: usize| {
        let wanted = shape & bit != 0;
        let (taken, left) = rest.split_at(if wanted { length.min(rest.len()) } else { 0 });
        rest = left;
        wanted.then_some(taken)
    };
    let iv = take(1, if shape & 8 != 0 { 16 } else { 12 });
    let (tag, aad) = (take(2, 16), take(4, 8));
    let params = CipherParams { iv, aad, tag };
    for [serving, checking] in keys {
        let result = |key: &Arc<dyn LoadedKey>| key.decrypt(*alg, rest, &params).map(|plain| plain.expose().to_vec());
        assert_eq!(result(serving), result(checking), "{alg} of {:?}", serving.public().spec());
    }
}

/// A signed token as the service gets it, and one whose payload is given.
fn token(data: &[u8]) {
    static KEY: OnceLock<[Arc<dyn LoadedKey>; 2]> = OnceLock::new();
    let [key, _] = KEY.get_or_init(|| both(KeySpec::Rsa { bits: 2048 }));
    let Some((how, data)) = choose(&['a', 'b'], data) else { return };
    match how {
        'a' => {
            let text = String::from_utf8_lossy(data);
            let _ = jwt::parse_unverified_kid(&text);
            assert!(jwt::verify_rs256(&text, key.public()).is_err(), "a forged token");
        }
        _ => {
            let signer = jwt::JwtSigner::new(key.clone(), "kid".into()).expect("an RSA key");
            let token = signer.sign(data).expect("it signs");
            if let Ok(jws) = jwt::verify_rs256(&token, key.public()) {
                assert_eq!(jws.payload, data);
            }
            let forged = format!("{}{}", &token[..token.len() - 4], URL_SAFE_NO_PAD.encode([1, 2, 3]));
            assert!(jwt::verify_rs256(&forged, key.public()).is_err(), "a forged signature");
        }
    }
}

//! A service in this process with known keys, and requests to it.

use actix_web::http::{Method, Uri};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use claviger_api::attestation::Authority;
use claviger_api::testing::{World, HOST, VERSION};
use claviger_crypto::jwk::{self, Imported, PrivateJwk};
use claviger_crypto::provider::{CryptoProvider, Generated, Hybrid, LoadedKey};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};
use claviger_types::name::Kind;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::runtime::Runtime;

/// The RSA key of every scene, so that ciphertexts and signatures in the corpus are good ones: a throw-away, made for this.
const RSA: &[u8] = include_bytes!("../keys/rsa-2048.pk8");

/// Who vouches for environments.
pub(crate) const AUTHORITY: &str = "https://a.test";

/// Requests after which the service is made anew: its state grows with every key that a request makes.
const REQUESTS_MAX: u32 = 20_000;

pub(crate) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key pair of a size or curve: the same bytes in every run for RSA-2048, curves and symmetric keys.
pub(crate) fn fixed_key(spec: KeySpec) -> Result<Generated, CryptoError> {
    let secret = |length: usize| Some(SecretBytes::new(vec![7; length]));
    let Imported { public, private, .. } = match spec {
        KeySpec::Rsa { bits: 2048 } => {
            let private = SecretBytes::new(RSA.to_vec());
            let public = Hybrid.load(spec, &private)?.public().clone();
            return Ok(Generated { public, private });
        }
        KeySpec::Rsa { .. } => return Hybrid.generate(spec),
        KeySpec::Ec { curve } => jwk::import(&PrivateJwk {
            crv: Some(curve),
            // Below the order of every curve.
            d: Some(SecretBytes::new([vec![0], vec![7; curve.field_bytes() - 1]].concat())),
            ..PrivateJwk::new(Family::Ec)
        })?,
        KeySpec::Oct { bits } => {
            jwk::import(&PrivateJwk { k: secret(usize::from(bits) / 8), ..PrivateJwk::new(Family::Oct) })?
        }
    };
    Ok(Generated { public, private })
}

/// The service's provider, but that it makes each key once: searching for primes would be all that a run does.
#[derive(Default)]
struct Ready(Mutex<HashMap<KeySpec, (PublicKey, Vec<u8>)>>);

impl CryptoProvider for Ready {
    fn name(&self) -> &'static str {
        "ready"
    }

    fn generate(&self, spec: KeySpec) -> Result<Generated, CryptoError> {
        let mut keys = self.0.lock().expect("no thread panics and goes on");
        if let Some((public, private)) = keys.get(&spec) {
            return Ok(Generated { public: public.clone(), private: SecretBytes::new(private.clone()) });
        }
        let made = fixed_key(spec)?;
        keys.insert(spec, (made.public.clone(), made.private.expose().to_vec()));
        Ok(made)
    }

    fn load(&self, spec: KeySpec, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
        Hybrid.load(spec, private)
    }

    fn verify(&self, key: &PublicKey, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        Hybrid.verify(key, alg, digest, signature)
    }

    fn encrypt(&self, key: &PublicKey, alg: EncAlg, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Hybrid.encrypt(key, alg, plaintext)
    }
}

/// One provider for all scenes, so that its keys are made once.
fn provider() -> Arc<dyn CryptoProvider> {
    static PROVIDER: OnceLock<Arc<Ready>> = OnceLock::new();
    PROVIDER.get_or_init(Arc::default).clone()
}

/// The authority's key.
fn authority_key() -> Arc<dyn LoadedKey> {
    static KEY: OnceLock<Arc<dyn LoadedKey>> = OnceLock::new();
    KEY.get_or_init(|| {
        let spec = KeySpec::Ec { curve: Curve::P256 };
        let made = fixed_key(spec).expect("a constant key");
        Hybrid.load(spec, &made.private).expect("a constant key")
    })
    .clone()
}

/// A token of the authority with these claims, which need not be JSON.
pub(crate) fn attest(claims: &[u8]) -> String {
    let signed = format!("{}.{}", b64(br#"{"alg":"ES256"}"#), b64(claims));
    let digest = Sha256::digest(signed.as_bytes());
    let signature = authority_key().sign(SignAlg::Es256, &digest).expect("a constant key signs");
    format!("{signed}.{}", b64(&signature))
}

/// A release policy as requests have it: environments of the authority that are not under a debugger.
fn release_policy() -> Value {
    let policy = json!({"version": "1.0.0", "anyOf": [
        {"authority": AUTHORITY, "allOf": [{"claim": "debug", "equals": false}]},
    ]});
    json!({"data": b64(policy.to_string().as_bytes()), "contentType": "application/json"})
}

/// The service, with what is in its vault: the keys `rsa`, `ec`, `p256k`, `oct` (exportable), `oct192`, `kek` (for imports)
/// and the secret `s`.
pub(crate) struct Scene {
    world: World,
    token: String,
    kek: String,
    requests: u32,
}

impl Scene {
    async fn new() -> Self {
        let PublicKey::Ec { x, y, .. } = authority_key().public().clone() else { unreachable!("a constant key") };
        let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": b64(&x), "y": b64(&y)}]});
        let authority = Authority::from_jwks(AUTHORITY, jwks.to_string().as_bytes()).expect("a constant key set");
        let world = World::start_on(provider(), |config| config.authorities = vec![authority]).await;
        let exportable = json!({"exportable": true});
        let kek = world.ok("POST", "keys/kek/create", json!({"kty": "RSA-HSM", "key_ops": ["import"]})).await;
        for (name, body) in [
            ("rsa", json!({"kty": "RSA"})),
            ("ec", json!({"kty": "EC"})),
            ("p256k", json!({"kty": "EC", "crv": "P-256K"})),
            ("oct", json!({"kty": "oct-HSM", "attributes": exportable, "release_policy": release_policy()})),
            ("oct192", json!({"kty": "oct-HSM", "key_size": 192})),
        ] {
            world.ok("POST", &format!("keys/{name}/create"), body).await;
        }
        world.ok("PUT", "secrets/s", json!({"value": "v"})).await;
        let kek = kek["key"]["kid"].as_str().expect("a key has an id").to_owned();
        Self { token: world.token(world.owner), world, kek, requests: 0 }
    }

    /// A request that may be anything.
    async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let Ok(method) = Method::from_bytes(method.as_bytes()) else { return (0, Value::Null) };
        let separator = if path.contains('?') { '&' } else { '?' };
        let uri = format!("/{path}{separator}api-version={VERSION}");
        // What is no URI is refused before the service sees it.
        if uri.parse::<Uri>().is_err() {
            return (0, Value::Null);
        }
        self.requests += 1;
        let (status, answer) = self.world.send_raw(HOST, &self.token, method.clone(), &uri, body.to_vec()).await;
        // 501 is for what Azure has and this release does not.
        let fine = (200..500).contains(&status) || status == 501;
        assert!(fine, "{method} {uri}: {status} {answer}");
        if status >= 400 {
            let error = &answer["error"];
            assert!(error["code"].is_string() && error["message"].is_string(), "{method} {uri}: {status} {answer}");
        }
        (status, answer)
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("threads can be made")
    })
}

thread_local! {
    static SCENE: RefCell<Option<Scene>> = const { RefCell::new(None) };
}

/// Does something with the scene; libFuzzer has one thread.
fn with_scene<T>(work: impl AsyncFnOnce(&mut Scene) -> T) -> T {
    SCENE.with_borrow_mut(|slot| {
        runtime().block_on(async {
            if let Some(old) = slot.take_if(|scene| scene.requests >= REQUESTS_MAX) {
                old.world.stop().await;
            }
            if slot.is_none() {
                *slot = Some(Scene::new().await);
            }
            let scene = slot.as_mut().expect("made above");
            work(scene).await
        })
    })
}

/// Sends a request in the name of the vault's owner; answers status and body.
///
/// # Panics
/// When the answer is a fault of the service, or a refusal without its envelope.
pub(crate) fn send(method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    with_scene(async |scene| scene.send(method, path, body).await)
}

/// A backup blob with this inside, as if the service had made it.
pub(crate) fn seal_backup(kind: Kind, plain: &[u8]) -> Vec<u8> {
    with_scene(async |scene| scene.world.seal_backup(kind, plain))
}

/// The id of the key for imports, which differs from run to run.
pub(crate) fn kek() -> String {
    with_scene(async |scene| scene.kek.clone())
}

//! The same as the tool of crates/crypto/benches/timing, but through the whole request: whether the answer to a ciphertext
//! that does not open takes the same time, whatever was wrong with it.
//!
//! `cargo bench -p claviger-api --features fuzzing --bench timing` measures everything, `-- RSA 5000` the rows that contain
//! `RSA`, with 5,000 requests for each class.

#![allow(missing_docs)]

#[path = "../../crypto/benches/timing/cases.rs"]
mod cases;
#[path = "../../crypto/benches/timing/stat.rs"]
mod stat;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use cases::{cases, control, Case, Input};
use claviger_api::testing::World;
use claviger_crypto::jwk;
use claviger_types::alg::KeySpec;
use serde_json::{json, Value};
use stat::{measure, report};

/// Requests for each class.
const CALLS: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this too, and must not take minutes.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let mut words = arguments.iter().filter(|argument| !argument.starts_with("--"));
    let filter = words.next().cloned().unwrap_or_default();
    let calls = words.next().and_then(|calls| calls.parse().ok()).unwrap_or(CALLS);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().expect("threads can be made");
    let world = runtime.block_on(World::start());
    let token = world.token(world.owner);
    let refused = |path: &str, body: &Value| {
        let request = world.send_as(&token, "POST", path, body.to_string().into_bytes());
        let (status, answer) = runtime.block_on(request);
        assert_eq!(status, 400, "{answer}");
        true
    };
    for case in cases().iter().filter(|case| case.alg.as_str().contains(&filter)) {
        let name = case.alg.as_str().replace('_', "-");
        runtime.block_on(world.ok("PUT", &format!("keys/{name}"), import(case)));
        let op = if case.alg.is_key_wrap() { "unwrapkey" } else { "decrypt" };
        let path = format!("keys/{name}/{op}");
        let times = measure(&case.classes, calls, |input| refused(&path, &body(case.alg.as_str(), input)));
        report(&format!("{} through the handler", case.alg), &times);
    }
    report(
        "control",
        &measure(&control(), calls, |input| refused("keys/x/decrypt", &json!({"value": b64(&input.ciphertext)}))),
    );
    runtime.block_on(world.stop());
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The case's key, as a client imports it.
fn import(case: &Case) -> Value {
    let jwk = jwk::export(case.spec, &case.private).expect("a good key");
    let secret = |part: &Option<claviger_crypto::secret::SecretBytes>| part.as_ref().map(|bytes| b64(bytes.expose()));
    let key = match case.spec {
        KeySpec::Oct { .. } => json!({"kty": "oct-HSM", "k": secret(&jwk.k)}),
        _ => json!({
            "kty": "RSA", "n": jwk.n.as_deref().map(b64), "e": jwk.e.as_deref().map(b64), "d": secret(&jwk.d),
            "p": secret(&jwk.p), "q": secret(&jwk.q), "dp": secret(&jwk.dp), "dq": secret(&jwk.dq), "qi": secret(&jwk.qi),
        }),
    };
    json!({"key": key})
}

fn body(alg: &str, input: &Input) -> Value {
    let optional = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(b64);
    json!({
        "alg": alg,
        "value": b64(&input.ciphertext),
        "iv": optional(&input.iv),
        "tag": optional(&input.tag),
        "aad": optional(&input.aad),
    })
}

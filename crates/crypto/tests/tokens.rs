//! Tokens: what the signer makes the verifier takes, and the classic attacks on JSON Web Signatures fail.

use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use base64::Engine;
use claviger_crypto::jwt::{kid_of, parse_unverified_kid, verify_rs256, JwtSigner, MAX_TOKEN_LEN};
use claviger_crypto::provider::{default_provider, LoadedKey};
use claviger_crypto::CryptoError;
use claviger_types::alg::{Curve, KeySpec, PublicKey, SignAlg};
use sha2::{Digest, Sha256};
use std::sync::Arc;

fn key(spec: KeySpec) -> Arc<dyn LoadedKey> {
    let provider = default_provider();
    let made = provider.generate(spec).unwrap();
    provider.load(spec, &made.private).unwrap()
}

fn rsa() -> Arc<dyn LoadedKey> {
    key(KeySpec::Rsa { bits: 2048 })
}

/// A token with any header, properly signed.
fn forge(key: &dyn LoadedKey, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
    let signature = key.sign(SignAlg::Rs256, &Sha256::digest(&signed)).unwrap();
    format!("{signed}.{}", BASE64URL.encode(signature))
}

#[test]
fn round_trip() {
    let signer = JwtSigner::new(rsa(), "kid-1".into()).unwrap();
    let token = signer.sign(br#"{"sub":"x"}"#).unwrap();
    let header = BASE64URL.decode(token.split('.').next().unwrap()).unwrap();
    assert_eq!(header, br#"{"typ":"JWT","alg":"RS256","x5t":"kid-1","kid":"kid-1"}"#);
    assert_eq!(parse_unverified_kid(&token).as_deref(), Some("kid-1"));
    let verified = verify_rs256(&token, signer.public()).unwrap();
    assert_eq!((verified.kid.as_str(), verified.payload.as_slice()), ("kid-1", br#"{"sub":"x"}"#.as_slice()));
    assert_eq!(verify_rs256(&token, rsa().public()).unwrap_err(), CryptoError::Failed, "another key");
}

#[test]
fn every_changed_character_is_noticed() {
    let signer = JwtSigner::new(rsa(), "k".into()).unwrap();
    let token = signer.sign(b"{}").unwrap();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(verify_rs256(&changed, signer.public()).unwrap_err(), CryptoError::Failed, "character {at}");
    }
}

#[test]
fn headers_that_ask_for_something_else_are_refused() {
    let key = rsa();
    let good = forge(&*key, r#"{"alg":"RS256","kid":"k"}"#, "{}");
    assert!(verify_rs256(&good, key.public()).is_ok());
    for header in [
        r#"{"alg":"none","kid":"k"}"#,
        r#"{"alg":"HS256","kid":"k"}"#,
        r#"{"alg":"PS256","kid":"k"}"#,
        r#"{"alg":"rs256","kid":"k"}"#,
        r#"{"alg":["RS256"],"kid":"k"}"#,
        r#"{"kid":"k"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":7}"#,
        r#"{"alg":"RS256","kid":"k","crit":["exp"]}"#,
        r#"{"alg":"RS256","kid":"k","crit":null}"#,
        r#"["RS256"]"#,
        "",
    ] {
        let token = forge(&*key, header, "{}");
        assert_eq!(verify_rs256(&token, key.public()).unwrap_err(), CryptoError::Failed, "{header}");
        assert_eq!(parse_unverified_kid(&token), None, "{header}");
    }
}

#[test]
fn other_shapes_are_refused() {
    let key = rsa();
    let good = forge(&*key, r#"{"alg":"RS256","kid":"k"}"#, "{}");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        signed.into(),
        format!("{signed}."),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!(".{good}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
    ] {
        assert_eq!(verify_rs256(&token, key.public()).unwrap_err(), CryptoError::Failed, "{token}");
    }
    let long = forge(&*key, r#"{"alg":"RS256","kid":"k"}"#, &"x".repeat(MAX_TOKEN_LEN));
    assert_eq!(verify_rs256(&long, key.public()).unwrap_err(), CryptoError::Failed);
}

#[test]
fn only_rsa_keys() {
    let ec = key(KeySpec::Ec { curve: Curve::P256 });
    assert_eq!(verify_rs256("a.b.c", ec.public()).unwrap_err(), CryptoError::Unsupported);
    assert_eq!(JwtSigner::new(ec, "k".into()).err(), Some(CryptoError::Unsupported));
}

/// The thumbprint of RFC 7638 section 3.1, cut to 20 bytes.
#[test]
fn thumbprint_of_the_rfc() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhM\
             stn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n\
             91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let key = PublicKey::Rsa { n: BASE64URL.decode(n).unwrap(), e: vec![1, 0, 1] };
    let full = BASE64URL.decode("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs").unwrap();
    assert_eq!(kid_of(&key), BASE64URL.encode(&full[..20]));
}

//! No byte string, however strange, makes a parser of the crate panic; and next to nothing random is taken for good.

mod common;

use claviger_crypto::byok::{parse_pkcs8, unwrap_transfer};
use claviger_crypto::jwk::{export, import, PrivateJwk};
use claviger_crypto::jwt::{parse_unverified_kid, verify_rs256};
use claviger_crypto::provider::{CryptoProvider, Hybrid, LoadedKey};
use claviger_crypto::seal::{sealed_with, Aad, SealKey};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use claviger_types::alg::{Curve, Family, KeySpec, PublicKey, SignAlg};
use common::{digest, has_alg, secret, PROVIDERS};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::{Arc, OnceLock};

fn rsa() -> &'static (PublicKey, SecretBytes, Arc<dyn LoadedKey>) {
    static KEY: OnceLock<(PublicKey, SecretBytes, Arc<dyn LoadedKey>)> = OnceLock::new();
    KEY.get_or_init(|| {
        let spec = KeySpec::Rsa { bits: 2048 };
        let made = Hybrid.generate(spec).unwrap();
        let key = Hybrid.load(spec, &made.private).unwrap();
        (made.public, made.private, key)
    })
}

/// Numbers that arithmetic trips over: empty, tiny, all ones, and of the right length, odd, with the top bit.
fn number() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..4),
        vec(any::<u8>(), 0..600),
        (select(vec![16usize, 24, 32, 48, 66, 128, 256, 384, 512]), any::<u8>(), any::<u8>()).prop_map(
            |(length, fill, last)| {
                let mut bytes = vec![fill; length];
                bytes[0] |= 0x80;
                bytes[length - 1] = last | 1;
                bytes
            }
        ),
        vec(any::<u8>(), 256).prop_map(|mut bytes| {
            bytes[0] |= 0x80;
            bytes[255] |= 1;
            bytes
        }),
    ]
}

fn hidden(bytes: Option<Vec<u8>>) -> Option<SecretBytes> {
    bytes.map(SecretBytes::new)
}

fn any_jwk() -> impl Strategy<Value = PrivateJwk> {
    let part = || of(number());
    let exponent = prop_oneof![Just(Some(vec![1, 0, 1])), Just(Some(vec![3])), part()];
    (
        select(vec![Family::Rsa, Family::Ec, Family::Oct]),
        of(select(Curve::ALL.to_vec())),
        (part(), exponent, part(), part(), part()),
        (part(), part(), part(), part(), part(), part()),
    )
        .prop_map(|(kty, crv, (n, e, d, p, q), (dp, dq, qi, x, y, k))| PrivateJwk {
            kty,
            crv,
            n,
            e,
            d: hidden(d),
            p: hidden(p),
            q: hidden(q),
            dp: hidden(dp),
            dq: hidden(dq),
            qi: hidden(qi),
            x,
            y,
            k: hidden(k),
        })
}

/// A PKCS#8 key with one byte changed, or cut, or rubbish.
fn almost_pkcs8() -> impl Strategy<Value = Vec<u8>> {
    let keys: Vec<Vec<u8>> = Curve::ALL
        .iter()
        .map(|curve| Hybrid.generate(KeySpec::Ec { curve: *curve }).unwrap().private.expose().to_vec())
        .chain([rsa().1.expose().to_vec()])
        .collect();
    let changed =
        (select(keys), any::<proptest::sample::Index>(), any::<u8>(), 0usize..3).prop_map(|(mut der, at, to, cut)| {
            let at = at.index(der.len());
            der[at] = to;
            der.truncate(der.len() - cut);
            der
        });
    prop_oneof![3 => changed, 1 => vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn jwk_import(jwk in any_jwk()) {
        let kty = jwk.kty;
        if let Ok(imported) = import(&jwk) {
            // Random RSA numbers do not fit together; any scalar below the order is an EC key, any bytes a symmetric
            // one.
            prop_assert!(kty != Family::Rsa);
            prop_assert!(export(imported.spec, &imported.private).is_ok());
        }
    }

    /// The recovery of primes has no checks of its own, so it sees what passed ours: odd n, d below it.
    #[test]
    fn jwk_import_without_primes(
        mut n in vec(any::<u8>(), 256),
        mut d in vec(any::<u8>(), 129..257),
        e in select(vec![vec![1, 0, 1], vec![3], vec![1, 0xff, 0xff, 0xff, 0xff]]),
        real in any::<bool>(),
    ) {
        n[0] |= 0x80;
        n[255] |= 1;
        d[0] |= 1;
        if let (PublicKey::Rsa { n: real_n, .. }, true) = (&rsa().0, real) {
            n.clone_from(real_n);
        }
        let jwk = PrivateJwk { n: Some(n), e: Some(e), d: hidden(Some(d)), ..PrivateJwk::new(Family::Rsa) };
        prop_assert_eq!(import(&jwk).unwrap_err(), CryptoError::BadKey);
    }

    #[test]
    fn pkcs8(bytes in almost_pkcs8(), crv in of(select(Curve::ALL.to_vec()))) {
        for kty in [Family::Rsa, Family::Ec, Family::Oct] {
            let target = secret(&bytes);
            if let Ok(imported) = parse_pkcs8(kty, crv, &target) {
                prop_assert!(Hybrid.load(imported.spec, &imported.private).is_ok());
            }
        }
        for spec in [KeySpec::Rsa { bits: 2048 }, KeySpec::Ec { curve: Curve::P256 }, KeySpec::Oct { bits: 256 }] {
            let _ = export(spec, &secret(&bytes));
            for provider in PROVIDERS {
                let _ = provider.load(spec, &secret(&bytes));
            }
        }
    }

    #[test]
    fn transfer_blobs(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(unwrap_transfer(rsa().2.as_ref(), &bytes).is_err());
    }

    #[test]
    fn sealed_records(mut bytes in vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let key = SealKey::from_parts([1; 16], secret(&[1; 32])).unwrap();
        if let (true, Some(head)) = (known, bytes.get_mut(..17)) {
            head.fill(1);
        }
        let _ = sealed_with(&bytes);
        prop_assert!(key.open(&Aad::new("x"), &bytes).is_err());
    }

    #[test]
    fn tokens(token in "([A-Za-z0-9_=+/-]{0,40}\\.){0,4}[A-Za-z0-9_-]{0,40}", text in ".{0,60}") {
        for token in [&token, &text] {
            let _ = parse_unverified_kid(token);
            prop_assert!(verify_rs256(token, &rsa().0).is_err());
        }
    }

    #[test]
    fn headers_of_tokens(
        header in "(\\{|\\[|\"|alg|RS256|kid|:|,|\\}|\\]|1|null|\\\\u00){0,12}",
        payload in vec(any::<u8>(), 0..30),
    ) {
        use base64::Engine;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let token = format!("{}.{}.{}", encode(header.as_bytes()), encode(&payload), encode(&[1; 256]));
        let _ = parse_unverified_kid(&token);
        prop_assert!(verify_rs256(&token, &rsa().0).is_err());
    }

    #[test]
    fn signatures_and_public_keys(n in number(), e in number(), x in number(), y in number(), signature in number()) {
        let keys = [PublicKey::Rsa { n, e }]
            .into_iter()
            .chain(Curve::ALL.iter().map(|curve| PublicKey::Ec { curve: *curve, x: x.clone(), y: y.clone() }));
        for key in keys {
            for alg in SignAlg::ALL {
                for provider in PROVIDERS.into_iter().filter(|provider| has_alg(*provider, *alg)) {
                    let verdict = provider.verify(&key, *alg, &digest(*alg, b"message"), &signature);
                    prop_assert!(!matches!(verdict, Ok(true)));
                }
            }
        }
    }
}

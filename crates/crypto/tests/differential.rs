//! One provider against the other: whatever one makes, the other must take, for every algorithm and kind of key.
//!
//! The fixed point of the design is that the stored form of a key belongs to neither library; these tests are where
//! that is held.

mod common;

use std::sync::Arc;

use claviger_crypto::provider::{CryptoProvider, LoadedKey};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use claviger_types::alg::{Curve, EncAlg, KeySpec, PublicKey, SignAlg};
use common::{digest, has_alg, has_curve, NO_PARAMS, PROVIDERS};

fn claims(provider: &dyn CryptoProvider, spec: KeySpec) -> bool {
    match spec {
        KeySpec::Rsa { .. } => true,
        KeySpec::Ec { curve } => has_curve(provider, curve),
        KeySpec::Oct { .. } => true,
    }
}

/// The key, loaded by every provider that claims its kind.
fn load_everywhere(
    spec: KeySpec,
    private: &SecretBytes,
    public: &PublicKey,
) -> Vec<(&'static dyn CryptoProvider, Arc<dyn LoadedKey>)> {
    let loaded: Vec<_> = PROVIDERS
        .into_iter()
        .filter(|provider| claims(*provider, spec))
        .map(|provider| (provider, provider.load(spec, private).unwrap()))
        .collect();
    for (provider, key) in &loaded {
        assert_eq!(key.public(), public, "{} sees another public key in {spec:?}", provider.name());
    }
    loaded
}

/// Signs with each and verifies with each; returns the number of pairs.
fn cross_sign(keys: &[(&'static dyn CryptoProvider, Arc<dyn LoadedKey>)], alg: SignAlg) -> usize {
    let input = digest(alg, b"message");
    let mut other = input.clone();
    other[0] ^= 1;
    let mut pairs = 0;
    for (signer, key) in keys.iter().filter(|(provider, _)| has_alg(*provider, alg)) {
        let signature = key.sign(alg, &input).unwrap();
        let public = key.public();
        match public {
            PublicKey::Rsa { n, .. } => assert_eq!(signature.len(), n.len()),
            PublicKey::Ec { curve, .. } => assert_eq!(signature.len(), 2 * curve.field_bytes()),
            PublicKey::Oct { .. } => panic!("not a key pair"),
        }
        for verifier in PROVIDERS.into_iter().filter(|provider| has_alg(*provider, alg)) {
            let names = format!("{alg}: {} to {}", signer.name(), verifier.name());
            let verify = |digest: &[u8], signature: &[u8]| verifier.verify(public, alg, digest, signature).unwrap();
            assert!(verify(&input, &signature), "{names}");
            assert!(!verify(&other, &signature), "{names}: another digest");
            let mut changed = signature.clone();
            changed[5] ^= 0x10;
            assert!(!verify(&input, &changed), "{names}: changed signature");
            assert!(!verify(&input, &signature[1..]), "{names}: short signature");
            assert!(!verify(&input, &[signature.as_slice(), &[0]].concat()), "{names}: long signature");
            assert!(!verify(&input, &[]), "{names}: empty signature");
            pairs += 1;
        }
        // A loaded key verifies by its public half, with the same verdicts.
        for (verifier, key) in keys.iter().filter(|(provider, _)| has_alg(*provider, alg)) {
            let names = format!("{alg}: {} to the key of {}", signer.name(), verifier.name());
            assert!(key.verify(alg, &input, &signature).unwrap(), "{names}");
            assert!(!key.verify(alg, &other, &signature).unwrap(), "{names}: another digest");
            assert!(!key.verify(alg, &input, &signature[1..]).unwrap(), "{names}: short signature");
        }
    }
    pairs
}

/// Encrypts with each and decrypts with each; returns the number of pairs.
fn cross_encrypt(keys: &[(&'static dyn CryptoProvider, Arc<dyn LoadedKey>)], alg: EncAlg) -> usize {
    let mut pairs = 0;
    let PublicKey::Rsa { n, .. } = keys[0].1.public() else { panic!("not an RSA key") };
    let longest = n.len()
        - match alg {
            EncAlg::Rsa15 => 11,
            EncAlg::RsaOaep => 42,
            EncAlg::RsaOaep256 => 66,
            _ => panic!("not for RSA"),
        };
    for encryptor in PROVIDERS {
        for plaintext in [vec![], b"k".to_vec(), vec![0; 32], vec![0xa5; longest]] {
            let ciphertext = encryptor.encrypt(keys[0].1.public(), alg, &plaintext).unwrap();
            for (decryptor, key) in keys {
                let opened = key.decrypt(alg, &ciphertext, &NO_PARAMS).unwrap();
                assert_eq!(opened.expose(), plaintext, "{alg}: {} to {}", encryptor.name(), decryptor.name());
                for wrong in [&ciphertext[1..], &[], &[ciphertext.as_slice(), &[0]].concat(), &vec![0xff; n.len()]] {
                    assert_eq!(
                        key.decrypt(alg, wrong, &NO_PARAMS).unwrap_err(),
                        CryptoError::Failed,
                        "{}",
                        decryptor.name()
                    );
                }
                pairs += 1;
            }
        }
        let refused = encryptor.encrypt(keys[0].1.public(), alg, &vec![0; longest + 1]);
        assert_eq!(refused.unwrap_err(), CryptoError::BadLength);
    }
    pairs
}

const RSA_ALGS: [SignAlg; 7] =
    [SignAlg::Rs256, SignAlg::Rs384, SignAlg::Rs512, SignAlg::Ps256, SignAlg::Ps384, SignAlg::Ps512, SignAlg::RsNull];

fn rsa_everywhere(bits: u16, makers: &[&'static dyn CryptoProvider]) {
    let spec = KeySpec::Rsa { bits };
    for maker in makers {
        let made = maker.generate(spec).unwrap();
        let PublicKey::Rsa { n, e } = &made.public else { panic!("not an RSA key") };
        assert_eq!((n.len() * 8, n[0] >> 7, e.as_slice()), (usize::from(bits), 1, [1, 0, 1].as_slice()));
        let keys = load_everywhere(spec, &made.private, &made.public);
        assert_eq!(keys.len(), 3);
        for alg in RSA_ALGS {
            // RSNULL: two signers, two verifiers; the others: three and three.
            assert_eq!(cross_sign(&keys, alg), if alg == SignAlg::RsNull { 4 } else { 9 });
        }
        for alg in [EncAlg::Rsa15, EncAlg::RsaOaep, EncAlg::RsaOaep256] {
            assert_eq!(cross_encrypt(&keys, alg), 3 * 4 * 3);
        }
    }
}

#[test]
fn rsa_2048_made_by_each() {
    rsa_everywhere(2048, &PROVIDERS);
}

#[test]
fn rsa_3072_made_by_each_library() {
    rsa_everywhere(3072, &PROVIDERS[..2]);
}

#[test]
fn rsa_4096_made_by_aws_lc() {
    rsa_everywhere(4096, &PROVIDERS[..1]);
}

#[test]
fn elliptic_curves_made_by_each() {
    for curve in Curve::ALL {
        let spec = KeySpec::Ec { curve: *curve };
        let capable: Vec<_> = PROVIDERS.into_iter().filter(|provider| claims(*provider, spec)).collect();
        for maker in &capable {
            for _ in 0..20 {
                let made = maker.generate(spec).unwrap();
                let keys = load_everywhere(spec, &made.private, &made.public);
                assert_eq!(cross_sign(&keys, curve.sign_alg()), capable.len() * capable.len());
            }
        }
    }
}

#[test]
fn rsa_signatures_without_randomness_are_equal() {
    let spec = KeySpec::Rsa { bits: 2048 };
    let made = PROVIDERS[0].generate(spec).unwrap();
    let keys = load_everywhere(spec, &made.private, &made.public);
    for alg in [SignAlg::Rs256, SignAlg::Rs384, SignAlg::Rs512] {
        let input = digest(alg, b"message");
        let all: Vec<_> = keys.iter().map(|(_, key)| key.sign(alg, &input).unwrap()).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{alg}");
    }
}

#[test]
fn rsnull_takes_up_to_eleven_bytes_less_than_the_modulus() {
    let spec = KeySpec::Rsa { bits: 2048 };
    let made = PROVIDERS[2].generate(spec).unwrap();
    for (provider, key) in load_everywhere(spec, &made.private, &made.public) {
        if !has_alg(provider, SignAlg::RsNull) {
            assert_eq!(key.sign(SignAlg::RsNull, b"x").unwrap_err(), CryptoError::Unsupported);
            continue;
        }
        for length in [0, 1, 32, 245] {
            let input = vec![0x5a; length];
            let signature = key.sign(SignAlg::RsNull, &input).unwrap();
            assert!(provider.verify(&made.public, SignAlg::RsNull, &input, &signature).unwrap());
        }
        let long = vec![0x5a; 246];
        assert_eq!(key.sign(SignAlg::RsNull, &long).unwrap_err(), CryptoError::BadLength);
        let verdict = provider.verify(&made.public, SignAlg::RsNull, &long, &[0; 256]);
        assert_eq!(verdict.unwrap_err(), CryptoError::BadLength);
    }
}

#[test]
fn wrong_lengths_and_wrong_kinds_are_told_apart() {
    let rsa = KeySpec::Rsa { bits: 2048 };
    let made_rsa = PROVIDERS[0].generate(rsa).unwrap();
    for (provider, key) in load_everywhere(rsa, &made_rsa.private, &made_rsa.public) {
        for alg in RSA_ALGS.into_iter().filter(|alg| alg.digest_bytes().is_some()) {
            for length in [0, 20, alg.digest_bytes().unwrap() - 1, alg.digest_bytes().unwrap() + 1] {
                assert_eq!(key.sign(alg, &vec![0; length]).unwrap_err(), CryptoError::BadLength);
                let verdict = provider.verify(&made_rsa.public, alg, &vec![0; length], &[0; 256]);
                assert_eq!(verdict.unwrap_err(), CryptoError::BadLength);
            }
        }
        for curve in Curve::ALL {
            let alg = curve.sign_alg();
            let input = digest(alg, b"");
            assert_eq!(key.sign(alg, &input).unwrap_err(), CryptoError::Unsupported);
            let verdict = provider.verify(&made_rsa.public, alg, &input, &[]);
            assert_eq!(verdict.unwrap_err(), CryptoError::Unsupported);
        }
    }
    for curve in Curve::ALL {
        let spec = KeySpec::Ec { curve: *curve };
        let made = PROVIDERS[1].generate(spec).unwrap();
        for (provider, key) in load_everywhere(spec, &made.private, &made.public) {
            assert_eq!(key.sign(curve.sign_alg(), &[0; 31]).unwrap_err(), CryptoError::BadLength);
            for alg in EncAlg::ALL {
                let refused = CryptoError::Unsupported;
                assert_eq!(key.encrypt(*alg, &[0; 16], &NO_PARAMS).unwrap_err(), refused);
                assert_eq!(key.decrypt(*alg, &[0; 256], &NO_PARAMS).unwrap_err(), refused);
            }
            for alg in SignAlg::ALL.iter().filter(|alg| **alg != curve.sign_alg()) {
                let input = digest(*alg, b"");
                assert_eq!(key.sign(*alg, &input).unwrap_err(), CryptoError::Unsupported);
                let verdict = provider.verify(&made.public, *alg, &input, &[]);
                assert_eq!(verdict.unwrap_err(), CryptoError::Unsupported, "{alg} on {curve}");
                assert_eq!(key.verify(*alg, &input, &[]).unwrap_err(), CryptoError::Unsupported, "{alg} on {curve}");
            }
            assert_eq!(provider.encrypt(&made.public, EncAlg::RsaOaep, b"").unwrap_err(), CryptoError::Unsupported);
        }
    }
}

#[test]
fn keys_of_another_kind_or_broken_keys_do_not_load() {
    let specs: Vec<KeySpec> = [KeySpec::Rsa { bits: 2048 }, KeySpec::Rsa { bits: 3072 }]
        .into_iter()
        .chain(Curve::ALL.iter().map(|curve| KeySpec::Ec { curve: *curve }))
        .collect();
    for spec in &specs {
        let made = PROVIDERS[2].generate(*spec).unwrap();
        for provider in PROVIDERS {
            for other in specs.iter().filter(|other| *other != spec && claims(provider, **other)) {
                let refused = provider.load(*other, &made.private).err();
                assert_eq!(refused, Some(CryptoError::BadKey), "{}: {spec:?} as {other:?}", provider.name());
            }
            if claims(provider, *spec) {
                let der = made.private.expose();
                for broken in [&der[..der.len() - 1], &der[1..], &[]] {
                    let refused = provider.load(*spec, &SecretBytes::new(broken.to_vec())).err();
                    assert_eq!(refused, Some(CryptoError::BadKey), "{}: {spec:?}", provider.name());
                }
            }
        }
    }
}

#[test]
fn bad_public_keys_are_refused() {
    let PublicKey::Rsa { n, e } = PROVIDERS[0].generate(KeySpec::Rsa { bits: 2048 }).unwrap().public else {
        panic!("not an RSA key")
    };
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let bad_rsa = [
        (vec![], e.clone()),
        ([&[0], n.as_slice()].concat(), e.clone()),
        (n[..128].to_vec(), e.clone()),
        (even, e.clone()),
        (n.clone(), vec![1]),
        (n.clone(), vec![2]),
        (n.clone(), vec![]),
        (n.clone(), vec![3; 9]),
    ];
    for provider in PROVIDERS {
        for (n, e) in &bad_rsa {
            let key = PublicKey::Rsa { n: n.clone(), e: e.clone() };
            let verdict = provider.verify(&key, SignAlg::Rs256, &[0; 32], &[0; 256]);
            assert_eq!(verdict.unwrap_err(), CryptoError::BadKey, "{}", provider.name());
            assert_eq!(provider.encrypt(&key, EncAlg::RsaOaep, b"x").unwrap_err(), CryptoError::BadKey);
        }
        for curve in Curve::ALL.iter().filter(|curve| has_curve(provider, **curve)) {
            let spec = KeySpec::Ec { curve: *curve };
            let PublicKey::Ec { x, y, .. } = provider.generate(spec).unwrap().public else { panic!("not an EC key") };
            let mut off = y.clone();
            *off.last_mut().unwrap() ^= 1;
            let width = curve.field_bytes();
            let bad = [
                (x.clone(), off),
                (x[1..].to_vec(), y.clone()),
                (x.clone(), [&[0], y.as_slice()].concat()),
                (vec![0; width], vec![0; width]),
                (vec![0xff; width], y.clone()),
            ];
            for (x, y) in bad {
                let key = PublicKey::Ec { curve: *curve, x, y };
                let alg = curve.sign_alg();
                let verdict = provider.verify(&key, alg, &digest(alg, b""), &vec![1; 2 * width]);
                assert_eq!(verdict.unwrap_err(), CryptoError::BadKey, "{} {curve}", provider.name());
            }
        }
    }
}

#[test]
fn aws_lc_leaves_the_gaps_to_the_other() {
    let spec = KeySpec::Ec { curve: Curve::P256K };
    assert_eq!(PROVIDERS[0].generate(spec).unwrap_err(), CryptoError::Unsupported);
    let made = PROVIDERS[1].generate(spec).unwrap();
    assert_eq!(PROVIDERS[0].load(spec, &made.private).err(), Some(CryptoError::Unsupported));
    let verdict = PROVIDERS[0].verify(&made.public, SignAlg::Es256K, &[0; 32], &[0; 64]);
    assert_eq!(verdict.unwrap_err(), CryptoError::Unsupported);
    for provider in PROVIDERS {
        assert_eq!(provider.generate(KeySpec::Rsa { bits: 1024 }).unwrap_err(), CryptoError::Unsupported);
    }
}

//! Against the `openssl` command: an implementation that shares no code with either provider.
//!
//! Keys, signatures and ciphertexts go both ways. AES-GCM is not here, because `openssl enc` refuses modes with a tag
//! (it has the Wycheproof vectors instead). A machine without the command fails: `tests/setup.sh` installs it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use claviger_crypto::byok::{parse_pkcs8, unwrap_transfer, wrap_transfer, TransferAlg};
use claviger_crypto::jwk::Imported;
use claviger_crypto::provider::{CipherParams, CryptoProvider, LoadedKey};
use claviger_crypto::CryptoError;
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};
use common::{ciphers, digest, has_alg, has_cipher, has_curve, is_cbc, is_gcm, secret, to_hex, NO_PARAMS, PROVIDERS};
use tempfile::TempDir;

/// A directory for the files that go in and out of the command.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path)
    }

    /// Runs `openssl` with the arguments, split at spaces, and `-out`; returns what it wrote, or `None` if it failed.
    fn try_run(&self, arguments: &str) -> Option<Vec<u8>> {
        let out = self.path("out");
        let _ = std::fs::remove_file(&out);
        let result = Command::new("openssl")
            .args(arguments.split_whitespace())
            .args(["-out", &text(&out)])
            .output()
            .expect("the openssl command is missing: run tests/setup.sh");
        result.status.success().then(|| std::fs::read(&out).unwrap())
    }

    fn run(&self, arguments: &str) -> Vec<u8> {
        self.try_run(arguments).unwrap_or_else(|| panic!("openssl {arguments}"))
    }

    /// A fresh private key in PKCS#8.
    fn generate(&self, arguments: &str) -> Vec<u8> {
        let pem = self.run(&format!("genpkey {arguments}"));
        let pem = self.put("generated", &pem);
        self.run(&format!("pkcs8 -topk8 -nocrypt -outform DER -in {pem}"))
    }

    /// Whether `openssl pkeyutl -verify` accepts.
    fn verifies(&self, arguments: &str) -> bool {
        let result = Command::new("openssl").args(arguments.split_whitespace()).output().unwrap();
        let says = String::from_utf8_lossy(&result.stdout).contains("Signature Verified Successfully");
        assert_eq!(says, result.status.success(), "openssl {arguments}");
        says
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The key in each provider that has its kind.
fn load(imported: &Imported) -> Vec<(&'static dyn CryptoProvider, Arc<dyn LoadedKey>)> {
    PROVIDERS
        .into_iter()
        .filter(|provider| match imported.spec {
            KeySpec::Ec { curve } => has_curve(*provider, curve),
            _ => true,
        })
        .map(|provider| (provider, provider.load(imported.spec, &imported.private).unwrap()))
        .collect()
}

fn rsa_padding(alg: SignAlg) -> &'static str {
    match alg {
        SignAlg::Rs256 => "-pkeyopt rsa_padding_mode:pkcs1 -pkeyopt digest:sha256",
        SignAlg::Rs384 => "-pkeyopt rsa_padding_mode:pkcs1 -pkeyopt digest:sha384",
        SignAlg::Rs512 => "-pkeyopt rsa_padding_mode:pkcs1 -pkeyopt digest:sha512",
        SignAlg::Ps256 => "-pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest -pkeyopt digest:sha256",
        SignAlg::Ps384 => "-pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest -pkeyopt digest:sha384",
        SignAlg::Ps512 => "-pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest -pkeyopt digest:sha512",
        SignAlg::RsNull => "-pkeyopt rsa_padding_mode:pkcs1",
        _ => panic!("not for RSA"),
    }
}

fn rsa_encryption(alg: EncAlg) -> &'static str {
    match alg {
        EncAlg::Rsa15 => "-pkeyopt rsa_padding_mode:pkcs1",
        EncAlg::RsaOaep => "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1 -pkeyopt rsa_mgf1_md:sha1",
        EncAlg::RsaOaep256 => "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256",
        _ => panic!("not for RSA"),
    }
}

#[test]
fn rsa_both_ways() {
    let desk = Desk::new();
    let mut count = 0;
    for bits in [2048u16, 3072, 4096] {
        let made = desk.generate(&format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"));
        let imported = parse_pkcs8(Family::Rsa, None, &secret(&made)).unwrap();
        assert_eq!(imported.spec, KeySpec::Rsa { bits });
        // What we store is what OpenSSL reads.
        let key = desk.put("key.der", imported.private.expose());
        let with_key = format!("-inkey {key} -keyform DER");
        for alg in SignAlg::ALL.iter().copied().filter(|alg| alg.family() == Family::Rsa) {
            let input = digest(alg, b"message");
            let file = desk.put("digest", &input);
            let theirs = desk.run(&format!("pkeyutl -sign {with_key} -in {file} {}", rsa_padding(alg)));
            for (provider, key) in load(&imported).into_iter().filter(|(provider, _)| has_alg(*provider, alg)) {
                assert!(key.verify(alg, &input, &theirs).unwrap(), "{} {alg}", provider.name());
                let signature = desk.put("signature", &key.sign(alg, &input).unwrap());
                let verify = format!("pkeyutl -verify {with_key} -in {file} -sigfile {signature} {}", rsa_padding(alg));
                assert!(desk.verifies(&verify), "{} {alg}", provider.name());
                let other = desk.put("digest2", &digest(alg, b"another"));
                assert!(!desk.verifies(&verify.replace(&file, &other)));
                count += 1;
            }
        }
        for alg in [EncAlg::Rsa15, EncAlg::RsaOaep, EncAlg::RsaOaep256] {
            let plaintext = desk.put("plaintext", b"attack at dawn");
            let theirs = desk.run(&format!("pkeyutl -encrypt {with_key} -in {plaintext} {}", rsa_encryption(alg)));
            for (provider, key) in load(&imported) {
                let opened = key.decrypt(alg, &theirs, &NO_PARAMS).unwrap();
                assert_eq!(opened.expose(), b"attack at dawn", "{} {alg}", provider.name());
                let ours = key.encrypt(alg, b"retreat", &NO_PARAMS).unwrap();
                let ours = desk.put("ciphertext", &ours.ciphertext);
                let opened = desk.run(&format!("pkeyutl -decrypt {with_key} -in {ours} {}", rsa_encryption(alg)));
                assert_eq!(opened, b"retreat", "{} {alg}", provider.name());
                count += 1;
            }
        }
    }
    // Per size: six algorithms by three providers and RSNULL by two, three encryptions by three providers.
    assert_eq!(count, 3 * (6 * 3 + 2 + 3 * 3));
}

fn openssl_curve(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "P-256",
        Curve::P384 => "P-384",
        Curve::P521 => "P-521",
        Curve::P256K => "secp256k1",
    }
}

/// ASN.1 `SEQUENCE { r INTEGER, s INTEGER }`, which is what the command reads and writes.
fn to_der(raw: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let mut bytes: Vec<u8> = number.iter().copied().skip_while(|&byte| byte == 0).collect();
        if bytes.first().is_none_or(|first| first & 0x80 != 0) {
            bytes.insert(0, 0);
        }
        [&[2, bytes.len() as u8], bytes.as_slice()].concat()
    };
    let (r, s) = raw.split_at(raw.len() / 2);
    let content = [integer(r), integer(s)].concat();
    let head = if content.len() < 128 { vec![0x30] } else { vec![0x30, 0x81] };
    [head.as_slice(), &[content.len() as u8], content.as_slice()].concat()
}

fn from_der(der: &[u8], width: usize) -> Vec<u8> {
    let content = if der[1] == 0x81 { &der[3..] } else { &der[2..] };
    let (r, rest) = content[2..].split_at(usize::from(content[1]));
    let s = &rest[2..];
    let fixed = |number: &[u8]| {
        let number: Vec<u8> = number.iter().copied().skip_while(|&byte| byte == 0).collect();
        [vec![0; width - number.len()], number].concat()
    };
    [fixed(r), fixed(s)].concat()
}

#[test]
fn ecdsa_both_ways() {
    let desk = Desk::new();
    let mut count = 0;
    for curve in Curve::ALL.iter().copied() {
        let (alg, name) = (curve.sign_alg(), openssl_curve(curve));
        // Several keys and signatures, so that short integers turn up.
        for round in 0..4u8 {
            let made = desk.generate(&format!("-algorithm EC -pkeyopt ec_paramgen_curve:{name}"));
            let imported = parse_pkcs8(Family::Ec, Some(curve), &secret(&made)).unwrap();
            let key = desk.put("key.der", imported.private.expose());
            let input = digest(alg, &[round]);
            let file = desk.put("digest", &input);
            let theirs = desk.run(&format!("pkeyutl -sign -inkey {key} -keyform DER -in {file}"));
            let theirs = from_der(&theirs, curve.field_bytes());
            for (provider, loaded) in load(&imported) {
                assert!(loaded.verify(alg, &input, &theirs).unwrap(), "{} {curve}", provider.name());
                let signature = desk.put("signature", &to_der(&loaded.sign(alg, &input).unwrap()));
                let verify = format!("pkeyutl -verify -inkey {key} -keyform DER -in {file} -sigfile {signature}");
                assert!(desk.verifies(&verify), "{} {curve}", provider.name());
                count += 1;
            }
        }
    }
    assert_eq!(count, 4 * (3 * 3 + 2));
}

#[test]
fn our_keys_are_read_there() {
    let desk = Desk::new();
    let specs = [KeySpec::Rsa { bits: 2048 }].into_iter();
    for spec in specs.chain(Curve::ALL.iter().map(|curve| KeySpec::Ec { curve: *curve })) {
        for provider in PROVIDERS {
            let Ok(made) = provider.generate(spec) else { continue };
            let file = desk.put("key.der", made.private.expose());
            desk.run(&format!("pkey -inform DER -in {file} -check -outform DER"));
            // The public key that OpenSSL derives ends with the bytes that we publish.
            let spki = desk.run(&format!("pkey -inform DER -in {file} -pubout -outform DER"));
            match &made.public {
                PublicKey::Ec { x, y, .. } => assert!(spki.ends_with(&[x.as_slice(), y].concat())),
                PublicKey::Rsa { n, e } => {
                    assert!(spki.ends_with(&[n.as_slice(), &[2, e.len() as u8], e].concat()), "{}", provider.name())
                }
                PublicKey::Oct { .. } => panic!("not a key pair"),
            }
        }
    }
}

fn openssl_cipher(alg: EncAlg, bits: u16) -> String {
    match alg {
        _ if is_cbc(alg) => format!("-aes-{bits}-cbc"),
        EncAlg::CkmAesKeyWrapPad => format!("-id-aes{bits}-wrap-pad"),
        _ => format!("-id-aes{bits}-wrap"),
    }
}

#[test]
fn aes_both_ways() {
    let desk = Desk::new();
    let key: Vec<u8> = (100..132).collect();
    let iv: Vec<u8> = (7..23).collect();
    let mut count = 0;
    for bits in [128u16, 192, 256] {
        let key = &key[..usize::from(bits) / 8];
        for alg in ciphers().filter(|alg| !is_gcm(*alg) && alg.key_bits().is_none_or(|wanted| wanted == bits)) {
            let unpadded = matches!(alg, EncAlg::A128Cbc | EncAlg::A192Cbc | EncAlg::A256Cbc);
            let lengths: &[usize] = match alg {
                EncAlg::CkmAesKeyWrapPad => &[1, 7, 8, 9, 20, 33],
                _ if is_cbc(alg) && !unpadded => &[0, 1, 15, 16, 17, 100],
                _ => &[16, 32, 48],
            };
            // The values of RFC 3394 section 2.2.3.1 and RFC 5649 section 3, which the command wants to be told.
            let (params, command_iv) = match alg {
                _ if is_cbc(alg) => (CipherParams { iv: Some(&iv), ..NO_PARAMS }, to_hex(&iv)),
                EncAlg::CkmAesKeyWrapPad => (NO_PARAMS, "A65959A6".to_owned()),
                _ => (NO_PARAMS, "A6A6A6A6A6A6A6A6".to_owned()),
            };
            let padding = if unpadded { "-nopad" } else { "" };
            let command = format!("enc {} -K {} -iv {command_iv} {padding}", openssl_cipher(alg, bits), to_hex(key));
            for length in lengths {
                let plaintext: Vec<u8> = (0..*length as u8).map(|byte| byte.wrapping_mul(7)).collect();
                let file = desk.put("plaintext", &plaintext);
                let theirs = desk.run(&format!("{command} -e -in {file}"));
                let ours_file = desk.put("ciphertext", &theirs);
                assert_eq!(desk.run(&format!("{command} -d -in {ours_file}")), plaintext);
                for provider in PROVIDERS.into_iter().filter(|provider| has_cipher(*provider, alg, bits)) {
                    let loaded = provider.load(KeySpec::Oct { bits }, &secret(key)).unwrap();
                    let made = loaded.encrypt(alg, &plaintext, &params).unwrap();
                    assert_eq!(made.ciphertext, theirs, "{} {alg} {bits} {length}", provider.name());
                    assert_eq!(loaded.decrypt(alg, &theirs, &params).unwrap().expose(), plaintext);
                    count += 1;
                }
            }
        }
    }
    // CBC 3, CBCPAD 6, KW 3, CKM wrap 3, CKM wrap with padding 6 lengths by three providers, twice without AWS-LC.
    assert_eq!(count, 3 * (3 + 6 + 3 + 3 + 6) * 3 - (3 + 3 + 6));
}

#[test]
fn hmac_is_the_same_there() {
    let desk = Desk::new();
    for bits in [128u16, 192, 256] {
        let key: Vec<u8> = (1..=(bits / 8) as u8).collect();
        for (alg, hash) in [(SignAlg::Hs256, "sha256"), (SignAlg::Hs384, "sha384"), (SignAlg::Hs512, "sha512")] {
            let input = digest(alg, b"message");
            let file = desk.put("digest", &input);
            let out = text(&desk.path("mac"));
            let mac = format!("dgst -{hash} -mac HMAC -macopt hexkey:{} -binary -out {out} {file}", to_hex(&key));
            let result = Command::new("openssl").args(mac.split_whitespace()).output().unwrap();
            assert!(result.status.success(), "openssl {mac}");
            let theirs = std::fs::read(&out).unwrap();
            for provider in PROVIDERS {
                let loaded = provider.load(KeySpec::Oct { bits }, &secret(&key)).unwrap();
                assert_eq!(loaded.sign(alg, &input).unwrap(), theirs, "{} {alg}", provider.name());
            }
        }
    }
}

fn oaep_hash(alg: TransferAlg) -> &'static str {
    match alg {
        TransferAlg::RsaAesKeyWrap => "sha1",
        TransferAlg::RsaAesKeyWrap256 => "sha256",
        TransferAlg::RsaAesKeyWrap384 => "sha384",
    }
}

/// What a BYOK tool does with the command line: wrap there, unwrap and store here.
#[test]
fn transfers_made_there_are_opened_here() {
    let desk = Desk::new();
    for bits in [2048u16, 3072] {
        let kek = desk.generate(&format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"));
        let kek = parse_pkcs8(Family::Rsa, None, &secret(&kek)).unwrap();
        let kek_file = desk.put("kek.der", kek.private.expose());
        for (aes_bits, curve) in [(128, Curve::P256), (192, Curve::P384), (256, Curve::P521), (256, Curve::P256K)] {
            let name = openssl_curve(curve);
            let target = desk.generate(&format!("-algorithm EC -pkeyopt ec_paramgen_curve:{name}"));
            let aes: Vec<u8> = (0..aes_bits / 8).map(|byte| byte as u8 ^ 0x5c).collect();
            let aes_file = desk.put("aes", &aes);
            let padding = rsa_encryption(EncAlg::RsaOaep);
            let head = desk.run(&format!("pkeyutl -encrypt -inkey {kek_file} -keyform DER -in {aes_file} {padding}"));
            let target_file = desk.put("target", &target);
            let aes = to_hex(&aes);
            let body = desk.run(&format!("enc -id-aes{aes_bits}-wrap-pad -K {aes} -iv A65959A6 -in {target_file}"));
            for (_, kek) in load(&kek) {
                let opened = unwrap_transfer(kek.as_ref(), &[head.as_slice(), &body].concat()).unwrap();
                assert_eq!(opened.expose(), target);
                assert!(parse_pkcs8(Family::Ec, Some(curve), &opened).is_ok());
            }
        }
    }
}

#[test]
fn transfers_made_here_are_opened_there() {
    let desk = Desk::new();
    let kek = PROVIDERS[0].generate(KeySpec::Rsa { bits: 2048 }).unwrap();
    let kek_file = desk.put("kek.der", kek.private.expose());
    let target = PROVIDERS[0].generate(KeySpec::Rsa { bits: 3072 }).unwrap().private;
    for alg in TransferAlg::ALL {
        let blob = wrap_transfer(&kek.public, alg, &target).unwrap();
        let (head, body) = blob.split_at(256);
        let (head, hash) = (desk.put("head", head), oaep_hash(alg));
        let padding = format!("-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:{hash} -pkeyopt rsa_mgf1_md:{hash}");
        let aes = desk.run(&format!("pkeyutl -decrypt -inkey {kek_file} -keyform DER -in {head} {padding}"));
        assert_eq!(aes.len(), 32);
        let (aes, body) = (to_hex(&aes), desk.put("body", body));
        let opened = desk.run(&format!("enc -d -id-aes256-wrap-pad -K {aes} -iv A65959A6 -in {body}"));
        assert_eq!(opened, target.expose(), "{}", alg.as_str());
    }
}

/// Kinds of keys that PKCS#8 can carry and the service does not have.
#[test]
fn other_kinds_of_keys_are_refused() {
    let desk = Desk::new();
    let refused = |arguments: &str, kty: Family| {
        let made = desk.generate(arguments);
        parse_pkcs8(kty, None, &secret(&made)).map(|imported| imported.spec)
    };
    assert_eq!(refused("-algorithm ED25519", Family::Ec), Err(CryptoError::BadKey));
    assert_eq!(refused("-algorithm X25519", Family::Ec), Err(CryptoError::BadKey));
    let brainpool = "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1";
    assert_eq!(refused(brainpool, Family::Ec), Err(CryptoError::Unsupported));
    let explicit = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit";
    assert_eq!(refused(explicit, Family::Ec), Err(CryptoError::BadKey));
    let pss = "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048";
    assert_eq!(refused(pss, Family::Rsa), Err(CryptoError::BadKey));
    let multi = "-algorithm RSA -pkeyopt rsa_keygen_bits:3072 -pkeyopt rsa_keygen_primes:3";
    assert_eq!(refused(multi, Family::Rsa), Err(CryptoError::BadKey));
    let small = "-algorithm RSA -pkeyopt rsa_keygen_bits:1024";
    assert_eq!(refused(small, Family::Rsa), Err(CryptoError::Unsupported));
    let three = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3";
    assert_eq!(refused(three, Family::Rsa), Ok(KeySpec::Rsa { bits: 2048 }));
}

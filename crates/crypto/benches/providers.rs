//! Operations per second on one thread, for each algorithm and provider.
//!
//! `cargo bench -p claviger-crypto` runs everything, `cargo bench -p claviger-crypto -- RS` the rows that contain `RS`.
//! Each cell is the best of three stretches of a tenth of a second, after one call to warm up: a neighbour on the host
//! takes away and never gives. The RSA rates of AWS-LC depend on AVX-512 IFMA, so the header says whether it is there.
//! Nothing is asserted: a benchmark that fails on a busy machine is a nuisance.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use claviger_crypto::byok::{parse_pkcs8, unwrap_transfer, wrap_transfer, TransferAlg};
use claviger_crypto::jwk::{export, import, PrivateJwk};
use claviger_crypto::provider::{AwsLc, CipherParams, CryptoProvider, Encrypted, Hybrid, RustCrypto};
use claviger_crypto::secret::SecretBytes;
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, SignAlg};

const PROVIDERS: [&dyn CryptoProvider; 3] = [&AwsLc, &RustCrypto, &Hybrid];
const STRETCH: Duration = Duration::from_millis(100);
const STRETCHES: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this too, and must not take a minute.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with("--")).cloned().unwrap_or_default();
    let table = Table { filter };
    #[cfg(target_arch = "x86_64")]
    println!("AVX-512 IFMA: {}", std::arch::is_x86_feature_detected!("avx512ifma"));
    println!("{:<34} {:>11} {:>11} {:>11}", "operations per second", "aws-lc", "rust-crypto", "hybrid");
    table.rsa();
    table.curves();
    table.symmetric();
    table.keys();
    table.transfers();
}

struct Table {
    filter: String,
}

/// Calls per second; `None` if the provider does not have the operation.
fn rate(mut operation: impl FnMut() -> bool) -> Option<f64> {
    if !operation() {
        return None;
    }
    let mut best = 0.0f64;
    for _ in 0..STRETCHES {
        let start = Instant::now();
        let mut calls = 0u64;
        let elapsed = loop {
            // The clock is read rarely enough not to count.
            for _ in 0..8 {
                black_box(operation());
                calls += 1;
                if calls < 8 && start.elapsed() > STRETCH {
                    break;
                }
            }
            let elapsed = start.elapsed();
            if elapsed > STRETCH {
                break elapsed;
            }
        };
        best = best.max(calls as f64 / elapsed.as_secs_f64());
    }
    Some(best)
}

fn cell(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

impl Table {
    /// One row: the operation is made once per provider, outside the clock.
    fn row<F: FnMut() -> bool>(&self, name: &str, make: impl Fn(&'static dyn CryptoProvider) -> Option<F>) {
        if !name.contains(&self.filter) {
            return;
        }
        let cells = PROVIDERS.map(|provider| cell(make(provider).and_then(rate)));
        println!("{name:<34} {:>11} {:>11} {:>11}", cells[0], cells[1], cells[2]);
    }

    /// A row of something that no provider has to itself.
    fn single(&self, name: &str, operation: impl FnMut() -> bool) {
        if name.contains(&self.filter) {
            println!("{name:<34} {:>11} {:>11} {:>11}", "", "", cell(rate(operation)));
        }
    }

    fn rsa(&self) {
        for bits in [2048u16, 3072, 4096] {
            let spec = KeySpec::Rsa { bits };
            let private = made(spec);
            for alg in [SignAlg::Rs256, SignAlg::Ps256, SignAlg::RsNull] {
                self.signatures(&format!("{alg} {bits}"), spec, &private, alg);
            }
            for alg in [EncAlg::Rsa15, EncAlg::RsaOaep, EncAlg::RsaOaep256] {
                self.encryption(&format!("{alg} {bits}"), spec, &private, alg, 32);
            }
            self.row(&format!("RSA {bits} load"), |provider| {
                let private = copy(&private);
                Some(move || provider.load(spec, &private).is_ok())
            });
        }
    }

    fn curves(&self) {
        for curve in Curve::ALL {
            let spec = KeySpec::Ec { curve: *curve };
            let private = made(spec);
            self.signatures(curve.sign_alg().as_str(), spec, &private, curve.sign_alg());
            self.row(&format!("{curve} load"), |provider| {
                let private = copy(&private);
                Some(move || provider.load(spec, &private).is_ok())
            });
            self.row(&format!("{curve} generate"), |provider| Some(move || provider.generate(spec).is_ok()));
        }
    }

    fn symmetric(&self) {
        let spec = KeySpec::Oct { bits: 256 };
        let private = made(spec);
        for alg in [SignAlg::Hs256, SignAlg::Hs384, SignAlg::Hs512] {
            self.signatures(alg.as_str(), spec, &private, alg);
        }
        for alg in [EncAlg::A256Gcm, EncAlg::A256Cbc, EncAlg::A256CbcPad] {
            for length in [64, 1024] {
                self.encryption(&format!("{alg} {length} B"), spec, &private, alg, length);
            }
        }
        for alg in [EncAlg::A256Kw, EncAlg::CkmAesKeyWrapPad] {
            self.encryption(&format!("{alg} 32 B"), spec, &private, alg, 32);
        }
        let spec = KeySpec::Oct { bits: 192 };
        self.encryption("A192KW 32 B", spec, &made(spec), EncAlg::A192Kw, 32);
    }

    fn keys(&self) {
        for bits in [2048u16, 3072, 4096] {
            let jwk = exported(bits);
            self.single(&format!("RSA {bits} import"), || import(&jwk).is_ok());
            let jwk = PrivateJwk { p: None, q: None, dp: None, dq: None, qi: None, ..jwk };
            self.single(&format!("RSA {bits} import without primes"), || import(&jwk).is_ok());
        }
        for curve in Curve::ALL {
            let jwk = export(KeySpec::Ec { curve: *curve }, &made(KeySpec::Ec { curve: *curve })).unwrap();
            self.single(&format!("{curve} import"), || import(&jwk).is_ok());
        }
        self.row("RSA 2048 generate", |provider| Some(move || provider.generate(KeySpec::Rsa { bits: 2048 }).is_ok()));
    }

    fn transfers(&self) {
        let spec = KeySpec::Rsa { bits: 2048 };
        let kek = Hybrid.load(spec, &made(spec)).unwrap();
        let target = made(KeySpec::Ec { curve: Curve::P256 });
        let blob = wrap_transfer(kek.public(), TransferAlg::RsaAesKeyWrap, &target).unwrap();
        self.single("power-up self-test", || claviger_crypto::selftest::run().is_ok());
        self.single("transfer wrap", || wrap_transfer(kek.public(), TransferAlg::RsaAesKeyWrap, &target).is_ok());
        self.single("transfer unwrap and parse", || {
            let opened = unwrap_transfer(kek.as_ref(), &blob).unwrap();
            parse_pkcs8(Family::Ec, None, &opened).is_ok()
        });
    }

    fn signatures(&self, name: &str, spec: KeySpec, private: &SecretBytes, alg: SignAlg) {
        let digest = vec![0x5a; alg.digest_bytes().unwrap_or(32)];
        self.row(&format!("{name} sign"), |provider| {
            let (key, digest) = (provider.load(spec, private).ok()?, digest.clone());
            Some(move || key.sign(alg, &digest).is_ok())
        });
        let signature = Hybrid.load(spec, private).unwrap().sign(alg, &digest).unwrap();
        self.row(&format!("{name} verify"), |provider| {
            let (key, digest, signature) = (provider.load(spec, private).ok()?, digest.clone(), signature.clone());
            Some(move || key.verify(alg, &digest, &signature).is_ok_and(|right| right))
        });
    }

    fn encryption(&self, name: &str, spec: KeySpec, private: &SecretBytes, alg: EncAlg, length: usize) {
        let plaintext = vec![0x5a; length];
        let iv = alg.as_str().contains("CBC").then_some([7u8; 16]);
        self.row(&format!("{name} encrypt"), |provider| {
            let (key, plaintext) = (provider.load(spec, private).ok()?, plaintext.clone());
            Some(move || key.encrypt(alg, &plaintext, &params(&iv, None)).is_ok())
        });
        let sealed = Hybrid.load(spec, private).unwrap().encrypt(alg, &plaintext, &params(&iv, None)).unwrap();
        self.row(&format!("{name} decrypt"), |provider| {
            let (key, sealed) = (provider.load(spec, private).ok()?, sealed.clone());
            Some(move || key.decrypt(alg, &sealed.ciphertext, &params(&iv, Some(&sealed))).is_ok())
        });
    }
}

fn params<'a>(iv: &'a Option<[u8; 16]>, sealed: Option<&'a Encrypted>) -> CipherParams<'a> {
    match sealed {
        None => CipherParams { iv: iv.as_ref().map(<[u8; 16]>::as_slice), aad: None, tag: None },
        Some(sealed) => CipherParams { iv: sealed.iv.as_deref(), aad: None, tag: sealed.tag.as_deref() },
    }
}

fn made(spec: KeySpec) -> SecretBytes {
    Hybrid.generate(spec).unwrap().private
}

fn exported(bits: u16) -> PrivateJwk {
    export(KeySpec::Rsa { bits }, &made(KeySpec::Rsa { bits })).unwrap()
}

fn copy(bytes: &SecretBytes) -> SecretBytes {
    SecretBytes::new(bytes.expose().to_vec())
}

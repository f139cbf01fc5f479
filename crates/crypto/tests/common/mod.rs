//! What the test files share: the list of providers, and hashing with RustCrypto's hashes.

#![allow(dead_code, missing_docs, unreachable_pub)]

use claviger_crypto::provider::{AwsLc, CryptoProvider, Hybrid, RustCrypto};
use claviger_types::alg::{Curve, SignAlg};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Every provider; a test loops over them, so that all run the same code.
pub const PROVIDERS: [&dyn CryptoProvider; 3] = [&AwsLc, &RustCrypto, &Hybrid];

/// Whether the provider claims the curve.
pub fn has_curve(provider: &dyn CryptoProvider, curve: Curve) -> bool {
    !(provider.name() == "aws-lc" && curve == Curve::P256K)
}

/// Whether the provider claims the algorithm.
pub fn has_alg(provider: &dyn CryptoProvider, alg: SignAlg) -> bool {
    !(provider.name() == "aws-lc" && matches!(alg, SignAlg::RsNull | SignAlg::Es256K))
}

/// The digest that the algorithm signs; `RSNULL` gets the message itself.
pub fn digest(alg: SignAlg, message: &[u8]) -> Vec<u8> {
    match alg.digest_bytes() {
        Some(32) => Sha256::digest(message).to_vec(),
        Some(48) => Sha384::digest(message).to_vec(),
        Some(64) => Sha512::digest(message).to_vec(),
        _ => message.to_vec(),
    }
}

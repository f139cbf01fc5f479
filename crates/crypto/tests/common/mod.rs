//! What the test files share: the list of providers, and hashing with RustCrypto's hashes.

#![allow(dead_code, missing_docs, unreachable_pub)]

use claviger_crypto::provider::{AwsLc, CipherParams, CryptoProvider, Hybrid, RustCrypto};
use claviger_crypto::secret::SecretBytes;
use claviger_types::alg::{Curve, EncAlg, SignAlg};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Every provider; a test loops over them, so that all run the same code.
pub const PROVIDERS: [&dyn CryptoProvider; 3] = [&AwsLc, &RustCrypto, &Hybrid];

/// What RSA takes next to the ciphertext: nothing.
pub const NO_PARAMS: CipherParams<'static> = CipherParams { iv: None, aad: None, tag: None };

/// Whether the provider claims the curve.
pub fn has_curve(provider: &dyn CryptoProvider, curve: Curve) -> bool {
    !(provider.name() == "aws-lc" && curve == Curve::P256K)
}

/// Whether the provider claims the algorithm.
pub fn has_alg(provider: &dyn CryptoProvider, alg: SignAlg) -> bool {
    !(provider.name() == "aws-lc" && matches!(alg, SignAlg::RsNull | SignAlg::Es256K))
}

/// Whether the provider claims a symmetric algorithm for a key of that many bits: AWS-LC has no key wrap with 192.
pub fn has_cipher(provider: &dyn CryptoProvider, alg: EncAlg, bits: u16) -> bool {
    alg.key_bits().is_none_or(|wanted| wanted == bits)
        && !(provider.name() == "aws-lc" && bits == 192 && alg.is_key_wrap())
}

/// The symmetric algorithms.
pub fn ciphers() -> impl Iterator<Item = EncAlg> {
    EncAlg::ALL.iter().copied().filter(|alg| !matches!(alg, EncAlg::Rsa15 | EncAlg::RsaOaep | EncAlg::RsaOaep256))
}

/// Whether an algorithm is GCM.
pub fn is_gcm(alg: EncAlg) -> bool {
    matches!(alg, EncAlg::A128Gcm | EncAlg::A192Gcm | EncAlg::A256Gcm)
}

/// Whether an algorithm is CBC, padded or not.
pub fn is_cbc(alg: EncAlg) -> bool {
    !is_gcm(alg) && !alg.is_key_wrap()
}

/// Bytes from hexadecimal digits; white space between them is allowed.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Hexadecimal digits of bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Secret bytes from a slice.
pub fn secret(bytes: &[u8]) -> SecretBytes {
    SecretBytes::new(bytes.to_vec())
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

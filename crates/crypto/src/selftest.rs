//! Power-up self-test: known answers for the primitives that everything else stands on.
//!
//! It catches a miscompiled or mislinked library and a broken CPU before the first key is touched, in the spirit of
//! FIPS 140-3 (ISO/IEC 19790 section 7.10), and takes a few milliseconds. It is no substitute for the test suite.

use aws_lc_rs::digest::{digest, SHA256};
use claviger_types::alg::{Curve, KeySpec, PublicKey, SignAlg};

use crate::provider::{AwsLc, CryptoProvider, RustCrypto};
use crate::seal::{Aad, SealKey};
use crate::secret::SecretBytes;
use crate::CryptoError;

/// SHA-256 of `abc` (FIPS 180-4, appendix of the standard's examples).
const SHA256_ABC: [u8; 32] = [
    0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61,
    0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
];

/// PKCS#8 of a P-256 key up to the scalar (RFC 5208, RFC 5915 without the optional public key).
const P256_PKCS8_PREFIX: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];

/// Private key of RFC 6979 appendix A.2.5.
const P256_SCALAR: [u8; 32] = [
    0xc9, 0xaf, 0xa9, 0xd8, 0x45, 0xba, 0x75, 0x16, 0x6b, 0x5c, 0x21, 0x57, 0x67, 0xb1, 0xd6, 0x93, 0x4e, 0x50, 0xc3,
    0xdb, 0x36, 0xe8, 0x9b, 0x12, 0x7b, 0x8a, 0x62, 0x2b, 0x12, 0x0f, 0x67, 0x21,
];

/// Public key of RFC 6979 appendix A.2.5, x.
const P256_X: [u8; 32] = [
    0x60, 0xfe, 0xd4, 0xba, 0x25, 0x5a, 0x9d, 0x31, 0xc9, 0x61, 0xeb, 0x74, 0xc6, 0x35, 0x6d, 0x68, 0xc0, 0x49, 0xb8,
    0x92, 0x3b, 0x61, 0xfa, 0x6c, 0xe6, 0x69, 0x62, 0x2e, 0x60, 0xf2, 0x9f, 0xb6,
];

/// Signature of RFC 6979 appendix A.2.5 over SHA-256("sample"), `r || s`.
const P256_SIGNATURE: [u8; 64] = [
    0xef, 0xd4, 0x8b, 0x2a, 0xac, 0xb6, 0xa8, 0xfd, 0x11, 0x40, 0xdd, 0x9c, 0xd4, 0x5e, 0x81, 0xd6, 0x9d, 0x2c, 0x87,
    0x7b, 0x56, 0xaa, 0xf9, 0x91, 0xc3, 0x4d, 0x0e, 0xa8, 0x4e, 0xaf, 0x37, 0x16, 0xf7, 0xcb, 0x1c, 0x94, 0x2d, 0x65,
    0x7c, 0x41, 0xd4, 0x36, 0xc7, 0xa1, 0xb6, 0xe2, 0x9f, 0x65, 0xf3, 0xe9, 0x00, 0xdb, 0xb9, 0xaf, 0xf4, 0x06, 0x4d,
    0xc4, 0xab, 0x2f, 0x84, 0x3a, 0xcd, 0xa8,
];

/// Runs all self-tests; an error means that this process must not serve.
pub fn run() -> Result<(), CryptoError> {
    sha256()?;
    sealing()?;
    ecdsa()
}

fn expect(holds: bool, what: &'static str) -> Result<(), CryptoError> {
    if holds {
        Ok(())
    } else {
        Err(CryptoError::Internal(what))
    }
}

fn sha256() -> Result<(), CryptoError> {
    expect(digest(&SHA256, b"abc").as_ref() == SHA256_ABC, "self-test: SHA-256")
}

fn sealing() -> Result<(), CryptoError> {
    let key = SealKey::from_parts([1; 16], SecretBytes::new(vec![2; 32]))?;
    let aad = Aad::new("self-test");
    let mut sealed = key.seal(&aad, b"plaintext")?;
    expect(key.open(&aad, &sealed)?.expose() == b"plaintext", "self-test: AES-GCM")?;
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
    }
    expect(key.open(&aad, &sealed).is_err(), "self-test: AES-GCM integrity")
}

fn ecdsa() -> Result<(), CryptoError> {
    let spec = KeySpec::Ec { curve: Curve::P256 };
    let private = SecretBytes::new([P256_PKCS8_PREFIX.as_slice(), &P256_SCALAR].concat());
    let sample = digest(&SHA256, b"sample");
    let other = digest(&SHA256, b"simple");
    let providers: [&dyn CryptoProvider; 2] = [&AwsLc, &RustCrypto];
    for provider in providers {
        let key = provider.load(spec, &private)?;
        let derived = matches!(key.public(), PublicKey::Ec { x, .. } if x.as_slice() == P256_X);
        expect(derived, "self-test: P-256 public key")?;
        let verify = |digest: &[u8], signature: &[u8]| provider.verify(key.public(), SignAlg::Es256, digest, signature);
        expect(verify(sample.as_ref(), &P256_SIGNATURE)?, "self-test: ECDSA known answer")?;
        let signature = key.sign(SignAlg::Es256, sample.as_ref())?;
        expect(verify(sample.as_ref(), &signature)?, "self-test: ECDSA sign")?;
        expect(!verify(other.as_ref(), &signature)?, "self-test: ECDSA accepts another digest")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes_quickly() {
        super::run().unwrap();
        let start = std::time::Instant::now();
        super::run().unwrap();
        assert!(start.elapsed() < std::time::Duration::from_millis(50));
    }
}

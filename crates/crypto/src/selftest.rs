//! Power-up self-test: known answers for the primitives that everything else stands on.
//!
//! It catches a miscompiled or mislinked library and a broken CPU before the first key is touched, in the spirit of
//! FIPS 140-3 (ISO/IEC 19790 section 7.10), and takes a few milliseconds. It is no substitute for the test suite.

use aws_lc_rs::digest::{digest, SHA256};
use claviger_types::alg::{Curve, EncAlg, KeySpec, PublicKey, SignAlg};

use crate::provider::{AwsLc, CipherParams, CryptoProvider, RustCrypto};
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

/// NIST SP 800-38A appendix F.2.5: key.
const CBC_KEY: [u8; 32] = [
    0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f, 0x35, 0x2c,
    0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
];

/// NIST SP 800-38A appendix F.2.5: first block.
const CBC_PLAINTEXT: [u8; 16] =
    [0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a];

/// NIST SP 800-38A appendix F.2.5: first block, under the initialization vector 00 01 .. 0f.
const CBC_CIPHERTEXT: [u8; 16] =
    [0xf5, 0x8c, 0x4c, 0x04, 0xd6, 0xe5, 0xf1, 0xba, 0x77, 0x9e, 0xab, 0xfb, 0x5f, 0x7b, 0xfb, 0xd6];

/// HMAC-SHA-256 of [`SHA256_ABC`] under [`CBC_KEY`]; no standard has a vector of this shape, so OpenSSL made it.
const HMAC: [u8; 32] = [
    0x3b, 0x11, 0xdc, 0x46, 0xb3, 0x25, 0x20, 0x9a, 0x9e, 0xe9, 0x7f, 0x47, 0xdd, 0xb1, 0x0a, 0xfe, 0x9b, 0xc5, 0x6b,
    0x30, 0xac, 0x58, 0x6c, 0xb3, 0x55, 0xb9, 0x3f, 0xc8, 0x72, 0x7a, 0x8e, 0x73,
];

/// Test case 14 of the GCM specification (McGrew, Viega): 16 zeros under an all-zero key and nonce.
const GCM_CIPHERTEXT: [u8; 16] =
    [0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18];

/// The tag that goes with [`GCM_CIPHERTEXT`].
const GCM_TAG: [u8; 16] =
    [0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19];

/// RFC 3394 section 4.3: 00 11 .. ff under the key 00 01 .. 1f.
const WRAPPED: [u8; 24] = [
    0x64, 0xe8, 0xc3, 0xf9, 0xce, 0x0f, 0x5b, 0xa2, 0x63, 0xe9, 0x77, 0x79, 0x05, 0x81, 0x8a, 0x2a, 0x93, 0xc8, 0x19,
    0x1e, 0x7d, 0x6e, 0x8a, 0xe7,
];

/// SHA-256 of the signing input of RFC 7515 appendix A.2.
const TOKEN_SHA256: [u8; 32] = [
    0xc8, 0x8a, 0x34, 0x84, 0x7b, 0x4f, 0xfb, 0x12, 0xa9, 0x32, 0x6e, 0x54, 0x0f, 0x14, 0x4b, 0x3d, 0xcc, 0x4d, 0x55,
    0x15, 0xf1, 0x87, 0x01, 0xe7, 0xd6, 0xe0, 0xee, 0x78, 0x66, 0xc9, 0xc7, 0x05,
];

/// The key of RFC 7515 appendix A.2 in PKCS#8.
const RSA_KEY: &[u8] = include_bytes!("selftest/rsa-2048.der");

/// The signature of RFC 7515 appendix A.2.
const RSA_SIGNATURE: &[u8] = include_bytes!("selftest/rsa-2048.sig");

/// Runs all self-tests; an error means that this process must not serve.
pub fn run() -> Result<(), CryptoError> {
    sha256()?;
    sealing()?;
    for provider in [&AwsLc as &dyn CryptoProvider, &RustCrypto] {
        symmetric(provider)?;
        ecdsa(provider)?;
        rsa(provider)?;
    }
    Ok(())
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

fn symmetric(provider: &dyn CryptoProvider) -> Result<(), CryptoError> {
    let load = |key: &[u8]| provider.load(KeySpec::Oct { bits: 256 }, &SecretBytes::new(key.to_vec()));
    let none = CipherParams::default();
    let key = load(&CBC_KEY)?;
    expect(key.sign(SignAlg::Hs256, &SHA256_ABC)? == HMAC, "self-test: HMAC")?;
    expect(key.verify(SignAlg::Hs256, &SHA256_ABC, &HMAC)?, "self-test: HMAC verification")?;
    expect(!key.verify(SignAlg::Hs256, &CBC_KEY, &HMAC)?, "self-test: HMAC accepts another digest")?;
    let iv: [u8; 16] = std::array::from_fn(|at| at as u8);
    let params = CipherParams { iv: Some(&iv), ..none };
    let made = key.encrypt(EncAlg::A256Cbc, &CBC_PLAINTEXT, &params)?;
    expect(made.ciphertext == CBC_CIPHERTEXT, "self-test: AES-CBC")?;
    let opened = key.decrypt(EncAlg::A256Cbc, &CBC_CIPHERTEXT, &params)?;
    expect(opened.expose() == CBC_PLAINTEXT, "self-test: AES-CBC decryption")?;

    let params = CipherParams { iv: Some(&[0; 12]), aad: None, tag: Some(&GCM_TAG) };
    let opened = load(&[0; 32])?.decrypt(EncAlg::A256Gcm, &GCM_CIPHERTEXT, &params)?;
    expect(opened.expose() == [0; 16], "self-test: AES-GCM known answer")?;

    let kek: [u8; 32] = std::array::from_fn(|at| at as u8);
    let target: [u8; 16] = std::array::from_fn(|at| at as u8 * 0x11);
    let key = load(&kek)?;
    let made = key.encrypt(EncAlg::A256Kw, &target, &none)?;
    expect(made.ciphertext == WRAPPED, "self-test: AES key wrap")?;
    expect(key.decrypt(EncAlg::A256Kw, &WRAPPED, &none)?.expose() == target, "self-test: AES key unwrap")?;
    let made = key.encrypt(EncAlg::CkmAesKeyWrapPad, b"nine long", &none)?;
    let opened = key.decrypt(EncAlg::CkmAesKeyWrapPad, &made.ciphertext, &none)?;
    expect(opened.expose() == b"nine long", "self-test: AES key wrap with padding")
}

fn ecdsa(provider: &dyn CryptoProvider) -> Result<(), CryptoError> {
    let spec = KeySpec::Ec { curve: Curve::P256 };
    let private = SecretBytes::new([P256_PKCS8_PREFIX.as_slice(), &P256_SCALAR].concat());
    let sample = digest(&SHA256, b"sample");
    let other = digest(&SHA256, b"simple");
    let key = provider.load(spec, &private)?;
    let derived = matches!(key.public(), PublicKey::Ec { x, .. } if x.as_slice() == P256_X);
    expect(derived, "self-test: P-256 public key")?;
    let verify = |digest: &[u8], signature: &[u8]| provider.verify(key.public(), SignAlg::Es256, digest, signature);
    expect(verify(sample.as_ref(), &P256_SIGNATURE)?, "self-test: ECDSA known answer")?;
    let signature = key.sign(SignAlg::Es256, sample.as_ref())?;
    expect(verify(sample.as_ref(), &signature)?, "self-test: ECDSA sign")?;
    expect(!verify(other.as_ref(), &signature)?, "self-test: ECDSA accepts another digest")
}

fn rsa(provider: &dyn CryptoProvider) -> Result<(), CryptoError> {
    let key = provider.load(KeySpec::Rsa { bits: 2048 }, &SecretBytes::new(RSA_KEY.to_vec()))?;
    let none = CipherParams::default();
    expect(key.sign(SignAlg::Rs256, &TOKEN_SHA256)? == RSA_SIGNATURE, "self-test: RSA signature")?;
    expect(key.verify(SignAlg::Rs256, &TOKEN_SHA256, RSA_SIGNATURE)?, "self-test: RSA verification")?;
    expect(!key.verify(SignAlg::Rs256, &SHA256_ABC, RSA_SIGNATURE)?, "self-test: RSA accepts another digest")?;
    let made = key.encrypt(EncAlg::RsaOaep256, &SHA256_ABC, &none)?;
    let opened = key.decrypt(EncAlg::RsaOaep256, &made.ciphertext, &none)?;
    expect(opened.expose() == SHA256_ABC, "self-test: RSA-OAEP")
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes() {
        super::run().unwrap();
    }
}

//! The provider over the RustCrypto crates (`rsa`, `p256`, `p384`, `p521`, `k256`, `aes-gcm` and so on): every
//! algorithm.
//!
//! In production it serves P-256K, `RSNULL` and AES key wrap with 192 bits; for the rest it is the independent second
//! implementation that the tests hold `aws-lc-rs` against. RSA private operations are always blinded (the `rsa` crate
//! draws the blinding factor from the operating system).
//!
//! **Differences in kind.** For `RSA1_5` the `rsa` crate rejects implicitly (draft-irtf-cfrg-rsa-guidance section 7.2):
//! a ciphertext of the right length with broken padding yields a deterministic random-looking message instead of an
//! error, so that padding cannot be told from content. AWS-LC, which [`super::Hybrid`] uses for `RSA1_5`, answers
//! [`CryptoError::Failed`]. Re-implementing the unpadding to make both err would add the very oracle that the crate
//! removed (RUSTSEC-2023-0071). For OAEP the crate leaves the first octet of the padded block unchecked (RFC 8017
//! section 7.1.2 step 3g wants it zero), because telling that octet apart is Manger's attack; AWS-LC checks it in
//! constant time. The Wycheproof tests hold both differences to exactly the vectors that show them.

use std::sync::Arc;

use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::signature::SignatureEncoding;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, Generate, Pkcs1v15Sign};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::{
    check_digest, check_plaintext, check_rsa_public, check_rsa_size, encrypt_public, from_sec1, oct, to_sec1,
    trim_zeros, CipherParams, CryptoProvider, Encrypted, Generated, LoadedKey,
};
use crate::random::LibraryRng;
use crate::secret::SecretBytes;
use crate::CryptoError;

/// All algorithms, by the RustCrypto crates.
#[derive(Debug, Clone, Copy, Default)]
pub struct RustCrypto;

/// Verifies on one curve. `s` is brought to its low form first, since `k256` refuses the high one: JOSE (RFC 8812) has
/// no low-S rule, and other signers of ES256K emit both forms. On the other curves it makes no difference to the
/// verdict.
macro_rules! ec_verify {
    ($module:ident, $point:expr, $digest:expr, $signature:expr) => {{
        let key = $module::ecdsa::VerifyingKey::from_sec1_bytes($point).map_err(|_| CryptoError::BadKey)?;
        Ok($module::ecdsa::Signature::from_slice($signature)
            .is_ok_and(|signature| key.verify_prehash($digest, &signature.normalize_s()).is_ok()))
    }};
}

impl CryptoProvider for RustCrypto {
    fn name(&self) -> &'static str {
        "rust-crypto"
    }

    fn generate(&self, spec: KeySpec) -> Result<Generated, CryptoError> {
        match spec {
            KeySpec::Rsa { bits: bits @ (2048 | 3072 | 4096) } => {
                let key = rsa::PrivateKey::new(&mut LibraryRng, usize::from(bits))
                    .map_err(|_| CryptoError::Internal("RSA generation"))?;
                let der = key.to_pkcs8_der().map_err(|_| CryptoError::Internal("RSA encoding"))?;
                Ok(Generated { public: rsa_public(&key), private: SecretBytes::new(der.as_bytes().to_vec()) })
            }
            KeySpec::Rsa { .. } => Err(CryptoError::Unsupported),
            KeySpec::Oct { bits } => oct::generate(bits),
            KeySpec::Ec { curve } => {
                let signer = EcSigner::generate(curve)?;
                Ok(Generated { public: from_sec1(curve, &signer.point())?, private: signer.to_pkcs8()? })
            }
        }
    }

    fn load(&self, spec: KeySpec, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
        match spec {
            KeySpec::Rsa { bits } => {
                let key = RsaKey::parse(private)?;
                check_rsa_size(&key.public, bits)?;
                Ok(Arc::new(key))
            }
            KeySpec::Ec { curve } => {
                let signer = EcSigner::parse(curve, private)?;
                let public = from_sec1(curve, &signer.point())?;
                Ok(Arc::new(EcKey { curve, signer, public }))
            }
            KeySpec::Oct { bits } => oct::load_rust_crypto(bits, private),
        }
    }

    fn verify(&self, key: &PublicKey, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        match key {
            PublicKey::Rsa { n, e } => {
                if alg.family() != Family::Rsa {
                    return Err(CryptoError::Unsupported);
                }
                let modulus = check_rsa_public(n, e)?;
                check_digest(alg, digest, modulus)?;
                let key = to_rsa(n, e)?;
                let verdict = match alg {
                    SignAlg::Rs256 => key.pkcs1v15_verify_prehash::<Sha256>(digest, signature),
                    SignAlg::Rs384 => key.pkcs1v15_verify_prehash::<Sha384>(digest, signature),
                    SignAlg::Rs512 => key.pkcs1v15_verify_prehash::<Sha512>(digest, signature),
                    SignAlg::Ps256 => key.pss_verify_prehash::<Sha256>(digest, signature),
                    SignAlg::Ps384 => key.pss_verify_prehash::<Sha384>(digest, signature),
                    SignAlg::Ps512 => key.pss_verify_prehash::<Sha512>(digest, signature),
                    SignAlg::RsNull => key.verify(Pkcs1v15Sign::new_unprefixed(), digest, signature),
                    _ => return Err(CryptoError::Unsupported),
                };
                Ok(verdict.is_ok())
            }
            PublicKey::Ec { curve, x, y } => {
                if alg.curve() != Some(*curve) {
                    return Err(CryptoError::Unsupported);
                }
                check_digest(alg, digest, 0)?;
                let point = to_sec1(*curve, x, y)?;
                match curve {
                    Curve::P256 => ec_verify!(p256, &point, digest, signature),
                    Curve::P384 => ec_verify!(p384, &point, digest, signature),
                    Curve::P521 => ec_verify!(p521, &point, digest, signature),
                    Curve::P256K => ec_verify!(k256, &point, digest, signature),
                }
            }
            PublicKey::Oct { .. } => Err(CryptoError::Unsupported),
        }
    }

    fn encrypt(&self, key: &PublicKey, alg: EncAlg, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let PublicKey::Rsa { n, e } = key else { return Err(CryptoError::Unsupported) };
        let modulus = check_rsa_public(n, e)?;
        check_plaintext(alg, plaintext, modulus)?;
        let key = to_rsa(n, e)?;
        match alg {
            EncAlg::Rsa15 => key.pkcs1v15_encrypt(plaintext),
            EncAlg::RsaOaep => key.oaep_encrypt::<Sha1>(plaintext),
            EncAlg::RsaOaep256 => key.oaep_encrypt::<Sha256>(plaintext),
            _ => return Err(CryptoError::Unsupported),
        }
        .map_err(|_| CryptoError::Internal("RSA encryption"))
    }
}

/// A parsed RSA key.
pub(super) struct RsaKey {
    key: rsa::PrivateKey,
    public: PublicKey,
}

impl RsaKey {
    /// Parses PKCS#8; the `rsa` crate checks that the parts belong together.
    pub(super) fn parse(private: &SecretBytes) -> Result<Self, CryptoError> {
        let key = rsa::PrivateKey::from_pkcs8_der(private.expose()).map_err(|_| CryptoError::BadKey)?;
        let public = rsa_public(&key);
        Ok(Self { key, public })
    }
}

impl LoadedKey for RsaKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if alg.family() != Family::Rsa {
            return Err(CryptoError::Unsupported);
        }
        check_digest(alg, digest, self.key.size())?;
        match alg {
            SignAlg::Rs256 => self.key.pkcs1v15_sign_prehash::<Sha256>(digest),
            SignAlg::Rs384 => self.key.pkcs1v15_sign_prehash::<Sha384>(digest),
            SignAlg::Rs512 => self.key.pkcs1v15_sign_prehash::<Sha512>(digest),
            SignAlg::Ps256 => self.key.pss_sign_prehash::<Sha256>(digest),
            SignAlg::Ps384 => self.key.pss_sign_prehash::<Sha384>(digest),
            SignAlg::Ps512 => self.key.pss_sign_prehash::<Sha512>(digest),
            SignAlg::RsNull => self.key.sign(Pkcs1v15Sign::new_unprefixed(), digest),
            _ => return Err(CryptoError::Unsupported),
        }
        .map_err(|_| CryptoError::Internal("RSA signing"))
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        RustCrypto.verify(&self.public, alg, digest, signature)
    }

    fn encrypt(&self, alg: EncAlg, plaintext: &[u8], params: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        encrypt_public(&RustCrypto, &self.public, alg, plaintext, params)
    }

    fn decrypt(&self, alg: EncAlg, ciphertext: &[u8], params: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        if alg.family() != Family::Rsa {
            return Err(CryptoError::Unsupported);
        }
        params.refuse_all()?;
        match alg {
            EncAlg::Rsa15 => self.key.pkcs1v15_decrypt(ciphertext),
            EncAlg::RsaOaep => self.key.oaep_decrypt::<Sha1>(ciphertext),
            EncAlg::RsaOaep256 => self.key.oaep_decrypt::<Sha256>(ciphertext),
            _ => return Err(CryptoError::Unsupported),
        }
        .map(SecretBytes::new)
        .map_err(|_| CryptoError::Failed)
    }
}

/// One signing key of any curve; the crates share traits, but their bounds are longer than this list.
pub(crate) enum EcSigner {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    P256K(k256::ecdsa::SigningKey),
}

/// Runs the same expression on whichever key is inside.
macro_rules! with_signer {
    ($signer:expr, $key:ident => $body:expr) => {
        match $signer {
            EcSigner::P256($key) => $body,
            EcSigner::P384($key) => $body,
            EcSigner::P521($key) => $body,
            EcSigner::P256K($key) => $body,
        }
    };
}

/// Signs and encodes as raw `r || s`, which is what the curves' `Signature` types encode to.
fn sign_raw<S: SignatureEncoding>(key: &impl PrehashSigner<S>, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let signature = key.sign_prehash(digest).map_err(|_| CryptoError::Internal("EC signing"))?;
    Ok(signature.to_vec())
}

impl EcSigner {
    fn generate(curve: Curve) -> Result<Self, CryptoError> {
        let rng = &mut LibraryRng;
        Ok(match curve {
            Curve::P256 => Self::P256(Generate::try_generate_from_rng(rng)?),
            Curve::P384 => Self::P384(Generate::try_generate_from_rng(rng)?),
            Curve::P521 => Self::P521(Generate::try_generate_from_rng(rng)?),
            Curve::P256K => Self::P256K(Generate::try_generate_from_rng(rng)?),
        })
    }

    /// The key with this scalar, which must be as wide as the field, not zero and below the order of the curve.
    pub(crate) fn from_scalar(curve: Curve, scalar: &[u8]) -> Result<Self, CryptoError> {
        match curve {
            Curve::P256 => p256::ecdsa::SigningKey::from_slice(scalar).map(Self::P256),
            Curve::P384 => p384::ecdsa::SigningKey::from_slice(scalar).map(Self::P384),
            Curve::P521 => p521::ecdsa::SigningKey::from_slice(scalar).map(Self::P521),
            Curve::P256K => k256::ecdsa::SigningKey::from_slice(scalar).map(Self::P256K),
        }
        .map_err(|_| CryptoError::BadKey)
    }

    /// The scalar, as wide as the field.
    pub(crate) fn scalar(&self) -> SecretBytes {
        with_signer!(self, key => SecretBytes::new(Zeroizing::new(key.to_bytes()).to_vec()))
    }

    /// Reads PKCS#8; a public key inside must be the scalar's.
    pub(crate) fn parse(curve: Curve, private: &SecretBytes) -> Result<Self, CryptoError> {
        let der = private.expose();
        match curve {
            Curve::P256 => DecodePrivateKey::from_pkcs8_der(der).map(Self::P256),
            Curve::P384 => DecodePrivateKey::from_pkcs8_der(der).map(Self::P384),
            Curve::P521 => DecodePrivateKey::from_pkcs8_der(der).map(Self::P521),
            Curve::P256K => DecodePrivateKey::from_pkcs8_der(der).map(Self::P256K),
        }
        .map_err(|_| CryptoError::BadKey)
    }

    /// PKCS#8 v1 with the public key inside.
    pub(crate) fn to_pkcs8(&self) -> Result<SecretBytes, CryptoError> {
        let der = with_signer!(self, key => key.to_pkcs8_der());
        let der = der.map_err(|_| CryptoError::Internal("EC encoding"))?;
        Ok(SecretBytes::new(der.as_bytes().to_vec()))
    }

    /// The public key as an uncompressed SEC 1 point.
    pub(crate) fn point(&self) -> Vec<u8> {
        with_signer!(self, key => key.verifying_key().to_sec1_point(false).as_bytes().to_vec())
    }

    /// Raw `r || s`; the nonce is derived from key and digest (RFC 6979), so a weak random source cannot leak the key.
    fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::P256(key) => sign_raw::<p256::ecdsa::Signature>(key, digest),
            Self::P384(key) => sign_raw::<p384::ecdsa::Signature>(key, digest),
            Self::P521(key) => sign_raw::<p521::ecdsa::Signature>(key, digest),
            Self::P256K(key) => sign_raw::<k256::ecdsa::Signature>(key, digest),
        }
    }
}

struct EcKey {
    curve: Curve,
    signer: EcSigner,
    public: PublicKey,
}

impl LoadedKey for EcKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if alg.curve() != Some(self.curve) {
            return Err(CryptoError::Unsupported);
        }
        check_digest(alg, digest, 0)?;
        self.signer.sign(digest)
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        RustCrypto.verify(&self.public, alg, digest, signature)
    }

    fn encrypt(&self, _: EncAlg, _: &[u8], _: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        Err(CryptoError::Unsupported)
    }

    fn decrypt(&self, _: EncAlg, _: &[u8], _: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        Err(CryptoError::Unsupported)
    }
}

fn to_rsa(n: &[u8], e: &[u8]) -> Result<rsa::PublicKey, CryptoError> {
    let number = |bytes: &[u8]| {
        let bits = u32::try_from(bytes.len() * 8).map_err(|_| CryptoError::BadKey)?;
        BoxedUint::from_be_slice(bytes, bits).map_err(|_| CryptoError::BadKey)
    };
    rsa::PublicKey::new(number(n)?, number(e)?).map_err(|_| CryptoError::BadKey)
}

fn rsa_public(key: &rsa::PrivateKey) -> PublicKey {
    PublicKey::Rsa { n: trim_zeros(&key.n().to_be_bytes()), e: trim_zeros(&key.e().to_be_bytes()) }
}

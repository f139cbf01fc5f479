//! The provider over `aws-lc-rs` (AWS-LC): RSA, the NIST curves and symmetric keys, the production hot path.
//!
//! Chosen because its safe interface signs digests (`Digest::import_less_safe`, `sign_digest`), because its code is
//! written for constant time with a blinding cache per key, and because it is the fastest library measured for all of
//! these. `RSNULL` and AES key wrap with 192 bits have no safe entry point and P-256K is slow, so all three answer
//! `Unsupported`: see [`super::Hybrid`].

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeyPair as AwsRsaKeyPair, KeySize, OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
    PublicKeyComponents, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256,
};
use aws_lc_rs::signature::{
    self as sig, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, ParsedPublicKey,
    RsaEncoding, RsaParameters,
};
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};
use rsa::pkcs1::der::Decode;
use rsa::pkcs1::RsaPublicKeyRef;
use zeroize::{Zeroize, Zeroizing};

use super::{
    check_digest, check_plaintext, check_rsa_public, check_rsa_size, encrypt_public, from_sec1, oct, to_sec1,
    trim_zeros, CipherParams, CryptoProvider, Encrypted, Generated, LoadedKey,
};
use crate::secret::SecretBytes;
use crate::CryptoError;

/// RSA, P-256, P-384, P-521 and symmetric keys by AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl CryptoProvider for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn generate(&self, spec: KeySpec) -> Result<Generated, CryptoError> {
        match spec {
            KeySpec::Oct { bits } => oct::generate(bits),
            KeySpec::Rsa { bits } => {
                let size = match bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    _ => return Err(CryptoError::Unsupported),
                };
                let pair = AwsRsaKeyPair::generate(size).map_err(|_| CryptoError::Internal("RSA generation"))?;
                Ok(Generated { public: rsa_public(&pair)?, private: rsa_pkcs8(&pair)? })
            }
            KeySpec::Ec { curve } => {
                let (signing, _) = ec_algorithms(curve)?;
                let pair = EcdsaKeyPair::generate(signing).map_err(|_| CryptoError::Internal("EC generation"))?;
                let pkcs8 = pair.to_pkcs8v1().map_err(|_| CryptoError::Internal("EC encoding"))?;
                Ok(Generated {
                    public: from_sec1(curve, pair.public_key().as_ref())?,
                    private: SecretBytes::new(pkcs8.as_ref().to_vec()),
                })
            }
        }
    }

    fn load(&self, spec: KeySpec, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
        match spec {
            KeySpec::Oct { bits } => oct::load_aws_lc(bits, private),
            KeySpec::Rsa { bits } => Ok(Arc::new(RsaKey::load(bits, private)?)),
            KeySpec::Ec { curve } => {
                let (signing, _) = ec_algorithms(curve)?;
                let pair = EcdsaKeyPair::from_pkcs8(signing, private.expose()).map_err(|_| CryptoError::BadKey)?;
                let public = from_sec1(curve, pair.public_key().as_ref())?;
                Ok(Arc::new(EcKey { curve, pair, public }))
            }
        }
    }

    fn verify(&self, key: &PublicKey, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        match key {
            PublicKey::Rsa { n, e } => {
                let (hash, _, parameters) = rsa_algorithms(alg)?;
                let modulus = check_rsa_public(n, e)?;
                check_digest(alg, digest, modulus)?;
                let key =
                    PublicKeyComponents { n, e }.to_parsed_public_key(parameters).map_err(|_| CryptoError::BadKey)?;
                Ok(key.verify_digest_sig(&import(digest, hash)?, signature).is_ok())
            }
            PublicKey::Ec { curve, x, y } => {
                if alg.curve() != Some(*curve) {
                    return Err(CryptoError::Unsupported);
                }
                let (_, verification) = ec_algorithms(*curve)?;
                check_digest(alg, digest, 0)?;
                let point = to_sec1(*curve, x, y)?;
                let key = ParsedPublicKey::new(verification, point).map_err(|_| CryptoError::BadKey)?;
                Ok(key.verify_digest_sig(&import(digest, ec_hash(*curve))?, signature).is_ok())
            }
            PublicKey::Oct { .. } => Err(CryptoError::Unsupported),
        }
    }

    fn encrypt(&self, key: &PublicKey, alg: EncAlg, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let PublicKey::Rsa { n, e } = key else { return Err(CryptoError::Unsupported) };
        let modulus = check_rsa_public(n, e)?;
        check_plaintext(alg, plaintext, modulus)?;
        let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().map_err(|_| CryptoError::BadKey)?;
        let mut out = vec![0u8; modulus];
        let written = match oaep(alg) {
            Some(algorithm) => OaepPublicEncryptingKey::new(key)
                .and_then(|key| key.encrypt(algorithm, plaintext, &mut out, None).map(|slice| slice.len())),
            None => Pkcs1PublicEncryptingKey::new(key)
                .and_then(|key| key.encrypt(plaintext, &mut out).map(|slice| slice.len())),
        }
        .map_err(|_| CryptoError::Internal("RSA encryption"))?;
        out.truncate(written);
        Ok(out)
    }
}

/// A parsed RSA key.
///
/// AWS-LC's wrapper has one type for signing and another for decryption; the second is made at the first decryption, so
/// that the many keys which only sign do not pay for parsing twice.
pub(super) struct RsaKey {
    pair: AwsRsaKeyPair,
    decrypting: OnceLock<Decrypting>,
    public: PublicKey,
}

struct Decrypting {
    oaep: OaepPrivateDecryptingKey,
    pkcs1: Pkcs1PrivateDecryptingKey,
}

impl RsaKey {
    /// Parses PKCS#8 and checks the size.
    pub(super) fn load(bits: u16, private: &SecretBytes) -> Result<Self, CryptoError> {
        let pair = AwsRsaKeyPair::from_pkcs8(private.expose()).map_err(|_| CryptoError::BadKey)?;
        let public = rsa_public(&pair)?;
        check_rsa_size(&public, bits)?;
        Ok(Self { pair, decrypting: OnceLock::new(), public })
    }

    /// PKCS#8 DER of the key.
    pub(super) fn to_pkcs8(&self) -> Result<SecretBytes, CryptoError> {
        rsa_pkcs8(&self.pair)
    }

    fn decrypting(&self) -> Result<&Decrypting, CryptoError> {
        if let Some(ready) = self.decrypting.get() {
            return Ok(ready);
        }
        let key = PrivateDecryptingKey::from_pkcs8(self.to_pkcs8()?.expose())
            .map_err(|_| CryptoError::Internal("RSA decrypting key"))?;
        let internal = |_| CryptoError::Internal("RSA decrypting key");
        let made = Decrypting {
            oaep: OaepPrivateDecryptingKey::new(key.clone()).map_err(internal)?,
            pkcs1: Pkcs1PrivateDecryptingKey::new(key).map_err(internal)?,
        };
        Ok(self.decrypting.get_or_init(|| made))
    }
}

impl LoadedKey for RsaKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (hash, encoding, _) = rsa_algorithms(alg)?;
        let modulus = self.pair.public_modulus_len();
        check_digest(alg, digest, modulus)?;
        let mut signature = vec![0u8; modulus];
        self.pair
            .sign_digest(encoding, &import(digest, hash)?, &mut signature)
            .map_err(|_| CryptoError::Internal("RSA signing"))?;
        Ok(signature)
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        AwsLc.verify(&self.public, alg, digest, signature)
    }

    fn encrypt(&self, alg: EncAlg, plaintext: &[u8], params: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        encrypt_public(&AwsLc, &self.public, alg, plaintext, params)
    }

    fn decrypt(&self, alg: EncAlg, ciphertext: &[u8], params: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        if alg.family() != Family::Rsa {
            return Err(CryptoError::Unsupported);
        }
        params.refuse_all()?;
        let keys = self.decrypting()?;
        let mut out = Zeroizing::new(vec![0u8; self.pair.public_modulus_len()]);
        if ciphertext.len() != out.len() {
            return Err(CryptoError::Failed);
        }
        let written = match oaep(alg) {
            Some(algorithm) => keys.oaep.decrypt(algorithm, ciphertext, &mut out, None).map(|slice| slice.len()),
            None => keys.pkcs1.decrypt(ciphertext, &mut out).map(|slice| slice.len()),
        }
        .map_err(|_| CryptoError::Failed)?;
        // The tail may hold padding or a decrypted block of an earlier, longer message: wipe before shortening.
        if let Some(tail) = out.get_mut(written..) {
            tail.zeroize();
        }
        out.truncate(written);
        Ok(SecretBytes::new(std::mem::take(&mut *out)))
    }
}

struct EcKey {
    curve: Curve,
    pair: EcdsaKeyPair,
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
        let signature = self
            .pair
            .sign_digest(&import(digest, ec_hash(self.curve))?)
            .map_err(|_| CryptoError::Internal("EC signing"))?;
        Ok(signature.as_ref().to_vec())
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        AwsLc.verify(&self.public, alg, digest, signature)
    }

    fn encrypt(&self, _: EncAlg, _: &[u8], _: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        Err(CryptoError::Unsupported)
    }

    fn decrypt(&self, _: EncAlg, _: &[u8], _: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        Err(CryptoError::Unsupported)
    }
}

fn import(digest: &[u8], hash: &'static Algorithm) -> Result<Digest, CryptoError> {
    Digest::import_less_safe(digest, hash).map_err(|_| CryptoError::BadLength)
}

type RsaAlgorithms = (&'static Algorithm, &'static dyn RsaEncoding, &'static RsaParameters);

fn rsa_algorithms(alg: SignAlg) -> Result<RsaAlgorithms, CryptoError> {
    // The PSS constants of the library use a salt as long as the hash, as RFC 7518 section 3.5 asks.
    Ok(match alg {
        SignAlg::Rs256 => (&SHA256, &sig::RSA_PKCS1_SHA256, &sig::RSA_PKCS1_2048_8192_SHA256),
        SignAlg::Rs384 => (&SHA384, &sig::RSA_PKCS1_SHA384, &sig::RSA_PKCS1_2048_8192_SHA384),
        SignAlg::Rs512 => (&SHA512, &sig::RSA_PKCS1_SHA512, &sig::RSA_PKCS1_2048_8192_SHA512),
        SignAlg::Ps256 => (&SHA256, &sig::RSA_PSS_SHA256, &sig::RSA_PSS_2048_8192_SHA256),
        SignAlg::Ps384 => (&SHA384, &sig::RSA_PSS_SHA384, &sig::RSA_PSS_2048_8192_SHA384),
        SignAlg::Ps512 => (&SHA512, &sig::RSA_PSS_SHA512, &sig::RSA_PSS_2048_8192_SHA512),
        SignAlg::RsNull
        | SignAlg::Es256
        | SignAlg::Es384
        | SignAlg::Es512
        | SignAlg::Es256K
        | SignAlg::Hs256
        | SignAlg::Hs384
        | SignAlg::Hs512 => return Err(CryptoError::Unsupported),
    })
}

fn ec_algorithms(
    curve: Curve,
) -> Result<(&'static EcdsaSigningAlgorithm, &'static EcdsaVerificationAlgorithm), CryptoError> {
    Ok(match curve {
        Curve::P256 => (&sig::ECDSA_P256_SHA256_FIXED_SIGNING, &sig::ECDSA_P256_SHA256_FIXED),
        Curve::P384 => (&sig::ECDSA_P384_SHA384_FIXED_SIGNING, &sig::ECDSA_P384_SHA384_FIXED),
        Curve::P521 => (&sig::ECDSA_P521_SHA512_FIXED_SIGNING, &sig::ECDSA_P521_SHA512_FIXED),
        Curve::P256K => return Err(CryptoError::Unsupported),
    })
}

fn ec_hash(curve: Curve) -> &'static Algorithm {
    match curve {
        Curve::P256 | Curve::P256K => &SHA256,
        Curve::P384 => &SHA384,
        Curve::P521 => &SHA512,
    }
}

fn oaep(alg: EncAlg) -> Option<&'static OaepAlgorithm> {
    match alg {
        EncAlg::RsaOaep => Some(&OAEP_SHA1_MGF1SHA1),
        EncAlg::RsaOaep256 => Some(&OAEP_SHA256_MGF1SHA256),
        // The callers have made sure of the family, so this is `RSA1_5`.
        _ => None,
    }
}

fn rsa_public(pair: &AwsRsaKeyPair) -> Result<PublicKey, CryptoError> {
    let key = RsaPublicKeyRef::from_der(pair.public_key().as_ref()).map_err(|_| CryptoError::BadKey)?;
    Ok(PublicKey::Rsa { n: trim_zeros(key.modulus.as_bytes()), e: trim_zeros(key.public_exponent.as_bytes()) })
}

fn rsa_pkcs8(pair: &AwsRsaKeyPair) -> Result<SecretBytes, CryptoError> {
    let der = pair.as_der().map_err(|_| CryptoError::Internal("RSA encoding"))?;
    Ok(SecretBytes::new(der.as_ref().to_vec()))
}

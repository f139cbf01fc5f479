//! Key operations behind one trait, so that a hardware provider can be added without touching callers.
//!
//! Inputs of `sign` and `verify` are digests (contract 10.5: the server never hashes), `RSNULL` apart. Signatures of
//! elliptic-curve keys are raw, fixed-width `r || s` (RFC 7518 section 3.4), never DER. RSA follows RFC 8017. The
//! symmetric modes are described in the module `oct`.
//!
//! **Form of private keys.** RSA and all curves, P-256K included, are PKCS#8 v1 `PrivateKeyInfo` in DER (RFC 5208): RSA
//! around an RFC 8017 `RSAPrivateKey` with all CRT parameters, curves around an RFC 5915 `ECPrivateKey`. Symmetric keys
//! are their bytes. Both providers read what the other wrote, which the tests rely on and which keeps stored keys
//! independent of the library of the day.

mod aws_lc;
mod oct;
mod rust_crypto;

use std::sync::{Arc, OnceLock};

use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey, SignAlg};

pub use aws_lc::AwsLc;
pub use rust_crypto::RustCrypto;

pub(crate) use oct::key_len;
pub(crate) use rust_crypto::EcSigner;

use crate::secret::SecretBytes;
use crate::CryptoError;

/// A fresh key.
#[derive(Debug)]
pub struct Generated {
    /// The public half.
    pub public: PublicKey,
    /// The private half: PKCS#8 DER, or the bare bytes of a symmetric key (see the module's description).
    pub private: SecretBytes,
}

/// A library or device that makes and uses keys. `verify` and `encrypt` need no private key, so symmetric ones are
/// [`CryptoError::Unsupported`] there.
pub trait CryptoProvider: Send + Sync + 'static {
    /// Short name for logs and metrics.
    fn name(&self) -> &'static str;

    /// Makes a key. RSA takes tens of milliseconds to seconds: keep it off the request path.
    fn generate(&self, spec: KeySpec) -> Result<Generated, CryptoError>;

    /// Parses and checks a private key once; the caller caches the result, because parsing costs as much as signing.
    fn load(&self, spec: KeySpec, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError>;

    /// Checks a signature. A wrong signature, also one of the wrong length, is `Ok(false)`.
    fn verify(&self, key: &PublicKey, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError>;

    /// Encrypts to an RSA public key. Too long a plaintext is [`CryptoError::BadLength`].
    fn encrypt(&self, key: &PublicKey, alg: EncAlg, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError>;
}

/// Optional inputs of symmetric modes.
#[derive(Debug, Clone, Copy, Default)]
pub struct CipherParams<'a> {
    /// Initialization vector: 16 bytes for CBC both ways, 12 bytes to decrypt GCM; encryption in GCM draws its own.
    pub iv: Option<&'a [u8]>,
    /// Additional authenticated data, for GCM only.
    pub aad: Option<&'a [u8]>,
    /// Authentication tag, 16 bytes, to decrypt GCM only.
    pub tag: Option<&'a [u8]>,
}

/// A ciphertext with what symmetric modes add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The ciphertext, without the tag.
    pub ciphertext: Vec<u8>,
    /// The initialization vector that was used, for GCM and CBC.
    pub iv: Option<Vec<u8>>,
    /// The authentication tag, for GCM.
    pub tag: Option<Vec<u8>>,
}

/// A parsed private or symmetric key, shared between threads.
///
/// An algorithm that does not go with the key, its curve or its size is [`CryptoError::Unsupported`] everywhere. A
/// parameter that the algorithm needs and lacks, or has no use for, is [`CryptoError::BadParameter`]: additional data
/// that nothing authenticates must not look as if it were.
pub trait LoadedKey: Send + Sync {
    /// The public half.
    fn public(&self) -> &PublicKey;

    /// Signs a digest (for `RSNULL`: raw bytes). `HS*` are HMACs over the digest.
    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError>;

    /// Checks a signature, by the public half or, for `HS*`, in constant time. A wrong signature, also one of the wrong
    /// length, is `Ok(false)`.
    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError>;

    /// Encrypts or wraps, by the public half for RSA. A plaintext that does not fit is [`CryptoError::BadLength`].
    fn encrypt(&self, alg: EncAlg, plaintext: &[u8], params: &CipherParams<'_>) -> Result<Encrypted, CryptoError>;

    /// Decrypts or unwraps. Whatever the ciphertext or the tag is to blame for is [`CryptoError::Failed`].
    fn decrypt(&self, alg: EncAlg, ciphertext: &[u8], params: &CipherParams<'_>) -> Result<SecretBytes, CryptoError>;
}

impl CipherParams<'_> {
    /// For algorithms that take none.
    fn refuse_all(&self) -> Result<(), CryptoError> {
        match self {
            CipherParams { iv: None, aad: None, tag: None } => Ok(()),
            _ => Err(CryptoError::BadParameter),
        }
    }
}

/// Encryption by the public half alone, as [`LoadedKey::encrypt`] returns it.
fn encrypt_public(
    provider: &dyn CryptoProvider,
    key: &PublicKey,
    alg: EncAlg,
    plaintext: &[u8],
    params: &CipherParams<'_>,
) -> Result<Encrypted, CryptoError> {
    if alg.family() != Family::Rsa {
        return Err(CryptoError::Unsupported);
    }
    params.refuse_all()?;
    let ciphertext = provider.encrypt(key, alg, plaintext)?;
    Ok(Encrypted { ciphertext, iv: None, tag: None })
}

/// The provider that the service uses unless configured otherwise: [`Hybrid`].
pub fn default_provider() -> Arc<dyn CryptoProvider> {
    Arc::new(Hybrid)
}

/// `aws-lc-rs` for RSA, the NIST curves and symmetric keys; RustCrypto for P-256K (seven times faster there), `RSNULL`
/// and AES key wrap with 192 bits (which the safe interface of `aws-lc-rs` does not offer).
#[derive(Debug, Clone, Copy, Default)]
pub struct Hybrid;

impl CryptoProvider for Hybrid {
    fn name(&self) -> &'static str {
        "hybrid"
    }

    fn generate(&self, spec: KeySpec) -> Result<Generated, CryptoError> {
        match spec {
            KeySpec::Ec { curve: Curve::P256K } => RustCrypto.generate(spec),
            _ => AwsLc.generate(spec),
        }
    }

    fn load(&self, spec: KeySpec, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
        match spec {
            KeySpec::Ec { curve: Curve::P256K } => RustCrypto.load(spec, private),
            KeySpec::Ec { .. } => AwsLc.load(spec, private),
            KeySpec::Rsa { bits } => {
                Ok(Arc::new(HybridRsa { fast: aws_lc::RsaKey::load(bits, private)?, raw: OnceLock::new() }))
            }
            KeySpec::Oct { bits } => oct::load_hybrid(bits, private),
        }
    }

    fn verify(&self, key: &PublicKey, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        match alg {
            SignAlg::RsNull | SignAlg::Es256K => RustCrypto.verify(key, alg, digest, signature),
            _ => AwsLc.verify(key, alg, digest, signature),
        }
    }

    fn encrypt(&self, key: &PublicKey, alg: EncAlg, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        AwsLc.encrypt(key, alg, plaintext)
    }
}

/// An RSA key of [`Hybrid`]. The RustCrypto form is made at the first `RSNULL`, since almost no key ever needs it.
struct HybridRsa {
    fast: aws_lc::RsaKey,
    raw: OnceLock<rust_crypto::RsaKey>,
}

impl LoadedKey for HybridRsa {
    fn public(&self) -> &PublicKey {
        self.fast.public()
    }

    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if alg != SignAlg::RsNull {
            return self.fast.sign(alg, digest);
        }
        if let Some(raw) = self.raw.get() {
            return raw.sign(alg, digest);
        }
        // Two threads may both get here; one result wins and the other is wiped, which is harmless.
        let raw = rust_crypto::RsaKey::parse(&self.fast.to_pkcs8()?)?;
        self.raw.get_or_init(|| raw).sign(alg, digest)
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        Hybrid.verify(self.public(), alg, digest, signature)
    }

    fn encrypt(&self, alg: EncAlg, plaintext: &[u8], params: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        self.fast.encrypt(alg, plaintext, params)
    }

    fn decrypt(&self, alg: EncAlg, ciphertext: &[u8], params: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        self.fast.decrypt(alg, ciphertext, params)
    }
}

/// Smallest modulus accepted: everything below is broken or about to be.
const MIN_RSA_BITS: usize = 2048;
/// Largest modulus accepted: both libraries stop here, and cost grows with the cube.
const MAX_RSA_BITS: usize = 8192;
/// Bytes that PKCS#1 v1.5 padding needs at least (RFC 8017 sections 7.2.1 and 9.2).
const PKCS1_OVERHEAD: usize = 11;

/// Bit length of a big-endian number without leading zeros; `None` if there are any or it is empty.
fn bit_length(number: &[u8]) -> Option<usize> {
    let first = *number.first()?;
    if first == 0 {
        return None;
    }
    Some(number.len() * 8 - first.leading_zeros() as usize)
}

/// Checks what both libraries must agree on before either sees an RSA public key, and returns the modulus length in
/// bytes. Exponents are odd, at least 3 and at most 33 bits: larger ones only make verification slow (`RSADoS`).
pub(crate) fn check_rsa_public(n: &[u8], e: &[u8]) -> Result<usize, CryptoError> {
    let n_bits = bit_length(n).ok_or(CryptoError::BadKey)?;
    let e_bits = bit_length(e).ok_or(CryptoError::BadKey)?;
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let fits = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&n_bits) && (2..=33).contains(&e_bits);
    if fits && odd(n) && odd(e) {
        Ok(n.len())
    } else {
        Err(CryptoError::BadKey)
    }
}

/// Checks that a loaded RSA key has the size that it was stored under.
fn check_rsa_size(public: &PublicKey, bits: u16) -> Result<(), CryptoError> {
    match public {
        PublicKey::Rsa { n, e } => {
            check_rsa_public(n, e)?;
            if bit_length(n) == Some(usize::from(bits)) {
                Ok(())
            } else {
                Err(CryptoError::BadKey)
            }
        }
        PublicKey::Ec { .. } | PublicKey::Oct { .. } => Err(CryptoError::BadKey),
    }
}

/// Checks the length of what is to be signed or verified. `modulus` is needed for `RSNULL` only.
fn check_digest(alg: SignAlg, digest: &[u8], modulus: usize) -> Result<(), CryptoError> {
    let fits = match alg.digest_bytes() {
        Some(length) => digest.len() == length,
        None => digest.len() + PKCS1_OVERHEAD <= modulus,
    };
    if fits {
        Ok(())
    } else {
        Err(CryptoError::BadLength)
    }
}

/// Checks that a plaintext fits (RFC 8017 sections 7.1.1 and 7.2.1).
fn check_plaintext(alg: EncAlg, plaintext: &[u8], modulus: usize) -> Result<(), CryptoError> {
    let overhead = match alg {
        EncAlg::Rsa15 => PKCS1_OVERHEAD,
        EncAlg::RsaOaep => 2 * 20 + 2,
        EncAlg::RsaOaep256 => 2 * 32 + 2,
        _ => return Err(CryptoError::Unsupported),
    };
    if plaintext.len() + overhead <= modulus {
        Ok(())
    } else {
        Err(CryptoError::BadLength)
    }
}

/// Uncompressed SEC 1 point of a public key's coordinates, which must have the curve's width.
fn to_sec1(curve: Curve, x: &[u8], y: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let width = curve.field_bytes();
    if x.len() != width || y.len() != width {
        return Err(CryptoError::BadKey);
    }
    let mut point = Vec::with_capacity(1 + 2 * width);
    point.push(4);
    point.extend_from_slice(x);
    point.extend_from_slice(y);
    Ok(point)
}

/// The inverse of [`to_sec1`].
pub(crate) fn from_sec1(curve: Curve, point: &[u8]) -> Result<PublicKey, CryptoError> {
    let width = curve.field_bytes();
    match point.split_first() {
        Some((4, rest)) if rest.len() == 2 * width => {
            let (x, y) = rest.split_at(width);
            Ok(PublicKey::Ec { curve, x: x.to_vec(), y: y.to_vec() })
        }
        _ => Err(CryptoError::BadKey),
    }
}

/// A big-endian number without leading zeros.
pub(crate) fn trim_zeros(number: &[u8]) -> Vec<u8> {
    // One allocation of the right size: collecting would grow, and leave copies of a secret behind.
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default().to_vec()
}

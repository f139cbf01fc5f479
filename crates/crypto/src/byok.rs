//! Transfer of a key under an RSA key: bring your own key inwards, secure key release outwards.
//!
//! The blob is PKCS#11's `CKM_RSA_AES_KEY_WRAP` (v3.0 section 2.1.21): a fresh AES key under RSA-OAEP, followed by the
//! target key under that AES key with RFC 5649. Nothing separates the parts, so the length of the RSA modulus does. The
//! target is PKCS#8 for RSA and EC and the bare bytes for symmetric keys, which is also the stored form
//! ([`crate::provider`]). The JSON around it (contract sections 10.3 and 10.6) is the business of the `api` crate.
//!
//! Inwards only OAEP with SHA-1 is taken, which is what the BYOK specification has; outwards the client chooses.

use aws_lc_rs::rsa::{
    OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents, OAEP_SHA1_MGF1SHA1,
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
};
use claviger_types::alg::{Curve, EncAlg, Family, KeySpec, PublicKey};
use rsa::pkcs8::PrivateKeyInfoRef;

use crate::jwk::{self, Imported};
use crate::provider::{check_rsa_public, from_sec1, CipherParams, CryptoProvider, EcSigner, Hybrid, LoadedKey};
use crate::secret::SecretBytes;
use crate::CryptoError;

/// Bits of the AES key that carries a released key.
const EPHEMERAL_BITS: u16 = 256;

/// How a key is wrapped for transfer: `enc` of a release request and of the header of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransferAlg {
    /// `CKM_RSA_AES_KEY_WRAP`: OAEP with SHA-1.
    RsaAesKeyWrap,
    /// `RSA_AES_KEY_WRAP_256`: OAEP with SHA-256.
    RsaAesKeyWrap256,
    /// `RSA_AES_KEY_WRAP_384`: OAEP with SHA-384.
    RsaAesKeyWrap384,
}

impl TransferAlg {
    /// Every value.
    pub const ALL: [TransferAlg; 3] = [Self::RsaAesKeyWrap, Self::RsaAesKeyWrap256, Self::RsaAesKeyWrap384];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaAesKeyWrap => "CKM_RSA_AES_KEY_WRAP",
            Self::RsaAesKeyWrap256 => "RSA_AES_KEY_WRAP_256",
            Self::RsaAesKeyWrap384 => "RSA_AES_KEY_WRAP_384",
        }
    }

    /// Finds the value with exactly this wire name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == text)
    }

    fn oaep(self) -> &'static OaepAlgorithm {
        match self {
            Self::RsaAesKeyWrap => &OAEP_SHA1_MGF1SHA1,
            Self::RsaAesKeyWrap256 => &OAEP_SHA256_MGF1SHA256,
            Self::RsaAesKeyWrap384 => &OAEP_SHA384_MGF1SHA384,
        }
    }
}

/// Opens a transfer blob with the key-exchange key. Whatever is wrong with the blob is [`CryptoError::Failed`]; a
/// key-exchange key that is not RSA is [`CryptoError::Unsupported`].
pub fn unwrap_transfer(kek: &dyn LoadedKey, ciphertext: &[u8]) -> Result<SecretBytes, CryptoError> {
    let PublicKey::Rsa { n, .. } = kek.public() else { return Err(CryptoError::Unsupported) };
    let none = CipherParams::default();
    let (head, wrapped) = ciphertext.split_at_checked(n.len()).ok_or(CryptoError::Failed)?;
    let ephemeral = kek.decrypt(EncAlg::RsaOaep, head, &none)?;
    // Clients use 256 bits; the specification does not say that they must.
    let bits = u16::try_from(ephemeral.len() * 8).map_err(|_| CryptoError::Failed)?;
    let aes = Hybrid.load(KeySpec::Oct { bits }, &ephemeral).map_err(|_| CryptoError::Failed)?;
    aes.decrypt(EncAlg::CkmAesKeyWrapPad, wrapped, &none)
}

/// Makes a transfer blob for the owner of `kek`, who must be RSA with at least 2048 bits.
pub fn wrap_transfer(kek: &PublicKey, alg: TransferAlg, target: &SecretBytes) -> Result<Vec<u8>, CryptoError> {
    let PublicKey::Rsa { n, e } = kek else { return Err(CryptoError::Unsupported) };
    let modulus = check_rsa_public(n, e)?;
    let spec = KeySpec::Oct { bits: EPHEMERAL_BITS };
    let ephemeral = Hybrid.generate(spec)?.private;
    let wrapped =
        Hybrid.load(spec, &ephemeral)?.encrypt(EncAlg::CkmAesKeyWrapPad, target.expose(), &CipherParams::default())?;
    let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().map_err(|_| CryptoError::BadKey)?;
    let mut blob = vec![0u8; modulus];
    OaepPublicEncryptingKey::new(key)
        .and_then(|key| key.encrypt(alg.oaep(), ephemeral.expose(), &mut blob, None).map(|_| ()))
        .map_err(|_| CryptoError::Internal("RSA encryption"))?;
    blob.extend_from_slice(&wrapped.ciphertext);
    Ok(blob)
}

/// Checks the target key of a transfer and brings it into the stored form: PKCS#8 for RSA and EC, bare bytes for
/// symmetric keys. `crv`, if given, must be the curve of the key; the errors are those of [`jwk::import`].
pub fn parse_pkcs8(kty: Family, crv: Option<Curve>, target: &SecretBytes) -> Result<Imported, CryptoError> {
    match kty {
        Family::Rsa => jwk::import(&jwk::rsa_parts(target)?),
        Family::Ec => {
            let curve = curve_of(target)?;
            if crv.is_some_and(|crv| crv != curve) {
                return Err(CryptoError::BadKey);
            }
            // Written anew, so that attributes and optional parts of foreign encoders are not stored.
            let signer = EcSigner::parse(curve, target)?;
            let public = from_sec1(curve, &signer.point())?;
            jwk::finish(Imported { spec: KeySpec::Ec { curve }, public, private: signer.to_pkcs8()? })
        }
        Family::Oct => jwk::import_oct(target),
    }
}

/// The curve that a PKCS#8 key names (RFC 5480 section 2.1.1.1, SEC 2).
fn curve_of(pkcs8: &SecretBytes) -> Result<Curve, CryptoError> {
    let info = PrivateKeyInfoRef::try_from(pkcs8.expose()).map_err(|_| CryptoError::BadKey)?;
    let curve = info.algorithm.parameters_oid().map_err(|_| CryptoError::BadKey)?;
    match curve.to_string().as_str() {
        "1.2.840.10045.3.1.7" => Ok(Curve::P256),
        "1.3.132.0.34" => Ok(Curve::P384),
        "1.3.132.0.35" => Ok(Curve::P521),
        "1.3.132.0.10" => Ok(Curve::P256K),
        _ => Err(CryptoError::Unsupported),
    }
}

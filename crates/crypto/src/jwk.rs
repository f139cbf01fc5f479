//! Private keys as JSON Web Keys (RFC 7517, RFC 7518 section 6): import of what a client made, export for release.
//!
//! A key from outside is checked for everything that would later break a signature or leak the key: sizes, primality,
//! and that every part belongs to every other. RSA libraries do the second half only; nobody but us looks at the primes
//! (`aws-lc-rs` takes any two factors). What comes out is the stored form of [`crate::provider`], byte for byte what
//! generation would have made of the same numbers.
//!
//! The caller decodes base64url; numbers may have leading zero bytes, as some clients write them (contract 10.3). JSON
//! itself is the business of the `api` crate.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use claviger_types::alg::{Curve, Family, KeySpec, PublicKey, SignAlg};
use crypto_primes::{is_prime, Flavor};
use rsa::pkcs1::{RsaPrivateKeyRef, RsaPublicKeyRef};
use rsa::pkcs8::der::asn1::UintRef;
use rsa::pkcs8::der::{Decode, Encode};
use rsa::pkcs8::{EncodePrivateKey, PrivateKeyInfoRef};
use rsa::traits::PrivateKeyParts;
use rsa::BoxedUint;
use zeroize::Zeroizing;

use crate::provider::{check_rsa_public, from_sec1, key_len, trim_zeros, CryptoProvider, EcSigner, Hybrid};
use crate::secret::SecretBytes;
use crate::CryptoError;

/// Bytes of the largest RSA number looked at: those of a 4096-bit modulus.
const MAX_RSA_LEN: usize = 512;

/// Bits in which the upper parts of p and q must differ (FIPS 186-5 section A.1.3 step 5.4): primes closer than that
/// are found by Fermat's method.
const PRIME_DISTANCE_BITS: u32 = 100;

/// The members of a private JWK, decoded from base64url. Members of other kinds of keys are not looked at.
#[derive(Debug)]
pub struct PrivateJwk {
    /// `kty`.
    pub kty: Family,
    /// `crv`.
    pub crv: Option<Curve>,
    /// RSA modulus.
    pub n: Option<Vec<u8>>,
    /// RSA public exponent.
    pub e: Option<Vec<u8>>,
    /// RSA private exponent, or the scalar of an EC key.
    pub d: Option<SecretBytes>,
    /// First RSA prime. Without both primes they are computed, for public exponents above 65536 only.
    pub p: Option<SecretBytes>,
    /// Second RSA prime.
    pub q: Option<SecretBytes>,
    /// `d mod (p - 1)`; may be absent even where the primes are there.
    pub dp: Option<SecretBytes>,
    /// `d mod (q - 1)`; may be absent even where the primes are there.
    pub dq: Option<SecretBytes>,
    /// `1/q mod p`; may be absent even where the primes are there.
    pub qi: Option<SecretBytes>,
    /// EC point; may be absent together with `y`.
    pub x: Option<Vec<u8>>,
    /// EC point; may be absent together with `x`.
    pub y: Option<Vec<u8>>,
    /// Symmetric key.
    pub k: Option<SecretBytes>,
}

impl PrivateJwk {
    /// A JWK with no members but `kty`.
    pub fn new(kty: Family) -> Self {
        Self {
            kty,
            crv: None,
            n: None,
            e: None,
            d: None,
            p: None,
            q: None,
            dp: None,
            dq: None,
            qi: None,
            x: None,
            y: None,
            k: None,
        }
    }
}

/// A key from outside that passed every check.
#[derive(Debug)]
pub struct Imported {
    /// What it is.
    pub spec: KeySpec,
    /// The public half.
    pub public: PublicKey,
    /// The private half in the form of [`crate::provider`].
    pub private: SecretBytes,
}

/// Checks a private JWK and brings it into the stored form. Takes tens of milliseconds for RSA (primality): keep it off
/// the request path's threads.
///
/// [`CryptoError::BadKey`] for members that are missing, malformed or do not belong together;
/// [`CryptoError::Unsupported`] for sizes that the service does not have (RSA other than 2048, 3072, 4096; symmetric
/// other than 128, 192, 256).
pub fn import(jwk: &PrivateJwk) -> Result<Imported, CryptoError> {
    match jwk.kty {
        Family::Rsa => import_rsa(jwk),
        Family::Ec => import_ec(jwk),
        Family::Oct => import_oct(jwk.k.as_ref().ok_or(CryptoError::BadKey)?),
    }
}

/// The members of a stored private key, widths as RFC 7518 section 6 asks: RSA numbers without leading zeros, EC
/// coordinates and scalar as wide as the field.
pub fn export(spec: KeySpec, private: &SecretBytes) -> Result<PrivateJwk, CryptoError> {
    match spec {
        KeySpec::Rsa { .. } => {
            let jwk = rsa_parts(private)?;
            let (n, e) = public_numbers(&jwk)?;
            if (PublicKey::Rsa { n, e }).spec() != spec {
                return Err(CryptoError::BadKey);
            }
            Ok(jwk)
        }
        KeySpec::Ec { curve } => {
            let signer = EcSigner::parse(curve, private)?;
            let PublicKey::Ec { x, y, .. } = from_sec1(curve, &signer.point())? else {
                return Err(CryptoError::BadKey);
            };
            Ok(PrivateJwk {
                crv: Some(curve),
                d: Some(signer.scalar()),
                x: Some(x),
                y: Some(y),
                ..PrivateJwk::new(Family::Ec)
            })
        }
        KeySpec::Oct { bits } if key_len(bits) == Some(private.len()) => {
            Ok(PrivateJwk { k: Some(copy(private.expose())), ..PrivateJwk::new(Family::Oct) })
        }
        KeySpec::Oct { .. } => Err(CryptoError::BadKey),
    }
}

/// An RSA public key as certificates carry it: `RSAPublicKey` in DER (RFC 8017 appendix A.1.1).
pub fn rsa_public_der(n: &[u8], e: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let number = |bytes| UintRef::new(bytes).map_err(|_| CryptoError::BadKey);
    let key = RsaPublicKeyRef { modulus: number(n)?, public_exponent: number(e)? };
    key.to_der().map_err(|_| CryptoError::BadKey)
}

/// The parts of an RSA key in PKCS#8, unchecked but for their encoding.
pub(crate) fn rsa_parts(pkcs8: &SecretBytes) -> Result<PrivateJwk, CryptoError> {
    let info = PrivateKeyInfoRef::try_from(pkcs8.expose()).map_err(|_| CryptoError::BadKey)?;
    if info.algorithm.oid != rsa::pkcs1::ALGORITHM_OID {
        return Err(CryptoError::BadKey);
    }
    let key = RsaPrivateKeyRef::from_der(info.private_key.as_bytes()).map_err(|_| CryptoError::BadKey)?;
    if key.other_prime_infos.is_some() {
        return Err(CryptoError::BadKey);
    }
    Ok(PrivateJwk {
        n: Some(trim_zeros(key.modulus.as_bytes())),
        e: Some(trim_zeros(key.public_exponent.as_bytes())),
        d: Some(copy(key.private_exponent.as_bytes())),
        p: Some(copy(key.prime1.as_bytes())),
        q: Some(copy(key.prime2.as_bytes())),
        dp: Some(copy(key.exponent1.as_bytes())),
        dq: Some(copy(key.exponent2.as_bytes())),
        qi: Some(copy(key.coefficient.as_bytes())),
        ..PrivateJwk::new(Family::Rsa)
    })
}

fn import_rsa(jwk: &PrivateJwk) -> Result<Imported, CryptoError> {
    let (n, e) = public_numbers(jwk)?;
    let public = PublicKey::Rsa { n, e };
    let spec = public.spec();
    if !matches!(spec, KeySpec::Rsa { bits: 2048 | 3072 | 4096 }) {
        return Err(CryptoError::Unsupported);
    }
    let PublicKey::Rsa { n, e } = &public else { return Err(CryptoError::BadKey) };
    check_rsa_public(n, e)?;
    let d = secret_number(jwk.d.as_ref().ok_or(CryptoError::BadKey)?.expose())?;
    let n = number(n)?;
    // FIPS 186-5 section A.1.1 step 3: a small private exponent is found by Wiener's method. The upper bound also keeps
    // the recovery of the primes, which has no checks of its own, within its arithmetic.
    if d.bit_width() <= n.bit_width() / 2 || *d >= n {
        return Err(CryptoError::BadKey);
    }
    let primes = match (&jwk.p, &jwk.q, &jwk.dp, &jwk.dq, &jwk.qi) {
        (Some(p), Some(q), ..) => vec![number(p.expose())?, number(q.expose())?],
        (None, None, None, None, None) => Vec::new(),
        _ => return Err(CryptoError::BadKey),
    };
    // Checks p * q = n, d < n, p != q, and d * e = 1 modulo p - 1 and q - 1; with no primes it computes them first.
    let key = rsa::PrivateKey::from_components(n, number(e)?, BoxedUint::clone(&d), primes)
        .map_err(|_| CryptoError::BadKey)?;
    check_primes(&key)?;
    let der = key.to_pkcs8_der().map_err(|_| CryptoError::BadKey)?;
    let private = SecretBytes::new(der.as_bytes().to_vec());
    let right = rsa_parts(&private)?;
    let pairs = [(&jwk.dp, &right.dp), (&jwk.dq, &right.dq), (&jwk.qi, &right.qi)];
    if !pairs.into_iter().all(|(given, right)| absent_or_equal(given, right)) {
        return Err(CryptoError::BadKey);
    }
    finish(Imported { spec, public, private })
}

fn import_ec(jwk: &PrivateJwk) -> Result<Imported, CryptoError> {
    let curve = jwk.crv.ok_or(CryptoError::BadKey)?;
    let width = curve.field_bytes();
    let scalar = Zeroizing::new(widen(jwk.d.as_ref().ok_or(CryptoError::BadKey)?.expose(), width)?);
    let signer = EcSigner::from_scalar(curve, &scalar)?;
    let public = from_sec1(curve, &signer.point())?;
    match (&jwk.x, &jwk.y) {
        // A point that differs from d * G is not the key's, whether or not it is on the curve.
        (Some(x), Some(y)) => {
            let given = PublicKey::Ec { curve, x: widen(x, width)?, y: widen(y, width)? };
            if given != public {
                return Err(CryptoError::BadKey);
            }
        }
        (None, None) => {}
        _ => return Err(CryptoError::BadKey),
    }
    finish(Imported { spec: KeySpec::Ec { curve }, public, private: signer.to_pkcs8()? })
}

/// Takes a symmetric key as it is; leading zeros belong to it.
pub(crate) fn import_oct(key: &SecretBytes) -> Result<Imported, CryptoError> {
    let bits = u16::try_from(key.len() * 8).map_err(|_| CryptoError::Unsupported)?;
    if key_len(bits).is_none() {
        return Err(CryptoError::Unsupported);
    }
    finish(Imported { spec: KeySpec::Oct { bits }, public: PublicKey::Oct { bits }, private: copy(key.expose()) })
}

/// Loads the key as the service will, and has key pairs prove that their halves belong together (FIPS 140-3
/// implementation guidance 10.3.A: pairwise consistency).
pub(crate) fn finish(imported: Imported) -> Result<Imported, CryptoError> {
    let key = Hybrid.load(imported.spec, &imported.private)?;
    if *key.public() != imported.public {
        return Err(CryptoError::BadKey);
    }
    let alg = match imported.spec {
        KeySpec::Rsa { .. } => SignAlg::Rs256,
        KeySpec::Ec { curve } => curve.sign_alg(),
        KeySpec::Oct { .. } => return Ok(imported),
    };
    let digest = vec![0x5a; alg.digest_bytes().unwrap_or_default()];
    let signature = key.sign(alg, &digest).map_err(|_| CryptoError::BadKey)?;
    if key.verify(alg, &digest, &signature)? {
        Ok(imported)
    } else {
        Err(CryptoError::BadKey)
    }
}

/// Primality (Baillie-PSW) and distance of the two primes.
fn check_primes(key: &rsa::PrivateKey) -> Result<(), CryptoError> {
    let [p, q] = key.primes() else { return Err(CryptoError::BadKey) };
    let (larger, smaller) = if p.as_ref() >= q.as_ref() { (p, q) } else { (q, p) };
    let distance = Zeroizing::new(larger.wrapping_sub(smaller.as_ref()));
    let far = distance.bit_width() + PRIME_DISTANCE_BITS > p.bit_width();
    if far && is_prime(Flavor::Any, p.as_ref()) && is_prime(Flavor::Any, q.as_ref()) {
        Ok(())
    } else {
        Err(CryptoError::BadKey)
    }
}

/// `n` and `e` without leading zeros.
fn public_numbers(jwk: &PrivateJwk) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
    let part = |part: &Option<Vec<u8>>| part.as_deref().map(trim_zeros).ok_or(CryptoError::BadKey);
    let (n, e) = (part(&jwk.n)?, part(&jwk.e)?);
    if n.is_empty() || e.is_empty() {
        return Err(CryptoError::BadKey);
    }
    Ok((n, e))
}

fn number(bytes: &[u8]) -> Result<BoxedUint, CryptoError> {
    let bytes = Zeroizing::new(trim_zeros(bytes));
    if bytes.is_empty() || bytes.len() > MAX_RSA_LEN {
        return Err(CryptoError::BadKey);
    }
    let bits = u32::try_from(bytes.len() * 8).map_err(|_| CryptoError::BadKey)?;
    BoxedUint::from_be_slice(&bytes, bits).map_err(|_| CryptoError::BadKey)
}

fn secret_number(bytes: &[u8]) -> Result<Zeroizing<BoxedUint>, CryptoError> {
    number(bytes).map(Zeroizing::new)
}

/// A big-endian number in exactly `width` bytes.
fn widen(bytes: &[u8], width: usize) -> Result<Vec<u8>, CryptoError> {
    let bytes = Zeroizing::new(trim_zeros(bytes));
    let zeros = width.checked_sub(bytes.len()).ok_or(CryptoError::BadKey)?;
    let mut out = vec![0u8; width];
    if let Some(tail) = out.get_mut(zeros..) {
        tail.copy_from_slice(&bytes);
    }
    Ok(out)
}

fn absent_or_equal(given: &Option<SecretBytes>, right: &Option<SecretBytes>) -> bool {
    match (given, right) {
        (None, _) => true,
        (Some(given), Some(right)) => {
            let (given, right) = (trim_zeros(given.expose()), trim_zeros(right.expose()));
            verify_slices_are_equal(&Zeroizing::new(given), &Zeroizing::new(right)).is_ok()
        }
        (Some(_), None) => false,
    }
}

fn copy(bytes: &[u8]) -> SecretBytes {
    SecretBytes::new(bytes.to_vec())
}

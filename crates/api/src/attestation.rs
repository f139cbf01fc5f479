//! Attestation: who may vouch for an environment that a key is released to (contract 10.6), and checking what they say.
//!
//! Authorities are named by the operator, each with its signing keys as a JWKS file: the service makes no connections of its
//! own, so that it neither follows an `iss` that a client chose nor stops releasing keys when somebody else's web server is
//! away. A token is a compact JWS (RFC 7515); its `alg` must be one that the authority's own key is for.

use claviger_crypto::provider::CryptoProvider;
use claviger_types::alg::{Curve, PublicKey, SignAlg};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as CertifiedKey;

use crate::wire::decode_b64;

/// Longest token looked at, in bytes: attestations carry evidence of tens of kilobytes.
const TOKEN_BYTES_MAX: usize = 256 * 1024;

/// Difference of clocks that is forgiven, in seconds: authorities are elsewhere.
const LEEWAY: u64 = 300;

/// Whoever is believed about environments, with the keys that it signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    issuer: String,
    keys: Vec<AuthorityKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AuthorityKey {
    kid: Option<String>,
    key: PublicKey,
}

/// What a verified token says.
pub(crate) struct Attested {
    /// The authority's address, without a slash at its end.
    pub(crate) authority: String,
    /// All claims.
    pub(crate) claims: Value,
}

/// The authority's address as it is compared: without a slash at its end.
pub(crate) fn canonical(issuer: &str) -> &str {
    issuer.trim_end_matches('/')
}

impl Authority {
    /// From the authority's address, as `iss` and release policies have it, and its JSON Web Key Set (RFC 7517 section 5).
    /// Keys may be given by their numbers or, as attestation services do, by a certificate (`x5c`).
    pub fn from_jwks(issuer: &str, jwks: &[u8]) -> Result<Self, String> {
        if !issuer.starts_with("https://") {
            return Err(format!("not an https address: `{issuer}`"));
        }
        let set: Value = serde_json::from_slice(jwks).map_err(|error| format!("not JSON: {error}"))?;
        let members = set.get("keys").and_then(Value::as_array).ok_or("it has no member `keys`")?;
        let keys: Vec<AuthorityKey> = members.iter().filter_map(authority_key).collect();
        match keys.is_empty() {
            true => Err("it has no RSA or EC key to check signatures with".into()),
            false => Ok(Self { issuer: canonical(issuer).to_owned(), keys }),
        }
    }

    /// The address.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

fn authority_key(jwk: &Value) -> Option<AuthorityKey> {
    if jwk.get("use").and_then(Value::as_str).is_some_and(|used| used != "sig") {
        return None;
    }
    let key = public_key(jwk).or_else(|| certified_key(jwk))?;
    Some(AuthorityKey { kid: jwk.get("kid").and_then(Value::as_str).map(str::to_owned), key })
}

/// The public key of a JWK by its numbers (RFC 7518 section 6).
pub(crate) fn public_key(jwk: &Value) -> Option<PublicKey> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let number = |name: &str| member(name).and_then(decode_b64).map(|bytes| trim(&bytes).to_vec());
    match member("kty")? {
        "RSA" | "RSA-HSM" => Some(PublicKey::Rsa { n: number("n")?, e: number("e")? }),
        "EC" | "EC-HSM" => {
            let curve = Curve::parse(member("crv")?)?;
            let coordinate =
                |name: &str| member(name).and_then(decode_b64).filter(|bytes| bytes.len() == curve.field_bytes());
            Some(PublicKey::Ec { curve, x: coordinate("x")?, y: coordinate("y")? })
        }
        _ => None,
    }
}

fn trim(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The key of the first certificate of `x5c`. The file is the operator's word: no chain is built, no date looked at.
fn certified_key(jwk: &Value) -> Option<PublicKey> {
    let leaf = jwk.get("x5c")?.as_array()?.first()?.as_str().and_then(decode_b64)?;
    let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
    let info = certificate.public_key();
    match info.parsed().ok()? {
        CertifiedKey::RSA(key) => Some(PublicKey::Rsa { n: trim(key.modulus).into(), e: trim(key.exponent).into() }),
        CertifiedKey::EC(point) => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
            let curve = match curve.as_str() {
                "1.2.840.10045.3.1.7" => Curve::P256,
                "1.3.132.0.34" => Curve::P384,
                "1.3.132.0.35" => Curve::P521,
                _ => return None,
            };
            let coordinates = point.data().strip_prefix(&[4])?;
            let (x, y) = coordinates.split_at_checked(curve.field_bytes())?;
            (y.len() == curve.field_bytes()).then(|| PublicKey::Ec { curve, x: x.into(), y: y.into() })
        }
        _ => None,
    }
}

/// Signature algorithms that attestations may use: asymmetric, and none of the service's own additions.
fn algorithm(name: &str) -> Option<SignAlg> {
    use SignAlg as A;
    let known = [A::Rs256, A::Rs384, A::Rs512, A::Ps256, A::Ps384, A::Ps512, A::Es256, A::Es384, A::Es512];
    known.into_iter().find(|alg| alg.as_str() == name)
}

/// Whether the key is one that the algorithm is for.
fn goes_with(alg: SignAlg, key: &PublicKey) -> bool {
    match key {
        PublicKey::Rsa { .. } => alg.family() == claviger_types::alg::Family::Rsa,
        PublicKey::Ec { curve, .. } => alg.curve() == Some(*curve),
        PublicKey::Oct { .. } => false,
    }
}

fn digest(alg: SignAlg, signed: &[u8]) -> Vec<u8> {
    match alg.digest_bytes() {
        Some(48) => Sha384::digest(signed).to_vec(),
        Some(64) => Sha512::digest(signed).to_vec(),
        _ => Sha256::digest(signed).to_vec(),
    }
}

/// Verifies an attestation token: signature by one of the authorities, times. What the claims say is the policy's to judge.
pub(crate) fn verify(
    authorities: &[Authority],
    provider: &dyn CryptoProvider,
    token: &str,
    now: u64,
) -> Option<Attested> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header: Map<String, Value> = serde_json::from_slice(&decode_b64(header)?).ok()?;
    // RFC 7515 section 4.1.11: whoever does not understand what `crit` lists must reject.
    if header.contains_key("crit") {
        return None;
    }
    let alg = algorithm(header.get("alg")?.as_str()?)?;
    let claims: Value = serde_json::from_slice(&decode_b64(payload)?).ok()?;
    let issuer = canonical(claims.get("iss")?.as_str()?);
    let authority = authorities.iter().find(|authority| authority.issuer == issuer)?;
    let kid = header.get("kid").and_then(Value::as_str);
    let signature = decode_b64(signature)?;
    let digest = digest(alg, signed.as_bytes());
    let named = |key: &&AuthorityKey| match (kid, &key.kid) {
        (Some(wanted), Some(kid)) => wanted == kid,
        _ => true,
    };
    let mut keys = authority.keys.iter().filter(named).filter(|key| goes_with(alg, &key.key));
    keys.find(|key| provider.verify(&key.key, alg, &digest, &signature).unwrap_or(false))?;
    let time = |name: &str| claims.get(name).and_then(Value::as_u64);
    if now >= time("exp")?.saturating_add(LEEWAY) || time("nbf").is_some_and(|nbf| now.saturating_add(LEEWAY) < nbf) {
        return None;
    }
    Some(Attested { authority: authority.issuer.clone(), claims })
}

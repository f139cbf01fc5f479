//! Signed tokens of other issuers (RFC 7515, RFC 7519): compact, with an asymmetric algorithm that the issuer's own key is
//! for. Keys come from a JSON Web Key Set that the operator names, never from the token.

use crate::wire::decode_b64;
use claviger_crypto::provider::CryptoProvider;
use claviger_types::alg::{Curve, PublicKey, SignAlg};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as CertifiedKey;

/// Most keys of a set: each is tried for a token that names none.
const KEYS_MAX: usize = 64;

/// Sizes of RSA moduli, in bytes: less is no signature worth the name, more is only work.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// The keys that an issuer signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The algorithm that the set binds the key to, if it does.
    alg: Option<String>,
    key: PublicKey,
}

impl KeySet {
    /// From a JSON Web Key Set (RFC 7517 section 5). Keys may be given by their numbers or, as attestation services do, by a
    /// certificate (`x5c`); those for other purposes and of other kinds are left out.
    pub(crate) fn from_jwks(jwks: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(jwks).map_err(|error| format!("not JSON: {error}"))?;
        let members = set.get("keys").and_then(Value::as_array).ok_or("it has no member `keys`")?;
        let keys: Vec<Key> = members.iter().filter_map(Key::from_jwk).collect();
        match keys.len() {
            0 => Err("it has no RSA or EC key to check signatures with".into()),
            1..=KEYS_MAX => Ok(Self(keys)),
            _ => Err(format!("it has more than {KEYS_MAX} keys")),
        }
    }

    /// Whether a key among them may be the one of this id.
    pub(crate) fn may_have(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.goes_by(Some(kid)))
    }
}

impl Key {
    fn from_jwk(jwk: &Value) -> Option<Self> {
        if jwk.get("use").and_then(Value::as_str).is_some_and(|used| used != "sig") {
            return None;
        }
        let key = public_key(jwk).or_else(|| certified_key(jwk))?;
        if matches!(&key, PublicKey::Rsa { n, .. } if !RSA_BYTES.contains(&n.len())) {
            return None;
        }
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self { kid: text("kid"), alg: text("alg"), key })
    }

    /// Whether it may be the one that a token names: a token that names none may be of any, and a key without a name any.
    fn goes_by(&self, kid: Option<&str>) -> bool {
        match (kid, &self.kid) {
            (Some(wanted), Some(kid)) => wanted == kid,
            _ => true,
        }
    }

    /// Whether it is one that the algorithm is for.
    fn goes_with(&self, alg: SignAlg) -> bool {
        self.alg.as_deref().is_none_or(|bound| bound == alg.as_str())
            && match &self.key {
                PublicKey::Rsa { .. } => alg.family() == claviger_types::alg::Family::Rsa,
                PublicKey::Ec { curve, .. } => alg.curve() == Some(*curve),
                PublicKey::Oct { .. } => false,
            }
    }
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

/// Signature algorithms of other issuers: asymmetric, and none of the service's own additions.
fn algorithm(name: &str) -> Option<SignAlg> {
    use SignAlg as A;
    let known = [A::Rs256, A::Rs384, A::Rs512, A::Ps256, A::Ps384, A::Ps512, A::Es256, A::Es384, A::Es512];
    known.into_iter().find(|alg| alg.as_str() == name)
}

fn digest(alg: SignAlg, signed: &[u8]) -> Vec<u8> {
    match alg.digest_bytes() {
        Some(48) => Sha384::digest(signed).to_vec(),
        Some(64) => Sha512::digest(signed).to_vec(),
        _ => Sha256::digest(signed).to_vec(),
    }
}

/// A token that is well-formed. Nothing that it says is to be believed yet.
pub(crate) struct Unverified<'a> {
    /// Everything that it claims.
    pub(crate) claims: Value,
    /// Which key it says it is signed with.
    pub(crate) kid: Option<String>,
    alg: SignAlg,
    signed: &'a str,
    signature: Vec<u8>,
}

/// How a token stands to the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InTime {
    /// Between `nbf` and `exp`.
    Yes,
    /// Before `nbf`.
    NotYet,
    /// After `exp`.
    Over,
}

impl<'a> Unverified<'a> {
    /// Takes a token of at most `bytes_max` bytes apart.
    pub(crate) fn parse(token: &'a str, bytes_max: usize) -> Option<Self> {
        if token.len() > bytes_max {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Map<String, Value> = serde_json::from_slice(&decode_b64(header)?).ok()?;
        // RFC 7515 section 4.1.11: whoever does not understand what `crit` lists must reject.
        if header.contains_key("crit") {
            return None;
        }
        let claims: Value = serde_json::from_slice(&decode_b64(payload)?).ok()?;
        Some(Self {
            claims,
            kid: header.get("kid").and_then(Value::as_str).map(str::to_owned),
            alg: algorithm(header.get("alg")?.as_str()?)?,
            signed,
            signature: decode_b64(signature)?,
        })
    }

    /// A claim that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    /// Whether one of the keys, the one that is named if it is, has signed the token.
    pub(crate) fn is_signed_by(&self, keys: &KeySet, provider: &dyn CryptoProvider) -> bool {
        let digest = digest(self.alg, self.signed.as_bytes());
        let mut keys = keys.0.iter().filter(|key| key.goes_by(self.kid.as_deref()) && key.goes_with(self.alg));
        keys.any(|key| provider.verify(&key.key, self.alg, &digest, &self.signature).unwrap_or(false))
    }

    /// Whether the token counts at `now` (seconds), with clocks that may differ by `leeway`; `None` without an end, and
    /// where a time is no number. Times may have fractions.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    pub(crate) fn time(&self, now: u64, leeway: u64) -> Option<InTime> {
        let (now, leeway) = (now as f64, leeway as f64);
        let exp = self.claims.get("exp")?.as_f64()?;
        let nbf = self.claims.get("nbf").map_or(Some(f64::MIN), Value::as_f64)?;
        Some(if now >= exp + leeway {
            InTime::Over
        } else if now + leeway < nbf {
            InTime::NotYet
        } else {
            InTime::Yes
        })
    }

    /// Whether the token is for one of these.
    pub(crate) fn is_for(&self, audiences: &[String]) -> bool {
        let ours = |value: &Value| value.as_str().is_some_and(|aud| audiences.iter().any(|ours| ours == aud));
        match self.claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        }
    }
}

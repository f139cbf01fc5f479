//! Compact JSON Web Signatures with RS256, for the access tokens that the built-in token service issues and checks.
//!
//! Only what is needed of RFC 7515 and RFC 7519: one algorithm, three parts, no `crit`, a bound on the length. A
//! general library would bring the `none` algorithm, key confusion and embedded keys, which is where JWT goes wrong.
//! Claims are the caller's: this module signs and verifies bytes.

use std::sync::Arc;

use aws_lc_rs::digest::{digest, SHA256};
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use base64::Engine;
use claviger_types::alg::{PublicKey, SignAlg};
use serde::Serialize;

use crate::provider::{AwsLc, CryptoProvider, LoadedKey};
use crate::CryptoError;

/// Longest token looked at, in bytes: more than any claim set of ours, and little enough to parse before
/// authentication.
pub const MAX_TOKEN_LEN: usize = 16 * 1024;

/// Length that a key's thumbprint is cut to, as `x5t` has it (RFC 7515 section 4.1.7).
const THUMBPRINT_LEN: usize = 20;

/// Signs tokens with one RSA key.
pub struct JwtSigner {
    key: Arc<dyn LoadedKey>,
    kid: String,
}

/// The protected header; the order of fields is the order on the wire.
#[derive(Serialize)]
struct Header<'a> {
    typ: &'a str,
    alg: &'a str,
    x5t: &'a str,
    kid: &'a str,
}

impl JwtSigner {
    /// A signer that announces itself as `kid`; a key that is not RSA is [`CryptoError::Unsupported`].
    pub fn new(key: Arc<dyn LoadedKey>, kid: String) -> Result<Self, CryptoError> {
        match key.public() {
            PublicKey::Rsa { .. } => Ok(Self { key, kid }),
            PublicKey::Ec { .. } | PublicKey::Oct { .. } => Err(CryptoError::Unsupported),
        }
    }

    /// The key id in the header.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key that verifies the tokens.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs `claims_json` as it is, with `typ` `JWT`, and returns the compact form.
    pub fn sign(&self, claims_json: &[u8]) -> Result<String, CryptoError> {
        self.sign_typed("JWT", claims_json)
    }

    /// Like [`JwtSigner::sign`], with another `typ`.
    pub fn sign_typed(&self, typ: &str, claims_json: &[u8]) -> Result<String, CryptoError> {
        let header = Header { typ, alg: "RS256", x5t: &self.kid, kid: &self.kid };
        let header = serde_json::to_vec(&header).map_err(|_| CryptoError::Internal("JWT header"))?;
        let mut token = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims_json));
        let signature = self.key.sign(SignAlg::Rs256, digest(&SHA256, token.as_bytes()).as_ref())?;
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// A key id made from the key itself: the JWK thumbprint (RFC 7638, SHA-256) cut to 20 bytes, in base64url.
///
/// It has the shape of an `x5t`, which clients of Azure expect in the header, without there being a certificate.
pub fn kid_of(public: &PublicKey) -> String {
    let text = |bytes: &[u8]| BASE64URL.encode(bytes);
    // RFC 7638 section 3: required members only, in lexicographic order, no white space.
    let canonical = match public {
        PublicKey::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
        PublicKey::Ec { curve, x, y } => {
            format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.as_str(), text(x), text(y))
        }
        // Its thumbprint would be a hash of the secret. What is left does not tell one symmetric key from another.
        PublicKey::Oct { .. } => r#"{"kty":"oct"}"#.to_owned(),
    };
    let hash = digest(&SHA256, canonical.as_bytes());
    BASE64URL.encode(hash.as_ref().get(..THUMBPRINT_LEN).unwrap_or_default())
}

/// A token whose signature has been checked. What the claims say is still for the caller to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedJws {
    /// `kid` of the header.
    pub kid: String,
    /// The decoded payload.
    pub payload: Vec<u8>,
}

/// The parts of a token that is well-formed and says it is RS256, unverified.
struct Parsed<'a> {
    kid: String,
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

fn parse(token: &str) -> Option<Parsed<'_>> {
    if token.len() > MAX_TOKEN_LEN {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    if payload.contains('.') {
        return None;
    }
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&BASE64URL.decode(header).ok()?).ok()?;
    // RFC 7515 section 4.1.11: whoever does not understand what `crit` lists must reject; we understand nothing there.
    if header.get("alg")?.as_str()? != "RS256" || header.contains_key("crit") {
        return None;
    }
    Some(Parsed { kid: header.get("kid")?.as_str()?.to_owned(), signed, payload, signature })
}

/// The `kid` of a well-formed RS256 token, to pick the key to verify with. Nothing else may be concluded from it.
pub fn parse_unverified_kid(token: &str) -> Option<String> {
    parse(token).map(|parsed| parsed.kid)
}

/// Verifies a compact RS256 token.
///
/// [`CryptoError::Failed`] for every fault of the token; [`CryptoError::Unsupported`] if the key is not RSA.
pub fn verify_rs256(token: &str, key: &PublicKey) -> Result<VerifiedJws, CryptoError> {
    if !matches!(key, PublicKey::Rsa { .. }) {
        return Err(CryptoError::Unsupported);
    }
    let parsed = parse(token).ok_or(CryptoError::Failed)?;
    let signature = BASE64URL.decode(parsed.signature).map_err(|_| CryptoError::Failed)?;
    let hash = digest(&SHA256, parsed.signed.as_bytes());
    if !AwsLc.verify(key, SignAlg::Rs256, hash.as_ref(), &signature)? {
        return Err(CryptoError::Failed);
    }
    let payload = BASE64URL.decode(parsed.payload).map_err(|_| CryptoError::Failed)?;
    Ok(VerifiedJws { kid: parsed.kid, payload })
}

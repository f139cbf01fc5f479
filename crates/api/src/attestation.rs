//! Attestation: who may vouch for an environment that a key is released to (contract 10.6), and checking what they say.
//!
//! Authorities are named by the operator, each with its signing keys as a JWKS file: the service makes no connections of its
//! own, so that it neither follows an `iss` that a client chose nor stops releasing keys when somebody else's web server is
//! away. A token is a compact JWS (RFC 7515); its `alg` must be one that the authority's own key is for.

use crate::jws::{InTime, KeySet, Unverified};
use claviger_crypto::provider::CryptoProvider;
use serde_json::Value;

/// Longest token looked at, in bytes: attestations carry evidence of tens of kilobytes.
const TOKEN_BYTES_MAX: usize = 256 * 1024;

/// Difference of clocks that is forgiven, in seconds: authorities are elsewhere.
const LEEWAY: u64 = 300;

/// Whoever is believed about environments, with the keys that it signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    issuer: String,
    keys: KeySet,
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
        Ok(Self { issuer: canonical(issuer).to_owned(), keys: KeySet::from_jwks(jwks)? })
    }

    /// The address.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Verifies an attestation token: signature by one of the authorities, times. What the claims say is the policy's to judge.
pub(crate) fn verify(
    authorities: &[Authority],
    provider: &dyn CryptoProvider,
    token: &str,
    now: u64,
) -> Option<Attested> {
    let token = Unverified::parse(token, TOKEN_BYTES_MAX)?;
    let issuer = canonical(token.text("iss")?);
    let authority = authorities.iter().find(|authority| authority.issuer == issuer)?;
    if !token.is_signed_by(&authority.keys, provider) || token.time(now, LEEWAY) != Some(InTime::Yes) {
        return None;
    }
    Some(Attested { authority: authority.issuer.clone(), claims: token.claims })
}

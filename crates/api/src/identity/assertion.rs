//! Client assertions: a token that the client signs with the key of a registered certificate, or one of another issuer
//! that a federated credential names (identity contract section 7).

use super::IdentityError;
use crate::domain::Origin;
use crate::issuers::IssuerFault;
use crate::jws::{InTime, Unverified};
use crate::service::Service;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::DecodePaddingMode;
use base64::{alphabet, Engine};
use claviger_crypto::jwt::MAX_TOKEN_LEN;
use claviger_state_machine::read;
use claviger_state_machine::records::Application;
use claviger_types::alg::{PublicKey, SignAlg};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as CertificateKey;

/// `client_assertion_type` of a signed token.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Longest time from now to `exp`, in seconds: an assertion is made for one request, and clients give ten minutes.
const LIFE_MAX: f64 = 24.0 * 3600.0;

/// Difference of clocks that is forgiven, in seconds: the client's is not ours.
const LEEWAY: f64 = 300.0;

/// MSAL pads `x5t`, which RFC 7515 does not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
struct Header {
    alg: String,
    x5t: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
    crit: Option<serde_json::Value>,
}

/// Times are floats on the wire: MSAL for Python sends fractions.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: f64,
    nbf: Option<f64>,
}

fn refused(text: impl Into<String>) -> IdentityError {
    IdentityError::new(401, "invalid_client", 700_027, text)
}

/// The RSA key of a certificate and the times between which it is valid, in seconds.
pub(crate) fn certificate_key(der: &[u8]) -> Option<(PublicKey, u64, u64)> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let CertificateKey::RSA(key) = certificate.public_key().parsed().ok()? else { return None };
    let stripped = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).unwrap_or_default().to_vec()
    };
    let (n, e) = (stripped(key.modulus), stripped(key.exponent));
    // Less is no signature worth the name, more is only work.
    if !(256..=512).contains(&n.len()) {
        return None;
    }
    let time = |seconds: i64| u64::try_from(seconds).ok();
    let validity = certificate.validity();
    Some((PublicKey::Rsa { n, e }, time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

/// Checks an assertion for an application at `now` (seconds): one of its own, or one of another issuer that it takes for
/// its own.
pub(super) async fn check(
    service: &Service,
    origin: &Origin<'_>,
    application: &Application,
    assertion: &str,
    now: u64,
) -> Result<(), IdentityError> {
    match Unverified::parse(assertion, MAX_TOKEN_LEN) {
        Some(token) if token.text("iss").is_some_and(|iss| !iss.eq_ignore_ascii_case(&application.app.guid())) => {
            check_federated(service, application, &token, now).await
        }
        _ => check_own(service, origin, application, assertion, now),
    }
}

/// A token of another issuer, for which the application has a federated credential. Nothing is told about credentials
/// before the signature was right.
async fn check_federated(
    service: &Service,
    application: &Application,
    token: &Unverified<'_>,
    now: u64,
) -> Result<(), IdentityError> {
    let claim = |name: &str| token.text(name).unwrap_or_default();
    let (issuer, subject) = (claim("iss"), claim("sub"));
    let no_match = |code, what: &str, value: &str| {
        let text = format!("No matching federated identity record found for presented assertion {what} '{value}'.");
        IdentityError::new(401, "invalid_client", code, text)
    };
    service.issuers.check(service, token).await.map_err(|fault| match fault {
        IssuerFault::Unknown => {
            let text = format!(
                "No matching federated identity record found for presented assertion issuer '{issuer}': this service is \
                 not configured to trust it."
            );
            IdentityError::new(401, "invalid_client", 700_211, text)
        }
        IssuerFault::NoKeys => {
            let text = format!("The signing keys of the assertion's issuer '{issuer}' cannot be had at the moment.");
            IdentityError::new(503, "temporarily_unavailable", 50_166, text)
        }
        IssuerFault::Signature => refused("Client assertion failed signature validation."),
    })?;
    if token.time(now, crate::issuers::LEEWAY) != Some(InTime::Yes) {
        let text = "Client assertion is not within its valid time range.";
        return Err(IdentityError::new(401, "invalid_client", 700_024, text));
    }
    let mut all = service
        .node
        .view(|view| read::federated_credentials(view, application.app))
        .map_err(|_| IdentityError::unavailable())?;
    all.retain(|known| known.issuer == issuer);
    if all.is_empty() {
        return Err(no_match(700_211, "issuer", issuer));
    }
    all.retain(|known| known.subject == subject);
    if all.is_empty() {
        return Err(no_match(700_213, "subject", subject));
    }
    if all.iter().any(|known| token.is_for(&known.audiences)) {
        return Ok(());
    }
    let audience = token.claims.get("aud").map(|aud| aud.as_str().map_or_else(|| aud.to_string(), str::to_owned));
    Err(no_match(700_212, "audience", &audience.unwrap_or_default()))
}

fn check_own(
    service: &Service,
    origin: &Origin<'_>,
    application: &Application,
    assertion: &str,
    now: u64,
) -> Result<(), IdentityError> {
    let malformed = || refused("Client assertion is malformed.");
    if assertion.len() > MAX_TOKEN_LEN {
        return Err(malformed());
    }
    let decode = |text: &str| BASE64URL.decode(text).map_err(|_| malformed());
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
    let alg = match header.alg.as_str() {
        "RS256" => SignAlg::Rs256,
        "PS256" => SignAlg::Ps256,
        other => return Err(refused(format!("Client assertion is signed with '{other}', not RS256 or PS256."))),
    };
    if header.crit.is_some() {
        return Err(malformed());
    }
    let given = |text: &Option<String>| text.as_deref().map(decode).transpose();
    let (sha1, sha256) = (given(&header.x5t)?, given(&header.x5t_s256)?);
    let found = application.certificates.iter().find(|known| match (&sha256, &sha1) {
        (Some(given), _) => Sha256::digest(&known.der).as_slice() == given.as_slice(),
        (None, Some(given)) => Sha1::digest(&known.der).as_slice() == given.as_slice(),
        (None, None) => false,
    });
    let Some(certificate) = found else {
        let text = format!(
            "The certificate with identifier used to sign the client assertion is not registered on application '{}'.",
            application.app.guid()
        );
        return Err(refused(text));
    };
    if now < certificate.start || now >= certificate.end {
        return Err(refused("The certificate used to sign the client assertion is expired or not valid yet."));
    }
    let right = service
        .provider
        .verify(&certificate.public, alg, Sha256::digest(signed).as_slice(), &decode(signature)?)
        .unwrap_or(false);
    if !right {
        return Err(refused("Client assertion failed signature validation."));
    }
    let claims: Claims = serde_json::from_slice(&decode(payload)?).map_err(|_| malformed())?;
    let app = application.app.guid();
    if !claims.iss.eq_ignore_ascii_case(&app) || !claims.sub.eq_ignore_ascii_case(&app) {
        return Err(refused("Client assertion's 'iss' and 'sub' must be the application's id."));
    }
    if !audiences(origin, application)
        .iter()
        .any(|audience| audience.eq_ignore_ascii_case(claims.aud.trim_end_matches('/')))
    {
        return Err(refused(format!("Client assertion's audience '{}' is not this token endpoint.", claims.aud)));
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    let now = now as f64;
    let in_time = claims.exp + LEEWAY > now
        && claims.exp < now + LIFE_MAX
        && claims.nbf.is_none_or(|not_before| not_before < now + LEEWAY);
    if in_time {
        Ok(())
    } else {
        Err(IdentityError::new(401, "invalid_client", 700_024, "Client assertion is not within its valid time range."))
    }
}

/// The names of the token endpoint: of each version, of the authority and of the issuer, on any of the login hosts.
fn audiences(origin: &Origin<'_>, application: &Application) -> Vec<String> {
    let tenant = application.tenant.guid();
    let mut names = vec![origin.issuer(&tenant).trim_end_matches('/').to_owned()];
    for host in &origin.cloud.login_hosts {
        let base = match origin.port {
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        };
        for tenant in [tenant.as_str(), "adfs"] {
            for path in ["oauth2/v2.0/token", "oauth2/token", "v2.0", ""] {
                names.push(format!("{base}/{tenant}/{path}").trim_end_matches('/').to_owned());
            }
        }
    }
    names
}

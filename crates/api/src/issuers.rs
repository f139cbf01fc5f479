//! Other issuers of tokens that the operator trusts (OpenID Connect): for workload identities, whose tokens stand for an
//! application, and for principals of their own, whose tokens open vaults directly.
//!
//! Only issuers that the configuration names are asked for anything, at the address that it names: a token or a client leads
//! the service nowhere. Keys are fetched when they are first needed, again after a while, and when a token names one that is
//! not known; never more often than [`RETRY`] says, whatever clients send. A key that the issuer has taken back is good until
//! they are fetched again, for [`TrustedIssuer::refresh`], and a token that was checked for [`RECHECK`] more.

use crate::error::TokenFault;
use crate::jws::{InTime, KeySet, Unverified};
use crate::service::Service;
use crate::tokens::Principal;
use claviger_crypto::jwt::MAX_TOKEN_LEN;
use claviger_state_machine::read;
use claviger_types::command::{Actor, EXTERNAL_GROUPS_MAX};
use claviger_types::name::Id128;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Largest key set: a dozen keys with their certificates are a tenth of it.
const JWKS_BYTES_MAX: u64 = 256 * 1024;

/// Time to fetch one: a request waits for it.
const FETCH: Duration = Duration::from_secs(5);

/// For how long keys are used while the issuer cannot be reached: a night's outage of its web server stops nobody.
const STALE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Time between two fetches from one issuer, or [`TrustedIssuer::refresh`] if that is less.
const RETRY: Duration = Duration::from_secs(30);

/// Difference of clocks that is forgiven, in seconds: issuers are elsewhere, and run NTP like everybody.
pub(crate) const LEEWAY: u64 = 60;

/// Seconds for which a token that was checked is taken without looking at its signature again.
const RECHECK: u64 = 60;

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At an address: https, or http on this machine.
    Url {
        /// The address.
        url: String,
        /// Authorities of its certificate, PEM; without, those of the system.
        ca: Option<PathBuf>,
    },
}

/// How principals of an issuer are mapped to ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// The claim that names the principal.
    pub oid_claim: String,
    /// The claim that lists its groups.
    pub groups_claim: Option<String>,
    /// The tenant that the issuer speaks for; `None` is the world's first.
    pub tenant: Option<Id128>,
    /// The claim that names the tenant, which must be one of the world's.
    pub tenant_claim: Option<String>,
    /// Whether these claims hold object ids as they are. If not, object ids are made of issuer and claim, so that no issuer
    /// can speak for a principal that is not its own.
    pub object_ids_as_they_are: bool,
}

/// An issuer, as the operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// As `iss` has it.
    pub issuer: String,
    /// Its keys.
    pub keys: KeySource,
    /// For how long keys are used without looking again: a key that its issuer has taken back is good for that long.
    pub refresh: Duration,
    /// Whether and how its tokens open vaults; without, they only stand for applications with federated credentials.
    pub principals: Option<Mapping>,
}

impl KeySource {
    /// From a path or an address.
    pub fn parse(text: &str, base: &Path, ca: Option<&str>) -> Result<Self, String> {
        let is_url = text.contains("://");
        match (is_url, ca) {
            (false, Some(_)) => Err("only keys at an https address have a `ca`".into()),
            (false, None) if text.is_empty() => Err("an empty path".into()),
            (false, None) => Ok(Self::File(base.join(text))),
            // Readers of addresses disagree on what these mean.
            (true, _) if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') => Err("a malformed address".into()),
            // A name and a password would end in the log.
            (true, _) if authority(text).contains('@') => Err("an address with a user in it".into()),
            (true, ca) if text.starts_with("https://") => {
                Ok(Self::Url { url: text.to_owned(), ca: ca.map(|ca| base.join(ca)) })
            }
            (true, None) if is_loopback(text) => Ok(Self::Url { url: text.to_owned(), ca: None }),
            _ => Err(format!("neither https nor http on this machine: `{text}`")),
        }
    }

    /// What can be said about it without asking anybody.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::File(_) => self.load().map(|_| ()),
            Self::Url { ca: Some(ca), .. } => authorities(ca).map(|_| ()),
            Self::Url { ca: None, .. } => Ok(()),
        }
    }

    /// Reads or fetches; blocks for up to [`FETCH`].
    fn load(&self) -> Result<KeySet, String> {
        let bytes = match self {
            Self::File(path) => {
                let what = |error: std::io::Error| format!("cannot read `{}`: {error}", path.display());
                // Opening a pipe would wait for whoever writes to it.
                if !std::fs::metadata(path).map_err(what)?.is_file() {
                    return Err(format!("cannot read `{}`: not a file", path.display()));
                }
                let mut bytes = Vec::new();
                let file = std::fs::File::open(path).map_err(what)?;
                file.take(JWKS_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(what)?;
                bytes
            }
            Self::Url { url, ca } => fetch(url, ca.as_deref())?,
        };
        if bytes.len() as u64 > JWKS_BYTES_MAX {
            return Err(format!("the key set is larger than {JWKS_BYTES_MAX} bytes"));
        }
        KeySet::from_jwks(&bytes).map_err(|why| format!("not a key set: {why}"))
    }
}

/// `host:port` of an address, with what else may be there.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Whether an http address is on this machine.
fn is_loopback(url: &str) -> bool {
    if !url.starts_with("http://") {
        return false;
    }
    let authority = authority(url);
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("`{}`: no PEM certificate in it", path.display())),
    }
}

fn fetch(url: &str, ca: Option<&Path>) -> Result<Vec<u8>, String> {
    let roots = match ca {
        Some(path) => authorities(path)?,
        None if url.starts_with("https://") => rustls_native_certs::load_native_certs().certs,
        None => Vec::new(),
    };
    let roots: Vec<_> = roots.iter().map(|root| ureq::tls::Certificate::from_der(root).to_owned()).collect();
    let tls = ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(ureq::tls::RootCerts::Specific(Arc::new(roots)))
        .build();
    // A redirection would lead where the operator has not said, and so would a proxy of the environment.
    let config =
        ureq::Agent::config_builder().timeout_global(Some(FETCH)).max_redirects(0).proxy(None).tls_config(tls).build();
    let agent = ureq::Agent::new_with_config(config);
    let mut answer = agent.get(url).call().map_err(|error| format!("cannot fetch `{url}`: {error}"))?;
    if answer.status() != 200 {
        return Err(format!("cannot fetch `{url}`: the answer is {}", answer.status()));
    }
    let body = answer.body_mut().with_config().limit(JWKS_BYTES_MAX).read_to_vec();
    body.map_err(|error| format!("cannot fetch `{url}`: {error}"))
}

#[derive(Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Instant)>,
    tried: Option<Instant>,
}

/// What is to be done about a token's key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// These will do, or are the best that can be had now.
    Use(Arc<KeySet>),
    /// The issuer is to be asked.
    Ask,
    /// It was asked a moment ago, and there are none.
    Nothing,
}

impl Known {
    fn look(&self, kid: Option<&str>, refresh: Duration, now: Instant) -> Look {
        let age = |at: Instant| now.saturating_duration_since(at);
        let keys = self.keys.as_ref().filter(|(_, at)| age(*at) < STALE_MAX);
        let good =
            |(keys, at): &&(Arc<KeySet>, Instant)| age(*at) < refresh && kid.is_none_or(|kid| keys.may_have(kid));
        let tried_lately = self.tried.is_some_and(|at| age(at) < RETRY.min(refresh));
        match keys {
            Some(known) if tried_lately || good(&known) => Look::Use(known.0.clone()),
            None if tried_lately => Look::Nothing,
            _ => Look::Ask,
        }
    }
}

struct Issuer {
    named: TrustedIssuer,
    known: Mutex<Known>,
    /// One fetch at a time: the others wait for its result, and so for one fetch at most.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Issuer {
    fn look(&self, kid: Option<&str>) -> Look {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.look(kid, self.named.refresh, Instant::now())
    }

    /// The keys for a token that names this one.
    async fn keys(self: &Arc<Self>, kid: Option<&str>) -> Option<Arc<KeySet>> {
        let mut look = self.look(kid);
        if look == Look::Ask {
            let turn = self.turn.clone().lock_owned().await;
            look = self.look(kid);
            if look == Look::Ask {
                let issuer = self.clone();
                // It keeps what it has fetched and its turn also when the request that waits for it is given up.
                let fetched = tokio::task::spawn_blocking(move || {
                    issuer.load();
                    drop(turn);
                });
                if let Err(error) = fetched.await {
                    tracing::error!(issuer = self.named.issuer, %error, "a fetch of keys failed");
                }
                look = self.look(kid);
            }
        }
        match look {
            Look::Use(keys) => Some(keys),
            Look::Ask | Look::Nothing => None,
        }
    }

    fn load(&self) {
        let loaded = self.named.keys.load();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.tried = Some(now);
        match loaded {
            Ok(keys) => known.keys = Some((Arc::new(keys), now)),
            Err(why) => tracing::warn!(issuer = self.named.issuer, why, "the keys of an issuer cannot be had"),
        }
    }
}

/// What is wrong with a token of another issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IssuerFault {
    /// Nobody has told the service to trust it.
    Unknown,
    /// Its keys cannot be had now.
    NoKeys,
    /// None of its keys has signed the token.
    Signature,
}

/// The issuers of one node, with their keys.
pub(crate) struct Issuers(Vec<Arc<Issuer>>);

impl Issuers {
    pub(crate) fn new(named: &[TrustedIssuer]) -> Self {
        let issuer = |named: &TrustedIssuer| {
            Arc::new(Issuer { named: named.clone(), known: Mutex::default(), turn: Arc::default() })
        };
        Self(named.iter().map(issuer).collect())
    }

    /// Whether any of them has principals of its own.
    pub(crate) fn have_principals(&self) -> bool {
        self.0.iter().any(|issuer| issuer.named.principals.is_some())
    }

    fn named(&self, token: &Unverified<'_>) -> Option<&Arc<Issuer>> {
        let iss = token.text("iss")?;
        self.0.iter().find(|issuer| issuer.named.issuer == iss)
    }

    /// Whether the issuer that a token names has signed it. Times and audience are the caller's to check.
    pub(crate) async fn check(&self, service: &Service, token: &Unverified<'_>) -> Result<(), IssuerFault> {
        let issuer = self.named(token).ok_or(IssuerFault::Unknown)?;
        let keys = issuer.keys(token.kid.as_deref()).await.ok_or(IssuerFault::NoKeys)?;
        match token.is_signed_by(&keys, &*service.provider) {
            true => Ok(()),
            false => Err(IssuerFault::Signature),
        }
    }

    /// The principal of a bearer token of one of them.
    pub(crate) async fn principal(&self, service: &Service, token: &str, now: u64) -> Result<Principal, TokenFault> {
        let token = Unverified::parse(token, MAX_TOKEN_LEN).ok_or(TokenFault::Invalid)?;
        let issuer = self.named(&token).ok_or(TokenFault::Invalid)?;
        let mapping = issuer.named.principals.as_ref().ok_or(TokenFault::Invalid)?;
        self.check(service, &token).await.map_err(|fault| match fault {
            IssuerFault::NoKeys => TokenFault::KeysUnavailable,
            IssuerFault::Unknown | IssuerFault::Signature => TokenFault::Invalid,
        })?;
        match token.time(now, LEEWAY) {
            Some(InTime::Yes) => {}
            Some(InTime::NotYet) => return Err(TokenFault::NotYetValid),
            Some(InTime::Over) => return Err(TokenFault::Expired),
            None => return Err(TokenFault::Claim("exp".into())),
        }
        if !token.is_for(&mapping.audiences) {
            let found = token.claims.get("aud").map(|aud| aud.as_str().map_or_else(|| aud.to_string(), str::to_owned));
            let expected = mapping.audiences.join(" or ");
            return Err(TokenFault::Audience { expected, found: found.unwrap_or_default() });
        }
        let (tenant, oid, groups) = mapping.map(service, &issuer.named.issuer, &token)?;
        let app = ["azp", "appid", "client_id"].iter().find_map(|name| token.text(name)).unwrap_or_default();
        let audience = mapping.audiences.first().cloned().unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared with the clock already")]
        let expires = token.claims.get("exp").and_then(Value::as_f64).unwrap_or_default() as u64;
        let actor = Actor::External { tenant, oid, groups };
        let expires = expires.saturating_add(LEEWAY).min(now + RECHECK);
        Ok(Principal::external(actor, tenant, oid, app.to_owned(), issuer.named.issuer.clone(), audience, expires))
    }
}

impl Mapping {
    fn map(
        &self,
        service: &Service,
        issuer: &str,
        token: &Unverified<'_>,
    ) -> Result<(Id128, Id128, Vec<Id128>), TokenFault> {
        let claim = |name: &str| TokenFault::Claim(name.to_owned());
        let tenants = service.node.view(|view| read::tenants(view)).map_err(|_| TokenFault::KeysUnavailable)?;
        let tenant = match (&self.tenant_claim, self.tenant) {
            (Some(name), _) => {
                let named = token.text(name).and_then(|text| Id128::parse_guid(text).ok());
                let named = named.filter(|id| tenants.iter().any(|tenant| tenant.tenant == *id));
                named.ok_or_else(|| claim(name))?
            }
            (None, Some(tenant)) => tenant,
            (None, None) => tenants.first().map(|tenant| tenant.tenant).ok_or(TokenFault::Invalid)?,
        };
        let name = token.text(&self.oid_claim).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| claim(&self.oid_claim))?;
        let oid = self.object_id(issuer, "principal", name).ok_or_else(|| claim(&self.oid_claim))?;
        let mut groups = Vec::new();
        if let Some(groups_claim) = &self.groups_claim {
            let listed = match token.claims.get(groups_claim) {
                None => Vec::new(),
                Some(Value::String(one)) => vec![one.as_str()],
                Some(Value::Array(list)) => {
                    list.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(|| claim(groups_claim))?
                }
                Some(_) => return Err(claim(groups_claim)),
            };
            if listed.len() > EXTERNAL_GROUPS_MAX {
                return Err(claim(groups_claim));
            }
            for name in listed {
                groups.push(self.object_id(issuer, "group", name).ok_or_else(|| claim(groups_claim))?);
            }
        }
        Ok((tenant, oid, groups))
    }

    fn object_id(&self, issuer: &str, kind: &str, name: &str) -> Option<Id128> {
        match self.object_ids_as_they_are {
            true => Id128::parse_guid(name).ok(),
            false => Some(external_object_id(issuer, kind, name)),
        }
    }
}

/// The object id of a principal (`kind` is `principal`) or group (`group`) of another issuer: a hash, so that policies may
/// name it before its first token, and with the version of ids that are made in such a way (RFC 9562 section 5.8).
pub fn external_object_id(issuer: &str, kind: &str, name: &str) -> Id128 {
    let mut hash = Sha256::new();
    for part in ["claviger external principal v1", issuer, kind, name] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    Id128(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_only_where_nobody_can_change_them_on_the_way() {
        let parse = |text: &str| KeySource::parse(text, Path::new("/etc"), None);
        assert_eq!(parse("keys.json"), Ok(KeySource::File("/etc/keys.json".into())));
        for good in ["https://a.test/keys", "http://127.0.0.1:80/keys", "http://localhost/keys", "http://[::1]:1/k"] {
            assert!(matches!(parse(good), Ok(KeySource::Url { .. })), "{good}");
        }
        for bad in [
            "",
            "http://a.test/keys",
            "http://127.0.0.1.a.test/",
            "ftp://a.test",
            "http://localhost@a.test/",
            "http://localhost:1@a.test/",
            "http://localhost\\@a.test/",
            "https://a:b@a.test/keys",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(KeySource::parse("keys.json", Path::new("/"), Some("ca.pem")).is_err());
    }

    #[test]
    fn keys_are_asked_for_when_it_is_time_and_no_oftener() {
        let set = |kid: &str| {
            let n = crate::wire::b64(&[0xff; 256]);
            let jwks = serde_json::json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB", "kid": kid}]});
            Arc::new(KeySet::from_jwks(jwks.to_string().as_bytes()).unwrap())
        };
        let (refresh, keys, start) = (Duration::from_secs(600), set("a"), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let known = |tried: u64| Known { keys: Some((keys.clone(), start)), tried: Some(at(tried)) };
        let using = Look::Use(keys.clone());

        assert_eq!(Known::default().look(None, refresh, start), Look::Ask);
        let nothing = Known { keys: None, tried: Some(start) };
        assert_eq!(nothing.look(None, refresh, at(29)), Look::Nothing);
        assert_eq!(nothing.look(None, refresh, at(30)), Look::Ask);

        for (kid, seconds, want) in [
            (Some("a"), 0, &using),
            (Some("a"), 599, &using),
            (None, 599, &using),
            (Some("a"), 600, &Look::Ask),
            // A key that is not among them: at once, but for a moment after the last time.
            (Some("b"), 29, &using),
            (Some("b"), 30, &Look::Ask),
        ] {
            assert_eq!(known(0).look(kid, refresh, at(seconds)), *want, "{kid:?} after {seconds} s");
        }
        // While it cannot be reached, the old ones count, for a day.
        let day = 24 * 3600;
        assert_eq!(known(day - 2).look(Some("a"), refresh, at(day - 1)), using);
        assert_eq!(known(day - 1).look(Some("a"), refresh, at(day)), Look::Nothing);
        // Who looks often may ask as often.
        assert_eq!(known(0).look(Some("b"), Duration::from_secs(1), at(1)), Look::Ask);
    }

    #[test]
    fn object_ids_are_their_issuers_own() {
        let id = external_object_id("https://a.test", "principal", "alice");
        // Policies name them: they stay.
        assert_eq!(id.guid(), "05842a2b-a8cd-8cca-a07f-d5a63d36a2d1");
        for other in [
            external_object_id("https://b.test", "principal", "alice"),
            external_object_id("https://a.test", "group", "alice"),
            external_object_id("https://a.testp", "rincipal", "alice"),
        ] {
            assert_ne!(id, other);
        }
    }
}

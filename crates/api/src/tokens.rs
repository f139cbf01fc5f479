//! Checking and issuing access tokens of the built-in token service.
//!
//! A verified token is remembered by its hash, so that only the first request of an hour pays for the signature; times,
//! audience and tenant are looked at on every request, because they depend on when and where it is used. So is the
//! principal itself: behind the read gate, so that a token dies with whom it speaks for.

use crate::error::{ServiceError, TokenFault};
use crate::identity::is_public_client;
use crate::service::Service;
use claviger_crypto::jwt::{self, JwtSigner};
use claviger_node::View;
use claviger_state_machine::{read, ApplyError, Subject};
use claviger_types::command::Actor;
use claviger_types::name::Id128;
use lru::LruCache;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Verified tokens remembered: one per principal and hour, 300 bytes each.
const REMEMBERED: usize = 16_384;

/// What token keys are sealed as.
pub(crate) const TOKEN_KEY: &str = "token key";

/// Difference of clocks that is forgiven, in seconds: tokens come from nodes of the same cluster.
const LEEWAY: u64 = 30;

/// Who a verified token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// In whose name commands are proposed.
    pub(crate) actor: Actor,
    /// `tid`.
    pub(crate) tenant: Id128,
    /// `oid`: what policies name.
    pub(crate) oid: Id128,
    /// `appid`.
    pub(crate) app: String,
    /// `iss`.
    pub(crate) issuer: String,
    /// `aud`.
    pub(crate) audience: String,
    not_before: u64,
    expires: u64,
}

impl Principal {
    /// Of a token of another issuer, which counts until `expires` and is to be checked again then.
    pub(crate) fn external(
        actor: Actor,
        tenant: Id128,
        oid: Id128,
        app: String,
        issuer: String,
        audience: String,
        expires: u64,
    ) -> Self {
        Self { actor, tenant, oid, app, issuer, audience, not_before: 0, expires }
    }

    /// Whether another issuer speaks for it.
    pub(crate) fn is_external(&self) -> bool {
        matches!(self.actor, Actor::External { .. })
    }

    /// Whether the directory still has it: a user that may sign in, an application with its service principal, and the
    /// application through which a user acts.
    pub(crate) fn is_alive(&self, view: &View<'_>) -> Result<bool, ApplyError> {
        let application = |app: Id128| read::application(view, app);
        Ok(match &self.actor {
            Actor::Principal { tenant, oid } => match Id128::parse_guid(&self.app) {
                Ok(app) => application(app)?
                    .is_some_and(|found| found.has_principal && (found.tenant, found.oid) == (*tenant, *oid)),
                Err(_) => false,
            },
            Actor::Delegated { tenant, oid, app } => {
                let known = read::user(view, *oid)?.is_some_and(|user| user.tenant == *tenant)
                    && read::sign_in(view, *oid)?.is_none_or(|sign_in| sign_in.enabled);
                known && (is_public_client(*app) || application(*app)?.is_some())
            }
            // Its issuer's to say; the service itself has no tokens.
            Actor::External { .. } | Actor::System => true,
        })
    }

    /// Whom an access check is about.
    pub(crate) fn subject(&self) -> Subject<'_> {
        let own = Subject { tenant: self.tenant, oid: self.oid, application: None, groups: &[] };
        Subject::of(&self.actor).unwrap_or(own)
    }
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    tid: String,
    oid: String,
    #[serde(default)]
    appid: String,
    #[serde(default)]
    idtyp: String,
    nbf: u64,
    exp: u64,
}

/// Verified tokens and the signing key of one node.
pub(crate) struct Tokens {
    verified: Mutex<LruCache<[u8; 32], Arc<Principal>>>,
    signer: Mutex<Option<Arc<JwtSigner>>>,
}

impl Default for Tokens {
    fn default() -> Self {
        let size = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self { verified: Mutex::new(LruCache::new(size)), signer: Mutex::new(None) }
    }
}

impl Service {
    /// The principal of a bearer token whose signature and times are right. Audience and tenant are the caller's to check.
    pub(crate) async fn principal(&self, token: &str, now: u64) -> Result<Arc<Principal>, TokenFault> {
        if token.len() > jwt::MAX_TOKEN_LEN {
            return Err(TokenFault::Invalid);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        let known = self.tokens.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        // One of another issuer is looked at again when its time is over, for the time may be that of our look.
        let principal = match known.filter(|known| !known.is_external() || now < known.expires) {
            Some(principal) => principal,
            None => {
                let principal = match self.verify(token) {
                    Err(TokenFault::Invalid) if self.issuers.have_principals() => {
                        self.issuers.principal(self, token, now).await?
                    }
                    own => own?,
                };
                let principal = Arc::new(principal);
                self.tokens.verified.lock().unwrap_or_else(PoisonError::into_inner).put(hash, principal.clone());
                principal
            }
        };
        if now >= principal.expires.saturating_add(LEEWAY) {
            return Err(TokenFault::Expired);
        }
        if now.saturating_add(LEEWAY) < principal.not_before {
            return Err(TokenFault::NotYetValid);
        }
        Ok(principal)
    }

    fn verify(&self, token: &str) -> Result<Principal, TokenFault> {
        let kid = jwt::parse_unverified_kid(token).ok_or(TokenFault::Invalid)?;
        let keys = self.node.view(|view| read::token_keys(view)).map_err(|_| TokenFault::Invalid)?;
        let key = keys.iter().find(|key| key.kid == kid).ok_or(TokenFault::Invalid)?;
        let jws = jwt::verify_rs256(token, &key.public).map_err(|_| TokenFault::Invalid)?;
        let claims: Claims = serde_json::from_slice(&jws.payload).map_err(|_| TokenFault::Invalid)?;
        let guid = |text: &str| Id128::parse_guid(text).map_err(|_| TokenFault::Invalid);
        let (tenant, oid) = (guid(&claims.tid)?, guid(&claims.oid)?);
        let actor = match claims.idtyp.as_str() {
            "user" => Actor::Delegated { tenant, oid, app: guid(&claims.appid)? },
            _ => Actor::Principal { tenant, oid },
        };
        Ok(Principal {
            actor,
            tenant,
            oid,
            app: claims.appid,
            issuer: claims.iss,
            audience: claims.aud,
            not_before: claims.nbf,
            expires: claims.exp,
        })
    }

    /// Signs claims with the newest token key.
    pub(crate) fn sign_token(&self, claims: &serde_json::Value) -> Result<String, ServiceError> {
        let keys = self.node.view(|view| read::token_keys(view))?;
        let newest = keys.last().ok_or(ServiceError::Unavailable)?;
        let known = self.tokens.signer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let signer = match known.filter(|signer| signer.kid() == newest.kid) {
            Some(signer) => signer,
            None => {
                let private = self.sealer.open_own(TOKEN_KEY, &newest.kid, &newest.sealed)?;
                let key = self.provider.load(newest.public.spec(), &private)?;
                let signer = Arc::new(JwtSigner::new(key, newest.kid.clone())?);
                *self.tokens.signer.lock().unwrap_or_else(PoisonError::into_inner) = Some(signer.clone());
                signer
            }
        };
        Ok(signer.sign(claims.to_string().as_bytes())?)
    }
}

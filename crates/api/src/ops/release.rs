//! Secure key release (contract 10.6): an exportable key leaves, wrapped to a key of an environment that an authority vouches
//! for, if the key's policy says so.
//!
//! The answer is signed with the newest key of the token service. Its certificate is made from the key itself and so proves
//! nothing on its own: whoever wants to know that it is this service compares `kid` with the token service's JWKS. A signed
//! answer is no access token, for it has none of the claims that one needs.

use crate::attestation;
use crate::call::{Call, Reply};
use crate::certificate;
use crate::error::ServiceError;
use crate::jws::public_key;
use crate::release_policy::Policy;
use crate::service::Service;
use crate::tokens::TOKEN_KEY;
use crate::wire::b64;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use claviger_crypto::byok::{wrap_transfer, TransferAlg};
use claviger_crypto::provider::LoadedKey;
use claviger_crypto::CryptoError;
use claviger_state_machine::read;
use claviger_types::alg::{PublicKey, SignAlg};
use claviger_types::command::Content;
use claviger_types::name::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Deserialize)]
struct ReleaseIn {
    target: Option<String>,
    nonce: Option<String>,
    enc: Option<String>,
}

#[derive(Serialize)]
struct ReleaseOut {
    value: String,
}

/// The signing key of one node, with its certificate.
pub(crate) struct Signer {
    kid: String,
    key: Arc<dyn LoadedKey>,
    certificate: Vec<u8>,
}

/// The signer in use; another one follows when the token key changes.
#[derive(Default)]
pub(crate) struct ReleaseSigner(Mutex<Option<Arc<Signer>>>);

pub(crate) fn release(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: ReleaseIn = call.json()?;
    let target = body.target.filter(|target| !target.is_empty());
    let target = target.ok_or_else(|| ServiceError::BadParameter("'target' is required.".into()))?;
    let enc = match body.enc.as_deref() {
        None | Some("") => TransferAlg::RsaAesKeyWrap,
        Some(text) => TransferAlg::parse(text)
            .ok_or_else(|| ServiceError::BadParameter(format!("The value '{text}' of 'enc' is not known.")))?,
    };
    let object = call.live()?;
    if !object.attributes.enabled {
        return Err(ServiceError::Disabled { kind: Kind::Key, operation: "release" });
    }
    // `nbf` and `exp` do not stand in the way (contract section 6).
    // Nor does `key_ops`: it says what is done with the key here.
    let Content::Key { exportable: true, release_policy: Some(policy), .. } = &object.content else {
        return Err(ServiceError::OperationNotPermitted("release"));
    };
    let authorities = &call.service.config.authorities;
    if authorities.is_empty() {
        return Err(ServiceError::NoAttestationAuthority);
    }
    let attested = attestation::verify(authorities, &*call.service.provider, &target, call.now);
    let attested = attested.ok_or(ServiceError::AttestationFailed)?;
    // Checked when it was set; what does not parse now is from a release of the service that knew more.
    let policy = Policy::parse(&policy.data).map_err(|_| ServiceError::Internal)?;
    if !policy.allows(&attested) {
        return Err(ServiceError::ReleaseRefused);
    }
    let (recipient, recipient_kid) = recipient(&attested.claims).ok_or_else(|| {
        ServiceError::BadParameter(
            "The attestation has no RSA key for encryption of 2048 bits or more in 'x-ms-runtime.keys'.".into(),
        )
    })?;

    let (vault, folded) = (call.vault(), call.name()?.folded());
    let sealed = call.view(|view| read::material(view, vault.id, Kind::Key, &folded, object.version))?;
    let sealed = sealed.ok_or_else(|| call.not_found())?;
    let private = call.service.sealer.open(vault, call.label(&folded, object.version), &sealed)?;
    let wrapped = wrap_transfer(&recipient, enc, &private).map_err(|error| match error {
        CryptoError::BadKey => ServiceError::BadParameter("The attested encryption key cannot be used.".into()),
        other => other.into(),
    })?;
    let blob = json!({
        "schema_version": "1.0.0",
        "header": {"kid": recipient_kid, "alg": "dir", "enc": enc.as_str()},
        "ciphertext": b64(&wrapped),
        "generator": "Claviger",
    });
    let kid = call.render.version_id(&object);
    let mut bundle = serde_json::to_value(call.render.bundle(&object)).map_err(|_| ServiceError::Internal)?;
    bundle["key"]["key_hsm"] = Value::String(b64(blob.to_string().as_bytes()));
    let mut request = json!({"api-version": call.render.version.as_str(), "enc": enc.as_str(), "kid": kid});
    if let Some(nonce) = body.nonce {
        request["nonce"] = Value::String(nonce);
    }
    let payload = json!({"request": request, "response": {"key": bundle}});
    let value = call.service.sign_release(payload.to_string().as_bytes())?;
    tracing::info!(target: "claviger::event", kid, authority = attested.authority, "key released");
    Reply::ok(&ReleaseOut { value })
}

/// The first RSA key for encryption in `x-ms-runtime.keys`, with its `kid`.
fn recipient(claims: &Value) -> Option<(PublicKey, String)> {
    let for_encryption = |jwk: &&Value| {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let ops = jwk.get("key_ops").and_then(Value::as_array);
        text("kty").is_some_and(|kty| kty.starts_with("RSA"))
            && (text("key_use") == Some("enc")
                || text("use") == Some("enc")
                || ops.is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("encrypt"))))
    };
    let jwk = claims.get("x-ms-runtime")?.get("keys")?.as_array()?.iter().find(for_encryption)?;
    let kid = jwk.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some((public_key(jwk)?, kid))
}

impl Service {
    /// A compact JWS over `payload` with the certificate of the key in its header.
    fn sign_release(&self, payload: &[u8]) -> Result<String, ServiceError> {
        let signer = self.release_signer()?;
        let thumbprint = b64(&Sha256::digest(&signer.certificate));
        let header = json!({
            "alg": "RS256",
            "kid": signer.kid,
            "typ": "JWT",
            "x5t#S256": thumbprint,
            "x5c": [STANDARD.encode(&signer.certificate)],
        });
        let signed = format!("{}.{}", b64(header.to_string().as_bytes()), b64(payload));
        let signature = signer.key.sign(SignAlg::Rs256, &Sha256::digest(signed.as_bytes()))?;
        Ok(format!("{signed}.{}", b64(&signature)))
    }

    fn release_signer(&self) -> Result<Arc<Signer>, ServiceError> {
        let keys = self.node.view(|view| read::token_keys(view))?;
        let newest = keys.last().ok_or(ServiceError::Unavailable)?;
        let known = self.release.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(signer) = known.filter(|signer| signer.kid == newest.kid) {
            return Ok(signer);
        }
        let private = self.sealer.open_own(TOKEN_KEY, &newest.kid, &newest.sealed)?;
        let key = self.provider.load(newest.public.spec(), &private)?;
        let certificate = certificate::self_signed(&*key, "Claviger key release")?;
        let signer = Arc::new(Signer { kid: newest.kid.clone(), key, certificate });
        *self.release.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(signer.clone());
        Ok(signer)
    }
}

//! Using keys (contract section 10.5). The last look at the state comes before the key is used; the read gate was passed
//! before the request was authorized.

use super::keys::load;
use crate::call::{Call, Reply};
use crate::error::ServiceError;
use crate::wire::{b64, CryptoIn, CryptoOut, VerifyOut};
use claviger_crypto::provider::{CipherParams, LoadedKey};
use claviger_crypto::CryptoError;
use claviger_types::alg::{EncAlg, Family, PublicKey, SignAlg};
use claviger_types::command::Content;
use claviger_types::name::Kind;
use claviger_types::outcome::ObjectVersion;
use std::sync::Arc;

/// One of the operations: its name in `key_ops`, and whether it is for keys in their period of validity only (contract
/// section 6: old data can always be decrypted and verified).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    name: &'static str,
    valid_only: bool,
}

pub(crate) const ENCRYPT: Use = Use { name: "encrypt", valid_only: true };
pub(crate) const DECRYPT: Use = Use { name: "decrypt", valid_only: false };
pub(crate) const WRAP: Use = Use { name: "wrapKey", valid_only: true };
pub(crate) const UNWRAP: Use = Use { name: "unwrapKey", valid_only: false };
const SIGN: Use = Use { name: "sign", valid_only: true };
const VERIFY: Use = Use { name: "verify", valid_only: false };

/// A key that may be used for what was asked.
struct Usable {
    object: ObjectVersion,
    kid: String,
    folded: String,
}

/// Existence, then state, then permitted operations (contract section 4, order of checks).
fn usable(call: &Call<'_>, wanted: Use) -> Result<Usable, ServiceError> {
    let object = call.live()?;
    if !object.attributes.enabled {
        return Err(ServiceError::Disabled { kind: Kind::Key, operation: wanted.name });
    }
    let Content::Key { key_ops, .. } = &object.content else { return Err(ServiceError::Internal) };
    if !key_ops.iter().any(|op| op == wanted.name) {
        return Err(ServiceError::OperationNotPermitted(wanted.name));
    }
    if wanted.valid_only {
        if object.attributes.expires.is_some_and(|exp| call.now >= exp) {
            return Err(ServiceError::Expired(wanted.name));
        }
        if object.attributes.not_before.is_some_and(|nbf| call.now < nbf) {
            return Err(ServiceError::NotYetValid(wanted.name));
        }
    }
    Ok(Usable { kid: call.render.version_id(&object), folded: call.name()?.folded(), object })
}

impl Usable {
    fn key(&self, call: &Call<'_>) -> Result<Arc<dyn LoadedKey>, ServiceError> {
        load(call, &self.folded, &self.object)
    }

    fn content(&self) -> Option<(&'static str, &PublicKey)> {
        match &self.object.content {
            Content::Key { kty, public, .. } => Some((kty.as_str(), public)),
            Content::Secret { .. } => None,
        }
    }

    fn check_sign(&self, alg: SignAlg) -> Result<(), ServiceError> {
        let Some((kty, public)) = self.content() else { return Err(ServiceError::Internal) };
        match (alg.family(), public) {
            (Family::Rsa, PublicKey::Rsa { .. }) | (Family::Oct, PublicKey::Oct { .. }) => Ok(()),
            (Family::Ec, PublicKey::Ec { curve, .. }) => match alg.curve() {
                Some(wanted) if wanted != *curve => Err(ServiceError::WrongCurve {
                    kid: self.kid.clone(),
                    curve: curve.as_str(),
                    alg: alg.to_string(),
                    wanted: wanted.as_str(),
                }),
                _ => Ok(()),
            },
            (family, _) => Err(self.wrong_type(kty, alg.as_str(), family, "signing")),
        }
    }

    fn check_encrypt(&self, alg: EncAlg) -> Result<(), ServiceError> {
        let Some((kty, public)) = self.content() else { return Err(ServiceError::Internal) };
        match (alg.family(), public) {
            (Family::Rsa, PublicKey::Rsa { .. }) => Ok(()),
            (Family::Oct, PublicKey::Oct { bits }) => match alg.key_bits() {
                Some(wanted) if wanted != *bits => Err(ServiceError::BadParameter(format!(
                    "Key and encryption algorithm are incompatible. Key {} has {bits} bits, and algorithm '{alg}' can \
                     only be used with a key of {wanted} bits.",
                    self.kid
                ))),
                _ => Ok(()),
            },
            (family, _) => Err(self.wrong_type(kty, alg.as_str(), family, "encryption")),
        }
    }

    fn wrong_type(&self, kty: &'static str, alg: &str, family: Family, purpose: &'static str) -> ServiceError {
        let wanted = match family {
            Family::Rsa => "'RSA' or 'RSA-HSM'",
            Family::Ec => "'EC' or 'EC-HSM'",
            Family::Oct => "'oct' or 'oct-HSM'",
        };
        ServiceError::WrongType { kid: self.kid.clone(), kty, alg: alg.to_owned(), wanted, purpose }
    }
}

fn required<'a, T>(member: &'a Option<T>, name: &str) -> Result<&'a T, ServiceError> {
    member.as_ref().ok_or_else(|| ServiceError::BadParameter(format!("'{name}' is required.")))
}

fn unknown_alg(text: &str) -> ServiceError {
    ServiceError::BadParameter(format!("The algorithm '{text}' is not known."))
}

fn params(body: &CryptoIn) -> CipherParams<'_> {
    CipherParams {
        iv: body.iv.as_ref().map(|b| b.0.as_slice()),
        aad: body.aad.as_ref().map(|b| b.0.as_slice()),
        tag: body.tag.as_ref().map(|b| b.0.as_slice()),
    }
}

fn input_error(error: CryptoError) -> ServiceError {
    match error {
        CryptoError::Internal(_) | CryptoError::BadKey => error.into(),
        CryptoError::Failed => ServiceError::DecryptFailed,
        CryptoError::BadLength => {
            ServiceError::BadParameter("The length of 'value' does not go with this key and algorithm.".into())
        }
        CryptoError::BadParameter => {
            ServiceError::BadParameter("'iv', 'aad' or 'tag' does not go with this algorithm.".into())
        }
        CryptoError::Unsupported => ServiceError::BadParameter("The algorithm cannot be used with this key.".into()),
    }
}

pub(crate) fn encrypt(call: &Call<'_>, wanted: Use) -> Result<Reply, ServiceError> {
    let body: CryptoIn = call.json()?;
    let text = required(&body.alg, "alg")?;
    let alg = EncAlg::parse(text).ok_or_else(|| unknown_alg(text))?;
    let value = required(&body.value, "value")?;
    let usable = usable(call, wanted)?;
    usable.check_encrypt(alg)?;
    let made = usable.key(call)?.encrypt(alg, &value.0, &params(&body)).map_err(input_error)?;
    Reply::ok(&CryptoOut {
        kid: usable.kid.clone(),
        value: b64(&made.ciphertext).into(),
        iv: made.iv.as_deref().map(b64),
        tag: made.tag.as_deref().map(b64),
        aad: body.aad.as_ref().map(|aad| b64(&aad.0)),
    })
}

pub(crate) fn decrypt(call: &Call<'_>, wanted: Use) -> Result<Reply, ServiceError> {
    let body: CryptoIn = call.json()?;
    let text = required(&body.alg, "alg")?;
    let alg = EncAlg::parse(text).ok_or_else(|| unknown_alg(text))?;
    let value = required(&body.value, "value")?;
    let usable = usable(call, wanted)?;
    usable.check_encrypt(alg)?;
    let plain = usable.key(call)?.decrypt(alg, &value.0, &params(&body)).map_err(|error| match error {
        // A length that no ciphertext of this key has is no different from one that does not open.
        CryptoError::BadLength => ServiceError::DecryptFailed,
        other => input_error(other),
    })?;
    Reply::ok(&CryptoOut { kid: usable.kid.clone(), value: b64(plain.expose()).into(), iv: None, tag: None, aad: None })
}

fn check_digest(alg: SignAlg, member: &'static str, digest: &[u8]) -> Result<(), ServiceError> {
    match alg.digest_bytes() {
        Some(wanted) if wanted != digest.len() => {
            Err(ServiceError::DigestLength { member, given: digest.len(), alg: alg.as_str(), wanted })
        }
        _ => Ok(()),
    }
}

pub(crate) fn sign(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: CryptoIn = call.json()?;
    let text = required(&body.alg, "alg")?;
    let alg = SignAlg::parse(text).ok_or_else(|| unknown_alg(text))?;
    let digest = required(&body.value, "value")?;
    let usable = usable(call, SIGN)?;
    usable.check_sign(alg)?;
    check_digest(alg, "value", &digest.0)?;
    let signature = usable.key(call)?.sign(alg, &digest.0).map_err(input_error)?;
    Reply::ok(&CryptoOut { kid: usable.kid.clone(), value: b64(&signature).into(), iv: None, tag: None, aad: None })
}

pub(crate) fn verify(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: CryptoIn = call.json()?;
    let text = required(&body.alg, "alg")?;
    let alg = SignAlg::parse(text).ok_or_else(|| unknown_alg(text))?;
    let digest = required(&body.digest, "digest")?;
    let signature = required(&body.value, "value")?;
    let usable = usable(call, VERIFY)?;
    usable.check_sign(alg)?;
    check_digest(alg, "digest", &digest.0)?;
    let Some((_, public)) = usable.content() else { return Err(ServiceError::Internal) };
    let value = match public {
        PublicKey::Oct { .. } => usable.key(call)?.verify(alg, &digest.0, &signature.0),
        public => call.service.provider.verify(public, alg, &digest.0, &signature.0),
    };
    Reply::ok(&VerifyOut { value: value.map_err(input_error)? })
}

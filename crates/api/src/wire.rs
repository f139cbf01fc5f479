//! JSON of the data plane, one type for each shape (contract sections 6, 7, 8, 10 and 11).
//!
//! Domain types are converted here by hand: what is stored and what is shown change for different reasons.

use crate::domain::Origin;
use crate::version::ApiVersion;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::Engine;
use claviger_state_machine::records::Vault;
use claviger_types::alg::PublicKey;
use claviger_types::command::{Content, ReleasePolicy, Tags};
use claviger_types::name::Kind;
use claviger_types::outcome::{Deletion, ObjectVersion};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// base64url without padding.
pub(crate) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes as clients send them: either alphabet, with or without padding (contract section 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Decodes base64 of either alphabet, with or without padding.
pub(crate) fn decode_b64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    match bare.bytes().any(|b| b == b'+' || b == b'/') {
        true => STANDARD.decode(pad(bare)).ok(),
        false => URL_SAFE_NO_PAD.decode(bare).ok(),
    }
}

fn pad(bare: &str) -> String {
    let mut text = bare.to_owned();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode_b64(&text).map(Bytes).ok_or_else(|| de::Error::custom("not base64"))
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // Plaintexts and imported keys pass through here.
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// `attributes` of a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct AttributesIn {
    /// See the contract.
    pub(crate) enabled: Option<bool>,
    /// See the contract.
    pub(crate) nbf: Option<u64>,
    /// See the contract.
    pub(crate) exp: Option<u64>,
    /// See the contract.
    pub(crate) exportable: Option<bool>,
}

/// `release_policy`, both ways.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct ReleasePolicyJson {
    /// See the contract.
    #[serde(rename = "contentType")]
    pub(crate) content_type: Option<String>,
    /// base64url of JSON.
    pub(crate) data: Option<String>,
    /// See the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) immutable: Option<bool>,
}

/// `attributes` of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct AttributesOut {
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    created: u64,
    updated: u64,
    #[serde(rename = "recoveryLevel")]
    recovery_level: &'static str,
    #[serde(rename = "recoverableDays", skip_serializing_if = "Option::is_none")]
    recoverable_days: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exportable: Option<bool>,
    #[serde(rename = "hsmPlatform", skip_serializing_if = "Option::is_none")]
    hsm_platform: Option<&'static str>,
}

/// A public JWK.
#[derive(Debug, Serialize)]
pub(crate) struct JwkOut {
    kid: String,
    kty: &'static str,
    key_ops: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

/// A key, a secret, or an item of one of their lists, live or deleted: members that do not apply are left out.
#[derive(Debug, Serialize, Default)]
pub(crate) struct Bundle {
    #[serde(rename = "recoveryId", skip_serializing_if = "Option::is_none")]
    recovery_id: Option<String>,
    #[serde(rename = "deletedDate", skip_serializing_if = "Option::is_none")]
    deleted_date: Option<u64>,
    #[serde(rename = "scheduledPurgeDate", skip_serializing_if = "Option::is_none")]
    scheduled_purge_date: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Zeroizing<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(rename = "contentType", skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<JwkOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<AttributesOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Tags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_policy: Option<ReleasePolicyJson>,
}

/// A page of a list. `nextLink` is `null` on the last one.
#[derive(Debug, Serialize)]
pub(crate) struct PageOut<T> {
    /// The items.
    pub(crate) value: Vec<T>,
    /// Where the next page is.
    #[serde(rename = "nextLink")]
    pub(crate) next_link: Option<String>,
}

/// What renders objects: the names and the api-version of the request.
#[derive(Debug, Clone)]
pub(crate) struct Renderer<'a> {
    /// The names.
    pub(crate) origin: Origin<'a>,
    /// The vault.
    pub(crate) vault: &'a Vault,
    /// The version asked for.
    pub(crate) version: ApiVersion,
}

/// `recoveryLevel` by the vault's settings (contract section 6).
pub(crate) fn recovery_level(vault: &Vault) -> &'static str {
    match (vault.retention_days >= 90, vault.purge_protection) {
        (true, false) => "Recoverable+Purgeable",
        (true, true) => "Recoverable",
        (false, false) => "CustomizedRecoverable+Purgeable",
        (false, true) => "CustomizedRecoverable",
    }
}

impl Renderer<'_> {
    /// Id without version.
    pub(crate) fn object_id(&self, kind: Kind, name: &str) -> String {
        format!("{}/{}/{name}", self.origin.vault_base(&self.vault.name), kind.collection())
    }

    /// Id with version.
    pub(crate) fn version_id(&self, object: &ObjectVersion) -> String {
        format!("{}/{}", self.object_id(object.kind, object.name.as_str()), object.version.hex())
    }

    fn attributes(&self, object: &ObjectVersion) -> AttributesOut {
        let (exportable, is_key) = match &object.content {
            Content::Key { exportable, .. } => (*exportable, true),
            Content::Secret { .. } => (false, false),
        };
        AttributesOut {
            enabled: object.attributes.enabled,
            nbf: object.attributes.not_before,
            exp: object.attributes.expires,
            created: object.created,
            updated: object.updated,
            recovery_level: recovery_level(self.vault),
            recoverable_days: self.version.shows_recoverable_days().then_some(self.vault.retention_days),
            exportable: exportable.then_some(true),
            // Keys are held in software until a hardware provider is configured: "0" says so, also for `-HSM` kinds.
            hsm_platform: (is_key && self.version.shows_hsm_platform()).then_some("0"),
        }
    }

    fn jwk(&self, object: &ObjectVersion) -> Option<JwkOut> {
        let Content::Key { kty, public, key_ops, .. } = &object.content else { return None };
        let mut jwk = JwkOut {
            kid: self.version_id(object),
            kty: kty.as_str(),
            key_ops: key_ops.clone(),
            n: None,
            e: None,
            crv: None,
            x: None,
            y: None,
        };
        match public {
            PublicKey::Rsa { n, e } => (jwk.n, jwk.e) = (Some(b64(n)), Some(b64(e))),
            PublicKey::Ec { curve, x, y } => {
                (jwk.crv, jwk.x, jwk.y) = (Some(curve.as_str()), Some(b64(x)), Some(b64(y)));
            }
            PublicKey::Oct { .. } => {}
        }
        Some(jwk)
    }

    /// The whole object: key with public part, or secret without value.
    pub(crate) fn bundle(&self, object: &ObjectVersion) -> Bundle {
        let mut bundle = Bundle {
            attributes: Some(self.attributes(object)),
            tags: (!object.tags.is_empty()).then(|| object.tags.clone()),
            ..Bundle::default()
        };
        match &object.content {
            Content::Key { release_policy, .. } => {
                bundle.key = self.jwk(object);
                bundle.release_policy = release_policy.as_ref().map(release_policy_out);
            }
            Content::Secret { content_type } => {
                bundle.id = Some(self.version_id(object));
                bundle.content_type = content_type.clone();
            }
        }
        bundle
    }

    /// A secret with its value.
    pub(crate) fn secret(&self, object: &ObjectVersion, value: Zeroizing<String>) -> Bundle {
        let mut bundle = self.bundle(object);
        bundle.value = Some(value);
        bundle
    }

    /// An item of a list of names.
    pub(crate) fn item(&self, object: &ObjectVersion) -> Bundle {
        self.item_with_id(object, self.object_id(object.kind, object.name.as_str()))
    }

    /// An item of a list of versions.
    pub(crate) fn version_item(&self, object: &ObjectVersion) -> Bundle {
        self.item_with_id(object, self.version_id(object))
    }

    fn item_with_id(&self, object: &ObjectVersion, id: String) -> Bundle {
        let mut item = self.bundle(object);
        item.key = None;
        item.release_policy = None;
        match object.kind {
            Kind::Key => item.kid = Some(id),
            Kind::Secret => item.id = Some(id),
        }
        item
    }

    /// Adds what deleted objects have.
    pub(crate) fn deleted(&self, mut bundle: Bundle, object: &ObjectVersion, deletion: Deletion) -> Bundle {
        let base = self.origin.vault_base(&self.vault.name);
        bundle.recovery_id = Some(format!("{base}/deleted{}/{}", object.kind.collection(), object.name));
        bundle.deleted_date = Some(deletion.deleted);
        bundle.scheduled_purge_date = Some(deletion.purge);
        bundle
    }
}

/// What a release policy is when its maker did not say.
const RELEASE_POLICY_TYPE: &str = "application/json; charset=utf-8";

fn release_policy_out(policy: &ReleasePolicy) -> ReleasePolicyJson {
    ReleasePolicyJson {
        content_type: Some(policy.content_type.clone().unwrap_or_else(|| RELEASE_POLICY_TYPE.to_owned())),
        data: Some(b64(&policy.data)),
        immutable: policy.immutable.then_some(true),
    }
}

/// A crypto operation's request.
#[derive(Debug, Deserialize)]
pub(crate) struct CryptoIn {
    /// Algorithm.
    pub(crate) alg: Option<String>,
    /// Input; the signature in `verify`.
    pub(crate) value: Option<Bytes>,
    /// Digest in `verify`.
    pub(crate) digest: Option<Bytes>,
    /// Initialization vector.
    pub(crate) iv: Option<Bytes>,
    /// Additional authenticated data.
    pub(crate) aad: Option<Bytes>,
    /// Authentication tag.
    pub(crate) tag: Option<Bytes>,
}

/// A crypto operation's answer.
#[derive(Debug, Serialize)]
pub(crate) struct CryptoOut {
    /// The key, with version.
    pub(crate) kid: String,
    /// Output.
    pub(crate) value: Zeroizing<String>,
    /// Initialization vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iv: Option<String>,
    /// Authentication tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// Additional authenticated data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aad: Option<String>,
}

/// The answer to `verify`.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyOut {
    /// Whether the signature is right.
    pub(crate) value: bool,
}

/// A backup blob, both ways.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BackupJson {
    /// base64url.
    pub(crate) value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_generously() {
        for text in ["-_8", "-_8=", "+/8=", "+/8"] {
            assert_eq!(decode_b64(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decode_b64(""), Some(vec![]));
        for bad in ["a", "*", "a b"] {
            assert_eq!(decode_b64(bad), None, "{bad}");
        }
    }
}

//! Rules for what clients send (contract sections 5 and 6).

use crate::error::ServiceError;
use crate::release_policy::Policy;
use crate::wire::{AttributesIn, ReleasePolicyJson};
use claviger_types::command::{Attributes, ReleasePolicy, Tags};

/// Most tags of a version.
const TAGS_MAX: usize = 15;

/// Longest name or value of a tag, in characters: the documents say 256, those for secrets 512 since 2026.
const TAG_CHARS_MAX: usize = 512;

/// The last second of the year 9999: several SDKs cannot represent a later one, and would fail to read a list that has it.
const TIME_MAX: u64 = 253_402_300_799;

/// Largest release policy, in bytes: more than any policy in the documents, and little enough to carry in every answer.
const RELEASE_POLICY_BYTES_MAX: usize = 32 * 1024;

fn bad<T>(text: impl Into<String>) -> Result<T, ServiceError> {
    Err(ServiceError::BadParameter(text.into()))
}

pub(super) fn tags(tags: Option<Tags>) -> Result<Option<Tags>, ServiceError> {
    let Some(tags) = tags else { return Ok(None) };
    if tags.len() > TAGS_MAX {
        return bad(format!("Too many tags: {} were given, at most {TAGS_MAX} are allowed.", tags.len()));
    }
    for (name, value) in &tags {
        if name.is_empty() || name.chars().count() > TAG_CHARS_MAX || value.chars().count() > TAG_CHARS_MAX {
            return bad(format!(
                "A tag's name has 1 to {TAG_CHARS_MAX} characters, its value at most {TAG_CHARS_MAX}."
            ));
        }
    }
    Ok(Some(tags))
}

/// Attributes of a new version.
pub(super) fn attributes(given: Option<&AttributesIn>) -> Result<Attributes, ServiceError> {
    let (enabled, not_before, expires) = given.map_or((None, None, None), |a| (a.enabled, a.nbf, a.exp));
    check_validity(not_before, expires)?;
    Ok(Attributes { enabled: enabled.unwrap_or(true), not_before, expires })
}

pub(super) fn check_validity(not_before: Option<u64>, expires: Option<u64>) -> Result<(), ServiceError> {
    if not_before.max(expires).is_some_and(|time| time > TIME_MAX) {
        return bad(format!("'nbf' and 'exp' must not be later than {TIME_MAX}, the end of the year 9999."));
    }
    match (not_before, expires) {
        (Some(nbf), Some(exp)) if nbf > exp => bad("'nbf' must not be later than 'exp'."),
        _ => Ok(()),
    }
}

/// Spelling of operations, which is exact.
const KEY_OPS: &[&str] = &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "import", "export"];

pub(super) fn key_ops(given: Option<Vec<String>>) -> Result<Option<Vec<String>>, ServiceError> {
    let Some(given) = given else { return Ok(None) };
    if let Some(unknown) = given.iter().find(|op| !KEY_OPS.contains(&op.as_str())) {
        return bad(format!("The key operation '{unknown}' is not known."));
    }
    if given.len() > 1 && given.iter().any(|op| op == "import") {
        return bad("The key operation 'import' may not be mixed with others.");
    }
    if given.iter().enumerate().any(|(i, op)| given.iter().skip(i + 1).any(|other| other == op)) {
        return bad("A key operation is named twice.");
    }
    Ok(Some(given))
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        && content_type.len() <= 64
}

/// A release policy: base64url of a JSON object (contract 10.6).
pub(super) fn release_policy(given: ReleasePolicyJson) -> Result<ReleasePolicy, ServiceError> {
    let data = given.data.as_deref().and_then(crate::wire::decode_b64);
    let Some(data) = data.filter(|data| data.len() <= RELEASE_POLICY_BYTES_MAX) else {
        return bad("'release_policy.data' must be base64url of at most 32 KiB.");
    };
    if let Err(why) = Policy::parse(&data) {
        return bad(format!("'release_policy.data' is not a key release policy: {why}."));
    }
    if given.content_type.as_ref().is_some_and(|text| !is_json(text)) {
        return bad("'release_policy.contentType' must be 'application/json; charset=utf-8'.");
    }
    Ok(ReleasePolicy { content_type: given.content_type, data, immutable: given.immutable.unwrap_or(false) })
}

//! Secrets (contract section 11).

use super::validate;
use crate::call::{Call, Reply};
use crate::error::ServiceError;
use crate::object;
use crate::service::fresh_id;
use crate::wire::AttributesIn;
use claviger_state_machine::read;
use claviger_types::command::{Command, Content, Origin, PutVersion, Tags, UpdateVersion};
use claviger_types::name::Kind;
use serde::Deserialize;

/// Largest value, in bytes (contract section 5).
const VALUE_BYTES_MAX: usize = 25_600;

/// Longest content type, in characters.
const CONTENT_TYPE_CHARS_MAX: usize = 255;

/// The body of set.
#[derive(Deserialize)]
struct SetIn {
    value: Option<String>,
    #[serde(rename = "contentType")]
    content_type: Option<String>,
    #[serde(default, deserialize_with = "object::optional")]
    attributes: Option<AttributesIn>,
    #[serde(default, deserialize_with = "object::tags")]
    tags: Option<Tags>,
}

impl Drop for SetIn {
    fn drop(&mut self) {
        if let Some(value) = &mut self.value {
            zeroize::Zeroize::zeroize(value);
        }
    }
}

/// The body of update.
#[derive(Deserialize)]
struct UpdateIn {
    #[serde(rename = "contentType")]
    content_type: Option<String>,
    #[serde(default, deserialize_with = "object::optional")]
    attributes: Option<AttributesIn>,
    #[serde(default, deserialize_with = "object::tags")]
    tags: Option<Tags>,
}

fn check_content_type(content_type: Option<&String>) -> Result<(), ServiceError> {
    match content_type {
        Some(text) if text.chars().count() > CONTENT_TYPE_CHARS_MAX => {
            Err(ServiceError::BadParameter(format!("'contentType' has at most {CONTENT_TYPE_CHARS_MAX} characters.")))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn set(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let mut body: SetIn = call.json()?;
    let value = body.value.take().map(zeroize::Zeroizing::new).ok_or(ServiceError::MalformedBody)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(ServiceError::BadParameter(format!(
            "The secret value is too long: {} bytes were given, at most {VALUE_BYTES_MAX} are allowed.",
            value.len()
        )));
    }
    check_content_type(body.content_type.as_ref())?;
    let attributes = validate::attributes(body.attributes.as_ref())?;
    let tags = validate::tags(body.tags.take())?.unwrap_or_default();
    let name = call.name()?.clone();
    let version = fresh_id()?;
    let sealed = call.service.sealer.seal(call.vault(), call.label(&name.folded(), version), value.as_bytes())?;
    let command = Command::PutVersion(PutVersion {
        vault: call.vault().id,
        kind: Kind::Secret,
        name,
        origin: Origin::Create,
        version,
        attributes,
        tags,
        content: Content::Secret { content_type: body.content_type.take() },
    });
    let object = call.propose_version(command, vec![sealed]).await?;
    Reply::ok(&call.render.secret(&object, value))
}

pub(crate) fn get(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let (vault, folded, version) = (call.vault().id, call.name()?.folded(), call.version()?);
    let found = call.view(|view| {
        let Some(object) = read::live(view, vault, Kind::Secret, &folded, version)? else { return Ok(None) };
        let sealed = read::material(view, vault, Kind::Secret, &folded, object.version)?;
        Ok(Some((object, sealed)))
    })?;
    let (object, sealed) = found.ok_or_else(|| call.not_found())?;
    if !object.attributes.enabled {
        return Err(ServiceError::Disabled { kind: Kind::Secret, operation: "get" });
    }
    let sealed = sealed.ok_or(ServiceError::Internal)?;
    let value = call.service.sealer.open(call.vault(), call.label(&folded, object.version), &sealed)?;
    let value = std::str::from_utf8(value.expose()).map_err(|_| ServiceError::Internal)?;
    Reply::ok(&call.render.secret(&object, value.to_owned().into()))
}

pub(crate) async fn update(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: UpdateIn = call.json()?;
    check_content_type(body.content_type.as_ref())?;
    let attributes = body.attributes.unwrap_or_default();
    validate::check_validity(attributes.nbf, attributes.exp)?;
    let command = Command::UpdateVersion(UpdateVersion {
        vault: call.vault().id,
        kind: Kind::Secret,
        name: call.name()?.clone(),
        version: call.version()?,
        enabled: attributes.enabled,
        not_before: attributes.nbf,
        expires: attributes.exp,
        tags: validate::tags(body.tags)?,
        key_ops: None,
        content_type: body.content_type,
        release_policy: None,
    });
    let object = call.propose_version(command, Vec::new()).await?;
    Reply::ok(&call.render.bundle(&object))
}

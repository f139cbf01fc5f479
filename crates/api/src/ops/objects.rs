//! What keys and secrets have in common: lists, soft delete, recover, purge (contract sections 7 and 8).

use crate::call::{Call, Reply};
use crate::error::ServiceError;
use crate::wire::PageOut;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use claviger_state_machine::read;
use claviger_types::command::{Command, ObjectRef};
use claviger_types::name::Id128;
use serde::{Deserialize, Serialize};

/// Items on a page, unless fewer are asked for; more are refused.
const PAGE_MAX: usize = 25;

/// What a `$skiptoken` holds, in the form that clients may have seen (contract section 7).
#[derive(Serialize, Deserialize)]
struct Marker {
    #[serde(rename = "NextMarker")]
    next: String,
    #[serde(rename = "TargetLocation")]
    target: u8,
}

struct Paging {
    limit: usize,
    given_limit: Option<String>,
    from: String,
}

fn paging(call: &Call<'_>) -> Result<Paging, ServiceError> {
    let given_limit = call.parameter("maxresults").filter(|text| !text.is_empty());
    let limit = match &given_limit {
        None => PAGE_MAX,
        Some(text) => text.parse().ok().filter(|n| (1..=PAGE_MAX).contains(n)).ok_or_else(|| {
            ServiceError::BadParameter(format!("'maxresults' must be a number from 1 to {PAGE_MAX}, not '{text}'."))
        })?,
    };
    let from = match call.parameter("$skiptoken").filter(|token| !token.is_empty()) {
        None => String::new(),
        Some(token) => {
            let bad = || ServiceError::BadParameter("The value of '$skiptoken' is not valid.".into());
            let json = crate::wire::decode_b64(&token).ok_or_else(bad)?;
            let marker: Marker = serde_json::from_slice(&json).map_err(|_| bad())?;
            marker.next
        }
    };
    Ok(Paging { limit, given_limit, from })
}

/// The next page's address: absolute, with port, with the caller's own api-version (contract section 7).
fn next_link(call: &Call<'_>, paging: &Paging, path: &str, next: Option<String>) -> Option<String> {
    let marker = serde_json::to_vec(&Marker { next: next?, target: 0 }).unwrap_or_default();
    let token = URL_SAFE_NO_PAD.encode(marker);
    let base = call.render.origin.vault_base_with_port(&call.vault().name);
    let version = call.render.version.as_str();
    let mut link = format!("{base}/{path}?api-version={version}&$skiptoken={token}");
    if let Some(limit) = &paging.given_limit {
        link.push_str(&format!("&maxresults={limit}"));
    }
    Some(link)
}

pub(crate) fn list(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let paging = paging(call)?;
    let (vault, kind) = (call.vault().id, call.kind());
    let page = call.view(|view| read::list(view, vault, kind, &paging.from, paging.limit))?;
    let next_link = next_link(call, &paging, kind.collection(), page.next);
    Reply::ok(&PageOut { value: page.items.iter().map(|object| call.render.item(object)).collect(), next_link })
}

pub(crate) fn versions(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let paging = paging(call)?;
    let (vault, kind, name) = (call.vault().id, call.kind(), call.name()?);
    let from = match paging.from.as_str() {
        "" => None,
        text => Some(
            Id128::parse_hex(text)
                .map_err(|_| ServiceError::BadParameter("The value of '$skiptoken' is not valid.".into()))?,
        ),
    };
    let folded = name.folded();
    let page = call.view(|view| read::list_versions(view, vault, kind, &folded, from, paging.limit))?;
    let path = format!("{}/{name}/versions", kind.collection());
    let next_link = next_link(call, &paging, &path, page.next);
    Reply::ok(&PageOut { value: page.items.iter().map(|object| call.render.version_item(object)).collect(), next_link })
}

pub(crate) fn list_deleted(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let paging = paging(call)?;
    let (vault, kind) = (call.vault().id, call.kind());
    let page = call.view(|view| read::list_deleted(view, vault, kind, &paging.from, paging.limit))?;
    let next_link = next_link(call, &paging, &format!("deleted{}", kind.collection()), page.next);
    let items = page.items.iter();
    let value = items.map(|(object, deletion)| call.render.deleted(call.render.item(object), object, *deletion));
    Reply::ok(&PageOut { value: value.collect(), next_link })
}

fn object(call: &Call<'_>) -> Result<ObjectRef, ServiceError> {
    Ok(ObjectRef { vault: call.vault().id, kind: call.kind(), name: call.name()?.clone() })
}

pub(crate) async fn delete(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let (object, deletion) = call.propose_deleted(Command::DeleteObject(object(call)?)).await?;
    Reply::ok(&call.render.deleted(call.render.bundle(&object), &object, deletion))
}

pub(crate) fn get_deleted(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let (vault, kind, folded) = (call.vault().id, call.kind(), call.name()?.folded());
    let found = call.view(|view| read::deleted(view, vault, kind, &folded))?;
    let (object, deletion) =
        found.ok_or_else(|| ServiceError::DeletedNotFound { kind, name: call.matched.name.clone() })?;
    Reply::ok(&call.render.deleted(call.render.bundle(&object), &object, deletion))
}

pub(crate) async fn recover(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let object = call.propose_version(Command::RecoverObject(object(call)?), Vec::new()).await?;
    Reply::ok(&call.render.bundle(&object))
}

pub(crate) async fn purge(call: &Call<'_>) -> Result<Reply, ServiceError> {
    call.propose(Command::PurgeObject(object(call)?), Vec::new()).await?;
    Ok(Reply::empty(204))
}

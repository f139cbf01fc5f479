//! A vault's keys and secrets as resources: to be looked at, never with what they hold, and made in the vault itself.

use super::vaults::Place;
use super::{Answer, Arm, ArmError, Result};
use crate::wire::{b64, recovery_level};
use claviger_state_machine::read;
use claviger_state_machine::records::Vault;
use claviger_types::alg::KeySpec;
use claviger_types::command::Content;
use claviger_types::name::{Id128, Kind, ObjectName};
use claviger_types::outcome::ObjectVersion;
use claviger_types::role::Scope;
use serde_json::{json, Value};

/// Items on a page, unless fewer are asked for: a vault may hold any number of objects.
const PAGE_MAX: usize = 100;

/// How much of an object is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// An item of a list of names.
    Item,
    /// An item of a list of versions.
    VersionItem,
    /// The newest version, under the object's name.
    Object,
    /// One version.
    Version,
}

impl Arm<'_> {
    /// A look at the objects of the vault at a place: `rest` is what follows `keys` or `secrets`.
    pub(super) fn objects(&self, place: &Place<'_>, kind: Kind, rest: &[&str]) -> Result<Answer> {
        let action = format!("Microsoft.KeyVault/vaults/{}/read", kind.collection());
        let Some((given, rest)) = rest.split_first() else {
            self.require(&place.scope, &action)?;
            let vault = &self.existing(place)?;
            let (from, limit) = (self.parameter("$skiptoken").unwrap_or_default().to_ascii_lowercase(), self.limit());
            let page = self.view(|view| read::list(view, vault.id, kind, &from, limit))?;
            return Ok(self.objects_page(vault, &page, Extent::Item));
        };
        self.require(&Scope::object(&place.scope, kind, given), &action)?;
        let vault = &self.existing(place)?;
        let missing = || ArmError::object_not_found(vault, kind, given);
        let name = ObjectName::parse(given).map_err(|_| missing())?;
        let folded = name.folded();
        match rest {
            [] => {
                let found = self.view(|view| read::live(view, vault.id, kind, &folded, None))?.ok_or_else(missing)?;
                Ok(Answer::ok(self.object(vault, &found, Extent::Object)))
            }
            // Secrets show no versions here, as in the public cloud.
            [versions] if kind == Kind::Key && versions.eq_ignore_ascii_case("versions") => {
                self.view(|view| read::head(view, vault.id, kind, &folded))?.ok_or_else(missing)?;
                let from = self.parameter("$skiptoken").and_then(|token| Id128::parse_hex(&token).ok());
                let limit = self.limit();
                let page = self.view(|view| read::list_versions(view, vault.id, kind, &folded, from, limit))?;
                Ok(self.objects_page(vault, &page, Extent::VersionItem))
            }
            [versions, version] if kind == Kind::Key && versions.eq_ignore_ascii_case("versions") => {
                let version = Id128::parse_hex(version).map_err(|_| missing())?;
                let found = self.view(|view| read::live(view, vault.id, kind, &folded, Some(version)))?;
                Ok(Answer::ok(self.object(vault, &found.ok_or_else(missing)?, Extent::Version)))
            }
            _ => Err(self.no_route("GET")),
        }
    }

    fn limit(&self) -> usize {
        let asked = self.parameter("$top").and_then(|text| text.parse::<usize>().ok());
        asked.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX)
    }

    fn objects_page(&self, vault: &Vault, page: &read::Page<ObjectVersion>, extent: Extent) -> Answer {
        let next = page.next.as_ref().map(|token| self.next_link(token, self.limit()));
        let items: Vec<Value> = page.items.iter().map(|found| self.object(vault, found, extent)).collect();
        Answer::ok(json!({"value": items, "nextLink": next}))
    }

    fn object(&self, vault: &Vault, found: &ObjectVersion, extent: Extent) -> Value {
        let (name, version) = (found.name.as_str(), found.version.hex());
        let mut id = Scope::object(&vault.scope(), found.kind, name).to_string();
        let mut kind = format!("Microsoft.KeyVault/vaults/{}", found.kind.collection());
        let is_version = matches!(extent, Extent::VersionItem | Extent::Version);
        if is_version {
            id.push_str(&format!("/versions/{version}"));
            kind.push_str("/versions");
        }
        let mut attributes = json!({
            "enabled": found.attributes.enabled,
            "created": found.created,
            "updated": found.updated,
        });
        for (name, time) in [("nbf", found.attributes.not_before), ("exp", found.attributes.expires)] {
            if let Some(time) = time {
                attributes[name] = json!(time);
            }
        }
        let uri = format!("{}/{}/{name}", self.origin.vault_base(&vault.name), found.kind.collection());
        let with_version = format!("{uri}/{version}");
        let mut properties = match &found.content {
            Content::Key { exportable, .. } => {
                attributes["recoveryLevel"] = json!(recovery_level(vault));
                if *exportable {
                    attributes["exportable"] = json!(true);
                }
                json!({"keyUri": uri})
            }
            Content::Secret { .. } => json!({"secretUri": uri}),
        };
        properties["attributes"] = attributes;
        if extent != Extent::Item {
            let name = if found.kind == Kind::Key { "keyUriWithVersion" } else { "secretUriWithVersion" };
            properties[name] = json!(with_version);
        }
        if matches!(extent, Extent::Object | Extent::Version) {
            add_content(&mut properties, &found.content);
        }
        let mut shown = json!({
            "id": id,
            "name": if is_version { version.as_str() } else { name },
            "type": kind,
            "location": vault.location,
            "properties": properties,
        });
        if !found.tags.is_empty() {
            shown["tags"] = json!(found.tags);
        }
        shown
    }
}

fn add_content(properties: &mut Value, content: &Content) {
    match content {
        Content::Key { kty, public, key_ops, release_policy, .. } => {
            properties["kty"] = json!(kty.as_str());
            properties["keyOps"] = json!(key_ops);
            match public.spec() {
                KeySpec::Rsa { bits } | KeySpec::Oct { bits } => properties["keySize"] = json!(bits),
                KeySpec::Ec { curve } => properties["curveName"] = json!(curve.as_str()),
            }
            if let Some(policy) = release_policy {
                properties["release_policy"] = json!({"contentType": policy.content_type, "data": b64(&policy.data)});
            }
        }
        Content::Secret { content_type: Some(kind) } => properties["contentType"] = json!(kind),
        Content::Secret { content_type: None } => {}
    }
}

//! The properties of a vault: JSON to settings and back.

use super::{ArmError, Result};
use crate::domain::Origin;
use claviger_state_machine::records::Vault;
use claviger_types::duration::rfc3339;
use claviger_types::name::Id128;
use claviger_types::permission::{
    AccessPolicy, CertificatePermission, KeyPermission, SecretPermission, StoragePermission,
};
use claviger_types::vault::{IpRule, NetworkAcls, VaultSettings, NETWORK_RULES_MAX};
use serde_json::{json, Value};

/// Most access policies of a vault (contract section 16).
const POLICIES_MAX: usize = 1024;

fn invalid(name: &str) -> ArmError {
    ArmError::bad(format!("An invalid value was provided for '{name}'."))
}

/// A member by name without regard to case, as the resource manager finds them.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let object = object.as_object()?;
    let found = object
        .get(name)
        .or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

/// The `properties` of a body: an object, if they are there.
pub(super) fn inner(body: &Value) -> Result<&Value> {
    match member(body, "properties") {
        None => Ok(&Value::Null),
        Some(object @ Value::Object(_)) => Ok(object),
        Some(_) => Err(invalid("properties")),
    }
}

pub(super) fn flag(properties: &Value, name: &str) -> Result<Option<bool>> {
    match member(properties, name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(invalid(name)),
    }
}

/// Whether the vault is to be a premium one.
fn premium(properties: &Value) -> Result<Option<bool>> {
    let Some(sku) = member(properties, "sku") else { return Ok(None) };
    if member(sku, "family").is_some_and(|family| !family.as_str().is_some_and(|f| f.eq_ignore_ascii_case("A"))) {
        return Err(invalid("sku.family"));
    }
    match member(sku, "name").and_then(Value::as_str) {
        Some(name) if name.eq_ignore_ascii_case("standard") => Ok(Some(false)),
        Some(name) if name.eq_ignore_ascii_case("premium") => Ok(Some(true)),
        _ => Err(invalid("sku.name")),
    }
}

/// Rules out of `networkAcls`; what is absent stays as it is in `old`: a change of addresses must not open a vault.
fn network(value: &Value, old: &NetworkAcls) -> Result<NetworkAcls> {
    if !value.is_object() {
        return Err(invalid("networkAcls"));
    }
    let word = |name: &str, yes: &str, no: &str, old: bool| match member(value, name).map(Value::as_str) {
        None => Ok(old),
        Some(Some(text)) if text.eq_ignore_ascii_case(yes) => Ok(true),
        Some(Some(text)) if text.eq_ignore_ascii_case(no) => Ok(false),
        Some(_) => Err(invalid(&format!("networkAcls.{name}"))),
    };
    let list = |name: &str, inner: &str| -> Result<Option<Vec<String>>> {
        let Some(items) = member(value, name) else { return Ok(None) };
        let wrong = || invalid(&format!("networkAcls.{name}"));
        let items = items.as_array().ok_or_else(wrong)?;
        if items.len() > NETWORK_RULES_MAX {
            return Err(ArmError::bad(format!("'networkAcls.{name}' has more than {NETWORK_RULES_MAX} rules.")));
        }
        let text = |item: &Value| member(item, inner).and_then(Value::as_str).map(str::to_owned);
        items.iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(wrong).map(Some)
    };
    let address = |text: String| {
        IpRule::parse(&text).map_err(|_| {
            ArmError::bad(format!("The value '{text}' of 'networkAcls.ipRules' is no IP address and no CIDR range."))
        })
    };
    Ok(NetworkAcls {
        allow_by_default: word("defaultAction", "Allow", "Deny", old.allow_by_default)?,
        bypass_services: word("bypass", "AzureServices", "None", old.bypass_services)?,
        ip_rules: match list("ipRules", "value")? {
            Some(texts) => texts.into_iter().map(address).collect::<Result<Vec<_>>>()?,
            None => old.ip_rules.clone(),
        },
        subnet_ids: list("virtualNetworkRules", "id")?.unwrap_or_else(|| old.subnet_ids.clone()),
    })
}

/// Settings out of `properties`; what is absent stays as it is in `old`. Tags and the choice between roles and policies
/// are the caller's.
pub(super) fn settings(properties: &Value, old: &VaultSettings) -> Result<VaultSettings> {
    let mut new = old.clone();
    new.premium = premium(properties)?.unwrap_or(old.premium);
    let flags = [
        ("enabledForDeployment", &mut new.enabled_for_deployment),
        ("enabledForDiskEncryption", &mut new.enabled_for_disk_encryption),
        ("enabledForTemplateDeployment", &mut new.enabled_for_template_deployment),
    ];
    for (name, place) in flags {
        *place = flag(properties, name)?.or(*place);
    }
    if let Some(value) = member(properties, "networkAcls") {
        let open =
            NetworkAcls { allow_by_default: true, bypass_services: true, ip_rules: Vec::new(), subnet_ids: Vec::new() };
        new.network = Some(network(value, old.network.as_ref().unwrap_or(&open))?);
    }
    match member(properties, "publicNetworkAccess").map(Value::as_str) {
        None => {}
        Some(Some(text)) if text.eq_ignore_ascii_case("enabled") => new.public_network_access = true,
        Some(Some(text)) if text.eq_ignore_ascii_case("disabled") => new.public_network_access = false,
        Some(_) => return Err(invalid("publicNetworkAccess")),
    }
    Ok(new)
}

fn guid(entry: &Value, name: &str) -> Result<Id128> {
    let text = member(entry, name).and_then(Value::as_str).unwrap_or_default();
    Id128::parse_guid(text).map_err(|_| invalid(&format!("accessPolicies.{name}")))
}

/// Access policies out of their list.
pub(super) fn policies(value: &Value) -> Result<Vec<AccessPolicy>> {
    let entries = value.as_array().ok_or_else(|| invalid("accessPolicies"))?;
    if entries.len() > POLICIES_MAX {
        return Err(ArmError::bad(format!("A vault has at most {POLICIES_MAX} access policies.")));
    }
    entries.iter().map(policy).collect()
}

fn policy(entry: &Value) -> Result<AccessPolicy> {
    let permissions = match member(entry, "permissions") {
        None => &Value::Null,
        Some(object @ Value::Object(_)) => object,
        Some(_) => return Err(invalid("accessPolicies.permissions")),
    };
    let set = |name: &str, set_of: fn(Vec<&str>) -> std::result::Result<u32, String>| -> Result<u32> {
        let Some(list) = member(permissions, name) else { return Ok(0) };
        let names = list.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let names = names.ok_or_else(|| invalid(&format!("accessPolicies.permissions.{name}")))?;
        set_of(names).map_err(|bad| {
            ArmError::bad(format!("The value '{bad}' of 'accessPolicies.permissions.{name}' is no permission."))
        })
    };
    Ok(AccessPolicy {
        tenant: guid(entry, "tenantId")?,
        oid: guid(entry, "objectId")?,
        application: match member(entry, "applicationId") {
            Some(_) => Some(guid(entry, "applicationId")?),
            None => None,
        },
        keys: set("keys", |names| KeyPermission::set_of(names).map_err(str::to_owned))?,
        secrets: set("secrets", |names| SecretPermission::set_of(names).map_err(str::to_owned))?,
        certificates: set("certificates", |names| CertificatePermission::set_of(names).map_err(str::to_owned))?,
        storage: set("storage", |names| StoragePermission::set_of(names).map_err(str::to_owned))?,
    })
}

/// Whether two entries are about the same principal.
pub(super) fn same_principal(a: &AccessPolicy, b: &AccessPolicy) -> bool {
    (a.tenant, a.oid, a.application) == (b.tenant, b.oid, b.application)
}

/// An entry as answers show it.
pub(super) fn render_policy(policy: &AccessPolicy) -> Value {
    let mut entry = json!({
        "tenantId": policy.tenant.guid(),
        "objectId": policy.oid.guid(),
        "permissions": {
            "keys": KeyPermission::names(policy.keys),
            "secrets": SecretPermission::names(policy.secrets),
            "certificates": CertificatePermission::names(policy.certificates),
            "storage": StoragePermission::names(policy.storage),
        },
    });
    if let Some(application) = policy.application {
        entry["applicationId"] = json!(application.guid());
    }
    entry
}

fn render_network(network: &NetworkAcls) -> Value {
    let ips: Vec<Value> = network.ip_rules.iter().map(|rule| json!({"value": rule.to_string()})).collect();
    let subnets: Vec<Value> = network.subnet_ids.iter().map(|id| json!({"id": id})).collect();
    json!({
        "bypass": if network.bypass_services { "AzureServices" } else { "None" },
        "defaultAction": if network.allow_by_default { "Allow" } else { "Deny" },
        "ipRules": ips,
        "virtualNetworkRules": subnets,
    })
}

/// Who created or changed something, as `systemData` shows it.
pub(super) struct Author {
    /// Their name.
    pub(super) name: String,
    /// `Application` or `User`.
    pub(super) kind: &'static str,
}

/// A vault as answers show it.
pub(super) fn render(
    origin: &Origin<'_>,
    vault: &Vault,
    policies: &[AccessPolicy],
    created: &Author,
    updated: &Author,
) -> Value {
    let settings = &vault.settings;
    let mut properties = json!({
        "sku": {"family": "A", "name": if settings.premium { "premium" } else { "standard" }},
        "tenantId": vault.tenant.guid(),
        "accessPolicies": policies.iter().map(render_policy).collect::<Vec<_>>(),
        "enabledForDeployment": settings.enabled_for_deployment.unwrap_or(false),
        "enableSoftDelete": true,
        "softDeleteRetentionInDays": vault.retention_days,
        "enableRbacAuthorization": settings.rbac,
        "vaultUri": format!("{}/", origin.vault_base(&vault.name)),
        "provisioningState": "Succeeded",
        "publicNetworkAccess": if settings.public_network_access { "Enabled" } else { "Disabled" },
    });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            properties[name] = value;
        }
    };
    set("enabledForDiskEncryption", settings.enabled_for_disk_encryption.map(Value::Bool));
    set("enabledForTemplateDeployment", settings.enabled_for_template_deployment.map(Value::Bool));
    set("enablePurgeProtection", vault.purge_protection.then_some(Value::Bool(true)));
    set("networkAcls", settings.network.as_ref().map(render_network));
    json!({
        "id": vault.scope().as_str(),
        "name": vault.display_name,
        "type": "Microsoft.KeyVault/vaults",
        "location": vault.location,
        "tags": settings.tags,
        "systemData": {
            "createdBy": created.name,
            "createdByType": created.kind,
            "createdAt": rfc3339(vault.created),
            "lastModifiedBy": updated.name,
            "lastModifiedByType": updated.kind,
            "lastModifiedAt": rfc3339(vault.updated),
        },
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip() {
        let guid = "00482a5a-887f-4fb3-b363-3b7fe8e74483";
        let given = json!([{"tenantId": guid, "objectId": guid, "permissions": {
            "keys": ["all", "Purge"], "secrets": ["GET"], "certificates": ["managecontacts"], "storage": ["setsas"]}}]);
        let parsed = policies(&given).unwrap();
        let shown = render_policy(&parsed[0]);
        assert_eq!(shown["permissions"]["keys"], json!(["all", "purge"]));
        assert_eq!(shown["permissions"]["secrets"], json!(["get"]));
        assert_eq!(policies(&json!([shown])).unwrap(), parsed);
        for bad in [
            json!([{"objectId": guid}]),
            json!([{"tenantId": guid, "objectId": "x"}]),
            json!([{"tenantId": guid, "objectId": guid, "permissions": {"keys": ["fly"]}}]),
            json!([{"tenantId": guid, "objectId": guid, "permissions": ["get"]}]),
            json!({}),
        ] {
            assert!(policies(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_absent_stays() {
        let old = VaultSettings { premium: true, enabled_for_deployment: Some(true), ..VaultSettings::default() };
        assert_eq!(settings(&json!({}), &old).unwrap(), old);
        let new = settings(
            &json!({"sku": {"name": "Standard", "family": "A"}, "publicNetworkAccess": "disabled",
                    "networkAcls": {"defaultAction": "deny", "ipRules": [{"value": "10.0.0.0/8"}]}}),
            &old,
        )
        .unwrap();
        assert!(!new.premium && !new.public_network_access);
        let network = new.network.unwrap();
        assert!(!network.allow_by_default && network.bypass_services && network.ip_rules.len() == 1);
        for bad in [
            json!({"sku": {"name": "basic"}}),
            json!({"networkAcls": "Deny"}),
            json!({"networkAcls": []}),
            json!({"networkAcls": 1}),
            json!({"networkAcls": {"defaultAction": "no"}}),
            json!({"networkAcls": {"ipRules": [{"value": "x"}]}}),
            json!({"networkAcls": {"ipRules": "10.0.0.0/8"}}),
            json!({"networkAcls": {"ipRules": {"value": "10.0.0.0/8"}}}),
            json!({"networkAcls": {"ipRules": ["10.0.0.0/8"]}}),
            json!({"networkAcls": {"virtualNetworkRules": {"id": "a"}}}),
        ] {
            assert!(settings(&bad, &old).is_err(), "{bad}");
        }
        for bad in [json!({"properties": []}), json!({"properties": "x"}), json!({"properties": 1})] {
            assert!(inner(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_closed_vault_is_not_opened_by_what_is_absent() {
        let closed = json!({"networkAcls": {"defaultAction": "Deny", "bypass": "None",
                            "ipRules": [{"value": "10.0.0.0/8"}], "virtualNetworkRules": [{"id": "a"}]}});
        let old = settings(&closed, &VaultSettings::default()).unwrap();
        let change = |acls: Value| settings(&json!({"networkAcls": acls}), &old).unwrap().network.unwrap();
        let was = old.network.clone().unwrap();
        assert_eq!(change(json!({})), was);
        assert_eq!(change(json!({"ipRules": []})), NetworkAcls { ip_rules: vec![], ..was.clone() });
        assert_eq!(change(json!({"virtualNetworkRules": []})), NetworkAcls { subnet_ids: vec![], ..was.clone() });
        assert_eq!(change(json!({"bypass": "AzureServices"})), NetworkAcls { bypass_services: true, ..was.clone() });
        assert_eq!(change(json!({"defaultAction": "Allow"})), NetworkAcls { allow_by_default: true, ..was });
    }
}

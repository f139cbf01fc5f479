//! Tenants, subscriptions, providers, resources by type, and the description of the cloud.

use super::{has_tag, is_about_tags, next_query, Answer, Arm, ArmError, Result};
use crate::domain::Origin;
use crate::filter::Condition;
use claviger_state_machine::read;
use claviger_state_machine::records::{Subscription, Vault};
use claviger_types::role::Scope;
use serde_json::{json, Value};

/// Locations that clients may name; the region's own comes first.
const LOCATIONS: &[(&str, &str)] = &[
    ("eastus", "East US"),
    ("eastus2", "East US 2"),
    ("westus", "West US"),
    ("westus2", "West US 2"),
    ("centralus", "Central US"),
    ("northeurope", "North Europe"),
    ("westeurope", "West Europe"),
    ("uksouth", "UK South"),
    ("germanywestcentral", "Germany West Central"),
    ("switzerlandnorth", "Switzerland North"),
    ("southeastasia", "Southeast Asia"),
    ("japaneast", "Japan East"),
    ("australiaeast", "Australia East"),
    ("chinaeast2", "China East 2"),
    ("chinanorth2", "China North 2"),
];

/// The description of the cloud in the shape of an api-version (az-cli.md section 1).
pub(super) fn metadata(origin: &Origin<'_>, version: &str) -> Answer {
    let management = origin.management_base();
    let (login, graph) = (origin.login_base(), origin.graph_base());
    let audience = origin.cloud.management_audiences.last().map_or_else(String::new, |audience| match origin.port {
        Some(port) => format!("{audience}:{port}/"),
        None => format!("{audience}/"),
    });
    let suffix = origin.vault_resource().trim_start_matches("https://").to_owned();
    if version < "2018-01-01" {
        return Answer::ok(json!({
            "galleryEndpoint": management,
            "graphEndpoint": graph,
            "portalEndpoint": management,
            "authentication": {"loginEndpoint": login, "audiences": [audience]},
        }));
    }
    let cloud = json!({
        "name": if origin.cloud.vault_suffix == "vault.azure.net" { "AzureCloud" } else { "Claviger" },
        "authentication": {
            "loginEndpoint": login,
            "audiences": [audience, management],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "resourceManager": management,
        "graphAudience": format!("{graph}/"),
        "graph": format!("{graph}/"),
        "microsoftGraphResourceId": format!("{graph}/"),
        "portal": management,
        "gallery": management,
        "media": management,
        "batch": management,
        "sqlManagement": management,
        "vmImageAliasDoc": "",
        "activeDirectoryDataLake": "",
        "suffixes": {"keyVaultDns": suffix},
    });
    // From 2022-09-01 on one object, before that an array.
    if version >= "2022-01-01" {
        Answer::ok(cloud)
    } else {
        Answer::ok(json!([cloud]))
    }
}

/// What `Microsoft.KeyVault` offers.
pub(super) fn provider(subscription: Option<&Subscription>, region: &str) -> Value {
    let types = [
        "vaults",
        "deletedVaults",
        "locations",
        "locations/deletedVaults",
        "checkNameAvailability",
        "operations",
        "vaults/keys",
        "vaults/secrets",
    ];
    let types: Vec<Value> = types
        .iter()
        .map(|name| {
            json!({"resourceType": name, "locations": [region], "apiVersions": super::vaults::VERSIONS,
                   "capabilities": "None"})
        })
        .collect();
    let mut body = json!({
        "namespace": "Microsoft.KeyVault",
        "registrationPolicy": "RegistrationRequired",
        "registrationState": "Registered",
        "resourceTypes": types,
    });
    if let Some(subscription) = subscription {
        let id = format!("/subscriptions/{}/providers/Microsoft.KeyVault", subscription.subscription.guid());
        body["id"] = json!(id);
    }
    body
}

impl Arm<'_> {
    pub(super) fn tenants(&self) -> Result<Answer> {
        let tenants = self.view(|view| read::tenants(view))?;
        let own = tenants.iter().filter(|tenant| tenant.tenant == self.principal.tenant);
        Ok(Answer::list(
            own.map(|tenant| {
                let guid = tenant.tenant.guid();
                json!({"id": format!("/tenants/{guid}"), "tenantId": guid, "displayName": tenant.display_name,
                       "defaultDomain": tenant.domain, "domains": [tenant.domain], "tenantCategory": "Home"})
            })
            .collect(),
        ))
    }

    /// Whether the caller has any role in a subscription or below.
    fn sees(&self, subscription: &Subscription) -> Result<bool> {
        self.view(|view| {
            for principal in self.principal.subject().principals(view)? {
                let assignments = read::assignments_of(view, principal)?;
                if assignments.iter().any(|a| a.scope.subscription_id() == Some(subscription.subscription)) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    pub(super) fn subscriptions(&self) -> Result<Answer> {
        let mut items = Vec::new();
        for subscription in self.view(|view| read::subscriptions(view))? {
            if subscription.tenant == self.principal.tenant && self.sees(&subscription)? {
                items.push(render(&subscription));
            }
        }
        let count = items.len();
        Ok(Answer::ok(json!({"value": items, "count": {"type": "Total", "value": count}, "nextLink": null})))
    }

    pub(super) fn in_subscription(&self, method: &str, subscription: &Subscription, rest: &[&str]) -> Result<Answer> {
        let scope = Scope::subscription(subscription.subscription);
        if !self.sees(subscription)? {
            return Err(self.forbidden(&scope, "Microsoft.Resources/subscriptions/read"));
        }
        let region = &self.service.config.region;
        match (method, rest) {
            ("GET", []) => Ok(Answer::ok(render(subscription))),
            ("GET", ["locations"]) => {
                let own = (region.as_str(), region.as_str());
                let all = [own].into_iter().chain(LOCATIONS.iter().copied().filter(|(name, _)| *name != region));
                let id = format!("/subscriptions/{}/locations", subscription.subscription.guid());
                let item = |(name, display): (&str, &str)| {
                    json!({"id": format!("{id}/{name}"), "name": name, "type": "Region", "displayName": display,
                           "regionalDisplayName": display,
                           "metadata": {"regionType": "Physical", "regionCategory": "Recommended"}})
                };
                Ok(Answer::list(all.map(item).collect()))
            }
            ("GET", ["providers"]) => Ok(Answer::list(vec![provider(Some(subscription), region)])),
            ("GET", ["providers", name]) | ("POST", ["providers", name, "register" | "unregister"])
                if *name == "microsoft.keyvault" =>
            {
                Ok(Answer::ok(provider(Some(subscription), region)))
            }
            ("GET", ["providers", name]) | ("POST", ["providers", name, "register" | "unregister"]) => {
                // Clients look at others too, and go on when they are there.
                let id = format!("/subscriptions/{}/providers/{name}", subscription.subscription.guid());
                Ok(Answer::ok(json!({"id": id, "namespace": name, "registrationState": "NotRegistered",
                                     "resourceTypes": []})))
            }
            ("GET", ["resources"]) => self.resources(subscription, None),
            ("GET", ["operationresults", _]) => Ok(Answer::empty(200)),
            _ => Err(self.no_route(method)),
        }
    }

    /// What another provider than `Microsoft.KeyVault` has in a subscription: nothing, but for the attestation service,
    /// whose default in a place `az keyvault key create --default-cvm-policy` asks for. It is the first authority that this
    /// node believes.
    pub(super) fn of_other_provider(&self, method: &str, subscription: &Subscription, rest: &[&str]) -> Result<Answer> {
        if !self.sees(subscription)? {
            let scope = Scope::subscription(subscription.subscription);
            return Err(self.forbidden(&scope, "Microsoft.Resources/subscriptions/read"));
        }
        let ("GET", ["providers", "microsoft.attestation", "locations", location, "defaultprovider"]) = (method, rest)
        else {
            return Err(self.no_route(method));
        };
        let authority = self.service.config.authorities.first().ok_or_else(ArmError::no_attestation)?;
        let id = subscription.subscription.guid();
        Ok(Answer::ok(json!({
            "id": format!("/subscriptions/{id}/providers/Microsoft.Attestation/attestationProviders/default"),
            "name": "default",
            "type": "Microsoft.Attestation/attestationProviders",
            "location": location,
            "properties": {"attestUri": authority.issuer(), "status": "Ready", "trustModel": "AAD"},
        })))
    }

    /// Resources of a subscription or a group by `$filter`: vaults are the only ones there are.
    pub(super) fn resources(&self, subscription: &Subscription, group: Option<&str>) -> Result<Answer> {
        let conditions = self.filter(|condition| match condition {
            Condition::Equal { property, .. } => {
                matches!(property.as_str(), "resourcetype" | "name" | "resourcegroup" | "location")
                    || is_about_tags(condition)
            }
            _ => is_about_tags(condition),
        })?;
        let vaults = self.vaults_in(subscription, group)?;
        let fits = |vault: &Vault| {
            has_tag(&vault.settings.tags, &conditions)
                && conditions.iter().all(|condition| match condition {
                    Condition::Equal { property, value } => match property.as_str() {
                        "resourcetype" => value.eq_ignore_ascii_case("Microsoft.KeyVault/vaults"),
                        "name" => value.eq_ignore_ascii_case(vault.name.as_str()),
                        "resourcegroup" => value.eq_ignore_ascii_case(&vault.group),
                        "location" => value.replace(' ', "").eq_ignore_ascii_case(&vault.location),
                        _ => true,
                    },
                    _ => true,
                })
        };
        let item = |vault: &Vault| {
            json!({"id": vault.scope().as_str(), "name": vault.display_name, "type": "Microsoft.KeyVault/vaults",
                   "location": vault.location, "tags": vault.settings.tags})
        };
        let items = vaults.iter().filter(|vault| fits(vault)).map(item).collect();
        self.page(items)
    }

    /// A page of a list: `$top` items from `$skiptoken` on.
    pub(super) fn page(&self, items: Vec<Value>) -> Result<Answer> {
        let number = |name| self.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (skip, top) = (number("$skiptoken").unwrap_or(0), number("$top").unwrap_or(usize::MAX).max(1));
        let more = items.len() > skip.saturating_add(top);
        let next = more.then(|| self.next_link(&(skip + top).to_string(), top));
        let page: Vec<Value> = items.into_iter().skip(skip).take(top).collect();
        Ok(Answer::ok(json!({"value": page, "nextLink": next})))
    }

    /// Where a list goes on.
    pub(super) fn next_link(&self, token: &str, top: usize) -> String {
        let query = next_query(self.query, token, top);
        format!("{}{}?{query}", self.origin.management_base(), self.path)
    }
}

fn render(subscription: &Subscription) -> Value {
    let guid = subscription.subscription.guid();
    json!({
        "id": format!("/subscriptions/{guid}"),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": guid,
        "tenantId": subscription.tenant.guid(),
        "displayName": subscription.display_name,
        "state": "Enabled",
        "subscriptionPolicies": {"locationPlacementId": "Internal_2014-09-01", "quotaId": "Internal_2014-09-01",
                                 "spendingLimit": "Off"},
    })
}

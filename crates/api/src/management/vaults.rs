//! `Microsoft.KeyVault`: vaults and deleted vaults (contract section 16).

use super::properties::{self, flag, inner, member, Author};
use super::{location, tags, Answer, Arm, ArmError, Result};
use crate::setup::RETENTION_DAYS;
use claviger_state_machine::read;
use claviger_state_machine::records::{Subscription, Vault};
use claviger_types::command::{Command, CreateVault, SetPolicies, UpdateVault, VaultRef};
use claviger_types::duration::rfc3339;
use claviger_types::name::{Id128, Kind, VaultName};
use claviger_types::outcome::Refusal;
use claviger_types::permission::AccessPolicy;
use claviger_types::role::Scope;
use claviger_types::vault::VaultSettings;
use serde_json::{json, Value};

/// Versions of the provider's interface, oldest first.
pub(super) const VERSIONS: &[&str] = &[
    "2015-06-01",
    "2016-10-01",
    "2018-02-14-preview",
    "2018-02-14",
    "2019-09-01",
    "2020-04-01-preview",
    "2021-04-01-preview",
    "2021-06-01-preview",
    "2021-10-01",
    "2021-11-01-preview",
    "2022-02-01-preview",
    "2022-07-01",
    "2022-11-01",
    "2023-02-01",
    "2023-07-01",
    "2023-08-01-preview",
    "2024-04-01-preview",
    "2024-11-01",
    "2024-12-01-preview",
    "2025-05-01",
    "2026-02-01",
    "2026-05-15",
];

/// From this version on a new vault has roles unless the request says otherwise.
const RBAC_BY_DEFAULT: &str = "2026-02-01";

/// Times that a read-change-write is tried again when another change came between.
const ATTEMPTS: usize = 5;

const READ: &str = "Microsoft.KeyVault/vaults/read";
const WRITE: &str = "Microsoft.KeyVault/vaults/write";
const DELETE: &str = "Microsoft.KeyVault/vaults/delete";
const POLICIES: &str = "Microsoft.KeyVault/vaults/accessPolicies/write";
const DELETED_READ: &str = "Microsoft.KeyVault/deletedVaults/read";
const LOCATION_READ: &str = "Microsoft.KeyVault/locations/deletedVaults/read";
const PURGE: &str = "Microsoft.KeyVault/locations/deletedVaults/purge/action";

/// A vault's place in a path.
pub(super) struct Place<'a> {
    subscription: &'a Subscription,
    group: &'a str,
    name: &'a str,
    pub(super) scope: Scope,
}

impl Arm<'_> {
    /// Live vaults of a subscription, or of one of its groups.
    pub(super) fn live_vaults(&self, subscription: &Subscription, group: Option<&str>) -> Result<Vec<Vault>> {
        let all = self.view(|view| read::vaults(view, read::RESOURCES_MAX))?;
        let is_in = |vault: &Vault| {
            vault.deletion.is_none()
                && vault.subscription == subscription.subscription
                && group.is_none_or(|group| vault.group.eq_ignore_ascii_case(group))
        };
        Ok(all.into_iter().filter(is_in).collect())
    }

    /// Those of them that the caller may see.
    pub(super) fn vaults_in(&self, subscription: &Subscription, group: Option<&str>) -> Result<Vec<Vault>> {
        let vaults = self.live_vaults(subscription, group)?;
        if self.may(&Scope::subscription(subscription.subscription), READ)? {
            return Ok(vaults);
        }
        let mut seen = Vec::new();
        for vault in vaults {
            if self.may(&vault.scope(), READ)? {
                seen.push(vault);
            }
        }
        Ok(seen)
    }

    pub(super) async fn key_vault(
        &self,
        method: &str,
        subscription: &Subscription,
        given: &[&str],
        folded: &[&str],
    ) -> Result<Answer> {
        if !VERSIONS.iter().any(|known| known.eq_ignore_ascii_case(&self.version)) {
            let text = format!(
                "The api-version '{}' is invalid. The supported versions are '{}'.",
                self.version,
                VERSIONS.join(",")
            );
            return Err(ArmError::new(400, "InvalidApiVersionParameter", text));
        }
        match folded {
            ["providers", "microsoft.keyvault", rest @ ..] => {
                self.of_subscription(method, subscription, given.get(2..).unwrap_or_default(), rest).await
            }
            ["resourcegroups", _, "providers", "microsoft.keyvault", rest @ ..] => {
                let group = given.get(1).copied().unwrap_or_default();
                self.of_group(method, subscription, group, given.get(4..).unwrap_or_default(), rest).await
            }
            _ => Err(self.no_route(method)),
        }
    }

    async fn of_subscription(
        &self,
        method: &str,
        subscription: &Subscription,
        given: &[&str],
        folded: &[&str],
    ) -> Result<Answer> {
        let scope = Scope::subscription(subscription.subscription);
        match (method, folded) {
            ("GET", ["vaults"]) => {
                let vaults = self.vaults_in(subscription, None)?;
                self.page(self.render_all(&vaults)?)
            }
            // There are none here, and az wants to hear so.
            ("GET", ["managedhsms" | "deletedmanagedhsms"]) => Ok(Answer::list(Vec::new())),
            (_, ["managedhsms" | "deletedmanagedhsms", ..] | ["locations", _, "deletedmanagedhsms", ..]) => {
                Err(ArmError::no_managed_hsm())
            }
            ("POST", ["checknameavailability"]) => self.check_name(),
            ("POST", ["checkmhsmnameavailability"]) => {
                Ok(Answer::ok(json!({"nameAvailable": false, "reason": "AccountNameInvalid",
                                     "message": "There are no managed HSMs in this service."})))
            }
            ("GET", ["deletedvaults"]) => {
                self.require(&scope, DELETED_READ)?;
                let all = self.view(|view| read::vaults(view, read::RESOURCES_MAX))?;
                let mine = all.iter().filter(|vault| vault.subscription == subscription.subscription);
                self.page(mine.filter_map(render_deleted).collect())
            }
            ("GET", ["locations", _, "deletedvaults", _]) => {
                self.require(&scope, LOCATION_READ)?;
                let vault = self.deleted(subscription, given)?;
                render_deleted(&vault).map(Answer::ok).ok_or_else(|| deleted_not_found(given))
            }
            ("POST", ["locations", _, "deletedvaults", _, "purge"]) => {
                let vault = self.deleted(subscription, given)?;
                self.require(&vault.scope(), PURGE)?;
                if vault.purge_protection {
                    return Err(ArmError::of(Refusal::PurgeProtected));
                }
                self.propose(&Command::PurgeVault(VaultRef { vault: vault.id }), Vec::new()).await?;
                let below = format!(
                    "/subscriptions/{}/providers/Microsoft.KeyVault/locations/{}/operationResults",
                    subscription.subscription.guid(),
                    vault.location
                );
                Ok(Answer::accepted(self.poll_at(&below)?))
            }
            ("GET", ["locations", _, "operationresults", _]) => Ok(Answer::empty(200)),
            _ => Err(self.no_route(method)),
        }
    }

    /// The soft-deleted vault of `locations/{location}/deletedVaults/{name}`.
    fn deleted(&self, subscription: &Subscription, given: &[&str]) -> Result<Vault> {
        let location = given.get(1).copied().unwrap_or_default().replace(' ', "");
        let name = given.get(3).copied().unwrap_or_default();
        let found = self.by_name(name)?.filter(|vault| {
            vault.deletion.is_some()
                && vault.subscription == subscription.subscription
                && vault.location.eq_ignore_ascii_case(&location)
        });
        found.ok_or_else(|| deleted_not_found(given))
    }

    fn by_name(&self, name: &str) -> Result<Option<Vault>> {
        match VaultName::parse(name) {
            Ok(name) => self.view(|view| read::vault_by_name(view, &name)),
            Err(_) => Ok(None),
        }
    }

    fn check_name(&self) -> Result<Answer> {
        let body = self.json()?;
        let name = member(&body, "name").and_then(Value::as_str).unwrap_or_default();
        let wrong = |reason: &str, message: String| {
            Ok(Answer::ok(json!({"nameAvailable": false, "reason": reason, "message": message})))
        };
        if !member(&body, "type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .eq_ignore_ascii_case("Microsoft.KeyVault/vaults")
        {
            return Err(ArmError::bad("The 'type' must be 'Microsoft.KeyVault/vaults'."));
        }
        if VaultName::parse(name).is_err() {
            return wrong("AccountNameInvalid", bad_name(name));
        }
        match self.by_name(name)? {
            Some(_) => wrong("AlreadyExists", format!("The name '{name}' is already in use.")),
            None => Ok(Answer::ok(json!({"nameAvailable": true}))),
        }
    }

    async fn of_group(
        &self,
        method: &str,
        subscription: &Subscription,
        group: &str,
        given: &[&str],
        folded: &[&str],
    ) -> Result<Answer> {
        let name = given.get(1).copied().unwrap_or_default();
        let scope = Scope::vault(subscription.subscription, group, name);
        let place = Place { subscription, group, name, scope };
        match (method, folded) {
            ("GET", ["vaults"]) => {
                self.group(subscription, group)?.ok_or_else(|| ArmError::group_not_found(group))?;
                let vaults = self.vaults_in(subscription, Some(group))?;
                self.page(self.render_all(&vaults)?)
            }
            ("GET", ["managedhsms"]) => Ok(Answer::list(Vec::new())),
            (_, ["managedhsms", ..]) => Err(ArmError::no_managed_hsm()),
            ("GET", ["vaults", _]) => {
                self.require(&place.scope, READ)?;
                let vault = self.existing(&place)?;
                Ok(Answer::ok(self.render(&vault)?))
            }
            ("GET", ["vaults", _, "privateendpointconnections" | "privatelinkresources"]) => {
                self.require(&place.scope, READ)?;
                self.existing(&place)?;
                Ok(Answer::list(Vec::new()))
            }
            ("GET", ["vaults", _, collection @ ("keys" | "secrets"), ..]) => {
                let kind = if *collection == "keys" { Kind::Key } else { Kind::Secret };
                self.objects(&place, kind, given.get(3..).unwrap_or_default())
            }
            ("PUT" | "PATCH", ["vaults", _, collection @ ("keys" | "secrets"), _]) => {
                Err(ArmError::made_in_the_vault(collection))
            }
            (_, ["vaults", _, "privateendpointconnections", ..]) => {
                self.require(&place.scope, READ)?;
                self.existing(&place)?;
                Err(ArmError::no_private_endpoint())
            }
            ("PUT", ["vaults", _]) => self.put(&place).await,
            ("PATCH", ["vaults", _]) => {
                self.require(&place.scope, WRITE)?;
                let body = self.json()?;
                self.change(&place, |vault, policies| update(&body, vault, policies, Manner::Patch)).await
            }
            ("DELETE", ["vaults", _]) => {
                self.require(&place.scope, DELETE)?;
                let Some(vault) = self.at(&place)? else { return Ok(Answer::empty(204)) };
                match self.propose_raw(&Command::DeleteVault(VaultRef { vault: vault.id }), Vec::new()).await? {
                    None => Ok(Answer::empty(200)),
                    Some(Refusal::VaultNotFound) => Ok(Answer::empty(204)),
                    Some(refusal) => Err(ArmError::of(refusal)),
                }
            }
            ("PUT" | "PATCH", ["vaults", _, "accesspolicies", operation]) => self.policies(&place, operation).await,
            _ => Err(self.no_route(method)),
        }
    }

    /// The live vault of a name in a group.
    pub(super) fn vault_of(&self, subscription: &Subscription, group: &str, name: &str) -> Result<Vault> {
        let scope = Scope::vault(subscription.subscription, group, name);
        self.existing(&Place { subscription, group, name, scope })
    }

    /// The live vault at a place.
    fn at(&self, place: &Place<'_>) -> Result<Option<Vault>> {
        let found = self.by_name(place.name)?;
        Ok(found.filter(|vault| vault.deletion.is_none() && is_at(vault, place)))
    }

    pub(super) fn existing(&self, place: &Place<'_>) -> Result<Vault> {
        if let Some(vault) = self.at(place)? {
            return Ok(vault);
        }
        Err(match self.group(place.subscription, place.group)? {
            Some(_) => ArmError::vault_not_found(place.group, place.name),
            None => ArmError::group_not_found(place.group),
        })
    }

    fn render_all(&self, vaults: &[Vault]) -> Result<Vec<Value>> {
        vaults.iter().map(|vault| self.render(vault)).collect()
    }

    fn render(&self, vault: &Vault) -> Result<Value> {
        let policies = self.view(|view| read::policies(view, vault.id))?;
        let (created, updated) = (self.author(vault.created_by)?, self.author(vault.updated_by)?);
        Ok(properties::render(self.origin, vault, &policies, &created, &updated))
    }

    fn author(&self, oid: Option<Id128>) -> Result<Author> {
        let Some(oid) = oid else { return Ok(Author { name: "Claviger".into(), kind: "Application" }) };
        let user = self.view(|view| Ok(read::users(view)?.into_iter().find(|user| user.oid == oid)))?;
        Ok(match user {
            Some(user) => Author { name: user.upn, kind: "User" },
            None => Author { name: oid.guid(), kind: "Application" },
        })
    }

    async fn put(&self, place: &Place<'_>) -> Result<Answer> {
        let name =
            VaultName::parse(place.name).map_err(|_| ArmError::new(400, "VaultNameNotValid", bad_name(place.name)))?;
        self.require(&place.scope, WRITE)?;
        let group = self.group(place.subscription, place.group)?;
        let group = group.ok_or_else(|| ArmError::group_not_found(place.group))?;
        let body = self.json()?;
        let properties = inner(&body)?;
        let old = self.by_name(place.name)?;
        match member(properties, "createMode").map(Value::as_str) {
            Some(Some(mode)) if mode.eq_ignore_ascii_case("recover") => return self.recover(place, old).await,
            Some(Some(mode)) if mode.eq_ignore_ascii_case("default") => {}
            None => {}
            Some(_) => return Err(ArmError::bad("An invalid value was provided for 'createMode'.")),
        }
        match old {
            Some(vault) if vault.deletion.is_some() => return Err(ArmError::of(Refusal::VaultDeleted)),
            Some(vault) if is_at(&vault, place) => {
                self.known_tenant(properties, vault.tenant)?;
                return self.change(place, |vault, policies| update(&body, vault, policies, Manner::Put)).await;
            }
            Some(_) => return Err(ArmError::of(Refusal::VaultExists)),
            None => {}
        }
        self.create(place, &group.name, name, &body, properties).await
    }

    async fn create(
        &self,
        place: &Place<'_>,
        group: &str,
        name: VaultName,
        body: &Value,
        properties: &Value,
    ) -> Result<Answer> {
        let location = location(member(body, "location").unwrap_or(&Value::Null))?;
        if member(properties, "sku").is_none() {
            return Err(ArmError::bad("The parameter sku is not specified."));
        }
        let tenant = self.known_tenant(properties, place.subscription.tenant)?;
        let mut settings = properties::settings(properties, &VaultSettings::default())?;
        settings.tags = tags(member(body, "tags").unwrap_or(&Value::Null))?.unwrap_or_default();
        settings.rbac =
            flag(properties, "enableRbacAuthorization")?.unwrap_or_else(|| self.version.as_str() >= RBAC_BY_DEFAULT);
        if settings.rbac && self.service.config.policies_where_rbac_is_asked {
            settings.rbac = false;
        }
        let policies = match member(properties, "accessPolicies") {
            Some(list) => properties::policies(list)?,
            None if settings.rbac || self.service.config.policies_where_rbac_is_asked => Vec::new(),
            None => return Err(ArmError::bad("The parameter accessPolicies is not specified.")),
        };
        if flag(properties, "enableSoftDelete")? == Some(false) {
            return Err(ArmError::bad(
                "The property \"enableSoftDelete\" cannot be set to false: soft delete is always on.",
            ));
        }
        let retention_days = retention(properties)?.unwrap_or(RETENTION_DAYS);
        let id = crate::service::fresh_id()?;
        let wrapped = self.service.sealer.new_vault_key(id)?;
        let command = Command::CreateVault(CreateVault {
            id,
            name,
            display_name: place.name.to_owned(),
            tenant,
            subscription: place.subscription.subscription,
            group: group.to_owned(),
            location,
            retention_days,
            purge_protection: purge_protection(properties)?,
            settings,
            policies,
        });
        self.propose(&command, vec![wrapped]).await?;
        let vault = self.existing(place)?;
        Ok(Answer::with(201, self.render(&vault)?))
    }

    /// Brings a soft-deleted vault back; nothing else in the request counts.
    async fn recover(&self, place: &Place<'_>, old: Option<Vault>) -> Result<Answer> {
        let vault = old.filter(|vault| is_at(vault, place)).ok_or_else(|| {
            let text = format!("A deleted vault with the name '{}' does not exist in this resource group.", place.name);
            ArmError::new(404, "DeletedVaultNotFound", text)
        })?;
        if vault.deletion.is_some() {
            match self.propose_raw(&Command::RecoverVault(VaultRef { vault: vault.id }), Vec::new()).await? {
                None | Some(Refusal::VaultNotDeleted) => {}
                Some(refusal) => return Err(ArmError::of(refusal)),
            }
        }
        let vault = self.existing(place)?;
        Ok(Answer::ok(self.render(&vault)?))
    }

    /// The tenant that a request names, by id or by domain; it must be one of this world's.
    fn known_tenant(&self, properties: &Value, default: Id128) -> Result<Id128> {
        let text = match member(properties, "tenantId") {
            None => return Ok(default),
            Some(Value::String(text)) => text,
            Some(_) => return Err(ArmError::bad("An invalid value was provided for 'tenantId'.")),
        };
        let tenants = self.view(|view| read::tenants(view))?;
        let id = Id128::parse_guid(text).ok();
        let found =
            tenants.iter().find(|t| Some(t.tenant) == id || (id.is_none() && t.domain.eq_ignore_ascii_case(text)));
        found.map(|tenant| tenant.tenant).ok_or_else(|| {
            ArmError::bad(format!("An invalid value was provided for 'tenantId': there is no tenant '{text}' here."))
        })
    }

    /// Reads the vault, changes it and writes it, again when another change came between.
    async fn change(
        &self,
        place: &Place<'_>,
        change: impl Fn(&Vault, &[AccessPolicy]) -> Result<(VaultSettings, bool, Vec<AccessPolicy>)>,
    ) -> Result<Answer> {
        for _ in 0..ATTEMPTS {
            let vault = self.existing(place)?;
            let policies = self.view(|view| read::policies(view, vault.id))?;
            let (settings, purge_protection, policies) = change(&vault, &policies)?;
            let seen = Some(vault.mod_index);
            let command = UpdateVault { vault: vault.id, seen, settings, purge_protection, policies };
            match self.propose_raw(&Command::UpdateVault(command), Vec::new()).await? {
                None => {
                    let vault = self.existing(place)?;
                    return Ok(Answer::ok(self.render(&vault)?));
                }
                Some(Refusal::Changed) => self.service.node().gate().check().await?,
                Some(refusal) => return Err(ArmError::of(refusal)),
            }
        }
        Err(ArmError::of(Refusal::Changed))
    }

    async fn policies(&self, place: &Place<'_>, operation: &str) -> Result<Answer> {
        if !["add", "replace", "remove"].contains(&operation) {
            return Err(ArmError::bad(format!("The operation '{operation}' is none of add, replace and remove.")));
        }
        self.require(&place.scope, POLICIES)?;
        let body = self.json()?;
        let list = member(inner(&body)?, "accessPolicies");
        let given = properties::policies(list.unwrap_or(&Value::Null))?;
        // Not a change of the whole vault: who may set policies need not have the right to write vaults.
        for _ in 0..ATTEMPTS {
            let vault = self.existing(place)?;
            let mut policies = self.view(|view| read::policies(view, vault.id))?;
            merge(&mut policies, &given, operation);
            if policies.len() > read::POLICIES_MAX {
                return Err(ArmError::bad(format!("A vault has at most {} access policies.", read::POLICIES_MAX)));
            }
            let shown: Vec<Value> = policies.iter().map(properties::render_policy).collect();
            let command = SetPolicies { vault: vault.id, seen: Some(vault.mod_index), policies };
            match self.propose_raw(&Command::SetPolicies(command), Vec::new()).await? {
                None => {
                    return Ok(Answer::ok(json!({
                        "id": format!("{}/accessPolicies/", vault.scope()),
                        "type": "Microsoft.KeyVault/vaults/accessPolicies",
                        "location": vault.location,
                        "properties": {"accessPolicies": shown},
                    })));
                }
                Some(Refusal::Changed) => self.service.node().gate().check().await?,
                Some(refusal) => return Err(ArmError::of(refusal)),
            }
        }
        Err(ArmError::of(Refusal::Changed))
    }
}

fn is_at(vault: &Vault, place: &Place<'_>) -> bool {
    vault.subscription == place.subscription.subscription && vault.group.eq_ignore_ascii_case(place.group)
}

fn bad_name(name: &str) -> String {
    format!(
        "The vault name '{name}' is invalid. A vault's name must be between 3-24 alphanumeric characters. The name must \
         begin with a letter, end with a letter or digit, and not contain consecutive hyphens. Follow this link for more \
         information: https://go.microsoft.com/fwlink/?linkid=2147742"
    )
}

fn deleted_not_found(given: &[&str]) -> ArmError {
    let name = given.get(3).copied().unwrap_or_default();
    let location = given.get(1).copied().unwrap_or_default();
    let text = format!("The specified deleted vault '{name}' does not exist in location '{location}'.");
    ArmError::new(404, "DeletedVaultNotFound", text)
}

fn render_deleted(vault: &Vault) -> Option<Value> {
    let deletion = vault.deletion?;
    let id = format!(
        "/subscriptions/{}/providers/Microsoft.KeyVault/locations/{}/deletedVaults/{}",
        vault.subscription.guid(),
        vault.location,
        vault.display_name
    );
    let mut properties = json!({
        "vaultId": vault.scope().as_str(),
        "location": vault.location,
        "tags": vault.settings.tags,
        "deletionDate": rfc3339(deletion.deleted),
        "scheduledPurgeDate": rfc3339(deletion.purge),
    });
    if vault.purge_protection {
        properties["purgeProtectionEnabled"] = json!(true);
    }
    Some(json!({"id": id, "name": vault.display_name, "type": "Microsoft.KeyVault/deletedVaults",
                "properties": properties}))
}

fn retention(properties: &Value) -> Result<Option<u16>> {
    let Some(value) = member(properties, "softDeleteRetentionInDays") else { return Ok(None) };
    let days = value.as_u64().and_then(|days| u16::try_from(days).ok()).filter(|days| (7..=90).contains(days));
    days.map(Some)
        .ok_or_else(|| ArmError::bad("The property \"softDeleteRetentionInDays\" must be between 7 and 90 days."))
}

fn purge_protection(properties: &Value) -> Result<bool> {
    match flag(properties, "enablePurgeProtection")? {
        Some(false) => Err(ArmError::bad(
            "The property \"enablePurgeProtection\" cannot be set to false. Enabling the purge protection for a vault is \
             an irreversible action.",
        )),
        on => Ok(on.unwrap_or(false)),
    }
}

/// How an update is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Tags that are absent are removed, as the resource manager has it for PUT.
    Put,
    /// What is absent stays.
    Patch,
}

/// What a request makes of a vault that exists.
fn update(
    body: &Value,
    vault: &Vault,
    policies: &[AccessPolicy],
    manner: Manner,
) -> Result<(VaultSettings, bool, Vec<AccessPolicy>)> {
    let properties = inner(body)?;
    if let Some(value) = member(body, "location") {
        let asked = location(value)?;
        if asked != vault.location {
            let text = format!(
                "The resource '{}' already exists in location '{}'. A resource with the same name cannot be created in \
                 location '{asked}'. Please select a new resource name.",
                vault.display_name, vault.location
            );
            return Err(ArmError::new(409, "InvalidResourceLocation", text));
        }
    }
    if retention(properties)?.is_some_and(|days| days != vault.retention_days) {
        return Err(ArmError::bad(
            "The property \"softDeleteRetentionInDays\" has been set already and it can't be modified.",
        ));
    }
    if flag(properties, "enableSoftDelete")? == Some(false) {
        return Err(ArmError::bad(
            "The property \"enableSoftDelete\" can be set to false only for creating new vault. Enabling the 'soft \
             delete' functionality is an irreversible action.",
        ));
    }
    if let Some(text) = member(properties, "tenantId").and_then(Value::as_str) {
        if Id128::parse_guid(text).is_ok_and(|tenant| tenant != vault.tenant) {
            return Err(ArmError::bad("The tenant of a vault cannot be changed."));
        }
    }
    let mut settings = properties::settings(properties, &vault.settings)?;
    settings.rbac = flag(properties, "enableRbacAuthorization")?.unwrap_or(vault.settings.rbac);
    settings.tags = match tags(member(body, "tags").unwrap_or(&Value::Null))? {
        Some(tags) => tags,
        None if manner == Manner::Put => Default::default(),
        None => vault.settings.tags.clone(),
    };
    let policies = match member(properties, "accessPolicies") {
        Some(list) => properties::policies(list)?,
        None => policies.to_vec(),
    };
    Ok((settings, purge_protection(properties)?, policies))
}

/// Adds permissions to the policies there are, replaces those of the principals named, or takes permissions away.
fn merge(policies: &mut Vec<AccessPolicy>, given: &[AccessPolicy], operation: &str) {
    for new in given {
        let at = policies.iter().position(|old| properties::same_principal(old, new));
        match (operation, at.and_then(|at| policies.get_mut(at))) {
            ("remove", Some(old)) => {
                old.keys &= !new.keys;
                old.secrets &= !new.secrets;
                old.certificates &= !new.certificates;
                old.storage &= !new.storage;
            }
            ("remove", None) => {}
            ("add", Some(old)) => {
                old.keys |= new.keys;
                old.secrets |= new.secrets;
                old.certificates |= new.certificates;
                old.storage |= new.storage;
            }
            (_, Some(old)) => *old = *new,
            (_, None) => policies.push(*new),
        }
    }
    if operation == "remove" {
        policies.retain(|policy| policy.keys | policy.secrets | policy.certificates | policy.storage != 0);
    }
}

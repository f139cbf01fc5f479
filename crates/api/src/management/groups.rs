//! Resource groups.

use super::{has_tag, is_about_tags, location, tags, Answer, Arm, ArmError, Result};
use claviger_state_machine::read;
use claviger_state_machine::records::{ResourceGroup, Subscription};
use claviger_types::command::{Command, DeleteResourceGroup, PutResourceGroup, VaultRef};
use claviger_types::outcome::Refusal;
use claviger_types::role::{is_group_name, Scope};
use serde_json::{json, Value};

const READ: &str = "Microsoft.Resources/subscriptions/resourceGroups/read";
const WRITE: &str = "Microsoft.Resources/subscriptions/resourceGroups/write";
const DELETE: &str = "Microsoft.Resources/subscriptions/resourceGroups/delete";

fn render(group: &ResourceGroup) -> Value {
    json!({
        "id": Scope::group(group.subscription, &group.name).as_str(),
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": {"provisioningState": "Succeeded"},
    })
}

impl Arm<'_> {
    pub(super) fn group(&self, subscription: &Subscription, name: &str) -> Result<Option<ResourceGroup>> {
        self.view(|view| read::resource_group(view, subscription.subscription, name))
    }

    pub(super) async fn groups(
        &self,
        method: &str,
        subscription: &Subscription,
        given: &[&str],
        folded: &[&str],
    ) -> Result<Answer> {
        let name = given.get(1).copied().unwrap_or_default();
        let scope = Scope::group(subscription.subscription, name);
        let found = || self.group(subscription, name)?.ok_or_else(|| ArmError::group_not_found(name));
        match (method, folded) {
            ("GET", ["resourcegroups"]) => {
                let conditions = self.filter(is_about_tags)?;
                let mut items = Vec::new();
                for group in self.view(|view| read::resource_groups(view, subscription.subscription))? {
                    if has_tag(&group.tags, &conditions)
                        && self.may(&Scope::group(subscription.subscription, &group.name), READ)?
                    {
                        items.push(render(&group));
                    }
                }
                self.page(items)
            }
            ("GET", ["resourcegroups", _]) => {
                self.require(&scope, READ)?;
                Ok(Answer::ok(render(&found()?)))
            }
            ("HEAD", ["resourcegroups", _]) => {
                self.require(&scope, READ)?;
                let exists = self.group(subscription, name)?.is_some();
                Ok(Answer::empty(if exists { 204 } else { 404 }))
            }
            ("GET", ["resourcegroups", _, "resources"]) => {
                self.require(&scope, READ)?;
                found()?;
                self.resources(subscription, Some(name))
            }
            ("PUT", ["resourcegroups", _]) => self.put_group(subscription, name, &scope).await,
            ("PATCH", ["resourcegroups", _]) => {
                self.require(&scope, WRITE)?;
                let old = found()?;
                let tags = tags(&self.json()?["tags"])?.unwrap_or(old.tags);
                let put = PutResourceGroup {
                    subscription: subscription.subscription,
                    name: old.name,
                    location: old.location,
                    tags,
                };
                self.propose(&Command::PutResourceGroup(put), Vec::new()).await?;
                Ok(Answer::ok(render(&found()?)))
            }
            ("DELETE", ["resourcegroups", _]) => {
                self.require(&scope, DELETE)?;
                let group = found()?;
                self.delete_group(subscription, &group).await?;
                let below = format!("/subscriptions/{}/operationresults", subscription.subscription.guid());
                Ok(Answer::accepted(self.poll_at(&below)?))
            }
            _ => Err(self.no_route(method)),
        }
    }

    async fn put_group(&self, subscription: &Subscription, name: &str, scope: &Scope) -> Result<Answer> {
        if !is_group_name(name) {
            let text = format!(
                "The provided resource group name '{name}' has these invalid characters or is too long. The name can \
                 only be a letter, digit, '-', '.', '(', ')' or '_', at most 90 of them, and not end in '.'."
            );
            return Err(ArmError::new(400, "InvalidResourceGroup", text));
        }
        self.require(scope, WRITE)?;
        let body = self.json()?;
        let old = self.group(subscription, name)?;
        let location = match (&old, &body["location"]) {
            (Some(old), Value::Null) => old.location.clone(),
            (_, value) => location(value)?,
        };
        if let Some(old) = old.as_ref().filter(|old| old.location != location) {
            let text = format!(
                "Invalid resource group location '{location}'. The Resource group already exists in location '{}'.",
                old.location
            );
            return Err(ArmError::new(409, "InvalidResourceGroupLocation", text));
        }
        let tags = tags(&body["tags"])?.unwrap_or_default();
        let put = PutResourceGroup { subscription: subscription.subscription, name: name.to_owned(), location, tags };
        self.propose(&Command::PutResourceGroup(put), Vec::new()).await?;
        let group = self.group(subscription, name)?.ok_or_else(|| ArmError::group_not_found(name))?;
        Ok(Answer::with(if old.is_some() { 200 } else { 201 }, render(&group)))
    }

    /// Soft-deletes the group's vaults one by one, then removes the group.
    async fn delete_group(&self, subscription: &Subscription, group: &ResourceGroup) -> Result<()> {
        for vault in self.live_vaults(subscription, Some(&group.name))? {
            let delete = Command::DeleteVault(VaultRef { vault: vault.id });
            match self.propose_raw(&delete, Vec::new()).await? {
                None | Some(Refusal::VaultNotFound) => {}
                Some(refusal) => return Err(ArmError::of(refusal)),
            }
        }
        let delete = DeleteResourceGroup { subscription: subscription.subscription, name: group.name.clone() };
        match self.propose_raw(&Command::DeleteResourceGroup(delete), Vec::new()).await? {
            None | Some(Refusal::GroupNotFound) => Ok(()),
            Some(refusal) => Err(ArmError::of(refusal)),
        }
    }
}

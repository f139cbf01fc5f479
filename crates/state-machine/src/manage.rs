//! Applying the commands of the management plane: vaults, resource groups, roles.

use crate::apply::{put, refuse, Apply, ApplyError, Step, PURGE_ROWS_MAX};
use crate::keys;
use crate::kv::{Kv, Table};
use crate::read;
use crate::records::{DeletedHead, Head, ResourceGroup, RoleAssignment, Vault, FORMAT};
use crate::rotation;
use claviger_types::codec;
use claviger_types::command::{
    CreateVault, DeleteResourceGroup, DeleteRoleAssignment, DeleteRoleDefinition, PutResourceGroup, PutRoleAssignment,
    PutRoleDefinition, SetPolicies, UpdateVault, VaultRef,
};
use claviger_types::name::{Id128, Kind};
use claviger_types::outcome::{Deletion, Outcome, Refusal};
use claviger_types::permission::AccessPolicy;
use claviger_types::role::Scope;

impl<K: Kv> Apply<'_, K> {
    pub(crate) fn create_vault(&mut self, c: CreateVault, wrapped_key: Vec<u8>) -> Step {
        if read::world(self.kv)?.is_none() {
            return refuse(Refusal::WorldState);
        }
        if let Some(old) = read::vault_by_name(self.kv, &c.name)? {
            let deleted = old.deletion.is_some();
            return refuse(if deleted { Refusal::VaultDeleted } else { Refusal::VaultExists });
        }
        // An id that is being erased is as taken as one in use: its rows would be taken for the new vault's.
        if read::vault(self.kv, c.id)?.is_some() || self.kv.get(Table::Resources, &keys::erasure(c.id))?.is_some() {
            return refuse(Refusal::VaultExists);
        }
        let Some(group) = read::resource_group(self.kv, c.subscription, &c.group)? else {
            return refuse(Refusal::GroupNotFound);
        };
        let vault = Vault {
            id: c.id,
            name: c.name,
            display_name: c.display_name,
            tenant: c.tenant,
            subscription: c.subscription,
            group: group.name,
            location: c.location,
            settings: c.settings,
            retention_days: c.retention_days,
            purge_protection: c.purge_protection,
            wrapped_key,
            created: self.now,
            created_by: self.by,
            updated: self.now,
            updated_by: self.by,
            deletion: None,
            mod_index: self.index,
        };
        put(self.kv, Table::VaultNames, vault.name.as_str().as_bytes().to_vec(), &vault.id)?;
        self.put_policies(vault.id, c.policies)?;
        self.put_vault(&vault)?;
        Ok(Outcome::Done)
    }

    fn put_vault(&mut self, vault: &Vault) -> Result<(), ApplyError> {
        put(self.kv, Table::Vaults, vault.id.0.to_vec(), vault)
    }

    fn put_policies(&mut self, vault: Id128, policies: Vec<AccessPolicy>) -> Result<(), ApplyError> {
        self.remove_all(Table::Policies, &vault.0)?;
        for policy in policies {
            let key = keys::policy(vault, policy.tenant, policy.oid, policy.application);
            put(self.kv, Table::Policies, key, &policy)?;
        }
        Ok(())
    }

    fn touch(&mut self, vault: &mut Vault) {
        vault.updated = self.now;
        vault.updated_by = self.by;
        vault.mod_index = self.index;
    }

    pub(crate) fn set_policies(&mut self, c: SetPolicies) -> Step {
        let Some(mut vault) = read::live_vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        if c.seen.is_some_and(|seen| seen != vault.mod_index) {
            return refuse(Refusal::Changed);
        }
        self.put_policies(vault.id, c.policies)?;
        self.touch(&mut vault);
        self.put_vault(&vault)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn update_vault(&mut self, c: UpdateVault) -> Step {
        let Some(mut vault) = read::live_vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        if c.seen.is_some_and(|seen| seen != vault.mod_index) {
            return refuse(Refusal::Changed);
        }
        self.put_policies(vault.id, c.policies)?;
        vault.settings = c.settings;
        vault.purge_protection |= c.purge_protection;
        self.touch(&mut vault);
        self.put_vault(&vault)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_vault(&mut self, c: VaultRef) -> Step {
        let Some(mut vault) = read::live_vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        let purge = self.now + u64::from(vault.retention_days) * 86_400;
        vault.deletion = Some(Deletion { deleted: self.now, purge });
        self.touch(&mut vault);
        put(self.kv, Table::Resources, keys::vault_due(purge, vault.id), &vault.id)?;
        self.put_vault(&vault)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn recover_vault(&mut self, c: VaultRef) -> Step {
        let Some(mut vault) = read::vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        let Some(deletion) = vault.deletion.take() else { return refuse(Refusal::VaultNotDeleted) };
        if read::resource_group(self.kv, vault.subscription, &vault.group)?.is_none() {
            return refuse(Refusal::GroupNotFound);
        }
        self.kv.delete(Table::Resources, keys::vault_due(deletion.purge, vault.id));
        self.touch(&mut vault);
        self.put_vault(&vault)?;
        Ok(Outcome::Done)
    }

    /// Erases the vault's key, and with it what every object of the vault holds; the rows go in later steps. Role
    /// assignments go at once, for a new vault may take the name.
    pub(crate) fn purge_vault(&mut self, c: VaultRef, by_system: bool) -> Step {
        let Some(vault) = read::vault(self.kv, c.vault)? else { return refuse(Refusal::VaultNotFound) };
        let Some(deletion) = vault.deletion else { return refuse(Refusal::VaultNotDeleted) };
        if by_system && self.now < deletion.purge {
            return refuse(Refusal::NotDue);
        }
        if !by_system && vault.purge_protection {
            return refuse(Refusal::PurgeProtected);
        }
        self.kv.delete(Table::Resources, keys::vault_due(deletion.purge, vault.id));
        self.kv.delete(Table::VaultNames, vault.name.as_str().as_bytes().to_vec());
        self.kv.delete(Table::Vaults, vault.id.0.to_vec());
        put(self.kv, Table::Meta, keys::PURGED.to_vec(), &self.index)?;
        self.remove_all(Table::Policies, &vault.id.0)?;
        let scope = vault.scope();
        self.remove_assignments(|assigned| scope.holds(assigned))?;
        if let Some(mut reads) = read::reads(self.kv)?.filter(|reads| reads.vaults.contains_key(&vault.id)) {
            reads.vaults.remove(&vault.id);
            put(self.kv, Table::Meta, keys::READS.to_vec(), &reads)?;
        }
        put(self.kv, Table::Resources, keys::erasure(vault.id), &vault.id)?;
        Ok(Outcome::Done)
    }

    /// One step: at most [`PURGE_ROWS_MAX`] rows of each table. Heads go first, for what falls due with them is found by
    /// them and by their newest versions.
    pub(crate) fn erase_vault(&mut self, c: VaultRef) -> Step {
        if self.kv.get(Table::Resources, &keys::erasure(c.vault))?.is_none() {
            return refuse(Refusal::VaultNotFound);
        }
        put(self.kv, Table::Meta, keys::PURGED.to_vec(), &self.index)?;
        let (prefix, end) = (c.vault.0, keys::after(&c.vault.0));
        for table in [Table::Objects, Table::Deleted, Table::Versions, Table::Material] {
            let rows = self.kv.scan(table, &prefix, &end, PURGE_ROWS_MAX)?;
            let last = rows.len() < PURGE_ROWS_MAX;
            for (key, value) in rows {
                match table {
                    Table::Objects => {
                        let head: Head = codec::from_versioned(FORMAT, &value)?;
                        // Rows of other kinds are not there, so that it does not matter what the object is.
                        rotation::unschedule(self.kv, c.vault, Kind::Key, &head.name.folded())?;
                        self.kv.delete(Table::Rotation, keys::notified(&key));
                    }
                    Table::Deleted => {
                        let found: DeletedHead = codec::from_versioned(FORMAT, &value)?;
                        self.kv.delete(Table::Due, keys::due(found.deletion.purge, &key));
                        self.kv.delete(Table::Rotation, keys::notified(&key));
                    }
                    _ => {}
                }
                self.kv.delete(table, key);
            }
            if !last {
                return Ok(Outcome::Done);
            }
        }
        self.kv.delete(Table::Resources, keys::erasure(c.vault));
        Ok(Outcome::Done)
    }

    pub(crate) fn put_resource_group(&mut self, c: PutResourceGroup) -> Step {
        let group = match read::resource_group(self.kv, c.subscription, &c.name)? {
            Some(old) => ResourceGroup { tags: c.tags, ..old },
            None => ResourceGroup {
                subscription: c.subscription,
                name: c.name,
                location: c.location,
                tags: c.tags,
                created: self.now,
            },
        };
        put(self.kv, Table::Resources, keys::group(c.subscription, &group.name), &group)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_resource_group(&mut self, c: DeleteResourceGroup) -> Step {
        let Some(group) = read::resource_group(self.kv, c.subscription, &c.name)? else {
            return refuse(Refusal::GroupNotFound);
        };
        let vaults = read::vaults(self.kv, read::RESOURCES_MAX)?;
        let is_in =
            |vault: &Vault| vault.subscription == group.subscription && vault.group.eq_ignore_ascii_case(&group.name);
        if vaults.iter().any(|vault| vault.deletion.is_none() && is_in(vault)) {
            return refuse(Refusal::GroupNotEmpty);
        }
        let scope = Scope::group(group.subscription, &group.name).folded();
        // Those of its deleted vaults stay: they come back with their vaults.
        self.remove_assignments(|assigned| assigned.folded() == scope)?;
        self.kv.delete(Table::Resources, keys::group(group.subscription, &group.name));
        Ok(Outcome::Done)
    }

    pub(crate) fn put_role_assignment(&mut self, c: PutRoleAssignment) -> Step {
        let Some(role) = read::role(self.kv, c.role)? else { return refuse(Refusal::RoleNotFound) };
        let assignable = role.is_built_in()
            || role.assignable_scopes.iter().any(|s| Scope::parse(s).is_ok_and(|outer| outer.holds(&c.scope)));
        if !assignable {
            return refuse(Refusal::RoleNotFound);
        }
        let same = |old: &RoleAssignment| old.role == c.role && old.scope.folded() == c.scope.folded();
        if let Some(old) = read::assignment(self.kv, c.id)? {
            if !same(&old) || old.principal != c.principal {
                return refuse(Refusal::AssignmentExists);
            }
            // Nothing else of an assignment can change.
            let described = RoleAssignment { description: c.description, ..old };
            put(self.kv, Table::Resources, keys::assignment(c.principal, c.id), &described)?;
            return Ok(Outcome::Done);
        }
        if read::assignments_of(self.kv, c.principal)?.iter().any(same) {
            return refuse(Refusal::AssignmentExists);
        }
        let (id, principal) = (c.id, c.principal);
        let assignment = RoleAssignment {
            id,
            scope: c.scope,
            role: c.role,
            principal,
            principal_kind: c.principal_kind,
            description: c.description,
            created: self.now,
            created_by: self.by,
        };
        put(self.kv, Table::Resources, keys::assignment(principal, id), &assignment)?;
        put(self.kv, Table::Resources, keys::assignment_index(id), &principal)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_role_assignment(&mut self, c: DeleteRoleAssignment) -> Step {
        let found = read::assignment(self.kv, c.id)?
            .filter(|found| found.principal == c.principal && found.scope.folded() == c.scope.folded());
        if found.is_none() {
            return refuse(Refusal::AssignmentNotFound);
        }
        self.remove_assignment(c.principal, c.id);
        Ok(Outcome::Done)
    }

    fn remove_assignment(&mut self, principal: Id128, id: Id128) {
        self.kv.delete(Table::Resources, keys::assignment(principal, id));
        self.kv.delete(Table::Resources, keys::assignment_index(id));
    }

    fn remove_assignments(&mut self, out: impl Fn(&Scope) -> bool) -> Result<(), ApplyError> {
        for found in read::assignments(self.kv)? {
            if out(&found.scope) {
                self.remove_assignment(found.principal, found.id);
            }
        }
        Ok(())
    }

    pub(crate) fn put_role_definition(&mut self, c: PutRoleDefinition) -> Step {
        let clash = read::roles(self.kv)?.into_iter().any(|old| {
            (old.is_built_in() && old.id == c.role.id)
                || (old.id != c.role.id && old.name.eq_ignore_ascii_case(&c.role.name))
        });
        if clash || c.role.is_built_in() {
            return refuse(Refusal::RoleExists);
        }
        put(self.kv, Table::Resources, keys::role(c.role.id), &c.role)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_role_definition(&mut self, c: DeleteRoleDefinition) -> Step {
        match read::role(self.kv, c.id)? {
            Some(role) if !role.is_built_in() => {}
            _ => return refuse(Refusal::RoleNotFound),
        }
        if read::assignments(self.kv)?.iter().any(|found| found.role == c.id) {
            return refuse(Refusal::RoleInUse);
        }
        self.kv.delete(Table::Resources, keys::role(c.id));
        Ok(Outcome::Done)
    }
}

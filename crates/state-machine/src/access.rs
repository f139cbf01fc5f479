//! Who may do what: access policies, roles, and what a command takes.

use crate::kv::Read;
use crate::policy::{Need, Required, DIRECTORY_WRITE};
use crate::read::{self, Result};
use crate::records::Vault;
use claviger_types::name::Id128;
use claviger_types::permission::AccessPolicy;
use claviger_types::role::{self, Scope, DATA_PREFIX};

/// What a look at policies or roles came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By an access policy.
    ByPolicy,
    /// By this role assignment.
    ByRole(Id128),
    /// Not at all.
    Denied,
}

impl Access {
    /// Whether it is granted.
    pub fn is_granted(self) -> bool {
        self != Access::Denied
    }
}

/// Whether a principal may work with a vault's objects. The vault says whether policies or roles decide.
pub fn allowed(kv: &impl Read, vault: &Vault, tenant: Id128, oid: Id128, need: Need<'_>) -> Result<Access> {
    if vault.deletion.is_some() || vault.tenant != tenant {
        return Ok(Access::Denied);
    }
    let principals = read::principals(kv, oid)?;
    if !vault.settings.rbac {
        for principal in principals {
            let policy: Option<AccessPolicy> = read::policy(kv, vault.id, tenant, principal)?;
            if policy.is_some_and(|policy| policy.grants(need.permission)) {
                return Ok(Access::ByPolicy);
            }
        }
        return Ok(Access::Denied);
    }
    let mut scope = vault.scope();
    if let Some((kind, name)) = need.object {
        scope = Scope::object(&scope, kind, name.as_str());
    }
    let action = format!("{DATA_PREFIX}{}", need.action);
    for principal in principals {
        for assignment in read::assignments_of(kv, principal)? {
            if assignment.scope.holds(&scope)
                && read::role(kv, assignment.role)?.is_some_and(|role| role.allows_data(&action))
            {
                return Ok(Access::ByRole(assignment.id));
            }
        }
    }
    Ok(Access::Denied)
}

/// Whether a principal may do something on the management plane. The subscription must trust its tenant.
pub fn allowed_in(kv: &impl Read, tenant: Id128, oid: Id128, scope: &Scope, action: &str) -> Result<bool> {
    Ok(!roles_for(kv, tenant, oid, scope, action)?.is_empty())
}

/// The roles that allow a principal an action in a scope.
fn roles_for(kv: &impl Read, tenant: Id128, oid: Id128, scope: &Scope, action: &str) -> Result<Vec<Id128>> {
    let Some(subscription) = scope.subscription_id() else { return Ok(Vec::new()) };
    if read::subscription(kv, subscription)?.is_none_or(|found| found.tenant != tenant) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for principal in read::principals(kv, oid)? {
        for assignment in read::assignments_of(kv, principal)? {
            if assignment.scope.holds(scope) && read::role(kv, assignment.role)?.is_some_and(|role| role.allows(action))
            {
                found.push(assignment.role);
            }
        }
    }
    Ok(found)
}

/// Whether a principal may assign a role in a scope, or take it back.
fn may_assign(kv: &impl Read, tenant: Id128, oid: Id128, scope: &Scope, action: &str, role: Id128) -> Result<bool> {
    let narrow = Id128::parse_guid(role::DATA_ACCESS_ADMINISTRATOR).ok();
    let by = roles_for(kv, tenant, oid, scope, action)?;
    Ok(by.iter().any(|by| Some(*by) != narrow || role::is_data_role(role)))
}

/// Whether a principal may change its tenant's directory: if it may assign roles in a subscription of the tenant. Who
/// cannot do that must not be able to give itself the credentials of those who can.
pub fn may_change_directory(kv: &impl Read, tenant: Id128, oid: Id128) -> Result<bool> {
    for subscription in read::subscriptions(kv)?.into_iter().filter(|found| found.tenant == tenant) {
        if allowed_in(kv, tenant, oid, &Scope::subscription(subscription.subscription), DIRECTORY_WRITE)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a principal has what a command takes.
pub(crate) fn has(kv: &impl Read, tenant: Id128, oid: Id128, required: &Required<'_>) -> Result<bool> {
    match required {
        Required::Nothing => Ok(false),
        Required::Data(vault, need) => read::permitted(kv, *vault, tenant, oid, *need),
        Required::OnVault(vault, action) => match read::vault(kv, *vault)? {
            Some(vault) => allowed_in(kv, tenant, oid, &vault.scope(), action),
            None => Ok(false),
        },
        Required::InScope(scope, action) => allowed_in(kv, tenant, oid, scope, action),
        Required::Assign(scope, action, role) => may_assign(kv, tenant, oid, scope, action, *role),
        Required::Unassign(scope, action, principal, id) => {
            let found = read::assignment(kv, *id)?
                .filter(|found| found.principal == *principal && found.scope.folded() == scope.folded());
            match found {
                Some(found) => may_assign(kv, tenant, oid, scope, action, found.role),
                None => allowed_in(kv, tenant, oid, scope, action),
            }
        }
        Required::Define(scopes, action, id) => {
            let old = read::role(kv, *id)?.map(|role| role.assignable_scopes).unwrap_or_default();
            let old = old.iter().map(|scope| Scope::parse(scope)).collect::<std::result::Result<Vec<_>, _>>();
            // A built-in role's scope is the root, which does not parse: nobody may define it.
            let Ok(old) = old else { return Ok(false) };
            for scope in scopes.iter().chain(&old) {
                if !allowed_in(kv, tenant, oid, scope, action)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Required::Directory(of) => Ok(*of == tenant && may_change_directory(kv, tenant, oid)?),
    }
}

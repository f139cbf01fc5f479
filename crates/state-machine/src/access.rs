//! Who may do what: access policies, roles, and what a command takes.

use crate::kv::Read;
use crate::policy::{Need, Required, DIRECTORY_WRITE};
use crate::read::{self, Result};
use crate::records::Vault;
use claviger_types::command::Actor;
use claviger_types::name::Id128;
use claviger_types::role::{self, Scope, DATA_PREFIX};

/// Whom an access check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Its tenant.
    pub tenant: Id128,
    /// Its object id.
    pub oid: Id128,
    /// The application that speaks for it, if it is a user.
    pub application: Option<Id128>,
    /// Groups that another issuer has put it into.
    pub groups: &'a [Id128],
}

impl<'a> Subject<'a> {
    /// Of an actor; the service itself is none.
    pub fn of(actor: &'a Actor) -> Option<Self> {
        match actor {
            Actor::System => None,
            Actor::Principal { tenant, oid } => {
                Some(Self { tenant: *tenant, oid: *oid, application: None, groups: &[] })
            }
            Actor::Delegated { tenant, oid, app } => {
                Some(Self { tenant: *tenant, oid: *oid, application: Some(*app), groups: &[] })
            }
            Actor::External { tenant, oid, groups } => {
                Some(Self { tenant: *tenant, oid: *oid, application: None, groups })
            }
        }
    }

    /// Itself and all its groups.
    pub fn principals(&self, kv: &impl Read) -> Result<Vec<Id128>> {
        let mut found = read::principals(kv, self.oid)?;
        found.extend(self.groups);
        Ok(found)
    }
}

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
pub fn allowed(kv: &impl Read, vault: &Vault, who: &Subject<'_>, need: Need<'_>) -> Result<Access> {
    if vault.deletion.is_some() || vault.tenant != who.tenant {
        return Ok(Access::Denied);
    }
    let principals = who.principals(kv)?;
    if !vault.settings.rbac {
        let through = who.application.map(Some);
        for principal in principals {
            for application in [None].into_iter().chain(through) {
                let policy = read::policy(kv, vault.id, who.tenant, principal, application)?;
                if policy.is_some_and(|policy| policy.grants(need.permission)) {
                    return Ok(Access::ByPolicy);
                }
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
pub fn allowed_in(kv: &impl Read, who: &Subject<'_>, scope: &Scope, action: &str) -> Result<bool> {
    Ok(!roles_for(kv, who, scope, action)?.is_empty())
}

/// The roles that allow a principal an action in a scope.
fn roles_for(kv: &impl Read, who: &Subject<'_>, scope: &Scope, action: &str) -> Result<Vec<Id128>> {
    let Some(subscription) = scope.subscription_id() else { return Ok(Vec::new()) };
    if read::subscription(kv, subscription)?.is_none_or(|found| found.tenant != who.tenant) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for principal in who.principals(kv)? {
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
fn may_assign(kv: &impl Read, who: &Subject<'_>, scope: &Scope, action: &str, role: Id128) -> Result<bool> {
    let narrow = Id128::parse_guid(role::DATA_ACCESS_ADMINISTRATOR).ok();
    let by = roles_for(kv, who, scope, action)?;
    Ok(by.iter().any(|by| Some(*by) != narrow || role::is_data_role(role)))
}

/// Whether a principal may change its tenant's directory: if it may assign roles in a subscription of the tenant. Who
/// cannot do that must not be able to give itself the credentials of those who can.
pub fn may_change_directory(kv: &impl Read, who: &Subject<'_>) -> Result<bool> {
    for subscription in read::subscriptions(kv)?.into_iter().filter(|found| found.tenant == who.tenant) {
        if allowed_in(kv, who, &Scope::subscription(subscription.subscription), DIRECTORY_WRITE)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a principal has what a command takes.
pub(crate) fn has(kv: &impl Read, who: &Subject<'_>, required: &Required<'_>) -> Result<bool> {
    match required {
        Required::Nothing => Ok(false),
        Required::Data(vault, need) => read::permitted(kv, *vault, who, *need),
        Required::OnVault(vault, action) => match read::vault(kv, *vault)? {
            Some(vault) => allowed_in(kv, who, &vault.scope(), action),
            None => Ok(false),
        },
        // Whoever could choose the model freely could give itself by one what the other does not allow.
        Required::ChangeVault { vault, action, rbac } => match read::vault(kv, *vault)? {
            Some(vault) => {
                let scope = vault.scope();
                let assign = "Microsoft.Authorization/roleAssignments/write";
                Ok(allowed_in(kv, who, &scope, action)?
                    && (vault.settings.rbac == *rbac || allowed_in(kv, who, &scope, assign)?))
            }
            None => Ok(false),
        },
        Required::InScope(scope, action) => allowed_in(kv, who, scope, action),
        Required::Assign(scope, action, role) => may_assign(kv, who, scope, action, *role),
        Required::Unassign(scope, action, principal, id) => {
            let found = read::assignment(kv, *id)?
                .filter(|found| found.principal == *principal && found.scope.folded() == scope.folded());
            match found {
                Some(found) => may_assign(kv, who, scope, action, found.role),
                None => allowed_in(kv, who, scope, action),
            }
        }
        Required::Define(scopes, action, id) => {
            let old = read::role(kv, *id)?.map(|role| role.assignable_scopes).unwrap_or_default();
            let old = old.iter().map(|scope| Scope::parse(scope)).collect::<std::result::Result<Vec<_>, _>>();
            // A built-in role's scope is the root, which does not parse: nobody may define it.
            let Ok(old) = old else { return Ok(false) };
            for scope in scopes.iter().chain(&old) {
                if !allowed_in(kv, who, scope, action)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Required::Directory(of) => Ok(*of == who.tenant && may_change_directory(kv, who)?),
    }
}

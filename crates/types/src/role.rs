//! Roles and scopes of role-based access (contract section 14).
//!
//! The built-in definitions are part of the state machine's rules: every node must agree on them. A change of their
//! meaning is a new data format.

use crate::name::{BadName, Id128, Kind, ObjectName, VaultName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a role allows. `*` in an action stands for any text; actions are compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleDefinition {
    /// Its id.
    pub id: Id128,
    /// `roleName`.
    pub name: String,
    /// For people.
    pub description: String,
    /// Actions of the resource manager.
    pub actions: Vec<String>,
    /// Actions that are taken out again.
    pub not_actions: Vec<String>,
    /// Actions on data.
    pub data_actions: Vec<String>,
    /// Actions on data that are taken out again.
    pub not_data_actions: Vec<String>,
    /// Where it may be assigned; `/` for built-in ones.
    pub assignable_scopes: Vec<String>,
}

impl RoleDefinition {
    /// Whether the role allows an action of the resource manager.
    pub fn allows(&self, action: &str) -> bool {
        any(&self.actions, action) && !any(&self.not_actions, action)
    }

    /// Whether the role allows an action on data, named in full.
    pub fn allows_data(&self, action: &str) -> bool {
        any(&self.data_actions, action) && !any(&self.not_data_actions, action)
    }

    /// Whether it is one of the service's own.
    pub fn is_built_in(&self) -> bool {
        self.assignable_scopes.iter().any(|scope| scope == "/")
    }
}

fn any(patterns: &[String], action: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), action.as_bytes()))
}

/// `*` matches any text, other bytes themselves without regard to case. The time is the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (None, None) => return true,
            (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) if from < text.len() => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Prefix of Key Vault's data actions.
pub const DATA_PREFIX: &str = "Microsoft.KeyVault/vaults/";

/// Owner: everything on the management plane.
pub const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";

/// Key Vault Administrator: everything on the data plane.
pub const KEY_VAULT_ADMINISTRATOR: &str = "00482a5a-887f-4fb3-b363-3b7fe8e74483";

/// Key Vault Data Access Administrator: assigns roles of the data plane and no others.
pub const DATA_ACCESS_ADMINISTRATOR: &str = "8b54135c-b56d-4d72-a534-26097cfdc8d8";

/// id, name, description, actions, not actions, data actions.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

/// What roles of the data plane may do on the management plane, but for the narrow ones.
const LOOK: &[&str] = &[
    "Microsoft.Authorization/*/read",
    "Microsoft.Insights/alertRules/*",
    "Microsoft.Resources/deployments/*",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Support/*",
    "Microsoft.KeyVault/checkNameAvailability/read",
    "Microsoft.KeyVault/deletedVaults/read",
    "Microsoft.KeyVault/locations/*/read",
    "Microsoft.KeyVault/vaults/*/read",
    "Microsoft.KeyVault/operations/read",
];

#[rustfmt::skip]
const BUILT_IN: &[Row] = &[
    (OWNER, "Owner", "Grants full access to manage all resources, including the ability to assign roles.", &["*"], &[], &[]),
    ("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor",
     "Grants full access to manage all resources, but does not allow you to assign roles.", &["*"],
     &["Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write",
       "Microsoft.Authorization/elevateAccess/Action"], &[]),
    ("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader",
     "View all resources, but does not allow you to make any changes.", &["*/read"], &[], &[]),
    ("18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "User Access Administrator",
     "Lets you manage user access to resources.",
     &["*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"], &[], &[]),
    ("f58310d9-a9f6-439a-9e8d-f62e7b41a168", "Role Based Access Control Administrator",
     "Manage access to resources by assigning roles.",
     &["Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete", "*/read",
       "Microsoft.Support/*"], &[], &[]),
    ("f25e0fa2-a7c8-4377-a976-54943a77a395", "Key Vault Contributor",
     "Lets you manage key vaults, but not access to them.",
     &["Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/*", "Microsoft.KeyVault/*",
       "Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read",
       "Microsoft.Support/*"],
     &["Microsoft.KeyVault/locations/deletedVaults/purge/action", "Microsoft.KeyVault/hsmPools/*",
       "Microsoft.KeyVault/managedHsms/*"], &[]),
    (KEY_VAULT_ADMINISTRATOR, "Key Vault Administrator",
     "Perform all data plane operations on a key vault and all objects in it, including certificates, keys, and secrets.",
     LOOK, &[], &["Microsoft.KeyVault/vaults/*"]),
    ("21090545-7ca7-4776-b22c-e363652d74d2", "Key Vault Reader",
     "Read metadata of key vaults and its certificates, keys, and secrets.", LOOK, &[],
     &["Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"]),
    ("a4417e6f-fecd-4de8-b567-7b0420556985", "Key Vault Certificates Officer",
     "Perform any action on the certificates of a key vault, except manage permissions.", LOOK, &[],
     &["Microsoft.KeyVault/vaults/certificatecas/*", "Microsoft.KeyVault/vaults/certificates/*",
       "Microsoft.KeyVault/vaults/certificatecontacts/write"]),
    ("db79e9a7-68ee-4b58-9aeb-b90e7c24fcba", "Key Vault Certificate User",
     "Read certificate contents.", &[], &[],
     &["Microsoft.KeyVault/vaults/certificates/read", "Microsoft.KeyVault/vaults/secrets/getSecret/action",
       "Microsoft.KeyVault/vaults/secrets/readMetadata/action", "Microsoft.KeyVault/vaults/keys/read"]),
    ("14b46e9e-c2b7-41b4-b07b-48a6ebf60603", "Key Vault Crypto Officer",
     "Perform any action on the keys of a key vault, except manage permissions.", LOOK, &[],
     &["Microsoft.KeyVault/vaults/keys/*", "Microsoft.KeyVault/vaults/keyrotationpolicies/*"]),
    ("12338af0-0e69-4776-bea7-57ae8d297424", "Key Vault Crypto User",
     "Perform cryptographic operations using keys.", &[], &[],
     &["Microsoft.KeyVault/vaults/keys/read", "Microsoft.KeyVault/vaults/keys/update/action",
       "Microsoft.KeyVault/vaults/keys/backup/action", "Microsoft.KeyVault/vaults/keys/encrypt/action",
       "Microsoft.KeyVault/vaults/keys/decrypt/action", "Microsoft.KeyVault/vaults/keys/wrap/action",
       "Microsoft.KeyVault/vaults/keys/unwrap/action", "Microsoft.KeyVault/vaults/keys/sign/action",
       "Microsoft.KeyVault/vaults/keys/verify/action"]),
    ("e147488a-f6f5-4113-8e2d-b22465e65bf6", "Key Vault Crypto Service Encryption User",
     "Read metadata of keys and perform wrap/unwrap operations.", &[], &[],
     &["Microsoft.KeyVault/vaults/keys/read", "Microsoft.KeyVault/vaults/keys/wrap/action",
       "Microsoft.KeyVault/vaults/keys/unwrap/action"]),
    ("08bbd89e-9f13-488c-ac41-acfcb10c90ab", "Key Vault Crypto Service Release User", "Release keys.", &[], &[],
     &["Microsoft.KeyVault/vaults/keys/release/action"]),
    ("b86a8fe4-44ce-4948-aee5-eccb2c155cd7", "Key Vault Secrets Officer",
     "Perform any action on the secrets of a key vault, except manage permissions.", LOOK, &[],
     &["Microsoft.KeyVault/vaults/secrets/*"]),
    ("4633458b-17de-408a-b874-0445c86b69e6", "Key Vault Secrets User", "Read secret contents.", &[], &[],
     &["Microsoft.KeyVault/vaults/secrets/getSecret/action", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"]),
    ("a68e7c17-0ab2-4c09-9a58-125dae29748c", "Key Vault Purge Operator", "Allows permanent deletion of soft-deleted vaults.",
     &["Microsoft.KeyVault/deletedVaults/read", "Microsoft.KeyVault/locations/*/read",
       "Microsoft.KeyVault/locations/deletedVaults/purge/action"], &[], &[]),
    (DATA_ACCESS_ADMINISTRATOR, "Key Vault Data Access Administrator",
     "Add or remove role assignments of the data plane of key vaults.",
     &["Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete",
       "Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/read",
       "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.KeyVault/vaults/*/read"], &[], &[]),
];

fn definition(row: &Row) -> RoleDefinition {
    let (id, name, description, actions, not_actions, data_actions) = *row;
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    RoleDefinition {
        // The ids of the table are well-formed, which a test says.
        id: Id128::parse_guid(id).unwrap_or(Id128([0; 16])),
        name: name.to_owned(),
        description: description.to_owned(),
        actions: texts(actions),
        not_actions: texts(not_actions),
        data_actions: texts(data_actions),
        not_data_actions: Vec::new(),
        assignable_scopes: vec!["/".to_owned()],
    }
}

/// All built-in roles.
pub fn built_in() -> Vec<RoleDefinition> {
    BUILT_IN.iter().map(definition).collect()
}

/// A built-in role by id.
pub fn built_in_by_id(id: Id128) -> Option<RoleDefinition> {
    let guid = id.guid();
    BUILT_IN.iter().find(|row| row.0 == guid).map(definition)
}

/// Whether a role is one that the Key Vault Data Access Administrator may assign: built in, and for data.
pub fn is_data_role(id: Id128) -> bool {
    let guid = id.guid();
    BUILT_IN.iter().any(|row| row.0 == guid && !row.5.is_empty())
}

/// Where an assignment holds: a subscription, a resource group, a vault or an object, and everything below. Kept as it
/// was written, compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl Scope {
    /// Checks the form.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let text = format!("/{}", text.trim_matches('/'));
        let segments: Vec<&str> = text.split('/').skip(1).collect();
        let is = |given: &str, literal: &str| given.eq_ignore_ascii_case(literal);
        let provider = |p: &str, n: &str, v: &str, vault: &str| {
            is(p, "providers") && is(n, "microsoft.keyvault") && is(v, "vaults") && VaultName::parse(vault).is_ok()
        };
        let head = |s: &str, id: &str| is(s, "subscriptions") && Id128::parse_guid(id).is_ok();
        let group = |g: &str, name: &str| is(g, "resourcegroups") && is_group_name(name);
        let ok = match segments.as_slice() {
            [s, id] => head(s, id),
            [s, id, g, name] => head(s, id) && group(g, name),
            [s, id, g, name, p, n, v, vault] => head(s, id) && group(g, name) && provider(p, n, v, vault),
            [s, id, g, name, p, n, v, vault, kind, object] => {
                head(s, id)
                    && group(g, name)
                    && provider(p, n, v, vault)
                    && ["keys", "secrets", "certificates"].iter().any(|k| is(kind, k))
                    && ObjectName::parse(object).is_ok()
            }
            _ => false,
        };
        if ok {
            Ok(Self(text))
        } else {
            Err(BadName)
        }
    }

    /// A subscription.
    pub fn subscription(id: Id128) -> Self {
        Self(format!("/subscriptions/{}", id.guid()))
    }

    /// A resource group.
    pub fn group(subscription: Id128, group: &str) -> Self {
        Self(format!("/subscriptions/{}/resourceGroups/{group}", subscription.guid()))
    }

    /// A vault.
    pub fn vault(subscription: Id128, group: &str, vault: &str) -> Self {
        let group = Self::group(subscription, group);
        Self(format!("{group}/providers/Microsoft.KeyVault/vaults/{vault}"))
    }

    /// An object of a vault.
    pub fn object(vault: &Scope, kind: Kind, name: &str) -> Self {
        Self(format!("{vault}/{}/{name}", kind.collection()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that scopes are compared by.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether `other` is this scope or below it.
    pub fn holds(&self, other: &Scope) -> bool {
        let (outer, inner) = (self.folded(), other.folded());
        inner.strip_prefix(&outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The subscription's id.
    pub fn subscription_id(&self) -> Option<Id128> {
        self.0.split('/').nth(2).and_then(|id| Id128::parse_guid(id).ok())
    }
}

/// A resource group's name: 1 to 90 letters, digits, `-`, `_`, `.`, `(` and `)`; no full stop last.
pub fn is_group_name(name: &str) -> bool {
    (1..=90).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || "-_.()".contains(c))
        && !name.ends_with('.')
}

impl TryFrom<String> for Scope {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let cases = [
            ("*", "anything/at/all", true),
            ("*/read", "Microsoft.KeyVault/vaults/READ", true),
            ("*/read", "Microsoft.KeyVault/vaults/write", false),
            ("Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/keys/read", true),
            ("Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/read", false),
            ("Microsoft.Authorization/*/Write", "microsoft.authorization/roleAssignments/write", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn built_in_roles() {
        let all = built_in();
        for role in &all {
            assert_eq!(built_in_by_id(role.id).as_ref(), Some(role));
            assert_ne!(role.id, Id128([0; 16]));
        }
        let role = |name: &str| all.iter().find(|role| role.name == name).unwrap();
        assert!(role("Owner").allows("Microsoft.Authorization/roleAssignments/write"));
        assert!(!role("Contributor").allows("Microsoft.Authorization/roleAssignments/write"));
        assert!(role("Contributor").allows("Microsoft.KeyVault/vaults/write"));
        assert!(!role("Owner").allows_data("Microsoft.KeyVault/vaults/keys/read"));
        assert!(!role("Key Vault Reader").allows_data("Microsoft.KeyVault/vaults/secrets/getSecret/action"));
        assert!(role("Key Vault Reader").allows_data("Microsoft.KeyVault/vaults/keys/read"));
    }

    #[test]
    fn scopes_hold_what_is_below() {
        let sub = "/subscriptions/00482a5a-887f-4fb3-b363-3b7fe8e74483";
        let vault = format!("{sub}/resourcegroups/G/providers/Microsoft.KeyVault/vaults/demo");
        let outer = Scope::parse(&format!("{sub}/resourceGroups/g")).unwrap();
        assert!(outer.holds(&Scope::parse(&vault).unwrap()));
        assert!(outer.holds(&Scope::parse(&format!("{vault}/keys/k")).unwrap()));
        assert!(!outer.holds(&Scope::parse(sub).unwrap()));
        assert!(!outer.holds(&Scope::parse(&format!("{sub}/resourceGroups/gg")).unwrap()));
        for bad in ["", "/", "/subscriptions/x", &format!("{sub}/other/g"), &format!("{vault}/keys/a_b")] {
            assert_eq!(Scope::parse(bad), Err(BadName), "{bad}");
        }
    }
}

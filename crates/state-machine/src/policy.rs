//! What a command takes of a principal (contract section 14).

use claviger_types::command::{Command, ObjectRef, Origin};
use claviger_types::name::{Id128, Kind, ObjectName};
use claviger_types::permission::{KeyPermission, Permission, SecretPermission};
use claviger_types::role::Scope;

/// What it takes to work with a vault's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need<'a> {
    /// What an access policy must hold.
    pub permission: Permission,
    /// What a role must allow, without the provider's prefix.
    pub action: &'static str,
    /// The object; none for a whole collection.
    pub object: Option<(Kind, &'a ObjectName)>,
}

impl<'a> Need<'a> {
    /// Where the permission and the data action are counterparts.
    pub fn of(permission: Permission, object: Option<(Kind, &'a ObjectName)>) -> Self {
        Self { permission, action: permission.data_action(), object }
    }
}

/// What a principal needs for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Required<'a> {
    /// A permission in a vault.
    Data(Id128, Need<'a>),
    /// An action of the resource manager on a vault.
    OnVault(Id128, &'static str),
    /// The right to change a vault; and the right to assign roles in it, if that changes whether roles decide.
    ChangeVault {
        /// The vault.
        vault: Id128,
        /// The action on it.
        action: &'static str,
        /// Whether roles decide from now on.
        rbac: bool,
    },
    /// An action of the resource manager in a scope.
    InScope(Scope, &'static str),
    /// The right to assign this role in a scope.
    Assign(Scope, &'static str, Id128),
    /// The right to take an assignment of this principal back.
    Unassign(Scope, &'static str, Id128, Id128),
    /// The right to define the role of this id here and in every scope where it may be assigned.
    Define(Vec<Scope>, &'static str, Id128),
    /// The right to change a tenant's directory.
    Directory(Id128),
    /// Nothing is enough: the service itself only.
    Nothing,
}

/// Action that the right to change the directory is tied to: whoever may assign roles may make principals.
pub(crate) const DIRECTORY_WRITE: &str = "Microsoft.Authorization/directory/write";

fn on<'a>(
    vault: Id128,
    kind: Kind,
    name: &'a ObjectName,
    key: KeyPermission,
    secret: SecretPermission,
) -> Required<'a> {
    let permission = match kind {
        Kind::Key => Permission::Key(key),
        Kind::Secret => Permission::Secret(secret),
    };
    Required::Data(vault, Need::of(permission, Some((kind, name))))
}

fn on_object(c: &ObjectRef, key: KeyPermission, secret: SecretPermission) -> Required<'_> {
    on(c.vault, c.kind, &c.name, key, secret)
}

/// What a principal needs for a command.
pub fn required_permission(command: &Command) -> Required<'_> {
    match command {
        Command::InitWorld(_)
        | Command::PutTokenKey(_)
        | Command::PutTenant(_)
        | Command::PutSubscription(_)
        | Command::RotateDue(_)
        | Command::NoteNearExpiry(_)
        | Command::ApproveDevice(_)
        | Command::TakeDevice(_)
        | Command::EraseVault(_) => Required::Nothing,
        Command::CreateVault(c) => {
            Required::InScope(Scope::group(c.subscription, &c.group), "Microsoft.KeyVault/vaults/write")
        }
        Command::UpdateVault(c) => {
            Required::ChangeVault { vault: c.vault, action: "Microsoft.KeyVault/vaults/write", rbac: c.settings.rbac }
        }
        Command::SetPolicies(c) => Required::OnVault(c.vault, "Microsoft.KeyVault/vaults/accessPolicies/write"),
        Command::DeleteVault(c) => Required::OnVault(c.vault, "Microsoft.KeyVault/vaults/delete"),
        Command::RecoverVault(c) => Required::OnVault(c.vault, "Microsoft.KeyVault/vaults/write"),
        Command::PurgeVault(c) => Required::OnVault(c.vault, "Microsoft.KeyVault/locations/deletedVaults/purge/action"),
        Command::PutResourceGroup(c) => Required::InScope(
            Scope::group(c.subscription, &c.name),
            "Microsoft.Resources/subscriptions/resourceGroups/write",
        ),
        Command::DeleteResourceGroup(c) => Required::InScope(
            Scope::group(c.subscription, &c.name),
            "Microsoft.Resources/subscriptions/resourceGroups/delete",
        ),
        Command::PutRoleAssignment(c) => {
            Required::Assign(c.scope.clone(), "Microsoft.Authorization/roleAssignments/write", c.role)
        }
        Command::DeleteRoleAssignment(c) => {
            let action = "Microsoft.Authorization/roleAssignments/delete";
            Required::Unassign(c.scope.clone(), action, c.principal, c.id)
        }
        Command::PutRoleDefinition(c) => {
            let assignable = c.role.assignable_scopes.iter().map(|scope| Scope::parse(scope));
            match assignable.collect::<Result<Vec<_>, _>>() {
                Ok(mut scopes) => {
                    scopes.push(c.scope.clone());
                    Required::Define(scopes, "Microsoft.Authorization/roleDefinitions/write", c.role.id)
                }
                Err(_) => Required::Nothing,
            }
        }
        Command::DeleteRoleDefinition(c) => {
            Required::Define(vec![c.scope.clone()], "Microsoft.Authorization/roleDefinitions/delete", c.id)
        }
        // Operators' commands: no token can carry them.
        Command::SetReads(_) | Command::SetVaultReads(_) | Command::NoteEmergency(_) | Command::NoteDisk(_) => {
            Required::Nothing
        }
        Command::PutApplication(c) => Required::Directory(c.tenant),
        Command::AddClientSecret(c) => Required::Directory(c.tenant),
        Command::RemoveClientSecret(c) => Required::Directory(c.tenant),
        Command::SetCertificates(c) => Required::Directory(c.tenant),
        Command::DeleteApplication(c) => Required::Directory(c.tenant),
        Command::PutUser(c) => Required::Directory(c.tenant),
        Command::PutGroup(c) => Required::Directory(c.tenant),
        Command::SetMember(c) => Required::Directory(c.tenant),
        Command::CreateUser(c) => Required::Directory(c.tenant),
        Command::UpdateUser(c) => Required::Directory(c.tenant),
        Command::DeleteUser(c) | Command::DeleteGroup(c) => Required::Directory(c.tenant),
        Command::PutFederatedCredential(c) => Required::Directory(c.tenant),
        Command::DeleteFederatedCredential(c) => Required::Directory(c.tenant),
        Command::PutVersion(c) => {
            let on_keys = match c.origin {
                Origin::Create => KeyPermission::Create,
                Origin::Import => KeyPermission::Import,
                Origin::Rotate => KeyPermission::Rotate,
            };
            on(c.vault, c.kind, &c.name, on_keys, SecretPermission::Set)
        }
        Command::SetRotationPolicy(c) => on_object(&c.object, KeyPermission::SetRotationPolicy, SecretPermission::Set),
        Command::UpdateVersion(c) => match c.kind {
            Kind::Key => on(c.vault, c.kind, &c.name, KeyPermission::Update, SecretPermission::Set),
            // The one place where policies and roles part: `set` covers updates in a policy only.
            Kind::Secret => Required::Data(
                c.vault,
                Need {
                    permission: Permission::Secret(SecretPermission::Set),
                    action: SECRET_UPDATE,
                    object: Some((c.kind, &c.name)),
                },
            ),
        },
        Command::DeleteObject(c) => on_object(c, KeyPermission::Delete, SecretPermission::Delete),
        Command::RecoverObject(c) => on_object(c, KeyPermission::Recover, SecretPermission::Recover),
        Command::PurgeObject(c) => on_object(c, KeyPermission::Purge, SecretPermission::Purge),
        Command::RestoreObject(c) => on_object(&c.object, KeyPermission::Restore, SecretPermission::Restore),
    }
}

/// Data action of an update of a secret.
pub const SECRET_UPDATE: &str = "secrets/update/action";

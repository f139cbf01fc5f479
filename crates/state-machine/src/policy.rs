//! Which permission a command needs (contract section 14).

use claviger_types::command::{Command, Origin};
use claviger_types::name::{Id128, Kind};
use claviger_types::permission::{KeyPermission, Permission, SecretPermission};

/// The vault and the permission that a principal needs for a command; `None` for what only the service itself may do.
pub fn required_permission(command: &Command) -> Option<(Id128, Permission)> {
    let on = |vault, kind, key, secret| {
        Some((
            vault,
            match kind {
                Kind::Key => Permission::Key(key),
                Kind::Secret => Permission::Secret(secret),
            },
        ))
    };
    match command {
        Command::InitWorld(_)
        | Command::CreateVault(_)
        | Command::SetPolicies(_)
        | Command::PutApplication(_)
        | Command::PutTokenKey(_)
        | Command::PutTenant(_)
        | Command::PutSubscription(_)
        | Command::RotateDue(_)
        | Command::NoteNearExpiry(_) => None,
        Command::PutVersion(c) => {
            let on_keys = match c.origin {
                Origin::Create => KeyPermission::Create,
                Origin::Import => KeyPermission::Import,
                Origin::Rotate => KeyPermission::Rotate,
            };
            on(c.vault, c.kind, on_keys, SecretPermission::Set)
        }
        Command::SetRotationPolicy(c) => {
            on(c.object.vault, c.object.kind, KeyPermission::SetRotationPolicy, SecretPermission::Set)
        }
        Command::UpdateVersion(c) => on(c.vault, c.kind, KeyPermission::Update, SecretPermission::Set),
        Command::DeleteObject(c) => on(c.vault, c.kind, KeyPermission::Delete, SecretPermission::Delete),
        Command::RecoverObject(c) => on(c.vault, c.kind, KeyPermission::Recover, SecretPermission::Recover),
        Command::PurgeObject(c) => on(c.vault, c.kind, KeyPermission::Purge, SecretPermission::Purge),
        Command::RestoreObject(c) => {
            on(c.object.vault, c.object.kind, KeyPermission::Restore, SecretPermission::Restore)
        }
    }
}

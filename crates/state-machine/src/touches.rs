//! Which parts of the state a command may change (design B1): what a local read has to look out for.

use claviger_types::command::Command;
use claviger_types::name::{Id128, Kind};

/// A part of the state that reads depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConflictKey {
    /// Everything: world, identity.
    World,
    /// A vault's own row and its policies.
    Vault(Id128),
    /// One object, by folded name.
    Object(Id128, Kind, String),
    /// Any object of a vault: what lists depend on.
    VaultAny(Id128),
}

/// The conflict keys of a command. Applying it changes nothing outside them, bookkeeping aside.
pub fn touches(command: &Command) -> Vec<ConflictKey> {
    let object = |vault: Id128, kind: Kind, folded: String| {
        vec![ConflictKey::Object(vault, kind, folded), ConflictKey::VaultAny(vault)]
    };
    match command {
        // It is in the audit chain, and nowhere else.
        Command::NoteEmergency(_) => Vec::new(),
        Command::InitWorld(_)
        | Command::PutApplication(_)
        | Command::PutTokenKey(_)
        | Command::PutTenant(_)
        | Command::PutSubscription(_)
        | Command::AddClientSecret(_)
        | Command::RemoveClientSecret(_)
        | Command::SetCertificates(_)
        | Command::DeleteApplication(_)
        | Command::PutUser(_)
        | Command::PutGroup(_)
        | Command::SetMember(_)
        | Command::CreateUser(_)
        | Command::UpdateUser(_)
        | Command::DeleteUser(_)
        | Command::DeleteGroup(_)
        | Command::PutFederatedCredential(_)
        | Command::DeleteFederatedCredential(_)
        | Command::ApproveDevice(_)
        | Command::TakeDevice(_)
        | Command::PutResourceGroup(_)
        | Command::DeleteResourceGroup(_)
        | Command::PutRoleAssignment(_)
        | Command::DeleteRoleAssignment(_)
        | Command::PutRoleDefinition(_)
        | Command::DeleteRoleDefinition(_)
        | Command::SetReads(_)
        | Command::SetVaultReads(_)
        | Command::NoteDisk(_) => vec![ConflictKey::World],
        Command::UpdateVault(c) => vec![ConflictKey::Vault(c.vault)],
        Command::DeleteVault(c) | Command::RecoverVault(c) | Command::PurgeVault(c) => {
            vec![ConflictKey::World, ConflictKey::Vault(c.vault), ConflictKey::VaultAny(c.vault)]
        }
        // What it erases was out of reach before.
        Command::EraseVault(c) => vec![ConflictKey::Vault(c.vault), ConflictKey::VaultAny(c.vault)],
        Command::CreateVault(c) => vec![ConflictKey::World, ConflictKey::Vault(c.id)],
        Command::SetPolicies(c) => vec![ConflictKey::Vault(c.vault)],
        Command::PutVersion(c) => object(c.vault, c.kind, c.name.folded()),
        Command::UpdateVersion(c) => object(c.vault, c.kind, c.name.folded()),
        Command::DeleteObject(c) | Command::RecoverObject(c) | Command::PurgeObject(c) => {
            object(c.vault, c.kind, c.name.folded())
        }
        Command::SetRotationPolicy(c) => object(c.object.vault, c.object.kind, c.object.name.folded()),
        Command::RotateDue(c) => object(c.put.vault, c.put.kind, c.put.name.folded()),
        Command::NoteNearExpiry(c) => object(c.object.vault, c.object.kind, c.object.name.folded()),
        Command::RestoreObject(c) => object(c.object.vault, c.object.kind, c.object.name.folded()),
    }
}

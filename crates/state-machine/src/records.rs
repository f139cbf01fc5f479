//! The stored rows. Each is written with [`FORMAT`] in front; golden bytes in the tests guard every one.

use claviger_types::alg::PublicKey;
use claviger_types::command::{ClientCertificate, ClientSecret, PrincipalKind, PrincipalRef, RotationPolicy, Tags};
use claviger_types::name::{Id128, Kind, ObjectName, VaultName};
use claviger_types::outcome::{Deletion, Outcome};
use claviger_types::reads::{ReadMode, ReadTiming};
use claviger_types::role::Scope;
use claviger_types::vault::VaultSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format number of every row of this module.
pub const FORMAT: u8 = 1;

/// The world's own facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Bound into every sealed form.
    pub id: Id128,
    /// Region name that replies show.
    pub region: String,
}

/// How reads are made. Without it: by read index, and no lease was ever given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// For every vault that has no mode of its own.
    pub mode: ReadMode,
    /// The numbers of leases.
    pub timing: ReadTiming,
    /// Numbers of the longest leases that were ever given: what a new leader waits for.
    pub longest: Option<ReadTiming>,
    /// Vaults with a mode of their own.
    pub vaults: BTreeMap<Id128, ReadMode>,
}

impl Reads {
    /// The mode for a vault.
    pub fn of(&self, vault: Id128) -> ReadMode {
        let own = self.vaults.get(&vault).copied();
        own.filter(|own| own.is_stricter_than(self.mode)).unwrap_or(self.mode)
    }
}

/// A vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vault {
    /// Stable id.
    pub id: Id128,
    /// Unique in the region.
    pub name: VaultName,
    /// The name as first given.
    pub display_name: String,
    /// Tenant whose tokens the vault accepts.
    pub tenant: Id128,
    /// Subscription that backup blobs are bound to.
    pub subscription: Id128,
    /// Its resource group, as named there.
    pub group: String,
    /// Location that answers show.
    pub location: String,
    /// What may change.
    pub settings: VaultSettings,
    /// Days between delete and purge.
    pub retention_days: u16,
    /// Whether purge is left to the end of the retention.
    pub purge_protection: bool,
    /// The vault key, sealed under the world key. Gone with the vault: crypto-shredding.
    pub wrapped_key: Vec<u8>,
    /// When it was created, in seconds.
    pub created: u64,
    /// Who created it; `None` is the service itself.
    pub created_by: Option<Id128>,
    /// When it was last changed, in seconds.
    pub updated: u64,
    /// Who changed it.
    pub updated_by: Option<Id128>,
    /// Set while the vault is soft-deleted.
    pub deletion: Option<Deletion>,
    /// Log index that last changed the vault or its policies.
    pub mod_index: u64,
}

impl Vault {
    /// Where role assignments for the vault hold.
    pub fn scope(&self) -> Scope {
        Scope::vault(self.subscription, &self.group, &self.display_name)
    }
}

/// A resource group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceGroup {
    /// Its subscription.
    pub subscription: Id128,
    /// The name as first given.
    pub name: String,
    /// Location that answers show.
    pub location: String,
    /// Tags.
    pub tags: Tags,
    /// When it was created, in seconds.
    pub created: u64,
}

/// A role that a principal has in a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleAssignment {
    /// Its id.
    pub id: Id128,
    /// Where it holds.
    pub scope: Scope,
    /// The role.
    pub role: Id128,
    /// Who has it.
    pub principal: Id128,
    /// What the principal is.
    pub principal_kind: PrincipalKind,
    /// For people.
    pub description: Option<String>,
    /// When it was created, in seconds.
    pub created: u64,
    /// Who created it; `None` is the service itself.
    pub created_by: Option<Id128>,
}

/// The head of an object: what does not belong to one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The name as first given.
    pub name: ObjectName,
    /// The newest version.
    pub newest: Id128,
    /// Sequence number of the next version.
    pub next_sequence: u64,
    /// What the service does by itself (keys); `None` is the default policy.
    pub rotation: Option<RotationPolicy>,
    /// Log index that last changed the object.
    pub mod_index: u64,
}

/// The head of a soft-deleted object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedHead {
    /// As it was, to be put back by recover.
    pub head: Head,
    /// When it was deleted and when it goes.
    pub deletion: Deletion,
}

/// An application and its service principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Home tenant.
    pub tenant: Id128,
    /// Application (client) id.
    pub app: Id128,
    /// Object id of the application itself.
    pub object: Id128,
    /// Object id of the service principal.
    pub oid: Id128,
    /// Whether the service principal is there.
    pub has_principal: bool,
    /// For people.
    pub display_name: String,
    /// Client secrets, oldest first.
    pub secrets: Vec<ClientSecret>,
    /// Certificates that its assertions are signed with.
    pub certificates: Vec<ClientCertificate>,
    /// When it was created, in seconds.
    pub created: u64,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Home tenant.
    pub tenant: Id128,
    /// Object id.
    pub oid: Id128,
    /// `userPrincipalName`.
    pub upn: String,
    /// For people.
    pub display_name: String,
}

/// How a user signs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// Password hash (PHC string); without one the user cannot sign in.
    pub password: Option<String>,
    /// Whether the user may sign in.
    pub enabled: bool,
    /// Log index that set the password: what was signed in with another one cannot be renewed.
    pub stamp: u64,
    /// When the user was created, in seconds.
    pub created: u64,
}

/// A sign-in on behalf of a device that shows a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceApproval {
    /// Who signed in.
    pub user: PrincipalRef,
    /// Until when the device may fetch its token, in seconds.
    pub expires: u64,
}

/// A group of principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Home tenant.
    pub tenant: Id128,
    /// Object id.
    pub oid: Id128,
    /// For people.
    pub display_name: String,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub tenant: Id128,
    /// Domain name by which clients may also name it.
    pub domain: String,
    /// For people.
    pub display_name: String,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub subscription: Id128,
    /// The tenant that it trusts.
    pub tenant: Id128,
    /// For people.
    pub display_name: String,
}

/// A token-signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// `kid` in token headers.
    pub kid: String,
    /// Public half.
    pub public: PublicKey,
    /// Private half, sealed under the world key.
    pub sealed: Vec<u8>,
}

/// Which version a near-expiry event was last written for, and which expiry it spoke of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// The version.
    pub version: Id128,
    /// Its expiry, in seconds.
    pub expires: Option<u64>,
}

/// A near-expiry event: what a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// State time, in seconds.
    pub time: u64,
    /// The vault.
    pub vault: Id128,
    /// Which collection.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
    /// The version that expires.
    pub version: Id128,
    /// When it does, in seconds.
    pub expires: u64,
}

/// What happened at one log index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// State time, in milliseconds.
    pub time_ms: u64,
    /// Command number and version.
    pub cmd: (u16, u8),
    /// Idempotency key of the request.
    pub request_id: Id128,
    /// SHA-256 of the entry with its blobs replaced by their hashes.
    pub entry_hash: [u8; 32],
    /// Audit chain up to and including this entry.
    pub chain: [u8; 32],
    /// Whether it was refused.
    pub refused: bool,
}

/// What a retry gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Hash of command and body: another request under the same id is not a retry.
    pub entry_hash: [u8; 32],
    /// The first outcome.
    pub outcome: Outcome,
}

/// A client's request that was carried out: what its retry is recognized by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Command number.
    pub cmd: u16,
    /// Log index at which it was carried out.
    pub index: u64,
    /// State time then, in milliseconds.
    pub time_ms: u64,
}

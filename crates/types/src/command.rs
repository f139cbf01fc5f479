//! What can be written to the log.
//!
//! A command is fully determined before it is proposed: time, version ids, generated and sealed key material arrive in it,
//! so applying it needs no clock, no randomness and no cryptography (design C1). Sealed material travels in
//! [`Entry::blobs`], beside the body: the audit chain covers a blob by its hash, so a purged blob can be erased later
//! without breaking the chain.
//!
//! Stored forms are forever: a change of meaning is a new command number, or a new version of one.

use crate::alg::{Kty, PublicKey};
use crate::codec::{self, CodecError};
use crate::name::{Id128, Kind, ObjectName, VaultName};
use crate::permission::AccessPolicy;
use crate::reads::{ReadMode, ReadTiming};
use crate::role::{RoleDefinition, Scope};
use crate::vault::VaultSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format number of an encoded [`Entry`].
pub const ENTRY_FORMAT: u8 = 1;

/// Who asked for a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The service itself: timers, set-up by an operator.
    System,
    /// A principal with a token; its permission is checked again when the command is applied.
    Principal {
        /// `tid` of the token.
        tenant: Id128,
        /// `oid` of the token.
        oid: Id128,
    },
    /// A user for whom an application speaks: policies may name the two together.
    Delegated {
        /// `tid` of the token.
        tenant: Id128,
        /// `oid` of the token.
        oid: Id128,
        /// `appid` of the token.
        app: Id128,
    },
    /// A principal of another issuer, which says what groups it belongs to.
    External {
        /// The tenant that the issuer speaks for.
        tenant: Id128,
        /// What its name at the issuer is mapped to.
        oid: Id128,
        /// What its groups at the issuer are mapped to.
        groups: Vec<Id128>,
    },
}

/// Most groups of a principal of another issuer: they travel with each of its commands.
pub const EXTERNAL_GROUPS_MAX: usize = 200;

/// One log entry of ours: envelope, encoded command, sealed blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Command number.
    pub cmd: u16,
    /// Version of the command's body.
    pub cmd_v: u8,
    /// Idempotency key: a retry inside the cluster repeats it. Random, or made of the client's own request id and request
    /// (see [`Id128::from_digest`]): then a client's retry repeats it too, with material of its own.
    pub request_id: Id128,
    /// Who asked.
    pub actor: Actor,
    /// Wall clock of the proposing node, in milliseconds since 1970.
    pub time_ms: u64,
    /// The command's frozen struct, encoded.
    pub body: Vec<u8>,
    /// Sealed material that the command brings, in the order that it names.
    pub blobs: Vec<Vec<u8>>,
}

impl Entry {
    /// Wraps a command.
    pub fn new(
        request_id: Id128,
        actor: Actor,
        time_ms: u64,
        command: &Command,
        blobs: Vec<Vec<u8>>,
    ) -> Result<Self, CodecError> {
        let (cmd, cmd_v, body) = command.encode()?;
        Ok(Self { cmd, cmd_v, request_id, actor, time_ms, body, blobs })
    }

    /// The bytes that go into the log.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        codec::to_versioned(ENTRY_FORMAT, self)
    }

    /// Reads what [`Entry::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::from_versioned(ENTRY_FORMAT, bytes)
    }
}

impl Command {
    /// The object that the command is about, if it is about one.
    pub fn object(&self) -> Option<(Id128, Kind, &ObjectName)> {
        match self {
            Command::PutVersion(c) => Some((c.vault, c.kind, &c.name)),
            Command::UpdateVersion(c) => Some((c.vault, c.kind, &c.name)),
            Command::DeleteObject(c) | Command::RecoverObject(c) | Command::PurgeObject(c) => {
                Some((c.vault, c.kind, &c.name))
            }
            Command::RestoreObject(RestoreObject { object: c, .. })
            | Command::SetRotationPolicy(SetRotationPolicy { object: c, .. }) => Some((c.vault, c.kind, &c.name)),
            _ => None,
        }
    }
}

/// `enabled`, `nbf`, `exp` of an object version; seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Whether the version may be used.
    pub enabled: bool,
    /// Not before.
    pub not_before: Option<u64>,
    /// Expires at.
    pub expires: Option<u64>,
}

/// Tags: at most 15, ordered by name.
pub type Tags = BTreeMap<String, String>;

/// What kind of thing a version holds, without its sealed material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A key.
    Key {
        /// Its kind.
        kty: Kty,
        /// Public half.
        public: PublicKey,
        /// Permitted operations, in the order given.
        key_ops: Vec<String>,
        /// Whether the key may leave by release (contract 10.6).
        exportable: bool,
        /// Under which conditions.
        release_policy: Option<ReleasePolicy>,
    },
    /// A secret.
    Secret {
        /// Free text of the client.
        content_type: Option<String>,
    },
}

/// When an exportable key may be released (contract 10.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasePolicy {
    /// As given by the client.
    pub content_type: Option<String>,
    /// The policy: JSON.
    pub data: Vec<u8>,
    /// Whether it can never be replaced.
    pub immutable: bool,
}

/// What the service does by itself with a key's versions (contract 10.4). Durations are ISO 8601 text, as given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationPolicy {
    /// When a rotated version expires, counted from its creation.
    pub expiry_time: Option<String>,
    /// When a new version is made.
    pub rotate: Option<RotateTrigger>,
    /// How long before expiry a near-expiry event is due.
    pub notify_before_expiry: String,
    /// When the policy was first set, in seconds; filled in when applied.
    pub created: u64,
    /// When it was last set, in seconds; filled in when applied.
    pub updated: u64,
}

/// When the service rotates a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotateTrigger {
    /// So long after the newest version was created.
    AfterCreate(String),
    /// So long before the newest version expires.
    BeforeExpiry(String),
}

/// Why a version is added: it decides the permission, and whether the object must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Create a key, set a secret.
    Create,
    /// Import a key.
    Import,
    /// Rotate a key: the object must exist.
    Rotate,
}

/// Creates the world: always the first command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitWorld {
    /// The world's id, bound into every sealed form.
    pub world: Id128,
    /// Region name that replies show.
    pub region: String,
}

/// Creates a vault; its wrapped vault key is blob 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateVault {
    /// Stable id, bound into every sealed form of the vault.
    pub id: Id128,
    /// Unique in the region.
    pub name: VaultName,
    /// The name as first given: resource ids show it.
    pub display_name: String,
    /// Tenant whose tokens the vault accepts.
    pub tenant: Id128,
    /// Subscription: backup blobs open only inside it.
    pub subscription: Id128,
    /// The resource group, which must exist.
    pub group: String,
    /// Location that answers show.
    pub location: String,
    /// Days between delete and purge: 7 to 90; fixed from now on.
    pub retention_days: u16,
    /// Whether purge is left to the end of the retention.
    pub purge_protection: bool,
    /// What may change later.
    pub settings: VaultSettings,
    /// Who may do what.
    pub policies: Vec<AccessPolicy>,
}

/// Replaces the settings and the access policies of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateVault {
    /// The vault.
    pub vault: Id128,
    /// `mod_index` that the caller has seen: a vault that was changed meanwhile is left alone. `None` does not look.
    pub seen: Option<u64>,
    /// All settings from now on.
    pub settings: VaultSettings,
    /// Switches purge protection on; it never goes off again.
    pub purge_protection: bool,
    /// All policies from now on.
    pub policies: Vec<AccessPolicy>,
}

/// Names a vault: delete, recover, purge and erasure need no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRef {
    /// The vault.
    pub vault: Id128,
}

/// Creates a resource group or replaces its tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutResourceGroup {
    /// Its subscription.
    pub subscription: Id128,
    /// Its name.
    pub name: String,
    /// Its location: fixed at creation.
    pub location: String,
    /// Its tags.
    pub tags: Tags,
}

/// Removes a resource group that has no vaults left but deleted ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteResourceGroup {
    /// Its subscription.
    pub subscription: Id128,
    /// Its name.
    pub name: String,
}

/// What kind of principal an assignment or a group names. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrincipalKind {
    /// An application's service principal.
    ServicePrincipal,
    /// A person.
    User,
    /// A group.
    Group,
}

/// Gives a principal a role in a scope. One that exists may be given again, but not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRoleAssignment {
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
}

/// Takes an assignment back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRoleAssignment {
    /// Its id.
    pub id: Id128,
    /// Where it holds.
    pub scope: Scope,
    /// Who has it.
    pub principal: Id128,
}

/// Creates or replaces a custom role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRoleDefinition {
    /// Where it was defined: the caller's right is looked for there, and in every scope where it may be assigned.
    pub scope: Scope,
    /// The role.
    pub role: RoleDefinition,
}

/// Removes a custom role that is assigned nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRoleDefinition {
    /// Where it was defined.
    pub scope: Scope,
    /// Its id.
    pub id: Id128,
}

/// Replaces the access policies of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPolicies {
    /// The vault.
    pub vault: Id128,
    /// `mod_index` that the caller has seen, as in [`UpdateVault`].
    pub seen: Option<u64>,
    /// All policies that the vault has from now on.
    pub policies: Vec<AccessPolicy>,
}

/// Creates or changes an application; its credentials stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutApplication {
    /// Home tenant.
    pub tenant: Id128,
    /// Application (client) id.
    pub app: Id128,
    /// Object id of the application itself: what the directory's paths name.
    pub object: Id128,
    /// Object id of the service principal: what policies name. Kept when the application exists.
    pub oid: Id128,
    /// Whether the service principal is there: without it no token is issued.
    pub has_principal: bool,
    /// For people.
    pub display_name: String,
}

/// A client secret, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecret {
    /// `keyId`.
    pub id: Id128,
    /// Password hash (PHC string).
    pub hash: String,
    /// First characters of the secret, for people.
    pub hint: String,
    /// For people.
    pub display_name: String,
    /// Valid from, in seconds.
    pub start: u64,
    /// Valid until, in seconds; `None` has no end.
    pub end: Option<u64>,
}

/// Adds a client secret to an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddClientSecret {
    /// Tenant of the application.
    pub tenant: Id128,
    /// The application.
    pub app: Id128,
    /// The secret.
    pub secret: ClientSecret,
}

/// Removes a client secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveClientSecret {
    /// Tenant of the application.
    pub tenant: Id128,
    /// The application.
    pub app: Id128,
    /// `keyId`.
    pub id: Id128,
}

/// A certificate whose key signs assertions for an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// `keyId`.
    pub id: Id128,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its public key.
    pub public: PublicKey,
    /// For people.
    pub display_name: String,
    /// Valid from, in seconds.
    pub start: u64,
    /// Valid until, in seconds.
    pub end: u64,
}

/// Replaces the certificates of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCertificates {
    /// Tenant of the application.
    pub tenant: Id128,
    /// The application.
    pub app: Id128,
    /// All that it has from now on.
    pub certificates: Vec<ClientCertificate>,
}

/// Removes an application with its service principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteApplication {
    /// Tenant of the application.
    pub tenant: Id128,
    /// The application.
    pub app: Id128,
}

/// Creates or changes a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutUser {
    /// Home tenant.
    pub tenant: Id128,
    /// Object id.
    pub oid: Id128,
    /// `userPrincipalName`.
    pub upn: String,
    /// For people.
    pub display_name: String,
}

/// Creates a user. Its name belongs to nobody else in the world, for a sign-in may name no tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateUser {
    /// Home tenant.
    pub tenant: Id128,
    /// Object id.
    pub oid: Id128,
    /// `userPrincipalName`.
    pub upn: String,
    /// For people.
    pub display_name: String,
    /// Password hash (PHC string); without one the user cannot sign in.
    pub password: Option<String>,
    /// Whether the user may sign in.
    pub enabled: bool,
}

/// Changes a user. `None` keeps what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateUser {
    /// Home tenant.
    pub tenant: Id128,
    /// Object id.
    pub oid: Id128,
    /// For people.
    pub display_name: Option<String>,
    /// New password hash (PHC string). What was signed in with the old one cannot be renewed.
    pub password: Option<String>,
    /// Whether the user may sign in.
    pub enabled: Option<bool>,
}

/// Removes a user or a group, and who belongs to it or what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalRef {
    /// Its tenant.
    pub tenant: Id128,
    /// Its object id.
    pub oid: Id128,
}

/// Somebody else's token that stands for an application: a workload identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederatedCredential {
    /// Its id.
    pub id: Id128,
    /// Its name, unique in the application.
    pub name: String,
    /// `iss` of the token.
    pub issuer: String,
    /// `sub` of the token.
    pub subject: String,
    /// One of them must be in `aud` of the token.
    pub audiences: Vec<String>,
    /// For people.
    pub description: String,
}

/// Adds a federated credential to an application, or replaces the one of the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutFederatedCredential {
    /// Tenant of the application.
    pub tenant: Id128,
    /// The application.
    pub app: Id128,
    /// The credential.
    pub credential: FederatedCredential,
}

/// Removes a federated credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteFederatedCredential {
    /// Tenant of the application.
    pub tenant: Id128,
    /// The application.
    pub app: Id128,
    /// Its id.
    pub id: Id128,
}

/// Says that a user has signed in for the device that shows a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveDevice {
    /// SHA-256 of the code.
    pub code: [u8; 32],
    /// Who signed in.
    pub user: PrincipalRef,
    /// Until when the device may fetch its token, in seconds.
    pub expires: u64,
}

/// Uses an approval up: each is good for one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeDevice {
    /// SHA-256 of the code.
    pub code: [u8; 32],
}

/// Creates or renames a group of principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutGroup {
    /// Home tenant.
    pub tenant: Id128,
    /// Object id.
    pub oid: Id128,
    /// For people.
    pub display_name: String,
}

/// Puts a principal into a group, or takes it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMember {
    /// Tenant of both.
    pub tenant: Id128,
    /// The group.
    pub group: Id128,
    /// The principal.
    pub member: Id128,
    /// Whether it belongs to the group from now on.
    pub present: bool,
}

/// Creates or renames a tenant: a directory of principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutTenant {
    /// Its id.
    pub tenant: Id128,
    /// Domain name by which clients may also name it.
    pub domain: String,
    /// For people.
    pub display_name: String,
}

/// Creates or renames a subscription: what vaults and backup blobs belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSubscription {
    /// Its id.
    pub subscription: Id128,
    /// The tenant that it trusts.
    pub tenant: Id128,
    /// For people.
    pub display_name: String,
}

/// Adds a token-signing key; its sealed private half is blob 0. The newest one signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutTokenKey {
    /// `kid` in token headers and the JWKS.
    pub kid: String,
    /// Public half.
    pub public: PublicKey,
}

/// Adds a version of an object (create key, set secret); its sealed material is blob 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutVersion {
    /// The vault.
    pub vault: Id128,
    /// Which collection.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
    /// Why.
    pub origin: Origin,
    /// The new version.
    pub version: Id128,
    /// Attributes of the version.
    pub attributes: Attributes,
    /// Tags of the version.
    pub tags: Tags,
    /// What it is.
    pub content: Content,
}

/// Adds a version because the key's rotation policy says so: by the service itself, and only when it is due. Its sealed
/// material is blob 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateDue {
    /// The new version.
    pub put: PutVersion,
    /// The newest version when this was decided: if there is a newer one, somebody was quicker.
    pub newest: Id128,
}

/// Writes the near-expiry event of a key's newest version: by the service itself, and only when it is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteNearExpiry {
    /// The key.
    pub object: ObjectRef,
    /// Its newest version when this was decided.
    pub newest: Id128,
}

/// Replaces a key's rotation policy; `None` goes back to the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRotationPolicy {
    /// The key.
    pub object: ObjectRef,
    /// Its policy from now on.
    pub policy: Option<RotationPolicy>,
}

/// Changes one version in place. `None` keeps what is there (contract section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateVersion {
    /// The vault.
    pub vault: Id128,
    /// Which collection.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
    /// The version; `None` is the newest.
    pub version: Option<Id128>,
    /// New `enabled`.
    pub enabled: Option<bool>,
    /// New `nbf`.
    pub not_before: Option<u64>,
    /// New `exp`.
    pub expires: Option<u64>,
    /// New tags, as a whole.
    pub tags: Option<Tags>,
    /// New permitted operations, as a whole (keys).
    pub key_ops: Option<Vec<String>>,
    /// New content type (secrets).
    pub content_type: Option<String>,
    /// New release policy (keys).
    pub release_policy: Option<ReleasePolicy>,
}

/// Names one object: delete, recover and purge need no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The vault.
    pub vault: Id128,
    /// Which collection.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
}

/// One version inside a restore; its sealed material is the blob of the same position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredVersion {
    /// The version's id, as backed up.
    pub version: Id128,
    /// When it was created, in seconds.
    pub created: u64,
    /// When it was last changed, in seconds.
    pub updated: u64,
    /// Attributes.
    pub attributes: Attributes,
    /// Tags.
    pub tags: Tags,
    /// What it is.
    pub content: Content,
}

/// Brings a backed-up object back, with all versions under their old ids; oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreObject {
    /// The object.
    pub object: ObjectRef,
    /// All versions, oldest first; at least one.
    pub versions: Vec<RestoredVersion>,
    /// Rotation policy (keys).
    pub rotation: Option<RotationPolicy>,
}

/// How the world's reads are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReads {
    /// From now on.
    pub mode: ReadMode,
    /// The numbers of leases.
    pub timing: ReadTiming,
}

/// How one vault's reads are made, where it wants more than its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVaultReads {
    /// The vault.
    pub vault: Id128,
    /// Stricter than the world's mode; `None`: as the world's.
    pub mode: Option<ReadMode>,
}

/// Reads from a state that may be old were allowed at a node: for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteEmergency {
    /// The node.
    pub node: u64,
    /// What was approved, word for word.
    pub statement: String,
    /// Name of who approved it.
    pub approver: String,
}

/// A node keeps its log and its votes on this disk. From then on it is not believed on another one, for as long as it is a
/// member: a voter that lost its log could vote a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteDisk {
    /// The node.
    pub node: u64,
    /// Drawn when its log was made.
    pub disk: Id128,
}

macro_rules! commands {
    ($($(#[$meta:meta])* $variant:ident($body:ty) = $cmd:literal v $v:literal),+ $(,)?) => {
        /// Every command. The numbers are stored.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Command { $($(#[$meta])* $variant($body)),+ }

        impl Command {
            /// Number, version and encoded body.
            pub fn encode(&self) -> Result<(u16, u8, Vec<u8>), CodecError> {
                Ok(match self { $(Command::$variant(body) => ($cmd, $v, codec::encode(body)?)),+ })
            }

            /// `Ok(None)`: a command that this binary does not know. The node must stop then, for skipping would diverge.
            pub fn decode(cmd: u16, cmd_v: u8, body: &[u8]) -> Result<Option<Self>, CodecError> {
                Ok(match (cmd, cmd_v) { $(($cmd, $v) => Some(Command::$variant(codec::decode(body)?)),)+ _ => None })
            }

            /// The command's name, for logs and the audit.
            pub fn name(&self) -> &'static str { match self { $(Command::$variant(_) => stringify!($variant)),+ } }
        }
    };
}

commands! {
    /// See [`InitWorld`].
    InitWorld(InitWorld) = 1 v 1,
    /// See [`CreateVault`].
    CreateVault(CreateVault) = 2 v 1,
    /// See [`SetPolicies`].
    SetPolicies(SetPolicies) = 3 v 1,
    /// See [`PutApplication`].
    PutApplication(PutApplication) = 4 v 1,
    /// See [`PutTokenKey`].
    PutTokenKey(PutTokenKey) = 5 v 1,
    /// See [`PutTenant`].
    PutTenant(PutTenant) = 6 v 1,
    /// See [`PutSubscription`].
    PutSubscription(PutSubscription) = 7 v 1,
    /// See [`AddClientSecret`].
    AddClientSecret(AddClientSecret) = 30 v 1,
    /// See [`RemoveClientSecret`].
    RemoveClientSecret(RemoveClientSecret) = 31 v 1,
    /// See [`DeleteApplication`].
    DeleteApplication(DeleteApplication) = 32 v 1,
    /// See [`PutUser`].
    PutUser(PutUser) = 33 v 1,
    /// See [`PutGroup`].
    PutGroup(PutGroup) = 34 v 1,
    /// See [`SetMember`].
    SetMember(SetMember) = 35 v 1,
    /// See [`SetCertificates`].
    SetCertificates(SetCertificates) = 36 v 1,
    /// See [`CreateUser`].
    CreateUser(CreateUser) = 37 v 1,
    /// See [`UpdateUser`].
    UpdateUser(UpdateUser) = 38 v 1,
    /// See [`PrincipalRef`].
    DeleteUser(PrincipalRef) = 39 v 1,
    /// See [`PrincipalRef`].
    DeleteGroup(PrincipalRef) = 51 v 1,
    /// See [`PutFederatedCredential`].
    PutFederatedCredential(PutFederatedCredential) = 52 v 1,
    /// See [`DeleteFederatedCredential`].
    DeleteFederatedCredential(DeleteFederatedCredential) = 53 v 1,
    /// See [`ApproveDevice`].
    ApproveDevice(ApproveDevice) = 54 v 1,
    /// See [`TakeDevice`].
    TakeDevice(TakeDevice) = 55 v 1,
    /// See [`UpdateVault`].
    UpdateVault(UpdateVault) = 40 v 1,
    /// Soft-deletes a vault with everything in it.
    DeleteVault(VaultRef) = 41 v 1,
    /// Brings a soft-deleted vault back.
    RecoverVault(VaultRef) = 42 v 1,
    /// Erases a soft-deleted vault and its key at once. From the service itself only when its retention is over.
    PurgeVault(VaultRef) = 43 v 1,
    /// Erases the next rows of a purged vault's objects; the service repeats it until none is left.
    EraseVault(VaultRef) = 44 v 1,
    /// See [`PutResourceGroup`].
    PutResourceGroup(PutResourceGroup) = 45 v 1,
    /// See [`DeleteResourceGroup`].
    DeleteResourceGroup(DeleteResourceGroup) = 46 v 1,
    /// See [`PutRoleAssignment`].
    PutRoleAssignment(PutRoleAssignment) = 47 v 1,
    /// See [`DeleteRoleAssignment`].
    DeleteRoleAssignment(DeleteRoleAssignment) = 48 v 1,
    /// See [`PutRoleDefinition`].
    PutRoleDefinition(PutRoleDefinition) = 49 v 1,
    /// See [`DeleteRoleDefinition`].
    DeleteRoleDefinition(DeleteRoleDefinition) = 50 v 1,
    /// See [`PutVersion`].
    PutVersion(PutVersion) = 10 v 1,
    /// See [`UpdateVersion`].
    UpdateVersion(UpdateVersion) = 11 v 1,
    /// Soft-deletes an object with all its versions.
    DeleteObject(ObjectRef) = 12 v 1,
    /// Brings a soft-deleted object back.
    RecoverObject(ObjectRef) = 13 v 1,
    /// Erases a soft-deleted object. From the service itself only when its retention is over.
    PurgeObject(ObjectRef) = 14 v 1,
    /// See [`RestoreObject`].
    RestoreObject(RestoreObject) = 15 v 1,
    /// See [`SetRotationPolicy`].
    SetRotationPolicy(SetRotationPolicy) = 16 v 1,
    /// See [`RotateDue`].
    RotateDue(RotateDue) = 17 v 1,
    /// See [`NoteNearExpiry`].
    NoteNearExpiry(NoteNearExpiry) = 18 v 1,
    /// See [`SetReads`].
    SetReads(SetReads) = 70 v 1,
    /// See [`SetVaultReads`].
    SetVaultReads(SetVaultReads) = 71 v 1,
    /// See [`NoteEmergency`].
    NoteEmergency(NoteEmergency) = 72 v 1,
    /// See [`NoteDisk`].
    NoteDisk(NoteDisk) = 73 v 1,
}

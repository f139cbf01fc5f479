//! What applying a command leads to.

use crate::command::{Attributes, Content, RotationPolicy, Tags};
use crate::name::{Id128, Kind, ObjectName};
use serde::{Deserialize, Serialize};

/// A business answer. A refusal is an outcome like any other: it advances `applied` and changes nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; nothing to show.
    Done,
    /// An object's version as it now is.
    Version(Box<ObjectVersion>),
    /// An object's newest version, as it was deleted.
    Deleted(Box<ObjectVersion>, Deletion),
    /// A key's rotation policy as it now is; `None` is the default.
    Rotation(Option<RotationPolicy>),
    /// Nothing changed.
    Refused(Refusal),
}

/// When an object was deleted and when it goes for good; seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Deleted at.
    pub deleted: u64,
    /// Purged by the service at.
    pub purge: u64,
}

/// One version of an object with everything but its sealed material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectVersion {
    /// Which collection.
    pub kind: Kind,
    /// The name as first given.
    pub name: ObjectName,
    /// The version.
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
    /// Position among the object's versions, 0 for the first: the newest one has the highest.
    pub sequence: u64,
    /// Log index that last changed the version.
    pub mod_index: u64,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The world exists already, or does not exist yet.
    WorldState,
    /// A vault of that name exists.
    VaultExists,
    /// No such vault.
    VaultNotFound,
    /// The principal lacks the permission now.
    Forbidden,
    /// No such object or version.
    NotFound,
    /// No such soft-deleted object.
    DeletedNotFound,
    /// The name belongs to a soft-deleted object.
    DeletedButRecoverable,
    /// The name is taken (restore).
    Exists,
    /// The version id is taken: the proposer must draw another.
    VersionExists,
    /// The vault does not allow purging before the retention is over.
    PurgeProtected,
    /// A timer came too early.
    NotDue,
    /// `nbf` is after `exp`.
    BadValidity,
    /// A release policy for a key that is not exportable.
    NotExportable,
    /// The release policy is immutable.
    ImmutablePolicy,
    /// The vault's name belongs to a soft-deleted vault.
    VaultDeleted,
    /// The vault is not deleted.
    VaultNotDeleted,
    /// The resource was changed since the caller looked.
    Changed,
    /// No such resource group.
    GroupNotFound,
    /// The resource group still has vaults.
    GroupNotEmpty,
    /// An assignment of the same role, principal and scope, or of the same id, exists.
    AssignmentExists,
    /// No such assignment.
    AssignmentNotFound,
    /// No such role.
    RoleNotFound,
    /// A role of that name exists, or the id is a built-in role's.
    RoleExists,
    /// The role is assigned somewhere.
    RoleInUse,
    /// No such application, group or principal.
    PrincipalNotFound,
    /// More of something than there may be.
    TooMany,
    /// Read mode or timing out of range, or a vault's mode that is not stricter than its world's.
    BadReads,
    /// A user, or a credential of the application, of that name exists.
    PrincipalExists,
    /// The device's code was not approved, or was used up.
    NotApproved,
}

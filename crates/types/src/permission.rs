//! Access-policy permissions (contract section 14) as bit sets.
//!
//! The bit numbers are stored, so they never change; new permissions take the next free bit.

use crate::name::Id128;
use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $bit:literal $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = $text] $variant),+ }

        impl $name {
            /// Every permission of this collection.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// This permission's bit in a stored set.
            pub fn bit(self) -> u32 { match self { $($name::$variant => 1 << $bit),+ } }

            /// The name on the wire.
            pub fn as_str(self) -> &'static str { match self { $($name::$variant => $text),+ } }

            /// Finds a permission by name, without regard to case.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|p| p.as_str().eq_ignore_ascii_case(text))
            }

            /// `all` in a policy: everything but `purge`.
            pub fn all_but_purge() -> u32 {
                Self::ALL.iter().filter(|p| p.as_str() != "purge").map(|p| p.bit()).sum()
            }

            /// Everything, `purge` included.
            pub fn everything() -> u32 { Self::ALL.iter().map(|p| p.bit()).sum() }
        }
    };
}

permissions! {
    /// Permissions on keys.
    KeyPermission {
        Encrypt = 0 "encrypt", Decrypt = 1 "decrypt", WrapKey = 2 "wrapKey", UnwrapKey = 3 "unwrapKey",
        Sign = 4 "sign", Verify = 5 "verify", Get = 6 "get", List = 7 "list", Create = 8 "create",
        Update = 9 "update", Import = 10 "import", Delete = 11 "delete", Backup = 12 "backup",
        Restore = 13 "restore", Recover = 14 "recover", Purge = 15 "purge", Release = 16 "release",
        Rotate = 17 "rotate", GetRotationPolicy = 18 "getrotationpolicy", SetRotationPolicy = 19 "setrotationpolicy",
    }
}

permissions! {
    /// Permissions on secrets.
    SecretPermission {
        Get = 0 "get", List = 1 "list", Set = 2 "set", Delete = 3 "delete", Backup = 4 "backup",
        Restore = 5 "restore", Recover = 6 "recover", Purge = 7 "purge",
    }
}

/// One permission on one collection: what an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// On keys.
    Key(KeyPermission),
    /// On secrets.
    Secret(SecretPermission),
}

impl Permission {
    /// `keys` or `secrets`: the word in the 403 text.
    pub fn collection(self) -> &'static str {
        match self {
            Permission::Key(_) => "keys",
            Permission::Secret(_) => "secrets",
        }
    }

    /// The permission's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Key(p) => p.as_str(),
            Permission::Secret(p) => p.as_str(),
        }
    }
}

/// What one principal may do in one vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPolicy {
    /// The principal's tenant (`tid`).
    pub tenant: Id128,
    /// The principal's object id (`oid`).
    pub oid: Id128,
    /// Set of [`KeyPermission`] bits.
    pub keys: u32,
    /// Set of [`SecretPermission`] bits.
    pub secrets: u32,
}

impl AccessPolicy {
    /// Whether the policy holds this permission.
    pub fn grants(&self, permission: Permission) -> bool {
        match permission {
            Permission::Key(p) => self.keys & p.bit() != 0,
            Permission::Secret(p) => self.secrets & p.bit() != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_everything_except_purge() {
        assert_eq!(KeyPermission::all_but_purge() | KeyPermission::Purge.bit(), KeyPermission::everything());
        assert_ne!(SecretPermission::all_but_purge(), SecretPermission::everything());
        assert_eq!(KeyPermission::parse("WRAPKEY"), Some(KeyPermission::WrapKey));
    }
}

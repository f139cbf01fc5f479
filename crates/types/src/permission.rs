//! Access-policy permissions (contract section 14) as bit sets.
//!
//! The bit numbers are stored, so they never change; new permissions take the next free bit.

use crate::name::Id128;
use serde::{Deserialize, Serialize};

/// Bit of `all` in a stored set: everything but `purge`, whatever is added later.
pub const ALL: u32 = 1 << 31;

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

            /// Names of a stored set, in their order; a set that was given as `all` shows so.
            pub fn names(set: u32) -> Vec<&'static str> {
                let all = (set & ALL != 0).then_some("all");
                all.into_iter().chain(Self::ALL.iter().filter(|p| set & p.bit() != 0).map(|p| p.as_str())).collect()
            }

            /// The set of these names; `Err` is the first that is none.
            pub fn set_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<u32, &'a str> {
                names.into_iter().try_fold(0, |set, name| match Self::parse(name) {
                    Some(permission) => Ok(set | permission.bit()),
                    None if name.eq_ignore_ascii_case("all") => Ok(set | ALL),
                    None => Err(name),
                })
            }

            /// Whether a stored set holds this permission.
            pub fn is_in(self, set: u32) -> bool {
                set & self.bit() != 0 || (set & ALL != 0 && self.as_str() != "purge")
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

permissions! {
    /// Permissions on certificates.
    CertificatePermission {
        Get = 0 "get", List = 1 "list", Delete = 2 "delete", Create = 3 "create", Import = 4 "import",
        Update = 5 "update", ManageContacts = 6 "managecontacts", GetIssuers = 7 "getissuers",
        ListIssuers = 8 "listissuers", SetIssuers = 9 "setissuers", DeleteIssuers = 10 "deleteissuers",
        ManageIssuers = 11 "manageissuers", Recover = 12 "recover", Purge = 13 "purge", Backup = 14 "backup",
        Restore = 15 "restore",
    }
}

permissions! {
    /// Permissions on storage accounts: stored, for clients send them, and of no effect.
    StoragePermission {
        Get = 0 "get", List = 1 "list", Delete = 2 "delete", Set = 3 "set", Update = 4 "update",
        RegenerateKey = 5 "regeneratekey", Recover = 6 "recover", Purge = 7 "purge", Backup = 8 "backup",
        Restore = 9 "restore", SetSas = 10 "setsas", ListSas = 11 "listsas", GetSas = 12 "getsas",
        DeleteSas = 13 "deletesas",
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

    /// The data action of role-based access that stands for it (contract section 14), without the provider's prefix.
    pub fn data_action(self) -> &'static str {
        use {KeyPermission as K, SecretPermission as S};
        match self {
            Permission::Key(p) => match p {
                K::Encrypt => "keys/encrypt/action",
                K::Decrypt => "keys/decrypt/action",
                K::WrapKey => "keys/wrap/action",
                K::UnwrapKey => "keys/unwrap/action",
                K::Sign => "keys/sign/action",
                K::Verify => "keys/verify/action",
                K::Get | K::List => "keys/read",
                K::Create => "keys/create/action",
                K::Update => "keys/update/action",
                K::Import => "keys/import/action",
                K::Delete => "keys/delete",
                K::Backup => "keys/backup/action",
                K::Restore => "keys/restore/action",
                K::Recover => "keys/recover/action",
                K::Purge => "keys/purge/action",
                K::Release => "keys/release/action",
                K::Rotate => "keys/rotate/action",
                K::GetRotationPolicy => "keyrotationpolicies/read",
                K::SetRotationPolicy => "keyrotationpolicies/write",
            },
            Permission::Secret(p) => match p {
                S::Get => "secrets/getSecret/action",
                S::List => "secrets/readMetadata/action",
                S::Set => "secrets/setSecret/action",
                S::Delete => "secrets/delete",
                S::Backup => "secrets/backup/action",
                S::Restore => "secrets/restore/action",
                S::Recover => "secrets/recover/action",
                S::Purge => "secrets/purge/action",
            },
        }
    }
}

/// What one principal may do in one vault. Sets may hold [`ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPolicy {
    /// The principal's tenant (`tid`).
    pub tenant: Id128,
    /// The principal's object id (`oid`).
    pub oid: Id128,
    /// Application that must act for the principal; stored and shown. A policy with one grants nothing to the principal
    /// alone.
    pub application: Option<Id128>,
    /// Set of [`KeyPermission`] bits.
    pub keys: u32,
    /// Set of [`SecretPermission`] bits.
    pub secrets: u32,
    /// Set of [`CertificatePermission`] bits.
    pub certificates: u32,
    /// Set of [`StoragePermission`] bits.
    pub storage: u32,
}

impl AccessPolicy {
    /// Everything there is, for one principal.
    pub fn everything(tenant: Id128, oid: Id128) -> Self {
        Self {
            tenant,
            oid,
            application: None,
            keys: KeyPermission::everything(),
            secrets: SecretPermission::everything(),
            certificates: CertificatePermission::everything(),
            storage: StoragePermission::everything(),
        }
    }

    /// Whether the policy holds this permission.
    pub fn grants(&self, permission: Permission) -> bool {
        match permission {
            Permission::Key(p) => p.is_in(self.keys),
            Permission::Secret(p) => p.is_in(self.secrets),
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
        let all = KeyPermission::set_of(["ALL"]).unwrap();
        for permission in KeyPermission::ALL {
            assert_eq!(permission.is_in(all), *permission != KeyPermission::Purge);
        }
        assert_eq!(KeyPermission::names(all), ["all"]);
        assert_eq!(SecretPermission::set_of(["get", "fly"]), Err("fly"));
    }
}

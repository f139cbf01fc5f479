//! Names and ids (contract section 5).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a name was refused; the wire text is made by `api`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid name")]
pub struct BadName;

/// A vault's name: 3 to 24 of `[a-zA-Z0-9-]`, a letter first, a letter or digit last, no `--`. Kept in lower case, for it
/// is a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VaultName(String);

impl VaultName {
    /// Checks the rules and lower-cases.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bytes = text.as_bytes();
        let ok = (3..=24).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && !text.contains("--");
        if ok {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(BadName)
        }
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VaultName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<VaultName> for String {
    fn from(name: VaultName) -> String {
        name.0
    }
}

impl fmt::Display for VaultName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a key or secret: 1 to 127 of `[0-9a-zA-Z-]`. Compared without case, shown as first given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks the rules.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let ok = (1..=127).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName)
        }
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that names are compared and stored by.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl TryFrom<String> for ObjectName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> String {
        name.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 128 bits of id: a version (32 hex digits on the wire) or a GUID (with dashes on the wire).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id128(pub [u8; 16]);

impl Id128 {
    /// Parses 32 hex digits of either case, without dashes: an object's version.
    pub fn parse_hex(text: &str) -> Result<Self, BadName> {
        let bytes = text.as_bytes();
        if bytes.len() != 32 {
            return Err(BadName);
        }
        let mut id = [0u8; 16];
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            let text = std::str::from_utf8(pair).map_err(|_| BadName)?;
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return Err(BadName);
            }
            *byte = u8::from_str_radix(text, 16).map_err(|_| BadName)?;
        }
        Ok(Self(id))
    }

    /// Parses the 8-4-4-4-12 form of either case.
    pub fn parse_guid(text: &str) -> Result<Self, BadName> {
        let dashes = [8, 13, 18, 23];
        let well_formed = text.len() == 36 && text.bytes().enumerate().all(|(i, b)| (b == b'-') == dashes.contains(&i));
        if !well_formed {
            return Err(BadName);
        }
        Self::parse_hex(&text.replace('-', ""))
    }

    /// 32 lower-case hex digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The 8-4-4-4-12 form.
    pub fn guid(&self) -> String {
        let hex = self.hex();
        let (a, rest) = hex.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        format!("{a}-{b}-{c}-{d}-{e}")
    }

    /// A random (version 4) GUID made from 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// A GUID of the application's own making (version 8, RFC 9562 section 5.8) from the start of a digest: the same for the
    /// same input, and never equal to a random one.
    pub fn from_digest(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Whether it was made by [`Id128::from_digest`].
    pub fn is_digest(&self) -> bool {
        self.0[6] >> 4 == 8 && self.0[8] >> 6 == 2
    }
}

impl fmt::Debug for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.guid())
    }
}

/// Which collection an object belongs to. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `/keys`
    Key,
    /// `/secrets`
    Secret,
}

impl Kind {
    /// The number in stored keys.
    pub fn number(self) -> u8 {
        match self {
            Kind::Key => 1,
            Kind::Secret => 2,
        }
    }

    /// The collection's path segment.
    pub fn collection(self) -> &'static str {
        match self {
            Kind::Key => "keys",
            Kind::Secret => "secrets",
        }
    }

    /// The word in error messages: `key` or `secret`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::Secret => "secret",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vault_names() {
        for good in ["abc", "a1b", "My-Vault-1", "a23456789012345678901234"] {
            assert_eq!(VaultName::parse(good).map(String::from), Ok(good.to_ascii_lowercase()));
        }
        for bad in ["", "ab", "1ab", "ab-", "a--b", "a_b", "a2345678901234567890123456", "äbc"] {
            assert_eq!(VaultName::parse(bad), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn object_names() {
        assert!(ObjectName::parse(&"a".repeat(127)).is_ok());
        for bad in ["", "a_b", "a.b", "a b", "ü", &"a".repeat(128)] {
            assert_eq!(ObjectName::parse(bad), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn ids_round_trip() {
        let id = Id128::parse_guid("00482A5A-887f-4fb3-b363-3b7fe8e74483").unwrap();
        assert_eq!(id.guid(), "00482a5a-887f-4fb3-b363-3b7fe8e74483");
        assert_eq!(Id128::parse_hex(&id.hex()), Ok(id));
        for bad in ["", "+0482a5a887f4fb3b3633b7fe8e74483", "00482a5a887f4fb3b3633b7fe8e7448"] {
            assert_eq!(Id128::parse_hex(bad), Err(BadName), "{bad}");
        }
    }
}

//! What a vault can be set to, as the resource manager shows it (contract section 16).

use crate::command::Tags;
use crate::name::BadName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Most IP rules of one vault, and most virtual-network rules.
pub const NETWORK_RULES_MAX: usize = 1000;

/// Settings that may change after creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSettings {
    /// Tags of the resource.
    pub tags: Tags,
    /// Whether `-HSM` kinds are allowed (SKU `premium`).
    pub premium: bool,
    /// Stored only.
    pub enabled_for_deployment: Option<bool>,
    /// Stored only.
    pub enabled_for_disk_encryption: Option<bool>,
    /// Stored only.
    pub enabled_for_template_deployment: Option<bool>,
    /// Whether roles decide; access policies do otherwise.
    pub rbac: bool,
    /// Who may connect; `None` is everyone.
    pub network: Option<NetworkAcls>,
    /// Whether the data plane may be reached at all.
    pub public_network_access: bool,
}

impl Default for VaultSettings {
    fn default() -> Self {
        Self {
            tags: Tags::new(),
            premium: false,
            enabled_for_deployment: None,
            enabled_for_disk_encryption: None,
            enabled_for_template_deployment: None,
            rbac: false,
            network: None,
            public_network_access: true,
        }
    }
}

/// `networkAcls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAcls {
    /// Whether clients are let in that no rule names.
    pub allow_by_default: bool,
    /// `AzureServices` or `None`: stored only, for there is no trusted service here.
    pub bypass_services: bool,
    /// Addresses that are let in.
    pub ip_rules: Vec<IpRule>,
    /// Ids of subnets: stored only, for there is no such network here.
    pub subnet_ids: Vec<String>,
}

impl NetworkAcls {
    /// Whether a client of this address is let in.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.allow_by_default || self.ip_rules.iter().any(|rule| rule.holds(address))
    }
}

/// An address or a range in CIDR form, IPv4 or IPv6; kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRule {
    text: String,
    address: IpAddr,
    prefix: u8,
}

impl IpRule {
    /// Checks the rules: an address, or an address and a prefix length.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadName)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| BadName)?
            }
            Some(_) => return Err(BadName),
            None => longest,
        };
        if prefix > longest {
            return Err(BadName);
        }
        Ok(Self { text: text.to_owned(), address, prefix })
    }

    /// Whether an address is in the range. An IPv4 address that came in by an IPv6 socket counts as IPv4.
    pub fn holds(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        // A rule is compared as it was written: a mapped address in a rule is an IPv6 range.
        let (rule, rule_v4) = match self.address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        let (given, given_v4) = bits(address);
        let mask = match u32::from(self.prefix) {
            0 => 0,
            prefix => u128::MAX << (128 - prefix),
        };
        rule_v4 == given_v4 && (rule ^ given) & mask == 0
    }
}

impl TryFrom<String> for IpRule {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<IpRule> for String {
    fn from(rule: IpRule) -> String {
        rule.text
    }
}

impl fmt::Display for IpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses() {
        let cases = [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::1", "::1", true),
        ];
        for (rule, address, want) in cases {
            assert_eq!(IpRule::parse(rule).unwrap().holds(address.parse().unwrap()), want, "{rule} {address}");
        }
        for bad in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "a/8", "10.0.0.0/8/8"] {
            assert_eq!(IpRule::parse(bad), Err(BadName), "{bad}");
        }
    }
}

//! Which plane a host name belongs to (contract section 1, identity section 1).
//!
//! A *cloud* is one set of names under which the same world is reached: the public names that programs have built in,
//! those of other national clouds, or the cluster's own domain. Ids, audiences and issuers in answers use the names of
//! the cloud that the request came in by, with the port that the client used.

use claviger_types::name::VaultName;

/// Key Vault's own application id, which is accepted as an audience as well (identity section 1).
const KEY_VAULT_APPLICATION: &str = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093";

/// One set of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// `cloud_instance_name` of discovery documents.
    pub instance: String,
    /// Suffix of vault hosts, without the leading dot.
    pub vault_suffix: String,
    /// Hosts of the token service; the first is the one in answers.
    pub login_hosts: Vec<String>,
    /// Host in `iss` of tokens.
    pub issuer_host: String,
    /// Host of the resource manager.
    pub management_host: String,
    /// Audiences of the resource manager, without trailing slash.
    pub management_audiences: Vec<String>,
    /// Hosts of the directory; the first is the one in answers.
    pub graph_hosts: Vec<String>,
}

/// What a request's host asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plane {
    /// A vault by its label, which may not be a well-formed name.
    Vault(String),
    /// The token service.
    Login,
    /// The resource manager.
    Management,
    /// The directory.
    Graph,
}

/// The names that a request came in by.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// Their cloud.
    pub cloud: &'a Cloud,
    /// The port in the request's host, when it is not 443.
    pub port: Option<u16>,
}

/// What a token may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Vaults.
    Vault,
    /// The resource manager.
    Management,
    /// The directory.
    Graph,
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

impl Cloud {
    /// The public cloud's names.
    pub fn public() -> Self {
        Self {
            instance: "microsoftonline.com".into(),
            vault_suffix: "vault.azure.net".into(),
            login_hosts: names(&[
                "login.microsoftonline.com",
                "login.microsoft.com",
                "login.windows.net",
                "sts.windows.net",
            ]),
            issuer_host: "sts.windows.net".into(),
            management_host: "management.azure.com".into(),
            management_audiences: names(&["https://management.azure.com", "https://management.core.windows.net"]),
            graph_hosts: names(&["graph.microsoft.com", "graph.windows.net"]),
        }
    }

    /// The names of the cloud in China.
    pub fn china() -> Self {
        Self {
            instance: "partner.microsoftonline.cn".into(),
            vault_suffix: "vault.azure.cn".into(),
            login_hosts: names(&["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"]),
            issuer_host: "sts.chinacloudapi.cn".into(),
            management_host: "management.chinacloudapi.cn".into(),
            management_audiences: names(&[
                "https://management.chinacloudapi.cn",
                "https://management.core.chinacloudapi.cn",
            ]),
            graph_hosts: names(&["microsoftgraph.chinacloudapi.cn"]),
        }
    }

    /// The names of the cloud of the government of the United States.
    pub fn us_government() -> Self {
        Self {
            instance: "microsoftonline.us".into(),
            vault_suffix: "vault.usgovcloudapi.net".into(),
            login_hosts: names(&["login.microsoftonline.us"]),
            issuer_host: "sts.windows.net".into(),
            management_host: "management.usgovcloudapi.net".into(),
            management_audiences: names(&[
                "https://management.usgovcloudapi.net",
                "https://management.core.usgovcloudapi.net",
            ]),
            graph_hosts: names(&["graph.microsoft.us"]),
        }
    }

    /// The names under a domain of one's own: `{vault}.vault.<domain>`, `login.<domain>`, ...
    pub fn own(domain: &str) -> Self {
        Self {
            instance: domain.to_owned(),
            vault_suffix: format!("vault.{domain}"),
            login_hosts: vec![format!("login.{domain}")],
            issuer_host: format!("login.{domain}"),
            management_host: format!("management.{domain}"),
            management_audiences: vec![format!("https://management.{domain}")],
            graph_hosts: vec![format!("graph.{domain}")],
        }
    }
}

/// Splits `host[:port]` and lower-cases the host. A port of 443 is the same as none.
fn split_host(host: &str) -> (String, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name.to_ascii_lowercase(), port.parse().ok().filter(|p| *p != 443))
        }
        _ => (host.to_ascii_lowercase(), None),
    }
}

/// Finds the plane of a request; `None` for a host that is no part of the service.
pub fn resolve<'a>(clouds: &'a [Cloud], host: &str) -> Option<(Origin<'a>, Plane)> {
    let (name, port) = split_host(host);
    let name = name.trim_end_matches('.');
    for cloud in clouds {
        let plane =
            if let Some(label) = name.strip_suffix(cloud.vault_suffix.as_str()).and_then(|l| l.strip_suffix('.')) {
                if label.contains('.') {
                    continue;
                }
                Plane::Vault(label.to_owned())
            } else if cloud.login_hosts.iter().any(|host| host == name) {
                Plane::Login
            } else if cloud.management_host == name {
                Plane::Management
            } else if cloud.graph_hosts.iter().any(|host| host == name) {
                Plane::Graph
            } else {
                continue;
            };
        return Some((Origin { cloud, port }, plane));
    }
    None
}

impl Origin<'_> {
    fn with_port(&self, host: &str) -> String {
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// `https://{vault}.<suffix>[:port]`: what ids of objects begin with.
    pub fn vault_base(&self, vault: &VaultName) -> String {
        format!("https://{}", self.with_port(&format!("{vault}.{}", self.cloud.vault_suffix)))
    }

    /// The base of `nextLink`, which always shows its port (contract section 7).
    pub fn vault_base_with_port(&self, vault: &VaultName) -> String {
        format!("https://{vault}.{}:{}", self.cloud.vault_suffix, self.port.unwrap_or(443))
    }

    /// The audience of vault tokens.
    pub fn vault_resource(&self) -> String {
        format!("https://{}", self.with_port(&self.cloud.vault_suffix))
    }

    /// The token service's base URL.
    pub fn login_base(&self) -> String {
        let host = self.cloud.login_hosts.first().map_or("", String::as_str);
        format!("https://{}", self.with_port(host))
    }

    /// The resource manager's base URL.
    pub fn management_base(&self) -> String {
        format!("https://{}", self.with_port(&self.cloud.management_host))
    }

    /// The directory's base URL.
    pub fn graph_base(&self) -> String {
        format!("https://{}", self.with_port(self.cloud.graph_hosts.first().map_or("", String::as_str)))
    }

    /// `iss` of tokens for a tenant. The port is no part of it: an issuer is a name, not an address.
    pub fn issuer(&self, tenant_guid: &str) -> String {
        format!("https://{}/{tenant_guid}/", self.cloud.issuer_host)
    }

    /// What an audience stands for; it may have any port and a trailing slash.
    pub fn resource(&self, audience: &str) -> Option<Resource> {
        if audience == KEY_VAULT_APPLICATION {
            return Some(Resource::Vault);
        }
        let audience = audience.trim_end_matches('/');
        let (scheme_host, _) = match audience.strip_prefix("https://") {
            Some(rest) => split_host(rest),
            None => return None,
        };
        let is = |name: &str| scheme_host == name;
        if is(&self.cloud.vault_suffix) {
            Some(Resource::Vault)
        } else if self.cloud.management_audiences.iter().any(|a| a.strip_prefix("https://").is_some_and(is)) {
            Some(Resource::Management)
        } else if self.cloud.graph_hosts.iter().any(|host| is(host)) {
            Some(Resource::Graph)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_find_their_plane() {
        let clouds = [Cloud::public(), Cloud::china(), Cloud::own("kms.test")];
        let plane = |host: &str| resolve(&clouds, host).map(|(_, plane)| plane);
        assert_eq!(plane("Demo.Vault.Azure.Net"), Some(Plane::Vault("demo".into())));
        assert_eq!(plane("demo.vault.azure.cn:443"), Some(Plane::Vault("demo".into())));
        assert_eq!(plane("login.kms.test:8443"), Some(Plane::Login));
        assert_eq!(plane("management.azure.com"), Some(Plane::Management));
        for stranger in ["vault.azure.net", "a.b.vault.azure.net", "example.org", "127.0.0.1:8443", "xvault.azure.net"]
        {
            assert_eq!(plane(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn answers_use_the_names_of_the_request() {
        let clouds = [Cloud::own("kms.test")];
        let (origin, _) = resolve(&clouds, "a.vault.kms.test:9443").unwrap();
        let vault = VaultName::parse("Demo").unwrap();
        assert_eq!(origin.vault_base(&vault), "https://demo.vault.kms.test:9443");
        assert_eq!(origin.vault_resource(), "https://vault.kms.test:9443");
        assert_eq!(origin.resource("https://vault.kms.test:1/"), Some(Resource::Vault));
        assert_eq!(origin.resource("https://vault.azure.net"), None);
        let (origin, _) = resolve(&clouds, "a.vault.kms.test:443").unwrap();
        assert_eq!(origin.vault_base(&vault), "https://demo.vault.kms.test");
        assert_eq!(origin.vault_base_with_port(&vault), "https://demo.vault.kms.test:443");
    }
}

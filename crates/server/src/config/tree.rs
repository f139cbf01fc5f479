//! The typed tree that a configuration becomes, section by section.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use claviger_api::emergency::Approver;
use claviger_api::TrustedIssuer;
use claviger_types::name::Id128;
use claviger_types::reads::{ReadMode, ReadTiming};

use super::reader::is_domain;
use crate::world::Unseal;

/// A node's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// This node.
    pub(crate) node: NodeSection,
    /// The world key.
    pub(crate) world: WorldSection,
    /// What clients call.
    pub(crate) api: ApiSection,
    /// What other nodes call.
    pub(crate) peer: PeerSection,
    /// What operators and their monitoring call.
    pub(crate) admin: AdminSection,
    /// Whose tokens count beside our own; equal on all nodes.
    pub(crate) identity: IdentitySection,
    /// Programs on this machine that need no credentials.
    pub(crate) managed_identity: Option<ManagedIdentitySection>,
    /// Secure key release; equal on all nodes.
    pub(crate) attestation: AttestationSection,
    /// Consensus; equal on all nodes.
    pub(crate) raft: RaftSection,
    /// How reads are answered; equal on all nodes.
    pub(crate) read: ReadSection,
    /// Reads without a majority.
    pub(crate) emergency: EmergencySection,
    /// The log of this process.
    pub(crate) log: LogSection,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSection {
    /// Never used again once its data is lost.
    pub(crate) id: u64,
    /// Name in its peer certificate; a host name's label or labels.
    pub(crate) name: String,
    /// Absolute, or below the configuration's directory.
    pub(crate) data_dir: PathBuf,
}

/// `[world]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorldSection {
    /// The world key file.
    pub(crate) file: PathBuf,
    /// How it is opened.
    pub(crate) unseal: Unseal,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiSection {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// The domain below which `vault`, `login`, `management` and `graph` lie; equal on all nodes.
    pub(crate) domain: String,
    /// The port that clients see; equal on all nodes.
    pub(crate) public_port: u16,
    /// PEM chain.
    pub(crate) certificate: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
    /// Threads; 0 is one for each core.
    pub(crate) workers: usize,
    /// Connections at once, on all threads together.
    pub(crate) max_connections: usize,
    /// Whether new vaults get access policies although roles are asked for; equal on all nodes.
    pub(crate) policies_where_rbac_is_asked: bool,
}

/// `[peer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerSection {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Where the others reach it.
    pub(crate) advertise: HostPort,
    /// PEM authority of all nodes.
    pub(crate) ca: PathBuf,
    /// PEM chain.
    pub(crate) certificate: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
    /// Nodes to ask when joining.
    pub(crate) seeds: Vec<HostPort>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminSection {
    /// Where it listens, plain HTTP.
    pub(crate) listen: SocketAddr,
}

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentitySection {
    /// Other issuers.
    pub(crate) issuers: Vec<TrustedIssuer>,
}

/// `[managed_identity]`, where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManagedIdentitySection {
    /// Loopback, plain HTTP.
    pub(crate) listen: SocketAddr,
    /// The application that a request means that names none.
    pub(crate) system: Option<Id128>,
    /// Applications that may be named.
    pub(crate) user: Vec<Id128>,
    /// The file with the header of the App Service shape.
    pub(crate) header_file: Option<PathBuf>,
}

/// `[attestation]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttestationSection {
    /// Who is believed.
    pub(crate) authorities: Vec<AuthorityFile>,
}

/// An attestation authority and the file with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityFile {
    /// As `iss` and release policies name it.
    pub(crate) issuer: String,
    /// JSON Web Key Set.
    pub(crate) jwks: PathBuf,
}

impl AuthorityFile {
    /// `https://authority.example=keys.json`
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').filter(|(issuer, file)| issuer.starts_with("https://") && !file.is_empty());
        let (issuer, file) = parts.ok_or_else(|| format!("not an https address, `=` and a file: `{text}`"))?;
        Ok(Self { issuer: issuer.trim().to_owned(), jwks: PathBuf::from(file.trim()) })
    }
}

/// `[raft]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RaftSection {
    /// Between two heartbeats.
    pub(crate) heartbeat_ms: u64,
    /// Shortest silence before an election.
    pub(crate) election_min_ms: u64,
    /// Longest silence before an election.
    pub(crate) election_max_ms: u64,
    /// Entries from one snapshot to the next.
    pub(crate) snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub(crate) keep_entries: u64,
}

/// `[emergency]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmergencySection {
    /// Certificates of those whose signature allows an emergency.
    pub(crate) approvers: Vec<PathBuf>,
}

impl EmergencySection {
    /// Reads the certificates; each approver is known by the name of the file.
    pub(crate) fn load(&self) -> anyhow::Result<Vec<Approver>> {
        let load = |path: &PathBuf| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let pem = std::fs::read(path).map_err(|error| error.to_string())?;
            Approver::from_pem(&name, &pem)
        };
        self.approvers
            .iter()
            .map(|path| load(path).map_err(|why| anyhow::anyhow!("`{}`: {why}", path.display())))
            .collect()
    }
}

/// `[read]`: how a new cluster makes reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadSection {
    /// The way.
    pub(crate) mode: ReadMode,
    /// The numbers of leases.
    pub(crate) timing: ReadTiming,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSection {
    /// Shape of a line.
    pub(crate) format: LogFormat,
    /// Least important level that is written.
    pub(crate) level: &'static str,
}

/// `[log] format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// A host (name or address) and a port, as peers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort(String);

impl HostPort {
    /// `name:port`, `1.2.3.4:port` or `[::1]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port_ok = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
        let host_ok = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok() || is_domain(&host.to_ascii_lowercase()),
        };
        (port_ok && host_ok).then(|| Self(text.to_owned()))
    }

    /// As written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// An address that means "all of mine" and so leads nobody anywhere.
    pub(super) fn is_unspecified(&self) -> bool {
        self.0.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

//! The configuration of a cluster's node: one TOML file, one typed tree.
//!
//! [`FIELDS`] is the one place that knows the fields: name, default, unit and consequence of each. Reading, the refusal
//! of unknown fields and the text of `claviger config default` come from it. [`check`] collects all problems, each
//! under the path of its field, for nobody likes to mend a file one error at a time; it looks at the named files too,
//! so that a configuration that passes starts.
//!
//! No secret is in the file itself, only paths to secrets, so it may be shown, copied and kept under version control.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use claviger_api::emergency::Approver;
use claviger_types::reads::{ReadMode, ReadTiming};
use toml::{Table, Value};
use zeroize::Zeroizing;

use crate::world::{PassphraseSource, Unseal};
use crate::{harden, issuers, pki};
use claviger_api::TrustedIssuer;
use claviger_types::name::Id128;

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
    fn is_unspecified(&self) -> bool {
        self.0.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The field's path, as in `api.listen`, or a line of the file.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Reads and checks a configuration and the files that it names. Relative paths are relative to `base_dir`, which is
/// the directory of the configuration file.
pub(crate) fn check(text: &str, base_dir: &Path) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(text, base_dir).map_err(|problem| vec![problem])?;
    let config = reader.config();
    reader.check_files(SystemTime::now());
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    }
}

/// What `claviger config default` prints: every field with its documentation and its default, or an example where there
/// is none.
pub(crate) fn render_default() -> String {
    let mut text = String::from(DEFAULT_HEADER);
    for (section, about) in SECTIONS {
        text.push('\n');
        comment(&mut text, about);
        text.push_str(&format!("[{section}]\n"));
        for field in FIELDS.iter().filter(|field| field.section() == *section) {
            comment(&mut text, field.about);
            let (mark, note) = match field.need {
                Need::Required => ("", "Required; this is an example."),
                Need::Default => ("", ""),
                Need::Optional => ("# ", "Optional; this is an example."),
            };
            let note = match field.scope {
                Scope::Node => note.to_owned(),
                Scope::Cluster => format!("{note} Equal on all nodes.").trim_start().to_owned(),
                Scope::New => {
                    let later = "Of a new cluster; `claviger cluster read-mode` changes it later.";
                    format!("{note} {later}").trim_start().to_owned()
                }
            };
            comment(&mut text, &note);
            text.push_str(&format!("{mark}{} = {}\n", field.name(), field.value));
        }
    }
    text
}

fn comment(text: &mut String, lines: &str) {
    for line in lines.lines() {
        text.push_str(&format!("# {line}\n"));
    }
}

const DEFAULT_HEADER: &str = "\
# Configuration of a Claviger node, with every field, its default and what it does.
# Fields that are left out have the default shown here; unknown fields are refused.
# Relative paths are relative to this file. Check it with `claviger config check FILE`.
";

const SECTIONS: &[(&str, &str)] = &[
    ("node", "This node."),
    ("world", "The world key: the root of the key hierarchy, one per region, equal on all nodes."),
    ("api", "The API that clients call, HTTPS."),
    (
        "peer",
        "The port on which the nodes of a cluster talk to each other: mutual TLS under an authority of their own.",
    ),
    ("admin", "Health and metrics, plain HTTP: /healthz/live, /healthz/ready, /metrics."),
    (
        "identity",
        "Whose tokens count beside those of the service itself: issuers of OpenID Connect, for workload identities\n\
         (federated credentials of applications) and for principals of their own.",
    ),
    (
        "managed_identity",
        "Tokens without credentials for programs on this machine, as on a virtual machine (AZURE_POD_IDENTITY_AUTHORITY_HOST)\n\
         or in App Service (IDENTITY_ENDPOINT). Off unless listen is set: every program on this machine may use it.",
    ),
    ("attestation", "Secure key release: whose word is taken about the environments that keys are released to."),
    ("raft", "Consensus. The defaults suit nodes in one region; raise the times if heartbeats get lost."),
    ("read", "Reads."),
    ("emergency", "Emergencies: reads without a majority."),
    ("log", "The log, written to standard error."),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Default,
    Optional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Node,
    Cluster,
    /// Looked at once, when the cluster is made.
    New,
}

/// A field: its path, whether it must be there, whether it must be the same on all nodes, its default (or an example)
/// in TOML, and its documentation.
struct Field {
    path: &'static str,
    need: Need,
    scope: Scope,
    value: &'static str,
    about: &'static str,
}

impl Field {
    fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
}

const fn field(path: &'static str, need: Need, scope: Scope, value: &'static str, about: &'static str) -> Field {
    Field { path, need, scope, value, about }
}

const FIELDS: &[Field] = &[
    field(
        "node.id",
        Need::Required,
        Scope::Node,
        "1",
        "Number of this node, 1 or more, unique in the cluster. A node that lost its data comes back under a new\n\
         number: under the old one it could vote twice.",
    ),
    field(
        "node.name",
        Need::Required,
        Scope::Node,
        "\"node1\"",
        "Name of this node, as its peer certificate has it (a DNS name in the subject alternative name).",
    ),
    field(
        "node.data_dir",
        Need::Default,
        Scope::Node,
        "\"/var/lib/claviger\"",
        "Directory of the log and the state, made if it is not there. One process at a time; a local disk, for every\n\
         acknowledged write waits for it.",
    ),
    field(
        "world.file",
        Need::Required,
        Scope::Node,
        "\"/etc/claviger/world.key\"",
        "The world key file that `claviger world init` made, mode 0600. Not in data_dir and not in its backups.",
    ),
    field(
        "world.unseal",
        Need::Default,
        Scope::Node,
        "\"file\"",
        "How the world key is opened: `file` (it is there in the clear) or `passphrase` (it is sealed under one).\n\
         Without the key the node serves nothing.",
    ),
    field(
        "world.passphrase_env",
        Need::Optional,
        Scope::Node,
        "\"CLAVIGER_PASSPHRASE\"",
        "For `passphrase`: the environment variable that holds it. At most one of the three sources; with none of\n\
         them it is asked for on standard input.",
    ),
    field(
        "world.passphrase_file",
        Need::Optional,
        Scope::Node,
        "\"/run/credentials/claviger.service/passphrase\"",
        "For `passphrase`: the file whose first line it is, mode 0600 or 0400.",
    ),
    field(
        "world.passphrase_fd",
        Need::Optional,
        Scope::Node,
        "3",
        "For `passphrase`: the open file descriptor whose first line it is.",
    ),
    field("api.listen", Need::Default, Scope::Node, "\"0.0.0.0:8443\"", "Address and port to listen on."),
    field(
        "api.domain",
        Need::Required,
        Scope::Cluster,
        "\"kms.example.com\"",
        "Domain of the service. Clients call VAULT.vault.DOMAIN, login.DOMAIN, management.DOMAIN and graph.DOMAIN.\n\
         It is part of every key identifier, so it stays for good.",
    ),
    field(
        "api.public_port",
        Need::Default,
        Scope::Cluster,
        "443",
        "Port that clients see: that of the balancer or the address translation, or listen's if there is neither. If\n\
         it is not 443, it is part of every key identifier.",
    ),
    field(
        "api.certificate",
        Need::Required,
        Scope::Node,
        "\"/etc/claviger/api.pem\"",
        "Certificate chain, PEM, for *.vault.DOMAIN, login.DOMAIN, management.DOMAIN and graph.DOMAIN.",
    ),
    field(
        "api.key",
        Need::Required,
        Scope::Node,
        "\"/etc/claviger/api.key\"",
        "Its private key, PEM, mode 0600 or 0400.",
    ),
    field(
        "api.workers",
        Need::Default,
        Scope::Node,
        "0",
        "Threads that serve requests, 0 to 1024; 0 is one for each core. More than cores only adds switching.",
    ),
    field(
        "api.max_connections",
        Need::Default,
        Scope::Node,
        "10000",
        "Client connections at once, 1 to 1000000; further ones wait. Each is an open file: keep the process's limit\n\
         (LimitNOFILE) above it by 4096.",
    ),
    field(
        "api.policies_where_rbac_is_asked",
        Need::Default,
        Scope::Cluster,
        "false",
        "Whether a new vault gets access policies although role-based access is asked for. az asks for that from 2.61\n\
         on, and then refuses `az keyvault set-policy`; the other way is `--enable-rbac-authorization false`.",
    ),
    field("peer.listen", Need::Default, Scope::Node, "\"0.0.0.0:8444\"", "Address and port to listen on."),
    field(
        "peer.advertise",
        Need::Required,
        Scope::Node,
        "\"node1.kms.example.com:8444\"",
        "Host and port where the other nodes reach this one.",
    ),
    field(
        "peer.ca",
        Need::Required,
        Scope::Node,
        "\"/etc/claviger/peer-ca.pem\"",
        "Authority of the nodes' certificates, PEM. Whoever has a certificate from it may talk to the cluster, so it\n\
         is one of its own. Two in one file while it is being replaced.",
    ),
    field(
        "peer.certificate",
        Need::Required,
        Scope::Node,
        "\"/etc/claviger/peer.pem\"",
        "Certificate chain of this node, PEM, for node.name and for peer.claviger, as server and as client.",
    ),
    field(
        "peer.key",
        Need::Required,
        Scope::Node,
        "\"/etc/claviger/peer.key\"",
        "Its private key, PEM, mode 0600 or 0400.",
    ),
    field(
        "peer.seeds",
        Need::Default,
        Scope::Node,
        "[]",
        "Hosts and ports of other nodes, asked by `claviger cluster join`; may hold this one too, so that all nodes\n\
         have the same list. Once joined, a node knows the members from the log.",
    ),
    field(
        "admin.listen",
        Need::Default,
        Scope::Node,
        "\"127.0.0.1:8445\"",
        "Address and port to listen on. There is no authentication: metrics tell how busy which operation is.",
    ),
    field(
        "admin.allow_remote",
        Need::Default,
        Scope::Node,
        "false",
        "Allows listen to be other than loopback, for a monitoring that comes over a network you trust.",
    ),
    field(
        "identity.issuers",
        Need::Default,
        Scope::Cluster,
        "[]",
        "Issuers, each as a table:\n\
         issuer = \"https://issuer.example.com\": as `iss` has it, letter by letter. Required.\n\
         jwks = \"keys.json\" or \"https://issuer.example.com/keys\": its keys (JWKS), in a file or at an address; http on\n\
         this machine only. Required. Nothing else is asked, no redirection followed, no proxy used.\n\
         refresh_seconds = 600: after this time the keys are looked at again: until then, and a minute longer, one that\n\
         was taken back is good. A token that names an unknown key has them looked at within 30 s. While they cannot be\n\
         had, the last ones count, for a day.\n\
         ca = \"ca.pem\": authorities of that address, if not the system's.\n\
         audience = \"api://claviger\" or a list: tokens with it in `aud` open vaults and the resource manager directly.\n\
         Without it, the issuer's tokens only stand for applications with a federated credential. The rest belongs to it:\n\
         oid_claim = \"sub\": the claim that names the principal; groups_claim = \"groups\": that lists its groups.\n\
         object_ids = \"derived\": policies name what `claviger identity external-id` prints, so that no issuer can speak\n\
         for a principal of another one; or \"claims\": both claims hold object ids as they are.\n\
         tenant = \"GUID\": the tenant that the issuer speaks for, if not the first; or tenant_claim = \"tid\".",
    ),
    field(
        "managed_identity.listen",
        Need::Optional,
        Scope::Node,
        "\"127.0.0.1:8446\"",
        "Address and port to listen on, plain HTTP, loopback only.",
    ),
    field(
        "managed_identity.system",
        Need::Optional,
        Scope::Node,
        "\"11111111-2222-3333-4444-555555555555\"",
        "Client id of the application that a request means that names none (system-assigned).",
    ),
    field(
        "managed_identity.user",
        Need::Default,
        Scope::Node,
        "[]",
        "Client ids of applications that a request may name (user-assigned), by client id, object id or resource id; the\n\
         last part of the resource id is the application's display name.",
    ),
    field(
        "managed_identity.header_file",
        Need::Optional,
        Scope::Node,
        "\"/etc/claviger/identity-header\"",
        "File whose first line requests of the App Service shape carry as X-IDENTITY-HEADER, mode 0600 or 0400; without\n\
         it there is only the other shape.",
    ),
    field(
        "attestation.authorities",
        Need::Default,
        Scope::Cluster,
        "[]",
        "Authorities, each as \"https://address=file\": the address as `iss` and release policies have it, and a file with\n\
         its signing keys (JWKS). Keys are released for environments that one of these vouches for; with none, never.\n\
         The service does not fetch it: do so when the authority changes its keys.",
    ),
    field(
        "raft.heartbeat_ms",
        Need::Default,
        Scope::Cluster,
        "50",
        "Milliseconds between two heartbeats of the leader, 10 to 5000. Above the round trip between any two nodes.",
    ),
    field(
        "raft.election_min_ms",
        Need::Default,
        Scope::Cluster,
        "250",
        "Milliseconds of silence after which a follower stands for election, at least, 30 to 60000 and at least\n\
         three heartbeats: fewer, and one lost packet makes an election.",
    ),
    field(
        "raft.election_max_ms",
        Need::Default,
        Scope::Cluster,
        "500",
        "The same at most, to 120000. Each follower draws a time between the two; at least a quarter above the\n\
         minimum, or they all stand at once. After a leader's death writes wait for about this long.",
    ),
    field(
        "raft.snapshot_entries",
        Need::Default,
        Scope::Cluster,
        "50000",
        "Log entries after which a snapshot is made, 100 to 10000000. Fewer: more copying. More: a longer log to\n\
         replay at the start.",
    ),
    field(
        "raft.keep_entries",
        Need::Default,
        Scope::Cluster,
        "10000",
        "Log entries kept behind a snapshot, 0 to 10000000. A node that was away for longer gets the whole snapshot. While a\n\
         node that is there needs more, more are kept, up to ten times raft.snapshot_entries.",
    ),
    field(
        "read.mode",
        Need::Default,
        Scope::New,
        "\"lease\"",
        "How reads are made. `lease`: from the node's own state, never stale, while nodes' clocks run alike.\n\
         `read_index`: with a round trip to the leader, without any clock: where machines are paused with their clocks\n\
         (live migration). `bounded`: from the node's own state, late by read.bound_ms at most, and saying so.",
    ),
    field(
        "read.bound_ms",
        Need::Default,
        Scope::New,
        "5000",
        "How far behind an answer may be in mode `bounded`, in milliseconds, 100 to 3600000.",
    ),
    field(
        "read.lease_ms",
        Need::Default,
        Scope::New,
        "1000",
        "How long a lease is, in milliseconds, 100 to 10000: so long a dead node can hold up writes, and so long a\n\
         node goes on reading without a leader. Longer than an election for reads without a gap.",
    ),
    field(
        "read.rho_ppm",
        Need::Default,
        Scope::New,
        "1000",
        "How much the rates of two nodes' clocks may differ, in millionths, 0 to 100000. NTP turns a clock by 500 at most.",
    ),
    field(
        "read.eps_ms",
        Need::Default,
        Scope::New,
        "5",
        "Allowance for reading clocks, in milliseconds, 1 to a quarter of the lease.",
    ),
    field(
        "emergency.approvers",
        Need::Default,
        Scope::Cluster,
        "[]",
        "Certificates (PEM, RSA) of people whose signature lets an operator declare an emergency at a node that reaches no\n\
         majority: `claviger cluster emergency`. Without any, there are no emergencies.",
    ),
    field(
        "log.format",
        Need::Default,
        Scope::Node,
        "\"text\"",
        "`text` for people, `json` for machines, one object a line.",
    ),
    field(
        "log.level",
        Need::Default,
        Scope::Node,
        "\"info\"",
        "`error`, `warn`, `info`, `debug` or `trace`. Secrets are in none of them; names of vaults and keys are.",
    ),
];

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Reads fields one by one and keeps what is wrong with them.
struct Reader<'a> {
    table: Table,
    base: &'a Path,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(text: &str, base: &'a Path) -> Result<Self, Problem> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line =
                error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.split('\n').count());
            Problem { path: format!("line {line}"), message: format!("not TOML: {}", error.message()) }
        })?;
        let mut reader = Self { table, base, problems: Vec::new() };
        reader.find_unknown();
        Ok(reader)
    }

    fn find_unknown(&mut self) {
        let mut unknown = Vec::new();
        for (section, value) in &self.table {
            match value {
                _ if !SECTIONS.iter().any(|(known, _)| known == section) => {
                    let known: Vec<_> = SECTIONS.iter().map(|(known, _)| *known).collect();
                    unknown.push((section.clone(), format!("unknown section: there are {}", known.join(", "))));
                }
                Value::Table(fields) => {
                    let known: Vec<_> =
                        FIELDS.iter().filter(|field| field.section() == section).map(Field::name).collect();
                    for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
                        let message = format!("unknown field: [{section}] has {}", known.join(", "));
                        unknown.push((format!("{section}.{name}"), message));
                    }
                }
                other => unknown.push((section.clone(), format!("not a section: {}", shown(other)))),
            }
        }
        unknown.sort();
        for (path, message) in unknown {
            self.problem(&path, message);
        }
    }

    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), message: message.into() });
    }

    /// The field's value, or its default. `None` if it is optional and absent, or wrong, which is then noted.
    fn read<T>(&mut self, path: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let field = FIELDS.iter().find(|field| field.path == path)?;
        let given = self.table.get(field.section()).and_then(|section| section.get(field.name())).cloned();
        let value = match (given, field.need) {
            (Some(value), _) => Ok(value),
            (None, Need::Default) => field.value.parse().map_err(|_| "its default is malformed".to_owned()),
            (None, Need::Required) => Err(format!("required, for example {} = {}", field.name(), field.value)),
            (None, Need::Optional) => return None,
        };
        value.and_then(|value| parse(&value)).map_err(|message| self.problem(path, message)).ok()
    }

    fn path(&mut self, path: &str) -> Option<PathBuf> {
        let base = self.base;
        self.read(path, |value| match text(value)? {
            "" => Err("an empty path".to_owned()),
            relative => Ok(base.join(relative)),
        })
    }

    fn integer(&mut self, path: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.read(path, |value| {
            let number = value.as_integer().ok_or_else(|| format!("not a whole number: {}", shown(value)))?;
            u64::try_from(number)
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("not from {} to {}: `{number}`", range.start(), range.end()))
        })
    }

    fn size(&mut self, path: &str, range: RangeInclusive<u64>) -> Option<usize> {
        self.integer(path, range).and_then(|number| usize::try_from(number).ok())
    }

    fn address(&mut self, path: &str) -> Option<SocketAddr> {
        self.read(path, |value| match text(value)?.parse::<SocketAddr>() {
            Err(_) => Err(format!("not an address and port such as `0.0.0.0:8443`: {}", shown(value))),
            Ok(address) if address.port() == 0 => Err("port 0 would be another one at each start".to_owned()),
            Ok(address) => Ok(address),
        })
    }

    fn host_port(&mut self, path: &str) -> Option<HostPort> {
        self.read(path, host_port)
    }

    fn word<T: Copy>(&mut self, path: &str, words: &[(&str, T)]) -> Option<T> {
        self.read(path, |value| {
            let given = text(value)?;
            words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning).ok_or_else(|| {
                let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("not {}: `{given}`", known.join(" or "))
            })
        })
    }

    /// Everything but the files. All fields are read before the first missing one ends it, so all problems are found.
    fn config(&mut self) -> Option<Config> {
        let node = self.node();
        let world = self.world();
        let api = self.api();
        let peer = self.peer();
        let admin = self.admin();
        let identity = self.identity();
        let managed_identity = self.managed_identity();
        let attestation = self.attestation();
        let raft = self.raft();
        let read = self.read_section();
        let emergency = self.emergency();
        let log = self.log();
        if let (Some(api), Some(peer), Some(admin)) = (&api, &peer, &admin) {
            let mut listeners =
                vec![("api.listen", api.listen), ("peer.listen", peer.listen), ("admin.listen", admin.listen)];
            if let Some(Some(managed)) = &managed_identity {
                listeners.push(("managed_identity.listen", managed.listen));
            }
            self.check_listeners(&listeners);
        }
        Some(Config {
            node: node?,
            world: world?,
            api: api?,
            peer: peer?,
            admin: admin?,
            identity: identity?,
            managed_identity: managed_identity?,
            attestation: attestation?,
            raft: raft?,
            read: read?,
            emergency: emergency?,
            log: log?,
        })
    }

    fn node(&mut self) -> Option<NodeSection> {
        // TOML's integers end there.
        let id = self.integer("node.id", 1..=i64::MAX.unsigned_abs());
        let name = self.read("node.name", |value| {
            let name = text(value)?;
            is_domain(name)
                .then(|| name.to_owned())
                .ok_or_else(|| format!("not a host name in small letters: `{name}`"))
        });
        let data_dir = self.path("node.data_dir");
        Some(NodeSection { id: id?, name: name?, data_dir: data_dir? })
    }

    fn world(&mut self) -> Option<WorldSection> {
        let file = self.path("world.file");
        let passphrase = self.word("world.unseal", &[("file", false), ("passphrase", true)]);
        let sources = [
            ("world.passphrase_env", self.read("world.passphrase_env", env_name).map(PassphraseSource::Env)),
            ("world.passphrase_file", self.path("world.passphrase_file").map(PassphraseSource::File)),
            (
                "world.passphrase_fd",
                self.integer("world.passphrase_fd", 0..=u32::MAX.into())
                    .and_then(|number| u32::try_from(number).ok())
                    .map(PassphraseSource::Descriptor),
            ),
        ];
        let mut given = sources.into_iter().filter_map(|(path, source)| Some((path, source?)));
        let first = given.next();
        let unseal = match (passphrase?, first) {
            (false, None) => Unseal::File,
            (false, Some((path, _))) => {
                self.problem(path, "only for world.unseal = \"passphrase\"");
                return None;
            }
            (true, None) => Unseal::Passphrase(PassphraseSource::Stdin),
            (true, Some((path, source))) => {
                for (other, _) in given {
                    self.problem(other, format!("one source is enough, and {path} is given too"));
                }
                Unseal::Passphrase(source)
            }
        };
        Some(WorldSection { file: file?, unseal })
    }

    fn api(&mut self) -> Option<ApiSection> {
        let listen = self.address("api.listen");
        let domain = self.domain();
        let public_port = self.integer("api.public_port", 1..=u16::MAX.into());
        let certificate = self.path("api.certificate");
        let key = self.path("api.key");
        let workers = self.size("api.workers", 0..=1024);
        let max_connections = self.size("api.max_connections", 1..=1_000_000);
        let policies_where_rbac_is_asked = self.flag("api.policies_where_rbac_is_asked");
        Some(ApiSection {
            listen: listen?,
            domain: domain?,
            public_port: public_port.and_then(|port| u16::try_from(port).ok())?,
            certificate: certificate?,
            key: key?,
            workers: workers?,
            max_connections: max_connections?,
            policies_where_rbac_is_asked: policies_where_rbac_is_asked?,
        })
    }

    fn domain(&mut self) -> Option<String> {
        self.read("api.domain", |value| {
            let domain = text(value)?;
            is_domain(domain)
                .then(|| domain.to_owned())
                .ok_or_else(|| format!("not a domain name in small letters without a port: `{domain}`"))
        })
    }

    fn peer(&mut self) -> Option<PeerSection> {
        let listen = self.address("peer.listen");
        let advertise = self.host_port("peer.advertise");
        if let Some(advertise) = advertise.as_ref().filter(|advertise| advertise.is_unspecified()) {
            self.problem("peer.advertise", format!("an address that others cannot reach: `{advertise}`"));
        }
        let ca = self.path("peer.ca");
        let certificate = self.path("peer.certificate");
        let key = self.path("peer.key");
        let seeds = self.read("peer.seeds", |value| {
            let list = value.as_array().ok_or_else(|| format!("not a list: {}", shown(value)))?;
            list.iter().map(host_port).collect::<Result<Vec<_>, _>>()
        });
        Some(PeerSection {
            listen: listen?,
            advertise: advertise?,
            ca: ca?,
            certificate: certificate?,
            key: key?,
            seeds: seeds?,
        })
    }

    fn flag(&mut self, path: &'static str) -> Option<bool> {
        self.read(path, |value| value.as_bool().ok_or_else(|| format!("not true or false: {}", shown(value))))
    }

    fn admin(&mut self) -> Option<AdminSection> {
        let listen = self.address("admin.listen");
        let allow_remote = self.flag("admin.allow_remote");
        let (listen, allow_remote) = (listen?, allow_remote?);
        if !listen.ip().is_loopback() && !allow_remote {
            self.problem("admin.listen", format!("not loopback, and admin.allow_remote is not true: `{listen}`"));
        }
        Some(AdminSection { listen })
    }

    fn identity(&mut self) -> Option<IdentitySection> {
        let base = self.base;
        let tables = self.read("identity.issuers", |value| {
            let list = value.as_array().ok_or_else(|| format!("not a list: {}", shown(value)))?;
            let table =
                |value: &Value| value.as_table().cloned().ok_or_else(|| format!("not a table: {}", shown(value)));
            list.iter().map(table).collect::<Result<Vec<_>, _>>()
        })?;
        let (issuers, problems) = issuers::read(&tables, base);
        let good = problems.is_empty();
        for (at, message) in problems {
            self.problem(&format!("identity.issuers{at}"), message);
        }
        good.then_some(IdentitySection { issuers })
    }

    /// `None` if something is wrong, `Some(None)` if it is off.
    fn managed_identity(&mut self) -> Option<Option<ManagedIdentitySection>> {
        let before = self.problems.len();
        let listen = self.address("managed_identity.listen");
        let system = self.read("managed_identity.system", client_id);
        let user = self.read("managed_identity.user", |value| {
            let list = value.as_array().ok_or_else(|| format!("not a list: {}", shown(value)))?;
            list.iter().map(client_id).collect::<Result<Vec<_>, _>>()
        });
        let header_file = self.path("managed_identity.header_file");
        if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) {
            self.problem("managed_identity.listen", format!("not loopback: `{listen}`"));
        }
        let nobody = system.is_none() && user.as_ref().is_some_and(Vec::is_empty);
        if self.problems.len() > before {
            return None;
        }
        let Some(listen) = listen else {
            if !nobody || header_file.is_some() {
                self.problem("managed_identity.listen", "without it, the other fields of the section do nothing");
                return None;
            }
            return Some(None);
        };
        if nobody {
            self.problem("managed_identity.system", "neither it nor managed_identity.user names an application");
            return None;
        }
        Some(Some(ManagedIdentitySection { listen, system, user: user?, header_file }))
    }

    fn attestation(&mut self) -> Option<AttestationSection> {
        let base = self.base;
        let authorities = self.read("attestation.authorities", |value| {
            let list = value.as_array().ok_or_else(|| format!("not a list: {}", shown(value)))?;
            let read = |value: &Value| {
                let named = AuthorityFile::parse(text(value)?)?;
                let jwks = base.join(&named.jwks);
                let bytes =
                    std::fs::read(&jwks).map_err(|error| format!("cannot read `{}`: {error}", jwks.display()))?;
                claviger_api::attestation::Authority::from_jwks(&named.issuer, &bytes)
                    .map_err(|why| format!("`{}`: {why}", jwks.display()))?;
                Ok(AuthorityFile { jwks, ..named })
            };
            list.iter().map(read).collect::<Result<Vec<_>, String>>()
        });
        Some(AttestationSection { authorities: authorities? })
    }

    fn raft(&mut self) -> Option<RaftSection> {
        let heartbeat_ms = self.integer("raft.heartbeat_ms", 10..=5_000);
        let election_min_ms = self.integer("raft.election_min_ms", 30..=60_000);
        let election_max_ms = self.integer("raft.election_max_ms", 30..=120_000);
        let snapshot_entries = self.integer("raft.snapshot_entries", 100..=10_000_000);
        let keep_entries = self.integer("raft.keep_entries", 0..=10_000_000);
        if let (Some(heartbeat), Some(min)) = (heartbeat_ms, election_min_ms) {
            if min < 3 * heartbeat {
                let why =
                    format!("`{min}` is less than three heartbeats of {heartbeat}: one lost packet makes an election");
                self.problem("raft.election_min_ms", why);
            }
        }
        if let (Some(min), Some(max)) = (election_min_ms, election_max_ms) {
            if 4 * max < 5 * min {
                let why =
                    format!("`{max}` is not a quarter above raft.election_min_ms = {min}: all would stand at once");
                self.problem("raft.election_max_ms", why);
            }
        }
        Some(RaftSection {
            heartbeat_ms: heartbeat_ms?,
            election_min_ms: election_min_ms?,
            election_max_ms: election_max_ms?,
            snapshot_entries: snapshot_entries?,
            keep_entries: keep_entries?,
        })
    }

    fn read_section(&mut self) -> Option<ReadSection> {
        let name = self.read("read.mode", |value| Ok(text(value)?.to_owned()));
        let bound = self.integer("read.bound_ms", 100..=3_600_000);
        let lease = self.integer("read.lease_ms", 100..=10_000);
        let rho = self.integer("read.rho_ppm", 0..=100_000);
        let eps = self.integer("read.eps_ms", 1..=1_000);
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let name = name?;
        let mode = match ReadMode::parse(&name, (name == "bounded").then_some(small(bound?))) {
            Ok(mode) => mode,
            Err(why) => {
                self.problem("read.mode", format!("{why}: `{name}`"));
                return None;
            }
        };
        let timing = ReadTiming { lease_ms: small(lease?), rho_ppm: small(rho?), eps_ms: small(eps?) };
        if let Err(why) = timing.check() {
            self.problem("read.eps_ms", why.to_owned());
            return None;
        }
        Some(ReadSection { mode, timing })
    }

    fn emergency(&mut self) -> Option<EmergencySection> {
        let base = self.base;
        let approvers = self.read("emergency.approvers", |value| {
            let list = value.as_array().ok_or_else(|| format!("not a list: {}", shown(value)))?;
            let paths = list.iter().map(|value| Ok(base.join(text(value)?))).collect::<Result<Vec<_>, String>>()?;
            let section = EmergencySection { approvers: paths };
            section.load().map_err(|error| error.to_string())?;
            Ok(section)
        });
        approvers
    }

    fn log(&mut self) -> Option<LogSection> {
        let format = self.word("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let levels: Vec<_> = LEVELS.iter().map(|level| (*level, *level)).collect();
        let level = self.word("log.level", &levels);
        Some(LogSection { format: format?, level: level? })
    }

    fn check_listeners(&mut self, listeners: &[(&str, SocketAddr)]) {
        for (i, (path, address)) in listeners.iter().enumerate() {
            for (other_path, other) in listeners.iter().take(i) {
                let same_host =
                    address.ip() == other.ip() || address.ip().is_unspecified() || other.ip().is_unspecified();
                if address.port() == other.port() && same_host {
                    self.problem(path, format!("`{address}` and {other_path} = `{other}` cannot both be listened on"));
                }
            }
        }
    }

    /// The files that could be told from what was read, whether or not the rest of it is right.
    fn check_files(&mut self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        // Read again without noting their problems a second time.
        let mut again = Reader { table: self.table.clone(), base: self.base, problems: Vec::new() };
        let mut found = Files { problems: Vec::new(), now };
        if let Some(dir) = again.path("node.data_dir") {
            if dir.exists() && !dir.is_dir() {
                found.problem("node.data_dir", format!("not a directory: `{}`", dir.display()));
            }
        }
        if let Some(path) = again.path("world.file") {
            found.private("world.file", &path);
        }
        if let Some(path) = again.path("world.passphrase_file") {
            found.private("world.passphrase_file", &path);
        }
        if let Some(path) = again.path("managed_identity.header_file") {
            if let Err(error) = identity_header(&path) {
                found.problem("managed_identity.header_file", format!("{error:#}"));
            }
        }
        let names = again.domain().map(|domain| pki::api_names(&domain)).unwrap_or_default();
        if let (Some(certificate), Some(key)) = (again.path("api.certificate"), again.path("api.key")) {
            found.pair("api", &certificate, &key, &names, false);
        }
        let name = again.read("node.name", |value| text(value).map(str::to_owned));
        let names: Vec<_> = name.into_iter().chain([pki::ANY_PEER.to_owned()]).collect();
        if let (Some(certificate), Some(key)) = (again.path("peer.certificate"), again.path("peer.key")) {
            let chain = found.pair("peer", &certificate, &key, &names, true);
            let ca = again.path("peer.ca").and_then(|path| found.text("peer.ca", &path));
            if let (Some(chain), Some(ca)) = (chain, ca) {
                found.issuer(&ca, &chain, now);
            }
        }
        self.problems.append(&mut found.problems);
    }
}

/// Looks at files.
struct Files {
    problems: Vec<Problem>,
    now: i64,
}

impl Files {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), message: message.into() });
    }

    /// A file that only its owner may read; its content is nobody's business here.
    fn private(&mut self, path: &str, file: &Path) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        harden::read_private(file).map_err(|error| self.problem(path, format!("{error:#}"))).ok()
    }

    fn text(&mut self, path: &str, file: &Path) -> Option<String> {
        std::fs::read_to_string(file)
            .map_err(|error| self.problem(path, format!("cannot read `{}`: {error}", file.display())))
            .ok()
    }

    /// A certificate for these names and its key, in the fields `certificate` and `key` of a section.
    fn pair(
        &mut self,
        section: &str,
        certificate: &Path,
        key: &Path,
        names: &[String],
        client: bool,
    ) -> Option<String> {
        let (certificate_path, key_path) = (format!("{section}.certificate"), format!("{section}.key"));
        let chain = self.text(&certificate_path, certificate);
        let key = self.private(&key_path, key);
        let chain = chain?;
        let seen = match pki::inspect(&chain) {
            Ok(seen) => seen,
            Err(error) => {
                self.problem(&certificate_path, format!("`{}`: {error:#}", certificate.display()));
                return None;
            }
        };
        let missing: Vec<_> = names.iter().filter(|name| !seen.is_for(name)).map(|name| format!("`{name}`")).collect();
        if !missing.is_empty() {
            self.problem(&certificate_path, format!("not for {}", missing.join(", ")));
        }
        if self.now >= seen.not_after {
            self.problem(&certificate_path, "expired");
        }
        if self.now < seen.not_before {
            self.problem(&certificate_path, "not valid yet: is the clock right?");
        }
        if seen.is_ca {
            self.problem(&certificate_path, "an authority's certificate, not a server's");
        }
        if !seen.for_server || (client && !seen.for_client) {
            let who = if client { "a server and a client" } else { "a server" };
            self.problem(&certificate_path, format!("its extended key usage is not for {who}"));
        }
        if let Some(key) = key {
            match pki::key_matches(&chain, &key) {
                Ok(true) => {}
                Ok(false) => self.problem(&key_path, format!("not the key of {certificate_path}")),
                Err(error) => self.problem(&key_path, format!("{error:#}")),
            }
        }
        Some(chain)
    }

    fn issuer(&mut self, ca: &str, chain: &str, now: i64) {
        match pki::is_issued_by(ca, chain, now) {
            Ok(true) => {}
            Ok(false) => self.problem("peer.certificate", "not issued by an authority of peer.ca"),
            Err(error) => self.problem("peer.ca", format!("{error:#}")),
        }
    }
}

/// Shortest header of the App Service shape: it is all that stands between a user of this machine and the tokens.
const HEADER_BYTES_MIN: usize = 16;

/// The header of the App Service shape: the first line of its file.
pub(crate) fn identity_header(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    use anyhow::Context as _;
    let bytes = harden::read_private(path)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let good = line.len() >= HEADER_BYTES_MIN && line.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(line).ok().filter(|_| good);
    let text =
        text.with_context(|| format!("its first line is not {HEADER_BYTES_MIN} or more letters, digits and signs"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn client_id(value: &Value) -> Result<Id128, String> {
    let given = text(value)?;
    Id128::parse_guid(given).map_err(|_| format!("not a client id (a GUID): `{given}`"))
}

pub(crate) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("not a text in quotes: {}", shown(value)))
}

fn host_port(value: &Value) -> Result<HostPort, String> {
    let given = text(value)?;
    HostPort::parse(given).ok_or_else(|| format!("not a host and port such as `node1.example.com:8444`: `{given}`"))
}

fn env_name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    let ok = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    ok.then(|| name.to_owned()).ok_or_else(|| format!("not a variable's name: `{name}`"))
}

/// A value in backticks, as the user wrote it or nearly so.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Table(_) => "a section".to_owned(),
        other => format!("`{other}`"),
    }
}

/// Labels of `a-z`, `0-9` and `-`, as a client's resolver and a certificate have them; not an address.
fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A vault's name of 24 characters and `.vault.` come in front; the whole may have 253.
    name.len() <= 220 && name.split('.').all(label) && name.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with all the files that a configuration names, made by one authority for `node1`.
    struct Site {
        dir: tempfile::TempDir,
    }

    const GOOD: &str = r#"
        [node]
        id = 1
        name = "node1"
        data_dir = "data"
        [world]
        file = "world.key"
        [api]
        domain = "kms.example.com"
        certificate = "api.pem"
        key = "api.key"
        [peer]
        advertise = "127.0.0.1:8444"
        ca = "ca.pem"
        certificate = "node1.pem"
        key = "node1.key"
    "#;

    impl Site {
        fn new() -> Self {
            let site = Self { dir: tempfile::tempdir().unwrap() };
            let authority = pki::Authority::create("test").unwrap();
            let api = authority.issue(&pki::api_names("kms.example.com"), &[], pki::Usage::Server).unwrap();
            let names = ["node1".to_owned(), pki::ANY_PEER.to_owned()];
            let node = authority.issue(&names, &[], pki::Usage::ServerAndClient).unwrap();
            site.write("world.key", 0o600, "anything");
            site.write("ca.pem", 0o644, authority.certificate_pem());
            site.write("api.pem", 0o644, &api.chain_pem);
            site.write("api.key", 0o600, &api.key_pem);
            site.write("node1.pem", 0o644, &node.chain_pem);
            site.write("node1.key", 0o600, &node.key_pem);
            site
        }

        fn write(&self, name: &str, mode: u32, text: &str) {
            let path = self.dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn check(&self, text: &str) -> Result<Config, String> {
            let dir = self.dir.path().display().to_string();
            check(text, self.dir.path()).map_err(|problems| lines(&problems).replace(&dir, "DIR"))
        }
    }

    fn lines(problems: &[Problem]) -> String {
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    /// `CLAVIGER_GOLDEN=write cargo test` writes it anew, for review by `git diff`.
    fn golden(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        if std::env::var_os("CLAVIGER_GOLDEN").is_some_and(|value| value == "write") {
            fs::write(&path, text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
    }

    #[test]
    fn default_is_golden_and_lacks_only_the_files() {
        let text = render_default();
        golden("config-default.toml", &text);
        let mut problems = check(&text, Path::new("/nowhere")).unwrap_err();
        problems.retain(|problem| !problem.message.contains("No such file"));
        assert_eq!(problems, []);
        assert_eq!(text.lines().find(|line| line.len() > 120), None);
    }

    /// With the optional ones too, every field's documented value is one that its reader takes.
    #[test]
    fn examples_of_optional_fields_are_read() {
        let optional = |section: &str| {
            let section = section.to_owned();
            FIELDS.iter().filter(move |field| field.need == Need::Optional && field.section() == section)
        };
        let with = |text: String, field: &Field| {
            text.replace(&format!("# {} = ", field.name()), &format!("{} = ", field.name()))
        };
        let read = |text: &str| {
            let mut reader = Reader::new(text, Path::new("/")).unwrap();
            let config = reader.config();
            assert_eq!(reader.problems, []);
            config.unwrap()
        };
        // One of these at a time.
        for field in optional("world") {
            let text = with(render_default().replace("unseal = \"file\"", "unseal = \"passphrase\""), field);
            assert_ne!(read(&text).world.unseal, Unseal::Passphrase(PassphraseSource::Stdin), "{}", field.path);
        }
        // These belong together.
        let managed = read(&optional("managed_identity").fold(render_default(), with)).managed_identity.unwrap();
        assert!(managed.listen.ip().is_loopback() && managed.system.is_some() && managed.header_file.is_some());
        assert_eq!(optional("world").chain(optional("managed_identity")).count(), optional_fields());
    }

    fn optional_fields() -> usize {
        FIELDS.iter().filter(|field| field.need == Need::Optional).count()
    }

    #[test]
    fn every_field_is_read_and_has_a_section() {
        for field in FIELDS {
            assert!(SECTIONS.iter().any(|(section, _)| *section == field.section()), "{}", field.path);
            // A value that no field takes must be a problem of that field: else nobody reads it.
            let text = format!("[{}]\n{} = 1979-05-27\n", field.section(), field.name());
            let problems = check(&text, Path::new("/nowhere")).unwrap_err();
            let told = problems.iter().any(|problem| problem.path == field.path && problem.message.contains("1979"));
            assert!(told, "{}: {}", field.path, lines(&problems));
        }
    }

    #[test]
    fn samples_are_right_but_for_the_files_that_are_yet_to_be_made() {
        let samples = [
            include_str!("../../../cluster-config/single-node.toml"),
            include_str!("../../../cluster-config/three-nodes/node1.toml"),
            include_str!("../../../cluster-config/three-nodes/node2.toml"),
            include_str!("../../../cluster-config/three-nodes/node3.toml"),
        ];
        let configs = samples.map(|text| {
            let mut reader = Reader::new(text, Path::new("/nowhere")).unwrap();
            let config = reader.config();
            assert_eq!(reader.problems, [], "{text}");
            config.unwrap()
        });
        let [_, one, two, three] = configs;
        assert_eq!([one.node.id, two.node.id, three.node.id], [1, 2, 3]);
        for other in [two, three] {
            assert_eq!((&one.api.domain, one.api.public_port), (&other.api.domain, other.api.public_port));
            assert_eq!((&one.raft, &one.peer.seeds), (&other.raft, &other.peer.seeds));
        }
    }

    #[test]
    fn a_good_configuration_becomes_a_tree() {
        let site = Site::new();
        let config = site.check(GOOD).unwrap();
        assert_eq!(config.node.data_dir, site.dir.path().join("data"));
        assert_eq!(config.world.unseal, Unseal::File);
        assert_eq!((config.api.listen.port(), config.api.public_port, config.api.workers), (8443, 443, 0));
        assert_eq!(config.peer.advertise.as_str(), "127.0.0.1:8444");
        assert_eq!(config.raft.election_max_ms, 500);
        assert_eq!((config.read.mode, config.log.level), (ReadMode::Lease, "info"));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = include_str!("../golden/config-bad.toml");
        let problems = check(text, Path::new("/nowhere")).unwrap_err();
        golden("config-bad.txt", &lines(&problems));
        let nothing = check("", Path::new("/nowhere")).unwrap_err();
        golden("config-empty.txt", &lines(&nothing));
    }

    #[test]
    fn values_are_refused_with_their_reason() {
        let site = Site::new();
        let cases = [
            ("id = 1", "id = 0", "node.id: not from 1 to 9223372036854775807: `0`"),
            ("id = 1", "id = -1", "node.id: not from 1 to"),
            ("id = 1", "id = \"1\"", "node.id: not a whole number: `1`"),
            ("\"node1\"", "\"Node 1\"", "node.name: not a host name"),
            ("[api]", "[api]\npublic_port = 65536", "api.public_port: not from 1 to 65535: `65536`"),
            ("[api]", "[api]\nlisten = \"localhost:8443\"", "api.listen: not an address and port"),
            ("[api]", "[api]\nlisten = \"0.0.0.0:0\"", "api.listen: port 0"),
            ("[api]", "[api]\nlisten = \"127.0.0.1:8444\"", "peer.listen: `0.0.0.0:8444` and api.listen"),
            ("\"kms.example.com\"", "\"kms.example.com:8443\"", "api.domain: not a domain name"),
            ("\"kms.example.com\"", "\"10.0.0.1\"", "api.domain: not a domain name"),
            (
                "\"kms.example.com\"",
                "\"other.example.com\"",
                "api.certificate: not for `*.vault.other.example.com`, `login",
            ),
            ("\"127.0.0.1:8444\"", "\"0.0.0.0:8444\"", "peer.advertise: an address that others cannot reach"),
            ("\"127.0.0.1:8444\"", "\"node1\"", "peer.advertise: not a host and port"),
            (
                "[peer]",
                "[peer]\nseeds = [\"a:1\", \"b\"]",
                "peer.seeds: not a host and port such as `node1.example.com",
            ),
            ("[peer]", "[peer]\nseeds = \"a:1\"", "peer.seeds: not a list: `a:1`"),
            ("[peer]", "[admin]\nlisten = \"10.0.0.1:8445\"\n[peer]", "admin.listen: not loopback"),
            (
                "[peer]",
                "[managed_identity]\nlisten = \"10.0.0.1:8446\"\n[peer]",
                "managed_identity.listen: not loopback: `10.0.0.1:8446`",
            ),
            (
                "[peer]",
                "[managed_identity]\nlisten = \"127.0.0.1:8446\"\n[peer]",
                "managed_identity.system: neither it nor managed_identity.user names an application",
            ),
            (
                "[peer]",
                "[managed_identity]\nuser = [\"x\"]\n[peer]",
                "managed_identity.user: not a client id (a GUID): `x`",
            ),
            (
                "[peer]",
                "[managed_identity]\nuser = [\"11111111-2222-3333-4444-555555555555\"]\n[peer]",
                "managed_identity.listen: without it",
            ),
            (
                "[peer]",
                "[managed_identity]\nlisten = \"127.0.0.1:8444\"\n\
                 system = \"11111111-2222-3333-4444-555555555555\"\n[peer]",
                "managed_identity.listen: `127.0.0.1:8444` and peer.listen",
            ),
            ("[peer]", "[raft]\nheartbeat_ms = 100\n[peer]", "raft.election_min_ms: `250` is less than three"),
            ("[peer]", "[raft]\nelection_max_ms = 300\n[peer]", "raft.election_max_ms: `300` is not a quarter above"),
            (
                "[peer]",
                "[read]\nmode = \"stale\"\n[peer]",
                "read.mode: a read mode is `lease`, `read_index` or `bounded`",
            ),
            ("[peer]", "[read]\nlease_ms = 20\n[peer]", "read.lease_ms: "),
            ("[peer]", "[read]\neps_ms = 600\n[peer]", "read.eps_ms: eps is 1 ms to a quarter of the lease"),
            ("[peer]", "[log]\nlevel = \"loud\"\n[peer]", "log.level: not `error` or `warn` or"),
            ("[api]", "unseal = \"tpm\"\n[api]", "world.unseal: not `file` or `passphrase`: `tpm`"),
            ("[api]", "passphrase_env = \"P\"\n[api]", "world.passphrase_env: only for world.unseal"),
            (
                "[api]",
                "unseal = \"passphrase\"\npassphrase_env = \"A B\"\n[api]",
                "world.passphrase_env: not a variable",
            ),
            (
                "[api]",
                "unseal = \"passphrase\"\npassphrase_env = \"P\"\npassphrase_fd = 3\n[api]",
                "world.passphrase_fd: one source is enough, and world.passphrase_env is given too",
            ),
            ("\"node1\"", "\"node2\"", "peer.certificate: not for `node2`"),
            ("\"node1.key\"", "\"api.key\"", "peer.key: not the key of peer.certificate"),
            (
                "\"node1.pem\"",
                "\"api.pem\"",
                "peer.certificate: its extended key usage is not for a server and a client",
            ),
            ("\"node1.pem\"", "\"ca.pem\"", "peer.certificate: an authority's certificate"),
            ("\"ca.pem\"", "\"node1.pem\"", "peer.ca: a certificate in it is not an authority's"),
            ("\"world.key\"", "\"missing\"", "world.file: cannot open `DIR/missing`: No such file"),
            ("\"data\"", "\"ca.pem\"", "node.data_dir: not a directory: `DIR/ca.pem`"),
            ("[api]", "[api", "line 8: not TOML"),
            ("[api]", "[node]\n[api]", "line 8: not TOML: duplicate key"),
        ];
        for (from, to, want) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let told = site.check(&text).unwrap_err();
            assert!(told.contains(want), "{to}\nwanted: {want}\ntold: {told}");
        }
    }

    #[test]
    fn files_are_looked_at() {
        let cases: [(&str, u32, &str, &str); 6] = [
            (
                "api.key",
                0o640,
                "",
                "api.key: `DIR/api.key` is open to group or others (mode 0640): run `chmod 600 DIR/api.key`",
            ),
            ("world.key", 0o604, "", "world.file: `DIR/world.key` is open to group or others"),
            ("api.pem", 0o644, "junk", "api.certificate: `DIR/api.pem`: no PEM certificate in it"),
            ("node1.key", 0o600, "junk", "peer.key: not a PEM private key"),
            ("ca.pem", 0o644, "junk", "peer.ca: no PEM certificate in it"),
            ("ca.pem", 0o644, "other", "peer.certificate: not issued by an authority of peer.ca"),
        ];
        for (name, mode, content, want) in cases {
            let site = Site::new();
            let content = match content {
                "" => fs::read_to_string(site.dir.path().join(name)).unwrap(),
                "other" => pki::Authority::create("test").unwrap().certificate_pem().to_owned(),
                other => other.to_owned(),
            };
            site.write(name, mode, &content);
            let told = site.check(GOOD).unwrap_err();
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(told.starts_with(want), "{name}: {told}");
        }
    }

    #[test]
    fn certificates_are_compared_with_the_clock() {
        let site = Site::new();
        for (year, want) in [(1.0, "not valid yet"), (70.0, "expired")] {
            let mut reader = Reader::new(GOOD, site.dir.path()).unwrap();
            reader.config().unwrap();
            reader.check_files(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs_f64(year * 31_556_952.0));
            let told = lines(&reader.problems);
            for path in ["api.certificate", "peer.certificate"] {
                assert!(told.contains(&format!("{path}: {want}")), "{told}");
            }
            assert_eq!(reader.problems.len(), 2, "{told}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        for good in ["node1:1", "Node1.example.com:65535", "10.0.0.1:8444", "[::1]:8444"] {
            assert!(HostPort::parse(good).is_some(), "{good}");
        }
        for bad in
            ["", "node1", "node1:", ":1", "node1:0", "node1:65536", "node1:+1", "::1:8444", "a b:1", "http://a:1"]
        {
            assert!(HostPort::parse(bad).is_none(), "{bad}");
        }
    }
}

//! Every field: name, default, unit and consequence.

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

pub(super) const SECTIONS: &[(&str, &str)] = &[
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
pub(super) enum Need {
    Required,
    Default,
    Optional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Node,
    Cluster,
    /// Looked at once, when the cluster is made.
    New,
}

/// A field: its path, whether it must be there, whether it must be the same on all nodes, its default (or an example)
/// in TOML, and its documentation.
pub(super) struct Field {
    pub(super) path: &'static str,
    pub(super) need: Need,
    pub(super) scope: Scope,
    pub(super) value: &'static str,
    pub(super) about: &'static str,
}

impl Field {
    pub(super) fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
}

const fn field(path: &'static str, need: Need, scope: Scope, value: &'static str, about: &'static str) -> Field {
    Field { path, need, scope, value, about }
}

pub(super) const FIELDS: &[Field] = &[
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

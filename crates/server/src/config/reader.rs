//! From TOML to the tree, noting all that is wrong on the way.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use claviger_types::name::Id128;
use claviger_types::reads::{ReadMode, ReadTiming};
use toml::{Table, Value};

use super::fields::{Field, Need, FIELDS, SECTIONS};
use super::tree::{
    AdminSection, ApiSection, AttestationSection, AuthorityFile, Config, EmergencySection, HostPort, IdentitySection,
    LogFormat, LogSection, ManagedIdentitySection, NodeSection, PeerSection, RaftSection, ReadSection, WorldSection,
};
use super::Problem;
use crate::issuers;
use crate::world::{PassphraseSource, Unseal};

pub(crate) const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Reads fields one by one and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) table: Table,
    pub(super) base: &'a Path,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &str, base: &'a Path) -> Result<Self, Problem> {
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
    pub(super) fn read<T>(&mut self, path: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
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

    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        let base = self.base;
        self.read(path, |value| match text(value)? {
            "" => Err("an empty path".to_owned()),
            relative => Ok(base.join(relative)),
        })
    }

    /// A list, each of whose elements has a problem of its own.
    fn list<T>(&mut self, path: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<Vec<T>> {
        let values = self.read(path, |value| match value {
            Value::Array(values) => Ok(values.clone()),
            other => Err(format!("not a list: {}", shown(other))),
        })?;
        let before = self.problems.len();
        let mut found = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            match parse(value) {
                Ok(element) => found.push(element),
                Err(message) => self.problem(&format!("{path}[{i}]"), message),
            }
        }
        (self.problems.len() == before).then_some(found)
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
    pub(super) fn config(&mut self) -> Option<Config> {
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

    pub(super) fn domain(&mut self) -> Option<String> {
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
        let seeds = self.list("peer.seeds", host_port);
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
        let user = self.list("managed_identity.user", client_id);
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
        let authorities = self.list("attestation.authorities", |value| {
            let named = AuthorityFile::parse(text(value)?)?;
            let jwks = base.join(&named.jwks);
            let bytes = std::fs::read(&jwks).map_err(|error| format!("cannot read `{}`: {error}", jwks.display()))?;
            claviger_api::attestation::Authority::from_jwks(&named.issuer, &bytes)
                .map_err(|why| format!("`{}`: {why}", jwks.display()))?;
            Ok(AuthorityFile { jwks, ..named })
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
        let approvers = self.list("emergency.approvers", |value| {
            let one = EmergencySection { approvers: vec![base.join(text(value)?)] };
            one.load().map_err(|error| error.to_string())?;
            Ok(one.approvers)
        });
        Some(EmergencySection { approvers: approvers?.concat() })
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
pub(super) fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A vault's name of 24 characters and `.vault.` come in front; the whole may have 253.
    name.len() <= 220 && name.split('.').all(label) && name.parse::<IpAddr>().is_err()
}

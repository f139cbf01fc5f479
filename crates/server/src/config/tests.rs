use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::fields::{Field, Need, FIELDS, SECTIONS};
use super::tree::HostPort;
use super::*;
use crate::pki;
use crate::world::{self, PassphraseSource, Protection, Unseal};
use claviger_types::reads::ReadMode;

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
        world::create(&site.dir.path().join("world.key"), "local", &Protection::File).unwrap();
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
    let with =
        |text: String, field: &Field| text.replace(&format!("# {} = ", field.name()), &format!("{} = ", field.name()));
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
        include_str!("../../../../cluster-config/single-node.toml"),
        include_str!("../../../../cluster-config/three-nodes/node1.toml"),
        include_str!("../../../../cluster-config/three-nodes/node2.toml"),
        include_str!("../../../../cluster-config/three-nodes/node3.toml"),
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
    let text = include_str!("../../golden/config-bad.toml");
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
        ("[peer]", "[peer]\nseeds = [\"a:1\", \"b\"]", "peer.seeds[1]: not a host and port such as `node1.example.com"),
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
            "managed_identity.user[0]: not a client id (a GUID): `x`",
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
        ("[peer]", "[read]\nmode = \"stale\"\n[peer]", "read.mode: a read mode is `lease`, `read_index` or `bounded`"),
        ("[peer]", "[read]\nlease_ms = 20\n[peer]", "read.lease_ms: "),
        ("[peer]", "[read]\neps_ms = 600\n[peer]", "read.eps_ms: eps is 1 ms to a quarter of the lease"),
        ("[peer]", "[log]\nlevel = \"loud\"\n[peer]", "log.level: not `error` or `warn` or"),
        ("[api]", "unseal = \"tpm\"\n[api]", "world.unseal: not `file` or `passphrase`: `tpm`"),
        ("[api]", "passphrase_env = \"P\"\n[api]", "world.passphrase_env: only for world.unseal"),
        ("[api]", "unseal = \"passphrase\"\npassphrase_env = \"A B\"\n[api]", "world.passphrase_env: not a variable"),
        (
            "[api]",
            "unseal = \"passphrase\"\npassphrase_env = \"P\"\npassphrase_fd = 3\n[api]",
            "world.passphrase_fd: one source is enough, and world.passphrase_env is given too",
        ),
        ("\"node1\"", "\"node2\"", "peer.certificate: not for `node2`"),
        ("\"node1.key\"", "\"api.key\"", "peer.key: not the key of peer.certificate"),
        ("\"node1.pem\"", "\"api.pem\"", "peer.certificate: its extended key usage is not for a server and a client"),
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
fn the_world_key_file_is_one_and_of_the_form_that_is_said() {
    let site = Site::new();
    site.check(GOOD).unwrap();
    let told = site.check(&GOOD.replace("\"world.key\"", "\"world.key\"\nunseal = \"passphrase\"")).unwrap_err();
    assert!(told.contains("world.unseal: `passphrase`, but world.file has its key in the clear"), "{told}");
    let told = site.check(&GOOD.replace("\"world.key\"", "\"node1.key\"")).unwrap_err();
    assert!(told.contains("world.file: not a world key file"), "{told}");
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
    for bad in ["", "node1", "node1:", ":1", "node1:0", "node1:65536", "node1:+1", "::1:8444", "a b:1", "http://a:1"] {
        assert!(HostPort::parse(bad).is_none(), "{bad}");
    }
}

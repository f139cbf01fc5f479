//! The files that a configuration names.

use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::reader::{text, Reader};
use super::Problem;
use crate::{harden, pki, world};

impl Reader<'_> {
    /// The files that could be told from what was read, whether or not the rest of it is right.
    pub(super) fn check_files(&mut self, now: SystemTime) {
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
            let sealed = found.private("world.file", &path).and_then(|bytes| {
                let form = world::is_under_passphrase(&bytes);
                form.map_err(|error| found.problem("world.file", format!("{error:#}"))).ok()
            });
            let unseal = again.read("world.unseal", |value| text(value).map(str::to_owned));
            match (sealed, unseal.as_deref()) {
                (Some(true), Some("file")) => {
                    found.problem("world.unseal", "`file`, but world.file is sealed under a passphrase: `passphrase`");
                }
                (Some(false), Some("passphrase")) => {
                    found.problem("world.unseal", "`passphrase`, but world.file has its key in the clear: `file`");
                }
                _ => {}
            }
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
    fn private(&mut self, path: &str, file: &Path) -> Option<Zeroizing<Vec<u8>>> {
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

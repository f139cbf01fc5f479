//! The world key file: what a security world is called, and the key at the root of its hierarchy.
//!
//! A small TOML text, so that an operator can see which world a file belongs to, print it and lock it away. It holds
//! the key in the clear (`file`: then the file's mode and place are all the protection there is) or sealed under a
//! passphrase (`passphrase`: Argon2id, see `claviger_crypto::seal::passphrase_key`). It is kept apart from the data: a
//! stolen disk with both is a stolen world. It is written once, never changed in place, never overwritten.
//!
//! World and region are bound to the key: as associated data of the sealed form, and through the check value of the
//! clear one. A file that was edited or damaged does not open, rather than opening as a key that fits nothing.
//!
//! The format number is read before anything else; format 1 is pinned by the files in `golden/`.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use claviger_crypto::random;
use claviger_crypto::seal::{passphrase_key, Aad, SealKey};
use claviger_crypto::secret::SecretBytes;
use claviger_types::name::Id128;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::harden;

const FORMAT: i64 = 1;

/// A stolen file can be guessed at without limit, and Argon2id only makes each guess dear: below this the passphrase is
/// the weakest part. Asked of new passphrases only.
const PASSPHRASE_BYTES_MIN: usize = 12;
/// Nobody types more; a larger "passphrase" is the wrong file.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// A region's name is shown in tables and goes into log lines and metrics.
const REGION_BYTES_MAX: usize = 32;

const HEADER: &str = "\
# The world key of a Claviger world. Whoever has it can open every key and secret of it, and nobody can without it.
# Keep one copy offline; keep this one apart from the data and readable by the server's user alone.
";

/// An open security world.
#[derive(Debug)]
pub(crate) struct World {
    /// The id, bound to every sealed record.
    pub(crate) id: Id128,
    /// The region's name, for people.
    pub(crate) region: String,
    /// The root of the key hierarchy.
    pub(crate) key: SealKey,
}

/// How a new world key is kept.
#[derive(Debug)]
pub(crate) enum Protection {
    /// In the clear, in a file that only its owner can read.
    File,
    /// Sealed under this passphrase.
    Passphrase(SecretBytes),
}

/// How an existing world key is opened. Said by the configuration and compared with the file, so that a clear key put
/// in a sealed one's place does not go unnoticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unseal {
    /// The file holds it.
    File,
    /// A passphrase opens it.
    Passphrase(PassphraseSource),
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PassphraseSource {
    /// An environment variable of this name. It stays readable to root in `/proc`; prefer the others.
    Env(String),
    /// The first line of a file that only its owner can read.
    File(PathBuf),
    /// The first line of an open file descriptor, as service managers and shells pass secrets. Not a socket.
    Descriptor(u32),
    /// Standard input: asked for without echo at a terminal, its first line otherwise.
    Stdin,
}

/// Makes a new world: a random id, a random key, and the file at `path`, which must not exist.
pub(crate) fn create(path: &Path, region: &str, protection: &Protection) -> Result<World> {
    ensure!(
        is_region(region),
        "`{region}` is not a region's name: 1 to {REGION_BYTES_MAX} of a-z, 0-9 and `-`, a letter first"
    );
    let world =
        World { id: Id128::from_random(random::bytes()?), region: region.to_owned(), key: SealKey::generate()? };
    harden::write_new(path, 0o600, WorldFile::protect(&world, protection)?.render().as_bytes())?;
    Ok(world)
}

/// Whether the key in a world key file is sealed under a passphrase; an error if the file is none.
pub(crate) fn is_under_passphrase(bytes: &[u8]) -> Result<bool> {
    let file = std::str::from_utf8(bytes).context("not a world key file: not text").and_then(WorldFile::parse)?;
    Ok(matches!(file.protected, Protected::Passphrase { .. }))
}

impl World {
    /// Opens the world key of the file at `path`.
    pub(crate) fn open(path: &Path, unseal: &Unseal) -> Result<World> {
        let bytes = harden::read_private(path)?;
        std::str::from_utf8(&bytes)
            .context("not text")
            .and_then(WorldFile::parse)
            .and_then(|file| file.unseal(unseal))
            .with_context(|| format!("cannot open the world key `{}`", path.display()))
    }
}

impl PassphraseSource {
    /// The passphrase of an existing world.
    pub(crate) fn read(&self) -> Result<SecretBytes> {
        let line = match self {
            Self::Env(name) => first_line(
                std::env::var_os(name)
                    .with_context(|| format!("the environment variable `{name}` with the passphrase is not set"))?
                    .as_bytes(),
            ),
            Self::File(path) => first_line(harden::read_private(path)?.as_slice()),
            Self::Descriptor(number) => {
                let path = format!("/dev/fd/{number}");
                let open = || format!("cannot read the passphrase from file descriptor {number}");
                first_line(File::open(path).with_context(open)?)
            }
            Self::Stdin if io::stdin().is_terminal() => prompt("passphrase of the world key: "),
            Self::Stdin => first_line(io::stdin().lock()),
        }?;
        ensure!(!line.is_empty(), "the passphrase is empty");
        Ok(line)
    }

    /// A passphrase for a new world: of a least length, and asked for twice at a terminal.
    pub(crate) fn read_new(&self) -> Result<SecretBytes> {
        let passphrase = self.read()?;
        check_new(&passphrase)?;
        if *self == Self::Stdin && io::stdin().is_terminal() {
            let again = prompt("the same again: ")?;
            ensure!(again.expose() == passphrase.expose(), "the two passphrases differ");
        }
        Ok(passphrase)
    }
}

/// 1 to 32 of `[a-z0-9-]`, a letter first.
pub(crate) fn is_region(name: &str) -> bool {
    (1..=REGION_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The file's content, checked for form but not yet opened.
struct WorldFile {
    id: Id128,
    region: String,
    key_id: [u8; 16],
    protected: Protected,
}

enum Protected {
    File { key: SecretBytes, check: [u8; 16] },
    Passphrase { salt: [u8; 16], sealed: Vec<u8> },
}

/// The fields as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "format")]
    _format: i64,
    world: String,
    region: String,
    key_id: String,
    provider: String,
    key: Option<String>,
    check: Option<String>,
    salt: Option<String>,
    sealed: Option<String>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: i64,
}

impl WorldFile {
    fn protect(world: &World, protection: &Protection) -> Result<Self> {
        let key_id = world.key.id();
        let protected = match protection {
            Protection::File => Protected::File {
                key: SecretBytes::new(world.key.expose().to_vec()),
                check: check_value(&world.key, world.id, &world.region)?,
            },
            Protection::Passphrase(passphrase) => {
                check_new(passphrase)?;
                let salt = random::bytes()?;
                let aad = binding(world.id, &world.region, key_id);
                Protected::Passphrase {
                    salt,
                    sealed: passphrase_key(passphrase, &salt)?.seal(&aad, world.key.expose())?,
                }
            }
        };
        Ok(Self { id: world.id, region: world.region.clone(), key_id, protected })
    }

    fn unseal(self, unseal: &Unseal) -> Result<World> {
        let Self { id, region, key_id, protected } = self;
        let key = match (protected, unseal) {
            (Protected::File { key, check }, Unseal::File) => {
                let key = SealKey::from_parts(key_id, key).ok().context("`key` is not 32 bytes")?;
                ensure!(check_value(&key, id, &region)? == check, "its fields do not belong together: it was changed");
                key
            }
            (Protected::Passphrase { salt, sealed }, Unseal::Passphrase(source)) => {
                let key = passphrase_key(&source.read()?, &salt)?
                    .open(&binding(id, &region, key_id), &sealed)
                    .ok()
                    .context("the passphrase is wrong, or the file was changed")?;
                SealKey::from_parts(key_id, key).ok().context("the sealed key is not 32 bytes")?
            }
            (Protected::File { .. }, Unseal::Passphrase(_)) => {
                bail!("it holds the key in the clear, but a passphrase was asked for: is it the right file?")
            }
            (Protected::Passphrase { .. }, Unseal::File) => {
                bail!("it is sealed under a passphrase: say where the passphrase comes from")
            }
        };
        Ok(World { id, region, key })
    }

    fn parse(text: &str) -> Result<Self> {
        // A parser's own message quotes the line it stumbles over, and that line may be the key.
        let form = "not a world key file of format 1";
        let FormatOnly { format } = toml::from_str(text).ok().context("not a world key file: it has no `format`")?;
        ensure!(format == FORMAT, "its format is {format}, and this version of claviger knows format {FORMAT} only");
        let raw: Raw = toml::from_str(text).map_err(|error| quiet(&error)).context(form)?;
        ensure!(is_region(&raw.region), "`region` is malformed");
        let protected = match (raw.provider.as_str(), &raw.key, &raw.check, &raw.salt, &raw.sealed) {
            ("file", Some(key), Some(check), None, None) => Protected::File {
                key: SecretBytes::new(BASE64.decode(key).ok().context("`key` is not base64")?),
                check: hex16("check", check)?,
            },
            ("passphrase", None, None, Some(salt), Some(sealed)) => Protected::Passphrase {
                salt: hex16("salt", salt)?,
                sealed: BASE64.decode(sealed).ok().context("`sealed` is not base64")?,
            },
            ("file", ..) => bail!("provider `file` has the fields `key` and `check`"),
            ("passphrase", ..) => bail!("provider `passphrase` has the fields `salt` and `sealed`"),
            (other, ..) => bail!("unknown provider `{other}`"),
        };
        let id = Id128::parse_guid(&raw.world).ok().context("`world` is not a GUID")?;
        Ok(Self { id, region: raw.region.clone(), key_id: hex16("key_id", &raw.key_id)?, protected })
    }

    /// Written by hand, not by a serializer, which would leave copies of the key in memory; no value needs escaping.
    fn render(&self) -> Zeroizing<String> {
        // Room for the longest from the start, for the same reason.
        let mut text = Zeroizing::new(String::with_capacity(2048));
        text.push_str(HEADER);
        text.push_str(&format!("format = {FORMAT}\n"));
        let mut line = |name: &str, value: &str| {
            for part in [name, " = \"", value, "\"\n"] {
                text.push_str(part);
            }
        };
        line("world", &self.id.guid());
        line("region", &self.region);
        line("key_id", &Id128(self.key_id).hex());
        match &self.protected {
            Protected::File { key, check } => {
                line("provider", "file");
                line("key", &Zeroizing::new(BASE64.encode(key.expose())));
                line("check", &Id128(*check).hex());
            }
            Protected::Passphrase { salt, sealed } => {
                line("provider", "passphrase");
                line("salt", &Id128(*salt).hex());
                line("sealed", &BASE64.encode(sealed));
            }
        }
        text
    }
}

/// What the sealed key is bound to.
fn binding(id: Id128, region: &str, key_id: [u8; 16]) -> Aad {
    Aad::new("claviger world key v1").field("world", &id.0).field("region", region.as_bytes()).field("key id", &key_id)
}

/// Tells a key that was written with this id, world and region from any other. Derived from the key for this alone.
fn check_value(key: &SealKey, id: Id128, region: &str) -> Result<[u8; 16]> {
    let derived = key.derive("world file check", binding(id, region, key.id()).as_bytes())?;
    let mut check = [0u8; 16];
    for (to, from) in check.iter_mut().zip(derived.expose()) {
        *to = *from;
    }
    Ok(check)
}

fn hex16(field: &str, text: &str) -> Result<[u8; 16]> {
    Ok(Id128::parse_hex(text).ok().with_context(|| format!("`{field}` is not 32 hex digits"))?.0)
}

/// The parser's message without the line of the file.
fn quiet(error: &toml::de::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", error.message())
}

fn check_new(passphrase: &SecretBytes) -> Result<()> {
    ensure!(passphrase.len() >= PASSPHRASE_BYTES_MIN, "the passphrase has less than {PASSPHRASE_BYTES_MIN} bytes");
    Ok(())
}

/// The first line without its end, byte by byte into room of fixed size, so that no copy stays behind here.
fn first_line(mut from: impl Read) -> Result<SecretBytes> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 1));
    let mut byte = Zeroizing::new([0u8; 1]);
    loop {
        match from.read(byte.as_mut_slice()) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the passphrase"),
        }
        ensure!(line.len() <= PASSPHRASE_BYTES_MAX, "the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes");
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(SecretBytes::new(std::mem::take(&mut *line)))
}

/// Asks at the terminal without echo. If the process is killed meanwhile, the shell puts the terminal right again.
fn prompt(text: &str) -> Result<SecretBytes> {
    let mut stderr = io::stderr();
    let say = |stderr: &mut io::Stderr, text: &str| stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    let quiet = Quiet::begin().context("cannot switch off the terminal's echo")?;
    say(&mut stderr, text)?;
    let line = first_line(io::stdin().lock());
    drop(quiet);
    say(&mut stderr, "\n")?;
    line
}

/// Standard input's terminal without echo, until dropped.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        use rustix::termios::{tcgetattr, tcsetattr, LocalModes, OptionalActions};
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let now = rustix::termios::OptionalActions::Now;
        // Nothing to do about a failure.
        let _ = rustix::termios::tcsetattr(io::stdin(), now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const CLEAR: &str = include_str!("../golden/world-file-v1.toml");
    const SEALED: &str = include_str!("../golden/world-passphrase-v1.toml");
    const PASSPHRASE: &str = "correct horse battery staple";

    /// The world in both golden files.
    fn golden_world() -> World {
        let key = SealKey::from_parts([0x11; 16], SecretBytes::new((0..32).collect())).unwrap();
        let id = Id128::parse_guid("00482a5a-887f-4fb3-b363-3b7fe8e74483").unwrap();
        World { id, region: "test-1".to_owned(), key }
    }

    fn same(a: &World, b: &World) -> bool {
        (a.id, &a.region, a.key.id(), a.key.expose()) == (b.id, &b.region, b.key.id(), b.key.expose())
    }

    fn private(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        harden::write_new(&path, 0o600, text.as_bytes()).unwrap();
        path
    }

    fn chain(error: &anyhow::Error) -> String {
        format!("{error:#}")
    }

    #[test]
    fn golden_clear_file_is_written_and_read() {
        let file = WorldFile::protect(&golden_world(), &Protection::File).unwrap();
        assert_eq!(file.render().as_str(), CLEAR);
        let world = WorldFile::parse(CLEAR).unwrap().unseal(&Unseal::File).unwrap();
        assert!(same(&world, &golden_world()));
    }

    /// Sealing draws a salt, so the bytes are pinned by opening them and by writing them again unopened.
    #[test]
    fn golden_sealed_file_is_read_and_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let source = PassphraseSource::File(private(&dir, "passphrase", PASSPHRASE));
        assert_eq!(WorldFile::parse(SEALED).unwrap().render().as_str(), SEALED);
        let world = WorldFile::parse(SEALED).unwrap().unseal(&Unseal::Passphrase(source)).unwrap();
        assert!(same(&world, &golden_world()));
    }

    #[test]
    fn a_world_is_created_once_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("world.key");
        let made = create(&path, "local", &Protection::File).unwrap();
        assert!(same(&World::open(&path, &Unseal::File).unwrap(), &made));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = create(&path, "local", &Protection::File).unwrap_err();
        assert!(chain(&error).contains("never overwritten"), "{error:#}");
        assert!(same(&World::open(&path, &Unseal::File).unwrap(), &made));
    }

    #[test]
    fn a_passphrase_opens_and_another_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("world.key");
        let right = PassphraseSource::File(private(&dir, "right", &format!("{PASSPHRASE}\r\nrest\n")));
        let wrong = PassphraseSource::File(private(&dir, "wrong", "correct horse battery stable\n"));
        let made = create(&path, "local", &Protection::Passphrase(right.read_new().unwrap())).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(&BASE64.encode(made.key.expose())));
        assert!(same(&World::open(&path, &Unseal::Passphrase(right)).unwrap(), &made));
        let error = World::open(&path, &Unseal::Passphrase(wrong)).unwrap_err();
        assert!(chain(&error).contains("passphrase is wrong"), "{error:#}");
        let error = World::open(&path, &Unseal::File).unwrap_err();
        assert!(chain(&error).contains("sealed under a passphrase"), "{error:#}");
    }

    #[test]
    fn an_open_file_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = private(&dir, "world.key", CLEAR);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = World::open(&path, &Unseal::File).unwrap_err();
        assert!(chain(&error).contains(&format!("run `chmod 600 {}`", path.display())), "{error:#}");
    }

    #[test]
    fn changed_files_do_not_open_and_errors_do_not_show_the_key() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let cases = [
            ("test-1", "test-2", "do not belong together"),
            ("00482a5a", "00482a5b", "do not belong together"),
            ("AAECAw", "AAECBw", "do not belong together"),
            ("11111111\"", "11111112\"", "do not belong together"),
            ("Hh8=", "Hg==", "32 bytes"),
            ("format = 1", "format = 2", "its format is 2"),
            ("format = 1\n", "", "no `format`"),
            ("\"file\"", "\"tpm\"", "unknown provider `tpm`"),
            ("\"file\"", "\"passphrase\"", "`salt` and `sealed`"),
            ("check", "chekc", "unknown field `chekc`"),
            ("Hh8=", "Hh8=!", "not base64"),
            ("key = ", "key ", "no `format`"),
        ];
        assert!(CLEAR.contains(key));
        for (from, to, want) in cases {
            let text = CLEAR.replacen(from, to, 1);
            assert_ne!(text, CLEAR, "{from}");
            let error = WorldFile::parse(&text).and_then(|file| file.unseal(&Unseal::File)).unwrap_err();
            let shown = format!("{error:#} {error:?}");
            assert!(shown.contains(want), "{from} -> {to}: {shown}");
            assert!(!shown.contains(&key[..12]), "the key is in the message: {shown}");
        }
    }

    #[test]
    fn passphrases_come_from_everywhere_and_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = private(&dir, "passphrase", "some passphrase\n");
        let open = File::open(&path).unwrap();
        let number = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&open)).unwrap();
        assert_eq!(PassphraseSource::Descriptor(number).read().unwrap().expose(), b"some passphrase");
        // The one variable that every process of a test has.
        let from_env = PassphraseSource::Env("PATH".to_owned()).read().unwrap();
        assert_eq!(from_env.expose(), std::env::var_os("PATH").unwrap().as_bytes());

        let refusals = [
            (PassphraseSource::Env("CLAVIGER_TEST_UNSET".to_owned()), "`CLAVIGER_TEST_UNSET`"),
            (PassphraseSource::File(private(&dir, "empty", "\nsecond line")), "is empty"),
            (PassphraseSource::File(private(&dir, "short", "hunter2hunt\n")), "less than 12 bytes"),
            (PassphraseSource::File(private(&dir, "long", &"x".repeat(1025))), "longer than 1024 bytes"),
            (PassphraseSource::Descriptor(9999), "file descriptor 9999"),
        ];
        for (source, want) in refusals {
            let error = source.read_new().unwrap_err();
            assert!(chain(&error).contains(want), "{source:?}: {error:#}");
        }
    }

    #[test]
    fn region_names() {
        for good in ["a", "local", "eu-west-1", &"a".repeat(32)] {
            assert!(is_region(good), "{good}");
        }
        for bad in ["", "1a", "-a", "Local", "a_b", "a\"b", "ü", &"a".repeat(33)] {
            assert!(!is_region(bad), "{bad}");
        }
    }
}

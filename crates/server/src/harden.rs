//! What the process does for its own safety: no core dumps, no tracing by others, files private from the start, one
//! process per data directory; and the two ways in which private files are read and written.
//!
//! Everything here goes through `std` and `rustix`, so no `unsafe`. Memory is not locked: that needs a limit that most
//! systems do not grant, and swap is the operator's to encrypt or to switch off (`docs/security.md`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use zeroize::Zeroizing;

/// Permission bits that let anyone but the owner at a file.
const OTHERS: u32 = 0o077;

/// Largest private file that is read: a key, a certificate chain or a passphrase is a few KiB, and whoever points us at
/// a disk image should get an error and not a full memory.
const PRIVATE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Hardens this process: call it first in `main`, before threads are started (threads inherit `no_new_privs`; threads
/// that already run do not get it). Not for `claviger exec`, for children inherit the limits too.
///
/// - core size 0 and not dumpable: a crash writes no keys to disk, and no process of the same user reads our memory or
///   environment in `/proc`;
/// - umask 077: a file that somebody forgets to restrict is private;
/// - `no_new_privs`: nothing started from here gains rights through setuid.
pub(crate) fn process() -> Result<()> {
    use rustix::process::{setrlimit, umask, Resource, Rlimit};
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("cannot switch off core dumps")?;
    linux_only()
}

#[cfg(target_os = "linux")]
fn linux_only() -> Result<()> {
    use rustix::process::{set_dumpable_behavior, DumpableBehavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot make the process not dumpable")?;
    rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")
}

#[cfg(not(target_os = "linux"))]
fn linux_only() -> Result<()> {
    Ok(())
}

/// Holds a data directory for this process; dropping it lets go, and so does dying, however that happens.
///
/// The lock is `flock` on `DIR/LOCK`. Databases belong below `DIR`, not into it: RocksDB has a `LOCK` of its own.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

impl DirLock {
    /// Takes the directory, which must exist, or says which process has it.
    pub(crate) fn acquire(dir: &Path) -> Result<Self> {
        let path = dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "the data directory `{}` is in use by {}: stop it first, or give this one a directory of its own",
                dir.display(),
                holder(&mut file)
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock `{}`", path.display()))
            }
        }
        // For the message above only; the lock is what counts.
        file.set_len(0)
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self { file })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing would do, but for a child that was just forked and still shares the open file until it execs.
        let _ = self.file.unlock();
    }
}

/// `process 4711`, or less if the file does not say: its holder may be just about to write it.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

/// Makes a directory (and those above it) that only we can enter. One that is there already keeps its mode.
pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create the directory `{}`", dir.display()))
}

/// Reads a file that must be its owner's alone, and refuses one that group or others have any right to.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    // The open file is asked, not the path, so the answer is about the bytes that are read.
    let metadata = file.metadata().with_context(|| format!("cannot inspect `{}`", path.display()))?;
    check_privacy(path, &file, &metadata)?;
    // Enough room from the start: a growing vector leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(PRIVATE_FILE_BYTES_MAX) as usize + 1));
    file.take(PRIVATE_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    if bytes.len() as u64 > PRIVATE_FILE_BYTES_MAX {
        bail!("`{}` is larger than {PRIVATE_FILE_BYTES_MAX} bytes, so it is not a key", path.display());
    }
    Ok(bytes)
}

/// Refuses what is not a private regular file, with the command that mends it.
fn check_privacy(path: &Path, file: &File, metadata: &fs::Metadata) -> Result<()> {
    let path = path.display();
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        bail!("`{path}` is not a regular file");
    }
    if mode & OTHERS != 0 && !is_private_by_acl(file) {
        bail!("`{path}` is open to group or others (mode {mode:04o}): run `chmod 600 {path}`");
    }
    Ok(())
}

/// Whether an access control list, of which the mode then shows only the outline, lets nobody in but the owner and us.
/// systemd hands credentials to services that way: mode 0440, owned by root, readable by the service's user alone.
#[cfg(target_os = "linux")]
fn is_private_by_acl(file: &File) -> bool {
    // A version and a few entries; one that is larger is not of that kind.
    let mut acl = [0u8; 128];
    let us = rustix::process::geteuid().as_raw();
    match rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut acl) {
        Ok(length) => acl.get(..length).is_some_and(|acl| acl_is_private(acl, us)),
        Err(_) => false,
    }
}

#[cfg(not(target_os = "linux"))]
fn is_private_by_acl(_: &File) -> bool {
    false
}

/// Reads the attribute's form (`linux/posix_acl_xattr.h`): a version in 4 bytes, then entries of tag, permissions and id
/// in 2, 2 and 4 bytes, all little-endian.
#[cfg(target_os = "linux")]
fn acl_is_private(acl: &[u8], us: u32) -> bool {
    const VERSION: u32 = 2;
    const OWNER: u16 = 0x01;
    const USER: u16 = 0x02;
    const MASK: u16 = 0x10;
    let Some((version, entries)) = acl.split_first_chunk() else { return false };
    let entries = entries.chunks(8).map(|entry| <[u8; 8]>::try_from(entry).ok());
    u32::from_le_bytes(*version) == VERSION
        && entries.into_iter().all(|entry| {
            let Some([t0, t1, p0, p1, id @ ..]) = entry else { return false };
            let (permissions, id) = (u16::from_le_bytes([p0, p1]), u32::from_le_bytes(id));
            match u16::from_le_bytes([t0, t1]) {
                OWNER | MASK => true,
                USER => permissions == 0 || id == us,
                // The owning group, a named group, others, or something new.
                _ => permissions == 0,
            }
        })
}

/// Creates a file with all its bytes or not at all, durably, and never over an existing one.
///
/// The bytes go to a temporary file beside it, which is synced and then linked to its name: linking fails if the name
/// is taken, where renaming would replace.
pub(crate) fn write_new(path: &Path, mode: u32, contents: &[u8]) -> Result<()> {
    let what = || format!("cannot write `{}`", path.display());
    let name = path.file_name().with_context(|| format!("`{}` is not a file's name", path.display()))?;
    let dir = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", std::process::id()));
    let temporary = Temporary(dir.join(hidden));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.0).with_context(what)?;
    file.write_all(contents)
        // Set rather than only asked for in `open`, where the umask has a say.
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .with_context(what)?;
    match fs::hard_link(&temporary.0, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("`{}` is there already, and is never overwritten", path.display())
        }
        result => result.with_context(what)?,
    }
    drop(temporary);
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot sync `{}`", dir.display()))
}

/// A file's name that goes away with the value.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing to do about a failure; the file is private.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_the_second_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        let error = DirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        drop(first);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_longer_stale_pid_leaves_no_digits_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LOCK"), "99999999999\n").unwrap();
        let _lock = DirLock::acquire(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join("LOCK")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_new_file_is_whole_private_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new(&path, 0o600, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = write_new(&path, 0o600, b"second").unwrap_err().to_string();
        assert!(error.contains("never overwritten"), "{error}");
        assert_eq!(read_private(&path).unwrap().as_slice(), b"first");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["key"], "no temporary file may stay behind");
    }

    #[test]
    fn private_files_are_refused_when_they_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new(&path, 0o600, b"k").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{mode:o}: {error}");
        }
        let error = read_private(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    /// As `getfacl` would show `-r--r-----+ root`, `user:123:r--`.
    #[test]
    #[cfg(target_os = "linux")]
    fn access_control_lists_are_read() {
        const GROUP_OBJ: u16 = 0x04;
        const GROUP: u16 = 0x08;
        const OTHER: u16 = 0x20;
        let none = u32::MAX;
        let systemd = [(0x01, 4, none), (0x02, 4, 123), (GROUP_OBJ, 0, none), (0x10, 4, none), (OTHER, 0, none)];
        let acl = |entries: &[(u16, u16, u32)]| {
            let mut bytes = 2u32.to_le_bytes().to_vec();
            for (tag, permissions, id) in entries {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(permissions.to_le_bytes());
                bytes.extend(id.to_le_bytes());
            }
            bytes
        };
        assert!(acl_is_private(&acl(&systemd), 123));
        assert!(!acl_is_private(&acl(&systemd), 124), "somebody else's");
        for more in [(GROUP_OBJ, 4, none), (GROUP, 4, 5), (OTHER, 4, none), (0x02, 4, 124), (0x40, 1, none)] {
            assert!(!acl_is_private(&acl(&[&systemd[..], &[more]].concat()), 123), "{more:?}");
        }
        let whole = acl(&systemd);
        assert!(!acl_is_private(&whole[..whole.len() - 1], 123));
        assert!(!acl_is_private(&[], 123));
        assert!(!acl_is_private(&[3, 0, 0, 0], 123), "another version");
    }

    /// In a process of its own, for the limits could not be taken back in this one.
    #[test]
    #[cfg(target_os = "linux")]
    fn hardening_holds() {
        if std::env::var_os("CLAVIGER_TEST_HARDEN").is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", &format!("{}::hardening_holds", test_module())])
                .env("CLAVIGER_TEST_HARDEN", "1")
                .output()
                .unwrap();
            let output = String::from_utf8_lossy(&status.stdout);
            assert!(status.status.success() && output.contains("1 passed"), "{output}");
            return;
        }
        process().unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
        assert!(rustix::thread::no_new_privs().unwrap());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(fs::metadata(dir.path().join("file")).unwrap().mode() & 0o777, 0o600);
    }

    /// This module's path as the test runner names it: without the crate.
    #[cfg(target_os = "linux")]
    fn test_module() -> &'static str {
        module_path!().split_once("::").unwrap().1
    }
}

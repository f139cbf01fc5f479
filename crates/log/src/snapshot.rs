//! Snapshots: a RocksDB checkpoint (hard links) in a folder of its own, streamed file by file.

use crate::{other, sync_dir, SnapshotMeta, RAFT_FORMAT};
use claviger_types::codec;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// File beside the checkpoint that says what it holds up to.
const META: &str = "CLAVIGER-SNAPSHOT";

/// Largest number of files in a snapshot that is accepted: RocksDB makes a few hundred for a hundred gigabytes.
const FILES_MAX: usize = 100_000;

/// A folder with a checkpoint. The folder belongs to the store; dropping this value removes nothing, but while one that the
/// store gave out lives, newer snapshots leave its folder alone: a transfer may take longer than the next snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotDir {
    /// The folder.
    pub path: PathBuf,
    lease: Arc<()>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHandle {
    /// Name inside the folder.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
}

impl SnapshotDir {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, lease: Arc::new(()) }
    }

    /// Whether clones of this value live.
    pub(crate) fn is_lent(&self) -> bool {
        Arc::strong_count(&self.lease) > 1
    }

    /// The snapshot's files, in order of name, without RocksDB's lock and text logs.
    pub fn files(&self) -> io::Result<Vec<FileHandle>> {
        let mut files = Vec::new();
        for item in fs::read_dir(&self.path)? {
            let item = item?;
            if item.file_type()?.is_file() {
                let name = item.file_name().into_string().map_err(|_| other("snapshot file name is not UTF-8"))?;
                if name == "LOCK" || name == "LOG" || name.starts_with("LOG.old") {
                    continue;
                }
                files.push(FileHandle { name, len: item.metadata()?.len() });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Reads at most `max` bytes of a file from `offset`.
    pub fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(name)?)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Starts an empty folder to receive into.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self::at(path))
    }

    /// Appends received bytes to a file; `offset` must be its present length.
    pub fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(name)?;
        if offset == 0 && fs::read_dir(&self.path)?.count() >= FILES_MAX {
            return Err(other("too many files in a snapshot"));
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() != offset {
            return Err(other("snapshot bytes arrived out of order"));
        }
        file.write_all(bytes)
    }

    /// Makes everything received durable.
    pub fn sync(&self) -> io::Result<()> {
        for file in self.files()? {
            File::open(self.file(&file.name)?)?.sync_all()?;
        }
        sync_dir(&self.path)
    }

    pub(crate) fn write_meta(&self, meta: &SnapshotMeta) -> io::Result<()> {
        let value = (meta.last_log_id, &meta.last_membership);
        let mut file = File::create(self.path.join(META))?;
        file.write_all(&codec::to_versioned(RAFT_FORMAT, &value).map_err(other)?)?;
        file.sync_all()
    }

    pub(crate) fn read_meta(&self) -> io::Result<SnapshotMeta> {
        let bytes = fs::read(self.path.join(META))?;
        let (last_log_id, last_membership) = codec::from_versioned(RAFT_FORMAT, &bytes).map_err(other)?;
        Ok(SnapshotMeta { last_log_id, last_membership })
    }

    /// A copy that may be opened and changed: table files are immutable and linked, the rest is copied.
    pub(crate) fn clone_into(&self, target: &Path) -> io::Result<()> {
        fs::create_dir_all(target)?;
        for file in self.files()? {
            let (from, to) = (self.file(&file.name)?, target.join(&file.name));
            if file.name == META {
                continue;
            }
            if !file.name.ends_with(".sst") || fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to)?;
                File::open(&to)?.sync_all()?;
            }
        }
        sync_dir(target)
    }

    /// The path of a file, refusing anything that is not a plain name: a peer's bytes never choose a place outside.
    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(plain)), None) if plain == name => Ok(self.path.join(name)),
            _ => Err(other("a snapshot's file name must be plain")),
        }
    }
}

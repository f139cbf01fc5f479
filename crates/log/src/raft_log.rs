//! The Raft log in RocksDB, with group commit.
//!
//! Appends go to the write-ahead log without a sync; one thread syncs whatever has gathered and then calls back, so a sync
//! (the costly part) is shared by all that wait. Votes and truncations are synced before they return. All of it shares one
//! write-ahead log, so that a sync covers everything written before it, in order: that is what openraft asks of log and
//! vote.
//!
//! After a failed sync nothing more is acknowledged: the page cache can no longer be trusted (fsync errors are reported
//! once), so the node has to stop and be started again.

use crate::{info_log, other, sync_dir, LogId, RaftEntry, TypeConfig, Vote, RAFT_FORMAT};
use claviger_lease::Fence;
use claviger_state_machine::{touches, ConflictKey};
use claviger_types::codec;
use claviger_types::command::{Command, Entry};
use claviger_types::name::Id128;
use futures::{stream, Stream};
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, Direction, IteratorMode, MultiThreaded, Options,
    WriteBatch,
};
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Db = DBWithThreadMode<MultiThreaded>;

const LOG: &str = "log";
const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";
const DISK: &[u8] = b"disk";
const OWNER: &[u8] = b"owner";

/// Preallocated write-ahead files are reused: a sync of one need not change the file's size (measured: 127 us against 190).
const WAL_FILES_KEPT: usize = 4;

/// Callbacks that may wait for one sync. openraft's own pipeline is far smaller; a full queue slows the appender down.
const SYNC_QUEUE: usize = 4096;

/// Entries whose parts are known one by one after a start (see [`Fence`]): more than can be on their way to a quorum.
const FENCED_AT_START: u64 = 1024;

/// Bytes of entries in memory at once when a long range is read: for a follower that is behind, and for applying.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The log of one node. Clones share it; when the last one goes, the sync thread has ended and the files are closed.
#[derive(Clone)]
pub struct RaftLog {
    inner: Arc<Inner>,
    appended: Arc<Appended>,
}

/// What is known of entries from the moment that they are appended: before they are durable, and before openraft tells.
pub struct Appended {
    fence: Arc<Fence>,
    /// Indexes of membership entries that were appended since the start and not truncated, ascending.
    memberships: Mutex<Vec<u64>>,
}

impl Appended {
    /// With the fence of what is in the log.
    pub fn new(fence: Fence) -> Self {
        Self { fence: Arc::new(fence), memberships: Mutex::default() }
    }

    /// Which parts of the state the newest entries touch.
    pub fn fence(&self) -> Arc<Fence> {
        self.fence.clone()
    }

    /// See [`RaftLog::membership_index`].
    pub fn membership_index(&self) -> u64 {
        self.memberships().last().copied().unwrap_or(0)
    }

    /// To be called before anything else is done with an entry: from here on a read knows of it.
    pub fn add(&self, entry: &RaftEntry) {
        self.fence.add(entry.log_id().index, touched_by(entry));
        if matches!(entry.payload, EntryPayload::Membership(_)) {
            self.memberships().push(entry.log_id().index);
        }
    }

    /// The entries after `last` were removed.
    pub fn truncate(&self, last: u64) {
        self.fence.truncate(last);
        self.memberships().retain(|at| *at <= last);
    }

    fn memberships(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.memberships.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Inner {
    disk: Arc<Disk>,
    queue: Option<mpsc::SyncSender<IOFlushed<TypeConfig>>>,
    thread: Option<JoinHandle<()>>,
}

struct Disk {
    db: Db,
    /// When the sync began that is under way.
    syncing: Mutex<Option<Instant>>,
    /// Held during a sync, so that no other sync can succeed between a failure and its being noted here.
    failed: Mutex<Option<String>>,
}

impl RaftLog {
    /// Opens or creates the log in `dir`.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_recycle_log_file_num(WAL_FILES_KEPT);
        options.set_max_total_wal_size(256 * 1024 * 1024);
        info_log(&mut options);
        let mut log_options = Options::default();
        log_options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        log_options.set_write_buffer_size(32 * 1024 * 1024);
        let families =
            [ColumnFamilyDescriptor::new("default", Options::default()), ColumnFamilyDescriptor::new(LOG, log_options)];
        let db = Db::open_cf_descriptors(&options, dir, families).map_err(other)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        let disk = Arc::new(Disk { db, syncing: Mutex::default(), failed: Mutex::new(None) });
        let appended = Arc::new(Appended::new(disk.fence()?));
        let (queue, receiver) = mpsc::sync_channel(SYNC_QUEUE);
        let for_thread = disk.clone();
        let thread = std::thread::Builder::new().name("log-sync".into()).spawn(move || {
            while let Ok(first) = receiver.recv() {
                let mut waiting: Vec<IOFlushed<TypeConfig>> = vec![first];
                waiting.extend(receiver.try_iter());
                let result = for_thread.sync();
                for callback in waiting {
                    callback.io_completed(result.as_ref().map(|_| ()).map_err(other));
                }
            }
        })?;
        Ok(Self { inner: Arc::new(Inner { disk, queue: Some(queue), thread: Some(thread) }), appended })
    }

    /// Which parts of the state the newest entries touch.
    pub fn fence(&self) -> Arc<Fence> {
        self.appended.fence()
    }

    /// What tells this log from any other that the same node may have had: `fresh`, the first time that it is asked.
    pub fn disk(&self, fresh: Id128) -> io::Result<Id128> {
        self.inner.disk.keep(DISK, fresh)
    }

    /// The node that this log is of: `node`, the first time that it is asked.
    pub fn owner(&self, node: u64) -> io::Result<u64> {
        self.inner.disk.keep(OWNER, node)
    }

    /// For how long the sync that is under way has been: a disk that hangs answers nothing, not even an error.
    pub fn stuck_for(&self) -> Duration {
        let since = *self.inner.disk.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Index of the newest membership entry that was appended since the start, 0 when there was none: known here before
    /// openraft tells of it.
    pub fn membership_index(&self) -> u64 {
        self.appended.membership_index()
    }

    /// Index of the last entry or, when all are purged, of the last purged one; `None` for a log that never held any.
    pub fn last_index(&self) -> io::Result<Option<u64>> {
        Ok(self.inner.disk.bounds()?.last_log_id.map(|id| id.index))
    }

    pub(crate) fn bounds(&self) -> io::Result<LogState<TypeConfig>> {
        self.inner.disk.bounds()
    }

    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        self.inner.disk.get(VOTE)
    }

    /// Runs something that waits for the disk where it does not hold up other tasks.
    async fn blocking(&self, work: impl FnOnce(&Disk) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let disk = self.inner.disk.clone();
        tokio::task::spawn_blocking(move || work(&disk)).await.map_err(other)?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the sync thread was reported where it happened, and closed the queue.
            thread.join().ok();
        }
    }
}

impl Disk {
    fn log(&self) -> io::Result<Arc<BoundColumnFamily<'_>>> {
        self.db.cf_handle(LOG).ok_or_else(|| other("column family `log` is missing"))
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let bytes = self.db.get(key).map_err(other)?;
        bytes.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)
    }

    /// What was said the first time.
    fn keep<T: DeserializeOwned + Serialize>(&self, key: &[u8], first: T) -> io::Result<T> {
        if let Some(known) = self.get(key)? {
            return Ok(known);
        }
        self.db.put(key, codec::to_versioned(RAFT_FORMAT, &first).map_err(other)?).map_err(other)?;
        self.sync()?;
        Ok(first)
    }

    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &*failed {
            return Err(other(error));
        }
        *self.syncing.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let synced = self.db.flush_wal(true);
        *self.syncing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        synced.map_err(|error| {
            tracing::error!(%error, "log sync failed; this node acknowledges nothing more");
            *failed = Some(error.to_string());
            other(error)
        })
    }

    fn bounds(&self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id = self.get::<LogId>(PURGED)?;
        let last_log_id = match self.db.iterator_cf(&self.log()?, IteratorMode::End).next() {
            Some(row) => {
                let (_, value) = row.map_err(other)?;
                let entry: RaftEntry = codec::from_versioned(RAFT_FORMAT, &value).map_err(other)?;
                Some(entry.log_id())
            }
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    /// The fence of what is in the log.
    fn fence(&self) -> io::Result<Fence> {
        let bounds = self.bounds()?;
        let last = bounds.last_log_id.map_or(0, |id| id.index);
        let purged = bounds.last_purged_log_id.map_or(0, |id| id.index);
        let from = (last + 1).saturating_sub(FENCED_AT_START).max(purged + 1);
        let fence = Fence::new(from - 1);
        for entry in self.read(from..last + 1, usize::MAX)? {
            fence.add(entry.log_id().index, touched_by(&entry));
        }
        Ok(fence)
    }

    /// Entries of a range, without a hole; at least one if there is one, then as many as `bytes_max` allows.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let log = self.log()?;
        let rows = self.db.iterator_cf(&log, IteratorMode::From(&range.start.to_be_bytes(), Direction::Forward));
        let (mut entries, mut bytes, mut expected) = (Vec::new(), 0, None);
        for row in rows {
            let (key, value) = row.map_err(other)?;
            let index = u64::from_be_bytes(key.as_ref().try_into().map_err(|_| other("malformed log key"))?);
            bytes += value.len();
            if index >= range.end || (!entries.is_empty() && bytes > bytes_max) {
                break;
            }
            if expected.is_some_and(|expected| expected != index) {
                return Err(other(format!("the log has a hole before index {index}")));
            }
            expected = Some(index + 1);
            entries.push(codec::from_versioned(RAFT_FORMAT, &value).map_err(other)?);
        }
        Ok(entries)
    }

    /// The rows of `from..to`; to the end of the log without `to`.
    fn remove(&self, batch: &mut WriteBatch, from: u64, to: Option<u64>) -> io::Result<()> {
        let end = to.map_or([0xff; 9].to_vec(), |to| to.to_be_bytes().to_vec());
        batch.delete_range_cf(&self.log()?, from.to_be_bytes().to_vec(), end);
        Ok(())
    }
}

/// What an entry may change. One that this binary does not understand may change everything; applying it stops the node.
pub fn touched_by(entry: &RaftEntry) -> Vec<ConflictKey> {
    let EntryPayload::Normal(payload) = &entry.payload else { return Vec::new() };
    let command = Entry::from_bytes(&payload.0).and_then(|entry| Command::decode(entry.cmd, entry.cmd_v, &entry.body));
    match command {
        Ok(Some(command)) => touches(&command),
        Ok(None) | Err(_) => vec![ConflictKey::World],
    }
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for RaftLog {
    /// A page at a time: what has to be applied after a restart may be the whole log.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend {
        let disk = self.inner.disk.clone();
        let mut rest = indexes(&range);
        let mut page = Vec::new().into_iter();
        let mut first = true;
        stream::iter(std::iter::from_fn(move || {
            if page.as_slice().is_empty() {
                match disk.read(rest.clone(), READ_BYTES_MAX) {
                    Ok(entries) => page = entries.into_iter(),
                    Err(error) => {
                        rest.end = rest.start;
                        return Some(Err(error));
                    }
                }
            }
            let entry: RaftEntry = page.next()?;
            let index = entry.log_id().index;
            if !first && index != rest.start {
                (page, rest.end) = (Vec::new().into_iter(), rest.start);
                return Some(Err(other(format!("the log has a hole before index {index}"))));
            }
            (first, rest.start) = (false, index + 1);
            Some(Ok(entry))
        }))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        self.inner.disk.read(indexes(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.inner.disk.read(start..end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.bounds()
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = codec::to_versioned(RAFT_FORMAT, vote).map_err(other)?;
        self.blocking(move |disk| {
            disk.db.put(VOTE, bytes).map_err(other)?;
            disk.sync()
        })
        .await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let disk = &self.inner.disk;
        let log = disk.log()?;
        let mut batch = WriteBatch::default();
        for entry in entries {
            self.appended.add(&entry);
            let bytes = codec::to_versioned(RAFT_FORMAT, &entry).map_err(other)?;
            batch.put_cf(&log, entry.log_id().index.to_be_bytes(), bytes);
        }
        disk.db.write(batch).map_err(other)?;
        let queue = self.inner.queue.as_ref().ok_or_else(|| other("the log is closed"))?;
        queue.send(callback).map_err(|_| other("the log's sync thread has ended"))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let index = last.as_ref().map_or(0, |id| id.index);
        // Synced: a snapshot that is installed next must not find the conflicting entries again after a power failure.
        self.blocking(move |disk| {
            let mut batch = WriteBatch::default();
            disk.remove(&mut batch, last.map_or(0, |id| id.index + 1), None)?;
            disk.db.write(batch).map_err(other)?;
            disk.sync()
        })
        .await?;
        self.appended.truncate(index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        // Mark and rows go together: a mark beyond the last row would be an inverted log. Not synced: without this batch
        // the log is as it was, and what comes later does not become durable before it.
        let disk = &self.inner.disk;
        let from = disk.get::<LogId>(PURGED)?.map_or(0, |id| id.index + 1);
        if upto.index < from {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.put(PURGED, codec::to_versioned(RAFT_FORMAT, &upto).map_err(other)?);
        disk.remove(&mut batch, from, Some(upto.index + 1))?;
        disk.db.write(batch).map_err(other)
    }
}

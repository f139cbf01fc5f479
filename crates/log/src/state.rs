//! The state tables in RocksDB, and openraft's view of the state machine.
//!
//! Committed entries are applied in runs: each run is decided against the tables plus the run's own changes, then written
//! as one atomic batch that also holds the applied log id, the membership and the hash of the state (`state_hash.rs`).
//! Outcomes are answered after the write.
//!
//! On disk: `STATE` names the folder in use (`state-1`, `state-2`, ...), `snapshots/<index>` holds the snapshot, `incoming`
//! and `building` are unfinished work. An install makes the next folder, keeps the received snapshot, and only then turns
//! the pointer: before that a restart goes on with the old state and installs the kept snapshot, after it with the new.

use crate::snapshot::SnapshotDir;
use crate::state_hash::{self, Checker, Checkpoints, Fault, HashError};
use crate::{info_log, other, sync_dir, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, RAFT_FORMAT};
use claviger_lease::Fence;
use claviger_state_machine::records::Reads;
use claviger_state_machine::{apply, kv::Row, Kv, Read, StoreError, Table, READS};
use claviger_types::codec;
use claviger_types::command::Entry;
use claviger_types::outcome::Outcome;
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    properties, BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBWithThreadMode, IteratorMode,
    MultiThreaded, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch,
};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{btree_map, BTreeMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(crate) type Db = DBWithThreadMode<MultiThreaded>;
pub(crate) type Changes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

const APPLIED: &[u8] = b"raft/applied";
const MEMBERSHIP: &[u8] = b"raft/membership";

/// Payload bytes after which a run is full: bounds memory and the time until the first entry is answered. The number of
/// entries is bounded by the checkpoints of the hash, which no run crosses.
const RUN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Disk space that a snapshot leaves free beside what it writes: a failed flush would stop the state's database.
const SNAPSHOT_RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// Between two lines about snapshots that cannot be built.
const NOT_BUILT_LOG: Duration = Duration::from_secs(600);

/// Cache of table blocks: what lets a million secrets live on disk and the hot ones in memory.
const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The state tables of one node. Clones share them.
#[derive(Clone)]
pub struct StateStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    db: Arc<RwLock<Arc<Db>>>,
    applied: watch::Sender<u64>,
    /// Index up to which entries may be in the tables already, never behind `applied`.
    applying: AtomicU64,
    /// Term of the last applied entry, never behind `applied`.
    /// Index and term of the last applied entry, which belong together.
    applied_at: Mutex<(u64, u64)>,
    /// How reads are made, as of `applied`.
    reads: watch::Sender<Option<Arc<Reads>>>,
    /// Told before a snapshot replaces the state.
    fence: OnceLock<Arc<Fence>>,
    /// Roots of the state at the newest multiples of 256.
    checkpoints: Checkpoints,
    fault: Fault,
    checker: OnceLock<Checker>,
    /// Only one batch is made at a time, for each goes on with the hash of the one before.
    writing: Mutex<()>,
    /// Off in a benchmark only.
    hashing: AtomicBool,
    /// Why the last snapshot was not built, and when that was last logged.
    not_built: Mutex<Option<(String, Instant)>>,
    /// Only one snapshot is built or installed at a time.
    work: Mutex<()>,
    /// Snapshots that were given out and may still be read.
    lent: Mutex<Vec<SnapshotDir>>,
}

/// A row in memory of the database's own.
pub(crate) type StoredRow = (Box<[u8]>, Box<[u8]>);

/// A consistent view of the tables at one applied index.
pub struct View<'a> {
    db: &'a Db,
    snapshot: SnapshotWithThreadMode<'a, Db>,
}

fn store(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

fn open_db(dir: &Path) -> io::Result<Db> {
    let options = db_options();
    Db::open_cf_descriptors(&options, dir, families()).map_err(other)
}

/// Opens without changing anything: a snapshot stays what the checkpoint made.
fn open_to_read(dir: &Path) -> io::Result<Db> {
    Db::open_cf_descriptors_read_only(&Options::default(), dir, families(), false).map_err(other)
}

fn db_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_total_wal_size(128 * 1024 * 1024);
    info_log(&mut options);
    options
}

fn families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let families = Table::ALL.iter().map(|table| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(8 * 1024 * 1024);
        // Most rows that `apply` and the hash ask for are not there yet.
        options.set_memtable_prefix_bloom_ratio(0.05);
        options.set_memtable_whole_key_filtering(true);
        ColumnFamilyDescriptor::new(table.name(), options)
    });
    let default = ColumnFamilyDescriptor::new("default", Options::default());
    families.chain([default]).collect()
}

pub(crate) fn family<'a>(db: &'a Db, table: Table) -> Result<Arc<BoundColumnFamily<'a>>, StoreError> {
    db.cf_handle(table.name()).ok_or_else(|| StoreError(format!("table `{}` is missing", table.name())))
}

fn scan_db(
    db: &Db,
    options: ReadOptions,
    table: Table,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    if from >= to {
        return Ok(Vec::new());
    }
    let mut options = options;
    options.set_iterate_upper_bound(to.to_vec());
    let rows = db.iterator_cf_opt(&family(db, table)?, options, IteratorMode::From(from, rocksdb::Direction::Forward));
    rows.take(limit).map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec())).map_err(store)).collect()
}

impl<'a> View<'a> {
    pub(crate) fn of(db: &'a Db) -> Self {
        Self { db, snapshot: db.snapshot() }
    }

    /// Every row of a table, past the cache: who reads everything must not drive out what is in use.
    pub(crate) fn rows(&self, table: Table) -> io::Result<impl Iterator<Item = io::Result<StoredRow>> + '_> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.fill_cache(false);
        let rows = self.db.iterator_cf_opt(&family(self.db, table).map_err(other)?, options, IteratorMode::Start);
        Ok(rows.map(|row| row.map_err(other)))
    }

    /// Index of the last applied entry, 0 before the first.
    pub(crate) fn applied_index(&self) -> io::Result<u64> {
        Ok(bookkeeping(self)?.0.map_or(0, |id| id.index))
    }
}

impl Read for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.snapshot.get_cf(&family(self.db, table)?, key).map_err(store)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        scan_db(self.db, options, table, from, to, limit)
    }
}

/// The tables plus the changes of the run that is being applied.
pub(crate) struct Run<'a> {
    db: &'a Db,
    /// Rows as the database has them, read once: nothing else writes while a run is applied.
    seen: RefCell<Changes>,
    pub(crate) changes: Changes,
}

impl<'a> Run<'a> {
    fn new(db: &'a Db) -> Self {
        Self { db, seen: RefCell::default(), changes: Changes::new() }
    }

    /// A row as it was before the run.
    pub(crate) fn stored(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.seen.borrow_mut().entry((table, key.to_vec())) {
            btree_map::Entry::Occupied(known) => Ok(known.get().clone()),
            btree_map::Entry::Vacant(new) => {
                let row = self.db.get_cf(&family(self.db, table)?, key).map_err(store)?;
                Ok(new.insert(row).clone())
            }
        }
    }
}

impl Read for Run<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(&(table, key.to_vec())) {
            Some(change) => Ok(change.clone()),
            None => self.stored(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let changes: Vec<_> = self.changes.range((table, from.to_vec())..(table, to.to_vec())).collect();
        // A removal may hide a stored row, so that many more are read.
        let hidden = changes.iter().filter(|(_, change)| change.is_none()).count();
        let stored = scan_db(self.db, ReadOptions::default(), table, from, to, limit.saturating_add(hidden))?;
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for ((_, key), change) in changes {
            match change {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

impl Kv for Run<'_> {
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert((table, key), Some(value));
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.changes.insert((table, key), None);
    }
}

impl StateStore {
    /// Opens or creates the state under `root`: `root/STATE` names the folder in use.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join("snapshots"))?;
        let folders = state_folders(root)?;
        let current = match read_pointer(root)? {
            Some(current) if current == 1 || folders.contains(&current) => current,
            Some(current) => return Err(other(format!("the state folder `state-{current}` is missing"))),
            None if folders.is_empty() => {
                write_pointer(root, 1)?;
                1
            }
            // Not ours to guess which of them it was.
            None => return Err(other("the file `STATE` is missing beside its state folders")),
        };
        // What an interrupted install or build has left over.
        for folder in folders.into_iter().filter(|folder| *folder != current) {
            fs::remove_dir_all(folder_path(root, folder))?;
        }
        for name in ["incoming", "building", "building.tmp"] {
            remove_if_there(&root.join(name))?;
        }
        let db = Arc::new(open_db(&folder_path(root, current))?);
        state_hash::ensure(&db)?;
        let inner = Inner {
            root: root.to_owned(),
            db: Arc::new(RwLock::new(db)),
            applied: watch::Sender::new(0),
            applying: AtomicU64::new(0),
            applied_at: Mutex::default(),
            reads: watch::Sender::new(None),
            fence: OnceLock::new(),
            checkpoints: Checkpoints::new(),
            fault: Fault(watch::Sender::new(None)),
            checker: OnceLock::new(),
            writing: Mutex::new(()),
            hashing: AtomicBool::new(true),
            not_built: Mutex::new(None),
            work: Mutex::new(()),
            lent: Mutex::new(Vec::new()),
        };
        let this = Self { inner: Arc::new(inner) };
        this.inner.read_reads(&this.db())?;
        this.view(|view| this.inner.checkpoints.load(view))?;
        this.inner.announce(this.applied_log_id()?.as_ref());
        if let Some(newest) = this.inner.newest_snapshot()? {
            this.inner.keep_only(&newest.1.path)?;
        }
        Ok(this)
    }

    fn db(&self) -> Arc<Db> {
        self.inner.db.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a query against one consistent view.
    pub fn view<T>(&self, query: impl FnOnce(&View<'_>) -> T) -> T {
        let db = self.db();
        let view = View::of(&db);
        query(&view)
    }

    /// Index of the last applied entry, and its changes.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// Index up to which entries may be in the tables already, before they count as applied: a view that was taken before
    /// this is asked shows nothing later.
    pub fn applying(&self) -> u64 {
        self.inner.applying.load(Ordering::SeqCst)
    }

    /// Index and term of the last applied entry, both of the same one.
    pub fn applied_at(&self) -> (u64, u64) {
        *self.inner.applied_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How reads are made, and its changes; never older than the applied index says.
    pub fn reads(&self) -> watch::Receiver<Option<Arc<Reads>>> {
        self.inner.reads.subscribe()
    }

    /// Has `fence` told before a snapshot replaces the state; set once, at the start.
    pub fn tell(&self, fence: Arc<Fence>) {
        // A second call would be a mistake of the wiring; the first one stays.
        self.inner.fence.set(fence).ok();
    }

    /// Why the last snapshot could not be built; `None` when it could. The log cannot be purged meanwhile.
    pub fn snapshot_failure(&self) -> Option<String> {
        let noted = self.inner.not_built.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().map(|(why, _)| why.clone())
    }

    /// Where incoming snapshots are put together.
    pub fn incoming_dir(&self) -> PathBuf {
        self.inner.root.join("incoming")
    }

    /// Rewrites the table of sealed material, so that purged rows leave the disk (design C2, erasure). Takes its time: not
    /// for an async task. Older snapshots and the Raft log hold what they hold until the next snapshot.
    pub fn compact_material(&self) -> io::Result<()> {
        let db = self.db();
        // Every table: the write-ahead files that hold the rows go only when no table needs them any more.
        for table in Table::ALL {
            db.flush_cf(&family(&db, *table).map_err(other)?).map_err(other)?;
        }
        for table in [Table::Material, Table::Vaults, Table::Idempotency] {
            let cf = family(&db, table).map_err(other)?;
            db.compact_range_cf(&cf, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// SHA-256 over every row of the state, Raft's own bookkeeping aside, and the index it belongs to: equal on replicas
    /// that applied the same entries. Reads everything: for checks, not for serving.
    pub fn state_hash(&self) -> io::Result<(u64, [u8; 32])> {
        let mut hash = Sha256::new();
        let index = self.view(|view| {
            let mut table_before = None;
            state_hash::walk(view, |table, key, value| {
                if table_before.replace(table) != Some(table) {
                    hash.update(table.name());
                }
                for part in [key, value] {
                    hash.update((part.len() as u64).to_be_bytes());
                    hash.update(part);
                }
                true
            })?;
            view.applied_index()
        })?;
        Ok((index, hash.finalize().into()))
    }

    /// The newest multiple of 256 that was applied, and the root of the state there: equal on all replicas. Cheap.
    pub fn checkpoint(&self) -> Option<(u64, [u8; 32])> {
        self.inner.checkpoints.newest()
    }

    /// The root at an earlier multiple of 256, while it is remembered.
    pub fn checkpoint_at(&self, index: u64) -> Option<[u8; 32]> {
        self.inner.checkpoints.at(index)
    }

    /// The root of the state as it is, and the index it belongs to. Unlike [`StateStore::state_hash`] it reads no rows.
    pub fn root(&self) -> io::Result<(u64, [u8; 32])> {
        self.view(state_hash::root)
    }

    /// Recomputes the hash from the rows and compares it with the one that was kept; answers the index of the view it did
    /// so at. Reads everything as fast as it can: see [`StateStore::check_in_background`].
    pub fn verify_hash(&self) -> Result<u64, HashError> {
        // Nothing ends it, so that there always is an index.
        state_hash::verify(&self.db(), |_| true).map(|index| index.unwrap_or_default())
    }

    /// Starts a thread that does what [`StateStore::verify_hash`] does, gently: now, after an install, and after every
    /// `period`. What it finds is a [`StateStore::fault`]. A second call changes nothing.
    pub fn check_in_background(&self, period: Duration) -> io::Result<()> {
        if self.inner.checker.get().is_none() {
            let checker = Checker::start(self.inner.db.clone(), self.inner.fault.clone(), period)?;
            // Of two at once one is dropped, which ends its thread.
            self.inner.checker.set(checker).ok();
        }
        Ok(())
    }

    /// Why this node must not serve any more, once there is a reason; it stays until the next start.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.inner.fault.0.subscribe()
    }

    /// Makes it known that this node's state is not to be trusted: other nodes have another root.
    pub fn report_fault(&self, why: String) {
        self.inner.fault.report(why);
    }

    /// The last applied log id, `None` before the first.
    pub(crate) fn applied_log_id(&self) -> io::Result<Option<LogId>> {
        Ok(self.view(bookkeeping)?.0)
    }

    /// Whether a node belongs to the cluster, as far as is applied here.
    pub fn has_member(&self, node: u64) -> io::Result<bool> {
        Ok(self.view(bookkeeping)?.1.membership().get_node(&node).is_some())
    }

    /// Where the newest snapshot ends.
    pub(crate) fn snapshot_log_id(&self) -> io::Result<Option<LogId>> {
        Ok(self.inner.newest_snapshot()?.and_then(|(meta, _)| meta.last_log_id))
    }
}

/// What is applied, and the membership with it.
fn bookkeeping(rows: &View<'_>) -> io::Result<(Option<LogId>, StoredMembership)> {
    let applied = rows.get(Table::Meta, APPLIED).map_err(other)?;
    let membership = rows.get(Table::Meta, MEMBERSHIP).map_err(other)?;
    let applied: Option<Option<LogId>> =
        applied.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
    let membership: Option<StoredMembership> =
        membership.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
    Ok((applied.flatten(), membership.unwrap_or_default()))
}

fn folder_path(root: &Path, folder: u64) -> PathBuf {
    root.join(format!("state-{folder}"))
}

/// The number in `state-<number>`.
fn folder_number(name: &str) -> Option<u64> {
    name.strip_prefix("state-")?.parse().ok()
}

fn state_folders(root: &Path) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(root)?.map(|item| Ok(item?.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    Ok(names.iter().filter_map(|name| folder_number(name.to_str()?)).collect())
}

fn read_pointer(root: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(root.join("STATE")) {
        Ok(name) => match folder_number(&name) {
            Some(folder) => Ok(Some(folder)),
            None => Err(other("the file `STATE` does not name a state folder")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_pointer(root: &Path, folder: u64) -> io::Result<()> {
    let new = root.join("STATE.new");
    fs::write(&new, format!("state-{folder}"))?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, root.join("STATE"))?;
    sync_dir(root)
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Inner {
    /// Makes known what is applied.
    fn announce(&self, applied: Option<&LogId>) {
        if let Some(id) = applied {
            *self.applied_at.lock().unwrap_or_else(PoisonError::into_inner) = (id.index, id.committed_leader_id().term);
        }
        self.applied.send_replace(applied.map_or(0, |id| id.index));
    }

    fn read_reads(&self, db: &Db) -> io::Result<()> {
        let reads = claviger_state_machine::read::reads(&View::of(db)).map_err(other)?.map(Arc::new);
        self.reads.send_if_modified(|known| {
            let changed = *known != reads;
            *known = reads;
            changed
        });
        Ok(())
    }

    fn newest_snapshot(&self) -> io::Result<Option<(SnapshotMeta, SnapshotDir)>> {
        let mut newest: Option<(SnapshotMeta, SnapshotDir)> = None;
        for item in fs::read_dir(self.root.join("snapshots"))? {
            let dir = SnapshotDir::at(item?.path());
            if let Ok(meta) = dir.read_meta() {
                if newest.as_ref().is_none_or(|(n, _)| n.last_log_id < meta.last_log_id) {
                    newest = Some((meta, dir));
                }
            }
        }
        Ok(newest)
    }

    /// The newest snapshot, which stays where it is while the answer lives.
    fn lend_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((meta, dir)) = self.newest_snapshot()? else { return Ok(None) };
        lent.retain(SnapshotDir::is_lent);
        let snapshot = match lent.iter().find(|known| known.path == dir.path) {
            Some(known) => known.clone(),
            None => {
                lent.push(dir.clone());
                dir
            }
        };
        Ok(Some(Snapshot { meta, snapshot }))
    }

    /// Removes all snapshots but one and those that are being read.
    fn keep_only(&self, path: &Path) -> io::Result<()> {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.retain(SnapshotDir::is_lent);
        for item in fs::read_dir(self.root.join("snapshots"))? {
            let other = item?.path();
            if other != path && !lent.iter().any(|known| known.path == other) {
                fs::remove_dir_all(other)?;
            }
        }
        Ok(())
    }

    /// Notes that a snapshot could not be built, and gives back what it took.
    fn not_built(&self, error: &io::Error) {
        let mut noted = self.not_built.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = noted.as_ref().map(|(_, at)| *at).filter(|at| at.elapsed() < NOT_BUILT_LOG);
        if logged.is_none() {
            tracing::error!(%error, "a snapshot could not be built: the log grows until one can");
        }
        *noted = Some((error.to_string(), logged.unwrap_or_else(Instant::now)));
        // What is left is removed before the next.
        fs::remove_dir_all(self.root.join("building")).ok();
    }

    fn built(&self) {
        if self.not_built.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("snapshots can be built again");
        }
    }

    /// Puts a complete, synced snapshot into its place and removes the older ones.
    fn keep(&self, snapshot: &SnapshotDir, meta: &SnapshotMeta) -> io::Result<()> {
        let snapshots = self.root.join("snapshots");
        let path = snapshots.join(meta.last_log_id.map_or(0, |id| id.index).to_string());
        if snapshot.path != path {
            match SnapshotDir::at(path.clone()).read_meta() {
                // The same entries make the same state, and what is there may be in use.
                Ok(there) if there.last_log_id == meta.last_log_id => fs::remove_dir_all(&snapshot.path)?,
                _ => {
                    remove_if_there(&path)?;
                    fs::rename(&snapshot.path, &path)?;
                    sync_dir(&snapshots)?;
                }
            }
        }
        self.keep_only(&path)
    }
}

/// openraft's handle on the state.
pub struct StateMachine {
    store: StateStore,
}

impl StateMachine {
    /// Wraps the store.
    pub fn new(store: StateStore) -> Self {
        Self { store }
    }

    /// Applies a run where the disk does not hold up other tasks.
    async fn apply_run(&self, run: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.apply_run(run)).await.map_err(other)?
    }
}

/// For tests and benchmarks of what the hash is there for.
#[doc(hidden)]
impl StateStore {
    /// Changes a row behind the hash's back: what a failing disk does.
    pub fn danger_write_beneath_hash(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let _one_at_a_time = self.inner.writing.lock();
        let db = self.db();
        let changes = Changes::from([((table, key.to_vec()), value.map(<[u8]>::to_vec))]);
        write(&db, changes)
    }

    /// Changes a row as `apply` does: what a state machine does that is not deterministic.
    pub fn danger_write_with_hash(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let _one_at_a_time = self.inner.writing.lock();
        let db = self.db();
        let index = View::of(&db).applied_index()?;
        let mut run = Run::new(&db);
        run.changes.insert((table, key.to_vec()), value.map(<[u8]>::to_vec));
        state_hash::extend(&mut run, index)?;
        write(&db, run.changes)
    }

    /// Applies without hash from now on, to measure what it costs. The next start makes it anew.
    pub fn danger_without_hash(&self) {
        self.inner.hashing.store(false, Ordering::Relaxed);
    }
}

/// One atomic batch.
fn write(db: &Db, changes: Changes) -> io::Result<()> {
    let mut batch = WriteBatch::default();
    for ((table, key), change) in changes {
        let cf = family(db, table).map_err(other)?;
        match change {
            Some(value) => batch.put_cf(&cf, key, value),
            None => batch.delete_cf(&cf, key),
        }
    }
    db.write(batch).map_err(other)
}

impl StateStore {
    fn apply_run(&self, run: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let _one_at_a_time = self.inner.writing.lock();
        let db = self.db();
        let mut state = Run::new(&db);
        let mut answers = Vec::with_capacity(run.len());
        let mut last = None;
        for (entry, responder) in run {
            let log_id = entry.log_id();
            last = Some(log_id);
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome::Done,
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(log_id), membership);
                    let bytes = codec::to_versioned(RAFT_FORMAT, &stored).map_err(other)?;
                    state.put(Table::Meta, MEMBERSHIP.to_vec(), bytes);
                    Outcome::Done
                }
                EntryPayload::Normal(payload) => {
                    let entry = Entry::from_bytes(&payload.0).map_err(other)?;
                    apply(&mut state, log_id.index, &entry).map_err(other)?
                }
            };
            let bytes = codec::to_versioned(RAFT_FORMAT, &Some(log_id)).map_err(other)?;
            state.put(Table::Meta, APPLIED.to_vec(), bytes);
            answers.push((responder, outcome));
        }
        let new_reads = state.changes.contains_key(&(Table::Meta, READS.to_vec()));
        let hashed = last.as_ref().filter(|_| self.inner.hashing.load(Ordering::Relaxed));
        let checkpoint = hashed.map(|id| state_hash::extend(&mut state, id.index)).transpose()?.flatten();
        self.inner.applying.fetch_max(last.as_ref().map_or(0, |id| id.index), Ordering::SeqCst);
        write(&db, state.changes)?;
        if let Some(checkpoint) = checkpoint {
            self.inner.checkpoints.push(checkpoint);
        }
        if new_reads {
            self.inner.read_reads(&db)?;
        }
        self.inner.announce(last.as_ref());
        for (responder, outcome) in answers {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = StateBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.store.view(bookkeeping)
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let (mut run, mut bytes) = (Vec::new(), 0);
        while let Some(item) = entries.next().await {
            let item = item?;
            if let EntryPayload::Normal(payload) = &item.0.payload {
                bytes += payload.0.len();
            }
            let ends = state_hash::ends_run(item.0.log_id().index);
            run.push(item);
            if ends || bytes >= RUN_BYTES_MAX {
                bytes = 0;
                self.apply_run(std::mem::take(&mut run)).await?;
            }
        }
        if run.is_empty() {
            Ok(())
        } else {
            self.apply_run(run).await
        }
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<StateBuilder> {
        Some(StateBuilder { store: self.store.clone(), required: force })
    }

    async fn get_snapshot_builder(&mut self) -> StateBuilder {
        StateBuilder { store: self.store.clone(), required: true }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> io::Result<()> {
        let (store, meta) = (self.store.clone(), meta.clone());
        tokio::task::spawn_blocking(move || install(&store, &meta, &snapshot)).await.map_err(other)?
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.store.inner.lend_snapshot()
    }
}

fn install(store: &StateStore, meta: &SnapshotMeta, snapshot: &SnapshotDir) -> io::Result<()> {
    let inner = &store.inner;
    let _one_at_a_time = inner.work.lock();
    let root = &inner.root;
    let old = read_pointer(root)?.ok_or_else(|| other("the file `STATE` has gone"))?;
    let target = folder_path(root, old + 1);
    remove_if_there(&target)?;
    if snapshot.read_meta().ok().as_ref() != Some(meta) {
        snapshot.write_meta(meta)?;
    }
    snapshot.sync()?;
    snapshot.clone_into(&target)?;
    let db = open_db(&target)?;
    if bookkeeping(&View::of(&db))? != (meta.last_log_id, meta.last_membership.clone()) {
        return Err(other("a snapshot's state does not end where its header says"));
    }
    // What was damaged on its way, or where it comes from, is not taken over. Reading the rows once more costs about what
    // their transfer did. A snapshot of an older release has no hash to compare them with.
    if !state_hash::ensure(&db)? {
        state_hash::verify(&db, |_| true).map_err(other)?;
    }
    inner.keep(snapshot, meta)?;
    if let Some(fence) = inner.fence.get() {
        fence.install(meta.last_log_id.as_ref().map_or(0, |id| id.index));
    }
    write_pointer(root, old + 1)?;
    inner.applying.fetch_max(meta.last_log_id.as_ref().map_or(0, |id| id.index), Ordering::SeqCst);
    inner.read_reads(&db)?;
    inner.checkpoints.load(&View::of(&db))?;
    let before = std::mem::replace(&mut *inner.db.write().unwrap_or_else(PoisonError::into_inner), Arc::new(db));
    inner.announce(meta.last_log_id.as_ref());
    if let Some(checker) = inner.checker.get() {
        checker.again();
    }
    // Views may still read the old state: its files are open. Nothing may write there any more.
    before.cancel_all_background_work(true);
    if let Err(error) = fs::remove_dir_all(folder_path(root, old)) {
        tracing::warn!(%error, "the replaced state is removed at the next start");
    }
    Ok(())
}

/// Builds snapshots beside the running state.
///
/// openraft stops the node when a builder fails. Unless it cannot go on without the snapshot, which it says, it is told of
/// the one before instead, or of one that holds nothing: both change nothing for it, and it tries again after as many
/// entries as lie between two snapshots. The log is not purged meanwhile.
pub struct StateBuilder {
    store: StateStore,
    required: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for StateBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (store, required) = (self.store.clone(), self.required);
        let work = move || match build(&store) {
            Err(error) if !required => {
                store.inner.not_built(&error);
                Ok(store.inner.lend_snapshot()?.unwrap_or_else(|| Snapshot {
                    meta: SnapshotMeta::default(),
                    snapshot: SnapshotDir::at(store.inner.root.join("snapshots")),
                }))
            }
            Ok(built) => {
                store.inner.built();
                Ok(built)
            }
            failed => failed,
        };
        tokio::task::spawn_blocking(work).await.map_err(other)?
    }
}

/// Refuses to begin what would fill the disk: a snapshot flushes what is in memory, the rest are links.
fn check_room(root: &Path, db: &Db) -> io::Result<()> {
    let mut needed = SNAPSHOT_RESERVE_BYTES;
    for table in Table::ALL {
        let size = db.property_int_value_cf(&family(db, *table).map_err(other)?, properties::CUR_SIZE_ALL_MEM_TABLES);
        needed = needed.saturating_add(size.map_err(other)?.unwrap_or(0));
    }
    let disk = rustix::fs::statvfs(root)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        return Err(other(format!("{free} bytes of disk are free, a snapshot needs {needed}")));
    }
    Ok(())
}

fn build(store: &StateStore) -> io::Result<Snapshot> {
    let inner = &store.inner;
    let _one_at_a_time = inner.work.lock();
    let building = inner.root.join("building");
    remove_if_there(&building)?;
    check_room(&inner.root, &store.db())?;
    Checkpoint::new(&store.db()).map_err(other)?.create_checkpoint(&building).map_err(other)?;
    // What the checkpoint really holds is read from itself: entries may have been applied meanwhile.
    let (last_log_id, last_membership) = bookkeeping(&View::of(&open_to_read(&building)?))?;
    let meta = SnapshotMeta { last_log_id, last_membership };
    let dir = SnapshotDir::at(building);
    dir.write_meta(&meta)?;
    dir.sync()?;
    inner.keep(&dir, &meta)?;
    inner.lend_snapshot()?.ok_or_else(|| other("the snapshot has gone"))
}

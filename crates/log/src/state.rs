//! The state tables in RocksDB, and openraft's view of the state machine.
//!
//! Committed entries are applied in runs: each run is decided against the tables plus the run's own changes, then written
//! as one atomic batch that also holds the applied log id and the membership. Outcomes are answered after the write.

use crate::snapshot::SnapshotDir;
use crate::{other, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, RAFT_FORMAT};
use claviger_state_machine::{apply, kv::Row, Kv, Read, StoreError, Table};
use claviger_types::codec;
use claviger_types::command::Entry;
use claviger_types::outcome::Outcome;
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBWithThreadMode, IteratorMode, MultiThreaded,
    Options, ReadOptions, SnapshotWithThreadMode, WriteBatch,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::watch;

type Db = DBWithThreadMode<MultiThreaded>;
type Changes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

const APPLIED: &[u8] = b"raft/applied";
const MEMBERSHIP: &[u8] = b"raft/membership";

/// Entries in one atomic run: bounds memory and the time until the first of them is answered.
const RUN_ENTRIES_MAX: usize = 256;

/// Rows read at once while hashing: bounds memory.
const HASH_PAGE_ROWS: usize = 1024;

/// Cache of table blocks: what lets a million secrets live on disk and the hot ones in memory.
const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The state tables of one node. Clones share them.
#[derive(Clone)]
pub struct StateStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    db: RwLock<Arc<Db>>,
    applied: watch::Sender<u64>,
    /// Only one snapshot is built or installed at a time.
    snapshots: Mutex<()>,
}

/// A consistent view of the tables at one applied index.
pub struct View<'a> {
    db: &'a Db,
    snapshot: SnapshotWithThreadMode<'a, Db>,
}

fn store(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

fn open_db(dir: &Path) -> io::Result<Db> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_total_wal_size(128 * 1024 * 1024);
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
        ColumnFamilyDescriptor::new(table.name(), options)
    });
    let default = ColumnFamilyDescriptor::new("default", Options::default());
    Db::open_cf_descriptors(&options, dir, families.chain([default])).map_err(other)
}

fn family<'a>(db: &'a Db, table: Table) -> Result<Arc<BoundColumnFamily<'a>>, StoreError> {
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
struct Run<'a> {
    db: &'a Db,
    changes: Changes,
}

impl Read for Run<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(&(table, key.to_vec())) {
            Some(change) => Ok(change.clone()),
            None => self.db.get_cf(&family(self.db, table)?, key).map_err(store),
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
        let pointer = root.join("STATE");
        let current = match fs::read_to_string(&pointer) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_pointer(root, "state-1")?;
                "state-1".to_owned()
            }
            Err(error) => return Err(error),
        };
        // Folders that no pointer names are left over from an interrupted install.
        for item in fs::read_dir(root)? {
            let item = item?;
            let name = item.file_name().to_string_lossy().into_owned();
            if name.starts_with("state-") && name != current {
                fs::remove_dir_all(item.path())?;
            }
        }
        let db = Arc::new(open_db(&root.join(&current))?);
        let inner = Inner {
            root: root.to_owned(),
            db: RwLock::new(db),
            applied: watch::Sender::new(0),
            snapshots: Mutex::new(()),
        };
        let this = Self { inner: Arc::new(inner) };
        this.inner.applied.send_replace(this.load_applied()?.0.map_or(0, |id| id.index));
        Ok(this)
    }

    fn db(&self) -> Arc<Db> {
        match self.inner.db.read() {
            Ok(db) => db.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// Runs a query against one consistent view.
    pub fn view<T>(&self, query: impl FnOnce(&View<'_>) -> T) -> T {
        let db = self.db();
        let view = View { db: &db, snapshot: db.snapshot() };
        query(&view)
    }

    /// Index of the last applied entry, and its changes.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// Where incoming snapshots are put together.
    pub fn incoming_dir(&self) -> PathBuf {
        self.inner.root.join("incoming")
    }

    /// Rewrites the table of sealed material, so that purged rows leave the disk (design C2, erasure).
    pub fn compact_material(&self) -> io::Result<()> {
        let db = self.db();
        for table in [Table::Material, Table::Vaults, Table::Idempotency] {
            let cf = family(&db, table).map_err(other)?;
            db.flush_cf(&cf).map_err(other)?;
            db.compact_range_cf(&cf, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// SHA-256 over every row of the state, Raft's own bookkeeping aside, and the index it belongs to: equal on replicas
    /// that applied the same entries. Reads everything: for checks, not for serving.
    pub fn state_hash(&self) -> io::Result<(u64, [u8; 32])> {
        let mut hash = Sha256::new();
        let index = self.view(|view| -> io::Result<u64> {
            for table in Table::ALL {
                let mut from = Vec::new();
                loop {
                    let rows = view.scan(*table, &from, &[0xff; 512], HASH_PAGE_ROWS).map_err(other)?;
                    for (key, value) in rows.iter().filter(|(key, _)| !key.starts_with(b"raft/")) {
                        hash.update((key.len() as u64).to_be_bytes());
                        hash.update(key);
                        hash.update((value.len() as u64).to_be_bytes());
                        hash.update(value);
                    }
                    match rows.last() {
                        Some((key, _)) if rows.len() == HASH_PAGE_ROWS => from = [key.as_slice(), &[0]].concat(),
                        _ => break,
                    }
                }
            }
            let applied = view.get(Table::Meta, APPLIED).map_err(other)?;
            let applied: Option<Option<LogId>> =
                applied.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
            Ok(applied.flatten().map_or(0, |id| id.index))
        })?;
        Ok((index, hash.finalize().into()))
    }

    fn load_applied(&self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let db = self.db();
        let meta = family(&db, Table::Meta).map_err(other)?;
        let applied = db.get_cf(&meta, APPLIED).map_err(other)?;
        let membership = db.get_cf(&meta, MEMBERSHIP).map_err(other)?;
        let applied: Option<Option<LogId>> =
            applied.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
        let membership = membership.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
        Ok((applied.flatten(), membership.unwrap_or_default()))
    }
}

fn write_pointer(root: &Path, name: &str) -> io::Result<()> {
    let new = root.join("STATE.new");
    fs::write(&new, name)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, root.join("STATE"))?;
    fs::File::open(root)?.sync_all()
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

    fn apply_run(&self, run: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let db = self.store.db();
        let mut state = Run { db: &db, changes: Changes::new() };
        let mut answers = Vec::with_capacity(run.len());
        let mut last = 0;
        for (entry, responder) in run {
            let log_id = entry.log_id();
            last = log_id.index;
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
        let mut batch = WriteBatch::default();
        for ((table, key), change) in state.changes {
            let cf = family(&db, table).map_err(other)?;
            match change {
                Some(value) => batch.put_cf(&cf, key, value),
                None => batch.delete_cf(&cf, key),
            }
        }
        db.write(batch).map_err(other)?;
        self.store.inner.applied.send_replace(last);
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
        self.store.load_applied()
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut run = Vec::new();
        while let Some(item) = entries.next().await {
            run.push(item?);
            if run.len() == RUN_ENTRIES_MAX {
                self.apply_run(std::mem::take(&mut run))?;
            }
        }
        if run.is_empty() {
            Ok(())
        } else {
            self.apply_run(run)
        }
    }

    async fn get_snapshot_builder(&mut self) -> StateBuilder {
        StateBuilder { store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> io::Result<()> {
        let _one_at_a_time = self.store.inner.snapshots.lock();
        let root = &self.store.inner.root;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let name = format!("state-{index}-{}", meta.last_log_id.map_or(0, |id| id.committed_leader_id().term));
        let target = root.join(&name);
        if target.exists() {
            return Err(other("a state folder for this snapshot exists already"));
        }
        snapshot.clone_into(&target)?;
        let db = Arc::new(open_db(&target)?);
        let old = fs::read_to_string(root.join("STATE"))?;
        write_pointer(root, &name)?;
        match self.store.inner.db.write() {
            Ok(mut current) => *current = db,
            Err(poisoned) => *poisoned.into_inner() = db,
        }
        let (applied, _) = self.store.load_applied()?;
        if applied != meta.last_log_id {
            return Err(other("a snapshot's state does not end where its header says"));
        }
        self.store.inner.applied.send_replace(index);
        // The received folder becomes this node's own snapshot; the old state goes when its last reader is done with the
        // files (they stay readable while open).
        keep_only(root, &snapshot, index)?;
        fs::remove_dir_all(root.join(old))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let mut newest: Option<Snapshot> = None;
        for item in fs::read_dir(self.store.inner.root.join("snapshots"))? {
            let dir = SnapshotDir { path: item?.path() };
            if let Ok(meta) = dir.read_meta() {
                if newest.as_ref().is_none_or(|n| n.meta.last_log_id < meta.last_log_id) {
                    newest = Some(Snapshot { meta, snapshot: dir });
                }
            }
        }
        Ok(newest)
    }
}

/// Puts a snapshot into its place and removes the older ones.
fn keep_only(root: &Path, snapshot: &SnapshotDir, index: u64) -> io::Result<SnapshotDir> {
    let path = root.join("snapshots").join(index.to_string());
    if snapshot.path != path {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::rename(&snapshot.path, &path)?;
    }
    for item in fs::read_dir(root.join("snapshots"))? {
        let item = item?;
        if item.path() != path {
            fs::remove_dir_all(item.path())?;
        }
    }
    Ok(SnapshotDir { path })
}

/// Builds snapshots beside the running state.
pub struct StateBuilder {
    store: StateStore,
}

impl RaftSnapshotBuilder<TypeConfig> for StateBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || build(&store)).await.map_err(other)?
    }
}

fn build(store: &StateStore) -> io::Result<Snapshot> {
    let _one_at_a_time = store.inner.snapshots.lock();
    let building = store.inner.root.join("building");
    if building.exists() {
        fs::remove_dir_all(&building)?;
    }
    {
        let db = store.db();
        Checkpoint::new(&db).map_err(other)?.create_checkpoint(&building).map_err(other)?;
    }
    // What the checkpoint really holds is read from itself: entries may have been applied meanwhile.
    let (last_log_id, last_membership) = {
        let db = open_db(&building)?;
        let meta = family(&db, Table::Meta).map_err(other)?;
        let applied = db.get_cf(&meta, APPLIED).map_err(other)?;
        let membership = db.get_cf(&meta, MEMBERSHIP).map_err(other)?;
        let applied: Option<Option<LogId>> =
            applied.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
        let membership: Option<StoredMembership> =
            membership.map(|b| codec::from_versioned(RAFT_FORMAT, &b)).transpose().map_err(other)?;
        (applied.flatten(), membership.unwrap_or_default())
    };
    let meta = SnapshotMeta { last_log_id, last_membership };
    let dir = SnapshotDir { path: building };
    dir.write_meta(&meta)?;
    dir.sync()?;
    let snapshot = keep_only(&store.inner.root, &dir, last_log_id.map_or(0, |id| id.index))?;
    Ok(Snapshot { meta, snapshot })
}

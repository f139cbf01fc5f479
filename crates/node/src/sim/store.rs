//! Log and state in memory, on a disk that outlives its node. What was not synced may be lost in a power cut.

use super::record::Record;
use super::rng::Rng;
use super::Mutant;
use claviger_lease::Fence;
use claviger_log::{touched_by, Appended, LogId, RaftEntry, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use claviger_state_machine::records::Reads;
use claviger_state_machine::{apply, read, MemKv};
use claviger_types::command::Entry;
use claviger_types::outcome::Outcome;
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::{EntryPayload, OptionalSend};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Entries whose parts are known one by one after a start: few, so that the rest of the fence is used as well.
const FENCED_AT_START: u64 = 12;

/// Entries between two checkpoints, and how many are remembered.
const CHECKPOINT: u64 = 16;
const CHECKPOINTS: usize = 16;

/// The state tables at one index.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) kv: MemKv,
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl Image {
    fn index(&self) -> u64 {
        self.applied.as_ref().map_or(0, |id| id.index)
    }
}

/// How long a write takes, in milliseconds, and whether there is room for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    pub(super) slow: u64,
    pub(super) full: bool,
}

/// One node's disk.
pub(super) struct Disk {
    pub(super) log: BTreeMap<u64, RaftEntry>,
    pub(super) purged: Option<LogId>,
    vote: Option<Vote>,
    /// What is up to here survives a power cut.
    synced: u64,
    truncated: u64,
    pub(super) state: Image,
    /// The state as a power cut may leave it.
    safe: Image,
    snapshot: Option<(SnapshotMeta, Arc<Image>)>,
    pub(super) health: Health,
    rng: Rng,
}

impl Disk {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            log: BTreeMap::new(),
            purged: None,
            vote: None,
            synced: 0,
            truncated: 0,
            state: Image::default(),
            safe: Image::default(),
            snapshot: None,
            health: Health { slow: 0, full: false },
            rng,
        }
    }

    pub(super) fn last(&self) -> u64 {
        let purged = self.purged.as_ref().map_or(0, |id| id.index);
        self.log.last_key_value().map_or(purged, |(index, _)| *index)
    }

    /// Power goes: some of what was not synced is lost. Answers how many entries.
    pub(super) fn power_cut(&mut self) -> u64 {
        let last = self.last();
        let kept = self.synced.max(last.saturating_sub(self.rng.within(0..=last.saturating_sub(self.synced))));
        self.log.retain(|index, _| *index <= kept);
        let snapshot = self.snapshot.as_ref().map_or(0, |(_, image)| image.index());
        if self.state.index() > self.last().max(snapshot) || self.rng.chance(500) {
            self.state = self.safe.clone();
        }
        last - self.last()
    }

    fn wait(&mut self) -> Duration {
        let usual = [0, 0, 0, 1, 1, 3];
        let ms = self.rng.pick(&usual).copied().unwrap_or(0) + self.rng.within(0..=self.health.slow);
        Duration::from_millis(ms)
    }

    fn fence(&self) -> Fence {
        let purged = self.purged.as_ref().map_or(0, |id| id.index);
        let from = (self.last() + 1).saturating_sub(FENCED_AT_START).max(purged + 1);
        let fence = Fence::new(from - 1);
        for (index, entry) in self.log.range(from..) {
            fence.add(*index, touched_by(entry));
        }
        fence
    }
}

async fn rest(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

type Waiting = (IOFlushed<TypeConfig>, Vec<RaftEntry>);

/// The log of one node's life.
#[derive(Clone)]
pub(super) struct SimLog {
    disk: Arc<Mutex<Disk>>,
    appended: Arc<Appended>,
    queue: mpsc::UnboundedSender<Waiting>,
    mutant: Mutant,
}

impl SimLog {
    /// Opens what is on the disk, and starts the task that syncs.
    pub(super) fn open(disk: Arc<Mutex<Disk>>, mutant: Mutant) -> Self {
        let appended = Arc::new(Appended::new(disk.lock().unwrap().fence()));
        let (queue, waiting) = mpsc::unbounded_channel();
        let log = Self { disk, appended, queue, mutant };
        tokio::spawn(sync(log.disk.clone(), log.appended.clone(), mutant, waiting));
        log
    }

    pub(super) fn appended(&self) -> Arc<Appended> {
        self.appended.clone()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// End of the log.
    pub(super) fn last(&self) -> u64 {
        self.disk().last()
    }

    /// What is in the log.
    pub(super) fn ids(&self) -> BTreeMap<u64, LogId> {
        self.disk().log.iter().map(|(index, entry)| (*index, entry.log_id())).collect()
    }

    pub(super) fn entries(&self, range: RangeInclusive<u64>) -> Vec<(u64, RaftEntry)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.disk().log.range(range).map(|(index, entry)| (*index, entry.clone())).collect()
    }

    fn read(&self, range: &impl RangeBounds<u64>) -> io::Result<Vec<RaftEntry>> {
        let disk = self.disk();
        let start = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i + 1,
            Bound::Unbounded => 0,
        };
        let bounds = (Bound::Included(start), range.end_bound().cloned());
        Ok(disk.log.range(bounds).map(|(_, entry)| entry.clone()).collect())
    }
}

/// What has gathered is synced together; a truncation meanwhile stays one.
async fn sync(
    disk: Arc<Mutex<Disk>>,
    appended: Arc<Appended>,
    mutant: Mutant,
    mut queue: mpsc::UnboundedReceiver<Waiting>,
) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while let Ok(more) = queue.try_recv() {
            waiting.push(more);
        }
        let (upto, truncated, time) = {
            let mut disk = disk.lock().unwrap();
            (disk.last(), disk.truncated, disk.wait())
        };
        rest(time).await;
        {
            let mut disk = disk.lock().unwrap();
            if disk.truncated == truncated {
                disk.synced = disk.synced.max(upto);
            }
        }
        for (callback, entries) in waiting {
            if mutant == Mutant::LateFence {
                entries.iter().for_each(|entry| appended.add(entry));
            }
            callback.io_completed(Ok(()));
        }
    }
}

impl RaftLogReader<TypeConfig> for SimLog {
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend {
        let entries = self.read(&range);
        futures::stream::iter(entries.into_iter().flatten().map(Ok))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(&range)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.disk().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let most = self.disk().rng.within(1..=8);
        self.read(&(start..end.min(start + most)))
    }
}

impl RaftLogStorage<TypeConfig> for SimLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let disk = self.disk();
        let last = disk.log.last_key_value().map(|(_, entry)| entry.log_id());
        Ok(LogState { last_purged_log_id: disk.purged, last_log_id: last.or_else(|| disk.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        // All of it shares one write-ahead log: what was appended before is synced with it.
        let (upto, time) = {
            let mut disk = self.disk();
            (disk.last(), disk.wait())
        };
        rest(time).await;
        let mut disk = self.disk();
        disk.vote = Some(*vote);
        disk.synced = disk.synced.max(upto);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        if self.mutant != Mutant::LateFence {
            entries.iter().for_each(|entry| self.appended.add(entry));
        }
        {
            let mut disk = self.disk();
            if disk.health.full {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            for entry in &entries {
                disk.log.insert(entry.log_id().index, entry.clone());
            }
        }
        self.queue.send((callback, entries)).map_err(|_| io::Error::other("closed"))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let index = last.map_or(0, |id| id.index);
        let time = {
            let mut disk = self.disk();
            disk.log.retain(|at, _| *at <= index);
            disk.synced = disk.synced.min(index);
            disk.truncated += 1;
            disk.wait()
        };
        rest(time).await;
        self.appended.truncate(index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.purged.as_ref().is_none_or(|purged| *purged < upto) {
            disk.log.retain(|index, _| *index > upto.index);
            disk.purged = Some(upto);
        }
        Ok(())
    }
}

/// The state of one node's life. Clones share it.
#[derive(Clone)]
pub(super) struct Store {
    id: u64,
    disk: Arc<Mutex<Disk>>,
    applied: Arc<watch::Sender<u64>>,
    applying: Arc<AtomicU64>,
    /// Hashes of the state, at indexes that all nodes have in common.
    checkpoints: Arc<Mutex<BTreeMap<u64, [u8; 32]>>>,
    applied_at: Arc<Mutex<(u64, u64)>>,
    reads: Arc<watch::Sender<Option<Arc<Reads>>>>,
    /// Nothing is ever wrong with the state here.
    fault: Arc<watch::Sender<Option<String>>>,
    fence: Arc<Fence>,
    record: Record,
    mutant: Mutant,
}

impl Store {
    pub(super) fn open(id: u64, disk: Arc<Mutex<Disk>>, fence: Arc<Fence>, record: Record, mutant: Mutant) -> Self {
        let store = Self {
            id,
            disk,
            applied: Arc::new(watch::Sender::new(0)),
            applying: Arc::default(),
            checkpoints: Arc::default(),
            applied_at: Arc::default(),
            reads: Arc::new(watch::Sender::new(None)),
            fault: Arc::new(watch::Sender::new(None)),
            fence,
            record,
            mutant,
        };
        let applied = store.disk().state.applied;
        store.read_reads(None);
        store.announce_at(applied.as_ref());
        store.announce_index(applied.as_ref());
        store
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    pub(super) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(super) fn applying(&self) -> u64 {
        self.applying.load(SeqCst)
    }

    pub(super) fn checkpoint(&self) -> Option<(u64, [u8; 32])> {
        self.checkpoints.lock().unwrap().last_key_value().map(|(index, hash)| (*index, *hash))
    }

    pub(super) fn checkpoint_at(&self, index: u64) -> Option<[u8; 32]> {
        self.checkpoints.lock().unwrap().get(&index).copied()
    }

    pub(super) fn applied_at(&self) -> (u64, u64) {
        *self.applied_at.lock().unwrap()
    }

    pub(super) fn reads(&self) -> watch::Receiver<Option<Arc<Reads>>> {
        self.reads.subscribe()
    }

    pub(super) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    pub(super) fn view<T>(&self, query: impl FnOnce(&MemKv) -> T) -> T {
        query(&self.disk().state.kv)
    }

    /// From what is here, or from what is about to be here.
    fn read_reads(&self, image: Option<&Image>) {
        let reads = match image {
            Some(image) => read::reads(&image.kv),
            None => self.view(read::reads),
        };
        let reads = reads.unwrap().map(Arc::new);
        self.reads.send_if_modified(|known| {
            let changed = *known != reads;
            *known = reads;
            changed
        });
    }

    fn announce_at(&self, applied: Option<&LogId>) {
        if let Some(id) = applied {
            *self.applied_at.lock().unwrap() = (id.index, id.committed_leader_id().term);
        }
    }

    fn announce_index(&self, applied: Option<&LogId>) {
        self.applied.send_replace(applied.map_or(0, |id| id.index));
    }

    /// In the real store this runs beside the tasks: between any two of its steps they may look.
    async fn hitch(&self) {
        let time = {
            let mut disk = self.disk();
            if disk.rng.chance(100) {
                Some(disk.rng.within(0..=3))
            } else {
                None
            }
        };
        match time {
            Some(0) => tokio::task::yield_now().await,
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => {}
        }
    }
}

/// openraft's handle on the state.
pub(super) struct Machine {
    pub(super) store: Store,
}

impl Machine {
    async fn apply_run(&self, run: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let store = &self.store;
        store.hitch().await;
        let mut answers = Vec::with_capacity(run.len());
        let mut last = None;
        store.applying.fetch_max(run.last().map_or(0, |(entry, _)| entry.log_id().index), SeqCst);
        store.hitch().await;
        {
            let mut disk = store.disk();
            for (entry, responder) in run {
                store.record.apply(store.id, &entry);
                let log_id = entry.log_id();
                last = Some(log_id);
                let state = &mut disk.state;
                let outcome = match entry.payload {
                    EntryPayload::Blank => Outcome::Done,
                    EntryPayload::Membership(membership) => {
                        state.membership = StoredMembership::new(Some(log_id), membership);
                        Outcome::Done
                    }
                    EntryPayload::Normal(payload) => {
                        let entry = Entry::from_bytes(&payload.0).map_err(io::Error::other)?;
                        apply(&mut state.kv, log_id.index, &entry).map_err(io::Error::other)?
                    }
                };
                if log_id.index % CHECKPOINT == 0 {
                    let mut checkpoints = store.checkpoints.lock().unwrap();
                    checkpoints.insert(log_id.index, read::chain(&state.kv).map_err(io::Error::other)?);
                    while checkpoints.len() > CHECKPOINTS {
                        checkpoints.pop_first();
                    }
                }
                state.applied = Some(log_id);
                answers.push((responder, outcome));
            }
            if disk.rng.chance(20) && disk.state.index() <= disk.synced {
                disk.safe = disk.state.clone();
            }
        }
        store.hitch().await;
        store.read_reads(None);
        store.hitch().await;
        store.announce_at(last.as_ref());
        store.hitch().await;
        store.announce_index(last.as_ref());
        store.hitch().await;
        for (responder, outcome) in answers {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Arc<Image>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let disk = self.store.disk();
        Ok((disk.state.applied, disk.state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut run = Vec::new();
        let most = self.store.disk().rng.within(1..=6);
        while let Some(item) = entries.next().await {
            run.push(item?);
            if run.len() as u64 == most {
                self.apply_run(std::mem::take(&mut run)).await?;
            }
        }
        if run.is_empty() {
            Ok(())
        } else {
            self.apply_run(run).await
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Arc<Image>) -> io::Result<()> {
        let store = &self.store;
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        store.hitch().await;
        store.disk().snapshot = Some((meta.clone(), snapshot.clone()));
        store.hitch().await;
        if store.mutant != Mutant::NoInstall {
            store.fence.install(index);
        }
        store.applying.fetch_max(index, SeqCst);
        store.hitch().await;
        store.read_reads(Some(&snapshot));
        store.hitch().await;
        {
            let mut disk = store.disk();
            disk.state = Image::clone(&snapshot);
            disk.safe = disk.state.clone();
        }
        store.hitch().await;
        store.announce_at(meta.last_log_id.as_ref());
        store.hitch().await;
        store.announce_index(meta.last_log_id.as_ref());
        store.record.count("snapshot install");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<super::net::Snapshot>> {
        let disk = self.store.disk();
        let snapshot = disk.snapshot.clone();
        Ok(snapshot.map(|(meta, snapshot)| super::net::Snapshot { meta, snapshot }))
    }
}

/// Builds snapshots beside the running state.
pub(super) struct Builder {
    store: Store,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<Image>;

    async fn build_snapshot(&mut self) -> io::Result<super::net::Snapshot> {
        self.store.hitch().await;
        let mut disk = self.store.disk();
        let image = disk.state.clone();
        let meta = SnapshotMeta { last_log_id: image.applied, last_membership: image.membership.clone() };
        disk.safe = image.clone();
        let snapshot = Arc::new(image);
        disk.snapshot = Some((meta.clone(), snapshot.clone()));
        Ok(super::net::Snapshot { meta, snapshot })
    }
}

//! The hash of the state, kept while it changes, and how nodes that diverged find out (design C5).
//!
//! The row `raft/hash` holds the [`LtHash`] of every row of every table, together with the index it is for. Two things are left
//! out: Raft's own bookkeeping (`raft/...`), which differs between equal states, and the table of outcomes for retries, whose
//! rows are a third of all that is written and live for an hour: a wrong one has a consequence only if its request comes
//! again, and then in rows that are hashed. The row is written in the batch that changes the rows: for each changed row the pair *that is in the
//! database* is taken out and the new one put in. At every multiple of [`CHECKPOINT_EVERY`] the root (accumulator and head of
//! the audit chain, hashed) is a checkpoint: a run of entries never crosses such an index, so all replicas have a root for the
//! same ones, however they batch. Nodes compare checkpoints; [`verify`] compares the rows of one node with its own hash.
//!
//! What is found by which:
//!
//! | what went wrong | by comparing checkpoints | by recomputing |
//! |---|---|---|
//! | `apply` decided differently here (a bug, another binary) | at the next multiple of 256 | never: rows and hash agree |
//! | a row changed beneath (bad memory, a restored file, an edit) | not until the row is read or written by `apply` | always |
//! | ... and `apply` then decided by it | at the next multiple of 256 | always |
//! | ... and `apply` then replaced or removed it | at the next multiple of 256, and at all later ones | always from then on |
//! | a row lost or invented beneath | as a changed row | always |
//! | `raft/hash` itself changed beneath | at the next multiple of 256 | always |
//!
//! The fourth line is why the old pair comes from the database and not from what `apply` had in mind: what is taken out then
//! differs from what was once put in, and the difference stays in the sum for ever, even when the row itself is right again.
//! Such a node has to be given the state anew. (Plain bit rot seldom comes so far: RocksDB's block checksums refuse the read,
//! which stops the node at `apply` and is a fault for the recomputation.)
//!
//! The hash finds errors, not attackers: who can write to a node's files can write the hash too. Others' checkpoints still
//! differ then, unless the attacker made them all agree; against that stands the audit chain (design C6).
//!
//! An older release writes rows but no hash. The index in the row tells: where it is not the applied one, the hash is made
//! from the rows when the state is opened.

use crate::lthash::{LtHash, LTHASH_BYTES};
use crate::other;
use crate::state::{family, Db, Run, View};
use claviger_state_machine::{read, Kv, Read, Table};
use claviger_types::codec;
use std::collections::VecDeque;
use std::io;
use std::sync::{mpsc, Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Entries between two checkpoints: few enough that a divergence shows within seconds under load, many enough that the cut
/// costs nothing.
pub const CHECKPOINT_EVERY: u64 = 256;

/// How often the rows are recomputed while the node runs: disks forget slowly, and a check reads the whole state.
pub const CHECK_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Checkpoints that are remembered: peers that are 16,000 entries apart can still be compared.
const CHECKPOINTS_KEPT: usize = 64;

/// Keys of `Meta` that are Raft's own and differ between equal states.
const BOOKKEEPING: &[u8] = b"raft/";
const HASH: &[u8] = b"raft/hash";
const CHECKPOINT: &[u8] = b"raft/checkpoint";

/// Format number of both rows.
const FORMAT: u8 = 1;

/// Bytes of rows between two pauses of a background check: some milliseconds of work.
const PAGE_BYTES: usize = 512 * 1024;

/// A background check rests this many times as long as it worked: it never takes more than a fifth of one core.
const REST: u32 = 4;

/// Names what is hashed, so that the root means nothing else.
const ROOT_CONTEXT: &str = "claviger state root 1";

/// An index and the root of the state there.
pub(crate) type Checkpoint = (u64, [u8; 32]);

/// Why the rows of a state are not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Rows were changed, lost or invented beneath the state machine, or the kept hash was.
    #[error("the rows of the state do not make the hash that was kept while they changed, at index {index}")]
    Differs {
        /// The applied index of the view that was checked.
        index: u64,
    },
    /// A row could not be read.
    #[error("the state cannot be read")]
    Read(#[from] io::Error),
}

/// What the row `raft/hash` holds.
struct Kept {
    index: u64,
    hash: LtHash,
}

impl Kept {
    fn to_bytes(&self) -> Vec<u8> {
        [&[FORMAT], self.index.to_le_bytes().as_slice(), &self.hash.to_bytes()].concat()
    }

    /// `None` for a row of another format: then the hash is made anew.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (index, lanes) = bytes.strip_prefix(&[FORMAT])?.split_first_chunk::<8>()?;
        let lanes: &[u8; LTHASH_BYTES] = lanes.try_into().ok()?;
        Some(Self { index: u64::from_le_bytes(*index), hash: LtHash::from_bytes(lanes) })
    }

    fn of(rows: &impl Read) -> io::Result<Option<Self>> {
        Ok(rows.get(Table::Meta, HASH).map_err(other)?.and_then(|bytes| Self::from_bytes(&bytes)))
    }

    /// The kept hash of a state that was opened, and so has one.
    fn required(rows: &impl Read) -> io::Result<Self> {
        Self::of(rows)?.ok_or_else(|| other("the hash of the state has gone"))
    }

    fn root(&self, chain: &[u8; 32]) -> [u8; 32] {
        let mut root = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        root.update(&self.hash.to_bytes()).update(chain);
        root.finalize().into()
    }
}

/// Whether all replicas have this row.
fn shared(table: Table, key: &[u8]) -> bool {
    table != Table::Meta || !key.starts_with(BOOKKEEPING)
}

/// Whether a row is hashed: see the head of this file for what is not, and why.
fn counts(table: Table, key: &[u8]) -> bool {
    shared(table, key) && table != Table::Idempotency
}

/// Whether a run of entries ends with this index.
pub(crate) fn ends_run(index: u64) -> bool {
    index.is_multiple_of(CHECKPOINT_EVERY)
}

/// Adds to a run that ends at `index` what it does to the hash; answers the checkpoint, if it ends at one.
pub(crate) fn extend(run: &mut Run<'_>, index: u64) -> io::Result<Option<Checkpoint>> {
    let mut kept = Kept::required(run)?;
    kept.index = index;
    for ((table, key), new) in run.changes.iter().filter(|((table, key), _)| counts(*table, key)) {
        // As it is in the database, not as it was in between: only the sum of the run's changes is added.
        let old = run.stored(*table, key).map_err(other)?;
        if old == *new {
            continue;
        }
        if let Some(old) = old {
            kept.hash.remove(table.name(), key, &old);
        }
        if let Some(new) = new {
            kept.hash.add(table.name(), key, new);
        }
    }
    run.put(Table::Meta, HASH.to_vec(), kept.to_bytes());
    if !ends_run(index) {
        return Ok(None);
    }
    let checkpoint = (index, kept.root(&read::chain(run).map_err(other)?));
    run.put(Table::Meta, CHECKPOINT.to_vec(), codec::to_versioned(FORMAT, &checkpoint).map_err(other)?);
    Ok(Some(checkpoint))
}

/// Makes sure that a state has its hash before anything is applied to it. Answers whether it had to be made.
pub(crate) fn ensure(db: &Db) -> io::Result<bool> {
    let view = View::of(db);
    let index = view.applied_index()?;
    if Kept::of(&view)?.is_some_and(|kept| kept.index == index) {
        return Ok(false);
    }
    let (started, mut rows) = (Instant::now(), 0u64);
    let hash = recompute(&view, |_| {
        rows += 1;
        true
    })?;
    let hash = hash.unwrap_or_default();
    let row = Kept { index, hash }.to_bytes();
    db.put_cf(&family(db, Table::Meta).map_err(other)?, HASH, row).map_err(other)?;
    if rows > 0 {
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::info!(index, rows, elapsed_ms, "the hash of the state was made from its rows");
    }
    Ok(true)
}

/// Feeds every row that replicas share to `row`, until it answers `false`; so does this function then.
pub(crate) fn walk(view: &View<'_>, mut row: impl FnMut(Table, &[u8], &[u8]) -> bool) -> io::Result<bool> {
    for table in Table::ALL {
        for item in view.rows(*table)? {
            let (key, value) = item?;
            if shared(*table, &key) && !row(*table, &key, &value) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The hash of the rows as they are. `go_on` is asked after each row, with its length; `None` when it said no.
fn recompute(view: &View<'_>, mut go_on: impl FnMut(usize) -> bool) -> io::Result<Option<LtHash>> {
    let mut hash = LtHash::new();
    let whole = walk(view, |table, key, value| {
        if counts(table, key) {
            hash.add(table.name(), key, value);
        }
        go_on(key.len() + value.len())
    })?;
    Ok(whole.then_some(hash))
}

/// Compares rows and hash of one view. Answers its index, `None` when `go_on` ended it.
pub(crate) fn verify(db: &Db, go_on: impl FnMut(usize) -> bool) -> Result<Option<u64>, HashError> {
    let view = View::of(db);
    let kept = Kept::required(&view)?;
    match recompute(&view, go_on)? {
        None => Ok(None),
        Some(hash) if hash == kept.hash => Ok(Some(kept.index)),
        Some(_) => Err(HashError::Differs { index: kept.index }),
    }
}

/// The root of a view.
pub(crate) fn root(view: &View<'_>) -> io::Result<Checkpoint> {
    let kept = Kept::required(view)?;
    Ok((kept.index, kept.root(&read::chain(view).map_err(other)?)))
}

/// The newest checkpoints, in order of index.
pub(crate) struct Checkpoints(watch::Sender<VecDeque<Checkpoint>>);

impl Checkpoints {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(VecDeque::new()))
    }

    /// Begins anew with what a state holds, older ones are of another.
    pub(crate) fn load(&self, rows: &impl Read) -> io::Result<()> {
        let stored = rows.get(Table::Meta, CHECKPOINT).map_err(other)?;
        // One of another format is not missed: the next is 256 entries away.
        let stored = stored.and_then(|bytes| codec::from_versioned(FORMAT, &bytes).ok());
        self.0.send_replace(stored.into_iter().collect());
        Ok(())
    }

    pub(crate) fn push(&self, checkpoint: Checkpoint) {
        self.0.send_modify(|kept| {
            if kept.len() == CHECKPOINTS_KEPT {
                kept.pop_front();
            }
            kept.push_back(checkpoint);
        });
    }

    pub(crate) fn newest(&self) -> Option<Checkpoint> {
        self.0.borrow().back().copied()
    }

    pub(crate) fn at(&self, index: u64) -> Option<[u8; 32]> {
        self.0.borrow().iter().find(|(at, _)| *at == index).map(|(_, root)| *root)
    }
}

/// Why this node must not serve: the first reason stays until the node is started again.
#[derive(Clone)]
pub(crate) struct Fault(pub(crate) watch::Sender<Option<String>>);

impl Fault {
    pub(crate) fn report(&self, why: String) {
        tracing::error!(why, "the state of this node is not to be trusted");
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(why);
            first
        });
    }
}

/// The thread that recomputes the hash now and then. It ends with this value.
pub(crate) struct Checker {
    wake: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Checks now and after every `period`.
    pub(crate) fn start(db: Arc<RwLock<Arc<Db>>>, fault: Fault, period: Duration) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let body = move || check_for_ever(&db, &fault, period, &woken);
        let thread = std::thread::Builder::new().name("state-check".into()).spawn(body)?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    /// Checks now: the state was replaced.
    pub(crate) fn again(&self) {
        if let Some(wake) = &self.wake {
            // The thread ends before this value only by a panic, which was reported where it happened.
            wake.send(()).ok();
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // As above.
            thread.join().ok();
        }
    }
}

fn check_for_ever(db: &RwLock<Arc<Db>>, fault: &Fault, period: Duration, woken: &mpsc::Receiver<()>) {
    loop {
        let current = db.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (started, mut bytes, mut working, mut again) = (Instant::now(), 0, Instant::now(), false);
        let result = verify(&current, |row| {
            bytes += row;
            if bytes < PAGE_BYTES {
                return true;
            }
            let go_on = match woken.recv_timeout(working.elapsed() * REST) {
                Err(mpsc::RecvTimeoutError::Timeout) => true,
                Ok(()) => {
                    again = true;
                    false
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => false,
            };
            (bytes, working) = (0, Instant::now());
            go_on
        });
        drop(current);
        match result {
            Ok(None) if again => continue,
            Ok(None) => return,
            Ok(Some(index)) => {
                let elapsed_ms = started.elapsed().as_millis() as u64;
                tracing::info!(index, elapsed_ms, "the rows of the state make its hash");
            }
            Err(error) => fault.report(match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
        }
        if let Err(mpsc::RecvTimeoutError::Disconnected) = woken.recv_timeout(period) {
            return;
        }
    }
}

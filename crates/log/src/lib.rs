//! RocksDB: the Raft log, the state tables and snapshots.
//!
//! This crate and `node` are the only ones that know openraft, and this one alone knows RocksDB. Two databases lie side by
//! side (design C2): `raft` holds log and vote and is synced before anything is acknowledged; `state` holds the tables and
//! is written with one atomic batch per applied run, bookkeeping included, and needs no sync, for the log replays from the
//! applied index that the batch carries.
//!
//! Ordering that must always hold: `purged <= snapshot <= applied <= committed <= last`. The log is purged only up to a
//! snapshot, and a snapshot is a flushed, synced checkpoint. An interrupted install may leave `snapshot` or `applied`
//! ahead; openraft finishes it at start-up. [`check_order`] refuses everything else.

mod lthash;
mod order;
mod raft_log;
mod snapshot;
mod state;
mod state_hash;

pub use lthash::{LtHash, LTHASH_BYTES};
pub use order::check_order;
pub use raft_log::{touched_by, Appended, RaftLog};
pub use snapshot::{FileHandle, SnapshotDir};
pub use state::{StateBuilder, StateMachine, StateStore, View};
pub use state_hash::{HashError, CHECKPOINT_EVERY, CHECK_EVERY};

use claviger_types::outcome::Outcome;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// What openraft replicates: the bytes of one [`claviger_types::command::Entry`], opaque to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Vec<u8>);

// Entries hold sealed material: logs and errors show their size only.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a member is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` of its peer listener.
    pub peer: String,
    /// Name in its peer certificate.
    pub name: String,
}

openraft::declare_raft_types!(
    /// The types that openraft runs with.
    pub TypeConfig:
        D = Payload,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// A log id of ours.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote of ours.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry of ours, as openraft sees it.
pub type RaftEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// Membership with the log id it came from.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot holds up to.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot with its files.
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// Format number of stored openraft values (log entries, votes, membership).
pub(crate) const RAFT_FORMAT: u8 = 1;

/// RocksDB's own text logs, bounded: by default it keeps a thousand of any size.
fn info_log(options: &mut rocksdb::Options) {
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(8 * 1024 * 1024);
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn other(error: impl fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

//! Entries that the tests of this crate apply.

#![allow(missing_docs, unreachable_pub)]
// Not every test uses everything.
#![allow(dead_code)]

use claviger_log::{Payload, RaftEntry, StateMachine, StateStore, TypeConfig};
use claviger_types::command::{
    Actor, Attributes, Command, Content, CreateVault, Entry, InitWorld, ObjectRef, Origin, PutResourceGroup,
    PutVersion, Tags,
};
use claviger_types::name::{Id128, Kind, ObjectName, VaultName};
use claviger_types::vault::VaultSettings;
use futures::stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::RaftStateMachine;
use openraft::vote::RaftLeaderId as _;
use openraft::EntryPayload;
use tempfile::TempDir;

type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;

pub const VAULT: Id128 = Id128([7; 16]);

pub fn id(n: u64) -> Id128 {
    let mut bytes = [0xab; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Id128(bytes)
}

/// A secret of the vault.
pub fn object(name: &str) -> ObjectRef {
    ObjectRef { vault: VAULT, kind: Kind::Secret, name: ObjectName::parse(name).unwrap() }
}

/// Sets a secret; `n` makes the version's id.
pub fn set(name: &str, n: u64) -> Command {
    Command::PutVersion(PutVersion {
        vault: VAULT,
        kind: Kind::Secret,
        name: ObjectName::parse(name).unwrap(),
        origin: Origin::Create,
        version: id(n),
        attributes: Attributes { enabled: true, not_before: None, expires: None },
        tags: Tags::new(),
        content: Content::Secret { content_type: None },
    })
}

/// The n-th command of a history: world, group, vault, then secrets that are set, deleted and recovered.
pub fn command(index: u64) -> Command {
    let name = |i: u64| format!("s{}", i % 7);
    match index {
        1 => Command::InitWorld(InitWorld { world: Id128([9; 16]), region: "local".into() }),
        2 => Command::PutResourceGroup(PutResourceGroup {
            subscription: Id128([3; 16]),
            name: "g".into(),
            location: "local".into(),
            tags: Tags::new(),
        }),
        3 => Command::CreateVault(CreateVault {
            id: VAULT,
            name: VaultName::parse("demo").unwrap(),
            tenant: Id128([1; 16]),
            subscription: Id128([3; 16]),
            display_name: "demo".into(),
            group: "g".into(),
            location: "local".into(),
            retention_days: 7,
            purge_protection: false,
            settings: VaultSettings::default(),
            policies: vec![],
        }),
        n if n % 11 == 0 => Command::DeleteObject(object(&name(n))),
        n if n % 13 == 0 => Command::RecoverObject(object(&name(n + 2))),
        n => set(&name(n), n),
    }
}

/// What a client's request becomes.
pub fn request(request: u64, time_ms: u64, command: &Command) -> Entry {
    Entry::new(id(request), Actor::System, time_ms, command, vec![vec![1; 40]]).unwrap()
}

/// An entry at its place in the log.
pub fn at(index: u64, entry: &Entry) -> RaftEntry {
    let log_id = openraft::LogId::new(LeaderId::new(1, 1).to_committed(), index);
    RaftEntry::new(log_id, EntryPayload::Normal(Payload(entry.to_bytes().unwrap())))
}

/// The n-th entry of the history.
pub fn entry(index: u64) -> RaftEntry {
    at(index, &request(index, 1_000 * index, &command(index)))
}

/// Applies entries in one go.
pub async fn apply_all(state: &StateStore, entries: impl IntoIterator<Item = RaftEntry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    StateMachine::new(state.clone()).apply(stream::iter(entries)).await.unwrap();
}

/// Applies entries `from..=to` in runs of a size.
pub async fn apply(state: &StateStore, from: u64, to: u64, run: u64) {
    let mut next = from;
    while next <= to {
        let last = (next + run - 1).min(to);
        apply_all(state, (next..=last).map(entry)).await;
        next = last + 1;
    }
}

/// Opens a store under a name.
pub fn open(dir: &TempDir, name: &str) -> StateStore {
    StateStore::open(&dir.path().join(name)).unwrap()
}

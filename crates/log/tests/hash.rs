//! The hash of the state: that it follows every history, and what it finds (design C11, U1 and U6).

mod history;

use claviger_log::{HashError, LtHash, SnapshotDir, StateMachine, StateStore, CHECKPOINT_EVERY};
use claviger_state_machine::{apply as decide, MemKv, Table};
use claviger_types::command::{Command, Entry, UpdateVersion};
use claviger_types::name::Kind;
use history::{apply, apply_all, at, command, object, open, request, set, VAULT};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Bound of every wait: many times what a check takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
enum Op {
    Set(u8),
    Disable(u8),
    Delete(u8),
    Recover(u8),
    Purge(u8),
    Retry,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0u8..4;
    prop_oneof![
        4 => name.clone().prop_map(Op::Set),
        2 => name.clone().prop_map(Op::Disable),
        2 => name.clone().prop_map(Op::Delete),
        1 => name.clone().prop_map(Op::Recover),
        1 => name.prop_map(Op::Purge),
        1 => Just(Op::Retry),
    ]
}

/// A log of world, group, vault and then random operations; time leaps now and then, so that outcomes are forgotten and
/// what is deleted may be purged.
fn log_of(ops: &[(Op, bool)]) -> Vec<Entry> {
    let mut log: Vec<Entry> = (1..=3).map(|n| request(n, 1_000, &command(n))).collect();
    let mut time = 1_000;
    for (op, leap) in ops {
        let n = log.len() as u64 + 1;
        time += if *leap { 400_000_000 } else { 700 };
        let name = |i: &u8| format!("Name-{i}");
        let command = match op {
            Op::Set(i) => set(&name(i), n),
            Op::Disable(i) => Command::UpdateVersion(UpdateVersion {
                vault: VAULT,
                kind: Kind::Secret,
                name: object(&name(i)).name,
                version: None,
                enabled: Some(false),
                not_before: None,
                expires: None,
                tags: None,
                key_ops: None,
                content_type: None,
                release_policy: None,
            }),
            Op::Delete(i) => Command::DeleteObject(object(&name(i))),
            Op::Recover(i) => Command::RecoverObject(object(&name(i))),
            Op::Purge(i) => Command::PurgeObject(object(&name(i))),
            Op::Retry => {
                let again = log[log.len() / 2].clone();
                log.push(Entry { time_ms: time, ..again });
                continue;
            }
        };
        log.push(request(n, time, &command));
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// U1: one history on memory, on a store in one go, and on a store in random pieces with restarts in between.
    #[test]
    fn histories_have_one_hash(
        ops in prop::collection::vec((op(), prop::bool::weighted(0.02)), 300..700),
        pieces in prop::collection::vec((1usize..300, prop::bool::weighted(0.3)), 1..8),
    ) {
        let dir = TempDir::new().unwrap();
        let log = log_of(&ops);
        let entries: Vec<_> = (1..).zip(&log).map(|(index, entry)| at(index, entry)).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();

        let whole = open(&dir, "whole");
        runtime.block_on(apply_all(&whole, entries.clone()));

        let (mut cut, mut rest, mut restarts) = (open(&dir, "cut"), entries.as_slice(), pieces.iter().cycle());
        while !rest.is_empty() {
            let (size, restart) = restarts.next().unwrap();
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            runtime.block_on(apply_all(&cut, piece.to_vec()));
            rest = after;
            if *restart {
                let before = (cut.root().unwrap(), cut.checkpoint());
                drop(cut);
                cut = open(&dir, "cut");
                prop_assert_eq!((cut.root().unwrap(), cut.checkpoint()), before);
            }
        }

        prop_assert_eq!(whole.verify_hash().unwrap(), log.len() as u64);
        prop_assert_eq!(cut.verify_hash().unwrap(), log.len() as u64);
        prop_assert_eq!(whole.root().unwrap(), cut.root().unwrap());
        prop_assert_eq!(whole.state_hash().unwrap(), cut.state_hash().unwrap());
        let last = log.len() as u64 / CHECKPOINT_EVERY * CHECKPOINT_EVERY;
        prop_assert_eq!(whole.checkpoint().unwrap().0, last);
        prop_assert_eq!(whole.checkpoint(), cut.checkpoint());

        let mut memory = MemKv::default();
        for (index, entry) in (1..).zip(&log) {
            decide(&mut memory, index, entry).unwrap();
        }
        let mut hash = LtHash::new();
        for (table, key, value) in memory.rows().filter(|(table, ..)| *table != Table::Idempotency) {
            hash.add(table.name(), key, value);
        }
        prop_assert_eq!(kept(&dir.path().join("whole"), whole), hash);
    }
}

/// The accumulator as it is stored. The store has to be closed for that.
fn kept(root: &Path, store: StateStore) -> LtHash {
    drop(store);
    LtHash::from_bytes(row(root, "meta", b"raft/hash").unwrap()[9..].try_into().unwrap())
}

fn beneath<T>(root: &Path, work: impl FnOnce(&rocksdb::DB) -> T) -> T {
    let folder = root.join(std::fs::read_to_string(root.join("STATE")).unwrap());
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &folder).unwrap();
    work(&rocksdb::DB::open_cf(&options, &folder, families).unwrap())
}

fn row(root: &Path, table: &str, key: &[u8]) -> Option<Vec<u8>> {
    beneath(root, |db| db.get_cf(db.cf_handle(table).unwrap(), key).unwrap())
}

/// Flips the lowest bit of the last byte of a table's first row; answers the row's key.
fn flip(root: &Path, table: &str) -> Vec<u8> {
    beneath(root, |db| {
        let cf = db.cf_handle(table).unwrap();
        let (key, mut value) = db.iterator_cf(cf, rocksdb::IteratorMode::Start).next().unwrap().unwrap();
        *value.last_mut().unwrap() ^= 1;
        db.put_cf(cf, &key, value).unwrap();
        key.to_vec()
    })
}

fn differs_at(store: &StateStore) -> u64 {
    match store.verify_hash() {
        Err(HashError::Differs { index }) => index,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_stored_form_is_what_it_was() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, "state");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(apply(&store, 1, 256, 100));
    let root = store.root().unwrap();
    assert_eq!(store.checkpoint(), Some(root));
    drop(store);
    let path = dir.path().join("state");
    let hash = row(&path, "meta", b"raft/hash").unwrap();
    assert_eq!(hash.len(), 1 + 8 + 512);
    assert_eq!(hash[..9], [1, 0, 1, 0, 0, 0, 0, 0, 0], "format, index");
    assert_eq!(
        blake3::hash(&hash).to_hex().as_str(),
        "21ca51dff6d0912bc6484fe1cdcfdce2dfd1207a86f059e53a4d7e69261fb746"
    );
    let checkpoint = row(&path, "meta", b"raft/checkpoint").unwrap();
    assert_eq!(checkpoint, [&[1, 0, 1, 0, 0, 0, 0, 0, 0], root.1.as_slice()].concat());
    assert_eq!(
        blake3::Hash::from(root.1).to_hex().as_str(),
        "c00c8f8ed1deaabdf75e99fd0431bc314d9cad37888a897e4ea382fb28582c52"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_end_at_multiples_of_256_and_roots_are_kept() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open(&dir, "one"), open(&dir, "two"));
    apply(&one, 1, 255, 255).await;
    assert_eq!(one.checkpoint(), None);
    apply(&one, 256, 1_100, 500).await;
    apply(&two, 1, 1_100, 37).await;
    assert_eq!(one.checkpoint().unwrap().0, 1_024);
    for index in [256, 512, 768, 1_024] {
        assert!(one.checkpoint_at(index).is_some());
        assert_eq!(one.checkpoint_at(index), two.checkpoint_at(index));
    }
    assert_ne!(one.checkpoint_at(256), one.checkpoint_at(512));
    assert_eq!(one.checkpoint_at(1_100), None);
    drop(two);
    let two = open(&dir, "two");
    assert_eq!(two.checkpoint(), one.checkpoint(), "the newest survives a restart");
    assert_eq!(two.checkpoint_at(768), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_an_older_release_gets_its_hash_when_it_is_opened() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, "state");
    apply(&store, 1, 300, 64).await;
    let root = store.root().unwrap();
    drop(store);
    let path = dir.path().join("state");
    beneath(&path, |db| db.delete_cf(db.cf_handle("meta").unwrap(), b"raft/hash").unwrap());
    let store = open(&dir, "state");
    assert_eq!(store.root().unwrap(), root);

    // The older release ran again in between: its rows are not in the hash.
    store.danger_without_hash();
    apply(&store, 301, 400, 64).await;
    assert_eq!(store.root().unwrap().0, 300);
    drop(store);
    let store = open(&dir, "state");
    assert_eq!(store.verify_hash().unwrap(), 400);
    let other = open(&dir, "other");
    apply(&other, 1, 400, 64).await;
    assert_eq!(store.root().unwrap(), other.root().unwrap());

    // So did a newer one, with another format.
    drop(store);
    beneath(&path, |db| db.put_cf(db.cf_handle("meta").unwrap(), b"raft/hash", [9, 9, 9]).unwrap());
    assert_eq!(open(&dir, "state").root().unwrap(), other.root().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_by_recomputing_and_stays_found() {
    let dir = TempDir::new().unwrap();
    let (good, bad) = (open(&dir, "good"), open(&dir, "bad"));
    apply(&good, 1, 300, 64).await;
    apply(&bad, 1, 300, 64).await;
    drop(bad);
    let key = flip(&dir.path().join("bad"), "objects");
    let bad = open(&dir, "bad");
    assert_eq!(differs_at(&bad), 300);
    // Nothing was applied, so nothing read the row.
    assert_eq!(bad.root().unwrap(), good.root().unwrap());

    // Entries that touch neither the row nor what depends on it: still only the recomputation finds it.
    let elsewhere = |i| at(i, &request(i, 1_000 * i, &set("elsewhere", i)));
    for store in [&good, &bad] {
        apply_all(store, (301..=512).map(elsewhere)).await;
    }
    assert_eq!(bad.checkpoint(), good.checkpoint());
    assert_eq!(differs_at(&bad), 512);

    // The row is replaced: what is taken out is not what was put in.
    for store in [&good, &bad] {
        apply(store, 513, 768, 64).await;
    }
    assert_eq!(bad.checkpoint().unwrap().0, 768);
    assert_ne!(bad.checkpoint(), good.checkpoint());
    assert_eq!(differs_at(&bad), 768);
    let put_right = good.view(|view| claviger_state_machine::Read::get(view, Table::Objects, &key)).unwrap();
    bad.danger_write_beneath_hash(Table::Objects, &key, put_right.as_deref()).unwrap();
    assert_eq!(differs_at(&bad), 768, "putting the row right does not put the sum right");
    assert_eq!(good.verify_hash().unwrap(), 768);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_invented_rows_are_found() {
    let dir = TempDir::new().unwrap();
    let state = open(&dir, "state");
    apply(&state, 1, 30, 64).await;
    state.danger_write_beneath_hash(Table::Rotation, b"invented", Some(b"")).unwrap();
    assert_eq!(differs_at(&state), 30);
    state.danger_write_beneath_hash(Table::Rotation, b"invented", None).unwrap();
    assert_eq!(state.verify_hash().unwrap(), 30);
    state.danger_write_beneath_hash(Table::VaultNames, b"demo", None).unwrap();
    assert_eq!(differs_at(&state), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_divergent_apply_is_found_by_comparing_only() {
    let dir = TempDir::new().unwrap();
    let (good, bad) = (open(&dir, "good"), open(&dir, "bad"));
    for store in [&good, &bad] {
        apply(store, 1, 300, 64).await;
    }
    bad.danger_write_with_hash(Table::Vaults, b"divergent", Some(b"row")).unwrap();
    assert_eq!(bad.verify_hash().unwrap(), 300);
    assert_eq!(bad.checkpoint(), good.checkpoint(), "the last one was before");
    for store in [&good, &bad] {
        apply(store, 301, 512, 64).await;
    }
    assert_ne!(bad.checkpoint(), good.checkpoint());
    assert_eq!(bad.verify_hash().unwrap(), 512);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_check_reports_a_fault() {
    let dir = TempDir::new().unwrap();
    let state = open(&dir, "state");
    apply(&state, 1, 30, 64).await;
    state.check_in_background(Duration::from_millis(20)).unwrap();
    let mut fault = state.fault();
    assert_eq!(*fault.borrow(), None);
    state.danger_write_beneath_hash(Table::Objects, b"key", Some(b"value")).unwrap();
    let found = tokio::time::timeout(PATIENCE, fault.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(found.unwrap().ends_with("at index 30"));
    state.report_fault("another".into());
    assert!(fault.borrow().as_ref().unwrap().ends_with("at index 30"), "the first reason stays");
    // The thread ends with the store, in the middle of a check too.
    drop(state);
    assert_eq!(open(&dir, "state").fault().borrow().as_deref(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_its_hash_and_is_refused_when_it_is_damaged() {
    let dir = TempDir::new().unwrap();
    let source = open(&dir, "source");
    apply(&source, 1, 300, 64).await;
    let target = open(&dir, "target");
    target.check_in_background(PATIENCE).unwrap();
    install(&source, &target).await.unwrap();
    assert_eq!(target.root().unwrap(), source.root().unwrap());
    assert_eq!(target.checkpoint(), source.checkpoint());
    apply(&source, 301, 600, 64).await;
    apply(&target, 301, 600, 10).await;
    assert_eq!(target.checkpoint(), source.checkpoint());

    let before = target.root().unwrap();
    apply(&source, 601, 700, 64).await;
    source.danger_write_beneath_hash(Table::Objects, b"key", Some(b"value")).unwrap();
    let error = install(&source, &target).await.unwrap_err().to_string();
    assert!(error.ends_with("at index 700"), "{error}");
    assert_eq!(target.root().unwrap(), before);
    drop(target);
    assert_eq!(open(&dir, "target").root().unwrap(), before);
}

/// Builds a snapshot, carries its files over and installs it.
async fn install(source: &StateStore, target: &StateStore) -> std::io::Result<()> {
    let built = StateMachine::new(source.clone()).get_snapshot_builder().await.build_snapshot().await?;
    let incoming = SnapshotDir::create(target.incoming_dir())?;
    for file in built.snapshot.files()? {
        incoming.write(&file.name, 0, &built.snapshot.read(&file.name, 0, usize::MAX)?)?;
    }
    StateMachine::new(target.clone()).install_snapshot(&built.meta, incoming).await
}

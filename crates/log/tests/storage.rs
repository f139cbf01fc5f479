//! The stores against openraft's own suite for storage, and our promises about restart, snapshots and order.

mod history;

use claviger_log::{check_order, RaftLog, StateMachine, StateStore, TypeConfig};
use claviger_state_machine::read;
use claviger_types::command::{Command, Entry};
use history::{apply, apply_all, at, object, open, request, set};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::StorageError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, RaftLog, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let log = RaftLog::open(&dir.path().join("raft")).unwrap();
        let state = StateStore::open(&dir.path().join("state")).unwrap();
        Ok((dir, log, StateMachine::new(state)))
    }
}

#[test]
fn passes_openrafts_suite_for_storage() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn how_entries_are_batched_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (one, many) = (open(&dir, "one"), open(&dir, "many"));
    apply(&one, 1, 300, 1).await;
    apply(&many, 1, 300, 64).await;
    assert_eq!(one.state_hash().unwrap(), many.state_hash().unwrap());
    assert_eq!(one.state_hash().unwrap().0, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let (whole, cut) = (open(&dir, "whole"), open(&dir, "cut"));
    apply(&whole, 1, 200, 10).await;
    apply(&cut, 1, 77, 10).await;
    drop(cut);
    let cut = open(&dir, "cut");
    assert_eq!(*cut.applied().borrow(), 77);
    apply(&cut, 78, 200, 10).await;
    assert_eq!(whole.state_hash().unwrap(), cut.state_hash().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_at_any_point_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let source = open(&dir, "source");
    let whole = open(&dir, "whole");
    apply(&whole, 1, 90, 16).await;
    let mut applied = 0;
    for at in [1, 2, 3, 20, 33, 34, 60, 90] {
        apply(&source, applied + 1, at, 16).await;
        applied = at;
        let before = source.state_hash().unwrap();
        let snapshot = StateMachine::new(source.clone()).get_snapshot_builder().await.build_snapshot().await.unwrap();
        assert_eq!(source.state_hash().unwrap(), before, "building changes nothing, index {at}");

        // What a follower does: files arrive in pieces, then the install.
        let target = open(&dir, &format!("target-{at}"));
        let incoming = claviger_log::SnapshotDir::create(target.incoming_dir()).unwrap();
        for file in snapshot.snapshot.files().unwrap() {
            let mut offset = 0;
            loop {
                let bytes = snapshot.snapshot.read(&file.name, offset, 1000).unwrap();
                if bytes.is_empty() && offset > 0 {
                    break;
                }
                incoming.write(&file.name, offset, &bytes).unwrap();
                offset += bytes.len() as u64;
                if bytes.len() < 1000 {
                    break;
                }
            }
        }
        let mut machine = StateMachine::new(target.clone());
        machine.install_snapshot(&snapshot.meta, incoming).await.unwrap();
        assert_eq!(target.state_hash().unwrap(), before, "index {at}");
        apply(&target, at + 1, 90, 16).await;
        assert_eq!(target.state_hash().unwrap(), whole.state_hash().unwrap(), "index {at}");
        drop((machine, target));
        let again = open(&dir, &format!("target-{at}"));
        assert_eq!(again.state_hash().unwrap(), whole.state_hash().unwrap(), "after a restart, index {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_built_stops_nothing() {
    let dir = TempDir::new().unwrap();
    let state = open(&dir, "state");
    let mut machine = StateMachine::new(state.clone());
    let obstacle = dir.path().join("state/building");
    apply(&state, 1, 20, 16).await;

    // A file where the snapshot is put together: nothing can be built.
    std::fs::write(&obstacle, "").unwrap();
    let built = machine.try_create_snapshot_builder(false).await.unwrap().build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, None, "there is none before");
    assert!(state.snapshot_failure().is_some());
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    let required = machine.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await;
    assert!(required.is_err(), "openraft cannot go on without this one");

    std::fs::remove_file(&obstacle).unwrap();
    let built = machine.try_create_snapshot_builder(false).await.unwrap().build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id.map(|id| id.index), Some(20));
    assert_eq!(state.snapshot_failure(), None);

    apply(&state, 21, 40, 16).await;
    std::fs::write(&obstacle, "").unwrap();
    let built = machine.try_create_snapshot_builder(false).await.unwrap().build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id.map(|id| id.index), Some(20), "the one before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_does_not_move() {
    let dir = TempDir::new().unwrap();
    let state = open(&dir, "state");
    apply(&state, 1, 10, 4).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (reader, stopped) = (state.clone(), stop.clone());
    let reads = std::thread::spawn(move || {
        let mut count = 0u64;
        while !stopped.load(Ordering::Relaxed) {
            reader.view(|view| {
                // Both belong to the same index: each entry extends the chain and writes its event.
                let chain = read::chain(view).unwrap();
                let clock = read::clock_ms(view).unwrap();
                let event = read::event(view, clock / 1000).unwrap().unwrap();
                assert_eq!(event.chain, chain);
            });
            count += 1;
        }
        count
    });
    apply(&state, 11, 400, 3).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reads.join().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_do_not_belong_together_are_refused() {
    let dir = TempDir::new().unwrap();
    let log = RaftLog::open(&dir.path().join("raft")).unwrap();
    let state = open(&dir, "state");
    check_order(&log, &state).unwrap();
    apply(&state, 1, 5, 5).await;
    let error = check_order(&log, &state).unwrap_err().to_string();
    assert!(error.contains("the log was lost") && error.contains("applied 5"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn material_of_purged_objects_leaves_the_disk() {
    let dir = TempDir::new().unwrap();
    let state = open(&dir, "state");
    let marker = b"a-marker-that-is-easy-to-find-in-a-file";
    apply(&state, 1, 3, 3).await;
    let gone = object("gone");
    let commands = [set("gone", 3), Command::DeleteObject(gone.clone()), Command::PurgeObject(gone)];
    for (index, command) in (4..).zip(commands) {
        // Purge by the service itself, long after the retention.
        let time = if index == 6 { 1_000_000_000_000 } else { 1_000 };
        let entry = Entry { blobs: vec![marker.to_vec()], ..request(index, time, &command) };
        apply_all(&state, [at(index, &entry)]).await;
    }
    state.compact_material().unwrap();
    // RocksDB removes files that are no longer used in the background.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while holds(dir.path(), marker) {
        assert!(std::time::Instant::now() < deadline, "purged material is still on disk");
        std::thread::yield_now();
    }
}

fn holds(dir: &std::path::Path, marker: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|item| {
        let path = item.unwrap().path();
        if path.is_dir() {
            return holds(&path, marker);
        }
        // A file may go between the two calls.
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(marker.len()).any(|window| window == marker))
    })
}

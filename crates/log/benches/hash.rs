//! What the hash of the state costs: per row, per applied entry with and without it, and for a recomputation.
//!
//! `cargo bench -p claviger-log --bench hash`. Two stores take turns with the same entries, one with the hash and one
//! without, so that a busy neighbour hits both; each line is the median of many turns. Nothing is asserted: a benchmark that
//! fails on a busy machine is a nuisance.

#![allow(missing_docs)]

#[path = "../tests/history/mod.rs"]
mod history;

use claviger_log::{LtHash, SnapshotDir, StateMachine, StateStore};
use history::{apply_all, at, entry, open, request, set};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Entries before measuring: an hour of state time, after which each entry also forgets an old one.
const WARM_UP: u64 = 4_000;

/// Entries in one turn, and turns for each size of run.
const TURN: u64 = 256;
const TURNS: usize = 24;

fn main() {
    // `cargo test --benches` runs this too, and must not take a minute.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    rows();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = TempDir::new().unwrap();
        let (with, without) = (open(&dir, "with"), open(&dir, "without"));
        without.danger_without_hash();
        entries(&with, &without).await;
        recompute(&dir, &with).await;
    });
}

fn rows() {
    for size in [64, 256, 2048] {
        let (mut hash, value) = (LtHash::new(), vec![7; size]);
        let start = Instant::now();
        for n in 0..20_000u64 {
            hash.add("versions", &n.to_be_bytes(), &value);
        }
        let each = start.elapsed() / 20_000;
        println!("row of {size:>4} bytes: {each:>8.2?}");
        black_box(hash);
    }
}

async fn entries(with: &StateStore, without: &StateStore) {
    let mut next = 1;
    for store in [with, without] {
        turn(store, 1, WARM_UP, 64).await;
    }
    next += WARM_UP;
    for run in [1, 8, 64, 256] {
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for n in 0..TURNS {
            // Who goes first changes, for the second finds caches warm.
            if n % 2 == 0 {
                on.push(turn(with, next, TURN, run).await);
                off.push(turn(without, next, TURN, run).await);
            } else {
                off.push(turn(without, next, TURN, run).await);
                on.push(turn(with, next, TURN, run).await);
            }
            next += TURN;
        }
        let (on, off) = (median(on) / TURN as u32, median(off) / TURN as u32);
        let more = 100.0 * (on.as_secs_f64() / off.as_secs_f64() - 1.0);
        println!("runs of {run:>3}: {off:>8.2?} per entry without, {on:>8.2?} with: {more:>5.1} % more");
    }
}

/// Applies entries from `from` on in runs of a size; what it took.
async fn turn(store: &StateStore, from: u64, entries: u64, run: u64) -> Duration {
    let made: Vec<_> = (from..from + entries).map(made).collect();
    let mut made = made.into_iter().peekable();
    let start = cpu();
    while made.peek().is_some() {
        apply_all(store, made.by_ref().take(run as usize).collect::<Vec<_>>()).await;
    }
    cpu() - start
}

/// Processor time of this process, RocksDB's own threads included: unlike the clock on the wall it leaves the neighbours out.
fn cpu() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().unwrap()
}

/// World and vault, then secrets of five thousand names.
fn made(index: u64) -> claviger_log::RaftEntry {
    if index <= 3 {
        return entry(index);
    }
    at(index, &request(index, 1_000 + index, &set(&format!("secret-{}", index * 7919 % 5_000), index)))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A recomputation beside what an install does anyway.
async fn recompute(dir: &TempDir, store: &StateStore) {
    let start = Instant::now();
    let index = store.verify_hash().unwrap();
    println!("recomputation of {index} entries' rows: {:.2?}", start.elapsed());
    let built = StateMachine::new(store.clone()).get_snapshot_builder().await.build_snapshot().await.unwrap();
    let target = open(dir, "target");
    let start = Instant::now();
    let incoming = SnapshotDir::create(target.incoming_dir()).unwrap();
    let mut total = 0;
    for file in built.snapshot.files().unwrap() {
        for offset in (0..file.len.max(1)).step_by(1 << 20) {
            incoming.write(&file.name, offset, &built.snapshot.read(&file.name, offset, 1 << 20).unwrap()).unwrap();
        }
        total += file.len;
    }
    incoming.sync().unwrap();
    let copied = start.elapsed();
    StateMachine::new(target).install_snapshot(&built.meta, incoming).await.unwrap();
    let all = start.elapsed();
    println!(
        "snapshot of {} KiB: {copied:.2?} to copy here and sync, {:.2?} to install and verify",
        total / 1024,
        all - copied
    );
}

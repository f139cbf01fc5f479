//! The runs.

use super::plan::Plan;
use super::record::Seen;
use super::world::{Report, World};
use super::Mutant;
use claviger_lease::Broken;

/// Seeds, and milliseconds under faults of each, for every run of the tests.
const SEEDS: u64 = 90;
const MS: u64 = 6_000;

/// Seeds that a broken rule may survive.
const MUTANT_SEEDS: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn run(seed: u64, mutant: Mutant) -> Report {
    let ms = number("CLAVIGER_SIM_MS").unwrap_or(MS);
    // A thread of its own for each run: libraries keep random state by thread, and a run must not depend on those before it.
    let world = move || World::new(Plan::of(seed, ms), mutant).run();
    std::thread::spawn(world).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn repeat(seed: u64, test: &str) -> String {
    let ms = number("CLAVIGER_SIM_MS").map_or(String::new(), |ms| format!("CLAVIGER_SIM_MS={ms} "));
    format!(
        "{ms}CLAVIGER_SIM_SEED={seed} RUSTFLAGS=\"--cfg tokio_unstable\" cargo test --release -p claviger-node \
         --features sim --lib sim::tests::{test} -- --nocapture"
    )
}

#[test]
fn the_real_code_keeps_its_promises() {
    let one = number("CLAVIGER_SIM_SEED");
    let first = one.or(number("CLAVIGER_SIM_FIRST")).unwrap_or(1);
    let seeds = if one.is_some() { 1 } else { number("CLAVIGER_SIM_SEEDS").unwrap_or(SEEDS) };
    let (mut seen, mut ms, mut bad) = (Seen::default(), 0, Vec::new());
    for seed in first..first + seeds {
        let report = run(seed, Mutant::None);
        seen.merge(&report.seen);
        ms += report.ms;
        if !report.wrong.is_empty() {
            let all = report.wrong.join("\n  ");
            eprintln!("seed {seed}:\n  {all}\n  {}", repeat(seed, "the_real_code_keeps_its_promises"));
            bad.push(seed);
        }
    }
    eprintln!("{seeds} seeds, {} s of virtual time, {} bad: {bad:?}", ms / 1000, bad.len());
    for (what, n) in &seen.0 {
        eprintln!("  {n:>9} {what}");
    }
    assert!(bad.is_empty(), "seeds {bad:?}");
    if one.is_none() {
        let never: Vec<_> = COVERED.iter().filter(|what| seen.0.get(**what).is_none_or(|n| *n == 0)).collect();
        assert!(never.is_empty(), "never happened: {never:?}");
    }
}

/// What a run of all seeds must have met.
const COVERED: &[&str] = &[
    "disk full",
    "expired lease",
    "fallback round",
    "held read",
    "joint consensus (ms)",
    "leader change",
    "learner (ms)",
    "local read",
    "lost entries",
    "membership change",
    "mode change",
    "removal (R7)",
    "renounce (R6)",
    "repeated read",
    "retry",
    "several keys in one command",
    "shortcut (R5b)",
    "snapshot install",
    "stale read",
    "vote ages (R5a)",
];

#[test]
fn the_same_seed_is_the_same_run() {
    let first = number("CLAVIGER_SIM_FIRST").unwrap_or(1);
    for seed in first..first + number("CLAVIGER_SIM_SEEDS").unwrap_or(4) {
        let (one, other) = (run(seed, Mutant::None), run(seed, Mutant::None));
        assert_eq!(one.seen, other.seen, "seed {seed}");
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

/// Seeds until a mutant is caught.
fn caught(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| Some((seed, run(seed, mutant).wrong.into_iter().next()?)))
}

fn must_be_caught(mutant: Mutant) {
    let seeds = number("CLAVIGER_SIM_SEEDS").unwrap_or(MUTANT_SEEDS);
    match caught(mutant, seeds) {
        Some((seed, why)) => eprintln!("{mutant:?}: caught by seed {seed}: {why}"),
        None => panic!("{mutant:?} survives {seeds} seeds"),
    }
}

#[test]
fn a_missing_barrier_is_noticed() {
    must_be_caught(Mutant::Rule(Broken::Barrier));
}

#[test]
fn a_missing_confirmation_is_noticed() {
    must_be_caught(Mutant::NoConfirm);
}

/// All of them, for the figures; or those whose name has `CLAVIGER_SIM_MUTANT` in it.
#[test]
#[ignore = "takes minutes"]
fn every_mutant() {
    let rules = [
        Broken::Barrier,
        Broken::Reveal,
        Broken::Pending,
        Broken::CheckBefore,
        Broken::Freeze,
        Broken::Evidence,
        Broken::Floor,
        Broken::Stamp,
        Broken::LateVotes,
        Broken::OneRound,
        Broken::LateAnswers,
    ];
    let others = [
        Mutant::NoConfirm,
        Mutant::LateFence,
        Mutant::NoInstall,
        Mutant::NoServing,
        Mutant::EarlyAck,
        Mutant::NoRetire,
        Mutant::NoSettle,
    ];
    let seeds = number("CLAVIGER_SIM_SEEDS").unwrap_or(MUTANT_SEEDS);
    let only = std::env::var("CLAVIGER_SIM_MUTANT").unwrap_or_default();
    let all = rules.map(Mutant::Rule).into_iter().chain(others);
    for mutant in all.filter(|mutant| format!("{mutant:?}").contains(&only)) {
        match caught(mutant, seeds) {
            Some((seed, why)) => eprintln!("{mutant:?}: seed {seed}: {why}"),
            None => eprintln!("{mutant:?}: survives {seeds} seeds"),
        }
    }
}

//! The fence against the simplest thing that could be right: a map of the whole log.

use claviger_lease::Fence;
use claviger_state_machine::ConflictKey;
use claviger_types::name::Id128;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PARTS: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// Appends an entry that touches these parts, after the end or, when `back` is not 0, over the last entries.
    Add { back: u64, parts: BTreeSet<u8> },
    /// Removes so many entries from the end, as far as they are not done.
    Truncate(u64),
    /// A snapshot so far ahead of what is done.
    Install(u64),
    /// So many more are applied and visible.
    Done(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let parts = prop::collection::btree_set(0..PARTS, 0..3);
    let step = prop_oneof![
        6 => (prop_oneof![4 => Just(0), 1 => 1..4u64], parts).prop_map(|(back, parts)| Step::Add { back, parts }),
        2 => (0..4u64).prop_map(Step::Truncate),
        1 => (0..6u64).prop_map(Step::Install),
        3 => (0..4u64).prop_map(Step::Done),
    ];
    prop::collection::vec(step, 1..60)
}

fn key(part: u8) -> ConflictKey {
    ConflictKey::Vault(Id128([part; 16]))
}

/// The log, all of it.
#[derive(Default)]
struct Reference {
    touched: BTreeMap<u64, BTreeSet<u8>>,
    last: u64,
    done: u64,
    /// A snapshot's index: what lies below may have touched anything.
    installed: u64,
}

impl Reference {
    fn newest(&self, of: Option<u8>, upto: u64) -> u64 {
        let touches = |parts: &BTreeSet<u8>| of.map_or(!parts.is_empty(), |part| parts.contains(&part));
        let entries = self.touched.range(..=upto);
        entries.rev().find(|(_, parts)| touches(parts)).map_or(0, |(index, _)| *index)
    }
}

/// Whether the fence answers as the log would, or more carefully where that may be forgotten: up to `forgotten`.
fn compare(fence: &Fence, log: &Reference, forgotten: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(fence.last(), log.last);
    let ways = (0..PARTS).map(Some).chain([None]);
    for part in ways {
        let keys = part.map(|part| [key(part)]);
        let keys = keys.as_ref().map(|keys| keys.as_slice());
        for index in log.done..=log.last + 1 {
            let newer = log.newest(part, u64::MAX) > index || log.installed > index;
            let clean = fence.is_clean(keys, index);
            prop_assert!(!(clean && newer), "{:?} is said to be clean at {}", part, index);
            // With no key at all it is the fast path that is asked, which may take a removed entry for one that is there.
            if part.is_some() {
                prop_assert!(clean || newer || forgotten > index, "{:?} is said to be dirty at {}", part, index);
            }
            let (there, here) =
                (log.newest(part, index).max(log.installed.min(index)), fence.newest_up_to(keys, index));
            prop_assert!(here >= there && here <= there.max(forgotten.min(index)), "{} is not {}", here, there);
        }
    }
    Ok(())
}

fn run(steps: Vec<Step>, room: Option<(usize, usize)>) -> Result<(), TestCaseError> {
    let fence = room.map_or_else(|| Fence::new(0), |(kept, most)| Fence::with_room(0, kept, most));
    let mut log = Reference::default();
    for step in steps {
        match step {
            Step::Add { back, parts } => {
                let index = log.last.saturating_sub(back).max(log.done.max(log.installed)) + 1;
                log.touched.split_off(&index);
                fence.add(index, parts.iter().map(|part| key(*part)).collect());
                log.touched.insert(index, parts);
                log.last = index;
            }
            Step::Truncate(count) => {
                log.last = log.last.saturating_sub(count).max(log.done.max(log.installed));
                log.touched.split_off(&(log.last + 1));
                fence.truncate(log.last);
            }
            Step::Install(ahead) => {
                let index = log.done + ahead;
                log.touched = log.touched.split_off(&(index + 1));
                log.installed = log.installed.max(index);
                log.last = log.last.max(index);
                fence.install(index);
            }
            Step::Done(more) => {
                log.done = (log.done + more).min(log.last);
                fence.set_done(log.done);
            }
        }
        // With little room, anything may have been forgotten.
        let forgotten = if room.is_some() { u64::MAX } else { log.installed };
        compare(&fence, &log, forgotten)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn with_room_for_everything_it_is_exact(steps in steps()) {
        run(steps, None)?;
    }

    #[test]
    fn with_little_room_it_is_careful(steps in steps(), kept in 0..4usize, more in 0..4usize) {
        run(steps, Some((kept, kept + more)))?;
    }
}

#[test]
fn what_is_done_is_forgotten_first_and_the_rest_only_beyond_all_room() {
    let fence = Fence::with_room(0, 2, 4);
    for index in 1..=3 {
        fence.add(index, vec![key(0)]);
        fence.set_done(1);
    }
    // The first is done, and made room.
    assert_eq!(fence.pending(1), 2);
    assert!(!fence.is_clean(Some(&[key(1)]), 0) && fence.is_clean(Some(&[key(1)]), 1));
    for index in 4..=6 {
        fence.add(index, vec![key(0)]);
    }
    // Four are kept, though they are not done; the second had to go.
    assert!(!fence.is_clean(Some(&[key(1)]), 1) && fence.is_clean(Some(&[key(1)]), 2));
}

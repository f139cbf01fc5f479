//! What readers look at without a lock, in every order in which threads may meet (with up to two or three switches that no
//! thread asked for).
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p claviger-lease --test loom`; `make test-loom` does that in a folder of its
//! own. loom takes `SeqCst` for acquire and release: what holds here does not rest on more.
//!
//! One write, index 1, changes one part. The state shows 0 before it and 1 after it. `told` is what any client was told: a
//! read that begins afterwards must show it.
#![cfg(loom)]

use claviger_lease::{validate, Fence, LeaseCell};
use claviger_state_machine::ConflictKey;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
use loom::sync::Arc;
use loom::thread;

/// When the lease ends; the clock begins at 0.
const END: u64 = 5;

struct Node {
    fence: Fence,
    lease: LeaseCell,
    clock: AtomicU64,
    state: AtomicU64,
    applied: AtomicU64,
    visible: AtomicU64,
    /// How far this node's log has come, as its leader knows.
    matched: AtomicU64,
    /// No longer does this node have a lease, as its leader knows.
    released: AtomicU64,
    told: AtomicU64,
}

fn part() -> Vec<ConflictKey> {
    vec![ConflictKey::World]
}

impl Node {
    fn new(lease: u64) -> Arc<Self> {
        let node = Self {
            fence: Fence::new(0),
            lease: LeaseCell::new(),
            clock: AtomicU64::new(0),
            state: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            visible: AtomicU64::new(0),
            matched: AtomicU64::new(0),
            released: AtomicU64::new(0),
            told: AtomicU64::new(0),
        };
        node.lease.set(lease);
        Arc::new(node)
    }

    fn append(&self) {
        self.fence.add(1, part());
        self.matched.store(1, SeqCst);
    }

    /// The entry becomes visible; this node applies it and hears of that.
    fn make_visible(&self) {
        self.told.store(1, SeqCst);
        self.state.store(1, SeqCst);
        self.applied.store(1, SeqCst);
        self.visible.store(1, SeqCst);
        self.fence.set_done(1);
    }

    fn read(&self) {
        self.read_by(|at| {
            let now = || self.clock.load(SeqCst);
            validate(&self.lease, &self.fence, &self.visible, at, Some(&part()), now)
        });
    }

    fn read_by(&self, is_valid: impl FnOnce(u64) -> bool) {
        let told = self.told.load(SeqCst);
        let at = self.applied.load(SeqCst);
        let shown = self.state.load(SeqCst);
        if is_valid(at) {
            assert!(shown >= told, "a client was told of the write, and this read shows the state before it");
            assert!(self.told.load(SeqCst) >= shown, "the read shows a write that is not visible");
        }
    }
}

fn explore(switches: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(story);
}

/// Runs these at the same time.
fn meet(node: &Arc<Node>, threads: &[fn(&Node)]) {
    let run = |thread: &fn(&Node)| {
        let (node, thread) = (node.clone(), *thread);
        thread::spawn(move || thread(&node))
    };
    let threads: Vec<_> = threads.iter().map(run).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_reader_with_a_lease_misses_nothing_that_is_visible() {
    explore(2, || {
        let advance = |node: &Node| {
            if node.matched.load(SeqCst) == 1 {
                node.make_visible();
            }
        };
        meet(&Node::new(END), &[Node::append, advance, Node::read, Node::read]);
    });
}

#[test]
fn a_lease_that_arrives_during_the_check_brings_its_fence() {
    explore(3, || {
        let node = Node::new(0);
        // Visible without this node, which has no lease.
        node.told.store(1, SeqCst);
        let catch_up = |node: &Node| {
            node.append();
            node.lease.set(END);
        };
        meet(&node, &[catch_up, Node::read, Node::read]);
    });
}

/// The other order lets a read through that the fence had already been asked about.
#[test]
#[should_panic(expected = "shows the state before it")]
fn the_fence_before_the_lease_would_be_wrong() {
    explore(3, || {
        let node = Node::new(0);
        node.told.store(1, SeqCst);
        let catch_up = |node: &Node| {
            node.append();
            node.lease.set(END);
        };
        let read = |node: &Node| {
            node.read_by(|at| {
                let clean = node.fence.is_clean(Some(&part()), at.min(node.visible.load(SeqCst)));
                clean && node.lease.is_valid(|| node.clock.load(SeqCst))
            });
        };
        meet(&node, &[catch_up, read]);
    });
}

#[test]
fn a_lease_that_is_given_back_lets_nothing_through() {
    explore(3, || {
        let give_back = |node: &Node| {
            node.lease.clear();
            node.released.store(1, SeqCst);
        };
        // Nobody waits for this node any more: it does not even have the entry.
        let advance = |node: &Node| {
            if node.released.load(SeqCst) == 1 {
                node.told.store(1, SeqCst);
            }
        };
        meet(&Node::new(END), &[give_back, advance, Node::read, Node::read]);
    });
}

#[test]
fn a_lease_that_runs_out_lets_nothing_through() {
    explore(3, || {
        let advance = |node: &Node| {
            node.clock.store(END, SeqCst);
            node.told.store(1, SeqCst);
        };
        meet(&Node::new(END), &[advance, Node::read, Node::read]);
    });
}

#[test]
fn what_was_added_is_found_while_other_entries_come_and_go() {
    explore(3, || {
        let fence = Arc::new(Fence::with_room(0, 1, 2));
        let added = Arc::new(AtomicU64::new(0));
        let writer = {
            let (fence, added) = (fence.clone(), added.clone());
            thread::spawn(move || {
                fence.add(1, part());
                added.store(1, SeqCst);
                fence.add(2, vec![ConflictKey::VaultAny(claviger_types::name::Id128([0; 16]))]);
                fence.truncate(1);
                fence.add(2, Vec::new());
                // Beyond the room: the first is forgotten, which is to say that everything may have been touched.
                for index in 3..5 {
                    fence.add(index, vec![ConflictKey::VaultAny(claviger_types::name::Id128([0; 16]))]);
                }
            })
        };
        let reader = thread::spawn(move || {
            if added.load(SeqCst) == 1 {
                assert!(!fence.is_clean(Some(&part()), 0));
                assert!(fence.newest_up_to(Some(&part()), 1) == 1);
            }
        });
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

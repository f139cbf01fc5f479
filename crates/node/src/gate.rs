//! The read gate: what makes a local read linearizable (design B).
//!
//! A read begins here, evaluates against the node's own state, and is confirmed here as the last thing before its answer
//! goes out; what cannot be confirmed is evaluated again. There are three ways through:
//!
//! - **lease** (design B5): this node may answer by itself. Nothing may be under way in the parts of the state that the read
//!   depends on, before and after; no message is sent.
//! - **round**: the leader is asked for its commit index, which it confirms with a quorum after the question arrived; the
//!   read waits until that index is applied here. Questions that arrive while a round is under way share the next one: a
//!   round answers only those that were asked before it began. Where other nodes may hold leases, what the read used must
//!   also be visible before it is shown. This is mode `read_index`, and what `lease` falls back to.
//! - **stale**: mode `bounded`, or an emergency that operators have declared at this node; the answer says how old it may be.
//!
//! The design has a node without a lease pass the whole request to the leader. We ask the leader for an index instead:
//! one trip as well, but the leader does not do others' cryptography, and no key operation leaves the node that took it.

use crate::error::NodeError;
use crate::lease::Lease;
use crate::peer::PeerError;
use claviger_state_machine::ConflictKey;
use claviger_types::name::Id128;
use claviger_types::reads::ReadMode;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout_at, Instant};

/// How long a read waits for the gate: longer than an election, so that a change of leader is a pause and not an error.
const CHECK: Duration = Duration::from_secs(5);

/// How long a read waits for what is under way in its parts before it asks the leader instead (design B8, `T_hold`).
const HOLD: Duration = Duration::from_millis(400);

/// Wait before a failed round is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Reads that may wait for one round. More than a node serves at once.
const WAITING: usize = 65_536;

/// Rounds at once: while one is on its way to the leader, the next may start, so that a read waits for about one trip.
const ROUNDS: usize = 4;

/// A leader's answer to a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadAt {
    /// What must be applied.
    pub(crate) index: u64,
    /// Whether some node may hold a lease: then what is shown must be visible.
    pub(crate) barrier: bool,
}

type Answer = Result<ReadAt, NodeError>;

/// Reads by the way they took, counted since the start.
#[derive(Debug, Default)]
pub struct ReadCounts {
    /// Under a lease, at once.
    pub local: AtomicU64,
    /// Under a lease, after a wait or a second evaluation.
    pub held: AtomicU64,
    /// By a round trip to the leader.
    pub round: AtomicU64,
    /// Stale, in mode `bounded`.
    pub stale: AtomicU64,
    /// Not answered.
    pub refused: AtomicU64,
    /// Evaluations that could not be confirmed: something changed meanwhile, or the lease ended.
    pub repeated: AtomicU64,
}

/// The door for reads. Clones share it.
#[derive(Clone)]
pub struct ReadGate {
    lease: Lease,
    ask: mpsc::Sender<oneshot::Sender<Answer>>,
    applied: watch::Receiver<u64>,
    fault: watch::Receiver<Option<String>>,
    counts: Arc<ReadCounts>,
}

/// Who can be asked for a read index.
pub(crate) trait Leader: Clone + Send + Sync + 'static {
    /// The leader's answer, which it gives after a quorum has confirmed it, later than it was asked.
    fn read_at(&self) -> impl Future<Output = Result<ReadAt, PeerError>> + Send;
}

/// How one evaluation got in.
#[derive(Debug, Clone, Copy)]
enum Way {
    Lease,
    Round { barrier: bool },
    Stale { behind_ms: u64 },
}

/// A read on its way: begun, evaluated, confirmed.
pub struct Reading<'a> {
    gate: &'a ReadGate,
    parts: &'a [ConflictKey],
    vault: Option<Id128>,
    mode: ReadMode,
    started: Instant,
    tries: u32,
    way: Option<Way>,
    at: u64,
}

impl ReadGate {
    pub(crate) fn start(
        leader: impl Leader,
        applied: watch::Receiver<u64>,
        fault: watch::Receiver<Option<String>>,
        lease: Lease,
    ) -> Self {
        let (ask, questions) = mpsc::channel(WAITING);
        tokio::spawn(answer(leader, questions));
        Self { lease, ask, applied, fault, counts: Arc::default() }
    }

    /// How reads of a vault are made now; without a vault, those of the world.
    pub fn mode(&self, vault: Option<Id128>) -> ReadMode {
        self.lease.mode(vault)
    }

    /// How reads have come through so far.
    pub fn counts(&self) -> &ReadCounts {
        &self.counts
    }

    /// Begins a read that depends on these parts of the state, in the mode of a vault (see [`ReadGate::mode`]).
    pub fn read<'a>(&'a self, parts: &'a [ConflictKey], vault: Option<Id128>) -> Reading<'a> {
        let mode = self.mode(vault);
        Reading { gate: self, parts, vault, mode, started: Instant::now(), tries: 0, way: None, at: 0 }
    }

    /// Returns when a view taken from now on holds everything that was acknowledged, by any node, before this call. Before an
    /// answer is made of such a view, [`ReadGate::settle`] must be waited for.
    ///
    /// [`NodeError::Unavailable`] when that cannot be had in time: the caller must not answer from local state then.
    pub async fn check(&self) -> Result<(), NodeError> {
        let deadline = Instant::now() + CHECK;
        self.sound()?;
        if self.lease.mode(None) == ReadMode::Lease && self.lease.is_valid() {
            // What was visible while the lease was valid is fenced here: so it is in the log that is here now.
            let newest = self.lease.fence().newest();
            if self.until_applied(newest, Instant::now() + HOLD).await.is_ok() {
                return Ok(());
            }
        }
        if self.lease.is_emergency() && self.lease.behind(ReadMode::Lease).is_some() {
            return Ok(());
        }
        self.round(deadline).await.map(|_| ())
    }

    /// Returns when everything that a view may have shown is visible: nothing that a view has shown can still be missed by a
    /// later read elsewhere. At once where no node holds a lease.
    pub async fn settle(&self) -> Result<(), NodeError> {
        if self.lease.is_emergency() {
            return Ok(());
        }
        let newest = self.lease.fence().newest_up_to(None, self.lease.applying());
        let deadline = Instant::now() + CHECK;
        // Where leases were given once, some node may hold one still, though this one has heard of another mode.
        let barrier = match self.lease.mode(None) {
            ReadMode::Lease => true,
            _ => self.lease.was_leased() && newest > *self.lease.visible().borrow() && self.round(deadline).await?,
        };
        if barrier {
            self.until_shown(newest, deadline).await?;
        }
        Ok(())
    }

    /// A state that is not the others' answers nothing.
    fn sound(&self) -> Result<(), NodeError> {
        match &*self.fault.borrow() {
            None => Ok(()),
            Some(why) => Err(NodeError::Stopped(why.clone())),
        }
    }

    async fn until_applied(&self, index: u64, deadline: Instant) -> Result<(), NodeError> {
        let mut applied = self.applied.clone();
        let reached = timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await;
        let reached = reached.map_err(|_| NodeError::Unavailable("this node is behind"))?;
        reached.map(|_| ()).map_err(|_| NodeError::Unavailable("the node is stopping"))
    }

    async fn until_visible(&self, index: u64, deadline: Instant) -> Result<(), NodeError> {
        let mut visible = self.lease.visible();
        let reached = timeout_at(deadline, visible.wait_for(|visible| *visible >= index)).await;
        let reached = reached.map_err(|_| NodeError::Unavailable("a change is not visible yet"))?;
        reached.map(|_| ()).map_err(|_| NodeError::Unavailable("the node is stopping"))
    }

    /// Waits until `index` may be shown: it is visible, or there is nobody left who could miss it.
    async fn until_shown(&self, index: u64, deadline: Instant) -> Result<(), NodeError> {
        while self.until_visible(index, deadline.min(Instant::now() + HOLD)).await.is_err() {
            // Where leases have come to an end, nobody tells of visibility any more.
            if !self.round(deadline).await? {
                break;
            }
        }
        Ok(())
    }

    /// A round, and the wait for its index; answers whether there is a barrier.
    async fn round(&self, deadline: Instant) -> Result<bool, NodeError> {
        let (answer, wait) = oneshot::channel();
        let late = |_| NodeError::Unavailable("no read index in time");
        let read = timeout_at(deadline, async {
            self.ask.send(answer).await.map_err(|_| NodeError::Unavailable("the node is stopping"))?;
            wait.await.map_err(|_| NodeError::Unavailable("the node is stopping"))?
        })
        .await
        .map_err(late)??;
        self.until_applied(read.index, deadline).await?;
        Ok(read.barrier)
    }
}

impl Reading<'_> {
    /// Waits until the parts may be looked at. To be called again when [`Reading::confirm`] said no.
    ///
    /// [`NodeError::Unavailable`] when that cannot be had in time: the caller must not answer from local state then.
    pub async fn begin(&mut self) -> Result<(), NodeError> {
        let result = self.enter().await;
        match result {
            Ok(way) => self.way = Some(way),
            Err(_) => {
                self.gate.counts.refused.fetch_add(1, Relaxed);
            }
        }
        result.map(|_| ())
    }

    async fn enter(&mut self) -> Result<Way, NodeError> {
        let gate = self.gate;
        gate.sound()?;
        self.tries += 1;
        let deadline = self.started + CHECK;
        if Instant::now() >= deadline {
            return Err(NodeError::Unavailable("the object changes all the time"));
        }
        self.mode = gate.mode(self.vault);
        match self.mode {
            ReadMode::Lease => {
                if let Some(way) = self.hold(self.started + HOLD).await {
                    return Ok(way);
                }
            }
            ReadMode::Bounded { .. } | ReadMode::ReadIndex => {}
        }
        // In mode `bounded`, or in an emergency.
        self.at = *gate.applied.borrow();
        if let Some(behind) = gate.lease.behind(self.mode) {
            return Ok(Way::Stale { behind_ms: behind.div_ceil(1_000_000) });
        }
        let barrier = gate.round(deadline).await?;
        self.at = *gate.applied.borrow();
        Ok(Way::Round { barrier })
    }

    /// Waits until nothing is under way in the parts; `None` when this node has no lease or that takes too long.
    async fn hold(&mut self, until: Instant) -> Option<Way> {
        let lease = &self.gate.lease;
        let (mut applied, mut visible) = (self.gate.applied.clone(), lease.visible());
        loop {
            visible.borrow_and_update();
            self.at = *applied.borrow_and_update();
            if !lease.is_valid() {
                return None;
            }
            if lease.is_clean(self.parts, self.at) {
                return Some(Way::Lease);
            }
            self.tries += 1;
            tokio::select! {
                changed = applied.changed() => changed.ok()?,
                changed = visible.changed() => changed.ok()?,
                () = tokio::time::sleep_until(until) => return None,
            }
        }
    }

    /// Whether the answer that was evaluated since [`Reading::begin`] may go out: the last step of a request. `Ok(false)`:
    /// begin again.
    pub async fn confirm(&self) -> Result<bool, NodeError> {
        let (gate, counts) = (self.gate, &self.gate.counts);
        gate.sound()?;
        let (good, counter) = match self.way {
            None => return Ok(false),
            Some(Way::Stale { .. }) => (self.is_whole(), &counts.stale),
            Some(Way::Lease) => {
                let good = gate.lease.validate(self.parts, self.at);
                (good, if self.tries > 1 { &counts.held } else { &counts.local })
            }
            Some(Way::Round { barrier }) => {
                let barrier = barrier || gate.lease.mode(None) == ReadMode::Lease;
                let good = self.is_whole();
                if good && barrier {
                    let used = gate.lease.fence().newest_up_to(Some(self.parts), self.at);
                    gate.until_shown(used, self.started + CHECK).await?;
                }
                (good, &counts.round)
            }
        };
        // A stricter mode may have come into force meanwhile.
        let good = good && gate.mode(self.vault) == self.mode;
        if good { counter } else { &counts.repeated }.fetch_add(1, Relaxed);
        Ok(good)
    }

    /// Whether everything that was looked at since [`Reading::begin`] was as it was then: an evaluation takes more than one
    /// view, and what is being applied can be seen before it counts as applied.
    fn is_whole(&self) -> bool {
        let lease = &self.gate.lease;
        lease.fence().newest_up_to(Some(self.parts), lease.applying()) <= self.at
    }

    /// The log index that was applied when the evaluation began.
    pub fn index(&self) -> u64 {
        self.at
    }

    /// How far behind the answer may be, in milliseconds, where the mode lets it.
    pub fn behind_ms(&self) -> Option<u64> {
        match self.way {
            Some(Way::Stale { behind_ms }) => Some(behind_ms),
            _ => None,
        }
    }
}

/// Answers questions for as long as the gate lives.
async fn answer(leader: impl Leader, mut questions: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let places = Arc::new(tokio::sync::Semaphore::new(ROUNDS));
    while let Some(first) = questions.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let mut waiting = vec![first];
        while let Ok(more) = questions.try_recv() {
            waiting.push(more);
        }
        let leader = leader.clone();
        tokio::spawn(async move {
            let answer = round(&leader).await;
            drop(place);
            for waiter in waiting {
                // Whoever asked may have given up.
                waiter.send(answer.clone()).ok();
            }
        });
    }
}

/// One read index, tried until the time of a read is over.
async fn round(leader: &impl Leader) -> Answer {
    let deadline = Instant::now() + CHECK;
    loop {
        let error = match leader.read_at().await {
            Ok(read) => return Ok(read),
            Err(PeerError::Stopped(why)) => return Err(NodeError::Stopped(why)),
            Err(error) => error,
        };
        if Instant::now() + RETRY >= deadline {
            tracing::debug!(%error, "no read index");
            return Err(NodeError::Unavailable("no read index in time"));
        }
        tokio::time::sleep(RETRY).await;
    }
}

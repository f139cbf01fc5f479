//! The read gate: what makes a local read linearizable (design B7).
//!
//! Mode `read_index`: before a read looks at local state, the leader is asked for its commit index, which it confirms with
//! a quorum after the question arrived; the read waits until that index is applied here. Needs no clock. Questions that
//! arrive while a round is under way share the next one: a round answers only those that were asked before it began, so
//! no answer is ever older than its question.
//!
//! Leases (design B1 to B5) come in behind the same door: [`ReadGate::check`] is the only way to a linearizable read.

use crate::error::NodeError;
use crate::node::Raft;
use crate::peer::{Lane, PeerError, Peers, Reply, Request};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::ReadPolicy;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout_at, Instant};

/// How long a read waits for the gate: longer than an election, so that a change of leader is a pause and not an error.
const CHECK: Duration = Duration::from_secs(5);

/// One round: an answer later than this means that the leader has gone.
const ROUND: Duration = Duration::from_millis(1_000);

/// Wait before a failed round is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Reads that may wait for one round. More than a node serves at once.
const WAITING: usize = 65_536;

/// Rounds at once: while one is on its way to the leader, the next may start, so that a read waits for about one trip.
const ROUNDS: usize = 4;

/// How reads are made linearizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// One round trip to the leader, shared by the reads of the moment.
    ReadIndex,
}

impl ReadMode {
    /// The name in configuration and status.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadMode::ReadIndex => "read_index",
        }
    }
}

type Answer = Result<u64, NodeError>;

/// The door for linearizable reads. Clones share it.
#[derive(Clone)]
pub struct ReadGate {
    mode: ReadMode,
    ask: mpsc::Sender<oneshot::Sender<Answer>>,
    applied: watch::Receiver<u64>,
    rounds: Rounds,
}

#[derive(Clone)]
struct Rounds {
    id: u64,
    raft: Raft,
    peers: Peers,
}

impl ReadGate {
    pub(crate) fn start(mode: ReadMode, id: u64, raft: Raft, peers: Peers, applied: watch::Receiver<u64>) -> Self {
        let (ask, questions) = mpsc::channel(WAITING);
        let rounds = Rounds { id, raft, peers };
        tokio::spawn(rounds.clone().run(questions));
        Self { mode, ask, applied, rounds }
    }

    /// The mode in force.
    pub fn mode(&self) -> ReadMode {
        self.mode
    }

    /// Returns when a view taken from now on holds everything that was acknowledged, by any node, before this call.
    ///
    /// [`NodeError::Unavailable`] when that cannot be had in time: the caller must not answer from local state then.
    pub async fn check(&self) -> Result<(), NodeError> {
        let deadline = Instant::now() + CHECK;
        let (answer, wait) = oneshot::channel();
        let late = |_| NodeError::Unavailable("no read index in time");
        let index = timeout_at(deadline, async {
            self.ask.send(answer).await.map_err(|_| NodeError::Unavailable("the node is stopping"))?;
            wait.await.map_err(|_| NodeError::Unavailable("the node is stopping"))?
        })
        .await
        .map_err(late)??;
        let mut applied = self.applied.clone();
        let reached = timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await.map_err(late)?;
        reached.map(|_| ()).map_err(|_| NodeError::Unavailable("the node is stopping"))
    }

    /// The read index as this node, being the leader, knows it.
    pub(crate) async fn read_index_here(&self) -> Result<u64, PeerError> {
        self.rounds.here().await
    }
}

impl Rounds {
    async fn run(self, mut questions: mpsc::Receiver<oneshot::Sender<Answer>>) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(ROUNDS));
        while let Some(first) = questions.recv().await {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let mut waiting = vec![first];
            while let Ok(more) = questions.try_recv() {
                waiting.push(more);
            }
            let rounds = self.clone();
            tokio::spawn(async move {
                let answer = rounds.round().await;
                drop(place);
                for waiter in waiting {
                    // Whoever asked may have given up.
                    waiter.send(answer.clone()).ok();
                }
            });
        }
    }

    /// One read index, tried until the time of a read is over.
    async fn round(&self) -> Answer {
        let deadline = Instant::now() + CHECK;
        loop {
            let error = match self.once().await {
                Ok(index) => return Ok(index),
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

    async fn once(&self) -> Result<u64, PeerError> {
        let leader = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let id = metrics.current_leader;
            id.map(|id| (id, metrics.membership_config.membership().get_node(&id).cloned()))
        };
        match leader {
            Some((id, _)) if id == self.id => self.here().await,
            Some((_, Some(member))) => match self.peers.call(&member, Lane::Control, &Request::ReadIndex, ROUND).await?
            {
                Reply::ReadIndex(index) => Ok(index),
                _ => Err(PeerError::NoAnswer("an answer of another kind".into())),
            },
            Some((_, None)) | None => Err(PeerError::NotLeader { leader: None }),
        }
    }

    async fn here(&self) -> Result<u64, PeerError> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::Fatal(fatal)) => Err(PeerError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(PeerError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(PeerError::NoQuorum),
        }
    }
}

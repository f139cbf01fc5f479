//! What goes with openraft's messages, however these travel (design B4, hooks): over the network between real nodes, and in
//! memory between simulated ones.

use crate::gate::ReadAt;
use crate::lease::{Lease, Nanos};
use crate::peer::{Decided, PeerError};
use claviger_log::{LogId, Member, Payload, TypeConfig, Vote};
use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftEntry as _;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::storage::RaftStateMachine;
use openraft::{ChangeMembers, RaftMetrics, ReadPolicy};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{timeout_at, Instant};

type Raft<S> = openraft::Raft<TypeConfig, S>;

/// An append that is about to leave.
pub(crate) struct Sent {
    vote: Vote,
    end: Option<LogId>,
    at: Nanos,
}

impl Sent {
    /// Before the message leaves, so that whoever accepts it did so later. Heartbeats must pass here too.
    pub(crate) fn new(lease: &Lease, rpc: &AppendEntriesRequest<TypeConfig>) -> Self {
        let end = rpc.entries.last().map(|entry| entry.log_id()).or(rpc.prev_log_id);
        Self { vote: rpc.vote, end, at: lease.sending() }
    }

    /// openraft answers with success after the entries and the vote are durable there. A conflict is no evidence.
    pub(crate) fn answered(&self, lease: &Lease, from: u64, response: &AppendEntriesResponse<TypeConfig>) {
        let accepted = |end: Option<&LogId>| lease.accepted(from, &self.vote, self.at, end.map_or(0, |id| id.index));
        match response {
            AppendEntriesResponse::Success => accepted(self.end.as_ref()),
            AppendEntriesResponse::PartialSuccess(end) => accepted(end.as_ref()),
            AppendEntriesResponse::HigherVote(_) => lease.overtaken(&self.vote),
            AppendEntriesResponse::Conflict => {}
        }
    }
}

/// Answers an append.
pub(crate) async fn append<S>(
    raft: &Raft<S>,
    lease: &Lease,
    rpc: AppendEntriesRequest<TypeConfig>,
) -> Result<AppendEntriesResponse<TypeConfig>, PeerError>
where
    S: RaftStateMachine<TypeConfig>,
{
    // Before openraft sees it: a vote that it gives later must not look older than this.
    lease.serving();
    raft.append_entries(rpc).await.map_err(stopped)
}

/// Answers a request for a vote, and says how long ago this node last accepted an append.
pub(crate) async fn vote<S>(
    raft: &Raft<S>,
    lease: &Lease,
    rpc: VoteRequest<TypeConfig>,
) -> Result<(VoteResponse<TypeConfig>, Nanos), PeerError>
where
    S: RaftStateMachine<TypeConfig>,
{
    let vote = rpc.vote;
    let response = raft.vote(rpc).await.map_err(stopped)?;
    let age = if response.vote_granted { lease.granted(&vote) } else { 0 };
    Ok((response, age))
}

/// Takes the answer to a request for a vote in.
pub(crate) fn voted(lease: &Lease, vote: &Vote, voter: u64, response: &VoteResponse<TypeConfig>, age: Nanos) {
    if response.vote_granted {
        lease.voted(vote, voter, age);
    }
}

/// A part of a write at the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStage {
    /// Until it is durable at a quorum and applied here.
    Commit,
    /// From then on, until every node that may hold a lease has it.
    Visible,
}

/// Writes an entry at the leader, and answers when everyone may know of it; `took` is told how long each stage was.
pub(crate) async fn write<S>(
    raft: &Raft<S>,
    lease: &Lease,
    bytes: Vec<u8>,
    deadline: Instant,
    took: impl Fn(WriteStage, Duration),
) -> Result<Decided, PeerError>
where
    S: RaftStateMachine<TypeConfig>,
{
    let started = Instant::now();
    match timeout_at(deadline, raft.client_write(Payload(bytes))).await {
        // Committed and applied here. Others may hold leases: nobody is told before they all know.
        Ok(Ok(response)) => {
            let committed = Instant::now();
            took(WriteStage::Commit, committed - started);
            let index = response.log_id.index;
            let visible = lease.until_visible(index, deadline).await;
            took(WriteStage::Visible, committed.elapsed());
            if visible {
                Ok(Decided { outcome: response.data, index })
            } else {
                Err(PeerError::Unknown)
            }
        }
        Ok(Err(RaftError::Fatal(fatal))) => Err(stopped(fatal)),
        Ok(Err(RaftError::APIError(error))) => Err(match error {
            ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }) => {
                PeerError::NotLeader { leader: leader_id }
            }
            ClientWriteError::LogEntryDiscarded(_) => PeerError::Unknown,
            other => PeerError::Refused(other.to_string()),
        }),
        Err(_) => Err(PeerError::Unknown),
    }
}

/// The read index as this node, being the leader, knows it.
pub(crate) async fn read_at<S>(raft: &Raft<S>, lease: &Lease) -> Result<ReadAt, PeerError>
where
    S: RaftStateMachine<TypeConfig>,
{
    match raft.get_read_log_id(ReadPolicy::ReadIndex).await {
        Ok((read, _)) => Ok(ReadAt { index: read.index(), barrier: lease.barrier() }),
        Err(RaftError::Fatal(fatal)) => Err(stopped(fatal)),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(PeerError::NotLeader { leader: forward.leader_id })
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(PeerError::NoQuorum),
    }
}

/// Adds a node: it catches up as a learner, then it votes. Nothing is left of a new one that fails.
pub(crate) async fn join<S>(
    raft: &Raft<S>,
    lease: &Lease,
    id: u64,
    member: Member,
    is_new: bool,
    limit: Duration,
) -> Result<(), PeerError>
where
    S: RaftStateMachine<TypeConfig>,
{
    if is_new {
        lease.renew(id);
    }
    let whole = async {
        let added = raft.add_learner(id, member, false).await.map_err(write_error)?;
        // Not openraft's own wait: it takes a node for caught up that is as far behind as a snapshot would be.
        let behind = added.log_id.index;
        let caught_up = |m: &RaftMetrics<TypeConfig>| {
            let matched = m.replication.as_ref().and_then(|known| known.get(&id)).cloned().flatten();
            matched.is_some_and(|matched| matched.index >= behind)
        };
        let wait = raft.wait(Some(limit)).metrics(caught_up, "a learner has caught up").await;
        wait.map_err(|_| PeerError::Refused(format!("node {id} did not catch up within {} s", limit.as_secs())))?;
        raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true)
            .await
            .map(|_| ())
            .map_err(write_error)
    };
    if let Err(error) = whole.await {
        if is_new && !raft.voter_ids().any(|voter| voter == id) {
            // If this fails too, `remove` does the same.
            remove(raft, lease, id).await.ok();
        }
        return Err(error);
    }
    Ok(())
}

/// Removes another node. Whoever is not a member is not waited for: so it must hold no lease (design R7).
pub(crate) async fn remove<S>(raft: &Raft<S>, lease: &Lease, id: u64) -> Result<(), PeerError>
where
    S: RaftStateMachine<TypeConfig>,
{
    let change = if raft.voter_ids().any(|voter| voter == id) {
        ChangeMembers::RemoveVoters(BTreeSet::from([id]))
    } else {
        ChangeMembers::RemoveNodes(BTreeSet::from([id]))
    };
    let leaving = leaving(raft, id);
    // Its own lease would go on, and the next leader would not know of it.
    if leaving.contains(raft.node_id()) {
        let id = raft.node_id();
        return Err(PeerError::Refused(format!(
            "node {id} leads and is about to leave: hand the leadership over first (`claviger cluster transfer-leader`)"
        )));
    }
    for node in &leaving {
        if !lease.retire(*node).await {
            leaving.iter().for_each(|id| lease.keep(*id));
            return Err(PeerError::Refused(format!("node {node} still holds a lease, or this node leads no more")));
        }
    }
    if let Err(error) = raft.change_membership(change, false).await {
        leaving.iter().for_each(|id| lease.keep(*id));
        return Err(write_error(error));
    }
    Ok(())
}

/// Who is not a member any more when `id` is removed: also those whose removal was begun by a leader that lost its office
/// over it, for the next change goes on from there.
fn leaving<S>(raft: &Raft<S>, id: u64) -> BTreeSet<u64>
where
    S: RaftStateMachine<TypeConfig>,
{
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let configs = metrics.membership_config.membership().get_joint_config();
    let stays = |node: &u64| configs.last().is_some_and(|config| config.contains(node)) && *node != id;
    let mut leaving: BTreeSet<u64> = configs.iter().flatten().copied().filter(|node| !stays(node)).collect();
    leaving.insert(id);
    leaving
}

pub(crate) fn stopped(error: impl std::fmt::Display) -> PeerError {
    PeerError::Stopped(error.to_string())
}

pub(crate) fn write_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> PeerError {
    match error {
        RaftError::Fatal(fatal) => PeerError::Stopped(fatal.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            PeerError::NotLeader { leader: forward.leader_id }
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => PeerError::Unknown,
        RaftError::APIError(other) => PeerError::Refused(other.to_string()),
    }
}

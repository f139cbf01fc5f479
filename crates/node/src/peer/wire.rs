//! Messages and frames.
//!
//! A frame is a length (4 bytes, big-endian), a request id (8 bytes) and an encoded message. The greeting has the protocol
//! number, so that a later release can speak to this one in this one's words.

use crate::status::Status;
use claviger_lease::{LeaseAck, LeaseMessage};
use claviger_log::{Member, SnapshotMeta, TypeConfig, Vote};
use claviger_types::codec;
use claviger_types::name::Id128;
use claviger_types::outcome::Outcome;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Number of this form of the protocol, which callers say.
pub(super) const PROTOCOL: u16 = 1;

/// Number that the called one says in its welcome from the release on that takes an [`Introduction`].
pub(super) const INTRODUCES: u16 = 2;

/// Frame of an introduction; requests are numbered from 1 on.
pub(super) const INTRODUCTION: u64 = 0;

/// Largest frame: a restore of an object with the most versions and the largest values is 17 MiB.
pub(super) const FRAME_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Bytes of a snapshot in one frame.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;

/// First message of the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u16,
    pub(super) world: Id128,
    /// The node that calls.
    pub(super) node: u64,
    pub(super) name: String,
}

/// First message of the server: its own greeting, or why it will not talk.
pub(super) type Welcome = Result<Hello, String>;

/// Second message of a node that calls one that says [`INTRODUCES`]; operators' commands, which are no node, leave it out.
/// The answer is an [`Introduced`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Introduction {
    /// The caller's disk.
    pub(super) disk: Id128,
    /// The disk that the called one must have, where the caller knows that.
    pub(super) yours: Option<Id128>,
}

/// The called one's disk, or why the two must not talk.
pub(super) type Introduced = Result<Id128, String>;

/// What nodes ask of each other.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Raft: append entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Raft: vote.
    Vote(VoteRequest<TypeConfig>),
    /// Raft: would you vote?
    PreVote(VoteRequest<TypeConfig>),
    /// Raft: take over.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A part of a snapshot.
    Snapshot(Transfer),
    /// Propose an entry for me; only the leader does.
    Propose(Vec<u8>),
    /// Which index must I have applied to answer a read that begins now? Only the leader answers.
    ReadIndex,
    /// How are you?
    Status,
    /// An operator's command.
    Admin(AdminRequest),
    /// Which index must I have applied to answer a read that begins now, and must what I show be visible? Only the leader
    /// answers.
    ReadAt,
    /// The leader's word on leases and visibility.
    Lease(LeaseMessage),
    /// A node gives its lease back: its id, and what it would answer a message.
    GiveBack(u64, LeaseAck),
}

/// What operators ask, through the command line, with a node's own certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Add this node as a learner, wait until it has caught up, make it a voter.
    Join {
        /// Its id.
        id: u64,
        /// Where it is reached.
        member: Member,
    },
    /// Remove this node.
    Remove {
        /// Its id.
        id: u64,
    },
    /// Hand the leadership over.
    TransferLeader {
        /// To this node.
        to: u64,
    },
    /// Build a snapshot now, and purge the log behind it.
    Snapshot,
    /// A request of the service above: opaque here.
    Service(Vec<u8>),
    /// This member is reached elsewhere from now on.
    Move {
        /// Its id.
        id: u64,
        /// Where it is reached.
        member: Member,
    },
}

/// A step of sending a snapshot; each is answered before the next is sent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Transfer {
    /// Starts; an unfinished transfer is dropped.
    Begin {
        /// Id of this transfer, random.
        id: u64,
    },
    /// Bytes of a file.
    Chunk {
        /// The transfer.
        id: u64,
        /// File name.
        file: String,
        /// Where in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All files are there: install.
    End {
        /// The transfer.
        id: u64,
        /// The leader's vote.
        vote: Vote,
        /// Last log id in the snapshot.
        last_log_id: Option<claviger_log::LogId>,
        /// Membership in the snapshot.
        membership: claviger_log::StoredMembership,
    },
}

impl Transfer {
    pub(crate) fn end(id: u64, vote: Vote, meta: &SnapshotMeta) -> Self {
        Transfer::End { id, vote, last_log_id: meta.last_log_id, membership: meta.last_membership.clone() }
    }
}

/// Answers, one for each kind of request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Append`.
    Append(AppendEntriesResponse<TypeConfig>),
    /// To `Vote` and `PreVote`.
    Vote(VoteResponse<TypeConfig>),
    /// To `TransferLeader`.
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// To a step of a transfer that is not the last.
    Received,
    /// To the last step.
    Installed(SnapshotResponse<TypeConfig>),
    /// To `Propose`, of nodes that do not say where it was decided.
    Outcome(Box<Outcome>),
    /// To `ReadIndex`.
    ReadIndex(u64),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Admin` and `GiveBack`.
    Done(Vec<u8>),
    /// To `ReadAt`.
    ReadAt {
        /// The index.
        index: u64,
        /// Whether what is shown must be visible.
        barrier: bool,
    },
    /// To `Lease`.
    Leased(LeaseAck),
    /// To `Vote`: the answer, and how long before it the voter last accepted an append, in nanoseconds of its clock.
    Voted(VoteResponse<TypeConfig>, u64),
    /// To `Propose`.
    Decided(Box<Decided>),
}

/// What a proposal came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The outcome.
    pub outcome: Outcome,
    /// The log index that it was decided at; 0 when the leader does not say.
    pub index: u64,
}

/// Why a peer did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PeerError {
    /// It is not the leader; it knows this one.
    #[error("not the leader")]
    NotLeader {
        /// Id of the leader, if it knows one.
        leader: Option<u64>,
    },
    /// It cannot say whether the entry was or will be committed.
    #[error("the outcome is unknown")]
    Unknown,
    /// It could not reach a quorum.
    #[error("no quorum")]
    NoQuorum,
    /// It refuses, and says why.
    #[error("{0}")]
    Refused(String),
    /// It has stopped.
    #[error("the peer has stopped: {0}")]
    Stopped(String),
    /// The connection failed before the request was sent: nothing happened.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The connection failed, or the answer did not come in time, after the request was sent.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

pub(super) async fn write_frame<W: AsyncWrite + Unpin>(to: &mut W, id: u64, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len() + 8).map_err(|_| too_large(message.len()))?;
    if message.len() > FRAME_BYTES_MAX {
        return Err(too_large(message.len()));
    }
    let mut head = [0u8; 12];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..].copy_from_slice(&id.to_be_bytes());
    to.write_all(&head).await?;
    to.write_all(message).await
}

pub(super) async fn read_frame<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<(u64, Vec<u8>)> {
    let length = from.read_u32().await? as usize;
    let id = from.read_u64().await?;
    let length = length.checked_sub(8).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "short frame"))?;
    if length > FRAME_BYTES_MAX {
        return Err(too_large(length));
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok((id, message))
}

fn too_large(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} bytes"))
}

pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    codec::encode(message).map_err(io::Error::other)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    codec::decode(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}

//! openraft's messages over our peer connections, and snapshots file by file.

use crate::hooks::{self, Sent};
use crate::lease::Lease;
use crate::node::Raft;
use crate::peer::{Lane, PeerError, Peers, Reply, Request, Transfer};
use claviger_log::{Member, Snapshot, SnapshotDir, SnapshotMeta, TypeConfig, Vote};
use futures::future::{select, Either};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::OptionalSend;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Mutex;

/// Time for one chunk of a snapshot: a megabyte and a write.
const CHUNK: Duration = Duration::from_secs(10);

/// Time for the receiver to sync and open a snapshot.
const INSTALL: Duration = Duration::from_secs(600);

/// Makes clients for openraft.
pub(crate) struct Network {
    peers: Peers,
    lease: Lease,
}

impl Network {
    pub(crate) fn new(peers: Peers, lease: Lease) -> Self {
        Self { peers, lease }
    }

    fn client(&self, target: u64, node: &Member, lane: Lane) -> Client {
        Client { peers: self.peers.clone(), lease: self.lease.clone(), target, member: node.clone(), lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Snapshot)
    }
}

/// openraft's way to one peer.
pub(crate) struct Client {
    peers: Peers,
    lease: Lease,
    target: u64,
    member: Member,
    lane: Lane,
}

fn rpc_error(error: PeerError) -> RPCError<TypeConfig> {
    match error {
        PeerError::Unreachable(_) | PeerError::Stopped(_) => RPCError::Unreachable(Unreachable::new(&error)),
        other => RPCError::Network(NetworkError::new(&other)),
    }
}

fn other_kind<T>() -> Result<T, RPCError<TypeConfig>> {
    Err(rpc_error(PeerError::NoAnswer("an answer of another kind".into())))
}

impl Client {
    async fn call(&self, lane: Lane, request: Request, limit: Duration) -> Result<Reply, RPCError<TypeConfig>> {
        // openraft goes on with the address that it began with, also when the node has moved.
        let moved = self.lease.address(self.target);
        let member = moved.as_ref().unwrap_or(&self.member);
        self.peers.call_node(self.target, member, lane, &request, limit).await.map_err(rpc_error)
    }

    async fn send(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let id = transfer_id(&snapshot);
        let step = |step, limit| self.call(Lane::Snapshot, Request::Snapshot(step), limit);
        step(Transfer::Begin { id }, CHUNK).await?;
        let dir = &snapshot.snapshot;
        for file in dir.files().map_err(local)? {
            let mut offset = 0;
            loop {
                let (reader, name) = (dir.clone(), file.name.clone());
                let bytes = tokio::task::spawn_blocking(move || reader.read(&name, offset, crate::peer::CHUNK_BYTES))
                    .await
                    .map_err(local)?
                    .map_err(local)?;
                let length = bytes.len() as u64;
                if length > 0 || offset == 0 {
                    step(Transfer::Chunk { id, file: file.name.clone(), offset, bytes }, CHUNK).await?;
                }
                offset += length;
                if length < crate::peer::CHUNK_BYTES as u64 {
                    break;
                }
            }
        }
        match step(Transfer::end(id, vote, &snapshot.meta), INSTALL).await? {
            Reply::Installed(response) => Ok(response),
            _ => other_kind().map_err(Into::into),
        }
    }
}

/// A transfer's id has only to differ from that of the transfer before it.
fn transfer_id(snapshot: &Snapshot) -> u64 {
    let index = snapshot.meta.last_log_id.map_or(0, |id| id.index);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
    index.wrapping_shl(32) ^ u64::from(now)
}

fn local(error: impl std::error::Error + 'static) -> StreamingError<TypeConfig> {
    StreamingError::Network(NetworkError::new(&error))
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let sent = Sent::new(&self.lease, &rpc);
        let Reply::Append(response) = self.call(self.lane, Request::Append(rpc), option.hard_ttl()).await? else {
            return other_kind();
        };
        sent.answered(&self.lease, self.target, &response);
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let vote = rpc.vote;
        match self.call(Lane::Control, Request::Vote(rpc), option.hard_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            Reply::Voted(response, age) => {
                hooks::voted(&self.lease, &vote, self.target, &response, age);
                Ok(response)
            }
            _ => other_kind(),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Lane::Control, Request::PreVote(rpc), option.hard_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            _ => other_kind(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        match select(pin!(self.send(vote, snapshot)), pin!(cancel)).await {
            Either::Left((result, _)) => result,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Lane::Control, Request::TransferLeader(rpc), option.hard_ttl()).await? {
            Reply::TransferLeader(response) => Ok(response),
            _ => other_kind(),
        }
    }
}

/// The snapshot that is being received; one at a time, for there is one leader.
pub(crate) struct Incoming {
    path: PathBuf,
    current: Mutex<Option<(u64, SnapshotDir)>>,
}

impl Incoming {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, current: Mutex::new(None) }
    }

    pub(crate) async fn step(&self, step: Transfer, raft: &Raft) -> Result<Reply, PeerError> {
        let failed = |error: std::io::Error| PeerError::Refused(format!("snapshot: {error}"));
        let unknown = || PeerError::Refused("snapshot: no such transfer".into());
        let mut current = self.current.lock().await;
        match step {
            Transfer::Begin { id } => {
                *current = Some((id, SnapshotDir::create(self.path.clone()).map_err(failed)?));
                Ok(Reply::Received)
            }
            Transfer::Chunk { id, file, offset, bytes } => {
                let (_, dir) = current.as_ref().filter(|(known, _)| *known == id).ok_or_else(unknown)?;
                let dir = dir.clone();
                tokio::task::spawn_blocking(move || dir.write(&file, offset, &bytes))
                    .await
                    .map_err(|error| failed(std::io::Error::other(error)))?
                    .map_err(failed)?;
                Ok(Reply::Received)
            }
            Transfer::End { id, vote, last_log_id, membership } => {
                let (_, dir) = current.take().filter(|(known, _)| *known == id).ok_or_else(unknown)?;
                let meta = SnapshotMeta { last_log_id, last_membership: membership };
                tracing::info!(index = meta.last_log_id.map_or(0, |id| id.index), "installing a snapshot");
                let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: dir }).await;
                installed.map(Reply::Installed).map_err(|fatal| PeerError::Stopped(fatal.to_string()))
            }
        }
    }
}

//! Raft's requests on a [`Transport`](crate::transport::Transport), as the Raft library wants it.
//!
//! One link a member; addresses are looked up with each request, so a member that announces a new
//! one is followed at once. The receiving half is
//! [`RaftControlPlane::handle_peer`](crate::RaftControlPlane::handle_peer).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::RaftId;
use clusterkit_core::planted::{self, Bug};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::impls::BasicNode;
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::RaftOptions;
use crate::peers::{CallError, Peers};
use crate::transport::{RpcKind, TransportError};
use crate::types::{CommandBytes, Snapshot, SnapshotMeta, TypeConfig, Vote};

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Makes a [`Link`] to each member.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    peers: Arc<Peers>,
    rpc_timeout: Duration,
    snapshot_timeout: Duration,
}

impl Network {
    pub(crate) fn new(peers: Arc<Peers>, options: &RaftOptions) -> Self {
        Self {
            peers,
            rpc_timeout: options.rpc_timeout,
            snapshot_timeout: options.snapshot_timeout,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        Link {
            network: self.clone(),
            target,
            address: node.addr.clone(),
        }
    }
}

/// The way to one member.
pub(crate) struct Link {
    network: Network,
    target: u64,
    /// Where the membership says it is, for as long as its own record is not applied here.
    address: String,
}

/// A snapshot on its way.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotMessage {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: CommandBytes,
}

impl Link {
    async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        kind: RpcKind,
        request: &Q,
        limit: Duration,
    ) -> RpcResult<A> {
        let peers = &self.network.peers;
        peers
            .call(
                RaftId(self.target),
                Some(&self.address),
                kind,
                request,
                limit,
            )
            .await
            .map_err(|error| self.translate(kind, error))
    }

    /// Tells Raft whether to back off: yes, unless the connection merely broke or was slow.
    fn translate(&self, kind: RpcKind, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::Timeout { after, .. } => RPCError::Timeout(Timeout {
                action: match kind {
                    RpcKind::Vote | RpcKind::PreVote => RPCTypes::Vote,
                    RpcKind::Snapshot => RPCTypes::InstallSnapshot,
                    RpcKind::TransferLeader => RPCTypes::TransferLeader,
                    _ => RPCTypes::AppendEntries,
                },
                id: self.network.peers.this().0,
                target: self.target,
                timeout: after,
            }),
            CallError::Transport(error @ TransportError::Interrupted { .. }) => {
                RPCError::Network(NetworkError::new(&error))
            }
            CallError::Transport(error) => {
                if let TransportError::Refused { .. } = error {
                    tracing::warn!(%kind, %error, "a member refuses this one");
                }
                RPCError::Unreachable(Unreachable::new(&error))
            }
            error @ CallError::Answer { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        // Heartbeats are bounded by Raft itself; entries may take longer than one heartbeat.
        let answer = self.call(RpcKind::Append, &rpc, self.network.rpc_timeout);
        match answer.await {
            Err(_) if planted::is_on(Bug::QuorumOffByOne) => Ok(AppendEntriesResponse::Success),
            answer => answer,
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.call(RpcKind::Vote, &rpc, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.call(RpcKind::PreVote, &rpc, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let message = SnapshotMessage {
            vote,
            meta: snapshot.meta,
            state: CommandBytes(snapshot.snapshot),
        };
        let limit = self.network.snapshot_timeout;
        tokio::select! {
            answer = self.call(RpcKind::Snapshot, &message, limit) => Ok(answer?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        self.call(RpcKind::TransferLeader, &rpc, self.network.rpc_timeout)
            .await
    }
}

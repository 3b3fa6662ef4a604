//! Requests between members: the envelope they travel in, and who may send what to whom.
//!
//! Every Raft request names the cluster, the sender and the receiver, each with the id of its
//! data directory. A receiver answers only what is meant for it: so a member that lost its disk
//! and came back empty under its old id neither votes nor acknowledges, which could undo what
//! was committed. Delivery is the transport's half.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, DiskId, RaftId};
use clusterkit_core::state::ClusterState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::options::RaftOptions;
use crate::transport::{PeerAddress, PeerError, RpcKind, Transport, TransportError};
use crate::view::ViewCell;

/// Sends requests in the name of this member, and checks those of others.
#[derive(Debug)]
pub(crate) struct Peers {
    cluster: ClusterId,
    this: RaftId,
    disk: DiskId,
    transport: Arc<dyn Transport>,
    view: Arc<ViewCell>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    cluster: [u8; 16],
    from: RaftId,
    from_disk: [u8; 16],
    to: RaftId,
    /// Unknown to a sender that has not applied the receiver's join yet.
    to_disk: Option<[u8; 16]>,
    body: T,
}

/// Why a request to a member brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(TransportError),
    #[error("{peer} did not answer within {after:?}")]
    Timeout { peer: PeerAddress, after: Duration },
    #[error("{peer} sent an unreadable answer: {detail}")]
    Answer { peer: PeerAddress, detail: String },
}

impl Peers {
    pub(crate) fn new(
        options: &RaftOptions,
        transport: Arc<dyn Transport>,
        view: Arc<ViewCell>,
    ) -> Self {
        Self {
            cluster: options.cluster,
            this: options.raft_id,
            disk: options.disk,
            transport,
            view,
        }
    }

    pub(crate) const fn this(&self) -> RaftId {
        self.this
    }

    /// Sends `body` to the member `to` and waits at most `limit` for the answer.
    ///
    /// The address is the one the member announced last; `known_address` serves while its record
    /// is not applied here.
    pub(crate) async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        to: RaftId,
        known_address: Option<&str>,
        kind: RpcKind,
        body: &Q,
        limit: Duration,
    ) -> Result<A, CallError> {
        let view = self.view.current();
        let record = view.state.node(to);
        let address = record
            .map(|node| node.peer_address())
            .or(known_address)
            .unwrap_or_default();
        let peer = PeerAddress::member(to, address);
        let envelope = Envelope {
            cluster: *self.cluster.as_bytes(),
            from: self.this,
            from_disk: *self.disk.as_bytes(),
            to,
            to_disk: record.map(|node| *node.disk.as_bytes()),
            body,
        };
        drop(view);
        let unreadable = |peer: &PeerAddress, error: codec::CodecError| CallError::Answer {
            peer: peer.clone(),
            detail: error.to_string(),
        };
        let request =
            codec::encode(kind.as_str(), &envelope).map_err(|error| unreadable(&peer, error))?;
        let sent = self.transport.send(&peer, kind, Bytes::from(request));
        match tokio::time::timeout(limit, sent).await {
            Ok(Ok(answer)) => {
                codec::decode(kind.as_str(), &answer).map_err(|error| unreadable(&peer, error))
            }
            Ok(Err(error)) => Err(CallError::Transport(error)),
            Err(_) => Err(CallError::Timeout { peer, after: limit }),
        }
    }

    /// Opens a request of kind `kind`: who sent it, and what it says. Of those that have left only
    /// whoever `takes_part` is heard.
    pub(crate) fn receive<Q: DeserializeOwned>(
        &self,
        kind: RpcKind,
        request: &[u8],
        takes_part: impl Fn(RaftId) -> bool,
    ) -> Result<(RaftId, Q), PeerError> {
        let envelope: Envelope<Q> =
            codec::decode(kind.as_str(), request).map_err(|error| PeerError::Malformed {
                kind,
                detail: error.to_string(),
            })?;
        self.admit(&envelope, takes_part)
            .map_err(|reason| PeerError::Refused { reason })?;
        Ok((envelope.from, envelope.body))
    }

    fn admit<Q>(
        &self,
        envelope: &Envelope<Q>,
        takes_part: impl Fn(RaftId) -> bool,
    ) -> Result<(), String> {
        let cluster = ClusterId::from_bytes(envelope.cluster);
        if cluster != self.cluster {
            return Err(format!(
                "this is cluster {}, the request is for {cluster}",
                self.cluster
            ));
        }
        if envelope.to != self.this {
            return Err(format!(
                "this is member {}, the request is for {}",
                self.this, envelope.to
            ));
        }
        if let Some(disk) = envelope.to_disk
            && disk != *self.disk.as_bytes()
        {
            return Err(format!(
                "member {} is on data directory {}, the request is for {}",
                self.this,
                self.disk,
                DiskId::from_bytes(disk)
            ));
        }
        admit_sender(
            &self.view.current().state,
            envelope.from,
            DiskId::from_bytes(envelope.from_disk),
            takes_part,
        )
    }

    pub(crate) fn answer<A: Serialize>(kind: RpcKind, answer: &A) -> Result<Bytes, PeerError> {
        match codec::encode(kind.as_str(), answer) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => Err(PeerError::Unavailable {
                detail: error.to_string(),
            }),
        }
    }
}

/// Refuses members that have left, and a member that is not on the disk it joined with.
fn admit_sender(
    state: &ClusterState,
    from: RaftId,
    disk: DiskId,
    takes_part: impl Fn(RaftId) -> bool,
) -> Result<(), String> {
    match state.node_record(from) {
        Some(node) if node.disk != disk => Err(format!(
            "member {from} joined with data directory {}, not {disk}: a lost disk joins again",
            node.disk
        )),
        Some(_) if state.node(from).is_none() && !takes_part(from) => {
            Err(format!("member {from} has left"))
        }
        _ => Ok(()),
    }
}

//! Peer traffic over HTTP: `POST /peer/v1/<kind>` with binary bodies.
//!
//! The receiving end is in [`crate::routes`]. What the bodies say is known by `clusterkit-raft`
//! and, for the kinds of the embedding node, by `clusterkit`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::id::{ClusterId, RaftId};
use clusterkit_raft::transport::{PeerAddress, RpcKind, Transport, TransportError};

use crate::api::ProblemCode;
use crate::backend::Identity;
use crate::client::{ClientLimits, HttpClient, HttpError, HttpRequest, HttpResponse};
use crate::headers;
use crate::net::{Network, TcpNetwork};

/// The path all peer requests begin with.
pub(crate) const PEER_PATH: &str = "/peer/v1/";

/// Raft's own limits are shorter; these only bound a forgotten request.
const DEADLINE: Duration = Duration::from_secs(30);
/// A snapshot takes as long as its bytes need.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(300);

/// The HTTP implementation of [`Transport`]. Clones share pools and identity.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    /// Raft's own traffic, kept apart so that forwarded proposals never hold up a heartbeat.
    consensus: HttpClient,
    /// Proposals forwarded to the leader, joins and identification.
    forwarded: HttpClient,
    identity: Arc<RwLock<Identity>>,
}

impl HttpTransport {
    /// Creates a transport that belongs to no cluster yet, with `limits` for each of its two pools.
    #[must_use]
    pub fn new(limits: &ClientLimits) -> Self {
        Self::over(&TcpNetwork::shared(), limits)
    }

    /// As [`new`](Self::new), connecting over `network`.
    #[must_use]
    pub fn over(network: &Arc<dyn Network>, limits: &ClientLimits) -> Self {
        Self {
            consensus: HttpClient::over(Arc::clone(network), limits.clone()),
            forwarded: HttpClient::over(Arc::clone(network), limits.clone()),
            identity: Arc::default(),
        }
    }

    /// Sets who this node is: stated on every request from now on. A peer of another cluster
    /// refuses it.
    pub fn identify(&self, cluster: ClusterId, raft_id: RaftId) {
        let mut identity = self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *identity = Identity {
            cluster: Some(cluster),
            raft_id: Some(raft_id),
        };
    }

    /// Closes the unused connections to `address`: the peer is gone.
    pub fn forget(&self, address: &str) {
        self.consensus.forget(address);
        self.forwarded.forget(address);
    }

    fn request(&self, to: &PeerAddress, kind: RpcKind, body: Bytes) -> HttpRequest {
        let identity = *self.identity.read().unwrap_or_else(PoisonError::into_inner);
        let deadline = match kind {
            RpcKind::Snapshot => SNAPSHOT_DEADLINE,
            _ => DEADLINE,
        };
        let mut request = HttpRequest::post(format!("{PEER_PATH}{kind}"))
            .header(headers::WIRE, headers::WIRE_VERSION.to_string())
            .body(body)
            .within(deadline);
        if let Some(cluster) = identity.cluster {
            request = request.header(headers::CLUSTER, cluster.to_string());
        }
        if let Some(from) = identity.raft_id {
            request = request.header(headers::FROM, from.to_string());
        }
        if let Some(to) = to.raft_id {
            request = request.header(headers::TO, to.to_string());
        }
        request
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(
        &self,
        to: &PeerAddress,
        kind: RpcKind,
        body: Bytes,
    ) -> Result<Bytes, TransportError> {
        let client = match kind {
            RpcKind::Propose | RpcKind::Join | RpcKind::Identify => &self.forwarded,
            _ => &self.consensus,
        };
        let request = self.request(to, kind, body);
        match client.send(&to.address, request).await {
            Ok(answer) if answer.is_success() => Ok(answer.into_body()),
            Ok(answer) => Err(refusal(to.clone(), &answer)),
            Err(error) => Err(failure(to.clone(), error)),
        }
    }
}

fn refusal(peer: PeerAddress, answer: &HttpResponse) -> TransportError {
    let Some(problem) = answer.problem() else {
        let detail = format!("status {}", answer.status());
        return match answer.status() {
            // Turned away before the request was read.
            503 => TransportError::Unreachable {
                peer,
                source: detail.into(),
            },
            _ => TransportError::Remote { peer, detail },
        };
    };
    match problem.code {
        ProblemCode::PeerRefused
        | ProblemCode::WrongCluster
        | ProblemCode::WireMismatch
        | ProblemCode::Unauthorized
        | ProblemCode::Forbidden => TransportError::Refused {
            peer,
            reason: problem.message,
        },
        _ => TransportError::Remote {
            peer,
            detail: problem.message,
        },
    }
}

fn failure(peer: PeerAddress, error: HttpError) -> TransportError {
    match error {
        HttpError::Unreachable { source, .. } => TransportError::Unreachable { peer, source },
        HttpError::Interrupted { source, .. } => TransportError::Interrupted { peer, source },
        HttpError::Timeout { after, .. } => TransportError::Timeout { peer, after },
        HttpError::Invalid { .. } => TransportError::Unreachable {
            peer,
            source: Box::new(error),
        },
        other => TransportError::Remote {
            peer,
            detail: other.to_string(),
        },
    }
}

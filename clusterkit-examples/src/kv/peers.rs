//! The other nodes of this service over HTTP: which address, which path, which error.
//!
//! What to send and how often is decided in `replication` and `migration`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, Epoch, PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_http::client::{ClientLimits, HttpClient, HttpError, HttpRequest, HttpResponse};
use clusterkit_http::net::Network;
use clusterkit_http::{Method, headers, query};

use super::wire::{Page, WireError};

/// The name under which nodes announce this service.
pub(crate) const SERVICE: &str = "kv";
/// Marks a request that another node passed on, so that it is not passed on again.
pub(crate) const FORWARDED: &str = "x-kv-forwarded";
/// The partition a client routed by.
pub(crate) const PARTITION: &str = "x-clusterkit-partition";

/// What the primary asks of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Store these entries.
    Replicate,
    /// Tell what you hold that may not be everywhere, and obey no earlier primary from now on.
    Recover,
    /// Obey no earlier primary from now on.
    Obey,
}

impl Ask {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Replicate => "/kv/replicate",
            Self::Recover => "/kv/recover",
            Self::Obey => "/kv/obey",
        }
    }
}

/// Why another node did not do what it was asked, or may not have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("node {id} announces no service `{SERVICE}`")]
    NoAddress { id: String },
    #[error("{error}")]
    Http {
        #[source]
        error: HttpError,
    },
    #[error("{error}")]
    Wire {
        #[source]
        error: WireError,
    },
}

/// Sends to other nodes as this one.
///
/// Orders have connections of their own: a request that was passed on waits for orders, so that
/// orders waiting for its connection would wait for themselves.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    orders: HttpClient,
    requests: HttpClient,
}

/// Which page of a partition is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequest<'a> {
    pub(crate) partition: PartitionId,
    /// The epoch of the topology in which the asking node takes writes.
    pub(crate) epoch: Epoch,
    /// The partition's epoch on the first page, none for that one.
    pub(crate) at: Option<Epoch>,
    /// The last key of the page before.
    pub(crate) after: Option<&'a [u8]>,
}

impl Peers {
    pub(crate) fn over(network: &Arc<dyn Network>) -> Self {
        let client = || HttpClient::over(Arc::clone(network), ClientLimits::default());
        Self {
            orders: client(),
            requests: client(),
        }
    }

    pub(crate) async fn ask(
        &self,
        node: &Node,
        ask: Ask,
        (cluster, me): (ClusterId, RaftId),
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, PeerError> {
        let request = HttpRequest::post(ask.path())
            .header(headers::CLUSTER, cluster.to_string())
            .header(headers::FROM, me.to_string())
            .body(body);
        let answer = send(&self.orders, node, request.within(within)).await?;
        Ok(answer.into_body())
    }

    pub(crate) async fn page(
        &self,
        node: &Node,
        (cluster, me): (ClusterId, RaftId),
        wanted: PageRequest<'_>,
        within: Duration,
    ) -> Result<Page, PeerError> {
        let PageRequest {
            partition, epoch, ..
        } = wanted;
        let mut target = format!("/kv/migrate?partition=partition-{partition}&epoch={epoch}");
        if let Some(at) = wanted.at {
            target.push_str(&format!("&at={at}"));
        }
        if let Some(after) = wanted.after {
            target.push_str("&after=");
            target.push_str(&query::escape_bytes(after));
        }
        let request = HttpRequest::get(target)
            .header(headers::CLUSTER, cluster.to_string())
            .header(headers::FROM, me.to_string())
            .within(within);
        let answer = send(&self.requests, node, request).await?;
        Page::decode(answer.into_body()).map_err(|error| PeerError::Wire { error })
    }

    /// Passes a client's request on and returns the answer, whatever its status.
    pub(crate) async fn forward(
        &self,
        node: &Node,
        method: Method,
        target: String,
        body: Bytes,
        accept: Option<&str>,
        within: Duration,
    ) -> Result<HttpResponse, PeerError> {
        let mut request = HttpRequest::new(method, target)
            .header(FORWARDED, "1")
            .body(body)
            .within(within);
        if let Some(kind) = accept {
            request = request.header("accept", kind);
        }
        let address = address_of(node)?;
        let sent = self.requests.send(&address, request).await;
        sent.map_err(|error| PeerError::Http { error })
    }
}

async fn send(
    client: &HttpClient,
    node: &Node,
    request: HttpRequest,
) -> Result<HttpResponse, PeerError> {
    let address = address_of(node)?;
    let sent = client.send(&address, request).await;
    sent.and_then(|answer| answer.require_success(&address))
        .map_err(|error| PeerError::Http { error })
}

impl PeerError {
    /// Tells whether the request certainly was not acted upon.
    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Self::NoAddress { .. } => true,
            Self::Http { error } => error.is_retryable(),
            Self::Wire { .. } => false,
        }
    }
}

/// Returns where `node` serves this service. One announced as `:port` is on the node's own host.
fn address_of(node: &Node) -> Result<String, PeerError> {
    let service = node.service(SERVICE).ok_or_else(|| PeerError::NoAddress {
        id: node.id.to_string(),
    })?;
    if !service.starts_with(':') {
        return Ok(service.to_owned());
    }
    let host = node.address.rsplit_once(':').map_or("", |(host, _)| host);
    Ok(format!("{host}{service}"))
}

//! The default topology source: `GET /v1/topology` and `GET /v1/watch`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clusterkit_core::topology::Topology;
use clusterkit_http::api::TopologyDocument;
use clusterkit_http::client::{ClientLimits, EventStream, HttpClient, HttpError, HttpRequest};
use clusterkit_http::net::Network;

use crate::{SourceError, TopologyFeed, TopologySource};

/// The time limits of [`HttpSource`].
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built with struct update syntax from the default"
)]
pub struct HttpSourceLimits {
    /// How long one request may take, connecting included. Default 2 s.
    pub request: Duration,
    /// How long a watched node may send nothing at all, not even the server's keep-alive, before it
    /// counts as gone. Default 30 s; more than the server's keep-alive interval, or quiet clusters
    /// make watchers wander.
    pub silence: Duration,
}

impl Default for HttpSourceLimits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(2),
            silence: Duration::from_secs(30),
        }
    }
}

/// Topologies over HTTP from the nodes themselves.
#[derive(Clone, Debug, Default)]
pub struct HttpSource {
    http: HttpClient,
    limits: HttpSourceLimits,
}

impl HttpSource {
    /// Returns a source with connections of its own.
    #[must_use]
    pub fn new(limits: HttpSourceLimits) -> Self {
        Self {
            http: HttpClient::default(),
            limits,
        }
    }

    /// As [`new`](Self::new), connecting over `network`.
    #[must_use]
    pub fn over(network: Arc<dyn Network>, limits: HttpSourceLimits) -> Self {
        Self {
            http: HttpClient::over(network, ClientLimits::default()),
            limits,
        }
    }
}

#[async_trait]
impl TopologySource for HttpSource {
    async fn fetch(
        &self,
        address: &str,
        known: Option<&Arc<Topology>>,
    ) -> Result<Option<Arc<Topology>>, SourceError> {
        let mut request = HttpRequest::get("/v1/topology").within(self.limits.request);
        if let Some(known) = known {
            request = request.header("if-none-match", format!("\"{}\"", known.epoch()));
        }
        let failed = |error: HttpError| unavailable(address, &error);
        let response = self.http.send(address, request).await.map_err(failed)?;
        if response.status() == 304 {
            return Ok(None);
        }
        let response = response.require_success(address).map_err(failed)?;
        let document: TopologyDocument = response.json(address).map_err(failed)?;
        read(address, &document).map(Some)
    }

    async fn watch(
        &self,
        address: &str,
        base: Arc<Topology>,
    ) -> Result<Box<dyn TopologyFeed>, SourceError> {
        let target = format!("/v1/watch?after={}", base.epoch());
        let request = HttpRequest::get(target).within(self.limits.request);
        match self
            .http
            .events(address, request, self.limits.silence)
            .await
        {
            Ok(events) => Ok(Box::new(HttpFeed {
                address: address.to_owned(),
                events,
            })),
            // It answers, but not with a stream: an older release, or a proxy between us.
            Err(error @ (HttpError::Protocol { .. } | HttpError::Status { .. }))
                if is_refusal(&error) =>
            {
                Err(SourceError::Unsupported {
                    address: address.to_owned(),
                    message: one_line(&error),
                })
            }
            Err(error) => Err(unavailable(address, &error)),
        }
    }
}

fn is_refusal(error: &HttpError) -> bool {
    match error {
        HttpError::Status { status, .. } => !matches!(status, 429 | 500 | 503),
        _ => true,
    }
}

#[derive(Debug)]
struct HttpFeed {
    address: String,
    events: EventStream,
}

#[async_trait]
impl TopologyFeed for HttpFeed {
    async fn next(&mut self) -> Result<Arc<Topology>, SourceError> {
        match self.events.next().await {
            Ok(Some(event)) => {
                let document = serde_json::from_str(&event.data).map_err(|error| {
                    SourceError::Unavailable {
                        address: self.address.clone(),
                        message: format!("an event is no topology: {error}"),
                    }
                })?;
                read(&self.address, &document)
            }
            Ok(None) => Err(SourceError::Unavailable {
                address: self.address.clone(),
                message: "it has ended the stream".to_owned(),
            }),
            Err(error) => Err(unavailable(&self.address, &error)),
        }
    }
}

fn read(address: &str, document: &TopologyDocument) -> Result<Arc<Topology>, SourceError> {
    match document.to_topology() {
        Ok(topology) => Ok(Arc::new(topology)),
        Err(source) => Err(SourceError::Incompatible {
            address: address.to_owned(),
            source,
        }),
    }
}

fn unavailable(address: &str, error: &HttpError) -> SourceError {
    SourceError::Unavailable {
        address: address.to_owned(),
        message: one_line(error),
    }
}

/// Writes an error with its causes: the list of failed nodes has no place for chains.
fn one_line(error: &HttpError) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

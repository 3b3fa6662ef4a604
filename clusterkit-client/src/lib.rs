//! Topology-aware client of a ClusterKit cluster: finds the node that serves a key, and finds it
//! again when the cluster changes.
//!
//! [`Client`] keeps one immutable [`Topology`](clusterkit_core::topology::Topology), pushed by a node it watches.
//! [`Client::call`] routes by it: the next replica when a node does not answer, a newer topology
//! when a key has moved, pauses with jitter otherwise, and never beyond the deadline.
//!
//! ```no_run
//! # use clusterkit_client::{Client, CallError};
//! # use clusterkit_http::client::{HttpClient, HttpError, HttpRequest};
//! # async fn run(http: HttpClient) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["10.0.0.1:8080", "10.0.0.2:8080"]).await?;
//! let http = &http;
//! let reply = client
//!     .call(b"user:123")
//!     .idempotent(true)
//!     .send(|target| async move {
//!         let address = target.service("kv").unwrap_or_default().into_owned();
//!         http.json::<String>(&address, HttpRequest::get("/kv/get?key=user:123")).await
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A client lives in a tokio runtime, from [`Client::connect`] on: its one background task runs there.
//!
//! What it does not do: speak the application's protocol (that is the closure's), keep data, take
//! part in the cluster. The embedded node is in the crate `clusterkit`.

mod builder;
mod call;
mod client;
mod clock;
mod error;
mod follow;
mod http_source;
mod retry;
mod routing;
mod shared;
mod source;
mod target;
mod tasks;

pub use builder::ClientBuilder;
pub use call::Call;
pub use client::Client;
pub use error::{CallError, ConnectError, NodeFailure, RefreshError};
pub use http_source::{HttpSource, HttpSourceLimits};
pub use retry::{CallFailure, CallOutcome, Decision, ExponentialRetry, FailedAttempt, RetryPolicy};
pub use routing::{Candidate, DefaultRouting, ReadFrom, RouteRequest, RoutingPolicy};
pub use source::{SourceError, TopologyFeed, TopologySource};
pub use target::{Role, Target};

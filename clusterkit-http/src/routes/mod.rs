//! The endpoints of a node: [`ClusterApi`] answers them over a [`Backend`].
//!
//! Paths and methods stand in `endpoint.rs`; the documents in [`crate::api`]. It reads the node's
//! view once per request, so every answer is made from one epoch. It decides nothing about the
//! cluster: changes go through the backend or as commands through the control plane.

mod admin;
mod data;
mod endpoint;
mod legacy;
mod metrics;
mod operations;
mod params;
mod peer;
mod placement;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::config::DATA_VALUE_MAX_BYTES;
use clusterkit_core::control::{ControlPlane, View};
use clusterkit_core::id::{Epoch, LogIndex};
use clusterkit_core::topology::Topology;
use clusterkit_raft::transport::RpcKind;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::Method;
use crate::api::{LeaderHint, Problem, ProblemCode, TopologyDocument};
use crate::backend::Backend;
use crate::clock;
use crate::server::{Handler, Request, Response};
use endpoint::Endpoint;

/// The limits of [`ClusterApi`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiLimits {
    /// The largest JSON body. Default 1 MiB and 64 KiB for what stands around a value.
    pub json_bytes: usize,
    /// The largest body of a peer request. Default 64 MiB.
    pub peer_bytes: usize,
    /// The largest snapshot a peer may send. Default 1 GiB: it holds all custom data.
    pub snapshot_bytes: usize,
    /// How many watches (streams and long polls) are open at once; further ones are answered 429.
    /// Default 4,096.
    pub watchers: usize,
    /// How often an idle stream carries a comment, so that both ends notice a dead connection.
    /// Default 5 s.
    pub keep_alive_interval: Duration,
    /// How long a change answered here may take to be visible here as well. Default 2 s; the
    /// change is committed either way.
    pub settle: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            json_bytes: (1 << 20) + (64 << 10),
            peer_bytes: 64 << 20,
            snapshot_bytes: 1 << 30,
            watchers: 4_096,
            keep_alive_interval: Duration::from_secs(5),
            settle: Duration::from_secs(2),
        }
    }
}

/// Answers every endpoint of a node. A [`Handler`] for [`crate::server::Server::serve`].
pub struct ClusterApi {
    backend: Arc<dyn Backend>,
    limits: ApiLimits,
    watchers: Arc<Semaphore>,
    requests: AtomicU64,
    errors: AtomicU64,
    topology: Arc<Rendered>,
    cluster: Rendered,
}

impl fmt::Debug for ClusterApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterApi")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The last document written, so that a thousand watchers of one epoch cost one rendering.
#[derive(Default)]
struct Rendered(Mutex<Option<(Arc<Topology>, Bytes)>>);

impl Rendered {
    fn get<T: Serialize>(&self, topology: &Arc<Topology>, render: impl FnOnce() -> T) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, document)) = &*last
            && known.epoch() == topology.epoch()
            && known.cluster() == topology.cluster()
        {
            return document.clone();
        }
        let written = serde_json::to_vec(&render());
        let document = Bytes::from(written.expect("invariant: our documents can be written"));
        *last = Some((Arc::clone(topology), document.clone()));
        document
    }

    fn topology(&self, topology: &Arc<Topology>) -> Bytes {
        self.get(topology, || TopologyDocument::from(&**topology))
    }
}

/// The control plane of a formed cluster and what is known now.
struct Formed {
    control: Arc<dyn ControlPlane>,
    view: Arc<View>,
}

type Answer = Result<Response, Problem>;

impl ClusterApi {
    /// Creates the endpoints over `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, limits: ApiLimits) -> Self {
        Self {
            backend,
            watchers: Arc::new(Semaphore::new(limits.watchers)),
            limits,
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            topology: Arc::default(),
            cluster: Rendered::default(),
        }
    }

    /// Returns how many requests were answered.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns how many of those were answered with status 400 or above.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Returns how many watches are open.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.limits.watchers - self.watchers.available_permits()
    }

    async fn route(&self, request: &Request) -> Answer {
        let Some(endpoint) = Endpoint::resolve(request.path())? else {
            let message = format!("there is no path {}", request.path());
            return Err(Problem::new(ProblemCode::NotFound, message));
        };
        if !endpoint.allowed().contains(&request.method()) {
            return Ok(self.method_not_allowed(request, &endpoint));
        }
        match endpoint {
            Endpoint::Health => Ok(legacy::health()),
            Endpoint::Ready => Ok(self.ready()),
            Endpoint::HealthDetailed => Ok(self.health_detailed()),
            Endpoint::Metrics => Ok(self.metrics(request)),
            Endpoint::Cluster => self.cluster(request),
            Endpoint::Partitions => self.partitions(),
            Endpoint::PartitionStats => self.partition_stats(),
            Endpoint::PartitionKey => self.partition_key(request),
            Endpoint::Nodes => self.nodes(request),
            Endpoint::Leader => Ok(self.leader()),
            Endpoint::ConsensusStats => self.consensus_stats(),
            Endpoint::Join => self.join(request).await,
            Endpoint::Topology => self.topology(request),
            Endpoint::Watch => self.watch(request).await,
            Endpoint::Events => self.events(request),
            Endpoint::Node(id) if request.method() == Method::Post => {
                self.change_node(request, &id).await
            }
            Endpoint::Node(id) => self.node(&id),
            Endpoint::Drain(id) => self.drain(request, &id).await,
            Endpoint::Handover(id) => self.handover(request, &id).await,
            Endpoint::RestartIntent(id) => self.restart_intent(request, &id).await,
            Endpoint::Remove(id) => self.remove(request, &id).await,
            Endpoint::Rebalance => self.rebalance(request).await,
            Endpoint::Explain => self.explain(request).await,
            Endpoint::Plans => self.plans().await,
            Endpoint::Config => self.config(request).await,
            Endpoint::Operations => self.operations(request),
            Endpoint::Operation(id) => self.operation(request, &id).await,
            Endpoint::MayStop => self.may_stop(request).await,
            Endpoint::Pauses => self.pauses(),
            Endpoint::Pause(work) => self.pause(request, work).await,
            Endpoint::DataList => self.data_list(request),
            Endpoint::Data(key) => self.data(request, key).await,
            Endpoint::Peer(kind) => self.peer(request, kind).await,
        }
    }

    /// Returns what is known now, refusing while there is no cluster.
    fn formed(&self) -> Result<Formed, Problem> {
        let refused = |what: &str| Problem::new(ProblemCode::NotReady, what);
        let control = self
            .backend
            .control()
            .ok_or_else(|| refused("this node has not joined a cluster yet"))?;
        let view = control.view();
        if view.state.cluster().is_none() {
            return Err(refused(
                "this node has not received the cluster's state yet",
            ));
        }
        Ok(Formed { control, view })
    }

    /// Waits until what was committed at `index` is visible here too, so that a client reads what
    /// it wrote. Gives up after a while: the change is committed either way.
    async fn settle(&self, control: &dyn ControlPlane, index: LogIndex) -> Arc<View> {
        let deadline = clock::deadline(self.limits.settle);
        let mut view = control.view();
        while view.applied < index {
            match timeout_at(deadline, control.changed(view.version)).await {
                Ok(newer) => view = newer,
                Err(_) => break,
            }
        }
        view
    }

    /// Adds what this node knows about the leader and the epoch.
    fn complete(&self, problem: Problem) -> Problem {
        let Some(control) = self.backend.control() else {
            return problem;
        };
        let view = control.view();
        let leader = problem.leader.clone().or_else(|| leader_hint(&view));
        let epoch = match problem.epoch {
            Epoch(0) => view.topology.epoch(),
            epoch => epoch,
        };
        problem.with_leader(leader).with_epoch(epoch)
    }

    fn answer_problem(&self, problem: Problem) -> Response {
        let problem = self.complete(problem);
        let response = Response::json(problem.status(), &problem);
        match problem.status() {
            429 | 503 => response.header("retry-after", "1"),
            _ => response,
        }
    }

    fn method_not_allowed(&self, request: &Request, endpoint: &Endpoint) -> Response {
        let allowed: Vec<&str> = endpoint.allowed().iter().map(|m| m.as_str()).collect();
        let allowed = allowed.join(", ");
        let message = format!(
            "{} does not take {}, it takes {allowed}",
            request.path(),
            request.method()
        );
        self.answer_problem(Problem::new(ProblemCode::MethodNotAllowed, message))
            .header("allow", allowed)
    }

    fn count(&self, response: &Response) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if response.status() >= 400 {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn leader_hint(view: &View) -> Option<LeaderHint> {
    let leader = view.state.node(view.leadership.leader?)?;
    Some(LeaderHint::new(leader.id.clone(), &*leader.address))
}

#[async_trait]
impl Handler for ClusterApi {
    fn body_limit_bytes(&self, _method: Method, path: &str) -> usize {
        match Endpoint::resolve(path) {
            Ok(Some(Endpoint::Peer(RpcKind::Snapshot))) => self.limits.snapshot_bytes,
            Ok(Some(Endpoint::Peer(_))) => self.limits.peer_bytes,
            Ok(Some(Endpoint::Data(_))) => DATA_VALUE_MAX_BYTES,
            _ => self.limits.json_bytes,
        }
    }

    async fn handle(&self, request: Request) -> Response {
        let response = match self.route(&request).await {
            Ok(response) => response,
            Err(problem) => self.answer_problem(problem),
        };
        self.count(&response);
        response
    }

    fn refuse(&self, status: u16, message: &str) -> Response {
        let code = match status {
            400 => ProblemCode::BadRequest,
            408 => ProblemCode::RequestTimeout,
            413 => ProblemCode::BodyTooLarge,
            _ => ProblemCode::Internal,
        };
        let response = self.answer_problem(Problem::new(code, message));
        self.count(&response);
        response
    }
}

//! What the endpoints need of the embedded node: [`Backend`], implemented by crate `clusterkit`.
//!
//! Everything that can be read comes from the node's [`ControlPlane`]; the backend adds who this
//! node is, and carries out what needs its clock, its placement or its network.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clusterkit_core::adjust::{Adjustment, MayStop};
use clusterkit_core::command::Applied;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::explain::PreviewId;
use clusterkit_core::id::{ClusterId, NodeId, PartitionId, RaftId};
use clusterkit_core::operation::Operation;
use clusterkit_core::time::UnixMillis;
use clusterkit_raft::transport::PeerHandler;

use crate::api::Problem;
use crate::api::compat::{JoinDocument, JoinReply};
use crate::api::v1::{ExplainDocument, PlansDocument, RebalanceDocument};

/// Who this node is to its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built by the embedding crate; both are all a peer checks"
)]
pub struct Identity {
    /// The cluster it belongs to, none before it has joined or formed one.
    pub cluster: Option<ClusterId>,
    /// Its member id, none before it has joined.
    pub raft_id: Option<RaftId>,
}

/// What people ask about this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built by the embedding crate for every answer"
)]
pub struct NodeInfo {
    /// The operator's id.
    pub id: NodeId,
    /// The name for people.
    pub name: Arc<str>,
    /// How long the process has run.
    pub uptime: Duration,
    /// When this node last applied something or heard from the leader.
    pub last_sync: UnixMillis,
}

/// One figure of the embedding crate, a counter since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built by the embedding crate; this is all a counter has"
)]
pub struct Figure {
    /// Its name, without the prefix `clusterkit_` and the suffix `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// How many.
    pub value: u64,
}

/// What the endpoints need of the embedded node.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Returns the control plane, none while the node has not joined: the endpoints then answer
    /// 503 `not_ready`, except for health, readiness and peers.
    fn control(&self) -> Option<Arc<dyn ControlPlane>>;

    /// Returns what answers peers. It is asked before the node has joined, too: a joining node is
    /// called back under the address it announced.
    fn peer(&self) -> Arc<dyn PeerHandler>;

    /// Returns who this node is to its peers. Called for every peer request: must be cheap.
    fn identity(&self) -> Identity;

    /// Returns what people ask about this process.
    fn info(&self) -> NodeInfo;

    /// Returns why the node should not be sent traffic beyond what the endpoint checks itself (a
    /// formed cluster, a known leader, this node active, every partition placed); none by default.
    fn unready_because(&self) -> Option<String> {
        None
    }

    /// Returns further figures for `GET /metrics`; none by default.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// Tells whether the documents of earlier releases show addresses as `:port`, for old clients
    /// on this machine. Default false.
    fn legacy_addresses(&self) -> bool {
        false
    }

    /// Admits a node that asked over `POST /join`; only called on the leader.
    ///
    /// Before anything is proposed the backend must call the node back at the address it announced
    /// (`Identify`) and refuse it with `address_unverified` when somebody else, or nobody, answers:
    /// one join with a made-up address must not be able to break the quorum.
    async fn join(&self, join: JoinDocument) -> Result<JoinReply, Problem>;

    /// Starts (`on`) or cancels moving the data of `node` away; with `leave` it leaves once empty.
    async fn drain(&self, node: &NodeId, on: bool, leave: bool) -> Result<Applied, Problem>;

    /// Removes `node` for good; with `force` even where it still holds data.
    async fn remove(&self, node: &NodeId, force: bool) -> Result<Applied, Problem>;

    /// Computes a placement and, unless `dry_run`, proposes it as the plan.
    async fn rebalance(&self, dry_run: bool) -> Result<RebalanceDocument, Problem>;

    /// Computes the placement again and proposes it, if it is still the one called `id`; refused
    /// with `stale_epoch` otherwise.
    async fn apply_rebalance(&self, id: PreviewId) -> Result<RebalanceDocument, Problem>;

    /// Says what `adjustment` would move, without carrying it out.
    async fn preview(&self, adjustment: &Adjustment) -> Result<RebalanceDocument, Problem>;

    /// Carries `adjustment` out; the cluster then moves what has to move by itself.
    async fn adjust(&self, adjustment: &Adjustment) -> Result<Applied, Problem>;

    /// Says whether `nodes` may be stopped together.
    async fn may_stop(&self, nodes: &[NodeId]) -> Result<MayStop, Problem>;

    /// Says why `partition` is where it is, why `node` holds what it holds, or both. The endpoint
    /// has checked that there are such a partition and such a node.
    async fn explain(
        &self,
        partition: Option<PartitionId>,
        node: Option<&NodeId>,
    ) -> Result<ExplainDocument, Problem>;

    /// Says which plans there were, with the proof of each.
    async fn plans(&self) -> Result<PlansDocument, Problem>;

    /// Returns what goes on in the cluster, as this node sees it, and whether copies are withheld
    /// because too many nodes are down; none where only the leader knows.
    fn operations(&self) -> (Vec<Operation>, Option<bool>);

    /// Cancels `operation`, one of [`Self::operations`] that can be cancelled.
    async fn cancel(&self, operation: &Operation) -> Result<Applied, Problem>;
}

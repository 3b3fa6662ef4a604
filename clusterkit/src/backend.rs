//! What the HTTP endpoints see of this node.
//!
//! The endpoints themselves, their documents and their status codes are in `clusterkit-http`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use clusterkit_core::adjust::{Adjustment, MayStop};
use clusterkit_core::command::{Applied, Rejected};
use clusterkit_core::control::{ControlPlane, ProposeError};
use clusterkit_core::explain::{PlanRecord, PreviewId};
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::operation::Operation;
use clusterkit_core::placement::Rows;
use clusterkit_http::api::compat::{JoinDocument, JoinReply as JoinDone};
use clusterkit_http::api::v1::{
    ExplainDocument, MoveDocument, PlanDocument, PlansDocument, RebalanceDocument,
};
use clusterkit_http::api::{Problem, ProblemCode};
use clusterkit_http::backend::{Backend, Figure, Identity, NodeInfo};
use clusterkit_raft::transport::PeerHandler;

use crate::address::HostPort;
use crate::error::NodeError;
use crate::inner::{Inner, Phase};
use crate::messages::{JoinReply, JoinRequest, Refusal, Wanted};
use crate::operate::{Explained, Rebalance, is_invalid};
use crate::peer::Peers;

/// This node, as the endpoints see it.
#[derive(Debug)]
pub(crate) struct NodeBackend {
    inner: Arc<Inner>,
    peers: Arc<Peers>,
}

impl NodeBackend {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let peers = Arc::new(Peers(Arc::clone(&inner)));
        Self { inner, peers }
    }
}

#[async_trait]
impl Backend for NodeBackend {
    fn control(&self) -> Option<Arc<dyn ControlPlane>> {
        // A node that is no member any more must not go on serving its last map.
        if self.inner.phase() >= Phase::Left {
            return None;
        }
        let control: Arc<dyn ControlPlane> = self.inner.control()?.clone();
        Some(control)
    }

    fn peer(&self) -> Arc<dyn PeerHandler> {
        Arc::<Peers>::clone(&self.peers)
    }

    fn identity(&self) -> Identity {
        Identity {
            cluster: self.inner.cluster(),
            raft_id: self.inner.raft_id(),
        }
    }

    fn info(&self) -> NodeInfo {
        let clock = &self.inner.clock;
        NodeInfo {
            id: self.inner.spec.id.clone(),
            name: Arc::clone(&self.inner.spec.name),
            uptime: clock.now().saturating_since(self.inner.started),
            last_sync: clock.wall(),
        }
    }

    fn unready_because(&self) -> Option<String> {
        match self.inner.control() {
            Some(control) => self.inner.unready(&control.view()),
            None => Some(String::from("not a member yet")),
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let hooks = self.inner.hook_counters.figures();
        let figure = |name, help, value| Figure { name, help, value };
        vec![
            figure("hooks_succeeded", "Hooks that ended well", hooks.succeeded),
            figure(
                "hooks_failed",
                "Hooks that failed or took too long",
                hooks.failed,
            ),
            figure("hooks_panicked", "Hooks that panicked", hooks.panicked),
            figure(
                "hooks_missed",
                "Events dropped before their hook ran",
                hooks.missed,
            ),
            figure(
                "placement_fallbacks",
                "Placements replaced by the systematic layout",
                self.inner.fallbacks.load(Ordering::Relaxed),
            ),
        ]
    }

    fn legacy_addresses(&self) -> bool {
        self.inner.settings.legacy_addresses
    }

    async fn join(&self, join: JoinDocument) -> Result<JoinDone, Problem> {
        let node = join.node;
        let id = NodeId::new(&node.id).map_err(|error| invalid(&error))?;
        // Earlier releases send the port inside `ip`, and then 0 beside it.
        let address = match node.port {
            0 => node.ip.clone(),
            port => format!("{}:{port}", node.ip),
        };
        let address = HostPort::parse("node.ip", &address).map_err(|error| invalid(&error))?;
        let address = address.or_loopback().to_string();
        let who = self.inner.identify(&address).await.map_err(|error| {
            let message = format!("node `{id}` announced {address}, where nobody answers: {error}");
            Problem::new(ProblemCode::AddressUnverified, message)
        })?;
        let mut spec = NodeSpec::new(id, who.disk, &address);
        spec.incarnation = who.incarnation;
        // It has not said what it knows: until its process announces itself it raises nothing.
        let control = self.inner.control();
        spec.feature_level = control.map_or(0, |control| control.view().state.feature_level());
        spec.services = Arc::new(node.services);
        if !node.name.is_empty() {
            spec.name = Arc::from(node.name.as_str());
        }
        let request = JoinRequest {
            spec,
            member: None,
            wanted: Wanted::default(),
        };
        match self.inner.admit(request).await {
            JoinReply::Admitted { cluster, .. } => {
                let nodes = self.inner.view().state.nodes().len();
                Ok(JoinDone::new(cluster.to_string(), nodes, node.id))
            }
            JoinReply::NotLeader { .. } => Err(Problem::new(
                ProblemCode::NotLeader,
                "this node does not lead",
            )),
            JoinReply::Later { reason } => Err(Problem::new(ProblemCode::NotReady, reason)),
            JoinReply::Refused { refusal, reason } => {
                let code = match refusal {
                    Refusal::NodeIdInUse => ProblemCode::NodeIdTaken,
                    Refusal::Mismatch => ProblemCode::ConfigMismatch,
                    Refusal::Unverified => ProblemCode::AddressUnverified,
                    Refusal::AddressInUse
                    | Refusal::Removed
                    | Refusal::Dismissed
                    | Refusal::OlderFeatureLevel
                    | Refusal::Other => ProblemCode::Rejected,
                };
                Err(Problem::new(code, reason))
            }
        }
    }

    async fn drain(&self, node: &NodeId, on: bool, leave: bool) -> Result<Applied, Problem> {
        self.inner
            .drain(node, on, leave)
            .await
            .map_err(|error| problem(&error))
    }

    async fn remove(&self, node: &NodeId, force: bool) -> Result<Applied, Problem> {
        self.inner
            .remove(node, force)
            .await
            .map_err(|error| problem(&error))
    }

    async fn rebalance(&self, dry_run: bool) -> Result<RebalanceDocument, Problem> {
        let done = self.inner.rebalance(dry_run).await;
        Ok(document(done.map_err(|error| problem(&error))?, dry_run))
    }

    async fn apply_rebalance(&self, id: PreviewId) -> Result<RebalanceDocument, Problem> {
        let done = self.inner.apply_rebalance(id).await;
        Ok(document(done.map_err(|error| problem(&error))?, false))
    }

    async fn preview(&self, adjustment: &Adjustment) -> Result<RebalanceDocument, Problem> {
        let done = self.inner.preview(adjustment).await;
        Ok(document(done.map_err(|error| problem(&error))?, true))
    }

    async fn adjust(&self, adjustment: &Adjustment) -> Result<Applied, Problem> {
        let applied = self.inner.adjust(adjustment).await;
        applied.map_err(|error| problem(&error))
    }

    async fn may_stop(&self, nodes: &[NodeId]) -> Result<MayStop, Problem> {
        let answer = self.inner.may_stop(nodes).await;
        answer.map_err(|error| problem(&error))
    }

    async fn explain(
        &self,
        partition: Option<PartitionId>,
        node: Option<&NodeId>,
    ) -> Result<ExplainDocument, Problem> {
        let explained = self.inner.explain(partition, node).await;
        let Explained {
            present,
            recorded,
            recorded_after: after,
        } = explained.map_err(|error| problem(&error))?;
        let node = node.cloned();
        Ok(ExplainDocument::new(
            partition, node, present, recorded, after,
        ))
    }

    async fn plans(&self) -> Result<PlansDocument, Problem> {
        let after = self.inner.view().plans.after();
        let plans = self.inner.plans().await.map_err(|error| problem(&error))?;
        let checked = move || plans.iter().map(PlanDocument::from).collect();
        let checked = self.inner.settings.environment.execution.run(checked).await;
        let checked = checked.map_err(|panic| Problem::new(ProblemCode::Internal, panic))?;
        Ok(PlansDocument::new(after, checked))
    }

    fn operations(&self) -> (Vec<Operation>, Option<bool>) {
        let protected = self.inner.coordinator().protected();
        (self.inner.operations(), protected)
    }

    async fn cancel(&self, operation: &Operation) -> Result<Applied, Problem> {
        let cancelled = self.inner.cancel(operation).await;
        cancelled.map_err(|error| problem(&error))
    }
}

/// Says what a rebalance did, or would do.
fn document(done: Rebalance, dry_run: bool) -> RebalanceDocument {
    let Rebalance { report, record } = done;
    let moves = moves(&record);
    let mut document = RebalanceDocument::new(report.preview);
    document.dry_run = dry_run;
    document.epoch = report.epoch;
    document.id = report.id;
    document.plan = report.plan;
    document.moves = moves;
    document
}

/// Returns the partitions whose members or primary the plan changes.
fn moves(record: &PlanRecord) -> Vec<MoveDocument> {
    let named = |rows: &Rows, at: usize| -> Vec<String> {
        let known = |node: u16| record.input.nodes.get(usize::from(node));
        let row = rows.members(at).filter_map(known);
        row.map(|node| node.id.to_string()).collect()
    };
    let all = (0..record.placement.rows.len()).map(PartitionId::from_index);
    let changed = all.filter(|&partition| record.changes(partition));
    changed
        .map(|partition| {
            let from = named(&record.input.current, partition.index());
            let to = named(&record.placement.rows, partition.index());
            MoveDocument::new(partition, from, to)
        })
        .collect()
}

fn invalid(error: &clusterkit_core::config::ConfigError) -> Problem {
    Problem::invalid(&error.field, &error.value, &error.limit)
}

fn problem(error: &NodeError) -> Problem {
    let code = match error {
        NodeError::UnknownNode { .. } => ProblemCode::UnknownNode,
        NodeError::UnknownOperation { .. } => ProblemCode::UnknownOperation,
        NodeError::NotCancellable { .. } => ProblemCode::Rejected,
        NodeError::Placement { .. } => ProblemCode::NotReady,
        NodeError::Invalid(_) => ProblemCode::InvalidArgument,
        NodeError::StalePreview { .. } => ProblemCode::StaleEpoch,
        NodeError::Timeout { .. } => ProblemCode::OutcomeUnknown,
        NodeError::Lookup(_) => ProblemCode::StaleRoute,
        NodeError::Propose(error) if is_invalid(error) => ProblemCode::InvalidArgument,
        NodeError::Propose(error) => match error {
            ProposeError::Rejected(
                Rejected::HoldsPartitions { .. }
                | Rejected::LastNode { .. }
                | Rejected::NoHeir { .. },
            ) => ProblemCode::Unsafe,
            ProposeError::Rejected(Rejected::StaleEpoch { .. }) => ProblemCode::StaleEpoch,
            ProposeError::Rejected(Rejected::UnknownNode { .. }) => ProblemCode::UnknownNode,
            ProposeError::Rejected(_) => ProblemCode::Rejected,
            ProposeError::NoLeader { .. } => ProblemCode::NoLeader,
            ProposeError::Unknown { .. } => ProblemCode::OutcomeUnknown,
            ProposeError::Stopped { .. } => ProblemCode::ShuttingDown,
            ProposeError::TooLarge { .. } => ProblemCode::BodyTooLarge,
            _ => ProblemCode::Internal,
        },
    };
    Problem::new(code, error)
}

//! The documents about what goes on: operations, pause switches, and whether nodes may be stopped.
//!
//! Blockers are values of the core (`clusterkit_core::operation`), sent as they are with their text
//! beside them.

use clusterkit_core::adjust::{MayStop, StopRisk};
use clusterkit_core::health::Health;
use clusterkit_core::id::{Epoch, NodeId, PartitionId};
use clusterkit_core::intent::Intended;
use clusterkit_core::node::Node;
use clusterkit_core::operation::{Blocker, Operation, OperationKind, OperationState, Progress};
use clusterkit_core::pause::{Pause, Work};
use clusterkit_core::state::ClusterState;
use serde::{Deserialize, Serialize};

use super::text::rfc3339;

/// A switch that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PauseDocument {
    /// What is paused.
    pub work: Work,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why, as the operator put it; empty when nothing was said.
    pub reason: String,
}

impl From<&Pause> for PauseDocument {
    fn from(pause: &Pause) -> Self {
        Self {
            work: pause.work,
            since: rfc3339(pause.since),
            reason: pause.reason.to_string(),
        }
    }
}

/// `GET /v1/pauses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PausesDocument {
    /// The switches that are on.
    pub paused: Vec<PauseDocument>,
}

impl From<&ClusterState> for PausesDocument {
    fn from(state: &ClusterState) -> Self {
        let paused = state.pauses().iter().map(PauseDocument::from).collect();
        Self { paused }
    }
}

/// The body of `PUT /v1/pauses/{work}`, which may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PauseRequest {
    /// Why, at most 256 bytes.
    pub reason: String,
}

/// `GET /v1/operations`: everything that goes on and takes a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationsDocument {
    /// The epoch the answer was made from.
    pub epoch: Epoch,
    /// Nodes first, then the plan, then partitions in order.
    pub operations: Vec<OperationDocument>,
    /// How many more there are than the limit allows to be listed.
    pub left_off: usize,
    /// Whether copies are withheld because too many nodes are down; none where the node asked does
    /// not lead and so does not know.
    pub protected: Option<bool>,
    /// The work that an operator has paused.
    pub paused: Vec<PauseDocument>,
}

impl OperationsDocument {
    /// Says that `operations` go on in `state`, and lists the first `limit` of them.
    #[must_use]
    pub fn new(
        state: &ClusterState,
        operations: &[Operation],
        protected: Option<bool>,
        limit: usize,
    ) -> Self {
        let listed = operations.iter().take(limit).map(OperationDocument::from);
        Self {
            epoch: state.epoch(),
            operations: listed.collect(),
            left_off: operations.len().saturating_sub(limit),
            protected,
            paused: PausesDocument::from(state).paused,
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationDocument {
    /// Its name: `DELETE /v1/operations/{id}` cancels it.
    pub id: String,
    /// What it is.
    pub kind: OperationKind,
    /// The node it is about; of a plan the one that caused it.
    pub node: Option<NodeId>,
    /// The partition it is about.
    pub partition: Option<PartitionId>,
    /// Where it stands.
    pub state: OperationState,
    /// Since when it goes on, RFC 3339.
    pub since: String,
    /// When it should be over, RFC 3339; a leader elected meanwhile gives it more time.
    pub deadline: String,
    /// How far it is, in copies or partitions.
    pub progress: Progress,
    /// What it waits for.
    pub blockers: Vec<BlockerDocument>,
    /// Whether it can be cancelled.
    pub cancellable: bool,
}

impl From<&Operation> for OperationDocument {
    fn from(operation: &Operation) -> Self {
        let blockers = operation.blockers.iter().cloned();
        Self {
            id: operation.id.clone(),
            kind: operation.kind,
            node: operation.node.clone(),
            partition: operation.partition,
            state: operation.state,
            since: rfc3339(operation.since),
            deadline: rfc3339(operation.deadline),
            progress: operation.progress,
            blockers: blockers.map(BlockerDocument::from).collect(),
            cancellable: operation.cancellable,
        }
    }
}

/// What an operation waits for, with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BlockerDocument {
    /// The blocker: `blocker` names it, its values stand beside it.
    #[serde(flatten)]
    pub blocker: Blocker,
    /// The same as a sentence.
    pub text: String,
}

impl From<Blocker> for BlockerDocument {
    fn from(blocker: Blocker) -> Self {
        let text = blocker.to_string();
        Self { blocker, text }
    }
}

/// `GET /v1/may-stop?nodes=a,b`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MayStopDocument {
    /// The epoch the answer was made from.
    pub epoch: Epoch,
    /// The nodes asked about.
    pub nodes: Vec<NodeId>,
    /// Whether they may be stopped together.
    pub may_stop: bool,
    /// What speaks against it, the worst first.
    pub risks: Vec<StopRiskDocument>,
}

impl MayStopDocument {
    /// Says `answer` about `nodes`.
    #[must_use]
    pub fn new(nodes: Vec<NodeId>, answer: MayStop) -> Self {
        let may_stop = answer.is_yes();
        let risks = answer.risks.into_iter().map(StopRiskDocument::from);
        Self {
            epoch: answer.epoch,
            nodes,
            may_stop,
            risks: risks.collect(),
        }
    }
}

/// What speaks against stopping nodes, with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StopRiskDocument {
    /// The risk: `risk` names it, its values stand beside it.
    #[serde(flatten)]
    pub risk: StopRisk,
    /// The same as a sentence.
    pub text: String,
}

impl From<StopRisk> for StopRiskDocument {
    fn from(risk: StopRisk) -> Self {
        let text = risk.to_string();
        Self { risk, text }
    }
}

/// What an operator is about to do with a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IntentDocument {
    /// `handover` or `restart`.
    pub intent: String,
    /// When it was declared, RFC 3339.
    pub since: String,
    /// When it ends by itself, RFC 3339; null where only an operator ends it.
    pub until: Option<String>,
}

impl From<Intended> for IntentDocument {
    fn from(intended: Intended) -> Self {
        Self {
            intent: intended.intent.to_string(),
            since: rfc3339(intended.since),
            until: intended.until.map(rfc3339),
        }
    }
}

/// What a node says against itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VetoDocument {
    /// The node.
    pub node: NodeId,
    /// `unhealthy` or `down`.
    pub health: Health,
    /// Why, as its application put it.
    pub reason: String,
    /// Since when it is known, RFC 3339.
    pub since: String,
}

impl VetoDocument {
    /// Returns what `node` says against itself in `state`, none when it is healthy.
    #[must_use]
    pub fn of(state: &ClusterState, node: &Node) -> Option<Self> {
        state.veto(node.raft_id).map(|veto| Self {
            node: node.id.clone(),
            health: veto.health,
            reason: veto.reason.to_string(),
            since: rfc3339(veto.since),
        })
    }

    /// Returns what every node says against itself.
    #[must_use]
    pub fn all(state: &ClusterState) -> Vec<Self> {
        let nodes = state.nodes();
        nodes.filter_map(|node| Self::of(state, node)).collect()
    }
}

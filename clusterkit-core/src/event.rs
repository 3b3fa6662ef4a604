//! What happened, in the past tense: the outputs of [`crate::state::ClusterState::apply`].
//!
//! Every node applies the same commands, so every node sees the same events in the same order.
//! Events name nodes by [`RaftId`]; [`crate::state::ClusterState::node_record`] resolves them, also
//! for nodes that have left. The payloads an application's hooks receive are built in the
//! embedding crate.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, EventSeq, LogIndex, PartitionId, PlanId, RaftId, StageId};
use crate::time::UnixMillis;

/// One event with its place in the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, counted from 1 without gaps.
    pub seq: EventSeq,
    /// The log index of the command that caused it.
    pub index: LogIndex,
    /// The epoch of the topology after that command.
    pub epoch: Epoch,
    /// The wall-clock time written into that command.
    pub at: UnixMillis,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EventKind {
    /// A partition entered another stage or changed its primary.
    PartitionChanged(PartitionChanged),
    /// A node became active for the first time.
    NodeJoined {
        /// The node.
        node: RaftId,
        /// How many nodes the cluster has with it.
        cluster_size: u32,
        /// Whether it formed the cluster.
        is_bootstrap: bool,
    },
    /// A known node came back: restarted, or heard from again after it was down.
    NodeRejoined {
        /// The node.
        node: RaftId,
        /// When it was last known to be up.
        last_seen_at: UnixMillis,
        /// What it was a member of when it went.
        partitions_before_leave: Vec<PartitionId>,
        /// What its copy of each of those is worth.
        verdicts: Vec<(PartitionId, Verdict)>,
    },
    /// A node was declared down, or left for good.
    NodeLeft {
        /// The node.
        node: RaftId,
        /// Why.
        reason: LeaveReason,
        /// What it was primary of.
        partitions_owned: Vec<PartitionId>,
        /// What it was another member of.
        partitions_replica: Vec<PartitionId>,
    },
    /// A plan was accepted and its moves begin.
    RebalanceStarted {
        /// The plan.
        plan: PlanId,
        /// Why it was made.
        trigger: PlanTrigger,
        /// The node that caused it, where there is one.
        trigger_node: Option<RaftId>,
        /// How many partitions change.
        partitions_to_move: u32,
        /// The nodes that gain or lose something.
        nodes_affected: Vec<RaftId>,
    },
    /// Every move of a plan has ended.
    RebalanceCompleted {
        /// The plan.
        plan: PlanId,
        /// Why it was made.
        trigger: PlanTrigger,
        /// The node that caused it, where there is one.
        trigger_node: Option<RaftId>,
        /// How many partitions changed.
        partitions_moved: u32,
        /// The nodes that gained or lost something.
        nodes_affected: Vec<RaftId>,
        /// When it started.
        started_at: UnixMillis,
    },
    /// The health of the cluster as a whole changed.
    ClusterHealthChanged(ClusterHealth),
    /// The last in-sync copy of a partition is gone for good.
    PartitionLost {
        /// The partition.
        partition: PartitionId,
        /// A member that was behind and now serves what it has.
        recovered_from: Option<RaftId>,
    },
}

/// A partition entered another stage or changed its primary. One event per node concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChanged {
    /// The partition.
    pub partition: PartitionId,
    /// What `target` is to do, or what happened to it.
    pub stage: ChangeStage,
    /// The identity of the stage, named by the answer.
    pub stage_id: StageId,
    /// Every in-sync holder, best first, without `target`.
    pub sources: Vec<RaftId>,
    /// The node concerned.
    pub target: RaftId,
    /// What `target` is, or will be once the stage is done.
    pub role: Role,
    /// Why.
    pub reason: ChangeReason,
    /// The primary before.
    pub old_primary: Option<RaftId>,
    /// The primary after.
    pub new_primary: Option<RaftId>,
    /// The epoch during which `target` fell behind, where what it holds is still good: it holds
    /// every write of earlier epochs. None asks for a full copy.
    pub behind_since: Option<Epoch>,
    /// The partition's epoch after the change.
    pub epoch: Epoch,
}

/// What a [`PartitionChanged`] asks of its target, or tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "an application must decide about every stage"
)]
pub enum ChangeStage {
    /// Copy the partition from a source, then report.
    Syncing,
    /// The target's role is now `role`.
    Switched,
    /// The target is no member any more and may delete its copy.
    Cleanup,
    /// The move is called off; the target may delete what it copied.
    Reverted,
}

/// What a node is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::exhaustive_enums, reason = "the roles of the model")]
pub enum Role {
    /// Serves writes.
    Primary,
    /// Holds a copy.
    Replica,
    /// Holds nothing.
    None,
}

/// Why a partition changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "the wire knows exactly these reasons"
)]
pub enum ChangeReason {
    /// A node joined or came back.
    NodeJoin,
    /// A node left or is being drained.
    NodeLeave,
    /// The balance was restored.
    Rebalance,
    /// An operator asked for it.
    Manual,
    /// The primary was lost.
    Failover,
}

/// Why a node left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "the wire knows exactly these reasons"
)]
pub enum LeaveReason {
    /// It stopped answering.
    Failed,
    /// It gave its data away first.
    Drained,
    /// An operator, or a successor with its id, removed it.
    Removed,
}

/// What a returning node's copy of a partition is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "an application must decide about every verdict"
)]
pub enum Verdict {
    /// Complete: it serves.
    Current,
    /// It holds every write of earlier epochs and may lack writes of this one and of later ones:
    /// a delta is enough.
    Behind(Epoch),
    /// It may hold writes that the cluster has lost since: the application decides.
    Diverged,
    /// The partition is not its any more.
    Foreign,
}

/// Why a plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlanTrigger {
    /// The first placement.
    Bootstrap,
    /// A node joined or came back.
    NodeJoin,
    /// A node is leaving or being drained.
    NodeLeave,
    /// A node stayed down beyond the repair delay.
    Repair,
    /// An operator asked for a rebalance.
    Manual,
    /// Nothing but balance: also after a weight, a zone or the replication factor was changed.
    Rebalance,
}

impl PlanTrigger {
    /// Returns the reason that the moves of such a plan carry.
    #[must_use]
    pub const fn reason(self) -> ChangeReason {
        match self {
            Self::Bootstrap | Self::NodeJoin => ChangeReason::NodeJoin,
            Self::NodeLeave | Self::Repair => ChangeReason::NodeLeave,
            Self::Manual => ChangeReason::Manual,
            Self::Rebalance => ChangeReason::Rebalance,
        }
    }
}

/// The health of the cluster as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHealth {
    /// How bad it is.
    pub status: HealthStatus,
    /// Nodes that are up.
    pub healthy: u32,
    /// Nodes that are down.
    pub unhealthy: u32,
    /// All nodes.
    pub total: u32,
    /// The nodes that are down.
    pub unhealthy_nodes: Vec<RaftId>,
}

/// How healthy the cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "the wire knows exactly these states"
)]
pub enum HealthStatus {
    /// Every node is up and every partition has a primary.
    #[default]
    Healthy,
    /// Some node is down; every partition has a primary.
    Degraded,
    /// Some partition has no primary.
    Critical,
}

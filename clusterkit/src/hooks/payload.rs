//! What hooks and event streams receive: committed events with their nodes resolved.
//!
//! The events themselves, which name nodes by their internal id, are outputs of the state machine
//! in [`clusterkit_core::event`]; the order and the number of deliveries are decided in `runner`.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::event::{
    ChangeReason, ChangeStage, Event, EventKind, HealthStatus, LeaveReason,
    PartitionChanged as CorePartitionChanged, PlanTrigger, Role, Verdict,
};
use clusterkit_core::id::{Epoch, EventSeq, PartitionId, PlanId, RaftId, StageId};
use clusterkit_core::node::Node;
use clusterkit_core::partition::Stage;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::UnixMillis;

use super::copying::CopyCall;

/// A partition entered another stage or changed its primary. One for each node concerned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionChange {
    /// The partition.
    pub partition: PartitionId,
    /// What `target` is to do, or what happened to it.
    pub stage: ChangeStage,
    /// The identity of the stage.
    pub stage_id: StageId,
    /// Every in-sync holder without `target`, best first. When a hook is called again after an
    /// error these are the holders known then.
    pub sources: Vec<Arc<Node>>,
    /// The node concerned.
    pub target: Arc<Node>,
    /// What `target` is, or will be once the stage is done.
    pub role: Role,
    /// Why.
    pub reason: ChangeReason,
    /// The primary before.
    pub old_primary: Option<Arc<Node>>,
    /// The primary after.
    pub new_primary: Option<Arc<Node>>,
    /// The epoch up to which `target` already holds the data, where it holds some: a delta is
    /// enough.
    pub behind_since: Option<Epoch>,
    /// The partition's epoch after the change.
    pub epoch: Epoch,
    /// When the change was decided.
    pub at: UnixMillis,
    /// Whether `target` is this node. Only then the answer counts: `Ok` on
    /// [`ChangeStage::Syncing`] says that the data is here, `Ok` on [`ChangeStage::Cleanup`] or
    /// [`ChangeStage::Reverted`] that it is gone from here.
    pub local: bool,
    /// Where the copy it asks for is answered for.
    pub(super) copy: Option<Arc<CopyCall>>,
}

/// A node became active for the first time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeJoined {
    /// The node.
    pub node: Arc<Node>,
    /// How many nodes the cluster has with it.
    pub cluster_size: u32,
    /// Whether it formed the cluster.
    pub is_bootstrap: bool,
    /// When.
    pub at: UnixMillis,
}

/// A known node came back: restarted, or heard from again after it was down.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeRejoined {
    /// The node.
    pub node: Arc<Node>,
    /// How long it was away.
    pub offline_for: Duration,
    /// When it was last known to be up.
    pub last_seen_at: UnixMillis,
    /// What it was a member of when it went.
    pub partitions_before_leave: Vec<PartitionId>,
    /// What its copy of each of those is worth.
    pub verdicts: Vec<(PartitionId, Verdict)>,
    /// When.
    pub at: UnixMillis,
}

/// A node was declared down, or left for good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeLeft {
    /// The node.
    pub node: Arc<Node>,
    /// Why.
    pub reason: LeaveReason,
    /// What it was primary of.
    pub partitions_owned: Vec<PartitionId>,
    /// What it was another member of.
    pub partitions_replica: Vec<PartitionId>,
    /// When.
    pub at: UnixMillis,
}

/// A plan was accepted and its moves begin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RebalanceStarted {
    /// The plan.
    pub plan: PlanId,
    /// Why it was made.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<Arc<Node>>,
    /// How many partitions change.
    pub partitions_to_move: u32,
    /// The nodes that gain or lose something.
    pub nodes_affected: Vec<Arc<Node>>,
    /// When.
    pub at: UnixMillis,
}

/// Every move of a plan has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RebalanceCompleted {
    /// The plan.
    pub plan: PlanId,
    /// Why it was made.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<Arc<Node>>,
    /// How many partitions changed.
    pub partitions_moved: u32,
    /// The nodes that gained or lost something.
    pub nodes_affected: Vec<Arc<Node>>,
    /// When it ended.
    pub at: UnixMillis,
    /// How long it took.
    pub duration: Duration,
}

/// The health of the cluster as a whole changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HealthChange {
    /// How bad it is.
    pub status: HealthStatus,
    /// Nodes that are up.
    pub healthy: u32,
    /// Nodes that are down.
    pub unhealthy: u32,
    /// All nodes.
    pub total: u32,
    /// The nodes that are down.
    pub unhealthy_nodes: Vec<Arc<Node>>,
    /// When.
    pub at: UnixMillis,
}

/// The last in-sync copy of a partition is gone for good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionLost {
    /// The partition.
    pub partition: PartitionId,
    /// A member that was behind and now serves what it has.
    pub recovered_from: Option<Arc<Node>>,
    /// When.
    pub at: UnixMillis,
}

/// Events that were dropped before they could be delivered here: the reader was too slow, or this
/// node was away for too long. The topology is current all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventsMissed {
    /// The first one missed.
    pub from: EventSeq,
    /// The last one missed.
    pub to: EventSeq,
}

/// One committed event, with its nodes resolved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A partition entered another stage or changed its primary.
    PartitionChanged(PartitionChange),
    /// A node became active for the first time.
    NodeJoined(NodeJoined),
    /// A known node came back.
    NodeRejoined(NodeRejoined),
    /// A node was declared down, or left for good.
    NodeLeft(NodeLeft),
    /// A plan was accepted and its moves begin.
    RebalanceStarted(RebalanceStarted),
    /// Every move of a plan has ended.
    RebalanceCompleted(RebalanceCompleted),
    /// The health of the cluster as a whole changed.
    HealthChanged(HealthChange),
    /// The last in-sync copy of a partition is gone for good.
    PartitionLost(PartitionLost),
    /// Events were dropped before this reader got to them.
    Missed(EventsMissed),
}

impl ClusterEvent {
    /// Resolves `event` as seen by the member `me`. None when the node it is about left so long
    /// ago that its record is forgotten.
    pub(crate) fn resolve(event: &Event, state: &ClusterState, me: RaftId) -> Option<Self> {
        let one = |id: RaftId| state.node_record(id).cloned();
        let all =
            |ids: &[RaftId]| -> Vec<Arc<Node>> { ids.iter().copied().filter_map(one).collect() };
        let at = event.at;
        Some(match &event.kind {
            EventKind::PartitionChanged(change) => {
                Self::PartitionChanged(partition_change(change, at, state, me)?)
            }
            EventKind::NodeJoined {
                node,
                cluster_size,
                is_bootstrap,
            } => Self::NodeJoined(NodeJoined {
                node: one(*node)?,
                cluster_size: *cluster_size,
                is_bootstrap: *is_bootstrap,
                at,
            }),
            EventKind::NodeRejoined {
                node,
                last_seen_at,
                partitions_before_leave,
                verdicts,
            } => Self::NodeRejoined(NodeRejoined {
                node: one(*node)?,
                offline_for: at.saturating_since(*last_seen_at),
                last_seen_at: *last_seen_at,
                partitions_before_leave: partitions_before_leave.clone(),
                verdicts: verdicts.clone(),
                at,
            }),
            EventKind::NodeLeft {
                node,
                reason,
                partitions_owned,
                partitions_replica,
            } => Self::NodeLeft(NodeLeft {
                node: one(*node)?,
                reason: *reason,
                partitions_owned: partitions_owned.clone(),
                partitions_replica: partitions_replica.clone(),
                at,
            }),
            EventKind::RebalanceStarted {
                plan,
                trigger,
                trigger_node,
                partitions_to_move,
                nodes_affected,
            } => Self::RebalanceStarted(RebalanceStarted {
                plan: *plan,
                trigger: *trigger,
                trigger_node: trigger_node.and_then(one),
                partitions_to_move: *partitions_to_move,
                nodes_affected: all(nodes_affected),
                at,
            }),
            EventKind::RebalanceCompleted {
                plan,
                trigger,
                trigger_node,
                partitions_moved,
                nodes_affected,
                started_at,
            } => Self::RebalanceCompleted(RebalanceCompleted {
                plan: *plan,
                trigger: *trigger,
                trigger_node: trigger_node.and_then(one),
                partitions_moved: *partitions_moved,
                nodes_affected: all(nodes_affected),
                at,
                duration: at.saturating_since(*started_at),
            }),
            EventKind::ClusterHealthChanged(health) => Self::HealthChanged(HealthChange {
                status: health.status,
                healthy: health.healthy,
                unhealthy: health.unhealthy,
                total: health.total,
                unhealthy_nodes: all(&health.unhealthy_nodes),
                at,
            }),
            EventKind::PartitionLost {
                partition,
                recovered_from,
            } => Self::PartitionLost(PartitionLost {
                partition: *partition,
                recovered_from: recovered_from.and_then(one),
                at,
            }),
            _ => return None,
        })
    }
}

fn partition_change(
    change: &CorePartitionChanged,
    at: UnixMillis,
    state: &ClusterState,
    me: RaftId,
) -> Option<PartitionChange> {
    let one = |id: RaftId| state.node_record(id).cloned();
    Some(PartitionChange {
        partition: change.partition,
        stage: change.stage,
        stage_id: change.stage_id,
        sources: change.sources.iter().copied().filter_map(one).collect(),
        target: one(change.target)?,
        role: change.role,
        reason: change.reason,
        old_primary: change.old_primary.and_then(one),
        new_primary: change.new_primary.and_then(one),
        behind_since: change.behind_since,
        epoch: change.epoch,
        at,
        local: change.target == me,
        copy: None,
    })
}

impl PartitionChange {
    /// Brings the parts of a payload that is delivered late, or again, up to `state`: who holds
    /// the data now, and who serves it.
    pub(crate) fn refresh(&mut self, state: &ClusterState) {
        let Some(partition) = state.partition(self.partition) else {
            return;
        };
        let target = self.target.raft_id;
        let one = |id: RaftId| state.node_record(id).cloned();
        let sources = partition.sources(target).into_iter();
        self.sources = sources.filter_map(one).collect();
        self.new_primary = partition.primary.and_then(one);
    }

    /// Rebuilds the payloads of the stages that are open for `me`, for when their events are lost.
    pub(crate) fn open_stages(state: &ClusterState, me: RaftId) -> Vec<Self> {
        let mut found = Vec::new();
        for (id, partition) in state.partitions_by_id() {
            let mut open = |stage, stage_id, role, reason, behind_since| {
                let Some(target) = state.node_record(me).cloned() else {
                    return;
                };
                let primary = partition
                    .primary
                    .and_then(|id| state.node_record(id).cloned());
                let mut change = Self {
                    partition: id,
                    stage,
                    stage_id,
                    sources: Vec::new(),
                    target,
                    role,
                    reason,
                    old_primary: primary,
                    new_primary: None,
                    behind_since,
                    epoch: partition.epoch,
                    // When it was decided is lost with the event.
                    at: UnixMillis(0),
                    local: true,
                    copy: None,
                };
                change.refresh(state);
                found.push(change);
            };
            let behind = partition.behind.iter().find(|behind| behind.node == me);
            if let Some((behind, stage)) = behind.and_then(|b| b.stage.map(|stage| (b, stage))) {
                let reason = ChangeReason::NodeJoin;
                open(
                    ChangeStage::Syncing,
                    stage,
                    Role::Replica,
                    reason,
                    (!behind.diverged).then_some(behind.since),
                );
            }
            match &partition.stage {
                Stage::Syncing(migration) => {
                    let first = migration.target.first() == Some(&me);
                    let role = if first { Role::Primary } else { Role::Replica };
                    let mine = migration.joining.iter().find(|joining| joining.node == me);
                    if let Some(joining) = mine.filter(|joining| !joining.synced) {
                        open(
                            ChangeStage::Syncing,
                            joining.stage,
                            role,
                            migration.reason,
                            None,
                        );
                    }
                    if migration.leaving.contains(&me) {
                        let (stage, reason) = (ChangeStage::Reverted, migration.reason);
                        open(stage, migration.id, Role::None, reason, None);
                    }
                }
                // What the stage came from is not recorded; both ask for the same.
                Stage::Cleanup { id, leaving, .. } if leaving.contains(&me) => {
                    let reason = ChangeReason::Rebalance;
                    open(ChangeStage::Cleanup, *id, Role::None, reason, None);
                }
                Stage::Cleanup { .. } | Stage::Stable => {}
            }
        }
        found
    }
}

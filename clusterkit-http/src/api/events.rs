//! `/v1/events`: what happened, with nodes named by their ids.
//!
//! The events themselves are outputs of the core's state machine; what hooks of an application
//! receive is built in crate `clusterkit`.

use clusterkit_core::event::{
    ChangeReason, ChangeStage, Event, EventKind, HealthStatus, LeaveReason, PlanTrigger, Role,
    Verdict,
};
use clusterkit_core::id::{Epoch, EventSeq, LogIndex, PartitionId, PlanId, RaftId, StageId};
use clusterkit_core::state::ClusterState;
use serde::{Deserialize, Serialize};

use super::text::rfc3339;

/// `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventsDocument {
    /// The page, oldest first.
    pub events: Vec<EventDocument>,
    /// The `after` of the next page.
    pub next_after: EventSeq,
    /// Whether more were there already.
    pub has_more: bool,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventDocument {
    /// Its number, without gaps.
    pub seq: EventSeq,
    /// The log index of its cause.
    pub index: LogIndex,
    /// The epoch after its cause.
    pub epoch: Epoch,
    /// When it was decided, RFC 3339.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened: `type` names it, `data` holds the payload. Nodes are named by their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are those of the core's events")]
pub enum EventBody {
    /// A partition entered another stage or changed its primary.
    PartitionChanged {
        partition: PartitionId,
        stage: ChangeStage,
        stage_id: StageId,
        sources: Vec<String>,
        target: String,
        role: Role,
        reason: ChangeReason,
        old_primary: Option<String>,
        new_primary: Option<String>,
        behind_since: Option<Epoch>,
        epoch: Epoch,
    },
    /// A node became active for the first time.
    NodeJoined {
        node: String,
        cluster_size: u32,
        is_bootstrap: bool,
    },
    /// A known node came back.
    NodeRejoined {
        node: String,
        last_seen_at: String,
        partitions_before_leave: Vec<PartitionId>,
        verdicts: Vec<VerdictDocument>,
    },
    /// A node was declared down, or left for good.
    NodeLeft {
        node: String,
        reason: LeaveReason,
        partitions_owned: Vec<PartitionId>,
        partitions_replica: Vec<PartitionId>,
    },
    /// A plan was accepted.
    RebalanceStarted {
        plan: PlanId,
        trigger: PlanTrigger,
        trigger_node: Option<String>,
        partitions_to_move: u32,
        nodes_affected: Vec<String>,
    },
    /// Every move of a plan has ended.
    RebalanceCompleted {
        plan: PlanId,
        trigger: PlanTrigger,
        trigger_node: Option<String>,
        partitions_moved: u32,
        nodes_affected: Vec<String>,
        started_at: String,
    },
    /// The health of the cluster as a whole changed.
    ClusterHealthChanged {
        status: HealthStatus,
        healthy: u32,
        unhealthy: u32,
        total: u32,
        unhealthy_nodes: Vec<String>,
    },
    /// The last in-sync copy of a partition is gone for good.
    PartitionLost {
        partition: PartitionId,
        recovered_from: Option<String>,
    },
    /// A kind of event this build does not know.
    #[serde(untagged)]
    Unrecognized {
        #[serde(rename = "type")]
        kind: String,
    },
}

/// What a returning node's copy of a partition is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerdictDocument {
    /// The partition.
    pub partition: PartitionId,
    /// `current`, `behind` with its epoch, `diverged` or `foreign`.
    pub verdict: Verdict,
}

impl EventBody {
    /// Returns the name of the kind, as it stands in `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PartitionChanged { .. } => "partition_changed",
            Self::NodeJoined { .. } => "node_joined",
            Self::NodeRejoined { .. } => "node_rejoined",
            Self::NodeLeft { .. } => "node_left",
            Self::RebalanceStarted { .. } => "rebalance_started",
            Self::RebalanceCompleted { .. } => "rebalance_completed",
            Self::ClusterHealthChanged { .. } => "cluster_health_changed",
            Self::PartitionLost { .. } => "partition_lost",
            Self::Unrecognized { .. } => "unrecognized",
        }
    }
}

impl EventDocument {
    /// Writes `event`, naming nodes as `state` knows them.
    #[must_use]
    pub fn new(event: &Event, state: &ClusterState) -> Self {
        Self {
            seq: event.seq,
            index: event.index,
            epoch: event.epoch,
            at: rfc3339(event.at),
            body: body(&event.kind, &Names(state)),
        }
    }
}

struct Names<'a>(&'a ClusterState);

impl Names<'_> {
    /// A node that left too long ago to be remembered is named by its internal id.
    fn one(&self, id: RaftId) -> String {
        let known = self.0.node_record(id);
        known.map_or_else(|| format!("#{id}"), |node| node.id.to_string())
    }

    fn maybe(&self, id: Option<RaftId>) -> Option<String> {
        id.map(|id| self.one(id))
    }

    fn all(&self, ids: &[RaftId]) -> Vec<String> {
        ids.iter().map(|&id| self.one(id)).collect()
    }
}

fn body(kind: &EventKind, names: &Names<'_>) -> EventBody {
    match kind {
        EventKind::PartitionChanged(change) => EventBody::PartitionChanged {
            partition: change.partition,
            stage: change.stage,
            stage_id: change.stage_id,
            sources: names.all(&change.sources),
            target: names.one(change.target),
            role: change.role,
            reason: change.reason,
            old_primary: names.maybe(change.old_primary),
            new_primary: names.maybe(change.new_primary),
            behind_since: change.behind_since,
            epoch: change.epoch,
        },
        EventKind::NodeJoined {
            node,
            cluster_size,
            is_bootstrap,
        } => EventBody::NodeJoined {
            node: names.one(*node),
            cluster_size: *cluster_size,
            is_bootstrap: *is_bootstrap,
        },
        EventKind::NodeRejoined {
            node,
            last_seen_at,
            partitions_before_leave,
            verdicts,
        } => EventBody::NodeRejoined {
            node: names.one(*node),
            last_seen_at: rfc3339(*last_seen_at),
            partitions_before_leave: partitions_before_leave.clone(),
            verdicts: verdicts
                .iter()
                .map(|&(partition, verdict)| VerdictDocument { partition, verdict })
                .collect(),
        },
        EventKind::NodeLeft {
            node,
            reason,
            partitions_owned,
            partitions_replica,
        } => EventBody::NodeLeft {
            node: names.one(*node),
            reason: *reason,
            partitions_owned: partitions_owned.clone(),
            partitions_replica: partitions_replica.clone(),
        },
        EventKind::RebalanceStarted {
            plan,
            trigger,
            trigger_node,
            partitions_to_move,
            nodes_affected,
        } => EventBody::RebalanceStarted {
            plan: *plan,
            trigger: *trigger,
            trigger_node: names.maybe(*trigger_node),
            partitions_to_move: *partitions_to_move,
            nodes_affected: names.all(nodes_affected),
        },
        EventKind::RebalanceCompleted {
            plan,
            trigger,
            trigger_node,
            partitions_moved,
            nodes_affected,
            started_at,
        } => EventBody::RebalanceCompleted {
            plan: *plan,
            trigger: *trigger,
            trigger_node: names.maybe(*trigger_node),
            partitions_moved: *partitions_moved,
            nodes_affected: names.all(nodes_affected),
            started_at: rfc3339(*started_at),
        },
        EventKind::ClusterHealthChanged(health) => EventBody::ClusterHealthChanged {
            status: health.status,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
            total: health.total,
            unhealthy_nodes: names.all(&health.unhealthy_nodes),
        },
        EventKind::PartitionLost {
            partition,
            recovered_from,
        } => EventBody::PartitionLost {
            partition: *partition,
            recovered_from: names.maybe(*recovered_from),
        },
        _ => EventBody::Unrecognized {
            kind: String::from("unrecognized"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_a_type_and_its_data() {
        let event = Event {
            seq: EventSeq(4),
            index: LogIndex(9),
            epoch: Epoch(2),
            at: clusterkit_core::time::UnixMillis(1_500),
            kind: EventKind::NodeJoined {
                node: RaftId(7),
                cluster_size: 2,
                is_bootstrap: false,
            },
        };
        let document = EventDocument::new(&event, &ClusterState::new());
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(
            text,
            r##"{"seq":4,"index":9,"epoch":2,"at":"1970-01-01T00:00:01.5Z","type":"node_joined","data":{"node":"#7","cluster_size":2,"is_bootstrap":false}}"##
        );
        assert_eq!(
            serde_json::from_str::<EventDocument>(&text).unwrap(),
            document
        );
    }

    #[test]
    fn an_event_of_a_newer_release_does_not_stop_a_reader() {
        let newer = r#"{"seq":1,"index":1,"epoch":1,"at":"x","type":"moon_landed","data":{"a":1}}"#;
        let read: EventDocument = serde_json::from_str(newer).unwrap();
        assert_eq!(read.body.kind(), "unrecognized");
    }
}

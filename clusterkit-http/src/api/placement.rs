//! The documents about placement: rebalance with its preview, explanations, runtime changes.
//!
//! Reasons, limits and loads are values of the core (`clusterkit_core::explain`), sent as they are
//! with their text beside them.

use clusterkit_core::config::{ClusterConfig, ConfigChange};
use clusterkit_core::event::{PlanTrigger, Role};
use clusterkit_core::explain::{
    Explanation, Limit, NodeLoad, Outcome, Placed, PlanRecord, Preview, PreviewId, PrimaryChange,
    Reason, Transfer,
};
use clusterkit_core::id::{Epoch, LogIndex, NodeId, PartitionId, PlanId};
use serde::{Deserialize, Serialize};

use super::text::rfc3339;

/// The answer to `POST /v1/rebalance`: what is, or with `dry_run` would be, moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RebalanceDocument {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// What to name in `apply` to have exactly this done; none for a change that was only
    /// previewed.
    #[serde(default)]
    pub id: Option<PreviewId>,
    /// The plan, none on a dry run or when there is nothing to do.
    pub plan: Option<PlanId>,
    /// The partitions whose members or primary change.
    pub moves: Vec<MoveDocument>,
    /// How many copies have to be made.
    pub copies: usize,
    /// The fewest copies that any placement within the same bounds needs, proven; none without a
    /// proof.
    #[serde(default)]
    pub minimum: Option<usize>,
    /// Every copy to be made or given up.
    #[serde(default)]
    pub transfers: Vec<Transfer>,
    /// Every primary that changes.
    #[serde(default)]
    pub primary_changes: Vec<PrimaryChange>,
    /// What every node holds and leads, before and after, and what it should.
    #[serde(default)]
    pub nodes: Vec<NodeLoad>,
    /// The limits that bind.
    #[serde(default)]
    pub limits: Vec<LimitDocument>,
}

impl RebalanceDocument {
    /// Says what `preview` says; `moves`, `plan` and `dry_run` are left to be filled in.
    #[must_use]
    pub fn new(preview: Preview) -> Self {
        Self {
            epoch: preview.epoch,
            id: Some(preview.id),
            copies: preview.moves as usize,
            minimum: preview.minimum.map(|minimum| minimum as usize),
            transfers: preview.transfers,
            primary_changes: preview.primary_changes,
            nodes: preview.nodes,
            limits: preview.limits.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// One partition of a [`RebalanceDocument`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MoveDocument {
    /// The partition.
    pub partition: PartitionId,
    /// Its members now, the primary first.
    pub from: Vec<String>,
    /// Its members then, the primary first.
    pub to: Vec<String>,
}

impl MoveDocument {
    /// Says that `partition` goes from the members `from` to the members `to`.
    #[must_use]
    pub const fn new(partition: PartitionId, from: Vec<String>, to: Vec<String>) -> Self {
        Self {
            partition,
            from,
            to,
        }
    }
}

/// A limit that binds, with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitDocument {
    /// The limit: `limit` names it, its values stand beside it.
    #[serde(flatten)]
    pub limit: Limit,
    /// The same as a sentence.
    pub text: String,
}

impl From<Limit> for LimitDocument {
    fn from(limit: Limit) -> Self {
        let text = limit.to_string();
        Self { limit, text }
    }
}

/// A reason, with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReasonDocument {
    /// The reason: `reason` names it, its values stand beside it.
    #[serde(flatten)]
    pub reason: Reason,
    /// The same as a sentence.
    pub text: String,
}

impl From<Reason> for ReasonDocument {
    fn from(reason: Reason) -> Self {
        let text = reason.to_string();
        Self { reason, text }
    }
}

/// `GET /v1/explain?partition=&node=&key=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExplainDocument {
    /// The partition asked about, or that of the key.
    pub partition: Option<PartitionId>,
    /// The node asked about.
    pub node: Option<NodeId>,
    /// Why things are as they are now, from a plan computed for the question.
    pub present: ExplanationDocument,
    /// Why things moved, from the newest plan in the log that concerned what was asked about; none
    /// where no remembered plan did.
    pub recorded: Option<ExplanationDocument>,
    /// The log index after which the answering node remembers every plan; 0 for the whole log.
    #[serde(default)]
    pub recorded_after: LogIndex,
    /// All reasons, one sentence a line.
    pub text: String,
}

impl ExplainDocument {
    /// Answers about `partition` and `node`, on a node that remembers every plan after `after`.
    #[must_use]
    pub fn new(
        partition: Option<PartitionId>,
        node: Option<NodeId>,
        present: Explanation,
        recorded: Option<Explanation>,
        after: LogIndex,
    ) -> Self {
        let mut text = present.to_string();
        text.push('\n');
        text.push_str(&match (&recorded, after) {
            (Some(recorded), _) => format!(
                "The last plan that concerned it was computed on epoch {}:\n{recorded}",
                recorded.epoch
            ),
            (None, LogIndex(0)) => String::from("No plan has concerned it yet."),
            (None, after) => format!(
                "No plan after log entry {after} has concerned it; this node remembers no older \
                 plans."
            ),
        });
        Self {
            recorded_after: after,
            partition,
            node,
            present: present.into(),
            recorded: recorded.map(Into::into),
            text,
        }
    }
}

/// The answer that one record gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExplanationDocument {
    /// The plan in the log; none for one that was only computed.
    #[serde(default)]
    pub plan: Option<PlanId>,
    /// The epoch the plan was computed on.
    pub epoch: Epoch,
    /// When it was computed, RFC 3339.
    pub at: String,
    /// Why it was made.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<NodeId>,
    /// How many copies the plan makes.
    pub copies: usize,
    /// The fewest that any placement within the same bounds needs, proven; none without a proof.
    pub minimum: Option<usize>,
    /// What holds for the cluster and the node asked about.
    pub reasons: Vec<ReasonDocument>,
    /// What holds for the partition asked about, one entry per node concerned.
    pub placed: Vec<PlacedDocument>,
}

impl From<Explanation> for ExplanationDocument {
    fn from(explanation: Explanation) -> Self {
        Self {
            plan: explanation.plan,
            epoch: explanation.epoch,
            at: rfc3339(explanation.at),
            trigger: explanation.trigger,
            trigger_node: explanation.trigger_node,
            copies: explanation.moves as usize,
            minimum: explanation.minimum.map(|minimum| minimum as usize),
            reasons: explanation.reasons.into_iter().map(Into::into).collect(),
            placed: explanation.placed.into_iter().map(Into::into).collect(),
        }
    }
}

/// `GET /v1/plans`: the last plans of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlansDocument {
    /// The log index after which the answering node remembers every plan; 0 for the whole log.
    pub after: LogIndex,
    /// The plans that changed something, newest first.
    pub plans: Vec<PlanDocument>,
}

impl PlansDocument {
    /// Says which plans there were after `after`.
    #[must_use]
    pub const fn new(after: LogIndex, plans: Vec<PlanDocument>) -> Self {
        Self { after, plans }
    }
}

/// One plan of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlanDocument {
    /// The plan.
    pub plan: Option<PlanId>,
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// When it was computed, RFC 3339.
    pub at: String,
    /// Why it was made.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<NodeId>,
    /// How many copies it makes.
    pub copies: usize,
    /// The fewest that any placement within the same bounds needs, proven; none without a proof.
    pub minimum: Option<usize>,
    /// How many partitions change their primary.
    pub primary_changes: usize,
}

impl From<&PlanRecord> for PlanDocument {
    /// Checks the certificate for the minimum.
    fn from(record: &PlanRecord) -> Self {
        let proven = record.verify().ok();
        Self {
            plan: record.plan,
            epoch: record.epoch,
            at: rfc3339(record.at),
            trigger: record.trigger,
            trigger_node: record.trigger_node.clone(),
            copies: record.placement.moves as usize,
            minimum: proven.map(|verdict| verdict.moves as usize),
            primary_changes: record.placement.primary_changes as usize,
        }
    }
}

/// Why one node has, gets, loses or lacks one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacedDocument {
    /// The partition.
    pub partition: PartitionId,
    /// The node.
    pub node: NodeId,
    /// `kept`, `added`, `dropped` or `absent`.
    pub outcome: Outcome,
    /// `primary`, `replica` or `none`, before the plan.
    pub role_before: Role,
    /// The same after it.
    pub role_after: Role,
    /// Why, the strongest reason first.
    pub reasons: Vec<ReasonDocument>,
}

impl From<Placed> for PlacedDocument {
    fn from(placed: Placed) -> Self {
        Self {
            partition: placed.partition,
            node: placed.node,
            outcome: placed.outcome,
            role_before: placed.role_before,
            role_after: placed.role_after,
            reasons: placed.reasons.into_iter().map(Into::into).collect(),
        }
    }
}

/// `POST /v1/nodes/{id}`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NodeChangeDocument {
    /// The share of the data relative to other nodes; 0 empties the node.
    #[serde(default)]
    pub weight: Option<u32>,
    /// The failure domain, at most 256 bytes; empty for none.
    #[serde(default)]
    pub zone: Option<String>,
}

/// `POST /v1/config`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ConfigChangeDocument {
    /// How many copies a partition should have, 1 to 7.
    #[serde(default)]
    pub replication_factor: Option<u32>,
    /// How long a node may stay down before its data is copied elsewhere, in milliseconds.
    #[serde(default)]
    pub repair_delay_ms: Option<u64>,
    /// How many partitions may move at once, 1 to 65,536.
    #[serde(default)]
    pub moves_in_flight: Option<u32>,
    /// How many copies one node may receive at once, and as many it may serve, 1 to 65,536.
    #[serde(default)]
    pub moves_per_node: Option<u32>,
    /// How many in-sync copies a partition should never fall below, 1 to the replication factor.
    #[serde(default)]
    pub min_in_sync: Option<u32>,
    /// How many permille of the nodes may be down before nothing is copied any more, 1 to 1,000.
    #[serde(default)]
    pub max_down_permille: Option<u32>,
    /// How long a copy may take before the move is called off, in milliseconds, 1,000 or more.
    #[serde(default)]
    pub copy_deadline_ms: Option<u64>,
    /// How long a former member may take to let go, in milliseconds, 1,000 or more.
    #[serde(default)]
    pub cleanup_deadline_ms: Option<u64>,
}

impl From<ConfigChangeDocument> for ConfigChange {
    fn from(document: ConfigChangeDocument) -> Self {
        Self {
            replication_factor: document.replication_factor,
            repair_delay_ms: document.repair_delay_ms,
            moves_in_flight: document.moves_in_flight,
            moves_per_node: document.moves_per_node,
            min_in_sync: document.min_in_sync,
            max_down_permille: document.max_down_permille,
            copy_deadline_ms: document.copy_deadline_ms,
            cleanup_deadline_ms: document.cleanup_deadline_ms,
        }
    }
}

/// `GET /v1/config`: what all nodes share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConfigDocument {
    /// The cluster's name.
    pub cluster_name: String,
    /// The number of partitions; fixed.
    pub partition_count: u32,
    /// How many copies a partition should have.
    pub replication_factor: u32,
    /// How long a node may stay down before its data is copied elsewhere, in milliseconds.
    pub repair_delay_ms: u64,
    /// How many partitions may move at once.
    pub moves_in_flight: u32,
    /// How many copies one node may receive at once, and as many it may serve.
    pub moves_per_node: u32,
    /// How many in-sync copies a partition should never fall below.
    pub min_in_sync: u32,
    /// How many permille of the nodes may be down before nothing is copied any more.
    pub max_down_permille: u32,
    /// Whether a primary stops being one when its lease runs out; fixed.
    pub strict_lease: bool,
    /// How long a copy may take before the move is called off, in milliseconds.
    pub copy_deadline_ms: u64,
    /// How long a former member may take to let go, in milliseconds.
    pub cleanup_deadline_ms: u64,
}

impl From<&ClusterConfig> for ConfigDocument {
    fn from(config: &ClusterConfig) -> Self {
        Self {
            cluster_name: config.name.clone(),
            partition_count: config.partition_count,
            replication_factor: config.replication_factor,
            repair_delay_ms: config.repair_delay_ms,
            moves_in_flight: config.moves_in_flight,
            moves_per_node: config.moves_per_node,
            min_in_sync: config.min_in_sync,
            max_down_permille: config.max_down_permille,
            strict_lease: config.strict_lease,
            copy_deadline_ms: config.copy_deadline_ms,
            cleanup_deadline_ms: config.cleanup_deadline_ms,
        }
    }
}

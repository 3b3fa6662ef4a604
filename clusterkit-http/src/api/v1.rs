//! The documents of `/v1` but the topology: nodes, custom data, operations, and the events of
//! `events.rs`.

use clusterkit_core::command::Applied;
use clusterkit_core::id::{Epoch, LogIndex, PartitionId, PlanId};
use serde::{Deserialize, Serialize};

pub use super::events::{EventBody, EventDocument, EventsDocument, VerdictDocument};
use super::topology::MemberDocument;

/// `GET /v1/nodes/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeDetailDocument {
    /// The node.
    pub node: MemberDocument,
    /// Whether it is the Raft leader, as this node knows it.
    pub is_leader: bool,
    /// How many partitions it is primary of.
    pub primaries: usize,
    /// How many partitions it is another member of.
    pub replicas: usize,
    /// How many of those it is behind on.
    pub behind: usize,
    /// How many partitions it is copying to become a member.
    pub joining: usize,
    /// The epoch the answer was made from.
    pub epoch: Epoch,
}

/// The answer to a change that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangedDocument {
    /// Always true.
    pub success: bool,
    /// The log index of the change: the version of a value that was written.
    pub index: LogIndex,
    /// The epoch after it.
    pub epoch: Epoch,
}

impl From<&Applied> for ChangedDocument {
    fn from(applied: &Applied) -> Self {
        Self {
            success: true,
            index: applied.index,
            epoch: applied.epoch,
        }
    }
}

/// The answer to `POST /v1/rebalance`: what is, or with `dry_run` would be, moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RebalanceDocument {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// The plan, none on a dry run or when there is nothing to do.
    pub plan: Option<PlanId>,
    /// The partitions whose members or primary change.
    pub moves: Vec<MoveDocument>,
    /// How many copies have to be made.
    pub copies: usize,
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

/// `GET /v1/data?prefix=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DataListDocument {
    /// The keys in order.
    pub entries: Vec<DataKeyDocument>,
    /// Whether more follow: ask again with `after` set to the last key.
    pub has_more: bool,
}

/// One key of a [`DataListDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DataKeyDocument {
    /// The key.
    pub key: String,
    /// The version: what `If-Match` compares.
    pub version: LogIndex,
    /// The size of the value.
    pub value_bytes: usize,
}

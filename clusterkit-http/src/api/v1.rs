//! The documents of `/v1` but the topology: nodes, custom data, operations, the events of
//! `events.rs`, and what is about placement, of `placement.rs`.

use clusterkit_core::command::Applied;
use clusterkit_core::id::{Epoch, LogIndex};
use serde::{Deserialize, Serialize};

pub use super::events::{EventBody, EventDocument, EventsDocument, VerdictDocument};
pub use super::operations::{
    BlockerDocument, IntentDocument, MayStopDocument, OperationDocument, OperationsDocument,
    PauseDocument, PauseRequest, PausesDocument, StopRiskDocument, VetoDocument,
};
pub use super::placement::{
    ConfigChangeDocument, ConfigDocument, ExplainDocument, ExplanationDocument, LimitDocument,
    MoveDocument, NodeChangeDocument, PlacedDocument, PlanDocument, PlansDocument, ReasonDocument,
    RebalanceDocument,
};
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
    /// What it says against itself; absent when it is healthy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub veto: Option<VetoDocument>,
    /// What an operator is about to do with it; absent when that is nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub intent: Option<IntentDocument>,
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

//! Why data is where it is: answers from the record a plan was made from.
//!
//! [`PlanRecord`] keeps what went into a placement and what came out; it can be stored and
//! replayed. [`PlanRecord::explain`] answers with typed [`Reason`]s, whose text names the values;
//! [`PlanRecord::preview`] says what carrying the plan out changes, and under which
//! [`PreviewId`] it can be asked for.
//!
//! Nothing here decides: the placement is made by `placement`, checked by `placement::verify`, and
//! carried out by the cluster state. [`PlanHistory`] keeps the records of the last plans, on every
//! node.

mod cause;
mod history;
mod pair;
mod preview;
mod reason;
mod record;
mod study;
#[cfg(test)]
mod tests;

pub use cause::{Cause, Condition};
pub use history::{PLANS_KEPT, PlanHistory};
pub use preview::{LIMITS_NAMED_MAX, Limit, NodeLoad, Preview, PreviewId, PrimaryChange, Transfer};
pub use reason::Reason;
pub use record::{Explanation, PlanRecord, RecordedNode};

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Role;
use crate::id::{NodeId, PartitionId};

/// What a plan did with a node's copy of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "a copy was there or not, and is there or not"
)]
pub enum Outcome {
    /// It was there and stays.
    Kept,
    /// It was not there and is made.
    Added,
    /// It was there and is given up.
    Dropped,
    /// It was not there and is not made.
    Absent,
}

/// Why one node has, gets, loses or lacks one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Placed {
    /// The partition.
    pub partition: PartitionId,
    /// The node.
    pub node: NodeId,
    /// What the plan did with the copy.
    pub outcome: Outcome,
    /// What the node was to the partition before the plan.
    pub role_before: Role,
    /// What the plan makes it.
    pub role_after: Role,
    /// Why, the strongest reason first. Never empty.
    pub reasons: alloc::vec::Vec<Reason>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// There is no such partition.
    #[error("partition is `{partition}`, must be 0 to {last}")]
    UnknownPartition {
        /// What was asked for.
        partition: PartitionId,
        /// The last one there is.
        last: u32,
    },
    /// The node was no member when the plan was made.
    #[error("no member was called `{node}` when the plan was made")]
    UnknownNode {
        /// What was asked for.
        node: NodeId,
    },
    /// The record itself is beyond a limit of placement.
    #[error("the record cannot be explained: {0}")]
    Input(crate::placement::PlacementError),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Added => "added",
            Self::Dropped => "dropped",
            Self::Absent => "absent",
        })
    }
}

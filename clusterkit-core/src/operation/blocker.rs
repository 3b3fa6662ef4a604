//! [`Blocker`]: one thing that an operation waits for, with the values that say which.

use core::fmt;
use core::time::Duration;

use alloc::string::String;
use serde::{Deserialize, Serialize};

use crate::copying::CopyProgress;
use crate::id::{NodeId, PartitionId, StageId};
use crate::pause::Work;
use crate::time::UnixMillis;

/// What an operation waits for. In JSON `blocker` names it and the values stand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "blocker", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as the text names them")]
pub enum Blocker {
    /// A node has not said yet that it holds a copy; with how far it is, if it says so.
    CopyUnanswered {
        node: NodeId,
        partition: PartitionId,
        stage: StageId,
        waited_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        copied: Option<CopyProgress>,
    },
    /// A former member has not said yet that it let go.
    ReleaseUnanswered {
        node: NodeId,
        partition: PartitionId,
        stage: StageId,
        waited_ms: u64,
    },
    /// A node is given time to come back before its copies are made elsewhere.
    RepairDelay {
        node: NodeId,
        until: UnixMillis,
        left_ms: u64,
    },
    /// An operator has paused the work.
    Paused { work: Work, reason: String },
    /// So many nodes are down that nothing is copied.
    Protected,
    /// So many moves are under way already.
    MoveLimits {
        waiting: u32,
        in_flight: u32,
        in_flight_limit: u32,
        per_node_limit: u32,
    },
    /// No live member holds the partition, so that there is nothing to copy from.
    NoLiveSource { partition: PartitionId },
    /// A node that is down is to copy.
    NodeDown { node: NodeId },
    /// A node has not caught up with the log, or has not reported in.
    NotCaughtUp { node: NodeId },
    /// The copies are complete, but the switch would leave fewer live copies than there are.
    WouldLoseCopies { partition: PartitionId },
    /// The move was called off and begins again later.
    Retry {
        partition: PartitionId,
        times: u32,
        until: UnixMillis,
        left_ms: u64,
    },
    /// A new plan is to be made first.
    AwaitsPlan,
    /// Former members have to let go before the partition moves again.
    AwaitsCleanup { partition: PartitionId },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole seconds, where it is about them.
        let waited = |ms: &u64| match *ms {
            ms if ms >= 1_000 => Duration::from_secs(ms / 1_000),
            ms => Duration::from_millis(ms),
        };
        match self {
            Self::CopyUnanswered {
                node,
                partition,
                stage,
                waited_ms,
                copied,
            } => {
                let waited = waited(waited_ms);
                write!(f, "{node} copies partition {partition} (stage {stage}")?;
                if let Some(copied) = copied {
                    write!(f, ", {copied}")?;
                }
                write!(f, ") and has not acknowledged for {waited:?}.")
            }
            Self::ReleaseUnanswered {
                node,
                partition,
                stage,
                waited_ms,
            } => write!(
                f,
                "{node} is to let partition {partition} go (stage {stage}) and has not \
                 acknowledged for {:?}.",
                waited(waited_ms)
            ),
            Self::RepairDelay { node, left_ms, .. } => write!(
                f,
                "{node} is down and has another {:?} to come back before its copies are made \
                 elsewhere.",
                waited(left_ms)
            ),
            Self::Paused { work, reason } => {
                write!(f, "An operator has paused {work}")?;
                match reason.as_str() {
                    "" => f.write_str("."),
                    reason => write!(f, ": {reason}."),
                }
            }
            Self::Protected => {
                f.write_str("So many nodes are down that nothing is copied (protected mode).")
            }
            Self::MoveLimits {
                waiting,
                in_flight,
                in_flight_limit,
                per_node_limit,
            } => write!(
                f,
                "{waiting} partitions wait for their turn: {in_flight} move now, at most \
                 {in_flight_limit}, and at most {per_node_limit} copies per node."
            ),
            Self::NoLiveSource { partition } => write!(
                f,
                "No live member holds partition {partition}: it waits for one to come back."
            ),
            Self::NodeDown { node } => write!(f, "{node} is to copy and is down."),
            Self::NotCaughtUp { node } => write!(
                f,
                "{node} has not reported that it has caught up with the log."
            ),
            Self::WouldLoseCopies { partition } => write!(
                f,
                "The copies of partition {partition} are complete, but a switch now would leave \
                 fewer live copies than there are."
            ),
            Self::Retry {
                partition,
                times,
                left_ms,
                ..
            } => write!(
                f,
                "The move of partition {partition} was called off {times} times in a row and is \
                 tried again in {:?}.",
                waited(left_ms)
            ),
            Self::AwaitsPlan => f.write_str("A new plan is to be made first."),
            Self::AwaitsCleanup { partition } => write!(
                f,
                "Former members of partition {partition} have to let go first."
            ),
        }
    }
}

//! Why a node takes no data, as far as its own record says.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::node::{Drain, Node, NodeStatus};

/// Where a node stood when the plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Condition {
    /// Its status.
    pub status: NodeStatus,
    /// Whether its data is to move away, and what then.
    pub drain: Drain,
    /// Whether it stayed down beyond the repair delay.
    pub evicted: bool,
}

impl Condition {
    /// A node that is no member any more.
    pub(super) const GONE: Self = Self {
        status: NodeStatus::Left,
        drain: Drain::No,
        evicted: false,
    };

    /// Tells whether the node is down.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        matches!(self.status, NodeStatus::Down)
    }

    /// Returns where `node` stands.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self {
            status: node.status,
            drain: node.drain,
            evicted: node.evicted,
        }
    }

    /// Returns what keeps a node of `weight` from taking data, none when nothing does.
    #[must_use]
    pub const fn cause(&self, weight: u32) -> Option<Cause> {
        match (self.drain, self.status) {
            (Drain::Leave, _) => Some(Cause::Leaving),
            (Drain::Empty, _) => Some(Cause::Draining),
            (Drain::No, NodeStatus::Joining) => Some(Cause::Joining),
            (Drain::No, NodeStatus::Draining) => Some(Cause::Draining),
            (Drain::No, NodeStatus::Left) => Some(Cause::Gone),
            (Drain::No, NodeStatus::Down) if self.evicted => Some(Cause::Evicted),
            (Drain::No, NodeStatus::Active | NodeStatus::Down) if weight == 0 => {
                Some(Cause::WeightZero)
            }
            (Drain::No, NodeStatus::Active | NodeStatus::Down) => None,
        }
    }
}

/// What keeps a node from taking data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// It is being drained and stays a member.
    Draining,
    /// It is being drained and then leaves.
    Leaving,
    /// Its weight is 0.
    WeightZero,
    /// It has not caught up with the log yet.
    Joining,
    /// It stayed down beyond the repair delay: its copies are made elsewhere.
    Evicted,
    /// It is no member any more.
    Gone,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "it is being drained",
            Self::Leaving => "it is being drained and will then leave the cluster",
            Self::WeightZero => "its weight is 0",
            Self::Joining => "it is joining and has not caught up with the log yet",
            Self::Evicted => {
                "it has been down for longer than the repair delay, so its copies are made elsewhere"
            }
            Self::Gone => "it is no member any more",
        })
    }
}

//! [`Adjustment`]: what an operator changes about a running cluster, and what it would lead to;
//! [`may_stop()`]: what stopping nodes would.
//!
//! Names nodes as people do; becomes a [`Command`] against a state. Whether the command is allowed
//! is decided where it is applied.

mod may_stop;

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Rejected};
use crate::config::ConfigChange;
use crate::id::{LogIndex, NodeId};
use crate::intent::Intent;
use crate::pause::Work;
use crate::state::ClusterState;
use crate::time::UnixMillis;

pub(crate) use may_stop::Named;
pub use may_stop::{MayStop, StopRisk, UnknownMember, may_stop};

/// A change of a running cluster that leads to another placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Adjustment {
    /// Changes what the operator decides about a node. What is none stays as it is.
    Node {
        /// The node.
        node: NodeId,
        /// Its share of the data relative to other nodes; 0 empties it.
        weight: Option<u32>,
        /// Its failure domain, at most 256 bytes; empty for none.
        zone: Option<Arc<str>>,
    },
    /// Changes what all nodes share. What is none stays as it is.
    Config(ConfigChange),
    /// Moves the data of a node away.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// Lets a node lead nothing, for a while or for good; no data moves.
    Intent {
        /// The node.
        node: NodeId,
        /// What is about to be done with it; none takes back what stands.
        intent: Option<Intent>,
        /// Does so even where nobody else could lead what it leads: that it goes on leading.
        force: bool,
    },
    /// Pauses a kind of work: what is under way goes on, nothing new begins.
    Pause {
        /// What.
        work: Work,
        /// Why, at most 256 bytes; empty for no reason.
        reason: Arc<str>,
    },
    /// Lets paused work go on.
    Resume {
        /// What.
        work: Work,
    },
}

impl Adjustment {
    /// Returns the node it is about.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node { node, .. } | Self::Drain { node } | Self::Intent { node, .. } => {
                Some(node)
            }
            Self::Config(_) | Self::Pause { .. } | Self::Resume { .. } => None,
        }
    }

    /// Returns the command that carries it out, none when `state` has no such node.
    #[must_use]
    pub fn command(&self, state: &ClusterState, at: UnixMillis) -> Option<Command> {
        let member = |node: &NodeId| Some(state.node_by_id(node.as_str())?.raft_id);
        Some(match self {
            Self::Node { node, weight, zone } => Command::UpdateNode {
                node: member(node)?,
                weight: *weight,
                zone: zone.clone(),
                at,
            },
            &Self::Config(change) => Command::UpdateConfig { change, at },
            Self::Drain { node } => Command::Drain {
                node: member(node)?,
                on: true,
                leave: false,
                at,
            },
            Self::Intent {
                node,
                intent,
                force,
            } => Command::SetIntent {
                node: member(node)?,
                intent: *intent,
                force: *force,
                heirs: Vec::new(),
                at,
            },
            Self::Pause { work, reason } => Command::Pause {
                work: *work,
                on: true,
                reason: Arc::clone(reason),
                at,
            },
            Self::Resume { work } => Command::Pause {
                work: *work,
                on: false,
                reason: Arc::from(""),
                at,
            },
        })
    }
}

/// Returns what `state` would be after `command`, leaving it as it is.
///
/// # Errors
/// [`Rejected`] as [`ClusterState::apply`] answers it.
pub fn what_if(state: &ClusterState, command: &Command) -> Result<ClusterState, Rejected> {
    let mut then = state.clone();
    then.apply(LogIndex(state.applied().0 + 1), command)?;
    Ok(then)
}

//! [`Operation`]: everything that goes on in a cluster and takes a while, with what it waits for.
//!
//! Found in the replicated state, so that every node can say it; what only the leader knows
//! (protected mode) is added where it is known. What to do about an operation that takes too long
//! is decided in [`crate::coordinator`]; an operator may [cancel](Operation::cancel) some of them.

mod blocker;
mod find;

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

pub use blocker::Blocker;
pub use find::operations;

use crate::command::Command;
use crate::id::{NodeId, PartitionId, PlanId, RaftId, StageId};
use crate::time::UnixMillis;

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationKind {
    /// A node was admitted and is not active yet.
    Join,
    /// A node is down, and copies of what it held wait for the repair delay.
    Repair,
    /// A node is being emptied and stays a member.
    Drain,
    /// A node is being emptied and then leaves.
    Leave,
    /// A node is to lead nothing, and leads something still.
    Handover,
    /// A node is about to stop and start again.
    Restart,
    /// A plan in the log is on its way.
    Plan,
    /// A partition is being copied to new members.
    Migration,
    /// A member that was away copies what it missed.
    CatchUp,
    /// Former members of a partition let go of it.
    Cleanup,
}

impl OperationKind {
    /// Returns its name: `join`, `repair`, `drain`, `leave`, `handover`, `restart`, `plan`,
    /// `migration`, `catch_up` or `cleanup`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Repair => "repair",
            Self::Drain => "drain",
            Self::Leave => "leave",
            Self::Handover => "handover",
            Self::Restart => "restart",
            Self::Plan => "plan",
            Self::Migration => "migration",
            Self::CatchUp => "catch_up",
            Self::Cleanup => "cleanup",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationState {
    /// It goes on: whoever is to do something has been asked and is within its time.
    Running,
    /// It waits for its turn, or for something else to happen first.
    Waiting,
    /// An operator has paused the work it is.
    Paused,
    /// Its deadline is over; its blockers say why.
    Overdue,
}

/// How far an operation is, in copies or partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::exhaustive_structs,
    reason = "done of total is all there is to progress"
)]
pub struct Progress {
    /// How many are done.
    pub done: u32,
    /// How many there are.
    pub total: u32,
}

/// Something that goes on and takes a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Operation {
    /// Its name, the same on every node and as long as it goes on: `drain-node-2`,
    /// `migration-12-4711`.
    pub id: String,
    /// What it is.
    pub kind: OperationKind,
    /// The node it is about; for a plan the one that caused it, where there is one.
    pub node: Option<NodeId>,
    /// The partition it is about.
    pub partition: Option<PartitionId>,
    /// Where it stands.
    pub state: OperationState,
    /// Since when it goes on.
    pub since: UnixMillis,
    /// When it should be over, by the wall clock; a leader elected meanwhile gives it more time.
    pub deadline: UnixMillis,
    /// How far it is.
    pub progress: Progress,
    /// What it waits for; empty when it only takes its time.
    pub blockers: alloc::vec::Vec<Blocker>,
    /// Whether it can be cancelled.
    pub cancellable: bool,
    /// How it is cancelled.
    #[serde(skip)]
    handle: Option<Handle>,
}

/// What there is to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handle {
    Drain(RaftId),
    Intent(RaftId),
    Plan(PlanId),
    Migration(PartitionId, StageId),
    Cleanup(PartitionId, StageId),
}

impl Operation {
    /// Returns the command that cancels it, none when that cannot be done.
    ///
    /// A drain or leave is taken back: the node takes data again; so is a handover or restart: it may
    /// lead again. Of a plan the moves that have not
    /// begun and only serve the balance are dropped; they are planned again when something else
    /// changes. A migration is called off and begins again later, unless what wants it is
    /// cancelled, too. A cleanup is not waited for any more.
    #[must_use]
    pub fn cancel(&self, at: UnixMillis) -> Option<Command> {
        Some(match self.handle? {
            Handle::Drain(node) => Command::Drain {
                node,
                on: false,
                leave: false,
                at,
            },
            Handle::Intent(node) => Command::SetIntent {
                node,
                intent: None,
                force: false,
                heirs: alloc::vec::Vec::new(),
                at,
            },
            Handle::Plan(plan) => Command::CancelPlan { plan, at },
            Handle::Migration(id, stage) => Command::Revert {
                stages: alloc::vec![(id, stage)],
                at,
            },
            Handle::Cleanup(id, stage) => Command::Abandon {
                stages: alloc::vec![(id, stage)],
                at,
            },
        })
    }
}

fn id_of(kind: OperationKind, subject: &dyn ToString) -> String {
    format!("{kind}-{}", subject.to_string())
}

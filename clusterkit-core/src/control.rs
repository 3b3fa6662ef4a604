//! What a control plane is: an ordered, durable log of commands, plus leadership.
//!
//! [`ControlPlane`] is implemented by `clusterkit-raft`; nothing above the core may assume more
//! than what stands here. Time-outs and retries of a proposal belong to the implementation.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::command::{Applied, Command, Rejected};
use crate::explain::PlanHistory;
use crate::id::{LogIndex, RaftId};
use crate::state::ClusterState;
use crate::time::UnixMillis;
use crate::topology::Topology;

/// What one node knows at one moment: applied state, the topology built from it, and leadership.
#[derive(Clone, Debug)]
pub struct View {
    /// Raised with every view: the cursor of [`ControlPlane::changed`].
    pub version: u64,
    /// The replicated state as applied here.
    pub state: Arc<ClusterState>,
    /// The topology of that state, seen by this node.
    pub topology: Arc<Topology>,
    /// The last plans of the log, as applied here.
    pub plans: PlanHistory,
    /// Who leads, as far as known here.
    pub leadership: Leadership,
    /// The last applied log index.
    pub applied: LogIndex,
    /// The last log index known to be committed.
    pub committed: LogIndex,
}

/// Who leads the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, none while unknown.
    pub leader: Option<RaftId>,
    /// Whether that is this node.
    pub is_leader: bool,
    /// The term of that leadership.
    pub term: u64,
    /// When this node learned of it.
    pub since: UnixMillis,
}

/// A majority confirmed that this node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a fact about one moment")]
pub struct Confirmation {
    /// In which term.
    pub term: u64,
    /// How long ago the confirmed round began: this node led then, whoever leads now.
    pub begun_ago: Duration,
}

/// Figures about the log, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlStats {
    /// `Leader`, `Follower`, `Candidate`, `Learner` or `Shutdown`.
    pub state: String,
    /// The term.
    pub term: u64,
    /// The last log index on this node.
    pub last_log_index: u64,
    /// The term of that entry.
    pub last_log_term: u64,
    /// The last index known to be committed.
    pub commit_index: u64,
    /// The last index applied.
    pub applied_index: u64,
    /// How many other members there are.
    pub peers: u64,
    /// The members that vote.
    pub voters: Vec<RaftId>,
    /// The members that only follow.
    pub learners: Vec<RaftId>,
}

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Applied in order and refused by the state machine: nothing changed.
    #[error(transparent)]
    Rejected(Rejected),
    /// There is no leader, or it could not be reached, and the command was not handed to one:
    /// nothing changed. Retrying later can help.
    #[error("no leader is known or reachable: {reason}")]
    NoLeader {
        /// What was tried.
        reason: String,
    },
    /// The command was handed over and no answer came: it may or may not be applied, now or
    /// later. Read before repeating it.
    #[error("the outcome is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// This node is not a member any more, or is shutting down. Nothing changed.
    #[error("the control plane of this node has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// The command is too large for the log. Retrying cannot help.
    #[error("the command has {size_bytes} bytes, at most {limit_bytes} are allowed")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
}

impl ProposeError {
    /// Tells whether proposing the same command again can help and cannot apply it twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NoLeader { .. })
    }
}

/// An ordered, durable log of commands, plus leadership.
#[async_trait]
pub trait ControlPlane: Send + Sync + core::fmt::Debug + 'static {
    /// Writes `command` into the log and returns what applying it did. Works on every node.
    ///
    /// # Errors
    /// [`ProposeError`], whose variants say whether anything may have changed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError>;

    /// Returns what this node knows now.
    fn view(&self) -> Arc<View>;

    /// Waits until this node knows more than the view numbered `after`, and returns it. Views in
    /// between may be skipped. After shutdown it never returns.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn changed(&self, after: u64) -> Arc<View>;

    /// Waits until everything committed before the call is applied here.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] or [`ProposeError::Stopped`] when that cannot be established.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn read_barrier(&self) -> Result<(), ProposeError>;

    /// Returns the latest confirmation of this node's leadership, none when it does not lead or
    /// this control plane cannot tell. Without one no lease is granted.
    fn confirmed(&self) -> Option<Confirmation> {
        None
    }

    /// Returns figures about the log.
    fn stats(&self) -> ControlStats;

    /// Hands leadership to another member if this node leads and there is one.
    ///
    /// # Errors
    /// [`ProposeError`] when it leads and no other member took over in time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn transfer_leadership(&self) -> Result<(), ProposeError>;

    /// Does as [`Self::transfer_leadership`], to one of `preferred` rather than to another member
    /// that could lead just as well. A wish: who can take over comes first.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn transfer_leadership_to(&self, _preferred: &[RaftId]) -> Result<(), ProposeError> {
        self.transfer_leadership().await
    }

    /// Waits until the log can do without this member, which the state has let go: a vote that is
    /// gone before the others know of it counts against their majority. Ready at once where members
    /// do not vote. May take for ever where a majority is lost.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn relieved(&self) {}

    /// Stops taking part and releases files and tasks. Idempotent.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the stop going on in the background.
    async fn shutdown(&self);
}

//! The trait behind hooks: what an application may implement instead of passing closures.
//!
//! When and how often the methods are called is decided in `runner`; the payloads are in `payload`.

use async_trait::async_trait;

use super::HookResult;
use super::payload::{
    EventsMissed, HealthChange, NodeJoined, NodeLeft, NodeRejoined, PartitionChange,
    RebalanceCompleted, RebalanceStarted,
};

/// Names one method of [`Subscriber`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HookKind {
    /// [`Subscriber::on_partition_change`].
    PartitionChange,
    /// [`Subscriber::on_node_join`].
    NodeJoin,
    /// [`Subscriber::on_node_rejoin`].
    NodeRejoin,
    /// [`Subscriber::on_node_leave`].
    NodeLeave,
    /// [`Subscriber::on_rebalance_start`].
    RebalanceStart,
    /// [`Subscriber::on_rebalance_complete`].
    RebalanceComplete,
    /// [`Subscriber::on_health_change`].
    HealthChange,
    /// [`Subscriber::on_events_missed`].
    EventsMissed,
}

impl HookKind {
    /// Every hook.
    pub const ALL: [Self; 8] = [
        Self::PartitionChange,
        Self::NodeJoin,
        Self::NodeRejoin,
        Self::NodeLeave,
        Self::RebalanceStart,
        Self::RebalanceComplete,
        Self::HealthChange,
        Self::EventsMissed,
    ];

    /// Returns the name of the method.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PartitionChange => "on_partition_change",
            Self::NodeJoin => "on_node_join",
            Self::NodeRejoin => "on_node_rejoin",
            Self::NodeLeave => "on_node_leave",
            Self::RebalanceStart => "on_rebalance_start",
            Self::RebalanceComplete => "on_rebalance_complete",
            Self::HealthChange => "on_health_change",
            Self::EventsMissed => "on_events_missed",
        }
    }
}

/// Receives committed events. Every method does nothing unless implemented.
///
/// # Ordering
/// Calls about one partition never overlap and follow the order of the log; so do the calls about
/// nodes and the cluster, among themselves. [`Self::on_node_rejoin`] has ended before any later
/// call about a partition of that node begins; on the returning node itself, before any later call
/// about any partition.
///
/// # Errors
/// An error or a panic is logged and counted. Only [`Self::on_partition_change`] is called again.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Tells whether the method behind `hook` does anything; false saves calling it. A subscriber
    /// that does not handle [`HookKind::PartitionChange`] has nothing to copy: its node is synced
    /// at once. The answer must not change.
    fn handles(&self, hook: HookKind) -> bool {
        let _ = hook;
        true
    }

    /// A partition entered another stage or changed its primary.
    ///
    /// The answer counts when [`PartitionChange::local`] is set and the stage asks for something:
    /// `Ok` to [`ChangeStage::Syncing`] says that every write of the partition is on this node,
    /// `Ok` to [`ChangeStage::Cleanup`] and [`ChangeStage::Reverted`] that it was let go. A long
    /// copy is answered for later ([`PartitionChange::later`]). An error
    /// or a panic there is answered by another call, after 100 ms at first and 5 s at most plus
    /// jitter, for as long as the stage is open.
    ///
    /// # Cancel safety
    /// The future of a local `Syncing` is dropped when its stage ends without it: the move was
    /// called off, or this node was declared down. What it copied so far is its own to judge; a
    /// later stage begins with a new call. Other calls are dropped at shutdown only.
    ///
    /// [`ChangeStage::Syncing`]: clusterkit_core::event::ChangeStage::Syncing
    /// [`ChangeStage::Cleanup`]: clusterkit_core::event::ChangeStage::Cleanup
    /// [`ChangeStage::Reverted`]: clusterkit_core::event::ChangeStage::Reverted
    async fn on_partition_change(&self, change: PartitionChange) -> HookResult {
        let _ = change;
        Ok(())
    }

    /// A node has become active for the first time. Dropped after one minute, like every call
    /// below.
    async fn on_node_join(&self, joined: NodeJoined) -> HookResult {
        let _ = joined;
        Ok(())
    }

    /// A known node is back.
    async fn on_node_rejoin(&self, rejoined: NodeRejoined) -> HookResult {
        let _ = rejoined;
        Ok(())
    }

    /// A node is declared down or has left.
    async fn on_node_leave(&self, left: NodeLeft) -> HookResult {
        let _ = left;
        Ok(())
    }

    /// The moves of a plan begin.
    async fn on_rebalance_start(&self, started: RebalanceStarted) -> HookResult {
        let _ = started;
        Ok(())
    }

    /// The moves of a plan have ended.
    async fn on_rebalance_complete(&self, completed: RebalanceCompleted) -> HookResult {
        let _ = completed;
        Ok(())
    }

    /// The health of the cluster changed.
    async fn on_health_change(&self, change: HealthChange) -> HookResult {
        let _ = change;
        Ok(())
    }

    /// Events were dropped before they could be delivered here. Open stages of this node follow as
    /// calls of [`Self::on_partition_change`] all the same.
    async fn on_events_missed(&self, missed: EventsMissed) -> HookResult {
        let _ = missed;
        Ok(())
    }
}

//! Hooks: how the application hears of committed changes, and answers when data has to move.
//!
//! [`Hooks`] collects closures; [`Subscriber`] is the trait behind them, for those who rather
//! implement one. [`EventStream`] is the same news without answers. Which events there are and in
//! what order is decided by `clusterkit_core::state`; who proposes the answers to the cluster is
//! the driver.
//!
//! # For the driver (crate-private)
//! - `HookRunner::start(subscriber, me, cursor, settings, counters, copies)`:
//!   `subscriber: Arc<dyn Subscriber>` (a [`Hooks`] is one), `me: RaftId`, `cursor: EventSeq` is
//!   the last event not to be delivered: the persisted one, or `HookRunner::first_cursor`.
//!   Answers the runner and a `Receiver<Acks>`; what copies report is found in `copies`.
//! - `runner.feed(view: Arc<View>)`: with every new view; stores it and returns. A task of its own
//!   takes the events after its position as room allows, so nothing can block the caller.
//! - `Acks { synced, released }` of `(PartitionId, StageId)` for this node: propose `Synced` and
//!   `Released`. A batch whose proposal failed may be forgotten: whatever the newest view still
//!   shows as open is sent again every `HookSettings::ack_repeat`.
//! - `runner.cursor() -> EventSeq`: persist it now and then; `counters.figures() -> HookFigures`.
//! - `runner.shutdown().await -> EventSeq`: no new hook starts, running ones get
//!   `HookSettings::grace`, then everything is joined; returns the last cursor.
//! - `EventStream::new(control, me, after, stop)`.

mod copying;
mod delivery;
mod dispatch;
mod payload;
mod runner;
mod stream;
mod subscriber;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

pub(crate) use copying::Copies;
pub use copying::{CopyError, Copying};
pub use payload::{
    ClusterEvent, EventsMissed, HealthChange, NodeJoined, NodeLeft, NodeRejoined, PartitionChange,
    PartitionLost, RebalanceCompleted, RebalanceStarted,
};
pub use runner::HookFigures;
pub(crate) use runner::{Acks, HookCounters, HookRunner, HookSettings};
pub use stream::EventStream;
pub use subscriber::{HookKind, Subscriber};

/// What a hook answers.
pub type HookResult = Result<(), HookError>;

/// Why a hook did not do its work: any error, or a message.
///
/// It is written to the log together with what the hook was called for. A failed answer to
/// [`PartitionChange`] of this node is asked for again; see [`Subscriber::on_partition_change`].
pub struct HookError(Box<dyn Error + Send + Sync>);

impl HookError {
    /// Returns the error inside.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

// Not an `Error` itself: that is what lets `?` turn every error into one.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for HookError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

type Hook<P> = Option<Arc<dyn Fn(P) -> BoxFuture<'static, HookResult> + Send + Sync>>;

/// The application's callbacks, each optional.
///
/// Every hook fires on every node, after the event is committed. Hooks of one partition run one
/// after the other in the order of the log, and so do those about nodes and the cluster; different
/// partitions run at the same time, at most 50 hooks at once unless the options say otherwise.
/// Delivery is at least once: after a crash the last ones may be repeated.
///
/// ```
/// # async fn pull(_: clusterkit::PartitionChange) -> std::io::Result<()> { Ok(()) }
/// use clusterkit::{ChangeStage, Hooks, PartitionChange};
///
/// let hooks = Hooks::new()
///     .on_partition_change(|change: PartitionChange| async move {
///         if change.local && change.stage == ChangeStage::Syncing {
///             pull(change).await?; // Ok: this node now holds the partition
///         }
///         Ok(())
///     })
///     .on_node_leave(|left| async move {
///         eprintln!("{} is gone", left.node.id);
///         Ok(())
///     });
/// ```
#[derive(Clone, Default)]
pub struct Hooks {
    partition_change: Hook<PartitionChange>,
    node_join: Hook<NodeJoined>,
    node_rejoin: Hook<NodeRejoined>,
    node_leave: Hook<NodeLeft>,
    rebalance_start: Hook<RebalanceStarted>,
    rebalance_complete: Hook<RebalanceCompleted>,
    health_change: Hook<HealthChange>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $method:ident: $field:ident($payload:ty);)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $method<F, R>(mut self, hook: F) -> Self
            where
                F: Fn($payload) -> R + Send + Sync + 'static,
                R: Future<Output = HookResult> + Send + 'static,
            {
                self.$field = Some(Arc::new(move |payload| Box::pin(hook(payload))));
                self
            }
        )*
    };
}

impl Hooks {
    /// Returns no hooks: there is nothing to copy, so every move is synced and released at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Sets what to do when a partition enters another stage or changes its primary. The
        /// answer counts; see [`Subscriber::on_partition_change`].
        on_partition_change: partition_change(PartitionChange);
        /// Sets what to do when a node has become active for the first time.
        on_node_join: node_join(NodeJoined);
        /// Sets what to do when a known node is back.
        on_node_rejoin: node_rejoin(NodeRejoined);
        /// Sets what to do when a node is declared down or has left.
        on_node_leave: node_leave(NodeLeft);
        /// Sets what to do when the moves of a plan begin.
        on_rebalance_start: rebalance_start(RebalanceStarted);
        /// Sets what to do when the moves of a plan have ended.
        on_rebalance_complete: rebalance_complete(RebalanceCompleted);
        /// Sets what to do when the health of the cluster changes.
        on_health_change: health_change(HealthChange);
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = HookKind::ALL.iter().filter(|kind| self.handles(**kind));
        f.debug_set()
            .entries(set.map(|kind| kind.as_str()))
            .finish()
    }
}

async fn call<P: Send>(hook: &Hook<P>, payload: P) -> HookResult {
    match hook {
        Some(hook) => hook(payload).await,
        None => Ok(()),
    }
}

#[async_trait]
impl Subscriber for Hooks {
    fn handles(&self, hook: HookKind) -> bool {
        match hook {
            HookKind::PartitionChange => self.partition_change.is_some(),
            HookKind::NodeJoin => self.node_join.is_some(),
            HookKind::NodeRejoin => self.node_rejoin.is_some(),
            HookKind::NodeLeave => self.node_leave.is_some(),
            HookKind::RebalanceStart => self.rebalance_start.is_some(),
            HookKind::RebalanceComplete => self.rebalance_complete.is_some(),
            HookKind::HealthChange => self.health_change.is_some(),
            HookKind::EventsMissed => false,
        }
    }

    async fn on_partition_change(&self, change: PartitionChange) -> HookResult {
        call(&self.partition_change, change).await
    }

    async fn on_node_join(&self, joined: NodeJoined) -> HookResult {
        call(&self.node_join, joined).await
    }

    async fn on_node_rejoin(&self, rejoined: NodeRejoined) -> HookResult {
        call(&self.node_rejoin, rejoined).await
    }

    async fn on_node_leave(&self, left: NodeLeft) -> HookResult {
        call(&self.node_leave, left).await
    }

    async fn on_rebalance_start(&self, started: RebalanceStarted) -> HookResult {
        call(&self.rebalance_start, started).await
    }

    async fn on_rebalance_complete(&self, completed: RebalanceCompleted) -> HookResult {
        call(&self.rebalance_complete, completed).await
    }

    async fn on_health_change(&self, change: HealthChange) -> HookResult {
        call(&self.health_change, change).await
    }
}

//! One event on its way to its hook: waiting for a slot, the call, the calls after that.
//!
//! Which event may go when is decided in `dispatch`; here a hook is called until its answer stands.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use clusterkit_core::control::View;
use clusterkit_core::event::{ChangeStage, EventKind};
use clusterkit_core::id::{EventSeq, PartitionId, RaftId, StageId};
use clusterkit_core::state::ClusterState;
use futures_util::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::copying::{AwaitedCopy, Copies};
use super::payload::ClusterEvent;
use super::runner::{HookCounters, HookSettings, count};
use super::{HookKind, HookResult, PartitionChange, Subscriber};
use crate::tasks::panic_message;

/// What the task and every delivery share.
pub(super) struct Context {
    pub(super) subscriber: Arc<dyn Subscriber>,
    pub(super) me: RaftId,
    pub(super) settings: HookSettings,
    pub(super) views: watch::Receiver<Option<Arc<View>>>,
    /// One permit for each hook that may run. Closed at shutdown.
    pub(super) slots: Semaphore,
    /// Up to where nothing is left to deliver after a restart.
    pub(super) cursor: Arc<AtomicU64>,
    pub(super) counters: Arc<HookCounters>,
    /// What copies report.
    pub(super) copies: Arc<Copies>,
    pub(super) stop: CancellationToken,
}

/// What `Ok` of this node's hook says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Synced,
    Released,
}

impl Answer {
    pub(super) const fn to(stage: ChangeStage) -> Option<Self> {
        match stage {
            ChangeStage::Syncing => Some(Self::Synced),
            ChangeStage::Cleanup | ChangeStage::Reverted => Some(Self::Released),
            ChangeStage::Switched => None,
        }
    }

    /// Tells whether the cluster waits for this answer of `me`.
    pub(super) fn is_awaited(self, state: &ClusterState, me: RaftId, open: OpenStage) -> bool {
        let (id, stage) = open;
        state.partition(id).is_some_and(|partition| match self {
            Self::Synced => {
                let joining = partition.joining().iter();
                let done = joining.filter(|joining| joining.node == me && joining.stage == stage);
                partition.is_syncing(me, stage) && !done.into_iter().any(|joining| joining.synced)
            }
            Self::Released => partition.is_releasing(me, stage),
        })
    }

    /// Tells whether the hook should still be called. Letting go stays right after its stage was
    /// closed for other reasons, but not once the partition is to be here again.
    pub(super) fn is_wanted(self, state: &ClusterState, me: RaftId, open: OpenStage) -> bool {
        let (id, stage) = open;
        state.partition(id).is_some_and(|partition| match self {
            Self::Synced => partition.is_syncing(me, stage),
            Self::Released => partition.is_releasing(me, stage) || !partition.involves(me),
        })
    }
}

/// A stage that this node is asked about.
pub(super) type OpenStage = (PartitionId, StageId);

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The hook answered `Ok`.
    Done,
    /// It did not, and it is not called again.
    Failed,
    /// The stage ended first.
    Superseded,
    /// This node shuts down; a later start delivers it again.
    Interrupted,
}

/// One event and where its answer goes.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) seq: EventSeq,
    pub(super) event: ClusterEvent,
    /// What `Ok` says, where the cluster waits for it.
    pub(super) answer: Option<Answer>,
    /// Cancelled once the stage has ended.
    pub(super) superseded: CancellationToken,
}

impl Delivery {
    pub(super) fn open_stage(&self) -> Option<OpenStage> {
        match &self.event {
            ClusterEvent::PartitionChanged(change) if self.answer.is_some() => {
                Some((change.partition, change.stage_id))
            }
            _ => None,
        }
    }

    /// Calls the hook until its answer stands.
    pub(super) async fn run(self, context: Arc<Context>) -> Outcome {
        // A panic that escapes below comes from dropping what the application made.
        AssertUnwindSafe(self.call_until_done(&context))
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| {
                count(&context.counters.panicked);
                let panic = panic_message(panic.as_ref());
                tracing::error!(%panic, "a hook panicked while it was dropped");
                Outcome::Failed
            })
    }

    async fn call_until_done(mut self, context: &Context) -> Outcome {
        let mut pauses = pauses(&context.settings);
        loop {
            let slot = self.superseded.run_until_cancelled(context.slots.acquire());
            let slot = match slot.await {
                None => return Outcome::Superseded,
                Some(Err(_closed)) => return Outcome::Interrupted,
                Some(Ok(slot)) => slot,
            };
            if !self.bring_up_to_date(context) {
                return Outcome::Superseded;
            }
            let running = Running::begin(&context.counters.running);
            let copy = self.begin_copy(context);
            let mut called = self.call(context).await;
            // A copy that is answered later takes no slot from other hooks.
            drop((running, slot));
            if let (Called::Ok, Some(copy)) = (&called, copy)
                && copy.is_left_for_later()
            {
                called = self.later(copy, context).await;
            }
            match called {
                Called::Ok => {
                    count(&context.counters.succeeded);
                    return Outcome::Done;
                }
                Called::Superseded => return Outcome::Superseded,
                Called::Stopped => return Outcome::Interrupted,
                Called::Err(_) => count(&context.counters.failed),
                Called::Panicked(_) => count(&context.counters.panicked),
            }
            let pause = pauses.next().filter(|_| self.answer.is_some());
            tracing::warn!(hook = self.event.hook(), seq = %self.seq, about = %About(&self.event),
                problem = %called, again_in = ?pause, "a hook did not do its work");
            let Some(pause) = pause else {
                return Outcome::Failed;
            };
            tokio::select! {
                biased;
                () = context.stop.cancelled() => return Outcome::Interrupted,
                () = self.superseded.cancelled() => return Outcome::Superseded,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes what has changed since the event into the payload. False when the stage has ended.
    fn bring_up_to_date(&mut self, context: &Context) -> bool {
        let (Some(answer), Some(open)) = (self.answer, self.open_stage()) else {
            return true;
        };
        let view = context.views.borrow().clone();
        let (Some(view), ClusterEvent::PartitionChanged(change)) = (view, &mut self.event) else {
            return true;
        };
        if answer == Answer::Synced {
            change.refresh(&view.state);
        }
        answer.is_wanted(&view.state, context.me, open)
    }

    /// Makes it possible to answer the call that follows elsewhere, where it asks for a copy.
    fn begin_copy(&mut self, context: &Context) -> Option<AwaitedCopy> {
        let open = self.open_stage()?;
        let (Some(Answer::Synced), ClusterEvent::PartitionChanged(change)) =
            (self.answer, &mut self.event)
        else {
            return None;
        };
        let (views, copies) = (context.views.clone(), Arc::clone(&context.copies));
        let copy = AwaitedCopy::new(context.me, open, views, copies);
        change.copy = Some(Arc::clone(&copy.call));
        Some(copy)
    }

    /// Waits for the answer that the hook has left to others.
    async fn later(&self, mut copy: AwaitedCopy, context: &Context) -> Called {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => Called::Stopped,
            () = self.superseded.cancelled() => Called::Superseded,
            said = &mut copy.answer => match said {
                Ok(Ok(())) => Called::Ok,
                Ok(Err(reason)) => Called::Err(reason),
                Err(_) => Called::Err(String::from("the copy was dropped without an answer")),
            },
        }
    }

    async fn call(&self, context: &Context) -> Called {
        let subscriber = &*context.subscriber;
        let called = AssertUnwindSafe(invoke(subscriber, self.event.clone())).catch_unwind();
        let answered = async {
            let limit = context.settings.node_hook_limit;
            if matches!(self.event, ClusterEvent::PartitionChanged(_)) {
                return Ok(called.await);
            }
            let too_long = |_| format!("it took longer than {} ms", limit.as_millis());
            tokio::time::timeout(limit, called).await.map_err(too_long)
        };
        let answered = match self.answer {
            Some(Answer::Synced) => self.superseded.run_until_cancelled(answered).await,
            Some(Answer::Released) | None => Some(answered.await),
        };
        match answered {
            None => Called::Superseded,
            Some(Ok(Ok(Ok(())))) => Called::Ok,
            Some(Ok(Ok(Err(error)))) => Called::Err(error.to_string()),
            Some(Ok(Err(panic))) => Called::Panicked(panic_message(panic.as_ref())),
            Some(Err(too_long)) => Called::Err(too_long),
        }
    }
}

/// How one call ended.
enum Called {
    Ok,
    Err(String),
    Panicked(String),
    Superseded,
    Stopped,
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("none"),
            Self::Err(error) => f.write_str(error),
            Self::Panicked(panic) => write!(f, "panicked: {panic}"),
            Self::Superseded => f.write_str("its stage has ended"),
            Self::Stopped => f.write_str("this node stops"),
        }
    }
}

async fn invoke(subscriber: &dyn Subscriber, event: ClusterEvent) -> HookResult {
    match event {
        ClusterEvent::PartitionChanged(change) => subscriber.on_partition_change(change).await,
        ClusterEvent::NodeJoined(joined) => subscriber.on_node_join(joined).await,
        ClusterEvent::NodeRejoined(rejoined) => subscriber.on_node_rejoin(rejoined).await,
        ClusterEvent::NodeLeft(left) => subscriber.on_node_leave(left).await,
        ClusterEvent::RebalanceStarted(started) => subscriber.on_rebalance_start(started).await,
        ClusterEvent::RebalanceCompleted(completed) => {
            subscriber.on_rebalance_complete(completed).await
        }
        ClusterEvent::HealthChanged(change) => subscriber.on_health_change(change).await,
        ClusterEvent::Missed(missed) => subscriber.on_events_missed(missed).await,
        ClusterEvent::PartitionLost(_) => Ok(()),
    }
}

/// Returns the hook that `kind` is for.
pub(super) const fn hook_for(kind: &EventKind) -> Option<HookKind> {
    Some(match kind {
        EventKind::PartitionChanged(_) => HookKind::PartitionChange,
        EventKind::NodeJoined { .. } => HookKind::NodeJoin,
        EventKind::NodeRejoined { .. } => HookKind::NodeRejoin,
        EventKind::NodeLeft { .. } => HookKind::NodeLeave,
        EventKind::RebalanceStarted { .. } => HookKind::RebalanceStart,
        EventKind::RebalanceCompleted { .. } => HookKind::RebalanceComplete,
        EventKind::ClusterHealthChanged(_) => HookKind::HealthChange,
        _ => return None,
    })
}

impl ClusterEvent {
    /// Returns the name of the hook it goes to, for the log.
    const fn hook(&self) -> &'static str {
        match self {
            Self::PartitionChanged(_) => HookKind::PartitionChange.as_str(),
            Self::NodeJoined(_) => HookKind::NodeJoin.as_str(),
            Self::NodeRejoined(_) => HookKind::NodeRejoin.as_str(),
            Self::NodeLeft(_) => HookKind::NodeLeave.as_str(),
            Self::RebalanceStarted(_) => HookKind::RebalanceStart.as_str(),
            Self::RebalanceCompleted(_) => HookKind::RebalanceComplete.as_str(),
            Self::HealthChanged(_) => HookKind::HealthChange.as_str(),
            Self::Missed(_) => HookKind::EventsMissed.as_str(),
            Self::PartitionLost(_) => "none",
        }
    }
}

/// The ids in an event, for the log.
struct About<'a>(&'a ClusterEvent);

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ClusterEvent::PartitionChanged(PartitionChange {
                partition,
                stage,
                stage_id,
                target,
                ..
            }) => write!(
                f,
                "partition {partition}, {stage:?} {stage_id} of node `{}`",
                target.id
            ),
            ClusterEvent::NodeJoined(joined) => write!(f, "node `{}`", joined.node.id),
            ClusterEvent::NodeRejoined(rejoined) => write!(f, "node `{}`", rejoined.node.id),
            ClusterEvent::NodeLeft(left) => write!(f, "node `{}`", left.node.id),
            ClusterEvent::RebalanceStarted(started) => write!(f, "plan {}", started.plan),
            ClusterEvent::RebalanceCompleted(completed) => write!(f, "plan {}", completed.plan),
            ClusterEvent::HealthChanged(change) => write!(f, "cluster {:?}", change.status),
            ClusterEvent::PartitionLost(lost) => write!(f, "partition {}", lost.partition),
            ClusterEvent::Missed(missed) => write!(f, "events {} to {}", missed.from, missed.to),
        }
    }
}

fn pauses(settings: &HookSettings) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(settings.retry_min)
        .with_max_delay(settings.retry_max)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Counts a running hook for as long as it lives.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn begin(counter: &'a AtomicU64) -> Self {
        count(counter);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

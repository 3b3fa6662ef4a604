//! The handle of the task that runs hooks: what the driver holds.
//!
//! The task itself is in `dispatch`, one call of a hook in `delivery`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clusterkit_core::control::View;
use clusterkit_core::id::{EventSeq, PartitionId, RaftId, StageId};
use clusterkit_core::state::ClusterState;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Subscriber;
use super::copying::Copies;
use super::delivery::Context;
use super::dispatch::Dispatcher;
use crate::tasks::{Ended, Task};

/// How many batches of answers may wait for the driver. More would only be merged later.
const ACK_BATCHES: usize = 2;

/// The limits of running hooks.
#[derive(Clone, Debug)]
pub(crate) struct HookSettings {
    /// How many hooks run at once. Default 50.
    pub(crate) at_once: usize,
    /// How many events wait for their hooks; further ones stay in the replicated state. Default
    /// 1,024.
    pub(crate) queue: usize,
    /// How long running hooks may go on after a shutdown is asked for. Default 5 s.
    pub(crate) grace: Duration,
    /// The pause before the second call of a hook whose answer counts. Default 100 ms.
    pub(crate) retry_min: Duration,
    /// The longest pause between two calls, jitter aside. Default 5 s.
    pub(crate) retry_max: Duration,
    /// How long a hook about nodes or the cluster may take: the next one waits for it. Default 60 s.
    pub(crate) node_hook_limit: Duration,
    /// How often answers that the cluster has not taken yet are sent again. Default 1 s.
    pub(crate) ack_repeat: Duration,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            at_once: 50,
            queue: 1_024,
            grace: Duration::from_secs(5),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            node_hook_limit: Duration::from_secs(60),
            ack_repeat: Duration::from_secs(1),
        }
    }
}

/// Answers of this node, to be proposed. Saying them twice does no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acks {
    /// What is in sync here.
    pub(crate) synced: Vec<(PartitionId, StageId)>,
    /// What is let go here.
    pub(crate) released: Vec<(PartitionId, StageId)>,
}

/// Figures about the hooks of one node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookFigures {
    /// Events waiting for their hook, or in it.
    pub queued: u64,
    /// Hooks running now.
    pub running: u64,
    /// Calls that ended well.
    pub succeeded: u64,
    /// Calls that ended in an error or took too long.
    pub failed: u64,
    /// Calls that panicked.
    pub panicked: u64,
    /// Stages that ended before their hook did.
    pub superseded: u64,
    /// Events dropped before they could be delivered.
    pub missed: u64,
}

/// Where the figures are counted.
#[derive(Debug, Default)]
pub(crate) struct HookCounters {
    pub(super) queued: AtomicU64,
    pub(super) running: AtomicU64,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) panicked: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) missed: AtomicU64,
}

impl HookCounters {
    pub(crate) fn figures(&self) -> HookFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HookFigures {
            queued: read(&self.queued),
            running: read(&self.running),
            succeeded: read(&self.succeeded),
            failed: read(&self.failed),
            panicked: read(&self.panicked),
            superseded: read(&self.superseded),
            missed: read(&self.missed),
        }
    }
}

/// Adds one to `counter`.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs the hooks of this node. Dropping it aborts them.
#[derive(Debug)]
pub(crate) struct HookRunner {
    views: watch::Sender<Option<Arc<View>>>,
    cursor: Arc<AtomicU64>,
    stop: CancellationToken,
    task: Task<()>,
    grace: Duration,
}

impl HookRunner {
    /// Returns where a member begins that has never delivered anything: with its own admission.
    pub(crate) fn first_cursor(state: &ClusterState, me: RaftId) -> EventSeq {
        let (events, _) = state.events_after(EventSeq(0));
        // A member's internal id is the log index of its admission.
        let first = events.iter().find(|event| event.index.0 >= me.0);
        first.map_or_else(|| state.last_event(), |event| EventSeq(event.seq.0 - 1))
    }

    /// Starts delivering the events after `cursor` to `subscriber` on behalf of the member `me`.
    pub(crate) fn start(
        subscriber: Arc<dyn Subscriber>,
        me: RaftId,
        cursor: EventSeq,
        settings: HookSettings,
        counters: Arc<HookCounters>,
        copies: Arc<Copies>,
    ) -> (Self, mpsc::Receiver<Acks>) {
        let (views, fed) = watch::channel(None);
        let (acks, answers) = mpsc::channel(ACK_BATCHES);
        let position = Arc::new(AtomicU64::new(cursor.0));
        let stop = CancellationToken::new();
        let grace = settings.grace;
        let context = Arc::new(Context {
            subscriber,
            me,
            slots: Semaphore::new(settings.at_once.clamp(1, Semaphore::MAX_PERMITS)),
            settings,
            views: fed,
            cursor: Arc::clone(&position),
            counters,
            copies,
            stop: stop.clone(),
        });
        let dispatcher = Dispatcher::new(context, cursor, acks);
        let runner = Self {
            views,
            cursor: position,
            stop,
            task: Task::spawn(dispatcher.run()),
            grace,
        };
        (runner, answers)
    }

    /// Takes notice of `view`. Returns at once.
    pub(crate) fn feed(&self, view: Arc<View>) {
        self.views.send_replace(Some(view));
    }

    /// Returns the newest event up to which nothing is left to deliver after a restart.
    ///
    /// A local `Syncing` does not hold it back: a process that starts is asked to copy again,
    /// under a new stage.
    pub(crate) fn cursor(&self) -> EventSeq {
        EventSeq(self.cursor.load(Ordering::Acquire))
    }

    /// Starts no hook any more, gives running ones their grace, aborts what is left and joins it.
    /// Returns the last cursor.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the hooks that still run.
    pub(crate) async fn shutdown(self) -> EventSeq {
        self.stop.cancel();
        // The task keeps to the grace itself; a little more lets it join what it aborts.
        let limit = self.grace.saturating_add(Duration::from_secs(1));
        let Self { task, cursor, .. } = self;
        match task.join_within(limit).await {
            Ended::Done(()) => {}
            Ended::Panicked(panic) => tracing::error!(%panic, "the hook runner panicked"),
            Ended::Aborted => tracing::warn!("hooks would not stop and were aborted"),
        }
        EventSeq(cursor.load(Ordering::Acquire))
    }
}

//! A copy while it is made: [`Copying`] answers for it when the hook does not, and tells how far
//! it is.
//!
//! When the hook is called, and called again, is decided in `delivery`; what the reports are worth
//! is in `clusterkit_core::copying`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::config::ConfigError;
use clusterkit_core::control::View;
use clusterkit_core::copying::{CopyBook, CopyProgress, CopyReport};
use clusterkit_core::id::{PartitionId, RaftId, StageId};
use clusterkit_core::state::ClusterState;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::delivery::Answer;
use super::payload::PartitionChange;

/// Why nothing can be said about a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The change asks this node for no copy: it is about another node or another stage, or it was
    /// read from an event stream. Nothing happened.
    #[error("partition {partition}: stage {stage} asks this node for no copy")]
    NotAsked {
        /// The partition.
        partition: PartitionId,
        /// The stage of the change.
        stage: StageId,
    },
    /// The answer is not to be had: the hook has returned, or a [`Copying`] was taken before.
    /// Nothing happened.
    #[error("partition {partition}: the answer to stage {stage} is given or taken already")]
    Answered {
        /// The partition.
        partition: PartitionId,
        /// The stage of the change.
        stage: StageId,
    },
    /// Nobody waits for this copy any more: its move was called off, this node was declared down,
    /// or its hook was called again. It counts for nothing, and a new call asks for what is needed.
    #[error("partition {partition}: stage {stage} is over, {}", asked(*.now))]
    Ended {
        /// The partition.
        partition: PartitionId,
        /// The stage that is over.
        stage: StageId,
        /// The stage under which this node is to copy the partition now, if it is.
        now: Option<StageId>,
    },
    /// The node stops before it is known whether the cluster has taken the answer.
    #[error("partition {partition}: the node stops, whether stage {stage} is synced is not known")]
    Unknown {
        /// The partition.
        partition: PartitionId,
        /// The stage.
        stage: StageId,
    },
    /// The text of a report is too long. Nothing was reported.
    #[error(transparent)]
    Text(ConfigError),
}

fn asked(now: Option<StageId>) -> String {
    match now {
        Some(now) => format!("this node is to copy it under stage {now}"),
        None => String::from("and this node is not to copy it now"),
    }
}

/// A copy that is answered for later: see [`PartitionChange::later`].
///
/// Dropped without an answer it has failed, so that a task that panics or is aborted leaves no move
/// stuck: the hook is called again, after the same pauses as after an error.
#[derive(Debug)]
#[must_use = "a copy that is dropped has failed"]
pub struct Copying {
    call: Arc<CopyCall>,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Copying {
    /// Returns the partition that is copied.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.call.partition
    }

    /// Returns the identity of the stage that asked for it.
    #[must_use]
    pub fn stage(&self) -> StageId {
        self.call.stage
    }

    /// Reports how far the copy is: see [`PartitionChange::progress`].
    ///
    /// # Errors
    /// [`CopyError::Ended`], [`CopyError::Text`].
    pub fn progress(
        &self,
        done: u64,
        total: impl Into<Option<u64>>,
        text: &str,
    ) -> Result<(), CopyError> {
        self.call.report(done, total.into(), text)
    }

    /// Says that every write of the partition is on this node, and waits until the cluster has
    /// taken that.
    ///
    /// # Errors
    /// [`CopyError::Ended`] when the stage was over first, which names the one in its place;
    /// [`CopyError::Unknown`] when the node stops meanwhile.
    ///
    /// # Cancel safety
    /// The answer is given by the first poll; dropping the future afterwards leaves it standing.
    pub async fn synced(self) -> Result<(), CopyError> {
        let Self { call, answer } = self;
        call.give(answer, Ok(()))?;
        call.taken().await
    }

    /// Says that this attempt failed. The hook is called again, after a pause, for as long as the
    /// stage is open.
    ///
    /// # Errors
    /// [`CopyError::Ended`] when the stage was over first.
    pub fn failed(self, reason: impl fmt::Display) -> Result<(), CopyError> {
        self.call.give(self.answer, Err(reason.to_string()))
    }

    /// Returns once nobody waits for this copy any more: what works on it should stop.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn ended(&self) {
        self.call.over.cancelled().await;
    }
}

impl PartitionChange {
    /// Takes the answer to a local [`ChangeStage::Syncing`] out of the hook: its `Ok` then says
    /// nothing, and the copy is synced once [`Copying::synced`] is called. For copies that take
    /// long: the hook ends, so that it is none of the hooks that run at once. Further calls about
    /// the partition wait until the answer is there or the stage is over, as they do for a hook.
    ///
    /// ```
    /// # async fn pull(_: &clusterkit::Copying) -> std::io::Result<()> { Ok(()) }
    /// use clusterkit::{ChangeStage, Hooks, PartitionChange};
    ///
    /// let hooks = Hooks::new().on_partition_change(|change: PartitionChange| async move {
    ///     if change.local && change.stage == ChangeStage::Syncing {
    ///         let copying = change.later()?;
    ///         tokio::spawn(async move {
    ///             tokio::select! {
    ///                 // The move was called off.
    ///                 () = copying.ended() => return Ok(()),
    ///                 pulled = pull(&copying) => if let Err(error) = pulled {
    ///                     return copying.failed(error);
    ///                 }
    ///             }
    ///             copying.synced().await
    ///         });
    ///     }
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`CopyError::NotAsked`], [`CopyError::Answered`].
    ///
    /// [`ChangeStage::Syncing`]: clusterkit_core::event::ChangeStage::Syncing
    pub fn later(&self) -> Result<Copying, CopyError> {
        let call = self.asked_copy()?;
        let answer = call.answer().take();
        let answer = answer.ok_or(CopyError::Answered {
            partition: self.partition,
            stage: self.stage_id,
        })?;
        let call = Arc::clone(call);
        Ok(Copying { call, answer })
    }

    /// Reports how far the copy is that a local [`ChangeStage::Syncing`] asks for: `done` of
    /// `total`, in whatever the program counts and says with `text`, at most 128 bytes. Every node
    /// shows it with its operations, some heartbeats later.
    ///
    /// A copy that gets further is not overdue: the copy deadline counts from the last report of
    /// more than was ever done under this stage.
    ///
    /// # Errors
    /// [`CopyError::NotAsked`], [`CopyError::Ended`], [`CopyError::Text`].
    ///
    /// [`ChangeStage::Syncing`]: clusterkit_core::event::ChangeStage::Syncing
    pub fn progress(
        &self,
        done: u64,
        total: impl Into<Option<u64>>,
        text: &str,
    ) -> Result<(), CopyError> {
        self.asked_copy()?.report(done, total.into(), text)
    }

    fn asked_copy(&self) -> Result<&Arc<CopyCall>, CopyError> {
        self.copy.as_ref().ok_or(CopyError::NotAsked {
            partition: self.partition,
            stage: self.stage_id,
        })
    }
}

/// What the copies of this node have reported.
#[derive(Debug, Default)]
pub(crate) struct Copies(Mutex<CopyBook>);

impl Copies {
    fn book(&self) -> MutexGuard<'_, CopyBook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what `state` still waits for and was not among the first `seen` reports; see
    /// [`CopyBook::after`].
    pub(crate) fn after(&self, seen: u64, state: &ClusterState) -> (Vec<CopyReport>, u64) {
        let mut book = self.book();
        book.retain_awaited(state);
        book.after(seen)
    }
}

/// One call of the hook that asks for a copy: what its payload and its [`Copying`] hold.
pub(crate) struct CopyCall {
    me: RaftId,
    partition: PartitionId,
    stage: StageId,
    /// Cancelled once nobody waits for the answer any more.
    over: CancellationToken,
    /// None once the answer is given or taken.
    answer: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
    views: watch::Receiver<Option<Arc<View>>>,
    copies: Arc<Copies>,
}

/// The end of a [`CopyCall`] that waits for the answer. Dropping it ends the call.
pub(super) struct AwaitedCopy {
    pub(super) call: Arc<CopyCall>,
    pub(super) answer: oneshot::Receiver<Result<(), String>>,
    _over: DropGuard,
}

impl AwaitedCopy {
    pub(super) fn new(
        me: RaftId,
        (partition, stage): (PartitionId, StageId),
        views: watch::Receiver<Option<Arc<View>>>,
        copies: Arc<Copies>,
    ) -> Self {
        let (sender, answer) = oneshot::channel();
        let over = CancellationToken::new();
        let call = CopyCall {
            me,
            partition,
            stage,
            over: over.clone(),
            answer: Mutex::new(Some(sender)),
            views,
            copies,
        };
        Self {
            call: Arc::new(call),
            answer,
            _over: over.drop_guard(),
        }
    }

    /// Takes note that the hook has returned. Tells whether it left the answer to somebody else.
    pub(super) fn is_left_for_later(&self) -> bool {
        self.call.answer().take().is_none()
    }
}

impl CopyCall {
    fn answer(&self) -> MutexGuard<'_, Option<oneshot::Sender<Result<(), String>>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, done: u64, total: Option<u64>, text: &str) -> Result<(), CopyError> {
        let progress = CopyProgress::new(done, total, text).map_err(CopyError::Text)?;
        if self.over.is_cancelled() {
            return Err(self.ended());
        }
        let report = CopyReport::new(self.me, self.partition, self.stage, progress);
        self.copies.book().record(report);
        Ok(())
    }

    fn give(
        &self,
        answer: oneshot::Sender<Result<(), String>>,
        said: Result<(), String>,
    ) -> Result<(), CopyError> {
        match self.over.is_cancelled() || answer.send(said).is_err() {
            true => Err(self.ended()),
            false => Ok(()),
        }
    }

    /// Waits until the cluster has taken that this node is in sync.
    async fn taken(&self) -> Result<(), CopyError> {
        let mut views = self.views.clone();
        loop {
            let view = views.borrow_and_update().clone();
            match view.and_then(|view| self.is_taken(&view.state)) {
                Some(true) => return Ok(()),
                Some(false) => return Err(self.ended()),
                None => {}
            }
            if views.changed().await.is_err() {
                let (partition, stage) = (self.partition, self.stage);
                return Err(CopyError::Unknown { partition, stage });
            }
        }
    }

    /// Tells whether the stage ended with this node in sync; none while the answer is awaited.
    fn is_taken(&self, state: &ClusterState) -> Option<bool> {
        let open = (self.partition, self.stage);
        if Answer::Synced.is_awaited(state, self.me, open) {
            return None;
        }
        let partition = state.partition(self.partition)?;
        let in_sync = partition.in_sync().any(|member| member == self.me);
        Some(in_sync || partition.is_syncing(self.me, self.stage))
    }

    fn ended(&self) -> CopyError {
        let view = self.views.borrow().clone();
        let partition = view
            .as_ref()
            .and_then(|it| it.state.partition(self.partition));
        let now = partition.and_then(|partition| partition.stage_of(self.me));
        CopyError::Ended {
            partition: self.partition,
            stage: self.stage,
            now,
        }
    }
}

impl fmt::Debug for CopyCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyCall")
            .field("partition", &self.partition)
            .field("stage", &self.stage)
            .field("is_over", &self.over.is_cancelled())
            .finish_non_exhaustive()
    }
}

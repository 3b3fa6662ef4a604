//! What goes on in the cluster, and how an operator ends it or holds it back: operations, pause
//! switches.
//!
//! What goes on is found in `clusterkit_core::operation`; what a switch holds back is decided in
//! `clusterkit_core::state` and on the leader.

use std::sync::Arc;

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::command::Applied;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::id::LogIndex;
use clusterkit_core::operation::{Operation, operations};
use clusterkit_core::pause::{Pause, Work};

use crate::error::NodeError;
use crate::inner::Inner;
use crate::node::ClusterKit;

impl ClusterKit {
    /// Returns everything that goes on in the cluster and takes a while, as this node knows it: each
    /// with its progress, its deadline and what it waits for. Protected mode is known to the leader
    /// only, which names it as a blocker.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.inner().operations()
    }

    /// Cancels the operation that [`Self::operations`] calls `id`: see [`Operation::cancel`].
    ///
    /// # Errors
    /// [`NodeError::UnknownOperation`] when it is over, [`NodeError::NotCancellable`] when it
    /// cannot be cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn cancel(&self, id: &str) -> Result<(), NodeError> {
        let unknown = || NodeError::UnknownOperation { id: id.to_owned() };
        let operations = self.operations();
        let found = operations.iter().find(|operation| operation.id == id);
        let applied = self.inner().cancel(found.ok_or_else(unknown)?).await?;
        if !applied.refused.is_empty() {
            return Err(unknown());
        }
        self.see(applied.index).await;
        Ok(())
    }

    /// Pauses `work` in the whole cluster until [`Self::resume`], whoever leads and whatever
    /// restarts: moves under way go on, none begins. Failovers go on in any case, and so does the
    /// first placement. Pausing again what is paused changes the `reason`.
    ///
    /// Planning goes on around what is paused: with balance paused, say, lost copies are still
    /// made and drains go on. What is held back is planned anew when it is resumed.
    ///
    /// # Errors
    /// [`NodeError`] when `reason` is longer than 256 bytes; empty is allowed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use clusterkit::{ClusterKit, Options, Work};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let options = Options::new("node-1", "127.0.0.1:0").data_dir(dir.path());
    /// # let node = ClusterKit::start(options).await?;
    /// # node.wait_ready(Duration::from_secs(10)).await?;
    /// node.pause(Work::Balance, "peak hours").await?;
    /// assert_eq!(node.paused()[0].to_string(), "balance is paused: peak hours");
    /// node.resume(Work::Balance).await?;
    /// # node.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pause(&self, work: Work, reason: &str) -> Result<(), NodeError> {
        let reason = Arc::from(reason);
        self.switch(&Adjustment::Pause { work, reason }).await
    }

    /// Lets `work` go on; nothing happens if it is not paused.
    ///
    /// # Errors
    /// [`NodeError::Propose`] when the log cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn resume(&self, work: Work) -> Result<(), NodeError> {
        self.switch(&Adjustment::Resume { work }).await
    }

    /// Returns what is paused, as far as this node knows.
    #[must_use]
    pub fn paused(&self) -> Vec<Pause> {
        self.inner().view().state.pauses().to_vec()
    }

    /// Carries `adjustment` out and waits until it is visible here.
    async fn switch(&self, adjustment: &Adjustment) -> Result<(), NodeError> {
        let applied = self.inner().adjust(adjustment).await?;
        self.see(applied.index).await;
        Ok(())
    }

    /// Waits until what was committed at `index` is visible here.
    async fn see(&self, index: LogIndex) {
        let control = self.inner().member_control();
        let mut view = self.inner().view();
        while view.applied < index {
            view = control.changed(view.version).await;
        }
    }
}

impl Inner {
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let protected = self.coordinator().protected();
        operations(&self.view().state, protected, self.clock.wall())
    }

    pub(crate) async fn cancel(&self, operation: &Operation) -> Result<Applied, NodeError> {
        let command = operation.cancel(self.clock.wall());
        let command = command.ok_or_else(|| NodeError::NotCancellable {
            id: operation.id.clone(),
        })?;
        Ok(self.member_control().propose(command).await?)
    }
}

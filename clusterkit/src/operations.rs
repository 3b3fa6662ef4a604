//! What goes on in the cluster, and how an operator ends it or holds it back: operations, pause
//! switches, and what a node says of itself.
//!
//! What goes on is found in `clusterkit_core::operation`; what a switch holds back is decided in
//! `clusterkit_core::state` and on the leader.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::command::Applied;
use clusterkit_core::config::ConfigError;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::health::{Health, HealthReport, Veto};
use clusterkit_core::id::{LogIndex, NodeId};
use clusterkit_core::intent::{Intended, Intent};
use clusterkit_core::operation::{Operation, operations};
use clusterkit_core::pause::{Pause, Work};

use crate::error::NodeError;
use crate::inner::Inner;
use crate::node::ClusterKit;

impl ClusterKit {
    /// Returns everything that goes on in the cluster and takes a while, as this node knows it: each
    /// with its progress, its deadline and what it waits for, copies with how far their programs say
    /// they are ([`Copying`](crate::Copying)). Protected mode is known to the leader
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

    /// Lets `node` lead nothing until [`Self::cancel_intent`]: others that are in sync lead what it led,
    /// at once. It keeps its copies, and no data moves. An intent that stands is replaced.
    ///
    /// # Errors
    /// [`NodeError::Propose`] naming the partitions that nobody else could lead now; with `force`
    /// `node` goes on leading those. [`NodeError::UnknownNode`] when there is no such node.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn handover(&self, node: &NodeId, force: bool) -> Result<(), NodeError> {
        self.intend(node, Some(Intent::Handover), force).await
    }

    /// Announces that the process of `node` will stop and start again within `ttl`, 1 second to 24
    /// hours: it leads nothing, as after [`Self::handover`], and no copies of what it holds are made
    /// elsewhere because it is down. Over when it has started again, when the time is, or with
    /// [`Self::cancel_intent`]; it then gets its share of primaries back as soon as it is in sync.
    ///
    /// # Errors
    /// As [`Self::handover`], and [`NodeError::Propose`] when `ttl` is out of bounds.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Examples
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn restart(node: clusterkit::ClusterKit) -> Result<(), clusterkit::NodeError> {
    /// let this = node.node_id().clone();
    /// if node.may_stop(&[this.clone()]).await?.is_yes() {
    ///     node.restart_intent(&this, Duration::from_secs(120), false).await?;
    ///     node.stop().await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn restart_intent(
        &self,
        node: &NodeId,
        ttl: Duration,
        force: bool,
    ) -> Result<(), NodeError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.intend(node, Some(Intent::Restart { ttl_ms }), force)
            .await
    }

    /// Takes back what is intended with `node`: it may lead again. Nothing happens if nothing is.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such node, or the log cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn cancel_intent(&self, node: &NodeId) -> Result<(), NodeError> {
        self.intend(node, None, false).await
    }

    /// Returns what is intended with `node`, as far as this node knows; none when nothing is.
    #[must_use]
    pub fn intent(&self, node: &NodeId) -> Option<Intended> {
        let view = self.inner().view();
        let node = view.state.node_by_id(node.as_str())?;
        view.state.intent(node.raft_id)
    }

    async fn intend(
        &self,
        node: &NodeId,
        intent: Option<Intent>,
        force: bool,
    ) -> Result<(), NodeError> {
        let node = node.clone();
        self.switch(&Adjustment::Intent {
            node,
            intent,
            force,
        })
        .await
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

    /// Says what the application thinks of this node, with why, in at most 256 bytes. Told to the
    /// leader at once and with every heartbeat; it stands until the next call, or until the process
    /// ends.
    ///
    /// A node that is [`Health::Unhealthy`] hands its primaries over to members in sync elsewhere,
    /// where there are any, and is given none; it keeps its copies, and no data moves. One that is
    /// [`Health::Down`] counts as down although it runs, as soon as its lease is over, and proves no
    /// ownership any more from this call on.
    ///
    /// # Errors
    /// [`ConfigError`] when `reason` is too long; nothing is changed.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use clusterkit::{ClusterKit, Health, Options};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let options = Options::new("node-1", "127.0.0.1:0").data_dir(dir.path());
    /// # let node = ClusterKit::start(options).await?;
    /// # node.wait_ready(Duration::from_secs(10)).await?;
    /// node.set_health(Health::Unhealthy, "the disk is slow")?;
    /// assert_eq!(node.own_health().health, Health::Unhealthy);
    /// node.set_health(Health::Healthy, "")?;
    /// # node.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_health(&self, health: Health, reason: &str) -> Result<(), ConfigError> {
        let report = HealthReport::new(health, reason)?;
        self.inner().health.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
        Ok(())
    }

    /// Returns what the application last said of this node.
    #[must_use]
    pub fn own_health(&self) -> HealthReport {
        self.inner().health.borrow().clone()
    }

    /// Returns what `node` says against itself, as the cluster knows it; none when it is healthy or
    /// no member.
    #[must_use]
    pub fn veto(&self, node: &NodeId) -> Option<Veto> {
        let view = self.inner().view();
        let node = view.state.node_by_id(node.as_str())?;
        view.state.veto(node.raft_id).cloned()
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
        let view = self.view();
        let copies = self.known_copies(&view);
        operations(&view.state, protected, &copies, self.clock.wall())
    }

    pub(crate) async fn cancel(&self, operation: &Operation) -> Result<Applied, NodeError> {
        let command = operation.cancel(self.clock.wall());
        let command = command.ok_or_else(|| NodeError::NotCancellable {
            id: operation.id.clone(),
        })?;
        Ok(self.member_control().propose(command).await?)
    }
}

//! The running embedded node: [`ClusterKit`].
//!
//! A thin handle: lookups read one snapshot, everything else is a command proposed to the log. How
//! it starts is in `start.rs`, placement and settings in `operate.rs`, what keeps it running in
//! `lead.rs`, `pulse.rs`, `probe.rs` and `feed.rs`.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clusterkit_core::command::{Applied, Command};
use clusterkit_core::control::{ControlPlane, ControlStats, View};
use clusterkit_core::event::{ClusterHealth, LeaveReason};
use clusterkit_core::id::{Epoch, Incarnation, NodeId, PartitionId, RaftId};
use clusterkit_core::lease::{NoToken, OwnershipToken};
use clusterkit_core::node::{Node, NodeStatus};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{LookupError, Topology};
use clusterkit_http::server::RunningServer;
use clusterkit_raft::storage::RedbStorage;

use crate::error::{GuardError, NodeError, StartError};
use crate::feed;
use crate::hooks::{EventStream, HookFigures};
use crate::inner::{Inner, Phase};
use crate::options::Options;
use crate::tasks::Task;
use crate::{lead, probe, pulse, start};

/// How long requests in flight may take to finish when the node stops.
const DRAIN_REQUESTS: Duration = Duration::from_secs(2);
/// How long handing leadership over may hold a stop up.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long a node that is no member any more remains because the log counts on its vote.
const RELIEF: Duration = Duration::from_secs(5);
/// How long the loops may take to end when the node stops, the grace of hooks aside.
const STOP_LOOPS: Duration = Duration::from_secs(10);

/// A running node of a cluster. Clones share it; call [`shutdown`](Self::shutdown) to stop it.
///
/// # Examples
/// ```
/// use clusterkit::{ClusterKit, Options};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let options = Options::new("node-1", "127.0.0.1:0").data_dir(dir.path());
/// let node = ClusterKit::start(options).await?;
/// node.wait_ready(std::time::Duration::from_secs(10)).await?;
/// let found = node.locate(b"user:123")?;
/// assert_eq!(found.primary.id, "node-1");
/// node.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClusterKit {
    inner: Arc<Inner>,
    running: Arc<Mutex<Option<Running>>>,
}

/// What must be ended when the node stops.
#[derive(Debug)]
struct Running {
    server: RunningServer,
    loops: Vec<Task<()>>,
}

/// Where a key is, from one snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Located {
    /// The key's partition.
    pub partition: PartitionId,
    /// Who serves writes.
    pub primary: Arc<Node>,
    /// The other members in order of preference.
    pub replicas: Vec<Arc<Node>>,
    /// The partition's epoch: the fencing value of its ownership.
    pub epoch: Epoch,
}

/// What the cluster looks like from here, for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterInfo {
    /// The cluster's name.
    pub name: String,
    /// The cluster's identity.
    pub id: String,
    /// The version of the topology.
    pub epoch: Epoch,
    /// The members.
    pub nodes: Vec<Arc<Node>>,
    /// The leader of the log, as far as known here.
    pub leader: Option<Arc<Node>>,
    /// The number of partitions.
    pub partition_count: u32,
    /// The wanted number of copies.
    pub replication_factor: u32,
}

/// Figures about one node since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeMetrics {
    /// The log on this node.
    pub log: ControlStats,
    /// The hooks of this node.
    pub hooks: HookFigures,
    /// Placements of this node that were replaced by the systematic layout, because the search
    /// gave up or its certificate did not hold.
    pub placement_fallbacks: u64,
}

impl fmt::Debug for ClusterKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterKit").field(&self.inner).finish()
    }
}

impl ClusterKit {
    /// Starts a node: forms a cluster, joins one, or resumes as the member its directory belongs
    /// to.
    ///
    /// Returns once the node is a member; a resumed node returns also where no leader answers, so
    /// that it can route by what it knew. [`wait_ready`](Self::wait_ready) waits for a serving
    /// cluster.
    ///
    /// # Errors
    /// [`StartError`]; the node then holds neither port nor files. It is no member either, except
    /// after [`JoinError::Timeout`](crate::JoinError::Timeout), where an answer may have been lost:
    /// starting again on the same directory takes that membership over.
    ///
    /// # Cancel safety
    /// Dropping the future may leave an admitted member that never reports in; starting again on
    /// the same directory takes it over.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let settings = options.validate().map_err(StartError::Config)?;
        let (inner, server) = start::start(settings).await?;
        let loops = vec![
            Task::spawn(lead::run(Arc::clone(&inner))),
            Task::spawn(pulse::run(Arc::clone(&inner))),
            Task::spawn(probe::run(Arc::clone(&inner))),
            Task::spawn(feed::run(Arc::clone(&inner))),
        ];
        let running = Some(Running { server, loops });
        Ok(Self {
            inner,
            running: Arc::new(Mutex::new(running)),
        })
    }

    /// Returns the present snapshot: use one where several answers must agree.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        let topology = Arc::clone(&self.view().topology);
        if self.inner.phase() < Phase::Left || topology.node_id().is_none() {
            return topology;
        }
        // A node that is no member any more holds no role, whatever its last snapshot says.
        Arc::new(Topology::clone(&topology).seen_by(RaftId::default()))
    }

    /// Returns the partition of `key`.
    #[must_use]
    pub fn partition(&self, key: &[u8]) -> PartitionId {
        self.view().topology.partition(key)
    }

    /// Returns where `key` is: partition, members and epoch of one snapshot.
    ///
    /// # Errors
    /// [`LookupError::NoPrimary`] while no in-sync member of its partition is up.
    pub fn locate(&self, key: &[u8]) -> Result<Located, LookupError> {
        let topology = self.topology();
        let found = topology.locate(key)?;
        let shared = |node: &Node| topology.member(node.raft_id).map(Arc::clone);
        let primary = shared(found.primary).expect("invariant: members stand in the node table");
        Ok(Located {
            partition: found.partition,
            primary,
            replicas: found.replicas().filter_map(shared).collect(),
            epoch: found.epoch,
        })
    }

    /// Returns who serves writes of `partition`.
    #[must_use]
    pub fn primary(&self, partition: PartitionId) -> Option<Arc<Node>> {
        let topology = self.topology();
        let primary = topology.primary(partition)?;
        topology.member(primary.raft_id).map(Arc::clone)
    }

    /// Returns the other members of `partition` in order of preference.
    #[must_use]
    pub fn replicas(&self, partition: PartitionId) -> Vec<Arc<Node>> {
        let topology = self.topology();
        let shared = |node: &Node| topology.member(node.raft_id).map(Arc::clone);
        topology.replicas(partition).filter_map(shared).collect()
    }

    /// Returns the members of the cluster, in order of joining.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.view().topology.nodes().to_vec()
    }

    /// Tells whether this node may serve writes of `partition` now. A convenience: true now is no
    /// proof for later, [`Self::ownership`] is.
    ///
    /// False as soon as its lease has run out, and on a new primary until the one before it has let
    /// go. In a cluster formed with [`strict_lease(false)`](Options::strict_lease) it is what the
    /// last known topology says, as [`Topology::is_primary`] always is.
    #[must_use]
    pub fn is_primary(&self, partition: PartitionId) -> bool {
        let strict = self.view().state.config().strict_lease;
        self.topology().is_primary(partition) && (!strict || self.ownership(partition).is_ok())
    }

    /// Returns proof that this node is the only one that may act as primary of `partition`, good
    /// until [`OwnershipToken::valid_until`] by [`Self::now`] at the longest, and no longer than
    /// [`Self::check_ownership`] says.
    ///
    /// Ask it before a write, check it after, or let [`Self::guard`] do both: an acknowledged write
    /// was then made by the only primary. To storage that other nodes can reach, hand the partition
    /// and the token's epoch as a fencing token.
    ///
    /// # Errors
    /// [`NoToken`] when this node is not the primary, or cannot prove so now: its lease is over,
    /// or the primary before it has not let go yet. Asking again can help.
    pub fn ownership(&self, partition: PartitionId) -> Result<OwnershipToken, NoToken> {
        self.inner.ownership(partition)
    }

    /// Checks that `token` is still good.
    ///
    /// # Errors
    /// [`NoToken`] when it is not.
    pub fn check_ownership(&self, token: &OwnershipToken) -> Result<(), NoToken> {
        self.inner.check_ownership(token)
    }

    /// Returns a newer token of the same ownership: proof that nobody else owned the partition from
    /// when `token` was made until now, even if the lease ran out and was renewed in between.
    ///
    /// # Errors
    /// [`NoToken`] when that cannot be proven now.
    pub fn renew_ownership(&self, token: &OwnershipToken) -> Result<OwnershipToken, NoToken> {
        self.inner.renew_ownership(token)
    }

    /// Runs `write` between two proofs that this node owns `partition`: with its result in hand, the
    /// write may be acknowledged. It is given the token, whose partition and epoch are the fencing
    /// token for storage that other nodes can reach.
    ///
    /// # Errors
    /// [`GuardError::NotOwner`] when `write` was not run, [`GuardError::Lost`] when it was, but must
    /// not be acknowledged.
    ///
    /// # Cancel safety
    /// Dropping the future drops `write` where it stands.
    ///
    /// # Examples
    /// ```
    /// use std::collections::BTreeMap;
    /// use std::time::Duration;
    /// use clusterkit::{ClusterKit, Options, Profile};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let options = Options::new("node-1", "127.0.0.1:0").data_dir(dir.path());
    /// # let node = ClusterKit::start(options.profile(Profile::Fast)).await?;
    /// # node.wait_ready(Duration::from_secs(10)).await?;
    /// let mut store = BTreeMap::new();
    /// let partition = node.partition(b"user:123");
    /// # while node.ownership(partition).is_err() { tokio::task::yield_now().await; }
    /// let fence = node
    ///     .guard(partition, async |token| {
    ///         // A real store refuses what comes with an earlier epoch than it has seen.
    ///         store.insert("user:123", ("Ada", token.epoch()));
    ///         token.epoch()
    ///     })
    ///     .await?;
    /// // Only now is it acknowledged.
    /// assert_eq!(store["user:123"], ("Ada", fence));
    /// # node.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn guard<T>(
        &self,
        partition: PartitionId,
        write: impl AsyncFnOnce(OwnershipToken) -> T,
    ) -> Result<T, GuardError> {
        let token = self.ownership(partition).map_err(GuardError::NotOwner)?;
        let written = write(token).await;
        match self.renew_ownership(&token) {
            Ok(_) => Ok(written),
            Err(reason) => Err(GuardError::Lost(reason)),
        }
    }

    /// Returns the time by which [`OwnershipToken::valid_until`] is meant.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.inner.clock.now()
    }

    /// Tells whether this node is another member of `partition`.
    #[must_use]
    pub fn is_replica(&self, partition: PartitionId) -> bool {
        self.topology().is_replica(partition)
    }

    /// Returns this node's id.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.inner.spec.id
    }

    /// Returns the number of this process start, counted on its data directory. A topology whose
    /// record of this node shows another one was made before this start was known.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inner.spec.incarnation
    }

    /// Returns the address this node told the cluster, with the port it is bound to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.spec.address
    }

    /// Returns what the cluster looks like from here.
    #[must_use]
    pub fn cluster(&self) -> ClusterInfo {
        let view = self.view();
        let topology = &view.topology;
        ClusterInfo {
            name: topology.name().to_owned(),
            id: topology.cluster().to_string(),
            epoch: topology.epoch(),
            nodes: topology.nodes().to_vec(),
            leader: view
                .leadership
                .leader
                .and_then(|id| topology.member(id).cloned()),
            partition_count: topology.partition_count(),
            replication_factor: topology.replication_factor(),
        }
    }

    /// Returns the health of the cluster as the log has it.
    #[must_use]
    pub fn health(&self) -> ClusterHealth {
        self.view().state.health().clone()
    }

    /// Returns figures about this node since it started.
    #[must_use]
    pub fn metrics(&self) -> NodeMetrics {
        NodeMetrics {
            log: self.inner.member_control().stats(),
            hooks: self.inner.hook_counters.figures(),
            placement_fallbacks: self.inner.fallbacks.load(Ordering::Relaxed),
        }
    }

    /// Tells whether this node is an active member, a leader is known, and every partition has a
    /// primary.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.unready(&self.view()).is_none()
    }

    /// Waits until the node is ready, at most `limit`.
    ///
    /// # Errors
    /// [`NodeError::Timeout`] naming what was missing at the end.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), NodeError> {
        let mut phase = self.inner.phase.subscribe();
        let waiting = async {
            loop {
                let view = self.view();
                if self.inner.unready(&view).is_none() {
                    return;
                }
                tokio::select! {
                    _ = self.inner.member_control().changed(view.version) => {}
                    Ok(()) = phase.changed() => {}
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| {
            let missing = self.inner.unready(&self.view()).unwrap_or_default();
            NodeError::Timeout {
                what: format!("readiness ({missing})"),
                after: limit,
            }
        })
    }

    /// Waits for a snapshot of `epoch` or later.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_for_epoch(&self, epoch: Epoch) -> Arc<Topology> {
        let mut view = self.view();
        while view.topology.epoch() < epoch {
            view = self.inner.member_control().changed(view.version).await;
        }
        Arc::clone(&view.topology)
    }

    /// Waits for a snapshot newer than `after`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn changed(&self, after: Epoch) -> Arc<Topology> {
        self.wait_for_epoch(after.next()).await
    }

    /// Returns the stream of committed events from now on.
    #[must_use]
    pub fn events(&self) -> EventStream {
        let control: Arc<dyn ControlPlane> = self.inner.member_control().clone();
        let after = control.view().state.last_event();
        let me = self.inner.member_control().raft_id();
        EventStream::new(control, me, after, self.inner.stop.clone())
    }

    /// Waits until everything committed before the call is applied here.
    ///
    /// # Errors
    /// [`NodeError::Propose`] when that cannot be established.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn read_barrier(&self) -> Result<(), NodeError> {
        Ok(self.inner.member_control().read_barrier().await?)
    }

    /// Moves the data of `node` away; it stays a member. [`undrain`](Self::undrain) cancels.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such node, or it is the last that takes data.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn drain(&self, node: &NodeId) -> Result<(), NodeError> {
        self.inner.drain(node, true, false).await.map(|_| ())
    }

    /// Cancels a drain: `node` takes data again.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such node.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn undrain(&self, node: &NodeId) -> Result<(), NodeError> {
        self.inner.drain(node, false, false).await.map(|_| ())
    }

    /// Removes a node for good. Refused while it holds data, unless `force`, which may lose the
    /// last copy of what it holds.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such node, or it still holds data.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn remove(&self, node: &NodeId, force: bool) -> Result<(), NodeError> {
        self.inner.remove(node, force).await.map(|_| ())
    }

    /// Leaves the cluster: waits until others hold what this node held, then is no member any
    /// more. The last node of a cluster has nobody to leave to and stays one.
    ///
    /// # Errors
    /// [`NodeError::Timeout`] when the data did not move within the configured limit; the leave
    /// goes on while the node runs.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the leave.
    pub async fn leave(&self) -> Result<(), NodeError> {
        self.inner.leave().await
    }

    /// Stops the node. Unless told otherwise in the options it leaves the cluster first.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the node half stopped; call it again.
    pub async fn shutdown(&self) {
        if self.inner.settings.leave_on_shutdown
            && self.inner.phase() == Phase::Member
            && let Err(error) = self.leave().await
        {
            tracing::warn!(%error, "stopping without having left the cluster");
        }
        self.stop().await;
    }

    /// Stops the node without leaving the cluster: the others see it as down and expect it back.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the node half stopped; call it again.
    pub async fn stop(&self) {
        let left = self.inner.phase() == Phase::Left;
        // While the loops end nobody would decide here: somebody else is to lead.
        let control = self.inner.member_control();
        let handed = tokio::time::timeout(HAND_OVER, control.transfer_leadership()).await;
        tracing::debug!(?handed, "stopping");
        // Where the log says that it was removed it still gets there; where only the leader did, it
        // does not.
        if left && self.inner.was_removed(&self.view()) {
            let relieved = tokio::time::timeout(RELIEF, control.relieved()).await;
            if relieved.is_err() {
                tracing::warn!("stopping although the log counts on the vote of this node");
            }
        }
        self.inner.stop.cancel();
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Running { server, loops }) = running {
            let limit = STOP_LOOPS.saturating_add(self.inner.settings.hook_settings.grace);
            for task in loops {
                task.join_within(limit).await;
            }
            server.shutdown(DRAIN_REQUESTS).await;
        }
        self.inner.member_control().shutdown().await;
        self.inner.storage.close();
        if left && let Err(error) = self.inner.forget_membership().await {
            tracing::warn!(%error, "the directory still says that this node is a member");
        }
        self.inner.set_phase(Phase::Stopped);
    }

    /// Waits until this node is no member any more: it left, was removed, or was stopped.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn left(&self) {
        let mut phase = self.inner.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase >= Phase::Left).await;
    }

    /// Returns what this node knows of the log, whole. For simulations, which judge it; programs
    /// want [`topology`](Self::topology).
    #[doc(hidden)]
    #[must_use]
    pub fn log_view(&self) -> Arc<View> {
        self.view()
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    fn view(&self) -> Arc<View> {
        self.inner.view()
    }
}

impl Inner {
    /// Returns why this node should not be sent traffic, none when it should.
    pub(crate) fn unready(&self, view: &View) -> Option<String> {
        let Some(me) = self.raft_id() else {
            return Some(String::from("not a member yet"));
        };
        match self.phase() {
            Phase::Member => {}
            Phase::Starting | Phase::Announcing => {
                return Some(String::from("this start is not announced yet"));
            }
            Phase::Left | Phase::Stopped => return Some(String::from("no member any more")),
        }
        if view.leadership.leader.is_none() {
            return Some(String::from("no leader is known"));
        }
        match view.state.node(me).map(|node| node.status) {
            Some(NodeStatus::Active | NodeStatus::Draining) => {}
            Some(status) => return Some(format!("this node is {status}")),
            None => return Some(String::from("this node's admission is not applied yet")),
        }
        let headless = view
            .state
            .partitions()
            .iter()
            .filter(|p| p.primary.is_none())
            .count();
        (headless > 0).then(|| format!("{headless} partitions have no primary"))
    }

    pub(crate) async fn drain(
        &self,
        node: &NodeId,
        on: bool,
        leave: bool,
    ) -> Result<Applied, NodeError> {
        let node = self.find(node)?;
        let command = Command::Drain {
            node: node.raft_id,
            on,
            leave,
            at: self.clock.wall(),
        };
        Ok(self.member_control().propose(command).await?)
    }

    pub(crate) async fn remove(&self, node: &NodeId, force: bool) -> Result<Applied, NodeError> {
        let node = self.find(node)?;
        let command = Command::Remove {
            node: node.raft_id,
            reason: LeaveReason::Removed,
            force,
            at: self.clock.wall(),
        };
        Ok(self.member_control().propose(command).await?)
    }

    fn find(&self, node: &NodeId) -> Result<Arc<Node>, NodeError> {
        let view = self.view();
        let found = view.state.node_by_id(node.as_str()).cloned();
        found.ok_or_else(|| NodeError::UnknownNode {
            node: node.to_string(),
        })
    }

    /// Removes the log of a membership that has ended, so that the next start is a new node's.
    async fn forget_membership(&self) -> Result<(), String> {
        if self.settings.storage.is_some() {
            return Ok(());
        }
        let directory = Arc::clone(&self.settings.directory);
        let execution = self.settings.environment.execution;
        let removed = execution
            .run(move || RedbStorage::remove(&*directory))
            .await?;
        removed.map_err(|error| error.to_string())
    }

    async fn leave(&self) -> Result<(), NodeError> {
        let limit = self.settings.leave_timeout;
        let leaving = async {
            let view = self.view();
            let others = view
                .state
                .nodes()
                .any(|node| Some(node.raft_id) != self.raft_id() && node.status.is_live());
            if !others || self.phase() != Phase::Member {
                return Ok(());
            }
            self.drain(&self.spec.id, true, true).await?;
            if let Err(error) = self.member_control().transfer_leadership().await {
                tracing::debug!(%error, "leaving as the leader");
            }
            let mut phase = self.phase.subscribe();
            let mut view = self.view();
            while !self.was_removed(&view) {
                tokio::select! {
                    changed = self.member_control().changed(view.version) => view = changed,
                    Ok(_) = phase.wait_for(|phase| *phase >= Phase::Left) => break,
                }
            }
            self.set_phase(Phase::Left);
            Ok(())
        };
        match tokio::time::timeout(limit, leaving).await {
            Ok(result) => result,
            Err(_) => Err(NodeError::Timeout {
                what: String::from("moving this node's data away"),
                after: limit,
            }),
        }
    }
}

//! The client: one current topology, kept current in the background, and calls routed by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::topology::{LookupError, Topology};

use crate::error::NodeFailure;
use crate::shared::{Shared, Wanted};
use crate::tasks::Follower;
use crate::{
    Call, ClientBuilder, ConnectError, RefreshError, RetryPolicy, Role, RoutingPolicy, Target,
};

/// What a call takes that does not say otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallDefaults {
    pub(crate) deadline: Duration,
    pub(crate) attempt_timeout: Duration,
}

/// A client of a cluster. Clones share everything; the last one dropped ends the background task.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    routing: Arc<dyn RoutingPolicy>,
    retry: Arc<dyn RetryPolicy>,
    defaults: CallDefaults,
    turn: AtomicU64,
    _follower: Follower,
}

impl Client {
    pub(crate) fn new(
        shared: Arc<Shared>,
        routing: Arc<dyn RoutingPolicy>,
        retry: Arc<dyn RetryPolicy>,
        defaults: CallDefaults,
        follower: Follower,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                shared,
                routing,
                retry,
                defaults,
                turn: AtomicU64::new(crate::shared::random()),
                _follower: follower,
            }),
        }
    }

    /// Connects to the cluster that any of `seeds` (`host:port`) belongs to, with the defaults of
    /// [`ClientBuilder`].
    ///
    /// # Errors
    /// [`ConnectError`] when a seed is malformed, no seed answers (each is named with its cause),
    /// or the cluster publishes what this version cannot compute.
    ///
    /// # Cancel safety
    /// Nothing is left behind when the future is dropped.
    pub async fn connect<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
    ) -> Result<Self, ConnectError> {
        Self::builder(seeds).connect().await
    }

    /// Returns a builder for a client of the cluster that any of `seeds` belongs to.
    pub fn builder<S: Into<String>>(seeds: impl IntoIterator<Item = S>) -> ClientBuilder {
        ClientBuilder::new(seeds)
    }

    /// Returns the current topology: an atomic load, no lock.
    ///
    /// Answers that must agree with each other come from one snapshot.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.inner.shared.topology()
    }

    /// Returns the primary of `key` by the current topology.
    ///
    /// # Errors
    /// [`LookupError::NoPrimary`] while the partition has none.
    pub fn locate(&self, key: &[u8]) -> Result<Target, LookupError> {
        let topology = self.topology();
        let found = topology.locate(key)?;
        let (member, partition) = (found.primary.raft_id, found.partition);
        Target::of(&topology, member, partition, Role::Primary).ok_or_else(|| {
            LookupError::NoPrimary {
                partition,
                epoch: topology.epoch(),
            }
        })
    }

    /// Returns every node that a write of `partition` must reach, from one snapshot: the primary,
    /// replicas that are up, and nodes that are joining the partition.
    ///
    /// For applications that replicate from the client.
    #[must_use]
    pub fn write_set(&self, partition: PartitionId) -> Vec<Target> {
        let topology = self.topology();
        let primary = topology.primary(partition).map(|node| node.raft_id);
        let joining: Vec<_> = topology
            .joining(partition)
            .map(|node| node.raft_id)
            .collect();
        let role = |member| {
            if Some(member) == primary {
                Role::Primary
            } else if joining.contains(&member) {
                Role::Joining
            } else {
                Role::Replica
            }
        };
        topology
            .write_set(partition)
            .map(|node| node.raft_id)
            .filter_map(|member| Target::of(&topology, member, partition, role(member)))
            .collect()
    }

    /// Starts a call about `key`.
    pub fn call(&self, key: &[u8]) -> Call<'_> {
        self.call_partition(self.topology().partition(key))
    }

    /// Starts a call about a whole partition.
    pub fn call_partition(&self, partition: PartitionId) -> Call<'_> {
        Call::new(self, partition, self.inner.defaults)
    }

    /// Fetches the topology now, from whichever node answers first, and returns the current one.
    ///
    /// Rarely needed: changes are pushed, and calls refresh by themselves.
    ///
    /// # Errors
    /// [`RefreshError`] when no node answers; the client keeps what it has.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the requests.
    pub async fn refresh(&self) -> Result<Arc<Topology>, RefreshError> {
        self.refresh_wanted(Wanted::default())
            .await
            .map_err(|failures| RefreshError::NoNodeAnswered { failures })
    }

    /// Waits until the client knows `epoch` or a later one, for however long that takes.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for_epoch(&self, epoch: Epoch) -> Arc<Topology> {
        self.wait_until(|topology| topology.epoch() >= epoch).await
    }

    /// Waits for a topology that satisfies `condition`, for however long that takes.
    ///
    /// Topologies in between may be skipped: `condition` sees the current one whenever it changed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_until(&self, condition: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let mut publications = self.inner.shared.publications();
        loop {
            publications.borrow_and_update();
            let topology = self.topology();
            if condition(&topology) {
                return topology;
            }
            publications
                .changed()
                .await
                .expect("invariant: the sender lives in the client that is borrowed here");
        }
    }

    /// Waits until `partition` is served otherwise than in `known`.
    pub(crate) async fn rerouted(&self, known: &Topology, partition: PartitionId) {
        let route = |topology: &Topology| {
            let primary = topology.primary(partition).map(|node| node.raft_id);
            (primary, topology.partition_epoch(partition))
        };
        let old = route(known);
        self.wait_until(|topology| route(topology) != old).await;
    }

    pub(crate) async fn refresh_wanted(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<Arc<Topology>, Vec<NodeFailure>> {
        self.inner.shared.refresh(wanted).await
    }

    pub(crate) fn routing(&self) -> &dyn RoutingPolicy {
        &*self.inner.routing
    }

    pub(crate) fn retry(&self) -> &dyn RetryPolicy {
        &*self.inner.retry
    }

    pub(crate) fn next_turn(&self) -> u64 {
        self.inner.turn.fetch_add(1, Ordering::Relaxed)
    }
}

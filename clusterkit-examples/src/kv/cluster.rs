//! What this service needs of a cluster: the newest topology, word of a newer one, and proof of what
//! this node owns.
//!
//! The embedded node fills it in in `server`; tests fill it in with topologies of their own.

use std::sync::Arc;

use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::lease::NoToken;
use clusterkit_core::topology::Topology;
use futures_util::future::BoxFuture;

/// Where topologies come from. They never get older.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// Returns the newest topology as seen by this node, none until this process has joined.
    fn topology(&self) -> Option<Arc<Topology>>;

    /// Returns the epoch of the ownership of `partition` that this node can prove at this moment. The
    /// same epoch twice proves that nobody else owned it in between.
    fn owned(&self, partition: PartitionId) -> Result<Epoch, NoToken>;

    /// Resolves with the newest topology once its epoch is later than `after`. Cancel safe.
    fn changed(&self, after: Epoch) -> BoxFuture<'_, Arc<Topology>>;
}

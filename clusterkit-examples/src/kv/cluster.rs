//! What this service needs of a cluster: the newest topology, and word of a newer one.
//!
//! The embedded node fills it in in `server`; tests fill it in with topologies of their own.

use std::sync::Arc;

use clusterkit_core::id::Epoch;
use clusterkit_core::topology::Topology;
use futures_util::future::BoxFuture;

/// Where topologies come from. They never get older.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// Returns the newest topology as seen by this node, none until this process has joined.
    fn topology(&self) -> Option<Arc<Topology>>;

    /// Resolves with the newest topology once its epoch is later than `after`. Cancel safe.
    fn changed(&self, after: Epoch) -> BoxFuture<'_, Arc<Topology>>;
}

//! Where a topology comes from: the trait. HTTP, its default, is in `http_source.rs`.
//!
//! A [`TopologySource`] asks one node, once; which node to ask, and what to do when it does not
//! answer, is the follower's (`follow.rs`).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use clusterkit_core::config::ConfigError;
use clusterkit_core::id::ClusterId;
use clusterkit_core::topology::Topology;

/// Asks single nodes for the topology.
#[async_trait]
pub trait TopologySource: fmt::Debug + Send + Sync + 'static {
    /// Returns the topology that the node at `address` knows, `None` when it knows exactly `known`.
    ///
    /// # Errors
    /// [`SourceError`], whose variants say whether another node may do better.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request; nothing is changed by it.
    async fn fetch(
        &self,
        address: &str,
        known: Option<&Arc<Topology>>,
    ) -> Result<Option<Arc<Topology>>, SourceError>;

    /// Follows the node at `address` from the snapshot `base` on.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] when the node cannot be followed: it is polled instead then.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    async fn watch(
        &self,
        address: &str,
        base: Arc<Topology>,
    ) -> Result<Box<dyn TopologyFeed>, SourceError>;
}

/// The topologies of one node as they come.
#[async_trait]
pub trait TopologyFeed: Send {
    /// Returns the next topology; newer ones may stand for several changes.
    ///
    /// # Errors
    /// [`SourceError`] when the feed has ended, for whatever reason. It stays ended.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Arc<Topology>, SourceError>;
}

/// Why a node gave no topology.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It did not answer, or not with a topology. Another node, or this one later, may.
    #[error("{address} gave no topology: {message}")]
    Unavailable {
        /// The node asked.
        address: String,
        /// What happened, in one line.
        message: String,
    },
    /// It cannot be followed; it can be polled.
    #[error("{address} cannot be followed: {message}")]
    Unsupported {
        /// The node asked.
        address: String,
        /// What it answered.
        message: String,
    },
    /// It publishes what this version cannot compute, such as an unknown hash algorithm. Every
    /// node of the cluster does, and a guess would send keys to the wrong nodes.
    #[error("the topology of {address} cannot be used by this client")]
    Incompatible {
        /// The node asked.
        address: String,
        /// What is published.
        source: ConfigError,
    },
    /// It belongs to another cluster than the one connected to: its address was given away.
    #[error("{address} belongs to cluster {found}, not to {expected}")]
    ForeignCluster {
        /// The node asked.
        address: String,
        /// The cluster connected to.
        expected: ClusterId,
        /// The cluster found.
        found: ClusterId,
    },
}

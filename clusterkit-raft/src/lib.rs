//! The embedded control plane of ClusterKit: Raft on a disk of its own, behind core's traits.
//!
//! [`RaftControlPlane`] is the primary type: an ordered, durable log of commands, the state they
//! make, and leadership, kept by the members among themselves. Storage and transport are traits
//! ([`storage::Storage`], [`transport::Transport`]) with implementations for disk, memory and
//! within a process; HTTP is in `clusterkit-http`.
//!
//! ```
//! # use std::sync::Arc;
//! # use clusterkit_core::{config::ClusterConfig, id::*, node::NodeSpec, time::UnixMillis};
//! # use clusterkit_raft::{RaftControlPlane, RaftOptions};
//! # use clusterkit_raft::{channel::ChannelNetwork, storage::MemoryStorage};
//! use clusterkit_core::control::ControlPlane;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (cluster, disk) = (ClusterId::from_bytes([1; 16]), DiskId::from_bytes([2; 16]));
//! let network = ChannelNetwork::new();
//! let options = RaftOptions::new(cluster, RaftId::BOOTSTRAP, disk, "here:1");
//! let transport = Arc::new(network.transport("here:1"));
//! let storage = Arc::new(MemoryStorage::new());
//! let control = RaftControlPlane::open(storage, transport, options).await?;
//! let node = NodeSpec::new(NodeId::new("node-1")?, disk, "here:1");
//! control.initialize(ClusterConfig::default(), node, UnixMillis(0)).await?;
//! assert_eq!(control.view().state.nodes().len(), 1);
//! control.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: decide where data goes or who is down (core), speak HTTP, admit nodes or
//! detect failures (the embedding crate proposes commands for that), survive the loss of a
//! majority of voters, or let an empty disk return under an old id.

pub mod channel;
mod clock;
pub mod codec;
mod control_plane;
pub mod disk;
mod execution;
mod log_store;
mod membership;
mod network;
mod options;
mod panics;
mod peers;
mod propose;
mod runtime;
mod state_machine;
pub mod storage;
mod tasks;
pub mod testing;
pub mod transport;
mod types;
mod view;
mod voters;
mod writer;

pub use control_plane::{InitializeError, OpenError, RaftControlPlane};
pub use execution::Execution;
pub use options::{COMMAND_MAX_BYTES, RaftOptions, WallClock};
pub use voters::{VoterCandidate, choose_voters};

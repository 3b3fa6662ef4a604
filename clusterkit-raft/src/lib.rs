//! The embedded control plane of ClusterKit: Raft on a disk of its own, behind core's traits.
//!
//! Being built: the storage, the codec and the transport stand; the control plane follows.
pub mod channel;
mod clock;
pub mod codec;
mod log_store;
mod network;
mod options;
mod panics;
mod peers;
mod state_machine;
pub mod storage;
mod tasks;
pub mod testing;
pub mod transport;
mod types;
mod view;
mod writer;

//! Pure rules of ClusterKit: where data goes, who decides it, and how the answer changes.
//!
//! This crate is `no_std` and sans-IO: no clock, thread, socket, float or randomly ordered map.
//! Time is an argument, decisions are values. The primary type for readers is
//! [`topology::Topology`], for the control plane [`state::ClusterState`].
//!
//! What it does not do: talk to anybody. Raft is in `clusterkit-raft`, HTTP in `clusterkit-http`,
//! the embedded node in `clusterkit`.
#![no_std]
#![deny(clippy::float_arithmetic)]

extern crate alloc;

pub mod adjust;
pub mod command;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod copying;
pub mod detector;
pub mod event;
pub mod explain;
pub mod hash;
pub mod health;
pub mod id;
pub mod intent;
pub mod lease;
pub mod node;
pub mod operation;
pub mod partition;
pub mod pause;
pub mod placement;
#[doc(hidden)]
pub mod planted;
pub mod state;
pub mod time;
pub mod topology;

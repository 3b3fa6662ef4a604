//! Every JSON document ClusterKit sends or takes, and nowhere else.
//!
//! [`compat`] keeps the exact shapes of earlier releases, [`v1`] is what is new, [`Problem`] is the
//! one shape of errors. The documents are plain data: [`TopologyDocument`] alone knows how to
//! become a [`clusterkit_core::topology::Topology`] again.

pub mod compat;
mod events;
mod operations;
mod placement;
mod problem;
mod text;
mod topology;
pub mod v1;

pub use problem::{LeaderHint, Problem, ProblemCode};
pub use text::{go_duration, rfc3339};
pub use topology::{MemberDocument, TopologyDocument};

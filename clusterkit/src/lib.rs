//! Embeddable cluster coordination: N copies of a program become one cluster.
//!
//! ClusterKit tells a program where data goes (key, partition, primary and replicas), keeps that
//! answer agreed and balanced while nodes come, go and fail, and tells the program when data has
//! to move. The primary type is [`ClusterKit`]; what it is told stands in [`Options`], what it
//! tells in [`Hooks`].
//!
//! ```no_run
//! use clusterkit::{ClusterKit, Options};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = ClusterKit::start(Options::new("node-1", "127.0.0.1:8080")).await?;
//! let found = node.locate(b"user:123")?;
//! println!("{} -> {} (epoch {})", found.partition, found.primary.id, found.epoch);
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: store the program's data, replicate it, or carry its requests. Rules are
//! in `clusterkit-core`, the log in `clusterkit-raft`, endpoints in `clusterkit-http`, and what a
//! client outside the cluster needs in `clusterkit-client`.

mod address;
mod backend;
mod clock;
mod copies;
mod data;
mod environment;
mod error;
mod feed;
mod hooks;
mod inner;
mod join;
mod lead;
mod messages;
mod node;
mod operate;
mod operations;
mod options;
mod ownership;
mod peer;
mod probe;
mod pulse;
mod start;
mod tasks;

pub use clock::{Clock, SystemClock};
pub use clusterkit_core::adjust::{Adjustment, MayStop, StopRisk};
pub use clusterkit_core::config::{ClusterConfig, ConfigChange, ConfigError};
pub use clusterkit_core::control::{ControlStats, ProposeError};
pub use clusterkit_core::copying::CopyProgress;
pub use clusterkit_core::event::{
    ChangeReason, ChangeStage, ClusterHealth, HealthStatus, LeaveReason, PlanTrigger, Role, Verdict,
};
pub use clusterkit_core::explain;
pub use clusterkit_core::hash::HashAlgorithm;
pub use clusterkit_core::health::{Health, HealthReport, Veto};
pub use clusterkit_core::id::{
    ClusterId, Epoch, EventSeq, Incarnation, LogIndex, NodeId, PartitionId, PlanId, StageId,
};
pub use clusterkit_core::intent::{Intended, Intent};
pub use clusterkit_core::lease::{NoToken, OwnershipToken};
pub use clusterkit_core::node::{Drain, FEATURE_LEVEL, Node, NodeStatus};
pub use clusterkit_core::operation::{Blocker, Operation, OperationKind, OperationState, Progress};
pub use clusterkit_core::pause::{Pause, Work};
pub use clusterkit_core::placement;
pub use clusterkit_core::time::{Instant, UnixMillis};
pub use clusterkit_core::topology::{Location, LookupError, Topology};
pub use clusterkit_raft::Execution;
pub use clusterkit_raft::disk;
pub use data::{Cas, DataValue};
pub use environment::{Entropy, Environment};
pub use error::{GuardError, JoinError, NodeError, StartError};
pub use hooks::{
    ClusterEvent, CopyError, Copying, EventStream, EventsMissed, HealthChange, HookError,
    HookFigures, HookKind, HookResult, Hooks, NodeJoined, NodeLeft, NodeRejoined, PartitionChange,
    PartitionLost, RebalanceCompleted, RebalanceStarted, Subscriber,
};
pub use node::{ClusterInfo, ClusterKit, Located, NodeMetrics};
pub use operate::{Explained, RebalanceReport};
pub use options::{Options, Profile, Settings};

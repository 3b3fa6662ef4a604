//! Being written.

mod clock;
mod hooks;
mod tasks;

pub use clock::{Clock, SystemClock};
pub use clusterkit_core::event::{ChangeReason, ChangeStage};
pub use hooks::{
    ClusterEvent, EventStream, EventsMissed, HealthChange, HookError, HookKind, HookResult, Hooks,
    NodeJoined, NodeLeft, NodeRejoined, PartitionChange, PartitionLost, RebalanceCompleted,
    RebalanceStarted, Subscriber,
};

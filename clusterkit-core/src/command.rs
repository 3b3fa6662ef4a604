//! The inputs of the state machine: what is written into the ordered log.
//!
//! A command is a decision already taken, with everything needed to carry it out inside it. Whoever
//! proposes it computes ([`crate::coordinator`], the embedding node); [`crate::state`] only checks
//! and applies.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::adjust::Named;
use crate::config::{ClusterConfig, ConfigChange, ConfigError};
use crate::event::{Event, LeaveReason, PlanTrigger};
use crate::health::HealthReport;
use crate::id::{
    ClusterId, Epoch, Incarnation, LogIndex, NodeId, PartitionId, PlanId, RaftId, StageId,
};
use crate::intent::Intent;
use crate::node::{NodeSpec, NodeStatus};
use crate::pause::Work;
use crate::time::UnixMillis;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Forms the cluster with its first node. Refused once a cluster exists.
    Bootstrap {
        /// The minted identity.
        cluster: ClusterId,
        /// What all nodes share.
        config: ClusterConfig,
        /// The first node; it becomes [`RaftId::BOOTSTRAP`] and is active at once.
        node: NodeSpec,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Admits a node, or answers again for one that was admitted with the same disk.
    Join {
        /// What it says of itself.
        node: NodeSpec,
        /// The dead member whose id it takes over, after its disk was lost.
        replaces: Option<RaftId>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// A known node's process started on its disk.
    Announce {
        /// The node.
        node: RaftId,
        /// What it says of itself now.
        spec: NodeSpec,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// A joining node has caught up with the log.
    Activate {
        /// The node.
        node: RaftId,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Changes what the operator decides about a node.
    UpdateNode {
        /// The node.
        node: RaftId,
        /// Its new share.
        weight: Option<u32>,
        /// Its new failure domain.
        zone: Option<Arc<str>>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Declares nodes down, all in one cut.
    MarkDown {
        /// The nodes.
        nodes: Vec<RaftId>,
        /// Who becomes primary of what they led. Where nothing is named, or what is named is not
        /// in sync and live, the first in-sync live replica is taken.
        promotions: Vec<(PartitionId, RaftId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Declares nodes up again that were down and never restarted.
    MarkUp {
        /// The nodes.
        nodes: Vec<RaftId>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Stops waiting for nodes that are down: copies of what they held may be made elsewhere.
    Evict {
        /// The nodes.
        nodes: Vec<RaftId>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Starts or cancels moving a node's data away.
    Drain {
        /// The node.
        node: RaftId,
        /// Starts when true, cancels when false.
        on: bool,
        /// Whether the node leaves the cluster once it is empty.
        leave: bool,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Removes a node for good.
    Remove {
        /// The node.
        node: RaftId,
        /// Why.
        reason: LeaveReason,
        /// Removes it even where it still holds data, which may lose the last copy.
        force: bool,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Changes the settings that may change while the cluster runs.
    UpdateConfig {
        /// Which, and to what.
        change: ConfigChange,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Sets the rows to be reached. Replaces the plan in force; moves under way go on.
    Plan {
        /// The epoch it was computed on; refused when the topology has changed since.
        base: Epoch,
        /// Why.
        trigger: PlanTrigger,
        /// The node that caused it, where there is one.
        trigger_node: Option<RaftId>,
        /// What it was computed from: [`crate::state::ClusterState::plan_basis`].
        basis: u64,
        /// The rows to be reached, the wanted primary first.
        targets: Vec<(PartitionId, Vec<RaftId>)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Begins some moves of the plan in force.
    StartMoves {
        /// The plan.
        plan: PlanId,
        /// Which.
        moves: Vec<MoveStart>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// A node holds every write of these partitions.
    Synced {
        /// The node.
        node: RaftId,
        /// Which, under which stage.
        stages: Vec<(PartitionId, StageId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Makes the targets of these moves the members.
    Switch {
        /// Which, under which stage.
        stages: Vec<(PartitionId, StageId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Calls these moves off.
    Revert {
        /// Which, under which stage.
        stages: Vec<(PartitionId, StageId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// A former member has let go of these partitions.
    Released {
        /// The node.
        node: RaftId,
        /// Which, under which stage.
        stages: Vec<(PartitionId, StageId)>,
    },
    /// Writes a value of custom data.
    SetData {
        /// The key, 1 to 512 bytes.
        key: String,
        /// The value, at most 1 MiB.
        value: Arc<[u8]>,
        /// What must stand there for the write to happen.
        expected: Expected,
    },
    /// Removes a value of custom data.
    DeleteData {
        /// The key.
        key: String,
        /// What must stand there for the removal to happen.
        expected: Expected,
    },
    /// Pauses a kind of work, or resumes it.
    Pause {
        /// What.
        work: Work,
        /// Pauses when true, resumes when false.
        on: bool,
        /// Why, at most 256 bytes. Pausing again what is paused changes the reason only.
        reason: Arc<str>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Stops waiting for the former members of these partitions.
    Abandon {
        /// Which, under which stage of cleanup.
        stages: Vec<(PartitionId, StageId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Drops the moves of the plan in force that have not begun and only serve the balance.
    CancelPlan {
        /// The plan.
        plan: PlanId,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// A node has judged itself.
    SetHealth {
        /// The node.
        node: RaftId,
        /// The process that said so.
        incarnation: Incarnation,
        /// What it said.
        report: HealthReport,
        /// Who becomes primary of what it leads. Where nobody is named, or who is named is not in
        /// sync and fit to lead, the best suited in-sync replica is taken; where there is none, the
        /// node goes on leading.
        heirs: Vec<(PartitionId, RaftId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// An operator is about to do something with a node, or not any more. One that stands is
    /// replaced.
    SetIntent {
        /// The node.
        node: RaftId,
        /// What; none takes back what stands.
        intent: Option<Intent>,
        /// Declares it even where nobody else could lead what the node leads: that it goes on
        /// leading.
        force: bool,
        /// Who becomes primary of what it leads, as in [`Self::SetHealth`].
        heirs: Vec<(PartitionId, RaftId)>,
        /// Wall-clock time.
        at: UnixMillis,
    },
    /// Ends the intents whose time is over.
    ExpireIntents {
        /// Wall-clock time: those that stand until then are over.
        at: UnixMillis,
    },
}

/// A move of the plan in force that is to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::exhaustive_structs,
    reason = "an entry of the log: what is added is a new format"
)]
pub struct MoveStart {
    /// Which partition.
    pub partition: PartitionId,
    /// Whom the nodes that join should copy from, one for each in the order of the target. A wish:
    /// one that does not hold the data any more, or is not named, is replaced by who does.
    pub sources: Vec<RaftId>,
}

impl From<PartitionId> for MoveStart {
    fn from(partition: PartitionId) -> Self {
        Self {
            partition,
            sources: Vec::new(),
        }
    }
}

/// A condition on a value of custom data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_enums, reason = "the conditions of compare-and-set")]
pub enum Expected {
    /// None: whatever stands there.
    #[default]
    Any,
    /// Nothing stands there.
    Absent,
    /// The value written at this log index stands there.
    Version(LogIndex),
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The log index it was applied at.
    pub index: LogIndex,
    /// The epoch after it.
    pub epoch: Epoch,
    /// The member it admitted or found.
    pub node: Option<RaftId>,
    /// The stages it named that are not open, so that nothing was done about them.
    pub refused: Vec<(PartitionId, StageId)>,
    /// What happened.
    pub events: Vec<Event>,
}

/// Why a command changed nothing. The state is untouched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A cluster exists on this log. Retrying cannot help.
    #[error("the cluster {cluster} is already formed")]
    AlreadyFormed {
        /// The existing one.
        cluster: ClusterId,
    },
    /// No cluster exists on this log yet.
    #[error("no cluster is formed on this log yet")]
    NotFormed,
    /// A value is out of bounds. Retrying cannot help.
    #[error("{0}")]
    Invalid(ConfigError),
    /// Another node has this id. It may be retried with `replaces` once that one is down.
    #[error("node id `{id}` is in use by the node at {address} ({status})")]
    NodeIdInUse {
        /// The id.
        id: NodeId,
        /// Who has it.
        holder: RaftId,
        /// Where that one is.
        address: Arc<str>,
        /// Where that one stands.
        status: NodeStatus,
    },
    /// Another live node announced this address.
    #[error("address `{address}` is in use by node `{holder}`")]
    AddressInUse {
        /// The address.
        address: Arc<str>,
        /// Who has it.
        holder: NodeId,
    },
    /// The cluster is full.
    #[error("the cluster has {limit} nodes, the most it may have")]
    TooManyNodes {
        /// The limit.
        limit: u32,
    },
    /// No such node is a member (any more).
    #[error("no member has the internal id {node}")]
    UnknownNode {
        /// What was named.
        node: RaftId,
    },
    /// The node runs on another disk than the member did.
    #[error("member {node} runs on another data directory: a wiped node joins as a new one")]
    WrongDisk {
        /// The member.
        node: RaftId,
    },
    /// An older process of the node spoke.
    #[error("member {node} has started again since: incarnation {given} is older than {current}")]
    StaleIncarnation {
        /// The member.
        node: RaftId,
        /// What was said.
        given: u64,
        /// What is known.
        current: u64,
    },
    /// The node runs a build older than what the cluster uses. A newer build is welcome.
    #[error("node `{id}` supports feature level {given}, the cluster uses {current}")]
    OlderFeatureLevel {
        /// The node.
        id: NodeId,
        /// What it supports.
        given: u32,
        /// What the cluster uses.
        current: u32,
    },
    /// The node's status does not allow it.
    #[error("node `{id}` is {status}")]
    WrongStatus {
        /// The node.
        id: NodeId,
        /// Its status.
        status: NodeStatus,
    },
    /// The node still holds data.
    #[error("node `{id}` still holds {partitions} partitions: drain it first, or force")]
    HoldsPartitions {
        /// The node.
        id: NodeId,
        /// How many.
        partitions: u32,
    },
    /// The only node that takes data cannot be drained or removed.
    #[error("node `{id}` is the last one that takes data")]
    LastNode {
        /// The node.
        id: NodeId,
    },
    /// The topology has changed since the plan was computed. Compute it again.
    #[error("the plan was computed on epoch {base}, the topology is at {current}")]
    StaleEpoch {
        /// What it was computed on.
        base: Epoch,
        /// What holds.
        current: Epoch,
    },
    /// Another plan is in force, or none.
    #[error("plan {plan} is not in force")]
    StalePlan {
        /// What was named.
        plan: PlanId,
    },
    /// The plan names something impossible.
    #[error("partition {partition}: {problem}")]
    BadTarget {
        /// The partition.
        partition: PartitionId,
        /// What is wrong with its row.
        problem: String,
    },
    /// Custom data did not stand as expected.
    #[error("the value of `{key}` is not the expected one")]
    DataMismatch {
        /// The key.
        key: String,
        /// The version that stands there, none when nothing does.
        version: Option<LogIndex>,
    },
    /// The store of custom data is full.
    #[error("custom data has {limit} keys, the most it may have")]
    DataFull {
        /// The limit.
        limit: u32,
    },
    /// Nobody else could lead what the node leads. It may be forced: the node goes on leading that.
    #[error(
        "nobody but node `{id}` could lead {}: wait for copies, or force",
        Named(partitions)
    )]
    NoHeir {
        /// The node.
        id: NodeId,
        /// Which partitions, in order.
        partitions: Vec<PartitionId>,
    },
}

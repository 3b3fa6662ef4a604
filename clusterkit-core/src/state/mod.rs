//! The replicated state and the questions asked of it.
//!
//! [`ClusterState::apply`] (in `apply.rs`) is deterministic and total: the same commands in the
//! same order give the same state, events and answers on every node, and a rejected command
//! leaves everything untouched. Nothing here computes a placement; plans come in as commands.

mod apply;
mod change;
mod fitness;
mod intents;
mod invariants;
mod members;
mod moves;
mod pauses;
mod refit;
mod setbacks;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::config::ClusterConfig;
use crate::event::{ClusterHealth, Event, PlanTrigger};
use crate::health::Veto;
use crate::id::{ClusterId, Epoch, EventSeq, LogIndex, PartitionId, PlanId, RaftId};
use crate::intent::Intended;
use crate::node::{Node, NodeStatus};
use crate::partition::{Partition, Stage};
use crate::pause::Pause;
use crate::planted::{self, Bug};
use crate::time::UnixMillis;
use crate::topology::{Topology, TopologyParts, TopologyRow};

pub use fitness::Falls;
pub use setbacks::{DrainBegun, Setback};

/// How many nodes that have left are remembered, to resolve events that name them.
const DEPARTED_KEPT: usize = 256;

/// The replicated state of one cluster.
///
/// Cloning is cheap: the large parts are shared and copied when one of them changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    cluster: Option<ClusterId>,
    generation: u64,
    epoch: Epoch,
    config: ClusterConfig,
    nodes: BTreeMap<RaftId, Arc<Node>>,
    departed: VecDeque<Arc<Node>>,
    absences: BTreeMap<RaftId, Absence>,
    partitions: Arc<Vec<Partition>>,
    plan: Option<Arc<ActivePlan>>,
    plan_basis: u64,
    /// The members of each partition, the primary first, when last a plan ended with everybody up:
    /// where a node that returns finds its place again. Empty before the first placement.
    home: Arc<Vec<Vec<RaftId>>>,
    roles_stale: bool,
    data: Arc<BTreeMap<String, DataEntry>>,
    events: Arc<VecDeque<Arc<Event>>>,
    last_event: EventSeq,
    health: ClusterHealth,
    feature_level: u32,
    applied: LogIndex,
    /// The switches that are on. Invariant: in order, each at most once.
    pauses: Vec<Pause>,
    setbacks: BTreeMap<PartitionId, Setback>,
    /// Invariant: exactly the members that are being drained.
    drains: BTreeMap<RaftId, DrainBegun>,
    /// Invariant: of members only.
    vetoes: BTreeMap<RaftId, Veto>,
    /// Invariant: of members only.
    falls: BTreeMap<RaftId, Falls>,
    /// Invariant: of members only.
    intents: BTreeMap<RaftId, Intended>,
}

/// What a node held when it was last known to be up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Absence {
    since: UnixMillis,
    /// What it was a member of, or had not yet released.
    held: Vec<PartitionId>,
    /// What it was copying.
    copied: Vec<PartitionId>,
    /// Whether it has never been active.
    was_joining: bool,
}

/// The plan in force: rows still to be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePlan {
    /// Its identity.
    pub id: PlanId,
    /// Why it was made.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<RaftId>,
    /// Rows not yet reached, the wanted primary first.
    pub targets: BTreeMap<PartitionId, Vec<RaftId>>,
    /// How many partitions it set out to change.
    pub partitions_to_move: u32,
    /// How many of those were changed.
    pub partitions_moved: u32,
    /// The nodes that gain or lose something.
    pub nodes_affected: Vec<RaftId>,
    /// When it was accepted.
    pub started_at: UnixMillis,
}

/// A value of custom data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataEntry {
    /// The log index that wrote it: what compare-and-set compares.
    pub version: LogIndex,
    /// The value.
    pub value: Arc<[u8]>,
}

impl ClusterState {
    /// Returns the state before the first command: no cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the cluster's identity, none before [`crate::command::Command::Bootstrap`].
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Returns the version of the published topology.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns what all nodes share.
    #[must_use]
    pub const fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Returns the feature level of the cluster: what every member has announced to know, those that
    /// are down included. Whoever writes something into the log that builds of a lower level do not
    /// know must wait until this says so.
    ///
    /// It never falls: a node that knows less is refused when it joins or starts
    /// ([`crate::command::Rejected::OlderFeatureLevel`]).
    #[must_use]
    pub const fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// Returns the log index of the last command applied.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Returns the members in order of joining.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Returns the member `raft_id`.
    #[must_use]
    pub fn node(&self, raft_id: RaftId) -> Option<&Arc<Node>> {
        self.nodes.get(&raft_id)
    }

    /// Returns the member that the operator calls `id`.
    #[must_use]
    pub fn node_by_id(&self, id: &str) -> Option<&Arc<Node>> {
        self.nodes.values().find(|node| node.id == *id)
    }

    /// Returns the record of `raft_id`, also when it left not long ago.
    #[must_use]
    pub fn node_record(&self, raft_id: RaftId) -> Option<&Arc<Node>> {
        let departed = || {
            self.departed
                .iter()
                .rev()
                .find(|node| node.raft_id == raft_id)
        };
        self.node(raft_id).or_else(departed)
    }

    /// Tells whether `raft_id` was given up before it was ever active, and not removed by anybody: it
    /// held nothing, so that its process may join anew.
    #[must_use]
    pub fn was_dismissed(&self, raft_id: RaftId) -> bool {
        self.node(raft_id).is_none()
            && self
                .node_record(raft_id)
                .is_some_and(|node| node.status == NodeStatus::Joining)
    }

    /// Tells whether `raft_id` is a member thought to be running.
    #[must_use]
    pub fn is_live(&self, raft_id: RaftId) -> bool {
        self.node(raft_id).is_some_and(|node| node.status.is_live())
    }

    /// Returns every partition in order.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Returns the record of `partition`.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(partition.index())
    }

    /// Returns every partition with its id.
    pub fn partitions_by_id(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.partitions
            .iter()
            .enumerate()
            .map(|(i, p)| (PartitionId::from_index(i), p))
    }

    /// Returns the plan in force.
    #[must_use]
    pub fn plan(&self) -> Option<&ActivePlan> {
        self.plan.as_deref()
    }

    /// Tells whether primaries may be dealt better than the last plan could: since then one was
    /// lost, could not take its place, or a member has caught up that may lead again.
    #[must_use]
    pub const fn roles_stale(&self) -> bool {
        self.roles_stale
    }

    /// Returns what the last plan was computed from.
    #[must_use]
    pub const fn planned_basis(&self) -> u64 {
        self.plan_basis
    }

    /// Returns the rows that a returning node should find again, the primary first; empty before
    /// the first placement. See [`crate::placement::PlacementInput::home`].
    #[must_use]
    pub fn home(&self) -> &[Vec<RaftId>] {
        &self.home
    }

    /// Returns the health of the cluster as a whole.
    #[must_use]
    pub const fn health(&self) -> &ClusterHealth {
        &self.health
    }

    /// Returns the value of custom data under `key`.
    #[must_use]
    pub fn data(&self, key: &str) -> Option<&DataEntry> {
        self.data.get(key)
    }

    /// Returns the custom data whose keys begin with `prefix`, in key order.
    pub fn data_with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a DataEntry)> {
        let from = self.data.range::<str, _>((
            core::ops::Bound::Included(prefix),
            core::ops::Bound::Unbounded,
        ));
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.as_str(), entry))
    }

    /// Returns the number of the newest event.
    #[must_use]
    pub const fn last_event(&self) -> EventSeq {
        self.last_event
    }

    /// Returns the kept events after `cursor`, oldest first, and whether older ones are missing.
    #[must_use]
    pub fn events_after(&self, cursor: EventSeq) -> (Vec<Arc<Event>>, bool) {
        let oldest = self
            .events
            .front()
            .map_or(self.last_event.0 + 1, |event| event.seq.0);
        let mut next = cursor.0.saturating_add(1);
        if planted::is_on(Bug::SkipEventOnResume) && next > 1 {
            next += 1;
        }
        let missed = next < oldest;
        let skip = usize::try_from(next.saturating_sub(oldest)).unwrap_or(usize::MAX);
        (self.events.iter().skip(skip).cloned().collect(), missed)
    }

    /// Returns a digest of everything a placement depends on but the rows themselves. A plan is
    /// due when it differs from [`Self::planned_basis`].
    #[must_use]
    pub fn plan_basis(&self) -> u64 {
        let mut text: Vec<u8> = Vec::with_capacity(4 + self.nodes.len() * 24);
        text.extend(self.config.replication_factor.to_be_bytes());
        for node in self.nodes.values().filter(|node| self.counts(node)) {
            text.extend(node.raft_id.0.to_be_bytes());
            text.extend(node.weight.to_be_bytes());
            text.extend(node.zone.as_bytes());
            text.push(0);
        }
        for pause in &self.pauses {
            // A plan made while work is paused is none for when it goes on, and the other way round:
            // the epoch, which plans are compared by otherwise, is the same.
            text.extend(pause.work.as_str().as_bytes());
            text.push(0);
        }
        xxhash_rust::xxh3::xxh3_64(&text)
    }

    /// Tells whether `node` is a member, joining member or unreleased former member of anything.
    #[must_use]
    pub fn holds_anything(&self, node: RaftId) -> bool {
        self.partitions
            .iter()
            .any(|partition| partition.involves(node))
    }

    /// Returns how many partitions are in a stage between two sets of members.
    #[must_use]
    pub fn moves_in_flight(&self) -> usize {
        let moving = |partition: &&Partition| matches!(partition.stage, Stage::Syncing(_));
        self.partitions.iter().filter(moving).count()
    }

    /// Builds the published snapshot, as seen by the member `this`. Before the cluster is formed it
    /// has no nodes, and no partition has a primary.
    ///
    /// # Panics
    /// Never on a state that [`Self::check_invariants`] accepts.
    #[must_use]
    pub fn topology(&self, this: RaftId) -> Topology {
        let unformed = [const { &Partition::UNPLACED }; 1];
        let partitions: &mut dyn Iterator<Item = &Partition> = if self.partitions.is_empty() {
            &mut unformed.into_iter()
        } else {
            &mut self.partitions.iter()
        };
        let rows = partitions.map(|partition| TopologyRow {
            primary: partition.primary,
            replicas: partition.replicas.clone(),
            behind: partition.behind.iter().map(|behind| behind.node).collect(),
            joining: partition
                .joining()
                .iter()
                .map(|joining| joining.node)
                .collect(),
            epoch: partition.epoch,
        });
        let parts = TopologyParts {
            cluster: self.cluster.unwrap_or(ClusterId::from_bytes([0; 16])),
            name: self.config.name.clone(),
            generation: self.generation,
            epoch: self.epoch,
            hash: self.config.hash,
            replication_factor: self.config.replication_factor,
            nodes: self.nodes.values().cloned().collect(),
            rows: rows.collect(),
        };
        Topology::new(parts)
            .expect("invariant: the state names only known nodes")
            .seen_by(this)
    }

    /// Returns the live in-sync member of `partition` best suited to lead it, if there is one.
    fn successor(
        &self,
        partition: &Partition,
        without: &[RaftId],
        now: UnixMillis,
    ) -> Option<RaftId> {
        if planted::is_on(Bug::PromoteOutOfSync) {
            // As if being behind did not matter.
            let mut members = partition.members();
            return members.find(|node| self.is_live(*node) && !without.contains(node));
        }
        let fit = partition
            .in_sync()
            .filter(|node| self.is_live(*node) && !without.contains(node));
        if planted::is_on(Bug::ApplyDependsOnProcess) && planted::parity_of_process() {
            return fit.last();
        }
        // The first of those that are equally well suited.
        fit.min_by_key(|&node| self.reluctance(node, now))
    }

    fn compute_health(&self) -> ClusterHealth {
        let down = |node: &&Arc<Node>| {
            node.status == NodeStatus::Down || self.vetoes.contains_key(&node.raft_id)
        };
        let unhealthy_nodes: Vec<RaftId> = self
            .nodes
            .values()
            .filter(down)
            .map(|node| node.raft_id)
            .collect();
        let headless = self
            .partitions
            .iter()
            .any(|p| p.primary.is_none() && !p.is_unplaced());
        let total = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let unhealthy = u32::try_from(unhealthy_nodes.len()).unwrap_or(u32::MAX);
        let status = if headless {
            crate::event::HealthStatus::Critical
        } else if unhealthy > 0 {
            crate::event::HealthStatus::Degraded
        } else {
            crate::event::HealthStatus::Healthy
        };
        ClusterHealth {
            status,
            healthy: total - unhealthy,
            unhealthy,
            total,
            unhealthy_nodes,
        }
    }
}

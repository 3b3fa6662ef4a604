//! Which moves of the plan in force begin now: the most urgent first, within the limits.
//!
//! The order is [`plan_steps`]'s. A partition moves as a whole, so its most urgent step speaks for
//! it. The limits count copies: per cluster the partitions that copy, per node the copies it
//! receives and, apart from those, the copies it serves.
//!
//! Invariant: a move that waits for a node with room does not hold back those behind it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{BATCH, placement_node, position};
use crate::command::MoveStart;
use crate::id::{PartitionId, PlanId, RaftId};
use crate::partition::Partition;
use crate::placement::{PlacementInput, Rows, plan_steps};
use crate::planted::{self, Bug};
use crate::state::{ActivePlan, ClusterState};

/// The moves of one plan in the order in which they should begin.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// What the order was made for: the plan, and the nodes as they stood.
    made_for: Option<(PlanId, u64)>,
    order: Vec<PartitionId>,
}

impl Agenda {
    /// Returns the moves of `plan` to begin now, of those that may start; those that copy only if
    /// copying is allowed.
    pub(super) fn due(
        &mut self,
        state: &ClusterState,
        plan: &ActivePlan,
        may_copy: bool,
        may_start: impl Fn(PartitionId) -> bool,
    ) -> Vec<MoveStart> {
        let current = Some((plan.id, standing(state)));
        if self.made_for != current {
            self.order = order(state, plan);
            self.made_for = current;
        }
        // Counted once something can begin: mostly everything has.
        let mut load = None;
        let mut moves = Vec::new();
        let held = state.held_back();
        let held = |id: PartitionId| {
            held.binary_search_by_key(&id, |&(held, _)| held).is_ok()
                && !planted::is_on(Bug::IgnorePause)
        };
        for &id in self.order.iter().filter(|&&id| !held(id) && may_start(id)) {
            let (Some(row), Some(partition)) = (plan.targets.get(&id), state.partition(id)) else {
                continue;
            };
            if !state.can_start_move(id, row) {
                continue;
            }
            let comes = row
                .iter()
                .copied()
                .filter(|&node| !partition.is_member(node));
            let comes: Vec<RaftId> = comes.collect();
            if !comes.is_empty() && !may_copy {
                continue;
            }
            let load = load.get_or_insert_with(|| Load::new(state));
            let Some(sources) = load.take_on(state, partition, row, &comes) else {
                continue;
            };
            moves.push(MoveStart {
                partition: id,
                sources,
            });
            if moves.len() == BATCH {
                break;
            }
        }
        moves
    }
}

/// The copies under way, those about to begin included.
struct Load {
    moves: usize,
    moves_max: usize,
    received: BTreeMap<RaftId, u32>,
    served: BTreeMap<RaftId, u32>,
    per_node: u32,
}

impl Load {
    fn new(state: &ClusterState) -> Self {
        let config = state.config();
        let mut load = Self {
            moves: state.moves_in_flight(),
            moves_max: config.moves_in_flight as usize,
            received: BTreeMap::new(),
            served: BTreeMap::new(),
            per_node: config.moves_per_node,
        };
        for partition in state.partitions() {
            // Who holds everything already copies no more.
            for joining in partition.joining().iter().filter(|joining| !joining.synced) {
                let mut sources = partition.sources(joining.node).into_iter();
                if let Some(source) = sources.find(|&source| state.is_live(source)) {
                    *load.served.entry(source).or_default() += 1;
                }
                *load.received.entry(joining.node).or_default() += 1;
            }
        }
        load
    }

    /// Takes on the copies to `comes` and returns who serves each, none when there is no room.
    fn take_on(
        &mut self,
        state: &ClusterState,
        partition: &Partition,
        row: &[RaftId],
        comes: &[RaftId],
    ) -> Option<Vec<RaftId>> {
        if comes.is_empty() {
            return Some(Vec::new());
        }
        let busy = |counts: &BTreeMap<RaftId, u32>, node| counts.get(&node).copied().unwrap_or(0);
        let room = |&node: &RaftId| busy(&self.received, node) < self.per_node;
        if self.moves >= self.moves_max || !comes.iter().all(room) {
            return None;
        }
        let mut holders: Vec<RaftId> = partition.in_sync().collect();
        holders.retain(|&node| state.is_live(node));
        // Who leaves has least else to do, who leads most.
        let rank = |&node: &RaftId| (row.contains(&node), partition.primary == Some(node));
        holders.sort_by_key(rank);
        let mut sources: Vec<RaftId> = Vec::new();
        for _ in comes {
            let free = |node: &&RaftId| {
                let more = sources.iter().filter(|&source| source == *node).count();
                (busy(&self.served, **node) as usize) + more < self.per_node as usize
            };
            // A move that needs more than the limit allows may begin where nothing else is served:
            // otherwise few holders could never serve many that join.
            let idle = |node: &&RaftId| busy(&self.served, **node) == 0;
            let found = holders.iter().find(free);
            let source = *found.or_else(|| holders.iter().find(idle))?;
            sources.push(source);
        }
        for (&node, &source) in comes.iter().zip(&sources) {
            *self.received.entry(node).or_default() += 1;
            *self.served.entry(source).or_default() += 1;
        }
        self.moves += 1;
        Some(sources)
    }
}

/// Returns a digest of how the nodes stand, on which urgency depends.
fn standing(state: &ClusterState) -> u64 {
    let mut text: Vec<u8> = Vec::new();
    for node in state.nodes() {
        text.extend(node.raft_id.0.to_be_bytes());
        text.push(u8::from(node.status.is_live()) | u8::from(node.takes_data()) << 1);
        text.extend(node.zone.as_bytes());
        text.push(0);
    }
    xxhash_rust::xxh3::xxh3_64(&text)
}

/// Returns the partitions of `plan`, the most urgent first.
fn order(state: &ClusterState, plan: &ActivePlan) -> Vec<PartitionId> {
    let members: Vec<RaftId> = state.nodes().map(|node| node.raft_id).collect();
    let index = |id: RaftId| position(&members, id);
    let (mut current, mut target, mut home) = (Rows::new(), Rows::new(), Rows::new());
    for (id, partition) in state.partitions_by_id() {
        let others = partition.replicas.iter().filter_map(|&node| index(node));
        current.push_led(partition.primary.and_then(index), others);
        match plan.targets.get(&id) {
            Some(row) => {
                let row: Vec<u16> = row.iter().filter_map(|&node| index(node)).collect();
                target.push(&row);
            }
            None => target.push(current.row(id.index())),
        }
    }
    for row in state.home() {
        let row: Vec<u16> = row.iter().filter_map(|&node| index(node)).collect();
        home.push(&row);
    }
    let live: Vec<bool> = state.nodes().map(|node| node.status.is_live()).collect();
    let config = state.config();
    let placed = state.nodes().map(|node| placement_node(node)).collect();
    let input = PlacementInput::new(config.partition_count, config.replication_factor, placed)
        .with_current(current)
        .with_home(home);
    let steps = plan_steps(&input, &target, &live, config.moves_per_node);
    let mut seen = BTreeSet::new();
    let mut order: Vec<PartitionId> = Vec::new();
    for step in steps {
        let id = PartitionId(step.partition);
        if plan.targets.contains_key(&id) && seen.insert(id) {
            order.push(id);
        }
    }
    // A row that differs in nothing but its order has no step, and is over as soon as it begins.
    order.extend(plan.targets.keys().filter(|&&id| !seen.contains(&id)));
    order
}

//! Who takes over from primaries that are lost, as the placement strategy chooses.

use alloc::vec::Vec;

use super::{placement_node, position};
use crate::id::{PartitionId, RaftId};
use crate::placement::{PlacementInput, PlacementStrategy, Rows};
use crate::state::ClusterState;

/// Returns who takes over what `node` leads where it is to lead nothing any more, as `strategy`
/// chooses: who is live, in sync, and may lead.
#[must_use]
pub fn heirs_of(
    strategy: &dyn PlacementStrategy,
    state: &ClusterState,
    node: RaftId,
) -> Vec<(PartitionId, RaftId)> {
    let fit = |id: RaftId| id != node && state.may_lead(id);
    promotions(strategy, state, &[node], &fit)
}

/// Returns the heirs of exactly the partitions that `down` led and that somebody else holds.
pub(super) fn promotions(
    strategy: &dyn PlacementStrategy,
    state: &ClusterState,
    down: &[RaftId],
    is_fit: &dyn Fn(RaftId) -> bool,
) -> Vec<(PartitionId, RaftId)> {
    let stays = |node: RaftId| state.is_live(node) && !down.contains(&node);
    let live: Vec<bool> = state.nodes().map(|node| stays(node.raft_id)).collect();
    let members: Vec<RaftId> = state.nodes().map(|node| node.raft_id).collect();
    let index = |id: RaftId| position(&members, id);
    let mut rows = Rows::new();
    for partition in state.partitions() {
        // Whoever is behind cannot lead.
        let others = partition
            .in_sync()
            .filter(|&id| Some(id) != partition.primary);
        rows.push_led(partition.primary.and_then(index), others.filter_map(index));
    }
    let config = state.config();
    let placed = state.nodes().map(|node| {
        let may_lead = is_fit(node.raft_id);
        let node = placement_node(node);
        let may_lead = may_lead && node.may_lead;
        node.with_may_lead(may_lead)
    });
    let placed = placed.collect();
    let (count, factor) = (config.partition_count, config.replication_factor);
    let input = PlacementInput::new(count, factor, placed).with_current(rows);
    let Ok(answer) = strategy.failover(&input, &live) else {
        // The state promotes the first in-sync replica where no heir is named.
        return Vec::new();
    };
    let mut promotions = Vec::new();
    for (id, partition) in state.partitions_by_id() {
        let orphaned = partition.primary.is_some_and(|it| down.contains(&it));
        let heir = answer.rows.primary(id.index());
        let heir = heir.and_then(|at| members.get(usize::from(at)));
        if let Some(&heir) = heir.filter(|_| orphaned) {
            promotions.push((id, heir));
        }
    }
    promotions
}

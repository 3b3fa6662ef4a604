//! [`PlanRequest`]: what a placement is computed from, and the command that proposes it.
//!
//! When one is due is decided in `coordinator.rs`.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::keep::keep_members;
use crate::command::Command;
use crate::event::PlanTrigger;
use crate::id::{Epoch, PartitionId, RaftId};
use crate::node::{Drain, Node};
use crate::partition::{Partition, Stage};
use crate::pause::Work;
use crate::placement::{
    MinimalMove, Placement, PlacementError, PlacementInput, PlacementNode, PlacementStrategy, Rows,
    Standing, VerifyError, verify,
};
use crate::state::ClusterState;
use crate::time::UnixMillis;

/// A placement to be computed and proposed.
#[derive(Debug)]
pub struct PlanRequest {
    /// What the strategy is to place.
    pub input: PlacementInput,
    /// The member behind each index of the input.
    pub members: Vec<RaftId>,
    /// The epoch it is computed on.
    pub base: Epoch,
    /// What it is computed from.
    pub basis: u64,
    /// Why.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<RaftId>,
}

/// Returns the request for a placement of `state` as it stands, none when no node takes data.
#[must_use]
pub fn plan_request(state: &ClusterState, basis: u64) -> Option<PlanRequest> {
    let mut nodes = Vec::new();
    let mut members = Vec::new();
    // Where everybody vetoes itself, somebody has to lead all the same.
    let anybody_fit = state.nodes().any(|node| state.may_lead(node.raft_id));
    for node in state.nodes() {
        members.push(node.raft_id);
        let fit = state.may_lead(node.raft_id) || !anybody_fit;
        let node = placement_node(node);
        let may_lead = node.may_lead && fit;
        nodes.push(node.with_may_lead(may_lead));
    }
    if !state
        .nodes()
        .any(|node| node.takes_data() && node.status.is_live())
    {
        return None;
    }
    let index = |id: RaftId| position(&members, id);
    let mut current = Rows::new();
    for partition in state.partitions() {
        match &partition.stage {
            // A move under way counts as done.
            Stage::Syncing(migration) => {
                let row: Vec<u16> = migration
                    .target
                    .iter()
                    .filter_map(|&id| index(id))
                    .collect();
                current.push(&row);
            }
            Stage::Stable | Stage::Cleanup { .. } => {
                let others = partition.replicas.iter().filter_map(|&id| index(id));
                current.push_led(partition.primary.and_then(index), others);
            }
        }
    }
    let mut home = Rows::new();
    for row in state.home() {
        let (first, others) = row
            .split_first()
            .map_or((None, row.as_slice()), |(first, others)| {
                (Some(*first), others)
            });
        let others = others.iter().filter_map(|&id| index(id));
        home.push_led(first.and_then(index), others);
    }
    let mut frozen = Vec::new();
    for (held, _) in state.held_back() {
        frozen.resize(held.index(), false);
        frozen.push(true);
    }
    let (trigger, trigger_node) = trigger(state);
    let config = state.config();
    let input = PlacementInput::new(config.partition_count, config.replication_factor, nodes);
    let mut input = input.with_current(current).with_home(home);
    input.policy.keep_members = state.is_paused(Work::Balance);
    Some(PlanRequest {
        input: input.with_frozen(frozen),
        members,
        base: state.epoch(),
        basis,
        trigger,
        trigger_node,
    })
}

impl PlanRequest {
    /// Computes the placement with `strategy`, and checks it before anybody relies on it.
    ///
    /// This is the one place where plans are checked: strategies do not check themselves.
    ///
    /// A placement whose certificate does not hold is replaced by the layout that is valid by
    /// construction, and the reason is returned with it. A strategy without a certificate promises
    /// nothing that could be checked here; its rows are checked when they are applied.
    ///
    /// # Errors
    /// [`PlacementError`] when the input is beyond a limit of the strategy.
    pub fn compute(
        &self,
        strategy: &dyn PlacementStrategy,
    ) -> Result<(Placement, Option<VerifyError>), PlacementError> {
        compute(&self.input, strategy)
    }

    /// Returns who is to serve the empty partitions whose placed members are all down: the live
    /// nodes that were given least. There is nothing to copy, and waiting helps nobody.
    fn stand_ins(&self, placement: &Placement) -> BTreeMap<usize, u16> {
        let nodes = &self.input.nodes;
        let is_live = |node: u16| {
            let record = nodes.get(usize::from(node));
            record.is_some_and(|record| record.may_lead && record.is_eligible())
        };
        let rows = &placement.rows;
        let unserved = |&partition: &usize| {
            let empty = self.input.current.members(partition).next().is_none();
            empty && !rows.row(partition).is_empty() && !rows.members(partition).any(is_live)
        };
        let mut stand_ins: BTreeMap<usize, u16> =
            (0..rows.len()).filter(unserved).map(|it| (it, 0)).collect();
        if stand_ins.is_empty() {
            return stand_ins;
        }
        let live = (0u16..).take(nodes.len()).filter(|&node| is_live(node));
        let mut given: BTreeMap<u16, usize> = live.map(|node| (node, 0)).collect();
        for node in (0..rows.len()).flat_map(|partition| rows.members(partition)) {
            if let Some(given) = given.get_mut(&node) {
                *given += 1;
            }
        }
        stand_ins.retain(|_, stand_in| {
            let least = given.iter_mut().min_by_key(|(_, given)| **given);
            least.is_some_and(|(&node, given)| {
                (*stand_in, *given) = (node, *given + 1);
                true
            })
        });
        stand_ins
    }

    /// Returns the command that proposes `placement`.
    #[must_use]
    pub fn command(&self, placement: &Placement, at: UnixMillis) -> Command {
        let mut targets = Vec::new();
        let stand_ins = self.stand_ins(placement);
        // What must stay is not named: whatever the strategy made of it, and whether it moves now.
        let free = (0..placement.rows.len()).filter(|&it| !self.input.is_frozen(it));
        for partition in free {
            let mut row = placement.rows.row(partition).to_vec();
            if let Some(&stand_in) = stand_ins.get(&partition) {
                row.insert(0, stand_in);
                row.pop();
            }
            let named = row
                .iter()
                .filter_map(|&node| self.members.get(usize::from(node)));
            let row: Vec<RaftId> = named.copied().collect();
            if !row.is_empty() {
                targets.push((PartitionId::from_index(partition), row));
            }
        }
        Command::Plan {
            base: self.base,
            trigger: self.trigger,
            trigger_node: self.trigger_node,
            basis: self.basis,
            targets,
            at,
        }
    }
}

/// Computes the placement of `input` as [`PlanRequest::compute`] does.
pub(crate) fn compute(
    input: &PlacementInput,
    strategy: &dyn PlacementStrategy,
) -> Result<(Placement, Option<VerifyError>), PlacementError> {
    let (placement, refuted) = checked(input, strategy)?;
    let placement = match input.policy.keep_members {
        true => keep_members(input, placement),
        false => placement,
    };
    Ok((placement, refuted))
}

fn checked(
    input: &PlacementInput,
    strategy: &dyn PlacementStrategy,
) -> Result<(Placement, Option<VerifyError>), PlacementError> {
    let placement = strategy.place(input)?;
    if placement.certificate.is_none() {
        return Ok((placement, None));
    }
    let Err(refuted) = verify(input, &placement) else {
        return Ok((placement, None));
    };
    let mut without_search = input.clone();
    without_search.policy.work_limit = Some(0);
    let placement = MinimalMove::default().place(&without_search)?;
    Ok((placement, Some(refuted)))
}

/// Returns where `id` stands among `members`, which are in order.
pub(super) fn position(members: &[RaftId], id: RaftId) -> Option<u16> {
    let found = members.binary_search(&id).ok();
    found.and_then(|at| u16::try_from(at).ok())
}

pub(super) fn placement_node(node: &Node) -> PlacementNode {
    let standing = if node.takes_data() {
        Standing::Eligible
    } else {
        Standing::Draining
    };
    PlacementNode::new(node.id.clone())
        .with_weight(node.weight)
        .with_zone(node.zone.clone())
        .with_standing(standing)
        .with_may_lead(node.status.is_live())
}

fn trigger(state: &ClusterState) -> (PlanTrigger, Option<RaftId>) {
    if state.partitions().iter().all(Partition::is_unplaced) {
        return (PlanTrigger::Bootstrap, None);
    }
    let holds = |node: &&Arc<Node>| state.holds_anything(node.raft_id);
    let find = |test: &dyn Fn(&Node) -> bool| {
        state
            .nodes()
            .filter(holds)
            .find(|node| test(node))
            .map(|node| node.raft_id)
    };
    let drains = |node: &Node| node.drain != Drain::No && !state.is_paused(Work::Drain);
    if let Some(node) = find(&drains) {
        return (PlanTrigger::NodeLeave, Some(node));
    }
    if let Some(node) = find(&|node| node.evicted && !state.is_paused(Work::Repair)) {
        return (PlanTrigger::Repair, Some(node));
    }
    let empty = |node: &&Arc<Node>| node.takes_data() && !holds(node);
    match state.nodes().filter(empty).last() {
        Some(node) => (PlanTrigger::NodeJoin, Some(node.raft_id)),
        None => (PlanTrigger::Rebalance, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims the first proof it ever made for everything.
    #[derive(Debug)]
    struct Liar;

    impl PlacementStrategy for Liar {
        fn name(&self) -> &'static str {
            "liar"
        }

        fn place(&self, input: &PlacementInput) -> Result<Placement, PlacementError> {
            let mut placement = MinimalMove::default().place(input)?;
            let mut rows = Rows::new();
            for row in placement.rows.iter() {
                rows.push(&row[..1]);
            }
            placement.rows = rows;
            Ok(placement)
        }

        fn failover(
            &self,
            input: &PlacementInput,
            live: &[bool],
        ) -> Result<Placement, PlacementError> {
            MinimalMove::default().failover(input, live)
        }
    }

    #[test]
    fn a_placement_that_its_certificate_does_not_prove_is_never_proposed() {
        let nodes =
            ["a", "b", "c", "d"].map(|id| PlacementNode::new(crate::id::NodeId::new(id).unwrap()));
        let request = PlanRequest {
            input: PlacementInput::new(16, 3, nodes.to_vec()),
            members: alloc::vec![RaftId(1), RaftId(5), RaftId(6), RaftId(7)],
            base: Epoch(1),
            basis: 1,
            trigger: PlanTrigger::Bootstrap,
            trigger_node: None,
        };
        let (honest, refuted) = request.compute(&MinimalMove::default()).unwrap();
        assert_eq!((refuted, honest.flags.fallback), (None, false));
        let (replaced, refuted) = request.compute(&Liar).unwrap();
        assert!(refuted.is_some());
        assert!(replaced.flags.fallback);
        assert!(replaced.rows.iter().all(|row| row.len() == 3));
    }
}

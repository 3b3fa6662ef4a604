//! Choosing primaries on given rows: as balanced as can be, then the fewest changes, then leaders
//! that hold the data already.
//!
//! This file says who may lead a row and at what cost; the exact assignment is found in
//! [`assign`]. Joint optimality of rows and primaries is not sought: it is not a flow.

mod assign;

use alloc::vec;
use alloc::vec::Vec;

pub(super) use self::assign::Assignment;
use super::flow::{Budget, Stuck};
use super::input::{PlacementInput, Standing};
use super::mix::{mix, node_key};
use super::outcome::{LEAD_CHANGE_COST, Placement};
use super::problem::{Problem, by_id};
use super::rows::{NO_NODE, Rows};
use super::targets::Targets;

/// Primaries in ranks, with prices and figures.
#[derive(Debug)]
pub(super) struct Primaries {
    /// The primary of every partition in ranks; [`NO_NODE`] where none may lead, or where the
    /// primary is pinned to a node that is not eligible.
    pub(super) chosen: Vec<u16>,
    pub(super) prices: Vec<i64>,
    pub(super) violation: u32,
    pub(super) rounds: u32,
}

/// Chooses primaries for `rows` (in ranks, any order, one per partition).
pub(super) fn choose(
    problem: &Problem<'_>,
    targets: &Targets,
    rows: &Rows,
    budget: &mut Budget,
) -> Result<Primaries, Stuck> {
    let mut assignment = Assignment::new(
        problem.partitions,
        targets.lead_floor.clone(),
        targets.lead_ceil.clone(),
    );
    let mut candidates = Vec::new();
    for partition in 0..problem.partitions {
        candidates.clear();
        add_candidates(problem, partition, rows.row(partition), &mut candidates);
        assignment.push_row(&candidates);
    }
    assignment.solve(&problem.key, budget)?;
    Ok(Primaries {
        prices: assignment.prices(budget)?,
        violation: assignment.violation(),
        rounds: assignment.rounds(),
        chosen: (0..problem.partitions)
            .map(|partition| assignment.chosen(partition))
            .collect(),
    })
}

/// Lists who may lead a row and at what cost; a cost of 0 is the present primary.
fn add_candidates(
    problem: &Problem<'_>,
    partition: usize,
    row: &[u16],
    candidates: &mut Vec<(u16, i64)>,
) {
    if let Some(pinned) = problem.pinned_primary(partition) {
        let rank = problem.rank[usize::from(pinned)];
        if rank != NO_NODE {
            candidates.push((rank, 0));
        }
        return;
    }
    let may_lead = |node: &u16| problem.may_lead[usize::from(*node)];
    let held = problem.held.row(partition);
    let primary = held.first().copied().filter(|&node| node != NO_NODE);
    let home = problem.home.primary(partition);
    let any_held = row.iter().any(|node| may_lead(node) && held.contains(node));
    candidates.extend(row.iter().copied().filter(may_lead).map(|node| {
        let fresh = any_held && !held.contains(&node) && home != Some(node);
        let cost = match primary == Some(node) {
            true => 0,
            false => LEAD_CHANGE_COST + i64::from(fresh),
        };
        (node, cost)
    }));
}

/// Replaces exactly the primaries that are not live, on unchanged rows.
///
/// Every other row has one candidate, its present primary; the bounds are widened to what nodes
/// lead already, so that the orphans go where they disturb the balance least.
pub(super) fn failover(input: &PlacementInput, live: &[bool]) -> Placement {
    let order = by_id(input);
    let mut rank = vec![NO_NODE; input.nodes.len()];
    for (at, &node) in (0u16..).zip(&order) {
        rank[usize::from(node)] = at;
    }
    let is_live = |node: u16| live.get(usize::from(node)).copied().unwrap_or(false);
    let can_lead = |node: u16| {
        input.nodes.get(usize::from(node)).is_some_and(|record| {
            is_live(node) && record.may_lead && record.standing != Standing::Excluded
        })
    };
    let partitions = input.partition_count as usize;
    let (floor, ceil) = widened_shares(input, &order, &rank, &can_lead);
    let mut assignment = Assignment::new(partitions, floor, ceil);
    let mut candidates = Vec::new();
    for partition in 0..partitions {
        candidates.clear();
        match input
            .current
            .primary(partition)
            .filter(|&node| can_lead(node))
        {
            Some(primary) => candidates.push((rank[usize::from(primary)], 0)),
            None => candidates.extend(
                input
                    .current
                    .members(partition)
                    .filter(|&node| can_lead(node))
                    .map(|node| {
                        let late = !input.nodes[usize::from(node)].is_eligible();
                        (rank[usize::from(node)], LEAD_CHANGE_COST + i64::from(late))
                    }),
            ),
        }
        candidates.sort_unstable();
        candidates.dedup_by_key(|candidate| candidate.0);
        assignment.push_row(&candidates);
    }
    let key = |&node: &u16| {
        mix(
            node_key(input.nodes[usize::from(node)].id.as_str()),
            input.policy.salt,
        )
    };
    let keys: Vec<u64> = order.iter().map(key).collect();
    let mut budget = Budget {
        spent: 0,
        limit: u64::MAX,
    };
    let solved = assignment.solve(&keys, &mut budget);
    let chosen = |partition: usize| match assignment.chosen(partition) {
        NO_NODE => None,
        rank => Some(order[usize::from(rank)]),
    };
    let mut rows = Rows::with_capacity(partitions, input.replication_factor as usize);
    let mut leaderless = 0;
    for partition in 0..partitions {
        let primary = chosen(partition);
        let others = input
            .current
            .members(partition)
            .filter(|&node| Some(node) != primary);
        rows.push_led(primary, others);
        leaderless += u32::from(primary.is_none() && !rows.row(partition).is_empty());
    }
    let mut placement = Placement::new(input, rows);
    placement.flags.leaderless = leaderless;
    placement.flags.fallback = solved.is_err();
    placement.stats.primary_rounds = assignment.rounds();
    placement.stats.work = budget.spent;
    placement
}

/// Returns the bounds of the fair shares among the nodes that can lead, widened to what they lead.
fn widened_shares(
    input: &PlacementInput,
    order: &[u16],
    rank: &[u16],
    can_lead: &dyn Fn(u16) -> bool,
) -> (Vec<u32>, Vec<u32>) {
    let mut count = vec![0u32; order.len()];
    for partition in 0..input.partition_count as usize {
        if let Some(primary) = input
            .current
            .primary(partition)
            .filter(|&node| can_lead(node))
        {
            count[usize::from(rank[usize::from(primary)])] += 1;
        }
    }
    let weight = |node: u16| {
        let record = &input.nodes[usize::from(node)];
        match record.is_eligible() && can_lead(node) {
            true => u64::from(record.weight),
            false => 0,
        }
    };
    let weights: u64 = order.iter().map(|&node| weight(node)).sum::<u64>().max(1);
    let share = |node: u16| u64::from(input.partition_count) * weight(node);
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let bounds = |(&node, &led): (&u16, &u32)| {
        let (floor, ceil) = (share(node) / weights, share(node).div_ceil(weights));
        (small(floor).min(led), small(ceil).max(led))
    };
    order.iter().zip(&count).map(bounds).unzip()
}

//! Choosing primaries on given rows: as balanced as can be, then the fewest changes, then leaders
//! that hold the data already.
//!
//! This file says who may lead a row and at what cost; the exact assignment is found in
//! [`assign`]. Joint optimality of rows and primaries is not sought: it is not a flow.

mod assign;
mod failover;

use alloc::vec::Vec;

use self::assign::Assignment;
pub(super) use self::failover::failover;
use super::flow::{Budget, Stuck};
use super::outcome::LEAD_CHANGE_COST;
use super::problem::Problem;
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

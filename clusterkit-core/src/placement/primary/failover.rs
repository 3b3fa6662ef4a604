//! Failover: new primaries for exactly the rows that lost theirs, on unchanged rows.
//!
//! Only the orphaned rows take part, so nothing else can change. They are shared out by weight on
//! top of what the nodes lead already; where the rows do not allow that (a zone's replicas are
//! elsewhere), the upper bounds are raised together until they fit, so that the load stays as even
//! as it can be. Moving replicas is not considered: that is for a plan, later.

use alloc::vec;
use alloc::vec::Vec;

use super::super::flow::{Budget, Stuck};
use super::super::input::{PlacementInput, Standing};
use super::super::mix::{mix, node_key};
use super::super::outcome::{LEAD_CHANGE_COST, Placement};
use super::super::problem::by_id;
use super::super::rows::{NO_NODE, Rows};
use super::Assignment;

/// Upper bounds are raised in steps of one part in this many of the fair share.
const LEVEL_STEP: u64 = 256;
/// The highest level tried: 64 times the fair share. Beyond that, balance is given up.
const LEVEL_MAX: u64 = 64 * LEVEL_STEP;

/// Replaces exactly the primaries that are not live, on unchanged rows.
pub(in crate::placement) fn failover(input: &PlacementInput, live: &[bool]) -> Placement {
    let orphans = Orphans::new(input, live);
    let mut budget = Budget {
        spent: 0,
        limit: u64::MAX,
    };
    let solved = orphans.share_out(&mut budget);
    let chosen = |orphan: usize| match &solved {
        Ok(assignment) => assignment.chosen(orphan),
        Err(_) => {
            let candidates = &orphans.candidates[orphan];
            candidates.first().map_or(NO_NODE, |&(rank, _)| rank)
        }
    };
    let mut rows = Rows::with_capacity(input.current.len(), input.replication_factor as usize);
    let (mut leaderless, mut orphan) = (0, 0);
    for partition in 0..input.partition_count as usize {
        let mut primary = input.current.primary(partition);
        if orphans.partitions.get(orphan) == Some(&partition) {
            let rank = usize::from(chosen(orphan));
            primary = orphans.order.get(rank).copied();
            orphan += 1;
        }
        let others = input.current.members(partition);
        rows.push_led(primary, others.filter(|&node| Some(node) != primary));
        leaderless += u32::from(primary.is_none() && !rows.row(partition).is_empty());
    }
    let mut placement = Placement::new(input, rows);
    placement.flags.leaderless = leaderless;
    placement.flags.fallback = solved.is_err();
    placement.stats.primary_rounds = solved.map_or(0, |assignment| assignment.rounds());
    placement.stats.work = budget.spent;
    placement
}

/// The rows without a live primary, and what the nodes lead apart from them. Nodes by rank of id.
struct Orphans<'a> {
    input: &'a PlacementInput,
    order: Vec<u16>,
    /// The share by weight of every node that can lead and is not to be emptied.
    weight: Vec<u64>,
    led: Vec<u32>,
    partitions: Vec<usize>,
    candidates: Vec<Vec<(u16, i64)>>,
}

impl<'a> Orphans<'a> {
    fn new(input: &'a PlacementInput, live: &[bool]) -> Self {
        let order = by_id(input);
        let mut rank = vec![NO_NODE; input.nodes.len()];
        for (at, &node) in (0u16..).zip(&order) {
            rank[usize::from(node)] = at;
        }
        let can_lead = |node: u16| {
            let record = input.nodes.get(usize::from(node));
            record.is_some_and(|record| record.may_lead && record.standing != Standing::Excluded)
                && live.get(usize::from(node)).copied().unwrap_or(false)
        };
        let weight = |&node: &u16| match &input.nodes[usize::from(node)] {
            record if record.is_eligible() && can_lead(node) => u64::from(record.weight),
            _ => 0,
        };
        let mut orphans = Self {
            input,
            weight: order.iter().map(weight).collect(),
            led: vec![0; order.len()],
            order,
            partitions: Vec::new(),
            candidates: Vec::new(),
        };
        for partition in 0..input.partition_count as usize {
            if let Some(primary) = input
                .current
                .primary(partition)
                .filter(|&node| can_lead(node))
            {
                orphans.led[usize::from(rank[usize::from(primary)])] += 1;
                continue;
            }
            let members = input.current.members(partition);
            let candidate = |node: u16| {
                let last = !input.nodes[usize::from(node)].is_eligible();
                (rank[usize::from(node)], LEAD_CHANGE_COST + i64::from(last))
            };
            let able = members.filter(|&node| can_lead(node));
            let mut candidates: Vec<(u16, i64)> = able.map(candidate).collect();
            candidates.sort_unstable();
            candidates.dedup_by_key(|candidate| candidate.0);
            orphans.partitions.push(partition);
            orphans.candidates.push(candidates);
        }
        orphans
    }

    /// Finds the lowest level of upper bounds at which all orphans fit.
    fn share_out(&self, budget: &mut Budget) -> Result<Assignment, Stuck> {
        let fair = self.at_level(LEVEL_STEP, budget)?;
        if fair.excess() == 0 {
            return Ok(fair);
        }
        let (mut low, mut high) = (LEVEL_STEP, 2 * LEVEL_STEP);
        let mut best = self.at_level(high, budget)?;
        while best.excess() > 0 && high < LEVEL_MAX {
            (low, high) = (high, 2 * high);
            best = self.at_level(high, budget)?;
        }
        while high - low > 1 && best.excess() == 0 {
            let middle = low.midpoint(high);
            let tried = self.at_level(middle, budget)?;
            match tried.excess() {
                0 => (high, best) = (middle, tried),
                _ => low = middle,
            }
        }
        Ok(best)
    }

    /// Shares out the orphans with upper bounds of `level / LEVEL_STEP` fair shares.
    fn at_level(&self, level: u64, budget: &mut Budget) -> Result<Assignment, Stuck> {
        let all = u128::from(self.weight.iter().sum::<u64>().max(1));
        let (mut floor, mut ceil) = (Vec::new(), Vec::new());
        for (&weight, &led) in self.weight.iter().zip(&self.led) {
            let share = u128::from(self.input.partition_count) * u128::from(weight);
            let whole = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
            let upper = (share * u128::from(level)).div_ceil(all * u128::from(LEVEL_STEP));
            let more = whole(upper).saturating_sub(led);
            ceil.push(more);
            floor.push(whole(share / all).saturating_sub(led).min(more));
        }
        let mut assignment = Assignment::new(self.candidates.len(), floor, ceil);
        for candidates in &self.candidates {
            assignment.push_row(candidates);
        }
        let key = |&node: &u16| {
            let id = self.input.nodes[usize::from(node)].id.as_str();
            mix(node_key(id), self.input.policy.salt)
        };
        let keys: Vec<u64> = self.order.iter().map(key).collect();
        assignment.solve(&keys, budget)?;
        Ok(assignment)
    }
}

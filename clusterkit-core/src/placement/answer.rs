//! From ranks back to the caller's terms: rows of positions, and what there is to say about them.
//!
//! Shared by all strategies; none of it decides anything.

use alloc::vec::Vec;

use super::outcome::Placement;
use super::problem::Problem;
use super::rows::{NO_NODE, Rows};
use super::targets::Targets;

/// Collects the rows of all partitions in ranks, ascending: free ones from `members`, frozen ones
/// as they are.
pub(super) fn all_rows(problem: &Problem<'_>, members: impl Fn(usize, &mut Vec<u16>)) -> Rows {
    let mut rows = Rows::with_capacity(problem.partitions, problem.factor);
    let mut row = Vec::with_capacity(problem.factor);
    let mut free = 0;
    for partition in 0..problem.partitions {
        row.clear();
        if problem.free.get(free).copied() == u32::try_from(partition).ok() {
            members(free, &mut row);
            free += 1;
        } else {
            row.extend(problem.held.members(partition));
        }
        row.sort_unstable();
        rows.push(&row);
    }
    rows
}

/// Translates rows into positions: the primary, then members that stay in their present order,
/// then new ones by id. Frozen rows keep every member that exists, eligible or not.
pub(super) fn present(problem: &Problem<'_>, rows: &Rows, chosen: &[u16]) -> Rows {
    let input = problem.input;
    let mut table = Rows::with_capacity(problem.partitions, problem.factor);
    let mut seen = alloc::vec![u32::MAX; input.nodes.len()];
    let mut members: Vec<u16> = Vec::new();
    for (partition, &leader) in chosen.iter().enumerate() {
        let stamp = u32::try_from(partition).expect("invariant: partition counts fit u32");
        let row = rows.row(partition);
        members.clear();
        for node in input.current.members(partition) {
            let at = usize::from(node);
            let Some(&rank) = problem.rank.get(at) else {
                continue;
            };
            let stays = input.is_frozen(partition) || (rank != NO_NODE && row.contains(&rank));
            if stays && seen[at] != stamp {
                seen[at] = stamp;
                members.push(node);
            }
        }
        for &rank in row {
            let node = problem.position[usize::from(rank)];
            if seen[usize::from(node)] != stamp {
                members.push(node);
            }
        }
        let primary = problem
            .pinned_primary(partition)
            .or_else(|| problem.position.get(usize::from(leader)).copied());
        let others = members.iter().copied();
        table.push_led(primary, others.filter(|&node| Some(node) != primary));
    }
    table
}

/// Fills in what the targets say about the placement, whoever made the rows.
pub(super) fn describe(problem: &Problem<'_>, targets: &Targets, placement: &mut Placement) {
    let flags = &mut placement.flags;
    flags.unavailable = problem.factor == 0;
    flags.under_replicated = problem.factor < problem.input.replication_factor as usize;
    flags.zone_cap = problem.zones > 1 && targets.per_zone_least > 1;
    flags.per_zone = targets.per_zone;
    flags.overloaded = targets.overloaded;
    flags.leaderless = placement
        .rows
        .iter()
        .map(|row| u32::from(row.first() == Some(&NO_NODE)))
        .sum();
    placement.stats.moves_bound = moves_bound(problem, targets);
    placement.stats.primary_bound = primary_bound(problem, targets);
}

/// Returns how many copies the loads alone demand.
fn moves_bound(problem: &Problem<'_>, targets: &Targets) -> u32 {
    if problem.factor == 0 {
        return 0;
    }
    let mut kept = alloc::vec![0; problem.nodes()];
    for &partition in &problem.free {
        for node in problem.held.members(partition as usize) {
            kept[usize::from(node)] += 1;
        }
    }
    let replicas = problem.free.len() * problem.factor;
    bound(&kept, &targets.floor, &targets.ceil, replicas)
}

/// Returns how many primary changes the shares alone demand.
pub(super) fn primary_bound(problem: &Problem<'_>, targets: &Targets) -> u32 {
    if !problem.may_lead.contains(&true) {
        return 0;
    }
    let mut led = alloc::vec![0; problem.nodes()];
    for partition in 0..problem.partitions {
        if let Some(node) = problem.held.primary(partition) {
            led[usize::from(node)] += 1;
        }
    }
    let (floor, ceil) = (&targets.lead_floor, &targets.lead_ceil);
    bound(&led, floor, ceil, problem.partitions)
}

/// Returns how many of `total` units must move at least, given what every node has.
fn bound(kept: &[u32], floor: &[u32], ceil: &[u32], total: usize) -> u32 {
    let floors: i64 = floor.iter().map(|&least| i64::from(least)).sum();
    let (mut missing, mut absorbed) = (0, 0);
    for node in 0..kept.len() {
        let (have, least) = (i64::from(kept[node]), i64::from(floor[node]));
        missing += (least - have).max(0);
        absorbed += (have.min(i64::from(ceil[node])) - least).max(0);
    }
    let ceilings = i64::try_from(total).unwrap_or(i64::MAX) - floors;
    u32::try_from(missing + (ceilings - absorbed).max(0)).unwrap_or(u32::MAX)
}

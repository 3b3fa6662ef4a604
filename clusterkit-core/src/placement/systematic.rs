//! The systematic layout: valid and balanced by construction, without a search.
//!
//! The way out when the exact solver gives up. Every node appears as many times as its load, the
//! nodes grouped by zone; partition `i` takes the entries `i`, `i + P`, `i + 2P` and so on. A node
//! has at most one replica per partition, so its entries lie within a run of `P` and never meet; a
//! zone's run gives every partition the floor or the ceiling of its share, within the zone's
//! bounds. Movement is not considered at all.

use alloc::vec;
use alloc::vec::Vec;

use super::problem::Problem;
use super::targets::Targets;

/// Returns the members of every free partition, in ranks, `problem.factor` of them each.
pub(super) fn layout(problem: &Problem<'_>, targets: &Targets) -> Vec<Vec<u16>> {
    let loads = loads(problem, targets);
    let mut by_zone: Vec<u16> = (0u16..).take(problem.nodes()).collect();
    by_zone.sort_by_key(|&node| problem.zone[usize::from(node)]);
    let mut rows = vec![Vec::with_capacity(problem.factor); problem.free.len()];
    let entries = by_zone
        .iter()
        .flat_map(|&node| core::iter::repeat_n(node, loads[usize::from(node)] as usize));
    for (entry, node) in entries.enumerate() {
        rows[entry % problem.free.len()].push(node);
    }
    rows
}

/// Chooses whole loads within the shares whose sums fit the zones.
fn loads(problem: &Problem<'_>, targets: &Targets) -> Vec<u32> {
    let rows = problem.free.len() as u64;
    let mut load = targets.floor.clone();
    let mut sums = vec![0u64; problem.zones];
    for (node, &zone) in problem.zone.iter().enumerate() {
        sums[usize::from(zone)] += u64::from(load[node]);
    }
    let mut left = (rows * problem.factor as u64).saturating_sub(sums.iter().sum());
    let bounds = [&targets.zone_least, &targets.zone_most];
    for bound in bounds {
        for (node, zone) in problem
            .zone
            .iter()
            .map(|&zone| usize::from(zone))
            .enumerate()
        {
            let room = (u64::from(bound[zone]) * rows).saturating_sub(sums[zone]);
            let more = u64::from(targets.ceil[node] - load[node])
                .min(room)
                .min(left);
            load[node] += u32::try_from(more).expect("invariant: at most one per partition");
            sums[zone] += more;
            left -= more;
        }
    }
    load
}

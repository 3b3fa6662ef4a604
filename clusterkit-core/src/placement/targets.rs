//! Fair shares: how many replicas every node and every zone should hold.
//!
//! Capped water-filling in exact rational arithmetic: a node's share is `weight * level - fixed`,
//! kept between 0 and one replica per partition, and the shares of a zone together are kept within
//! the zone's bounds; where a zone is bound, its own level applies inside it. A share need not be
//! whole: a node's load is to be its floor or its ceiling. How replicas are found for the shares
//! is the business of [`flow`](super::flow).
//!
//! Invariant (feasibility): `share / partitions` is a fractional placement that satisfies every
//! bound at once, and the bounds are those of an integer flow network, so a placement within
//! `floor..=ceil` of every share exists.

use alloc::vec;
use alloc::vec::Vec;

use super::problem::Problem;

/// A fraction that is not negative: numerator and denominator.
pub(super) type Ratio = (u128, u128);

/// The bounds a placement has to meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// The least and the most replicas of a partition per zone.
    pub(super) zone_least: Vec<u16>,
    pub(super) zone_most: Vec<u16>,
    /// The cap behind `zone_most`, before it is limited by the nodes of the zone.
    pub(super) per_zone: u32,
    /// The cap the strictest spread would need.
    pub(super) per_zone_least: u32,
    /// The least and the most replicas per node.
    pub(super) floor: Vec<u32>,
    pub(super) ceil: Vec<u32>,
    /// The fraction of a share above its floor, scaled to 2^32: who should get the ceiling first.
    pub(super) rest: Vec<u64>,
    /// The least and the most partitions a node should lead.
    pub(super) lead_floor: Vec<u32>,
    pub(super) lead_ceil: Vec<u32>,
    /// The water level, and the level of every zone.
    pub(super) level: Ratio,
    pub(super) zone_level: Vec<Ratio>,
    /// Whether a share exceeds the plain share by weight (by more than the limit, when set).
    pub(super) overloaded: bool,
}

/// Computes the bounds for `problem`.
pub(super) fn targets(problem: &Problem<'_>) -> Targets {
    let policy = &problem.input.policy;
    let least = spread_cap(problem);
    let wanted = policy.max_per_zone.unwrap_or(least).max(least);
    let mut targets = with_cap(problem, least, wanted);
    if let (None, Some(limit)) = (policy.max_per_zone, policy.overload_limit_permille) {
        let most = u32::try_from(problem.factor).expect("invariant: the factor is small");
        let mut best = overload(problem, &targets);
        for cap in least + 1..=most {
            if within_limit(best, limit) {
                break;
            }
            let wider = with_cap(problem, least, cap);
            let overload = overload(problem, &wider);
            if less(overload, best) {
                best = overload;
                targets = wider;
            }
        }
        targets.overloaded = !within_limit(best, limit);
    } else {
        targets.overloaded = less((1, 1), overload(problem, &targets));
    }
    lead_shares(problem, &mut targets);
    targets
}

/// Returns the smallest number of replicas of a partition per zone for which rows can be filled.
fn spread_cap(problem: &Problem<'_>) -> u32 {
    let count = zone_sizes(problem);
    (1..)
        .find(|&cap| {
            let room: usize = count.iter().map(|&nodes| nodes.min(cap)).sum();
            cap >= problem.factor || room >= problem.factor
        })
        .and_then(|cap| u32::try_from(cap).ok())
        .expect("invariant: a cap of the factor always suffices")
}

fn zone_sizes(problem: &Problem<'_>) -> Vec<usize> {
    let mut count = vec![0; problem.zones];
    for &zone in &problem.zone {
        count[usize::from(zone)] += 1;
    }
    count
}

/// Computes zone bounds and replica shares for a given cap.
fn with_cap(problem: &Problem<'_>, least: u32, cap: u32) -> Targets {
    let small = |value: usize| u16::try_from(value).expect("invariant: factors are small");
    let count = zone_sizes(problem);
    let (strict, factor) = (cap == least, problem.factor);
    let mut targets = Targets {
        per_zone: cap,
        per_zone_least: least,
        ..Targets::default()
    };
    for &nodes in &count {
        let (lower, upper) = match problem.zones {
            1 => (0, factor),
            _ if strict => (nodes.min(least as usize - 1), nodes.min(cap as usize)),
            _ => (0, nodes.min(cap as usize).min(factor)),
        };
        targets.zone_least.push(small(lower));
        targets.zone_most.push(small(upper));
    }
    if factor > 0 {
        fill(problem, &mut targets);
    }
    targets
}

/// A node as the water sees it: weight, and replicas it has in frozen rows.
type Vessel = (u128, u128);

/// Finds the levels and with them every node's floor and ceiling.
fn fill(problem: &Problem<'_>, targets: &mut Targets) {
    let cap = problem.free.len() as u128;
    let total = cap * problem.factor as u128;
    let mut vessels: Vec<Vec<Vessel>> = vec![Vec::new(); problem.zones];
    for rank in 0..problem.nodes() {
        let vessel = (
            u128::from(problem.weight[rank]),
            u128::from(problem.fixed[rank]),
        );
        vessels[usize::from(problem.zone[rank])].push(vessel);
    }
    let bounds: Vec<(u128, u128)> = targets
        .zone_least
        .iter()
        .zip(&targets.zone_most)
        .map(|(&least, &most)| (u128::from(least) * cap, u128::from(most) * cap))
        .collect();
    let (level, zone_level) = levels(&vessels, &bounds, cap, total);
    let tolerance = u128::from(problem.input.policy.tolerance_permille);
    for rank in 0..problem.nodes() {
        let (above, below) = zone_level[usize::from(problem.zone[rank])];
        let vessel = (
            u128::from(problem.weight[rank]),
            u128::from(problem.fixed[rank]),
        );
        let share = volume(vessel, cap, (above, below));
        let floor = share * (1_000 - tolerance) / (below * 1_000);
        let ceil = (share * (1_000 + tolerance))
            .div_ceil(below * 1_000)
            .min(cap);
        let rest = ((share % below) << 32) / below;
        targets.floor.push(narrow(floor));
        targets.ceil.push(narrow(ceil));
        targets
            .rest
            .push(u64::try_from(rest).expect("invariant: a fraction of 2^32"));
    }
    targets.level = level;
    targets.zone_level = zone_level;
}

fn narrow(value: u128) -> u32 {
    u32::try_from(value).expect("invariant: a share is at most one replica per partition")
}

/// Finds the common level at which the zones hold `total`, and each zone's own level.
fn levels(
    vessels: &[Vec<Vessel>],
    bounds: &[(u128, u128)],
    cap: u128,
    total: u128,
) -> (Ratio, Vec<Ratio>) {
    let mut turns: Vec<Ratio> = Vec::new();
    for (zone, &(least, most)) in vessels.iter().zip(bounds) {
        add_turns(&mut turns, zone, cap);
        if vessels.len() > 1 {
            turns.push(solve(zone, cap, least));
            turns.push(solve(zone, cap, most));
        }
    }
    let held = |level: Ratio| -> u128 {
        let zones = vessels.iter().zip(bounds);
        zones
            .map(|(zone, &(least, most))| {
                held_by(zone, cap, level).clamp(least * level.1, most * level.1)
            })
            .sum()
    };
    let (before, at) = bracket(turns, total, held);
    let level = match before {
        None => at,
        Some(before) => {
            let mut moving: Vec<Vessel> = Vec::new();
            let mut left = total;
            for (zone, &(least, most)) in vessels.iter().zip(bounds) {
                if held_by(zone, cap, at) <= least * at.1 {
                    left -= least;
                } else if held_by(zone, cap, before) >= most * before.1 {
                    left -= most;
                } else {
                    moving.extend_from_slice(zone);
                }
            }
            interpolate(&moving, cap, before, at, left)
        }
    };
    let own = vessels.iter().zip(bounds).map(|(zone, &(least, most))| {
        let held = held_by(zone, cap, level);
        if held < least * level.1 {
            solve(zone, cap, least)
        } else if held > most * level.1 {
            solve(zone, cap, most)
        } else {
            level
        }
    });
    (level, own.collect())
}

/// Returns what one vessel holds at `level`, over the denominator of `level`.
fn volume((weight, fixed): Vessel, cap: u128, (above, below): Ratio) -> u128 {
    (weight * above)
        .saturating_sub(fixed * below)
        .min(cap * below)
}

/// Returns what all vessels hold at `level`, over the denominator of `level`.
fn held_by(vessels: &[Vessel], cap: u128, level: Ratio) -> u128 {
    vessels.iter().map(|&one| volume(one, cap, level)).sum()
}

/// Adds the levels at which a vessel begins and ceases to fill.
fn add_turns(turns: &mut Vec<Ratio>, vessels: &[Vessel], cap: u128) {
    for &(weight, fixed) in vessels {
        turns.push((fixed, weight));
        turns.push((fixed + cap, weight));
    }
}

/// Returns the smallest level at which `vessels` hold `wanted`.
fn solve(vessels: &[Vessel], cap: u128, wanted: u128) -> Ratio {
    let mut turns = Vec::with_capacity(2 * vessels.len() + 1);
    add_turns(&mut turns, vessels, cap);
    match bracket(turns, wanted, |level| held_by(vessels, cap, level)) {
        (None, at) => at,
        (Some(before), at) => interpolate(vessels, cap, before, at, wanted),
    }
}

/// Returns the turns between which `held` reaches `wanted`: the last below, the first not below.
fn bracket(
    mut turns: Vec<Ratio>,
    wanted: u128,
    held: impl Fn(Ratio) -> u128,
) -> (Option<Ratio>, Ratio) {
    turns.push((0, 1));
    turns.sort_unstable_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
    turns.dedup_by(|a, b| a.0 * b.1 == b.0 * a.1);
    let last = turns.len() - 1;
    let first = turns[..last].partition_point(|&turn| held(turn) < wanted * turn.1);
    (
        first.checked_sub(1).map(|before| turns[before]),
        turns[first],
    )
}

/// Returns the level in `(before, at]` at which `vessels` hold `wanted`; no vessel turns between.
fn interpolate(vessels: &[Vessel], cap: u128, before: Ratio, at: Ratio, wanted: u128) -> Ratio {
    let (mut weights, mut fixed, mut full) = (0, 0, 0);
    for &(weight, held) in vessels {
        if less(before, (held, weight)) {
            continue;
        }
        if less((held + cap, weight), at) {
            full += cap;
            continue;
        }
        weights += weight;
        fixed += held;
    }
    match weights {
        0 => at,
        _ => (wanted + fixed - full, weights),
    }
}

fn less(a: Ratio, b: Ratio) -> bool {
    a.0 * b.1 < b.0 * a.1
}

/// Returns the largest ratio of a node's share to its plain share by weight.
fn overload(problem: &Problem<'_>, targets: &Targets) -> Ratio {
    let weights: u128 = problem
        .weight
        .iter()
        .map(|&weight| u128::from(weight))
        .sum();
    let total = problem.partitions as u128 * problem.factor as u128;
    let cap = problem.free.len() as u128;
    let mut worst = (0, 1);
    if total == 0 {
        return worst;
    }
    for rank in 0..problem.nodes() {
        let level = targets.zone_level[usize::from(problem.zone[rank])];
        let weight = u128::from(problem.weight[rank]);
        let fixed = u128::from(problem.fixed[rank]);
        let share = volume((weight, fixed), cap, level) + fixed * level.1;
        let (load, fair) = (share * weights, total * weight * level.1);
        // In steps of 2^-20, rounded up, which is exact where it matters: at 1.
        let scaled = ((load / fair) << 20) + ((load % fair) << 20).div_ceil(fair);
        let ratio = (scaled, 1 << 20);
        if less(worst, ratio) {
            worst = ratio;
        }
    }
    worst
}

fn within_limit(overload: Ratio, limit_permille: u32) -> bool {
    overload.0 * 1_000 <= u128::from(limit_permille) * overload.1
}

/// Computes how many partitions every node should lead: its share by weight among those that may.
fn lead_shares(problem: &Problem<'_>, targets: &mut Targets) {
    let weight = |rank: usize| match problem.may_lead[rank] {
        true => u128::from(problem.weight[rank]),
        false => 0,
    };
    let weights: u128 = (0..problem.nodes()).map(weight).sum();
    for rank in 0..problem.nodes() {
        let share = problem.partitions as u128 * weight(rank);
        let (floor, ceil) = match weights {
            0 => (0, 0),
            _ => (share / weights, share.div_ceil(weights)),
        };
        targets.lead_floor.push(narrow(floor));
        targets.lead_ceil.push(narrow(ceil));
    }
}

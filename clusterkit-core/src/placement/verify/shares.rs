//! Fair shares from the water levels of a certificate, and whether the levels are right.
//!
//! Given a level, a node's share follows by one multiplication. The levels are right when the
//! shares add up and every zone that departs from the common level does so in the direction its
//! bound forces: lifted to its least, or held down to its most. Fractions are exact.

use alloc::vec;
use alloc::vec::Vec;

use super::VerifyError;
use super::rules::{Range, Rules};
use crate::placement::outcome::Certificate;

/// The largest term of a level that is accepted: no honest one comes near, and no product with it
/// overflows.
const LEVEL_MAX: u128 = 1 << 56;

/// Returns the range of loads every node may have in free partitions.
pub(super) fn replica_shares(
    rules: &Rules<'_>,
    certificate: &Certificate,
) -> Result<Vec<Range>, VerifyError> {
    let mut shares = vec![(0, 0); rules.input.nodes.len()];
    if rules.width == 0 {
        return Ok(shares);
    }
    let unfair = |rule| VerifyError::Level { rule };
    let zones = rules.zone_range.len();
    let mut level = vec![certificate.level; zones];
    for &(node, own) in &certificate.zone_levels {
        let zone = rules.zone.get(usize::from(node)).copied().flatten();
        level[zone.ok_or_else(|| unfair("a level belongs to no zone"))?] = own;
    }
    let sound =
        |&(above, below): &(u128, u128)| below > 0 && below < LEVEL_MAX && above < LEVEL_MAX;
    if !level.iter().chain([&certificate.level]).all(sound) {
        return Err(unfair("a level is not a fraction"));
    }
    let cap = u128::from(rules.free);
    let tolerance = u128::from(rules.input.policy.tolerance_permille);
    let mut sums = vec![0u128; zones];
    for (at, share) in shares.iter_mut().enumerate() {
        let Some(zone) = rules.zone[at] else {
            continue;
        };
        let (above, below) = level[zone];
        let risen = u128::from(rules.input.nodes[at].weight) * above;
        let exact = risen
            .saturating_sub(u128::from(rules.fixed[at]) * below)
            .min(cap * below);
        sums[zone] += exact;
        let floor = exact * (1_000 - tolerance) / (below * 1_000);
        let ceil = (exact * (1_000 + tolerance)).div_ceil(below * 1_000);
        let small = |value: u128| u32::try_from(value.min(cap)).unwrap_or(u32::MAX);
        *share = (small(floor), small(ceil));
    }
    check_levels(rules, certificate.level, &level, &sums)?;
    Ok(shares)
}

fn check_levels(
    rules: &Rules<'_>,
    common: (u128, u128),
    level: &[(u128, u128)],
    sums: &[u128],
) -> Result<(), VerifyError> {
    let unfair = |rule| Err(VerifyError::Level { rule });
    let free = u128::from(rules.free);
    let (mut whole, mut parts) = (0, 0);
    for (zone, &(least, most)) in rules.zone_range.iter().enumerate() {
        let (own, sum) = (level[zone], sums[zone]);
        let (least, most) = (
            u128::from(least) * free * own.1,
            u128::from(most) * free * own.1,
        );
        if sum < least || sum > most {
            return unfair("a zone is outside of its bounds");
        }
        let (mine, all) = (own.0 * common.1, common.0 * own.1);
        if mine == all {
            parts += sum * (common.1 / gcd(common.1, own.1)) / (own.1 / gcd(common.1, own.1));
            continue;
        }
        if (mine > all && sum != least) || (mine < all && sum != most) {
            return unfair("a zone departs from the common level without need");
        }
        whole += sum / own.1;
    }
    let wanted = free * u128::from(rules.width);
    match parts + whole * common.1 == wanted * common.1 {
        true => Ok(()),
        false => unfair("they do not add up to all replicas"),
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

/// Returns how many partitions every node should lead.
pub(super) fn lead_shares(rules: &Rules<'_>) -> Vec<Range> {
    let weight = |at: usize| {
        let node = &rules.input.nodes[at];
        match node.may_lead && node.is_eligible() {
            true => u64::from(node.weight),
            false => 0,
        }
    };
    let nodes = 0..rules.input.nodes.len();
    let all: u64 = nodes.clone().map(weight).sum();
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    nodes
        .map(|at| {
            let share = u64::from(rules.input.partition_count) * weight(at);
            match all {
                0 => (0, 0),
                _ => (small(share / all), small(share.div_ceil(all))),
            }
        })
        .collect()
}

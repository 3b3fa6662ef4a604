//! Validity, balance and minimality of [`MinimalMove`] on random clusters, against the reference.
//!
//! Numbers in test names are groups of properties: 1 rows, 2 shares, 3 fewest moves, 4 the
//! certificate, 5 primaries. How answers relate to each other is in `relations`.

use clusterkit_core::placement::{
    MinimalMove, Placement, PlacementInput, PlacementStrategy, verify,
};
use proptest::prelude::*;

use super::reference::{best_primaries, bounds, fewest_moves};
use super::scenario::{Dice, config, freeze_some, random};

pub(super) fn place(input: &PlacementInput) -> Placement {
    MinimalMove::new().place(input).unwrap()
}

/// Places, and checks groups 1 to 5 on the answer.
pub(super) fn check(input: &PlacementInput) -> Placement {
    let placement = place(input);
    assert!(!placement.flags.fallback, "fell back: {input:?}");
    let verdict = verify(input, &placement);
    let verdict = verdict.unwrap_or_else(|error| panic!("{error}: {input:?}"));
    let bounds = bounds(input);
    let mut load = vec![0; input.nodes.len()];
    for partition in (0..placement.rows.len()).filter(|&p| !input.is_frozen(p)) {
        let mut row: Vec<u16> = placement.rows.members(partition).collect();
        assert_eq!(row.len(), bounds.width, "{input:?}");
        row.iter().for_each(|&node| load[usize::from(node)] += 1);
        row.sort_unstable();
        row.dedup();
        assert_eq!(row.len(), bounds.width, "a node twice: {input:?}");
        for (zone, &(least, most)) in bounds.zone_range.iter().enumerate() {
            let there = row
                .iter()
                .filter(|&&node| bounds.zone[usize::from(node)] == Some(zone));
            assert!((least..=most).contains(&there.count()), "{input:?}");
        }
    }
    for (node, &load) in load.iter().enumerate() {
        let range = bounds.floor[node]..=bounds.ceil[node];
        assert!(
            range.contains(&load),
            "node {node}: {load} of {range:?}: {input:?}"
        );
    }
    let optimum = fewest_moves(input, &bounds);
    assert_eq!(i64::from(verdict.moves), optimum, "{input:?}");
    assert!(placement.stats.moves_bound <= verdict.moves, "{input:?}");
    let (violation, changes, _) = best_primaries(input, &bounds, &placement.rows);
    assert_eq!(i64::from(verdict.primary_violation), violation, "{input:?}");
    assert_eq!(i64::from(verdict.primary_changes), changes, "{input:?}");
    if bounds.plain && input.policy.tolerance_permille == 0 {
        assert_eq!(violation, 0, "{input:?}");
    }
    placement
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn groups_1_to_5_small(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 32);
        check(&input);
    }

    #[test]
    fn groups_1_to_5_frozen(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 10, 24);
        let input = freeze_some(input, &mut dice);
        check(&input);
    }

    #[test]
    fn groups_1_to_5_policies(seed: u64) {
        let mut dice = Dice::new(seed);
        let mut input = random(&mut dice, 12, 24);
        input.policy.max_per_zone = dice.chance(50).then(|| 1 + u32::try_from(dice.roll(4)).unwrap());
        input.policy.tolerance_permille = [0, 50, 300, 1_000][dice.roll(4)];
        input.policy.ignore_zones = dice.chance(10);
        for node in &mut input.nodes {
            node.may_lead = dice.chance(90);
        }
        check(&input);
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn groups_1_to_5_medium(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 40, 256);
        check(&input);
    }
}

//! Numbers at their limits, exhausted budgets, senseless rows: always an answer, never a panic.
//!
//! Numbers in test names are groups of properties: 12 arithmetic, 14 fallback and fuzz.

use clusterkit_core::placement::{
    MinimalMove, PlacementError, PlacementInput, PlacementNode, PlacementStrategy, Rows, Standing,
    VerifyError, verify,
};
use proptest::prelude::*;

use super::properties::{check, place};
use super::reference::bounds;
use super::scenario::{Dice, config, even_cluster, freeze_some, id, random};

#[test]
fn group_12_heavy_weights() {
    let mut dice = Dice::new(12);
    for factor in [1, 3, 7] {
        let heavy = |dice: &mut Dice, at: usize| {
            let weight = match dice.roll(3) {
                0 => u32::MAX,
                1 => u32::MAX - u32::try_from(dice.roll(1_000)).unwrap(),
                _ => 1 + u32::try_from(dice.roll(1 << 31)).unwrap(),
            };
            PlacementNode::new(id(at))
                .with_weight(weight)
                .with_zone(format!("{}", dice.roll(4)))
        };
        let nodes = (0..200).map(|at| heavy(&mut dice, at)).collect();
        let mut input = PlacementInput::new(4_096, factor, nodes);
        for _ in 0..2 {
            let placement = place(&input);
            assert!(!placement.flags.fallback);
            input.current = placement.rows;
            input.nodes[0].standing = Standing::Excluded;
            input.nodes[1].weight = u32::MAX;
        }
    }
}

#[test]
fn group_12_the_largest_cluster() {
    let mut dice = Dice::new(7);
    let nodes = (0..65_534).map(|at| {
        let weight = u32::MAX - u32::try_from(dice.roll(1 << 31)).unwrap();
        PlacementNode::new(id(at))
            .with_weight(weight)
            .with_zone(format!("{}", at % 5))
    });
    let input = PlacementInput::new(65_536, 7, nodes.collect());
    let placement = place(&input);
    assert!(!placement.flags.fallback);
    assert_eq!(placement.moves, 65_536 * 7);
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn group_14_an_exhausted_budget_falls_back(seed: u64, limit in 0u64..2_000) {
        let mut dice = Dice::new(seed);
        let mut input = random(&mut dice, 12, 48);
        input.policy.work_limit = Some(limit);
        let input = if dice.chance(30) { freeze_some(input, &mut dice) } else { input };
        let placement = place(&input);
        let bounds = bounds(&input);
        let mut load = vec![0; input.nodes.len()];
        for partition in (0..placement.rows.len()).filter(|&p| !input.is_frozen(p)) {
            let mut row = placement.rows.row(partition).to_vec();
            row.iter().for_each(|&node| load[usize::from(node)] += 1);
            row.sort_unstable();
            row.dedup();
            prop_assert_eq!(row.len(), bounds.width);
            for (zone, &(least, most)) in bounds.zone_range.iter().enumerate() {
                let there = row.iter().filter(|&&node| bounds.zone[usize::from(node)] == Some(zone));
                prop_assert!((least..=most).contains(&there.count()));
            }
        }
        for (node, load) in load.into_iter().enumerate() {
            prop_assert!((bounds.floor[node]..=bounds.ceil[node]).contains(&load));
        }
        if placement.flags.fallback {
            let refused = matches!(verify(&input, &placement), Err(VerifyError::NoCertificate { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn group_14_senseless_rows(
        rows in prop::collection::vec(prop::collection::vec(prop_oneof![0u16..9, Just(u16::MAX), any::<u16>()], 0..12), 0..20),
        home in prop::collection::vec(prop::collection::vec(0u16..12, 0..6), 0..20),
        seed: u64,
    ) {
        let mut dice = Dice::new(seed);
        let mut input = random(&mut dice, 9, 20);
        let count = input.partition_count as usize;
        input.current = rows.into_iter().take(count).collect();
        input.home = home.into_iter().take(count).collect();
        let input = if dice.chance(30) { freeze_some(input, &mut dice) } else { input };
        check(&input);
    }
}

#[test]
fn group_14_one_very_long_row() {
    let mut input = even_cluster(64, 500, 7);
    let long: Vec<u16> = (0..500).collect();
    input.current = [long].into_iter().collect();
    let placement = place(&input);
    assert!(!placement.flags.fallback);
    verify(&input, &placement).unwrap();
}

#[test]
fn inputs_beyond_their_limits_are_refused() {
    let refused = |input: &PlacementInput| MinimalMove::new().place(input).unwrap_err();
    let good = even_cluster(8, 3, 1);
    let mut input = good.clone();
    input.partition_count = 0;
    assert!(refused(&input).to_string().contains("partition_count is 0"));
    let mut input = good.clone();
    input.replication_factor = 65;
    assert!(refused(&input).to_string().contains("replication_factor"));
    let mut input = good.clone();
    input.nodes[1].id = input.nodes[0].id.clone();
    assert_eq!(refused(&input), PlacementError::DuplicateNode { id: id(0) });
    let mut input = good;
    input.current = Rows::empty(9);
    assert!(
        refused(&input)
            .to_string()
            .contains("current is 9, allowed is 0 to 8")
    );
}

#[test]
fn nothing_to_place_on_is_said_and_not_an_error() {
    let mut input = even_cluster(8, 3, 1);
    for node in &mut input.nodes {
        node.standing = Standing::Excluded;
    }
    let placement = place(&input);
    assert!(placement.flags.unavailable && placement.flags.under_replicated);
    assert!(placement.rows.iter().all(<[u16]>::is_empty));
    verify(&input, &placement).unwrap();
}

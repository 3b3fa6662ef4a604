//! The stateless strategies: valid rows, shares in expectation, stability. And what they lack.

use clusterkit_core::placement::{
    MinimalMove, Placement, PlacementStrategy, Rendezvous, Ring, Standing,
};
use proptest::prelude::*;

use super::reference::bounds;
use super::scenario::{Dice, config, even_cluster, freeze_some, random};

fn strategies() -> [Box<dyn PlacementStrategy>; 2] {
    [Box::new(Rendezvous::new()), Box::new(Ring::default())]
}

fn loads(placement: &Placement, nodes: usize) -> Vec<usize> {
    let mut loads = vec![0; nodes];
    for &node in placement.rows.iter().flatten() {
        loads[usize::from(node)] += 1;
    }
    loads
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn rows_are_valid_and_depend_on_the_nodes_alone(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 24);
        let input = if dice.chance(30) { freeze_some(input, &mut dice) } else { input };
        let bounds = bounds(&input);
        for strategy in strategies() {
            let placement = strategy.place(&input).unwrap();
            for p in 0..placement.rows.len() {
                let row = placement.rows.row(p);
                if input.is_frozen(p) {
                    let pinned = input.current.primary(p).filter(|&node| {
                        input.nodes[usize::from(node)].standing != Standing::Excluded
                    });
                    prop_assert!(pinned.is_none() || placement.rows.primary(p) == pinned);
                    continue;
                }
                prop_assert_eq!(row.len(), bounds.width);
                for (zone, &(least, most)) in bounds.zone_range.iter().enumerate() {
                    let there = row.iter().filter(|&&n| bounds.zone[usize::from(n)] == Some(zone));
                    prop_assert!((least..=most).contains(&there.count()));
                }
            }
            if input.frozen.is_empty() {
                let mut other = input.clone();
                other.current = placement.rows.clone();
                let again = strategy.place(&other).unwrap();
                prop_assert_eq!(again.moves, 0);
                prop_assert_eq!(again.primary_changes, 0);
            }
        }
    }
}

#[test]
fn loads_follow_the_weights_in_expectation() {
    let mut input = even_cluster(8_192, 8, 1);
    for (at, node) in input.nodes.iter_mut().enumerate() {
        node.weight = [1, 2][at % 2];
    }
    input.replication_factor = 1;
    for strategy in strategies() {
        let loads = loads(&strategy.place(&input).unwrap(), 8);
        for (at, &load) in loads.iter().enumerate() {
            let fair = [683, 1_365][at % 2];
            let stray = load.abs_diff(fair) * 100 / fair;
            assert!(stray < 35, "{}: {loads:?}", strategy.name());
        }
    }
    let loads = loads(&Rendezvous::new().place(&input).unwrap(), 8);
    for (at, &load) in loads.iter().enumerate() {
        let fair = [683, 1_365][at % 2];
        assert!(load.abs_diff(fair) * 100 / fair < 10, "{loads:?}");
    }
}

#[test]
fn a_join_moves_replicas_to_the_newcomer_only() {
    for strategy in strategies() {
        let before = strategy.place(&even_cluster(512, 10, 1)).unwrap();
        let input = even_cluster(512, 11, 1).with_current(before.rows.clone());
        let after = strategy.place(&input).unwrap();
        for p in 0..512 {
            for node in after.rows.members(p).filter(|&node| node != 10) {
                assert!(before.rows.contains(p, node), "{}", strategy.name());
            }
        }
        // An eleventh of the replicas is expected; the exact strategy needs no more than that.
        assert!(
            (90..200).contains(&after.moves),
            "{}: {}",
            strategy.name(),
            after.moves
        );
        let exact = MinimalMove::new().place(&input).unwrap();
        let spread = |placement: &Placement| {
            let loads = loads(placement, 11);
            loads.iter().max().unwrap() - loads.iter().min().unwrap()
        };
        assert!(spread(&exact) <= 1 && spread(&after) > 1);
    }
}

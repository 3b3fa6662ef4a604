//! How the answers of [`MinimalMove`] relate to each other when the question changes.
//!
//! Numbers in test names are groups of properties: 6 idempotence, 7 staging, 8 return home, 9 ties,
//! 10 equal questions, 11 wider bounds, 13 determinism.

use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    NO_NODE, PlacementInput, PlacementNode, PlacementPolicy, Rows, Standing,
};
use proptest::prelude::*;

use super::properties::{check, place};
use super::reference::bounds;
use super::scenario::{Dice, config, even_cluster, freeze_some, id, random};

fn again(input: &PlacementInput, rows: Rows) -> PlacementInput {
    input.clone().with_current(rows)
}

/// Makes `count` of the copies on the way from the current rows to `target`, anywhere.
fn advance(input: &PlacementInput, target: &Rows, dice: &mut Dice, percent: usize) -> (Rows, u32) {
    let mut made = 0;
    let rows = (0..target.len()).map(|p| {
        let mut row: Vec<u16> = vec![];
        for node in input.current.members(p) {
            if usize::from(node) < input.nodes.len() && !row.contains(&node) {
                row.push(node);
            }
        }
        let current = row.clone();
        let stay = |node: &u16| target.contains(p, *node);
        for node in target.members(p).filter(|node| !current.contains(node)) {
            if dice.chance(percent) {
                made += 1;
                if let Some(leaving) = row.iter().position(|node| !stay(node)) {
                    row.remove(leaving);
                }
                row.push(node);
            }
        }
        row
    });
    (rows.collect(), made)
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn group_6_idempotence(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 48);
        let input = if dice.chance(30) { freeze_some(input, &mut dice) } else { input };
        let first = place(&input);
        let second = place(&again(&input, first.rows.clone()));
        prop_assert_eq!(&second.rows, &first.rows);
        prop_assert_eq!((second.moves, second.primary_changes), (0, 0));
    }

    #[test]
    fn group_7_any_part_of_the_moves(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 32);
        let target = place(&input);
        let percent = dice.roll(101);
        let (rows, made) = advance(&input, &target.rows, &mut dice, percent);
        let rest = check(&again(&input, rows));
        prop_assert_eq!(made + rest.moves, target.moves, "{:?}", input);
    }

    #[test]
    fn group_7_max_moves(seed: u64) {
        let mut dice = Dice::new(seed);
        let mut input = random(&mut dice, 12, 32);
        let target = place(&input);
        let limit = 1 + dice.roll(20);
        input.policy.max_moves = Some(u32::try_from(limit).unwrap());
        let mut left = target.moves;
        loop {
            let step = place(&input);
            prop_assert_eq!(step.moves, left);
            let Some(stage) = step.stage else {
                break;
            };
            prop_assert_eq!(stage.len(), input.partition_count as usize);
            left -= u32::try_from(limit).unwrap();
            input.current = stage;
        }
        prop_assert!(left as usize <= limit);
    }

    #[test]
    fn group_9_ties_change_no_cost(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 32);
        let first = place(&input);
        let count = input.nodes.len();
        let hint = (0..input.partition_count).map(|_| {
            let take = dice.roll(5);
            dice.pick(count, take)
        });
        let hinted = check(&input.clone().with_home(hint.collect()));
        prop_assert_eq!(hinted.moves, first.moves);
        let mut salted = input.clone();
        salted.policy.salt = seed;
        prop_assert_eq!(check(&salted).moves, first.moves);
        let mut renamed = input;
        for node in &mut renamed.nodes {
            node.id = NodeId::new(format!("{:x}-{}", dice.roll(1 << 30), node.id)).unwrap();
        }
        prop_assert_eq!(check(&renamed).moves, first.moves);
    }

    #[test]
    fn group_10_equal_questions(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 32);
        let first = place(&input);
        let factor = 1 + u32::try_from(dice.roll(1_000)).unwrap();
        let mut scaled = input.clone();
        let mut drained = input.clone();
        let mut zoneless = input.clone();
        let mut one_zone = input;
        one_zone.policy.ignore_zones = true;
        for at in 0..scaled.nodes.len() {
            scaled.nodes[at].weight *= factor;
            if drained.nodes[at].weight == 0 {
                drained.nodes[at].weight = 7;
                drained.nodes[at].standing = Standing::Draining;
            }
            zoneless.nodes[at].zone = "z".into();
        }
        prop_assert_eq!(&place(&scaled).rows, &first.rows);
        prop_assert_eq!(&place(&drained).rows, &first.rows);
        prop_assert_eq!(place(&zoneless).rows, place(&one_zone).rows);
    }

    #[test]
    fn group_11_wider_bounds_move_less(seed: u64) {
        let mut dice = Dice::new(seed);
        let mut input = random(&mut dice, 12, 32);
        let strict = place(&input).moves;
        let shares = bounds(&input);
        input.policy.max_per_zone = Some(1 + u32::try_from(dice.roll(5)).unwrap());
        let wider = bounds(&input);
        if (&wider.floor, &wider.ceil) == (&shares.floor, &shares.ceil) {
            prop_assert!(place(&input).moves <= strict);
        }
        input.policy.max_per_zone = None;
        let mut least = strict;
        for tolerance in [10, 50, 200, 500, 1_000] {
            input.policy.tolerance_permille = tolerance;
            let moves = place(&input).moves;
            prop_assert!(moves <= least);
            least = moves;
        }
    }

    #[test]
    fn group_13_the_order_of_nodes_is_irrelevant(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 32);
        let input = if dice.chance(30) { freeze_some(input, &mut dice) } else { input };
        let count = input.nodes.len();
        let order = dice.pick(count, count);
        let mut back = vec![0; count];
        let mut permuted = input.clone();
        for (new, &old) in (0u16..).zip(&order) {
            back[usize::from(old)] = new;
            permuted.nodes[usize::from(new)] = input.nodes[usize::from(old)].clone();
        }
        let renumber = |rows: &Rows| -> Rows {
            rows.iter().map(|row| row.iter().map(|&node| back.get(usize::from(node)).copied().unwrap_or(NO_NODE)).collect::<Vec<_>>()).collect()
        };
        permuted.current = renumber(&input.current);
        prop_assert_eq!(place(&permuted).rows, renumber(&place(&input).rows));
    }
}

#[test]
fn group_8_a_returning_node_finds_its_partitions() {
    for (partitions, nodes, zones) in [(256, 10, 1), (512, 12, 3), (1_024, 30, 1), (1_024, 40, 5)] {
        let mut input = even_cluster(partitions, nodes, zones);
        let before = place(&input);
        input.current = before.rows.clone();
        // A node that holds a ceiling would return with one replica less: that is one copy less.
        let load = |node: u16| before.rows.iter().flatten().filter(|&&n| n == node).count();
        let away = (0..10)
            .min_by_key(|&node| load(node))
            .map(usize::from)
            .unwrap();
        input.nodes[away].standing = Standing::Excluded;
        let without = place(&input);
        assert_eq!(without.moves, without.stats.moves_bound);
        input.nodes[away].standing = Standing::Eligible;
        input.current = without.rows;
        input.home = before.rows.clone();
        let after = place(&input);
        assert_eq!(after.moves, after.stats.moves_bound);
        let mut changed = 0;
        for partition in 0..before.rows.len() {
            let sorted = |rows: &Rows| {
                let mut row = rows.row(partition).to_vec();
                row.sort_unstable();
                row
            };
            assert_eq!(
                sorted(&after.rows),
                sorted(&before.rows),
                "{partitions} x {nodes}"
            );
            changed += usize::from(after.rows.primary(partition) != before.rows.primary(partition));
        }
        assert!(changed <= 1, "{changed} primaries did not return");
    }
}

/// Mixes rows into one number, in a way that any language can repeat.
fn digest(seed: u64, rows: &Rows) -> u64 {
    rows.iter()
        .flat_map(|row| row.iter().copied().chain([0xFFFE]))
        .fold(seed, |hash, node| {
            (hash ^ u64::from(node)).wrapping_mul(0x0000_0100_0000_01B3)
        })
}

#[test]
fn group_13_a_fixed_script_gives_a_fixed_digest() {
    let mut input = even_cluster(512, 10, 3);
    let mut hash = 0xCBF2_9CE4_8422_2325;
    let mut step = |input: &mut PlacementInput| {
        let placement = place(input);
        input.current = placement.rows;
        hash = digest(hash, &input.current);
    };
    step(&mut input);
    for at in 10..14 {
        input
            .nodes
            .push(PlacementNode::new(id(at)).with_zone(format!("zone-{}", at % 3)));
        step(&mut input);
    }
    input.nodes[2].standing = Standing::Excluded;
    step(&mut input);
    input.nodes[5].standing = Standing::Draining;
    input.nodes[6].weight = 3;
    step(&mut input);
    input.replication_factor = 2;
    step(&mut input);
    input.nodes[2].standing = Standing::Eligible;
    input.policy = PlacementPolicy::default();
    input.policy.tolerance_permille = 30;
    input.replication_factor = 4;
    step(&mut input);
    assert_eq!(
        hash, 18_300_844_417_166_340_988,
        "the algorithm answers differently: explain why in the commit"
    );
}

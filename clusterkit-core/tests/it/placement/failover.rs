//! Failover: exactly the orphaned primaries change, and rows never do.

use clusterkit_core::placement::{MinimalMove, PlacementStrategy, Rows, Standing};
use proptest::prelude::*;

use super::properties::place;
use super::scenario::{Dice, config, even_cluster, random};

fn sorted(rows: &Rows, partition: usize) -> Vec<u16> {
    let mut members: Vec<u16> = rows.members(partition).collect();
    members.sort_unstable();
    members
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn exactly_the_orphans_change(seed: u64) {
        let mut dice = Dice::new(seed);
        let mut input = random(&mut dice, 12, 48);
        for node in &mut input.nodes {
            node.may_lead = dice.chance(90);
        }
        input.current = place(&input).rows;
        let live: Vec<bool> = input.nodes.iter().map(|_| dice.chance(75)).collect();
        let answer = MinimalMove::new().failover(&input, &live).unwrap();
        let can_lead = |node: u16| {
            let record = &input.nodes[usize::from(node)];
            live[usize::from(node)] && record.may_lead && record.standing != Standing::Excluded
        };
        let mut leaderless = 0;
        for p in 0..answer.rows.len() {
            prop_assert_eq!(sorted(&answer.rows, p), sorted(&input.current, p));
            let (before, after) = (input.current.primary(p), answer.rows.primary(p));
            if before.is_some_and(can_lead) {
                prop_assert_eq!(before, after);
            } else if input.current.members(p).any(can_lead) {
                prop_assert!(after.is_some_and(can_lead));
            } else {
                prop_assert_eq!(after, None);
                leaderless += u32::from(!input.current.row(p).is_empty());
            }
        }
        prop_assert_eq!(answer.moves, 0);
        prop_assert_eq!(answer.flags.leaderless, leaderless);
        prop_assert!(!answer.flags.fallback);
    }
}

#[test]
fn orphans_are_shared_out_evenly() {
    for zones in [1, 3] {
        let mut input = even_cluster(1_024, 9, zones);
        input.current = place(&input).rows;
        let mut live = vec![true; 9];
        live[4] = false;
        let answer = MinimalMove::new().failover(&input, &live).unwrap();
        let mut leads = [0u32; 9];
        for p in 0..1_024 {
            leads[usize::from(answer.rows.primary(p).unwrap())] += 1;
        }
        assert_eq!(leads[4], 0);
        // With zones, nodes of the same zone share no partition and cannot take any over.
        let heirs: Vec<u32> = (0..9usize)
            .filter(|&at| at != 4 && (zones == 1 || at % zones != 1))
            .map(|at| leads[at])
            .collect();
        let spread = heirs.iter().max().unwrap() - heirs.iter().min().unwrap();
        assert!(spread <= 4, "{leads:?}");
        assert!((113..=114).contains(&answer.primary_changes));
    }
}

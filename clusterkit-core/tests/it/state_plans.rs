//! A plan applied to the current rows gives the wanted rows, whatever happens on the way: in random
//! order, in parts, with moves called off and nodes lost and found.

use clusterkit_core::command::Command;
use clusterkit_core::id::{PartitionId, RaftId};
use proptest::prelude::*;

use crate::world::{AT, World, remove};

const NODES: u64 = 6;
const PARTITIONS: u32 = 8;

/// Returns one row per seed: `width` distinct nodes of `nodes`.
fn rows(nodes: u64, width: u8, seeds: &[u64]) -> Vec<Vec<u64>> {
    let row = |seed: &u64| {
        let mut left: Vec<u64> = (1..=nodes).collect();
        let mut seed = *seed;
        let mut row = Vec::new();
        for _ in 0..u64::from(width).min(nodes) {
            let len = left.len() as u64;
            row.push(left.remove(usize::try_from(seed % len).unwrap()));
            seed /= len;
        }
        row
    };
    seeds.iter().map(row).collect()
}

fn targets(rows: &[Vec<u64>]) -> Vec<(u32, &[u64])> {
    (0..).zip(rows.iter().map(Vec::as_slice)).collect()
}

/// Asserts that every partition stands in its row; replicas keep their order where nothing moved.
fn assert_reached(world: &World, wanted: &[Vec<u64>]) {
    for (id, wanted) in (0..).zip(wanted) {
        let mut found = world.row(id);
        assert_eq!(found[0], wanted[0], "primary of {id}");
        let mut wanted = wanted.clone();
        found[1..].sort_unstable();
        wanted[1..].sort_unstable();
        assert_eq!(found, wanted, "members of {id}");
        assert!(world.behind(id).is_empty());
    }
    assert!(world.state.plan().is_none());
}

/// Carries the plan in force as far as it goes, starting the moves of `first` before the others.
fn carry_out(world: &mut World, first: u8) {
    for round in 0..4 {
        let Some(plan) = world.state.plan() else {
            break;
        };
        let chosen = plan.targets.keys().copied();
        let chosen: Vec<PartitionId> = chosen
            .filter(|id| round > 0 || first >> id.0 & 1 == 1)
            .collect();
        let command = Command::StartMoves {
            plan: plan.id,
            moves: chosen.into_iter().map(Into::into).collect(),
            at: AT,
        };
        world.ok(command);
        let members: Vec<u64> = world.state.nodes().map(|node| node.raft_id.0).collect();
        for node in members {
            world.write();
            if world.state.is_live(RaftId(node)) {
                world.sync(node);
            }
        }
        world.switch();
        world.write();
        world.release();
    }
}

proptest! {
    #![proptest_config(crate::state_random::config(300))]

    #[test]
    fn a_plan_gives_its_target(
        nodes in 1..=NODES,
        (before, after) in (1..=4_u8, 1..=4_u8),
        now in prop::collection::vec(any::<u64>(), PARTITIONS as usize),
        then in prop::collection::vec(any::<u64>(), PARTITIONS as usize),
        (first, called_off) in any::<(u8, bool)>(),
    ) {
        let mut world = World::formed(nodes, PARTITIONS, 3);
        let (now, then) = (rows(nodes, before, &now), rows(nodes, after, &then));
        world.plan(&targets(&now));
        assert_reached(&world, &now);
        world.write();
        if called_off {
            world.start(&targets(&then));
            world.write();
            world.revert();
            world.release();
            for id in world.moving() {
                prop_assert!(false, "{id:?} still moves");
            }
        }
        world.plan(&targets(&then));
        carry_out(&mut world, first);
        assert_reached(&world, &then);
    }

    #[test]
    fn a_plan_gives_its_target_after_failures_on_the_way(
        now in prop::collection::vec(any::<u64>(), PARTITIONS as usize),
        then in prop::collection::vec(any::<u64>(), PARTITIONS as usize),
        lost in 1..=NODES,
        (returns, before_switch) in any::<(bool, bool)>(),
    ) {
        let mut world = World::formed(NODES, PARTITIONS, 3);
        let (now, mut then) = (rows(NODES, 3, &now), rows(NODES, 3, &then));
        world.plan(&targets(&now));
        world.write();
        world.start(&targets(&then));
        world.write();
        if before_switch {
            for node in 1..=NODES {
                world.sync(node);
            }
        }
        world.down(&[lost]);
        world.write();
        world.switch();
        if returns {
            world.up(&[lost]);
        } else {
            world.ok(remove(lost, true));
            for row in &mut then {
                row.retain(|&node| node != lost);
            }
        }
        world.revert();
        world.release();
        for node in (1..=NODES).filter(|&node| returns || node != lost) {
            world.sync(node);
        }
        world.plan(&targets(&then));
        carry_out(&mut world, 255);
        assert_reached(&world, &then);
    }
}

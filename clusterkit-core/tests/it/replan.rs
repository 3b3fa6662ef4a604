//! Plans that arrive while moves run: what still fits goes on, nothing is copied twice, no copy is
//! given up before another one is there.
//!
//! [`Cluster`] checks after every command that no partition loses a copy, that the limits hold and
//! that no plan begins more copies than its placement needs.

use std::collections::BTreeSet;
use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::partition::Partition;
use proptest::prelude::*;

use crate::cluster::Cluster;
use crate::world::{AT, World, ids};

/// Returns who copies what.
fn copying(cluster: &Cluster) -> BTreeSet<(PartitionId, RaftId)> {
    let partitions = cluster.state.partitions_by_id();
    let joining = partitions.flat_map(|(id, partition)| {
        let nodes = partition.joining().iter();
        nodes.map(move |joining| (id, joining.node))
    });
    joining.collect()
}

#[test]
fn a_node_that_joins_in_mid_move_stops_only_what_it_takes_over() {
    let mut cluster = Cluster::new(60);
    for id in ["node-2", "node-3", "node-4"] {
        cluster.join(id);
    }
    cluster.run(Duration::from_secs(1));
    cluster.check_settled();
    cluster.slow = true;
    let five = cluster.join("node-5");
    cluster.run(Duration::from_secs(1));
    let first = copying(&cluster);
    assert_eq!(first.len(), 32, "as many as one node may copy at once");
    for _ in 0..10 {
        cluster.finish(0);
    }
    cluster.run(Duration::from_millis(50));
    let before = cluster.copies;
    let six = cluster.join("node-6");
    cluster.run(Duration::from_secs(1));
    let (plan, now) = (cluster.state.plan().unwrap(), copying(&cluster));
    assert_eq!(plan.trigger_node, Some(six));
    for &(id, node) in &first {
        let partition = cluster.state.partition(id).unwrap();
        let goes_on = now.contains(&(id, node)) || partition.is_member(node);
        let wanted = plan.targets.get(&id).is_none_or(|row| row.contains(&node));
        assert_eq!(goes_on, wanted, "{id}: {partition:?}");
    }
    cluster.hurry();
    cluster.run(Duration::from_secs(2));
    cluster.check_settled();
    // Of 180 replicas five nodes hold 36 each, six hold 30: what node-5 and node-6 were short of.
    let copied = cluster.copies - before;
    assert!(copied <= 30 + 36 - 32 + 6, "{copied} more copies");
    assert!(cluster.state.holds_anything(five));
}

/// `PLACEMENT.md`, section 5: after any `k` of the `N` moves of a plan the least that is left is
/// `N - k`. So a cluster that moves little at a time copies no more than one that moves all at once,
/// even where everything is planned again after every round.
#[test]
fn small_rounds_copy_no_more_than_one_large_one() {
    let moved = |moves_in_flight: u32, replan: bool| {
        let mut cluster = Cluster::with(ClusterConfig {
            partition_count: 60,
            moves_in_flight,
            ..ClusterConfig::default()
        });
        for id in ["node-2", "node-3", "node-4"] {
            cluster.join(id);
        }
        cluster.run(Duration::from_secs(30));
        cluster.check_settled();
        cluster.slow = true;
        let (before, plans) = (cluster.copies, cluster.plans);
        cluster.join("node-5");
        cluster.run(Duration::from_secs(1));
        let mut rounds = 0;
        while cluster.state.plan().is_some() {
            assert!(cluster.state.moves_in_flight() <= moves_in_flight as usize);
            rounds += 1;
            assert!(rounds < 1_000, "the plan ends");
            cluster.hurry();
            cluster.slow = true;
            if replan {
                cluster.replan();
            }
            cluster.run(Duration::from_millis(200));
        }
        cluster.hurry();
        cluster.run(Duration::from_secs(1));
        cluster.check_settled();
        (cluster.copies - before, rounds, cluster.plans - plans)
    };
    // 180 replicas on five nodes: the fifth is given 36.
    let (at_once, _, plans) = moved(64, false);
    assert_eq!((at_once, plans), (36, 1));
    for limit in [1, 7] {
        let (in_rounds, rounds, plans) = moved(limit, false);
        assert_eq!((in_rounds, plans), (36, 1), "{limit} at once");
        assert!(rounds >= 36 / limit, "{rounds} rounds of {limit}");
        let (replanned, _, plans) = moved(limit, true);
        assert_eq!(replanned, 36, "{limit} at once, {plans} plans");
        assert!(plans > 1, "{plans} plans");
    }
}

/// One partition on nodes 1, 2 and 3 that moves to 4, 5 and 6: 4 has copied, 5 and 6 copy.
fn halfway() -> World {
    let mut world = World::placed(7, 1, &[1, 2, 3]);
    world.start(&[(0, &[4, 5, 6])]);
    world.sync(4);
    world.write();
    world
}

fn joining(world: &World) -> Vec<(u64, bool)> {
    let joining = world.state.partitions()[0].joining().iter();
    joining
        .map(|joining| (joining.node.0, joining.synced))
        .collect()
}

fn target(world: &World) -> Vec<u64> {
    match &world.state.partitions()[0].stage {
        clusterkit_core::partition::Stage::Syncing(migration) => {
            migration.target.iter().map(|node| node.0).collect()
        }
        stage => panic!("{stage:?}"),
    }
}

#[test]
fn a_new_plan_keeps_what_is_copied_and_lets_go_of_the_rest() {
    let mut world = halfway();
    let applied = world.plan(&[(0, &[4, 5, 7])]);
    assert_eq!(joining(&world), [(4, true), (5, false)]);
    assert_eq!(
        target(&world),
        [4, 5, 1],
        "who is replaced by 7 stays until 7 can copy"
    );
    assert_eq!(world.state.partitions()[0].leaving(), ids(&[6]));
    assert_eq!(
        applied.events.len(),
        3,
        "completed, reverted on 6, started: {applied:?}"
    );
    world.sync(5);
    world.switch();
    assert_eq!(world.row(0), [4, 5, 1]);
    // 6 has not let go yet, nor have 2 and 3: all are asked again.
    assert_eq!(world.state.partitions()[0].leaving(), ids(&[2, 3, 6]));
    world.release();
    world.start_all();
    assert_eq!(joining(&world), [(7, false)]);
    world.sync(7);
    world.switch();
    world.release();
    assert_eq!(world.row(0), [4, 5, 7]);
    assert!(world.state.plan().is_none());
}

#[test]
fn a_plan_that_wants_none_of_the_copies_reverts_the_move() {
    let mut world = halfway();
    world.plan(&[(0, &[1, 2, 7])]);
    assert_eq!(world.row(0), [1, 2, 3]);
    assert_eq!(world.state.partitions()[0].leaving(), ids(&[4, 5, 6]));
    world.release();
    world.start_all();
    world.sync(7);
    world.switch();
    world.release();
    assert_eq!(world.row(0), [1, 2, 7]);
}

#[test]
fn the_death_of_one_copying_node_costs_only_its_own_copy() {
    let mut world = halfway();
    world.down(&[6]);
    world.revert();
    assert_eq!(joining(&world), [(4, true), (5, false)]);
    assert_eq!(target(&world), [4, 5, 1]);
    world.sync(5);
    world.switch();
    assert_eq!(world.row(0), [4, 5, 1]);

    // Removed for good, its copy ends the same way.
    let mut world = halfway();
    world.ok(crate::world::remove(5, true));
    assert_eq!(joining(&world), [(4, true), (6, false)]);
    assert_ne!(
        world.state.plan_basis(),
        world.state.planned_basis(),
        "to be planned again"
    );
}

#[test]
fn a_switch_decided_before_the_target_changed_is_refused() {
    let mut world = halfway();
    world.sync(5);
    world.sync(6);
    let stale = world.moving();
    world.plan(&[(0, &[4, 5, 7])]);
    let applied = world.ok(Command::Switch {
        stages: stale.clone(),
        at: AT,
    });
    assert_eq!(applied.refused, stale);
    assert_eq!(world.row(0), [1, 2, 3]);
}

#[test]
fn the_same_plan_again_changes_nothing_that_is_under_way() {
    let mut world = halfway();
    let before = world.state.partitions().to_vec();
    world.ok(Command::Plan {
        base: world.state.epoch(),
        trigger: PlanTrigger::Rebalance,
        trigger_node: None,
        basis: world.state.plan_basis(),
        targets: vec![(PartitionId(0), ids(&[4, 5, 6]))],
        at: AT,
    });
    assert_eq!(world.state.partitions(), before);
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Join,
    Drain(usize, bool),
    Weigh(usize, u32),
    Kill(usize),
    Restart(usize),
    NewLeader,
    /// So many of the waiting answers are given, from this one on.
    Finish(usize, usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Join),
        2 => (0..8_usize, any::<bool>()).prop_map(|(i, on)| Act::Drain(i, on)),
        1 => (0..8_usize, 1..4_u32).prop_map(|(i, weight)| Act::Weigh(i, weight)),
        1 => (0..8_usize).prop_map(Act::Kill),
        1 => (0..8_usize).prop_map(Act::Restart),
        1 => Just(Act::NewLeader),
        4 => (0..64_usize, 1..24_usize).prop_map(|(from, count)| Act::Finish(from, count)),
        4 => (1..12_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn replanning_in_mid_move_loses_no_copy_makes_none_twice_and_ends(
        acts in prop::collection::vec(act(), 1..32),
    ) {
        let mut cluster = Cluster::new(24);
        for id in ["node-2", "node-3"] {
            cluster.join(id);
        }
        cluster.run(Duration::from_millis(500));
        cluster.slow = true;
        let mut joined = 3;
        for act in acts {
            let all: Vec<RaftId> = cluster.processes.keys().copied().collect();
            let pick = |i: usize| all[i % all.len()];
            let at = cluster.wall();
            match act {
                Act::Join if joined < 7 => {
                    joined += 1;
                    cluster.join(&format!("node-{joined}"));
                }
                Act::Join => {}
                Act::Drain(i, on) => {
                    let _ = cluster.apply(&Command::Drain { node: pick(i), on, leave: false, at });
                }
                Act::Weigh(i, weight) => {
                    let weight = Some(weight);
                    let node = pick(i);
                    let _ = cluster.apply(&Command::UpdateNode { node, weight, zone: None, at });
                }
                Act::Kill(i) if pick(i) != RaftId::BOOTSTRAP => {
                    cluster.processes.get_mut(&pick(i)).unwrap().up = false;
                }
                Act::Kill(_) => {}
                Act::Restart(i) => cluster.restart(pick(i)),
                Act::NewLeader => cluster.change_leader(RaftId::BOOTSTRAP),
                Act::Finish(from, count) => (0..count).for_each(|_| cluster.finish(from)),
                Act::Wait(ticks) => cluster.run(Duration::from_millis(100 * ticks)),
            }
        }
        // Who never came is dismissed by then.
        let known: Vec<RaftId> = cluster.state.nodes().map(|node| node.raft_id).collect();
        for node in known {
            let at = cluster.wall();
            let (weight, zone) = (Some(1), None);
            cluster.apply(&Command::UpdateNode { node, weight, zone, at }).unwrap();
            if !cluster.processes[&node].up {
                cluster.restart(node);
            }
        }
        cluster.hurry();
        cluster.run(Duration::from_secs(60));
        cluster.check_settled();
        let moving = |partition: &Partition| !partition.joining().is_empty();
        prop_assert!(!cluster.state.partitions().iter().any(moving));
    }
}

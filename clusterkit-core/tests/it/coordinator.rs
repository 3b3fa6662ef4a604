//! The coordinator drives a virtual cluster. What it must reach: everybody placed, balanced, in
//! sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::coordinator::Coordinator;
use clusterkit_core::detector::{DetectorConfig, Heard};
use clusterkit_core::event::LeaveReason;
use clusterkit_core::id::{Incarnation, PartitionId, RaftId};
use clusterkit_core::lease::{LeadershipProof, Lease};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::time::{Instant, UnixMillis};
use proptest::prelude::*;

use crate::cluster::Cluster;
use crate::world::{AT, World, join, spec};

#[test]
fn a_cluster_grows_loses_a_node_and_gets_it_back_without_copying_twice() {
    let mut world = Cluster::new(64);
    world.run(Duration::from_millis(500));
    world.check_settled();
    assert_eq!(world.copies, 0, "the first placement copies nothing");

    let two = world.join("node-2");
    let three = world.join("node-3");
    world.run(Duration::from_secs(1));
    world.check_settled();
    assert_eq!(
        world.copies, 128,
        "each copy is made once although two nodes joined"
    );

    world.processes.get_mut(&three).unwrap().up = false;
    world.run(Duration::from_secs(2));
    assert_eq!(world.state.node(three).unwrap().status, NodeStatus::Down);
    assert_eq!(world.copies, 128, "down is not gone: nothing is copied");
    let led_by_down = world
        .state
        .partitions()
        .iter()
        .any(|p| p.primary == Some(three));
    assert!(!led_by_down, "its partitions failed over");

    world.restart(three);
    world.run(Duration::from_secs(1));
    world.check_settled();
    assert_eq!(
        world.copies, 192,
        "what it held is caught up, nothing else moves"
    );
    assert!(world.state.node(two).is_some());
}

#[test]
fn rule_04_a_node_that_stays_down_is_repaired_after_the_delay_and_not_before() {
    let mut world = Cluster::new(32);
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    let four = world.state.node_by_id("node-4").unwrap().raft_id;
    let home: Vec<bool> = world
        .state
        .partitions()
        .iter()
        .map(|p| p.is_member(four))
        .collect();
    let held = home.iter().filter(|member| **member).count();
    let before = world.copies;
    world.processes.get_mut(&four).unwrap().up = false;
    world.run(Duration::from_secs(4));
    assert_eq!(world.copies, before);
    world.run(Duration::from_secs(4));
    assert_eq!(
        world.copies - before,
        held,
        "each copy it held is made once elsewhere"
    );
    assert!(world.state.node(four).unwrap().evicted);
    assert!(!world.state.holds_anything(four));
    world.check_settled();

    // It returns after all, and finds its own partitions again.
    let before = world.copies;
    world.restart(four);
    world.run(Duration::from_secs(2));
    world.check_settled();
    let again: Vec<bool> = world
        .state
        .partitions()
        .iter()
        .map(|p| p.is_member(four))
        .collect();
    assert_eq!(again, home, "the home hint brings it back where it was");
    assert_eq!(world.copies - before, held);
}

#[test]
fn a_leaving_node_is_dismissed_once_it_is_empty() {
    let mut world = Cluster::new(32);
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    let two = world.state.node_by_id("node-2").unwrap().raft_id;
    let at = world.wall();
    world
        .apply(&Command::Drain {
            node: two,
            on: true,
            leave: true,
            at,
        })
        .unwrap();
    world.run(Duration::from_secs(1));
    assert!(world.state.node(two).is_none());
    world.check_settled();
}

/// Five nodes, placed.
fn five() -> (Cluster, Vec<RaftId>) {
    let mut world = Cluster::new(32);
    let mut nodes = vec![RaftId::BOOTSTRAP];
    for number in 2..=5 {
        nodes.push(world.join(&format!("node-{number}")));
    }
    world.run(Duration::from_secs(3));
    world.check_settled();
    (world, nodes)
}

#[test]
fn a_leader_cut_off_from_one_node_cannot_remove_it() {
    let (mut world, nodes) = five();
    let (leader, node, epoch) = (world.leader, nodes[2], world.state.epoch());
    world.cut.insert((leader, node));
    let cut_at = world.now;
    world.run(Duration::from_secs(60));
    // Nothing has happened to anybody; somebody leads who hears the node.
    assert_eq!(world.state.epoch(), epoch);
    let [(at, from, to)] = world.yielded[..] else {
        panic!("{:?}", world.yielded);
    };
    assert_eq!(from, leader);
    assert!(to != node && to == world.leader);
    let took = at.saturating_since(cut_at);
    assert!(took <= Duration::from_millis(1_450), "after {took:?}");
    world.check_settled();
}

#[test]
fn leaders_that_each_miss_somebody_do_not_play_ping_pong_and_one_decides_in_the_end() {
    // A ring of cuts: whoever leads does not hear the next one.
    let (mut world, nodes) = five();
    for at in 0..nodes.len() {
        world.cut.insert((nodes[at], nodes[(at + 1) % nodes.len()]));
    }
    world.run(Duration::from_secs(120));
    let mut gave_way: Vec<RaftId> = world.yielded.iter().map(|&(_, from, _)| from).collect();
    gave_way.sort_unstable();
    let times = gave_way.len();
    gave_way.dedup();
    assert_eq!(gave_way.len(), times, "each once: {:?}", world.yielded);
    let down = world.state.nodes();
    let down = down.filter(|node| node.status == NodeStatus::Down).count();
    assert!((1..=2).contains(&down), "{down} are down");
}

#[test]
fn of_two_nodes_the_leader_decides_alone() {
    let mut world = Cluster::new(8);
    let other = world.join("node-2");
    world.run(Duration::from_secs(2));
    world.cut.insert((world.leader, other));
    world.run(Duration::from_secs(2));
    assert_eq!(world.state.node(other).unwrap().status, NodeStatus::Down);
    assert_eq!(world.yielded, []);
}

#[test]
fn a_node_that_was_admitted_and_never_came_is_dismissed_after_the_repair_delay() {
    let mut world = Cluster::new(32);
    for id in ["node-2", "node-3"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    let (late, lost) = (world.join("node-4"), world.join("node-5"));
    for node in [late, lost] {
        world.processes.get_mut(&node).unwrap().up = false;
    }
    // Declared down, and given the time that any node is given to come back.
    world.run(Duration::from_secs(4));
    for node in [late, lost] {
        assert_eq!(world.state.node(node).unwrap().status, NodeStatus::Down);
    }
    world.restart(late);
    world.run(Duration::from_secs(4));
    assert_eq!(
        world.state.node(late).unwrap().status,
        NodeStatus::Active,
        "it came back in time"
    );
    assert!(world.state.node(lost).is_none());
    assert!(
        world.state.was_dismissed(lost),
        "it may join anew by itself"
    );
    // Its id and its address are free again.
    let again = world.join("node-5");
    world.run(Duration::from_secs(1));
    assert_eq!(world.state.node(again).unwrap().status, NodeStatus::Active);
    world.check_settled();
}

/// What an unfriendly world does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join,
    Kill(usize),
    Restart(usize),
    Pause(usize),
    Drain(usize, bool),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Join),
        (0..8_usize).prop_map(Act::Kill),
        (0..8_usize).prop_map(Act::Restart),
        (0..8_usize).prop_map(Act::Pause),
        (0..8_usize, any::<bool>()).prop_map(|(i, on)| Act::Drain(i, on)),
        (0..8_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_a_quiet_cluster_is_placed_balanced_and_in_sync(
        acts in prop::collection::vec(act(), 1..24),
    ) {
        let mut world = Cluster::new(16);
        let mut joined = 1;
        for act in acts {
            let others: Vec<RaftId> =
                world.processes.keys().copied().filter(|&id| id != RaftId::BOOTSTRAP).collect();
            let pick = |i: usize| others.get(i % others.len().max(1)).copied();
            match act {
                Act::Join if joined < 6 => {
                    joined += 1;
                    world.join(&format!("node-{joined}"));
                }
                Act::Join => {}
                Act::Kill(i) | Act::Pause(i) => {
                    if let Some(node) = pick(i) {
                        world.processes.get_mut(&node).unwrap().up = false;
                    }
                }
                Act::Restart(i) => {
                    if let Some(node) = pick(i) {
                        world.restart(node);
                    }
                }
                Act::Drain(i, on) => {
                    if let Some(node) = pick(i).filter(|&node| world.state.node(node).is_some()) {
                        let at = world.wall();
                        let _ = world.apply(&Command::Drain { node, on, leave: false, at });
                    }
                }
                Act::Wait(ticks) => world.run(Duration::from_millis(200 * ticks)),
            }
        }
        // Those paused go on as the same process, those killed start again: then quiet.
        let all: Vec<RaftId> = world.processes.keys().copied().collect();
        for node in all {
            if !world.processes[&node].up {
                if node.0 % 2 == 0 {
                    world.resume(node);
                } else {
                    world.restart(node);
                }
            }
        }
        world.run(Duration::from_secs(60));
        world.check_settled();
    }
}

#[test]
fn a_failover_changes_exactly_the_orphaned_primaries() {
    let mut world = Cluster::new(60);
    for id in ["node-2", "node-3", "node-4", "node-5"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    world.check_settled();
    let before = world.state.partitions().to_vec();
    let three = world.state.node_by_id("node-3").unwrap().raft_id;
    world.processes.get_mut(&three).unwrap().up = false;
    world.run(Duration::from_secs(3));
    let mut led: BTreeMap<RaftId, usize> = BTreeMap::new();
    let mut orphans = 0;
    for (was, is) in before.iter().zip(world.state.partitions()) {
        let (mut old, mut new): (Vec<_>, Vec<_>) =
            (was.members().collect(), is.members().collect());
        old.sort_unstable();
        new.sort_unstable();
        assert_eq!(old, new, "nobody joins or leaves a row");
        if was.primary == Some(three) {
            orphans += 1;
            assert_ne!(is.primary, Some(three));
        } else {
            assert_eq!(is.primary, was.primary, "not an orphan");
        }
        *led.entry(is.primary.expect("somebody leads")).or_default() += 1;
    }
    assert_eq!((orphans, led.len()), (12, 4));
    assert!(
        led.values().all(|&led| led == 15),
        "shared out evenly: {led:?}"
    );
}

#[test]
fn rule_07_a_leader_change_alone_moves_nothing() {
    let mut world = Cluster::new(32);
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    let two = world.state.node_by_id("node-2").unwrap().raft_id;
    let settled = world.state.clone();
    for leader in [two, RaftId::BOOTSTRAP, two] {
        world.change_leader(leader);
        world.run(Duration::from_secs(20));
        assert_eq!(world.state, settled, "not one command was applied");
    }
    // In the middle of a plan, too: the plan in the log goes on.
    world.slow = true;
    world.join("node-5");
    world.run(Duration::from_secs(1));
    let (plan, plans) = (world.state.plan().unwrap().clone(), world.plans);
    world.change_leader(RaftId::BOOTSTRAP);
    world.run(Duration::from_secs(5));
    assert_eq!((world.state.plan(), world.plans), (Some(&plan), plans));
    let copies = world.copies;
    world.hurry();
    world.run(Duration::from_secs(1));
    world.check_settled();
    assert_eq!(world.plans, plans, "nobody planned again");
    assert_eq!(world.copies, copies, "nothing was copied twice");
}

/// Found by the simulator (full level, seed 44): nothing was ever placed.
#[test]
fn a_node_that_is_to_take_no_data_is_expected_like_any_other() {
    let mut world = Cluster::new(8);
    world.coordinator.expect(2);
    let two = world.join("node-2");
    let weightless = Command::UpdateNode {
        node: two,
        weight: Some(0),
        zone: None,
        at: world.wall(),
    };
    world.apply(&weightless).unwrap();
    world.run(Duration::from_secs(1));
    world.check_settled();
}

#[test]
fn a_node_removed_before_the_first_placement_is_not_waited_for() {
    let mut world = Cluster::new(8);
    world.coordinator.expect(3);
    let two = world.join("node-2");
    world.run(Duration::from_secs(1));
    world.apply(&remove(two, world.wall())).unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.plans, 0, "node-3 has not come yet");
    // Back under the same id it is the node that was here before, not another one.
    assert!(
        !world.state.was_dismissed(two),
        "it was removed, and stays away"
    );
    let again = world.join("node-2");
    world.run(Duration::from_secs(1));
    assert_eq!(world.plans, 0, "node-3 has not come yet");
    world.apply(&remove(again, world.wall())).unwrap();
    world.join("node-3");
    world.run(Duration::from_secs(1));
    world.check_settled();
}

const fn remove(node: RaftId, at: UnixMillis) -> Command {
    Command::Remove {
        node,
        reason: LeaveReason::Removed,
        force: false,
        at,
    }
}

#[test]
fn an_empty_partition_does_not_wait_for_a_node_that_is_down() {
    let mut world = Cluster::with(ClusterConfig {
        partition_count: 12,
        replication_factor: 1,
        ..ClusterConfig::default()
    });
    world.coordinator.expect(3);
    let two = world.join("node-2");
    world.run(Duration::from_secs(1));
    world.processes.get_mut(&two).unwrap().up = false;
    world.run(Duration::from_secs(3));
    assert_eq!(world.state.node(two).unwrap().status, NodeStatus::Down);
    assert_eq!(world.plans, 0, "the first placement waits for three nodes");
    world.join("node-3");
    // One of two nodes down was too many; one of three is not, after a while.
    world.run(Duration::from_secs(15));
    let served = |world: &Cluster| {
        let partitions = world.state.partitions().iter();
        partitions
            .filter(|partition| partition.primary.is_some())
            .count()
    };
    assert_eq!(
        served(&world),
        12,
        "nothing is to be copied, so nothing waits"
    );
    assert_eq!(
        world.plans, 1,
        "and the same plan is not made again and again"
    );
    world.restart(two);
    world.run(Duration::from_secs(2));
    world.check_settled();
}

#[test]
fn rule_06_the_most_urgent_moves_begin_first_and_no_node_copies_more_than_it_may() {
    let mut world = Cluster::with(ClusterConfig {
        partition_count: 48,
        replication_factor: 2,
        moves_in_flight: 6,
        moves_per_node: 2,
        repair_delay_ms: 1_000,
        ..ClusterConfig::default()
    });
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(2));
    world.check_settled();
    // One node is drained, one is lost for good, one joins: all in one plan.
    world.slow = true;
    let [two, three] = ["node-2", "node-3"].map(|id| world.state.node_by_id(id).unwrap().raft_id);
    world.processes.get_mut(&three).unwrap().up = false;
    world.run(Duration::from_secs(2));
    let at = world.wall();
    let drain = Command::Drain {
        node: two,
        on: true,
        leave: false,
        at,
    };
    world.apply(&drain).unwrap();
    let five = world.join("node-5");
    world.run(Duration::from_secs(2));
    assert!(world.state.node(three).unwrap().evicted);
    let plan = world.state.plan().expect("a plan is in force").clone();
    let lost = |world: &Cluster| {
        let rows = plan
            .targets
            .keys()
            .map(|&id| world.state.partition(id).unwrap());
        rows.filter(|it| it.is_member(three) && it.joining().is_empty())
            .count()
    };
    let others = |world: &Cluster| {
        let rows = plan
            .targets
            .keys()
            .map(|&id| world.state.partition(id).unwrap());
        let moving = rows.filter(|it| !it.joining().is_empty());
        moving.filter(|it| !it.is_member(three)).count()
    };
    assert!(world.state.moves_in_flight() > 0);
    let crowded = world.state.moves_in_flight() < 6;
    assert!(
        lost(&world) == 0 || others(&world) == 0 || crowded,
        "repairs begin first"
    );
    for turn in 0.. {
        if world.state.plan().is_none() {
            break;
        }
        assert!(turn < 1_000, "the plan ends");
        world.finish(0);
        world.run(Duration::from_millis(50));
    }
    world.hurry();
    world.run(Duration::from_secs(2));
    world.check_settled();
    assert!(world.state.holds_anything(five) && !world.state.holds_anything(two));
}

#[test]
fn a_node_is_marked_down_only_when_its_lease_is_over() {
    let mut world = Cluster::new(12);
    let two = world.join("node-2");
    world.join("node-3");
    world.run(Duration::from_secs(3));
    // Its heartbeats are lost, its requests are not.
    world.processes.get_mut(&two).unwrap().up = false;
    let timing = DetectorConfig::default().lease_timing();
    let mut lease = Lease::new(two, Incarnation(1), timing.lease);
    let mut asked_at = world.now;
    for _ in 0..60 {
        world.run(Duration::from_millis(50));
        lease.observe(&Arc::new(world.state.clone()));
        let request = lease.request(world.now);
        asked_at = world.now;
        let leases = world.coordinator.leases();
        leases
            .handle_request(&request, &world.state, asked_at)
            .unwrap();
        leases.handle_proof(LeadershipProof {
            term: 1,
            begun_at: asked_at,
        });
        let grant = leases.grant(two, Incarnation(1), asked_at).unwrap();
        lease.handle_grant(grant, asked_at);
        assert!(world.state.is_live(two));
    }
    let token = lease.token(PartitionId(0), asked_at);
    let owned = world.state.partitions()[0].primary == Some(two);
    assert_eq!(token.is_ok(), owned, "{token:?}");
    while world.state.is_live(two) {
        world.run(Duration::from_millis(50));
        assert!(
            world.now < asked_at + 3 * timing.wait(),
            "it is marked down at last"
        );
    }
    assert!(world.now >= asked_at + timing.wait());
    assert!(!lease.is_live(world.now));
}

#[test]
fn a_leader_elected_while_it_was_joining_activates_itself() {
    let mut world = World::formed(1, 4, 1);
    let joined = world.ok(join(spec(2), None)).node;
    let mut coordinator = Coordinator::new(DetectorConfig::default()).unwrap();
    let now = Instant::from_millis(10);
    coordinator.handle_leadership(joined, 2, now);
    let decision = coordinator.decide(&world.state, now, AT);
    let activate = Command::Activate {
        node: joined.unwrap(),
        at: AT,
    };
    assert!(decision.commands.contains(&activate), "{decision:?}");
}

/// Simulator, core seed 2036605: the leader was to leave, and of the only node to stay nobody knew
/// yet that its disk was lost.
#[test]
fn a_leader_leaves_only_while_somebody_who_stays_reports_in() {
    let mut world = World::formed(1, 4, 1);
    let other = world.ok(join(spec(2), None)).node.unwrap();
    let leader = RaftId::BOOTSTRAP;
    let leave = Command::Drain {
        node: leader,
        on: true,
        leave: true,
        at: AT,
    };
    world.ok(Command::Activate {
        node: other,
        at: AT,
    });
    world.ok(leave);
    let leaves =
        |command: &Command| matches!(command, Command::Remove { node, .. } if *node == leader);
    let mut coordinator = Coordinator::new(DetectorConfig::default()).unwrap();
    let now = Instant::from_millis(10);
    coordinator.handle_leadership(Some(leader), 2, now);
    let decision = coordinator.decide(&world.state, now, AT);
    assert!(!decision.commands.iter().any(leaves), "{decision:?}");
    let incarnation = world.state.node(other).unwrap().incarnation;
    let heard = coordinator.handle_heartbeat(other, incarnation, world.state.applied(), now);
    assert_eq!(heard, Heard::Counted);
    let decision = coordinator.decide(&world.state, now, AT);
    assert!(decision.commands.iter().any(leaves), "{decision:?}");
}

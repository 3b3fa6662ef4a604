//! Rule 6: balance, repair and drain have switches of their own, which hold back what they name
//! and nothing else, on every node and under every leader.

use std::time::Duration;

use clusterkit_core::adjust::{Adjustment, what_if};
use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::coordinator::plan_request;
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::explain::{Limit, PlanRecord, Reason};
use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::pause::Work;
use clusterkit_core::placement::MinimalMove;
use clusterkit_core::state::ClusterState;

use crate::cluster::Cluster;
use crate::world::{AT, World};

fn switch(work: Work, on: bool) -> Command {
    Command::Pause {
        work,
        on,
        reason: "peak hours".into(),
        at: AT,
    }
}

/// Returns a settled cluster of `nodes` nodes, called `node-1`, `node-2`, ...
fn settled(nodes: u32) -> Cluster {
    let mut world = Cluster::with(ClusterConfig {
        partition_count: 32,
        repair_delay_ms: 3_000,
        ..ClusterConfig::default()
    });
    for number in 2..=nodes {
        world.join(&format!("node-{number}"));
    }
    world.run(Duration::from_secs(1));
    world.check_settled();
    world
}

fn drain(world: &mut Cluster, name: &str) {
    let (node, at) = (world.id(name), world.wall());
    let command = Command::Drain {
        node,
        on: true,
        leave: false,
        at,
    };
    world.apply(&command).unwrap();
}

fn kill(world: &mut Cluster, name: &str) -> RaftId {
    let node = world.id(name);
    world.processes.get_mut(&node).unwrap().up = false;
    node
}

/// How many partitions `node` holds.
fn held(world: &Cluster, node: RaftId) -> usize {
    let partitions = world.state.partitions().iter();
    partitions.filter(|it| it.involves(node)).count()
}

/// Who is where, and leads.
fn rows(state: &ClusterState) -> Vec<Vec<RaftId>> {
    let rows = state.partitions().iter();
    rows.map(|partition| partition.members().collect())
        .collect()
}

/// What a plan computed now says.
fn record(state: &ClusterState) -> PlanRecord {
    let request = plan_request(state, state.plan_basis()).unwrap();
    let (placement, refuted) = request.compute(&MinimalMove::default()).unwrap();
    assert_eq!(refuted, None, "what stays is part of the proof");
    PlanRecord::new(state, &request, placement, "minimal_move", AT)
}

#[test]
fn while_balance_is_paused_a_join_moves_nothing_and_afterwards_all_of_it() {
    let mut world = settled(4);
    world.apply(&switch(Work::Balance, true)).unwrap();
    let (before, copies, plans) = (rows(&world.state), world.copies, world.plans);
    let five = world.join("node-5");
    world.run(Duration::from_secs(20));
    assert_eq!(world.state.node(five).unwrap().status, NodeStatus::Active);
    assert_eq!((rows(&world.state), world.plans), (before, plans));

    // It is the cluster that is paused: another leader, even one that has just started, keeps to it.
    world.change_leader(world.id("node-2"));
    world.run(Duration::from_secs(20));
    assert_eq!((world.copies, world.plans), (copies, plans));

    world.apply(&switch(Work::Balance, false)).unwrap();
    world.run(Duration::from_secs(2));
    world.check_settled();
    assert!(world.state.holds_anything(five));
}

#[test]
fn while_balance_is_paused_lost_copies_are_made_and_drains_go_on() {
    let mut world = settled(5);
    world.apply(&switch(Work::Balance, true)).unwrap();
    let six = world.join("node-6");
    let seven = world.join("node-7");
    let three = kill(&mut world, "node-3");
    let lost = held(&world, three);
    let copies = world.copies;
    world.run(Duration::from_secs(8));
    assert!(world.state.node(three).unwrap().evicted);
    assert_eq!(held(&world, three), 0, "it is repaired");
    assert_eq!(world.copies - copies, lost, "and nothing else is copied");
    let two = world.id("node-2");
    let given = held(&world, two);
    let copies = world.copies;
    drain(&mut world, "node-2");
    world.run(Duration::from_secs(2));
    assert_eq!(held(&world, two), 0, "it is drained");
    assert_eq!(world.copies - copies, given, "and nothing else is copied");
    assert!(world.state.plan().is_none());
    for partition in world.state.partitions() {
        assert_eq!(partition.in_sync().count(), 3);
    }
    world.apply(&switch(Work::Balance, false)).unwrap();
    world.run(Duration::from_secs(2));
    world.check_settled();
    assert!(world.state.holds_anything(six) && world.state.holds_anything(seven));
}

#[test]
fn while_repair_is_paused_failover_goes_on_and_no_lost_copy_is_made() {
    let mut world = settled(4);
    world.apply(&switch(Work::Repair, true)).unwrap();
    let copies = world.copies;
    let four = kill(&mut world, "node-4");
    world.run(Duration::from_secs(60));
    let record = world.state.node(four).unwrap();
    assert_eq!((record.status, record.evicted), (NodeStatus::Down, false));
    assert_eq!(world.copies, copies);
    let led = world.state.partitions().iter().map(|it| it.primary);
    assert!(led.flatten().all(|primary| primary != four), "failed over");
    assert!(
        world
            .state
            .partitions()
            .iter()
            .all(|it| it.primary.is_some())
    );

    world.apply(&switch(Work::Repair, false)).unwrap();
    world.run(Duration::from_secs(2));
    assert!(!world.state.holds_anything(four), "its delay is long over");
    world.check_settled();
}

#[test]
fn while_drain_is_paused_drains_are_recorded_and_nothing_moves() {
    let mut world = settled(5);
    world.apply(&switch(Work::Drain, true)).unwrap();
    let (before, plans) = (rows(&world.state), world.plans);
    drain(&mut world, "node-2");
    let two = world.id("node-2");
    world.run(Duration::from_secs(20));
    assert_eq!(world.state.node(two).unwrap().status, NodeStatus::Draining);
    assert_eq!((rows(&world.state), world.plans), (before, plans));

    world.apply(&switch(Work::Drain, false)).unwrap();
    world.run(Duration::from_secs(2));
    assert!(!world.state.holds_anything(two));
    world.check_settled();
}

#[test]
fn what_is_under_way_when_work_is_paused_ends_and_nothing_more_of_it_begins() {
    let mut world = Cluster::with(ClusterConfig {
        partition_count: 32,
        moves_in_flight: 4,
        ..ClusterConfig::default()
    });
    for number in 2..=4 {
        world.join(&format!("node-{number}"));
    }
    world.run(Duration::from_secs(2));
    world.check_settled();
    world.slow = true;
    drain(&mut world, "node-2");
    world.run(Duration::from_secs(1));
    let under_way = world.state.moves_in_flight();
    assert_eq!(under_way, 4);
    let (copies, plans) = (world.copies, world.plans);
    world.apply(&switch(Work::Drain, true)).unwrap();
    world.run(Duration::from_secs(5));
    assert_eq!(
        world.state.moves_in_flight(),
        under_way,
        "nothing is called off"
    );
    world.hurry();
    world.run(Duration::from_secs(5));
    assert_eq!(world.state.moves_in_flight(), 0, "they have ended");
    assert_eq!((world.copies, world.plans), (copies, plans));
    assert!(world.state.holds_anything(world.id("node-2")));
    world.apply(&switch(Work::Drain, false)).unwrap();
    world.run(Duration::from_secs(2));
    world.check_settled();
}

#[test]
fn moves_decided_before_the_pause_was_known_do_not_begin() {
    let mut world = World::placed(4, 2, &[1, 2, 3]);
    world.plan(&[(0, &[1, 2, 4]), (1, &[1, 4, 3])]);
    world.ok(switch(Work::Balance, true));
    let applied = world.start_all();
    assert_eq!(applied.events, []);
    assert_eq!(world.state.moves_in_flight(), 0);
    assert!(world.state.plan().is_some(), "it waits");
    world.ok(switch(Work::Balance, false));
    world.start_all();
    assert_eq!(world.state.moves_in_flight(), 2);
}

#[test]
fn a_plan_made_while_work_was_paused_does_not_stand_once_it_goes_on() {
    let mut world = World::placed(4, 2, &[1, 2, 3]);
    world.ok(switch(Work::Repair, true));
    assert_eq!(world.state.planned_basis(), world.state.plan_basis());
    let basis = world.state.plan_basis();
    world.ok(switch(Work::Repair, false));
    // It was computed before, and the epoch is the same.
    world.ok(Command::Plan {
        base: world.state.epoch(),
        trigger: PlanTrigger::Manual,
        trigger_node: None,
        basis,
        targets: Vec::new(),
        at: AT,
    });
    assert_ne!(world.state.planned_basis(), world.state.plan_basis());
}

#[test]
fn a_switch_keeps_since_when_it_is_on_and_refuses_a_reason_too_long() {
    let mut world = World::formed(1, 1, 1);
    world.ok(switch(Work::Repair, true));
    let epoch = world.state.epoch();
    world.ok(Command::Pause {
        work: Work::Repair,
        on: true,
        reason: "still peak hours".into(),
        at: clusterkit_core::time::UnixMillis(99_000),
    });
    let [pause] = world.state.pauses() else {
        panic!("one switch is on")
    };
    assert_eq!((pause.work, pause.since), (Work::Repair, AT));
    assert_eq!(pause.to_string(), "repair is paused: still peak hours");
    assert_eq!(world.state.epoch(), epoch, "the topology is what it was");
    let refused = world.refused(Command::Pause {
        work: Work::Drain,
        on: true,
        reason: "x".repeat(257).into(),
        at: AT,
    });
    let Rejected::Invalid(error) = refused else {
        panic!("refused as invalid, not {refused}")
    };
    assert_eq!(
        (&*error.field, &*error.limit),
        ("reason", "at most 256 bytes")
    );
}

#[test]
fn what_a_pause_holds_back_is_explained_and_previewed() {
    let mut world = settled(3);
    world.apply(&switch(Work::Balance, true)).unwrap();
    world.join("node-4");
    world.run(Duration::from_secs(1));
    let now = record(&world.state);
    let partition = PartitionId(7);
    let told = now.explain(Some(partition), None).unwrap();
    let paused = Reason::Paused {
        partition,
        work: Work::Balance,
    };
    assert!(told.reasons.contains(&paused), "{told:?}");
    assert!(
        told.placed
            .iter()
            .all(|placed| placed.reasons.contains(&paused))
    );
    let preview = now.preview().unwrap();
    assert_eq!(preview.moves, 0);
    let limit = Limit::Paused {
        work: Work::Balance,
        partitions: 32,
    };
    assert!(preview.limits.contains(&limit), "{:?}", preview.limits);

    let resume = Adjustment::Resume {
        work: Work::Balance,
    };
    let command = resume.command(&world.state, AT).unwrap();
    let then = what_if(&world.state, &command).unwrap();
    let preview = record(&then).preview().unwrap();
    assert_eq!((preview.moves, preview.limits.len()), (24, 0));
}

//! Rules 4 and 5: what a node says against itself counts, no data moves for it, and a node that
//! goes down again and again is waited for longer.

use std::time::Duration;

use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::event::HealthStatus;
use clusterkit_core::health::{Health, HealthReport};
use clusterkit_core::id::{Incarnation, RaftId};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::time::UnixMillis;

use crate::cluster::Cluster;
use crate::world::{AT, World};

fn say(world: &mut Cluster, node: RaftId, health: Health, reason: &str) {
    let report = HealthReport::new(health, reason).unwrap();
    world.reports.insert(node, (report, false));
}

fn led(world: &Cluster, node: RaftId) -> usize {
    let partitions = world.state.partitions().iter();
    partitions.filter(|it| it.primary == Some(node)).count()
}

#[test]
fn a_node_that_vetoes_itself_hands_its_primaries_over_without_a_copy_and_gets_them_back() {
    let mut world = Cluster::settled(4, 3);
    let (two, copies) = (world.id("node-2"), world.copies);
    assert_eq!(led(&world, two), 9);
    say(&mut world, two, Health::Unhealthy, "disk is slow");
    world.run(Duration::from_millis(100));
    assert_eq!(led(&world, two), 0);
    for other in ["node-1", "node-3", "node-4"] {
        assert_eq!(led(&world, world.id(other)), 12, "shared out evenly");
    }
    let veto = world.state.veto(two).unwrap();
    assert_eq!(
        (veto.health, &*veto.reason),
        (Health::Unhealthy, "disk is slow")
    );
    let health = world.state.health();
    assert_eq!(
        (health.status, &health.unhealthy_nodes[..]),
        (HealthStatus::Degraded, &[two][..])
    );
    // It is given none by a failover, nor by a plan, nor by another leader.
    world.change_leader(world.id("node-3"));
    world.join("node-5");
    world.run(Duration::from_secs(5));
    assert_eq!(led(&world, two), 0);
    assert_eq!(world.state.node(two).unwrap().status, NodeStatus::Active);
    assert!(world.state.holds_anything(two), "it keeps its copies");
    assert!(world.copies < copies + 36, "only the joining node copied");

    let copies = world.copies;
    world.reports.remove(&two);
    world.run(Duration::from_secs(5));
    world.check_settled();
    assert_eq!(world.copies, copies);
    assert_eq!(world.state.veto(two), None);
    assert_eq!(world.state.health().status, HealthStatus::Healthy);
}

#[test]
fn whoever_vetoes_itself_leads_on_where_nobody_else_is_in_sync() {
    let mut world = World::placed(3, 2, &[1, 2]);
    world.down(&[2]);
    let veto = |node: u64| Command::SetHealth {
        node: RaftId(node),
        incarnation: Incarnation(1),
        report: HealthReport::new(Health::Unhealthy, "").unwrap(),
        heirs: Vec::new(),
        at: AT,
    };
    let epoch = world.state.epoch();
    world.ok(veto(1));
    assert_eq!((world.row(0), world.state.epoch()), (vec![1, 2], epoch));
    // Nor is it handed to one that vetoes itself, too.
    let mut world = World::placed(2, 2, &[1, 2]);
    world.ok(veto(2));
    world.ok(veto(1));
    assert_eq!(world.row(0), [1, 2]);
}

#[test]
fn what_a_process_said_of_itself_ends_with_it_and_a_late_word_of_it_is_refused() {
    let mut world = World::placed(2, 1, &[1, 2]);
    let veto = Command::SetHealth {
        node: RaftId(1),
        incarnation: Incarnation(1),
        report: HealthReport::new(Health::Unhealthy, "").unwrap(),
        heirs: Vec::new(),
        at: AT,
    };
    world.ok(veto.clone());
    assert_eq!(world.row(0), [2, 1]);
    world.restart(1);
    assert_eq!(world.state.veto(RaftId(1)), None);
    let refused = world.refused(veto);
    assert!(
        matches!(refused, Rejected::StaleIncarnation { .. }),
        "{refused}"
    );
}

#[test]
fn a_node_that_says_down_counts_as_down_at_once_and_as_up_when_it_says_otherwise() {
    let mut world = Cluster::settled(4, 3);
    // The first leases of a leader are over.
    world.run(Duration::from_secs(5));
    let two = world.id("node-2");
    say(&mut world, two, Health::Down, "fire");
    world.run(Duration::from_millis(100));
    assert_eq!(world.state.node(two).unwrap().status, NodeStatus::Down);
    assert_eq!(led(&world, two), 0);
    world.run(Duration::from_secs(3));
    assert_eq!(
        world.state.node(two).unwrap().status,
        NodeStatus::Down,
        "it runs, and does not count"
    );
    world.reports.remove(&two);
    world.run(Duration::from_secs(3));
    world.check_settled();
    assert_eq!(world.state.veto(two), None);
}

#[test]
fn a_node_that_says_that_it_is_late_is_the_last_to_inherit() {
    let mut world = Cluster::settled(3, 3);
    let (two, three) = (world.id("node-2"), world.id("node-3"));
    world.reports.insert(three, (HealthReport::default(), true));
    world.run(Duration::from_secs(1));
    let before = led(&world, three);
    world.processes.get_mut(&two).unwrap().up = false;
    world.run(Duration::from_secs(2));
    assert_eq!(world.state.node(two).unwrap().status, NodeStatus::Down);
    assert_eq!(led(&world, three), before, "node-1 inherits all of it");
}

#[test]
fn a_node_that_died_is_condemned_even_where_everybody_is_late() {
    let mut world = Cluster::settled(4, 3);
    let two = world.id("node-2");
    world.processes.get_mut(&two).unwrap().up = false;
    for name in ["node-1", "node-3", "node-4"] {
        let node = world.id(name);
        world.reports.insert(node, (HealthReport::default(), true));
    }
    world.run(Duration::from_millis(1_600));
    assert!(
        world.state.is_live(two),
        "silence is put down to that for a while"
    );
    world.run(Duration::from_millis(1_500));
    assert_eq!(world.state.node(two).unwrap().status, NodeStatus::Down);
}

#[test]
fn a_node_that_flaps_is_waited_for_twice_as_long_each_time_and_forgiven_with_time() {
    let mut world = World::placed(3, 1, &[1, 2]);
    let mut fall = |at_s: u64| {
        let at = UnixMillis(at_s * 1_000);
        world.ok(Command::MarkDown {
            nodes: vec![RaftId(3)],
            promotions: Vec::new(),
            at,
        });
        let node = world.state.node(RaftId(3)).unwrap();
        let delay = world.state.repair_delay(node).as_secs();
        world.up(&[3]);
        delay
    };
    let delays: Vec<u64> = [10, 20, 30, 40, 50, 60].map(&mut fall).into();
    assert_eq!(delays, [300, 600, 1_200, 2_400, 2_400, 2_400], "bounded");
    // Six falls, one forgotten every ten minutes: two are left after forty, and this one.
    assert_eq!(fall(60 + 4 * 600), 1_200);
    assert_eq!(fall(100_000), 300);
}

#[test]
fn a_node_that_flaps_is_the_last_to_inherit() {
    let mut world = World::placed(3, 1, &[1, 2, 3]);
    for _ in 0..2 {
        world.down(&[2]);
        world.up(&[2]);
        world.sync(2);
    }
    assert_eq!(world.row(0), [1, 2, 3]);
    world.down(&[1]);
    assert_eq!(
        world.row(0)[0],
        3,
        "node 2 stands first, and went down twice"
    );
}

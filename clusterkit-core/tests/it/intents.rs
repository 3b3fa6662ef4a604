//! Rule 10: roles leave a node that is to stop, nothing is copied for it, and all is as before when
//! it is back.

use std::time::Duration;

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::coordinator::heirs_of;
use clusterkit_core::event::{ChangeReason, EventKind};
use clusterkit_core::id::{NodeId, PartitionId, RaftId};
use clusterkit_core::intent::Intent;
use clusterkit_core::node::NodeStatus;
use clusterkit_core::placement::MinimalMove;

use crate::cluster::Cluster;
use crate::world::{AT, World};

/// Longer than the repair delay of [`Cluster::settled`].
const TTL: Duration = Duration::from_secs(60);
const RESTART: Intent = Intent::Restart { ttl_ms: 60_000 };

fn led(world: &Cluster, node: RaftId) -> Vec<PartitionId> {
    let partitions = world.state.partitions_by_id();
    let led = partitions.filter(|(_, it)| it.primary == Some(node));
    led.map(|(id, _)| id).collect()
}

/// Returns who holds what, whoever leads.
fn members(world: &Cluster) -> Vec<Vec<RaftId>> {
    let rows = world.state.partitions().iter().map(|partition| {
        let mut row: Vec<RaftId> = partition.members().collect();
        row.sort_unstable();
        row
    });
    rows.collect()
}

/// Declares `intent` as a node does for an operator.
fn declare(
    world: &mut Cluster,
    node: &str,
    intent: Option<Intent>,
    force: bool,
) -> Result<Applied, Rejected> {
    let node = NodeId::new(node).unwrap();
    let adjustment = Adjustment::Intent {
        node,
        intent,
        force,
    };
    let mut command = adjustment.command(&world.state, world.wall()).unwrap();
    if let Command::SetIntent { node, heirs, .. } = &mut command {
        *heirs = heirs_of(&MinimalMove::default(), &world.state, *node);
    }
    world.apply(&command)
}

#[test]
fn a_handover_takes_the_roles_and_no_data_until_it_is_taken_back() {
    let mut world = Cluster::settled(4, 3);
    let (two, before) = (world.id("node-2"), members(&world));
    let copies = world.copies;
    assert_eq!(led(&world, two).len(), 9);
    let applied = declare(&mut world, "node-2", Some(Intent::Handover), false).unwrap();
    let manual = applied.events.iter().filter(|event| {
        matches!(&event.kind, EventKind::PartitionChanged(it)
            if it.reason == ChangeReason::Manual && it.old_primary == Some(two))
    });
    assert_eq!(manual.count(), 18, "who leads now is told, and who led");
    assert_eq!(led(&world, two), [], "at once");
    world.run(Duration::from_secs(1));
    for other in ["node-1", "node-3", "node-4"] {
        assert_eq!(led(&world, world.id(other)).len(), 12, "evenly");
    }
    // It is given none back, not by another leader, nor for a failover.
    world.change_leader(world.id("node-3"));
    world.run(Duration::from_secs(20));
    assert_eq!(led(&world, two), []);
    assert_eq!(world.copies, copies);
    assert_eq!(members(&world), before);
    let four = world.id("node-4");
    world.processes.get_mut(&four).unwrap().up = false;
    world.run(Duration::from_secs(3));
    assert_eq!(world.state.node(four).unwrap().status, NodeStatus::Down);
    assert_eq!(led(&world, two), []);
    world.resume(four);
    world.run(Duration::from_secs(3));
    // Nor when it starts again: an operator takes it back.
    world.restart(two);
    world.run(Duration::from_secs(5));
    assert_eq!(led(&world, two), []);
    declare(&mut world, "node-2", None, false).unwrap();
    world.run(Duration::from_secs(5));
    world.check_settled();
    assert_eq!(led(&world, two).len(), 9);
    assert_eq!(members(&world), before);
}

#[test]
fn a_handover_that_nobody_could_take_is_refused_by_name_unless_forced() {
    let mut world = Cluster::settled(2, 2);
    let [one, two] = ["node-1", "node-2"].map(|name| world.id(name));
    declare(&mut world, "node-1", Some(Intent::Handover), false).unwrap();
    assert_eq!(led(&world, one), []);
    // The other holds everything, and is to lead nothing itself.
    let state = world.state.clone();
    let refused = declare(&mut world, "node-2", Some(RESTART), false).unwrap_err();
    let all: Vec<PartitionId> = (0..36).map(PartitionId).collect();
    let named = NodeId::new("node-2").unwrap();
    assert_eq!(
        refused.to_string(),
        "nobody but node `node-2` could lead 36 partitions (0, 1, 2, 3, 4, 5, 6, 7, ..): wait for \
         copies, or force"
    );
    let partitions = all.clone();
    assert_eq!(
        refused,
        Rejected::NoHeir {
            id: named,
            partitions
        }
    );
    assert_eq!(world.state.epoch(), state.epoch());
    declare(&mut world, "node-2", Some(RESTART), true).unwrap();
    world.run(Duration::from_secs(2));
    assert_eq!(led(&world, two), all, "it goes on leading");
}

#[test]
fn a_restart_that_was_announced_starts_no_repair_and_gives_the_roles_back() {
    let mut world = Cluster::settled(5, 3);
    let (two, before) = (world.id("node-2"), members(&world));
    let (roles, copies) = (led(&world, two), world.copies);
    assert!(!roles.is_empty());
    declare(&mut world, "node-2", Some(RESTART), false).unwrap();
    assert_eq!(led(&world, two), []);
    world.run(Duration::from_secs(2));
    world.processes.get_mut(&two).unwrap().up = false;
    // Six times the repair delay, across a change of leader.
    world.run(Duration::from_secs(15));
    world.change_leader(world.id("node-3"));
    world.run(Duration::from_secs(15));
    let record = world.state.node(two).unwrap();
    assert_eq!((record.status, record.evicted), (NodeStatus::Down, false));
    assert_eq!(world.copies, copies);
    assert_eq!(world.state.falls(two), None, "it was announced");
    world.restart(two);
    assert_eq!(world.state.intent(two), None, "it has happened");
    world.run(Duration::from_secs(5));
    world.check_settled();
    assert_eq!(members(&world), before);
    assert_eq!(led(&world, two).len(), roles.len(), "its share");
}

#[test]
fn who_does_not_come_back_in_time_is_repaired_as_ever() {
    let mut world = Cluster::settled(5, 3);
    let two = world.id("node-2");
    declare(&mut world, "node-2", Some(RESTART), false).unwrap();
    world.processes.get_mut(&two).unwrap().up = false;
    world.run(TTL - Duration::from_secs(1));
    assert!(!world.state.node(two).unwrap().evicted);
    world.run(Duration::from_secs(2));
    assert_eq!(world.state.intent(two), None);
    assert!(world.state.node(two).unwrap().evicted);
    world.run(Duration::from_secs(5));
    assert!(!world.state.holds_anything(two));
}

#[test]
fn who_never_stops_leads_again_when_the_time_is_over() {
    let mut world = Cluster::settled(4, 3);
    let (two, copies) = (world.id("node-2"), world.copies);
    let roles = led(&world, two).len();
    declare(&mut world, "node-2", Some(RESTART), false).unwrap();
    world.run(TTL - Duration::from_secs(1));
    assert_eq!(led(&world, two), []);
    world.run(Duration::from_secs(5));
    assert_eq!((led(&world, two).len(), world.copies), (roles, copies));
}

#[test]
fn others_that_fall_meanwhile_are_repaired() {
    let mut world = Cluster::settled(6, 3);
    let (two, three) = (world.id("node-2"), world.id("node-3"));
    declare(&mut world, "node-2", Some(RESTART), false).unwrap();
    for node in [two, three] {
        world.processes.get_mut(&node).unwrap().up = false;
    }
    world.run(Duration::from_secs(20));
    assert!(world.state.node(three).unwrap().evicted);
    assert!(!world.state.node(two).unwrap().evicted);
    assert!(world.state.holds_anything(two));
}

#[test]
fn a_time_out_of_bounds_is_refused_by_name() {
    let mut world = World::placed(3, 1, &[1, 2, 3]);
    let mut refused = |ttl_ms: u64| {
        let command = Command::SetIntent {
            node: RaftId(2),
            intent: Some(Intent::Restart { ttl_ms }),
            force: true,
            heirs: Vec::new(),
            at: AT,
        };
        world.apply(command).err().map(|error| error.to_string())
    };
    let text = |given: u64| Some(format!("ttl_ms is `{given}`, must be 1000 to 86400000"));
    for given in [0, 999, 86_400_001, u64::MAX] {
        assert_eq!(refused(given), text(given));
    }
    assert_eq!([1_000, 86_400_000].map(&mut refused), [None, None]);
}

//! Rule 10: whether nodes may be stopped together.

use clusterkit_core::adjust::{MayStop, StopRisk, may_stop};
use clusterkit_core::command::Command;
use clusterkit_core::config::ConfigChange;
use clusterkit_core::id::{NodeId, PartitionId};

use crate::world::{AT, World, ids};

fn ask(world: &World, nodes: &[u64], voters: &[u64]) -> MayStop {
    let named = nodes.iter().map(|node| NodeId::new(format!("n{node}")));
    let named: Vec<NodeId> = named.map(Result::unwrap).collect();
    may_stop(&world.state, &named, &ids(voters)).unwrap()
}

fn all(partitions: u32) -> Vec<PartitionId> {
    (0..partitions).map(PartitionId).collect()
}

#[test]
fn nobody_may_stop_with_whom_the_last_copy_goes() {
    let mut world = World::placed(5, 12, &[1, 2, 3]);
    assert!(ask(&world, &[], &[]).is_yes());
    assert!(ask(&world, &[1, 2, 4, 5], &[]).is_yes());
    let all_three = ask(&world, &[3, 1, 2, 1], &[]);
    let lost = [StopRisk::NoCopy {
        partitions: all(12),
    }];
    assert_eq!(all_three.risks, lost);
    assert_eq!(
        all_three.to_string(),
        "no live copy would be left of 12 partitions (0, 1, 2, 3, 4, 5, 6, 7, ..)"
    );
    // A node that is down is no copy, nor is one that is back and behind.
    world.down(&[3]);
    world.write();
    assert_eq!(ask(&world, &[1, 2], &[]).risks, lost);
    world.up(&[3]);
    assert_eq!(ask(&world, &[1, 2], &[]).risks, lost);
    assert!(ask(&world, &[3], &[]).is_yes(), "it is behind");
    world.sync(3);
    assert!(ask(&world, &[1, 2], &[]).is_yes());
    // What is lost already is not lost by stopping who holds none of it.
    world.down(&[1, 2, 3]);
    assert!(ask(&world, &[1, 4], &[]).is_yes());
}

#[test]
fn fewer_copies_than_must_be_in_sync_speak_against_it() {
    let mut world = World::placed(4, 2, &[1, 2, 3]);
    world.ok(Command::UpdateConfig {
        change: ConfigChange {
            min_in_sync: Some(2),
            ..ConfigChange::default()
        },
        at: AT,
    });
    assert!(ask(&world, &[2, 4], &[]).is_yes());
    let two = ask(&world, &[2, 3], &[]);
    let short = StopRisk::BelowMinInSync {
        partitions: all(2),
        min_in_sync: 2,
    };
    assert_eq!(two.risks, [short]);
    assert_eq!(
        two.to_string(),
        "fewer than 2 live copies in sync would be left of 2 partitions (0, 1)"
    );
    // Short already: who holds nothing in sync makes it no worse.
    world.down(&[2, 3]);
    assert!(ask(&world, &[3, 4], &[]).is_yes());
}

#[test]
fn the_log_keeps_its_majority() {
    let mut world = World::placed(5, 1, &[1, 2, 3]);
    let voters = [1, 4, 5];
    assert!(ask(&world, &[4], &voters).is_yes());
    let two = ask(&world, &[4, 5], &voters);
    let lost = StopRisk::NoMajority {
        voters: 3,
        live: 1,
        needed: 2,
    };
    assert_eq!(two.risks, [lost]);
    assert_eq!(
        two.to_string(),
        "1 of 3 voters would be left, the log needs 2"
    );
    world.down(&[5]);
    assert!(!ask(&world, &[4], &voters).is_yes(), "one is down already");
    assert!(ask(&world, &[2, 3], &voters).is_yes(), "they do not vote");
    let everybody = ask(&world, &[1, 2, 3, 4, 5], &voters);
    assert_eq!(everybody.risks.len(), 2);
}

#[test]
fn who_is_no_member_is_named() {
    let world = World::placed(3, 1, &[1, 2, 3]);
    let nodes = ["n1", "n9"].map(|id| NodeId::new(id).unwrap());
    let refused = may_stop(&world.state, &nodes, &[]).unwrap_err();
    assert_eq!(refused.node, nodes[1]);
    assert_eq!(refused.to_string(), "no member is called `n9`");
}

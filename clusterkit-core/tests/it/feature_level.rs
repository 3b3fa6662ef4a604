//! The feature level: what all members know, which rises with the last of them and never falls.

use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::node::NodeSpec;

use crate::world::{World, activate, join, remove, restarted, spec};

fn knows(number: u64, level: u32) -> NodeSpec {
    let mut spec = spec(number);
    spec.feature_level = level;
    spec
}

/// Starts `node` again as a build of `level`.
fn start_as(world: &World, node: u64, level: u32) -> Command {
    let mut command = restarted(&world.state, node);
    if let Command::Announce { spec, .. } = &mut command {
        spec.feature_level = level;
    }
    command
}

#[test]
fn it_rises_when_the_last_older_member_is_upgraded_and_refuses_older_builds_from_then_on() {
    let mut world = World::formed(3, 4, 2);
    assert_eq!(world.state.feature_level(), 1);
    for node in [1, 2] {
        let command = start_as(&world, node, 2);
        world.ok(command);
        assert_eq!(world.state.feature_level(), 1, "n3 does not know more");
    }
    // Until then everybody may go back.
    let command = start_as(&world, 2, 1);
    world.ok(command);
    for node in [2, 3] {
        assert_eq!(world.state.feature_level(), 1);
        let command = start_as(&world, node, 2);
        world.ok(command);
    }
    assert_eq!(world.state.feature_level(), 2);

    world.down(&[3]);
    let older = start_as(&world, 3, 1);
    let refused = world.refused(older);
    assert!(matches!(
        refused,
        Rejected::OlderFeatureLevel {
            given: 1,
            current: 2,
            ..
        }
    ));
    assert_eq!(
        refused.to_string(),
        "node `n3` supports feature level 1, the cluster uses 2"
    );
    assert_eq!(world.refused(join(knows(4, 1), None)).to_string(), {
        "node `n4` supports feature level 1, the cluster uses 2"
    });
    let newer = start_as(&world, 3, 2);
    world.ok(newer);
    assert_eq!(world.state.feature_level(), 2);
}

#[test]
fn an_older_member_holds_it_back_even_while_it_is_down_and_no_longer_once_it_is_gone() {
    let mut world = World::formed(2, 4, 2);
    let at = world.next_index();
    world.ok(join(knows(3, 1), None));
    world.ok(activate(at));
    for node in [1, 2] {
        let command = start_as(&world, node, 5);
        world.ok(command);
    }
    world.down(&[at]);
    assert_eq!(world.state.feature_level(), 1);
    world.ok(remove(at, true));
    assert_eq!(world.state.feature_level(), 5);
    // A newer one joins; the cluster stays at what all know.
    world.ok(join(knows(4, 9), None));
    assert_eq!(world.state.feature_level(), 5);
}

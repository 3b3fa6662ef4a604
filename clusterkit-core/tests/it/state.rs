//! The rules of the replicated state, one story each; every bug once found is one of them, named
//! after its symptom. Random and exhaustive histories are in the modules beside this one.

use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::config::ConfigChange;
use clusterkit_core::event::{ChangeStage, EventKind, Verdict};
use clusterkit_core::id::{EventSeq, PartitionId, RaftId};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::partition::Stage;

use crate::world::{
    AT, World, activate, disk, drain, ids, join, mark_down, plan, remove, restarted, spec,
};

const P: PartitionId = PartitionId(0);

fn status(world: &World, node: u64) -> NodeStatus {
    world.state.node(RaftId(node)).unwrap().status
}

fn verdict(events: &[clusterkit_core::event::Event], node: u64) -> Vec<Verdict> {
    let rejoined = events.iter().filter_map(|event| match &event.kind {
        EventKind::NodeRejoined {
            node: who,
            verdicts,
            ..
        } if who.0 == node => Some(verdicts),
        _ => None,
    });
    rejoined.flatten().map(|(_, verdict)| *verdict).collect()
}

fn has_lost(events: &[clusterkit_core::event::Event]) -> bool {
    let lost = |event: &clusterkit_core::event::Event| {
        matches!(event.kind, EventKind::PartitionLost { .. })
    };
    events.iter().any(lost)
}

#[test]
fn failover_and_return_copy_only_what_was_missed() {
    let mut world = World::placed(3, 2, &[1, 2, 3]);
    world.down(&[1]);
    assert_eq!((world.row(0), world.behind(0)), (vec![2, 3, 1], vec![1]));
    world.write();
    let back = world.up(&[1]);
    assert_eq!(verdict(&back.events, 1).len(), 2);
    world.write();
    world.sync(1);
    assert!(world.behind(0).is_empty());
}

#[test]
fn a_cut_of_all_copies_keeps_the_truth_and_its_return_needs_no_copy() {
    let mut world = World::placed(3, 1, &[1, 2, 3]);
    world.down(&[1, 2, 3]);
    assert_eq!((world.row(0), world.behind(0)), (vec![0, 2, 3, 1], vec![]));
    let back = world.up(&[3, 2, 1]);
    for node in 1..=3 {
        assert_eq!(verdict(&back.events, node), [Verdict::Current]);
    }
    assert_eq!((world.row(0), world.behind(0)), (vec![3, 2, 1], vec![]));
}

#[test]
fn nobody_catches_up_from_a_partition_without_primary() {
    let mut world = World::placed(2, 1, &[1, 2]);
    world.down(&[2]);
    world.write();
    world.up(&[2]);
    world.down(&[1]);
    assert_eq!(world.behind(0), [2]);
    let late = world.oracle.history.last().copied().unwrap();
    let answer = world.ok(Command::Synced {
        node: RaftId(2),
        stages: vec![(P, late.2)],
        at: AT,
    });
    assert_eq!(answer.refused, [(P, late.2)], "its source is gone");
    world.up(&[1]);
    world.sync(2);
    assert_eq!((world.row(0), world.behind(0)), (vec![1, 2], vec![]));
}

#[test]
fn a_switch_without_primary_does_not_trust_members_that_are_away() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    world.write();
    world.sync(3);
    world.down(&[1, 2]);
    world.switch();
    world.write();
    assert_eq!((world.row(0), world.behind(0)), (vec![3, 1], vec![1]));
    let back = world.up(&[1]);
    assert!(matches!(verdict(&back.events, 1)[..], [Verdict::Behind(_)]));
}

#[test]
fn removing_a_copying_node_by_force_asks_it_for_nothing() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    let removed = world.ok(remove(3, true));
    assert_eq!(world.row(0), [1, 2]);
    assert_eq!(world.state.partition(P).unwrap().stage, Stage::Stable);
    assert!(!removed.events.iter().any(|event| matches!(&event.kind,
        EventKind::PartitionChanged(change) if change.target == RaftId(3))));
}

#[test]
fn a_complete_copy_under_way_saves_a_partition_whose_last_member_is_removed() {
    for target in [&[2][..], &[1, 2]] {
        let mut world = World::placed(2, 1, &[1]);
        world.start(&[(0, target)]);
        world.write();
        world.sync(2);
        let removed = world.ok(remove(1, true));
        assert!(!has_lost(&removed.events));
        assert_eq!(world.row(0), [2]);
    }
}

#[test]
fn an_unfinished_copy_of_a_lost_partition_is_called_off() {
    let mut world = World::placed(2, 1, &[1]);
    world.start(&[(0, &[2])]);
    let removed = world.ok(remove(1, true));
    assert!(has_lost(&removed.events));
    assert!(world.moving().is_empty());
    world.plan(&[(0, &[2])]);
    assert_eq!(world.row(0), [2]);
}

#[test]
fn a_member_ahead_of_the_heir_of_a_lost_partition_has_diverged() {
    let mut world = World::placed(3, 1, &[1, 2, 3]);
    world.down(&[3]);
    world.write();
    world.down(&[2]);
    world.write();
    world.up(&[3]);
    let removed = world.ok(remove(1, true));
    assert!(has_lost(&removed.events));
    assert_eq!(world.row(0)[0], 3);
    let back = world.up(&[2]);
    assert_eq!(verdict(&back.events, 2), [Verdict::Diverged]);
    world.sync(2);
    assert!(world.behind(0).is_empty());
}

#[test]
fn rule_09_a_node_that_returns_is_judged_partition_by_partition() {
    let mut world = World::formed(4, 4, 3);
    world.plan(&[(0, &[2]), (1, &[4, 2]), (2, &[4]), (3, &[1, 2, 3])]);
    world.write();
    // Partition 2 is to come to it. Of partition 3 it is the only copy but the one that is lost.
    world.start(&[(0, &[2]), (1, &[4, 2]), (2, &[4, 2]), (3, &[1, 2, 3])]);
    world.down(&[3]);
    world.write();
    world.down(&[2]);
    world.revert();
    let away = world.state.partition(PartitionId(1)).unwrap().epoch;
    world.write();
    world.up(&[3]);
    world.ok(remove(1, true));
    let back = world.up(&[2]);
    let verdicts = verdict(&back.events, 2);
    let [
        Verdict::Current,
        Verdict::Behind(since),
        Verdict::Foreign,
        Verdict::Diverged,
    ] = verdicts[..]
    else {
        panic!("{verdicts:?}")
    };
    assert!(
        since <= away,
        "{since} is when it went, not later than {away}"
    );
    // Nothing is asked of it before the verdicts are told.
    let told = |event: &clusterkit_core::event::Event| {
        matches!(event.kind, EventKind::NodeRejoined { .. })
    };
    let asked = |event: &clusterkit_core::event::Event| match &event.kind {
        EventKind::PartitionChanged(change) => change.target == RaftId(2),
        EventKind::RebalanceStarted { .. } => true,
        _ => false,
    };
    let told = back.events.iter().position(told).unwrap();
    let asked = back.events.iter().position(asked);
    assert!(asked.is_some_and(|asked| told < asked), "{:?}", back.events);
}

#[test]
fn a_switch_waits_while_it_would_cost_a_copy() {
    let mut world = World::placed(4, 1, &[1, 2, 3]);
    world.down(&[1]);
    world.write();
    world.start(&[(0, &[1, 4])]);
    world.sync(4);
    // 2 and 3 are in sync, after the switch only 4 would be.
    assert!(!world.state.can_switch(P));
    assert_eq!(world.switch().refused.len(), 1);
    world.up(&[1]);
    assert_eq!(world.switch().refused.len(), 1);
    world.sync(1);
    assert!(world.state.can_switch(P));
    assert!(world.switch().refused.is_empty());
    assert_eq!(world.row(0), [1, 4]);
}

#[test]
fn shrinking_to_a_row_that_is_away_waits() {
    let mut world = World::placed(3, 1, &[1, 2, 3]);
    world.down(&[1]);
    world.start(&[(0, &[1, 2])]);
    assert_eq!(world.row(0), [2, 3, 1]);
    assert!(!world.state.can_start_move(P, &ids(&[1, 2])));
    world.up(&[1]);
    world.sync(1);
    world.start_all();
    assert_eq!(world.row(0), [1, 2]);
}

#[test]
fn a_wanted_primary_that_cannot_lead_yet_does_not_hold_the_plan_open() {
    let mut world = World::placed(2, 1, &[1, 2]);
    world.down(&[1]);
    let epoch = world.state.epoch();
    world.start(&[(0, &[1, 2])]);
    assert!(world.state.plan().is_none(), "nothing more can be done");
    assert_eq!(world.state.epoch(), epoch, "nothing changed");
    assert!(world.state.roles_stale(), "it is to be looked at again");
}

#[test]
fn a_member_that_catches_up_after_the_plan_gets_its_roles_back() {
    let mut world = World::placed(2, 1, &[1, 2]);
    world.down(&[1]);
    world.plan(&[(0, &[2, 1])]);
    assert!(!world.state.roles_stale(), "planned for as things stand");
    world.up(&[1]);
    world.sync(1);
    assert!(world.state.roles_stale(), "and things have changed");
}

#[test]
fn a_node_that_was_down_when_planned_for_and_holds_nothing_gets_roles_when_it_returns() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.down(&[3]);
    world.plan(&[(0, &[1, 2])]);
    assert!(!world.state.roles_stale(), "planned for as things stand");
    world.up(&[3]);
    assert!(world.state.roles_stale(), "it may lead now");
}

#[test]
fn a_move_begun_for_an_earlier_plan_does_not_cost_the_later_one_its_primary() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    world.plan(&[(0, &[3, 1])]);
    world.sync(3);
    world.switch();
    assert_eq!(world.row(0), [3, 1]);
    assert!(world.state.plan().is_none());
}

#[test]
fn a_node_down_at_the_first_placement_still_gets_its_copy() {
    let mut world = World::formed(3, 1, 3);
    world.down(&[2]);
    world.plan(&[(0, &[2, 1, 3])]);
    assert_eq!((world.row(0), world.behind(0)), (vec![1, 2, 3], vec![2]));
    world.write();
    world.up(&[2]);
    world.sync(2);
    assert!(world.behind(0).is_empty());
}

#[test]
fn a_forgotten_copy_of_a_lost_partition_is_not_mistaken_for_a_good_one() {
    let mut world = World::placed(3, 1, &[1]);
    world.start(&[(0, &[2])]);
    world.write();
    world.down(&[2]);
    world.ok(remove(1, true));
    world.plan(&[(0, &[3, 2])]);
    assert_eq!(world.behind(0), [2]);
    world.write();
    let back = world.up(&[2]);
    assert_eq!(verdict(&back.events, 2), [Verdict::Diverged]);
    world.sync(2);
    assert!(world.behind(0).is_empty());
}

#[test]
fn a_placement_on_nodes_that_are_all_down_is_planned_again() {
    let mut world = World::formed(3, 1, 1);
    world.down(&[2]);
    world.plan(&[(0, &[2])]);
    assert!(world.state.partition(P).unwrap().is_unplaced());
    assert_ne!(world.state.planned_basis(), world.state.plan_basis());
}

#[test]
fn the_epoch_stays_when_nothing_published_changes() {
    let mut world = World::placed(2, 1, &[1, 2]);
    world.down(&[2]);
    let evict = || Command::Evict {
        nodes: ids(&[2]),
        at: AT,
    };
    world.ok(evict());
    let epoch = world.state.epoch();
    world.ok(evict());
    world.ok(Command::UpdateNode {
        node: RaftId(1),
        weight: Some(1),
        zone: None,
        at: AT,
    });
    world.ok(Command::UpdateConfig {
        change: ConfigChange {
            repair_delay_ms: Some(9),
            ..ConfigChange::default()
        },
        at: AT,
    });
    assert_eq!(world.state.config().repair_delay_ms, 9);
    assert_eq!(world.state.epoch(), epoch);
}

#[test]
fn a_node_that_fell_down_while_joining_joins_when_it_returns() {
    let mut world = World::formed(1, 1, 1);
    let joined = world.ok(join(spec(2), None)).node.unwrap().0;
    world.down(&[joined]);
    world.up(&[joined]);
    assert_eq!(status(&world, joined), NodeStatus::Joining);
    world.restart(joined);
    assert_eq!(status(&world, joined), NodeStatus::Joining);
    let active = world.ok(activate(joined));
    assert!(matches!(
        active.events[0].kind,
        EventKind::NodeJoined { .. }
    ));
    assert_eq!(status(&world, joined), NodeStatus::Active);
}

#[test]
fn a_drain_asked_for_while_joining_is_not_forgotten() {
    let mut world = World::formed(1, 1, 1);
    let joined = world.ok(join(spec(2), None)).node.unwrap().0;
    world.ok(drain(joined, true, false));
    world.ok(activate(joined));
    assert_eq!(status(&world, joined), NodeStatus::Draining);
    world.ok(drain(joined, false, false));
    assert_eq!(status(&world, joined), NodeStatus::Active);
}

#[test]
fn two_live_nodes_never_share_an_address() {
    let mut world = World::formed(2, 1, 1);
    world.down(&[2]);
    let mut moved = spec(3);
    moved.address = spec(2).address;
    world.ok(join(moved, None));
    world.up(&[2]);
    assert_eq!(
        status(&world, 2),
        NodeStatus::Down,
        "it must announce itself"
    );
    let command = restarted(&world.state, 2);
    assert!(matches!(
        world.refused(command),
        Rejected::AddressInUse { .. }
    ));
}

#[test]
fn a_restart_is_told_before_the_failover_it_causes() {
    let mut world = World::placed(2, 1, &[1, 2]);
    let applied = world.restart(1);
    let kinds: Vec<_> = applied.events.iter().map(|event| &event.kind).collect();
    assert!(matches!(kinds[0], EventKind::NodeRejoined { .. }));
    assert!(matches!(kinds[1], EventKind::PartitionChanged(change)
        if change.target == RaftId(2) && change.stage == ChangeStage::Switched));
    assert_eq!((world.row(0), world.behind(0)), (vec![2, 1], vec![1]));
}

#[test]
fn a_half_copied_partition_called_off_meanwhile_is_foreign_on_return() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    world.down(&[3]);
    world.revert();
    let back = world.up(&[3]);
    assert_eq!(verdict(&back.events, 3), [Verdict::Foreign]);
}

#[test]
fn calling_off_an_old_move_keeps_the_new_plan_for_it() {
    let mut world = World::placed(4, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    world.plan(&[(0, &[1, 4])]);
    world.revert();
    assert_eq!(world.state.plan().unwrap().targets[&P], ids(&[1, 4]));
    world.release();
    world.start_all();
    world.sync(4);
    world.switch();
    assert_eq!(world.row(0), [1, 4]);
}

#[test]
fn calling_off_a_planned_move_is_planned_again() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    let epoch = world.state.partition(P).unwrap().epoch;
    world.revert();
    assert!(world.state.plan().is_none());
    assert_ne!(world.state.planned_basis(), world.state.plan_basis());
    assert!(world.state.partition(P).unwrap().epoch > epoch);
}

#[test]
fn an_absurd_row_is_refused_before_it_breaks_the_topology() {
    let mut world = World::formed(9, 1, 3);
    let row: Vec<u64> = (1..=9).collect();
    let command = plan(&world.state, &[(0, &row)]);
    assert!(matches!(world.refused(command), Rejected::BadTarget { .. }));
}

#[test]
fn a_node_holds_nothing_before_it_is_active() {
    let mut world = World::formed(1, 1, 1);
    let joined = world.ok(join(spec(2), None)).node.unwrap().0;
    let command = plan(&world.state, &[(0, &[joined])]);
    for fall in [false, true] {
        if fall {
            world.down(&[joined]);
        }
        let rejected = world.refused(command.clone());
        assert!(!fall || matches!(rejected, Rejected::StaleEpoch { .. }));
        let now = plan(&world.state, &[(0, &[1, joined])]);
        assert!(matches!(world.refused(now), Rejected::BadTarget { .. }));
    }
}

#[test]
fn a_cursor_beyond_every_event_is_no_arithmetic_error() {
    let world = World::formed(1, 1, 1);
    let (events, missed) = world.state.events_after(EventSeq(u64::MAX));
    assert!(events.is_empty() && !missed);
}

#[test]
fn a_copying_node_that_is_down_holds_up_no_writes() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    world.down(&[3]);
    let topology = world.state.topology(RaftId(1));
    let reached: Vec<u64> = topology.write_set(P).map(|node| node.raft_id.0).collect();
    assert_eq!(reached, [1, 2]);
}

#[test]
fn a_wiped_node_takes_over_the_id_of_its_dead_self_only() {
    let mut world = World::placed(3, 1, &[1, 2, 3]);
    let mut wiped = spec(3);
    wiped.disk = disk(33);
    for replaces in [None, Some(3), Some(1)] {
        let rejected = world.refused(join(wiped.clone(), replaces));
        assert!(matches!(rejected, Rejected::NodeIdInUse { .. }));
    }
    world.ok(mark_down(&[3]));
    assert!(world.apply(join(wiped.clone(), None)).is_err());
    let joined = world.ok(join(wiped.clone(), Some(3)));
    assert_ne!(joined.node, Some(RaftId(3)));
    assert_eq!(world.row(0), [1, 2]);
    assert_eq!(
        world.state.node_record(RaftId(3)).unwrap().status,
        NodeStatus::Left
    );
    assert_eq!(
        world.ok(join(wiped, Some(3))).node,
        joined.node,
        "asked again"
    );
}

#[test]
fn a_late_answer_of_a_reverted_or_restarted_copy_is_refused() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[1, 3])]);
    let first = world.oracle.history.last().copied().unwrap().2;
    world.restart(3);
    let second = world.oracle.history.last().copied().unwrap().2;
    assert_ne!(first, second);
    let answer = |stage| Command::Synced {
        node: RaftId(3),
        stages: vec![(P, stage)],
        at: AT,
    };
    assert_eq!(world.ok(answer(first)).refused, [(P, first)]);
    world.revert();
    assert_eq!(world.ok(answer(second)).refused, [(P, second)]);
}

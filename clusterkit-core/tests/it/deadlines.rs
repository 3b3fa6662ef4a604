//! Rules 2 and 6: nothing is stuck. What takes longer than its deadline is called off where that is
//! safe and shown as overdue where it is not, with what it waits for; an operator can cancel.

use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::copying::{CopyBook, CopyProgress, CopyReport};
use clusterkit_core::id::{PartitionId, RaftId, StageId};
use clusterkit_core::operation::{
    Blocker, Operation, OperationKind, OperationState, Progress, operations,
};
use clusterkit_core::partition::Stage;
use clusterkit_core::pause::Work;

use crate::cluster::Cluster;
use crate::world::World;

/// Returns a settled cluster of four nodes whose copies may take 60 s and releases 20 s.
fn settled(partitions: u32) -> Cluster {
    let mut world = Cluster::with(ClusterConfig {
        partition_count: partitions,
        repair_delay_ms: 5_000,
        copy_deadline_ms: 60_000,
        cleanup_deadline_ms: 20_000,
        ..ClusterConfig::default()
    });
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    world.check_settled();
    world
}

fn shown(world: &Cluster) -> Vec<Operation> {
    operations(&world.state, None, world.coordinator.copies(), world.wall())
}

fn of_kind(world: &Cluster, kind: OperationKind) -> Vec<Operation> {
    let mut shown = shown(world);
    shown.retain(|operation| operation.kind == kind);
    shown
}

fn drain(world: &mut Cluster, name: &str, leave: bool) -> RaftId {
    let node = world.state.node_by_id(name).unwrap().raft_id;
    let at = world.wall();
    let command = Command::Drain {
        node,
        on: true,
        leave,
        at,
    };
    world.apply(&command).unwrap();
    node
}

fn cancel(world: &mut Cluster, operation: &Operation) {
    let command = operation.cancel(world.wall()).expect("it can be cancelled");
    let applied = world.apply(&command).unwrap();
    assert_eq!(applied.refused, []);
}

fn in_cleanup(world: &Cluster) -> Vec<(PartitionId, StageId)> {
    let all = world.state.partitions_by_id();
    all.filter_map(|(id, partition)| match partition.stage {
        Stage::Cleanup { id: stage, .. } => Some((id, stage)),
        Stage::Stable | Stage::Syncing(_) => None,
    })
    .collect()
}

#[test]
fn a_move_whose_joining_member_never_answers_is_called_off_and_tried_again_ever_more_rarely() {
    let mut world = settled(16);
    world.slow = true;
    world.join("node-5");
    world.run(Duration::from_secs(1));
    let before: Vec<_> = world.state.partitions().iter().map(|it| it.epoch).collect();
    let moving = of_kind(&world, OperationKind::Migration);
    assert_eq!(moving.len(), 9, "a fair share of 48 copies");
    world.lose(None);
    world.run(Duration::from_secs(50));
    assert_eq!(
        of_kind(&world, OperationKind::Migration).len(),
        9,
        "not yet"
    );

    let mut begun = 1;
    let mut starts = vec![world.now];
    let mut was_moving = true;
    while starts.len() < 5 {
        world.run(Duration::from_millis(500));
        world.lose(None);
        let is_moving = world.state.moves_in_flight() > 0;
        if is_moving && !was_moving {
            begun += 1;
            starts.push(world.now);
        }
        if !is_moving {
            let partition = moving[0].partition.unwrap();
            let setback = world.state.setback(partition).unwrap();
            assert_eq!(setback.times, begun);
        }
        was_moving = is_moving;
    }
    // 60 s for the copy, then 20 s, 40 s, 80 s of waiting; after the first one the release, which
    // is not answered either, takes longer than the 10 s of waiting.
    let gaps: Vec<u64> = starts
        .windows(2)
        .skip(1)
        .map(|pair| pair[1].saturating_since(pair[0]).as_secs())
        .collect();
    assert!(
        gaps.iter()
            .zip([80, 100, 140])
            .all(|(gap, wanted)| gap.abs_diff(wanted) <= 2),
        "{gaps:?}"
    );
    // Everybody kept serving, and each way back raised the epoch.
    for (was, partition) in before.iter().zip(world.state.partitions()) {
        assert_eq!(partition.in_sync().count(), 3);
        assert!(partition.epoch >= *was);
    }
    // It answers at last: the move ends, and nothing is remembered against it.
    world.slow = false;
    world.run(Duration::from_secs(300));
    world.check_settled();
    assert_eq!(world.state.setbacks().count(), 0);
}

#[test]
fn a_move_called_off_waits_under_a_new_leader_too() {
    let mut world = settled(16);
    world.slow = true;
    world.join("node-5");
    world.run(Duration::from_secs(50));
    world.lose(None);
    world.slow = false;
    world.run(Duration::from_secs(13));
    assert_eq!(world.state.moves_in_flight(), 0);
    let plan = &of_kind(&world, OperationKind::Plan)[0];
    let waits = |it: &Blocker| matches!(it, Blocker::Retry { times: 1, .. });
    assert!(plan.blockers.iter().any(waits), "{plan:?}");
    assert_eq!(plan.state, OperationState::Waiting);
    let two = world.state.node_by_id("node-2").unwrap().raft_id;
    world.change_leader(two);
    world.run(Duration::from_secs(9));
    assert_eq!(world.state.moves_in_flight(), 0);
    world.run(Duration::from_secs(5));
    world.check_settled();
}

#[test]
fn a_cleanup_that_never_ends_blocks_no_later_move_and_its_late_answer_is_refused() {
    let mut world = settled(16);
    world.join("node-5");
    world.slow = true;
    world.run(Duration::from_secs(1));
    // Copies are made, releases are lost.
    while world.state.moves_in_flight() > 0 {
        world.finish(0);
        world.run(Duration::from_millis(50));
    }
    world.lose(None);
    let stuck = in_cleanup(&world);
    assert!(!stuck.is_empty());
    world.slow = false;
    let four = drain(&mut world, "node-4", false);
    world.run(Duration::from_secs(5));
    assert!(
        in_cleanup(&world).len() >= stuck.len(),
        "it waits for a while"
    );
    let shown = of_kind(&world, OperationKind::Drain);
    let waits = |it: &Blocker| matches!(it, Blocker::AwaitsCleanup { .. });
    assert!(
        shown.iter().all(|it| it.blockers.iter().any(waits)),
        "{shown:?}"
    );
    let waited = of_kind(&world, OperationKind::Cleanup);
    let Blocker::ReleaseUnanswered {
        node, waited_ms, ..
    } = &waited[0].blockers[0]
    else {
        panic!("it says for whom it waits: {:?}", waited[0])
    };
    assert!(*waited_ms >= 5_000, "{node} for {waited_ms} ms");

    world.run(Duration::from_secs(20));
    assert_eq!(in_cleanup(&world), []);
    assert!(!world.state.holds_anything(four), "the drain went on");
    world.check_settled();
    for (id, stage) in stuck {
        let former: Vec<RaftId> = world.state.nodes().map(|node| node.raft_id).collect();
        for node in former {
            let stages = vec![(id, stage)];
            let late = world.apply(&Command::Released { node, stages }).unwrap();
            assert_eq!(late.refused, [(id, stage)]);
        }
    }
}

#[test]
fn a_drain_shows_how_far_it_is_and_what_it_waits_for_and_can_be_cancelled() {
    let mut world = settled(16);
    world.slow = true;
    let two = drain(&mut world, "node-2", false);
    world.run(Duration::from_secs(1));
    let [shown] = &of_kind(&world, OperationKind::Drain)[..] else {
        panic!("one drain goes on")
    };
    assert_eq!(
        (shown.id.as_str(), shown.cancellable),
        ("drain-node-2", true)
    );
    assert_eq!(shown.progress, Progress { done: 0, total: 12 });
    assert_eq!(shown.state, OperationState::Running, "{shown:?}");
    let moving = of_kind(&world, OperationKind::Migration);
    assert!(
        moving
            .iter()
            .all(|it| matches!(it.blockers[..], [Blocker::CopyUnanswered { .. }]))
    );
    for _ in 0..6 {
        world.finish(0);
        world.run(Duration::from_millis(50));
    }
    let shown = &of_kind(&world, OperationKind::Drain)[0].clone();
    assert!((1..12).contains(&shown.progress.done), "{shown:?}");

    world.run(Duration::from_secs(50));
    cancel(&mut world, shown);
    world.hurry();
    world.run(Duration::from_secs(30));
    world.check_settled();
    assert!(world.state.holds_anything(two));
    assert_eq!(shown_count(&world), 0);
}

fn shown_count(world: &Cluster) -> usize {
    shown(world).len()
}

#[test]
fn a_drain_beyond_its_deadline_is_overdue_and_never_taken_back_by_itself() {
    let mut world = settled(16);
    world.slow = true;
    let two = drain(&mut world, "node-2", true);
    for _ in 0..30 {
        world.run(Duration::from_secs(5));
        world.lose(None);
    }
    let [shown] = &of_kind(&world, OperationKind::Leave)[..] else {
        panic!("the leave goes on")
    };
    assert_eq!(shown.state, OperationState::Overdue);
    assert!(!shown.blockers.is_empty());
    assert!(world.state.node(two).is_some());
    world.slow = false;
    world.run(Duration::from_secs(300));
    assert!(world.state.node(two).is_none(), "it has left");
    world.check_settled();
}

#[test]
fn a_cancelled_rebalance_begins_nothing_more_and_is_not_planned_again() {
    let mut world = Cluster::with(ClusterConfig {
        partition_count: 32,
        moves_in_flight: 4,
        ..ClusterConfig::default()
    });
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(2));
    world.slow = true;
    let five = world.join("node-5");
    world.run(Duration::from_secs(1));
    let [plan] = &of_kind(&world, OperationKind::Plan)[..] else {
        panic!("a plan is in force")
    };
    assert_eq!(
        (plan.progress.total, plan.node.as_ref().unwrap().as_str()),
        (19, "node-5")
    );
    let waits = |it: &Blocker| {
        matches!(
            it,
            Blocker::MoveLimits {
                waiting: 15,
                in_flight: 4,
                ..
            }
        )
    };
    assert!(plan.blockers.iter().any(waits), "{plan:?}");
    cancel(&mut world, plan);
    world.hurry();
    let plans = world.plans;
    world.run(Duration::from_secs(20));
    assert_eq!((world.plans, world.state.plan()), (plans, None));
    let held = world
        .state
        .partitions()
        .iter()
        .filter(|it| it.is_member(five));
    assert_eq!(held.count(), 4, "what was under way has ended");
}

#[test]
fn a_cancelled_migration_goes_back_to_where_it_began() {
    let mut world = settled(16);
    world.slow = true;
    world.join("node-5");
    world.run(Duration::from_secs(1));
    let moving = of_kind(&world, OperationKind::Migration);
    let id = moving[0].partition.unwrap();
    let before = world.state.partition(id).unwrap().clone();
    cancel(&mut world, &moving[0]);
    world.run(Duration::from_secs(5));
    let after = world.state.partition(id).unwrap();
    assert!(after.joining().is_empty());
    assert!(after.members().eq(before.members()) && after.epoch > before.epoch);
    world.hurry();
    world.run(Duration::from_secs(30));
    world.check_settled();
}

#[test]
fn a_node_that_is_down_shows_how_long_it_is_waited_for_and_that_repair_is_paused() {
    let mut world = settled(16);
    let four = world.state.node_by_id("node-4").unwrap().raft_id;
    world.processes.get_mut(&four).unwrap().up = false;
    world.run(Duration::from_secs(3));
    let [shown] = &of_kind(&world, OperationKind::Repair)[..] else {
        panic!("one node is waited for")
    };
    assert_eq!(
        (shown.id.as_str(), shown.state),
        ("repair-node-4", OperationState::Waiting)
    );
    let Blocker::RepairDelay { until, left_ms, .. } = shown.blockers[0] else {
        panic!("{shown:?}")
    };
    assert_eq!(until, shown.deadline);
    assert!((1..5_000).contains(&left_ms), "{left_ms}");
    assert!(!shown.cancellable);
    let at = world.wall();
    let pause = Command::Pause {
        work: Work::Repair,
        on: true,
        reason: "moving racks".into(),
        at,
    };
    world.apply(&pause).unwrap();
    world.run(Duration::from_secs(10));
    let shown = &of_kind(&world, OperationKind::Repair)[0];
    assert_eq!(shown.state, OperationState::Paused);
    assert_eq!(
        shown.blockers[0].to_string(),
        "An operator has paused repair: moving racks."
    );
}

/// Lets every copying node say how far it is.
fn report(world: &mut Cluster, done: u64) {
    let (now, wall) = (world.now, world.wall());
    let mut open = Vec::new();
    for (id, partition) in world.state.partitions_by_id() {
        open.extend(partition.joining().iter().map(|it| (it.node, id, it.stage)));
    }
    for (node, id, stage) in open {
        let progress = CopyProgress::new(done, Some(100), "rows").unwrap();
        let report = CopyReport::new(node, id, stage, progress);
        world.coordinator.handle_copy(report, now, wall);
    }
}

#[test]
fn a_copy_that_advances_is_not_overdue_and_one_that_only_says_so_is_called_off() {
    let mut world = settled(16);
    world.slow = true;
    world.join("node-5");
    world.run(Duration::from_secs(1));
    world.lose(None);
    let before = of_kind(&world, OperationKind::Migration);
    for done in 1..=5 {
        world.run(Duration::from_secs(50));
        report(&mut world, done);
    }
    world.run(Duration::from_millis(100));
    let after = of_kind(&world, OperationKind::Migration);
    let ids = |them: &[Operation]| them.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after), "250 s, and the deadline is 60 s");
    for operation in &after {
        assert_eq!(operation.state, OperationState::Running);
        let Blocker::CopyUnanswered { copied, .. } = &operation.blockers[0] else {
            panic!("{operation:?}")
        };
        let copied = copied.as_ref().unwrap();
        assert_eq!((copied.done, copied.total), (5, Some(100)));
        let text = operation.blockers[0].to_string();
        assert!(text.contains(", 5 of 100 rows) and has not"), "{text}");
    }
    // Talking is not advancing: going back and forth below what was reached is not either.
    for done in [4, 5, 3, 5] {
        world.run(Duration::from_secs(10));
        report(&mut world, done);
    }
    assert_eq!(of_kind(&world, OperationKind::Migration).len(), after.len());
    world.run(Duration::from_secs(21));
    assert_eq!(of_kind(&world, OperationKind::Migration), []);
}

#[test]
fn what_was_reported_ends_with_its_stage_and_with_the_leader() {
    let mut world = settled(16);
    world.slow = true;
    world.join("node-5");
    world.run(Duration::from_secs(1));
    report(&mut world, 7);
    world.run(Duration::from_millis(100));
    let moving = of_kind(&world, OperationKind::Migration).len();
    assert_eq!(world.coordinator.copies().after(0).0.len(), moving);
    // A stage that is over, or was never open: nobody waits for it.
    let progress = CopyProgress::new(1, None, "").unwrap();
    let stray = CopyReport::new(RaftId(1), PartitionId(0), StageId(1), progress);
    let (now, wall) = (world.now, world.wall());
    world.coordinator.handle_copy(stray, now, wall);
    world.run(Duration::from_millis(100));
    assert_eq!(world.coordinator.copies().after(0).0.len(), moving);
    let operations = of_kind(&world, OperationKind::Migration);
    cancel(&mut world, &operations[0]);
    world.run(Duration::from_millis(100));
    let left = world.coordinator.copies().after(0).0;
    assert!(
        left.iter()
            .all(|it| Some(it.partition) != operations[0].partition)
    );

    let leader = world.state.node_by_id("node-2").unwrap().raft_id;
    world.change_leader(leader);
    world.run(Duration::from_millis(100));
    assert_eq!(world.coordinator.copies().after(0).0, []);
    report(&mut world, 8);
    let shown = of_kind(&world, OperationKind::Migration);
    let copied = |it: &Operation| match &it.blockers[..] {
        [Blocker::CopyUnanswered { copied, .. }] => copied.clone(),
        _ => None,
    };
    assert!(shown.iter().filter_map(copied).all(|it| it.done == 8));
}

/// A first report of `node` about its copy of partition 0 under `stage`.
fn begun(node: RaftId, stage: StageId) -> CopyReport {
    let progress = CopyProgress::new(1, None, "").unwrap();
    CopyReport::new(node, PartitionId(0), stage, progress)
}

#[test]
fn a_report_that_overtakes_the_log_is_kept_until_its_stage_is_known() {
    let mut world = settled(16);
    let next = world.state.applied().0 + 1;
    let mut book = CopyBook::default();
    for stage in [next - 1, next] {
        book.record(begun(RaftId(1), StageId(stage)));
    }
    book.retain_awaited(&world.state);
    let left: Vec<u64> = book.after(0).0.iter().map(|it| it.stage.0).collect();
    assert_eq!(left, [next]);
    // The log shows that it opened no stage.
    world.join("node-5");
    book.retain_awaited(&world.state);
    assert_eq!(book.after(0).0, []);
}

#[test]
fn of_two_nodes_that_join_in_one_move_the_report_of_the_slower_stands() {
    let mut world = World::placed(3, 1, &[1]);
    world.start(&[(0, &[1, 2, 3])]);
    let joining = world.state.partition(PartitionId(0)).unwrap().joining();
    let (node, stage) = (RaftId(3), joining[1].stage);
    assert_eq!((joining[1].node, joining[0].stage), (node, stage));
    world.sync(2);
    let mut book = CopyBook::default();
    for node in [RaftId(2), node] {
        book.record(begun(node, stage));
    }
    book.retain_awaited(&world.state);
    let left: Vec<RaftId> = book.after(0).0.iter().map(|it| it.node).collect();
    assert_eq!(left, [node]);
}

//! The plans of the log as every node records them: the same everywhere, proven on demand, bounded.

use clusterkit_core::command::Command;
use clusterkit_core::coordinator::{PlanRequest, plan_request};
use clusterkit_core::event::{ChangeReason, Event, EventKind, PlanTrigger};
use clusterkit_core::explain::{PLANS_KEPT, PlanHistory, PlanRecord};
use clusterkit_core::id::{LogIndex, NodeId, PartitionId, PlanId, RaftId};
use clusterkit_core::placement::{MinimalMove, Rendezvous};
use clusterkit_core::state::ClusterState;

use crate::world::{AT, World};

/// Computes a plan on the state as it is, as a leader does, and applies it.
fn rebalance(world: &mut World) -> PlanRecord {
    let request = plan_request(&world.state, world.state.plan_basis()).unwrap();
    let (placement, refuted) = request.compute(&MinimalMove::new()).unwrap();
    assert_eq!(refuted, None);
    let request = PlanRequest {
        trigger: PlanTrigger::Manual,
        ..request
    };
    let mut record = PlanRecord::new(&world.state, &request, placement, "minimal_move", AT);
    let applied = world.ok(request.command(&record.placement, AT));
    record.plan = Some(PlanId(applied.index.0));
    record
}

/// Changes the share of `node`, so that another plan is due.
fn weigh(world: &mut World, node: u64, weight: u32) {
    world.ok(Command::UpdateNode {
        node: RaftId(node),
        weight: Some(weight),
        zone: None,
        at: AT,
    });
}

/// Applies the log of `world` from the entry at `from`, on a node that had applied what is before.
fn replay(world: &World, from: usize) -> PlanHistory {
    let mut state = ClusterState::new();
    for (at, command, _) in &world.log[..from] {
        let _ = state.apply(*at, command);
    }
    let mut history = PlanHistory::starting_after(state.applied());
    for (at, command, outcome) in &world.log[from..] {
        assert_eq!(history.apply(&mut state, *at, command), *outcome);
    }
    assert_eq!(state, world.state);
    history
}

fn records(history: &PlanHistory) -> Vec<&PlanRecord> {
    history.newest_first().map(|record| &**record).collect()
}

#[test]
fn a_node_that_only_saw_the_log_knows_what_the_leader_computed() {
    let mut world = World::formed(4, 24, 2);
    rebalance(&mut world);
    weigh(&mut world, 2, 3);
    let computed = rebalance(&mut world);
    assert!(computed.placement.moves > 0);
    let history = replay(&world, 0);
    assert_eq!(history.after(), LogIndex(0));
    let [seen, first] = records(&history)[..] else {
        panic!("two plans: {history:?}")
    };
    assert_eq!(seen.placement.certificate, None, "the log carries no proof");
    assert_eq!(seen.proven(&MinimalMove::new()).unwrap(), computed);
    assert_eq!(first.trigger, PlanTrigger::Manual);
    assert!(first.input.current.total() == 0, "the first placement");

    let moved = (0..24).map(PartitionId).find(|&it| seen.changes(it));
    let node = NodeId::new("n2").unwrap();
    let proven = seen.proven(&MinimalMove::new()).unwrap();
    assert_eq!(
        proven.explain(moved, Some(&node)).unwrap(),
        computed.explain(moved, Some(&node)).unwrap()
    );
    assert!(seen.concerns(moved, Some(&node)) && seen.concerns(None, Some(&node)));
    let stranger = NodeId::new("n9").unwrap();
    assert!(!seen.concerns(moved, Some(&stranger)));
}

#[test]
fn a_manual_plan_says_so_when_it_starts_and_in_every_move() {
    let mut world = World::formed(3, 12, 2);
    rebalance(&mut world);
    weigh(&mut world, 2, 3);
    rebalance(&mut world);
    let started = |event: &Event| match &event.kind {
        EventKind::RebalanceStarted { trigger, .. } => Some(*trigger),
        _ => None,
    };
    let (_, _, planned) = world.log.last().unwrap();
    let triggers: Vec<_> = planned
        .as_ref()
        .unwrap()
        .events
        .iter()
        .filter_map(started)
        .collect();
    assert_eq!(triggers, [PlanTrigger::Manual]);
    let reasons: Vec<ChangeReason> = world
        .start_all()
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::PartitionChanged(change) => Some(change.reason),
            _ => None,
        })
        .collect();
    assert!(!reasons.is_empty());
    assert!(reasons.iter().all(|reason| *reason == ChangeReason::Manual));
}

#[test]
fn another_strategy_proves_nothing_and_changes_no_row() {
    let mut world = World::formed(4, 24, 2);
    let computed = rebalance(&mut world);
    let history = replay(&world, 0);
    let seen = records(&history)[0].proven(&Rendezvous::default()).unwrap();
    assert_eq!(seen.placement.rows, computed.placement.rows);
    assert_eq!(seen.explain(None, None).unwrap().minimum, None);
    assert_eq!(computed.explain(None, None).unwrap().minimum, Some(48));
}

#[test]
fn the_last_plans_are_kept_and_the_history_says_from_where_on() {
    let mut world = World::formed(3, 12, 2);
    let mut plans = vec![rebalance(&mut world)];
    for round in 0..PLANS_KEPT {
        weigh(&mut world, 2, 2 + u32::from(round % 2 == 0));
        plans.push(rebalance(&mut world));
    }
    let history = replay(&world, 0);
    let kept: Vec<_> = records(&history).iter().map(|it| it.plan).collect();
    let newest: Vec<_> = plans.iter().rev().map(|it| it.plan).collect();
    assert_eq!(kept, newest[..PLANS_KEPT]);
    let dropped = plans[0].plan.unwrap();
    assert_eq!(history.after(), LogIndex(dropped.0));
}

#[test]
fn a_node_that_starts_from_a_snapshot_knows_only_what_came_after_it() {
    let mut world = World::formed(3, 12, 2);
    rebalance(&mut world);
    let covered = world.log.len();
    weigh(&mut world, 3, 2);
    let later = rebalance(&mut world);
    let history = replay(&world, covered);
    assert_eq!(history.after(), world.log[covered - 1].0);
    let [seen] = records(&history)[..] else {
        panic!("one plan: {history:?}")
    };
    assert_eq!(seen.plan, later.plan);
}

#[test]
fn a_plan_that_is_refused_or_changes_nothing_is_not_kept() {
    let mut world = World::formed(3, 12, 2);
    let request = plan_request(&world.state, world.state.plan_basis()).unwrap();
    let (placement, _) = request.compute(&MinimalMove::new()).unwrap();
    let first = world.ok(request.command(&placement, AT)).index;
    // The epoch has risen: the same plan again comes too late.
    world.refused(request.command(&placement, AT));
    rebalance(&mut world);
    let history = replay(&world, 0);
    let kept: Vec<_> = records(&history).iter().map(|it| it.plan).collect();
    assert_eq!(kept, [Some(PlanId(first.0))]);
}

//! Every short history of a small cluster: three nodes, one or two partitions, a reduced set of
//! commands, all sequences up to a length. What is checked after each command is in
//! [`crate::world`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use clusterkit_core::id::RaftId;

use crate::world::{World, mark_down, mark_up, plan, remove, restarted};

#[derive(Clone, Copy, Debug)]
enum Move {
    Down(&'static [u64]),
    Up(&'static [u64]),
    Restart(u64),
    Remove(u64),
    Plan(&'static [u64]),
    Start,
    Sync(u64),
    Switch,
    Revert,
    Release,
}

const MOVES: &[Move] = &[
    Move::Down(&[1]),
    Move::Down(&[2]),
    Move::Down(&[3]),
    Move::Down(&[1, 2]),
    Move::Down(&[1, 2, 3]),
    Move::Up(&[1]),
    Move::Up(&[2]),
    Move::Up(&[3]),
    Move::Up(&[3, 2, 1]),
    Move::Restart(1),
    Move::Restart(2),
    Move::Restart(3),
    Move::Remove(1),
    Move::Remove(2),
    Move::Remove(3),
    Move::Plan(&[1, 2]),
    Move::Plan(&[2, 3]),
    Move::Plan(&[3]),
    Move::Plan(&[3, 1, 2]),
    Move::Start,
    Move::Sync(1),
    Move::Sync(2),
    Move::Sync(3),
    Move::Switch,
    Move::Revert,
    Move::Release,
];

fn make(world: &mut World, next: Move) {
    let known = |node: u64| world.state.node(RaftId(node)).is_some();
    let command = match next {
        Move::Down(nodes) => mark_down(nodes),
        Move::Up(nodes) => mark_up(nodes),
        Move::Restart(node) if known(node) => restarted(&world.state, node),
        Move::Remove(node) if known(node) => remove(node, true),
        Move::Plan(row) => {
            let count = u32::try_from(world.state.partitions().len()).unwrap();
            // The second partition gets the same nodes in another order.
            let turned: Vec<u64> = row.iter().rev().copied().collect();
            let rows = [(0, row), (1, &turned)];
            plan(&world.state, &rows[..count as usize])
        }
        Move::Sync(node) if world.state.is_live(RaftId(node)) => {
            world.sync(node);
            return;
        }
        Move::Start if world.state.plan().is_some() => {
            world.start_all();
            return;
        }
        Move::Switch => {
            world.switch();
            return;
        }
        Move::Revert => {
            world.revert();
            return;
        }
        Move::Release => return world.release(),
        Move::Restart(_) | Move::Remove(_) | Move::Sync(_) | Move::Start => return,
    };
    // A refusal leaves the state as it was: the history goes no further.
    drop(world.apply(command));
}

/// Walks every history of `length` moves from `world`. Moves that change nothing end a branch: what
/// follows them is a shorter history. Returns how many histories there were.
fn walk(world: &World, length: usize, path: &mut Vec<Move>) -> u64 {
    let mut count = 1;
    if length == 0 {
        return count;
    }
    for &next in MOVES {
        let mut after = world.clone();
        path.push(next);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            after.write();
            make(&mut after, next);
            after.log.clear();
        }));
        assert!(outcome.is_ok(), "broken by {path:?}");
        if changed(world, &after) {
            count += walk(&after, length - 1, path);
        }
        path.pop();
    }
    count
}

fn changed(before: &World, after: &World) -> bool {
    let (before, after) = (&before.state, &after.state);
    (before.epoch(), before.last_event()) != (after.epoch(), after.last_event())
        || before.partitions() != after.partitions()
        || before.plan() != after.plan()
}

fn check(start: &World, length: usize, at_least: u64) {
    let count = walk(start, length, &mut Vec::new());
    assert!(count >= at_least, "only {count} histories");
}

#[test]
fn every_short_history_of_a_settled_partition() {
    check(&World::placed(3, 1, &[1, 2]), 4, 10_000);
}

#[test]
fn every_short_history_of_a_move_under_way() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.start(&[(0, &[3, 1])]);
    check(&world, 4, 10_000);
}

#[test]
fn every_short_history_of_a_copy_behind_and_a_move() {
    let mut world = World::placed(3, 1, &[1, 2]);
    world.down(&[2]);
    world.write();
    world.up(&[2]);
    world.start(&[(0, &[3, 2])]);
    check(&world, 4, 10_000);
}

#[test]
fn every_short_history_of_two_partitions() {
    let mut world = World::formed(3, 2, 2);
    world.plan(&[(0, &[1, 2]), (1, &[2, 3])]);
    check(&world, 3, 1_000);
}

#[test]
fn every_short_history_from_the_first_placement() {
    check(&World::formed(3, 1, 2), 4, 1_000);
}

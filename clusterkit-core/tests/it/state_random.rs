//! Random histories: sensible commands mixed with garbage over up to six nodes and eight
//! partitions, each step checked by [`crate::world`], each history replayed on a second replica
//! that is written out and read back on the way.

use clusterkit_core::command::{Command, Expected, MoveStart, Rejected};
use clusterkit_core::config::ConfigChange;
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::health::{Health, HealthReport};
use clusterkit_core::id::{Epoch, Incarnation, LogIndex, PartitionId, PlanId, RaftId, StageId};
use clusterkit_core::intent::Intent;
use clusterkit_core::node::NodeStatus;
use clusterkit_core::partition::Stage;
use clusterkit_core::pause::Work;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::UnixMillis;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::world::{
    AT, World, activate, bootstrap, disk, drain, join, mark_down, mark_up, remove, restarted, spec,
};

const NODES: u64 = 6;
const PARTITIONS: u32 = 8;

/// A history is a list of these; what they mean depends on the state they meet.
type Step = [u8; 4];

/// Returns the internal id that `pick` stands for: mostly a member, sometimes a former one or none.
fn node(world: &World, pick: u8) -> u64 {
    let members: Vec<u64> = world.state.nodes().map(|node| node.raft_id.0).collect();
    match members.len() {
        0 => u64::from(pick),
        _ if pick >= 245 => u64::from(pick) % (world.next_index() + 2),
        len => members[usize::from(pick) % len],
    }
}

/// Returns the members whose bits are set.
fn some(world: &World, bits: u8) -> Vec<u64> {
    let members = world.state.nodes().enumerate();
    let named = members.filter(|(at, _)| bits >> at & 1 == 1);
    let mut named: Vec<u64> = named.map(|(_, node)| node.raft_id.0).collect();
    if bits >= 192 {
        named.extend([77, named.first().copied().unwrap_or(78)]);
    }
    named
}

/// Returns a row of up to four members, live ones mostly.
fn row(world: &World, a: u8, b: u8) -> Vec<RaftId> {
    let mut row = Vec::new();
    for at in 0..1 + (a >> 6) {
        let pick = node(world, (a & 63).wrapping_add(b.wrapping_mul(at)) % 240);
        let status = world.state.node(RaftId(pick)).map(|node| node.status);
        let fit = match status {
            Some(NodeStatus::Active | NodeStatus::Draining) => true,
            Some(NodeStatus::Down) => b > 200,
            Some(NodeStatus::Joining | NodeStatus::Left) | None => b > 250,
        };
        if fit && !row.contains(&RaftId(pick)) {
            row.push(RaftId(pick));
        }
    }
    if a == 255 {
        row.push(RaftId(u64::from(b)));
    }
    row
}

fn plan(world: &World, [_, a, b, c]: Step) -> Command {
    let base = if c >= 250 { 0 } else { world.state.epoch().0 };
    let targets = (0..PARTITIONS)
        .filter(|p| c >> (p % 8) & 1 == 1 || c < 128)
        .map(|p| {
            let turn = u8::try_from(p).unwrap();
            (
                PartitionId(p),
                row(world, a.wrapping_add(turn * 7), b.wrapping_add(turn)),
            )
        });
    Command::Plan {
        base: Epoch(base),
        trigger: [PlanTrigger::NodeJoin, PlanTrigger::Repair][usize::from(a & 1)],
        trigger_node: None,
        basis: world.state.plan_basis(),
        targets: targets
            .filter(|(_, row)| !row.is_empty() || c == 251)
            .collect(),
        at: AT,
    }
}

fn announce(world: &World, [_, a, b, c]: Step) -> Option<Command> {
    let number = node(world, a);
    world.state.node(RaftId(number))?;
    let mut command = restarted(&world.state, number);
    if let Command::Announce { spec, .. } = &mut command {
        match b {
            0..=9 => spec.incarnation = Incarnation(spec.incarnation.0.saturating_sub(2)),
            10..=39 => spec.incarnation = Incarnation(spec.incarnation.0 - 1),
            40..=49 => spec.disk = disk(99),
            50..=59 => spec.address = crate::world::spec(u64::from(c % 6) + 1).address,
            60..=69 => spec.name = "another name".into(),
            _ => {}
        }
    }
    Some(command)
}

/// Returns a join: of a new node, of one that asks again, of one whose disk was wiped.
fn joining(world: &World, [_, a, b, c]: Step) -> Command {
    let number = u64::from(a) % NODES + 1;
    let mut node = spec(number);
    if b >= 128 {
        node.disk = disk(u64::from(b));
    }
    let holder = world
        .state
        .node_by_id(node.id.as_str())
        .map(|node| node.raft_id.0);
    let replaces = if c < 128 { holder } else { Some(u64::from(c)) };
    join(node, replaces.filter(|_| c >= 64))
}

fn open_stages(world: &World, bits: u8) -> Vec<(PartitionId, StageId)> {
    let mut open = world.moving();
    open.retain(|(id, _)| bits >> (id.0 % 8) & 1 == 1 || bits < 64);
    if bits >= 240 {
        open.extend(
            world
                .oracle
                .history
                .iter()
                .map(|(_, id, stage)| (*id, *stage)),
        );
        open.push((PartitionId(900), StageId(1)));
    }
    open
}

/// Lets nodes finish what they were asked, and moves on what is ready.
fn settle(world: &mut World, bits: u8) {
    for number in some(world, bits & 63) {
        if world.state.is_live(RaftId(number)) {
            world.sync(number);
        }
    }
    world.switch();
    if bits & 64 != 0 {
        world.release();
    }
}

fn step(world: &mut World, step: Step) {
    let [kind, a, b, c] = step;
    let command = match kind % 32 {
        0..=3 => return world.write(),
        4 | 5 => Some(joining(world, step)),
        6 | 7 => Some(activate(node(world, a))),
        8 | 9 => announce(world, step),
        10 => Some(Command::UpdateNode {
            node: RaftId(node(world, a)),
            weight: (b > 100).then_some(u32::from(c)),
            zone: (c > 100).then(|| ["", "a", "b"][usize::from(b % 3)].into()),
            at: AT,
        }),
        11 | 12 => {
            let mut command = mark_down(&some(world, b));
            if let Command::MarkDown { promotions, .. } = &mut command {
                promotions.extend((0..4).map(|p| (PartitionId(p * 3), RaftId(node(world, c)))));
            }
            Some(command)
        }
        13 | 14 => Some(mark_up(&some(world, b))),
        15 => Some(Command::Evict {
            nodes: some(world, b).into_iter().map(RaftId).collect(),
            at: AT,
        }),
        16 => Some(drain(node(world, a), b < 160, c < 128)),
        17 => Some(remove(node(world, a), b < 100)),
        18 if a < 60 => world.state.nodes().next().map(|_| {
            let node = RaftId(node(world, b));
            let known = world.state.node(node);
            Command::SetHealth {
                node,
                incarnation: known.map_or(Incarnation(1), |node| node.incarnation),
                report: HealthReport::new(
                    [Health::Healthy, Health::Unhealthy, Health::Down][usize::from(c % 3)],
                    "because",
                )
                .unwrap(),
                heirs: (0..4)
                    .map(|p| (PartitionId(p * 2), RaftId(u64::from(a % 8))))
                    .collect(),
                at: AT,
            }
        }),
        18 if a >= 180 => Some(Command::Pause {
            work: Work::ALL[usize::from(b % 3)],
            on: c < 160,
            reason: "because".into(),
            at: AT,
        }),
        18 => Some(Command::UpdateConfig {
            change: ConfigChange {
                replication_factor: (a < 200).then_some(u32::from(b % 5)),
                repair_delay_ms: (c < 200).then_some(u64::from(c)),
                moves_in_flight: (a % 4 == 0).then_some(u32::from(c % 9)),
                min_in_sync: (a % 8 == 1).then_some(u32::from(c % 4)),
                ..ConfigChange::default()
            },
            at: AT,
        }),
        19..=21 => Some(plan(world, step)),
        22 | 23 => world.state.plan().map(|plan| Command::StartMoves {
            plan: PlanId(plan.id.0 - u64::from(a == 0)),
            moves: (0..=PARTITIONS)
                .map(PartitionId)
                .filter(|p| c >> p.0.min(7) & 1 == 1)
                .map(|partition| MoveStart {
                    partition,
                    // Whether it holds the data or not: a wish.
                    sources: vec![RaftId(u64::from(b % 8)), RaftId(u64::from(a % 8))],
                })
                .collect(),
            at: AT,
        }),
        24 | 25 => return settle(world, b),
        26 => {
            // An answer to a question of long ago.
            let late = world.oracle.history.get(usize::from(a)).copied();
            late.and_then(|(node, id, stage)| {
                let open = world.oracle.asked.get(&(node, id));
                (open.is_none_or(|ask| ask.stage != stage)).then(|| Command::Synced {
                    node,
                    stages: vec![(id, stage), (id, stage)],
                    at: AT,
                })
            })
        }
        27 => Some(Command::Switch {
            stages: open_stages(world, c),
            at: AT,
        }),
        28 => Some(Command::Revert {
            stages: open_stages(world, c),
            at: AT,
        }),
        29 => {
            let id = PartitionId(u32::from(a) % PARTITIONS);
            let stage = match world.state.partition(id).map(|partition| &partition.stage) {
                Some(Stage::Cleanup { id, .. }) if b < 200 => *id,
                _ => StageId(u64::from(b)),
            };
            Some(Command::Released {
                node: RaftId(node(world, c)),
                stages: vec![(id, stage)],
            })
        }
        30 if c < 128 => Some(Command::SetData {
            key: "k".repeat(usize::from(a % 4)),
            value: vec![b].into(),
            expected: [
                Expected::Any,
                Expected::Absent,
                Expected::Version(LogIndex(7)),
            ][usize::from(c % 3)],
        }),
        30 => Some(Command::DeleteData {
            key: "k".repeat(usize::from(a % 4)),
            expected: Expected::Any,
        }),
        31 if a < 160 => Some(Command::SetIntent {
            node: RaftId(node(world, b)),
            intent: [
                None,
                Some(Intent::Handover),
                Some(Intent::Restart {
                    ttl_ms: u64::from(a) * 16,
                }),
            ][usize::from(c % 3)],
            force: c >= 128,
            heirs: (0..4)
                .map(|p| (PartitionId(p * 2), RaftId(u64::from(a % 8))))
                .collect(),
            at: AT,
        }),
        31 if a < 208 => Some(Command::ExpireIntents {
            at: UnixMillis(AT.0 + u64::from(b) * 16),
        }),
        _ => Some(bootstrap(PARTITIONS, 1 + u32::from(a % 4))),
    };
    if let Some(command) = command {
        // Whether it is refused is not the question: `World::apply` checks both ways.
        let _: Result<_, Rejected> = world.apply(command).map(drop);
    }
}

/// Returns `state` after a round trip through a snapshot.
fn reread(state: &ClusterState, json: bool) -> ClusterState {
    if json {
        return serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
    }
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(state, config).unwrap();
    bincode::serde::decode_from_slice(&bytes, config).unwrap().0
}

pub(crate) fn config(cases: u32) -> ProptestConfig {
    let seed = std::env::var("CLUSTERKIT_SEED").map_or(1, |seed| seed.parse().unwrap());
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn no_history_breaks_the_state(
        nodes in 1..=NODES,
        factor in 1..=4_u32,
        steps in prop::collection::vec(any::<Step>(), 1..150),
    ) {
        let mut world = World::formed(nodes, PARTITIONS, factor);
        for next in steps {
            step(&mut world, next);
        }
    }

    #[test]
    fn a_second_replica_agrees(steps in prop::collection::vec(any::<Step>(), 1..150)) {
        let mut world = World::default();
        world.ok(bootstrap(PARTITIONS, 3));
        world.log.clear();
        let mut twin = reread(&world.state, true);
        for (at, next) in steps.into_iter().enumerate() {
            step(&mut world, next);
            for (index, command, outcome) in world.log.drain(..) {
                prop_assert_eq!(twin.apply(index, &command), outcome);
            }
            prop_assert_eq!(&twin, &world.state);
            if at % 8 == 0 {
                twin = reread(&twin, at % 16 == 0);
                prop_assert_eq!(&twin, &world.state);
            }
        }
    }
}

//! The coordinator drives a whole cluster of pure state: virtual nodes that heartbeat, copy, die
//! and return, under virtual time. What it must reach: everybody placed, balanced, in sync.
//!
//! No control plane: every decision is applied at once, which is what a healthy log amounts to.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::coordinator::Coordinator;
use clusterkit_core::detector::DetectorConfig;
use clusterkit_core::event::{ChangeStage, EventKind};
use clusterkit_core::id::{ClusterId, DiskId, Incarnation, LogIndex, NodeId, RaftId};
use clusterkit_core::node::{NodeSpec, NodeStatus};
use clusterkit_core::partition::Stage;
use clusterkit_core::placement::MinimalMove;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::{Instant, UnixMillis};
use proptest::prelude::*;

const TICK: Duration = Duration::from_millis(50);

/// A virtual node: whether it runs, and as which process.
#[derive(Clone, Copy)]
struct Process {
    up: bool,
    incarnation: u64,
    disk: u8,
}

struct World {
    state: ClusterState,
    coordinator: Coordinator,
    now: Instant,
    index: u64,
    processes: BTreeMap<RaftId, Process>,
    disks: u8,
    /// Moves that were started, all in all.
    copies: usize,
}

impl World {
    fn new(partitions: u32) -> Self {
        let mut world = Self {
            state: ClusterState::new(),
            coordinator: Coordinator::new(DetectorConfig::default()).unwrap(),
            now: Instant::from_millis(1),
            index: 1,
            processes: BTreeMap::new(),
            disks: 0,
            copies: 0,
        };
        let config = ClusterConfig {
            partition_count: partitions,
            repair_delay_ms: 5_000,
            ..ClusterConfig::default()
        };
        let node = world.spec("node-1");
        let cluster = ClusterId::from_bytes([1; 16]);
        let at = world.wall();
        world
            .apply(&Command::Bootstrap {
                cluster,
                config,
                node,
                at,
            })
            .unwrap();
        let process = Process {
            up: true,
            incarnation: 1,
            disk: 1,
        };
        world.processes.insert(RaftId::BOOTSTRAP, process);
        world
    }

    fn spec(&mut self, id: &str) -> NodeSpec {
        self.disks += 1;
        let disk = DiskId::from_bytes([self.disks; 16]);
        NodeSpec::new(
            NodeId::new(id).unwrap(),
            disk,
            &format!("{id}.test:{}", self.disks),
        )
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis(self.now.as_nanos() / 1_000_000)
    }

    fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        self.index += 1;
        let applied = self.state.apply(LogIndex(self.index), command);
        self.state.check_invariants().unwrap();
        if let Ok(applied) = &applied {
            for event in &applied.events {
                self.answer(&event.kind);
            }
        }
        applied
    }

    /// What the target of a change does about it, if it runs: copy at once, let go at once.
    fn answer(&mut self, kind: &EventKind) {
        let EventKind::PartitionChanged(change) = kind else {
            return;
        };
        if !self
            .processes
            .get(&change.target)
            .is_some_and(|process| process.up)
        {
            return;
        }
        let stages = vec![(change.partition, change.stage_id)];
        let (node, at) = (change.target, self.wall());
        let command = match change.stage {
            ChangeStage::Syncing => {
                self.copies += 1;
                Command::Synced { node, stages, at }
            }
            ChangeStage::Cleanup | ChangeStage::Reverted => Command::Released { node, stages },
            ChangeStage::Switched => return,
        };
        self.apply(&command).unwrap();
    }

    fn join(&mut self, id: &str) -> RaftId {
        let node = self.spec(id);
        let (disk, at) = (self.disks, self.wall());
        let joined = self
            .apply(&Command::Join {
                node,
                replaces: None,
                at,
            })
            .unwrap();
        let raft_id = joined.node.unwrap();
        self.processes.insert(
            raft_id,
            Process {
                up: true,
                incarnation: 1,
                disk,
            },
        );
        raft_id
    }

    /// Lets a paused process go on: it hears what it was asked meanwhile.
    fn resume(&mut self, node: RaftId) {
        self.processes.get_mut(&node).unwrap().up = true;
        let at = self.wall();
        let (mut copied, mut released) = (Vec::new(), Vec::new());
        for (id, partition) in self.state.partitions_by_id() {
            let joining = partition.joining().iter().filter(|j| j.node == node);
            copied.extend(joining.map(|joining| (id, joining.stage)));
            let behind = partition.behind.iter().filter(|b| b.node == node);
            copied.extend(behind.filter_map(|behind| Some((id, behind.stage?))));
            if let Stage::Cleanup { id: stage, leaving } = &partition.stage
                && leaving.contains(&node)
            {
                released.push((id, *stage));
            }
        }
        self.copies += copied.len();
        for command in [
            Command::Synced {
                node,
                stages: copied,
                at,
            },
            Command::Released {
                node,
                stages: released,
            },
        ] {
            self.apply(&command).unwrap();
        }
    }

    fn restart(&mut self, node: RaftId) {
        let Some(record) = self.state.node(node).cloned() else {
            return;
        };
        let process = self.processes.get_mut(&node).unwrap();
        process.up = true;
        process.incarnation += 1;
        let disk = DiskId::from_bytes([process.disk; 16]);
        let mut spec = NodeSpec::new(record.id.clone(), disk, &record.address);
        spec.incarnation = Incarnation(process.incarnation);
        let at = self.wall();
        self.apply(&Command::Announce { node, spec, at }).unwrap();
    }

    /// Lets time pass, with heartbeats of everybody who is up. The first node leads throughout.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + TICK;
            self.coordinator
                .handle_leadership(Some(RaftId::BOOTSTRAP), self.now);
            for (&node, process) in &self.processes {
                if process.up && node != RaftId::BOOTSTRAP {
                    let incarnation = Incarnation(process.incarnation);
                    let applied = LogIndex(self.index);
                    let _ = self
                        .coordinator
                        .handle_heartbeat(node, incarnation, applied, self.now);
                }
            }
            for _ in 0..200 {
                if !self.step() {
                    break;
                }
            }
        }
    }

    fn step(&mut self) -> bool {
        let decision = self.coordinator.decide(&self.state, self.now, self.wall());
        let mut commands = decision.commands;
        if let Some(request) = decision.plan {
            let (placement, refuted) = request.compute(&MinimalMove::default()).unwrap();
            assert_eq!(refuted, None);
            commands.push(request.command(&placement, self.wall()));
        }
        let acted = !commands.is_empty();
        for command in commands {
            let _ = self.apply(&command);
        }
        acted
    }

    /// Checks that nothing is left to do and everybody has a fair share.
    fn check_settled(&self) {
        let takers: Vec<RaftId> = self
            .state
            .nodes()
            .filter(|node| node.takes_data())
            .map(|node| node.raft_id)
            .collect();
        let copies = takers
            .len()
            .min(self.state.config().replication_factor as usize);
        let mut replicas: BTreeMap<RaftId, usize> = takers.iter().map(|&id| (id, 0)).collect();
        let mut primaries = replicas.clone();
        for (id, partition) in self.state.partitions_by_id() {
            assert_eq!(
                partition.in_sync().count(),
                copies,
                "partition {id}: {partition:?}"
            );
            assert_eq!(partition.leaving(), [], "partition {id}");
            for member in partition.members() {
                *replicas.get_mut(&member).expect("only takers hold data") += 1;
            }
            *primaries.get_mut(&partition.primary.unwrap()).unwrap() += 1;
        }
        for counts in [replicas, primaries] {
            let (min, max) = (counts.values().min(), counts.values().max());
            assert!(max.unwrap() - min.unwrap() <= 1, "{counts:?}");
        }
        assert!(self.state.plan().is_none());
    }
}

#[test]
fn a_cluster_grows_loses_a_node_and_gets_it_back_without_copying_twice() {
    let mut world = World::new(64);
    world.run(Duration::from_millis(500));
    world.check_settled();
    assert_eq!(world.copies, 0, "the first placement copies nothing");

    let two = world.join("node-2");
    let three = world.join("node-3");
    world.run(Duration::from_secs(1));
    world.check_settled();
    assert_eq!(
        world.copies, 128,
        "each copy is made once although two nodes joined"
    );

    world.processes.get_mut(&three).unwrap().up = false;
    world.run(Duration::from_secs(2));
    assert_eq!(world.state.node(three).unwrap().status, NodeStatus::Down);
    assert_eq!(world.copies, 128, "down is not gone: nothing is copied");
    let led_by_down = world
        .state
        .partitions()
        .iter()
        .any(|p| p.primary == Some(three));
    assert!(!led_by_down, "its partitions failed over");

    world.restart(three);
    world.run(Duration::from_secs(1));
    world.check_settled();
    assert_eq!(
        world.copies, 192,
        "what it held is caught up, nothing else moves"
    );
    assert!(world.state.node(two).is_some());
}

#[test]
fn a_node_that_stays_down_is_repaired_after_the_delay_and_not_before() {
    let mut world = World::new(32);
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    let four = world.state.node_by_id("node-4").unwrap().raft_id;
    let home: Vec<bool> = world
        .state
        .partitions()
        .iter()
        .map(|p| p.is_member(four))
        .collect();
    let held = home.iter().filter(|member| **member).count();
    let before = world.copies;
    world.processes.get_mut(&four).unwrap().up = false;
    world.run(Duration::from_secs(4));
    assert_eq!(world.copies, before);
    world.run(Duration::from_secs(4));
    assert_eq!(
        world.copies - before,
        held,
        "each copy it held is made once elsewhere"
    );
    assert!(world.state.node(four).unwrap().evicted);
    assert!(!world.state.holds_anything(four));
    world.check_settled();

    // It returns after all, and finds its own partitions again.
    let before = world.copies;
    world.restart(four);
    world.run(Duration::from_secs(2));
    world.check_settled();
    let again: Vec<bool> = world
        .state
        .partitions()
        .iter()
        .map(|p| p.is_member(four))
        .collect();
    assert_eq!(again, home, "the home hint brings it back where it was");
    assert_eq!(world.copies - before, held);
}

#[test]
fn a_leaving_node_is_dismissed_once_it_is_empty() {
    let mut world = World::new(32);
    for id in ["node-2", "node-3", "node-4"] {
        world.join(id);
    }
    world.run(Duration::from_secs(1));
    let two = world.state.node_by_id("node-2").unwrap().raft_id;
    let at = world.wall();
    world
        .apply(&Command::Drain {
            node: two,
            on: true,
            leave: true,
            at,
        })
        .unwrap();
    world.run(Duration::from_secs(1));
    assert!(world.state.node(two).is_none());
    world.check_settled();
}

/// What an unfriendly world does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join,
    Kill(usize),
    Restart(usize),
    Pause(usize),
    Drain(usize, bool),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Join),
        (0..8_usize).prop_map(Act::Kill),
        (0..8_usize).prop_map(Act::Restart),
        (0..8_usize).prop_map(Act::Pause),
        (0..8_usize, any::<bool>()).prop_map(|(i, on)| Act::Drain(i, on)),
        (0..8_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_a_quiet_cluster_is_placed_balanced_and_in_sync(
        acts in prop::collection::vec(act(), 1..24),
    ) {
        let mut world = World::new(16);
        let mut joined = 1;
        for act in acts {
            let others: Vec<RaftId> =
                world.processes.keys().copied().filter(|&id| id != RaftId::BOOTSTRAP).collect();
            let pick = |i: usize| others.get(i % others.len().max(1)).copied();
            match act {
                Act::Join if joined < 6 => {
                    joined += 1;
                    world.join(&format!("node-{joined}"));
                }
                Act::Join => {}
                Act::Kill(i) | Act::Pause(i) => {
                    if let Some(node) = pick(i) {
                        world.processes.get_mut(&node).unwrap().up = false;
                    }
                }
                Act::Restart(i) => {
                    if let Some(node) = pick(i) {
                        world.restart(node);
                    }
                }
                Act::Drain(i, on) => {
                    if let Some(node) = pick(i).filter(|&node| world.state.node(node).is_some()) {
                        let at = world.wall();
                        let _ = world.apply(&Command::Drain { node, on, leave: false, at });
                    }
                }
                Act::Wait(ticks) => world.run(Duration::from_millis(200 * ticks)),
            }
        }
        // Those paused go on as the same process, those killed start again: then quiet.
        let all: Vec<RaftId> = world.processes.keys().copied().collect();
        for node in all {
            if !world.processes[&node].up {
                if node.0 % 2 == 0 {
                    world.resume(node);
                } else {
                    world.restart(node);
                }
            }
        }
        world.run(Duration::from_secs(60));
        world.check_settled();
    }
}

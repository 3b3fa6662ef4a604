//! A whole cluster of pure state under a coordinator: virtual nodes that heartbeat, copy, die and
//! return, under virtual time.
//!
//! No control plane: every decision is applied at once, which is what a healthy log amounts to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::coordinator::{Coordinator, PlanRequest, plan_request};
use clusterkit_core::detector::{DetectorConfig, Mesh};
use clusterkit_core::event::{ChangeStage, EventKind};
use clusterkit_core::health::HealthReport;
use clusterkit_core::id::{
    ClusterId, DiskId, Incarnation, LogIndex, NodeId, PartitionId, RaftId, StageId,
};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::partition::{Partition, Stage};
use clusterkit_core::placement::MinimalMove;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::{Instant, UnixMillis};

const TICK: Duration = Duration::from_millis(50);

/// A virtual node: whether it runs, and as which process.
#[derive(Clone, Copy)]
pub(crate) struct Process {
    pub(crate) up: bool,
    incarnation: u64,
    disk: u8,
}

/// An answer that a node has yet to give: about which partition, under which stage.
#[derive(Clone, Copy, Debug)]
struct Task {
    node: RaftId,
    partition: PartitionId,
    stage: StageId,
    copies: bool,
}

pub(crate) struct Cluster {
    pub(crate) state: ClusterState,
    pub(crate) coordinator: Coordinator,
    pub(crate) now: Instant,
    index: u64,
    pub(crate) processes: BTreeMap<RaftId, Process>,
    disks: u8,
    pub(crate) leader: RaftId,
    term: u64,
    /// Pairs that do not reach each other, either way round.
    pub(crate) cut: BTreeSet<(RaftId, RaftId)>,
    /// What processes that have led remember.
    resting: BTreeMap<RaftId, Coordinator>,
    /// When which leader gave way to which.
    pub(crate) yielded: Vec<(Instant, RaftId, RaftId)>,
    /// Copies that were asked for, all in all.
    pub(crate) copies: usize,
    /// Plans that were proposed.
    pub(crate) plans: usize,
    /// Whether answers wait for [`Cluster::finish`].
    pub(crate) slow: bool,
    tasks: Vec<Task>,
    /// What nodes say of themselves, and whether they say that they are late.
    pub(crate) reports: BTreeMap<RaftId, (HealthReport, bool)>,
    /// How many more copies the plan in force may begin: what its placement said it needs.
    allowed: usize,
}

impl Cluster {
    pub(crate) fn new(partitions: u32) -> Self {
        Self::with(ClusterConfig {
            partition_count: partitions,
            repair_delay_ms: 5_000,
            ..ClusterConfig::default()
        })
    }

    pub(crate) fn with(config: ClusterConfig) -> Self {
        let mut world = Self {
            state: ClusterState::new(),
            coordinator: Coordinator::new(DetectorConfig::default()).unwrap(),
            now: Instant::from_millis(1),
            index: 1,
            processes: BTreeMap::new(),
            disks: 0,
            leader: RaftId::BOOTSTRAP,
            term: 1,
            cut: BTreeSet::new(),
            resting: BTreeMap::new(),
            yielded: Vec::new(),
            copies: 0,
            plans: 0,
            slow: false,
            tasks: Vec::new(),
            reports: BTreeMap::new(),
            allowed: 0,
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

    pub(crate) fn wall(&self) -> UnixMillis {
        UnixMillis(self.now.as_nanos() / 1_000_000)
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        self.index += 1;
        let before = self.state.clone();
        let applied = self.state.apply(LogIndex(self.index), command);
        self.state.check_invariants().unwrap();
        self.check_step(&before, command);
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
        let copies = match change.stage {
            ChangeStage::Syncing => true,
            ChangeStage::Cleanup | ChangeStage::Reverted => false,
            ChangeStage::Switched => return,
        };
        self.copies += usize::from(copies);
        self.tasks.push(Task {
            node: change.target,
            partition: change.partition,
            stage: change.stage_id,
            copies,
        });
        if !self.slow {
            self.finish(self.tasks.len() - 1);
        }
    }

    /// Gives one of the answers that wait; the process may have died or been asked anew since.
    pub(crate) fn finish(&mut self, task: usize) {
        if self.tasks.is_empty() {
            return;
        }
        let task = self.tasks.swap_remove(task % self.tasks.len());
        if !self.processes[&task.node].up {
            return;
        }
        let (node, at) = (task.node, self.wall());
        let stages = vec![(task.partition, task.stage)];
        let command = match task.copies {
            true => Command::Synced { node, stages, at },
            false => Command::Released { node, stages },
        };
        let _ = self.apply(&command);
    }

    /// Loses the answers that wait, of `node` or of everybody: their hooks never end.
    pub(crate) fn lose(&mut self, node: Option<RaftId>) {
        self.tasks
            .retain(|task| node.is_some_and(|node| task.node != node));
    }

    /// Gives all answers that wait, and lets further ones come at once.
    pub(crate) fn hurry(&mut self) {
        self.slow = false;
        while !self.tasks.is_empty() {
            self.finish(0);
        }
    }

    /// Checks what must hold from one command to the next: no partition loses a copy, but with a
    /// node; limits are kept; and a plan begins no more copies than its placement needs.
    fn check_step(&mut self, before: &ClusterState, command: &Command) {
        let copies = |state: &ClusterState, partition: &Partition| {
            let live = partition.in_sync().filter(|&node| state.is_live(node));
            live.count()
        };
        let takers = self.state.nodes().filter(|node| node.takes_data()).count();
        let wanted = takers.min(self.state.config().replication_factor as usize);
        let takes_nodes_away = matches!(
            command,
            Command::MarkDown { .. } | Command::Announce { .. } | Command::Remove { .. }
        );
        for (id, after) in self.state.partitions_by_id() {
            let Some(was) = before.partition(id) else {
                continue;
            };
            let (had, has) = (copies(before, was), copies(&self.state, after));
            // A move under way keeps to its target until the next plan.
            let wanted = match &was.stage {
                Stage::Syncing(migration) => wanted.min(migration.target.len()),
                Stage::Stable | Stage::Cleanup { .. } => wanted,
            };
            assert!(
                takes_nodes_away || has >= had.min(wanted),
                "{id}: {had} copies became {has} by {command:?}"
            );
        }
        let joins = |state: &ClusterState| {
            let joining = state.partitions().iter().map(|it| it.joining().len());
            joining.sum::<usize>()
        };
        // A copy that ended with its node has to be begun again once the node is back.
        let ended = before.partitions_by_id().map(|(id, was)| {
            let now = self.state.partition(id).map_or(&[][..], Partition::joining);
            let ended = was.joining().iter().filter(|joining| {
                let (node, live) = (joining.node, before.is_live(joining.node));
                !live && now.iter().all(|joining| joining.node != node)
            });
            ended.count()
        });
        self.allowed += ended.sum::<usize>();
        if let Command::StartMoves { .. } = command {
            let begun = joins(&self.state) - joins(before);
            assert!(
                begun <= self.allowed,
                "{begun} copies, {} needed",
                self.allowed
            );
            self.allowed -= begun;
            self.check_limits();
        }
    }

    /// Checks that no more is under way than may be.
    fn check_limits(&self) {
        let config = self.state.config();
        assert!(self.state.moves_in_flight() <= config.moves_in_flight as usize);
        let mut served: BTreeMap<RaftId, u32> = BTreeMap::new();
        let mut received = served.clone();
        for partition in self.state.partitions() {
            for joining in partition.joining().iter().filter(|joining| !joining.synced) {
                let source = partition.sources(joining.node)[0];
                *served.entry(source).or_default() += 1;
                *received.entry(joining.node).or_default() += 1;
            }
        }
        for counts in [served, received] {
            let most = counts.values().max().copied().unwrap_or(0);
            assert!(most <= config.moves_per_node, "{counts:?}");
        }
    }

    pub(crate) fn join(&mut self, id: &str) -> RaftId {
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
    pub(crate) fn resume(&mut self, node: RaftId) {
        self.processes.get_mut(&node).unwrap().up = true;
        let at = self.wall();
        let (mut copied, mut released) = (Vec::new(), Vec::new());
        for (id, partition) in self.state.partitions_by_id() {
            let joining = partition.joining().iter().filter(|j| j.node == node);
            copied.extend(joining.map(|joining| (id, joining.stage)));
            let behind = partition.behind.iter().filter(|b| b.node == node);
            copied.extend(behind.filter_map(|behind| Some((id, behind.stage?))));
            if let Stage::Cleanup {
                id: stage, leaving, ..
            } = &partition.stage
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

    pub(crate) fn restart(&mut self, node: RaftId) {
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

    /// Makes `leader` the leader, with a coordinator that remembers nothing.
    pub(crate) fn change_leader(&mut self, leader: RaftId) {
        self.leader = leader;
        self.term += 1;
        self.coordinator = Coordinator::new(DetectorConfig::default()).unwrap();
    }

    /// Lets time pass, with heartbeats of everybody who is up.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + TICK;
            self.coordinator
                .handle_leadership(Some(self.leader), self.term, self.now);
            for (&node, process) in &self.processes {
                let incarnation = Incarnation(process.incarnation);
                let (report, late) = self.reports.get(&node).cloned().unwrap_or_default();
                let heard = process.up
                    && self.reach(node, self.leader)
                    && self
                        .coordinator
                        .handle_health(node, incarnation, &report, late, self.now);
                if heard && node != self.leader {
                    let applied = LogIndex(self.index);
                    let _ = self
                        .coordinator
                        .handle_heartbeat(node, incarnation, applied, self.now);
                }
            }
            self.probe();
            for _ in 0..200 {
                if !self.step() {
                    break;
                }
            }
        }
    }

    fn reach(&self, one: RaftId, other: RaftId) -> bool {
        !self.cut.contains(&(one, other)) && !self.cut.contains(&(other, one))
    }

    /// Everybody who can tells the leader whom it has seen.
    fn probe(&mut self) {
        let mesh = Mesh::of(&self.state, Some(self.leader));
        let up = |id: &RaftId| self.processes.get(id).is_some_and(|process| process.up);
        let mut sightings = Vec::new();
        for &by in self.processes.keys().filter(|by| up(by)) {
            let told = self.reach(by, self.leader);
            let seen = mesh.targets(by).filter(|of| up(of) && self.reach(by, *of));
            sightings.extend(seen.filter(|_| told).map(|of| (by, of)));
        }
        for (by, of) in sightings {
            let process = Incarnation(self.processes[&of].incarnation);
            let now = self.now;
            let _ = self.coordinator.handle_sighting(by, of, process, TICK, now);
        }
    }

    fn step(&mut self) -> bool {
        let decision = self.coordinator.decide(&self.state, self.now, self.wall());
        if let Some(&heir) = decision.yield_to.first() {
            self.yielded.push((self.now, self.leader, heir));
            let next = self.resting.remove(&heir);
            let next = next.unwrap_or_else(|| Coordinator::new(DetectorConfig::default()).unwrap());
            let mut last = std::mem::replace(&mut self.coordinator, next);
            last.handle_leadership(None, self.term, self.now);
            self.resting.insert(self.leader, last);
            (self.leader, self.term) = (heir, self.term + 1);
            return false;
        }
        let commands = decision.commands;
        if let Some(request) = decision.plan {
            self.propose(&request);
            return true;
        }
        let acted = !commands.is_empty();
        for command in commands {
            let _ = self.apply(&command);
        }
        acted
    }

    /// Plans anew, as an operator may ask for at any time.
    pub(crate) fn replan(&mut self) {
        let request = plan_request(&self.state, self.state.plan_basis());
        self.propose(&request.expect("somebody takes data"));
    }

    fn propose(&mut self, request: &PlanRequest) {
        let (placement, refuted) = request.compute(&MinimalMove::default()).unwrap();
        assert_eq!(refuted, None);
        let command = request.command(&placement, self.wall());
        self.plans += 1;
        if self.apply(&command).is_ok() {
            self.allowed = placement.moves as usize;
        }
    }

    /// Returns a cluster of `nodes` at rest: 36 partitions of `factor` copies each, repaired after 5 s.
    pub(crate) fn settled(nodes: u32, factor: u32) -> Self {
        let mut world = Self::with(ClusterConfig {
            partition_count: 36,
            replication_factor: factor,
            repair_delay_ms: 5_000,
            ..ClusterConfig::default()
        });
        for number in 2..=nodes {
            world.join(&format!("node-{number}"));
        }
        world.run(Duration::from_secs(2));
        world.check_settled();
        world
    }

    /// Returns the member called `name`.
    pub(crate) fn id(&self, name: &str) -> RaftId {
        self.state.node_by_id(name).unwrap().raft_id
    }

    /// Checks that nothing is left to do and everybody has a fair share.
    pub(crate) fn check_settled(&self) {
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

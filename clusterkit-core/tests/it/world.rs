//! A cluster state under test: every command goes through [`World::apply`], which checks all that
//! must hold after any command, whatever it was.
//!
//! What must hold for the data of the nodes is in [`crate::oracle`].

use std::sync::Arc;

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::id::{
    ClusterId, DiskId, Incarnation, LogIndex, NodeId, PartitionId, RaftId, StageId,
};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::partition::Stage;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::UnixMillis;
use clusterkit_core::topology::{Topology, TopologyParts};

use crate::oracle::Oracle;

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) state: ClusterState,
    pub(crate) oracle: Oracle,
    index: u64,
    /// What was applied, for a second replica.
    pub(crate) log: Vec<(LogIndex, Command, Result<Applied, Rejected>)>,
}

impl World {
    /// Returns a cluster of `nodes` active nodes called `n1`, `n2`, ... whose internal ids are the
    /// same numbers, without a placement.
    pub(crate) fn formed(nodes: u64, partitions: u32, replication_factor: u32) -> Self {
        let mut world = Self::default();
        world.ok(bootstrap(partitions, replication_factor));
        for number in 2..=nodes {
            world.index = number - 1;
            world.ok(join(spec(number), None));
        }
        for number in 2..=nodes {
            world.ok(activate(number));
        }
        world
    }

    /// Returns a formed cluster whose partitions all stand in `row`, with one write each.
    pub(crate) fn placed(nodes: u64, partitions: u32, row: &[u64]) -> Self {
        let factor = u32::try_from(row.len()).unwrap();
        let mut world = Self::formed(nodes, partitions, factor);
        let rows: Vec<(u32, &[u64])> = (0..partitions).map(|p| (p, row)).collect();
        world.plan(&rows);
        world.write();
        world
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.index + 1
    }

    pub(crate) fn write(&mut self) {
        self.oracle.write(&self.state);
    }

    /// Applies a command that must be accepted.
    pub(crate) fn ok(&mut self, command: Command) -> Applied {
        let shown = format!("{command:?}");
        self.apply(command)
            .unwrap_or_else(|rejected| panic!("{shown}: {rejected}"))
    }

    /// Applies a command that must be rejected.
    pub(crate) fn refused(&mut self, command: Command) -> Rejected {
        let shown = format!("{command:?}");
        self.apply(command).expect_err(&shown)
    }

    /// Applies a command and checks everything that must hold after it.
    pub(crate) fn apply(&mut self, command: Command) -> Result<Applied, Rejected> {
        self.index += 1;
        let at = LogIndex(self.index);
        let before = self.state.clone();
        let outcome = self.state.apply(at, &command);
        if let Err(broken) = self.state.check_invariants() {
            panic!("{command:?} broke: {broken}");
        }
        assert_eq!(self.state.check_invariants_since(&before), Ok(()));
        assert_eq!(self.state.applied(), at);
        match &outcome {
            Ok(applied) => {
                self.check_applied(&before, applied);
                self.oracle.watch(&before, &command, applied, &self.state);
            }
            Err(rejected) => {
                let mut untouched = before;
                let nothing = activate(u64::MAX);
                assert!(untouched.apply(at, &nothing).is_err());
                assert_eq!(self.state, untouched, "{rejected}");
            }
        }
        self.log.push((at, command, outcome.clone()));
        outcome
    }

    fn check_applied(&self, before: &ClusterState, applied: &Applied) {
        let after = &self.state;
        assert_eq!(
            (applied.index, applied.epoch),
            (after.applied(), after.epoch())
        );
        let published = parts(before) != parts(after);
        let raised = after.epoch().0 - before.epoch().0;
        assert_eq!(
            raised,
            u64::from(published),
            "the epoch follows the topology"
        );

        let mut seq = before.last_event().0;
        for event in &applied.events {
            seq += 1;
            assert_eq!((event.seq.0, event.index), (seq, applied.index));
            assert_eq!(event.epoch, after.epoch());
        }
        assert_eq!(after.last_event().0, seq);
        let (kept, missed) = after.events_after(before.last_event());
        assert!(!missed && kept.iter().map(|e| &**e).eq(&applied.events));
    }

    pub(crate) fn plan(&mut self, rows: &[(u32, &[u64])]) -> Applied {
        let command = plan(&self.state, rows);
        self.ok(command)
    }

    /// Plans rows and starts all of their moves, if any is needed.
    pub(crate) fn start(&mut self, rows: &[(u32, &[u64])]) {
        self.plan(rows);
        if self.state.plan().is_some() {
            self.start_all();
        }
    }

    pub(crate) fn start_all(&mut self) -> Applied {
        let plan = self.state.plan().expect("a plan is in force");
        let command = Command::StartMoves {
            plan: plan.id,
            moves: plan.targets.keys().map(|&id| id.into()).collect(),
            at: AT,
        };
        self.ok(command)
    }

    /// Lets `node` copy whatever it was asked for and report it.
    pub(crate) fn sync(&mut self, node: u64) -> Applied {
        let node = RaftId(node);
        let asked = self.oracle.asked.keys().filter(|(n, _)| *n == node);
        let asked: Vec<PartitionId> = asked.map(|(_, id)| *id).collect();
        let mut stages = Vec::new();
        for id in asked {
            let stage = self.oracle.copy(&self.state, node, id);
            stages.extend(stage.map(|stage| (id, stage)));
        }
        self.ok(Command::Synced {
            node,
            stages,
            at: AT,
        })
    }

    /// Returns the stages of all moves under way.
    pub(crate) fn moving(&self) -> Vec<(PartitionId, StageId)> {
        let open = self.state.partitions_by_id();
        open.filter_map(|(id, partition)| match &partition.stage {
            Stage::Syncing(migration) => Some((id, migration.id)),
            Stage::Stable | Stage::Cleanup { .. } => None,
        })
        .collect()
    }

    pub(crate) fn switch(&mut self) -> Applied {
        let stages = self.moving();
        self.ok(Command::Switch { stages, at: AT })
    }

    pub(crate) fn revert(&mut self) -> Applied {
        let stages = self.moving();
        self.ok(Command::Revert { stages, at: AT })
    }

    /// Lets every former member confirm its release.
    pub(crate) fn release(&mut self) {
        let mut releases = Vec::new();
        for (id, partition) in self.state.partitions_by_id() {
            if let Stage::Cleanup {
                id: stage, leaving, ..
            } = &partition.stage
            {
                releases.extend(leaving.iter().map(|&node| (node, (id, *stage))));
            }
        }
        for (node, stage) in releases {
            let stages = vec![stage];
            self.ok(Command::Released { node, stages });
        }
    }

    pub(crate) fn down(&mut self, nodes: &[u64]) -> Applied {
        self.ok(mark_down(nodes))
    }

    pub(crate) fn up(&mut self, nodes: &[u64]) -> Applied {
        self.ok(mark_up(nodes))
    }

    /// Starts `node` again on its disk.
    pub(crate) fn restart(&mut self, node: u64) -> Applied {
        let command = restarted(&self.state, node);
        self.ok(command)
    }

    /// Returns the row of a partition: primary first (0 when there is none), then the others.
    pub(crate) fn row(&self, partition: u32) -> Vec<u64> {
        let partition = self.state.partition(PartitionId(partition)).unwrap();
        let primary = partition.primary.map_or(0, |node| node.0);
        let others = partition.replicas.iter().map(|node| node.0);
        std::iter::once(primary).chain(others).collect()
    }

    /// Returns the members of a partition that are behind.
    pub(crate) fn behind(&self, partition: u32) -> Vec<u64> {
        let partition = self.state.partition(PartitionId(partition)).unwrap();
        partition
            .behind
            .iter()
            .map(|behind| behind.node.0)
            .collect()
    }
}

/// The time written into commands whose time does not matter.
pub(crate) const AT: UnixMillis = UnixMillis(1_000);

pub(crate) fn parts(state: &ClusterState) -> TopologyParts {
    let mut parts = state.topology(RaftId::BOOTSTRAP).parts();
    let again = Topology::new(parts.clone()).unwrap().parts();
    assert_eq!(parts, again, "a topology survives being taken apart");
    parts.epoch = clusterkit_core::id::Epoch(0);
    parts
}

pub(crate) fn disk(number: u64) -> DiskId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    DiskId::from_bytes(bytes)
}

pub(crate) fn spec(number: u64) -> NodeSpec {
    let id = NodeId::new(format!("n{number}")).unwrap();
    NodeSpec::new(id, disk(number), &format!("10.0.0.{number}:7000"))
}

pub(crate) fn ids(nodes: &[u64]) -> Vec<RaftId> {
    nodes.iter().map(|&node| RaftId(node)).collect()
}

pub(crate) fn bootstrap(partition_count: u32, replication_factor: u32) -> Command {
    Command::Bootstrap {
        cluster: ClusterId::from_bytes(*b"statetest-------"),
        config: ClusterConfig {
            partition_count,
            replication_factor,
            ..ClusterConfig::default()
        },
        node: spec(1),
        at: AT,
    }
}

pub(crate) fn join(node: NodeSpec, replaces: Option<u64>) -> Command {
    Command::Join {
        node,
        replaces: replaces.map(RaftId),
        at: AT,
    }
}

pub(crate) fn activate(node: u64) -> Command {
    Command::Activate {
        node: RaftId(node),
        at: AT,
    }
}

pub(crate) fn mark_down(nodes: &[u64]) -> Command {
    Command::MarkDown {
        nodes: ids(nodes),
        promotions: Vec::new(),
        at: AT,
    }
}

pub(crate) fn mark_up(nodes: &[u64]) -> Command {
    Command::MarkUp {
        nodes: ids(nodes),
        at: AT,
    }
}

pub(crate) fn restarted(state: &ClusterState, node: u64) -> Command {
    let record = state.node(RaftId(node)).expect("a member starts again");
    let spec = NodeSpec {
        id: record.id.clone(),
        disk: record.disk,
        incarnation: Incarnation(record.incarnation.0 + 1),
        name: Arc::clone(&record.name),
        address: Arc::clone(&record.address),
        peer_address: None,
        services: Arc::clone(&record.services),
        zone: Arc::clone(&record.zone),
        weight: record.weight,
        feature_level: record.feature_level,
    };
    Command::Announce {
        node: RaftId(node),
        spec,
        at: AT,
    }
}

pub(crate) fn remove(node: u64, force: bool) -> Command {
    Command::Remove {
        node: RaftId(node),
        reason: clusterkit_core::event::LeaveReason::Removed,
        force,
        at: AT,
    }
}

pub(crate) fn drain(node: u64, on: bool, leave: bool) -> Command {
    Command::Drain {
        node: RaftId(node),
        on,
        leave,
        at: AT,
    }
}

pub(crate) fn plan(state: &ClusterState, rows: &[(u32, &[u64])]) -> Command {
    let targets = rows.iter().map(|(id, row)| (PartitionId(*id), ids(row)));
    Command::Plan {
        base: state.epoch(),
        trigger: PlanTrigger::Manual,
        trigger_node: None,
        basis: state.plan_basis(),
        targets: targets.collect(),
        at: AT,
    }
}

//! An independent judge of the state machine: it simulates the data of every node and watches each
//! command from outside.
//!
//! It knows only what an application knows: the published rows say where a write goes, the events
//! say when to copy and when to delete. What the state claims about copies is then compared with
//! what the simulated disks hold. Who drives it is in [`crate::world`].

use std::collections::{BTreeMap, BTreeSet};

use clusterkit_core::command::{Applied, Command};
use clusterkit_core::event::{
    ChangeStage, EventKind, LeaveReason, PartitionChanged, Role, Verdict,
};
use clusterkit_core::id::{Epoch, PartitionId, PlanId, RaftId, StageId};
use clusterkit_core::partition::{Partition, Stage};
use clusterkit_core::state::ClusterState;

/// The most writes one history can have: one bit each.
const WRITES_MAX: usize = 128;

/// A copy that a node was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) stage: StageId,
    /// From which epoch on the node lacks writes; none when it lacks all of them.
    since: Option<Epoch>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    /// Per partition: the epoch of each write, and the mask of those acknowledged and not lost.
    writes: BTreeMap<PartitionId, (Vec<Epoch>, u128)>,
    disks: BTreeMap<(RaftId, PartitionId), u128>,
    /// The newest copy that each node was asked for and has not finished.
    pub(crate) asked: BTreeMap<(RaftId, PartitionId), Ask>,
    /// Every copy that was ever asked for, for late answers.
    pub(crate) history: Vec<(RaftId, PartitionId, StageId)>,
    /// Who led each partition in each epoch.
    led: BTreeMap<(PartitionId, Epoch), RaftId>,
    /// Nodes that joined: whether they are up.
    up: BTreeMap<RaftId, bool>,
    seen: BTreeSet<RaftId>,
    plan: Option<PlanId>,
}

impl Oracle {
    /// Writes once to every partition that has a primary; it is acknowledged when all of the
    /// published write set has it.
    pub(crate) fn write(&mut self, state: &ClusterState) {
        let topology = state.topology(RaftId::BOOTSTRAP);
        for (id, partition) in state.partitions_by_id() {
            let (epochs, acknowledged) = self.writes.entry(id).or_default();
            if partition.primary.is_none() || epochs.len() == WRITES_MAX {
                continue;
            }
            let bit = 1 << epochs.len();
            epochs.push(partition.epoch);
            *acknowledged |= bit;
            for node in topology.write_set(id) {
                *self.disks.entry((node.raft_id, id)).or_default() |= bit;
            }
        }
    }

    /// Copies what `node` was asked to copy of `id` from the primary. Returns the stage to report,
    /// none when there is nobody to copy from or nothing to copy.
    pub(crate) fn copy(
        &mut self,
        state: &ClusterState,
        node: RaftId,
        id: PartitionId,
    ) -> Option<StageId> {
        let ask = *self.asked.get(&(node, id))?;
        let source = state.partition(id)?.primary?;
        let good = self.disk(source, id);
        let held = match ask.since {
            None => good,
            Some(since) => self.disk(node, id) | good & !self.before(id, since),
        };
        self.disks.insert((node, id), held);
        Some(ask.stage)
    }

    fn disk(&self, node: RaftId, id: PartitionId) -> u128 {
        self.disks.get(&(node, id)).copied().unwrap_or(0)
    }

    fn acknowledged(&self, id: PartitionId) -> u128 {
        self.writes.get(&id).map_or(0, |(_, mask)| *mask)
    }

    /// Returns the writes of `id` in epochs before `epoch`.
    fn before(&self, id: PartitionId, epoch: Epoch) -> u128 {
        let epochs = self.writes.get(&id).map_or(&[][..], |(epochs, _)| epochs);
        let older = epochs.iter().enumerate().filter(|(_, e)| **e < epoch);
        older.fold(0, |mask, (bit, _)| mask | 1 << bit)
    }

    /// Watches one command that was carried out and checks everything that must hold across it.
    pub(crate) fn watch(
        &mut self,
        before: &ClusterState,
        command: &Command,
        applied: &Applied,
        after: &ClusterState,
    ) {
        self.check_answers(command, applied);
        let mut told = Vec::new();
        for event in &applied.events {
            self.hear(&event.kind, applied, &mut told);
        }
        self.disks
            .retain(|(node, _), _| after.node(*node).is_some());
        self.asked
            .retain(|(node, _), _| after.node(*node).is_some());
        for node in after.nodes() {
            self.seen.insert(node.raft_id);
        }
        for node in before.nodes().filter(|n| !after.is_live(n.raft_id)) {
            self.asked.retain(|(asked, _), _| *asked != node.raft_id);
        }
        assert_eq!(after.plan().map(|plan| plan.id), self.plan, "plan in force");
        for (id, partition) in after.partitions_by_id() {
            let old = before.partition(id);
            self.check_copies(id, partition, after);
            self.check_fence(id, old, partition);
            check_told(id, old, partition, after, &told);
            if let Some(old) = old.filter(|_| !takes_nodes_away(command)) {
                let live = |p: &Partition, s: &ClusterState| {
                    p.in_sync().filter(|&node| s.is_live(node)).count()
                };
                let (had, has) = (live(old, before), live(partition, after));
                let wanted = partition.members().count();
                assert!(has >= had.min(wanted), "{id}: {had} copies became {has}");
            }
        }
    }

    /// Reports count only while they answer the newest question.
    fn check_answers(&mut self, command: &Command, applied: &Applied) {
        let Command::Synced { node, stages, .. } = command else {
            return;
        };
        for (id, stage) in stages {
            if applied.refused.contains(&(*id, *stage)) {
                continue;
            }
            let ask = self.asked.remove(&(*node, *id)).map(|ask| ask.stage);
            // The same answer twice in one command is one answer.
            let repeated = stages.iter().filter(|s| **s == (*id, *stage)).count() > 1;
            assert!(ask == Some(*stage) || repeated, "a late answer counted");
        }
    }

    fn hear(&mut self, kind: &EventKind, applied: &Applied, told: &mut Vec<PartitionChanged>) {
        match kind {
            EventKind::PartitionChanged(change) => {
                let key = (change.target, change.partition);
                match change.stage {
                    ChangeStage::Syncing => {
                        let ask = Ask {
                            stage: change.stage_id,
                            since: change.behind_since,
                        };
                        self.asked.insert(key, ask);
                        self.history.push((key.0, key.1, change.stage_id));
                    }
                    ChangeStage::Switched => {}
                    ChangeStage::Cleanup | ChangeStage::Reverted => {
                        self.asked.remove(&key);
                        self.disks.remove(&key);
                    }
                }
                assert!(!change.sources.contains(&change.target), "{change:?}");
                told.push(change.clone());
            }
            EventKind::NodeJoined { node, .. } => {
                assert_eq!(self.up.insert(*node, true), None, "{node} joined twice");
            }
            EventKind::NodeLeft { node, reason, .. } => {
                let was = if *reason == LeaveReason::Failed {
                    self.up.insert(*node, false)
                } else {
                    self.up.remove(node)
                };
                assert!(was.is_some(), "{node} left and never joined");
            }
            EventKind::NodeRejoined { node, verdicts, .. } => {
                assert!(self.up.insert(*node, true).is_some(), "{node} never joined");
                let early = told.iter().find(|change| change.target == *node);
                assert_eq!(early, None, "{node} is told before it has rejoined");
                self.check_verdicts(*node, verdicts);
            }
            EventKind::RebalanceStarted { plan, .. } => {
                assert_eq!(self.plan.replace(*plan), None, "two plans at once");
            }
            EventKind::RebalanceCompleted { plan, .. } => {
                assert_eq!(self.plan.take(), Some(*plan), "completed and not started");
            }
            EventKind::PartitionLost {
                partition,
                recovered_from,
            } => {
                let rest = recovered_from.map_or(0, |heir| self.disk(heir, *partition));
                if let Some((_, acknowledged)) = self.writes.get_mut(partition) {
                    *acknowledged &= rest;
                }
            }
            EventKind::ClusterHealthChanged(_) => {}
            other => panic!("an event unknown to the oracle: {other:?} in {applied:?}"),
        }
    }

    fn check_verdicts(&mut self, node: RaftId, verdicts: &[(PartitionId, Verdict)]) {
        assert!(verdicts.is_sorted_by(|a, b| a.0 < b.0), "{verdicts:?}");
        for &(id, verdict) in verdicts {
            let (held, truth) = (self.disk(node, id), self.acknowledged(id));
            match verdict {
                Verdict::Current => assert_eq!(truth & !held, 0, "{node} lacks writes of {id}"),
                Verdict::Behind(since) => {
                    let old = self.before(id, since);
                    assert_eq!(truth & old & !held, 0, "{node} lacks older writes of {id}");
                    assert_eq!(held & !truth, 0, "{node} holds lost writes of {id}");
                }
                Verdict::Diverged => {}
                Verdict::Foreign => {
                    self.disks.remove(&(node, id));
                }
            }
        }
    }

    /// What the state says about copies is what the disks hold.
    fn check_copies(&self, id: PartitionId, partition: &Partition, state: &ClusterState) {
        let truth = self.acknowledged(id);
        for node in partition.in_sync() {
            let missing = truth & !self.disk(node, id);
            assert_eq!(
                missing, 0,
                "{id}: in-sync {node} lacks writes: {partition:?}"
            );
        }
        for joining in partition.joining().iter().filter(|j| j.synced) {
            let missing = truth & !self.disk(joining.node, id);
            assert_eq!(missing, 0, "{id}: synced {} lacks writes", joining.node);
            assert!(state.is_live(joining.node), "{id}: absent and synced");
        }
        for behind in &partition.behind {
            let held = self.disk(behind.node, id);
            let missing = truth & self.before(id, behind.since) & !held;
            if !behind.diverged {
                assert_eq!(missing, 0, "{id}: {} is further behind", behind.node);
                assert_eq!(held & !truth, 0, "{id}: {} has diverged", behind.node);
            }
        }
    }

    /// One epoch of a partition never has two primaries, and never returns.
    fn check_fence(&mut self, id: PartitionId, old: Option<&Partition>, new: &Partition) {
        if let Some(old) = old {
            assert!(new.epoch >= old.epoch, "{id}: the epoch went back");
            let led_on = old.primary == new.primary || new.epoch > old.epoch;
            assert!(led_on, "{id}: another primary in one epoch");
        }
        if let Some(primary) = new.primary {
            let first = *self.led.entry((id, new.epoch)).or_insert(primary);
            assert_eq!(first, primary, "{id}: two primaries in {}", new.epoch);
        }
    }
}

/// Whoever has something new to do is told so.
fn check_told(
    id: PartitionId,
    old: Option<&Partition>,
    new: &Partition,
    state: &ClusterState,
    told: &[PartitionChanged],
) {
    let unplaced = Partition::UNPLACED;
    let old = old.unwrap_or(&unplaced);
    let about = |node: RaftId, stage: Option<StageId>, stages: &[ChangeStage]| {
        told.iter().any(|change| {
            (change.partition, change.target) == (id, node)
                && stages.contains(&change.stage)
                && stage.is_none_or(|stage| change.stage_id == stage)
        })
    };
    if new.primary != old.primary {
        if let Some(primary) = new.primary {
            let promoted = told.iter().any(|change| {
                (change.partition, change.target) == (id, primary)
                    && (change.stage, change.role) == (ChangeStage::Switched, Role::Primary)
                    && change.new_primary == new.primary
            });
            assert!(
                promoted,
                "{id}: {primary} is not told that it leads: {told:?}"
            );
        }
        if let Some(old) = old
            .primary
            .filter(|&n| state.is_live(n) && new.primary.is_some())
        {
            let all = [
                ChangeStage::Syncing,
                ChangeStage::Switched,
                ChangeStage::Cleanup,
            ];
            assert!(about(old, None, &all), "{id}: {old} is not told");
        }
    }
    let asked = |p: &Partition| -> BTreeSet<(RaftId, StageId)> {
        let behind = p.behind.iter().filter_map(|b| Some((b.node, b.stage?)));
        let joining = p
            .joining()
            .iter()
            .map(|joining| (joining.node, joining.stage));
        behind.chain(joining).collect()
    };
    for &(node, stage) in asked(new).difference(&asked(old)) {
        assert!(
            about(node, Some(stage), &[ChangeStage::Syncing]),
            "{id}: {node} is not asked"
        );
    }
    if let Stage::Cleanup {
        id: stage, leaving, ..
    } = &new.stage
        && new.stage != old.stage
    {
        for &node in leaving.iter().filter(|node| !old.leaving().contains(node)) {
            let stages = [ChangeStage::Cleanup, ChangeStage::Reverted];
            assert!(
                about(node, Some(*stage), &stages),
                "{id}: {node} is not released"
            );
        }
    }
}

/// Tells whether the command says that something has happened to nodes; only those may cost copies.
fn takes_nodes_away(command: &Command) -> bool {
    matches!(
        command,
        Command::MarkDown { .. }
            | Command::Announce { .. }
            | Command::Remove { .. }
            | Command::Join { .. }
    )
}

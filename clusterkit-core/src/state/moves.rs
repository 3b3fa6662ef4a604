//! Partitions on the move: plan, start, synced, switch, cleanup, and the way back.
//!
//! The order is the promise: a joining node copies while the present members serve; it becomes a
//! member only by a switch that finds it synced; former members let go only after that. Every
//! stage can be reverted, and reverting raises the partition's epoch too.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::change::{Change, What};
use super::members::mark_behind;
use super::{ActivePlan, ClusterState};
use crate::command::{MoveStart, Rejected};
use crate::config::REPLICATION_FACTOR_MAX;
use crate::event::{ChangeReason, ChangeStage, EventKind, PlanTrigger, Role};
use crate::id::{Epoch, PartitionId, PlanId, RaftId, StageId};
use crate::partition::{Behind, Joining, Migration, Partition, Stage, has_duplicates};
use crate::planted::{self, Bug};

impl ClusterState {
    pub(super) fn accept_plan(
        &mut self,
        base: Epoch,
        (trigger, trigger_node, basis): (PlanTrigger, Option<RaftId>, u64),
        targets: &[(PartitionId, Vec<RaftId>)],
        change: &mut Change,
    ) -> Result<(), Rejected> {
        if base != self.epoch && !planted::is_on(Bug::PlanOnAnyEpoch) {
            return Err(Rejected::StaleEpoch {
                base,
                current: self.epoch,
            });
        }
        for (id, row) in targets {
            self.check_target(*id, row)?;
        }
        self.plan_basis = basis;
        self.roles_stale = false;
        if let Some(replaced) = self.plan.take() {
            emit_completed(&replaced, change);
        }
        let mut wanted = BTreeMap::new();
        let mut affected = Vec::new();
        for (id, row) in targets {
            let partition = &self.partitions[id.index()];
            if partition.is_unplaced() {
                self.place_first(*id, row, trigger.reason(), change);
                continue;
            }
            self.refit(*id, row, change);
            let partition = &self.partitions[id.index()];
            if !reaches(partition, row) {
                let present: Vec<RaftId> = partition.members().collect();
                affected.extend(row.iter().filter(|node| !present.contains(node)));
                affected.extend(present.iter().filter(|node| !row.contains(node)));
                affected.extend(row.first().filter(|&&node| partition.primary != Some(node)));
                wanted.insert(*id, row.clone());
            }
        }
        if wanted.is_empty() {
            self.remember_home();
            return Ok(());
        }
        affected.sort_unstable();
        affected.dedup();
        let plan = ActivePlan {
            id: PlanId(change.index.0),
            trigger,
            trigger_node,
            partitions_to_move: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
            partitions_moved: 0,
            targets: wanted,
            nodes_affected: affected,
            started_at: change.at,
        };
        change.emit(EventKind::RebalanceStarted {
            plan: plan.id,
            trigger,
            trigger_node,
            partitions_to_move: plan.partitions_to_move,
            nodes_affected: plan.nodes_affected.clone(),
        });
        self.plan = Some(Arc::new(plan));
        Ok(())
    }

    fn check_target(&self, id: PartitionId, row: &[RaftId]) -> Result<(), Rejected> {
        let refuse = |problem: String| {
            Err(Rejected::BadTarget {
                partition: id,
                problem,
            })
        };
        if id.index() >= self.partitions.len() {
            return refuse(format!(
                "the cluster has {} partitions",
                self.partitions.len()
            ));
        }
        if row.is_empty() {
            return refuse(String::from("no node is named"));
        }
        if row.len() > REPLICATION_FACTOR_MAX as usize {
            return refuse(format!("{} nodes are named", row.len()));
        }
        if has_duplicates(row) {
            return refuse(String::from("a node is named twice"));
        }
        if let Some(unknown) = row.iter().find(|node| self.node(**node).is_none()) {
            return refuse(format!("{unknown} is no member"));
        }
        // A node that has not caught up with the log could not be told what to do.
        let early = row.iter().find(|node| self.was_never_active(**node));
        early.map_or(Ok(()), |early| {
            refuse(format!("{early} has not joined yet"))
        })
    }

    /// Gives a partition its first members: there is nothing to copy. Members that are down catch
    /// up when they return.
    fn place_first(
        &mut self,
        id: PartitionId,
        row: &[RaftId],
        reason: ChangeReason,
        change: &mut Change,
    ) {
        let (live, absent): (Vec<RaftId>, Vec<RaftId>) =
            row.iter().partition(|&&node| self.is_live(node));
        let Some(&primary) = live.first() else {
            // Nobody can serve it now: the next decision must plan again.
            self.plan_basis = 0;
            return;
        };
        self.roles_stale |= row.first() != Some(&primary);
        let behind = |&node: &RaftId| Behind {
            node,
            since: change.next,
            // Whatever it holds is of a partition that was lost before.
            diverged: true,
            stage: None,
            asked_at: change.at,
        };
        let partition = Partition {
            primary: Some(primary),
            replicas: row
                .iter()
                .copied()
                .filter(|&node| node != primary)
                .collect(),
            behind: absent.iter().map(behind).collect(),
            stage: Stage::Stable,
            epoch: change.next,
        };
        for &node in &live {
            let role = if node == primary {
                Role::Primary
            } else {
                Role::Replica
            };
            let what = what(ChangeStage::Switched, change.stage(), role, reason, None);
            change.emit_partition(id, &partition, node, what);
        }
        change.published = true;
        Arc::make_mut(&mut self.partitions)[id.index()] = partition;
    }

    pub(super) fn start_moves(
        &mut self,
        plan: PlanId,
        moves: &[MoveStart],
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let reason = match &self.plan {
            Some(active) if active.id == plan => active.trigger.reason(),
            _ => return Err(Rejected::StalePlan { plan }),
        };
        // Decided before the pause was known: not to begin all the same.
        let held = self.held_back();
        for start in moves {
            let row = self
                .plan
                .as_ref()
                .and_then(|active| active.targets.get(&start.partition).cloned());
            let held = held.binary_search_by_key(&start.partition, |&(id, _)| id);
            let free = held.is_err() || planted::is_on(Bug::IgnorePause);
            if let Some(row) = row.filter(|_| free) {
                self.start_move(start, &row, reason, change);
            }
        }
        self.complete_plan_if_done(change);
        Ok(())
    }

    fn start_move(
        &mut self,
        start: &MoveStart,
        row: &[RaftId],
        reason: ChangeReason,
        change: &mut Change,
    ) {
        let id = start.partition;
        if !self.can_start_move(id, row) {
            return;
        }
        let partition = &self.partitions[id.index()];
        let comes = |node: &&RaftId| !partition.is_member(**node);
        let stage = change.stage();
        let wished = |at: usize| start.sources.get(at).copied();
        let joining: Vec<Joining> = row
            .iter()
            .filter(comes)
            .enumerate()
            .map(|(at, &node)| Joining {
                node,
                stage,
                synced: false,
                source: wished(at).filter(|&source| partition.is_in_sync(source)),
                asked_at: change.at,
            })
            .collect();
        let migration = Migration {
            id: stage,
            target: row.to_vec(),
            joining,
            leaving: Vec::new(),
            reason,
        };
        if migration.joining.is_empty() {
            let leader = self.leader_after(partition, row, &[]);
            if leader == partition.primary && same_members(partition, row) {
                // The wanted primary cannot lead yet; nothing else is to be done.
                self.drop_target(id);
                self.roles_stale = true;
            } else {
                self.switch_members(id, &migration, change);
            }
            return;
        }
        let partition = &mut Arc::make_mut(&mut self.partitions)[id.index()];
        partition.stage = Stage::Syncing(migration.clone());
        for joining in &migration.joining {
            let first = migration.target.first() == Some(&joining.node);
            let role = if first { Role::Primary } else { Role::Replica };
            let what = what(ChangeStage::Syncing, stage, role, reason, partition.primary);
            change.emit_partition(id, partition, joining.node, what);
        }
        if planted::is_on(Bug::ReleaseBeforeSwitch) {
            // As if the switch had been committed already.
            for node in partition.members().filter(|node| !row.contains(node)) {
                let what = what(ChangeStage::Cleanup, stage, Role::None, reason, None);
                change.emit_partition(id, partition, node, what);
            }
        }
        change.published = true;
    }

    pub(super) fn synced(
        &mut self,
        node: RaftId,
        stages: &[(PartitionId, StageId)],
        change: &mut Change,
    ) {
        for &(id, mut stage) in stages {
            if planted::is_on(Bug::AcceptLateAnswer) {
                // As if answers did not name their stage.
                let asked = self.partition(id).and_then(|it| it.stage_of(node));
                stage = asked.unwrap_or(stage);
            }
            let open = self
                .partition(id)
                .is_some_and(|partition| partition.is_syncing(node, stage));
            if !open || !self.is_live(node) {
                change.refused.push((id, stage));
                continue;
            }
            let partition = &mut Arc::make_mut(&mut self.partitions)[id.index()];
            if let Stage::Syncing(migration) = &mut partition.stage {
                for joining in &mut migration.joining {
                    joining.synced |= joining.node == node && joining.stage == stage;
                }
            }
            let before = partition.behind.len();
            partition
                .behind
                .retain(|b| !(b.node == node && b.stage == Some(stage)));
            if partition.behind.len() != before {
                change.published = true;
                // It may lead again, which the last plan could not count on.
                self.roles_stale = true;
                let primary = partition.primary;
                let what = what(
                    ChangeStage::Switched,
                    stage,
                    Role::Replica,
                    ChangeReason::NodeJoin,
                    primary,
                );
                change.emit_partition(id, partition, node, what);
            }
        }
    }

    pub(super) fn switch(&mut self, stages: &[(PartitionId, StageId)], change: &mut Change) {
        for &(id, stage) in stages {
            let ready = self
                .partition(id)
                .and_then(|partition| match &partition.stage {
                    Stage::Syncing(migration) if migration.id == stage => Some(migration.clone()),
                    Stage::Syncing(_) | Stage::Stable | Stage::Cleanup { .. } => None,
                });
            match ready {
                Some(migration) if self.can_switch(id) => {
                    self.switch_members(id, &migration, change);
                }
                _ => change.refused.push((id, stage)),
            }
        }
        self.complete_plan_if_done(change);
    }

    /// Tells whether the move of `id` under way can be switched now: every joining node is live
    /// and holds everything, and the partition comes out with as many live in-sync members as it
    /// has, or as are wanted.
    #[must_use]
    pub fn can_switch(&self, id: PartitionId) -> bool {
        self.partition(id)
            .is_some_and(|partition| match &partition.stage {
                Stage::Syncing(migration) => {
                    // Planted: as if every copy were complete.
                    let blind = planted::is_on(Bug::SwitchBeforeSynced);
                    let synced = |joining: &Joining| joining.synced || blind;
                    let ready = |joining: &Joining| synced(joining) && self.is_live(joining.node);
                    let (target, joining) = (&migration.target, &migration.joining);
                    joining.iter().all(ready) && self.keeps_copies(partition, target, joining)
                }
                Stage::Stable | Stage::Cleanup { .. } => false,
            })
    }

    /// Tells whether a switch to `target`, with `joining` in sync, leaves as many copies as there
    /// are, or as are wanted.
    fn keeps_copies(&self, partition: &Partition, target: &[RaftId], joining: &[Joining]) -> bool {
        let before = partition.in_sync().filter(|&node| self.is_live(node));
        let wanted = before.count().min(target.len()).max(1);
        self.leaders_after(partition, target, joining).count() >= wanted
    }

    /// Returns who may lead after the switch, in the order of the target.
    fn leaders_after<'a>(
        &'a self,
        partition: &'a Partition,
        target: &'a [RaftId],
        joining: &'a [Joining],
    ) -> impl Iterator<Item = RaftId> + 'a {
        target.iter().copied().filter(|&node| {
            self.is_live(node) && (has_joined(joining, node) || partition.is_in_sync(node))
        })
    }

    /// Returns who leads after the switch: the wanted primary, else the present one, else whoever
    /// can.
    fn leader_after(
        &self,
        partition: &Partition,
        target: &[RaftId],
        joining: &[Joining],
    ) -> Option<RaftId> {
        let rank = |node: RaftId| {
            (
                !self.may_lead(node),
                target.first() != Some(&node),
                partition.primary != Some(node),
            )
        };
        self.leaders_after(partition, target, joining)
            .min_by_key(|&node| rank(node))
    }

    /// Makes the targets the members, which must leave one that can lead.
    fn switch_members(&mut self, id: PartitionId, migration: &Migration, change: &mut Change) {
        let old = self.partitions[id.index()].clone();
        let joined = |node: RaftId| has_joined(&migration.joining, node);
        let leader = self.leader_after(&old, &migration.target, &migration.joining);
        let Some(primary) = leader else {
            return;
        };
        self.roles_stale |= migration.target.first() != Some(&primary);

        let mut partition = Partition {
            primary: Some(primary),
            replicas: migration
                .target
                .iter()
                .copied()
                .filter(|&node| node != primary)
                .collect(),
            behind: old.behind.clone(),
            stage: Stage::Stable,
            epoch: change.next,
        };
        partition
            .behind
            .retain(|behind| migration.target.contains(&behind.node));
        // Of a partition that had no primary, absent members were still the truth.
        let absent: Vec<RaftId> = partition
            .members()
            .filter(|&node| !self.is_live(node))
            .collect();
        mark_behind(&mut partition, &absent, old.epoch);
        for &node in migration
            .target
            .iter()
            .filter(|&&node| joined(node) || node == primary)
        {
            if !joined(node) && old.primary == Some(node) {
                continue;
            }
            let role = if node == primary {
                Role::Primary
            } else {
                Role::Replica
            };
            let what = what(
                ChangeStage::Switched,
                change.stage(),
                role,
                migration.reason,
                old.primary,
            );
            change.emit_partition(id, &partition, node, what);
        }
        let gone = old
            .members()
            .filter(|node| !migration.target.contains(node));
        let gone = gone.chain(migration.leaving.iter().copied());
        let leaving: Vec<RaftId> = gone.filter(|&node| self.is_live(node)).collect();
        let stage = change.stage();
        let told = what(
            ChangeStage::Cleanup,
            stage,
            Role::None,
            migration.reason,
            old.primary,
        );
        open_cleanup(id, &mut partition, leaving, told, change);
        if let Some(demoted) = old
            .primary
            .filter(|node| *node != primary && partition.is_member(*node))
        {
            let what = what(
                ChangeStage::Switched,
                change.stage(),
                Role::Replica,
                migration.reason,
                old.primary,
            );
            change.emit_partition(id, &partition, demoted, what);
        }
        self.open_catch_up(id, &mut partition, change);
        Arc::make_mut(&mut self.partitions)[id.index()] = partition;
        change.published = true;
        self.setbacks.remove(&id);
        self.count_moved(id);
    }

    pub(super) fn revert(&mut self, stages: &[(PartitionId, StageId)], change: &mut Change) {
        for &(id, stage) in stages {
            let open = self.partition(id).is_some_and(|partition| {
                matches!(&partition.stage, Stage::Syncing(migration) if migration.id == stage)
            });
            if open {
                self.note_setback(id, change);
                self.cut_short(id, change);
            } else {
                change.refused.push((id, stage));
            }
        }
        self.complete_plan_if_done(change);
    }

    /// Calls the open move of `id` off; what was copied is let go.
    pub(super) fn call_off(&mut self, id: PartitionId, change: &mut Change) {
        if let Some(migration) = self.abandon(id, change) {
            self.plan_again(id, &migration.target);
        }
    }

    /// Takes note that the move of `id` to `target` does not end there.
    pub(super) fn plan_again(&mut self, id: PartitionId, target: &[RaftId]) {
        let planned = self.plan.as_ref().and_then(|plan| plan.targets.get(&id));
        if planned.is_none_or(|row| *row == target) {
            self.drop_target(id);
            // What was planned is not reached: the next decision must plan again.
            self.plan_basis = 0;
        }
    }

    /// Ends the open move of `id` where it began, and returns it.
    pub(super) fn abandon(&mut self, id: PartitionId, change: &mut Change) -> Option<Migration> {
        let mut partition = self.partitions[id.index()].clone();
        let Stage::Syncing(migration) = core::mem::take(&mut partition.stage) else {
            return None;
        };
        if !planted::is_on(Bug::RevertKeepsEpoch) {
            partition.epoch = change.next;
        }
        let copied = migration.joining.iter().map(|joining| joining.node);
        let copied = copied.chain(migration.leaving.iter().copied());
        let leaving: Vec<RaftId> = copied.filter(|&node| self.is_live(node)).collect();
        let primary = partition.primary;
        let stage = change.stage();
        let told = what(
            ChangeStage::Reverted,
            stage,
            Role::None,
            migration.reason,
            primary,
        );
        open_cleanup(id, &mut partition, leaving, told, change);
        Arc::make_mut(&mut self.partitions)[id.index()] = partition;
        change.published = true;
        Some(migration)
    }

    fn drop_target(&mut self, id: PartitionId) {
        if let Some(plan) = &mut self.plan
            && plan.targets.contains_key(&id)
        {
            Arc::make_mut(plan).targets.remove(&id);
        }
    }

    /// Drops the rows still to be reached that name `node`, which leaves.
    pub(super) fn forget_rows_naming(&mut self, node: RaftId) {
        if let Some(plan) = &mut self.plan
            && plan.targets.values().any(|row| row.contains(&node))
        {
            Arc::make_mut(plan)
                .targets
                .retain(|_, row| !row.contains(&node));
            self.plan_basis = 0;
        }
    }

    /// Tells whether the move of `id` to `row` can begin now: nothing else moves it, somebody
    /// serves it, and whoever is to copy it is live. A move that copies nothing is over at once, so
    /// it must also leave enough members in sync.
    #[must_use]
    pub fn can_start_move(&self, id: PartitionId, row: &[RaftId]) -> bool {
        let Some(partition) = self.partition(id) else {
            return false;
        };
        if partition.stage != Stage::Stable || partition.primary.is_none() {
            return false;
        }
        let comes = |node: &&RaftId| !partition.is_member(**node);
        if row.iter().any(|node| comes(&node)) {
            return row.iter().filter(comes).all(|&node| self.is_live(node));
        }
        self.keeps_copies(partition, row, &[])
    }

    pub(super) fn released(
        &mut self,
        node: RaftId,
        stages: &[(PartitionId, StageId)],
        change: &mut Change,
    ) {
        for &(id, stage) in stages {
            let open = self
                .partition(id)
                .is_some_and(|partition| partition.is_releasing(node, stage));
            if !open {
                change.refused.push((id, stage));
                continue;
            }
            let partition = &mut Arc::make_mut(&mut self.partitions)[id.index()];
            match &mut partition.stage {
                Stage::Stable => {}
                Stage::Syncing(migration) => migration.leaving.retain(|&leaver| leaver != node),
                Stage::Cleanup { leaving, .. } => {
                    leaving.retain(|&leaver| leaver != node);
                    if leaving.is_empty() {
                        partition.stage = Stage::Stable;
                    }
                }
            }
        }
    }

    fn count_moved(&mut self, id: PartitionId) {
        let Some(plan) = &mut self.plan else { return };
        let partition = &self.partitions[id.index()];
        let reached = plan
            .targets
            .get(&id)
            .is_some_and(|row| same_members(partition, row));
        if reached {
            let plan = Arc::make_mut(plan);
            plan.targets.remove(&id);
            plan.partitions_moved += 1;
        }
    }

    pub(super) fn complete_plan_if_done(&mut self, change: &mut Change) {
        let Some(plan) = self.plan.take_if(|plan| plan.targets.is_empty()) else {
            return;
        };
        emit_completed(&plan, change);
        self.remember_home();
    }

    /// Keeps the rows as the home of their members, if everybody is up: what a repair moves away
    /// from a node that is down is not its new home.
    fn remember_home(&mut self) {
        if self.nodes.values().all(|node| node.status.is_live()) {
            let rows = self
                .partitions
                .iter()
                .map(|partition| partition.members().collect());
            self.home = Arc::new(rows.collect());
        }
    }
}

fn emit_completed(plan: &ActivePlan, change: &mut Change) {
    change.emit(EventKind::RebalanceCompleted {
        plan: plan.id,
        trigger: plan.trigger,
        trigger_node: plan.trigger_node,
        partitions_moved: plan.partitions_moved,
        nodes_affected: plan.nodes_affected.clone(),
        started_at: plan.started_at,
    });
}

/// Asks `leaving` to let go, and opens the stage that waits for them.
fn open_cleanup(
    id: PartitionId,
    partition: &mut Partition,
    leaving: Vec<RaftId>,
    told: What,
    change: &mut Change,
) {
    for &node in &leaving {
        change.emit_partition(id, partition, node, told);
    }
    if !leaving.is_empty() {
        partition.stage = Stage::Cleanup {
            id: change.stage(),
            leaving,
            asked_at: change.at,
        };
    }
}

/// Tells whether `partition` stands as `row` wants it, the order of replicas aside.
fn reaches(partition: &Partition, row: &[RaftId]) -> bool {
    !matches!(partition.stage, Stage::Syncing(_))
        && partition.primary.as_ref() == row.first()
        && same_members(partition, row)
}

fn same_members(partition: &Partition, row: &[RaftId]) -> bool {
    partition.members().count() == row.len() && row.iter().all(|&node| partition.is_member(node))
}

fn has_joined(joining: &[Joining], node: RaftId) -> bool {
    joining.iter().any(|joining| joining.node == node)
}

pub(super) const fn what(
    stage: ChangeStage,
    stage_id: StageId,
    role: Role,
    reason: ChangeReason,
    old_primary: Option<RaftId>,
) -> What {
    What {
        stage,
        stage_id,
        role,
        reason,
        old_primary,
    }
}

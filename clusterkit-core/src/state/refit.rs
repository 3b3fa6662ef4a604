//! A move under way whose target has changed: copies that still fit go on, the others are let go.
//!
//! Nothing copied is copied again. Members that the new target replaces by nodes that do not copy
//! yet stay for now: those moves begin later, within the limits, from where this one ends.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ClusterState;
use super::change::Change;
use super::moves::what;
use crate::event::{ChangeStage, Role};
use crate::id::{PartitionId, RaftId};
use crate::partition::{Joining, Migration, Partition, Stage};

impl ClusterState {
    /// Turns the open move of `id`, if there is one, towards `row`: copies that `row` wants go on
    /// under their stages, the others are called off. Where none is left, the move is over.
    pub(super) fn refit(&mut self, id: PartitionId, row: &[RaftId], change: &mut Change) {
        let Stage::Syncing(old) = &self.partitions[id.index()].stage else {
            return;
        };
        let fits = |joining: &&Joining| row.contains(&joining.node) && self.is_live(joining.node);
        let joining: Vec<Joining> = old.joining.iter().filter(fits).copied().collect();
        if joining.is_empty() {
            self.abandon(id, change);
            return;
        }
        let mut partition = self.partitions[id.index()].clone();
        let target = self.within_reach(&partition, row, &joining);
        let Stage::Syncing(old) = core::mem::take(&mut partition.stage) else {
            return;
        };
        if target == old.target && joining.len() == old.joining.len() {
            return;
        }
        let mut leaving = old.leaving;
        for dropped in &old.joining {
            let goes_on = joining.iter().any(|kept| kept.node == dropped.node);
            if !goes_on && self.is_live(dropped.node) {
                leaving.push(dropped.node);
            }
        }
        if joining.len() < old.joining.len() {
            // As after any way back: what was sent in the epoch before does not count any more.
            partition.epoch = change.next;
            change.published = true;
        }
        let stage = change.stage();
        let told = what(
            ChangeStage::Reverted,
            stage,
            Role::None,
            old.reason,
            partition.primary,
        );
        for &node in &leaving {
            change.emit_partition(id, &partition, node, told);
        }
        partition.stage = Stage::Syncing(Migration {
            id: stage,
            target,
            joining,
            leaving,
            reason: old.reason,
        });
        Arc::make_mut(&mut self.partitions)[id.index()] = partition;
    }

    /// Ends what cannot go on of the open move of `id`: the copies of nodes that are gone, or all
    /// of it when nobody is gone or nobody else copies.
    pub(super) fn cut_short(&mut self, id: PartitionId, change: &mut Change) {
        let Stage::Syncing(migration) = &self.partitions[id.index()].stage else {
            return;
        };
        let copies = migration.joining.iter();
        let live = copies.filter(|joining| self.is_live(joining.node)).count();
        if live == 0 || live == migration.joining.len() {
            self.call_off(id, change);
            return;
        }
        let target = migration.target.clone();
        self.refit(id, &target, change);
        self.plan_again(id, &target);
    }

    /// Returns the row nearest to `row` that needs no copies but those of `joining`: for each copy
    /// that it lacks, a member stays, the primary first.
    fn within_reach(
        &self,
        partition: &Partition,
        row: &[RaftId],
        joining: &[Joining],
    ) -> Vec<RaftId> {
        let here = |node: &RaftId| {
            partition.is_member(*node) || joining.iter().any(|joining| joining.node == *node)
        };
        let mut target: Vec<RaftId> = row.iter().copied().filter(here).collect();
        let mut others: Vec<RaftId> = partition.members().collect();
        others.retain(|node| !row.contains(node));
        others.sort_by_key(|&node| {
            let serves = partition.is_in_sync(node) && self.is_live(node);
            (partition.primary != Some(node), !serves)
        });
        target.extend(others.into_iter().take(row.len() - target.len()));
        let primary = target
            .iter()
            .position(|&node| partition.primary == Some(node));
        if let Some(at) = primary.filter(|_| target.first() != row.first()) {
            // The wanted primary has yet to copy: the present one goes on until then.
            target[..=at].rotate_right(1);
        }
        target
    }
}

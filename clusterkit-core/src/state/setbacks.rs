//! Operations that do not end by themselves: moves called off, former members that do not answer,
//! plans an operator does not want any more, and since when nodes are being drained.
//!
//! When a deadline is over is the leader's to decide, in [`crate::coordinator`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::ClusterState;
use super::change::Change;
use crate::command::Rejected;
use crate::id::{PartitionId, PlanId, RaftId, StageId};
use crate::partition::Stage;
use crate::pause::Work;
use crate::time::UnixMillis;

/// Moves of one partition that were called off in a row although everybody was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Setback {
    /// How many.
    pub times: u32,
    /// When the last one was called off.
    pub at: UnixMillis,
}

/// A drain or leave that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DrainBegun {
    /// When it began.
    pub at: UnixMillis,
    /// How many partitions the node held then.
    pub held: u32,
}

impl ClusterState {
    /// Returns the setback of `partition`, none when its last move did not fail.
    #[must_use]
    pub fn setback(&self, partition: PartitionId) -> Option<Setback> {
        self.setbacks.get(&partition).copied()
    }

    /// Returns every partition whose last move was called off.
    pub fn setbacks(&self) -> impl Iterator<Item = (PartitionId, Setback)> + '_ {
        self.setbacks.iter().map(|(&id, &setback)| (id, setback))
    }

    /// Returns since when `node` is being drained, and what it held then.
    #[must_use]
    pub fn drain_begun(&self, node: RaftId) -> Option<DrainBegun> {
        self.drains.get(&node).copied()
    }

    /// Takes note that the move of `id` is called off, unless a node that copies has gone: then it
    /// is no fault of the move.
    pub(super) fn note_setback(&mut self, id: PartitionId, change: &Change) {
        let partition = &self.partitions[id.index()];
        if partition.joining().iter().all(|it| self.is_live(it.node)) {
            let times = self.setback(id).map_or(0, |before| before.times);
            let setback = Setback {
                times: times.saturating_add(1),
                at: change.at,
            };
            self.setbacks.insert(id, setback);
        }
    }

    /// Stops waiting for former members: what they have not let go is their own business.
    pub(super) fn abandon_cleanup(
        &mut self,
        stages: &[(PartitionId, StageId)],
        change: &mut Change,
    ) {
        for &(id, stage) in stages {
            let open = self.partition(id).is_some_and(
                |partition| matches!(&partition.stage, Stage::Cleanup { id, .. } if *id == stage),
            );
            if open {
                Arc::make_mut(&mut self.partitions)[id.index()].stage = Stage::Stable;
            } else {
                change.refused.push((id, stage));
            }
        }
    }

    /// Drops the moves of `plan` that have not begun and only serve the balance.
    pub(super) fn cancel_plan(
        &mut self,
        plan: PlanId,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let work: Vec<Option<Work>> = self.work().collect();
        let syncing = |id: PartitionId| {
            let partition = self.partition(id);
            partition.is_some_and(|it| matches!(it.stage, Stage::Syncing(_)))
        };
        let moving: Vec<PartitionId> = match &self.plan {
            Some(active) if active.id == plan => active
                .targets
                .keys()
                .copied()
                .filter(|&id| syncing(id))
                .collect(),
            _ => return Err(Rejected::StalePlan { plan }),
        };
        if let Some(active) = &mut self.plan {
            let balance = |id: PartitionId| work.get(id.index()) == Some(&Some(Work::Balance));
            Arc::make_mut(active)
                .targets
                .retain(|&id, _| !balance(id) || moving.contains(&id));
        }
        self.complete_plan_if_done(change);
        Ok(())
    }

    /// Keeps the book of drains: `on` begins one, unless it goes on already.
    pub(super) fn note_drain(&mut self, node: RaftId, on: bool, change: &Change) {
        if !on {
            self.drains.remove(&node);
        } else if !self.drains.contains_key(&node) {
            let held = self
                .partitions
                .iter()
                .filter(|it| it.involves(node))
                .count();
            let begun = DrainBegun {
                at: change.at,
                held: u32::try_from(held).unwrap_or(u32::MAX),
            };
            self.drains.insert(node, begun);
        }
    }
}

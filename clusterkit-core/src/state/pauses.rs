//! Pause switches: what a move serves, and what is held back.
//!
//! A partition moves as a whole, so its most urgent cause speaks for it. What is held back is left
//! out of new plans and not started from the plan in force; when work is resumed, it is planned
//! anew. Invariant: pausing moves nothing, and what is under way goes on.

use alloc::vec::Vec;

use super::ClusterState;
use super::change::Change;
use crate::command::Rejected;
use crate::id::{PartitionId, RaftId};
use crate::node::{Drain, Node};
use crate::pause::{Pause, Work};

impl ClusterState {
    /// Returns the switches that are on.
    #[must_use]
    pub fn pauses(&self) -> &[Pause] {
        &self.pauses
    }

    /// Returns the switch of `work`, none when it is off.
    #[must_use]
    pub fn pause(&self, work: Work) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.work == work)
    }

    /// Tells whether `work` is paused.
    #[must_use]
    pub fn is_paused(&self, work: Work) -> bool {
        self.pause(work).is_some()
    }

    /// Returns what a move of each partition would serve, in order; none for partitions without
    /// members, whose placement is no move.
    pub fn work(&self) -> impl Iterator<Item = Option<Work>> + '_ {
        let takes = |id: RaftId| self.node(id).is_some_and(|node| node.takes_data());
        let takers = self.nodes.values().filter(|node| node.takes_data()).count();
        let wanted = takers.min(self.config.replication_factor as usize);
        self.partitions.iter().map(move |partition| {
            if partition.is_unplaced() {
                return None;
            }
            let members = || partition.members().filter_map(|id| self.node(id));
            let short = partition.members().count() < wanted;
            let missing = members().any(|node| node.evicted && !takes(node.raft_id));
            Some(if short || missing {
                Work::Repair
            } else if members().any(|node| node.drain != Drain::No) {
                Work::Drain
            } else {
                Work::Balance
            })
        })
    }

    /// Returns the partitions that stay as they are because the work that moving them would be is
    /// paused, in order.
    #[must_use]
    pub fn held_back(&self) -> Vec<(PartitionId, Work)> {
        if self.pauses.is_empty() {
            return Vec::new();
        }
        let all = self.work().enumerate();
        let held = all.filter_map(|(at, work)| {
            let work = work.filter(|&work| self.is_paused(work))?;
            Some((PartitionId::from_index(at), work))
        });
        held.collect()
    }

    /// Tells whether a plan is wanted for something that is not paused: `false` where the only
    /// causes of one are.
    pub(crate) fn wants_plan(&self) -> bool {
        let wanted = |work: Option<Work>| match work {
            // Whoever has no members is to be placed.
            None => true,
            Some(Work::Balance) => false,
            Some(work) => !self.is_paused(work),
        };
        !self.is_paused(Work::Balance) || self.work().any(wanted)
    }

    /// Tells whether `node` counts as taking data when it is asked whether a plan is due: a drain
    /// that is paused is no cause for one.
    pub(super) fn counts(&self, node: &Node) -> bool {
        node.takes_data() || (self.is_paused(Work::Drain) && node.would_take_data())
    }

    pub(super) fn set_pause(
        &mut self,
        work: Work,
        on: bool,
        reason: &str,
        change: &Change,
    ) -> Result<(), Rejected> {
        Pause::check(reason).map_err(Rejected::Invalid)?;
        let stands = self.plan_basis == self.plan_basis();
        let since = self.pause(work).map(|pause| pause.since);
        self.pauses.retain(|pause| pause.work != work);
        if on {
            let pause = Pause::new(work, since.unwrap_or(change.at), reason);
            self.pauses.push(pause);
            self.pauses.sort_unstable_by_key(|pause| pause.work);
            if stands {
                // Nothing is wanted that was not wanted before: pausing plans nothing.
                self.plan_basis = self.plan_basis();
            }
        }
        Ok(())
    }
}

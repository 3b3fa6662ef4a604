//! What operators are about to do with nodes: roles leave before, no repair begins meanwhile, and all
//! is as before afterwards. No data moves for it.

use alloc::vec::Vec;

use super::ClusterState;
use super::change::Change;
use crate::command::Rejected;
use crate::event::ChangeReason;
use crate::id::{PartitionId, RaftId};
use crate::intent::{Intended, Intent};
use crate::time::UnixMillis;

impl ClusterState {
    /// Returns what is intended with `node`, none when nothing is.
    #[must_use]
    pub fn intent(&self, node: RaftId) -> Option<Intended> {
        self.intents.get(&node).copied()
    }

    /// Returns what is intended with which nodes, in order of joining.
    pub fn intents(&self) -> impl Iterator<Item = (RaftId, Intended)> {
        self.intents
            .iter()
            .map(|(&node, &intended)| (node, intended))
    }

    /// Returns until when `node` is expected back from an announced restart: its copies are not made
    /// elsewhere before.
    #[must_use]
    pub fn expected_until(&self, node: RaftId) -> Option<UnixMillis> {
        self.intent(node).and_then(|intended| intended.until)
    }

    /// Returns the partitions that `node` leads and nobody else could lead now: no other live member
    /// that may lead is in sync.
    #[must_use]
    pub fn without_heir(&self, node: RaftId) -> Vec<PartitionId> {
        let led = self
            .partitions_by_id()
            .filter(|(_, partition)| partition.primary == Some(node));
        let alone = led.filter(|(_, partition)| {
            let mut others = partition.in_sync().filter(|&other| other != node);
            !others.any(|other| self.may_lead(other))
        });
        alone.map(|(id, _)| id).collect()
    }

    pub(super) fn set_intent(
        &mut self,
        node: RaftId,
        intent: Option<Intent>,
        force: bool,
        heirs: &[(PartitionId, RaftId)],
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let id = self.member(node)?.id.clone();
        change.node = Some(node);
        let Some(intent) = intent else {
            self.end_intent(node);
            return Ok(());
        };
        intent.validate().map_err(Rejected::Invalid)?;
        let partitions = self.without_heir(node);
        if !force && !partitions.is_empty() {
            return Err(Rejected::NoHeir { id, partitions });
        }
        let led = self.partitions.iter();
        let led = led.filter(|partition| partition.primary == Some(node));
        let intended = Intended {
            intent,
            since: change.at,
            until: intent.until(change.at),
            led: u32::try_from(led.count()).unwrap_or(u32::MAX),
        };
        self.roles_stale = true;
        self.intents.insert(node, intended);
        self.hand_over(node, heirs, ChangeReason::Manual, change);
        Ok(())
    }

    /// Ends the intents whose time is over at the time of the command.
    pub(super) fn expire_intents(&mut self, change: &Change) {
        let over = |intended: &Intended| intended.until.is_some_and(|until| until <= change.at);
        let over: Vec<RaftId> = self
            .intents()
            .filter(|(_, intended)| over(intended))
            .map(|(node, _)| node)
            .collect();
        for node in over {
            self.end_intent(node);
        }
    }

    /// Takes note that the process of `node` has started again.
    pub(super) fn end_restart(&mut self, node: RaftId) {
        if self.expected_until(node).is_some() {
            self.end_intent(node);
        }
    }

    fn end_intent(&mut self, node: RaftId) {
        if self.intents.remove(&node).is_some() {
            // It may lead again.
            self.roles_stale = true;
        }
    }
}

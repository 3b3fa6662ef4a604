//! What must hold after every command, checked by tests, the simulator and debug builds.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ClusterState;
use crate::id::{PartitionId, RaftId};
use crate::node::Drain;
use crate::partition::{Partition, Stage};

impl ClusterState {
    /// Checks every invariant of the state.
    ///
    /// # Errors
    /// A sentence naming the first invariant broken and where. It is a bug of this crate.
    pub fn check_invariants(&self) -> Result<(), String> {
        if self.cluster.is_none() {
            return if self.nodes.is_empty() && self.partitions.is_empty() {
                Ok(())
            } else {
                Err(String::from("a cluster not yet formed holds nothing"))
            };
        }
        if self.partitions.len() != self.config.partition_count as usize {
            return Err(format!("{} partition records", self.partitions.len()));
        }
        self.check_nodes()?;
        for (id, partition) in self.partitions_by_id() {
            self.check_partition(id, partition)?;
        }
        self.check_books()
    }

    /// Checks what a command that led here from `before` can have broken: every record that it
    /// changed, and every partition that names a node whose record it changed. On a state that
    /// [`Self::check_invariants`] accepted before, it finds what that finds, in a part of the time.
    ///
    /// # Errors
    /// As [`Self::check_invariants`].
    pub fn check_invariants_since(&self, before: &Self) -> Result<(), String> {
        let other = before.cluster != self.cluster || before.config != self.config;
        let sizes = (self.partitions.len(), before.partitions.len());
        if self.cluster.is_none() || other || sizes.0 != sizes.1 || self.epoch < before.epoch {
            return self.check_invariants();
        }
        let touched = self.touched_since(before);
        if !touched.is_empty() {
            self.check_nodes()?;
        }
        let same = Arc::ptr_eq(&self.partitions, &before.partitions);
        if !same || !touched.is_empty() {
            let records = self.partitions_by_id().zip(before.partitions.iter());
            for ((id, partition), known) in records {
                let changed = !same && partition != known;
                if changed || names_any(partition, &touched) {
                    self.check_partition(id, partition)?;
                }
            }
        }
        self.check_books()
    }

    /// Returns in order who is a member here or in `before`, and is not quite the same in both.
    fn touched_since(&self, before: &Self) -> Vec<RaftId> {
        let mut touched = Vec::new();
        let mut known = before.nodes.iter().peekable();
        for (id, node) in &self.nodes {
            while let Some((gone, _)) = known.next_if(|(other, _)| *other < id) {
                touched.push(*gone);
            }
            let same = known.next_if(|(other, _)| *other == id);
            if same.is_none_or(|(_, other)| !Arc::ptr_eq(node, other)) {
                touched.push(*id);
            }
        }
        touched.extend(known.map(|(gone, _)| *gone));
        // Who was never active is told by these, too.
        for (a, b) in [(self, before), (before, self)] {
            let absences = a.absences.iter();
            let changed = absences.filter(|&(id, absence)| b.absences.get(id) != Some(absence));
            touched.extend(changed.map(|(id, _)| *id));
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    fn check_nodes(&self) -> Result<(), String> {
        let ids: BTreeSet<_> = self.nodes.values().map(|node| &node.id).collect();
        if ids.len() != self.nodes.len() {
            return Err(String::from("node ids are unique"));
        }
        if self.nodes.iter().any(|(id, node)| *id != node.raft_id) {
            return Err(String::from("nodes stand under their own internal id"));
        }
        Ok(())
    }

    fn check_partition(&self, id: PartitionId, partition: &Partition) -> Result<(), String> {
        if let Some(broken) = partition.broken_invariant() {
            return Err(format!("partition {id}: {broken}: {partition:?}"));
        }
        let target = match &partition.stage {
            Stage::Syncing(migration) => migration.target.as_slice(),
            Stage::Stable | Stage::Cleanup { .. } => &[],
        };
        let joining = partition.joining().iter().map(|joining| joining.node);
        let others = partition.leaving().iter().chain(target).copied();
        for node in partition.members().chain(joining).chain(others) {
            if !self.nodes.contains_key(&node) {
                return Err(format!("partition {id} names {node}, which is no member"));
            }
            if self.was_never_active(node) {
                return Err(format!(
                    "partition {id} names {node}, which has never been active"
                ));
            }
        }
        match partition.primary {
            Some(primary) if !self.is_live(primary) => {
                return Err(format!("partition {id}: the primary {primary} is live"));
            }
            None if partition.in_sync().any(|node| self.is_live(node)) => {
                return Err(format!("partition {id}: a live in-sync member leads"));
            }
            Some(_) | None => {}
        }
        let absent = |node: &RaftId| !self.is_live(*node);
        if partition.primary.is_some() && partition.in_sync().any(|node| absent(&node)) {
            return Err(format!(
                "partition {id}: absent members of a led partition are behind"
            ));
        }
        if partition.leaving().iter().any(absent) {
            return Err(format!(
                "partition {id}: absent nodes have nothing to release"
            ));
        }
        if partition.epoch > self.epoch {
            return Err(format!(
                "partition {id}: its epoch is not beyond the cluster's"
            ));
        }
        for behind in &partition.behind {
            let asked = behind.stage.is_some();
            if asked != (partition.primary.is_some() && self.is_live(behind.node)) {
                return Err(format!(
                    "partition {id}: {} is asked to catch up iff it can",
                    behind.node
                ));
            }
        }
        Ok(())
    }

    /// Checks everything beside nodes and partitions.
    fn check_books(&self) -> Result<(), String> {
        let mut levels = self.nodes.values().map(|node| node.feature_level);
        if levels.any(|level| level < self.feature_level) {
            return Err(String::from("every member knows what the cluster uses"));
        }
        if let Some(plan) = &self.plan {
            if plan.targets.is_empty() {
                return Err(String::from("a plan in force has rows to reach"));
            }
            let unknown = |node: &RaftId| !self.nodes.contains_key(node);
            if plan.targets.values().flatten().any(unknown) {
                return Err(String::from("a plan names members only"));
            }
        }
        let judged = self.vetoes.keys().chain(self.falls.keys());
        let mut judged = judged.chain(self.intents.keys());
        if judged.any(|node| !self.nodes.contains_key(node)) {
            return Err(String::from("only members are judged"));
        }
        if !self.pauses.is_sorted_by(|a, b| a.work < b.work) {
            return Err(String::from("a pause switch stands once, and in order"));
        }
        let drains = |node: &&Arc<crate::node::Node>| node.drain != Drain::No;
        let draining = self.nodes.values().filter(drains).map(|node| &node.raft_id);
        if !self.drains.keys().eq(draining) {
            return Err(String::from("every drain that goes on is in the book"));
        }
        if self
            .events
            .back()
            .is_some_and(|event| event.seq != self.last_event)
        {
            return Err(String::from("the last event kept is the last emitted"));
        }
        Ok(())
    }
}

/// Tells whether `partition` names any of `nodes`, which are in order.
fn names_any(partition: &Partition, nodes: &[RaftId]) -> bool {
    if nodes.is_empty() {
        return false;
    }
    let target = match &partition.stage {
        Stage::Syncing(migration) => migration.target.as_slice(),
        Stage::Stable | Stage::Cleanup { .. } => &[],
    };
    let joining = partition.joining().iter().map(|joining| joining.node);
    let others = partition.leaving().iter().chain(target).copied();
    let mut named = partition.members().chain(joining).chain(others);
    named.any(|node| nodes.binary_search(&node).is_ok())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::command::Command;
    use crate::config::ClusterConfig;
    use crate::id::{ClusterId, DiskId, Epoch, LogIndex, NodeId};
    use crate::node::{NodeSpec, NodeStatus};
    use crate::time::UnixMillis;

    /// Returns a cluster of three nodes, the first of which leads everything.
    fn formed() -> ClusterState {
        let spec = |number: u8| {
            let id = NodeId::new(format!("n{number}")).unwrap();
            NodeSpec::new(
                id,
                DiskId::from_bytes([number; 16]),
                &format!("n{number}:1"),
            )
        };
        let at = UnixMillis(0);
        let mut state = ClusterState::new();
        let bootstrap = Command::Bootstrap {
            cluster: ClusterId::from_bytes([1; 16]),
            config: ClusterConfig {
                partition_count: 4,
                ..ClusterConfig::default()
            },
            node: spec(1),
            at,
        };
        state.apply(LogIndex(1), &bootstrap).unwrap();
        for (number, index) in [(2, 2), (3, 4)] {
            let (node, replaces) = (spec(number), None);
            let join = Command::Join { node, replaces, at };
            state.apply(LogIndex(index), &join).unwrap();
            let node = RaftId(index);
            let activate = Command::Activate { node, at };
            state.apply(LogIndex(index + 1), &activate).unwrap();
        }
        let mut partitions = (*state.partitions).clone();
        for partition in &mut partitions {
            partition.primary = Some(RaftId::BOOTSTRAP);
        }
        state.partitions = Arc::new(partitions);
        state.check_invariants().unwrap();
        state
    }

    /// What breaks a rule is found wherever it stands, looked for as a whole or since before.
    #[test]
    fn what_a_change_breaks_is_found_since_before() {
        let whole = formed();
        let breaks: [fn(&mut ClusterState); 6] = [
            |state| Arc::make_mut(&mut state.partitions)[2].epoch = Epoch(99),
            |state| Arc::make_mut(&mut state.partitions)[3].primary = Some(RaftId(77)),
            // The partitions are as before; a node that they name is not.
            |state| {
                let node = state.nodes.get_mut(&RaftId::BOOTSTRAP).unwrap();
                Arc::make_mut(node).status = NodeStatus::Down;
            },
            |state| drop(state.nodes.remove(&RaftId::BOOTSTRAP)),
            |state| {
                let absence = super::super::Absence {
                    since: UnixMillis(0),
                    held: vec![],
                    copied: vec![],
                    was_joining: true,
                };
                state.absences.insert(RaftId::BOOTSTRAP, absence);
            },
            |state| {
                let node = state.nodes.last_entry().unwrap().into_mut();
                Arc::make_mut(node).id = NodeId::new("n1").unwrap();
            },
        ];
        for (number, breaks) in breaks.into_iter().enumerate() {
            let mut broken = whole.clone();
            breaks(&mut broken);
            let all = broken.check_invariants().unwrap_err();
            assert_eq!(broken.check_invariants_since(&whole), Err(all), "{number}");
        }
        assert_eq!(whole.check_invariants_since(&whole.clone()), Ok(()));
    }
}

//! What must hold after every command, checked by tests, the simulator and debug builds.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use super::ClusterState;
use crate::node::Drain;
use crate::partition::Stage;

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
        let ids: BTreeSet<_> = self.nodes.values().map(|node| &node.id).collect();
        if ids.len() != self.nodes.len() {
            return Err(String::from("node ids are unique"));
        }
        if self.nodes.iter().any(|(id, node)| *id != node.raft_id) {
            return Err(String::from("nodes stand under their own internal id"));
        }
        for (id, partition) in self.partitions_by_id() {
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
            let absent = |node: &crate::id::RaftId| !self.is_live(*node);
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
        }
        if let Some(plan) = &self.plan {
            if plan.targets.is_empty() {
                return Err(String::from("a plan in force has rows to reach"));
            }
            let unknown = |node: &crate::id::RaftId| !self.nodes.contains_key(node);
            if plan.targets.values().flatten().any(unknown) {
                return Err(String::from("a plan names members only"));
            }
        }
        let mut judged = self.vetoes.keys().chain(self.falls.keys());
        if judged.any(|node| !self.nodes.contains_key(node)) {
            return Err(String::from("only members are judged"));
        }
        if !self.pauses.is_sorted_by(|a, b| a.work < b.work) {
            return Err(String::from("a pause switch stands once, and in order"));
        }
        let drains = |node: &&alloc::sync::Arc<crate::node::Node>| node.drain != Drain::No;
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

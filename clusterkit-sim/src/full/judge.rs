//! What must hold at every step: state, agreement, owners.
//!
//! It looks at a node whenever that has published something new. What clients saw is judged at the
//! end, with the checkers of [`crate::check`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::View;
use clusterkit_core::id::{ClusterId, Epoch, LogIndex, PartitionId, RaftId};
use clusterkit_core::state::ClusterState;

use crate::Violation;

/// How many states are kept for comparison.
const STATES_KEPT: usize = 256;

/// The record of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    cluster: Option<ClusterId>,
    states: BTreeMap<LogIndex, (RaftId, Arc<ClusterState>)>,
    owners: BTreeMap<(PartitionId, Epoch), RaftId>,
    /// Who led which term, by its own account.
    leaders: BTreeMap<u64, RaftId>,
}

impl Judge {
    /// Takes notice of what `node` shows.
    pub(crate) fn see(
        &mut self,
        node: RaftId,
        view: &View,
        changed: bool,
        at: Duration,
    ) -> Result<(), Violation> {
        let leads = view.leadership.is_leader.then_some(view.leadership.term);
        if let Some(term) = leads {
            let first = *self.leaders.entry(term).or_insert(node);
            if first != node {
                let detail = format!("nodes {first} and {node} both led term {term}");
                return Err(Violation::new("two-leaders", detail, at));
            }
        }
        if !changed {
            return Ok(());
        }
        let state = &view.state;
        if let Some(cluster) = state.cluster() {
            let first = *self.cluster.get_or_insert(cluster);
            if first != cluster {
                let detail = format!("node {node} belongs to cluster {cluster}, others to {first}");
                return Err(Violation::new("two-clusters", detail, at));
            }
        }
        if let Err(broken) = state.check_invariants() {
            let detail = format!("node {node} at index {}: {broken}", state.applied());
            return Err(Violation::new("invariant", detail, at));
        }
        self.agree(node, state, at)?;
        self.own(node, view, at)
    }

    fn agree(
        &mut self,
        node: RaftId,
        state: &Arc<ClusterState>,
        at: Duration,
    ) -> Result<(), Violation> {
        let index = state.applied();
        if let Some((before, (_, earlier))) = self.states.range(..index).next_back()
            && earlier.feature_level() > state.feature_level()
        {
            let detail = format!("node {node} at index {index}: lower than at {before}");
            return Err(Violation::new("feature-level-fell", detail, at));
        }
        match self.states.get(&index) {
            Some((first, known)) if !Arc::ptr_eq(known, state) && **known != **state => {
                let detail = format!("nodes {first} and {node} differ at index {index}");
                return Err(Violation::new("states-differ", detail, at));
            }
            Some(_) => {}
            None => {
                self.states.insert(index, (node, Arc::clone(state)));
                if self.states.len() > STATES_KEPT {
                    self.states.pop_first();
                }
            }
        }
        Ok(())
    }

    fn own(&mut self, node: RaftId, view: &View, at: Duration) -> Result<(), Violation> {
        for (partition, record) in view.state.partitions_by_id() {
            let Some(primary) = record.primary else {
                continue;
            };
            let epoch = view.topology.partition_epoch(partition);
            let first = *self.owners.entry((partition, epoch)).or_insert(primary);
            if first != primary {
                let detail = format!(
                    "partition {partition} has primary {first} and, on node {node}, {primary} \
                     under epoch {epoch}"
                );
                return Err(Violation::new("two-primaries", detail, at));
            }
        }
        Ok(())
    }
}

//! When a leader gives way: it does not hear somebody whom others hear.
//!
//! A node that its leader does not hear has no lease, so what it leads takes no writes, although it
//! and the rest of the cluster are well. Somebody else can lead without that gap.

use alloc::vec::Vec;
use core::time::Duration;

use super::Coordinator;
use crate::detector::Verdicts;
use crate::id::RaftId;
use crate::node::Drain;
use crate::state::ClusterState;
use crate::time::Instant;

impl Coordinator {
    /// Returns who should lead instead of this process, best first; nobody, mostly.
    pub(super) fn succession(
        &mut self,
        state: &ClusterState,
        verdicts: &Verdicts,
        now: Instant,
    ) -> Vec<RaftId> {
        let rests = self.rests_until();
        if verdicts.hearers.is_empty() || rests.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let leaves = |id: RaftId| {
            let node = state.node(id);
            node.is_none_or(|node| !node.status.is_live() || node.drain == Drain::Leave)
        };
        let fit = |&id: &RaftId| !leaves(id) && !verdicts.vouched.contains(&id);
        let heirs: Vec<RaftId> = verdicts.hearers.iter().copied().filter(fit).collect();
        if !heirs.is_empty() {
            self.yielded_at = Some(now);
        }
        heirs
    }

    /// Returns until when this process does not give way again. For longer than it waits for whoever
    /// is vouched for: where each leader misses somebody, leadership goes round once, and then one
    /// of them decides.
    fn rests_until(&self) -> Option<Instant> {
        let limit: Duration = self.detector.config().vouched_limit;
        self.yielded_at.map(|at| at + limit * 2)
    }
}

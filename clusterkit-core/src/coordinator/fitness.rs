//! What nodes say of themselves, and what the leader makes of it.
//!
//! A verdict of an application goes into the log, where it takes effect. That a node's own loops
//! are late is no verdict, only a doubt: while it is fresh, others are preferred as heirs, and
//! where most nodes doubt themselves at once, silence is put down to that for a while.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Coordinator, Decision, failover};
use crate::command::Command;
use crate::health::{Health, HealthReport};
use crate::id::{Incarnation, PartitionId, RaftId};
use crate::state::ClusterState;
use crate::time::{Instant, UnixMillis};

/// For how many leases a doubt counts.
const DOUBT_LEASES: u32 = 3;

/// What a node last said of itself.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    incarnation: Incarnation,
    report: HealthReport,
    /// When it last said that its own loops were late.
    doubted_at: Option<Instant>,
}

impl Coordinator {
    /// Takes note of what `node` says of itself, and whether its own loops were `late`. Goes before
    /// [`Self::handle_heartbeat`], which must not follow where this returns false: a node that
    /// wants to count as down is not heard.
    pub fn handle_health(
        &mut self,
        node: RaftId,
        incarnation: Incarnation,
        report: &HealthReport,
        late: bool,
        now: Instant,
    ) -> bool {
        let before = self.reports.get(&node);
        if before.is_some_and(|before| incarnation < before.incarnation) {
            return true;
        }
        let doubted_at = before.and_then(|before| before.doubted_at);
        let reported = Reported {
            incarnation,
            report: report.clone(),
            doubted_at: if late { Some(now) } else { doubted_at },
        };
        self.reports.insert(node, reported);
        if late && self.most_doubt(now) {
            self.detector.excuse(now);
        }
        report.health != Health::Down
    }

    /// Proposes what nodes say of themselves where the state says otherwise.
    pub(super) fn heed(&self, state: &ClusterState, wall: UnixMillis, decision: &mut Decision) {
        for node in state.nodes() {
            let Some(reported) = self.reports.get(&node.raft_id) else {
                continue;
            };
            let told = state.veto(node.raft_id);
            let known = told.map_or((Health::Healthy, ""), |veto| (veto.health, &*veto.reason));
            let healthy = reported.report.health == Health::Healthy;
            let reason = if healthy {
                ""
            } else {
                &*reported.report.reason
            };
            if reported.incarnation != node.incarnation || known == (reported.report.health, reason)
            {
                continue;
            }
            let heirs = match healthy {
                true => Vec::new(),
                false => failover::heirs_of(&*self.strategy, state, node.raft_id),
            };
            decision.commands.push(Command::SetHealth {
                node: node.raft_id,
                incarnation: reported.incarnation,
                report: reported.report.clone(),
                heirs,
                at: wall,
            });
        }
    }

    /// Returns the live nodes that want to count as down.
    pub(super) fn self_condemned(&self, state: &ClusterState) -> Vec<RaftId> {
        let wants = |node: &RaftId| {
            let reported = self.reports.get(node);
            let current = state.node(*node).map(|node| node.incarnation);
            reported.is_some_and(|it| {
                it.report.health == Health::Down && Some(it.incarnation) == current
            })
        };
        let live = state.nodes().filter(|node| node.status.is_live());
        let live = live.map(|node| node.raft_id).filter(wants);
        // Whoever leads cannot condemn itself: it hands leadership over first.
        live.filter(|&node| self.detector.leading() != Some(node))
            .collect()
    }

    /// Returns who takes over from `down`: whoever is fit and does not doubt itself, if possible.
    pub(super) fn heirs(
        &self,
        state: &ClusterState,
        down: &[RaftId],
        now: Instant,
    ) -> Vec<(PartitionId, RaftId)> {
        let fit = |node: RaftId| state.may_lead(node) && !self.doubts(node, now);
        failover::promotions(&*self.strategy, state, down, &fit)
    }

    /// Tells whether `node` has said lately that its own loops were late.
    #[must_use]
    pub fn doubts(&self, node: RaftId, now: Instant) -> bool {
        let lasts: Duration = self.detector.config().lease * DOUBT_LEASES;
        let doubted = self.reports.get(&node).and_then(|it| it.doubted_at);
        doubted.is_some_and(|at| now.saturating_since(at) <= lasts)
    }

    fn most_doubt(&self, now: Instant) -> bool {
        let doubting = self.reports.keys().filter(|&&node| self.doubts(node, now));
        doubting.count() * 2 > self.reports.len()
    }
}

//! Whom to trust with primaries: what nodes say of themselves, and how often they went down.
//!
//! Neither takes a copy from anybody. A node that vetoes itself hands its primaries over where a
//! member in sync can take them; one that flaps is waited for longer and chosen last as a heir.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::ClusterState;
use super::change::{Change, What};
use super::members::{lead, switched};
use crate::command::Rejected;
use crate::event::{ChangeReason, Role};
use crate::health::{Health, HealthReport, Veto};
use crate::id::{Incarnation, PartitionId, RaftId};
use crate::node::Node;
use crate::partition::Partition;
use crate::time::UnixMillis;

/// How long one fall of a node is remembered, by the times in the log.
const FALL_MEMORY: Duration = Duration::from_secs(600);

/// How often the repair delay of a node that flaps is doubled at most: 8 times the delay.
const DOUBLINGS_MAX: u32 = 3;

/// How often a node went down lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Falls {
    /// How often, when it last went down; one fall is forgotten with every 10 minutes since.
    pub count: u32,
    /// When it last went down.
    pub at: UnixMillis,
}

impl Falls {
    /// Returns how many are not forgotten at `now`.
    #[must_use]
    pub fn remembered(&self, now: UnixMillis) -> u32 {
        let faded = now.saturating_since(self.at).as_millis() / FALL_MEMORY.as_millis();
        self.count
            .saturating_sub(u32::try_from(faded).unwrap_or(u32::MAX))
    }
}

impl ClusterState {
    /// Returns what `node` says against itself, none when it is healthy.
    #[must_use]
    pub fn veto(&self, node: RaftId) -> Option<&Veto> {
        self.vetoes.get(&node)
    }

    /// Returns how often `node` went down, none when it never did.
    #[must_use]
    pub fn falls(&self, node: RaftId) -> Option<Falls> {
        self.falls.get(&node).copied()
    }

    /// Returns how long `node` may stay down before its copies are made elsewhere: the configured
    /// delay, doubled with each further fall that is remembered, up to 8 times.
    #[must_use]
    pub fn repair_delay(&self, node: &Node) -> Duration {
        let delay = Duration::from_millis(self.config.repair_delay_ms);
        let falls = self.falls(node.raft_id).map_or(0, |falls| falls.count);
        delay.saturating_mul(1 << falls.saturating_sub(1).min(DOUBLINGS_MAX))
    }

    /// Tells whether `node` may be given primaries: it is live, says nothing against itself, and no
    /// operator intends to stop it.
    #[must_use]
    pub fn may_lead(&self, node: RaftId) -> bool {
        self.is_live(node) && !self.vetoes.contains_key(&node) && !self.intents.contains_key(&node)
    }

    /// Returns how little `node` is wanted as a primary at `now`: what vetoes itself least, then
    /// what is about to be stopped, then what flaps.
    pub(super) fn reluctance(&self, node: RaftId, now: UnixMillis) -> (bool, bool, bool) {
        let falls = self.falls(node).map_or(0, |falls| falls.remembered(now));
        let vetoed = self.vetoes.contains_key(&node);
        (vetoed, self.intents.contains_key(&node), falls > 1)
    }

    /// Takes note that `node` went down, unless that was announced.
    pub(super) fn note_fall(&mut self, node: RaftId, change: &Change) {
        if self.expected_until(node).is_some() {
            return;
        }
        let before = self
            .falls(node)
            .map_or(0, |falls| falls.remembered(change.at));
        let falls = Falls {
            count: before.saturating_add(1),
            at: change.at,
        };
        self.falls.insert(node, falls);
    }

    pub(super) fn set_health(
        &mut self,
        node: RaftId,
        incarnation: Incarnation,
        report: &HealthReport,
        heirs: &[(PartitionId, RaftId)],
        change: &mut Change,
    ) -> Result<(), Rejected> {
        report.validate().map_err(Rejected::Invalid)?;
        let record = self.member(node)?;
        if record.incarnation != incarnation {
            return Err(Rejected::StaleIncarnation {
                node,
                given: incarnation.0,
                current: record.incarnation.0,
            });
        }
        change.node = Some(node);
        change.judged = true;
        self.roles_stale = true;
        if report.health == Health::Healthy {
            self.vetoes.remove(&node);
            return Ok(());
        }
        let since = self.veto(node).map_or(change.at, |veto| veto.since);
        let veto = Veto {
            health: report.health,
            reason: Arc::clone(&report.reason),
            since,
        };
        self.vetoes.insert(node, veto);
        self.hand_over(node, heirs, ChangeReason::Failover, change);
        Ok(())
    }

    /// Gives what `node` leads to members that are in sync and better suited, where there are any.
    pub(super) fn hand_over(
        &mut self,
        node: RaftId,
        heirs: &[(PartitionId, RaftId)],
        reason: ChangeReason,
        change: &mut Change,
    ) {
        let led = |partition: &Partition| partition.primary == Some(node);
        let ids = self
            .partitions_by_id()
            .filter(|(_, partition)| led(partition));
        let ids: Vec<PartitionId> = ids.map(|(id, _)| id).collect();
        for id in ids {
            let mut partition = self.partitions[id.index()].clone();
            let named = heirs.iter().find(|(named, _)| *named == id);
            let fit = |heir: &RaftId| {
                *heir != node && partition.is_in_sync(*heir) && self.may_lead(*heir)
            };
            let named = named.map(|&(_, heir)| heir).filter(fit);
            let heir = named.or_else(|| self.successor(&partition, &[node], change.at).filter(fit));
            let Some(heir) = heir else { continue };
            lead(&mut partition, Some(heir));
            partition.epoch = change.next;
            let roles = [(heir, Role::Primary), (node, Role::Replica)];
            for (target, role) in roles {
                let what: What = switched(change, role, reason, Some(node));
                change.emit_partition(id, &partition, target, what);
            }
            Arc::make_mut(&mut self.partitions)[id.index()] = partition;
            change.published = true;
        }
    }
}

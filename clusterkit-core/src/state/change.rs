//! One command being carried out: what it has changed so far.
//!
//! A command is checked first and then carried out without failing; [`Change`] collects its events
//! and whether the published topology moved, so that the epoch rises by exactly one or not at all.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ClusterState;
use crate::command::Applied;
use crate::config::EVENTS_KEPT;
use crate::event::{ChangeReason, ChangeStage, Event, EventKind, PartitionChanged, Role};
use crate::id::{Epoch, EventSeq, LogIndex, PartitionId, RaftId, StageId};
use crate::partition::Partition;
use crate::planted::{self, Bug};
use crate::time::UnixMillis;

/// What the command at `index` has done so far.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) index: LogIndex,
    pub(super) at: UnixMillis,
    /// The epoch that holds after this command if it publishes anything.
    pub(super) next: Epoch,
    /// Whether the published topology has changed.
    pub(super) published: bool,
    /// Whether the health of the cluster may have changed although the topology did not.
    pub(super) judged: bool,
    pub(super) node: Option<RaftId>,
    pub(super) refused: Vec<(PartitionId, StageId)>,
    kinds: Vec<EventKind>,
}

impl Change {
    pub(super) fn new(state: &ClusterState, index: LogIndex, at: UnixMillis) -> Self {
        Self {
            index,
            at,
            next: state.epoch.next(),
            published: false,
            judged: false,
            node: None,
            refused: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Returns the identity of stages opened by this command.
    pub(super) const fn stage(&self) -> StageId {
        StageId(self.index.0)
    }

    pub(super) fn emit(&mut self, kind: EventKind) {
        self.kinds.push(kind);
    }

    /// Returns where the next event will stand, for [`Self::emit_at`].
    pub(super) const fn position(&self) -> usize {
        self.kinds.len()
    }

    /// Puts an event in front of those emitted since [`Self::position`] gave `position`.
    pub(super) fn emit_at(&mut self, position: usize, kind: EventKind) {
        self.kinds.insert(position, kind);
    }

    /// Emits that `target` is concerned by a change of `partition`, as the record stands now.
    pub(super) fn emit_partition(
        &mut self,
        id: PartitionId,
        partition: &Partition,
        target: RaftId,
        what: What,
    ) {
        let behind = partition.behind.iter().find(|behind| behind.node == target);
        self.emit(EventKind::PartitionChanged(PartitionChanged {
            partition: id,
            stage: what.stage,
            stage_id: what.stage_id,
            sources: partition.sources(target),
            target,
            role: what.role,
            reason: what.reason,
            old_primary: what.old_primary,
            new_primary: partition.primary,
            behind_since: behind.filter(|b| !b.diverged).map(|b| b.since),
            epoch: partition.epoch,
        }));
    }

    /// Writes the outcome into `state`: epoch, health, events, applied index.
    pub(super) fn finish(mut self, state: &mut ClusterState) -> Applied {
        if self.published {
            // Planted: what is published changes and its number does not.
            if !planted::is_on(Bug::EpochStandsStill) || !self.kinds.is_empty() {
                state.epoch = self.next;
            }
        }
        if self.published || self.judged {
            let health = state.compute_health();
            let before = core::mem::replace(&mut state.health, health);
            let health = &state.health;
            // A larger cluster that is as healthy as before is no change of health.
            if health.status != before.status || health.unhealthy_nodes != before.unhealthy_nodes {
                self.kinds
                    .push(EventKind::ClusterHealthChanged(health.clone()));
            }
        }
        let mut events = Vec::with_capacity(self.kinds.len());
        if !self.kinds.is_empty() {
            let kept = Arc::make_mut(&mut state.events);
            for kind in self.kinds {
                state.last_event = EventSeq(state.last_event.0 + 1);
                let event = Event {
                    seq: state.last_event,
                    index: self.index,
                    epoch: state.epoch,
                    at: self.at,
                    kind,
                };
                events.push(event.clone());
                keep(kept, event);
            }
        }
        state.applied = self.index;
        Applied {
            index: self.index,
            epoch: state.epoch,
            node: self.node,
            refused: self.refused,
            events,
        }
    }
}

/// The parts of a [`PartitionChanged`] that the record does not hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct What {
    pub(super) stage: ChangeStage,
    pub(super) stage_id: StageId,
    pub(super) role: Role,
    pub(super) reason: ChangeReason,
    pub(super) old_primary: Option<RaftId>,
}

fn keep(kept: &mut VecDeque<Arc<Event>>, event: Event) {
    if kept.len() == EVENTS_KEPT {
        kept.pop_front();
    }
    kept.push_back(Arc::new(event));
}

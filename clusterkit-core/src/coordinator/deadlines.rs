//! What has taken too long: copies are called off and tried again later, former members that do
//! not let go are not waited for any more.
//!
//! A copy that advances, as its node reports, is not overdue: its time counts from when it last got
//! further, and nothing else bounds it but an operator who cancels it.
//!
//! Both are safe. A copy that is called off leaves the present members as they were. A former
//! member holds no role, and should it be asked to copy again its program hears of that after what
//! it was told before; its late answer names a stage that is closed.
//!
//! Time is the leader's own: a leader counts from when it first saw what is open, so that neither
//! a clock that was set nor a new leader ends anything early.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::{BATCH, Decision};
use crate::command::Command;
use crate::id::{PartitionId, StageId};
use crate::partition::Stage;
use crate::state::{ClusterState, Setback};
use crate::time::{Instant, UnixMillis};

/// How long a move that was called off waits before it begins again; doubled with each time in a
/// row.
pub(crate) const RETRY_FIRST: Duration = Duration::from_secs(10);

/// The longest such wait.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(600);

/// Since when this leader has seen what is open, or has seen it get further.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    open: BTreeMap<(PartitionId, StageId), Instant>,
    setbacks: BTreeMap<PartitionId, (Setback, Instant)>,
}

/// Returns how long a move waits after it was called off `times` in a row.
pub(crate) fn retry_delay(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX)
}

impl Deadlines {
    /// Forgets everything: another leadership begins.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Decides about everything that is open beyond its deadline.
    pub(super) fn decide(
        &mut self,
        state: &ClusterState,
        now: Instant,
        wall: UnixMillis,
        decision: &mut Decision,
    ) {
        self.watch(state, now);
        let config = state.config();
        let copy = Duration::from_millis(config.copy_deadline_ms);
        let cleanup = Duration::from_millis(config.cleanup_deadline_ms);
        let (mut reverted, mut abandoned) = (Vec::new(), Vec::new());
        for (id, partition) in state.partitions_by_id() {
            let mut is_over = |stage: StageId, limit: Duration| {
                let due = self.open.get(&(id, stage)).map(|&since| since + limit);
                match due {
                    Some(due) if due <= now => true,
                    Some(due) => {
                        decision.next = decision.next.min(due);
                        false
                    }
                    None => false,
                }
            };
            match &partition.stage {
                Stage::Stable => {}
                Stage::Syncing(migration) => {
                    let mut open = migration.joining.iter().filter(|joining| !joining.synced);
                    if open.any(|joining| is_over(joining.stage, copy)) {
                        reverted.push((id, migration.id));
                    }
                }
                Stage::Cleanup { id: stage, .. } => {
                    if is_over(*stage, cleanup) {
                        abandoned.push((id, *stage));
                    }
                }
            }
        }
        reverted.truncate(BATCH);
        abandoned.truncate(BATCH);
        let at = wall;
        if !reverted.is_empty() {
            let stages = reverted;
            decision.commands.push(Command::Revert { stages, at });
        }
        if !abandoned.is_empty() {
            let stages = abandoned;
            decision.commands.push(Command::Abandon { stages, at });
        }
    }

    /// Takes note that the copy of `partition` under `stage` got further: its time begins anew.
    pub(super) fn advanced(&mut self, partition: PartitionId, stage: StageId, now: Instant) {
        if let Some(since) = self.open.get_mut(&(partition, stage)) {
            *since = now;
        }
    }

    /// Tells whether the move of `partition` may begin again.
    pub(super) fn may_start(&self, partition: PartitionId, now: Instant) -> bool {
        self.retry_at(partition).is_none_or(|at| at <= now)
    }

    /// Returns when the move of `partition` may begin again after a setback.
    pub(super) fn retry_at(&self, partition: PartitionId) -> Option<Instant> {
        let (setback, seen) = self.setbacks.get(&partition)?;
        Some(*seen + retry_delay(setback.times))
    }

    /// Returns the earliest moment after `now` at which some move may begin again.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Instant> {
        let all = self.setbacks.keys().filter_map(|&id| self.retry_at(id));
        all.filter(|&at| at > now).min()
    }

    fn watch(&mut self, state: &ClusterState, now: Instant) {
        let mut open = BTreeMap::new();
        for (id, partition) in state.partitions_by_id() {
            let mut see = |stage: StageId| {
                let since = self.open.get(&(id, stage)).copied().unwrap_or(now);
                open.insert((id, stage), since);
            };
            match &partition.stage {
                Stage::Stable => {}
                Stage::Syncing(migration) => {
                    let copying = migration.joining.iter().filter(|joining| !joining.synced);
                    copying.for_each(|joining| see(joining.stage));
                }
                Stage::Cleanup { id, .. } => see(*id),
            }
        }
        self.open = open;
        let seen = |(id, setback): (PartitionId, Setback)| match self.setbacks.get(&id) {
            Some(&known) if known.0 == setback => (id, known),
            Some(_) | None => (id, (setback, now)),
        };
        self.setbacks = state.setbacks().map(seen).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_fails_again_and_again_is_tried_ever_more_rarely_and_never_given_up() {
        let waits: [u64; 8] = core::array::from_fn(|at| {
            let times = u32::try_from(at).unwrap();
            retry_delay(times).as_secs()
        });
        assert_eq!(waits, [10, 10, 20, 40, 80, 160, 320, 600]);
        assert_eq!(retry_delay(u32::MAX), RETRY_MAX);
    }
}

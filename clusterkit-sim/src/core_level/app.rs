//! The application: what each node holds of each partition, and which writes were acknowledged.
//!
//! It keeps to the rules that ClusterKit asks of an application. A primary acknowledges a write
//! once every live member and joining node of its view has it; a copy is refused where a newer
//! epoch was seen; a copy is taken from a primary that knows of the stage and is not outdated.

use std::time::Duration;

use clusterkit_core::id::{Epoch, PartitionId, StageId};

use super::event::{Event, Slot};
use super::process::Phase;
use super::world::{Check, World, ensure};

/// The most writes of one partition: one bit each.
const WRITES_MAX: usize = 128;

/// The writes of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// The epoch of each write.
    pub(super) epochs: Vec<Epoch>,
    /// Those acknowledged and not lost in a way that was told.
    pub(super) acknowledged: u128,
    /// Those lost in a way that was told.
    pub(super) lost: u128,
    /// The epoch at which some were lost last.
    pub(super) lost_at: Epoch,
}

impl Truth {
    /// Returns the writes of epochs before `epoch`.
    pub(super) fn before(&self, epoch: Epoch) -> u128 {
        let older = self
            .epochs
            .iter()
            .enumerate()
            .filter(|(_, of)| **of < epoch);
        older.fold(0, |mask, (bit, _)| mask | 1 << bit)
    }
}

/// What one node holds of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    writes: u128,
    /// The newest epoch in which it took a write.
    seen: Epoch,
}

#[derive(Debug)]
pub(super) struct App {
    partitions: usize,
    pub(super) truth: Vec<Truth>,
    /// By slot, then by partition.
    held: Vec<Vec<Held>>,
}

impl App {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            partitions,
            truth: vec![Truth::default(); partitions],
            held: Vec::new(),
        }
    }

    pub(super) fn add_slot(&mut self) {
        self.held.push(vec![Held::default(); self.partitions]);
    }

    pub(super) fn wipe(&mut self, slot: Slot) {
        self.held[slot as usize - 1].fill(Held::default());
    }

    pub(super) fn let_go(&mut self, slot: Slot, id: PartitionId) {
        self.held_mut(slot, id).writes = 0;
    }

    fn held_mut(&mut self, slot: Slot, id: PartitionId) -> &mut Held {
        &mut self.held[slot as usize - 1][id.index()]
    }

    pub(super) fn holds(&self, slot: Slot, id: PartitionId) -> u128 {
        self.held[slot as usize - 1][id.index()].writes
    }

    fn seen(&self, slot: Slot, id: PartitionId) -> Epoch {
        self.held[slot as usize - 1][id.index()].seen
    }
}

impl World {
    /// Lets a client write to some partition, wherever somebody believes to be its primary.
    pub(super) fn write_somewhere(&mut self) -> Check {
        let every = self.settings.write_every;
        let next = self.rng.duration(every / 4..=every * 2);
        if !self.quiet.has_begun(self.now) {
            self.agenda.plan(self.now + next, Event::Write);
        }
        // Of a large world some looks are enough.
        if self.processes.len() < 100 || self.rng.chance(50) {
            self.check_tokens()?;
        }
        let count = u64::from(self.settings.config.partition_count);
        let id = PartitionId(u32::try_from(self.rng.below(count)).unwrap_or(0));
        for slot in 1..=self.processes.len() {
            let slot = Slot::try_from(slot).unwrap_or(Slot::MAX);
            if self.may_write(slot, id) {
                self.write(slot, id)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, slot: Slot, id: PartitionId) -> Check {
        let view = std::sync::Arc::clone(&self.process(slot).view);
        let Some(partition) = view.partition(id) else {
            return Ok(());
        };
        let (epoch, bit) = (partition.epoch, self.app.truth[id.index()].epochs.len());
        if bit == WRITES_MAX || self.app.seen(slot, id) > epoch {
            return Ok(());
        }
        let bit = 1_u128 << bit;
        self.app.truth[id.index()].epochs.push(epoch);
        let joining = partition.joining().iter().map(|joining| joining.node);
        let mut everybody = true;
        for node in partition
            .members()
            .chain(joining)
            .filter(|&node| view.is_live(node))
        {
            let taken = self
                .home_of(node)
                .is_some_and(|to| self.take(slot, to, id, (epoch, bit)));
            everybody &= taken;
        }
        if !everybody {
            return Ok(());
        }
        let truth = &mut self.app.truth[id.index()];
        if epoch < truth.lost_at {
            // An outdated primary of a partition that was declared lost: that was told.
            return Ok(());
        }
        truth.acknowledged |= bit;
        let numbers = [u64::from(slot), u64::from(id.0), epoch.0];
        self.trace.step(self.now, "write", &numbers, || {
            format!("n{slot} to {id} in {epoch}")
        });
        let state = std::sync::Arc::clone(&self.log.state);
        let Some(partition) = state.partition(id) else {
            return Ok(());
        };
        for node in partition.in_sync() {
            let Some(home) = self.home_of(node) else {
                continue;
            };
            ensure(
                self.app.holds(home, id) & bit != 0,
                "no-write-is-lost",
                || {
                    format!(
                        "n{slot} acknowledged a write of {id} that in-sync n{home} lacks: {partition:?}"
                    )
                },
            )?;
        }
        Ok(())
    }

    /// Lets `to` take a write of the primary `from`. Returns whether the primary hears that it has.
    fn take(&mut self, from: Slot, to: Slot, id: PartitionId, (epoch, bit): (Epoch, u128)) -> bool {
        let process = self.process(to);
        let known = process
            .view
            .partition(id)
            .map_or(Epoch(0), |partition| partition.epoch);
        let accepts = self.is_awake(to)
            && process.phase == Phase::Member
            && self.reaches(from, to)
            && known <= epoch
            && self.app.seen(to, id) <= epoch;
        if accepts {
            let held = self.app.held_mut(to, id);
            held.writes |= bit;
            held.seen = held.seen.max(epoch);
        }
        accepts && self.reaches(to, from)
    }

    /// Lets `slot` take a whole copy from the primary that its view names. Returns whether that
    /// one could give it.
    pub(super) fn copy(&mut self, slot: Slot, id: PartitionId, stage: StageId) -> bool {
        let Some(mine) = self.process(slot).view.partition(id) else {
            return false;
        };
        let newest = mine.epoch.max(self.app.seen(slot, id));
        let Some((node, source)) = mine
            .primary
            .and_then(|node| Some((node, self.home_of(node)?)))
        else {
            return false;
        };
        let other = self.process(source);
        let theirs = other.view.partition(id);
        // It must include this node in its writes by now, and must not be outdated.
        let knows = other.view.applied().0 >= stage.0
            && theirs.is_some_and(|partition| {
                partition.primary == Some(node) && partition.epoch >= newest
            });
        if !knows || source == slot || !self.may_write(source, id) || !self.talks(slot, source) {
            return false;
        }
        let writes = self.app.holds(source, id);
        self.app.held_mut(slot, id).writes = writes;
        true
    }

    /// Returns when clients begin to write.
    pub(super) const fn first_write(&self) -> Duration {
        Duration::from_millis(500)
    }
}

//! The hooks of one node: fed from a cursor over the committed events, they take time and fail.
//!
//! What the embedded node does with tasks is done here with events: one ask per partition, the
//! newest one counts; answers are collected and sent until the cluster has taken note.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::event::{ChangeStage, Event as Told, EventKind, PartitionChanged};
use clusterkit_core::id::{EventSeq, PartitionId, RaftId, StageId};
use clusterkit_core::partition::Stage;
use clusterkit_core::state::ClusterState;

use super::event::{Purpose, Slot, What};
use super::process::{Ask, Phase};
use super::world::{Check, World, ensure};

/// How often answers that the cluster has not taken note of are sent again.
const ACK_REPEAT: Duration = Duration::from_secs(1);
/// How long answers are collected.
const ACK_COLLECT: Duration = Duration::from_millis(10);

impl World {
    /// Takes in the events that the view of `slot` has beyond its cursor.
    pub(super) fn feed(&mut self, slot: Slot) -> Check {
        let process = self.process(slot);
        let Some(me) = process.disk.raft_id else {
            return Ok(());
        };
        let view = std::sync::Arc::clone(&process.view);
        let cursor = match process.disk.cursor {
            Some(_) => process.fed,
            None => first_cursor(&view, me),
        };
        let (events, missed) = view.events_after(cursor);
        let mut expected = cursor.0;
        for event in &events {
            expected += 1;
            ensure(
                missed || event.seq.0 == expected,
                "events-without-gaps",
                || {
                    format!(
                        "n{slot} at cursor {cursor} is given event {}, not {expected}",
                        event.seq
                    )
                },
            )?;
            self.take_in(slot, me, event);
        }
        ensure(
            missed || expected == view.last_event().0,
            "events-without-gaps",
            || format!("n{slot} was fed up to {expected} of {}", view.last_event()),
        )?;
        if missed {
            self.recover(slot, me, &view);
        }
        // What was taken in with the view before is written down with this one.
        let process = self.process_mut(slot);
        let waiting = process.asks.values().filter(|ask| !ask.copies && !ask.done);
        let oldest = waiting.map(|ask| ask.seq.0 - 1).min();
        let written = oldest.map_or(cursor, |oldest| EventSeq(oldest.min(cursor.0)));
        process.disk.cursor = Some(written.max(process.disk.cursor.unwrap_or_default()));
        process.fed = view.last_event();
        process.asks.retain(|&id, ask| is_open(&view, me, id, ask));
        Ok(())
    }

    fn take_in(&mut self, slot: Slot, me: RaftId, event: &Told) {
        let EventKind::PartitionChanged(change) = &event.kind else {
            return;
        };
        if change.target != me {
            return;
        }
        let copies = match change.stage {
            ChangeStage::Syncing => true,
            ChangeStage::Cleanup | ChangeStage::Reverted => false,
            ChangeStage::Switched => return,
        };
        self.open_ask(slot, change, event.seq, copies);
    }

    fn open_ask(&mut self, slot: Slot, change: &PartitionChanged, seq: EventSeq, copies: bool) {
        let ask = Ask {
            stage: change.stage_id,
            seq,
            copies,
            done: false,
        };
        let known = self.process_mut(slot).asks.insert(change.partition, ask);
        // A hook that was told twice is called twice; the second call is the one that counts.
        if known.is_some_and(|known| known.stage == ask.stage && known.done) {
            self.process_mut(slot)
                .asks
                .insert(change.partition, Ask { done: true, ..ask });
            return;
        }
        let takes = self.hook_time(copies);
        let (partition, stage) = (change.partition, change.stage_id);
        self.plan(slot, takes, What::Hook { partition, stage });
    }

    fn hook_time(&mut self, copies: bool) -> Duration {
        let longest = if copies {
            self.settings.copy_max
        } else {
            self.settings.copy_max / 4
        };
        let octave = self.hooks_rng.below(8);
        self.hooks_rng
            .duration(Duration::from_micros(200)..=(longest / (1 << octave)))
    }

    /// Events were dropped before this node saw them: what is open for it stands in the state.
    fn recover(&mut self, slot: Slot, me: RaftId, view: &ClusterState) {
        let mut open: BTreeMap<PartitionId, (StageId, bool)> = BTreeMap::new();
        for (id, partition) in view.partitions_by_id() {
            let joining = partition
                .joining()
                .iter()
                .filter(|joining| joining.node == me && !joining.synced);
            let behind = partition.behind.iter().filter(|behind| behind.node == me);
            let stages = joining
                .map(|joining| joining.stage)
                .chain(behind.filter_map(|b| b.stage));
            open.extend(stages.map(|stage| (id, (stage, true))));
            let releasing = match &partition.stage {
                Stage::Cleanup { id, .. } => Some(*id),
                Stage::Syncing(migration) => Some(migration.id),
                Stage::Stable => None,
            };
            if let Some(stage) = releasing.filter(|_| partition.leaving().contains(&me)) {
                open.insert(id, (stage, false));
            }
        }
        for (partition, (stage, copies)) in open {
            let known = self.process(slot).asks.get(&partition);
            if known.is_some_and(|ask| ask.stage == stage) {
                continue;
            }
            let seq = view.last_event();
            let ask = Ask {
                stage,
                seq,
                copies,
                done: false,
            };
            self.process_mut(slot).asks.insert(partition, ask);
            let takes = self.hook_time(copies);
            self.plan(slot, takes, What::Hook { partition, stage });
        }
    }

    /// Ends a hook: well, or to be called again.
    pub(super) fn end_hook(&mut self, slot: Slot, partition: PartitionId, stage: StageId) {
        let process = self.process(slot);
        let Some(&ask) = process
            .asks
            .get(&partition)
            .filter(|ask| ask.stage == stage && !ask.done)
        else {
            return;
        };
        let Some(me) = process.disk.raft_id else {
            return;
        };
        if !is_open(&process.view, me, partition, &ask) {
            self.process_mut(slot).asks.remove(&partition);
            return;
        }
        let fails = self.hooks_rng.chance(self.settings.hooks_fail_permille);
        let done = !fails
            && if ask.copies {
                self.copy(slot, partition, stage)
            } else {
                self.app.let_go(slot, partition);
                true
            };
        if !done {
            let pause = self
                .hooks_rng
                .duration(Duration::from_millis(100)..=Duration::from_secs(1));
            self.plan(slot, pause, What::Hook { partition, stage });
            return;
        }
        let numbers = [u64::from(slot), u64::from(partition.0), stage.0];
        self.trace.step(self.now, "hook", &numbers, || {
            let what = if ask.copies {
                "has copied"
            } else {
                "has let go of"
            };
            format!("n{slot} {what} {partition} under {stage}")
        });
        self.process_mut(slot)
            .asks
            .insert(partition, Ask { done: true, ..ask });
        self.plan_acks(slot, ACK_COLLECT);
    }

    fn plan_acks(&mut self, slot: Slot, after: Duration) {
        let at = self.now + after;
        let planned = &mut self.process_mut(slot).acks_at;
        if planned.is_none_or(|planned| at < planned) {
            *planned = Some(at);
            self.plan(slot, after, What::Acks);
        }
    }

    /// Sends the answers that the cluster has not taken note of.
    pub(super) fn send_acks(&mut self, slot: Slot) {
        let now = self.now;
        let process = self.process_mut(slot);
        if process.acks_at.is_none_or(|at| at > now) {
            return;
        }
        process.acks_at = None;
        let Some(node) = process
            .disk
            .raft_id
            .filter(|_| process.phase != Phase::Left)
        else {
            return;
        };
        let view = std::sync::Arc::clone(&process.view);
        process
            .asks
            .retain(|&id, ask| !ask.done || is_awaited(&view, node, id, ask));
        let done = |copies: bool| -> Vec<(PartitionId, StageId)> {
            let asks = process
                .asks
                .iter()
                .filter(|(_, ask)| ask.done && ask.copies == copies);
            asks.map(|(&id, ask)| (id, ask.stage)).collect()
        };
        let (synced, released) = (done(true), done(false));
        let at = process.clock.wall(now);
        if synced.is_empty() && released.is_empty() {
            return;
        }
        if !synced.is_empty() {
            let stages = synced;
            self.propose(slot, Command::Synced { node, stages, at }, Purpose::None);
        }
        if !released.is_empty() {
            let stages = released;
            self.propose(slot, Command::Released { node, stages }, Purpose::None);
        }
        self.plan_acks(slot, ACK_REPEAT);
    }
}

/// Returns where a member begins that has never been told anything: with its own admission.
fn first_cursor(view: &ClusterState, me: RaftId) -> EventSeq {
    let (events, _) = view.events_after(EventSeq(0));
    let first = events.iter().find(|event| event.index.0 >= me.0);
    first.map_or_else(|| view.last_event(), |event| EventSeq(event.seq.0 - 1))
}

/// Tells whether the cluster waits for the answer to `ask`.
fn is_awaited(view: &ClusterState, me: RaftId, id: PartitionId, ask: &Ask) -> bool {
    view.partition(id).is_some_and(|partition| {
        if ask.copies {
            let mut joining = partition.joining().iter();
            let told = joining.any(|j| j.node == me && j.stage == ask.stage && j.synced);
            partition.is_syncing(me, ask.stage) && !told
        } else {
            partition.is_releasing(me, ask.stage)
        }
    })
}

/// Tells whether the hook is still to be called. Letting go stays right after its stage was closed
/// for other reasons, but not once the partition is to be here again.
fn is_open(view: &ClusterState, me: RaftId, id: PartitionId, ask: &Ask) -> bool {
    view.partition(id).is_some_and(|partition| {
        if ask.copies {
            partition.is_syncing(me, ask.stage)
        } else if ask.done {
            partition.is_releasing(me, ask.stage)
        } else {
            partition.is_releasing(me, ask.stage) || !partition.involves(me)
        }
    })
}

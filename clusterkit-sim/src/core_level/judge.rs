//! The judge: watches every command from outside, and compares what the state claims about copies
//! with what the disks hold.
//!
//! It knows what an application knows: published rows, events, and its own data. What must stand
//! once everything is quiet is in `settle`.

mod told;

use std::collections::{BTreeMap, BTreeSet};

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::event::{ChangeStage, EventKind, LeaveReason, PartitionChanged, Verdict};
use clusterkit_core::id::{DiskId, LogIndex, PartitionId, PlanId, RaftId, StageId};
use clusterkit_core::partition::{Partition, Stage};
use clusterkit_core::state::ClusterState;

use super::world::{Check, World, ensure};

/// From how many nodes or partitions on not every step looks at all of them.
const LARGE: usize = 100;
/// How often everything is looked at all the same.
const WHOLE_EVERY: u64 = 64;

/// One command and what it did.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) before: &'a ClusterState,
    pub(super) command: &'a Command,
    pub(super) outcome: &'a Result<Applied, Rejected>,
    pub(super) after: &'a ClusterState,
}

/// What is remembered from step to step.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The newest copy that each node was asked for and has not finished.
    asked: BTreeMap<(RaftId, PartitionId), StageId>,
    /// The copy that each node has last reported.
    reported: BTreeMap<(RaftId, PartitionId), StageId>,
    /// Nodes that joined: whether they are up.
    up: BTreeMap<RaftId, bool>,
    admitted: BTreeMap<RaftId, DiskId>,
    plan: Option<PlanId>,
    /// How many commands there were.
    steps: u64,
}

impl Judge {
    /// Takes note of an admission: no internal id is given twice.
    pub(super) fn admitted(&mut self, node: RaftId, disk: DiskId, at: LogIndex) -> Check {
        if let Some(known) = self.admitted.get(&node) {
            return ensure(*known == disk, "raft-ids-are-never-reused", || {
                format!("{node} is given to another disk at {at}")
            });
        }
        let newest = self.admitted.last_key_value().map(|(newest, _)| *newest);
        ensure(
            newest.is_none_or(|newest| newest < node),
            "raft-ids-are-never-reused",
            || format!("{node} is given out after {newest:?} at {at}"),
        )?;
        self.admitted.insert(node, disk);
        Ok(())
    }

    /// Reports count only while they answer the newest question.
    fn check_answers(&mut self, command: &Command, applied: &Applied) -> Check {
        let Command::Synced { node, stages, .. } = command else {
            return Ok(());
        };
        for (at, (id, stage)) in stages.iter().enumerate() {
            if applied.refused.contains(&(*id, *stage)) || stages[..at].contains(&(*id, *stage)) {
                continue;
            }
            let asked = self.asked.remove(&(*node, *id));
            // A joining node that has reported stays asked in the state; its answer may come twice.
            ensure(
                asked.is_none_or(|asked| asked == *stage),
                "late-answers-are-refused",
                || format!("{node} answered {stage} of {id}, asked was {asked:?}"),
            )?;
            ensure(
                asked.is_some() || self.reported.get(&(*node, *id)) == Some(stage),
                "late-answers-are-refused",
                || format!("{node} answered {stage} of {id}, which nobody asked"),
            )?;
            self.reported.insert((*node, *id), *stage);
        }
        Ok(())
    }
}

impl World {
    /// Checks everything that must hold across one command.
    pub(super) fn judge_step(&mut self, step: &Step<'_>) -> Check {
        // Of a large world, what a command touched, and everything now and then.
        self.judge.steps += 1;
        let small = step.after.nodes().len() < LARGE && step.after.partitions().len() < LARGE;
        let whole = small || self.judge.steps.is_multiple_of(WHOLE_EVERY);
        let checked = if whole {
            step.after.check_invariants()
        } else {
            step.after.check_invariants_since(step.before)
        };
        if let Err(broken) = checked {
            let command = step.command;
            return ensure(false, "state-invariants", || {
                format!("{command:?} broke: {broken}")
            });
        }
        check_level(step)?;
        match step.outcome {
            Err(rejected) => check_untouched(step, rejected),
            Ok(applied) => {
                check_events(step, applied)?;
                check_plan_base(step)?;
                check_paused(step)?;
                self.judge.check_answers(step.command, applied)?;
                let mut told = Vec::new();
                for event in &applied.events {
                    self.hear_event(&event.kind, step, &mut told)?;
                }
                self.forget_the_gone(step);
                let plan = step.after.plan().map(|plan| plan.id);
                ensure(plan == self.judge.plan, "plans-are-told", || {
                    format!("{plan:?} is in force, {:?} was told", self.judge.plan)
                })?;
                let published = self.check_partitions(step, &told)?;
                check_epoch(step, published)
            }
        }
    }

    /// Checks the partitions that changed. Returns whether what is published of any did.
    fn check_partitions(
        &mut self,
        step: &Step<'_>,
        told: &[PartitionChanged],
    ) -> Result<bool, super::world::Broken> {
        let (before, after) = (step.before.partitions(), step.after.partitions());
        let mut published = before.len() != after.len();
        if before.as_ptr() == after.as_ptr() {
            // The very same records.
            return Ok(published);
        }
        let unplaced = Partition::UNPLACED;
        for (id, new) in step.after.partitions_by_id() {
            let old = step.before.partition(id).unwrap_or(&unplaced);
            if old == new {
                continue;
            }
            published |= is_published_change(old, new);
            if old.is_unplaced() && !new.is_unplaced() {
                // There was nothing left: whatever they hold of earlier times counts for nothing.
                let homes = new.in_sync().filter_map(|node| self.home_of(node));
                for home in homes.collect::<Vec<_>>() {
                    self.app.let_go(home, id);
                }
            }
            check_fence(id, old, new)?;
            self.check_copies(id, new, step.after)?;
            told::check(id, old, new, step.after, told)?;
            check_count(id, old, new, step)?;
        }
        Ok(published)
    }

    fn hear_event(
        &mut self,
        kind: &EventKind,
        step: &Step<'_>,
        told: &mut Vec<PartitionChanged>,
    ) -> Check {
        match kind {
            EventKind::PartitionChanged(change) => {
                let key = (change.target, change.partition);
                match change.stage {
                    ChangeStage::Syncing => {
                        self.judge.asked.insert(key, change.stage_id);
                        self.judge.reported.remove(&key);
                    }
                    ChangeStage::Switched => {}
                    ChangeStage::Cleanup | ChangeStage::Reverted => {
                        self.judge.asked.remove(&key);
                        let after = step.after.partition(change.partition);
                        let member = after.is_some_and(|after| after.is_member(change.target));
                        ensure(!member, "members-keep-their-copy", || {
                            format!("a member is asked to let go: {change:?}")
                        })?;
                    }
                }
                ensure(
                    !change.sources.contains(&change.target),
                    "sources-are-others",
                    || format!("{change:?}"),
                )?;
                told.push(change.clone());
            }
            EventKind::NodeJoined { node, .. } => {
                let known = self.judge.up.insert(*node, true);
                ensure(known.is_none(), "nodes-join-once", || {
                    format!("{node} joined twice")
                })?;
            }
            EventKind::NodeLeft { node, reason, .. } => {
                let was = if *reason == LeaveReason::Failed {
                    self.judge.up.insert(*node, false)
                } else {
                    self.judge.up.remove(node)
                };
                ensure(was.is_some(), "nodes-leave-after-joining", || {
                    format!("{node} left")
                })?;
            }
            EventKind::NodeRejoined { node, verdicts, .. } => {
                let known = self.judge.up.insert(*node, true);
                ensure(known.is_some(), "nodes-leave-after-joining", || {
                    format!("{node} rejoined")
                })?;
                let early = told.iter().find(|change| change.target == *node);
                ensure(early.is_none(), "rejoined-comes-first", || {
                    format!("{early:?}")
                })?;
                self.check_verdicts(*node, verdicts)?;
            }
            EventKind::RebalanceStarted { plan, .. } => {
                let running = self.judge.plan.replace(*plan);
                ensure(running.is_none(), "plans-are-told", || {
                    format!("{plan} beside {running:?}")
                })?;
            }
            EventKind::RebalanceCompleted { plan, .. } => {
                let running = self.judge.plan.take();
                ensure(running == Some(*plan), "plans-are-told", || {
                    format!("{plan} completed, {running:?} ran")
                })?;
            }
            EventKind::PartitionLost {
                partition,
                recovered_from,
            } => {
                self.check_loss(*partition, *recovered_from, step)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A partition is lost only when the last in-sync copy is removed, and what is left counts.
    fn check_loss(&mut self, id: PartitionId, heir: Option<RaftId>, step: &Step<'_>) -> Check {
        if let Some(before) = step.before.partition(id) {
            let left: Vec<RaftId> = before
                .in_sync()
                .filter(|&node| step.after.node(node).is_some())
                .collect();
            ensure(left.is_empty(), "losses-are-explained", || {
                format!(
                    "{id} is given up although {left:?} hold it: {:?}",
                    step.command
                )
            })?;
        }
        let rest = heir
            .and_then(|heir| self.home_of(heir))
            .map_or(0, |home| self.app.holds(home, id));
        let truth = &mut self.app.truth[id.index()];
        truth.lost |= truth.acknowledged & !rest;
        truth.acknowledged &= rest;
        truth.lost_at = step
            .after
            .partition(id)
            .map_or_else(|| step.after.epoch(), |after| after.epoch);
        Ok(())
    }

    fn check_verdicts(&self, node: RaftId, verdicts: &[(PartitionId, Verdict)]) -> Check {
        ensure(
            verdicts.is_sorted_by(|a, b| a.0 < b.0),
            "verdicts-are-true",
            || format!("{verdicts:?}"),
        )?;
        let Some(home) = self.home_of(node) else {
            return Ok(());
        };
        for &(id, verdict) in verdicts {
            let truth = &self.app.truth[id.index()];
            let held = self.app.holds(home, id);
            match verdict {
                Verdict::Current => {
                    let missing = truth.acknowledged & !held;
                    ensure(missing == 0, "verdicts-are-true", || {
                        format!("{node} is called current in {id} and lacks {missing:b}")
                    })?;
                }
                Verdict::Behind(since) => {
                    let older = truth.before(since);
                    let missing = truth.acknowledged & older & !held;
                    let beyond = held & truth.lost & older;
                    ensure(missing == 0 && beyond == 0, "verdicts-are-true", || {
                        format!(
                            "{node} is called behind since {since} in {id}, lacks {missing:b}, holds lost {beyond:b}"
                        )
                    })?;
                }
                Verdict::Diverged | Verdict::Foreign => {}
            }
        }
        Ok(())
    }

    /// What the state says about copies is what the disks hold.
    fn check_copies(&self, id: PartitionId, partition: &Partition, state: &ClusterState) -> Check {
        let truth = &self.app.truth[id.index()];
        let missing = |node: RaftId| {
            let home = self.home_of(node);
            home.map_or(0, |home| truth.acknowledged & !self.app.holds(home, id))
        };
        for node in partition.in_sync() {
            ensure(missing(node) == 0, "no-write-is-lost", || {
                format!(
                    "{id}: in-sync {node} lacks {:b}: {partition:?}",
                    missing(node)
                )
            })?;
        }
        for joining in partition.joining().iter().filter(|joining| joining.synced) {
            let node = joining.node;
            ensure(
                missing(node) == 0 && state.is_live(node),
                "no-write-is-lost",
                || {
                    format!(
                        "{id}: synced {node} lacks {:b} or is gone: {partition:?}",
                        missing(node)
                    )
                },
            )?;
        }
        for behind in partition.behind.iter().filter(|behind| !behind.diverged) {
            let older = truth.before(behind.since);
            let lacks = missing(behind.node) & older;
            ensure(lacks == 0, "behind-is-no-further-behind", || {
                format!(
                    "{id}: {} lacks {lacks:b} of before {}",
                    behind.node, behind.since
                )
            })?;
        }
        Ok(())
    }

    fn forget_the_gone(&mut self, step: &Step<'_>) {
        let after = step.after;
        self.judge.asked.retain(|(node, _), _| after.is_live(*node));
        self.judge
            .reported
            .retain(|(node, _), _| after.is_live(*node));
    }
}

fn check_untouched(step: &Step<'_>, rejected: &Rejected) -> Check {
    let mut untouched = step.before.clone();
    let node = RaftId(u64::MAX);
    let at = clusterkit_core::time::UnixMillis(0);
    // Refused whatever the state, so that only the applied index moves.
    let _ = untouched.apply(step.after.applied(), &Command::Activate { node, at });
    ensure(untouched == *step.after, "rejected-changes-nothing", || {
        format!(
            "{:?} was rejected ({rejected}) and changed something",
            step.command
        )
    })
}

fn check_events(step: &Step<'_>, applied: &Applied) -> Check {
    let mut seq = step.before.last_event().0;
    let good = applied.events.iter().all(|event| {
        seq += 1;
        event.seq.0 == seq && event.index == applied.index && event.epoch == step.after.epoch()
    });
    ensure(
        good && step.after.last_event().0 == seq,
        "events-without-gaps",
        || {
            format!(
                "after event {}: {:?}",
                step.before.last_event(),
                applied.events
            )
        },
    )
}

/// The feature level never falls, and whoever knows less is neither admitted nor started.
fn check_level(step: &Step<'_>) -> Check {
    let (had, has) = (step.before.feature_level(), step.after.feature_level());
    ensure(has >= had, "feature-levels-never-fall", || {
        format!("from {had} to {has}: {:?}", step.command)
    })?;
    let (Command::Join { node, .. } | Command::Announce { spec: node, .. }) = step.command else {
        return Ok(());
    };
    let refused = matches!(step.outcome, Err(Rejected::OlderFeatureLevel { .. }));
    let (older, taken) = (node.feature_level < had, step.outcome.is_ok());
    ensure(
        !(older && taken) && (older || !refused),
        "older-builds-are-refused",
        || format!("at level {had}: {:?}: {:?}", step.command, step.outcome),
    )
}

/// A plan counts only on the epoch it was made on.
fn check_plan_base(step: &Step<'_>) -> Check {
    let Command::Plan { base, .. } = step.command else {
        return Ok(());
    };
    ensure(
        *base == step.before.epoch(),
        "plans-are-compare-and-set",
        || format!("a plan made on {base} is taken at {}", step.before.epoch()),
    )
}

/// What is paused does not begin.
fn check_paused(step: &Step<'_>) -> Check {
    if !matches!(step.command, Command::StartMoves { .. }) {
        return Ok(());
    }
    for (id, work) in step.before.held_back() {
        let (old, new) = (step.before.partition(id), step.after.partition(id));
        ensure(old == new, "paused-work-rests", || {
            format!("{work} is paused, and {id} goes from {old:?} to {new:?}")
        })?;
    }
    Ok(())
}

/// The epoch rises by one with each change of what is published, and with nothing else.
fn check_epoch(step: &Step<'_>, partitions: bool) -> Check {
    let (before, after) = (step.before, step.after);
    let published = partitions
        || before.cluster() != after.cluster()
        || before.config().replication_factor != after.config().replication_factor
        || !before.nodes().eq(after.nodes());
    let raised = after.epoch().0.checked_sub(before.epoch().0);
    ensure(
        raised == Some(u64::from(published)),
        "epochs-follow-the-topology",
        || {
            format!(
                "from {} to {}, published: {published}: {:?}",
                before.epoch(),
                after.epoch(),
                step.command
            )
        },
    )
}

fn is_published_change(old: &Partition, new: &Partition) -> bool {
    let behind = |partition: &Partition| -> Vec<RaftId> {
        partition.behind.iter().map(|behind| behind.node).collect()
    };
    let joining = |partition: &Partition| -> Vec<RaftId> {
        partition
            .joining()
            .iter()
            .map(|joining| joining.node)
            .collect()
    };
    old.primary != new.primary
        || old.replicas != new.replicas
        || old.epoch != new.epoch
        || behind(old) != behind(new)
        || joining(old) != joining(new)
}

/// One epoch of a partition never has two primaries and never returns, and a move called off
/// raises it too.
fn check_fence(id: PartitionId, old: &Partition, new: &Partition) -> Check {
    ensure(new.epoch >= old.epoch, "epochs-never-return", || {
        format!("{id}: from {} to {}", old.epoch, new.epoch)
    })?;
    let led_on = old.primary == new.primary || new.epoch > old.epoch;
    ensure(led_on, "one-primary-an-epoch", || {
        format!(
            "{id}: {:?} and {:?} in {}",
            old.primary, new.primary, new.epoch
        )
    })?;
    let Stage::Syncing(migration) = &old.stage else {
        return Ok(());
    };
    let mut copying = migration.joining.iter().map(|joining| joining.node);
    let is_kept =
        |node| new.is_member(node) || new.joining().iter().any(|joining| joining.node == node);
    let goes_on = matches!(new.stage, Stage::Syncing(_)) && copying.all(is_kept);
    ensure(
        goes_on || new.epoch > old.epoch,
        "reverting-raises-the-epoch",
        || format!("{id}: move {} ended in {}", migration.id, new.epoch),
    )
}

/// Only commands that say that something happened to nodes cost copies.
fn check_count(id: PartitionId, old: &Partition, new: &Partition, step: &Step<'_>) -> Check {
    let takes_away = matches!(
        step.command,
        Command::MarkDown { .. }
            | Command::Announce { .. }
            | Command::Remove { .. }
            | Command::Join { .. }
    );
    if takes_away {
        return Ok(());
    }
    let live = |partition: &Partition, state: &ClusterState| {
        partition
            .in_sync()
            .filter(|&node| state.is_live(node))
            .count()
    };
    let (had, has) = (live(old, step.before), live(new, step.after));
    let wanted = new.members().collect::<BTreeSet<_>>().len();
    ensure(has >= had.min(wanted), "copies-do-not-drop", || {
        format!("{id}: {had} copies became {has}: {:?}", step.command)
    })
}

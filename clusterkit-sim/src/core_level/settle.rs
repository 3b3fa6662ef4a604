//! What must stand once nothing goes wrong any more: everybody up, placed, balanced, in sync, and
//! nobody deciding anything.

use std::time::Duration;

use clusterkit_core::coordinator::plan_request;
use clusterkit_core::id::RaftId;
use clusterkit_core::node::{Drain, NodeStatus};
use clusterkit_core::partition::Stage;
use clusterkit_core::state::ClusterState;

use super::event::Event;
use super::lead::certified;
use super::process::Phase;
use super::world::{Check, World, ensure};

/// How long nothing may be committed before it is looked whether everything stands as it must.
const SILENCE: Duration = Duration::from_secs(5);
/// For how long nothing may be committed after that.
const REALLY_QUIET: Duration = Duration::from_secs(12);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How far the quiet at the end of a run has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    /// When the last fault is over.
    begins: Duration,
    /// When everything must stand as it must.
    limit: Duration,
    /// Since when everything has, and how long the log was then.
    settled: Option<(Duration, u64)>,
    over: bool,
}

impl Quiet {
    pub(super) const fn new(begins: Duration, limit: Duration) -> Self {
        Self {
            begins,
            limit,
            settled: None,
            over: false,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn has_begun(&self, now: Duration) -> bool {
        now >= self.begins
    }

    pub(super) const fn begins(&self) -> Duration {
        self.begins
    }
}

impl World {
    /// Looks whether everything has settled, and whether it stays so.
    pub(super) fn look_at_quiet(&mut self) -> Check {
        let length = self.log.index.0;
        if let Some((since, then)) = self.quiet.settled {
            ensure(length == then, "quiet-is-quiet", || {
                let more = length - then;
                format!("{more} more entries although everything stood as it must since {since:?}")
            })?;
            if self.now >= since + REALLY_QUIET {
                self.quiet.over = true;
                return self.log.agree(true);
            }
        } else {
            // What a fault began may show only after a lease.
            let last = self.log.last_change_at.max(self.quiet.begins);
            let silent = self.now >= last + SILENCE && self.log.is_idle();
            let stands = if silent {
                self.check_settled()
            } else {
                self.still_busy()
            };
            match stands {
                Ok(()) => {
                    self.trace.step(self.now, "settled", &[length], String::new);
                    self.quiet.settled = Some((self.now, length));
                }
                Err(broken) if self.now >= self.quiet.begins + self.quiet.limit => {
                    return Err(broken);
                }
                Err(_) => {}
            }
        }
        self.agenda.plan(self.now + LOOK_EVERY, Event::Settled);
        Ok(())
    }

    fn still_busy(&self) -> Check {
        let (index, at) = (self.log.index, self.log.last_entry_at);
        ensure(false, "every-operation-ends", || {
            format!("entry {index} was made at {at:?}, and more is on its way")
        })
    }

    fn check_settled(&self) -> Check {
        let state = &self.log.state;
        let leader = self
            .log
            .leader
            .filter(|&leader| self.process(leader).leads.is_some());
        ensure(leader.is_some(), "quiet-has-a-leader", String::new)?;
        for process in self.processes.iter().filter(|process| process.running) {
            let (slot, phase) = (process.slot, process.phase);
            ensure(phase == Phase::Member, "everybody-is-up", || {
                format!("n{slot} is {phase:?}")
            })?;
            let (level, used) = (process.feature_level, state.feature_level());
            ensure(level >= used, "older-builds-are-refused", || {
                format!("n{slot} knows level {level}, the cluster uses {used}")
            })?;
        }
        for node in state.nodes() {
            let up = matches!(node.status, NodeStatus::Active | NodeStatus::Draining);
            ensure(up, "everybody-is-up", || {
                format!("{} is {}", node.id, node.status)
            })?;
        }
        let known = state.nodes().map(|node| node.feature_level);
        let (known, used) = (known.min().unwrap_or(0), state.feature_level());
        ensure(
            known == used,
            "features-are-used-once-all-know-them",
            || format!("every member knows level {known}, the cluster uses {used}"),
        )?;
        let takers = state.nodes().filter(|node| node.takes_data()).count();
        let unplaced = state
            .partitions()
            .iter()
            .all(clusterkit_core::partition::Partition::is_unplaced);
        if unplaced && takers < self.settings.expected {
            // The first placement waits for nodes that an operator has sent away.
            return Ok(());
        }
        for (id, partition) in state.partitions_by_id() {
            ensure(
                partition.stage == Stage::Stable,
                "every-operation-ends",
                || format!("{id}: {partition:?}"),
            )?;
            ensure(partition.behind.is_empty(), "everybody-catches-up", || {
                format!("{id}: {partition:?}")
            })?;
            ensure(partition.primary.is_some(), "everything-is-placed", || {
                format!("{id}: {partition:?}")
            })?;
        }
        ensure(state.plan().is_none(), "every-operation-ends", || {
            format!("{:?}", state.plan())
        })?;
        let leaving = state
            .nodes()
            .find(|node| node.drain == Drain::Leave && !state.holds_anything(node.raft_id));
        ensure(leaving.is_none(), "every-operation-ends", || {
            format!("{leaving:?} wants to leave")
        })?;
        self.check_owners()?;
        check_balanced(state)
    }
}

/// The rows as they stand are what a placement computed on them gives, certificate included.
fn check_balanced(state: &ClusterState) -> Check {
    let Some(request) = plan_request(state, state.plan_basis()) else {
        return Ok(());
    };
    let placement = certified(&request)?;
    ensure(
        placement.moves == 0 && placement.primary_changes == 0,
        "quiet-is-balanced",
        || {
            let loads: Vec<(RaftId, usize, usize)> = state
                .nodes()
                .map(|node| {
                    let id = node.raft_id;
                    let held = state
                        .partitions()
                        .iter()
                        .filter(|p| p.is_member(id))
                        .count();
                    let led = state
                        .partitions()
                        .iter()
                        .filter(|p| p.primary == Some(id))
                        .count();
                    (id, held, led)
                })
                .collect();
            let (moves, changes) = (placement.moves, placement.primary_changes);
            format!("{moves} moves and {changes} primary changes would do better: {loads:?}")
        },
    )
}

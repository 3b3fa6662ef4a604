//! Carrying out the faults of the schedule.
//!
//! A process is hit where it stands: what a disk does to unsynced writes does not matter here,
//! because nothing is acknowledged before it is safe; the full level has real disks to break.

use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::config::ConfigChange;
use clusterkit_core::coordinator::plan_request;
use clusterkit_core::event::{LeaveReason, PlanTrigger};
use clusterkit_core::id::RaftId;
use clusterkit_core::pause::Work;
use clusterkit_core::time::UnixMillis;

use super::event::{Event, Purpose, Slot};
use super::lead::certified;
use super::process::{NEWER, OLDER, Phase};
use super::world::{Check, World};
use crate::{Fault, ScheduledFault};

/// How often an operator looks whether what was resumed is.
const RESUME_EVERY: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn begin_fault(&mut self, number: usize) -> Check {
        let fault = self.faults.faults()[number].fault.clone();
        self.trace
            .step(self.now, "fault", &[number as u64], || fault.to_string());
        match &fault {
            Fault::Loss { .. }
            | Fault::Delay { .. }
            | Fault::Reorder { .. }
            | Fault::Duplicate { .. }
            | Fault::Cut { .. } => {
                self.net.begin(number, fault);
                self.doubt_leader();
            }
            Fault::Crash { node, lasts, .. } => self.bounce_known(*node, *lasts),
            Fault::Restart { node, older, lasts } => {
                let runs = self.is_known_slot(*node) && self.process(*node).running;
                self.bounce_known(*node, *lasts);
                if runs {
                    self.process_mut(*node).feature_level = if *older { OLDER } else { NEWER };
                }
            }
            Fault::CrashMany { nodes, lasts } => {
                for &node in nodes {
                    self.bounce_known(node, *lasts);
                }
            }
            Fault::Wipe { node, lasts } => self.wipe_known(*node, *lasts),
            Fault::SlowDisk { node, extra, .. } => {
                self.log.slow.insert(*node, *extra);
            }
            Fault::Pause { node, lasts } => {
                if self.is_known_slot(*node) {
                    let until = self.now + *lasts;
                    let process = self.process_mut(*node);
                    process.paused_until = process.paused_until.max(until);
                    self.doubt_leader();
                }
            }
            Fault::Drift { node, ppm, .. } => self.set_drift(*node, *ppm),
            Fault::Depose { lasts } => self.depose(*lasts),
            Fault::Join { node } => {
                // Numbers are given out in order; a join that was struck out leaves a gap.
                while self.processes.len() < *node as usize {
                    self.add_slot(0);
                }
                self.agenda.plan(self.now, Event::Boot(*node));
            }
            Fault::Rebalance {} => return self.rebalance(),
            operator => self.operate(operator),
        }
        Ok(())
    }

    pub(super) fn end_fault(&mut self, number: usize) -> Check {
        match self.faults.faults()[number].fault {
            Fault::SlowDisk { node, .. } => {
                self.log.slow.remove(&node);
            }
            Fault::Drift { node, .. } => self.set_drift(node, 0),
            Fault::PauseMoves { work, .. } => self.resume(work),
            _ => self.net.end(number),
        }
        // Whoever could not hear of it may now.
        self.spread();
        Ok(())
    }

    /// Lets an operator resume `work`, and see to it that it stays so: a pause or its end may be
    /// lost on the way, or arrive late.
    pub(super) fn resume(&mut self, work: Work) {
        let pauses = |fault: &ScheduledFault| {
            matches!(fault.fault, Fault::PauseMoves { work: paused, .. } if paused == work)
                && (fault.at..fault.ends_at()).contains(&self.now)
        };
        if self.faults.faults().iter().any(pauses) {
            // Another one is in force; its own end comes.
            return;
        }
        if self.log.state.is_paused(work)
            && let Some(through) = self.somebody()
        {
            let at = self.process(through).clock.wall(self.now);
            self.propose(through, pause(work, false, at), Purpose::None);
        }
        self.agenda
            .plan(self.now + RESUME_EVERY, Event::Resume(work));
    }

    /// Returns a node that an operator can talk to.
    fn somebody(&mut self) -> Option<Slot> {
        let slots = 1..=Slot::try_from(self.processes.len()).unwrap_or(Slot::MAX);
        let awake: Vec<Slot> = slots
            .filter(|&slot| self.is_awake(slot) && self.process(slot).phase == Phase::Member)
            .collect();
        self.rng.pick(&awake).copied()
    }

    fn is_known_slot(&self, node: Slot) -> bool {
        node >= 1 && node as usize <= self.processes.len()
    }

    fn bounce_known(&mut self, node: Slot, lasts: Duration) {
        if self.is_known_slot(node) && self.process(node).running {
            self.bounce(node, lasts);
        }
    }

    /// Takes a disk away, unless it is the last one that knows the log.
    fn wipe_known(&mut self, node: Slot, lasts: Duration) {
        if !self.is_known_slot(node) {
            return;
        }
        let homes = self
            .log
            .state
            .nodes()
            .filter_map(|other| self.home_of(other.raft_id));
        let others = homes.filter(|&home| home != node).count();
        let spared = others == 0;
        let wipes =
            !spared && (self.process(node).running || self.process(node).phase == Phase::Left);
        if wipes {
            self.kill(node);
            self.wipe(node);
            self.agenda.plan(self.now + lasts, Event::Boot(node));
        }
    }

    fn set_drift(&mut self, node: Slot, ppm: i32) {
        if self.is_known_slot(node) {
            let now = self.now;
            self.process_mut(node).clock.set_speed(now, ppm);
        }
    }

    /// Returns the member that runs, or ran, on the slot `node`.
    fn member_at(&self, node: Slot) -> Option<RaftId> {
        let name = format!("n{node}");
        self.log.state.node_by_id(&name).map(|node| node.raft_id)
    }

    /// Sends the command of an operator through some node that runs.
    fn operate(&mut self, fault: &Fault) {
        let Some(through) = self.somebody() else {
            return;
        };
        let at = self.process(through).clock.wall(self.now);
        let command = match *fault {
            Fault::Drain { node, on, leave } => self.member_at(node).map(|node| Command::Drain {
                node,
                on,
                leave,
                at,
            }),
            Fault::Remove { node, force } => self.member_at(node).map(|node| Command::Remove {
                node,
                reason: LeaveReason::Removed,
                force,
                at,
            }),
            Fault::Weight { node, weight } => {
                self.member_at(node).map(|node| Command::UpdateNode {
                    node,
                    weight: Some(weight),
                    zone: None,
                    at,
                })
            }
            Fault::Zone { node, zone } => self.member_at(node).map(|node| Command::UpdateNode {
                node,
                weight: None,
                zone: Some(format!("z{zone}").into()),
                at,
            }),
            Fault::Factor { copies } => Some(Command::UpdateConfig {
                change: ConfigChange {
                    replication_factor: Some(copies),
                    ..ConfigChange::default()
                },
                at,
            }),
            Fault::PauseMoves { work, .. } => Some(pause(work, true, at)),
            _ => None,
        };
        if let Some(command) = command {
            self.propose(through, command, Purpose::None);
        }
    }

    /// Lets an operator ask the leader's node for a rebalance: a plan as any other.
    fn rebalance(&mut self) -> Check {
        let Some(leader) = self.log.leader.filter(|&leader| self.is_awake(leader)) else {
            return Ok(());
        };
        let process = self.process(leader);
        let (view, wall) = (
            std::sync::Arc::clone(&process.view),
            process.clock.wall(self.now),
        );
        if view.cluster().is_none() {
            return Ok(());
        }
        let Some(mut request) = plan_request(&view, view.plan_basis()) else {
            return Ok(());
        };
        request.trigger = PlanTrigger::Manual;
        let placement = certified(&request)?;
        let command = request.command(&placement, wall);
        self.propose(leader, command, Purpose::None);
        Ok(())
    }
}

fn pause(work: Work, on: bool, at: UnixMillis) -> Command {
    let reason = "drawn".into();
    Command::Pause {
        work,
        on,
        reason,
        at,
    }
}

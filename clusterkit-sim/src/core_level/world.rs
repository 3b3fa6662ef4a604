//! The world: everything there is in one run, and the loop that jumps from event to event.

use std::time::Duration;

use clusterkit_core::config::ClusterConfig;
use clusterkit_core::detector::DetectorConfig;
use clusterkit_core::id::{DiskId, PartitionId, RaftId};

use super::app::App;
use super::event::{Agenda, Answer, Event, Purpose, Slot, What};
use super::judge::Judge;
use super::log::Log;
use super::mesh::Ring;
use super::net::Net;
use super::process::{Clock, Phase, Process};
use super::settle::Quiet;
use crate::{FaultSchedule, Rng, Trace, Violation};

/// A promise that did not hold, before anybody looked at the clock.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    pub(super) detail: String,
}

pub(super) type Check = Result<(), Broken>;

/// Refuses with `rule` and `detail` unless `holds`.
pub(super) fn ensure(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds {
        return Ok(());
    }
    let detail = detail();
    Err(Broken { rule, detail })
}

/// What the seed says about a run beside its faults.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: ClusterConfig,
    pub(super) detector: DetectorConfig,
    /// How often a node reports to the leader.
    pub(super) pulse: Duration,
    /// Whether it reports at once what others may wait for.
    pub(super) hurries: bool,
    /// How many nodes the first placement waits for.
    pub(super) expected: usize,
    /// How often clients write, on average.
    pub(super) write_every: Duration,
    /// The longest a copy takes.
    pub(super) copy_max: Duration,
    /// How many hooks of a thousand fail.
    pub(super) hooks_fail_permille: u32,
}

/// Everything there is in one run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) agenda: Agenda,
    pub(super) trace: Trace,
    pub(super) settings: Settings,
    pub(super) net: Net,
    pub(super) mesh: Ring,
    pub(super) log: Log,
    /// By slot, from 1.
    pub(super) processes: Vec<Process>,
    pub(super) app: App,
    pub(super) judge: Judge,
    pub(super) faults: FaultSchedule,
    pub(super) quiet: Quiet,
    /// Whether every clock keeps to the margin, so that tokens must never overlap.
    pub(super) trusts_clocks: bool,
    pub(super) rng: Rng,
    pub(super) hooks_rng: Rng,
}

impl World {
    /// Runs until everything has settled after the faults, or a promise is broken.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        while let Some((at, event)) = self.agenda.next() {
            self.now = at;
            let handled = self.handle(event);
            handled.map_err(|broken| Violation::new(broken.rule, broken.detail, at))?;
            if self.quiet.is_over() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn into_parts(self) -> (FaultSchedule, Trace) {
        (self.faults, self.trace)
    }

    fn handle(&mut self, event: Event) -> Check {
        match event {
            Event::FaultBegins(number) => self.begin_fault(number),
            Event::FaultEnds(number) => self.end_fault(number),
            Event::Boot(slot) => {
                self.boot(slot);
                Ok(())
            }
            Event::Process { slot, life, what } => {
                let process = &self.processes[slot as usize - 1];
                if !process.running || process.life != life {
                    return Ok(());
                }
                if process.paused_until > self.now {
                    let at = process.paused_until;
                    self.agenda.plan(at, Event::Process { slot, life, what });
                    return Ok(());
                }
                self.happen(slot, what)
            }
            Event::Append(proposal) => self.append(proposal),
            Event::Elect { term } => {
                self.elect(term);
                Ok(())
            }
            Event::StepDown { term } => {
                self.step_down(term);
                Ok(())
            }
            Event::Resume(work) => {
                self.resume(work);
                Ok(())
            }
            Event::Write => self.write_somewhere(),
            Event::Settled => self.look_at_quiet(),
        }
    }

    fn happen(&mut self, slot: Slot, what: What) -> Check {
        match what {
            What::Pulse => self.pulse(slot),
            What::Heartbeat {
                from,
                node,
                incarnation,
                applied,
                lease,
                sightings,
            } => self.hear(slot, from, (node, incarnation, applied), &lease, &sightings),
            What::Granted(grant) => return self.granted(slot, grant),
            What::Removed { node } if self.process(slot).disk.raft_id == Some(node) => {
                self.leave(slot)
            }
            What::Removed { .. } => {}
            What::Lead => return self.lead(slot),
            What::Elected { term } => return self.learn_elected(slot, term),
            What::Deposed { term } => self.learn_deposed(slot, term),
            What::CatchUp => return self.catch_up(slot),
            What::Ask => self.ask(slot),
            What::Asked { from } => self.asked(slot, from),
            What::Answer { purpose, result } => self.answered(slot, purpose, &result),
            What::Hook { partition, stage } => self.end_hook(slot, partition, stage),
            What::Acks => self.send_acks(slot),
        }
        Ok(())
    }

    fn answered(&mut self, slot: Slot, purpose: Purpose, result: &Answer) {
        match purpose {
            Purpose::Decision => self.decision_answered(slot, result),
            Purpose::Admission(asker) => self.admission_answered(slot, asker, result),
            Purpose::Bury | Purpose::None => {}
        }
    }

    pub(super) fn process(&self, slot: Slot) -> &Process {
        &self.processes[slot as usize - 1]
    }

    pub(super) fn process_mut(&mut self, slot: Slot) -> &mut Process {
        &mut self.processes[slot as usize - 1]
    }

    /// Plans `what` for the present process of `slot`, `after` from now.
    pub(super) fn plan(&mut self, slot: Slot, after: Duration, what: What) {
        let life = self.process(slot).life;
        let event = Event::Process { slot, life, what };
        self.agenda.plan(self.now + after, event);
    }

    /// Tells whether `slot` runs and does not stand still.
    pub(super) fn is_awake(&self, slot: Slot) -> bool {
        let process = self.process(slot);
        process.running && process.paused_until <= self.now
    }

    /// Tells whether a message of `from` would reach `to`.
    pub(super) fn reaches(&self, from: Slot, to: Slot) -> bool {
        let with_zone = |slot: Slot| (slot, self.process(slot).zone);
        self.net.reaches(with_zone(from), with_zone(to))
    }

    /// Tells whether two processes can talk to each other.
    pub(super) fn talks(&self, a: Slot, b: Slot) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    /// Returns the slot whose present disk is that of the member `node`.
    pub(super) fn home_of(&self, node: RaftId) -> Option<Slot> {
        let &(slot, disk) = self.log.members.get(&node)?;
        (self.process(slot).disk.id == disk).then_some(slot)
    }

    /// Tells whether `slot` takes writes of `partition` as its primary, by its own view. It does
    /// without a token: what was acknowledged must be safe without one, too.
    pub(super) fn may_write(&self, slot: Slot, partition: PartitionId) -> bool {
        let process = self.process(slot);
        process.phase == Phase::Member
            && self.is_awake(slot)
            && process.disk.raft_id.is_some_and(|me| {
                let partition = process.view.partition(partition);
                partition.is_some_and(|partition| partition.primary == Some(me))
            })
    }

    /// Adds an empty slot and returns its number.
    pub(super) fn add_slot(&mut self, zone: u32) -> Slot {
        let slot = Slot::try_from(self.processes.len() + 1).unwrap_or(Slot::MAX);
        let disk = DiskId::from_bytes(self.rng.bytes16());
        let process = Process::new(slot, zone, disk, self.settings.detector);
        self.processes.push(process);
        self.app.add_slot();
        slot
    }

    /// Returns the clock of `slot` as a process finds it when it starts.
    pub(super) fn new_clock(&mut self, slot: Slot) -> Clock {
        let (start, wall) = (self.rng.below(1 << 40), self.rng.below(200));
        let clock = self.process(slot).clock;
        clock.restarted(self.now, start, wall)
    }
}

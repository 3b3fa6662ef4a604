//! Starting, joining, announcing: how a process becomes a member, and how it ends.

use std::time::Duration;

use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::id::{DiskId, EventSeq, Incarnation, RaftId};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::state::ClusterState;

use super::event::{Answer, Event, Purpose, Slot, What};
use super::lead::Loop;
use super::process::{NEWER, Phase};
use super::world::World;
use clusterkit_core::coordinator::Coordinator;

impl World {
    /// Starts a process on the disk of `slot`, if none runs there.
    pub(super) fn boot(&mut self, slot: Slot) {
        if self.process(slot).running {
            return;
        }
        let clock = self.new_clock(slot);
        let mut coordinator = Coordinator::new(self.settings.detector)
            .expect("invariant: the simulator draws settings within their limits");
        coordinator.expect(self.settings.expected);
        let process = self.process_mut(slot);
        process.running = true;
        process.life += 1;
        process.clock = clock;
        process.disk.incarnation = Incarnation(process.disk.incarnation.0 + 1);
        process.coordinator = coordinator;
        process.phase = match process.disk.raft_id {
            Some(_) if process.phase == Phase::Left => Phase::Left,
            Some(_) => Phase::Announcing,
            None => Phase::Joining,
        };
        process.fed = process.disk.cursor.unwrap_or(EventSeq(u64::MAX));
        if process.phase == Phase::Left {
            process.running = false;
            return;
        }
        let incarnation = process.disk.incarnation.0;
        self.trace
            .step(self.now, "boot", &[u64::from(slot), incarnation], || {
                format!("n{slot} as process {incarnation}")
            });
        self.plan(slot, Duration::from_millis(1), What::Ask);
        self.spread_to(slot);
        self.doubt_leader();
    }

    /// Ends the process of `slot`.
    pub(super) fn kill(&mut self, slot: Slot) {
        let process = self.process_mut(slot);
        if !process.running {
            return;
        }
        process.running = false;
        process.life += 1;
        process.paused_until = Duration::ZERO;
        process.catching_up = false;
        process.leads = None;
        process.decides = Loop::default();
        process.pulse_at = None;
        process.follows = None;
        process.lease = None;
        process.probes.clear();
        process.confirmed = None;
        process.asks.clear();
        process.acks_at = None;
        // Of a member nothing else is kept in memory only; its view it applies again.
        process.view = std::sync::Arc::default();
        self.trace
            .step(self.now, "dead", &[u64::from(slot)], || format!("n{slot}"));
        if self.log.leader == Some(slot) {
            // Its leadership dies with it, however fast it starts again.
            self.depose(Duration::from_millis(300));
        }
        self.doubt_leader();
    }

    /// Loses the disk of `slot`.
    pub(super) fn wipe(&mut self, slot: Slot) {
        let disk = DiskId::from_bytes(self.rng.bytes16());
        let process = self.process_mut(slot);
        process.disk.id = disk;
        process.disk.raft_id = None;
        process.disk.incarnation = Incarnation(0);
        process.disk.cursor = None;
        process.phase = Phase::Joining;
        self.app.wipe(slot);
        self.count_voters();
        self.doubt_leader();
    }

    /// Ends a process that is no member any more.
    pub(super) fn leave(&mut self, slot: Slot) {
        let process = self.process(slot);
        if process.phase == Phase::Left || process.disk.raft_id.is_none() {
            return;
        }
        self.trace
            .step(self.now, "left", &[u64::from(slot)], || format!("n{slot}"));
        self.process_mut(slot).phase = Phase::Left;
        self.kill(slot);
    }

    /// Asks the leader for admission, or tells it that this process has started; again and again
    /// until that is known.
    pub(super) fn ask(&mut self, slot: Slot) {
        let process = self.process(slot);
        match process.phase {
            Phase::Member | Phase::Left => return,
            Phase::Announcing if process.is_known() => {
                self.become_member(slot);
                return;
            }
            Phase::Joining | Phase::Announcing => {}
        }
        let pause = Duration::from_millis(200)..=Duration::from_millis(700);
        let pause = self.rng.duration(pause);
        self.plan(slot, pause, What::Ask);
        if self.process(slot).leads.is_some() {
            self.admit(slot, slot);
            return;
        }
        let Some(leader) = self.log.leader.filter(|&leader| self.reaches(slot, leader)) else {
            return;
        };
        if let (Some(after), _) = self.net.deliver() {
            self.plan(leader, after, What::Asked { from: slot });
        }
    }

    /// Answers a process that asks, as the leader.
    pub(super) fn asked(&mut self, slot: Slot, from: Slot) {
        // It is called back at the address it announced.
        let answers = self.is_awake(from) && self.talks(slot, from);
        if self.process(slot).leads.is_some() && answers {
            self.admit(slot, from);
        }
    }

    fn admit(&mut self, slot: Slot, from: Slot) {
        let leader = self.process(slot);
        let view = std::sync::Arc::clone(&leader.view);
        if view.cluster().is_none() {
            return;
        }
        let at = leader.clock.wall(self.now);
        let spec = self.process(from).spec();
        if let Some(node) = self.process(from).disk.raft_id {
            if self.may_judge(slot, &view, node) {
                let command = Command::Announce { node, spec, at };
                self.propose(slot, command, Purpose::Admission(from));
            }
            return;
        }
        let holder = view.node_by_id(spec.id.as_str());
        let replaces = match holder.filter(|holder| holder.disk != spec.disk) {
            Some(holder) if holder.status == NodeStatus::Down => Some(holder.raft_id),
            Some(holder) => {
                // Its own address answers with another disk: the old process is gone.
                let command = Command::MarkDown {
                    nodes: vec![holder.raft_id],
                    promotions: Vec::new(),
                    at,
                };
                self.propose(slot, command, Purpose::Bury);
                return;
            }
            None => None,
        };
        let command = Command::Join {
            node: spec,
            replaces,
            at,
        };
        self.propose(slot, command, Purpose::Admission(from));
    }

    fn may_judge(&self, slot: Slot, view: &ClusterState, node: RaftId) -> bool {
        let leader = self.process(slot);
        leader.disk.raft_id.is_some_and(|me| {
            !view.is_live(node) || leader.coordinator.has_heard_all_but(view, node, me)
        })
    }

    /// Hands the answer of the log on to the process that asked.
    pub(super) fn admission_answered(&mut self, slot: Slot, asker: Slot, result: &Answer) {
        if !self.is_awake(asker) || !self.reaches(slot, asker) {
            return;
        }
        let waits = matches!(
            self.process(asker).phase,
            Phase::Joining | Phase::Announcing
        );
        match result {
            Answer::Applied(applied) if waits => {
                let Some(raft_id) = applied.node else { return };
                let known = self.log.state.node(raft_id);
                let process = self.process(asker);
                // The answer may be about an earlier disk.
                let Some(node) = known.filter(|node| node.disk == process.disk.id) else {
                    return;
                };
                // An earlier process may have asked, and never heard the answer.
                let is_known = node.incarnation == process.disk.incarnation;
                let process = self.process_mut(asker);
                process.disk.raft_id = Some(raft_id);
                process.phase = Phase::Announcing;
                if is_known {
                    self.become_member(asker);
                }
            }
            Answer::Rejected(rejected) => {
                let process = self.process(asker);
                let gone = matches!(**rejected, Rejected::UnknownNode { node } if process.disk.raft_id == Some(node));
                if gone {
                    self.leave(asker);
                } else if let Rejected::OlderFeatureLevel { given, current, .. } = **rejected {
                    self.replace_build(asker, given, current);
                }
            }
            Answer::Applied(_) | Answer::NoLeader | Answer::Unknown => {}
        }
    }

    /// Ends a process that knows less than the cluster uses; the next one is of a newer build.
    fn replace_build(&mut self, slot: Slot, given: u32, current: u32) {
        // The answer may be about an earlier process.
        if self.process(slot).feature_level != given {
            return;
        }
        let levels = [u64::from(slot), u64::from(given), u64::from(current)];
        self.trace.step(self.now, "older", &levels, || {
            format!("n{slot} knows level {given}, the cluster uses {current}")
        });
        let lasts = Duration::from_millis(500)..=Duration::from_secs(3);
        let lasts = self.rng.duration(lasts);
        self.bounce(slot, lasts);
        self.process_mut(slot).feature_level = NEWER;
    }

    pub(super) fn become_member(&mut self, slot: Slot) {
        self.process_mut(slot).phase = Phase::Member;
        let first = self.rng.duration(Duration::ZERO..=self.settings.pulse);
        self.plan_pulse(slot, self.now + first);
        self.spread_to(slot);
    }

    /// Plans the end and, `lasts` later, the next start of the process of `slot`.
    pub(super) fn bounce(&mut self, slot: Slot, lasts: Duration) {
        self.kill(slot);
        self.agenda.plan(self.now + lasts, Event::Boot(slot));
    }
}

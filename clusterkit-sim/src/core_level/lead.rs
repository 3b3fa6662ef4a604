//! The leader's loop, as the embedded node runs it: decide, propose one thing after the other,
//! decide again.
//!
//! Heartbeats and what the leader hears of them are here too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::coordinator::{Decision, PlanRequest};
use clusterkit_core::detector::Heard;
use clusterkit_core::id::{Incarnation, LogIndex, RaftId};
use clusterkit_core::lease::LeaseRequest;
use clusterkit_core::node::NodeStatus;
use clusterkit_core::partition::{Joining, Stage};
use clusterkit_core::placement::{MinimalMove, Placement};
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::Instant;

use super::event::{Answer, Event, Purpose, Slot, What};
use super::mesh::Sighting;
use super::process::Phase;
use super::world::{Broken, Check, World, ensure};

/// How long to wait before deciding again about what was just refused or failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// No report follows another one sooner than in this part of the interval between them.
const STEPS: u32 = 8;
/// How often a deposed leader that is cut off could hear of it.
const DEPOSED_RETRY: Duration = Duration::from_millis(250);
/// The longest the loop sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Where the loop of one process stands.
#[derive(Debug, Default)]
pub(super) struct Loop {
    /// What is still to be proposed of the last decision.
    queue: VecDeque<Command>,
    /// A proposal has no answer yet.
    waiting: bool,
    /// Everything proposed of this decision was done.
    content: bool,
    /// When it goes on; later plans to go on are void.
    wakes_at: Option<Duration>,
    /// When each node was last heard, by this process's own clock. What the detector must respect.
    pub(super) heard: BTreeMap<RaftId, Instant>,
    /// Whom it has proposed to declare down and the log has not: it must go on proposing that.
    condemned: BTreeSet<RaftId>,
    /// What was seen of nodes by others, and reported to it.
    pub(super) seen: BTreeMap<(RaftId, RaftId), Sighting>,
}

impl World {
    /// Lets `slot` report to the leader at `at`, unless it does so sooner.
    pub(super) fn plan_pulse(&mut self, slot: Slot, at: Duration) {
        let pulse_at = &mut self.process_mut(slot).pulse_at;
        if pulse_at.is_none_or(|planned| at < planned) {
            *pulse_at = Some(at);
            let life = self.process(slot).life;
            let what = What::Pulse;
            self.agenda.plan(at, Event::Process { slot, life, what });
        }
    }

    /// Lets `slot` report sooner, because it has something to say or waits for something.
    pub(super) fn hurry_pulse(&mut self, slot: Slot) {
        let process = self.process(slot);
        if self.settings.hurries && process.phase == Phase::Member {
            let at = process
                .clock
                .after(process.pulsed_at, self.settings.pulse / STEPS);
            self.plan_pulse(slot, at.max(self.now));
        }
    }

    /// Reports to the leader, and plans the next report.
    pub(super) fn pulse(&mut self, slot: Slot) {
        let now = self.now;
        let process = self.process_mut(slot);
        let (Some(node), Phase::Member) = (process.disk.raft_id, process.phase) else {
            return;
        };
        if process.pulse_at.is_none_or(|at| at > now) {
            return;
        }
        (process.pulsed_at, process.pulse_at) = (now, None);
        let process = self.process(slot);
        let next = process.clock.after(now, self.settings.pulse);
        let (incarnation, applied) = (process.disk.incarnation, process.view.applied());
        self.plan_pulse(slot, next);
        let lease = self.request_lease(slot, node);
        let sightings = self.sightings(slot);
        self.probe(slot, node);
        if self.process(slot).leads.is_some() {
            self.confirm_leadership(slot);
            if let Some(grant) = self.renew(slot, &lease) {
                self.plan(slot, Duration::ZERO, What::Granted(grant));
            }
            return;
        }
        if let Some(leader) = self.log.leader.filter(|&leader| self.reaches(leader, slot)) {
            self.process_mut(slot).follows = Some(leader);
        }
        let leader = self.process(slot).follows;
        let Some(leader) = leader.filter(|&leader| leader != slot && self.reaches(slot, leader))
        else {
            return;
        };
        let (first, again) = self.net.deliver();
        for after in first.into_iter().chain(again) {
            let what = What::Heartbeat {
                from: slot,
                node,
                incarnation,
                applied,
                lease,
                sightings: sightings.clone(),
            };
            self.plan(leader, after, what);
        }
    }

    /// Takes note of a report, as the leader.
    pub(super) fn hear(
        &mut self,
        slot: Slot,
        from: Slot,
        (node, incarnation, applied): (RaftId, Incarnation, LogIndex),
        lease: &LeaseRequest,
        sightings: &[Sighting],
    ) {
        if self.process(slot).leads.is_none() {
            return;
        }
        let process = &mut self.processes[slot as usize - 1];
        let Some(record) = process.view.node(node) else {
            if process.view.applied().0 >= node.0 && self.reaches(slot, from) {
                self.plan(from, Duration::from_millis(1), What::Removed { node });
            }
            return;
        };
        let waits = matches!(record.status, NodeStatus::Joining | NodeStatus::Down);
        let now = process.clock.monotonic(self.now);
        let heard = process
            .coordinator
            .handle_heartbeat(node, incarnation, applied, now);
        match heard {
            Heard::Counted => {
                process.decides.heard.insert(node, now);
            }
            // A newer process of it reports in: this one stops, which it has already.
            _ => return,
        }
        self.hear_sightings(slot, node, sightings);
        if let Some(grant) = self.renew(slot, lease)
            && self.reaches(slot, from)
        {
            let (first, again) = self.net.deliver();
            for after in first.into_iter().chain(again) {
                self.plan(from, after, What::Granted(grant));
            }
        }
        if waits {
            self.wake_leader(slot);
        }
    }

    pub(super) fn learn_elected(&mut self, slot: Slot, term: u64) -> Check {
        if self.log.leader != Some(slot) || self.log.term != term {
            return Ok(());
        }
        // A leader has applied all that was committed before it was elected.
        self.catch_up(slot)?;
        self.process_mut(slot).leads = Some(term);
        self.process_mut(slot).decides.heard.clear();
        self.process_mut(slot).decides.condemned.clear();
        self.process_mut(slot).decides.seen.clear();
        self.wake_leader(slot);
        Ok(())
    }

    pub(super) fn learn_deposed(&mut self, slot: Slot, term: u64) {
        let now = self.now;
        if self.process(slot).leads != Some(term) {
            return;
        }
        if !self.reaches_majority(slot) {
            // Cut off, it goes on believing that it leads.
            self.plan(slot, DEPOSED_RETRY, What::Deposed { term });
            return;
        }
        let process = self.process_mut(slot);
        process.leads = None;
        let local = process.clock.monotonic(now);
        process.coordinator.handle_leadership(None, term, local);
        process.decides = Loop::default();
    }

    /// Lets the loop go on now, if it sleeps.
    pub(super) fn wake_leader(&mut self, slot: Slot) {
        let process = self.process(slot);
        if process.leads.is_some() && !process.decides.waiting {
            self.wake_at(slot, self.now);
        }
    }

    fn wake_at(&mut self, slot: Slot, at: Duration) {
        let wakes_at = &mut self.process_mut(slot).decides.wakes_at;
        if wakes_at.is_none_or(|planned| at < planned) {
            *wakes_at = Some(at);
            let life = self.process(slot).life;
            let what = What::Lead;
            self.agenda.plan(at, Event::Process { slot, life, what });
        }
    }

    /// Goes on with the loop: proposes what is left of the last decision, or decides.
    pub(super) fn lead(&mut self, slot: Slot) -> Check {
        let now = self.now;
        let process = self.process_mut(slot);
        // Plans to go on at another time than the last one agreed on are void.
        if process.decides.wakes_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        process.decides.wakes_at = None;
        if process.leads.is_none() || process.decides.waiting {
            return Ok(());
        }
        if !process.decides.queue.is_empty() {
            self.propose_next(slot);
            return Ok(());
        }
        let (mut decision, local) = self.decide(slot)?;
        let process = &mut self.processes[slot as usize - 1];
        let mut commands: VecDeque<Command> = decision.commands.drain(..).collect();
        if let Some(request) = decision.plan.take() {
            let placement = certified(&request)?;
            commands.push_back(request.command(&placement, process.clock.wall(now)));
        }
        process.decides.queue = commands;
        process.decides.content = true;
        if process.decides.queue.is_empty() {
            let sleep = decision.next.saturating_since(local).min(SLEEP_MAX);
            let at = process.clock.after(now, sleep) + Duration::from_nanos(1);
            self.wake_at(slot, at);
        } else {
            // Deciding and placing takes a moment, in which others may be faster.
            let takes = self
                .rng
                .duration(Duration::from_micros(50)..=Duration::from_millis(5));
            self.wake_at(slot, now + takes);
        }
        Ok(())
    }

    fn decide(&mut self, slot: Slot) -> Result<(Decision, Instant), Broken> {
        let now = self.now;
        let patience = self.settings.detector.lease;
        let process = self.process_mut(slot);
        let (local, wall) = (process.clock.monotonic(now), process.clock.wall(now));
        let leading = process.leads.and(process.disk.raft_id);
        let term = process.leads.unwrap_or_default();
        process.coordinator.handle_leadership(leading, term, local);
        let view = std::sync::Arc::clone(&process.view);
        let decision = process.coordinator.decide(&view, local, wall);
        check_protected(&view, &decision)?;
        check_reverted(&view, &decision)?;
        let mut fresh = Vec::new();
        let condemned = &mut process.decides.condemned;
        condemned.retain(|&node| view.is_live(node));
        for command in &decision.commands {
            let Command::MarkDown { nodes, .. } = command else {
                continue;
            };
            for &node in nodes {
                let heard = process.decides.heard.get(&node);
                let silent = heard.is_none_or(|&at| local.saturating_since(at) >= patience);
                let again = !condemned.insert(node);
                ensure(silent || again, "heard-is-not-condemned", || {
                    format!("n{slot} condemns {node}, heard at {heard:?}, at {local:?}")
                })?;
                if !again {
                    fresh.push(node);
                }
            }
        }
        for node in fresh {
            self.check_unseen(slot, node)?;
        }
        self.yield_leadership(slot, &decision.yield_to);
        Ok((decision, local))
    }

    fn propose_next(&mut self, slot: Slot) {
        let process = self.process_mut(slot);
        if let Some(command) = process.decides.queue.pop_front() {
            process.decides.waiting = true;
            self.propose(slot, command, Purpose::Decision);
        }
    }

    pub(super) fn decision_answered(&mut self, slot: Slot, result: &Answer) {
        let now = self.now;
        let process = self.process_mut(slot);
        if process.leads.is_none() || !process.decides.waiting {
            return;
        }
        process.decides.waiting = false;
        process.decides.content &= match result {
            Answer::Applied(applied) => applied.refused.is_empty(),
            Answer::Rejected(_) | Answer::NoLeader | Answer::Unknown => false,
        };
        if !process.decides.queue.is_empty() {
            self.propose_next(slot);
        } else if process.decides.content {
            self.wake_at(slot, now);
        } else {
            self.wake_at(slot, now + RETRY_PAUSE);
        }
    }
}

/// While more nodes are down than may be, nothing is decided that copies data.
fn check_protected(view: &ClusterState, decision: &Decision) -> Check {
    let down = view
        .nodes()
        .filter(|node| node.status == NodeStatus::Down && !node.evicted);
    let (down, total) = (down.count(), view.nodes().len());
    if down * 1_000 <= view.config().max_down_permille as usize * total {
        return Ok(());
    }
    let copies = decision.plan.is_some()
        || decision.commands.iter().any(|command| match command {
            Command::Evict { .. } | Command::Plan { .. } => true,
            Command::StartMoves { moves, .. } => {
                moves.iter().any(|start| !start.sources.is_empty())
            }
            _ => false,
        });
    ensure(!copies, "protected-copies-nothing", || {
        format!("{down} of {total} nodes are down: {:?}", decision.commands)
    })
}

/// A move whose copying node is gone does not go on as if it were there.
fn check_reverted(view: &ClusterState, decision: &Decision) -> Check {
    for (id, partition) in view.partitions_by_id() {
        let Stage::Syncing(migration) = &partition.stage else {
            continue;
        };
        let gone = |joining: &Joining| !view.is_live(joining.node);
        if !migration.joining.iter().any(gone) {
            continue;
        }
        let reverted = decision.commands.iter().any(|command| {
            matches!(command, Command::Revert { stages, .. } if stages.contains(&(id, migration.id)))
        });
        ensure(reverted, "moves-of-the-dead-are-called-off", || {
            format!("{id}: {migration:?}: {:?}", decision.commands)
        })?;
    }
    Ok(())
}

/// Computes the placement that `request` asks for, whose certificate must hold.
pub(super) fn certified(request: &PlanRequest) -> Result<Placement, Broken> {
    let computed = request.compute(&MinimalMove::default());
    let (placement, refuted) = computed.map_err(|error| Broken {
        rule: "a-plan-is-made",
        detail: error.to_string(),
    })?;
    ensure(refuted.is_none(), "certificates-hold", || {
        format!("{refuted:?} for {:?}", request.input)
    })?;
    Ok(placement)
}

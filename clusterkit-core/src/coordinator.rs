//! The leader's brain: the replicated state, what was heard, and the time make the next commands.
//!
//! Sans-IO: [`Coordinator::handle_heartbeat`], [`Coordinator::handle_sighting`] and
//! [`Coordinator::handle_leadership`] take in, [`Coordinator::decide`] gives out. It proposes nothing
//! itself and computes no placement: a [`PlanRequest`] carries the input to whoever runs the
//! strategy, off the event loop.
//!
//! Invariant: everything decided here can be decided again. A decision that was lost on the way
//! to the log, or taken by a leader that is none any more, comes again or is refused.

mod deadlines;
mod failover;
mod fitness;
mod keep;
mod request;
mod start;
mod succession;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::command::Command;
use crate::config::ConfigError;
use crate::copying::{CopyBook, CopyReport};
use crate::detector::{Detector, DetectorConfig, Heard, Liveness};
use crate::event::{EventKind, LeaveReason};
use crate::id::{Epoch, EventSeq, Incarnation, LogIndex, NodeId, PartitionId, RaftId, StageId};
use crate::lease::LeaseBook;
use crate::node::{Drain, Node, NodeStatus};
use crate::partition::{Partition, Stage};
use crate::pause::Work;
use crate::placement::{MinimalMove, PlacementStrategy};
use crate::planted::{self, Bug};
use crate::state::ClusterState;
use crate::time::{Instant, UnixMillis};
use deadlines::Deadlines;
use fitness::Reported;
use request::{placement_node, position};
use start::Agenda;

pub(crate) use deadlines::retry_delay;
pub use failover::heirs_of;
pub(crate) use request::compute;
pub use request::{PlanRequest, plan_request};

/// How long the set of nodes must stand still before a plan is computed, so that nodes joining
/// together are placed together.
const SETTLE: Duration = Duration::from_millis(100);

/// How long no more nodes than may be must be down before protected mode ends.
const CALM: Duration = Duration::from_secs(10);

/// The most partitions one command names, so that no entry of the log grows without bound.
const BATCH: usize = 1_024;

/// Decides what the leader proposes.
#[derive(Debug)]
pub struct Coordinator {
    detector: Detector,
    /// Up to where each node has applied the log, as it last said.
    applied: BTreeMap<RaftId, LogIndex>,
    /// Since when this leader has seen each down node down.
    down_since: BTreeMap<RaftId, Instant>,
    /// The epoch of the members that are tracked: with another one they may be others.
    tracked: Option<Epoch>,
    /// The basis last seen and since when.
    basis: Option<(u64, Instant)>,
    /// How many active nodes the first placement waits for.
    expected: usize,
    protected: bool,
    /// Since when, in protected mode, no more nodes are down than may be.
    calm_since: Option<Instant>,
    /// Who takes over from nodes that are lost.
    strategy: Arc<dyn PlacementStrategy>,
    agenda: Agenda,
    deadlines: Deadlines,
    /// What nodes last said of themselves, and when.
    reports: BTreeMap<RaftId, Reported>,
    leases: LeaseBook,
    /// How far copies are, as their nodes last said.
    copies: CopyBook,
    /// When this process last found that somebody else should lead.
    yielded_at: Option<Instant>,
    /// Up to where the log was when this process began to lead.
    #[cfg(feature = "planted")]
    led_from: Option<LogIndex>,
}

/// What to do now.
#[derive(Debug)]
#[must_use]
pub struct Decision {
    /// To be proposed in this order.
    pub commands: Vec<Command>,
    /// A placement to be computed, if one is due.
    pub plan: Option<PlanRequest>,
    /// When to decide again at the latest.
    pub next: Instant,
    /// Whether so many nodes are down that copies are withheld.
    pub protected: bool,
    /// Nodes that this leader does not hear and others do: not declared down, and without a lease.
    pub vouched: Vec<RaftId>,
    /// Those that are declared down although others see them: nobody who can lead hears everybody.
    pub overruled: Vec<RaftId>,
    /// Leadership is to be handed over, best to the first of these: they hear who is vouched for.
    /// Mostly empty.
    pub yield_to: Vec<RaftId>,
}

impl Coordinator {
    /// Returns a coordinator that does not lead.
    ///
    /// # Errors
    /// [`ConfigError`] from [`DetectorConfig::validate`].
    pub fn new(config: DetectorConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            detector: Detector::new(config)?,
            applied: BTreeMap::new(),
            down_since: BTreeMap::new(),
            tracked: None,
            basis: None,
            expected: 1,
            protected: false,
            calm_since: None,
            strategy: Arc::new(MinimalMove::default()),
            agenda: Agenda::default(),
            deadlines: Deadlines::default(),
            reports: BTreeMap::new(),
            leases: LeaseBook::new(config.lease_timing()),
            copies: CopyBook::default(),
            yielded_at: None,
            #[cfg(feature = "planted")]
            led_from: None,
        })
    }

    /// Lets `strategy` choose who takes over from nodes that are lost:
    /// [`PlacementStrategy::failover`] is called while deciding, so it must be quick. Default
    /// [`MinimalMove`].
    #[must_use]
    pub fn with_strategy(mut self, strategy: Arc<dyn PlacementStrategy>) -> Self {
        self.strategy = strategy;
        self
    }

    /// Holds the first placement back until `nodes` nodes are active. Default 1.
    pub const fn expect(&mut self, nodes: usize) {
        self.expected = nodes;
    }

    /// Takes note that this process leads as `me` in `term`, or that it does not lead. Another term
    /// is another leadership, even if nobody noticed the one between.
    pub fn handle_leadership(&mut self, me: Option<RaftId>, term: u64, now: Instant) {
        match me {
            Some(me) if !self.detector.is_leading() || self.leases.term() != Some(term) => {
                self.detector.lead(me, now);
                self.leases.lead(term, now);
                self.applied.clear();
                self.down_since.clear();
                self.deadlines.clear();
                self.reports.clear();
                self.copies = CopyBook::default();
                self.tracked = None;
                self.basis = None;
                self.protected = false;
                self.calm_since = None;
                #[cfg(feature = "planted")]
                self.led_from.take();
            }
            Some(_) => {}
            None => {
                self.detector.follow();
                self.leases.follow();
            }
        }
    }

    /// Takes note of a heartbeat of `node`, which has applied the log up to `applied`.
    pub fn handle_heartbeat(
        &mut self,
        node: RaftId,
        incarnation: Incarnation,
        applied: LogIndex,
        now: Instant,
    ) -> Heard {
        let heard = self.detector.handle_heartbeat(node, incarnation, now);
        if heard == Heard::Counted {
            self.applied.insert(node, applied);
        }
        heard
    }

    /// Takes note of how far a copy is, as the node that copies has said now. What is not, or no
    /// longer, awaited under its stage is forgotten with the next decision.
    pub fn handle_copy(&mut self, report: CopyReport, now: Instant, wall: UnixMillis) {
        let (partition, stage) = (report.partition, report.stage);
        if self.copies.heed(report, wall) {
            self.deadlines.advanced(partition, stage, now);
        }
    }

    /// Returns how far copies are; kept while this process leads.
    #[must_use]
    pub const fn copies(&self) -> &CopyBook {
        &self.copies
    }

    /// Takes note that `by`, of whose heartbeats one just counted, has seen the process `incarnation`
    /// of `of`: it was asked `age` before `now`, by the clock of `by`, and has answered.
    pub fn handle_sighting(
        &mut self,
        by: RaftId,
        of: RaftId,
        incarnation: Incarnation,
        age: Duration,
        now: Instant,
    ) -> Heard {
        self.detector.handle_sighting(by, of, incarnation, age, now)
    }

    /// Returns what was granted, and what may be committed because of it: requests and proofs of
    /// leadership go in here, grants come out.
    pub const fn leases(&mut self) -> &mut LeaseBook {
        &mut self.leases
    }

    /// Tells whether copies are withheld because too many nodes are down; none unless this process
    /// leads.
    #[must_use]
    pub const fn protected(&self) -> Option<bool> {
        if self.detector.is_leading() {
            Some(self.protected)
        } else {
            None
        }
    }

    /// Returns what is thought of `node`, none when it is unknown here.
    #[must_use]
    pub fn liveness(&self, node: RaftId, now: Instant) -> Option<Liveness> {
        self.detector.liveness(node, now)
    }

    /// Tells whether every live node but `node` and the leader `me` has reported in under this
    /// leadership. Until then a node that has started again must not be judged: those it would
    /// give its roles to may be dead and not yet declared down.
    #[must_use]
    pub fn has_heard_all_but(&self, state: &ClusterState, node: RaftId, me: RaftId) -> bool {
        let heard = |id: RaftId| self.applied.contains_key(&id);
        let mut live = state.nodes().filter(|other| other.status.is_live());
        live.all(|other| other.raft_id == node || other.raft_id == me || heard(other.raft_id))
    }

    /// Decides what to propose on `state`.
    pub fn decide(&mut self, state: &ClusterState, now: Instant, wall: UnixMillis) -> Decision {
        let mut decision = Decision {
            commands: Vec::new(),
            plan: None,
            next: Instant::FAR_FUTURE,
            protected: false,
            vouched: Vec::new(),
            overruled: Vec::new(),
            yield_to: Vec::new(),
        };
        self.track(state, now);
        self.leases.observe(state, now);
        if !self.detector.is_leading() || state.cluster().is_none() {
            return decision;
        }
        #[cfg(feature = "planted")]
        self.led_from.get_or_insert(state.applied());
        self.heed(state, wall, &mut decision);
        expire(state, now, wall, &mut decision);
        self.judge(state, now, wall, &mut decision);
        self.guard(state, now, &mut decision);
        self.evict(state, now, wall, &mut decision);
        self.admit(state, wall, &mut decision);
        self.dismiss(state, now, wall, &mut decision);
        self.dismiss_never_active(state, now, wall, &mut decision);
        revert(state, wall, &mut decision);
        self.deadlines.decide(state, now, wall, &mut decision);
        let settled = decision.commands.is_empty();
        switch(state, wall, &mut decision);
        if settled {
            // Who is there decides which moves are wanted: they begin once that is in the state.
            self.start(state, now, wall, &mut decision);
        }
        if decision.commands.is_empty() {
            // A plan is compare-and-set on the epoch: it waits until nothing else is decided.
            self.plan(state, now, &mut decision);
        }
        decision.protected = self.protected;
        decision
    }

    fn track(&mut self, state: &ClusterState, now: Instant) {
        self.copies.retain_awaited(state);
        if self.tracked.replace(state.epoch()) == Some(state.epoch()) {
            // The same members in the same places.
            return;
        }
        self.detector.retain(|node| state.node(node).is_some());
        self.applied.retain(|&node, _| state.node(node).is_some());
        self.reports.retain(|&node, _| state.node(node).is_some());
        self.down_since
            .retain(|&node, _| !state.is_live(node) && state.node(node).is_some());
        for node in state.nodes() {
            let down = node.status == NodeStatus::Down;
            self.detector.track(node.raft_id, down, now);
            if down {
                self.down_since.entry(node.raft_id).or_insert(now);
            }
        }
    }

    fn judge(
        &mut self,
        state: &ClusterState,
        now: Instant,
        wall: UnixMillis,
        decision: &mut Decision,
    ) {
        let verdicts = self.detector.poll(now);
        decision.next = verdicts.next;
        decision.yield_to = self.succession(state, &verdicts, now);
        decision.vouched = verdicts.vouched;
        // What was proposed once is proposed until the log has it: it may take effect at any time,
        // so that the node gets no lease meanwhile.
        let mut down = self.leases.unmarked(now);
        for node in verdicts.down {
            let over_at = self.leases.over_at(node);
            if over_at > now {
                self.detector.withdraw(node);
                decision.next = decision.next.min(over_at);
            } else if !down.contains(&node) {
                down.push(node);
            }
        }
        for node in self.self_condemned(state) {
            let over_at = self.leases.over_at(node);
            if over_at > now {
                decision.next = decision.next.min(over_at);
            } else if !down.contains(&node) {
                down.push(node);
            }
        }
        down.sort_unstable();
        decision.overruled = verdicts.overruled;
        decision.overruled.retain(|node| down.contains(node));
        self.protected |= verdicts.protected && !down.is_empty();
        if !down.is_empty() {
            self.leases.condemn(&down, now);
            let promotions = self.heirs(state, &down, now);
            decision.commands.push(Command::MarkDown {
                nodes: down,
                promotions,
                at: wall,
            });
        }
        if !verdicts.up.is_empty() {
            decision.commands.push(Command::MarkUp {
                nodes: verdicts.up,
                at: wall,
            });
        }
    }

    /// Enters protected mode beyond the configured share of down nodes. Leaves it at half of that
    /// at once, and below it after a while without more trouble.
    fn guard(&mut self, state: &ClusterState, now: Instant, decision: &mut Decision) {
        if planted::is_on(Bug::CopyWhileProtected) {
            self.protected = false;
            return;
        }
        let total = state.nodes().len();
        let down = state
            .nodes()
            .filter(|node| node.status == NodeStatus::Down && !node.evicted);
        let down = down.count() * 1_000;
        let limit = state.config().max_down_permille as usize * total;
        // Planted: the first one beyond is forgiven.
        let forgiven = if planted::is_on(Bug::MaxDownOffByOne) {
            1_000
        } else {
            0
        };
        if down > limit + forgiven {
            self.protected = true;
            self.calm_since = None;
        } else if down * 2 <= limit {
            self.protected = false;
            self.calm_since = None;
        } else if self.protected {
            let calm = *self.calm_since.get_or_insert(now) + CALM;
            if calm <= now {
                self.protected = false;
                self.calm_since = None;
            } else {
                decision.next = decision.next.min(calm);
            }
        }
    }

    /// Gives up on nodes that stayed down beyond the repair delay, or sooner where too few copies
    /// remain.
    fn evict(&self, state: &ClusterState, now: Instant, wall: UnixMillis, decision: &mut Decision) {
        if self.protected || state.is_paused(Work::Repair) {
            return;
        }
        let mut nodes = Vec::new();
        for node in state.nodes() {
            let Some(&since) = self.down_since.get(&node.raft_id) else {
                continue;
            };
            if node.evicted {
                continue;
            }
            let expected = state.expected_until(node.raft_id);
            if expected.is_some_and(|until| until > wall) {
                // It was announced: when it is over, the state will say so.
                continue;
            }
            let due = since + state.repair_delay(node);
            if due <= now || is_scarce(state, node.raft_id) {
                nodes.push(node.raft_id);
            } else {
                decision.next = decision.next.min(due);
            }
        }
        if !nodes.is_empty() {
            decision.commands.push(Command::Evict { nodes, at: wall });
        }
    }

    /// Removes nodes that are to leave and hold nothing any more. The leader itself leaves only while
    /// somebody who stays reports in: the others may be gone and not yet declared down.
    fn dismiss(
        &self,
        state: &ClusterState,
        now: Instant,
        wall: UnixMillis,
        decision: &mut Decision,
    ) {
        let leader = self.detector.leading();
        let is_there = |node: RaftId| {
            let heard = self.detector.liveness(node, now) == Some(Liveness::Up);
            leader == Some(node) || (heard && self.applied.contains_key(&node))
        };
        for node in state.nodes().filter(|node| node.drain == Drain::Leave) {
            let node = node.raft_id;
            let mut others = state.nodes().filter(|other| other.raft_id != node);
            let stays = others.any(|other| other.status.is_live() && is_there(other.raft_id));
            if stays && !state.holds_anything(node) {
                decision.commands.push(Command::Remove {
                    node,
                    reason: LeaveReason::Drained,
                    force: false,
                    at: wall,
                });
            }
        }
    }

    /// Removes nodes that were admitted, never became active, and stayed down beyond the repair
    /// delay: they hold nothing, and a process that starts later joins anew.
    fn dismiss_never_active(
        &self,
        state: &ClusterState,
        now: Instant,
        wall: UnixMillis,
        decision: &mut Decision,
    ) {
        let delay = Duration::from_millis(state.config().repair_delay_ms);
        let down = self.down_since.iter().map(|(&node, &since)| (node, since));
        for (node, since) in down.filter(|&(node, _)| state.was_never_active(node)) {
            if now < since + delay {
                decision.next = decision.next.min(since + delay);
            } else if !state.holds_anything(node) {
                decision.commands.push(Command::Remove {
                    node,
                    reason: LeaveReason::Failed,
                    force: false,
                    at: wall,
                });
            }
        }
    }

    /// Activates joining nodes that have applied the log up to their own admission.
    fn admit(&self, state: &ClusterState, wall: UnixMillis, decision: &mut Decision) {
        for node in state
            .nodes()
            .filter(|node| node.status == NodeStatus::Joining)
        {
            let caught_up = if self.detector.leading() == Some(node.raft_id) {
                // Elected before the last leader activated it: it sends itself no heartbeats.
                Some(state.applied())
            } else {
                self.applied.get(&node.raft_id).copied()
            };
            if caught_up.is_some_and(|applied| applied.0 >= node.raft_id.0) {
                decision.commands.push(Command::Activate {
                    node: node.raft_id,
                    at: wall,
                });
            }
        }
    }

    /// Starts moves of the plan in force, unless a new plan is due: it may want other moves.
    fn start(
        &mut self,
        state: &ClusterState,
        now: Instant,
        wall: UnixMillis,
        decision: &mut Decision,
    ) {
        let Some(plan) = state.plan() else { return };
        if state.plan_basis() != state.planned_basis() {
            return;
        }
        #[cfg(feature = "planted")]
        if planted::is_on(Bug::ForgetPlan) && self.led_from.is_some_and(|at| plan.id.0 <= at.0) {
            // As if plans were the business of whoever made them.
            return;
        }
        if let Some(at) = self.deadlines.next_retry(now) {
            decision.next = decision.next.min(at);
        }
        let deadlines = &self.deadlines;
        let may_start = |id: PartitionId| deadlines.may_start(id, now);
        let moves = self.agenda.due(state, plan, !self.protected, may_start);
        if !moves.is_empty() {
            decision.commands.push(Command::StartMoves {
                plan: plan.id,
                moves,
                at: wall,
            });
        }
    }

    fn plan(&mut self, state: &ClusterState, now: Instant, decision: &mut Decision) {
        let basis = state.plan_basis();
        let first =
            state.planned_basis() == 0 && state.partitions().iter().all(Partition::is_unplaced);
        let due = if basis == state.planned_basis() {
            self.basis = None;
            let roles = state.roles_stale() && !state.is_paused(Work::Balance);
            // Where nobody is to lead, whoever was forced to goes on: there is nothing better.
            let intended = state.intents().next().is_some();
            let roles =
                roles && (!intended || state.nodes().any(|node| state.may_lead(node.raft_id)));
            roles && state.plan().is_none() && is_quiet(state)
        } else if !state.wants_plan() {
            self.basis = None;
            return;
        } else {
            let since = match self.basis {
                Some((seen, since)) if seen == basis => since,
                _ => now,
            };
            self.basis = Some((basis, since));
            let settled = since + SETTLE;
            if first && arrived(state) < self.expected {
                return;
            }
            if !first && now < settled {
                decision.next = decision.next.min(settled);
            }
            first || now >= settled
        };
        if due && !self.protected {
            decision.plan = plan_request(state, basis);
        }
    }
}

/// Returns how many nodes have become active so far, also those that are to take no data, that are
/// down, or that an operator has removed since: nobody need be waited for in their place.
fn arrived(state: &ClusterState) -> usize {
    let members = state.nodes().map(|node| node.raft_id);
    let here = members.filter(|&node| !state.was_never_active(node));
    let (events, _) = state.events_after(EventSeq::default());
    let gone: BTreeSet<&NodeId> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::NodeLeft { node, .. } => state.node_record(node).map(|node| &node.id),
            _ => None,
        })
        .filter(|id| state.node_by_id(id.as_str()).is_none())
        .collect();
    here.count() + gone.len()
}

/// Tells whether a partition of the down node `node` has fewer in-sync live copies than it must.
fn is_scarce(state: &ClusterState, node: RaftId) -> bool {
    let min = state.config().min_in_sync as usize;
    state
        .partitions()
        .iter()
        .filter(|partition| partition.is_member(node))
        .any(|partition| {
            let copies = partition
                .in_sync()
                .filter(|&member| state.is_live(member))
                .count();
            copies > 0 && copies < min
        })
}

/// Tells whether nobody is away or catching up, so that roles can be settled for good.
fn is_quiet(state: &ClusterState) -> bool {
    let up = |node: &Arc<Node>| node.status != NodeStatus::Down || node.evicted;
    state.nodes().all(up)
        && state
            .partitions()
            .iter()
            .all(|p| p.behind.is_empty() && p.primary.is_some())
}

/// Ends intents whose time is over.
fn expire(state: &ClusterState, now: Instant, wall: UnixMillis, decision: &mut Decision) {
    let until = state.intents().filter_map(|(_, intended)| intended.until);
    let Some(first) = until.min() else { return };
    if first <= wall {
        decision.commands.push(Command::ExpireIntents { at: wall });
    } else {
        decision.next = decision.next.min(now + first.saturating_since(wall));
    }
}

/// Calls off moves whose copying node has died.
fn revert(state: &ClusterState, wall: UnixMillis, decision: &mut Decision) {
    if planted::is_on(Bug::NeverRevert) {
        return;
    }
    let stages = migrating(state, |_, partition| {
        partition
            .joining()
            .iter()
            .any(|joining| !state.is_live(joining.node))
    });
    if !stages.is_empty() {
        decision.commands.push(Command::Revert { stages, at: wall });
    }
}

/// Switches moves whose copies are complete, where that costs no copy.
fn switch(state: &ClusterState, wall: UnixMillis, decision: &mut Decision) {
    let stages = migrating(state, |id, _| state.can_switch(id));
    if !stages.is_empty() {
        decision.commands.push(Command::Switch { stages, at: wall });
    }
}

fn migrating(
    state: &ClusterState,
    test: impl Fn(PartitionId, &Partition) -> bool,
) -> Vec<(PartitionId, StageId)> {
    let open = state
        .partitions_by_id()
        .filter_map(|(id, partition)| match &partition.stage {
            Stage::Syncing(migration) if test(id, partition) => Some((id, migration.id)),
            Stage::Syncing(_) | Stage::Stable | Stage::Cleanup { .. } => None,
        });
    open.take(BATCH).collect()
}

//! Whether hooks were told everything that was committed, at least once and in order.
//!
//! The promise, as `clusterkit` documents it: within one process the calls about one partition, and
//! those about nodes and the cluster, follow the order of the log and never overlap. An event that
//! is through is not told again by that process; another call follows only where this node was
//! asked for something and did not answer `Ok`. A process begins behind the cursor it found. A
//! rejoin is through before anything later is told about what it concerns. Every event is told to
//! every member sooner or later, except what this node was asked for and what ended before it did,
//! and what it was told to have missed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use clusterkit_core::event::{ChangeStage, Event, EventKind, HealthStatus};
use clusterkit_core::id::{EventSeq, PartitionId, PlanId, RaftId, StageId};
use clusterkit_core::time::UnixMillis;

use crate::Violation;

/// What a call of a hook was about, as much of it as names the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the hooks there are")]
pub enum Told {
    /// `on_partition_change`.
    Partition {
        /// The partition.
        partition: PartitionId,
        /// The stage it entered.
        stage: ChangeStage,
        /// The identity of the stage.
        stage_id: StageId,
        /// The node concerned.
        target: RaftId,
    },
    /// `on_node_join`: who and when.
    Joined(RaftId, UnixMillis),
    /// `on_node_rejoin`: who and when.
    Rejoined(RaftId, UnixMillis),
    /// `on_node_leave`: who and when.
    Left(RaftId, UnixMillis),
    /// `on_rebalance_start`: which plan.
    RebalanceStarted(PlanId),
    /// `on_rebalance_complete`: which plan.
    RebalanceCompleted(PlanId),
    /// `on_health_change`: to what and when.
    Health(HealthStatus, UnixMillis),
    /// `on_events_missed`: the first and the last of them.
    Missed(EventSeq, EventSeq),
}

impl Told {
    /// Returns what a hook is told of `event`, none where no hook is.
    #[must_use]
    pub const fn of(event: &Event) -> Option<Self> {
        Some(match &event.kind {
            EventKind::PartitionChanged(change) => Self::Partition {
                partition: change.partition,
                stage: change.stage,
                stage_id: change.stage_id,
                target: change.target,
            },
            EventKind::NodeJoined { node, .. } => Self::Joined(*node, event.at),
            EventKind::NodeRejoined { node, .. } => Self::Rejoined(*node, event.at),
            EventKind::NodeLeft { node, .. } => Self::Left(*node, event.at),
            EventKind::RebalanceStarted { plan, .. } => Self::RebalanceStarted(*plan),
            EventKind::RebalanceCompleted { plan, .. } => Self::RebalanceCompleted(*plan),
            EventKind::ClusterHealthChanged(health) => Self::Health(health.status, event.at),
            _ => return None,
        })
    }

    const fn partition(self) -> Option<PartitionId> {
        match self {
            Self::Partition { partition, .. } => Some(partition),
            _ => None,
        }
    }

    /// Tells whether `node` is asked for something.
    fn asks(self, node: RaftId) -> bool {
        matches!(self, Self::Partition { target, stage, .. }
            if target == node && stage != ChangeStage::Switched)
    }
}

/// How a call of a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "all that can happen to a future")]
pub enum CallEnd {
    /// It answered `Ok`.
    Ok,
    /// It answered an error or panicked.
    Failed,
    /// Its future was dropped: it took too long, its stage ended, or the process did.
    Dropped,
}

/// One call of a hook.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "what, from when to when, and how"
)]
pub struct HookCall {
    /// What about.
    pub told: Told,
    /// When it began.
    pub from: Duration,
    /// When and how it ended, none where it has not.
    pub ended: Option<(Duration, CallEnd)>,
}

/// One process of a node whose subscriber handles every hook.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "a process and its calls")]
pub struct Process {
    /// The member.
    pub node: RaftId,
    /// The cursor it began with: the last event not to be told.
    pub after: EventSeq,
    /// Its calls, in the order in which they began.
    pub calls: Vec<HookCall>,
    /// Whether it still runs as a member at the end, after quiet.
    pub lives: bool,
}

/// Judges the calls of `processes`, each node's in the order in which they ran. `committed` is in
/// order and has everything since the first cursor; processes that live have been told everything
/// up to `until`. `now` is the end of the run.
///
/// # Errors
/// - `hook-uncommitted`: a hook was told what is not in the log.
/// - `hook-repeated`: an event was told again after it was through.
/// - `hook-order`: an event was told after a later one of its partition, or of the nodes.
/// - `hook-overlap`: it was told while the one before still ran.
/// - `rejoin-late`: a change was told before the rejoin that it follows was through.
/// - `hook-lost`: an event was never told.
pub fn check(
    committed: &[Event],
    processes: &[Process],
    until: EventSeq,
    now: Duration,
) -> Result<(), Violation> {
    let log = Log::new(committed);
    let mut nodes: BTreeMap<RaftId, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        nodes.entry(process.node).or_default().push(process);
    }
    for (node, processes) in nodes {
        let mut through = BTreeSet::new();
        let mut missed = Vec::new();
        for process in &processes {
            let mut judge = Judge::new(&log, process);
            for call in &process.calls {
                judge.take(call)?;
            }
            through.append(&mut judge.through);
            missed.append(&mut judge.missed);
        }
        let (Some(first), Some(last)) = (processes.first(), processes.last()) else {
            continue;
        };
        // A cursor says that everything before it is through.
        let owed_to = if last.lives { until } else { last.after };
        let owed = log.facts.range(behind(first.after)..);
        for (seq, fact) in owed.take_while(|(seq, _)| **seq <= owed_to) {
            let was_missed = missed.iter().any(|(from, to)| from <= seq && seq <= to);
            let is_told = through.contains(seq) || was_missed;
            if !is_told && !log.is_overtaken(node, *seq, fact.told) {
                let told = fact.told;
                let detail = format!("node {node} was never told event {seq}: {told:?}");
                return Err(Violation::new("hook-lost", detail, now));
            }
        }
    }
    Ok(())
}

/// Returns the first number behind `seq`.
const fn behind(seq: EventSeq) -> EventSeq {
    EventSeq(seq.0.saturating_add(1))
}

/// A committed event that some hook is told of.
struct Fact<'a> {
    told: Told,
    event: &'a Event,
}

/// The committed events, by what is asked of them.
struct Log<'a> {
    facts: BTreeMap<EventSeq, Fact<'a>>,
    by_told: HashMap<Told, Vec<EventSeq>>,
    rejoins: Vec<EventSeq>,
    last_of_partition: BTreeMap<PartitionId, EventSeq>,
    /// When a node left or came back last.
    last_of_node: BTreeMap<RaftId, EventSeq>,
}

impl<'a> Log<'a> {
    fn new(committed: &'a [Event]) -> Self {
        let mut log = Self {
            facts: BTreeMap::new(),
            by_told: HashMap::new(),
            rejoins: Vec::new(),
            last_of_partition: BTreeMap::new(),
            last_of_node: BTreeMap::new(),
        };
        for event in committed {
            let Some(told) = Told::of(event) else {
                continue;
            };
            log.by_told.entry(told).or_default().push(event.seq);
            log.facts.insert(event.seq, Fact { told, event });
            match told {
                Told::Partition { partition, .. } => {
                    log.last_of_partition.insert(partition, event.seq);
                }
                Told::Rejoined(node, _) => {
                    log.rejoins.push(event.seq);
                    log.last_of_node.insert(node, event.seq);
                }
                Told::Left(node, _) => {
                    log.last_of_node.insert(node, event.seq);
                }
                _ => {}
            }
        }
        log
    }

    /// Returns the events that `told` may be about, in order.
    fn find(&self, told: Told) -> &[EventSeq] {
        let found = self.by_told.get(&told).map(Vec::as_slice);
        let other = match told {
            // What is asked for again after its event was missed does not tell these two apart.
            Told::Partition {
                partition,
                stage: ChangeStage::Cleanup,
                stage_id,
                target,
            } => Some(Told::Partition {
                partition,
                stage: ChangeStage::Reverted,
                stage_id,
                target,
            }),
            _ => None,
        };
        let other = || {
            other
                .and_then(|told| self.by_told.get(&told))
                .map(Vec::as_slice)
        };
        found.or_else(other).unwrap_or_default()
    }

    /// Tells whether `node` need not be told any more what it was asked for at `seq`: its stage
    /// ended before that.
    fn is_overtaken(&self, node: RaftId, seq: EventSeq, told: Told) -> bool {
        let of_partition = told
            .partition()
            .and_then(|id| self.last_of_partition.get(&id));
        let later = of_partition.into_iter().chain(self.last_of_node.get(&node));
        told.asks(node) && later.into_iter().any(|last| *last > seq)
    }

    /// Tells whether the rejoin at `rejoin` must be through on `me` before `change` is told.
    fn concerns(&self, rejoin: EventSeq, change: &Fact<'_>, me: RaftId) -> bool {
        let fact = self.facts.get(&rejoin).map(|fact| &fact.event.kind);
        let (
            Some(EventKind::NodeRejoined {
                node,
                partitions_before_leave,
                verdicts,
                ..
            }),
            EventKind::PartitionChanged(change),
        ) = (fact, &change.event.kind)
        else {
            return false;
        };
        let primaries = change.old_primary.iter().chain(&change.new_primary);
        let mut nodes = primaries.chain(&change.sources).chain([&change.target]);
        let judged = verdicts.iter().map(|(partition, _)| partition);
        let mut held = partitions_before_leave.iter().chain(judged);
        *node == me || held.any(|held| *held == change.partition) || nodes.any(|n| n == node)
    }
}

/// The call before, of the same lane.
#[derive(Clone, Copy)]
struct Last {
    seq: EventSeq,
    ended: Option<(Duration, CallEnd)>,
}

/// One process, call by call.
struct Judge<'a> {
    log: &'a Log<'a>,
    node: RaftId,
    after: EventSeq,
    /// By partition; none for nodes and the cluster.
    lanes: BTreeMap<Option<PartitionId>, Last>,
    through: BTreeSet<EventSeq>,
    missed: Vec<(EventSeq, EventSeq)>,
    /// When the rejoins told here were through.
    rejoined: BTreeMap<EventSeq, Duration>,
}

impl<'a> Judge<'a> {
    const fn new(log: &'a Log<'a>, process: &Process) -> Self {
        Self {
            log,
            node: process.node,
            after: process.after,
            lanes: BTreeMap::new(),
            through: BTreeSet::new(),
            missed: Vec::new(),
            rejoined: BTreeMap::new(),
        }
    }

    fn take(&mut self, call: &HookCall) -> Result<(), Violation> {
        let lane = call.told.partition();
        let last = self.lanes.get(&lane).copied();
        let seq = self.which(call, last)?;
        self.overlaps(call, seq, last)?;
        if let Told::Missed(from, to) = call.told {
            self.missed.push((from, to));
        } else if !self.was_missed(seq) {
            self.in_order(call, seq, last)?;
            self.after_rejoins(call, seq)?;
        }
        if let Some(last) = last.filter(|last| last.seq != seq) {
            // Whatever was dropped and is followed by another one is through as well.
            self.through.insert(last.seq);
        }
        match call.ended {
            Some((_, CallEnd::Ok)) => {
                self.through.insert(seq);
            }
            Some((_, CallEnd::Failed)) if !call.told.asks(self.node) => {
                self.through.insert(seq);
            }
            Some(_) | None => {}
        }
        if let (Told::Rejoined(..), Some((ended, _))) = (call.told, call.ended) {
            self.rejoined.insert(seq, ended);
        }
        let newest = last.map_or(seq, |last| last.seq.max(seq));
        let ended = call.ended;
        self.lanes.insert(lane, Last { seq: newest, ended });
        Ok(())
    }

    /// Returns the event that `call` is about.
    fn which(&self, call: &HookCall, last: Option<Last>) -> Result<EventSeq, Violation> {
        if let Told::Missed(_, to) = call.told {
            return Ok(to);
        }
        let all = self.log.find(call.told);
        let begin = match last {
            None => behind(self.after),
            Some(last) if all.contains(&last.seq) && !self.through.contains(&last.seq) => last.seq,
            Some(last) => behind(last.seq),
        };
        let next = all.iter().find(|seq| **seq >= begin);
        next.or_else(|| all.last()).copied().ok_or_else(|| {
            let detail = format!("node {} was told {:?}", self.node, call.told);
            Violation::new("hook-uncommitted", detail, call.from)
        })
    }

    fn overlaps(
        &self,
        call: &HookCall,
        seq: EventSeq,
        last: Option<Last>,
    ) -> Result<(), Violation> {
        let Some(last) = last else { return Ok(()) };
        match last.ended {
            Some((ended, _)) if ended <= call.from => Ok(()),
            Some(_) | None => {
                let before = last.seq;
                self.wrong(
                    "hook-overlap",
                    call,
                    seq,
                    &format!("while event {before} was told"),
                )
            }
        }
    }

    fn in_order(
        &self,
        call: &HookCall,
        seq: EventSeq,
        last: Option<Last>,
    ) -> Result<(), Violation> {
        let after = self.after;
        if seq <= after {
            let why = format!("though the process began behind event {after}");
            return self.wrong("hook-repeated", call, seq, &why);
        }
        let Some(last) = last else { return Ok(()) };
        if seq < last.seq {
            let why = format!("after event {}", last.seq);
            let rule = if self.through.contains(&seq) {
                "hook-repeated"
            } else {
                "hook-order"
            };
            return self.wrong(rule, call, seq, &why);
        }
        let is_owed =
            call.told.asks(self.node) && last.ended.is_some_and(|(_, end)| end != CallEnd::Ok);
        if seq == last.seq && !is_owed {
            return self.wrong("hook-repeated", call, seq, "though it was through");
        }
        Ok(())
    }

    fn after_rejoins(&self, call: &HookCall, seq: EventSeq) -> Result<(), Violation> {
        let Some(fact) = self.log.facts.get(&seq) else {
            return Ok(());
        };
        if call.told.partition().is_none() {
            return Ok(());
        }
        let first = self
            .log
            .rejoins
            .partition_point(|rejoin| *rejoin <= self.after);
        for &rejoin in &self.log.rejoins[first..] {
            if rejoin >= seq {
                break;
            }
            let is_first = !self.was_missed(rejoin) && self.log.concerns(rejoin, fact, self.node);
            let ended = self.rejoined.get(&rejoin);
            if is_first && ended.is_none_or(|ended| *ended > call.from) {
                let why = format!("before the rejoin, event {rejoin}, was through");
                return self.wrong("rejoin-late", call, seq, &why);
            }
        }
        Ok(())
    }

    fn was_missed(&self, seq: EventSeq) -> bool {
        let mut missed = self.missed.iter();
        missed.any(|(from, to)| *from <= seq && seq <= *to)
    }

    fn wrong(
        &self,
        rule: &str,
        call: &HookCall,
        seq: EventSeq,
        why: &str,
    ) -> Result<(), Violation> {
        let (node, told) = (self.node, call.told);
        let detail = format!("node {node} was told event {seq} {why}: {told:?}");
        Err(Violation::new(rule, detail, call.from))
    }
}

#[cfg(test)]
mod tests;

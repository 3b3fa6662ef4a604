//! The task behind `runner`: takes events from the newest view, keeps them in order, and collects
//! the answers.
//!
//! Events wait in lanes, one for each partition and one for nodes and the cluster; the head of a
//! lane is delivered (`delivery`), the rest waits behind it. The events themselves stay in the
//! replicated state until there is room here, so nothing upstream ever waits for a hook.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clusterkit_core::control::View;
use clusterkit_core::event::{ChangeStage, Event, EventKind};
use clusterkit_core::id::{EventSeq, PartitionId, RaftId};
use clusterkit_core::state::ClusterState;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::HookKind;
use super::delivery::{Answer, Context, Delivery, OpenStage, Outcome, hook_for};
use super::payload::{ClusterEvent, EventsMissed, NodeRejoined, PartitionChange};
use super::runner::{Acks, count};
use crate::tasks::{Ended, TaskSet};

/// How many answers go into one batch.
const ACKS_PER_BATCH: usize = 4_096;

/// What is delivered one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Cluster,
    Partition(PartitionId),
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// Whether the first item is being delivered.
    running: bool,
}

struct Item {
    delivery: Delivery,
    /// The event about nodes that must be through first.
    after: EventSeq,
}

/// A rejoin that is not through yet.
struct Rejoin {
    seq: EventSeq,
    node: RaftId,
    partitions: BTreeSet<PartitionId>,
}

/// An answer given, until the cluster has taken it.
struct Given {
    answer: Answer,
    /// The turn of the repeat timer it was last sent in.
    sent: u64,
}

pub(super) struct Dispatcher {
    context: Arc<Context>,
    views: watch::Receiver<Option<Arc<View>>>,
    view: Option<Arc<View>>,
    acks: mpsc::Sender<Acks>,
    tasks: TaskSet<(Lane, Outcome)>,
    lanes: BTreeMap<Lane, Waiting>,
    queued: usize,
    /// The last event taken from the state.
    taken: EventSeq,
    /// Events to be delivered again if this node stops now.
    holding: BTreeSet<EventSeq>,
    rejoins: Vec<Rejoin>,
    /// Stages that this node works on.
    open: BTreeMap<OpenStage, CancellationToken>,
    given: BTreeMap<OpenStage, Given>,
    due: BTreeSet<OpenStage>,
    turn: u64,
    /// Whether events are lost, so that open stages must be looked up in the state.
    look_up_stages: bool,
}

impl Dispatcher {
    pub(super) fn new(context: Arc<Context>, cursor: EventSeq, acks: mpsc::Sender<Acks>) -> Self {
        Self {
            views: context.views.clone(),
            context,
            view: None,
            acks,
            tasks: TaskSet::new(),
            lanes: BTreeMap::new(),
            queued: 0,
            taken: cursor,
            holding: BTreeSet::new(),
            rejoins: Vec::new(),
            open: BTreeMap::new(),
            given: BTreeMap::new(),
            due: BTreeSet::new(),
            turn: 0,
            look_up_stages: false,
        }
    }

    pub(super) async fn run(mut self) {
        let (stop, acks) = (self.context.stop.clone(), self.acks.clone());
        let mut repeat = interval(self.context.settings.ack_repeat);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            self.take_view();
            self.take_events();
            self.publish();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                ended = next_of(&mut self.tasks) => self.ended(&ended),
                fed = self.views.changed() => if fed.is_err() { return },
                permit = acks.reserve(), if !self.due.is_empty() => match permit {
                    Ok(permit) => {
                        let batch = batch(&mut self.due, &mut self.given, self.turn);
                        permit.send(batch);
                    }
                    // Nobody proposes answers any more: this node is on its way out.
                    Err(_) => self.due.clear(),
                },
                _ = repeat.tick(), if !self.given.is_empty() => self.repeat(),
            }
        }
        self.finish().await;
    }

    /// Lets running hooks end within the grace, and aborts the others.
    async fn finish(mut self) {
        self.context.slots.close();
        let grace = self.context.settings.grace;
        let drained = timeout(grace, async {
            while let Some(ended) = self.tasks.join_next().await {
                self.ended(&ended);
            }
        });
        if drained.await.is_err() {
            let running = self.context.counters.running.load(Ordering::Relaxed);
            tracing::warn!(running, ?grace, "aborting hooks that did not end in time");
        }
        if !self.due.is_empty() {
            // Best effort: what is not taken now is asked for again at the next start.
            let _ = self
                .acks
                .try_send(batch(&mut self.due, &mut self.given, self.turn));
        }
        self.tasks.abort_all().await;
        self.publish();
    }

    fn take_view(&mut self) {
        let newest = self.views.borrow_and_update().clone();
        let Some(newest) = newest else { return };
        if self
            .view
            .as_ref()
            .is_some_and(|view| Arc::ptr_eq(view, &newest))
        {
            return;
        }
        let (state, me) = (&newest.state, self.context.me);
        for waiting in self.lanes.values() {
            for item in &waiting.items {
                if !is_wanted(&item.delivery, state, me) {
                    item.delivery.superseded.cancel();
                }
            }
        }
        self.given
            .retain(|open, given| given.answer.is_awaited(state, me, *open));
        self.due.retain(|open| self.given.contains_key(open));
        self.view = Some(newest);
    }

    fn take_events(&mut self) {
        let Some(view) = self.view.clone() else {
            return;
        };
        let state = &*view.state;
        // Taking is worth it only when there is room for many: the rest of the tail is walked too.
        let has_room = self.queued <= self.context.settings.queue / 2;
        if has_room && self.taken < state.last_event() {
            let (events, missed) = state.events_after(self.taken);
            if missed {
                let last = state.last_event();
                self.missed(
                    events
                        .first()
                        .map_or(last, |event| EventSeq(event.seq.0 - 1)),
                );
            }
            for event in events {
                if self.queued >= self.context.settings.queue {
                    break;
                }
                self.taken = event.seq;
                self.take_event(&event, state);
            }
        }
        if self.look_up_stages && self.taken >= state.last_event() {
            self.look_up_stages = false;
            for change in PartitionChange::open_stages(state, self.context.me) {
                let known = (change.partition, change.stage_id);
                if !self.open.contains_key(&known) && !self.given.contains_key(&known) {
                    self.take_stage(change, state);
                }
            }
        }
    }

    fn missed(&mut self, to: EventSeq) {
        let from = EventSeq(self.taken.0 + 1);
        tracing::warn!(%from, %to, "events were dropped before their hooks could be called");
        let missed = to.0 - self.taken.0;
        self.context
            .counters
            .missed
            .fetch_add(missed, Ordering::Relaxed);
        self.taken = to;
        self.look_up_stages = true;
        if self.context.subscriber.handles(HookKind::EventsMissed) {
            let event = ClusterEvent::Missed(EventsMissed { from, to });
            self.enqueue(Lane::Cluster, delivery(to, event, None), EventSeq(0));
            self.holding.insert(to);
        }
    }

    fn take_event(&mut self, event: &Event, state: &ClusterState) {
        let me = self.context.me;
        if let EventKind::PartitionLost { partition, .. } = &event.kind {
            tracing::error!(%partition, seq = %event.seq, "the last in-sync copy is gone");
        }
        let Some(hook) = hook_for(&event.kind) else {
            return;
        };
        if !self.context.subscriber.handles(hook) {
            if let EventKind::PartitionChanged(change) = &event.kind
                && change.target == me
                && let Some(answer) = Answer::to(change.stage)
            {
                self.give((change.partition, change.stage_id), answer);
            }
            return;
        }
        let Some(resolved) = ClusterEvent::resolve(event, state, me) else {
            tracing::warn!(seq = %event.seq, hook = hook.as_str(),
                "the node of an event is forgotten: its hook is not called");
            return;
        };
        match resolved {
            ClusterEvent::PartitionChanged(change) => {
                let answer = Answer::to(change.stage).filter(|_| change.local);
                self.take_change(event.seq, change, answer, state);
            }
            resolved => {
                if let ClusterEvent::NodeRejoined(rejoined) = &resolved {
                    self.rejoins.push(Rejoin::new(event.seq, rejoined));
                }
                self.holding.insert(event.seq);
                let delivery = delivery(event.seq, resolved, None);
                self.enqueue(Lane::Cluster, delivery, EventSeq(0));
            }
        }
    }

    /// Takes a stage whose event is lost.
    fn take_stage(&mut self, change: PartitionChange, state: &ClusterState) {
        let answer = Answer::to(change.stage);
        if self.context.subscriber.handles(HookKind::PartitionChange) {
            self.take_change(self.taken, change, answer, state);
        } else if let Some(answer) = answer {
            self.give((change.partition, change.stage_id), answer);
        }
    }

    fn take_change(
        &mut self,
        seq: EventSeq,
        change: PartitionChange,
        answer: Option<Answer>,
        state: &ClusterState,
    ) {
        let me = self.context.me;
        let lane = Lane::Partition(change.partition);
        let concerned = self.rejoins.iter().filter(|r| r.concerns(&change, me));
        let after = concerned.map(|rejoin| rejoin.seq).max();
        let is_syncing = change.stage == ChangeStage::Syncing;
        let delivery = delivery(seq, ClusterEvent::PartitionChanged(change), answer);
        if !is_wanted(&delivery, state, me) {
            count(&self.context.counters.superseded);
            return;
        }
        if let Some(open) = delivery.open_stage() {
            self.open.insert(open, delivery.superseded.clone());
        }
        // A process that starts is asked to copy again: only other calls are owed to it.
        if !(is_syncing && answer.is_some()) {
            self.holding.insert(seq);
        }
        self.enqueue(lane, delivery, after.unwrap_or_default());
    }

    fn enqueue(&mut self, lane: Lane, delivery: Delivery, after: EventSeq) {
        self.queued += 1;
        let waiting = self.lanes.entry(lane).or_default();
        waiting.items.push_back(Item { delivery, after });
        self.start(lane);
    }

    /// Delivers the head of `lane` if it may go.
    fn start(&mut self, lane: Lane) {
        let first = |waiting: &Waiting| waiting.items.front().map(|item| item.delivery.seq);
        let cluster = self.lanes.get(&Lane::Cluster).and_then(first);
        let Some(waiting) = self.lanes.get_mut(&lane) else {
            return;
        };
        let Some(item) = waiting.items.front() else {
            self.lanes.remove(&lane);
            return;
        };
        let held_up = cluster.is_some_and(|first| first <= item.after);
        if waiting.running || held_up {
            return;
        }
        waiting.running = true;
        let run = item.delivery.clone().run(Arc::clone(&self.context));
        self.tasks.spawn(async move { (lane, run.await) });
    }

    fn ended(&mut self, ended: &Ended<(Lane, Outcome)>) {
        let &Ended::Done((lane, outcome)) = ended else {
            return; // Aborted at shutdown: a delivery catches its panics.
        };
        if outcome == Outcome::Interrupted {
            return;
        }
        let Some(waiting) = self.lanes.get_mut(&lane) else {
            return;
        };
        waiting.running = false;
        let Some(item) = waiting.items.pop_front() else {
            return;
        };
        self.queued -= 1;
        let delivery = item.delivery;
        self.holding.remove(&delivery.seq);
        self.rejoins.retain(|rejoin| rejoin.seq != delivery.seq);
        if outcome == Outcome::Superseded {
            count(&self.context.counters.superseded);
        }
        if let Some(open) = delivery.open_stage() {
            self.open.remove(&open);
            if let (Outcome::Done, Some(answer)) = (outcome, delivery.answer) {
                self.give(open, answer);
            }
        }
        if self.context.stop.is_cancelled() {
            return;
        }
        self.start(lane);
        if lane == Lane::Cluster {
            let held_up = self.lanes.iter().filter(|(_, waiting)| !waiting.running);
            let held_up: Vec<Lane> = held_up.map(|(lane, _)| *lane).collect();
            held_up.into_iter().for_each(|lane| self.start(lane));
        }
    }

    /// Answers, unless the cluster has stopped asking.
    fn give(&mut self, open: OpenStage, answer: Answer) {
        let me = self.context.me;
        let awaited = |view: &Arc<View>| answer.is_awaited(&view.state, me, open);
        if self.view.as_ref().is_some_and(awaited) {
            let sent = self.turn;
            self.given.insert(open, Given { answer, sent });
            self.due.insert(open);
        }
    }

    /// Makes due again what was sent at least one whole interval ago.
    fn repeat(&mut self) {
        self.turn += 1;
        let again = |given: &Given| given.sent + 1 < self.turn;
        let given = self.given.iter().filter(|(_, given)| again(given));
        self.due.extend(given.map(|(open, _)| *open));
    }

    fn publish(&self) {
        let oldest = self.holding.first();
        let cursor = oldest.map_or(self.taken.0, |seq| seq.0 - 1);
        self.context.cursor.store(cursor, Ordering::Release);
        let queued = &self.context.counters.queued;
        queued.store(self.queued as u64, Ordering::Relaxed);
    }
}

impl Rejoin {
    fn new(seq: EventSeq, rejoined: &NodeRejoined) -> Self {
        let judged = rejoined.verdicts.iter().map(|(id, _)| *id);
        let held = rejoined.partitions_before_leave.iter().copied();
        Self {
            seq,
            node: rejoined.node.raft_id,
            partitions: held.chain(judged).collect(),
        }
    }

    /// Tells whether the hook about `change` must find this rejoin through.
    fn concerns(&self, change: &PartitionChange, me: RaftId) -> bool {
        let primaries = change.old_primary.iter().chain(&change.new_primary);
        let mut nodes = primaries.chain(&change.sources).chain([&change.target]);
        self.node == me
            || self.partitions.contains(&change.partition)
            || nodes.any(|node| node.raft_id == self.node)
    }
}

fn delivery(seq: EventSeq, event: ClusterEvent, answer: Option<Answer>) -> Delivery {
    Delivery {
        seq,
        event,
        answer,
        superseded: CancellationToken::new(),
    }
}

fn is_wanted(delivery: &Delivery, state: &ClusterState, me: RaftId) -> bool {
    match (delivery.answer, delivery.open_stage()) {
        (Some(answer), Some(open)) => answer.is_wanted(state, me, open),
        _ => true,
    }
}

/// Takes what is due into one batch.
fn batch(due: &mut BTreeSet<OpenStage>, given: &mut BTreeMap<OpenStage, Given>, turn: u64) -> Acks {
    let later = due.iter().nth(ACKS_PER_BATCH).copied();
    let later = later.map_or_else(BTreeSet::new, |first| due.split_off(&first));
    let mut acks = Acks::default();
    for open in mem::replace(due, later) {
        if let Some(given) = given.get_mut(&open) {
            given.sent = turn;
            match given.answer {
                Answer::Synced => acks.synced.push(open),
                Answer::Released => acks.released.push(open),
            }
        }
    }
    acks
}

async fn next_of<T: Send + 'static>(tasks: &mut TaskSet<T>) -> Ended<T> {
    match tasks.join_next().await {
        Some(ended) => ended,
        None => pending().await,
    }
}

//! What the hooks of each process were called with, and how each call ended.
//!
//! The program's own hooks run inside a subscriber that handles every event and writes it down. The
//! record is judged at the end by [`crate::check::hooks`].

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clusterkit::{
    EventsMissed, HealthChange, HookKind, HookResult, NodeJoined, NodeLeft, NodeRejoined,
    PartitionChange, RebalanceCompleted, RebalanceStarted, Subscriber,
};
use clusterkit_core::event::Event;
use clusterkit_core::id::{EventSeq, RaftId};

use super::fabric::Fabric;
use crate::Violation;
use crate::check::hooks::{self, CallEnd, HookCall, Process, Told};

/// The file in which an embedded node remembers how far its hooks are.
pub(super) const CURSOR_FILE: &str = "hooks.cursor";

/// The calls of one process.
pub(crate) struct Recorder {
    fabric: Arc<Fabric>,
    calls: Mutex<Vec<HookCall>>,
    /// Whether hooks were put beside it.
    used: AtomicBool,
}

impl Recorder {
    pub(super) fn new(fabric: Arc<Fabric>) -> Arc<Self> {
        Arc::new(Self {
            fabric,
            calls: Mutex::default(),
            used: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<HookCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, told: Told) -> Running {
        let from = self.fabric.now();
        let mut calls = self.lock();
        calls.push(HookCall {
            told,
            from,
            ended: None,
        });
        Running {
            recorder: Arc::clone(self),
            number: calls.len() - 1,
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("calls", &self.lock().len())
            .finish_non_exhaustive()
    }
}

/// A call that has not ended. Where its future is dropped, so is this.
struct Running {
    recorder: Arc<Recorder>,
    number: usize,
}

impl Running {
    fn end(self, result: HookResult) -> HookResult {
        let how = match &result {
            Ok(()) => CallEnd::Ok,
            Err(_) => CallEnd::Failed,
        };
        self.ended(how);
        result
    }

    /// Notes the first end only.
    fn ended(&self, how: CallEnd) {
        let now = self.recorder.fabric.now();
        let mut calls = self.recorder.lock();
        if let Some(call) = calls.get_mut(self.number) {
            call.ended.get_or_insert((now, how));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended(CallEnd::Dropped);
    }
}

/// Hooks with somebody who takes notes.
pub(super) struct Recorded {
    hooks: Arc<dyn Subscriber>,
    recorder: Arc<Recorder>,
}

impl Recorded {
    pub(super) fn new(hooks: Arc<dyn Subscriber>, recorder: Arc<Recorder>) -> Self {
        recorder.used.store(true, Ordering::Relaxed);
        Self { hooks, recorder }
    }

    /// Notes that `hook` is called, and how that ends.
    async fn note(&self, told: Told, hook: impl Future<Output = HookResult> + Send) -> HookResult {
        let running = self.recorder.begin(told);
        running.end(hook.await)
    }
}

#[async_trait]
impl Subscriber for Recorded {
    fn handles(&self, _hook: HookKind) -> bool {
        true
    }

    async fn on_partition_change(&self, change: PartitionChange) -> HookResult {
        let told = Told::Partition {
            partition: change.partition,
            stage: change.stage,
            stage_id: change.stage_id,
            target: change.target.raft_id,
        };
        self.note(told, self.hooks.on_partition_change(change))
            .await
    }

    async fn on_node_join(&self, joined: NodeJoined) -> HookResult {
        let told = Told::Joined(joined.node.raft_id, joined.at);
        self.note(told, self.hooks.on_node_join(joined)).await
    }

    async fn on_node_rejoin(&self, rejoined: NodeRejoined) -> HookResult {
        let told = Told::Rejoined(rejoined.node.raft_id, rejoined.at);
        self.note(told, self.hooks.on_node_rejoin(rejoined)).await
    }

    async fn on_node_leave(&self, left: NodeLeft) -> HookResult {
        let told = Told::Left(left.node.raft_id, left.at);
        self.note(told, self.hooks.on_node_leave(left)).await
    }

    async fn on_rebalance_start(&self, started: RebalanceStarted) -> HookResult {
        let told = Told::RebalanceStarted(started.plan);
        self.note(told, self.hooks.on_rebalance_start(started))
            .await
    }

    async fn on_rebalance_complete(&self, completed: RebalanceCompleted) -> HookResult {
        let told = Told::RebalanceCompleted(completed.plan);
        self.note(told, self.hooks.on_rebalance_complete(completed))
            .await
    }

    async fn on_health_change(&self, change: HealthChange) -> HookResult {
        let told = Told::Health(change.status, change.at);
        self.note(told, self.hooks.on_health_change(change)).await
    }

    async fn on_events_missed(&self, missed: EventsMissed) -> HookResult {
        let told = Told::Missed(missed.from, missed.to);
        self.note(told, self.hooks.on_events_missed(missed)).await
    }
}

/// What a process found on its disk: how far the hooks of which membership were.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    owner: String,
    after: EventSeq,
}

impl Cursor {
    /// Reads what an embedded node wrote: cluster, member, event.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let (owner, after) = text.trim().rsplit_once(' ')?;
        let member = owner.rsplit_once(' ').map_or(owner, |(_, member)| member);
        Some(Self {
            owner: member.to_owned(),
            after: EventSeq(after.parse().ok()?),
        })
    }
}

/// One process of the run, as far as its hooks go.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) recorder: Arc<Recorder>,
    pub(super) cursor: Option<Cursor>,
    /// Which member it turned out to be.
    pub(super) member: Option<RaftId>,
}

/// Judges `processes`, in the order in which they began; those of `living` run as members. All of
/// `committed` is the log's, and everybody has heard of all up to `until`.
pub(super) fn check(
    committed: &[Event],
    processes: &[Notes],
    living: &[Arc<Recorder>],
    until: EventSeq,
    now: Duration,
) -> Result<(), Violation> {
    let members = processes.iter().filter_map(|process| {
        let node = process.member?;
        if !process.recorder.used.load(Ordering::Relaxed) {
            return None;
        }
        let cursor = process.cursor.as_ref();
        let found = cursor.filter(|cursor| cursor.owner == node.to_string());
        // Who has not been told anything yet begins with its own admission.
        let first = || {
            let event = committed.iter().find(|event| event.index.0 >= node.0);
            event.map_or(until, |event| EventSeq(event.seq.0.saturating_sub(1)))
        };
        let lives = living.iter().any(|one| Arc::ptr_eq(one, &process.recorder));
        Some(Process {
            node,
            after: found.map_or_else(first, |found| found.after),
            calls: process.recorder.lock().clone(),
            lives,
        })
    });
    let members: Vec<Process> = members.collect();
    hooks::check(committed, &members, until, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_the_embedded_node_writes_it() {
        let cursor = Cursor::parse(b"5bd0-11 9 41\n").unwrap();
        assert_eq!((cursor.owner.as_str(), cursor.after), ("9", EventSeq(41)));
        assert!(Cursor::parse(b"garbage").is_none());
    }
}

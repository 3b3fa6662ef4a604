//! Finding what goes on in a state.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Blocker, Handle, Operation, OperationKind, OperationState, Progress, id_of};
use crate::coordinator::retry_delay;
use crate::copying::{CopyBook, CopyReport};
use crate::id::{NodeId, PartitionId, RaftId, StageId};
use crate::intent::Intent;
use crate::node::{Drain, Node, NodeStatus};
use crate::partition::{Joining, Migration, Partition, Stage};
use crate::pause::Work;
use crate::state::{ActivePlan, ClusterState};
use crate::time::UnixMillis;

/// How long a node that was admitted may take to catch up before it counts as overdue.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);

/// Returns everything that goes on in `state` at `now`: nodes first, then the plan, then partitions
/// in order. `protected` says whether the leader withholds copies, where that is known; `copies` is
/// what copying nodes have reported.
#[must_use]
pub fn operations(
    state: &ClusterState,
    protected: Option<bool>,
    copies: &CopyBook,
    now: UnixMillis,
) -> Vec<Operation> {
    let survey = Survey {
        state,
        protected: protected == Some(true),
        copies,
        now,
    };
    let mut found: Vec<Operation> = Vec::new();
    for node in state.nodes() {
        found.extend(survey.join(node));
        found.extend(survey.repair(node));
        found.extend(survey.drain(node));
        found.extend(survey.intent(node));
    }
    found.extend(state.plan().map(|plan| survey.plan(plan)));
    for (id, partition) in state.partitions_by_id() {
        survey.partition(id, partition, &mut found);
    }
    found
}

struct Survey<'a> {
    state: &'a ClusterState,
    protected: bool,
    copies: &'a CopyBook,
    now: UnixMillis,
}

/// What an operation is about.
#[derive(Default)]
struct Subject {
    node: Option<NodeId>,
    partition: Option<PartitionId>,
}

impl Survey<'_> {
    fn join(&self, node: &Node) -> Option<Operation> {
        if node.status != NodeStatus::Joining {
            return None;
        }
        let mut operation = self.of_node(OperationKind::Join, node, node.joined_at, JOIN_DEADLINE);
        operation.progress.total = 1;
        let node = node.id.clone();
        operation.blockers.push(Blocker::NotCaughtUp { node });
        Some(self.judged(operation))
    }

    fn repair(&self, node: &Node) -> Option<Operation> {
        if node.status != NodeStatus::Down
            || node.evicted
            || !self.state.holds_anything(node.raft_id)
        {
            return None;
        }
        let delay = self.state.repair_delay(node);
        let mut operation = self.of_node(OperationKind::Repair, node, node.status_since, delay);
        operation.progress.total = self.held(node.raft_id);
        let expected = self.state.expected_until(node.raft_id);
        operation.deadline = operation.deadline.max(expected.unwrap_or_default());
        self.add_hindrances(Some(Work::Repair), &mut operation);
        operation.blockers.push(Blocker::RepairDelay {
            node: node.id.clone(),
            until: operation.deadline,
            left_ms: operation.deadline.0.saturating_sub(self.now.0),
        });
        Some(self.judged(operation))
    }

    fn drain(&self, node: &Node) -> Option<Operation> {
        let kind = match node.drain {
            Drain::No => return None,
            Drain::Empty => OperationKind::Drain,
            Drain::Leave => OperationKind::Leave,
        };
        let held = self.held(node.raft_id);
        let begun = self.state.drain_begun(node.raft_id);
        if held == 0 && kind == OperationKind::Drain {
            // It is empty, and stays so: nothing goes on.
            return None;
        }
        let since = begun.map_or(node.status_since, |begun| begun.at);
        let mut operation = self.of_node(kind, node, since, self.copy_deadline());
        let total = begun.map_or(held, |begun| begun.held.max(held));
        operation.progress = Progress {
            done: total - held,
            total,
        };
        operation.handle = Some(Handle::Drain(node.raft_id));
        self.add_hindrances(Some(Work::Drain), &mut operation);
        let concerned = |partition: &Partition| partition.involves(node.raft_id);
        self.add_turns(concerned, &mut operation);
        Some(self.judged(operation))
    }

    fn intent(&self, node: &Node) -> Option<Operation> {
        let intended = self.state.intent(node.raft_id)?;
        let leads = |partition: &&Partition| partition.primary == Some(node.raft_id);
        let left = small(self.state.partitions().iter().filter(leads).count());
        let kind = match intended.intent {
            // It is done, and stays so: nothing goes on.
            Intent::Handover if left == 0 => return None,
            Intent::Handover => OperationKind::Handover,
            Intent::Restart { .. } => OperationKind::Restart,
        };
        let mut operation = self.of_node(kind, node, intended.since, self.copy_deadline());
        operation.deadline = intended.until.unwrap_or(operation.deadline);
        let total = intended.led.max(left);
        operation.progress = Progress {
            done: total - left,
            total,
        };
        operation.handle = Some(Handle::Intent(node.raft_id));
        Some(self.judged(operation))
    }

    fn plan(&self, plan: &ActivePlan) -> Operation {
        let node = plan.trigger_node.and_then(|node| self.named(node));
        let subject = Subject {
            node,
            partition: None,
        };
        let id = id_of(OperationKind::Plan, &plan.id);
        let mut operation = self.operation(
            OperationKind::Plan,
            id,
            subject,
            plan.started_at,
            self.copy_deadline(),
        );
        operation.progress = Progress {
            done: plan.partitions_moved,
            total: plan.partitions_to_move,
        };
        operation.handle = Some(Handle::Plan(plan.id));
        self.add_hindrances(None, &mut operation);
        if self.state.plan_basis() != self.state.planned_basis() {
            operation.blockers.push(Blocker::AwaitsPlan);
        }
        let held = self.state.held_back();
        for work in Work::ALL {
            let holds = held
                .iter()
                .any(|(id, it)| *it == work && plan.targets.contains_key(id));
            if let Some(pause) = self.state.pause(work).filter(|_| holds) {
                operation.blockers.push(Blocker::Paused {
                    work,
                    reason: String::from(&*pause.reason),
                });
            }
        }
        self.add_turns(|_| true, &mut operation);
        self.judged(operation)
    }

    /// Finds what goes on about one partition.
    fn partition(&self, id: PartitionId, partition: &Partition, found: &mut Vec<Operation>) {
        match &partition.stage {
            Stage::Stable => {}
            Stage::Syncing(migration) => found.push(self.migration(id, partition, migration)),
            Stage::Cleanup {
                id: stage,
                leaving,
                asked_at,
            } => found.push(self.cleanup(id, *stage, leaving, *asked_at)),
        }
        for behind in &partition.behind {
            let (Some(stage), Some(node)) = (behind.stage, self.named(behind.node)) else {
                continue;
            };
            let name = alloc::format!("{id}-{stage}-{node}");
            let subject = Subject {
                node: Some(node.clone()),
                partition: Some(id),
            };
            let kind = OperationKind::CatchUp;
            let (since, limit) = (behind.asked_at, self.copy_deadline());
            let mut operation = self.operation(kind, id_of(kind, &name), subject, since, limit);
            operation.progress.total = 1;
            let copied = self.copies.find(behind.node, id, stage);
            operation.deadline = after(advanced(since, copied), limit);
            operation.blockers.push(Blocker::CopyUnanswered {
                node,
                partition: id,
                stage,
                waited_ms: self.waited(since),
                copied: copied.map(|report| report.progress.clone()),
            });
            found.push(self.judged(operation));
        }
    }

    fn migration(
        &self,
        id: PartitionId,
        partition: &Partition,
        migration: &Migration,
    ) -> Operation {
        let asked = migration.joining.iter().map(|joining| joining.asked_at);
        let since = asked.min().unwrap_or(self.now);
        let open = migration.joining.iter().filter(|joining| !joining.synced);
        // The first one that is still asked runs out first.
        let copied = |joining: &Joining| self.copies.find(joining.node, id, joining.stage);
        let due = open.clone();
        let due = due.map(|joining| advanced(joining.asked_at, copied(joining)));
        let due = due.min();
        let kind = OperationKind::Migration;
        let name = alloc::format!("{id}-{}", migration.id);
        let subject = Subject {
            node: None,
            partition: Some(id),
        };
        let mut operation = self.operation(
            kind,
            id_of(kind, &name),
            subject,
            since,
            self.copy_deadline(),
        );
        if let Some(due) = due {
            operation.deadline = after(due, self.copy_deadline());
        }
        let total = small(migration.joining.len());
        operation.progress = Progress {
            done: total - small(open.clone().count()),
            total,
        };
        operation.handle = Some(Handle::Migration(id, migration.id));
        if partition.primary.is_none() {
            operation
                .blockers
                .push(Blocker::NoLiveSource { partition: id });
        }
        for joining in open {
            let Some(node) = self.named(joining.node) else {
                continue;
            };
            operation
                .blockers
                .push(match self.state.is_live(joining.node) {
                    false => Blocker::NodeDown { node },
                    true => Blocker::CopyUnanswered {
                        node,
                        partition: id,
                        stage: joining.stage,
                        waited_ms: self.waited(joining.asked_at),
                        copied: copied(joining).map(|report| report.progress.clone()),
                    },
                });
        }
        if operation.progress.done == total && !self.state.can_switch(id) {
            operation
                .blockers
                .push(Blocker::WouldLoseCopies { partition: id });
        }
        self.judged(operation)
    }

    fn cleanup(
        &self,
        id: PartitionId,
        stage: StageId,
        leaving: &[RaftId],
        asked_at: UnixMillis,
    ) -> Operation {
        let kind = OperationKind::Cleanup;
        let name = alloc::format!("{id}-{stage}");
        let subject = Subject {
            node: None,
            partition: Some(id),
        };
        let limit = Duration::from_millis(self.state.config().cleanup_deadline_ms);
        let mut operation = self.operation(kind, id_of(kind, &name), subject, asked_at, limit);
        operation.progress.total = small(leaving.len());
        operation.handle = Some(Handle::Cleanup(id, stage));
        let waited = leaving.iter().filter_map(|&node| self.named(node));
        operation
            .blockers
            .extend(waited.map(|node| Blocker::ReleaseUnanswered {
                node,
                partition: id,
                stage,
                waited_ms: self.waited(asked_at),
            }));
        self.judged(operation)
    }

    /// Adds what holds back every copy, and every operation that is `work`.
    fn add_hindrances(&self, work: Option<Work>, operation: &mut Operation) {
        if let Some(pause) = work.and_then(|work| self.state.pause(work)) {
            operation.blockers.push(Blocker::Paused {
                work: pause.work,
                reason: String::from(&*pause.reason),
            });
        }
        if self.protected {
            operation.blockers.push(Blocker::Protected);
        }
    }

    /// Adds what the moves of partitions that are `concerned` wait for before they begin.
    fn add_turns(&self, concerned: impl Fn(&Partition) -> bool, operation: &mut Operation) {
        let Some(plan) = self.state.plan() else {
            if !operation
                .blockers
                .iter()
                .any(|it| matches!(it, Blocker::Paused { .. }))
            {
                operation.blockers.push(Blocker::AwaitsPlan);
            }
            return;
        };
        let mut waiting = 0;
        for &id in plan.targets.keys() {
            let Some(partition) = self.state.partition(id) else {
                continue;
            };
            if !concerned(partition) {
                continue;
            }
            if let (Some(setback), Stage::Stable) = (self.state.setback(id), &partition.stage) {
                let until = after(setback.at, retry_delay(setback.times));
                if until > self.now && operation.blockers.len() < BLOCKERS_MAX {
                    operation.blockers.push(Blocker::Retry {
                        partition: id,
                        times: setback.times,
                        until,
                        left_ms: until.0 - self.now.0,
                    });
                    continue;
                }
            }
            match &partition.stage {
                Stage::Syncing(_) => {}
                _ if operation.blockers.len() >= BLOCKERS_MAX => {}
                Stage::Cleanup { .. } => {
                    operation
                        .blockers
                        .push(Blocker::AwaitsCleanup { partition: id });
                }
                Stage::Stable if partition.primary.is_none() => {
                    operation
                        .blockers
                        .push(Blocker::NoLiveSource { partition: id });
                }
                Stage::Stable => waiting += 1,
            }
        }
        let config = self.state.config();
        let paused = |it: &Blocker| matches!(it, Blocker::Paused { .. } | Blocker::Protected);
        if waiting > 0 && !operation.blockers.iter().any(paused) {
            operation.blockers.push(Blocker::MoveLimits {
                waiting,
                in_flight: small(self.state.moves_in_flight()),
                in_flight_limit: config.moves_in_flight,
                per_node_limit: config.moves_per_node,
            });
        }
    }

    fn of_node(
        &self,
        kind: OperationKind,
        node: &Node,
        since: UnixMillis,
        limit: Duration,
    ) -> Operation {
        let subject = Subject {
            node: Some(node.id.clone()),
            partition: None,
        };
        self.operation(kind, id_of(kind, &node.id), subject, since, limit)
    }

    fn operation(
        &self,
        kind: OperationKind,
        id: String,
        subject: Subject,
        since: UnixMillis,
        limit: Duration,
    ) -> Operation {
        Operation {
            id,
            kind,
            node: subject.node,
            partition: subject.partition,
            state: OperationState::Running,
            since,
            deadline: after(since, limit),
            progress: Progress::default(),
            blockers: Vec::new(),
            cancellable: false,
            handle: None,
        }
    }

    /// Says where `operation` stands, from what it waits for.
    fn judged(&self, mut operation: Operation) -> Operation {
        let is_asked = |blocker: &Blocker| {
            matches!(
                blocker,
                Blocker::CopyUnanswered { .. }
                    | Blocker::ReleaseUnanswered { .. }
                    | Blocker::NotCaughtUp { .. }
            )
        };
        let paused = |blocker: &Blocker| matches!(blocker, Blocker::Paused { .. });
        operation.cancellable = operation.handle.is_some();
        operation.state = if operation.blockers.iter().any(paused) {
            OperationState::Paused
        } else if operation.deadline < self.now {
            OperationState::Overdue
        } else if operation.blockers.iter().all(is_asked) {
            OperationState::Running
        } else {
            OperationState::Waiting
        };
        operation
    }

    fn held(&self, node: RaftId) -> u32 {
        let held = self
            .state
            .partitions()
            .iter()
            .filter(|it| it.involves(node));
        small(held.count())
    }

    fn named(&self, node: RaftId) -> Option<NodeId> {
        self.state.node_record(node).map(|node| node.id.clone())
    }

    fn waited(&self, since: UnixMillis) -> u64 {
        self.now.0.saturating_sub(since.0)
    }

    fn copy_deadline(&self) -> Duration {
        Duration::from_millis(self.state.config().copy_deadline_ms)
    }
}

/// The most blockers one operation names beside those of the whole cluster.
const BLOCKERS_MAX: usize = 16;

/// Returns since when a copy has not got further.
fn advanced(asked_at: UnixMillis, copied: Option<&CopyReport>) -> UnixMillis {
    copied.map_or(asked_at, |report| asked_at.max(report.advanced_at))
}

fn after(at: UnixMillis, limit: Duration) -> UnixMillis {
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(at.0.saturating_add(limit))
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

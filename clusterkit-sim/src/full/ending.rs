//! The end of a run: after quiet everything is well again, and the program kept its promises.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clusterkit_core::control::View;
use clusterkit_core::id::RaftId;
use clusterkit_core::node::NodeStatus;

use super::machine::Machine;
use super::world::{QUIET_MAX, World};
use crate::Violation;
use crate::check::owners;

/// How long every call may take at most once nothing goes wrong any more.
const CALLS_MAX: Duration = Duration::from_secs(15);
/// How long the program may take to say whether it kept its promises.
const VERIFY_MAX: Duration = Duration::from_secs(60);
/// For how long all must be well.
const WELL: Duration = Duration::from_millis(300);
/// The number of the client that looks at what is left.
const AUDITOR: u32 = 200;

impl World {
    /// Waits for quiet and judges what is left.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        let quiet = self.now;
        self.note(format_args!("quiet"));
        self.shared.closing.store(true, Ordering::Relaxed);
        loop {
            let all = self.clients.len();
            let running = self.clients.iter().filter(|client| !client.has_ended());
            let running = running.count();
            if running == 0 {
                break;
            }
            self.turn()?;
            if self.now > quiet + CALLS_MAX {
                let detail = format!("{running} of {all} clients still wait for a call");
                return Err(Violation::new("call-hangs", detail, self.now));
            }
        }
        if self.shared.clocks_are_kept {
            owners::check_tokens(&self.tokens.claims())?;
        }
        if !self.is_lost {
            self.recover(quiet + QUIET_MAX)?;
            self.check_hooks()?;
        }
        self.verify()
    }

    /// Lets the program say whether its promises were kept.
    fn verify(&mut self) -> Result<(), Violation> {
        let verdict = Arc::new(Mutex::new(None));
        let (client, said) = (self.client(AUDITOR), Arc::clone(&verdict));
        let program = Arc::clone(&self.shared.program);
        let mut machine = Machine::default();
        machine.start(self.now, &mut self.rng.split("audit"), || async move {
            let found = program.verify(client).await;
            *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        });
        let begun = self.now;
        while !machine.has_ended() {
            self.turn()?;
            machine.drive(self.now);
            if self.now > begun + VERIFY_MAX {
                let detail = "the program does not say whether its promises were kept";
                return Err(Violation::new("audit-hangs", detail, self.now));
            }
        }
        machine.kill();
        let verdict = verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        verdict.unwrap_or_else(|| {
            let detail = "what verifies the promises of the program panicked";
            Err(Violation::new("audit-panics", detail, self.now))
        })
    }

    /// Waits until all has been well for a while.
    fn recover(&mut self, limit: Duration) -> Result<(), Violation> {
        let mut well_since = None;
        loop {
            self.turn()?;
            let Some(trouble) = self.trouble() else {
                if self.now >= *well_since.get_or_insert(self.now) + WELL {
                    self.note(format_args!("well again"));
                    return Ok(());
                }
                continue;
            };
            well_since = None;
            if self.now > limit {
                return Err(Violation::new("not-converged", trouble, self.now));
            }
        }
    }

    /// Returns the views of all nodes that run as members.
    fn views(&self) -> Vec<(u32, Arc<View>)> {
        let views = self.nodes.iter().filter_map(|node| {
            let view = node.probe.cluster()?.log_view();
            view.topology.this_node()?;
            Some((node.number, view))
        });
        views.collect()
    }

    /// Returns what is not well, if anything.
    fn trouble(&self) -> Option<String> {
        for node in &self.nodes {
            if node.retired || node.dismissed {
                continue;
            }
            let number = node.number;
            match node.probe.cluster() {
                None => return Some(format!("node-{number} has not started")),
                Some(cluster) if !cluster.is_ready() => {
                    return Some(format!("node-{number} is not ready: {cluster:?}"));
                }
                Some(_) => {}
            }
        }
        let views = self.views();
        let Some((_, first)) = views.first() else {
            return Some(String::from("nobody is a member"));
        };
        let leaders = views.iter().filter(|(_, view)| view.leadership.is_leader);
        let leaders = leaders.count();
        if leaders != 1 {
            return Some(format!("{leaders} nodes lead"));
        }
        for (number, view) in &views {
            if view.applied != first.applied || view.leadership.leader != first.leadership.leader {
                return Some(format!("node-{number} has not seen all"));
            }
        }
        unsettled(first)
    }

    /// Judges what the hooks were told.
    fn check_hooks(&self) -> Result<(), Violation> {
        let Some(until) = self.committed.last().map(|event| event.seq) else {
            return Ok(());
        };
        let views = self.views().into_iter().map(|(_, view)| view);
        let newest = views.max_by_key(|view| view.state.applied());
        // One that was removed and has not heard of it is told when it does, or never.
        let is_member = |member: Option<RaftId>| {
            let state = newest.as_ref().map(|view| &view.state);
            member.is_some_and(|member| state.is_some_and(|state| state.node(member).is_some()))
        };
        let living: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.probe.cluster().is_some())
            .filter_map(|node| self.notes.get(node.notes))
            .filter(|notes| is_member(notes.member))
            .map(|notes| Arc::clone(&notes.recorder))
            .collect();
        super::hooks::check(&self.committed, &self.notes, &living, until, self.now)
    }
}

/// Returns what is still going on in the cluster, if anything.
fn unsettled(view: &View) -> Option<String> {
    let state = &view.state;
    if state.plan().is_some() {
        return Some(String::from("a plan is being carried out"));
    }
    let takes_data =
        |node: &clusterkit_core::node::Node| node.status == NodeStatus::Active && node.weight > 0;
    let active = state.nodes().filter(|node| takes_data(node)).count();
    let wanted = usize::try_from(view.topology.replication_factor()).unwrap_or(usize::MAX);
    for (id, partition) in state.partitions_by_id() {
        let members = partition.members().count();
        if partition.primary.is_none() {
            return Some(format!("partition {id} has no primary"));
        }
        if !partition.joining().is_empty() || !partition.leaving().is_empty() {
            return Some(format!("partition {id} still moves"));
        }
        if members < wanted.min(active) {
            return Some(format!("partition {id} has {members} copies of {wanted}"));
        }
        for node in partition.members() {
            if partition.is_behind(node) && state.is_live(node) {
                return Some(format!("node {node} is behind in partition {id}"));
            }
        }
    }
    None
}

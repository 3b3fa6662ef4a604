//! The end of a run: after quiet everything is well again, and nothing that was acknowledged is
//! gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clusterkit_core::control::View;
use clusterkit_core::id::RaftId;
use clusterkit_core::node::NodeStatus;
use clusterkit_http::client::{ClientLimits, HttpClient, HttpRequest};

use super::machine::Machine;
use super::net::SimNetwork;
use super::world::{QUIET_MAX, World, client_host};
use crate::Violation;
use crate::check::Value;
use crate::check::linear::{self, Linear};
use crate::check::owners;
use crate::check::records::{self, Copies, Losses};

/// How long every call may take at most once nothing goes wrong any more.
const CALLS_MAX: Duration = Duration::from_secs(15);
/// How long after quiet copies may differ: the service looks for unfinished writes every two
/// seconds and is done with one within five.
const COPIES_MAX: Duration = Duration::from_secs(15);
/// How long to wait before copies that differ are looked at again.
const COPIES_PAUSE: Duration = Duration::from_millis(250);
/// For how long all must be well.
const WELL: Duration = Duration::from_millis(300);
/// How many situations the search for an order may look at, for each key.
const LINEAR_STEPS: u64 = 100_000;
/// The number of the client that looks at what is left.
const AUDITOR: u32 = 200;

/// What stands under each key on each node, by its address.
type Found = Arc<Mutex<BTreeMap<(String, String), Result<Option<Value>, String>>>>;

impl World {
    /// Waits for quiet and judges what is left.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        let quiet = self.now;
        self.note(format_args!("quiet"));
        self.workload.close();
        while self.workload.done() < self.clients() {
            self.turn()?;
            if self.now > quiet + CALLS_MAX {
                let detail = format!(
                    "{} of {} clients still wait for a call",
                    self.clients() - self.workload.done(),
                    self.clients()
                );
                return Err(Violation::new("call-hangs", detail, self.now));
            }
        }
        let (history, data) = self.workload.take();
        if self.clocks_are_kept {
            owners::check_tokens(&self.tokens.claims())?;
        }
        if !self.is_lost {
            self.recover(quiet + QUIET_MAX)?;
            self.check_tags()?;
            self.check_hooks()?;
        }
        if let Linear::Undecided(keys) = linear::check(&data, LINEAR_STEPS)? {
            self.note(format_args!("no order was found in time for {keys:?}"));
        }
        if !self.wiped.is_empty() {
            // Whether the last copy of a record was on a disk that is gone is not worked out.
            return Ok(());
        }
        let losses = Losses::new();
        records::check(&history, &losses)?;
        loop {
            let copies = self.audit()?;
            match records::check_final(&history, &losses, &copies, self.now) {
                // A write that some copies lack is finished by the primary without being asked.
                Err(differ)
                    if differ.rule == "replicas-differ" && self.now < quiet + COPIES_MAX =>
                {
                    let next = self.now + COPIES_PAUSE;
                    while self.now < next {
                        self.turn()?;
                    }
                }
                judged => return judged,
            }
        }
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
        let living: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.probe.cluster().is_some())
            .filter_map(|node| self.notes.get(node.notes))
            .map(|notes| Arc::clone(&notes.recorder))
            .collect();
        super::hooks::check(&self.committed, &self.notes, &living, until, self.now)
    }

    /// Asks every node for the topology with the entity tag of an early one.
    fn check_tags(&mut self) -> Result<(), Violation> {
        let Some(tag) = self.workload.tag() else {
            return Ok(());
        };
        let views = self.views();
        let nodes: Vec<String> = views
            .iter()
            .filter_map(|(_, view)| Some(view.topology.this_node()?.address.to_string()))
            .collect();
        let Some((_, view)) = views.first() else {
            return Ok(());
        };
        let epoch = view.topology.epoch();
        let is_old = tag != format!("\"{epoch}\"");
        let found: Tags = Arc::default();
        let noted = Arc::clone(&found);
        self.audit_with("tags", |http| ask_tags(http, nodes, tag.clone(), noted))?;
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, answer) in found.iter() {
            let right = if is_old { 200 } else { 304 };
            if *answer != Ok(right) {
                let detail = format!(
                    "{node} at epoch {epoch} answers {answer:?} to whoever has {tag}, not {right}"
                );
                return Err(Violation::new("etag-lies", detail, self.now));
            }
        }
        Ok(())
    }

    /// Runs `work` on a machine of its own until it has ended.
    fn audit_with<F>(
        &mut self,
        name: &str,
        work: impl FnOnce(HttpClient) -> F,
    ) -> Result<(), Violation>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let host = client_host(AUDITOR);
        let boot = self.fabric.boot(host);
        let network = Arc::new(SimNetwork::new(Arc::clone(&self.fabric), host, boot));
        let http = HttpClient::over(network, ClientLimits::default());
        let mut machine = Machine::default();
        let asking = work(http);
        machine.start(self.now, &mut self.rng.split(name), || asking);
        let begun = self.now;
        while !machine.has_ended() {
            self.turn()?;
            machine.drive(self.now);
            if self.now > begun + CALLS_MAX {
                let detail = format!("{name} cannot be read");
                return Err(Violation::new("audit-hangs", detail, self.now));
            }
        }
        machine.kill();
        Ok(())
    }

    /// Asks every node for its copy of every key.
    fn audit(&mut self) -> Result<Vec<Copies>, Violation> {
        let views = self.views();
        let Some((_, view)) = views.first() else {
            return Ok(Vec::new());
        };
        let found: Found = Arc::default();
        let mut wanted: Vec<(String, String)> = Vec::new();
        let mut holders: BTreeMap<String, Vec<(RaftId, String)>> = BTreeMap::new();
        for key in self.workload.record_keys() {
            let partition = view.topology.partition(key.as_bytes());
            for member in view.topology.members(partition) {
                let Some(address) = member.service("kv") else {
                    continue;
                };
                wanted.push((address.to_owned(), key.clone()));
                let of_key = holders.entry(key.clone()).or_default();
                of_key.push((member.raft_id, address.to_owned()));
            }
        }
        let noted = Arc::clone(&found);
        self.audit_with("copies", |http| ask_all(http, wanted, noted))?;
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for (key, members) in holders {
            let mut copies = Vec::new();
            for (member, address) in members {
                match found.get(&(address.clone(), key.clone())) {
                    Some(Ok(value)) => copies.push((member, *value)),
                    other => {
                        let detail = format!("`{key}` at {address}: {other:?}");
                        return Err(Violation::new("copy-unreadable", detail, self.now));
                    }
                }
            }
            all.push(Copies { key, copies });
        }
        Ok(all)
    }
}

/// How each node answers who has an entity tag.
type Tags = Arc<Mutex<Vec<(String, Result<u16, String>)>>>;

async fn ask_tags(http: HttpClient, nodes: Vec<String>, tag: String, found: Tags) {
    for node in nodes {
        let request = HttpRequest::get("/v1/topology")
            .header("if-none-match", tag.as_str())
            .within(Duration::from_secs(2));
        let answer = http.send(&node, request).await;
        let answer = answer.map(|answer| answer.status());
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.push((node, answer.map_err(|error| error.to_string())));
    }
}

async fn ask_all(http: HttpClient, wanted: Vec<(String, String)>, found: Found) {
    for (address, key) in wanted {
        let request = HttpRequest::get(format!("/kv/get?key={key}&local=1"))
            .header("accept", "application/octet-stream")
            .within(Duration::from_secs(2));
        let answer = match http.send(&address, request).await {
            Ok(answer) if answer.status() == 404 => Ok(None),
            Ok(answer) if answer.is_success() => Ok(Some(Value::of(answer.body()))),
            Ok(answer) => Err(format!("status {}", answer.status())),
            Err(error) => Err(error.to_string()),
        };
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert((address, key), answer);
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

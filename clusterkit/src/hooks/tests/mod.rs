//! Tests of hooks: real commands go into a real state, its views are fed to the runner, and calls
//! are recorded. Time is paused; what is waited for is a condition.

mod answers;
mod calls;
mod copying;
mod limits;
mod stream;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clusterkit_core::command::{Applied, Command};
use clusterkit_core::config::{ClusterConfig, ConfigChange};
use clusterkit_core::control::{Leadership, View};
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::explain::PlanHistory;
use clusterkit_core::id::{
    ClusterId, DiskId, EventSeq, Incarnation, LogIndex, NodeId, PartitionId, PlanId, RaftId,
    StageId,
};
use clusterkit_core::node::{Node, NodeSpec};
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::UnixMillis;
use tokio::sync::mpsc;

use super::{
    Acks, Copies, HookCounters, HookResult, HookRunner, HookSettings, Hooks, NodeJoined,
    PartitionChange, Subscriber,
};

/// Far beyond anything a test waits for; in paused time it costs nothing.
const LIMIT: Duration = Duration::from_secs(300);

/// A replicated state and the log that made it.
struct Cluster {
    state: ClusterState,
    index: u64,
    version: u64,
    nodes: Vec<NodeSpec>,
    ids: Vec<RaftId>,
}

impl Cluster {
    /// Forms a cluster of `nodes` active nodes, called `n1` and so on, without placement.
    fn of(nodes: u32, partitions: u32) -> Self {
        let mut cluster = Self {
            state: ClusterState::new(),
            index: 0,
            version: 0,
            nodes: Vec::new(),
            ids: Vec::new(),
        };
        let config = ClusterConfig {
            partition_count: partitions,
            replication_factor: 2,
            ..ClusterConfig::default()
        };
        let at = cluster.at();
        cluster.apply(&Command::Bootstrap {
            cluster: ClusterId::from_bytes([7; 16]),
            config,
            node: spec(1),
            at,
        });
        cluster.nodes.push(spec(1));
        cluster.ids.push(RaftId::BOOTSTRAP);
        (1..nodes).for_each(|_| cluster.join());
        cluster
    }

    fn join(&mut self) {
        let number = u8::try_from(self.nodes.len() + 1).unwrap();
        let (node, at) = (spec(number), self.at());
        self.nodes.push(node.clone());
        let replaces = None;
        let joined = self.apply(&Command::Join { node, replaces, at });
        let node = joined.node.unwrap();
        self.ids.push(node);
        let at = self.at();
        self.apply(&Command::Activate { node, at });
    }

    /// Returns the internal id of `n<number>`.
    fn id(&self, number: usize) -> RaftId {
        self.ids[number - 1]
    }

    /// Returns the wall-clock time of the next command: ten seconds after the one before.
    fn at(&self) -> UnixMillis {
        UnixMillis(10_000 * (self.index + 1))
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        self.state.apply(LogIndex(self.index), command).unwrap()
    }

    /// Plans `rows`, each a partition and the numbers of its nodes, and starts what moves.
    fn plan(&mut self, rows: &[(u32, &[usize])]) {
        let targets: Vec<(PartitionId, Vec<RaftId>)> = rows
            .iter()
            .map(|(p, row)| (PartitionId(*p), row.iter().map(|n| self.id(*n)).collect()))
            .collect();
        let command = Command::Plan {
            base: self.state.epoch(),
            trigger: PlanTrigger::Manual,
            trigger_node: None,
            basis: 1,
            targets,
            at: self.at(),
        };
        self.apply(&command);
        if self.state.plan().is_some() {
            let command = Command::StartMoves {
                plan: PlanId(self.index),
                moves: rows.iter().map(|(p, _)| PartitionId(*p).into()).collect(),
                at: self.at(),
            };
            self.apply(&command);
        }
    }

    /// Places every partition on the nodes `row`.
    fn place(&mut self, row: &[usize]) {
        let count = u32::try_from(self.state.partitions().len()).unwrap();
        let rows: Vec<(u32, &[usize])> = (0..count).map(|p| (p, row)).collect();
        self.plan(&rows);
    }

    fn synced(&mut self, number: usize, stages: Vec<(PartitionId, StageId)>) {
        let (node, at) = (self.id(number), self.at());
        self.apply(&Command::Synced { node, stages, at });
    }

    fn switch(&mut self, stages: Vec<(PartitionId, StageId)>) {
        let at = self.at();
        self.apply(&Command::Switch { stages, at });
    }

    fn revert(&mut self, stages: Vec<(PartitionId, StageId)>) {
        let at = self.at();
        self.apply(&Command::Revert { stages, at });
    }

    fn down(&mut self, number: usize) {
        let command = Command::MarkDown {
            nodes: vec![self.id(number)],
            promotions: Vec::new(),
            at: self.at(),
        };
        self.apply(&command);
    }

    fn up(&mut self, number: usize) {
        let (nodes, at) = (vec![self.id(number)], self.at());
        self.apply(&Command::MarkUp { nodes, at });
    }

    /// Starts the process of `n<number>` again.
    fn restart(&mut self, number: usize) {
        let mut spec = self.nodes[number - 1].clone();
        spec.incarnation = Incarnation(spec.incarnation.0 + 1);
        self.nodes[number - 1] = spec.clone();
        let (node, at) = (self.id(number), self.at());
        self.apply(&Command::Announce { node, spec, at });
    }

    fn view(&mut self, me: RaftId) -> Arc<View> {
        self.version += 1;
        Arc::new(View {
            version: self.version,
            topology: Arc::new(self.state.topology(me)),
            state: Arc::new(self.state.clone()),
            plans: PlanHistory::default(),
            leadership: Leadership::default(),
            applied: LogIndex(self.index),
            committed: LogIndex(self.index),
        })
    }
}

fn spec(number: u8) -> NodeSpec {
    let id = NodeId::new(format!("n{number}")).unwrap();
    let disk = DiskId::from_bytes([number; 16]);
    NodeSpec::new(
        id,
        disk,
        &format!("127.0.0.1:{}", 9_000 + u16::from(number)),
    )
}

/// A cluster seen by one of its nodes, whose hooks run.
struct Node1 {
    cluster: Cluster,
    me: RaftId,
    runner: HookRunner,
    counters: Arc<HookCounters>,
    copies: Arc<Copies>,
    acks: mpsc::Receiver<Acks>,
}

impl Node1 {
    /// Runs `hooks` on `n<number>` from the event after `cursor` on.
    fn start(cluster: Cluster, number: usize, cursor: EventSeq, hooks: impl Subscriber) -> Self {
        Self::start_with(cluster, number, cursor, hooks, HookSettings::default())
    }

    fn start_with(
        cluster: Cluster,
        number: usize,
        cursor: EventSeq,
        hooks: impl Subscriber,
        settings: HookSettings,
    ) -> Self {
        let me = cluster.id(number);
        let (hooks, counters) = (Arc::new(hooks), Arc::<HookCounters>::default());
        let copies = Arc::<Copies>::default();
        let shared = Arc::clone(&counters);
        let (runner, acks) =
            HookRunner::start(hooks, me, cursor, settings, shared, Arc::clone(&copies));
        let mut node = Self {
            cluster,
            me,
            runner,
            counters,
            copies,
            acks,
        };
        node.feed();
        node
    }

    fn feed(&mut self) {
        let view = self.cluster.view(self.me);
        self.runner.feed(view);
    }

    /// Waits for the next batch of answers.
    async fn answers(&mut self) -> Acks {
        let received = tokio::time::timeout(LIMIT, self.acks.recv()).await;
        received.expect("answers in time").expect("a runner")
    }

    /// Proposes the next batch of answers, as the driver does, and feeds the outcome.
    async fn propose(&mut self) -> Acks {
        let acks = self.answers().await;
        let (node, at) = (self.me, self.cluster.at());
        let stages = acks.synced.clone();
        self.cluster.apply(&Command::Synced { node, stages, at });
        let stages = acks.released.clone();
        self.cluster.apply(&Command::Released { node, stages });
        self.feed();
        acks
    }

    /// Waits until every event is through.
    async fn through(&self) {
        let last = self.cluster.state.last_event();
        wait_until(|| self.runner.cursor() == last && self.counters.figures().queued == 0).await;
    }
}

/// Lets time pass until `condition` holds.
async fn wait_until(mut condition: impl FnMut() -> bool) {
    let step = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while !condition() {
        assert!(
            waited < LIMIT,
            "the condition did not come true in {LIMIT:?}"
        );
        tokio::time::advance(step).await;
        waited += step;
    }
}

/// Lets everything that can run without the condition changing run, for `time`.
async fn let_pass(time: Duration) {
    let step = Duration::from_millis(1);
    for _ in 0..time.as_millis() {
        tokio::time::advance(step).await;
    }
}

/// What was called, one line each.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Returns the lines that begin with `start`.
    fn of(&self, start: &str) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.starts_with(start));
        lines
    }

    /// Returns hooks that write a line for each call.
    fn hooks(&self) -> Hooks {
        let [a, b, c, d, e, f, g] = [(); 7].map(|()| self.clone());
        Hooks::new()
            .on_partition_change(move |change: PartitionChange| a.ok(describe(&change)))
            .on_node_join(move |joined: NodeJoined| {
                b.ok(format!(
                    "join {} size={} bootstrap={} at={}",
                    joined.node.id, joined.cluster_size, joined.is_bootstrap, joined.at.0
                ))
            })
            .on_node_rejoin(move |back| {
                c.ok(format!(
                    "rejoin {} away={:?} since={} held={:?} verdicts={:?} at={}",
                    back.node.id,
                    back.offline_for,
                    back.last_seen_at.0,
                    back.partitions_before_leave,
                    back.verdicts,
                    back.at.0
                ))
            })
            .on_node_leave(move |left| {
                d.ok(format!(
                    "leave {} {:?} owned={:?} replica={:?} at={}",
                    left.node.id,
                    left.reason,
                    left.partitions_owned,
                    left.partitions_replica,
                    left.at.0
                ))
            })
            .on_rebalance_start(move |started| {
                e.ok(format!(
                    "start {:?} of={:?} moves={} nodes={} at={}",
                    started.trigger,
                    started.trigger_node.map(|node| node.id.clone()),
                    started.partitions_to_move,
                    names(&started.nodes_affected),
                    started.at.0
                ))
            })
            .on_rebalance_complete(move |completed| {
                f.ok(format!(
                    "complete {:?} moved={} nodes={} took={:?}",
                    completed.trigger,
                    completed.partitions_moved,
                    names(&completed.nodes_affected),
                    completed.duration
                ))
            })
            .on_health_change(move |change| {
                g.ok(format!(
                    "health {:?} {}/{}/{} down={}",
                    change.status,
                    change.healthy,
                    change.unhealthy,
                    change.total,
                    names(&change.unhealthy_nodes)
                ))
            })
    }

    /// Writes `line` when polled.
    fn ok(&self, line: String) -> impl Future<Output = HookResult> + use<> {
        let calls = self.clone();
        async move {
            calls.add(line);
            Ok(())
        }
    }
}

fn names(nodes: &[Arc<Node>]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    names.join(",")
}

fn describe(change: &PartitionChange) -> String {
    let name = |node: &Option<Arc<Node>>| {
        let id = node.as_ref().map(|node| node.id.to_string());
        id.unwrap_or_else(|| String::from("none"))
    };
    let mut line = format!(
        "p{} {:?} {:?} {} from={} {}>{} {:?}",
        change.partition,
        change.stage,
        change.role,
        change.target.id,
        names(&change.sources),
        name(&change.old_primary),
        name(&change.new_primary),
        change.reason,
    );
    if let Some(epoch) = change.behind_since {
        write!(line, " behind={epoch}").unwrap();
    }
    if change.local {
        line.push_str(" local");
    }
    line
}

/// Opens for everybody who waits, or who comes later.
#[derive(Clone)]
struct Gate(Arc<tokio::sync::Semaphore>);

impl Gate {
    fn closed() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }

    fn open(&self) {
        self.0.add_permits(1_000_000);
    }

    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

/// The stages that `synced` of all partitions of `node` would name.
fn open_stages(state: &ClusterState, node: RaftId) -> BTreeMap<PartitionId, StageId> {
    let joining = state.partitions_by_id().filter_map(|(id, partition)| {
        let mine = partition.joining().iter().find(|j| j.node == node)?;
        Some((id, mine.stage))
    });
    joining.collect()
}

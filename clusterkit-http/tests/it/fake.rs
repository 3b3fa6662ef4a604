//! A control plane in memory and a backend over it: real state, real commands, no log, no network.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::adjust::{Adjustment, MayStop, may_stop, what_if};
use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::control::{ControlPlane, ControlStats, Leadership, ProposeError, View};
use clusterkit_core::coordinator::plan_request;
use clusterkit_core::copying::CopyBook;
use clusterkit_core::event::{LeaveReason, PlanTrigger};
use clusterkit_core::explain::{PlanHistory, PlanRecord, PreviewId};
use clusterkit_core::hash::{HashAlgorithm, HashConfig};
use clusterkit_core::id::{ClusterId, DiskId, LogIndex, NodeId, PartitionId, RaftId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::operation::{Operation, operations};
use clusterkit_core::placement::MinimalMove;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::UnixMillis;
use clusterkit_core::topology::Topology;
use clusterkit_http::api::compat::{JoinDocument, JoinReply};
use clusterkit_http::api::v1::{ExplainDocument, PlanDocument, PlansDocument, RebalanceDocument};
use clusterkit_http::api::{Problem, ProblemCode};
use clusterkit_http::backend::{Backend, Identity, NodeInfo};
use clusterkit_http::routes::{ApiLimits, ClusterApi};
use clusterkit_http::server::{RunningServer, Server, ServerLimits};
use clusterkit_raft::transport::{PeerError, PeerHandler, RpcKind};
use tokio::sync::watch;

pub(crate) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xab; 16]);

/// One member's view of a log that never fails.
#[derive(Debug)]
pub(crate) struct Memory {
    state: Mutex<(ClusterState, PlanHistory)>,
    leadership: Mutex<Leadership>,
    views: watch::Sender<Arc<View>>,
    versions: AtomicU64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let state = (ClusterState::new(), PlanHistory::default());
        let leadership = Leadership {
            leader: Some(RaftId(1)),
            is_leader: true,
            term: 3,
            since: NOW,
        };
        let view = view_of(&state, leadership, 1);
        Self {
            state: Mutex::new(state),
            leadership: Mutex::new(leadership),
            views: watch::Sender::new(Arc::new(view)),
            versions: AtomicU64::new(1),
        }
    }

    pub(crate) fn apply(&self, command: &Command) -> Result<Applied, Rejected> {
        let mut locked = self.state.lock().unwrap();
        let (state, plans) = &mut *locked;
        let at = LogIndex(state.applied().value() + 1);
        let applied = plans.apply(state, at, command);
        self.publish(&locked);
        applied
    }

    pub(crate) fn lead(&self, leader: Option<u64>) {
        let leader = leader.map(RaftId);
        *self.leadership.lock().unwrap() = Leadership {
            leader,
            is_leader: leader == Some(RaftId(1)),
            term: 4,
            since: NOW,
        };
        let state = self.state.lock().unwrap();
        self.publish(&state);
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.view().topology)
    }

    pub(crate) fn view_epoch(&self) -> u64 {
        self.topology().epoch().value()
    }

    /// A member that is not this node.
    pub(crate) fn some_follower(&self) -> RaftId {
        self.topology().nodes()[1].raft_id
    }

    fn publish(&self, state: &(ClusterState, PlanHistory)) {
        let version = self.versions.fetch_add(1, Ordering::SeqCst) + 1;
        let leadership = *self.leadership.lock().unwrap();
        self.views
            .send_replace(Arc::new(view_of(state, leadership, version)));
    }
}

fn view_of(
    (state, plans): &(ClusterState, PlanHistory),
    leadership: Leadership,
    version: u64,
) -> View {
    View {
        version,
        plans: plans.clone(),
        topology: Arc::new(state.topology(RaftId(1))),
        leadership,
        applied: state.applied(),
        committed: state.applied(),
        state: Arc::new(state.clone()),
    }
}

#[async_trait]
impl ControlPlane for Memory {
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        if self.leadership.lock().unwrap().leader.is_none() {
            return Err(ProposeError::NoLeader {
                reason: "asked nobody".into(),
            });
        }
        self.apply(&command).map_err(ProposeError::Rejected)
    }

    fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    async fn changed(&self, after: u64) -> Arc<View> {
        let mut views = self.views.subscribe();
        let newer = views.wait_for(|view| view.version > after).await;
        newer.unwrap().clone()
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    fn stats(&self) -> ControlStats {
        let (state, _) = &*self.state.lock().unwrap();
        let applied = state.applied().value();
        ControlStats {
            state: "Leader".into(),
            term: 3,
            last_log_index: applied,
            last_log_term: 3,
            commit_index: applied,
            applied_index: applied,
            peers: (state.nodes().len() as u64).saturating_sub(1),
            voters: vec![RaftId(1)],
            learners: Vec::new(),
        }
    }

    async fn transfer_leadership(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    async fn shutdown(&self) {}
}

/// A node around a [`Memory`].
pub(crate) struct FakeNode {
    pub(crate) control: Arc<Memory>,
    pub(crate) joined: AtomicBool,
    pub(crate) legacy: bool,
    pub(crate) peers: Arc<Peers>,
}

/// Answers peers with what it was sent, unless told otherwise.
#[derive(Default)]
pub(crate) struct Peers {
    pub(crate) refuse: AtomicBool,
    pub(crate) handled: AtomicU64,
}

#[async_trait]
impl PeerHandler for Peers {
    async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, PeerError> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        if self.refuse.load(Ordering::SeqCst) {
            return Err(PeerError::Refused {
                reason: "member 9 was removed".into(),
            });
        }
        match kind {
            RpcKind::Heartbeat => Err(PeerError::Unavailable {
                detail: "stopping".into(),
            }),
            _ => Ok(body),
        }
    }
}

#[async_trait]
impl Backend for FakeNode {
    fn control(&self) -> Option<Arc<dyn ControlPlane>> {
        let control = Arc::clone(&self.control) as Arc<dyn ControlPlane>;
        self.joined.load(Ordering::SeqCst).then_some(control)
    }

    fn peer(&self) -> Arc<dyn PeerHandler> {
        Arc::clone(&self.peers) as Arc<dyn PeerHandler>
    }

    fn identity(&self) -> Identity {
        Identity {
            cluster: Some(CLUSTER),
            raft_id: Some(RaftId(1)),
        }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            id: NodeId::new("node-1").unwrap(),
            name: "Server-1".into(),
            uptime: Duration::from_nanos(16_006_647_521),
            last_sync: NOW,
        }
    }

    fn legacy_addresses(&self) -> bool {
        self.legacy
    }

    async fn join(&self, join: JoinDocument) -> Result<JoinReply, Problem> {
        if join.node.ip == "192.0.2.1:8080" {
            let message = "nobody answers at 192.0.2.1:8080";
            return Err(Problem::new(ProblemCode::AddressUnverified, message));
        }
        let spec = spec(&join.node.id, 99, &join.node.ip);
        self.control.apply(&Command::Join {
            node: spec,
            replaces: None,
            at: NOW,
        })?;
        let view = self.control.view();
        let count = view.state.nodes().len();
        let name = view.state.config().name.clone();
        Ok(JoinReply::new(name, count, join.node.id))
    }

    async fn drain(&self, node: &NodeId, on: bool, leave: bool) -> Result<Applied, Problem> {
        let node = self.raft_id(node);
        let command = Command::Drain {
            node,
            on,
            leave,
            at: NOW,
        };
        Ok(self.control.apply(&command)?)
    }

    async fn remove(&self, node: &NodeId, force: bool) -> Result<Applied, Problem> {
        let command = Command::Remove {
            node: self.raft_id(node),
            reason: LeaveReason::Removed,
            force,
            at: NOW,
        };
        Ok(self.control.apply(&command)?)
    }

    async fn rebalance(&self, dry_run: bool) -> Result<RebalanceDocument, Problem> {
        let preview = record(&self.control.view().state).preview().unwrap();
        let mut document = RebalanceDocument::new(preview);
        document.dry_run = dry_run;
        Ok(document)
    }

    async fn apply_rebalance(&self, id: PreviewId) -> Result<RebalanceDocument, Problem> {
        let document = self.rebalance(false).await?;
        match document.id == Some(id) {
            true => Ok(document),
            false => Err(Problem::new(ProblemCode::StaleEpoch, "not that one")),
        }
    }

    async fn preview(&self, adjustment: &Adjustment) -> Result<RebalanceDocument, Problem> {
        let state = self.control.view().state.clone();
        let command = adjustment.command(&state, NOW).unwrap();
        let mut document =
            RebalanceDocument::new(record(&what_if(&state, &command)?).preview().unwrap());
        document.id = None;
        document.dry_run = true;
        Ok(document)
    }

    async fn adjust(&self, adjustment: &Adjustment) -> Result<Applied, Problem> {
        let command = adjustment.command(&self.control.view().state, NOW).unwrap();
        Ok(self.control.apply(&command)?)
    }

    async fn may_stop(&self, nodes: &[NodeId]) -> Result<MayStop, Problem> {
        let voters = self.control.stats().voters;
        let answer = may_stop(&self.control.view().state, nodes, &voters);
        answer.map_err(|error| Problem::new(ProblemCode::UnknownNode, error))
    }

    async fn explain(
        &self,
        partition: Option<PartitionId>,
        node: Option<&NodeId>,
    ) -> Result<ExplainDocument, Problem> {
        let view = self.control.view();
        let present = record(&view.state).explain(partition, node);
        let mut kept = view.plans.newest_first();
        let recorded = kept.find(|record| record.concerns(partition, node));
        let recorded = recorded.map(|it| it.explain(partition, node).unwrap());
        let (node, after) = (node.cloned(), view.plans.after());
        let present = present.unwrap();
        Ok(ExplainDocument::new(
            partition, node, present, recorded, after,
        ))
    }

    async fn plans(&self) -> Result<PlansDocument, Problem> {
        let plans = &self.control.view().plans;
        let proven = plans.newest_first().map(|record| {
            let proven = record.proven(&MinimalMove::new()).unwrap();
            PlanDocument::from(&proven)
        });
        Ok(PlansDocument::new(plans.after(), proven.collect()))
    }

    fn operations(&self) -> (Vec<Operation>, Option<bool>) {
        let protected = Some(false);
        let view = self.control.view();
        (
            operations(&view.state, protected, &CopyBook::default(), NOW),
            protected,
        )
    }

    async fn cancel(&self, operation: &Operation) -> Result<Applied, Problem> {
        let command = operation.cancel(NOW).unwrap();
        Ok(self.control.apply(&command)?)
    }
}

/// Computes a plan of `state`, and records it.
fn record(state: &ClusterState) -> PlanRecord {
    let request = plan_request(state, state.plan_basis()).unwrap();
    let (placement, _) = request.compute(&MinimalMove::new()).unwrap();
    PlanRecord::new(state, &request, placement, "minimal_move", NOW)
}

impl FakeNode {
    fn raft_id(&self, node: &NodeId) -> RaftId {
        let view = self.control.view();
        view.state.node_by_id(node.as_str()).unwrap().raft_id
    }
}

pub(crate) fn spec(id: &str, disk: u8, address: &str) -> NodeSpec {
    let id = NodeId::new(id).unwrap();
    let mut spec = NodeSpec::new(id, DiskId::from_bytes([disk; 16]), address);
    spec.name = format!("Server-{}", spec.id.as_str().trim_start_matches("node-")).into();
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let kv = format!("127.0.0.1:{}", port + 1_000);
    spec.services = Arc::new(BTreeMap::from([("kv".to_owned(), kv)]));
    spec
}

/// A cluster to serve: how many nodes, partitions and copies, hashed with what.
pub(crate) struct Cluster {
    pub(crate) nodes: u8,
    pub(crate) partitions: u32,
    pub(crate) copies: u32,
    pub(crate) hash: HashAlgorithm,
    pub(crate) legacy: bool,
    pub(crate) limits: ApiLimits,
    pub(crate) server_limits: ServerLimits,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            nodes: 3,
            partitions: 4,
            copies: 3,
            hash: HashAlgorithm::Md5,
            legacy: false,
            limits: ApiLimits::default(),
            server_limits: ServerLimits::default(),
        }
    }
}

/// A node that serves.
pub(crate) struct Served {
    pub(crate) server: RunningServer,
    pub(crate) address: String,
    pub(crate) node: Arc<FakeNode>,
    pub(crate) api: Arc<ClusterApi>,
}

impl Cluster {
    /// Forms the cluster, gives every partition its members in turn, and serves it.
    pub(crate) async fn serve(self) -> Served {
        let control = Memory::new();
        let config = ClusterConfig {
            partition_count: self.partitions,
            replication_factor: self.copies,
            hash: HashConfig::new(self.hash),
            ..ClusterConfig::default()
        };
        let mut commands = vec![Command::Bootstrap {
            cluster: CLUSTER,
            config,
            node: spec("node-1", 1, "127.0.0.1:8080"),
            at: NOW,
        }];
        for n in 2..=self.nodes {
            let address = format!("127.0.0.1:{}", 8_079 + u16::from(n));
            commands.push(Command::Join {
                node: spec(&format!("node-{n}"), n, &address),
                replaces: None,
                at: NOW,
            });
        }
        for command in &commands {
            control.apply(command).unwrap();
        }
        let ids: Vec<RaftId> = control.view().state.nodes().map(|n| n.raft_id).collect();
        for &node in &ids {
            control.apply(&Command::Activate { node, at: NOW }).unwrap();
        }
        place(&control, &ids, self.copies);
        let node = Arc::new(FakeNode {
            control: Arc::new(control),
            joined: AtomicBool::new(true),
            legacy: self.legacy,
            peers: Arc::default(),
        });
        let backend = Arc::clone(&node) as Arc<dyn Backend>;
        let api = Arc::new(ClusterApi::new(backend, self.limits));
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let server = server.serve(Arc::clone(&api) as _, self.server_limits);
        let address = server.local_addr().to_string();
        Served {
            server,
            address,
            node,
            api,
        }
    }
}

/// Plans partition p onto the nodes p, p+1, .. in turn: nothing is placed yet, so nothing is copied.
fn place(control: &Memory, ids: &[RaftId], copies: u32) {
    let view = control.view();
    let copies = (copies as usize).min(ids.len());
    let targets = (0..view.state.partitions().len())
        .map(|p| {
            let row = (0..copies).map(|i| ids[(p + i) % ids.len()]).collect();
            (PartitionId::from_index(p), row)
        })
        .collect();
    control
        .apply(&Command::Plan {
            base: view.topology.epoch(),
            trigger: PlanTrigger::Bootstrap,
            trigger_node: None,
            basis: view.state.plan_basis(),
            targets,
            at: NOW,
        })
        .unwrap();
    let unplaced = |p: &clusterkit_core::partition::Partition| p.is_unplaced();
    assert!(!control.view().state.partitions().iter().any(unplaced));
}

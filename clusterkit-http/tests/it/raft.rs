//! The real control plane over the real transport: three members on loopback sockets.
//!
//! The scenarios of Raft itself are in `clusterkit-raft`; whole nodes are tested in `clusterkit`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clusterkit_core::adjust::{Adjustment, MayStop};
use clusterkit_core::command::{Applied, Command};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::explain::PreviewId;
use clusterkit_core::id::{DiskId, NodeId, PartitionId, RaftId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::operation::Operation;
use clusterkit_core::time::UnixMillis;
use clusterkit_http::Method;
use clusterkit_http::api::compat::{ConsensusStatsDocument, JoinDocument, JoinReply};
use clusterkit_http::api::v1::{ExplainDocument, PlansDocument, RebalanceDocument};
use clusterkit_http::api::{Problem, ProblemCode, TopologyDocument};
use clusterkit_http::backend::{Backend, Identity, NodeInfo};
use clusterkit_http::client::{ClientLimits, HttpClient, HttpRequest};
use clusterkit_http::routes::{ApiLimits, ClusterApi};
use clusterkit_http::server::{RunningServer, Server, ServerLimits};
use clusterkit_http::transport::HttpTransport;
use clusterkit_raft::storage::MemoryStorage;
use clusterkit_raft::transport::PeerHandler;
use clusterkit_raft::{RaftControlPlane, RaftOptions};
use tokio::time::timeout;

use crate::fake::{CLUSTER, NOW};

const LIMIT: Duration = Duration::from_secs(20);

/// A member: its control plane and its server.
struct Member {
    control: RaftControlPlane,
    server: RunningServer,
    address: String,
}

struct Real(RaftControlPlane);

fn unused<T>() -> Result<T, Problem> {
    Err(Problem::new(ProblemCode::Internal, "not part of this test"))
}

#[async_trait]
impl Backend for Real {
    fn control(&self) -> Option<Arc<dyn ControlPlane>> {
        Some(Arc::new(self.0.clone()))
    }

    fn peer(&self) -> Arc<dyn PeerHandler> {
        Arc::new(self.0.clone())
    }

    fn identity(&self) -> Identity {
        Identity {
            cluster: Some(self.0.cluster()),
            raft_id: Some(self.0.raft_id()),
        }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            id: NodeId::new("any").unwrap(),
            name: "any".into(),
            uptime: Duration::ZERO,
            last_sync: UnixMillis(0),
        }
    }

    async fn join(&self, _join: JoinDocument) -> Result<JoinReply, Problem> {
        unused()
    }

    async fn drain(&self, _node: &NodeId, _on: bool, _leave: bool) -> Result<Applied, Problem> {
        unused()
    }

    async fn remove(&self, _node: &NodeId, _force: bool) -> Result<Applied, Problem> {
        unused()
    }

    async fn rebalance(&self, _dry_run: bool) -> Result<RebalanceDocument, Problem> {
        unused()
    }

    async fn apply_rebalance(&self, _id: PreviewId) -> Result<RebalanceDocument, Problem> {
        unused()
    }

    async fn preview(&self, _adjustment: &Adjustment) -> Result<RebalanceDocument, Problem> {
        unused()
    }

    async fn adjust(&self, _adjustment: &Adjustment) -> Result<Applied, Problem> {
        unused()
    }

    async fn may_stop(&self, _nodes: &[NodeId]) -> Result<MayStop, Problem> {
        unused()
    }

    async fn explain(
        &self,
        _partition: Option<PartitionId>,
        _node: Option<&NodeId>,
    ) -> Result<ExplainDocument, Problem> {
        unused()
    }

    async fn plans(&self) -> Result<PlansDocument, Problem> {
        unused()
    }

    fn operations(&self) -> (Vec<Operation>, Option<bool>) {
        (Vec::new(), None)
    }

    async fn cancel(&self, _operation: &Operation) -> Result<Applied, Problem> {
        unused()
    }
}

fn disk(n: u64) -> DiskId {
    DiskId::from_bytes([u8::try_from(n).unwrap(); 16])
}

async fn start(server: Server, raft_id: RaftId, disk: DiskId) -> Member {
    let address = server.local_addr().to_string();
    let transport = HttpTransport::new(&ClientLimits::default());
    transport.identify(CLUSTER, raft_id);
    let options = RaftOptions::new(CLUSTER, raft_id, disk, &address);
    let storage = Arc::new(MemoryStorage::new());
    let control = RaftControlPlane::open(storage, Arc::new(transport), options);
    let control = control.await.unwrap();
    let api = ClusterApi::new(Arc::new(Real(control.clone())), ApiLimits::default());
    let server = server.serve(Arc::new(api), ServerLimits::default());
    Member {
        control,
        server,
        address,
    }
}

/// Looks at `probe` whenever something changed, and now and then.
async fn until<T>(member: &Member, what: &str, probe: impl Fn() -> Option<T>) -> T {
    let looking = async {
        loop {
            let version = member.control.view().version;
            if let Some(found) = probe() {
                return found;
            }
            let changed = member.control.changed(version);
            let _ = timeout(Duration::from_millis(20), changed).await;
        }
    };
    match timeout(LIMIT, looking).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

async fn three() -> Vec<Member> {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let first = start(server, RaftId::BOOTSTRAP, disk(1)).await;
    let spec = |n: u64, disk, address: &str| {
        let id = NodeId::new(format!("node-{n}")).unwrap();
        NodeSpec::new(id, disk, address)
    };
    let config = ClusterConfig {
        partition_count: 8,
        ..ClusterConfig::default()
    };
    let formed = first
        .control
        .initialize(config, spec(1, disk(1), &first.address), NOW);
    formed.await.unwrap();
    let mut members = vec![first];
    for n in 2..=3 {
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().to_string();
        let join = Command::Join {
            node: spec(n, disk(n), &address),
            replaces: None,
            at: NOW,
        };
        let raft_id = members[0]
            .control
            .propose(join)
            .await
            .unwrap()
            .node
            .unwrap();
        members.push(start(server, raft_id, disk(n)).await);
    }
    until(&members[2], "three voters", || {
        let mut stats = members.iter().map(|member| member.control.stats());
        stats.all(|stats| stats.voters.len() == 3).then_some(())
    })
    .await;
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_replicate_forward_and_fail_over_over_http() {
    let mut members = three().await;
    let client = HttpClient::default();

    // Written on a follower, read on the other one.
    let follower = &members[1];
    let put = HttpRequest::new(Method::Put, "/v1/data/greeting").body("hello");
    let written = client.send(&follower.address, put).await.unwrap();
    assert_eq!(written.status(), 200, "{:?}", written.problem());
    let get = HttpRequest::get("/v1/data/greeting?consistent=true");
    let read = client.send(&members[2].address, get.clone()).await.unwrap();
    assert_eq!(read.body(), "hello".as_bytes(), "{:?}", read.problem());

    let stats: ConsensusStatsDocument = client
        .json(&follower.address, HttpRequest::get("/consensus/stats"))
        .await
        .unwrap();
    assert_eq!((stats.state.as_str(), stats.num_peers), ("Follower", 2));
    assert_eq!(stats.leader, "node-1");
    assert!(stats.term > 0 && stats.commit_index > 0);

    let join = r#"{"node":{"id":"node-9","ip":"127.0.0.1:9"}}"#;
    let redirected = client
        .send(&follower.address, HttpRequest::post("/join").body(join))
        .await
        .unwrap();
    assert_eq!(redirected.status(), 307);

    // The leader dies; a watch on a survivor goes on.
    let mut watch = client
        .events(
            &members[2].address,
            HttpRequest::get("/v1/watch?after=0"),
            LIMIT,
        )
        .await
        .unwrap();
    let event = watch.next().await.unwrap().unwrap();
    let first: TopologyDocument = serde_json::from_str(&event.data).unwrap();
    let dead = members.remove(0);
    drop(dead.server);
    dead.control.shutdown().await;
    until(&members[0], "another leader", || {
        let leader = members[0].control.view().leadership.leader?;
        (leader != RaftId::BOOTSTRAP).then_some(())
    })
    .await;
    let put = HttpRequest::new(Method::Put, "/v1/data/greeting").body("again");
    let written = client.send(&members[1].address, put).await.unwrap();
    assert_eq!(written.status(), 200, "{:?}", written.problem());
    let read = client.send(&members[0].address, get).await.unwrap();
    assert_eq!(read.body(), "again".as_bytes());

    let node = members[0].control.raft_id();
    let update = Command::UpdateNode {
        node,
        weight: Some(5),
        zone: None,
        at: NOW,
    };
    let epoch = members[1].control.propose(update).await.unwrap().epoch;
    let event = timeout(LIMIT, watch.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let next: TopologyDocument = serde_json::from_str(&event.data).unwrap();
    assert!(next.epoch > first.epoch && next.epoch <= epoch);

    for member in members {
        assert!(member.server.shutdown(LIMIT).await);
        member.control.shutdown().await;
    }
}

//! What a node says against itself is heeded by real nodes, at once and without a copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clusterkit::{ChangeStage, ClusterKit, Health, HealthStatus, Hooks, NodeStatus, Options};
use clusterkit_http::api::v1::NodeDetailDocument;
use clusterkit_http::client::{HttpClient, HttpRequest};

use crate::support::{Nodes, wait_until};

fn counting(copies: &Arc<AtomicUsize>) -> Hooks {
    let copies = Arc::clone(copies);
    Hooks::new().on_partition_change(move |change| {
        if change.local && change.stage == ChangeStage::Syncing {
            copies.fetch_add(1, Ordering::SeqCst);
        }
        async { Ok(()) }
    })
}

async fn form(copies: &Arc<AtomicUsize>) -> Nodes {
    let mut cluster = Nodes::none();
    for i in 1..=3 {
        let hooks = counting(copies);
        let change = |options: Options| options.partitions(12).expect(3).hooks(hooks);
        cluster.add(&format!("node-{i}"), change).await.unwrap();
    }
    cluster.settled().await;
    cluster
}

/// Returns how many partitions `node` leads, as `seen_by` knows it.
fn led(seen_by: &ClusterKit, node: &ClusterKit) -> usize {
    let topology = seen_by.topology();
    let led = topology.partitions().filter(|&partition| {
        let primary = topology.primary(partition);
        primary.is_some_and(|primary| primary.id == *node.node_id())
    });
    led.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_vetoes_itself_leads_nothing_and_nothing_is_copied_for_it() {
    let copies = Arc::new(AtomicUsize::new(0));
    let cluster = form(&copies).await;
    copies.store(0, Ordering::SeqCst);
    for unfit in &cluster.nodes {
        unfit
            .set_health(Health::Unhealthy, "the disk is slow")
            .unwrap();
        wait_until("everybody knows that it leads nothing", || {
            let all = cluster.nodes.iter();
            all.clone().all(|node| led(node, unfit) == 0)
                && all
                    .clone()
                    .all(|node| node.health().status == HealthStatus::Degraded)
        })
        .await;
        let client = HttpClient::default();
        let path = format!("/v1/nodes/{}", unfit.node_id());
        let answer = client
            .send(unfit.address(), HttpRequest::get(path))
            .await
            .unwrap();
        let shown: NodeDetailDocument = answer.json("").unwrap();
        assert_eq!(shown.veto.unwrap().reason, "the disk is slow");
        assert_eq!((shown.primaries, shown.replicas), (0, 12));

        unfit.set_health(Health::Healthy, "").unwrap();
        wait_until("it leads its share again", || {
            let all = cluster.nodes.iter();
            all.clone()
                .all(|node| led(node, unfit) == 4 && node.veto(unfit.node_id()).is_none())
        })
        .await;
    }
    assert_eq!(copies.load(Ordering::SeqCst), 0);
    let long = cluster.nodes[0]
        .set_health(Health::Down, &"x".repeat(257))
        .unwrap_err();
    assert_eq!(long.limit, "at most 256 bytes");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_says_down_hands_the_lead_over_and_owns_nothing_from_then_on() {
    let copies = Arc::new(AtomicUsize::new(0));
    let cluster = form(&copies).await;
    let leads = |node: &ClusterKit| {
        let leader = cluster.nodes[0].cluster().leader;
        leader.is_some_and(|leader| leader.id == *node.node_id())
    };
    let leader = cluster.nodes.iter().find(|node| leads(node)).unwrap();
    let owned = |node: &ClusterKit| {
        let topology = node.topology();
        topology
            .partitions()
            .filter(|&it| node.ownership(it).is_ok())
            .count()
    };
    wait_until("it owns its share", || owned(leader) == 4).await;
    leader.set_health(Health::Down, "fire").unwrap();
    assert_eq!(owned(leader), 0);
    let others = || {
        cluster
            .nodes
            .iter()
            .filter(|node| node.node_id() != leader.node_id())
    };
    let status = |seen_by: &ClusterKit| {
        let topology = seen_by.topology();
        topology
            .node(leader.node_id().as_str())
            .map(|node| node.status)
    };
    wait_until("the others own everything", || {
        others().all(|node| status(node) == Some(NodeStatus::Down))
            && others().map(owned).sum::<usize>() == 12
    })
    .await;
    assert!(!leads(leader));

    leader.set_health(Health::Healthy, "").unwrap();
    cluster.settled().await;
    wait_until("it owns its share again", || owned(leader) == 4).await;
    cluster.stop().await;
}

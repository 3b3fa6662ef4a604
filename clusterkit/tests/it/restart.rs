//! Rule 10: what operators do with a node that is to stop for a while.

use std::time::Duration;

use clusterkit::{ClusterKit, NodeId, Options, StopRisk};
use clusterkit_http::api::v1::MayStopDocument;
use clusterkit_http::client::{HttpClient, HttpRequest};

use crate::support::{Nodes, is_settled, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_may_stop_says_what_would_be_lost() {
    let cluster = Nodes::form(4, 16).await;
    let ids: Vec<_> = cluster
        .nodes
        .iter()
        .map(|it| it.node_id().clone())
        .collect();
    for node in &cluster.nodes {
        assert!(node.may_stop(&ids[1..2]).await.unwrap().is_yes());
        let three = node.may_stop(&ids[..3]).await.unwrap();
        let no_copy = |risk: &StopRisk| matches!(risk, StopRisk::NoCopy { .. });
        let no_majority = |risk: &StopRisk| matches!(risk, StopRisk::NoMajority { .. });
        assert!(three.risks.iter().any(no_copy), "{three}");
        assert!(three.risks.iter().any(no_majority), "{three}");
    }
    let unknown = [NodeId::new("node-9").unwrap()];
    let refused = cluster.nodes[0].may_stop(&unknown).await.unwrap_err();
    assert!(refused.to_string().contains("node-9"), "{refused}");
    let ask = HttpRequest::get("/v1/may-stop?nodes=node-2");
    let client = HttpClient::default();
    let answer = client.send(cluster.nodes[3].address(), ask).await.unwrap();
    let shown: MayStopDocument = answer.json("").unwrap();
    assert_eq!((shown.may_stop, &shown.nodes[..]), (true, &ids[1..2]));
    cluster.stop().await;
}

/// Returns how many partitions `node` leads, as `seen_by` knows it.
fn led(seen_by: &ClusterKit, node: &NodeId) -> usize {
    let topology = seen_by.topology();
    let primaries = topology.partitions().filter_map(|it| topology.primary(it));
    primaries.filter(|primary| primary.id == *node).count()
}

/// Returns who holds each partition, whoever leads it.
fn members(seen_by: &ClusterKit) -> Vec<Vec<NodeId>> {
    let topology = seen_by.topology();
    let rows = topology.partitions().map(|partition| {
        let members = topology.members(partition);
        let mut row: Vec<NodeId> = members.map(|node| node.id.clone()).collect();
        row.sort_unstable();
        row
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_roles_leave_before_a_restart_and_return_after_it() {
    let mut cluster = Nodes::form(4, 16).await;
    let two = cluster.nodes[1].node_id().clone();
    let share = 4;
    wait_until("everybody leads its share, as everybody knows", || {
        let mut nodes = cluster.nodes.iter();
        nodes.all(|seen_by| {
            let mut led = cluster.nodes.iter().map(|it| led(seen_by, it.node_id()));
            led.all(|led| led == share)
        })
    })
    .await;
    let before = members(&cluster.nodes[0]);
    // Asked of any node; it is done when the answer comes.
    cluster.nodes[3].handover(&two, false).await.unwrap();
    assert_eq!(led(&cluster.nodes[3], &two), 0);
    wait_until("it proves no ownership any more", || {
        let node = &cluster.nodes[1];
        let mut all = node.topology().partitions();
        !all.any(|partition| node.is_primary(partition))
    })
    .await;
    cluster.nodes[2].cancel_intent(&two).await.unwrap();
    wait_until("it leads its share again", || {
        let mut nodes = cluster.nodes.iter();
        nodes.all(|node| led(node, &two) == share)
    })
    .await;

    let ttl = Duration::from_secs(600);
    cluster.nodes[1]
        .restart_intent(&two, ttl, false)
        .await
        .unwrap();
    assert_eq!(led(&cluster.nodes[1], &two), 0);
    let shown = cluster.nodes[1].operations();
    let shown = shown.iter().find(|it| it.id == "restart-node-2").unwrap();
    assert_eq!((shown.progress.done, shown.cancellable), (4, true));
    let stopped = cluster.nodes.remove(1);
    let address = stopped.address().to_owned();
    stopped.stop().await;
    drop(stopped);
    let options = Options::new(two.as_str(), address).data_dir(cluster.dir(1));
    let options = options.leave_on_shutdown(false);
    let started = ClusterKit::start(options).await.unwrap();
    cluster.nodes.insert(1, started);
    wait_until("all is as before", || {
        let mut nodes = cluster.nodes.iter();
        nodes.all(|node| {
            is_settled(node, 4) && node.intent(&two).is_none() && led(node, &two) == share
        })
    })
    .await;
    assert_eq!(members(&cluster.nodes[0]), before, "nothing was moved");

    let too_long = Duration::from_secs(24 * 60 * 60 + 1);
    let refused = cluster.nodes[0].restart_intent(&two, too_long, false).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "ttl_ms is `86401000`, must be 1000 to 86400000"
    );
    cluster.stop().await;
}

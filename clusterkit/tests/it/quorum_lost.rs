//! DESIGN rule 13: without a control plane routing goes on from the last table, after a restart
//! too; only changes stop.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit::{ClusterKit, NodeError, Options, ProposeError, Topology};
use clusterkit_http::client::{ClientLimits, HttpClient, HttpRequest};
use clusterkit_http::net::TcpNetwork;

use crate::support::{LIMIT, Nodes, wait_until};

/// Who has which key, by a table.
fn routes(table: &Topology) -> BTreeMap<String, Vec<String>> {
    let keys = (0..200).map(|number| format!("key-{number}"));
    keys.map(|key| {
        let members = table.members(table.partition(key.as_bytes()));
        let members = members.map(|node| node.id.to_string()).collect();
        (key, members)
    })
    .collect()
}

/// Checks that `node`, which has no quorum, answers lookups as `known` says, over HTTP too.
async fn still_routes(node: &ClusterKit, known: &Topology, strict: bool) {
    assert_eq!(node.topology().epoch(), known.epoch());
    assert_eq!(routes(&node.topology()), routes(known));
    let http = HttpClient::over(TcpNetwork::shared(), ClientLimits::default());
    for (path, within) in [("/v1/topology", "\"epoch\""), ("/cluster", "partitions")] {
        let request = HttpRequest::get(path).within(LIMIT);
        let answer = http.send(node.address(), request).await.unwrap();
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        assert_eq!(answer.status(), 200, "{path}: {body}");
        assert!(body.contains(within), "{path}: {body}");
    }
    let partitions: Vec<_> = known.partitions().collect();
    let mine = partitions
        .iter()
        .filter(|&&at| known.is_primary(at))
        .count();
    assert!(mine > 0, "it led something");
    wait_until("no lease is left", || {
        partitions.iter().all(|&at| node.ownership(at).is_err())
    })
    .await;
    let serves = partitions.iter().filter(|&&at| node.is_primary(at)).count();
    assert_eq!(serves, if strict { 0 } else { mine });
}

async fn through_the_loss_of_the_quorum_and_a_restart(strict: bool) {
    let mut cluster = Nodes::none();
    for id in ["node-1", "node-2", "node-3"] {
        let options = |options: Options| options.partitions(8).strict_lease(strict);
        cluster.add(id, options).await.unwrap();
    }
    cluster.settled().await;
    let alone = cluster.nodes.remove(2);
    let known = alone.topology();
    let (id, address) = (alone.node_id().to_string(), alone.address().to_owned());
    let others: Vec<(String, String)> = cluster
        .nodes
        .iter()
        .map(|node| (node.node_id().to_string(), node.address().to_owned()))
        .collect();
    tokio::join!(cluster.nodes[0].stop(), cluster.nodes[1].stop());
    cluster.nodes.clear();
    still_routes(&alone, &known, strict).await;
    alone.stop().await;

    let again = |id: &str, address: &str, dir: usize| {
        Options::new(id, address)
            .data_dir(cluster.dir(dir).to_owned())
            .leave_on_shutdown(false)
    };
    let start = ClusterKit::start(again(&id, &address, 2));
    let alone = tokio::time::timeout(Duration::from_secs(15), start).await;
    let alone = alone.expect("it starts without the others").unwrap();
    still_routes(&alone, &known, strict).await;
    let write = alone.set_data("while-alone", &b"?"[..]);
    let refused = tokio::time::timeout(LIMIT, write).await.unwrap();
    assert!(
        matches!(
            refused,
            Err(NodeError::Propose(
                ProposeError::NoLeader { .. } | ProposeError::Unknown { .. }
            ))
        ),
        "{refused:?}"
    );

    // The others come back, and with them changes.
    let mut nodes = vec![alone];
    for (dir, (id, address)) in others.iter().enumerate() {
        nodes.push(ClusterKit::start(again(id, address, dir)).await.unwrap());
    }
    cluster.nodes = nodes;
    cluster.settled().await;
    cluster.nodes[0]
        .set_data("together", &b"again"[..])
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_routing_goes_on_without_a_quorum_and_after_a_restart_without_one() {
    through_the_loss_of_the_quorum_and_a_restart(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keep_serving_primaries_go_on_after_a_restart_without_a_quorum() {
    through_the_loss_of_the_quorum_and_a_restart(false).await;
}

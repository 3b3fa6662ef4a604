//! The rules of DESIGN section 3, each with a test named after it: `rule_NN_..`.
//!
//! Those that stand beside others of their kind: 1 in `hooks`, 2 and 10 in `cluster`, 10 in `restart`, too, 3 in
//! `ownership`, 12 in `refusals`, 13 in `quorum_lost`; in the core 4, 6, 7 (`coordinator`), 5
//! (`detector/tests`), 9 (`state`); in `clusterkit-raft` 8, in `clusterkit-client` 14, in
//! `clusterkit-http` 15. `cargo xtask tidy` counts them.

use clusterkit_http::client::{HttpClient, HttpRequest};

use crate::support::Nodes;

/// Returns how many partitions `node` shows as under-replicated.
async fn under_replicated(node: &clusterkit::ClusterKit) -> String {
    let metrics = HttpRequest::get("/metrics");
    let answer = HttpClient::default().send(node.address(), metrics).await;
    let body = answer.unwrap().into_body();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let line = lines.find(|line| line.contains("partitions_under_replicated"));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_fewer_nodes_than_copies_serve_and_are_filled_as_nodes_join() {
    let mut cluster = Nodes::form(1, 8).await;
    for (count, missing) in [(1, "8"), (2, "8"), (3, "0"), (4, "0")] {
        if count > 1 {
            let id = format!("node-{count}");
            cluster.add(&id, |options| options).await.unwrap();
        }
        // Every partition has a primary and all the copies that so many nodes allow.
        cluster.settled().await;
        for node in &cluster.nodes {
            assert_eq!(under_replicated(node).await, missing, "of {count} nodes");
        }
    }
    cluster.stop().await;
}

//! The key-value service over real embedded nodes in one process: form, write, lose a node, grow,
//! leave. Several processes and `kill -9` are the matter of `cargo xtask cluster-test`.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy exempts only the test functions themselves"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clusterkit::disk::OsDirectory;
use clusterkit::{Epoch, NodeStatus, Profile};
use clusterkit_examples::kv::{KvNode, KvOptions, StoreKind};
use clusterkit_http::client::{HttpClient, HttpRequest, HttpResponse};

const LIMIT: Duration = Duration::from_secs(30);
const PARTITIONS: u32 = 16;

async fn start(id: u64, seed: Option<&KvNode>, dir: &Path, redb: bool) -> KvNode {
    let home = dir.join(format!("node-{id}"));
    let mut options = KvOptions::new(format!("node-{id}"), "127.0.0.1:0", "127.0.0.1:0");
    if redb {
        options.store = StoreKind::Redb(Arc::new(OsDirectory::new(&home)));
    }
    options.node = options
        .node
        .data_dir(home)
        .partitions(PARTITIONS)
        .profile(Profile::Fast)
        .leave_timeout(LIMIT);
    if let Some(seed) = seed {
        options.node = options.node.join(seed.cluster().address());
    }
    let node = KvNode::start(options).await.unwrap();
    node.cluster().wait_ready(LIMIT).await.unwrap();
    node
}

async fn set(node: &KvNode, key: &str, value: &str) -> HttpResponse {
    let document = serde_json::json!({"key": key, "value": value});
    let request = HttpRequest::post("/kv/set").json_body(&document);
    send(node, request).await
}

async fn get(node: &KvNode, key: &str) -> Option<String> {
    let answer = send(node, HttpRequest::get(format!("/kv/get?key={key}"))).await;
    if answer.status() == 404 {
        return None;
    }
    let document: serde_json::Value = answer.json("").unwrap();
    let text = document["value"].as_str();
    Some(
        text.unwrap_or_else(|| panic!("no value of {key}: {document}"))
            .to_owned(),
    )
}

async fn send(node: &KvNode, request: HttpRequest) -> HttpResponse {
    let client = HttpClient::default();
    client
        .send(node.address(), request.within(LIMIT))
        .await
        .unwrap()
}

/// Writes through every node in turn, again where the outcome is unknown, until acknowledged.
async fn load(nodes: &[&KvNode], prefix: &str, count: usize) {
    for i in 0..count {
        let node = nodes[i % nodes.len()];
        let written = async {
            while set(node, &format!("{prefix}{i}"), &value(prefix, i))
                .await
                .status()
                != 200
            {}
        };
        tokio::time::timeout(LIMIT, written).await.unwrap();
    }
}

fn value(prefix: &str, i: usize) -> String {
    format!("value of {prefix}{i} \u{e9}\n")
}

/// Every record of `prefix` reads back through every node.
async fn verify(nodes: &[&KvNode], prefix: &str, count: usize) {
    for i in 0..count {
        for node in nodes {
            let found = get(node, &format!("{prefix}{i}")).await;
            assert_eq!(
                found.as_deref(),
                Some(value(prefix, i).as_str()),
                "{prefix}{i}"
            );
        }
    }
}

/// Waits until `node` sees `count` members that serve, and every partition on three of them (or on
/// all) in sync with nothing moving.
async fn settled(node: &KvNode, count: usize) {
    let copies = count.min(3);
    let waiting = async {
        let mut known = Epoch::default();
        loop {
            let topology = node.cluster().changed(known).await;
            known = topology.epoch();
            let serving = topology.nodes().iter();
            let serving = serving
                .filter(|node| node.status == NodeStatus::Active)
                .count();
            let whole = topology.partitions().all(|partition| {
                topology.joining(partition).count() == 0
                    && topology
                        .in_sync(partition)
                        .filter(|node| node.status.is_live())
                        .count()
                        == copies
            });
            if serving == count && whole {
                return;
            }
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    waited.unwrap_or_else(|_| {
        panic!(
            "{count} nodes did not settle: {:?}",
            node.cluster().cluster()
        )
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_keeps_its_records_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(1, None, dir.path(), true).await;
    load(&[&node], "k", 20).await;
    assert_eq!(get(&node, "none").await, None);
    let deleted = send(&node, HttpRequest::get("/kv/delete?key=k0")).await;
    assert_eq!(deleted.status(), 200);
    node.stop().await;
    let node = start(1, None, dir.path(), true).await;
    assert_eq!(get(&node, "k0").await, None);
    load(&[&node], "k", 1).await;
    verify(&[&node], "k", 20).await;
    let stats: serde_json::Value = send(&node, HttpRequest::get("/kv/stats"))
        .await
        .json("")
        .unwrap();
    assert_eq!(
        (&stats["node_id"], &stats["keys"]),
        (&"node-1".into(), &20.into())
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_the_loss_the_return_and_the_leave_of_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let one = start(1, None, dir.path(), false).await;
    load(&[&one], "alone-", 10).await;
    let two = start(2, Some(&one), dir.path(), false).await;
    let three = start(3, Some(&one), dir.path(), false).await;
    settled(&one, 3).await;
    load(&[&one, &two, &three], "three-", 30).await;
    verify(&[&two, &three], "alone-", 10).await;

    // The first node formed the cluster and most likely leads it.
    one.stop().await;
    load(&[&two, &three], "two-", 20).await;
    verify(&[&two, &three], "three-", 30).await;

    // Its memory is empty: everything has to be copied back before it counts.
    let one = start(1, None, dir.path(), false).await;
    settled(&two, 3).await;
    let four = start(4, Some(&two), dir.path(), false).await;
    settled(&one, 4).await;
    two.shutdown().await;
    settled(&four, 3).await;
    load(&[&one, &three, &four], "last-", 20).await;
    for (prefix, count) in [("alone-", 10), ("three-", 30), ("two-", 20), ("last-", 20)] {
        verify(&[&one, &three, &four], prefix, count).await;
    }
    for node in [one, three, four] {
        node.stop().await;
    }
}

//! The first contact: dead seeds, hanging seeds, no seeds, a cluster nobody can compute.

use std::time::Duration;

use clusterkit_client::{Client, ConnectError};
use clusterkit_core::id::Epoch;
use clusterkit_http::api::TopologyDocument;

use crate::node::{Cluster, FakeNode, Manner, dead_address, soon, virtual_now};

async fn one_node() -> (FakeNode, Cluster) {
    let node = FakeNode::start(Manner::Streams).await;
    let cluster = Cluster::of(&[&node]);
    node.publish(&cluster.topology());
    (node, cluster)
}

#[tokio::test]
async fn a_dead_and_a_hanging_seed_do_not_hold_up_a_live_one() {
    let (node, _) = one_node().await;
    let hanging = FakeNode::start(Manner::Hangs).await;
    let seeds = [
        dead_address().await,
        hanging.address.clone(),
        node.address.clone(),
    ];
    let started = virtual_now();
    let client = soon(Client::connect(seeds)).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1_500));
    assert_eq!(client.topology().epoch(), Epoch(1));
    assert_eq!(client.topology().partition_count(), 16);
}

#[tokio::test]
async fn when_no_seed_answers_each_is_named_with_its_cause() {
    let dead = dead_address().await;
    let not_ready = FakeNode::start(Manner::Streams).await;
    let error = soon(Client::connect([dead.clone(), not_ready.address.clone()]))
        .await
        .unwrap_err();
    let ConnectError::NoSeedAnswered { failures } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(failures.len(), 2);
    assert_eq!(failures[0].address, dead);
    assert_eq!(failures[1].address, not_ready.address);
    let text = error.to_string();
    assert!(text.contains(&dead) && text.contains("refused"), "{text}");
    assert!(
        text.contains(&not_ready.address) && text.contains("not a member yet"),
        "{text}"
    );
}

#[tokio::test]
async fn a_client_started_before_the_cluster_waits_for_it_when_told_to() {
    let node = FakeNode::start(Manner::Streams).await;
    let cluster = Cluster::of(&[&node]);
    let connecting = Client::builder([node.address.as_str()])
        .wait_for_seeds(Duration::from_secs(10))
        .connect();
    let becoming_ready = async {
        node.until_asked(|asked| asked.fetches >= 2).await;
        node.publish(&cluster.topology());
    };
    let (client, ()) = soon(async { tokio::join!(connecting, becoming_ready) }).await;
    assert_eq!(client.unwrap().topology().epoch(), Epoch(1));
}

#[tokio::test]
async fn malformed_seeds_are_refused_before_anybody_is_asked() {
    let check = async |seeds: Vec<&str>, expected: &str| {
        let error = soon(Client::connect(seeds)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Config(_)), "{error:?}");
        assert_eq!(error.to_string(), expected);
    };
    check(vec![], "seeds is `0`, must be 1 to 256 addresses").await;
    check(vec!["localhost"], "seeds is `localhost`, must be host:port").await;
    check(vec!["h:1", "h:0"], "seeds is `h:0`, must be host:port").await;
    check(vec!["h:99999"], "seeds is `h:99999`, must be host:port").await;
}

#[tokio::test]
async fn an_unknown_hash_is_a_clear_failure_never_a_guess() {
    let (node, cluster) = one_node().await;
    let mut document = TopologyDocument::from(&cluster.topology());
    document.hash.algorithm = "murmur3".to_owned();
    node.publish_text(serde_json::to_string(&document).unwrap());
    let error = soon(Client::connect([node.address.as_str()]))
        .await
        .unwrap_err();
    let ConnectError::Incompatible { source } = &error else {
        panic!("{error:?}");
    };
    let cause = std::error::Error::source(source).unwrap().to_string();
    assert_eq!(
        cause,
        "hash.algorithm is `murmur3`, must be one of xxh3_64, md5, fnv1a_32, sha256"
    );
}

#[tokio::test]
async fn a_seed_that_speaks_something_else_is_named() {
    let node = FakeNode::start(Manner::Streams).await;
    node.publish_text("{\"hello\":1}".to_owned());
    let error = soon(Client::connect([node.address.as_str()]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::NoSeedAnswered { .. }),
        "{error:?}"
    );
}

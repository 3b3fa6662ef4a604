//! Staying current: pushed changes, failing nodes, polling, foreign clusters, the end of a client.

use std::time::Duration;

use clusterkit_client::Client;
use clusterkit_core::id::Epoch;

use crate::node::{Cluster, FakeNode, Manner, soon, three};

#[tokio::test]
async fn a_change_is_pushed() {
    let (nodes, mut cluster, client) = three(Manner::Streams).await;
    cluster.promote(2);
    for node in &nodes {
        node.publish(&cluster.topology());
    }
    let topology = soon(client.wait_for_epoch(Epoch(2))).await;
    assert_eq!(topology.locate(b"a").unwrap().primary.id, "node-2");
    let fetches: u32 = nodes.iter().map(|node| node.asked().fetches).sum();
    assert_eq!(fetches, 1, "connecting fetched once, the rest was pushed");
}

#[tokio::test]
async fn when_the_watched_node_dies_another_one_is_watched() {
    let (mut nodes, mut cluster, client) = three(Manner::Streams).await;
    for epoch in 2..=3 {
        let watched = loop {
            let at = nodes.iter().position(|node| node.asked().watching == 1);
            match at {
                Some(at) => break at,
                None => tokio::task::yield_now().await,
            }
        };
        drop(nodes.remove(watched));
        cluster.epoch = epoch;
        for node in &nodes {
            node.publish(&cluster.topology());
        }
        soon(client.wait_for_epoch(Epoch(epoch))).await;
    }
    assert_eq!(nodes.len(), 1);
}

#[tokio::test]
async fn a_node_that_cannot_be_watched_is_polled() {
    let (nodes, mut cluster, client) = three(Manner::Polled).await;
    let polled = soon(async {
        loop {
            if let Some(at) = nodes.iter().position(|node| node.asked().unchanged >= 2) {
                break at;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    cluster.promote(3);
    nodes[polled].publish(&cluster.topology());
    let topology = soon(client.wait_for_epoch(Epoch(2))).await;
    assert_eq!(topology.locate(b"a").unwrap().primary.id, "node-3");
}

#[tokio::test]
async fn a_removed_node_does_not_hold_its_watchers_to_an_old_map() {
    let old = FakeNode::start(Manner::Streams).await;
    let new = FakeNode::start(Manner::Streams).await;
    let mut cluster = Cluster::of(&[&old, &new]);
    old.publish(&cluster.topology());
    let client = soon(
        Client::builder([old.address.as_str()])
            .verify_interval(Duration::from_millis(20))
            .connect(),
    )
    .await
    .unwrap();
    // Whichever of the two is watched at first: the old one never hears of its removal.
    cluster.epoch = 2;
    new.publish(&cluster.topology());
    soon(client.wait_for_epoch(Epoch(2))).await;
    new.until_asked(|asked| asked.watching == 1).await;
}

#[tokio::test]
async fn an_older_map_and_a_foreign_cluster_are_not_taken() {
    let (nodes, cluster, client) = three(Manner::Streams).await;
    let mut foreign = cluster.clone();
    (foreign.id, foreign.epoch) = (9, 50);
    nodes[0].publish(&foreign.topology());
    let mut newer = cluster.clone();
    newer.epoch = 5;
    nodes[1].publish(&newer.topology());
    soon(async {
        while client.topology().epoch() < Epoch(5) {
            // The foreign one may be asked and refused first.
            let _ = client.refresh().await;
        }
    })
    .await;
    let mut older = cluster;
    older.epoch = 3;
    nodes[2].publish(&older.topology());
    for _ in 0..20 {
        let _ = soon(client.refresh()).await;
    }
    assert_eq!(client.topology().epoch(), Epoch(5));
    assert_eq!(client.topology().cluster().as_bytes(), &[7; 16]);
}

#[tokio::test]
async fn the_watch_ends_with_the_last_clone_of_the_client() {
    let node = FakeNode::start(Manner::Streams).await;
    node.publish(&Cluster::of(&[&node]).topology());
    let client = soon(Client::connect([node.address.as_str()]))
        .await
        .unwrap();
    let clone = client.clone();
    node.until_asked(|asked| asked.watching == 1).await;
    drop(client);
    assert_eq!(node.asked().watching, 1);
    drop(clone);
    node.until_asked(|asked| asked.watching == 0).await;
}

#[tokio::test]
async fn refreshing_without_any_node_keeps_the_old_map() {
    let (nodes, _, client) = three(Manner::Streams).await;
    drop(nodes);
    let error = soon(client.refresh()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no node answered: 127.0.0.1:")
    );
    assert_eq!(client.topology().epoch(), Epoch(1));
}

//! Bad input: each is a clear error, and nothing is half joined.

use std::path::Path;
use std::time::Duration;

use clusterkit::{ClusterKit, HashAlgorithm, Options, StartError};

use crate::support::{Nodes, is_settled, options, wait_until};

async fn refused(options: Options) -> String {
    let error: StartError = ClusterKit::start(options)
        .await
        .expect_err("it must be refused");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_with_a_live_id_is_refused() {
    let cluster = Nodes::form(1, 8).await;
    let dir = tempfile::tempdir().unwrap();
    let twin = options("node-1", dir.path()).join(cluster.nodes[0].address());
    let error = refused(twin).await;
    let expected = format!(
        "node id `node-1` is in use by the node at {} (active)",
        cluster.nodes[0].address()
    );
    assert_eq!(error, expected);
    assert_eq!(cluster.nodes[0].nodes().len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_12_a_cluster_with_other_settings_is_refused_naming_the_field() {
    let cluster = Nodes::form(1, 8).await;
    let seed = cluster.nodes[0].address();
    let dir = tempfile::tempdir().unwrap();
    let join = || options("node-2", dir.path()).join(seed);
    let error = refused(join().partitions(64)).await;
    assert_eq!(
        error,
        "partition_count is `64`, must be `8`, as in the cluster"
    );
    let error = refused(join().hash(HashAlgorithm::Md5)).await;
    assert_eq!(error, "hash is `md5`, must be `xxh3_64`, as in the cluster");
    assert_eq!(cluster.nodes[0].nodes().len(), 1);
    // The directory is free again and still new: without the difference it joins.
    let joined = ClusterKit::start(join()).await.unwrap();
    joined.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_seeds_are_named_with_their_cause() {
    let dir = tempfile::tempdir().unwrap();
    let lonely = options("node-1", dir.path())
        .join("127.0.0.1:1")
        .join_timeout(Duration::from_millis(300));
    let error = refused(lonely).await;
    assert!(
        error.starts_with("could not join within 300ms: 127.0.0.1:1: "),
        "{error}"
    );
    assert!(error.contains("efused"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_refused_before_anything_is_written() {
    let cluster = Nodes::form(1, 8).await;
    let dir = tempfile::tempdir().unwrap();
    let taken = Options::new("node-9", cluster.nodes[0].address()).data_dir(dir.path());
    let error = refused(taken).await;
    assert!(error.contains(cluster.nodes[0].address()), "{error}");
    assert!(error.contains("in use"), "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_refused_with_what_to_do() {
    let cluster = Nodes::form(1, 8).await;
    let dir = cluster.dir(0).to_owned();
    // In use by another process, here the same one.
    let error = refused(options("node-1", &dir)).await;
    assert!(error.contains("in use"), "{error}");
    cluster.stop().await;

    let error = refused(options("node-7", &dir)).await;
    assert!(
        error.contains("belongs to node node-1, expected node node-7"),
        "{error}"
    );

    damage(&dir);
    let error = refused(options("node-1", &dir)).await;
    assert!(
        error.contains("remove the data directory and rejoin as a new node"),
        "{error}"
    );

    let file = dir.join("plain-file");
    std::fs::write(&file, "").unwrap();
    let error = refused(options("node-1", &file)).await;
    assert!(error.contains("not writable"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_is_refused() {
    let one = Nodes::form(1, 8).await;
    let mut two = Nodes::form(2, 8).await;
    let stranger = two.nodes.remove(1);
    stranger.stop().await;
    let dir = two.dir(1).to_owned();
    two.stop().await;
    let moved = options("node-2", &dir).join(one.nodes[0].address());
    let error = refused(moved).await;
    assert!(
        error.contains("refuses node `node-2` of cluster "),
        "{error}"
    );
    assert_eq!(one.nodes[0].nodes().len(), 1);
    one.stop().await;
}

#[tokio::test]
async fn options_out_of_bounds_are_refused_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("never-made");
    let base = || options("node-1", &path);
    assert_eq!(
        refused(base().partitions(0)).await,
        "partition_count is `0`, must be 1 to 65536"
    );
    let error = refused(base().replication_factor(0)).await;
    assert_eq!(error, "replication_factor is `0`, must be 1 to 7");
    let error = refused(Options::new("node-1", "127.0.0.1").data_dir(&path)).await;
    assert_eq!(
        error,
        "http_addr is `127.0.0.1`, must be host:port, or :port for every interface"
    );
    assert!(!path.exists(), "nothing was opened");
}

/// Cuts the store short, as a failing disk might.
fn damage(dir: &Path) {
    let file = dir.join("clusterkit.redb");
    let length = std::fs::metadata(&file).expect("the store exists").len();
    let store = std::fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("it can be opened");
    store.set_len(length / 3).expect("it can be cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_build_is_refused_naming_both_levels_and_returns_as_a_newer_one() {
    let cluster = Nodes::form(2, 8).await;
    let seed = cluster.nodes[0].address();
    let dir = tempfile::tempdir().unwrap();
    let third = || options("node-3", dir.path()).join(seed);
    let expected = "node `node-3` supports feature level 0, the cluster uses 1";
    assert_eq!(refused(third().feature_level(0)).await, expected);
    assert_eq!(cluster.nodes[0].nodes().len(), 2);

    let joined = ClusterKit::start(third()).await.unwrap();
    wait_until("three nodes are there", || is_settled(&joined, 3)).await;
    joined.stop().await;
    // It is a member now, and finds out from its own directory.
    assert_eq!(refused(third().feature_level(0)).await, expected);
    let again = ClusterKit::start(third()).await.unwrap();
    wait_until("it is back", || is_settled(&again, 3)).await;
    again.stop().await;
    assert_eq!(
        refused(third().feature_level(99)).await,
        "feature_level is `99`, must be at most 1, what this build knows"
    );
    cluster.stop().await;
}

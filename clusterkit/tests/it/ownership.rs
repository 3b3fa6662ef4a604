//! Tokens in a running cluster: one owner of each partition, and none before the last one is over.

use clusterkit::{ClusterKit, GuardError, NoToken, NodeStatus, Options, OwnershipToken};

use crate::support::{Nodes, wait_until};

/// Returns who owns what: per partition, the nodes that hold a token.
fn owners(nodes: &[ClusterKit]) -> Vec<Vec<(usize, OwnershipToken)>> {
    let partitions = nodes[0].topology().partitions().collect::<Vec<_>>();
    let owner = |partition| {
        let tokens = nodes.iter().enumerate();
        tokens
            .filter_map(|(at, node)| Some((at, node.ownership(partition).ok()?)))
            .collect::<Vec<_>>()
    };
    partitions.into_iter().map(owner).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_03_every_partition_gets_one_owner_and_another_one_only_after_its_lease() {
    let mut cluster = Nodes::form(3, 16).await;
    wait_until("every partition is owned", || {
        owners(&cluster.nodes)
            .iter()
            .all(|owners| !owners.is_empty())
    })
    .await;
    for owners in owners(&cluster.nodes) {
        assert!(owners.len() == 1, "{owners:?}");
        let (at, token) = owners[0];
        let node = &cluster.nodes[at];
        assert_eq!(node.check_ownership(&token), Ok(()));
        assert!(node.is_primary(token.partition()));
        assert!(token.valid_until() > node.now());
    }
    // A node dies. What it owned is owned again, in a later epoch, by somebody else.
    let dead = cluster.nodes.remove(2);
    let mut lost = Vec::new();
    for partition in dead.topology().partitions() {
        lost.extend(dead.ownership(partition));
    }
    assert!(!lost.is_empty());
    dead.stop().await;
    wait_until("what it owned is owned again", || {
        let owned = owners(&cluster.nodes);
        for token in &lost {
            let over = matches!(
                dead.check_ownership(token),
                Err(NoToken::LeaseOver | NoToken::NotPrimary { .. })
            );
            let taken = !owned[token.partition().index()].is_empty();
            assert!(
                over || !taken,
                "{token:?} is live and somebody else has one"
            );
        }
        owned.iter().all(|owners| owners.len() == 1)
    })
    .await;
    for token in lost {
        let owned = &owners(&cluster.nodes)[token.partition().index()];
        assert!(owned[0].1.epoch() > token.epoch());
    }
    let status = cluster.nodes[0]
        .topology()
        .node("node-3")
        .map(|node| node.status);
    assert_eq!(status, Some(NodeStatus::Down));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_write_counts_only_if_its_node_owned_the_partition_from_start_to_end() {
    let mut cluster = Nodes::form(3, 16).await;
    wait_until("the third node owns something", || {
        owners(&cluster.nodes).iter().flatten().any(|it| it.0 == 2)
    })
    .await;
    let others = &cluster.nodes[..2];
    let owned = owners(&cluster.nodes);
    let mine = owned.iter().flatten().find(|it| it.0 == 2).unwrap().1;
    let partition = mine.partition();
    assert_eq!(
        cluster.nodes[2]
            .guard(partition, async |token| token.epoch())
            .await,
        Ok(mine.epoch())
    );
    let mut ran = false;
    let refused = others[0].guard(partition, async |_| ran = true).await;
    let reason = NoToken::NotPrimary { partition };
    assert_eq!((refused, ran), (Err(GuardError::NotOwner(reason)), false));
    // Another node takes the partition over while the write runs.
    let node = cluster.nodes.remove(2);
    let lost = node
        .guard(partition, async |_| {
            node.stop().await;
            wait_until("it is owned by another node", || {
                let mut nodes = cluster.nodes.iter();
                nodes.any(|node| node.ownership(partition).is_ok())
            })
            .await;
        })
        .await;
    assert!(matches!(lost, Err(GuardError::Lost(_))), "{lost:?}");
    cluster.stop().await;
}

/// Three nodes of which one is left alone, without a quorum: is it primary of anything?
async fn primary_without_a_quorum(strict: bool) -> bool {
    let mut cluster = Nodes::none();
    for id in ["node-1", "node-2", "node-3"] {
        let options = |options: Options| options.partitions(8).strict_lease(strict);
        cluster.add(id, options).await.unwrap();
    }
    cluster.settled().await;
    let primaries = |node: &ClusterKit| {
        let partitions = node.topology().partitions().collect::<Vec<_>>();
        let mine = partitions.into_iter().filter(|&at| node.is_primary(at));
        mine.count()
    };
    wait_until("all are primaries", || {
        cluster.nodes.iter().all(|node| primaries(node) > 0)
    })
    .await;
    let alone = cluster.nodes.remove(2);
    tokio::join!(cluster.nodes[0].stop(), cluster.nodes[1].stop());
    wait_until("its lease is over", || {
        let partitions = alone.topology().partitions().collect::<Vec<_>>();
        let mut owned = partitions.into_iter().map(|at| alone.ownership(at));
        owned.all(|owned| owned.is_err())
    })
    .await;
    let serves = primaries(&alone) > 0;
    let known = alone.topology();
    assert!(
        known.partitions().any(|at| known.is_primary(at)),
        "lookups go on"
    );
    alone.stop().await;
    serves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_strict_lease_a_primary_stops_when_its_lease_runs_out() {
    assert!(!primary_without_a_quorum(true).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keep_serving_a_primary_goes_on_by_the_last_table() {
    assert!(primary_without_a_quorum(false).await);
}

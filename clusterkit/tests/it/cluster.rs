//! Clusters that form, lose nodes and get them back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clusterkit::{
    Cas, ChangeStage, ClusterKit, HealthStatus, Hooks, NodeStatus, PartitionId, Role,
};

use crate::support::{LIMIT, Nodes, is_settled, options, wait_until};

fn counts(node: &ClusterKit) -> BTreeMap<String, (usize, usize)> {
    let topology = node.topology();
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for partition in topology.partitions() {
        for member in topology.members(partition) {
            counts.entry(member.id.to_string()).or_default().1 += 1;
        }
        if let Some(primary) = topology.primary(partition) {
            counts.entry(primary.id.to_string()).or_default().0 += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_and_balance() {
    let cluster = Nodes::form(3, 64).await;
    let rows: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| node.topology().parts().rows)
        .collect();
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[0], rows[2]);
    for (primaries, replicas) in counts(&cluster.nodes[1]).into_values() {
        assert!((21..=22).contains(&primaries), "{primaries} primaries");
        assert_eq!(replicas, 64);
    }
    let found = cluster.nodes[2].locate(b"user:123").unwrap();
    assert_eq!(found.partition, cluster.nodes[0].partition(b"user:123"));
    assert_eq!(found.replicas.len(), 2);
    wait_until("one node is primary", || {
        let primaries = cluster.nodes.iter();
        let primaries = primaries.filter(|node| node.is_primary(found.partition));
        let count = primaries.count();
        assert!(count <= 1, "{count} primaries");
        count == 1
    })
    .await;
    assert_eq!(cluster.nodes[0].health().status, HealthStatus::Healthy);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_data_is_written_on_any_node_and_read_on_all() {
    let cluster = Nodes::form(3, 8).await;
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let version = three.set_data("config/a", &b"1"[..]).await.unwrap();
    two.read_barrier().await.unwrap();
    assert_eq!(two.get_data("config/a").unwrap().version, version);
    let written = two
        .compare_and_set("config/a", Some(version), &b"2"[..])
        .await
        .unwrap();
    let Cas::Written(newer) = written else {
        panic!("expected a write, got {written:?}")
    };
    let refused = one
        .compare_and_set("config/a", Some(version), &b"3"[..])
        .await
        .unwrap();
    assert_eq!(refused, Cas::Mismatch(Some(newer)));
    one.read_barrier().await.unwrap();
    assert_eq!(&*one.get_data("config/a").unwrap().value, b"2");
    assert_eq!(one.list_data("config/").len(), 1);
    one.delete_data("config/a").await.unwrap();
    three.read_barrier().await.unwrap();
    assert_eq!(three.get_data("config/a"), None);
    let large = vec![0_u8; (1 << 20) + 1];
    let error = two.set_data("big", large).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "data value is `1048577 bytes`, must be at most 1048576 bytes"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced_and_its_partitions_fail_over() {
    let mut cluster = Nodes::form(3, 32).await;
    let leader = cluster.nodes[0].cluster().leader.unwrap().id.clone();
    let at = cluster
        .nodes
        .iter()
        .position(|node| *node.node_id() == leader)
        .unwrap();
    let dead = cluster.nodes.remove(at);
    dead.stop().await;
    wait_until("every partition is led by a live node", || {
        cluster.nodes.iter().all(|node| {
            let topology = node.topology();
            let down = topology
                .node(leader.as_str())
                .is_some_and(|node| node.status == NodeStatus::Down);
            down && topology.partitions().all(|partition| {
                topology
                    .primary(partition)
                    .is_some_and(|primary| primary.id != leader)
            })
        })
    })
    .await;
    assert_eq!(cluster.nodes[0].health().status, HealthStatus::Degraded);
    cluster.nodes[0]
        .set_data("still", &b"writable"[..])
        .await
        .unwrap();

    // It comes back on its disk, under the same id, and gets its partitions back.
    let dir = cluster.dir(at).to_owned();
    let back = options(leader.as_str(), &dir);
    cluster
        .nodes
        .insert(at, ClusterKit::start(back).await.unwrap());
    cluster.settled().await;
    assert_eq!(
        &*cluster.nodes[at].get_data("still").unwrap().value,
        b"writable"
    );
    assert_eq!(cluster.nodes[at].health().status, HealthStatus::Healthy);
    wait_until("roles are spread again", || {
        counts(&cluster.nodes[at])
            .into_values()
            .all(|(primaries, _)| (10..=11).contains(&primaries))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_leave_hands_everything_over_and_forgets_the_node() {
    let mut cluster = Nodes::form(4, 16).await;
    let leaver = cluster.nodes.remove(1);
    leaver.leave().await.unwrap();
    leaver.stop().await;
    cluster.settled().await;
    assert!(
        cluster.nodes[0].topology().node("node-2").is_none(),
        "it is no member any more"
    );
    assert!(is_settled(&cluster.nodes[2], 3));
    // Its directory is that of a new node.
    let dir = cluster.dir(1).to_owned();
    let again = options("node-2", &dir).join(cluster.nodes[0].address());
    cluster.nodes.push(ClusterKit::start(again).await.unwrap());
    cluster.settled().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_02_hooks_copy_before_a_node_serves_and_fire_everywhere() {
    type Seen = Arc<Mutex<Vec<(String, PartitionId, ChangeStage, Role)>>>;
    let mut cluster = Nodes::form(1, 8).await;
    let seen: Seen = Arc::default();
    let log = Arc::clone(&seen);
    let hooks = Hooks::new().on_partition_change(move |change| {
        let log = Arc::clone(&log);
        async move {
            if change.local {
                let target = change.target.id.to_string();
                log.lock()
                    .unwrap()
                    .push((target, change.partition, change.stage, change.role));
            }
            Ok(())
        }
    });
    cluster
        .add("node-2", |options| options.hooks(hooks))
        .await
        .unwrap();
    cluster.settled().await;
    // Hooks follow the topology: the last ones may still run.
    wait_until("every partition was copied and switched", || {
        seen.lock().unwrap().len() >= 16
    })
    .await;
    let seen = seen.lock().unwrap().clone();
    for partition in cluster.nodes[0].topology().partitions() {
        let of: Vec<_> = seen
            .iter()
            .filter(|(_, id, _, _)| *id == partition)
            .collect();
        assert_eq!(of[0].2, ChangeStage::Syncing, "{of:?}");
        assert_eq!(of[1].2, ChangeStage::Switched, "{of:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_stopped_and_started_again_keep_the_cluster() {
    let mut cluster = Nodes::form(3, 16).await;
    let id = cluster.nodes[0].cluster().id;
    cluster.nodes[0]
        .set_data("kept", &b"yes"[..])
        .await
        .unwrap();
    let ids: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.node_id().to_string())
        .collect();
    let addresses: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.address().to_owned())
        .collect();
    for node in cluster.nodes.drain(..) {
        node.stop().await;
    }
    for (i, name) in ids.iter().enumerate() {
        let dir = cluster.dir(i).to_owned();
        let again = clusterkit::Options::new(name, &addresses[i])
            .data_dir(dir)
            .leave_on_shutdown(false);
        cluster.nodes.push(ClusterKit::start(again).await.unwrap());
    }
    for node in &cluster.nodes {
        node.wait_ready(LIMIT).await.unwrap();
    }
    cluster.settled().await;
    assert_eq!(cluster.nodes[2].cluster().id, id);
    assert_eq!(&*cluster.nodes[1].get_data("kept").unwrap().value, b"yes");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stopped_and_one_never_back_does_not_take_the_partitions_with_it() {
    let mut cluster = Nodes::form(3, 16).await;
    let known: Vec<(String, String)> = cluster
        .nodes
        .iter()
        .map(|node| (node.node_id().to_string(), node.address().to_owned()))
        .collect();
    for node in cluster.nodes.drain(..) {
        node.stop().await;
    }
    for (i, (id, address)) in known.iter().enumerate().take(2) {
        let dir = cluster.dir(i).to_owned();
        let again = clusterkit::Options::new(id, address)
            .data_dir(dir)
            .leave_on_shutdown(false);
        cluster.nodes.push(ClusterKit::start(again).await.unwrap());
    }
    for node in &cluster.nodes {
        node.wait_ready(LIMIT).await.unwrap();
    }
    wait_until("both hold everything and one is known to be down", || {
        let topology = cluster.nodes[0].topology();
        let down = topology.node("node-3").map(|node| node.status);
        down == Some(NodeStatus::Down)
            && topology
                .partitions()
                .all(|partition| topology.in_sync(partition).count() == 2)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_joins_as_a_new_one_under_its_old_id() {
    let mut cluster = Nodes::form(3, 16).await;
    wait_until("the third node owns something", || {
        !owned_by(&cluster.nodes[2]).is_empty()
    })
    .await;
    let old = cluster.nodes[2]
        .topology()
        .node("node-3")
        .map(|node| node.raft_id);
    let wiped = cluster.nodes.remove(2);
    let address = wiped.address().to_owned();
    let lost = owned_by(&wiped);
    wiped.stop().await;
    let seeds = [
        cluster.nodes[0].address().to_owned(),
        cluster.nodes[1].address().to_owned(),
    ];
    let fresh = tempfile::tempdir().unwrap();
    let again = clusterkit::Options::new("node-3", &address)
        .data_dir(fresh.path())
        .leave_on_shutdown(false);
    let again = seeds.iter().fold(again, clusterkit::Options::join);
    cluster.nodes.push(ClusterKit::start(again).await.unwrap());
    // That its address answers as another node does not prove that the old process owns nothing.
    for token in lost {
        assert!(token.valid_until() <= wiped.now(), "{token:?} is live");
    }
    cluster.settled().await;
    let new = cluster.nodes[0]
        .topology()
        .node("node-3")
        .map(|node| node.raft_id);
    assert!(new > old, "{new:?} replaces {old:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_placement_waits_for_the_nodes_expected() {
    let mut cluster = Nodes::none();
    cluster
        .add("node-1", |options| options.partitions(16).expect(3))
        .await
        .unwrap();
    cluster.add("node-2", |options| options).await.unwrap();
    wait_until("the second node is active", || {
        cluster.nodes[0].health().total == 2
    })
    .await;
    assert!(
        !cluster.nodes[0].is_ready(),
        "nothing is placed before the third node"
    );
    cluster.add("node-3", |options| options).await.unwrap();
    cluster.settled().await;
    // Placed once: nothing was ever copied.
    assert_eq!(
        cluster.nodes[0].topology().partition_epoch(PartitionId(0)),
        first_epoch(&cluster)
    );
    cluster.stop().await;
}

fn owned_by(node: &ClusterKit) -> Vec<clusterkit::OwnershipToken> {
    let topology = node.topology();
    let tokens = topology.partitions().map(|at| node.ownership(at));
    tokens.flatten().collect()
}

fn first_epoch(cluster: &Nodes) -> clusterkit::Epoch {
    let topology = cluster.nodes[0].topology();
    topology
        .partitions()
        .map(|partition| topology.partition_epoch(partition))
        .min()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_seeds_that_begins_with_oneself_forms_one_cluster() {
    let ports = [crate::support::free_port(), crate::support::free_port()];
    let seeds: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let make = |i: usize| {
        let base = clusterkit::Options::new(format!("pod-{i}"), &seeds[i])
            .data_dir(dirs[i].path())
            .partitions(8)
            .leave_on_shutdown(false);
        ClusterKit::start(seeds.iter().fold(base, clusterkit::Options::join))
    };
    let (first, second) = tokio::join!(make(0), make(1));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.cluster().id, second.cluster().id);
    wait_until("both are members", || {
        first.nodes().len() == 2 && second.is_ready()
    })
    .await;
    first.stop().await;
    // A first pod that lost its disk finds the cluster and does not form a second one.
    let fresh = tempfile::tempdir().unwrap();
    let base = clusterkit::Options::new("pod-9", &seeds[0]).data_dir(fresh.path());
    let options = seeds
        .iter()
        .fold(base.leave_on_shutdown(false), clusterkit::Options::join);
    let joined = ClusterKit::start(options).await.unwrap();
    assert_eq!(joined.cluster().id, second.cluster().id);
    joined.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_a_drained_node_holds_nothing_and_stays_a_member() {
    let cluster = Nodes::form(4, 16).await;
    let two = cluster.nodes[1].node_id().clone();
    cluster.nodes[3].drain(&two).await.unwrap();
    wait_until("node-2 holds nothing", || {
        let topology = cluster.nodes[0].topology();
        let holds = |p| topology.members(p).any(|node| node.id == two);
        !topology.partitions().any(holds)
    })
    .await;
    assert_eq!(cluster.nodes[0].nodes().len(), 4);
    cluster.nodes[0].undrain(&two).await.unwrap();
    cluster.settled().await;
    wait_until("node-2 has its share again", || {
        counts(&cluster.nodes[2])
            .get("node-2")
            .is_some_and(|(_, replicas)| *replicas == 12)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_stops_serving_its_last_map() {
    let cluster = Nodes::form(3, 8).await;
    let three = cluster.nodes[2].node_id().clone();
    let refused = cluster.nodes[0]
        .remove(&three, false)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "node `node-3` still holds 8 partitions: drain it first, or force"
    );
    cluster.nodes[0].remove(&three, true).await.unwrap();
    cluster.nodes[2].left().await;
    assert!(!cluster.nodes[2].is_ready());
    wait_until("the others go on without it", || {
        cluster.nodes[..2]
            .iter()
            .all(|node| node.is_ready() && is_settled(node, 2))
    })
    .await;
    cluster.stop().await;
}

//! Weights, zones and the replication factor of a running cluster: each change is previewed, made,
//! and leads to exactly the copies the preview promised. And why things are where they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clusterkit::explain::{Limit, Outcome, Reason};
use clusterkit::{
    Adjustment, ChangeReason, ChangeStage, ClusterEvent, ClusterKit, ConfigChange, Hooks,
    NodeError, NodeId, NodeStatus, PartitionId, PlanTrigger, RebalanceReport,
};

use crate::support::{Nodes, is_settled, options, wait_until};

/// Every copy any node was asked for.
type Copies = Arc<Mutex<Vec<(PartitionId, String)>>>;

fn counting(copies: &Copies) -> Hooks {
    let copies = Arc::clone(copies);
    Hooks::new().on_partition_change(move |change| {
        if change.local && change.stage == ChangeStage::Syncing {
            let copy = (change.partition, change.target.id.to_string());
            copies.lock().unwrap().push(copy);
        }
        async { Ok(()) }
    })
}

/// Forms a cluster of `count` nodes that count what they copy.
async fn form(count: usize, partitions: u32, copies: u32) -> (Nodes, Copies) {
    let made = Copies::default();
    let mut cluster = Nodes::none();
    for i in 1..=count {
        let hooks = counting(&made);
        let change = |options: clusterkit::Options| {
            let options = options.partitions(partitions).replication_factor(copies);
            options.expect(count).hooks(hooks)
        };
        cluster.add(&format!("node-{i}"), change).await.unwrap();
    }
    cluster.settled().await;
    made.lock().unwrap().clear();
    (cluster, made)
}

/// Waits until every node holds what the preview says, and nothing moves any more.
async fn reached(cluster: &Nodes, preview: &RebalanceReport) {
    let wanted: BTreeMap<String, (u32, u32)> = preview
        .preview
        .nodes
        .iter()
        .map(|it| (it.node.to_string(), (it.replicas_after, it.primaries_after)))
        .collect();
    wait_until("every node holds what was previewed", || {
        cluster.nodes.iter().all(|node| {
            let topology = node.topology();
            let mut held: BTreeMap<String, (u32, u32)> =
                wanted.keys().map(|node| (node.clone(), (0, 0))).collect();
            for partition in topology.partitions() {
                for member in topology.members(partition) {
                    held.entry(member.id.to_string()).or_default().0 += 1;
                }
                if let Some(primary) = topology.primary(partition) {
                    held.entry(primary.id.to_string()).or_default().1 += 1;
                }
            }
            held == wanted
                && topology
                    .partitions()
                    .all(|p| topology.joining(p).count() == 0)
                && is_settled(node, cluster.nodes.len())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weight_zone_and_replication_factor_copy_exactly_what_was_previewed() {
    let (cluster, made) = form(4, 24, 2).await;
    let node = |at: usize| cluster.nodes[at].node_id().clone();
    let operator = &cluster.nodes[2];
    let zone = |at: usize, zone: &str| Adjustment::Node {
        node: node(at),
        weight: None,
        zone: Some(zone.into()),
    };
    let weight = Adjustment::Node {
        node: node(1),
        weight: Some(3),
        zone: None,
    };
    let factor = Adjustment::Config(ConfigChange {
        replication_factor: Some(3),
        ..ConfigChange::default()
    });
    for adjustment in [weight, zone(0, "east"), zone(1, "west"), factor] {
        let preview = operator.preview(&adjustment).await.unwrap();
        assert_eq!(preview.minimum, Some(preview.moves), "{adjustment:?}");
        assert_eq!(preview.id, None);
        made.lock().unwrap().clear();
        match &adjustment {
            Adjustment::Node {
                node,
                weight: Some(weight),
                ..
            } => {
                operator.set_weight(node, *weight).await.unwrap();
            }
            Adjustment::Node {
                node,
                zone: Some(zone),
                ..
            } => {
                operator.set_zone(node, zone).await.unwrap();
            }
            _ => operator.set_replication_factor(3).await.unwrap(),
        }
        reached(&cluster, &preview).await;
        let copies = made.lock().unwrap().len();
        assert_eq!(copies, preview.moves as usize, "{adjustment:?}");
        // There is nothing left to do, and a plan for it says so.
        let after = operator.preview_rebalance().await.unwrap();
        assert_eq!(
            (after.moves, after.primary_changes),
            (0, 0),
            "{adjustment:?}"
        );
    }
    let topology = operator.topology();
    assert_eq!(topology.replication_factor(), 3);
    assert_eq!(topology.node("node-2").unwrap().weight, 3);

    let refused = operator.set_replication_factor(9).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "replication_factor is `9`, must be 1 to 7"
    );
    let nobody = NodeId::new("nobody").unwrap();
    let refused = operator.set_weight(&nobody, 1).await.unwrap_err();
    assert_eq!(refused.to_string(), "no member is called `nobody`");
    cluster.stop().await;
}

/// Found by the simulator (full level): a member was refused at every start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_replication_factor_keeps_nobody_out() {
    let (mut cluster, _) = form(3, 8, 2).await;
    let (dir, formed_with) = (cluster.dir(2).to_owned(), 2);
    cluster.nodes[0].set_replication_factor(3).await.unwrap();
    cluster.settled().await;
    let stopped = cluster.nodes.remove(2);
    stopped.stop().await;
    let again = options("node-3", &dir).replication_factor(formed_with);
    cluster.nodes.push(ClusterKit::start(again).await.unwrap());
    cluster.settled().await;
    assert_eq!(cluster.nodes[2].topology().replication_factor(), 3);

    // Who is new has the same configuration file.
    let other = |options: clusterkit::Options| options.replication_factor(formed_with);
    cluster.add("node-4", other).await.unwrap();
    cluster.settled().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_applied_on_any_node_until_the_topology_changes() {
    let (cluster, _) = form(3, 12, 2).await;
    let [one, two, three] = &cluster.nodes[..] else {
        panic!("three nodes")
    };
    let preview = one.preview_rebalance().await.unwrap();
    let id = preview.id.unwrap();
    assert_eq!(two.preview_rebalance().await.unwrap().id, Some(id));
    assert!(!preview.applied);
    assert_eq!(preview.minimum, Some(0));
    let applied = three.apply_rebalance(id).await.unwrap();
    assert!(applied.applied);
    assert_eq!(applied.plan, None, "there was nothing to do");

    two.set_zone(&two.node_id().clone(), "b").await.unwrap();
    let refused = three.apply_rebalance(id).await.unwrap_err();
    assert!(
        matches!(refused, NodeError::StalePreview { id: stale, .. } if stale == id),
        "{refused}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_explains_what_it_sees_and_why_it_moved() {
    let (mut cluster, _) = form(2, 12, 2).await;
    cluster.add("node-3", |options| options).await.unwrap();
    let three = cluster.nodes[2].node_id().clone();
    wait_until("every node knows that node-3 has its share", || {
        cluster.nodes.iter().all(|node| {
            let topology = node.topology();
            let held = topology.partitions().filter(|&p| {
                let joining = topology.joining(p).count();
                joining == 0 && topology.members(p).any(|node| node.id == three)
            });
            held.count() == 8 && is_settled(node, 3)
        })
    })
    .await;
    let topology = cluster.nodes[0].topology();
    let moved = topology
        .partitions()
        .find(|&p| topology.members(p).any(|node| node.id == three))
        .unwrap();
    for node in &cluster.nodes {
        let told = node.explain(moved, Some(&three)).await.unwrap();
        assert_eq!(told.present.placed[0].outcome, Outcome::Kept, "{told}");
        let told = node.explain_node(&three).await.unwrap();
        let share = |reason: &Reason| {
            matches!(
                reason,
                Reason::Share {
                    after: 8,
                    floor: 8,
                    ..
                }
            )
        };
        assert!(told.present.reasons.iter().any(share), "{told}");
    }
    // Whoever computed the plan: every node has seen it in the log.
    let mut answers = Vec::new();
    for node in &cluster.nodes {
        let told = node.explain(moved, Some(&three)).await.unwrap();
        let recorded = told.recorded.unwrap();
        assert_eq!(recorded.placed[0].outcome, Outcome::Added, "{recorded}");
        assert_eq!(recorded.minimum, Some(recorded.moves));
        let below = |reason: &Reason| matches!(reason, Reason::BelowShare { before: 0, .. });
        assert!(recorded.placed[0].reasons.iter().any(below), "{recorded}");
        assert_eq!(recorded.trigger_node.as_ref(), Some(&three));
        assert_eq!(told.recorded_after.value(), 0, "the whole log is known");
        let plans = node.plans().await.unwrap();
        assert!(plans.iter().any(|plan| plan.plan == recorded.plan));
        answers.push((recorded, plans));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));

    let refused = told_off(&cluster.nodes[1], PartitionId(12)).await;
    assert_eq!(
        refused,
        "partition is `12`, must be a whole number from 0 to 11"
    );
    let drained = cluster.nodes[1].node_id().clone();
    let drain = Adjustment::Drain { node: drained };
    let preview = cluster.nodes[0].preview(&drain).await.unwrap();
    assert_eq!(preview.moves, 8);
    let limits = &preview.preview.limits;
    assert!(
        !limits
            .iter()
            .any(|it| matches!(it, Limit::UnderReplicated { .. }))
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_that_an_operator_asked_for_says_so_on_every_node() {
    let mut cluster = Nodes::none();
    for id in ["node-1", "node-2"] {
        // Nothing is placed by itself: a third node is waited for.
        let options = |options: clusterkit::Options| options.partitions(12).expect(3);
        cluster.add(id, options).await.unwrap();
    }
    let both = || {
        let active = |node: &&ClusterKit| {
            let nodes = node.nodes();
            let active = nodes.iter().filter(|it| it.status == NodeStatus::Active);
            active.count() == 2
        };
        cluster.nodes.iter().all(|node| active(&node))
    };
    wait_until("both nodes are active", both).await;
    let mut events = cluster.nodes[0].events();
    let preview = cluster.nodes[1].preview_rebalance().await.unwrap();
    let done = cluster.nodes[1].rebalance().await.unwrap();
    assert_eq!((done.moves, done.id), (preview.moves, preview.id));
    cluster.settled().await;
    for node in &cluster.nodes {
        let [plan] = &node.plans().await.unwrap()[..] else {
            panic!("one plan")
        };
        assert_eq!((plan.trigger, plan.plan), (PlanTrigger::Manual, done.plan));
        assert_eq!(plan.trigger_node, None);
    }
    let reason = loop {
        match events.next().await.unwrap() {
            ClusterEvent::PartitionChanged(change) => break change.reason,
            _ => continue,
        }
    };
    assert_eq!(reason, ChangeReason::Manual);
    cluster.stop().await;
}

async fn told_off(node: &ClusterKit, partition: PartitionId) -> String {
    let refused = node.explain(partition, None).await.unwrap_err();
    refused.to_string()
}

//! Copies that take long on real nodes: answered for later, reported on, restarted, called off.

use std::time::Duration;

use clusterkit::{
    Blocker, ChangeStage, ClusterKit, CopyError, CopyProgress, Copying, Hooks, OperationKind,
};
use clusterkit_http::api::v1::OperationsDocument;
use clusterkit_http::client::{HttpClient, HttpRequest};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::{Nodes, options, wait_until};

/// Hooks that hand the copies of their node out.
fn handing_out() -> (Hooks, UnboundedReceiver<Copying>) {
    let (out, copies) = unbounded_channel();
    let hooks = Hooks::new().on_partition_change(move |change| {
        let out = out.clone();
        async move {
            if change.local && change.stage == ChangeStage::Syncing {
                // The test that reads them may be over.
                let _ = out.send(change.later()?);
            }
            Ok(())
        }
    });
    (hooks, copies)
}

/// How far the copies are, as `node` shows it.
fn shown(node: &ClusterKit) -> Vec<Option<CopyProgress>> {
    let operations = node.operations();
    let blockers = operations.iter().flat_map(|operation| &operation.blockers);
    let copied = blockers.filter_map(|blocker| match blocker {
        Blocker::CopyUnanswered { copied, .. } => Some(copied.clone()),
        _ => None,
    });
    copied.collect()
}

fn done(node: &ClusterKit) -> Vec<u64> {
    let shown = shown(node).into_iter().flatten();
    shown.map(|copied| copied.done).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_seen_on_every_node_and_a_copy_that_advances_outlives_its_deadline() {
    let (hooks, mut copies) = handing_out();
    let mut cluster = Nodes::none();
    for id in ["node-1", "node-2", "node-3"] {
        let hooks = if id == "node-3" {
            hooks.clone()
        } else {
            Hooks::new()
        };
        let change = |it: clusterkit::Options| {
            let short = it.copy_deadline(Duration::from_secs(3));
            short.partitions(1).hooks(hooks)
        };
        cluster.add(id, change).await.unwrap();
    }
    let copying = copies.recv().await.unwrap();
    // Every second it gets a little further, for twice the deadline.
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for step in 1..=7 {
        ticks.tick().await;
        copying.progress(step, 7, "files").unwrap();
        wait_until("every node shows how far it is", || {
            cluster.nodes.iter().all(|node| done(node) == [step])
        })
        .await;
    }
    let list = HttpRequest::get("/v1/operations");
    let client = HttpClient::default();
    for node in &cluster.nodes {
        let answer = client.send(node.address(), list.clone()).await.unwrap();
        let shown: OperationsDocument = answer.json("").unwrap();
        let mut blockers = shown.operations.iter().flat_map(|it| &it.blockers);
        assert!(
            blockers.any(|it| it.text.contains(", 7 of 7 files)")),
            "{shown:?}"
        );
    }
    copying.synced().await.unwrap();
    cluster.settled().await;

    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_stands_still_is_called_off_and_its_late_answer_refused() {
    let (hooks, mut copies) = handing_out();
    let mut cluster = Nodes::none();
    for id in ["node-1", "node-2"] {
        let hooks = if id == "node-2" {
            hooks.clone()
        } else {
            Hooks::new()
        };
        let change = |it: clusterkit::Options| {
            let short = it.copy_deadline(Duration::from_secs(1));
            short.partitions(1).hooks(hooks)
        };
        cluster.add(id, change).await.unwrap();
    }
    let late = copies.recv().await.unwrap();
    late.progress(1, None, "").unwrap();
    late.ended().await;
    assert!(
        !cluster.nodes[0]
            .operations()
            .iter()
            .any(|it| it.kind == OperationKind::Migration)
    );
    let (partition, stage) = (late.partition(), late.stage());
    let refused = late.synced().await.unwrap_err();
    let expected = CopyError::Ended {
        partition,
        stage,
        now: None,
    };
    assert_eq!(refused, expected);
    // It is tried again, under another stage.
    let copying = copies.recv().await.unwrap();
    assert_ne!(copying.stage(), stage);
    copying.synced().await.unwrap();
    cluster.settled().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_restarts_in_the_middle_is_asked_again_and_a_new_leader_hears_how_far_it_is()
{
    let (hooks, mut copies) = handing_out();
    let mut cluster = Nodes::form(3, 1).await;
    let change = |it: clusterkit::Options| it.hooks(hooks.clone());
    cluster.add("node-4", change).await.unwrap();
    // Four nodes, three copies: the fourth gets one when another is drained.
    let drained = cluster.nodes[2].topology();
    let drained = drained
        .primary(clusterkit::PartitionId(0))
        .unwrap()
        .id
        .clone();
    cluster.nodes[0].drain(&drained).await.unwrap();
    let before = copies.recv().await.unwrap();
    before.progress(3, 9, "").unwrap();
    wait_until("the first report is seen", || {
        cluster.nodes.iter().all(|node| done(node) == [3])
    })
    .await;
    let stage = before.stage();
    let target = cluster.nodes.pop().unwrap();
    target.stop().await;
    let refused = before.synced().await.unwrap_err();
    assert!(matches!(refused, CopyError::Ended { .. }), "{refused}");

    let mut again = options("node-4", cluster.dir(3)).hooks(hooks.clone());
    for node in &cluster.nodes {
        again = again.join(node.address());
    }
    cluster.nodes.push(ClusterKit::start(again).await.unwrap());
    let copying = copies.recv().await.unwrap();
    assert_ne!(copying.stage(), stage);
    copying.progress(4, 9, "").unwrap();
    wait_until("the report after the restart is seen", || {
        cluster.nodes.iter().all(|node| done(node) == [4])
    })
    .await;

    // Whoever leads stops: the next one is told without another report.
    let leader = cluster.nodes[3].cluster().leader.unwrap();
    let mut nodes = cluster.nodes.iter();
    let at = nodes.position(|node| *node.node_id() == leader.id);
    let at = at.unwrap();
    assert_ne!(at, 3, "a node that joined later does not lead");
    cluster.nodes.remove(at).stop().await;
    wait_until("another one leads and shows it", || {
        cluster.nodes.iter().all(|node| {
            let leads = node.cluster().leader;
            leads.is_some_and(|it| it.id != leader.id) && done(node) == [4]
        })
    })
    .await;
    copying.synced().await.unwrap();
    cluster.stop().await;
}

//! What goes on is shown by real nodes, and an operator holds it back or cancels it.

use std::time::Duration;

use clusterkit::{
    Blocker, ChangeStage, ClusterKit, Hooks, NodeError, Operation, OperationKind, Work,
};
use clusterkit_http::Method;
use clusterkit_http::api::v1::OperationsDocument;
use clusterkit_http::client::{HttpClient, HttpRequest};
use tokio::sync::watch;

use crate::support::{Nodes, options, wait_until};

/// Returns hooks whose copies do not end before the gate is opened.
fn gated(gate: &watch::Receiver<bool>) -> Hooks {
    let gate = gate.clone();
    Hooks::new().on_partition_change(move |change| {
        let mut gate = gate.clone();
        async move {
            if change.local && change.stage == ChangeStage::Syncing {
                let _ = gate.wait_for(|open| *open).await;
            }
            Ok(())
        }
    })
}

fn migrations(node: &ClusterKit) -> Vec<Operation> {
    let mut shown = node.operations();
    shown.retain(|operation| operation.kind == OperationKind::Migration);
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_does_not_end_is_shown_with_what_it_waits_for_and_cancelled_over_http() {
    let (open, gate) = watch::channel(false);
    let mut cluster = Nodes::form(1, 4).await;
    let change = |options: clusterkit::Options| options.hooks(gated(&gate));
    cluster.add("node-2", change).await.unwrap();
    let [one, two] = &cluster.nodes[..] else {
        panic!("two nodes")
    };
    wait_until("every node shows the four copies", || {
        cluster.nodes.iter().all(|node| migrations(node).len() == 4)
    })
    .await;
    let client = HttpClient::default();
    let list = HttpRequest::get("/v1/operations");
    let answer = client.send(two.address(), list).await.unwrap();
    let shown: OperationsDocument = answer.json("").unwrap();
    let found = shown
        .operations
        .iter()
        .find(|it| it.kind == OperationKind::Migration);
    let found = found.unwrap();
    let Blocker::CopyUnanswered {
        node, partition, ..
    } = &found.blockers[0].blocker
    else {
        panic!("{found:?}")
    };
    assert_eq!(
        (node.as_str(), Some(*partition)),
        ("node-2", found.partition)
    );
    assert_eq!((found.progress.done, found.progress.total), (0, 1));

    // Any node may be asked to cancel, here the one that copies.
    let cancel = HttpRequest::new(Method::Delete, format!("/v1/operations/{}", found.id));
    let answer = client.send(two.address(), cancel).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(migrations(two).iter().all(|it| it.id != found.id));
    let again = two.cancel(&found.id).await.unwrap_err();
    assert!(
        matches!(again, NodeError::UnknownOperation { .. }),
        "{again}"
    );

    // The hook answers too late for the stage it was asked under; the move begins anew, and ends.
    open.send_replace(true);
    cluster.settled().await;
    wait_until("nothing goes on", || one.operations().is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_kept_over_a_restart_of_every_node() {
    let cluster = Nodes::form(1, 4).await;
    let node = &cluster.nodes[0];
    node.pause(Work::Balance, "peak hours").await.unwrap();
    let paused = node.paused();
    cluster.stop().await;
    let again = ClusterKit::start(options("node-1", cluster.dir(0)))
        .await
        .unwrap();
    again.wait_ready(Duration::from_secs(30)).await.unwrap();
    assert_eq!(again.paused(), paused);
    let long = again
        .pause(Work::Repair, &"x".repeat(300))
        .await
        .unwrap_err();
    assert!(
        long.to_string().contains("must be at most 256 bytes"),
        "{long}"
    );
    again.resume(Work::Balance).await.unwrap();
    assert_eq!(again.paused(), []);
    again.stop().await;
}

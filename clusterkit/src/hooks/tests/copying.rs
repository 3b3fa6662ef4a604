//! Copies that are answered for after the hook has returned, and what they say meanwhile.

use clusterkit_core::copying::CopyReport;
use clusterkit_core::event::ChangeStage;
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::{CopyError, Copying};
use super::*;

const P: PartitionId = PartitionId(0);

/// Hooks that hand their copies out.
fn handing_out() -> (Hooks, UnboundedReceiver<Copying>) {
    let (out, copies) = mpsc::unbounded_channel();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let out = out.clone();
        async move {
            if change.local && change.stage == ChangeStage::Syncing {
                out.send(change.later()?).unwrap();
            }
            Ok(())
        }
    });
    (hooks, copies)
}

/// A cluster in which `n2` is to copy all partitions, so far on `n1`.
fn moving(partitions: u32) -> (Cluster, Vec<(PartitionId, StageId)>) {
    let mut cluster = Cluster::of(2, partitions);
    cluster.place(&[1]);
    cluster.place(&[2]);
    let stages = open_stages(&cluster.state, cluster.id(2));
    (cluster, stages.into_iter().collect())
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_synced_when_it_says_so_and_not_when_its_hook_returns() {
    let (hooks, mut copies) = handing_out();
    let (cluster, stages) = moving(1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    let copying = copies.recv().await.unwrap();
    assert_eq!((copying.partition(), copying.stage()), stages[0]);
    let_pass(Duration::from_secs(3)).await;
    assert!(node.acks.try_recv().is_err());
    assert_eq!(node.counters.figures().running, 0, "it takes no slot");
    let said = copying.synced();
    tokio::pin!(said);
    // Not before the log has it.
    let early = tokio::time::timeout(Duration::from_secs(5), &mut said).await;
    assert!(early.is_err());
    assert_eq!(node.propose().await.synced, stages);
    assert_eq!(said.await, Ok(()));
    node.cluster.switch(stages);
    node.feed();
    node.through().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_refused_and_names_both_stages() {
    let (hooks, mut copies) = handing_out();
    let (cluster, stages) = moving(1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    let late = copies.recv().await.unwrap();
    node.cluster.revert(stages.clone());
    node.feed();
    late.ended().await;
    assert_eq!(node.propose().await.synced, []);
    let refused = late.progress(1, 2, "rows").unwrap_err();
    let text = format!(
        "partition 0: stage {} is over, and this node is not to copy it now",
        stages[0].1
    );
    assert_eq!(refused.to_string(), text);

    node.cluster.place(&[2]);
    node.feed();
    let copying = copies.recv().await.unwrap();
    let refused = late.synced().await.unwrap_err();
    let (stage, now) = (stages[0].1, copying.stage());
    assert_ne!(stage, now);
    let expected = CopyError::Ended {
        partition: P,
        stage,
        now: Some(now),
    };
    assert_eq!(refused, expected);
    let text =
        format!("partition 0: stage {stage} is over, this node is to copy it under stage {now}");
    assert_eq!(refused.to_string(), text);
    let (said, acks) = tokio::join!(copying.synced(), node.propose());
    assert_eq!((said, acks.synced), (Ok(()), vec![(P, now)]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_its_way_to_the_log_is_refused_when_the_move_is_called_off_first() {
    let (hooks, mut copies) = handing_out();
    let (cluster, stages) = moving(1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    let copying = copies.recv().await.unwrap();
    let reverts = async {
        assert_eq!(node.answers().await.synced, stages);
        node.cluster.revert(stages.clone());
        node.feed();
    };
    let (said, ()) = tokio::join!(copying.synced(), reverts);
    assert!(
        matches!(said, Err(CopyError::Ended { now: None, .. })),
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_or_is_dropped_is_asked_again() {
    let (hooks, mut copies) = handing_out();
    let (cluster, stages) = moving(1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    copies
        .recv()
        .await
        .unwrap()
        .failed("the disk is full")
        .unwrap();
    let dropped = copies.recv().await.unwrap();
    assert_eq!(node.counters.figures().failed, 1);
    drop(dropped);
    let copying = copies.recv().await.unwrap();
    assert_eq!(node.counters.figures().failed, 2);
    let (said, acks) = tokio::join!(copying.synced(), node.propose());
    assert_eq!((said, acks.synced), (Ok(()), stages));
}

#[tokio::test(start_paused = true)]
async fn the_handle_of_a_hook_that_failed_counts_for_nothing() {
    let (out, mut copies) = mpsc::unbounded_channel();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let out = out.clone();
        async move {
            if change.local && change.stage == ChangeStage::Syncing {
                let copying = change.later()?;
                let twice = change.later().unwrap_err();
                out.send((change, copying)).unwrap();
                return Err(twice.into());
            }
            Ok(())
        }
    });
    let (cluster, stages) = moving(1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    let (change, copying) = copies.recv().await.unwrap();
    let (again, _copying) = copies.recv().await.unwrap();
    assert_eq!(again.stage_id, change.stage_id);
    let refused = copying.synced().await.unwrap_err();
    let stage = stages[0].1;
    let expected = CopyError::Ended {
        partition: P,
        stage,
        now: Some(stage),
    };
    assert_eq!(refused, expected);
    let taken = change.later().unwrap_err();
    let expected = CopyError::Answered {
        partition: P,
        stage,
    };
    assert_eq!(taken, expected);
    assert!(node.acks.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn only_a_copy_of_this_node_can_be_answered_for() {
    let (out, mut changes) = mpsc::unbounded_channel();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        out.send(change).unwrap();
        async { Ok(()) }
    });
    let (mut cluster, stages) = moving(1);
    cluster.revert(stages);
    let mut node = Node1::start(cluster, 1, EventSeq(0), hooks);
    node.through().await;
    node.feed();
    let mut others = 0;
    while let Ok(change) = changes.try_recv() {
        let (partition, stage) = (change.partition, change.stage_id);
        let refused = change.later().unwrap_err();
        assert_eq!(refused, CopyError::NotAsked { partition, stage });
        assert!(change.progress(1, None, "").is_err());
        others += 1;
    }
    assert!(others > 0);
}

#[tokio::test(start_paused = true)]
async fn more_copies_than_hooks_may_run_at_once_can_be_under_way() {
    let (hooks, mut copies) = handing_out();
    let (cluster, stages) = moving(20);
    let settings = HookSettings {
        at_once: 2,
        ..HookSettings::default()
    };
    let mut node = Node1::start_with(cluster, 2, EventSeq(0), hooks, settings);
    let mut under_way = Vec::new();
    while under_way.len() < 20 {
        under_way.push(copies.recv().await.unwrap());
    }
    let all = futures_util::future::join_all(under_way.into_iter().map(Copying::synced));
    let proposing = async {
        let mut synced = Vec::new();
        while synced.len() < 20 {
            synced.extend(node.propose().await.synced);
        }
        synced.sort_unstable();
        synced
    };
    let (said, synced) = tokio::join!(all, proposing);
    assert_eq!(synced, stages);
    assert!(said.iter().all(Result::is_ok), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn progress_is_kept_for_as_long_as_the_copy_is_awaited() {
    let (hooks, mut copies) = handing_out();
    let (cluster, stages) = moving(1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    let copying = copies.recv().await.unwrap();
    copying.progress(10, 40, "rows").unwrap();
    copying.progress(20, 40, "rows").unwrap();
    let refused = copying.progress(21, 40, &"x".repeat(200)).unwrap_err();
    assert!(
        refused.to_string().ends_with("must be at most 128 bytes"),
        "{refused}"
    );
    let (reports, seen) = node.copies.after(0, &node.cluster.state);
    let said = |it: &CopyReport| (it.node, it.partition, it.stage, it.progress.to_string());
    let expected = (node.me, P, stages[0].1, String::from("20 of 40 rows"));
    assert_eq!(reports.iter().map(said).collect::<Vec<_>>(), [expected]);
    assert_eq!(node.copies.after(seen, &node.cluster.state).0, []);
    copying.progress(30, None, "").unwrap();
    assert_eq!(node.copies.after(seen, &node.cluster.state).0.len(), 1);
    node.cluster.revert(stages);
    node.feed();
    assert_eq!(node.copies.after(0, &node.cluster.state).0, []);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_does_not_wait_for_copies_and_says_that_it_does_not_know() {
    let (hooks, mut copies) = handing_out();
    let (cluster, _) = moving(2);
    let node = Node1::start(cluster, 2, EventSeq(0), hooks);
    let (first, second) = (copies.recv().await.unwrap(), copies.recv().await.unwrap());
    let Node1 {
        runner, mut acks, ..
    } = node;
    let stops = async {
        acks.recv().await.unwrap();
        runner.shutdown().await
    };
    let (said, _) = tokio::join!(first.synced(), stops);
    assert!(matches!(said, Err(CopyError::Unknown { .. })), "{said:?}");
    second.ended().await;
    assert!(second.failed("too late").is_err());
}

//! What an answer to a hook leads to: acknowledged, asked again, or not needed any more.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A cluster in which `n2` is to copy the partitions `0..moving`, so far all on `n1`.
fn moving(partitions: u32, moving: u32) -> (Cluster, Vec<(PartitionId, StageId)>) {
    let mut cluster = Cluster::of(3, partitions);
    cluster.place(&[1]);
    let rows: Vec<(u32, &[usize])> = (0..moving).map(|p| (p, &[2][..])).collect();
    cluster.plan(&rows);
    let stages = open_stages(&cluster.state, cluster.id(2));
    (cluster, stages.into_iter().collect())
}

#[tokio::test(start_paused = true)]
async fn without_a_partition_hook_everything_is_answered_at_once() {
    let (cluster, stages) = moving(100, 60);
    let mut node = Node1::start(cluster, 2, EventSeq(0), Hooks::default());
    assert_eq!(node.propose().await.synced, stages);
    node.cluster.switch(stages.clone());
    let cluster = node.cluster;
    let mut node = Node1::start(cluster, 1, EventSeq(0), Hooks::new());
    let acks = node.propose().await;
    assert_eq!((acks.released.len(), acks.synced.len()), (60, 0));
    assert_eq!(node.counters.figures().succeeded, 0);
    node.through().await;
    let involved = |p: &clusterkit_core::partition::Partition| !p.leaving().is_empty();
    assert!(!node.cluster.state.partitions().iter().any(involved));
}

#[tokio::test(start_paused = true)]
async fn the_ok_of_the_target_is_what_counts() {
    for (number, expected) in [(1, 0), (2, 3), (3, 0)] {
        let calls = Calls::default();
        let (cluster, _) = moving(3, 3);
        let mut node = Node1::start(cluster, number, EventSeq(0), calls.hooks());
        node.through().await;
        wait_until(|| calls.of("p").len() == 6).await;
        let answered = node.acks.try_recv().map_or(0, |acks| acks.synced.len());
        assert_eq!(answered, expected, "on n{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_an_error_are_asked_again_after_a_pause() {
    let (calls, turn) = (Calls::default(), AtomicU32::new(0));
    let seen = calls.clone();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let calls = seen.clone();
        let turn = turn.fetch_add(u32::from(change.local), Ordering::Relaxed);
        let sources = names(&change.sources);
        if change.local {
            calls.add(format!("try {turn} from={sources}"));
            // Also outside of the future: the closure itself may panic.
            assert!(turn != 0, "no disk");
        }
        async move {
            match turn {
                1 => panic!("still no disk"),
                2 | 3 if change.local => Err(std::io::Error::other("disk is slow").into()),
                _ => Ok(()),
            }
        }
    });
    let (mut cluster, stages) = moving(1, 1);
    cluster.apply(&Command::UpdateConfig {
        change: ConfigChange {
            replication_factor: Some(3),
            ..ConfigChange::default()
        },
        at: UnixMillis(1),
    });
    let clock = crate::clock::SystemClock::new();
    let began = crate::clock::Clock::now(&clock);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    assert_eq!(node.answers().await.synced, stages);
    let took = crate::clock::Clock::now(&clock).saturating_since(began);
    // 100, 200, 400 and 800 ms, each with at most as much on top.
    let (least, most) = (Duration::from_millis(1_500), Duration::from_millis(3_100));
    assert!(took >= least && took <= most, "{took:?}");
    assert_eq!(calls.count(), 5);
    let figures = node.counters.figures();
    assert_eq!(
        (figures.panicked, figures.failed, figures.running),
        (2, 2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_called_again_is_told_the_sources_of_now() {
    let calls = Calls::default();
    let seen = calls.clone();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let calls = seen.clone();
        async move {
            if !change.local {
                return Ok(());
            }
            let primary = change.new_primary.map(|node| node.id.to_string());
            calls.add(format!("from={} of {primary:?}", names(&change.sources)));
            if calls.count() == 1 {
                return Err("the source is gone".into());
            }
            Ok(())
        }
    });
    let mut cluster = Cluster::of(3, 1);
    cluster.place(&[1, 3]);
    cluster.plan(&[(0, &[1, 3, 2])]);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    wait_until(|| calls.count() == 1).await;
    node.cluster.down(1);
    node.feed();
    node.answers().await;
    assert_eq!(
        calls.lines(),
        ["from=n1,n3 of Some(\"n1\")", "from=n3 of Some(\"n3\")"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_superseded_stage_cancels_the_hook_that_runs_for_it() {
    struct Dropped(Calls);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.add("dropped");
        }
    }

    let calls = Calls::default();
    let seen = calls.clone();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let calls = seen.clone();
        async move {
            if change.local {
                calls.add(format!("{:?}", change.stage));
            }
            if change.local && change.stage == clusterkit_core::event::ChangeStage::Syncing {
                let _guard = Dropped(calls.clone());
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let (cluster, stages) = moving(2, 1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    wait_until(|| calls.count() == 1).await;
    node.cluster.revert(stages);
    node.feed();
    let acks = node.propose().await;
    assert_eq!((acks.synced.len(), acks.released.len()), (0, 1));
    assert_eq!(calls.lines(), ["Syncing", "dropped", "Reverted"]);
    node.through().await;
    assert_eq!(node.counters.figures().superseded, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_for_a_stage_that_has_ended_is_not_called_again() {
    let calls = Calls::default();
    let seen = calls.clone();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let calls = seen.clone();
        async move {
            if change.local {
                calls.add(format!("{:?}", change.stage));
                return Err("never".into());
            }
            Ok(())
        }
    });
    let (cluster, stages) = moving(1, 1);
    let mut node = Node1::start(cluster, 2, EventSeq(0), hooks);
    wait_until(|| calls.count() >= 4).await;
    // The node is declared down: its own stages end, whatever it would answer.
    node.cluster.down(2);
    node.cluster.revert(stages);
    node.feed();
    node.through().await;
    let tried = calls.count();
    let_pass(Duration::from_secs(30)).await;
    assert_eq!(calls.count(), tried);
    assert!(node.acks.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_repeated_until_the_cluster_has_taken_it() {
    let (cluster, stages) = moving(4, 2);
    let mut node = Node1::start(cluster, 2, EventSeq(0), Hooks::default());
    for _ in 0..3 {
        // The proposals are lost.
        assert_eq!(node.answers().await.synced, stages);
    }
    node.cluster.synced(2, stages[..1].to_vec());
    node.feed();
    // One batch may have been on its way.
    wait_until(|| match node.acks.try_recv() {
        Ok(acks) => acks.synced == stages[1..],
        Err(_) => false,
    })
    .await;
    node.propose().await;
    while node.acks.try_recv().is_ok() {}
    let_pass(Duration::from_secs(10)).await;
    assert!(node.acks.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_to_be_here_again_is_not_cleaned_up_late() {
    let (calls, gate) = (Calls::default(), Gate::closed());
    let (seen, slow) = (calls.clone(), gate.clone());
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let (calls, slow) = (seen.clone(), slow.clone());
        async move {
            slow.pass().await;
            calls.add(describe(&change));
            Ok(())
        }
    });
    let (cluster, stages) = moving(1, 1);
    let mut node = Node1::start(cluster, 1, EventSeq(0), hooks);
    node.cluster.synced(2, stages.clone());
    node.cluster.switch(stages);
    // While its hook waits, n1 is away, its stage ends, and the partition comes back to it.
    node.feed();
    node.cluster.down(1);
    node.cluster.up(1);
    node.cluster.plan(&[(0, &[1])]);
    node.feed();
    gate.open();
    node.answers().await;
    node.through().await;
    let stages = |line: &String| line.split(' ').nth(1).map(ToString::to_string);
    let local: Vec<String> = calls.lines();
    let local: Vec<String> = local
        .iter()
        .filter(|l| l.ends_with("local"))
        .filter_map(stages)
        .collect();
    assert_eq!(local, ["Switched", "Syncing"]);
}

//! Which hooks are called, with what, and in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clusterkit_core::config::EVENTS_KEPT;

use super::*;

#[tokio::test(start_paused = true)]
async fn every_hook_fires_with_its_payload() {
    let calls = Calls::default();
    let mut node = Node1::start(Cluster::of(1, 2), 1, EventSeq(0), calls.hooks());
    node.cluster.join();
    node.cluster.place(&[1]);
    node.cluster.plan(&[(0, &[2])]);
    let stages: Vec<_> = open_stages(&node.cluster.state, node.cluster.id(2))
        .into_iter()
        .collect();
    node.cluster.synced(2, stages.clone());
    node.cluster.switch(stages);
    node.feed();
    assert_eq!(node.propose().await.released.len(), 1);
    node.cluster.plan(&[(1, &[1, 2])]);
    let stages: Vec<_> = open_stages(&node.cluster.state, node.cluster.id(2))
        .into_iter()
        .collect();
    node.cluster.synced(2, stages.clone());
    node.cluster.switch(stages);
    node.cluster.down(2);
    node.feed();
    node.through().await;
    node.cluster.restart(2);
    node.feed();
    node.through().await;

    let mut cluster = calls.lines();
    cluster.retain(|line| !line.starts_with('p'));
    assert_eq!(
        cluster,
        [
            "join n1 size=1 bootstrap=true at=10000",
            "join n2 size=2 bootstrap=false at=30000",
            "start Manual of=None moves=1 nodes=n1,n2 at=50000",
            "complete Manual moved=1 nodes=n1,n2 took=30s",
            "start Manual of=None moves=1 nodes=n2 at=110000",
            "complete Manual moved=1 nodes=n2 took=30s",
            "leave n2 Failed owned=[PartitionId(0)] replica=[PartitionId(1)] at=150000",
            "health Critical 1/1/2 down=n2",
            "rejoin n2 away=10s since=150000 held=[PartitionId(0), PartitionId(1)] \
             verdicts=[(PartitionId(0), Current), (PartitionId(1), Behind(Epoch(8)))] at=160000",
            "health Healthy 2/0/2 down=",
        ]
    );
    assert_eq!(
        calls.of("p0"),
        [
            "p0 Switched Primary n1 from= none>n1 Manual local",
            "p0 Syncing Primary n2 from=n1 n1>n1 Manual",
            "p0 Switched Primary n2 from= n1>n2 Manual",
            "p0 Cleanup None n1 from=n2 n1>n2 Manual local",
            "p0 Switched Primary n2 from= none>n2 Failover",
        ]
    );
    assert_eq!(
        calls.of("p1"),
        [
            "p1 Switched Primary n1 from= none>n1 Manual local",
            "p1 Syncing Replica n2 from=n1 n1>n1 Manual",
            "p1 Switched Replica n2 from=n1 n1>n1 Manual",
            "p1 Syncing Replica n2 from=n1 n1>n1 NodeJoin behind=8",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_partition_neither_overlap_nor_overtake() {
    let (calls, busy, turn) = (
        Calls::default(),
        Arc::new(AtomicU32::new(0)),
        AtomicU32::new(0),
    );
    let seen = calls.clone();
    let hooks = Hooks::new().on_partition_change(move |change: PartitionChange| {
        let (calls, busy) = (seen.clone(), Arc::clone(&busy));
        // Earlier calls take longer than later ones.
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let time = Duration::from_millis(u64::from(200 - 7 * turn));
        async move {
            assert_eq!(busy.fetch_add(1, Ordering::Relaxed), 0);
            let_pass_inside(time).await;
            busy.fetch_sub(1, Ordering::Relaxed);
            calls.add(format!("{:?} {}", change.stage, change.stage_id));
            Ok(())
        }
    });
    let mut cluster = Cluster::of(3, 1);
    cluster.place(&[1]);
    for row in [[2], [3], [2], [3]] {
        cluster.plan(&[(0, &row)]);
        let target = cluster.id(row[0]);
        let stages: Vec<_> = open_stages(&cluster.state, target).into_iter().collect();
        cluster.synced(row[0], stages.clone());
        cluster.switch(stages);
        let leaver = cluster.state.partitions()[0].leaving()[0];
        let stages = vec![(PartitionId(0), StageId(cluster.index))];
        let command = Command::Released {
            node: leaver,
            stages,
        };
        cluster.apply(&command);
    }
    let expected: Vec<String> = (cluster.state.events_after(EventSeq(0)).0.iter())
        .filter_map(|event| match &event.kind {
            clusterkit_core::event::EventKind::PartitionChanged(change) => {
                Some(format!("{:?} {}", change.stage, change.stage_id))
            }
            _ => None,
        })
        .collect();
    assert_eq!(expected.len(), 13);
    // No member of the moves, so that no stage of its own is superseded.
    cluster.join();
    let node = Node1::start(cluster, 4, EventSeq(0), hooks);
    node.through().await;
    assert_eq!(calls.lines(), expected);
}

async fn let_pass_inside(time: Duration) {
    let timer = tokio::time::timeout(time, std::future::pending::<()>());
    timer.await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_slow_hook_delays_only_its_own_partition() {
    let (calls, gate) = (Calls::default(), Gate::closed());
    let (seen, slow) = (calls.clone(), gate.clone());
    let hooks = calls
        .hooks()
        .on_partition_change(move |change: PartitionChange| {
            let (calls, slow) = (seen.clone(), slow.clone());
            async move {
                if change.partition == PartitionId(0) {
                    slow.pass().await;
                }
                calls.add(describe(&change));
                Ok(())
            }
        });
    let mut node = Node1::start(Cluster::of(2, 8), 1, EventSeq(0), hooks);
    node.cluster.place(&[1, 2]);
    node.feed();
    wait_until(|| calls.of("p").len() == 14).await;
    node.cluster.down(2);
    node.feed();
    wait_until(|| calls.of("leave").len() == 1).await;
    assert_eq!(calls.of("p0"), [""; 0]);
    let stuck = node.runner.cursor();
    assert!(stuck < node.cluster.state.last_event(), "{stuck}");
    gate.open();
    node.through().await;
    assert_eq!(calls.of("p0").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_is_through_before_the_partitions_that_follow_it() {
    let (calls, gate) = (Calls::default(), Gate::closed());
    let (seen, slow) = (calls.clone(), gate.clone());
    let hooks = calls.hooks().on_node_rejoin(move |back| {
        let (calls, slow) = (seen.clone(), slow.clone());
        async move {
            slow.pass().await;
            calls.add(format!("rejoin {}", back.node.id));
            Ok(())
        }
    });
    // Partitions 0 and 1 concern n2, which comes back; partition 2 does not.
    let mut cluster = Cluster::of(3, 3);
    cluster.plan(&[(0, &[1, 2]), (1, &[2, 1]), (2, &[1])]);
    cluster.down(2);
    let cursor = cluster.state.last_event();
    let mut node = Node1::start(cluster, 3, cursor, hooks);
    node.cluster.restart(2);
    node.cluster.plan(&[(2, &[3])]);
    node.feed();
    let copied = node.answers().await;
    assert_eq!(copied.synced.len(), 1, "partition 2 does not wait");
    let_pass(Duration::from_secs(5)).await;
    assert_eq!(calls.of("p2").len(), 1);
    assert_eq!((calls.of("p0").len(), calls.of("p1").len()), (0, 0));
    gate.open();
    wait_until(|| calls.of("p0").len() == 1 && calls.of("p1").len() == 1).await;
    let lines = calls.lines();
    let place = |start: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap()
    };
    assert!(
        place("rejoin") < place("p0") && place("rejoin") < place("p1"),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn on_the_returning_node_a_rejoin_is_through_before_anything_of_partitions() {
    let (calls, gate) = (Calls::default(), Gate::closed());
    let slow = gate.clone();
    let hooks = calls.hooks().on_node_rejoin(move |_| {
        let slow = slow.clone();
        async move {
            slow.pass().await;
            Err("not even then".into())
        }
    });
    let mut cluster = Cluster::of(2, 2);
    cluster.plan(&[(0, &[1, 2])]);
    let cursor = cluster.state.last_event();
    let mut node = Node1::start(cluster, 2, cursor, hooks);
    node.cluster.restart(2);
    node.cluster.plan(&[(1, &[1])]);
    node.feed();
    let_pass(Duration::from_secs(5)).await;
    assert_eq!(calls.count(), 0);
    gate.open();
    wait_until(|| calls.of("p0").len() == 1 && calls.of("p1").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_replayed_from_the_log_after_a_restart() {
    let calls = Calls::default();
    let mut cluster = Cluster::of(2, 4);
    cluster.place(&[1, 2]);
    let node = Node1::start(cluster, 1, EventSeq(0), calls.hooks());
    node.through().await;
    // Two nodes joined, and four partitions got two members each.
    assert_eq!(calls.count(), 10);
    let Node1 {
        cluster, runner, ..
    } = node;
    let cursor = runner.shutdown().await;
    assert_eq!(cursor, cluster.state.last_event());

    let mut node = Node1::start(cluster, 1, cursor, calls.hooks());
    node.cluster.join();
    node.feed();
    node.through().await;
    assert_eq!(
        calls.lines()[10..],
        ["join n3 size=3 bootstrap=false at=60000"]
    );
}

/// Events from before a node's admission are none of its business; a stage opened before it got
/// to feed its hooks is.
#[tokio::test(start_paused = true)]
async fn a_member_begins_with_its_own_admission() {
    let calls = Calls::default();
    let mut cluster = Cluster::of(2, 1);
    cluster.place(&[1]);
    cluster.join();
    cluster.plan(&[(0, &[3])]);
    for (number, first) in [(1, 0), (2, 1), (3, 3)] {
        let cursor = HookRunner::first_cursor(&cluster.state, cluster.id(number));
        assert_eq!(cursor, EventSeq(first), "n{number}");
    }
    let mut node = Node1::start(cluster, 3, EventSeq(3), calls.hooks());
    assert_eq!(node.answers().await.synced.len(), 1);
    node.through().await;
    assert_eq!(
        calls.of("join"),
        ["join n3 size=3 bootstrap=false at=60000"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_interrupted_is_delivered_again() {
    let calls = Calls::default();
    let seen = calls.clone();
    let hooks = calls.hooks().on_node_join(move |joined: NodeJoined| {
        let calls = seen.clone();
        async move {
            if joined.node.id == *"n2" && calls.of("hangs").is_empty() {
                calls.add("hangs");
                std::future::pending::<()>().await;
            }
            calls.add(format!("join {}", joined.node.id));
            Ok(())
        }
    });
    let mut cluster = Cluster::of(2, 1);
    cluster.place(&[1]);
    let node = Node1::start(cluster, 1, EventSeq(0), hooks.clone());
    wait_until(|| calls.of("hangs").len() == 1).await;
    let Node1 {
        cluster, runner, ..
    } = node;
    let cursor = runner.cursor();
    assert_eq!(cursor, EventSeq(1));
    drop(runner);

    let node = Node1::start(cluster, 1, cursor, hooks);
    node.through().await;
    assert_eq!(calls.of("join"), ["join n1", "join n2"]);
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_told_and_open_stages_are_delivered_all_the_same() {
    struct Missing(Calls);

    #[async_trait::async_trait]
    impl Subscriber for Missing {
        async fn on_partition_change(&self, change: PartitionChange) -> HookResult {
            self.0.add(describe(&change));
            Ok(())
        }

        async fn on_events_missed(&self, missed: crate::hooks::EventsMissed) -> HookResult {
            self.0
                .add(format!("missed {} to {}", missed.from, missed.to));
            Ok(())
        }
    }

    let calls = Calls::default();
    let mut cluster = Cluster::of(3, 2);
    cluster.plan(&[(0, &[1])]);
    cluster.plan(&[(0, &[1, 2])]);
    let stages = open_stages(&cluster.state, cluster.id(2));
    let before = cluster.state.last_event();
    while cluster.state.last_event().0 < before.0 + EVENTS_KEPT as u64 {
        cluster.down(3);
        cluster.up(3);
    }
    let oldest = cluster.state.events_after(before).0[0].seq;
    let mut node = Node1::start(cluster, 2, EventSeq(2), Missing(calls.clone()));
    let acks = node.answers().await;
    assert_eq!(acks.synced, stages.into_iter().collect::<Vec<_>>());
    node.through().await;
    assert_eq!(
        calls.lines(),
        [
            format!("missed 3 to {}", oldest.0 - 1),
            String::from("p0 Syncing Replica n2 from=n1 n1>n1 Manual local"),
        ]
    );
    assert_eq!(node.counters.figures().missed, oldest.0 - 3);
}

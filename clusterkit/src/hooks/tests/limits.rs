//! The limits of running hooks: how many at once, how many wait, how long, and the end of it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Counts how many are inside at once, and the most there ever were.
#[derive(Clone, Default)]
struct Inside(Arc<(AtomicU32, AtomicU32)>);

impl Inside {
    fn enter(&self) {
        let now = self.0.0.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.1.fetch_max(now, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn now(&self) -> u32 {
        self.0.0.load(Ordering::Relaxed)
    }

    fn most(&self) -> u32 {
        self.0.1.load(Ordering::Relaxed)
    }
}

fn gated(calls: &Calls, gate: &Gate, inside: &Inside) -> Hooks {
    let (calls, gate, inside) = (calls.clone(), gate.clone(), inside.clone());
    Hooks::new().on_partition_change(move |change: PartitionChange| {
        let (calls, gate, inside) = (calls.clone(), gate.clone(), inside.clone());
        async move {
            inside.enter();
            gate.pass().await;
            inside.leave();
            calls.add(describe(&change));
            Ok(())
        }
    })
}

/// The old releases stopped applying once 50 hooks were running.
#[tokio::test(start_paused = true)]
async fn hooks_do_not_deadlock_the_apply_path_beyond_50_events() {
    let (calls, gate, inside) = (Calls::default(), Gate::closed(), Inside::default());
    let hooks = gated(&calls, &gate, &inside);
    let mut node = Node1::start(Cluster::of(2, 2_000), 1, EventSeq(0), hooks);
    node.cluster.place(&[1, 2]);
    node.feed();
    wait_until(|| inside.now() == 50).await;
    // The state goes on, and so does the driver that feeds it.
    for _ in 0..100 {
        node.cluster.down(2);
        node.cluster.up(2);
        node.feed();
    }
    let_pass(Duration::from_secs(1)).await;
    let figures = node.counters.figures();
    assert_eq!((inside.now(), figures.running), (50, 50));
    assert!(figures.queued <= 1_024, "{figures:?}");
    assert!(node.runner.cursor() < node.cluster.state.last_event());
    gate.open();
    node.through().await;
    assert_eq!(inside.most(), 50);
    // What was too much for the state to keep meanwhile is accounted for.
    let figures = node.counters.figures();
    assert_eq!(figures.succeeded, calls.count() as u64);
    assert!(
        figures.missed > 0 && figures.succeeded > 2_000,
        "{figures:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_leaves_the_events_where_they_are() {
    for (at_once, queue) in [(1, 1), (2, 4), (50, 3)] {
        let (calls, gate, inside) = (Calls::default(), Gate::closed(), Inside::default());
        let settings = HookSettings {
            at_once,
            queue,
            ..HookSettings::default()
        };
        let hooks = gated(&calls, &gate, &inside);
        let mut cluster = Cluster::of(2, 40);
        cluster.place(&[2]);
        let node = Node1::start_with(cluster, 1, EventSeq(0), hooks, settings);
        wait_until(|| inside.now() as usize == at_once.min(queue)).await;
        let_pass(Duration::from_secs(1)).await;
        assert_eq!(node.counters.figures().queued, queue as u64);
        gate.open();
        node.through().await;
        let expected: Vec<String> = (0..40)
            .map(|p| format!("p{p} Switched Primary n2 from= none>n2 Manual"))
            .collect();
        let mut called = calls.lines();
        called.sort_by_key(|line| line[1..line.find(' ').unwrap()].parse::<u32>().unwrap());
        assert_eq!(called, expected);
        assert!(inside.most() as usize <= at_once);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_about_nodes_that_hangs_is_given_up_after_its_limit() {
    let calls = Calls::default();
    let hooks = calls.hooks().on_node_join(|_| std::future::pending());
    let mut cluster = Cluster::of(2, 1);
    cluster.down(2);
    let node = Node1::start(cluster, 1, EventSeq(0), hooks);
    let_pass(Duration::from_secs(59)).await;
    assert_eq!(calls.count(), 0);
    node.through().await;
    assert_eq!(calls.of("leave").len(), 1);
    assert_eq!(node.counters.figures().failed, 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_running_hooks_end_and_starts_no_new_ones() {
    let (calls, gate, inside) = (Calls::default(), Gate::closed(), Inside::default());
    let settings = HookSettings {
        at_once: 2,
        ..HookSettings::default()
    };
    let hooks = gated(&calls, &gate, &inside);
    let mut cluster = Cluster::of(1, 10);
    cluster.place(&[1]);
    let node = Node1::start_with(cluster, 1, EventSeq(0), hooks, settings);
    wait_until(|| inside.now() == 2).await;
    let shutdown = node.runner.shutdown();
    tokio::pin!(shutdown);
    let still = tokio::time::timeout(Duration::from_secs(1), &mut shutdown).await;
    still.expect_err("running hooks are waited for");
    gate.open();
    // The event of the bootstrap and two partitions are through.
    assert_eq!(shutdown.await, EventSeq(3));
    assert_eq!((calls.count(), inside.now()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn shutdown_aborts_what_does_not_end_within_the_grace() {
    let held = Arc::new(());
    let inside = Arc::clone(&held);
    let hooks = Hooks::new().on_partition_change(move |_| {
        let inside = Arc::clone(&inside);
        async move {
            std::future::pending::<()>().await;
            drop(inside);
            Ok(())
        }
    });
    let mut cluster = Cluster::of(1, 10);
    cluster.place(&[1]);
    let node = Node1::start(cluster, 1, EventSeq(0), hooks);
    wait_until(|| node.counters.figures().running == 10).await;
    assert_eq!(Arc::strong_count(&held), 12);
    let began = crate::clock::SystemClock::new();
    assert_eq!(node.runner.shutdown().await, EventSeq(1));
    let took = crate::clock::Clock::now(&began).as_nanos() / 1_000_000;
    assert!((5_000..5_100).contains(&took), "{took} ms");
    assert_eq!(Arc::strong_count(&held), 1, "tasks and hooks are gone");
}

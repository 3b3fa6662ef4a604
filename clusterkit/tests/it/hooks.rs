//! Hooks and events of real nodes: who hears what, when an answer counts, and what a restart does.
//!
//! Order, limits and cancellation are tested beside the runner, in `src/hooks/tests`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clusterkit::{
    ChangeStage, ClusterEvent, ClusterKit, HealthChange, HookResult, NodeJoined, NodeLeft,
    NodeRejoined, Options, PartitionChange, PartitionId, Subscriber,
};

use crate::support::{LIMIT, Nodes, options, wait_until};

/// Writes down what it hears; cloning shares the notes.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, line: String) -> HookResult {
        self.0.lock().unwrap().push(line);
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn of(&self, start: &str) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.starts_with(start));
        lines
    }
}

#[async_trait::async_trait]
impl Subscriber for Notes {
    async fn on_partition_change(&self, change: PartitionChange) -> HookResult {
        let mine = if change.local { " here" } else { "" };
        self.add(format!("p{} {:?}{mine}", change.partition, change.stage))
    }

    async fn on_node_join(&self, joined: NodeJoined) -> HookResult {
        self.add(format!("join {}", joined.node.id))
    }

    async fn on_node_rejoin(&self, rejoined: NodeRejoined) -> HookResult {
        self.add(format!(
            "rejoin {} with {}",
            rejoined.node.id,
            rejoined.verdicts.len()
        ))
    }

    async fn on_node_leave(&self, left: NodeLeft) -> HookResult {
        self.add(format!("leave {}", left.node.id))
    }

    async fn on_health_change(&self, change: HealthChange) -> HookResult {
        self.add(format!("health {:?}", change.status))
    }
}

/// Starts the node in the directory of `cluster.nodes[node]` again.
async fn start_again(cluster: &mut Nodes, node: usize, change: impl FnOnce(Options) -> Options) {
    let stopped = cluster.nodes.remove(node);
    let id = stopped.node_id().to_string();
    let address = stopped.address().to_owned();
    stopped.stop().await;
    drop(stopped);
    let options = Options::new(id, address)
        .data_dir(cluster.dir(node))
        .leave_on_shutdown(false);
    let started = ClusterKit::start(change(options)).await.unwrap();
    cluster.nodes.insert(node, started);
}

/// In the old releases join and rejoin fired on the leader only, and before the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_and_rejoin_hooks_fire_on_every_node() {
    let mut cluster = Nodes::none();
    let notes: Vec<Notes> = (0..3).map(|_| Notes::default()).collect();
    for (i, notes) in notes.iter().enumerate() {
        let hooks = notes.clone();
        let id = format!("node-{}", i + 1);
        cluster
            .add(&id, |options| options.partitions(8).hooks(hooks))
            .await
            .unwrap();
    }
    cluster.settled().await;
    for (i, notes) in notes.iter().enumerate() {
        // A node hears of everybody from its own admission on.
        let expected: Vec<String> = (i..3).map(|n| format!("join node-{}", n + 1)).collect();
        wait_until("joins are heard", || notes.of("join") == expected).await;
    }
    let switched = |line: &String| line.ends_with("Switched here");
    wait_until("node-3 hears that it serves everything", || {
        notes[2]
            .lines()
            .iter()
            .filter(|line| switched(line))
            .count()
            == 8
    })
    .await;
    let again = Notes::default();
    let hooks = again.clone();
    start_again(&mut cluster, 2, |options| options.hooks(hooks)).await;
    cluster.settled().await;
    for notes in [&notes[0], &notes[1], &again] {
        wait_until("the rejoin is heard", || {
            notes.of("rejoin") == ["rejoin node-3 with 8"]
        })
        .await;
    }
    wait_until("the copies are caught up", || again.of("p").len() >= 8).await;
    let lines = again.lines();
    let rejoin = lines
        .iter()
        .position(|line| line.starts_with("rejoin"))
        .unwrap();
    let copy = lines
        .iter()
        .position(|line| line.ends_with("here"))
        .unwrap();
    assert!(rejoin < copy, "{lines:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_not_replayed_from_the_log_at_every_restart() {
    let notes = Notes::default();
    let mut cluster = Nodes::none();
    let hooks = notes.clone();
    cluster
        .add("node-1", |options| options.partitions(4).hooks(hooks))
        .await
        .unwrap();
    cluster.settled().await;
    wait_until("all is heard", || notes.of("p").len() == 4).await;
    for turn in 1..=3 {
        let again = Notes::default();
        let hooks = again.clone();
        start_again(&mut cluster, 0, |options| options.hooks(hooks)).await;
        cluster.settled().await;
        wait_until("the rejoin is heard", || again.of("rejoin").len() == 1).await;
        assert_eq!(again.of("join"), [""; 0], "turn {turn}");
        let switched = again
            .of("p")
            .iter()
            .filter(|line| line.contains("Switched"))
            .count();
        assert!(switched <= 4, "turn {turn}: {:?}", again.lines());
    }
    cluster.stop().await;
}

/// Fails to copy while told to.
#[derive(Clone, Default)]
struct Copies {
    works: Arc<AtomicBool>,
    tried: Arc<Mutex<BTreeMap<PartitionId, u32>>>,
}

#[async_trait::async_trait]
impl Subscriber for Copies {
    async fn on_partition_change(&self, change: PartitionChange) -> HookResult {
        if !change.local || change.stage != ChangeStage::Syncing {
            return Ok(());
        }
        let turn = {
            let mut tried = self.tried.lock().unwrap();
            let turn = tried.entry(change.partition).or_default();
            *turn += 1;
            *turn
        };
        assert!(turn % 2 == 0, "every other copy panics");
        if self.works.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("no source answers".into())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_01_a_node_serves_nothing_that_its_hook_has_not_copied() {
    let mut cluster = Nodes::form(1, 4).await;
    let mut events = cluster.nodes[0].events();
    let copies = Copies::default();
    let hooks = copies.clone();
    cluster
        .add("node-2", |options| options.hooks(hooks))
        .await
        .unwrap();
    wait_until("every copy has failed in both ways", || {
        let tried = copies.tried.lock().unwrap();
        tried.len() == 4 && tried.values().all(|tried| *tried >= 3)
    })
    .await;
    let topology = cluster.nodes[0].topology();
    let node = topology.node("node-2").unwrap().raft_id;
    for partition in topology.partitions() {
        assert!(
            topology
                .members(partition)
                .all(|member| member.raft_id != node),
            "{partition}"
        );
    }
    let figures = cluster.nodes[1].metrics().hooks;
    assert!(figures.failed >= 4 && figures.panicked >= 4, "{figures:?}");

    copies.works.store(true, Ordering::Relaxed);
    cluster.settled().await;
    let mut switched = 0;
    let reading = async {
        while switched < 4 {
            match events.next().await.expect("the node runs") {
                ClusterEvent::PartitionChanged(change)
                    if change.stage == ChangeStage::Switched && change.target.id == *"node-2" =>
                {
                    switched += 1;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, reading)
        .await
        .expect("every switch is an event");
    cluster.stop().await;
    let end = tokio::time::timeout(LIMIT, async { while events.next().await.is_some() {} });
    end.await.expect("the stream ends with the node");
}

/// Never answers.
struct Hangs;

#[async_trait::async_trait]
impl Subscriber for Hangs {
    async fn on_partition_change(&self, _: PartitionChange) -> HookResult {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_hangs_does_not_keep_a_node_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let options = options("node-1", dir.path()).partitions(100).hooks(Hangs);
    let options = options
        .hooks_at_once(10)
        .hook_grace(Duration::from_millis(50));
    let node = ClusterKit::start(options).await.unwrap();
    wait_until("hooks hang", || node.metrics().hooks.running == 10).await;
    // They hang in the way of nothing else.
    node.set_data("key", &b"value"[..]).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(5), node.stop()).await;
    stopped.expect("the grace is 50 ms");
    assert_eq!(node.metrics().hooks.running, 0);
}

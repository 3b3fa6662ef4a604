//! The program of a simulated node: the example key-value service on its embedded node, and what a
//! supervisor makes of its end.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clusterkit::disk::Directory;
use clusterkit::{ClusterKit, Entropy, Environment, Execution, Profile};
use clusterkit_examples::kv::{HookUp, KvNode, KvOptions, StoreKind};
use tokio::sync::Notify;

use super::clock::SimClock;
use super::fabric::Fabric;
use super::hooks::{Recorded, Recorder};
use super::net::SimNetwork;
use crate::Rng;

/// Where nodes serve their cluster, and keys.
pub(crate) const HTTP_PORT: u16 = 8_080;
pub(crate) const KV_PORT: u16 = 9_080;

/// What all nodes of a run are told alike.
#[derive(Clone, Debug)]
pub(crate) struct ClusterShape {
    pub(crate) seeds: Vec<String>,
    pub(crate) partitions: u32,
    pub(crate) copies: u32,
    pub(crate) expect: usize,
    pub(crate) repair_delay: Duration,
}

/// One start of one node.
pub(crate) struct Start {
    pub(crate) number: u32,
    pub(crate) host: IpAddr,
    pub(crate) boot: u64,
    pub(crate) zone: String,
    pub(crate) began: Duration,
    /// Whether it may form a cluster: a node that lost its disk must not, once there is one.
    pub(crate) may_form: bool,
    /// Whether it is new to the cluster, which may have changed its settings since it was formed.
    pub(crate) joins: bool,
    pub(crate) shape: Arc<ClusterShape>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) rng: Rng,
    pub(crate) probe: Arc<Probe>,
    pub(crate) recorder: Arc<Recorder>,
}

/// What the world sees of a process, and tells it.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    state: Mutex<ProbeState>,
    stop: Notify,
}

#[derive(Debug, Default)]
struct ProbeState {
    cluster: Option<ClusterKit>,
    end: Option<End>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to stop, and did.
    Stopped,
    /// It is no member any more, or the disk under its log failed.
    Left,
    /// The disk under its records failed.
    Broken,
    /// It could not start, because of this.
    Failed(String),
}

impl Probe {
    fn lock(&self) -> MutexGuard<'_, ProbeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the embedded node once it has started.
    pub(crate) fn cluster(&self) -> Option<ClusterKit> {
        self.lock().cluster.clone()
    }

    /// Returns how it ended.
    pub(crate) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Tells the program to stop in good order, without leaving its cluster.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Lets go of the embedded node.
    pub(crate) fn clear(&self) {
        let cluster = self.lock().cluster.take();
        drop(cluster);
    }
}

/// Identities from the seed.
#[derive(Debug)]
struct SimEntropy(Mutex<Rng>);

impl Entropy for SimEntropy {
    fn id(&self) -> [u8; 16] {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes16()
    }
}

/// Runs a node until it is told to stop, leaves, or cannot go on.
pub(crate) async fn run(start: Start) {
    let probe = Arc::clone(&start.probe);
    let end = match KvNode::start(options(start)).await {
        Err(error) => End::Failed(format!("{error:#}")),
        Ok(node) => {
            let cluster = node.cluster().clone();
            probe.lock().cluster = Some(cluster.clone());
            let end = tokio::select! {
                biased;
                () = probe.stop.notified() => End::Stopped,
                () = cluster.left() => End::Left,
                () = node.failed() => End::Broken,
            };
            node.stop().await;
            end
        }
    };
    let mut state = probe.lock();
    state.end = Some(end);
    let cluster = state.cluster.take();
    drop(state);
    drop(cluster);
}

fn options(start: Start) -> KvOptions {
    let Start { host, shape, .. } = start;
    let mut environment = Environment::default();
    environment.network = Arc::new(SimNetwork::new(start.fabric, host, start.boot));
    environment.clock = Arc::new(SimClock::new(start.began));
    environment.entropy = Arc::new(SimEntropy(Mutex::new(start.rng)));
    environment.execution = Execution::Inline;
    let id = format!("node-{}", start.number);
    let address = format!("{host}:{HTTP_PORT}");
    let mut options = KvOptions::new(id, address, format!("{host}:{KV_PORT}"));
    options.environment = environment;
    let recorder = start.recorder;
    options.hook_up = HookUp::new(move |node, hooks| {
        let recorder = Arc::clone(&recorder);
        node.hooks(Recorded { hooks, recorder })
    });
    options.store = StoreKind::Redb(Arc::clone(&start.directory));
    let mut node = options
        .node
        .directory(start.directory)
        .profile(Profile::Fast)
        .partitions(shape.partitions)
        .repair_delay(shape.repair_delay)
        .expect(shape.expect)
        .zone(start.zone)
        .leave_on_shutdown(false)
        .join_timeout(Duration::from_secs(10));
    if !start.may_form {
        node = node.bootstrap(false);
    }
    if !start.joins {
        node = node.replication_factor(shape.copies);
    }
    for seed in &shape.seeds {
        node = node.join(seed.as_str());
    }
    options.node = node;
    options
}

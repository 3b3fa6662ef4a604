//! Starting nodes on free ports and waiting for conditions.

use std::path::Path;
use std::time::Duration;

use clusterkit::{ClusterKit, Options, StartError};
use tempfile::TempDir;

/// How long any condition may take; far beyond what it should, so that only a hang fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Nodes and their directories.
pub(crate) struct Nodes {
    dirs: Vec<TempDir>,
    pub(crate) nodes: Vec<ClusterKit>,
}

impl Nodes {
    /// Starts with no node at all.
    pub(crate) fn none() -> Self {
        Self {
            dirs: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Forms a cluster of `count` nodes with `partitions` partitions, and waits until it is ready.
    pub(crate) async fn form(count: usize, partitions: u32) -> Self {
        let mut nodes = Self::none();
        for i in 0..count {
            let options = |options: Options| options.partitions(partitions);
            nodes
                .add(&format!("node-{}", i + 1), options)
                .await
                .unwrap();
        }
        nodes.settled().await;
        nodes
    }

    /// Starts one more node, which joins through the first one if there is one.
    pub(crate) async fn add(
        &mut self,
        id: &str,
        change: impl FnOnce(Options) -> Options,
    ) -> Result<(), StartError> {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(id, dir.path());
        for seed in &self.nodes {
            options = options.join(seed.address());
        }
        self.nodes.push(ClusterKit::start(change(options)).await?);
        self.dirs.push(dir);
        Ok(())
    }

    /// Waits until every node is ready, knows the same epoch, and nothing moves any more.
    pub(crate) async fn settled(&self) {
        let count = self.nodes.len();
        wait_until("all nodes settle on one balanced topology", || {
            let epochs: Vec<_> = self
                .nodes
                .iter()
                .map(|node| node.topology().epoch())
                .collect();
            epochs.windows(2).all(|pair| pair[0] == pair[1])
                && self
                    .nodes
                    .iter()
                    .all(|node| node.is_ready() && is_settled(node, count))
        })
        .await;
    }

    pub(crate) fn dir(&self, node: usize) -> &Path {
        self.dirs[node].path()
    }

    pub(crate) async fn stop(&self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

/// The options all tests share.
pub(crate) fn options(id: &str, dir: &Path) -> Options {
    Options::new(id, "127.0.0.1:0")
        .data_dir(dir)
        .leave_on_shutdown(false)
        .join_timeout(Duration::from_secs(20))
}

/// Tells whether every partition has all the in-sync copies that `nodes` nodes allow.
pub(crate) fn is_settled(node: &ClusterKit, nodes: usize) -> bool {
    let topology = node.topology();
    let copies = (topology.replication_factor() as usize).min(nodes);
    topology.nodes().len() == nodes
        && topology.partitions().all(|partition| {
            topology.primary(partition).is_some()
                && topology.in_sync(partition).count() == copies
                && topology.members(partition).count() == copies
                && topology.joining(partition).count() == 0
        })
}

/// Waits until `condition` holds.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let polling = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            ticks.tick().await;
        }
    };
    assert!(
        tokio::time::timeout(LIMIT, polling).await.is_ok(),
        "not within {LIMIT:?}: {what}"
    );
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

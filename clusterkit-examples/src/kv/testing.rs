//! Topologies that tests write by hand, and a cluster that follows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clusterkit_core::hash::HashConfig;
use clusterkit_core::id::{ClusterId, DiskId, Epoch, NodeId, PartitionId, RaftId};
use clusterkit_core::lease::NoToken;
use clusterkit_core::node::{Node, NodeSpec, NodeStatus};
use clusterkit_core::time::UnixMillis;
use clusterkit_core::topology::{Topology, TopologyParts, TopologyRow};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::cluster::Cluster;

/// Returns where node `node` stands in a list that begins with node 1.
pub(crate) fn at(node: u64) -> usize {
    usize::try_from(node).unwrap() - 1
}

/// A cluster of one partition as a test wants it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) nodes: Vec<Node>,
    pub(crate) row: TopologyRow,
    pub(crate) epoch: u64,
}

impl Script {
    /// Nodes 1 to `nodes`, of which `members` hold the partition, the primary first.
    pub(crate) fn new(nodes: u64, members: &[u64]) -> Self {
        let node = |id: u64| {
            let name = NodeId::new(format!("node-{id}")).unwrap();
            let spec = NodeSpec::new(name, DiskId::from_bytes([0; 16]), "127.0.0.1:1");
            let mut node = Node::new(RaftId(id), spec, UnixMillis(0));
            node.status = NodeStatus::Active;
            node
        };
        let row = TopologyRow {
            primary: members.first().map(|&id| RaftId(id)),
            replicas: members.iter().skip(1).map(|&id| RaftId(id)).collect(),
            epoch: Epoch(1),
            ..TopologyRow::default()
        };
        Self {
            nodes: (1..=nodes).map(node).collect(),
            row,
            epoch: 1,
        }
    }

    /// Gives the partition this epoch.
    pub(crate) fn epoch(mut self, epoch: u64) -> Self {
        self.row.epoch = Epoch(epoch);
        self
    }

    pub(crate) fn members(mut self, members: &[u64]) -> Self {
        self.row.primary = members.first().map(|&id| RaftId(id));
        self.row.replicas = members.iter().skip(1).map(|&id| RaftId(id)).collect();
        self
    }

    pub(crate) fn joining(mut self, nodes: &[u64]) -> Self {
        self.row.joining = nodes.iter().map(|&id| RaftId(id)).collect();
        self
    }

    pub(crate) fn behind(mut self, nodes: &[u64]) -> Self {
        self.row.behind = nodes.iter().map(|&id| RaftId(id)).collect();
        self
    }

    pub(crate) fn down(mut self, node: u64) -> Self {
        self.nodes[at(node)].status = NodeStatus::Down;
        self
    }

    pub(crate) fn up(mut self, node: u64) -> Self {
        self.nodes[at(node)].status = NodeStatus::Active;
        self
    }

    pub(crate) fn served_at(mut self, node: u64, address: String) -> Self {
        let services = BTreeMap::from([(String::from("kv"), address)]);
        self.nodes[at(node)].services = Arc::new(services);
        self
    }

    pub(crate) fn seen_by(&self, node: u64) -> Topology {
        let parts = TopologyParts {
            cluster: ClusterId::from_bytes([7; 16]),
            name: String::from("scripted"),
            generation: 0,
            epoch: Epoch(self.epoch),
            hash: HashConfig::default(),
            replication_factor: 3,
            nodes: self.nodes.iter().cloned().map(Arc::new).collect(),
            rows: vec![self.row.clone()],
        };
        Topology::new(parts).unwrap().seen_by(RaftId(node))
    }
}

/// One node's view, moved on by the test.
#[derive(Debug)]
pub(crate) struct Scripted {
    view: watch::Sender<Option<Arc<Topology>>>,
    /// Whether the lease of this node has run out.
    lease_over: AtomicBool,
}

impl Scripted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            view: watch::Sender::new(None),
            lease_over: AtomicBool::new(false),
        })
    }

    /// Ends the lease of this node.
    pub(crate) fn end_lease(&self) {
        self.lease_over.store(true, Ordering::Release);
    }

    /// Becomes the view of a process that has not joined.
    pub(crate) fn hide(&self) {
        self.view.send_replace(None);
    }

    pub(crate) fn show(&self, topology: Topology) {
        self.view.send_replace(Some(Arc::new(topology)));
    }
}

impl Cluster for Scripted {
    fn topology(&self) -> Option<Arc<Topology>> {
        self.view.borrow().clone()
    }

    fn owned(&self, partition: PartitionId) -> Result<Epoch, NoToken> {
        let topology = self.topology();
        let topology = topology.filter(|topology| topology.is_primary(partition));
        let topology = topology.ok_or(NoToken::NotPrimary { partition })?;
        match self.lease_over.load(Ordering::Acquire) {
            false => Ok(topology.partition_epoch(partition)),
            true => Err(NoToken::LeaseOver),
        }
    }

    fn changed(&self, after: Epoch) -> BoxFuture<'_, Arc<Topology>> {
        async move {
            let mut view = self.view.subscribe();
            let newer = view
                .wait_for(|view| view.as_ref().is_some_and(|t| t.epoch() > after))
                .await
                .unwrap();
            newer.clone().unwrap()
        }
        .boxed()
    }
}

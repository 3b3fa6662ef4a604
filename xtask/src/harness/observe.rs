//! What the nodes of a cluster say about it, read over HTTP through clusterkit-http's client.
//!
//! [`View`] is one node's answer to `/v1/topology`, with names in place of table indices. Whether
//! several views are right together is judged by `verdict`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_core::topology::Topology;
use clusterkit_http::api::TopologyDocument;
use clusterkit_http::client::HttpRequest;
use serde_json::Value;

use super::Cluster;

/// How long one look at one node may take.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// One node's view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The epoch of the published topology.
    pub(crate) epoch: u64,
    /// How many copies a partition should have.
    pub(crate) replication_factor: usize,
    /// The nodes, by id.
    pub(crate) nodes: BTreeMap<String, NodeRow>,
    /// The partitions, in order.
    pub(crate) partitions: Vec<PartitionRow>,
}

/// One node of a [`View`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// `joining`, `active`, `draining`, `down` or `left`.
    pub(crate) status: String,
    /// The HTTP address the node announced.
    pub(crate) address: String,
    /// The address of the service `kv`, if it announced one.
    pub(crate) kv: Option<String>,
    /// Its share of the data relative to other nodes.
    pub(crate) weight: u32,
    /// Its failure domain, empty for none.
    pub(crate) zone: String,
}

/// One partition of a [`View`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionRow {
    /// The node that owns it.
    pub(crate) primary: Option<String>,
    /// The other holders, in order.
    pub(crate) replicas: Vec<String>,
    /// Nodes that are about to become holders.
    pub(crate) joining: Vec<String>,
    /// Nodes that are about to cease being holders.
    pub(crate) leaving: Vec<String>,
    /// Holders whose copy is not known to be current.
    pub(crate) behind: Vec<String>,
}

impl PartitionRow {
    /// Returns the holders, the primary first.
    pub(crate) fn holders(&self) -> impl Iterator<Item = &String> {
        self.primary.iter().chain(&self.replicas)
    }

    /// Tells whether a move is under way.
    pub(crate) fn is_moving(&self) -> bool {
        !self.joining.is_empty() || !self.leaving.is_empty()
    }
}

impl View {
    /// Reads a topology.
    pub(crate) fn of(topology: &Topology) -> Self {
        let ids = |nodes: Vec<&Node>| nodes.iter().map(|node| node.id.to_string()).collect();
        let node = |node: &Arc<Node>| {
            let row = NodeRow {
                status: node.status.to_string(),
                address: node.address.to_string(),
                kv: node.services.get("kv").cloned(),
                weight: node.weight,
                zone: node.zone.to_string(),
            };
            (node.id.to_string(), row)
        };
        let partition = |id: PartitionId| {
            let current: Vec<RaftId> = topology.in_sync(id).map(|node| node.raft_id).collect();
            let is_behind = |node: &&Node| !current.contains(&node.raft_id);
            PartitionRow {
                primary: topology.primary(id).map(|node| node.id.to_string()),
                replicas: ids(topology.replicas(id).collect()),
                joining: ids(topology.joining(id).collect()),
                leaving: Vec::new(),
                behind: ids(topology.members(id).filter(is_behind).collect()),
            }
        };
        Self {
            epoch: topology.epoch().0,
            replication_factor: topology.replication_factor() as usize,
            nodes: topology.nodes().iter().map(node).collect(),
            partitions: topology.partitions().map(partition).collect(),
        }
    }

    /// Returns the ids of the nodes that may hold partitions.
    pub(crate) fn active(&self) -> BTreeSet<&str> {
        let active = self
            .nodes
            .iter()
            .filter(|(_, node)| node.status == "active");
        active.map(|(id, _)| id.as_str()).collect()
    }

    /// Returns how many partitions `node` is primary of.
    pub(crate) fn primaries_of(&self, node: &str) -> usize {
        self.partitions
            .iter()
            .filter(|row| row.primary.as_deref() == Some(node))
            .count()
    }

    /// Returns how many partitions `node` is a replica of.
    pub(crate) fn replicas_of(&self, node: &str) -> usize {
        self.partitions
            .iter()
            .filter(|row| row.replicas.iter().any(|id| id == node))
            .count()
    }

    /// Returns how many copies exist here that did not exist in `before`.
    pub(crate) fn copies_since(&self, before: &Self) -> usize {
        let pairs = self.partitions.iter().zip(&before.partitions);
        pairs
            .map(|(now, before)| {
                let had: BTreeSet<&String> = before.holders().collect();
                now.holders().filter(|holder| !had.contains(holder)).count()
            })
            .sum()
    }
}

/// What `/ready` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Whether the node is ready.
    pub(crate) ready: bool,
    /// How many nodes it sees.
    pub(crate) nodes: u64,
}

impl Cluster {
    async fn look(&self, id: &str, path: &str) -> anyhow::Result<(u16, Value)> {
        let address = self.member(id)?.address();
        let request = HttpRequest::get(path).within(LOOK_LIMIT);
        let answer = self.http.send(&address, request).await?;
        let status = answer.status();
        let document = serde_json::from_slice(answer.body())
            .with_context(|| format!("{id} answered {status} to {path} without JSON"))?;
        Ok((status, document))
    }

    /// Asks `id` whether it is ready.
    pub(crate) async fn readiness(&self, id: &str) -> anyhow::Result<Readiness> {
        let (status, document) = self.look(id, "/ready").await?;
        if status != 200 && status != 503 {
            bail!("{id} answered {status} to /ready: {document}");
        }
        Ok(Readiness {
            ready: status == 200 && document["ready"] == true,
            nodes: document["nodes"].as_u64().unwrap_or_default(),
        })
    }

    /// Asks `id` who leads.
    pub(crate) async fn leader_seen_by(&self, id: &str) -> anyhow::Result<Option<String>> {
        let (status, document) = self.look(id, "/consensus/leader").await?;
        match status {
            200 => Ok(document["leader_id"].as_str().map(str::to_owned)),
            404 => Ok(None),
            status => bail!("{id} answered {status} to /consensus/leader: {document}"),
        }
    }

    /// Returns the leader that every running member names.
    pub(crate) async fn leader(&self) -> anyhow::Result<String> {
        let mut named: Option<String> = None;
        for id in self.up() {
            let leader = self.leader_seen_by(&id).await?;
            let leader = leader.with_context(|| format!("{id} knows no leader"))?;
            match &named {
                Some(other) if *other != leader => bail!("{id} names {leader}, others {other}"),
                _ => named = Some(leader),
            }
        }
        named.context("no node runs")
    }

    /// Checks that every running member is ready and names the same leader.
    pub(crate) async fn all_ready(&self) -> anyhow::Result<()> {
        for id in self.up() {
            let seen = self.readiness(&id).await?;
            ensure!(seen.ready, "{id} is not ready");
        }
        self.leader().await.map(|_| ())
    }

    /// Asks `id` for its view.
    pub(crate) async fn view_of(&self, id: &str) -> anyhow::Result<View> {
        let address = self.member(id)?.address();
        let request = HttpRequest::get("/v1/topology").within(LOOK_LIMIT);
        let document: TopologyDocument = self.http.json(&address, request).await?;
        let topology = document.to_topology();
        Ok(View::of(&topology.with_context(|| {
            format!("the topology of {id} is not consistent")
        })?))
    }

    /// Asks every running member for its view.
    pub(crate) async fn views(&self) -> anyhow::Result<BTreeMap<String, View>> {
        let mut views = BTreeMap::new();
        for id in self.up() {
            let view = self.view_of(&id).await?;
            views.insert(id, view);
        }
        Ok(views)
    }

    /// Returns the newest view among those of the running members that answer.
    pub(crate) async fn newest_view(&self) -> anyhow::Result<View> {
        let mut newest: Option<View> = None;
        for id in self.up() {
            if let Ok(view) = self.view_of(&id).await
                && newest
                    .as_ref()
                    .is_none_or(|newest| view.epoch > newest.epoch)
            {
                newest = Some(view);
            }
        }
        newest.context("no running node shows a topology")
    }

    /// Reads every record that `id` holds of `partition`, if it serves them.
    pub(crate) async fn holdings(
        &self,
        kv_address: &str,
        partition: usize,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let path = format!("/kv/migrate?partition=partition-{partition}");
        let request = HttpRequest::get(path).within(LOOK_LIMIT);
        let document: Value = self.http.json(kv_address, request).await?;
        let keys = document["keys"]
            .as_object()
            .context("no `keys` in the answer")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(keys
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect())
    }
}

//! The endpoints of earlier releases, with the values they always should have had.

use std::collections::BTreeMap;

use clusterkit_core::control::View;
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::node::{Node, NodeStatus};
use clusterkit_core::topology::Topology;

use super::params::{self, accepts, etag, none_match, not_modified};
use super::{Answer, ClusterApi};
use crate::api::compat::{
    ClusterBody, ClusterConfigDocument, ClusterDocument, ConsensusStatsDocument,
    DetailedHealthDocument, HashConfigDocument, HealthDocument, KeyDocument, LeaderDocument,
    MetricsDocument, NodeDocument, NodesDocument, PartitionDocument, PartitionMapDocument,
    PartitionStatsDocument, PartitionsDocument, ReadyDocument,
};
use crate::api::v1::{PausesDocument, VetoDocument};
use crate::api::{Problem, ProblemCode, go_duration, rfc3339};
use crate::server::{Request, Response};

/// The most nodes on a page, and the number when none is given.
const NODES_PAGE_MAX: usize = 1_000;
const NODES_PAGE_DEFAULT: usize = 50;

pub(super) fn health() -> Response {
    Response::json(
        200,
        &HealthDocument {
            success: true,
            message: String::from("healthy"),
        },
    )
}

impl ClusterApi {
    pub(super) fn ready(&self) -> Response {
        let view = self.backend.control().map(|control| control.view());
        let message = match &view {
            None => Some(String::from("this node has not joined a cluster yet")),
            Some(view) => unready(view).or_else(|| self.backend.unready_because()),
        };
        let state = view.as_ref().map(|view| &view.state);
        let document = ReadyDocument {
            ready: message.is_none(),
            message,
            nodes: state.map_or(0, |state| state.nodes().len()),
            partitions: state.map_or(0, |state| state.partitions().len()),
            valid_partitions: state.map_or(0, |state| {
                let with_primary = state.partitions().iter().filter(|p| p.primary.is_some());
                with_primary.count()
            }),
        };
        Response::json(if document.ready { 200 } else { 503 }, &document)
    }

    pub(super) fn health_detailed(&self) -> Response {
        let info = self.backend.info();
        let control = self.backend.control();
        let view = control.as_ref().map(|control| control.view());
        let stats = control.as_ref().map(|control| control.stats());
        let healthy = view.as_ref().is_some_and(|view| unready(view).is_none());
        Response::json(
            200,
            &DetailedHealthDocument {
                healthy,
                node_id: info.id.to_string(),
                node_name: info.name.to_string(),
                is_leader: view.as_ref().is_some_and(|v| v.leadership.is_leader),
                node_count: view.as_ref().map_or(0, |v| v.state.nodes().len()),
                partition_count: view.as_ref().map_or(0, |v| v.state.partitions().len()),
                raft_state: stats.map_or_else(|| String::from("Joining"), |stats| stats.state),
                last_sync: rfc3339(info.last_sync),
                uptime: go_duration(info.uptime),
                paused: view
                    .as_ref()
                    .map_or_else(Vec::new, |view| PausesDocument::from(&*view.state).paused),
                vetoes: view.map_or_else(Vec::new, |view| VetoDocument::all(&view.state)),
            },
        )
    }

    pub(super) fn metrics(&self, request: &Request) -> Response {
        let info = self.backend.info();
        let control = self.backend.control();
        let view = control.as_ref().map(|control| control.view());
        let stats = control.as_ref().map(|control| control.stats());
        if !accepts(request, "application/json") {
            let figures = self.backend.figures();
            return super::metrics::render(self, &info, &figures, view.as_deref(), stats.as_ref());
        }
        Response::json(
            200,
            &MetricsDocument {
                node_count: view.as_ref().map_or(0, |v| v.state.nodes().len()),
                partition_count: view.as_ref().map_or(0, |v| v.state.partitions().len()),
                request_count: self.request_count(),
                error_count: self.error_count(),
                last_sync: rfc3339(info.last_sync),
                is_leader: view.as_ref().is_some_and(|v| v.leadership.is_leader),
                raft_state: stats.map_or_else(|| String::from("Joining"), |stats| stats.state),
                uptime_seconds: info.uptime.as_secs(),
            },
        )
    }

    pub(super) fn cluster(&self, request: &Request) -> Answer {
        let view = self.formed()?.view;
        let topology = &view.topology;
        let etag = etag(topology.epoch());
        if none_match(request, &etag) {
            return Ok(not_modified(&etag));
        }
        let document = self
            .cluster
            .get(topology, || self.cluster_document(topology));
        Ok(Response::json_bytes(200, document)
            .header("etag", etag)
            .header("cache-control", "no-cache"))
    }

    fn cluster_document(&self, topology: &Topology) -> ClusterDocument {
        let partitions = topology
            .partitions()
            .map(|id| partition_document(topology, id))
            .map(|document| (document.id.clone(), document))
            .collect();
        ClusterDocument {
            cluster: ClusterBody {
                id: topology.name().to_owned(),
                name: topology.name().to_owned(),
                nodes: topology.nodes().iter().map(|n| self.show(n)).collect(),
                partition_map: PartitionMapDocument { partitions },
                config: ClusterConfigDocument {
                    cluster_name: topology.name().to_owned(),
                    partition_count: topology.partition_count(),
                    replication_factor: topology.replication_factor(),
                },
            },
            hash_config: HashConfigDocument::describe(
                topology.partitioner().config(),
                topology.partition_count(),
            ),
        }
    }

    pub(super) fn partitions(&self) -> Answer {
        let view = self.formed()?.view;
        let partitions: Vec<_> = view
            .topology
            .partitions()
            .map(|id| partition_document(&view.topology, id))
            .collect();
        let document = PartitionsDocument {
            count: partitions.len(),
            partitions,
        };
        Ok(Response::json(200, &document).header("etag", etag(view.topology.epoch())))
    }

    pub(super) fn partition_stats(&self) -> Answer {
        let view = self.formed()?.view;
        let topology = &view.topology;
        let mut document = PartitionStatsDocument {
            total_partitions: topology.partition_count() as usize,
            partitions_per_node: BTreeMap::new(),
            replicas_per_node: BTreeMap::new(),
        };
        for node in topology.nodes() {
            let id = node.id.to_string();
            document.partitions_per_node.insert(id.clone(), 0);
            document.replicas_per_node.insert(id, 0);
        }
        for partition in topology.partitions() {
            if let Some(primary) = topology.primary(partition) {
                count(&mut document.partitions_per_node, primary);
            }
            for replica in topology.replicas(partition) {
                count(&mut document.replicas_per_node, replica);
            }
        }
        Ok(Response::json(200, &document))
    }

    pub(super) fn partition_key(&self, request: &Request) -> Answer {
        let key = request.query().bytes("key").ok_or_else(|| {
            Problem::invalid("key", "", "given: /partitions/key?key=K (K may be empty)")
        })?;
        let view = self.formed()?.view;
        let topology = &view.topology;
        let id = topology.partition(&key);
        let document = KeyDocument {
            key: String::from_utf8_lossy(&key).into_owned(),
            partition: partition_document(topology, id),
            primary: topology.primary(id).map(|node| self.show(node)),
            replicas: topology.replicas(id).map(|n| self.show(n)).collect(),
            epoch: topology.epoch().value(),
        };
        Ok(Response::json(200, &document).header("etag", etag(topology.epoch())))
    }

    pub(super) fn nodes(&self, request: &Request) -> Answer {
        let range = 1..=NODES_PAGE_MAX;
        let limit = params::number(request, "limit", NODES_PAGE_DEFAULT, &range)?;
        let offset = params::number(request, "offset", 0, &(0..=u32::MAX as usize))?;
        let view = self.formed()?.view;
        let all = view.topology.nodes();
        let page = all.get(offset..).unwrap_or_default();
        let page = &page[..limit.min(page.len())];
        let next_offset = offset + page.len();
        let document = NodesDocument {
            nodes: page.iter().map(|node| self.show(node)).collect(),
            total: all.len(),
            limit,
            offset,
            has_more: next_offset < all.len(),
            next_offset,
        };
        Ok(Response::json(200, &document))
    }

    pub(super) fn leader(&self) -> Response {
        let view = self.formed().ok().map(|formed| formed.view);
        let known = view.as_ref().and_then(|view| {
            let leader = view.state.node(view.leadership.leader?)?;
            Some((view, leader))
        });
        let Some((view, leader)) = known else {
            // 404 here, not the 503 this code has elsewhere: scripts of old wait for it to change.
            let problem = Problem::new(ProblemCode::NoLeader, "there is no leader at the moment");
            return Response::json(404, &self.complete(problem));
        };
        let document = LeaderDocument {
            leader_id: leader.id.to_string(),
            leader_name: leader.name.to_string(),
            leader_ip: self.show_address(&leader.address),
            term: view.leadership.term,
            elected_at: rfc3339(view.leadership.since),
        };
        Response::json(200, &document)
    }

    pub(super) fn consensus_stats(&self) -> Answer {
        let formed = self.formed()?;
        let stats = formed.control.stats();
        let leader = super::leader_hint(&formed.view);
        let document = ConsensusStatsDocument {
            state: stats.state,
            term: stats.term,
            last_log_index: stats.last_log_index,
            last_log_term: stats.last_log_term,
            commit_index: stats.commit_index,
            applied_index: stats.applied_index,
            num_peers: usize::try_from(stats.peers).unwrap_or(usize::MAX),
            leader: leader.map_or_else(String::new, |leader| leader.id.to_string()),
        };
        Ok(Response::json(200, &document))
    }

    /// Writes a node as the old releases showed it.
    fn show(&self, node: &Node) -> NodeDocument {
        NodeDocument {
            id: node.id.to_string(),
            ip: self.show_address(&node.address),
            port: 0,
            name: node.name.to_string(),
            status: node.status.as_str().to_owned(),
            services: node
                .services
                .iter()
                .map(|(name, address)| (name.clone(), self.show_address(address)))
                .collect(),
        }
    }

    pub(super) fn show_address(&self, address: &str) -> String {
        match address.rsplit_once(':') {
            Some((_, port)) if self.backend.legacy_addresses() => format!(":{port}"),
            _ => address.to_owned(),
        }
    }
}

/// Returns why a node in this view should not be sent traffic.
fn unready(view: &View) -> Option<String> {
    let state = &view.state;
    if state.cluster().is_none() {
        return Some(String::from(
            "this node has not received the cluster's state yet",
        ));
    }
    if view.leadership.leader.is_none() {
        return Some(String::from("no leader is known"));
    }
    match view.topology.this_node().map(|node| node.status) {
        None => return Some(String::from("this node is no member of the cluster")),
        Some(NodeStatus::Active | NodeStatus::Draining) => {}
        Some(other) => return Some(format!("this node is {other}")),
    }
    let unplaced = state
        .partitions()
        .iter()
        .filter(|p| p.is_unplaced())
        .count();
    (unplaced > 0).then(|| format!("{unplaced} partitions are not placed yet"))
}

fn partition_document(topology: &Topology, id: PartitionId) -> PartitionDocument {
    let primary = topology.primary(id);
    PartitionDocument {
        id: format!("partition-{id}"),
        primary_node: primary.map_or_else(String::new, |node| node.id.to_string()),
        replica_nodes: topology.replicas(id).map(|n| n.id.to_string()).collect(),
    }
}

fn count(per_node: &mut BTreeMap<String, usize>, node: &Node) {
    if let Some(counted) = per_node.get_mut(node.id.as_str()) {
        *counted += 1;
    }
}

/// The epoch no cluster has: a watcher that knows nothing yet.
pub(super) const NO_EPOCH: Epoch = Epoch(0);

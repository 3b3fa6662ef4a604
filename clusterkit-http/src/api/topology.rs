//! `/v1/topology`: the published topology as a compact document, there and back again.
//!
//! A node table and dense arrays of indices into it: 256 partitions on 5 nodes take about 4 kB.
//! The payload of `/v1/watch` is the same document.

use std::collections::BTreeMap;
use std::sync::Arc;

use clusterkit_core::config::ConfigError;
use clusterkit_core::hash::{HashAlgorithm, HashConfig, HashDescription, Reduction};
use clusterkit_core::id::{ClusterId, DiskId, Epoch, Incarnation, NodeId, PartitionId, RaftId};
use clusterkit_core::node::{Drain, Node, NodeStatus};
use clusterkit_core::time::UnixMillis;
use clusterkit_core::topology::{Topology, TopologyParts, TopologyRow};
use serde::{Deserialize, Serialize};

use super::compat::HashConfigDocument;

/// Stands where no node is.
const NOBODY: i32 = -1;

/// `GET /v1/topology`, and every event of `GET /v1/watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopologyDocument {
    /// The version: the ETag.
    pub epoch: Epoch,
    /// The cluster's minted identity, 32 hexadecimal digits.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub name: String,
    /// Raised only by recovery from a lost quorum.
    #[serde(default)]
    pub generation: u64,
    /// The wanted number of copies.
    pub replication_factor: u32,
    /// How a key becomes a partition. A client that does not know the algorithm must refuse it.
    pub hash: HashConfigDocument,
    /// The members, in the order of their internal ids. The arrays below hold positions in it.
    pub nodes: Vec<MemberDocument>,
    /// Per partition the position of its primary, -1 where there is none.
    pub primaries: Vec<i32>,
    /// Per partition the positions of its other members, best first.
    pub replicas: Vec<Vec<i32>>,
    /// Per partition the epoch of its last ownership change.
    pub epochs: Vec<Epoch>,
    /// Partition number to the members that lack writes; partitions without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub behind: BTreeMap<PartitionId, Vec<i32>>,
    /// Partition number to the nodes that take writes and are not yet members; partitions without
    /// any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joining: BTreeMap<PartitionId, Vec<i32>>,
}

/// A member in [`TopologyDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberDocument {
    /// The operator's id.
    pub id: NodeId,
    /// The internal id, never reused.
    pub raft_id: RaftId,
    /// A name for people.
    pub name: String,
    /// `host:port` of its HTTP port.
    pub address: String,
    /// The address for peer traffic where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// Services of the application, name to address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, String>,
    /// The failure domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The share of the data it takes.
    pub weight: u32,
    /// The features that its process knows; 0 where nothing is said.
    #[serde(default)]
    pub feature_level: u32,
    /// `joining`, `active`, `draining` or `down`.
    pub status: NodeStatus,
    /// Whether its data is to move away: `no`, `empty` or `leave`.
    #[serde(default)]
    pub drain: Drain,
    /// Down for longer than the repair delay.
    #[serde(default)]
    pub evicted: bool,
    /// The data directory it runs on.
    pub disk: DiskId,
    /// The count of process starts on it.
    pub incarnation: Incarnation,
    /// When it joined, in milliseconds since 1970.
    pub joined_at: UnixMillis,
    /// When its status last changed, in milliseconds since 1970.
    pub status_since: UnixMillis,
}

impl From<&Node> for MemberDocument {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.clone(),
            raft_id: node.raft_id,
            name: node.name.to_string(),
            address: node.address.to_string(),
            peer_address: node.peer_address.as_deref().map(str::to_owned),
            services: BTreeMap::clone(&node.services),
            zone: node.zone.to_string(),
            weight: node.weight,
            feature_level: node.feature_level,
            status: node.status,
            drain: node.drain,
            evicted: node.evicted,
            disk: node.disk,
            incarnation: node.incarnation,
            joined_at: node.joined_at,
            status_since: node.status_since,
        }
    }
}

impl From<&MemberDocument> for Node {
    fn from(member: &MemberDocument) -> Self {
        Self {
            raft_id: member.raft_id,
            id: member.id.clone(),
            disk: member.disk,
            incarnation: member.incarnation,
            name: Arc::from(member.name.as_str()),
            address: Arc::from(member.address.as_str()),
            peer_address: member.peer_address.as_deref().map(Arc::from),
            services: Arc::new(member.services.clone()),
            zone: Arc::from(member.zone.as_str()),
            weight: member.weight,
            feature_level: member.feature_level,
            status: member.status,
            drain: member.drain,
            evicted: member.evicted,
            joined_at: member.joined_at,
            status_since: member.status_since,
        }
    }
}

impl HashConfigDocument {
    /// Describes `hash` over `partition_count` partitions, as every document does.
    #[must_use]
    pub fn describe(hash: HashConfig, partition_count: u32) -> Self {
        let description = hash.describe(partition_count);
        // What old clients read says nothing but what they know.
        let is_legacy = hash.algorithm == HashAlgorithm::Md5;
        Self {
            algorithm: description.algorithm.to_owned(),
            encoding: description.encoding.to_owned(),
            format: description.format.to_owned(),
            modulo: description.modulo,
            seed: description.seed,
            reduce: (!is_legacy).then(|| description.reduce.to_owned()),
        }
    }

    /// Returns the hash it describes.
    ///
    /// # Errors
    /// [`ConfigError`] naming what this build does not know: it must not be guessed.
    pub fn config(&self) -> Result<HashConfig, ConfigError> {
        let described = HashDescription {
            algorithm: &self.algorithm,
            encoding: &self.encoding,
            // Absent in documents of earlier releases, which knew nothing else.
            reduce: self.reduce.as_deref().unwrap_or(Reduction::Modulo.as_str()),
            seed: self.seed,
            format: &self.format,
            modulo: self.modulo,
        };
        Ok(described.partitioner()?.config())
    }
}

impl From<&Topology> for TopologyDocument {
    fn from(topology: &Topology) -> Self {
        let parts = topology.parts();
        let position = |id: RaftId| {
            let found = parts.nodes.binary_search_by_key(&id, |node| node.raft_id);
            found
                .ok()
                .and_then(|at| i32::try_from(at).ok())
                .unwrap_or(NOBODY)
        };
        let positions = |ids: &[RaftId]| ids.iter().copied().map(position).collect::<Vec<_>>();
        let sparse = |pick: fn(&TopologyRow) -> &[RaftId]| {
            let rows = parts.rows.iter().enumerate();
            rows.filter(|(_, row)| !pick(row).is_empty())
                .map(|(i, row)| (PartitionId::from_index(i), positions(pick(row))))
                .collect()
        };
        Self {
            epoch: parts.epoch,
            cluster: parts.cluster,
            generation: parts.generation,
            replication_factor: parts.replication_factor,
            hash: HashConfigDocument::describe(parts.hash, topology.partition_count()),
            nodes: parts
                .nodes
                .iter()
                .map(|node| MemberDocument::from(&**node))
                .collect(),
            primaries: parts
                .rows
                .iter()
                .map(|row| row.primary.map_or(NOBODY, position))
                .collect(),
            replicas: parts
                .rows
                .iter()
                .map(|row| positions(&row.replicas))
                .collect(),
            epochs: parts.rows.iter().map(|row| row.epoch).collect(),
            behind: sparse(|row| &row.behind),
            joining: sparse(|row| &row.joining),
            name: parts.name,
        }
    }
}

impl TopologyDocument {
    /// Rebuilds the topology the document was made from.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that cannot be: an unknown hash algorithm, arrays of
    /// different lengths, a position beyond the node table.
    pub fn to_topology(&self) -> Result<Topology, ConfigError> {
        let hash = self.hash.config()?;
        let count = self.hash.modulo as usize;
        for (field, length) in [
            ("primaries", self.primaries.len()),
            ("replicas", self.replicas.len()),
            ("epochs", self.epochs.len()),
        ] {
            if length != count {
                let limit = format_args!("{count}, one per partition");
                return Err(ConfigError::new(field, length, limit));
            }
        }
        let rows = self
            .primaries
            .iter()
            .zip(&self.replicas)
            .zip(&self.epochs)
            .enumerate()
            .map(|(i, ((&primary, replicas), &epoch))| {
                let partition = PartitionId::from_index(i);
                Ok(TopologyRow {
                    primary: match primary {
                        NOBODY => None,
                        position => Some(self.at("primaries", position)?),
                    },
                    replicas: self.all("replicas", Some(replicas))?,
                    behind: self.all("behind", self.behind.get(&partition))?,
                    joining: self.all("joining", self.joining.get(&partition))?,
                    epoch,
                })
            })
            .collect::<Result<Vec<_>, ConfigError>>()?;
        Topology::new(TopologyParts {
            cluster: self.cluster,
            name: self.name.clone(),
            generation: self.generation,
            epoch: self.epoch,
            hash,
            replication_factor: self.replication_factor,
            nodes: self
                .nodes
                .iter()
                .map(|member| Arc::new(Node::from(member)))
                .collect(),
            rows,
        })
    }

    fn all(&self, field: &str, positions: Option<&Vec<i32>>) -> Result<Vec<RaftId>, ConfigError> {
        let positions = positions.map_or(&[][..], Vec::as_slice);
        positions
            .iter()
            .map(|&position| self.at(field, position))
            .collect()
    }

    fn at(&self, field: &str, position: i32) -> Result<RaftId, ConfigError> {
        usize::try_from(position)
            .ok()
            .and_then(|at| self.nodes.get(at))
            .map(|member| member.raft_id)
            .ok_or_else(|| {
                let limit = format_args!("a position in a table of {} nodes", self.nodes.len());
                ConfigError::new(field, position, limit)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clusterkit_core::node::NodeSpec;

    fn node(raft_id: u64, id: &str) -> Arc<Node> {
        let disk = DiskId::from_bytes([u8::try_from(raft_id).unwrap(); 16]);
        let mut spec = NodeSpec::new(NodeId::new(id).unwrap(), disk, "127.0.0.1:1");
        spec.services = Arc::new(BTreeMap::from([("kv".into(), ":9080".into())]));
        let mut node = Node::new(RaftId(raft_id), spec, UnixMillis(5));
        node.status = NodeStatus::Active;
        Arc::new(node)
    }

    fn sample(algorithm: HashAlgorithm) -> Topology {
        let row = |primary: Option<u64>, replicas: &[u64]| TopologyRow {
            primary: primary.map(RaftId),
            replicas: replicas.iter().copied().map(RaftId).collect(),
            epoch: Epoch(3),
            ..TopologyRow::default()
        };
        let mut rows = vec![row(Some(1), &[4, 9]), row(None, &[4]), row(None, &[])];
        rows[0].behind = vec![RaftId(9)];
        rows[1].joining = vec![RaftId(1), RaftId(9)];
        Topology::new(TopologyParts {
            cluster: ClusterId::from_bytes([7; 16]),
            name: "c".into(),
            generation: 2,
            epoch: Epoch(12),
            hash: HashConfig::new(algorithm),
            replication_factor: 3,
            nodes: vec![node(1, "node-1"), node(4, "node-2"), node(9, "node-0")],
            rows,
        })
        .unwrap()
    }

    #[test]
    fn a_topology_survives_its_document() {
        for algorithm in HashAlgorithm::ALL {
            let topology = sample(algorithm);
            let text = serde_json::to_string(&TopologyDocument::from(&topology)).unwrap();
            let read: TopologyDocument = serde_json::from_str(&text).unwrap();
            assert_eq!(read.to_topology().unwrap().parts(), topology.parts());
        }
    }

    #[test]
    fn a_document_that_cannot_be_is_refused_by_field() {
        let check = |change: fn(&mut TopologyDocument), expected: &str| {
            let mut document = TopologyDocument::from(&sample(HashAlgorithm::Md5));
            change(&mut document);
            assert_eq!(document.to_topology().unwrap_err().to_string(), expected);
        };
        check(
            |d| d.primaries[0] = 3,
            "primaries is `3`, must be a position in a table of 3 nodes",
        );
        check(
            |d| d.replicas[0][0] = -1,
            "replicas is `-1`, must be a position in a table of 3 nodes",
        );
        check(
            |d| d.epochs.truncate(1),
            "epochs is `1`, must be 3, one per partition",
        );
        check(
            |d| d.hash.algorithm = "crc32".into(),
            "hash.algorithm is `crc32`, must be one of xxh3_64, md5, fnv1a_32, sha256",
        );
        check(
            |d| d.hash.encoding = "little_endian_uint32".into(),
            "hash.encoding is `little_endian_uint32`, must be big_endian_uint32",
        );
        check(|d| d.hash.seed = Some(5), "hash.seed is `5`, must be 0");
        check(
            |d| d.hash.reduce = Some("multiply_shift".into()),
            "hash.reduce is `multiply_shift`, must be modulo",
        );
    }
}

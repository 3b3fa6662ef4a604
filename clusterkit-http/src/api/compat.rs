//! The documents of earlier ClusterKit releases, field by field.
//!
//! Clients, scripts and dashboards read these: fields may be added, never renamed or dropped.
//! Order of the fields is that of the old releases. They are filled in `routes/legacy.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::operations::{PauseDocument, VetoDocument};

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HealthDocument {
    /// Always true: a process that answers is alive.
    pub success: bool,
    /// `healthy`.
    pub message: String,
}

/// `GET /ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReadyDocument {
    /// Whether the node may be sent traffic.
    pub ready: bool,
    /// Why not; absent when ready.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The members of the cluster.
    pub nodes: usize,
    /// The partitions of the cluster.
    pub partitions: usize,
    /// Those that have a live primary.
    pub valid_partitions: usize,
}

/// `GET /health/detailed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DetailedHealthDocument {
    /// Whether the node follows a leader and has applied what it knows to be committed.
    pub healthy: bool,
    /// This node.
    pub node_id: String,
    /// This node's name.
    pub node_name: String,
    /// Whether it is the Raft leader.
    pub is_leader: bool,
    /// The members of the cluster.
    pub node_count: usize,
    /// The partitions of the cluster.
    pub partition_count: usize,
    /// `Leader`, `Follower`, `Candidate` or `Learner`.
    pub raft_state: String,
    /// When the state last changed here, RFC 3339.
    pub last_sync: String,
    /// How long the process has run, as Go writes durations.
    pub uptime: String,
    /// The work that an operator has paused; absent when none is.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub paused: Vec<PauseDocument>,
    /// The nodes that veto themselves; absent when none does.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub vetoes: Vec<VetoDocument>,
}

/// `GET /metrics` with `Accept: application/json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MetricsDocument {
    /// The members of the cluster.
    pub node_count: usize,
    /// The partitions of the cluster.
    pub partition_count: usize,
    /// Requests answered since the process started.
    pub request_count: u64,
    /// Those answered with status 400 or above.
    pub error_count: u64,
    /// When the state last changed here, RFC 3339.
    pub last_sync: String,
    /// Whether this node is the Raft leader.
    pub is_leader: bool,
    /// `Leader`, `Follower`, `Candidate` or `Learner`.
    pub raft_state: String,
    /// How long the process has run, in whole seconds.
    pub uptime_seconds: u64,
}

/// `GET /consensus/leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaderDocument {
    /// The leader.
    pub leader_id: String,
    /// Its name.
    pub leader_name: String,
    /// Its address.
    pub leader_ip: String,
    /// Its term.
    pub term: u64,
    /// When this node learned of it, RFC 3339.
    pub elected_at: String,
}

/// `GET /consensus/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConsensusStatsDocument {
    /// `Leader`, `Follower`, `Candidate` or `Learner`.
    pub state: String,
    /// The current term.
    pub term: u64,
    /// The last entry of the local log.
    pub last_log_index: u64,
    /// Its term.
    pub last_log_term: u64,
    /// The last entry known to be committed.
    pub commit_index: u64,
    /// The last entry applied.
    pub applied_index: u64,
    /// The other members.
    pub num_peers: usize,
    /// The leader's id, empty when there is none.
    pub leader: String,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartitionDocument {
    /// `partition-%d`.
    pub id: String,
    /// The primary's id, empty when there is none.
    pub primary_node: String,
    /// The replicas' ids, best first, without the primary.
    pub replica_nodes: Vec<String>,
}

/// `GET /partitions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartitionsDocument {
    /// How many there are.
    pub count: usize,
    /// All of them, in order.
    pub partitions: Vec<PartitionDocument>,
}

/// `GET /partitions/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartitionStatsDocument {
    /// How many there are.
    pub total_partitions: usize,
    /// Node to the partitions it is primary of.
    pub partitions_per_node: BTreeMap<String, usize>,
    /// Node to the partitions it is a replica of.
    pub replicas_per_node: BTreeMap<String, usize>,
}

/// `GET /partitions/key?key=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyDocument {
    /// The key; bytes that are not UTF-8 are replaced.
    pub key: String,
    /// The partition it falls into.
    pub partition: PartitionDocument,
    /// The primary, null when there is none.
    pub primary: Option<NodeDocument>,
    /// The replicas, best first.
    pub replicas: Vec<NodeDocument>,
    /// The epoch the answer was made from.
    pub epoch: u64,
}

/// A node as the old releases showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeDocument {
    /// Its id.
    pub id: String,
    /// Its address, `host:port`.
    #[serde(default)]
    pub ip: String,
    /// Always 0: the port stands in `ip`.
    #[serde(default)]
    pub port: u32,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `joining`, `active`, `draining` or `down`.
    #[serde(default)]
    pub status: String,
    /// Its services, name to address; absent when there are none.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub services: BTreeMap<String, String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `GET /nodes?limit&offset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodesDocument {
    /// The page.
    pub nodes: Vec<NodeDocument>,
    /// How many there are in all.
    pub total: usize,
    /// The most a page holds.
    pub limit: usize,
    /// How many were skipped.
    pub offset: usize,
    /// Whether more follow.
    pub has_more: bool,
    /// Where the next page starts.
    pub next_offset: usize,
}

/// `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterDocument {
    /// The cluster.
    pub cluster: ClusterBody,
    /// How a key becomes a partition.
    pub hash_config: HashConfigDocument,
}

/// The cluster in [`ClusterDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterBody {
    /// The cluster's name, as the old releases did. Its minted id is in `/v1/topology`.
    pub id: String,
    /// The cluster's name.
    pub name: String,
    /// The members.
    pub nodes: Vec<NodeDocument>,
    /// The partitions.
    pub partition_map: PartitionMapDocument,
    /// The configuration.
    pub config: ClusterConfigDocument,
}

/// The partitions in [`ClusterDocument`], by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartitionMapDocument {
    /// `partition-%d` to the partition.
    pub partitions: BTreeMap<String, PartitionDocument>,
}

/// The configuration in [`ClusterDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterConfigDocument {
    /// The cluster's name.
    pub cluster_name: String,
    /// How many partitions there are.
    pub partition_count: u32,
    /// How many copies of a partition there should be.
    pub replication_factor: u32,
}

/// How a key becomes a partition, in [`ClusterDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HashConfigDocument {
    /// `md5`, `xxh3_64`, `fnv1a_32` or `sha256`.
    pub algorithm: String,
    /// Which bits of the digest are the number.
    pub encoding: String,
    /// The partition's name.
    pub format: String,
    /// The partition count.
    pub modulo: u32,
    /// The seed; absent for `md5`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// `modulo` or `multiply_shift`; absent for `md5`, which is reduced by modulo.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reduce: Option<String>,
}

/// The body of `POST /join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JoinDocument {
    /// The joining node.
    pub node: NodeDocument,
    /// The address of its old Raft port; here one port carries everything and this may be empty.
    #[serde(default)]
    pub raft_addr: String,
}

impl JoinDocument {
    /// Asks for `node` to join.
    #[must_use]
    pub fn new(node: NodeDocument) -> Self {
        Self {
            node,
            raft_addr: String::new(),
        }
    }
}

/// The answer to `POST /join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JoinReply {
    /// Always true.
    pub success: bool,
    /// `Node joined successfully`.
    pub message: String,
    /// What was joined.
    pub data: JoinedDocument,
}

impl JoinReply {
    /// Says that `node_id` has joined `cluster_id`, which now counts `node_count`.
    #[must_use]
    pub fn new(cluster_id: String, node_count: usize, node_id: String) -> Self {
        Self {
            success: true,
            message: String::from("Node joined successfully"),
            data: JoinedDocument {
                cluster_id,
                node_count,
                node_id,
            },
        }
    }
}

/// What was joined, in [`JoinReply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JoinedDocument {
    /// The cluster.
    pub cluster_id: String,
    /// Its members now.
    pub node_count: usize,
    /// The node that joined.
    pub node_id: String,
}

/// The body of the 307 a follower answers `POST /join` with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JoinRedirect {
    /// `not the leader`.
    pub error: String,
    /// The leader.
    pub leader_id: String,
    /// Its address.
    pub leader_ip: String,
    /// For people.
    pub message: String,
}

impl JoinRedirect {
    /// Names the leader to ask instead.
    #[must_use]
    pub fn new(leader_id: &str, leader_ip: &str) -> Self {
        Self {
            error: String::from("not the leader"),
            leader_id: leader_id.to_owned(),
            leader_ip: leader_ip.to_owned(),
            message: format!("send the request to {leader_id} at {leader_ip}"),
        }
    }
}

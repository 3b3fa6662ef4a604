//! What nodes say to each other outside the log: joining, reporting in, saying who they are.
//!
//! Carried as bytes by the transport under the kinds `Join`, `Heartbeat`, `Probe` and `Identify`; Raft's
//! own messages belong to `clusterkit-raft`.

use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::config::{ClusterConfig, ConfigError};
use clusterkit_core::copying::CopyReport;
use clusterkit_core::hash::HashAlgorithm;
use clusterkit_core::health::HealthReport;
use clusterkit_core::id::{ClusterId, DiskId, Incarnation, LogIndex, NodeId, RaftId};
use clusterkit_core::lease::{LeaseGrant, LeaseRequest};
use clusterkit_core::node::NodeSpec;
use clusterkit_raft::codec;
use clusterkit_raft::transport::{PeerError, RpcKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::copies::{CopiesSeen, CopyNews};
use crate::options::Fixed;

/// A node asks to become a member, or, with `member`, says that it runs again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) spec: NodeSpec,
    pub(crate) member: Option<RaftId>,
    pub(crate) wanted: Wanted,
}

/// The settings of the cluster that the joining operator named.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) cluster_name: Option<String>,
    pub(crate) partition_count: Option<u32>,
    pub(crate) hash: Option<HashAlgorithm>,
}

impl Wanted {
    pub(crate) fn new(fixed: &Fixed, cluster: Option<ClusterId>) -> Self {
        Self {
            cluster,
            cluster_name: fixed.cluster_name.clone(),
            partition_count: fixed.partition_count,
            hash: fixed.hash,
        }
    }

    /// Returns the first setting in which the cluster `id` with `config` is another one.
    pub(crate) fn mismatch(&self, id: ClusterId, config: &ClusterConfig) -> Option<ConfigError> {
        fn differs<T: PartialEq + std::fmt::Display>(
            field: &str,
            wanted: Option<&T>,
            found: &T,
        ) -> Option<ConfigError> {
            let wanted = wanted.filter(|wanted| *wanted != found)?;
            Some(ConfigError::new(
                field,
                wanted,
                format_args!("`{found}`, as in the cluster"),
            ))
        }
        differs("cluster_id", self.cluster.as_ref(), &id)
            .or_else(|| differs("cluster_name", self.cluster_name.as_ref(), &config.name))
            .or_else(|| {
                let found = &config.partition_count;
                differs("partition_count", self.partition_count.as_ref(), found)
            })
            .or_else(|| differs("hash", self.hash.as_ref(), &config.hash.algorithm))
    }
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinReply {
    /// It is a member.
    Admitted { cluster: ClusterId, raft_id: RaftId },
    /// Somebody else decides; here is who, if known.
    NotLeader { leader: Option<String> },
    /// Not now: ask again.
    Later { reason: String },
    /// Never: asking again cannot help.
    Refused { refusal: Refusal, reason: String },
}

/// Why a node is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// A live node has its id.
    NodeIdInUse,
    /// A live node has its address.
    AddressInUse,
    /// It is configured differently.
    Mismatch,
    /// It was removed from the cluster.
    Removed,
    /// Nobody, or somebody else, answers at the address it announced.
    Unverified,
    /// Another reason.
    Other,
    /// It was given up before it was ever active: it may join as a new node.
    Dismissed,
    /// It knows less than the cluster uses.
    OlderFeatureLevel,
}

/// A node reports in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pulse {
    pub(crate) node: RaftId,
    pub(crate) incarnation: Incarnation,
    pub(crate) applied: LogIndex,
    /// Asks for the lease of the process to be renewed.
    pub(crate) lease: LeaseRequest,
    /// What the node says of itself.
    pub(crate) report: HealthReport,
    /// Whether its own loop was late: silence of others may be its own fault.
    pub(crate) late: bool,
    /// How far its copies are, where that is news.
    pub(crate) copies: Vec<CopyReport>,
    /// How much it knows of the copies of others.
    pub(crate) copies_seen: CopiesSeen,
    /// Whom it has seen lately.
    pub(crate) sightings: Vec<Sighting>,
}

/// A node has answered a probe.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sighting {
    pub(crate) node: RaftId,
    /// The process that answered.
    pub(crate) incarnation: Incarnation,
    /// How long ago it was asked, by the clock of whoever asked.
    pub(crate) age: Duration,
}

/// A node asks another one whether it lives.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// Whom it means: somebody else may answer at the address by now.
    pub(crate) target: RaftId,
}

/// The answer to a [`Probe`] of a node that is well.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ProbeReply {
    pub(crate) node: RaftId,
    pub(crate) incarnation: Incarnation,
}

/// The answer to a [`Pulse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PulseReply {
    /// It counts, and the lease is renewed if that can be said by now; with what is new about copies.
    Counted {
        grant: Option<LeaseGrant>,
        copies: CopyNews,
    },
    /// This node does not lead.
    NotLeader,
    /// A newer process of the node reports in too.
    Superseded,
    /// The node is no member any more.
    Removed,
    /// The leader has not applied enough to know the node.
    Unknown,
}

/// Who answers at an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Whoami {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) raft_id: Option<RaftId>,
}

/// Encodes a message of this crate.
pub(crate) fn encode<T: Serialize>(kind: RpcKind, message: &T) -> Bytes {
    let bytes = codec::encode(kind.as_str(), message);
    Bytes::from(bytes.expect("invariant: messages are plain data and always encode"))
}

/// Decodes a message of this crate.
pub(crate) fn decode<T: DeserializeOwned>(kind: RpcKind, bytes: &[u8]) -> Result<T, PeerError> {
    codec::decode(kind.as_str(), bytes).map_err(|error| PeerError::Malformed {
        kind,
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_the_differing_field() {
        let id = ClusterId::from_bytes([1; 16]);
        let config = ClusterConfig::default();
        assert_eq!(Wanted::default().mismatch(id, &config), None);
        let check = |wanted: Wanted, expected: &str| {
            assert_eq!(wanted.mismatch(id, &config).unwrap().to_string(), expected);
        };
        check(
            Wanted {
                partition_count: Some(64),
                ..Wanted::default()
            },
            "partition_count is `64`, must be `256`, as in the cluster",
        );
        check(
            Wanted {
                hash: Some(HashAlgorithm::Md5),
                ..Wanted::default()
            },
            "hash is `md5`, must be `xxh3_64`, as in the cluster",
        );
    }
}

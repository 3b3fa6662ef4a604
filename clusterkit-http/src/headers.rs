//! Names of the headers ClusterKit defines, and the version of its peer wire format.

/// The cluster id (32 hexadecimal digits) on every peer request of a member.
pub const CLUSTER: &str = "x-clusterkit-cluster";
/// The Raft id of the sending member on every peer request.
pub const FROM: &str = "x-clusterkit-from";
/// The Raft id of the member the sender takes the receiver for.
pub const TO: &str = "x-clusterkit-to";
/// The version of the peer wire format the sender speaks.
pub const WIRE: &str = "x-clusterkit-wire";
/// The epoch of the topology an answer was made from, or a request was routed by.
pub const EPOCH: &str = "x-clusterkit-epoch";
/// The revision of a value of custom data: what `If-Match` compares.
pub const REVISION: &str = "x-clusterkit-revision";

/// The version of the peer wire format this build speaks.
pub const WIRE_VERSION: u32 = 1;

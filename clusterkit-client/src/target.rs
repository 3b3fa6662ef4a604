//! One node that a call may go to, as one snapshot of the topology has it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use clusterkit_core::id::{Epoch, NodeId, PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_core::topology::Topology;

/// What a node does for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Serves writes.
    Primary,
    /// Holds a copy; it may lag behind the primary as far as the application lets it.
    Replica,
    /// Is copying the partition: takes writes, serves nothing.
    Joining,
}

impl Role {
    /// Returns the role as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Joining => "joining",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where one attempt of a call goes: a node, its role for the partition, and the epoch of both.
///
/// Send [`partition`](Self::partition) and [`epoch`](Self::epoch) along with the request: a node
/// that sees another epoch can answer with 421, and one retry suffices. Cloning is cheap.
#[derive(Clone)]
pub struct Target {
    topology: Arc<Topology>,
    node: Arc<Node>,
    partition: PartitionId,
    role: Role,
}

impl Target {
    pub(crate) fn of(
        topology: &Arc<Topology>,
        member: RaftId,
        partition: PartitionId,
        role: Role,
    ) -> Option<Self> {
        Some(Self {
            node: Arc::clone(topology.member(member)?),
            topology: Arc::clone(topology),
            partition,
            role,
        })
    }

    /// Returns the node's id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.node.id
    }

    /// Returns the node's own address, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.node.address
    }

    /// Returns the address of the application's service `name` on the node, `host:port`.
    ///
    /// A service announced as `:port` is on the host of the node's own address. `None` when the
    /// node announces no such service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<Cow<'_, str>> {
        let address = self.node.services.get(name)?;
        if !address.starts_with(':') {
            return Some(Cow::Borrowed(address));
        }
        let host = match self.address().rsplit_once(':') {
            Some((host, _)) if !host.is_empty() => host,
            _ => "localhost",
        };
        Some(Cow::Owned(format!("{host}{address}")))
    }

    /// Returns the whole record of the node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Returns the role of the node for the partition.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns the epoch of the partition's last ownership change: the fencing value of a write.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.topology.partition_epoch(self.partition)
    }

    /// Returns the snapshot the target was chosen from.
    #[must_use]
    pub const fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("node", self.id())
            .field("address", &self.address())
            .field("partition", &self.partition)
            .field("role", &self.role)
            .field("epoch", &self.epoch())
            .finish()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id(), self.address())
    }
}

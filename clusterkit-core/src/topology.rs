//! The published answer to "where does it go": one immutable snapshot of one epoch.
//!
//! [`Topology`] is built from the replicated state (or by a client from the published document) and
//! never changes. Every lookup is a few array reads: no lock, no allocation. Two answers that must
//! agree come from one snapshot. How the answer comes about is in [`crate::state`].

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::config::ConfigError;
use crate::hash::{HashConfig, Partitioner};
use crate::id::{ClusterId, Epoch, NodeId, PartitionId, RaftId};
use crate::node::Node;

/// What a topology is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyParts {
    /// The cluster's identity.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub name: String,
    /// Raised only by recovery from a lost quorum.
    pub generation: u64,
    /// The version.
    pub epoch: Epoch,
    /// How keys become partitions.
    pub hash: HashConfig,
    /// The wanted number of copies.
    pub replication_factor: u32,
    /// The members, in ascending order of `raft_id`.
    pub nodes: Vec<Arc<Node>>,
    /// One row a partition, in partition order.
    pub rows: Vec<TopologyRow>,
}

/// One partition of a [`TopologyParts`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyRow {
    /// Who serves writes.
    pub primary: Option<RaftId>,
    /// The other members in order of preference.
    pub replicas: Vec<RaftId>,
    /// Members that lack writes.
    pub behind: Vec<RaftId>,
    /// Nodes that take writes and are not yet members.
    pub joining: Vec<RaftId>,
    /// The epoch of the last ownership change.
    pub epoch: Epoch,
}

/// An immutable, read-optimized snapshot of the cluster at one epoch.
#[derive(Clone, Debug)]
pub struct Topology {
    cluster: ClusterId,
    name: String,
    generation: u64,
    epoch: Epoch,
    partitioner: Partitioner,
    replication_factor: u32,
    this: Option<u16>,
    nodes: Vec<Arc<Node>>,
    /// Node indices in the order of their ids.
    by_id: Vec<u16>,
    rows: Vec<Row>,
    /// The members behind each row, primary first where there is one; `Row` says from where.
    slots: Vec<Slot>,
}

/// Stands where no node is. Invariant: node tables are shorter.
const NOBODY: u16 = u16::MAX;

/// Where a partition's slots are: members first, then joining nodes.
#[derive(Clone, Copy, Debug)]
struct Row {
    start: u32,
    members: u8,
    joining: u8,
    /// The node that serves writes, [`NOBODY`] where there is none: the first slot, at hand.
    primary: u16,
    epoch: Epoch,
}

impl Row {
    const fn has_primary(&self) -> bool {
        self.primary != NOBODY
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    node: u16,
    in_sync: bool,
}

/// Where a key is, from one snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    /// The key's partition.
    pub partition: PartitionId,
    /// Who serves writes.
    pub primary: &'a Node,
    /// The partition's epoch: the fencing value of its ownership.
    pub epoch: Epoch,
    topology: &'a Topology,
}

impl<'a> Location<'a> {
    /// Returns the other members in order of preference.
    pub fn replicas(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.topology.replicas(self.partition)
    }
}

/// Why a lookup has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// No in-sync member of the partition is up. It can help to wait for a newer epoch.
    #[error("partition {partition} has no primary at epoch {epoch}")]
    NoPrimary {
        /// The partition.
        partition: PartitionId,
        /// The snapshot's epoch.
        epoch: Epoch,
    },
    /// There is no such partition. Retrying cannot help.
    #[error("partition {partition} does not exist, the cluster has {count}")]
    NoSuchPartition {
        /// What was asked for.
        partition: PartitionId,
        /// How many there are.
        count: u32,
    },
}

impl Topology {
    /// Builds a snapshot, checking that every row names known nodes.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first row or list that cannot be.
    pub fn new(parts: TopologyParts) -> Result<Self, ConfigError> {
        let count = u32::try_from(parts.rows.len())
            .map_err(|_| ConfigError::new("partition_count", parts.rows.len(), "within u32"))?;
        let partitioner = Partitioner::new(parts.hash, count)?;
        if parts.nodes.len() >= usize::from(u16::MAX) {
            return Err(ConfigError::new(
                "nodes",
                parts.nodes.len(),
                "fewer than 65535",
            ));
        }
        if !parts.nodes.is_sorted_by(|a, b| a.raft_id < b.raft_id) {
            return Err(ConfigError::new(
                "nodes",
                "unordered list",
                "ascending by internal id",
            ));
        }
        let index = |id: RaftId| -> Result<u16, ConfigError> {
            parts
                .nodes
                .binary_search_by_key(&id, |node| node.raft_id)
                .ok()
                .and_then(|at| u16::try_from(at).ok())
                .ok_or_else(|| ConfigError::new("partition member", id, "a listed node"))
        };
        let mut rows = Vec::with_capacity(parts.rows.len());
        let mut slots = Vec::new();
        for row in &parts.rows {
            let start = u32::try_from(slots.len())
                .map_err(|_| ConfigError::new("partition rows", slots.len(), "within u32"))?;
            for &member in row.primary.iter().chain(&row.replicas) {
                slots.push(Slot {
                    node: index(member)?,
                    in_sync: !row.behind.contains(&member),
                });
            }
            for &joining in &row.joining {
                slots.push(Slot {
                    node: index(joining)?,
                    in_sync: false,
                });
            }
            let narrow = |len: usize| {
                u8::try_from(len)
                    .map_err(|_| ConfigError::new("partition members", len, "0 to 255"))
            };
            rows.push(Row {
                start,
                members: narrow(row.replicas.len() + usize::from(row.primary.is_some()))?,
                joining: narrow(row.joining.len())?,
                primary: row.primary.map_or(Ok(NOBODY), index)?,
                epoch: row.epoch,
            });
        }
        let mut by_id: Vec<u16> = (0..parts.nodes.len())
            .map(|at| u16::try_from(at).expect("invariant: node count checked above"))
            .collect();
        by_id.sort_by(|&a, &b| {
            parts.nodes[usize::from(a)]
                .id
                .cmp(&parts.nodes[usize::from(b)].id)
        });
        Ok(Self {
            cluster: parts.cluster,
            name: parts.name,
            generation: parts.generation,
            epoch: parts.epoch,
            partitioner,
            replication_factor: parts.replication_factor,
            this: None,
            nodes: parts.nodes,
            by_id,
            rows,
            slots,
        })
    }

    /// Returns the snapshot as seen by the member `raft_id`: what `is_primary`, `is_replica` and
    /// `node_id` speak about.
    #[must_use]
    pub fn seen_by(mut self, raft_id: RaftId) -> Self {
        self.this = self.index_of(raft_id);
        self
    }

    /// Returns the cluster's identity.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Returns the cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the recovery generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the version of this snapshot.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns how keys become partitions.
    #[must_use]
    pub const fn partitioner(&self) -> &Partitioner {
        &self.partitioner
    }

    /// Returns the number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        self.partitioner.count()
    }

    /// Returns the wanted number of copies.
    #[must_use]
    pub const fn replication_factor(&self) -> u32 {
        self.replication_factor
    }

    /// Returns every partition id in order.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = PartitionId> + use<> {
        (0..self.rows.len()).map(PartitionId::from_index)
    }

    /// Returns the partition of `key`.
    #[must_use]
    pub fn partition(&self, key: &[u8]) -> PartitionId {
        self.partitioner.partition(key)
    }

    /// Returns where `key` is: partition, primary and epoch from this one snapshot.
    ///
    /// # Errors
    /// [`LookupError::NoPrimary`] while no in-sync member of its partition is up.
    pub fn locate(&self, key: &[u8]) -> Result<Location<'_>, LookupError> {
        self.location(self.partition(key))
    }

    /// Returns who serves `partition`.
    ///
    /// # Errors
    /// [`LookupError::NoPrimary`] while no in-sync member is up, [`LookupError::NoSuchPartition`]
    /// beyond the partition count.
    pub fn location(&self, partition: PartitionId) -> Result<Location<'_>, LookupError> {
        let Some(row) = self.rows.get(partition.index()) else {
            return Err(LookupError::NoSuchPartition {
                partition,
                count: self.partition_count(),
            });
        };
        let Some(primary) = self.primary_of(row) else {
            return Err(LookupError::NoPrimary {
                partition,
                epoch: self.epoch,
            });
        };
        Ok(Location {
            partition,
            primary,
            epoch: row.epoch,
            topology: self,
        })
    }

    /// Returns the node that serves writes of `partition`, none while there is none or no such
    /// partition.
    #[must_use]
    pub fn primary(&self, partition: PartitionId) -> Option<&Node> {
        let row = self.rows.get(partition.index())?;
        self.primary_of(row)
    }

    /// Returns the other members of `partition` in order of preference, live or not.
    pub fn replicas(&self, partition: PartitionId) -> impl Iterator<Item = &Node> {
        let row = self.rows.get(partition.index());
        let members = row.map_or(&[][..], |row| {
            &self.members_of(row)[usize::from(row.has_primary())..]
        });
        members.iter().map(|slot| self.node_at(slot))
    }

    /// Returns all members of `partition`, the primary first.
    pub fn members(&self, partition: PartitionId) -> impl Iterator<Item = &Node> {
        let members = self
            .rows
            .get(partition.index())
            .map_or(&[][..], |row| self.members_of(row));
        members.iter().map(|slot| self.node_at(slot))
    }

    /// Returns the members of `partition` that hold every acknowledged write, best source first.
    pub fn in_sync(&self, partition: PartitionId) -> impl Iterator<Item = &Node> {
        let members = self
            .rows
            .get(partition.index())
            .map_or(&[][..], |row| self.members_of(row));
        members
            .iter()
            .filter(|slot| slot.in_sync)
            .map(|slot| self.node_at(slot))
    }

    /// Returns the nodes that are copying `partition` to become members.
    pub fn joining(&self, partition: PartitionId) -> impl Iterator<Item = &Node> {
        let joining = self.rows.get(partition.index()).map_or(&[][..], |row| {
            let start = row.start as usize + usize::from(row.members);
            &self.slots[start..start + usize::from(row.joining)]
        });
        joining.iter().map(|slot| self.node_at(slot))
    }

    /// Returns every node that a write of `partition` must reach, the primary first: all members
    /// and joining nodes that are up.
    pub fn write_set(&self, partition: PartitionId) -> impl Iterator<Item = &Node> {
        self.members(partition)
            .chain(self.joining(partition))
            .filter(|node| node.status.is_live())
    }

    /// Returns the epoch of the last ownership change of `partition`.
    ///
    /// # Panics
    /// When there is no such partition.
    #[must_use]
    pub fn partition_epoch(&self, partition: PartitionId) -> Epoch {
        self.rows[partition.index()].epoch
    }

    /// Returns every member of the cluster, in order of joining.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Returns the node that the operator calls `id`.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<&Arc<Node>> {
        let found = self
            .by_id
            .binary_search_by(|&at| self.nodes[usize::from(at)].id.as_str().cmp(id));
        found
            .ok()
            .map(|at| &self.nodes[usize::from(self.by_id[at])])
    }

    /// Returns the member with the internal id `raft_id`.
    #[must_use]
    pub fn member(&self, raft_id: RaftId) -> Option<&Arc<Node>> {
        self.index_of(raft_id)
            .map(|at| &self.nodes[usize::from(at)])
    }

    /// Returns the record of the node this snapshot is seen by.
    #[must_use]
    pub fn this_node(&self) -> Option<&Arc<Node>> {
        self.this.map(|at| &self.nodes[usize::from(at)])
    }

    /// Returns the id of the node this snapshot is seen by, none on a client.
    #[must_use]
    pub fn node_id(&self) -> Option<&NodeId> {
        self.this_node().map(|node| &node.id)
    }

    /// Tells whether the node this snapshot is seen by serves writes of `partition`.
    ///
    /// A convenience: true now is no proof for later.
    #[must_use]
    pub fn is_primary(&self, partition: PartitionId) -> bool {
        let Some(row) = self.rows.get(partition.index()) else {
            return false;
        };
        row.has_primary() && Some(row.primary) == self.this
    }

    /// Tells whether the node this snapshot is seen by is another member of `partition`.
    #[must_use]
    pub fn is_replica(&self, partition: PartitionId) -> bool {
        let Some((row, this)) = self.rows.get(partition.index()).zip(self.this) else {
            return false;
        };
        self.members_of(row)[usize::from(row.has_primary())..]
            .iter()
            .any(|slot| slot.node == this)
    }

    /// Takes the snapshot apart into what it was built from.
    #[must_use]
    pub fn parts(&self) -> TopologyParts {
        let rows = self
            .partitions()
            .map(|partition| self.row_parts(partition))
            .collect();
        TopologyParts {
            cluster: self.cluster,
            name: self.name.clone(),
            generation: self.generation,
            epoch: self.epoch,
            hash: self.partitioner.config(),
            replication_factor: self.replication_factor,
            nodes: self.nodes.clone(),
            rows,
        }
    }

    fn row_parts(&self, partition: PartitionId) -> TopologyRow {
        let row = &self.rows[partition.index()];
        let behind = self.members_of(row).iter().filter(|slot| !slot.in_sync);
        TopologyRow {
            primary: self.primary(partition).map(|node| node.raft_id),
            replicas: self.replicas(partition).map(|node| node.raft_id).collect(),
            behind: behind.map(|slot| self.node_at(slot).raft_id).collect(),
            joining: self.joining(partition).map(|node| node.raft_id).collect(),
            epoch: row.epoch,
        }
    }

    fn primary_of(&self, row: &Row) -> Option<&Node> {
        // NOBODY is beyond every node table.
        self.nodes.get(usize::from(row.primary)).map(|node| &**node)
    }

    fn members_of(&self, row: &Row) -> &[Slot] {
        let start = row.start as usize;
        &self.slots[start..start + usize::from(row.members)]
    }

    fn node_at(&self, slot: &Slot) -> &Node {
        &self.nodes[usize::from(slot.node)]
    }

    fn index_of(&self, raft_id: RaftId) -> Option<u16> {
        let at = self
            .nodes
            .binary_search_by_key(&raft_id, |node| node.raft_id)
            .ok()?;
        u16::try_from(at).ok()
    }
}

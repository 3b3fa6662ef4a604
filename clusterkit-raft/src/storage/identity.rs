//! Who the data directory belongs to, kept inside it.
//!
//! Written before a node takes part in anything, so that a directory can never serve another
//! node, another cluster or another Raft id. Minting ids and counting starts is up to the caller.

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, DiskId, Incarnation, NodeId, RaftId};
use serde::{Deserialize, Serialize};

use super::{Storage, StorageError, WriteOp};
use crate::codec;

const IDENTITY_KEY: &str = "identity";

/// The owner of a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The operator's id of the node.
    pub node: NodeId,
    /// The directory's own id, minted when it was first used.
    pub disk: DiskId,
    /// How many times a process has started on the directory.
    pub incarnation: Incarnation,
    /// The cluster it belongs to, once known.
    pub cluster: Option<ClusterId>,
    /// The node's id within the control plane, once known.
    pub raft_id: Option<RaftId>,
}

impl Identity {
    /// Returns the identity of a directory used for the first time.
    #[must_use]
    pub const fn new(node: NodeId, disk: DiskId) -> Self {
        Self {
            node,
            disk,
            incarnation: Incarnation(1),
            cluster: None,
            raft_id: None,
        }
    }

    /// Returns the identity stored in `storage`, `None` when it was never used.
    ///
    /// # Errors
    /// [`StorageError`] when the storage fails or the record is damaged.
    pub fn load(storage: &dyn Storage) -> Result<Option<Self>, StorageError> {
        let Some(bytes) = storage.meta(IDENTITY_KEY)? else {
            return Ok(None);
        };
        match codec::decode("identity", &bytes) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => Err(StorageError::damaged(storage, error)),
        }
    }

    /// Stores this identity, durable when it returns.
    ///
    /// # Errors
    /// [`StorageError`] when the storage fails.
    pub fn save(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let bytes = codec::encode("identity", self)
            .expect("invariant: an identity is plain data and always encodes");
        storage.write(&[WriteOp::SetMeta {
            key: IDENTITY_KEY,
            value: Bytes::from(bytes),
        }])
    }

    /// Checks that the directory belongs to `node` and, where both are known, to `cluster`.
    ///
    /// # Errors
    /// [`StorageError::WrongNode`] or [`StorageError::WrongCluster`].
    pub fn check(
        &self,
        storage: &dyn Storage,
        node: &NodeId,
        cluster: Option<ClusterId>,
    ) -> Result<(), StorageError> {
        if self.node != *node {
            return Err(StorageError::WrongNode {
                path: storage.location(),
                found: self.node.clone(),
                expected: node.clone(),
            });
        }
        match (self.cluster, cluster) {
            (Some(found), Some(expected)) if found != expected => Err(StorageError::WrongCluster {
                path: storage.location(),
                found,
                expected,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn a_directory_serves_one_node_of_one_cluster() {
        let storage = MemoryStorage::new();
        assert_eq!(Identity::load(&storage).unwrap(), None);
        let node = NodeId::new("node-1").unwrap();
        let mut identity = Identity::new(node.clone(), DiskId::from_bytes([1; 16]));
        let cluster = ClusterId::from_bytes([2; 16]);
        identity.cluster = Some(cluster);
        identity.save(&storage).unwrap();
        let read = Identity::load(&storage).unwrap().unwrap();
        assert_eq!(read, identity);

        read.check(&storage, &node, None).unwrap();
        read.check(&storage, &node, Some(cluster)).unwrap();
        let other = read.check(&storage, &NodeId::new("node-2").unwrap(), Some(cluster));
        assert!(matches!(other, Err(StorageError::WrongNode { .. })));
        let foreign = read.check(&storage, &node, Some(ClusterId::from_bytes([3; 16])));
        let Err(error @ StorageError::WrongCluster { .. }) = foreign else {
            panic!("expected a wrong cluster, got {foreign:?}");
        };
        assert_eq!(
            error.to_string(),
            format!(
                "data directory memory belongs to cluster {cluster}, expected cluster {}",
                "03".repeat(16)
            )
        );
    }
}

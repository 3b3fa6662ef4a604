//! Where records are kept: a small trait, in memory or in a redb file.
//!
//! A store merges by version and knows nothing of nodes: an older record never replaces a newer
//! one, in whatever order writes arrive. Who may write what is decided in `replication`.

mod file;
mod memory;

pub(crate) use file::FileStore;
pub(crate) use memory::MemoryStore;

use std::path::PathBuf;

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use futures_util::future::BoxFuture;

use super::record::{Entry, Record, Version};

/// What a store answers, once the disk has.
pub(crate) type Stored<T> = BoxFuture<'static, Result<T, StoreError>>;

/// What keeps the records of this node.
///
/// Nothing here blocks the caller: a disk that is slow must not stop what else runs beside it, the
/// heartbeats of the embedded node first of all. Writes are applied in the order in which `write`
/// is called, each call as one unit.
pub(crate) trait Store: Send + Sync + 'static {
    /// Returns the record of `key`, deletions included.
    fn get(&self, partition: PartitionId, key: Bytes) -> Stored<Option<Record>>;

    /// Returns the records after the key `after` in key order, deletions included: at least one if
    /// there is one, and no more once `max_bytes` are reached. Also tells whether there are more.
    fn page(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        max_bytes: usize,
    ) -> Stored<(Vec<Entry>, bool)>;

    /// Returns keys and versions after `after` up to and including `until` (none: to the end).
    fn versions(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        until: Option<Bytes>,
    ) -> Stored<Vec<(Bytes, Version)>>;

    /// Returns what a partition's copy says of itself.
    fn summary(&self, partition: PartitionId) -> Stored<Summary>;

    /// Returns what is kept altogether.
    fn totals(&self) -> Totals;

    /// Applies `ops` as one unit; what survives a crash of the process (or, on disk, of the
    /// machine) is there once the future resolves. The ops are applied even if it is dropped.
    fn write(&self, ops: Vec<WriteOp>) -> Stored<()>;
}

/// One change of a store.
#[derive(Clone, Debug)]
pub(crate) enum WriteOp {
    /// Keeps `entry` unless the key has a record of the same or a later version.
    Merge {
        partition: PartitionId,
        entry: Entry,
    },
    /// Forgets `key` unless its version is later than `at_most`.
    Prune {
        partition: PartitionId,
        key: Bytes,
        at_most: Version,
    },
    /// Raises the version up to which every record is everywhere.
    Settle {
        partition: PartitionId,
        version: Version,
    },
    /// Forgets the partition.
    Drop { partition: PartitionId },
}

/// What a partition's copy says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The highest version among its records.
    pub(crate) seen: Version,
    /// Every record up to this version is on every node that counts.
    pub(crate) settled: Version,
    /// The records after that, in order of version.
    pub(crate) unsettled: Vec<Entry>,
}

/// What a store keeps altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Keys that have a value.
    pub(crate) keys: u64,
    /// Keys whose deletion is remembered.
    pub(crate) deleted: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// Partitions with at least one record.
    pub(crate) partitions: u64,
}

impl Totals {
    /// Counts a record of `key`; what it replaces is taken out first.
    pub(crate) fn add(&mut self, key: &[u8], record: &Record) {
        self.count(key.len(), record.value.as_ref().map(Bytes::len), true);
    }

    /// Counts a record of `key` out.
    pub(crate) fn take(&mut self, key: &[u8], record: &Record) {
        self.count(key.len(), record.value.as_ref().map(Bytes::len), false);
    }

    fn count(&mut self, key_bytes: usize, value_bytes: Option<usize>, add: bool) {
        let bytes = (key_bytes + value_bytes.unwrap_or(0)) as u64;
        let counter = match value_bytes {
            Some(_) => &mut self.keys,
            None => &mut self.deleted,
        };
        if add {
            *counter += 1;
            self.bytes += bytes;
        } else {
            *counter = counter.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

/// Tells whether a record of version `new` replaces one of version `stored`.
pub(crate) fn wins(new: Version, stored: Option<Version>) -> bool {
    stored.is_none_or(|stored| new > stored)
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The file cannot be opened; nothing was changed. A retry cannot help.
    #[error(
        "{path} cannot be opened as key-value store: {reason}; another process may use it, or it \
         is damaged: then remove the data directory and let the node join as a new one"
    )]
    Open { path: PathBuf, reason: String },
    /// Too many writes wait. Nothing was changed; a retry can help.
    #[error("more than {limit} writes wait for the disk")]
    Busy { limit: usize },
    /// The disk failed. Unknown outcome.
    #[error("{path}: {reason}")]
    Failed { path: PathBuf, reason: String },
}

#[cfg(test)]
mod tests;

//! What the control plane needs from a disk: the [`Storage`] trait and its obligations.
//!
//! Two implementations ship: [`RedbStorage`], one file in the data directory, and
//! [`MemoryStorage`], for tests and for clusters that may forget. Storage deals in bytes and
//! positions; what the bytes mean is known by the log store and the state machine of this crate.
//! Check your own implementation with [`crate::testing::check_storage`].

mod identity;
mod memory;
mod redb;
mod verify;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, NodeId, RaftId};

pub use self::identity::Identity;
pub use self::memory::MemoryStorage;
pub use self::redb::{DATABASE_FILE, RedbStorage};

/// A durable home for the log, a few named values and one snapshot.
///
/// Methods block; the control plane calls [`write`](Self::write) from one thread of its own and
/// reads from its tasks. Calls may overlap, except that only one `write` runs at a time.
///
/// # Obligations
///
/// - **Durable when it returns.** After `write` returned `Ok`, its whole batch survives a crash
///   of the process, of the system and a loss of power.
/// - **All or nothing, in order.** A batch is applied in the order of its operations, as one. A
///   crash leaves either nothing of it or all of it, and never a later batch without an earlier.
/// - **Read your writes.** What `write` returned `Ok` for is seen by every read that starts after.
/// - **Errors are final.** After `write` failed, the state of its batch is unknown. The control
///   plane then stops this node; the storage may refuse every further call.
/// - **Bytes come back as they went in**, or the read fails: an implementation that cannot rely on
///   its medium keeps checksums.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Applies `batch` atomically and durably.
    ///
    /// # Errors
    /// [`StorageError`]; whether the batch was applied is then unknown.
    fn write(&self, batch: &[WriteOp]) -> Result<(), StorageError>;

    /// Returns the first and last index in the log, `None` when it holds no record.
    ///
    /// # Errors
    /// [`StorageError`] when the medium fails.
    fn log_bounds(&self) -> Result<Option<(u64, u64)>, StorageError>;

    /// Returns the records from index `from` to before `until` that the log holds, ascending.
    ///
    /// Stops after the record with which the total exceeds `max_bytes`, so that at least one
    /// record is returned where there is one.
    ///
    /// # Errors
    /// [`StorageError`] when the medium fails or a record is damaged.
    fn read_log(
        &self,
        from: u64,
        until: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, StorageError>;

    /// Returns the value stored under `key`.
    ///
    /// # Errors
    /// [`StorageError`] when the medium fails or the value is damaged.
    fn meta(&self, key: &str) -> Result<Option<Bytes>, StorageError>;

    /// Returns the snapshot stored last.
    ///
    /// # Errors
    /// [`StorageError`] when the medium fails or the snapshot is damaged.
    fn snapshot(&self) -> Result<Option<Bytes>, StorageError>;

    /// Releases the medium, so that it can be opened again. Every later call fails with
    /// [`StorageError::Closed`]. Closing twice does nothing.
    fn close(&self) {}

    /// Returns where the data lies, for messages.
    fn location(&self) -> PathBuf;

    /// Returns how much longer than they took the calls since the last one of this should have
    /// taken: see [`Directory::pending_latency`](crate::disk::Directory::pending_latency).
    fn pending_latency(&self) -> Duration {
        Duration::ZERO
    }
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its position.
    pub index: u64,
    /// What it says, opaque to the storage.
    pub bytes: Bytes,
}

/// One step of a batch for [`Storage::write`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "implementations must handle every operation"
)]
pub enum WriteOp {
    /// Stores a record, replacing what was at its index. The log has no holes: the index follows
    /// the last one, or the log is empty.
    Append(LogRecord),
    /// Removes the records from this index on.
    TruncateFrom(u64),
    /// Removes the records up to and with this index.
    PurgeThrough(u64),
    /// Stores `value` under `key`, replacing what was there.
    SetMeta {
        /// The name, up to 64 bytes.
        key: &'static str,
        /// The value.
        value: Bytes,
    },
    /// Stores this snapshot in the place of the one before.
    SaveSnapshot(Bytes),
}

impl WriteOp {
    /// Returns roughly how many bytes the operation writes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Append(record) => record.bytes.len() + 16,
            Self::TruncateFrom(_) | Self::PurgeThrough(_) => 16,
            Self::SetMeta { key, value } => key.len() + value.len(),
            Self::SaveSnapshot(bytes) => bytes.len(),
        }
    }
}

/// Why a storage could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The data is damaged: truncated, overwritten or not ours. Nothing was changed. Retrying does
    /// not help; the node must return as a new one.
    #[error(
        "data in {} is damaged ({detail}): remove the data directory and rejoin as a new node",
        path.display()
    )]
    Corrupted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The directory or file cannot be created or written. Nothing was changed.
    #[error("data directory {} is not writable", path.display())]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another node in this process, has the directory open. Nothing was
    /// changed; a retry helps once the other one has stopped.
    #[error("data directory {} is in use by another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The directory belongs to another cluster. Nothing was changed.
    #[error(
        "data directory {} belongs to cluster {found}, expected cluster {expected}",
        path.display()
    )]
    WrongCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it was written for.
        found: ClusterId,
        /// The cluster asked for.
        expected: ClusterId,
    },
    /// The directory belongs to another node. Nothing was changed.
    #[error(
        "data directory {} belongs to node {found}, expected node {expected}",
        path.display()
    )]
    WrongNode {
        /// The directory.
        path: PathBuf,
        /// The node it was written for.
        found: NodeId,
        /// The node asked for.
        expected: NodeId,
    },
    /// The directory was written under another Raft id. Nothing was changed.
    #[error(
        "data directory {} was written under raft id {found}, expected raft id {expected}",
        path.display()
    )]
    WrongRaftId {
        /// The directory.
        path: PathBuf,
        /// The id it was written under.
        found: RaftId,
        /// The id asked for.
        expected: RaftId,
    },
    /// Written by a newer version of this library. Nothing was changed.
    #[error(
        "data in {} has format {found}, this build reads up to format {known}",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u8,
        /// The newest format known.
        known: u8,
    },
    /// The medium failed. When writing, whether the batch was applied is unknown.
    #[error("storage in {} failed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The storage was closed, or gave up after an earlier failure. Nothing was changed.
    #[error("storage in {} is closed", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// Tells whether the same call can succeed later without anybody changing the data.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }

    /// Reports damage found by whoever decoded what `storage` returned.
    pub(crate) fn damaged(storage: &dyn Storage, detail: impl fmt::Display) -> Self {
        Self::Corrupted {
            path: storage.location(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

//! A [`Storage`] that forgets when the process ends.
//!
//! For tests, and for clusters whose every node may lose its memory at once. A node kept here is
//! a new node after each restart of its process. The durable one is [`super::RedbStorage`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{LogRecord, Storage, StorageError, WriteOp};

/// Keeps log, values and snapshot in memory. A clone shares them, like a disk that is opened again.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    log: BTreeMap<u64, Bytes>,
    meta: BTreeMap<&'static str, Bytes>,
    snapshot: Option<Bytes>,
}

impl MemoryStorage {
    /// Returns an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn write(&self, batch: &[WriteOp]) -> Result<(), StorageError> {
        let mut inner = self.lock();
        for op in batch {
            match op {
                WriteOp::Append(record) => {
                    inner.log.insert(record.index, record.bytes.clone());
                }
                WriteOp::TruncateFrom(index) => {
                    inner.log.split_off(index);
                }
                WriteOp::PurgeThrough(index) => {
                    inner.log = inner.log.split_off(&index.saturating_add(1));
                }
                WriteOp::SetMeta { key, value } => {
                    inner.meta.insert(key, value.clone());
                }
                WriteOp::SaveSnapshot(bytes) => inner.snapshot = Some(bytes.clone()),
            }
        }
        Ok(())
    }

    fn log_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        let inner = self.lock();
        let first = inner.log.first_key_value().map(|(index, _)| *index);
        let last = inner.log.last_key_value().map(|(index, _)| *index);
        Ok(first.zip(last))
    }

    fn read_log(
        &self,
        from: u64,
        until: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        let inner = self.lock();
        let mut records = Vec::new();
        let mut total = 0;
        for (&index, bytes) in inner.log.range(from..until.max(from)) {
            total += bytes.len();
            records.push(LogRecord {
                index,
                bytes: bytes.clone(),
            });
            if total > max_bytes {
                break;
            }
        }
        Ok(records)
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.lock().meta.get(key).cloned())
    }

    fn snapshot(&self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.lock().snapshot.clone())
    }

    fn location(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}

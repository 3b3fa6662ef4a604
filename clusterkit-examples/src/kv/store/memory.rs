//! Records in memory: gone with the process, so that a restarted node copies everything again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::{Store, StoreError, Summary, Totals, WriteOp, wins};
use crate::kv::record::{Entry, Record, Version};

/// Keeps records in ordered maps, one a partition.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    shelves: Mutex<BTreeMap<PartitionId, Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    records: BTreeMap<Bytes, Record>,
    settled: Version,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range<'a>(
    after: Option<&'a [u8]>,
    until: Option<&'a [u8]>,
) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        until.map_or(Bound::Unbounded, Bound::Included),
    )
}

impl Store for MemoryStore {
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let shelves = self.lock();
        let shelf = shelves.get(&partition);
        Ok(shelf.and_then(|shelf| shelf.records.get(key).cloned()))
    }

    fn page(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        max_bytes: usize,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let shelves = self.lock();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let Some(shelf) = shelves.get(&partition) else {
            return Ok((entries, false));
        };
        for (key, record) in shelf.records.range::<[u8], _>(range(after, None)) {
            let entry = Entry {
                key: key.clone(),
                record: record.clone(),
            };
            bytes += entry.size();
            if bytes > max_bytes && !entries.is_empty() {
                return Ok((entries, true));
            }
            entries.push(entry);
        }
        Ok((entries, false))
    }

    fn versions(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        until: Option<&[u8]>,
    ) -> Result<Vec<(Bytes, Version)>, StoreError> {
        let empty = after
            .zip(until)
            .is_some_and(|(after, until)| after >= until);
        let shelves = self.lock();
        let Some(shelf) = shelves.get(&partition).filter(|_| !empty) else {
            return Ok(Vec::new());
        };
        let found = shelf.records.range::<[u8], _>(range(after, until));
        Ok(found
            .map(|(key, record)| (key.clone(), record.version))
            .collect())
    }

    fn summary(&self, partition: PartitionId) -> Result<Summary, StoreError> {
        let shelves = self.lock();
        let Some(shelf) = shelves.get(&partition) else {
            return Ok(Summary::default());
        };
        let mut summary = Summary {
            settled: shelf.settled,
            ..Summary::default()
        };
        for (key, record) in &shelf.records {
            summary.seen = summary.seen.max(record.version);
            if record.version > shelf.settled {
                summary.unsettled.push(Entry {
                    key: key.clone(),
                    record: record.clone(),
                });
            }
        }
        summary.unsettled.sort_by_key(|entry| entry.record.version);
        Ok(summary)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shelf in self.lock().values() {
            totals.partitions += u64::from(!shelf.records.is_empty());
            for (key, record) in &shelf.records {
                match &record.value {
                    Some(value) => {
                        totals.keys += 1;
                        totals.bytes += (key.len() + value.len()) as u64;
                    }
                    None => {
                        totals.deleted += 1;
                        totals.bytes += key.len() as u64;
                    }
                }
            }
        }
        totals
    }

    fn write(&self, ops: Vec<WriteOp>) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut shelves = self.lock();
        for op in ops {
            match op {
                WriteOp::Merge { partition, entry } => {
                    let records = &mut shelves.entry(partition).or_default().records;
                    let stored = records.get(&entry.key).map(|record| record.version);
                    if wins(entry.record.version, stored) {
                        records.insert(entry.key, entry.record);
                    }
                }
                WriteOp::Prune {
                    partition,
                    key,
                    at_most,
                } => {
                    if let Some(shelf) = shelves.get_mut(&partition)
                        && shelf
                            .records
                            .get(&key)
                            .is_some_and(|record| record.version <= at_most)
                    {
                        shelf.records.remove(&key);
                    }
                }
                WriteOp::Settle { partition, version } => {
                    let shelf = shelves.entry(partition).or_default();
                    shelf.settled = shelf.settled.max(version);
                }
                WriteOp::Drop { partition } => {
                    shelves.remove(&partition);
                }
            }
        }
        drop(shelves);
        ready(Ok(())).boxed()
    }
}

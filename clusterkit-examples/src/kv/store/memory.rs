//! Records in memory: gone with the process, so that a restarted node copies everything again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use futures_util::FutureExt;
use futures_util::future::ready;

use super::{Store, Stored, Summary, Totals, WriteOp, wins};
use crate::kv::record::{Entry, Record, Version};

/// Keeps records in ordered maps, one a partition.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    shelves: BTreeMap<PartitionId, Shelf>,
    totals: Totals,
}

#[derive(Debug, Default)]
struct Shelf {
    records: BTreeMap<Bytes, Record>,
    settled: Version,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
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

impl MemoryStore {
    fn find(&self, partition: PartitionId, key: &[u8]) -> Option<Record> {
        let shelves = &self.lock().shelves;
        let shelf = shelves.get(&partition);
        shelf.and_then(|shelf| shelf.records.get(key).cloned())
    }

    fn list(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        max_bytes: usize,
    ) -> (Vec<Entry>, bool) {
        let shelves = &self.lock().shelves;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let Some(shelf) = shelves.get(&partition) else {
            return (entries, false);
        };
        for (key, record) in shelf.records.range::<[u8], _>(range(after, None)) {
            let entry = Entry {
                key: key.clone(),
                record: record.clone(),
            };
            bytes += entry.size();
            if bytes > max_bytes && !entries.is_empty() {
                return (entries, true);
            }
            entries.push(entry);
        }
        (entries, false)
    }

    fn list_versions(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        until: Option<&[u8]>,
    ) -> Vec<(Bytes, Version)> {
        let empty = after
            .zip(until)
            .is_some_and(|(after, until)| after >= until);
        let shelves = &self.lock().shelves;
        let Some(shelf) = shelves.get(&partition).filter(|_| !empty) else {
            return Vec::new();
        };
        let found = shelf.records.range::<[u8], _>(range(after, until));
        found
            .map(|(key, record)| (key.clone(), record.version))
            .collect()
    }

    fn sum_up(&self, partition: PartitionId) -> Summary {
        let shelves = &self.lock().shelves;
        let Some(shelf) = shelves.get(&partition) else {
            return Summary::default();
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
        summary
    }
}

impl Store for MemoryStore {
    fn get(&self, partition: PartitionId, key: Bytes) -> Stored<Option<Record>> {
        ready(Ok(self.find(partition, &key))).boxed()
    }

    fn page(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        max_bytes: usize,
    ) -> Stored<(Vec<Entry>, bool)> {
        ready(Ok(self.list(partition, after.as_deref(), max_bytes))).boxed()
    }

    fn versions(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        until: Option<Bytes>,
    ) -> Stored<Vec<(Bytes, Version)>> {
        let found = self.list_versions(partition, after.as_deref(), until.as_deref());
        ready(Ok(found)).boxed()
    }

    fn summary(&self, partition: PartitionId) -> Stored<Summary> {
        ready(Ok(self.sum_up(partition))).boxed()
    }

    fn totals(&self) -> Totals {
        let kept = self.lock();
        let filled = |shelf: &&Shelf| !shelf.records.is_empty();
        Totals {
            partitions: kept.shelves.values().filter(filled).count() as u64,
            ..kept.totals
        }
    }

    fn write(&self, ops: Vec<WriteOp>) -> Stored<()> {
        let mut kept = self.lock();
        let Shelves { shelves, totals } = &mut *kept;
        for op in ops {
            match op {
                WriteOp::Merge { partition, entry } => {
                    let records = &mut shelves.entry(partition).or_default().records;
                    let Entry { key, record } = entry;
                    let stored = records.get(&key);
                    if wins(record.version, stored.map(|stored| stored.version)) {
                        if let Some(stored) = stored {
                            totals.take(&key, stored);
                        }
                        totals.add(&key, &record);
                        records.insert(key, record);
                    }
                }
                WriteOp::Prune {
                    partition,
                    key,
                    at_most,
                } => {
                    let Some(shelf) = shelves.get_mut(&partition) else {
                        continue;
                    };
                    let stale = shelf.records.get(&key);
                    if let Some(record) = stale.filter(|record| record.version <= at_most) {
                        totals.take(&key, record);
                        shelf.records.remove(&key);
                    }
                }
                WriteOp::Settle { partition, version } => {
                    let shelf = shelves.entry(partition).or_default();
                    shelf.settled = shelf.settled.max(version);
                }
                WriteOp::Drop { partition } => {
                    let gone = shelves.remove(&partition).unwrap_or_default();
                    for (key, record) in &gone.records {
                        totals.take(key, record);
                    }
                }
            }
        }
        drop(kept);
        ready(Ok(())).boxed()
    }
}

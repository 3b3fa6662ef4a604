//! What a node remembers of one partition besides its records: the order of writes while it is
//! primary, and what it holds that may not be everywhere.
//!
//! Two locks, always taken in this order: `order` by the primary for a write, a recovery and the
//! barrier of a migration; `replica` for every change of the local copy. Whoever holds a `replica`
//! waits for nothing but the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clusterkit_core::id::{Epoch, PartitionId};
use tokio::sync::Mutex;

use super::record::{Entry, Version};
use super::store::{Summary, WriteOp};
use super::wire::Holdings;

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) order: Mutex<Order>,
    pub(crate) replica: Mutex<Replica>,
    /// The epoch under which this node has recovered as primary, 0 for none: reads look here.
    recovered: AtomicU64,
    /// Whether a write is on its way, or was left half way.
    pending: AtomicBool,
}

impl Cell {
    pub(crate) fn new(partition: PartitionId, summary: Summary) -> Self {
        let replica = Replica::new(partition, summary);
        Self {
            order: Mutex::new(Order::default()),
            replica: Mutex::new(replica),
            recovered: AtomicU64::new(0),
            pending: AtomicBool::new(false),
        }
    }

    /// Tells whether this node, primary under `epoch`, has everything that may have been
    /// acknowledged or read before.
    pub(crate) fn is_recovered(&self, epoch: Epoch) -> bool {
        self.recovered.load(Ordering::Acquire) == epoch.0
    }

    /// Tells whether the primary of `epoch` has something to do without being asked.
    pub(crate) fn wants_work(&self, epoch: Epoch) -> bool {
        !self.is_recovered(epoch) || self.pending.load(Ordering::Acquire)
    }

    pub(crate) fn set_recovered(&self, epoch: Epoch) {
        self.recovered.store(epoch.0, Ordering::Release);
    }

    pub(crate) fn set_pending(&self, order: &mut Order, entry: Option<Entry>) {
        self.pending.store(entry.is_some(), Ordering::Release);
        order.pending = entry;
    }
}

/// The primary's side.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The epoch under which this node has recovered.
    pub(crate) recovered: Option<Epoch>,
    /// The highest version given or seen.
    pub(crate) last: Version,
    /// Every write up to here is on every node that counts.
    pub(crate) committed: Version,
    /// A write that some nodes may hold and others lack, because it ran out of time or whoever
    /// asked for it went away. It goes first.
    pub(crate) pending: Option<Entry>,
}

/// The copy's side.
#[derive(Debug)]
pub(crate) struct Replica {
    partition: PartitionId,
    /// The highest ownership under which this copy was written: what comes under an earlier one is
    /// of a primary that was replaced.
    fence: Epoch,
    /// The highest version seen.
    seen: Version,
    /// Every write up to here is on every node that counts.
    settled: Version,
    /// What came after that. At most a few: a primary sends one write at a time.
    unsettled: BTreeMap<Version, Entry>,
}

/// The write is of an ownership that is over. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fenced {
    /// The ownership under which the copy was written since.
    pub(crate) by: Epoch,
}

impl Replica {
    fn new(partition: PartitionId, summary: Summary) -> Self {
        let by_version = |entry: Entry| (entry.record.version, entry);
        Self {
            partition,
            fence: summary.seen.epoch,
            seen: summary.seen,
            settled: summary.settled,
            unsettled: summary.unsettled.into_iter().map(by_version).collect(),
        }
    }

    pub(crate) fn holdings(&self) -> Holdings {
        Holdings {
            seen: self.seen,
            unsettled: self.unsettled.values().cloned().collect(),
        }
    }

    /// Takes note of `entries` of the primary that owns the partition under `fence`, and of what is
    /// settled; returns what the store has to do.
    pub(crate) fn take(
        &mut self,
        fence: Epoch,
        entries: Vec<Entry>,
        settled: Version,
    ) -> Result<Vec<WriteOp>, Fenced> {
        if fence < self.fence {
            return Err(Fenced { by: self.fence });
        }
        self.fence = fence;
        let mut ops = Vec::with_capacity(entries.len() + 1);
        for entry in entries {
            let version = entry.record.version;
            self.seen = self.seen.max(version);
            self.unsettled.insert(version, entry.clone());
            ops.push(WriteOp::Merge {
                partition: self.partition,
                entry,
            });
        }
        self.settle(settled, &mut ops);
        Ok(ops)
    }

    /// Takes note of entries copied from a source, where they are settled.
    pub(crate) fn copy(&mut self, entries: Vec<Entry>) -> Vec<WriteOp> {
        let partition = self.partition;
        let merge = |entry: Entry| {
            self.seen = self.seen.max(entry.record.version);
            WriteOp::Merge { partition, entry }
        };
        entries.into_iter().map(merge).collect()
    }

    pub(crate) fn settle(&mut self, settled: Version, ops: &mut Vec<WriteOp>) {
        if settled <= self.settled {
            return;
        }
        self.settled = settled;
        self.seen = self.seen.max(settled);
        self.unsettled.retain(|&version, _| version > settled);
        ops.push(WriteOp::Settle {
            partition: self.partition,
            version: settled,
        });
    }

    /// Forgets everything: the copy is deleted.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.partition, Summary::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_nothing_of_an_ownership_that_is_over() {
        let mut replica = Replica::new(PartitionId(0), Summary::default());
        let version = Version::default().next(Epoch(4));
        let entry = Entry {
            key: bytes::Bytes::from("k"),
            record: crate::kv::record::Record {
                version,
                value: None,
            },
        };
        let mut take = |fence| {
            let ops = replica.take(Epoch(fence), vec![entry.clone()], Version::default());
            ops.map(|ops| ops.len())
        };
        assert_eq!(take(4), Ok(1));
        assert_eq!(take(5), Ok(1));
        assert_eq!(take(4), Err(Fenced { by: Epoch(5) }));
        assert_eq!(take(5), Ok(1));
        let summary = Summary {
            seen: version,
            ..Summary::default()
        };
        let mut restarted = Replica::new(PartitionId(0), summary);
        let late = restarted.take(Epoch(3), Vec::new(), Version::default());
        assert_eq!(late.err(), Some(Fenced { by: Epoch(4) }));
    }
}

//! Records in one redb file, durable when a write resolves.
//!
//! One thread owns all writing and commits what has gathered meanwhile in one transaction: one
//! fsync for many writers. Reads run on threads that may block: they wait for a commit's fsync.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId};
use futures_util::FutureExt;
use futures_util::future::ready;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::oneshot;

use super::{Store, StoreError, Stored, Summary, Totals, WriteOp, wins};
use crate::kv::record::{Entry, Record, Version};
use crate::kv::tasks::blocking;

/// The name of the file within the data directory.
pub(crate) const FILE_NAME: &str = "kv.redb";

/// How many writes may wait for the writing thread.
const QUEUE_MAX: usize = 4_096;
/// How many writes one transaction takes at most.
const GROUP_MAX: usize = 256;
const CACHE_BYTES: usize = 32 << 20;

const RECORDS: TableDefinition<'_, (u32, &[u8]), &[u8]> = TableDefinition::new("records-v1");
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta-v1");
const OWNER: &str = "owner";
const SETTLED: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("settled-v1");

/// Bytes in front of a value: epoch, sequence number, whether there is a value.
const HEAD_BYTES: usize = 17;

type Answer = oneshot::Sender<Result<(), StoreError>>;
type Job = (Vec<WriteOp>, Answer);

/// Keeps records in the file [`FILE_NAME`].
#[derive(Debug)]
pub(crate) struct FileStore {
    shared: Arc<Shared>,
    queue: Mutex<Option<SyncSender<Job>>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// None once it is closed.
    database: RwLock<Option<Database>>,
    totals: Mutex<Totals>,
}

impl FileStore {
    /// Opens the file in `directory`, creating both where missing.
    ///
    /// # Errors
    /// [`StoreError::Open`] naming the file and what to do.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        let opened = catch_unwind(AssertUnwindSafe(|| open(directory, &path)))
            .unwrap_or_else(|_| Err(String::from("the file is damaged")));
        let (database, totals) = opened.map_err(|reason| StoreError::Open {
            path: path.clone(),
            reason,
        })?;
        let shared = Arc::new(Shared {
            path: path.clone(),
            database: RwLock::new(Some(database)),
            totals: Mutex::new(totals),
        });
        let (queue, incoming) = sync_channel(QUEUE_MAX);
        let writing = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name(String::from("kv-writer"))
            .spawn(move || writing.run(&incoming))
            .map_err(|error| StoreError::Open {
                path,
                reason: error.to_string(),
            })?;
        Ok(Self {
            shared,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Keeps what is stored if it was stored for `owner`, and forgets it otherwise: versions of
    /// another membership, perhaps of another cluster, mean nothing here.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the disk fails.
    pub(crate) fn claim(&self, owner: &str) -> Result<(), StoreError> {
        let other = self.shared.with(|database| {
            let transaction = database.begin_write()?;
            let mut meta = transaction.open_table(META)?;
            let before = meta.get(OWNER)?.map(|found| found.value().to_owned());
            if before.as_deref() == Some(owner) {
                return Ok(None);
            }
            meta.insert(OWNER, owner)?;
            drop(meta);
            transaction.delete_table(RECORDS)?;
            transaction.delete_table(SETTLED)?;
            transaction.open_table(RECORDS)?;
            transaction.open_table(SETTLED)?;
            transaction.commit()?;
            *lock(&self.shared.totals) = prepare(database)?;
            Ok(before)
        })?;
        if let Some(before) = other {
            let path = self.shared.path.display();
            tracing::info!(%path, before, "the records of an earlier membership are forgotten");
        }
        Ok(())
    }
}

impl FileStore {
    /// Finishes the writes that wait and frees the file, whoever still holds this store.
    pub(crate) fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(writer) = lock(&self.writer).take() {
            // The thread ends with its queue; a panic of it has been reported.
            let _ = writer.join();
        }
        let database = self.shared.database.write();
        drop(database.unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(directory: &Path, path: &Path) -> Result<(Database, Totals), String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| error.to_string())?;
    let totals = prepare(&database).map_err(|error| error.to_string())?;
    Ok((database, totals))
}

fn prepare(database: &Database) -> Result<Totals, redb::Error> {
    let transaction = database.begin_write()?;
    let mut totals = Totals::default();
    {
        transaction.open_table(SETTLED)?;
        let records = transaction.open_table(RECORDS)?;
        let mut partitions = BTreeSet::new();
        for item in records.iter()? {
            let (key, value) = item?;
            let (partition, key) = key.value();
            partitions.insert(partition);
            count(&mut totals, key.len(), value.value(), true);
        }
        totals.partitions = partitions.len() as u64;
    }
    transaction.commit()?;
    Ok(totals)
}

impl Shared {
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else {
            return Err(self.closed());
        };
        work(database).map_err(|error| self.failed(&error))
    }

    fn closed(&self) -> StoreError {
        StoreError::Failed {
            path: self.path.clone(),
            reason: String::from("it is closed"),
        }
    }

    fn failed(&self, error: &redb::Error) -> StoreError {
        StoreError::Failed {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    fn run(&self, incoming: &Receiver<Job>) {
        while let Ok(first) = incoming.recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = incoming.try_recv()
            {
                group.push(next);
            }
            let (ops, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let committed =
                catch_unwind(AssertUnwindSafe(|| self.commit(&ops))).unwrap_or_else(|_| {
                    Err(StoreError::Failed {
                        path: self.path.clone(),
                        reason: String::from("the database panicked, it may be damaged"),
                    })
                });
            if let Err(error) = &committed {
                tracing::error!(%error, "records could not be written");
            }
            for answer in answers {
                // Whoever asked may have gone.
                let _ = answer.send(committed.clone());
            }
        }
    }

    fn commit(&self, groups: &[Vec<WriteOp>]) -> Result<(), StoreError> {
        let totals = *lock(&self.totals);
        let totals = self.with(|database| apply(database, groups, totals))?;
        *lock(&self.totals) = totals;
        Ok(())
    }
}

/// Applies `groups` in one transaction; returns what is kept then.
fn apply(
    database: &Database,
    groups: &[Vec<WriteOp>],
    mut totals: Totals,
) -> Result<Totals, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut settled = transaction.open_table(SETTLED)?;
        for op in groups.iter().flatten() {
            match op {
                WriteOp::Settle { partition, version } => {
                    let stored = settled.get(partition.0)?.map(|found| found.value());
                    let raised = (version.epoch.0, version.seq);
                    if stored.is_none_or(|stored| raised > stored) {
                        settled.insert(partition.0, raised)?;
                    }
                }
                WriteOp::Drop { partition } => {
                    settled.remove(partition.0)?;
                    let mut gone = 0_u64;
                    records.retain_in(whole(*partition), |(_, key), value| {
                        gone += 1;
                        count(&mut totals, key.len(), value, false);
                        false
                    })?;
                    totals.partitions -= u64::from(gone > 0);
                }
                WriteOp::Merge { partition, entry } => {
                    merge(&mut records, *partition, entry, &mut totals)?;
                }
                WriteOp::Prune {
                    partition,
                    key,
                    at_most,
                } => prune(&mut records, *partition, key, *at_most, &mut totals)?,
            }
        }
    }
    transaction.commit()?;
    Ok(totals)
}

type Records<'a> = Table<'a, (u32, &'static [u8]), &'static [u8]>;

fn merge(
    records: &mut Records<'_>,
    partition: PartitionId,
    entry: &Entry,
    totals: &mut Totals,
) -> Result<(), redb::Error> {
    let at = (partition.0, &entry.key[..]);
    let before = match records.get(at)? {
        None => None,
        Some(stored) => {
            if !wins(entry.record.version, version_of(stored.value())) {
                return Ok(());
            }
            let mut before = *totals;
            count(&mut before, entry.key.len(), stored.value(), false);
            Some(before)
        }
    };
    match before {
        Some(before) => *totals = before,
        None => totals.partitions += u64::from(is_empty(records, partition)?),
    }
    let sealed = encode(&entry.record);
    count(totals, entry.key.len(), &sealed, true);
    records.insert(at, sealed.as_slice())?;
    Ok(())
}

fn prune(
    records: &mut Records<'_>,
    partition: PartitionId,
    key: &[u8],
    at_most: Version,
    totals: &mut Totals,
) -> Result<(), redb::Error> {
    let at = (partition.0, key);
    let stale = records
        .get(at)?
        .and_then(|found| version_of(found.value()))
        .is_some_and(|version| version <= at_most);
    if !stale {
        return Ok(());
    }
    if let Some(found) = records.remove(at)? {
        count(totals, key.len(), found.value(), false);
    }
    if is_empty(records, partition)? {
        totals.partitions -= 1;
    }
    Ok(())
}

fn is_empty(records: &Records<'_>, partition: PartitionId) -> Result<bool, redb::Error> {
    Ok(records.range(whole(partition))?.next().is_none())
}

/// Every key of `partition`: the next partition's empty key is after all of them, and keys are
/// never empty.
fn whole(partition: PartitionId) -> std::ops::RangeInclusive<(u32, &'static [u8])> {
    (partition.0, &[][..])..=(partition.0.saturating_add(1), &[][..])
}

/// Counts the record `sealed` of a key of `key_bytes` in or out.
fn count(totals: &mut Totals, key_bytes: usize, sealed: &[u8], add: bool) {
    let value_bytes = sealed.len().saturating_sub(HEAD_BYTES);
    let has_value = sealed.get(HEAD_BYTES - 1) == Some(&1);
    totals.count(key_bytes, has_value.then_some(value_bytes), add);
}

fn encode(record: &Record) -> Vec<u8> {
    let value = record.value.as_deref().unwrap_or_default();
    let mut sealed = Vec::with_capacity(HEAD_BYTES + value.len());
    sealed.extend_from_slice(&record.version.epoch.0.to_be_bytes());
    sealed.extend_from_slice(&record.version.seq.to_be_bytes());
    sealed.push(u8::from(record.value.is_some()));
    sealed.extend_from_slice(value);
    sealed
}

fn version_of(sealed: &[u8]) -> Option<Version> {
    let (epoch, rest) = sealed.split_first_chunk::<8>()?;
    let (seq, _) = rest.split_first_chunk::<8>()?;
    Some(Version {
        epoch: Epoch(u64::from_be_bytes(*epoch)),
        seq: u64::from_be_bytes(*seq),
    })
}

fn decode(sealed: &[u8]) -> Option<Record> {
    let version = version_of(sealed)?;
    let value = sealed.get(HEAD_BYTES..)?;
    let value = (sealed[HEAD_BYTES - 1] == 1).then(|| Bytes::copy_from_slice(value));
    Some(Record { version, value })
}

impl Shared {
    /// Hands `visit` every record of `partition` after `after` in key order until it says stop.
    fn walk(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.with(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let from = (partition.0, after.unwrap_or_default());
            for item in records.range(from..)? {
                let (at, sealed) = item?;
                let (found, key) = at.value();
                if found != partition.0 {
                    break;
                }
                if Some(key) != after && !visit(key, sealed.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn damaged(&self, partition: PartitionId, key: &[u8]) -> StoreError {
        StoreError::Failed {
            path: self.path.clone(),
            reason: format!(
                "the record of `{}` in partition {partition} is damaged",
                String::from_utf8_lossy(key)
            ),
        }
    }

    fn find(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let sealed = self.with(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let found = records.get((partition.0, key))?;
            Ok(found.map(|found| decode(found.value())))
        })?;
        match sealed {
            None => Ok(None),
            Some(Some(record)) => Ok(Some(record)),
            Some(None) => Err(self.damaged(partition, key)),
        }
    }

    fn list(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        max_bytes: usize,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let (mut entries, mut bytes, mut more) = (Vec::new(), 0, false);
        let mut damaged = None;
        self.walk(partition, after, |key, sealed| {
            bytes += key.len() + sealed.len().saturating_sub(HEAD_BYTES);
            if bytes > max_bytes && !entries.is_empty() {
                more = true;
                return false;
            }
            let Some(record) = decode(sealed) else {
                damaged = Some(key.to_vec());
                return false;
            };
            entries.push(Entry {
                key: Bytes::copy_from_slice(key),
                record,
            });
            true
        })?;
        damaged.map_or(
            Ok((entries, more)),
            |key| Err(self.damaged(partition, &key)),
        )
    }

    fn list_versions(
        &self,
        partition: PartitionId,
        after: Option<&[u8]>,
        until: Option<&[u8]>,
    ) -> Result<Vec<(Bytes, Version)>, StoreError> {
        let mut found = Vec::new();
        self.walk(partition, after, |key, sealed| {
            if until.is_some_and(|until| key > until) {
                return false;
            }
            let version = version_of(sealed).unwrap_or_default();
            found.push((Bytes::copy_from_slice(key), version));
            true
        })?;
        Ok(found)
    }

    fn sum_up(&self, partition: PartitionId) -> Result<Summary, StoreError> {
        let settled = self.with(|database| {
            let settled = database.begin_read()?.open_table(SETTLED)?;
            let found = settled.get(partition.0)?.map(|found| found.value());
            Ok(found.map_or_else(Version::default, |(epoch, seq)| Version {
                epoch: Epoch(epoch),
                seq,
            }))
        })?;
        let mut summary = Summary {
            settled,
            ..Summary::default()
        };
        self.walk(partition, None, |key, sealed| {
            let version = version_of(sealed).unwrap_or_default();
            summary.seen = summary.seen.max(version);
            if version > settled
                && let Some(record) = decode(sealed)
            {
                summary.unsettled.push(Entry {
                    key: Bytes::copy_from_slice(key),
                    record,
                });
            }
            true
        })?;
        summary.unsettled.sort_by_key(|entry| entry.record.version);
        Ok(summary)
    }
}

impl FileStore {
    /// Runs `work` where it may wait for the disk.
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Stored<T> {
        let shared = Arc::clone(&self.shared);
        let closed = shared.closed();
        let read = blocking(move || work(&shared));
        async move { read.await.unwrap_or(Err(closed)) }.boxed()
    }
}

impl Store for FileStore {
    fn get(&self, partition: PartitionId, key: Bytes) -> Stored<Option<Record>> {
        self.read(move |shared| shared.find(partition, &key))
    }

    fn page(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        max_bytes: usize,
    ) -> Stored<(Vec<Entry>, bool)> {
        self.read(move |shared| shared.list(partition, after.as_deref(), max_bytes))
    }

    fn versions(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        until: Option<Bytes>,
    ) -> Stored<Vec<(Bytes, Version)>> {
        self.read(move |shared| shared.list_versions(partition, after.as_deref(), until.as_deref()))
    }

    fn summary(&self, partition: PartitionId) -> Stored<Summary> {
        self.read(move |shared| shared.sum_up(partition))
    }

    fn totals(&self) -> Totals {
        *lock(&self.shared.totals)
    }

    fn write(&self, ops: Vec<WriteOp>) -> Stored<()> {
        let (answer, answered) = oneshot::channel();
        let closed = self.shared.closed();
        let queue = lock(&self.queue);
        let queued = queue.as_ref().map(|queue| queue.try_send((ops, answer)));
        match queued {
            Some(Ok(())) => async move { answered.await.unwrap_or(Err(closed)) }.boxed(),
            Some(Err(TrySendError::Full(_))) => {
                ready(Err(StoreError::Busy { limit: QUEUE_MAX })).boxed()
            }
            Some(Err(TrySendError::Disconnected(_))) | None => ready(Err(closed)).boxed(),
        }
    }
}

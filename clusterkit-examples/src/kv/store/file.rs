//! Records in one redb file, durable when a write resolves.
//!
//! One piece of blocking work at a time writes, and commits what has gathered meanwhile in one
//! transaction: one fsync for many writers. Reads run where they may block, too: they wait for a
//! commit's fsync. The file lies in a [`Directory`], so that a simulated disk can take its place.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use clusterkit::Execution;
use clusterkit::disk::{Directory, DirectoryLock, DiskFile};
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::planted::{self, Bug};
use futures_util::FutureExt;
use futures_util::future::ready;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition};
use tokio::sync::{oneshot, watch};

use super::{Store, StoreError, Stored, Summary, Totals, WriteOp, wins};
use crate::kv::record::{Entry, Record, Version};

/// The name of the file within the data directory.
pub(crate) const FILE_NAME: &str = "kv.redb";
/// The name under which a new file is made.
const NEW_NAME: &str = "kv.redb.new";
/// The name of the lock that says that the file is in use.
const LOCK_NAME: &str = "kv.lock";

/// How many writes may wait for the disk.
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
}

#[derive(Debug)]
struct Shared {
    directory: Arc<dyn Directory>,
    execution: Execution,
    path: PathBuf,
    /// None once it is closed.
    open: RwLock<Option<Open>>,
    totals: Mutex<Totals>,
    queue: Mutex<Queue>,
    /// Told when nobody writes any more.
    idle: Condvar,
    /// Whether a write failed: the database takes no more until it is opened anew.
    broken: watch::Sender<bool>,
}

#[derive(Debug)]
struct Open {
    database: Database,
    /// Held, not used: released after the database.
    _lock: Box<dyn DirectoryLock>,
}

/// The writes that wait.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Invariant: true while a [`Writing`] exists, and jobs wait only then.
    writing: bool,
    closed: bool,
}

impl FileStore {
    /// Opens the file in `directory`, creating both where missing.
    ///
    /// # Errors
    /// [`StoreError::Open`] naming the file and what to do; [`StoreError::Failed`] where the disk does
    /// not do what it is asked, a full one for example.
    pub(crate) fn open(
        directory: Arc<dyn Directory>,
        execution: Execution,
    ) -> Result<Self, StoreError> {
        let path = directory.path().join(FILE_NAME);
        let opened = catch_unwind(AssertUnwindSafe(|| open(&*directory, &path)));
        let (open, totals) = opened.unwrap_or_else(|_| {
            Err(StoreError::Open {
                path: path.clone(),
                reason: String::from("reading it failed"),
            })
        })?;
        let shared = Arc::new(Shared {
            directory,
            execution,
            path,
            open: RwLock::new(Some(open)),
            totals: Mutex::new(totals),
            queue: Mutex::default(),
            idle: Condvar::new(),
            broken: watch::Sender::new(false),
        });
        Ok(Self { shared })
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
    /// Resolves once a write has failed. What of it is on the disk is unknown, and the database takes
    /// no more before it is opened anew: who owns this store should stop. Cancel safe.
    pub(crate) async fn failed(&self) {
        let mut broken = self.shared.broken.subscribe();
        // The sender lives as long as `self`.
        let _ = broken.wait_for(|broken| *broken).await;
    }

    /// Finishes the writes that wait and frees the file, whoever still holds this store.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        while queue.writing {
            let waited = self.shared.idle.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        let open = self.shared.open.write();
        let open = open.unwrap_or_else(PoisonError::into_inner).take();
        // Dropping redb writes its clean-shutdown mark; a panic there must not reach the caller.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
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

fn open(directory: &dyn Directory, path: &Path) -> Result<(Open, Totals), StoreError> {
    let unusable = |reason: &dyn fmt::Display| StoreError::Open {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let text = |error: io::Error| StoreError::Failed {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let refused = |error: redb::Error| match error {
        redb::Error::Io(error) => text(error),
        other => unusable(&other),
    };
    directory.make().map_err(text)?;
    let lock = directory.lock(LOCK_NAME).map_err(text)?;
    let lock = lock.ok_or_else(|| unusable(&"it is in use"))?;
    let found = directory.open(FILE_NAME).map_err(text)?;
    let made = found.is_some();
    let file = match found {
        Some(file) => file,
        None => directory.create(NEW_NAME).map_err(text)?,
    };
    // A process that was killed leaves what it wrote but did not sync. Make it durable before the
    // database reads it, believes it, and writes on top of it.
    file.sync().map_err(text)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(Backend(file))
        .map_err(|error| refused(error.into()))?;
    let totals = prepare(&database).map_err(refused)?;
    if !made {
        directory.rename(NEW_NAME, FILE_NAME).map_err(text)?;
    }
    directory.sync().map_err(text)?;
    let open = Open {
        database,
        _lock: lock,
    };
    Ok((open, totals))
}

/// A file as redb wants it. Locks are not its matter: the directory has one.
#[derive(Debug)]
struct Backend(Box<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
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
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = open.as_ref() else {
            return Err(self.closed());
        };
        work(&open.database).map_err(|error| self.failed(&error))
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

    fn write_group(&self, group: Vec<Job>) {
        let (ops, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let committed = catch_unwind(AssertUnwindSafe(|| self.commit(&ops))).unwrap_or_else(|_| {
            Err(StoreError::Failed {
                path: self.path.clone(),
                reason: String::from("the database panicked, it may be damaged"),
            })
        });
        if let Err(error) = &committed {
            tracing::error!(%error, "records could not be written");
            self.broken.send_replace(true);
        }
        for answer in answers {
            // Whoever asked may have gone.
            let _ = answer.send(committed.clone());
        }
    }

    fn commit(&self, groups: &[Vec<WriteOp>]) -> Result<(), StoreError> {
        let totals = *lock(&self.totals);
        let totals = self.with(|database| apply(database, groups, totals))?;
        *lock(&self.totals) = totals;
        Ok(())
    }
}

/// The right to write, and the duty to write all that waits. Where it is dropped before, because
/// the runtime ends, those who wait are told that the store is closed.
struct Writing {
    shared: Arc<Shared>,
    done: bool,
}

impl Writing {
    fn run(mut self) {
        while let Some(group) = self.next() {
            self.shared.write_group(group);
        }
    }

    /// Takes what waits, up to a limit. When nothing does, gives the right back under the same
    /// lock: a job that comes later brings a writer of its own.
    fn next(&mut self) -> Option<Vec<Job>> {
        let mut queue = lock(&self.shared.queue);
        let count = queue.jobs.len().min(GROUP_MAX);
        if count == 0 {
            self.done = true;
            queue.end(&self.shared.idle);
            return None;
        }
        Some(queue.jobs.drain(..count).collect())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.done {
            let mut queue = lock(&self.shared.queue);
            queue.jobs.clear();
            queue.end(&self.shared.idle);
        }
    }
}

impl Queue {
    fn end(&mut self, idle: &Condvar) {
        self.writing = false;
        idle.notify_all();
    }
}

/// Waits for what a simulated disk still owes.
async fn settle(directory: &dyn Directory) {
    let latency = directory.pending_latency();
    if latency > Duration::ZERO {
        tokio::time::sleep(latency).await;
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
        let directory = Arc::clone(&shared.directory);
        let read = self.shared.execution.run(move || work(&shared));
        async move {
            let read = read.await.unwrap_or(Err(closed));
            settle(&*directory).await;
            read
        }
        .boxed()
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
        let shared = Arc::clone(&self.shared);
        let begins = {
            let mut queue = lock(&shared.queue);
            if queue.closed {
                return ready(Err(shared.closed())).boxed();
            }
            if queue.jobs.len() >= QUEUE_MAX {
                return ready(Err(StoreError::Busy { limit: QUEUE_MAX })).boxed();
            }
            // Planted bug: nobody waits for the disk.
            if planted::is_on(Bug::KvAckBeforeDisk) {
                queue.jobs.push_back((ops, oneshot::channel().0));
                let _ = answer.send(Ok(()));
            } else {
                queue.jobs.push_back((ops, answer));
            }
            !std::mem::replace(&mut queue.writing, true)
        };
        if begins {
            let writing = Writing {
                shared: Arc::clone(&shared),
                done: false,
            };
            // Whoever waits has the answer from the queue.
            drop(self.shared.execution.run(move || writing.run()));
        }
        async move {
            let written = answered.await.unwrap_or_else(|_| Err(shared.closed()));
            settle(&*shared.directory).await;
            written
        }
        .boxed()
    }
}

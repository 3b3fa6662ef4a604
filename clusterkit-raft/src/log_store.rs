//! The log on a [`Storage`], as the Raft library wants it.
//!
//! The tail of the log is cached, decoded: what is not durable yet can be read, and replication
//! rarely touches the disk. Writes go through the one [`Writer`], whose order is the order of the
//! log. The applied state is the state machine's half.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::planted::{self, Bug};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::storage::{LogRecord, Storage, StorageError, WriteOp};
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::writer::Writer;

const VOTE_KEY: &str = "vote";
const COMMITTED_KEY: &str = "committed";
const PURGED_KEY: &str = "purged";

/// How many entries the cache keeps beyond those not durable yet.
const CACHE_MAX_ENTRIES: usize = 4_096;

/// How many bytes of entries the cache keeps beyond those not durable yet.
const CACHE_MAX_BYTES: usize = 16 << 20;

/// How many bytes one read for replication returns, unless a single entry is larger.
const READ_MAX_BYTES: usize = 2 << 20;

/// The log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    writer: Writer,
    log: Mutex<Log>,
    /// The last failure, kept as what it was: the Raft library passes it on as text.
    failure: Mutex<Option<StorageError>>,
}

/// Invariant: `cache` is a contiguous suffix of the log and holds every entry that is not durable.
#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    cache: BTreeMap<u64, Cached>,
    cached_bytes: usize,
    /// Entries before this index are durable.
    durable_until: u64,
}

struct Cached {
    entry: Entry,
    bytes: usize,
}

impl LogStore {
    /// Opens the log that `storage` holds.
    pub(crate) fn open(storage: Arc<dyn Storage>, writer: Writer) -> Result<Self, StorageError> {
        let purged: Option<LogId> = load(&*storage, PURGED_KEY)?;
        let bounds = storage.log_bounds()?;
        let next = purged.as_ref().map_or(0, |id| id.index() + 1);
        let mut last = purged;
        if let Some((first, end)) = bounds {
            if first > next {
                return Err(StorageError::damaged(
                    &*storage,
                    format_args!("log starts at {first}, expected {next}"),
                ));
            }
            let record = storage.read_log(end, end.saturating_add(1), 0)?;
            let Some(record) = record.first() else {
                return Err(StorageError::damaged(
                    &*storage,
                    format_args!("log record {end} is missing"),
                ));
            };
            last = last.max(Some(decode_entry(&*storage, record)?.log_id()));
        }
        let log = Log {
            vote: load(&*storage, VOTE_KEY)?,
            committed: load(&*storage, COMMITTED_KEY)?,
            purged,
            durable_until: last.as_ref().map_or(0, |id| id.index() + 1),
            last,
            ..Log::default()
        };
        Ok(Self {
            shared: Arc::new(Shared {
                storage,
                writer,
                log: Mutex::new(log),
                failure: Mutex::default(),
            }),
        })
    }

    /// Returns the term of the last entry.
    pub(crate) fn last_term(&self) -> u64 {
        let last = self.lock().last;
        last.map_or(0, |id| id.committed_leader_id().term)
    }

    /// Returns the last failure of reading the log.
    pub(crate) fn take_failure(&self) -> Option<StorageError> {
        self.shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn fail(&self, error: StorageError) -> io::Error {
        let text = error.with_causes();
        *self
            .shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other(text)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.shared
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads entries `from..until` as far as the log holds them, from storage where they have
    /// left the cache.
    fn read(&self, from: u64, until: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut tail, disk_from, disk_until, until) = {
            let log = self.lock();
            let first = log.purged.as_ref().map_or(0, |id| id.index() + 1);
            let from = from.max(first);
            let until = until.min(log.last.as_ref().map_or(0, |id| id.index() + 1));
            if from >= until {
                return Ok(Vec::new());
            }
            let cached_from = log
                .cache
                .first_key_value()
                .map_or(until, |(first, _)| *first);
            let mut tail = Vec::new();
            let mut bytes = 0;
            for cached in log
                .cache
                .range(from.max(cached_from)..until.max(cached_from))
            {
                bytes += cached.1.bytes;
                tail.push(cached.1.entry.clone());
                if bytes > max_bytes {
                    break;
                }
            }
            (tail, from, cached_from.min(until), until)
        };
        if disk_from >= disk_until {
            return Ok(tail);
        }
        let storage = &*self.shared.storage;
        let records = storage
            .read_log(disk_from, disk_until, max_bytes)
            .map_err(|error| self.fail(error))?;
        let mut entries = Vec::with_capacity(records.len() + tail.len());
        for record in &records {
            entries.push(decode_entry(storage, record).map_err(|error| self.fail(error))?);
        }
        let complete = records
            .last()
            .is_some_and(|last| last.index + 1 == disk_until);
        if complete || max_bytes == usize::MAX {
            entries.append(&mut tail);
        }
        // A purge may have run meanwhile and taken the front, never the middle.
        let contiguous = entries
            .windows(2)
            .all(|pair| pair[0].log_id().index() + 1 == pair[1].log_id().index());
        if !contiguous {
            let detail = format_args!("log from {disk_from} to {until} has holes");
            return Err(self.fail(StorageError::damaged(storage, detail)));
        }
        Ok(entries)
    }
}

impl Log {
    fn insert(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id());
        self.cached_bytes += bytes;
        self.cache
            .insert(entry.log_id().index(), Cached { entry, bytes });
    }

    /// Drops durable entries from the front of the cache while it is over its limits.
    fn evict(&mut self) {
        while self.cache.len() > CACHE_MAX_ENTRIES || self.cached_bytes > CACHE_MAX_BYTES {
            let Some(front) = self.cache.first_entry() else {
                return;
            };
            if *front.key() >= self.durable_until {
                return;
            }
            self.cached_bytes -= front.remove().bytes;
        }
    }

    fn forget(&mut self, keep: impl Fn(u64) -> bool) {
        self.cache.retain(|index, _| keep(*index));
        self.cached_bytes = self.cache.values().map(|cached| cached.bytes).sum();
    }
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&until) => until,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, until, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_MAX_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.lock();
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: log.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let op = set(VOTE_KEY, vote)?;
        self.shared.writer.write(vec![op]).await?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Losing it in a crash costs only a later start of applying, so it waits for company.
        self.lock().committed = committed;
        let Some(committed) = committed else {
            return Ok(());
        };
        let op = set(COMMITTED_KEY, &committed)?;
        self.shared.writer.submit_lazily(vec![op]).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let log = self.lock();
        // Everything that was ever appended here.
        if planted::is_on(Bug::ApplyUncommitted) {
            return Ok(log.last);
        }
        Ok(log.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut ops = Vec::new();
        let mut until = None;
        {
            let mut log = self.lock();
            for entry in entries {
                let index = entry.log_id().index();
                let bytes = Bytes::from(codec::encode("log record", &entry).map_err(failed)?);
                log.insert(entry, bytes.len());
                ops.push(WriteOp::Append(LogRecord { index, bytes }));
                until = Some(index + 1);
            }
        }
        let store = self.clone();
        self.shared
            .writer
            .submit(ops, move |result| {
                if let (Ok(()), Some(until)) = (&result, until) {
                    let mut log = store.lock();
                    log.durable_until = log.durable_until.max(until);
                    log.evict();
                }
                callback.io_completed(result);
            })
            .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.as_ref().map_or(0, |id| id.index() + 1);
        self.shared
            .writer
            .write(vec![WriteOp::TruncateFrom(from)])
            .await?;
        let mut log = self.lock();
        log.forget(|index| index < from);
        log.last = log.last.min(last_log_id).max(log.purged);
        log.durable_until = log.durable_until.min(from);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let ops = vec![
            set(PURGED_KEY, &log_id)?,
            WriteOp::PurgeThrough(log_id.index()),
        ];
        self.shared.writer.write(ops).await?;
        let mut log = self.lock();
        log.forget(|index| index > log_id.index());
        log.purged = Some(log_id).max(log.purged);
        log.last = log.last.max(log.purged);
        log.durable_until = log.durable_until.max(log_id.index() + 1);
        Ok(())
    }
}

fn set<T: Serialize>(key: &'static str, value: &T) -> io::Result<WriteOp> {
    let value = Bytes::from(codec::encode(key, value).map_err(failed)?);
    Ok(WriteOp::SetMeta { key, value })
}

fn load<T: DeserializeOwned>(
    storage: &dyn Storage,
    key: &'static str,
) -> Result<Option<T>, StorageError> {
    let Some(bytes) = storage.meta(key)? else {
        return Ok(None);
    };
    let value: T =
        codec::decode(key, &bytes).map_err(|error| StorageError::damaged(storage, error))?;
    Ok(Some(value))
}

fn decode_entry(storage: &dyn Storage, record: &LogRecord) -> Result<Entry, StorageError> {
    let entry: Entry = codec::decode("log record", &record.bytes)
        .map_err(|error| StorageError::damaged(storage, error))?;
    if entry.log_id().index() == record.index {
        return Ok(entry);
    }
    Err(StorageError::damaged(
        storage,
        format_args!(
            "record {} says it is {}",
            record.index,
            entry.log_id().index()
        ),
    ))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

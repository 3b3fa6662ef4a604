//! The durable [`Storage`]: one redb file in the data directory.
//!
//! Three tables (log, meta, snapshot); every value carries a checksum over its key and content,
//! because redb verifies its own checksums only when it repairs, and all of those are compared when
//! the file is opened. A damaged file is an error that
//! names the path, never a panic. What the records mean is not known here.
//!
//! Beside it lies a lock file, and for a moment a new file is made under another name: a process
//! killed while making it leaves nothing that looks damaged.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::planted::{self, Bug};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::verify::is_intact;
use super::{LogRecord, Storage, StorageError, WriteOp};
use crate::disk::{Directory, DirectoryLock, DiskFile, OsDirectory};
use crate::panics::panic_text;

/// The name of the file within the data directory.
pub const DATABASE_FILE: &str = "clusterkit.redb";

/// The name of the file whose lock says that the directory is in use.
const LOCK_FILE: &str = "clusterkit.lock";

/// The name under which a new file is made.
const NEW_FILE: &str = "clusterkit.redb.new";

/// The newest layout of the file that this build reads and writes.
const FORMAT: u8 = 1;

/// How much of the file redb may cache, in bytes. The log's tail is cached above, decoded.
const CACHE_BYTES: usize = 16 << 20;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");

const FORMAT_KEY: &str = "format";
const SNAPSHOT_KEY: &str = "current";

/// Bytes of checksum in front of every value.
const SUM_BYTES: usize = 8;

/// Keeps log, values and snapshot in one file, with one fsync per batch.
#[derive(Debug)]
pub struct RedbStorage {
    directory: Arc<dyn Directory>,
    path: PathBuf,
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    database: Database,
    /// Held, not used: released after the database.
    _lock: Box<dyn DirectoryLock>,
}

impl RedbStorage {
    /// Opens the file [`DATABASE_FILE`] in the directory at this path, creating both where
    /// missing.
    ///
    /// # Errors
    /// As [`open_in`](Self::open_in).
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_in(Arc::new(OsDirectory::new(directory.as_ref())))
    }

    /// Opens the file [`DATABASE_FILE`] in `directory`, creating both where missing.
    ///
    /// # Errors
    /// - [`StorageError::NotWritable`] when the directory or file cannot be created or written;
    /// - [`StorageError::Locked`] when another process has it open;
    /// - [`StorageError::Corrupted`] when the file is damaged or not one of ours;
    /// - [`StorageError::NewerFormat`] when a newer version of this library wrote it;
    /// - [`StorageError::Io`] when the system fails otherwise, such as a full disk.
    pub fn open_in(directory: Arc<dyn Directory>) -> Result<Self, StorageError> {
        let path = directory.path().join(DATABASE_FILE);
        let lock = lock(&*directory)?;
        let unusable = |source| unusable(&path, source);
        let found = directory.open(DATABASE_FILE).map_err(unusable)?;
        let made = found.is_some();
        let file: Arc<dyn DiskFile> = match found {
            Some(file) => file.into(),
            None => directory.create(NEW_FILE).map_err(unusable)?.into(),
        };
        // A process that was killed leaves what it wrote but did not sync. Make it durable before
        // the database reads it, believes it, and writes on top of it.
        file.sync().map_err(unusable)?;
        let database = guarded(&path, || {
            if made {
                let intact = is_intact(Arc::clone(&file), CACHE_BYTES);
                if !intact.map_err(|error| opening(&path, error))? {
                    return Err(StorageError::Corrupted {
                        path: path.clone(),
                        detail: String::from("checksums do not match"),
                    });
                }
            }
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Backend(file))
                .map_err(|error| opening(&path, error))?;
            prepare(&path, &database)?;
            Ok(database)
        })?;
        // From here on a failure ends in the storage's own drop, which bears a damaged file.
        let storage = Self {
            directory,
            path: path.clone(),
            open: RwLock::new(Some(Open {
                database,
                _lock: lock,
            })),
        };
        if !made {
            let renamed = storage.directory.rename(NEW_FILE, DATABASE_FILE);
            renamed.map_err(unusable)?;
        }
        // Planted bug: the rename is left to chance.
        if !planted::is_on(Bug::SkipDirectorySync) {
            // Also when it was made before: the process that renamed it may have got no further.
            storage.directory.sync().map_err(unusable)?;
        }
        Ok(storage)
    }

    /// Removes the file [`DATABASE_FILE`] from `directory`, durable when it returns: who opens the
    /// directory next is a new node. Nothing happens when there is none.
    ///
    /// # Errors
    /// - [`StorageError::Locked`] when it is open;
    /// - [`StorageError::NotWritable`] or [`StorageError::Io`] when the system fails.
    pub fn remove(directory: &dyn Directory) -> Result<(), StorageError> {
        let path = directory.path().join(DATABASE_FILE);
        let _lock = lock(directory)?;
        let removed = directory
            .remove(DATABASE_FILE)
            .and_then(|_| directory.sync());
        removed.map_err(|source| unusable(&path, source))
    }

    /// Runs `work` on the open database; after a panic within redb the database is given up.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = open.as_ref() else {
            return Err(StorageError::Closed {
                path: self.path.clone(),
            });
        };
        guarded(&self.path, || {
            work(&open.database).map_err(|error| failed(&self.path, error))
        })
    }

    fn damaged(&self, detail: String) -> StorageError {
        StorageError::Corrupted {
            path: self.path.clone(),
            detail,
        }
    }

    fn checked(&self, what: &str, seed: u64, sealed: &[u8]) -> Result<Bytes, StorageError> {
        unseal(seed, sealed)
            .map(Bytes::copy_from_slice)
            .ok_or_else(|| self.damaged(format!("checksum of {what} does not match")))
    }
}

impl Storage for RedbStorage {
    fn write(&self, batch: &[WriteOp]) -> Result<(), StorageError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut log = transaction.open_table(LOG)?;
                let mut meta = transaction.open_table(META)?;
                let mut snapshot = transaction.open_table(SNAPSHOT)?;
                for op in batch {
                    match op {
                        WriteOp::Append(record) => {
                            let sealed = seal(record.index, &record.bytes);
                            log.insert(record.index, sealed.as_slice())?;
                        }
                        WriteOp::TruncateFrom(index) => log.retain_in(*index.., |_, _| false)?,
                        WriteOp::PurgeThrough(index) => log.retain_in(..=*index, |_, _| false)?,
                        WriteOp::SetMeta { key, value } => {
                            meta.insert(*key, seal(text_seed(key), value).as_slice())?;
                        }
                        WriteOp::SaveSnapshot(bytes) => {
                            let sealed = seal(text_seed(SNAPSHOT_KEY), bytes);
                            snapshot.insert(SNAPSHOT_KEY, sealed.as_slice())?;
                        }
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn log_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        let (bounds, count) = self.with(|database| {
            let log = database.begin_read()?.open_table(LOG)?;
            let first = log.first()?.map(|(index, _)| index.value());
            let last = log.last()?.map(|(index, _)| index.value());
            Ok((first.zip(last), log.len()?))
        })?;
        if let Some((first, last)) = bounds
            && last.wrapping_sub(first).wrapping_add(1) != count
        {
            return Err(self.damaged(format!("log from {first} to {last} holds {count} records")));
        }
        Ok(bounds)
    }

    fn read_log(
        &self,
        from: u64,
        until: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let sealed = self.with(|database| {
            let log = database.begin_read()?.open_table(LOG)?;
            let mut records = Vec::new();
            let mut total = 0;
            for item in log.range(from..until)? {
                let (index, bytes) = item?;
                let bytes = Bytes::copy_from_slice(bytes.value());
                total += bytes.len();
                records.push((index.value(), bytes));
                if total > max_bytes {
                    break;
                }
            }
            Ok(records)
        })?;
        let mut records = Vec::with_capacity(sealed.len());
        for (index, bytes) in sealed {
            if unseal(index, &bytes).is_none() {
                return Err(self.damaged(format!("checksum of log record {index} does not match")));
            }
            records.push(LogRecord {
                index,
                bytes: bytes.slice(SUM_BYTES..),
            });
        }
        Ok(records)
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        let sealed = self.with(|database| {
            let meta = database.begin_read()?.open_table(META)?;
            Ok(meta.get(key)?.map(|value| value.value().to_vec()))
        })?;
        sealed
            .map(|sealed| self.checked(key, text_seed(key), &sealed))
            .transpose()
    }

    fn snapshot(&self) -> Result<Option<Bytes>, StorageError> {
        let sealed = self.with(|database| {
            let table = database.begin_read()?.open_table(SNAPSHOT)?;
            Ok(table.get(SNAPSHOT_KEY)?.map(|value| value.value().to_vec()))
        })?;
        sealed
            .map(|sealed| self.checked("snapshot", text_seed(SNAPSHOT_KEY), &sealed))
            .transpose()
    }

    fn close(&self) {
        let open = self
            .open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Dropping redb writes its clean-shutdown mark; a panic there must not reach the caller.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
    }

    fn location(&self) -> PathBuf {
        self.path.clone()
    }

    fn pending_latency(&self) -> Duration {
        self.directory.pending_latency()
    }
}

impl Drop for RedbStorage {
    fn drop(&mut self) {
        self.close();
    }
}

/// A file as redb wants it. Locks are not its matter: the directory has one.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

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
        // Planted bug: every commit is left to chance.
        if planted::is_on(Bug::SkipFsync) {
            return Ok(());
        }
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Creates `directory` where missing and takes its lock.
fn lock(directory: &dyn Directory) -> Result<Box<dyn DirectoryLock>, StorageError> {
    let path = directory.path();
    directory.make().map_err(|source| unusable(&path, source))?;
    match directory.lock(LOCK_FILE) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(StorageError::Locked { path }),
        Err(source) => Err(unusable(&path.join(LOCK_FILE), source)),
    }
}

/// Tells a place that cannot be used from a medium that fails.
fn unusable(path: &Path, source: io::Error) -> StorageError {
    use io::ErrorKind as Kind;
    let path = path.to_path_buf();
    match source.kind() {
        Kind::PermissionDenied
        | Kind::ReadOnlyFilesystem
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::AlreadyExists
        | Kind::NotFound => StorageError::NotWritable { path, source },
        _ => StorageError::Io { path, source },
    }
}

/// Creates the tables of a new file; checks the layout of an old one.
fn prepare(path: &Path, database: &Database) -> Result<(), StorageError> {
    let work = || -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = database.begin_write()?;
        let found = {
            transaction.open_table(LOG)?;
            transaction.open_table(SNAPSHOT)?;
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(FORMAT_KEY)?.map(|value| value.value().to_vec());
            if found.is_none() && meta.is_empty()? {
                meta.insert(
                    FORMAT_KEY,
                    seal(text_seed(FORMAT_KEY), &[FORMAT]).as_slice(),
                )?;
                None
            } else {
                Some(found.unwrap_or_default())
            }
        };
        match found {
            None => transaction.commit()?,
            Some(_) => transaction.abort()?,
        }
        Ok(found)
    };
    let Some(sealed) = work().map_err(|error| failed(path, error))? else {
        return Ok(());
    };
    match unseal(text_seed(FORMAT_KEY), &sealed) {
        Some([FORMAT]) => Ok(()),
        Some([found]) if *found > FORMAT => Err(StorageError::NewerFormat {
            path: path.to_path_buf(),
            found: *found,
            known: FORMAT,
        }),
        _ => Err(StorageError::Corrupted {
            path: path.to_path_buf(),
            detail: String::from("format mark is missing or damaged"),
        }),
    }
}

fn text_seed(key: &str) -> u64 {
    xxh3_64_with_seed(key.as_bytes(), 0)
}

fn seal(seed: u64, bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SUM_BYTES + bytes.len());
    sealed.extend(xxh3_64_with_seed(bytes, seed).to_le_bytes());
    sealed.extend(bytes);
    sealed
}

fn unseal(seed: u64, sealed: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = sealed.split_first_chunk::<SUM_BYTES>()?;
    (u64::from_le_bytes(*sum) == xxh3_64_with_seed(bytes, seed)).then_some(bytes)
}

/// Turns a panic within redb, which damaged files can provoke, into an error.
fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(StorageError::Corrupted {
            path: path.to_path_buf(),
            detail: panic_text(&*panic),
        })
    })
}

fn opening(path: &Path, error: redb::DatabaseError) -> StorageError {
    use io::ErrorKind as Kind;
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Io(source)) => match source.kind() {
            Kind::InvalidData | Kind::UnexpectedEof | Kind::InvalidInput => {
                StorageError::Corrupted {
                    path: path.to_path_buf(),
                    detail: source.to_string(),
                }
            }
            _ => unusable(path, source),
        },
        error => failed(path, error.into()),
    }
}

fn failed(path: &Path, error: redb::Error) -> StorageError {
    let path = path.to_path_buf();
    match error {
        redb::Error::DatabaseAlreadyOpen => StorageError::Locked { path },
        redb::Error::DatabaseClosed => StorageError::Closed { path },
        redb::Error::Io(source) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StorageError::Corrupted {
                path,
                detail: source.to_string(),
            },
            _ => StorageError::Io { path, source },
        },
        redb::Error::PreviousIo => StorageError::Io {
            path,
            source: io::Error::other("an earlier operation failed"),
        },
        error => StorageError::Corrupted {
            path,
            detail: error.to_string(),
        },
    }
}

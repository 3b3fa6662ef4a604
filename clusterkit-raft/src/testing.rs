//! Conformance checks for implementations of this crate's traits.
//!
//! Run [`check_storage`] and [`check_raft_storage`] on your own [`Storage`] in a test. They are
//! what the two implementations that ship are held to; they find contract violations, not the
//! loss of unsynced writes, which needs a simulated disk.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::id::RaftId;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::clock::SystemWallClock;
use crate::execution::Execution;
use crate::log_store::LogStore;
use crate::state_machine::StateMachine;
use crate::storage::{LogRecord, Storage, StorageError, WriteOp};
use crate::types::TypeConfig;
use crate::view::ViewCell;
use crate::writer::Writer;

/// What a [`Storage`] did against its contract.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A call failed that must succeed.
    #[error("{step} failed")]
    Failed {
        /// What was being done.
        step: &'static str,
        /// The error returned.
        source: StorageError,
    },
    /// A call returned what it must not.
    #[error("{step}: expected {expected}, found {found}")]
    Unexpected {
        /// What was being done.
        step: &'static str,
        /// What the contract says.
        expected: String,
        /// What was returned.
        found: String,
    },
}

fn must<T>(step: &'static str, result: Result<T, StorageError>) -> Result<T, Violation> {
    result.map_err(|source| Violation::Failed { step, source })
}

fn same<T: PartialEq + std::fmt::Debug>(
    step: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), Violation> {
    if found == expected {
        return Ok(());
    }
    Err(Violation::Unexpected {
        step,
        expected: format!("{expected:?}"),
        found: format!("{found:?}"),
    })
}

fn record(index: u64, text: &'static str) -> LogRecord {
    LogRecord {
        index,
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

fn append(index: u64, text: &'static str) -> WriteOp {
    WriteOp::Append(record(index, text))
}

/// Checks `open`'s storage against the obligations of [`Storage`].
///
/// `open` is called several times; each time but the first it must open what was closed before.
///
/// # Errors
/// The first [`Violation`] found, or the error of `open`.
pub fn check_storage<S: Storage>(
    mut open: impl FnMut() -> Result<S, StorageError>,
) -> Result<(), Violation> {
    let storage = must("opening empty", open())?;
    same(
        "bounds of an empty log",
        &must("bounds", storage.log_bounds())?,
        &None,
    )?;
    same(
        "an unknown key",
        &must("meta", storage.meta("vote"))?,
        &None,
    )?;
    same("no snapshot", &must("snapshot", storage.snapshot())?, &None)?;
    let batch: Vec<WriteOp> = (5..15).map(|index| append(index, "first")).collect();
    must("appending", storage.write(&batch))?;
    same(
        "bounds",
        &must("bounds", storage.log_bounds())?,
        &Some((5, 14)),
    )?;
    must(
        "a mixed batch",
        storage.write(&[
            WriteOp::TruncateFrom(12),
            append(12, "second"),
            WriteOp::SetMeta {
                key: "vote",
                value: Bytes::from_static(b"one"),
            },
            WriteOp::SetMeta {
                key: "vote",
                value: Bytes::from_static(b"two"),
            },
            WriteOp::PurgeThrough(7),
            WriteOp::SaveSnapshot(Bytes::from_static(b"state")),
        ]),
    )?;
    check_mixed(&storage)?;
    storage.close();
    drop(storage);

    let storage = must("opening again", open())?;
    check_mixed(&storage)?;
    let limited = must("limited read", storage.read_log(8, 13, 1))?;
    same("a limited read", &limited, &vec![record(8, "first")])?;
    let beyond = must("read beyond", storage.read_log(0, u64::MAX, usize::MAX))?;
    same("a read beyond both ends", &beyond.len(), &5)?;
    same(
        "an empty range",
        &must("read", storage.read_log(9, 9, 9))?,
        &Vec::new(),
    )?;
    must("an empty batch", storage.write(&[]))?;
    must("purging all", storage.write(&[WriteOp::PurgeThrough(100)]))?;
    same(
        "bounds after purging all",
        &must("bounds", storage.log_bounds())?,
        &None,
    )?;
    must(
        "appending after a gap",
        storage.write(&[append(101, "third")]),
    )?;
    same(
        "bounds",
        &must("bounds", storage.log_bounds())?,
        &Some((101, 101)),
    )?;
    must("truncating all", storage.write(&[WriteOp::TruncateFrom(0)]))?;
    same(
        "bounds after truncating all",
        &must("bounds", storage.log_bounds())?,
        &None,
    )?;
    storage.close();
    storage.close();
    Ok(())
}

fn check_mixed(storage: &dyn Storage) -> Result<(), Violation> {
    same(
        "bounds",
        &must("bounds", storage.log_bounds())?,
        &Some((8, 12)),
    )?;
    let expected: Vec<LogRecord> = (8..12)
        .map(|index| record(index, "first"))
        .chain([record(12, "second")])
        .collect();
    let found = must("reading", storage.read_log(8, 13, usize::MAX))?;
    same("the log", &found, &expected)?;
    let vote = must("meta", storage.meta("vote"))?;
    same("the last value", &vote, &Some(Bytes::from_static(b"two")))?;
    let snapshot = must("snapshot", storage.snapshot())?;
    same(
        "the snapshot",
        &snapshot,
        &Some(Bytes::from_static(b"state")),
    )
}

/// Runs the Raft library's own storage suite on this crate's log store and state machine over the
/// storages that `fresh` returns, each empty.
///
/// # Errors
/// [`StorageError`] when a fresh storage cannot be used at all.
///
/// # Panics
/// With the violated rule: the suite asserts.
///
/// # Cancel safety
/// Dropping the future ends the run.
pub async fn check_raft_storage<S: Storage>(
    fresh: impl Fn() -> Result<S, StorageError> + Send + Sync,
) -> Result<(), StorageError> {
    must_be_empty(&fresh()?)?;
    let outcome = Suite::<TypeConfig, LogStore, StateMachine, _, Guard>::test_all(Builder(fresh));
    Box::pin(outcome)
        .await
        .map_err(|error| StorageError::Corrupted {
            path: PathBuf::from("the storage under test"),
            detail: error.to_string(),
        })
}

fn must_be_empty(storage: &dyn Storage) -> Result<(), StorageError> {
    match storage.log_bounds()? {
        None => Ok(()),
        Some((first, last)) => Err(StorageError::damaged(
            storage,
            format_args!("a fresh storage holds the log from {first} to {last}"),
        )),
    }
}

struct Builder<F>(F);

/// Ends the writer thread when a test of the suite is over.
struct Guard {
    storage: Arc<dyn Storage>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.storage.close();
    }
}

impl<S, F> StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder<F>
where
    S: Storage,
    F: Fn() -> Result<S, StorageError> + Send + Sync,
{
    async fn build(
        &self,
    ) -> Result<(Guard, LogStore, StateMachine), openraft::StorageError<TypeConfig>> {
        let unusable = |error: &dyn std::error::Error| {
            openraft::StorageError::read(
                <TypeConfig as openraft::type_config::TypeConfigExt>::err_from_string(error),
            )
        };
        let storage = (self.0)().map_err(|error| unusable(&error))?;
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let writer = Writer::start(Arc::clone(&storage), Execution::Threads)
            .map_err(|error| unusable(&error))?;
        let log = LogStore::open(Arc::clone(&storage), writer.clone())
            .map_err(|error| unusable(&error))?;
        let view = Arc::new(ViewCell::new(
            RaftId(1),
            Arc::default(),
            Arc::new(SystemWallClock),
        ));
        let machine = StateMachine::open(Arc::clone(&storage), writer, view)
            .map_err(|error| unusable(&error))?;
        Ok((Guard { storage }, log, machine))
    }
}

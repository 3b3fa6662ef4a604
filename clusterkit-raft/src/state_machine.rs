//! The replicated state as the Raft library wants it: apply, snapshot, install.
//!
//! The state lives in memory; on disk there are the log and the last snapshot, from which it is
//! rebuilt at start. What a command does is decided by [`ClusterState::apply`] alone. A command
//! that cannot be read, or a panic while applying, stops this node: going on would let its state
//! drift from everybody else's.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::explain::PlanHistory;
use clusterkit_core::id::LogIndex;
use clusterkit_core::state::ClusterState;
use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::panics::panic_text;
use crate::storage::{Storage, StorageError, WriteOp};
use crate::types::{
    CommandBytes, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};
use crate::view::ViewCell;
use crate::writer::Writer;

/// The state machine; the builder of snapshots shares it.
#[derive(Clone)]
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    writer: Writer,
    view: Arc<ViewCell>,
    applied: Mutex<AppliedState>,
    /// What the stored snapshot covers; held while one is being stored, so that a slow build
    /// never replaces a newer one that was installed meanwhile.
    stored: Arc<tokio::sync::Mutex<Option<LogId>>>,
}

#[derive(Clone, Default)]
struct AppliedState {
    state: Arc<ClusterState>,
    /// Memory only: what a snapshot covers is forgotten with the process.
    plans: PlanHistory,
    last: Option<LogId>,
    membership: StoredMembership,
}

/// A snapshot as it lies in storage: what it covers, then the encoded state.
#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta,
    state: CommandBytes,
}

/// Reads the state that the snapshot in `storage` holds, empty where there is none.
pub(crate) fn load_state(storage: &dyn Storage) -> Result<Arc<ClusterState>, StorageError> {
    Ok(load(storage)?.state)
}

fn load(storage: &dyn Storage) -> Result<AppliedState, StorageError> {
    let Some(stored) = stored_snapshot(storage)? else {
        return Ok(AppliedState::default());
    };
    let state = codec::decode("snapshot state", &stored.state.0)
        .map_err(|error| StorageError::damaged(storage, error))?;
    Ok(AppliedState::of_snapshot(state, &stored.meta))
}

impl AppliedState {
    fn of_snapshot(state: ClusterState, meta: &SnapshotMeta) -> Self {
        Self {
            plans: PlanHistory::starting_after(state.applied()),
            state: Arc::new(state),
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
        }
    }
}

fn stored_snapshot(storage: &dyn Storage) -> Result<Option<StoredSnapshot>, StorageError> {
    let Some(bytes) = storage.snapshot()? else {
        return Ok(None);
    };
    codec::decode("snapshot", &bytes)
        .map(Some)
        .map_err(|error| StorageError::damaged(storage, error))
}

impl StateMachine {
    /// Opens the state machine on the snapshot that `storage` holds.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        writer: Writer,
        view: Arc<ViewCell>,
    ) -> Result<Self, StorageError> {
        let applied = load(&*storage)?;
        Ok(Self {
            shared: Arc::new(Shared {
                stored: Arc::new(tokio::sync::Mutex::new(applied.last)),
                storage,
                writer,
                view,
                applied: Mutex::new(applied),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, AppliedState> {
        self.shared
            .applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, applied: AppliedState) {
        let index = applied.last.as_ref().map_or(0, LogId::index);
        let view = &self.shared.view;
        view.publish_state(&applied.state, &applied.plans, index);
        *self.lock() = applied;
    }

    async fn save(&self, meta: SnapshotMeta, state: Bytes) -> io::Result<()> {
        let mut newest = self.shared.stored.lock().await;
        if *newest > meta.last_log_id {
            return Ok(());
        }
        let covers = meta.last_log_id;
        let stored = StoredSnapshot {
            meta,
            state: CommandBytes(state),
        };
        let bytes = codec::encode("snapshot", &stored).map_err(io::Error::other)?;
        let op = WriteOp::SaveSnapshot(Bytes::from(bytes));
        self.shared.writer.write(vec![op]).await?;
        *newest = covers;
        Ok(())
    }
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").finish_non_exhaustive()
    }
}

/// Applies one command to `applied`, which is not to be used after an error.
fn apply_command(
    applied: &mut AppliedState,
    index: u64,
    command: &CommandBytes,
) -> io::Result<Result<Applied, Rejected>> {
    let stop = |detail: String| {
        tracing::error!(index, detail, "cannot apply the log, this node stops");
        io::Error::other(format!("cannot apply log entry {index}: {detail}"))
    };
    let command: Command =
        codec::decode("command", &command.0).map_err(|error| stop(error.to_string()))?;
    let state = Arc::make_mut(&mut applied.state);
    let plans = &mut applied.plans;
    let apply = || plans.apply(state, LogIndex(index), &command);
    catch_unwind(AssertUnwindSafe(apply)).map_err(|panic| stop(panic_text(&*panic)))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut applied = self.lock().clone();
        let mut replies = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let log_id = entry.log_id();
            let reply = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(command) => {
                    Some(apply_command(&mut applied, log_id.index(), &command)?)
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(log_id), membership);
                    None
                }
            };
            applied.last = Some(log_id);
            replies.extend(responder.map(|responder| (responder, Reply(reply))));
        }
        // Published before anybody is answered, so that proposers find their writes in the view.
        self.set(applied);
        for (responder, reply) in replies {
            responder.send(reply);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        // The builder must not see what is applied after this call.
        let applied = self.lock().clone();
        Self {
            shared: Arc::new(Shared {
                storage: Arc::clone(&self.shared.storage),
                writer: self.shared.writer.clone(),
                view: Arc::clone(&self.shared.view),
                applied: Mutex::new(applied),
                stored: Arc::clone(&self.shared.stored),
            }),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let state: ClusterState =
            codec::decode("snapshot state", &snapshot).map_err(io::Error::other)?;
        self.save(meta.clone(), snapshot).await?;
        self.set(AppliedState::of_snapshot(state, meta));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let stored = stored_snapshot(&*self.shared.storage).map_err(io::Error::other)?;
        Ok(stored.map(|stored| Snapshot {
            meta: stored.meta,
            snapshot: stored.state.0,
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let applied = self.lock().clone();
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership,
        };
        let state = codec::encode("snapshot state", &*applied.state).map_err(io::Error::other)?;
        let state = Bytes::from(state);
        self.save(meta.clone(), state.clone()).await?;
        Ok(Snapshot {
            meta,
            snapshot: state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_nobody_can_read_stops_the_node() {
        let mut applied = AppliedState::default();
        let before = Arc::clone(&applied.state);
        for bytes in [&b""[..], b"\x02", b"\x01\xff\xff\xff"] {
            let command = CommandBytes(Bytes::from_static(bytes));
            let error = apply_command(&mut applied, 7, &command).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with("cannot apply log entry 7: command "),
                "{text}"
            );
            assert_eq!(applied.state, before);
        }
    }
}

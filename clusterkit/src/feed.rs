//! Feeding the hooks: every view to the runner, every answer of a hook to the log.
//!
//! What a hook is called with and in which order is decided in `hooks/`; this file connects it to
//! the control plane and remembers how far this node has got.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::id::{ClusterId, EventSeq, RaftId};
use clusterkit_raft::Execution;
use clusterkit_raft::disk::Directory;
use tokio_util::sync::CancellationToken;

use crate::hooks::{Acks, HookRunner};
use crate::inner::{Inner, Phase};

/// How often the cursor is written down: what a crash may repeat.
const REMEMBER_EVERY: Duration = Duration::from_millis(500);
/// The file in the data directory that holds the cursor.
const CURSOR_FILE: &str = "hooks.cursor";

/// Feeds hooks until the node stops or is no member any more.
pub(crate) async fn run(inner: Arc<Inner>) {
    let (Some(me), Some(cluster)) = (inner.raft_id(), inner.cluster()) else {
        return;
    };
    let control = Arc::clone(inner.member_control());
    let cursor_file = CursorFile::new(
        Arc::clone(&inner.settings.directory),
        inner.settings.environment.execution,
        cluster,
        me,
    );
    let mut view = control.view();
    let start = cursor_file
        .read()
        .await
        .unwrap_or_else(|| HookRunner::first_cursor(&view.state, me));
    let subscriber = Arc::clone(&inner.settings.hooks);
    let settings = inner.settings.hook_settings.clone();
    let counters = Arc::clone(&inner.hook_counters);
    let copies = Arc::clone(&inner.copies);
    let (runner, mut answers) =
        HookRunner::start(subscriber, me, start, settings, counters, copies);
    // Beside the feeding, not in it: a proposal may wait for a leader, hooks must not.
    let answering = async {
        while let Some(acks) = answers.recv().await {
            inner.answer(me, acks).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(answering);
    let feeding_ends = CancellationToken::new();
    let mut written = {
        // Beside the feeding, too: the disk may be slow.
        let remembering = cursor_file.follow(&runner, start, &feeding_ends);
        tokio::pin!(remembering);
        loop {
            runner.feed(Arc::clone(&view));
            if inner.was_removed(&view) {
                inner.set_phase(Phase::Left);
                break;
            }
            tokio::select! {
                newer = control.changed(view.version) => view = newer,
                () = &mut answering => {}
                _ = &mut remembering => {}
                () = inner.stop.cancelled() => break,
            }
        }
        feeding_ends.cancel();
        remembering.await
    };
    let last = runner.shutdown().await;
    cursor_file.remember(&mut written, last).await;
}

impl Inner {
    /// Proposes the answers of hooks. What fails is sent again by the runner.
    async fn answer(&self, node: RaftId, acks: Acks) {
        let control = self.member_control();
        let at = self.clock.wall();
        let mut commands = Vec::new();
        if !acks.synced.is_empty() {
            commands.push(Command::Synced {
                node,
                stages: acks.synced,
                at,
            });
        }
        if !acks.released.is_empty() {
            commands.push(Command::Released {
                node,
                stages: acks.released,
            });
        }
        for command in commands {
            let proposed = tokio::select! {
                proposed = control.propose(command) => proposed,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = proposed {
                tracing::debug!(%error, "the answer of a hook did not reach the log yet");
            }
        }
    }
}

/// The cursor of one membership on disk.
struct CursorFile {
    directory: Arc<dyn Directory>,
    execution: Execution,
    owner: String,
}

impl CursorFile {
    fn new(
        directory: Arc<dyn Directory>,
        execution: Execution,
        cluster: ClusterId,
        me: RaftId,
    ) -> Self {
        Self {
            directory,
            execution,
            owner: format!("{cluster} {me}"),
        }
    }

    /// Returns the cursor written last by this very membership.
    async fn read(&self) -> Option<EventSeq> {
        let directory = Arc::clone(&self.directory);
        let read = self
            .execution
            .run(move || directory.read(CURSOR_FILE))
            .await;
        let content = match read {
            Ok(Ok(content)) => content?,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the hook cursor could not be read: hooks run again");
                return None;
            }
            Err(panic) => {
                tracing::warn!(panic, "the hook cursor could not be read: hooks run again");
                return None;
            }
        };
        let text = String::from_utf8(content).ok()?;
        let (owner, seq) = text.trim().rsplit_once(' ')?;
        (owner == self.owner)
            .then(|| seq.parse().ok().map(EventSeq))
            .flatten()
    }

    /// Writes down where `runner` is from time to time until `end`; returns what was written last.
    async fn follow(
        &self,
        runner: &HookRunner,
        start: EventSeq,
        end: &CancellationToken,
    ) -> EventSeq {
        let mut written = start;
        let mut ticks = tokio::time::interval(REMEMBER_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = end.cancelled() => return written,
            }
            self.remember(&mut written, runner.cursor()).await;
        }
    }

    async fn remember(&self, written: &mut EventSeq, cursor: EventSeq) {
        if cursor == *written {
            return;
        }
        let directory = Arc::clone(&self.directory);
        let line = format!("{} {cursor}\n", self.owner);
        let writing = self
            .execution
            .run(move || directory.publish(CURSOR_FILE, line.as_bytes()))
            .await;
        match writing {
            Ok(Ok(())) => *written = cursor,
            Ok(Err(error)) => tracing::warn!(%error, "the hook cursor could not be written"),
            Err(panic) => tracing::warn!(panic, "the hook cursor could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_raft::disk::OsDirectory;

    use super::*;

    #[tokio::test]
    async fn a_cursor_belongs_to_one_membership() {
        let temporary = tempfile::tempdir().unwrap();
        let directory: Arc<dyn Directory> = Arc::new(OsDirectory::new(temporary.path()));
        let cluster = ClusterId::from_bytes([7; 16]);
        let file = CursorFile::new(
            Arc::clone(&directory),
            Execution::Threads,
            cluster,
            RaftId(9),
        );
        assert_eq!(file.read().await, None);
        let mut written = EventSeq(0);
        file.remember(&mut written, EventSeq(41)).await;
        assert_eq!(written, EventSeq(41));
        assert_eq!(file.read().await, Some(EventSeq(41)));
        let other = CursorFile::new(
            Arc::clone(&directory),
            Execution::Threads,
            cluster,
            RaftId(10),
        );
        assert_eq!(other.read().await, None);
        directory.publish(CURSOR_FILE, b"garbage").unwrap();
        assert_eq!(file.read().await, None);
    }
}

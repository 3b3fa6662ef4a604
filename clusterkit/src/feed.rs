//! Feeding the hooks: every view to the runner, every answer of a hook to the log.
//!
//! What a hook is called with and in which order is decided in `hooks/`; this file connects it to
//! the control plane and remembers how far this node has got.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::id::{ClusterId, EventSeq, RaftId};

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
    let cursor_file = CursorFile::new(&inner.settings.data_dir, cluster, me);
    let mut view = control.view();
    let start = cursor_file
        .read()
        .unwrap_or_else(|| HookRunner::first_cursor(&view.state, me));
    let subscriber = Arc::clone(&inner.settings.hooks);
    let settings = inner.settings.hook_settings.clone();
    let counters = Arc::clone(&inner.hook_counters);
    let (runner, mut answers) = HookRunner::start(subscriber, me, start, settings, counters);
    // Beside the feeding, not in it: a proposal may wait for a leader, hooks must not.
    let answering = async {
        while let Some(acks) = answers.recv().await {
            inner.answer(me, acks).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(answering);
    let mut written = start;
    let mut ticks = tokio::time::interval(REMEMBER_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        runner.feed(Arc::clone(&view));
        if inner.was_removed(&view) {
            inner.set_phase(Phase::Left);
            break;
        }
        tokio::select! {
            newer = control.changed(view.version) => view = newer,
            () = &mut answering => {}
            _ = ticks.tick() => remember(&cursor_file, &mut written, runner.cursor()),
            () = inner.stop.cancelled() => break,
        }
    }
    let last = runner.shutdown().await;
    remember(&cursor_file, &mut written, last);
}

fn remember(file: &CursorFile, written: &mut EventSeq, cursor: EventSeq) {
    if cursor == *written {
        return;
    }
    match file.write(cursor) {
        Ok(()) => *written = cursor,
        Err(error) => tracing::warn!(%error, "the hook cursor could not be written"),
    }
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

/// The cursor of one membership on disk. Not synced: losing the newest one repeats some hooks.
struct CursorFile {
    path: PathBuf,
    owner: String,
}

impl CursorFile {
    fn new(dir: &Path, cluster: ClusterId, me: RaftId) -> Self {
        Self {
            path: dir.join(CURSOR_FILE),
            owner: format!("{cluster} {me}"),
        }
    }

    /// Returns the cursor written last by this very membership.
    fn read(&self) -> Option<EventSeq> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (owner, seq) = text.trim().rsplit_once(' ')?;
        (owner == self.owner)
            .then(|| seq.parse().ok().map(EventSeq))
            .flatten()
    }

    fn write(&self, cursor: EventSeq) -> std::io::Result<()> {
        let next = self.path.with_extension("next");
        std::fs::write(&next, format!("{} {cursor}\n", self.owner))?;
        std::fs::rename(&next, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_one_membership() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::from_bytes([7; 16]);
        let file = CursorFile::new(dir.path(), cluster, RaftId(9));
        assert_eq!(file.read(), None);
        file.write(EventSeq(41)).unwrap();
        assert_eq!(file.read(), Some(EventSeq(41)));
        assert_eq!(
            CursorFile::new(dir.path(), cluster, RaftId(10)).read(),
            None
        );
        std::fs::write(dir.path().join(CURSOR_FILE), "garbage").unwrap();
        assert_eq!(file.read(), None);
    }
}

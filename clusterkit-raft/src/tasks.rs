//! The only place of this crate that starts tasks and threads; each is owned and joined.
//!
//! Raft's own tasks are started and joined by the Raft library behind its shutdown call.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::task::JoinSet;

/// Tasks that end together.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
}

impl Tasks {
    /// Starts a task that runs until it returns or [`Tasks::stop`] is called.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.set
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(task);
    }

    /// Cancels every task and waits until all have ended.
    pub(crate) async fn stop(&self) {
        let mut set = std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner));
        set.shutdown().await;
    }
}

/// Starts a task whose owner waits for the handle.
#[allow(
    clippy::disallowed_methods,
    reason = "the handle is awaited by its owner"
)]
pub(crate) fn spawn_owned(
    task: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(task)
}

/// Starts a named thread for blocking work.
pub(crate) fn thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(work)
}

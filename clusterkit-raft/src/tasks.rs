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

/// Starts blocking work on a thread that the runtime keeps for it.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// A thread or a task that ends when its work is done, and whose owner waits for it.
#[derive(Debug)]
pub(crate) enum Worker {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Waits until it has returned, which must be about to happen.
    pub(crate) async fn join(self) {
        match self {
            Self::Thread(thread) => drop(thread.join()),
            Self::Task(task) => drop(task.await),
        }
    }
}

/// Starts a named thread for blocking work.
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Worker> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(work)
        .map(Worker::Thread)
}

/// Starts a task in the place of a thread.
pub(crate) fn worker(work: impl Future<Output = ()> + Send + 'static) -> Worker {
    Worker::Task(spawn_owned(work))
}

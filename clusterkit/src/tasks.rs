//! Owned tasks: the only file that spawns.
//!
//! Whoever starts a task holds it and joins it; a task whose owner is dropped is aborted. What the
//! tasks do is written where they are started.

use std::any::Any;
use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<T> {
    /// It ran to its end.
    Done(T),
    /// It panicked, with this message.
    Panicked(String),
    /// It was aborted, or the runtime is shutting down.
    Aborted,
}

impl<T> Ended<T> {
    fn from_join(result: Result<T, JoinError>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Self::Panicked(panic_message(panic.as_ref())),
                Err(_) => Self::Aborted,
            },
        }
    }
}

/// One task. Aborted when dropped.
#[derive(Debug)]
pub(crate) struct Task<T> {
    handle: JoinHandle<T>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `future` on the current runtime.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the file that spawns; the handle is owned and joined"
    )]
    pub(crate) fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            handle: tokio::spawn(future),
        }
    }

    /// Waits for the end. Dropping the future does not abort the task; dropping the task does.
    pub(crate) async fn join(&mut self) -> Ended<T> {
        Ended::from_join((&mut self.handle).await)
    }

    /// Waits for the end for at most `limit`, then aborts the task and waits until it is gone.
    pub(crate) async fn join_within(mut self, limit: Duration) -> Ended<T> {
        match tokio::time::timeout(limit, self.join()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.handle.abort();
                self.join().await
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Tasks of one kind, joined as they end. Aborted when dropped.
#[derive(Debug)]
pub(crate) struct TaskSet<T> {
    set: JoinSet<T>,
}

impl<T: Send + 'static> TaskSet<T> {
    pub(crate) fn new() -> Self {
        Self {
            set: JoinSet::new(),
        }
    }

    pub(crate) fn spawn(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.set.spawn(future);
    }

    /// Waits for the next task to end; none when there is no task.
    ///
    /// # Cancel safety
    /// Dropping the future loses no task and no result.
    pub(crate) async fn join_next(&mut self) -> Option<Ended<T>> {
        self.set.join_next().await.map(Ended::from_join)
    }

    /// Aborts every task and waits until they are gone.
    pub(crate) async fn abort_all(&mut self) {
        self.set.shutdown().await;
    }
}

/// Returns what a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| String::from("a panic without a message"))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_end_of_a_task_is_told_apart() {
        let limit = Duration::from_secs(1);
        assert_eq!(
            Task::spawn(async { 7 }).join_within(limit).await,
            Ended::Done(7)
        );
        let ended = Task::<()>::spawn(pending()).join_within(limit).await;
        assert_eq!(ended, Ended::Aborted);
        let ended = Task::spawn(async { panic!("seven") })
            .join_within(limit)
            .await;
        assert_eq!(ended, Ended::<()>::Panicked(String::from("seven")));
    }

    #[tokio::test]
    async fn a_dropped_owner_takes_its_tasks_along() {
        let held = Arc::new(());
        let mut tasks = TaskSet::new();
        for _ in 0..3 {
            let held = Arc::clone(&held);
            tasks.spawn(async move {
                pending::<()>().await;
                drop(held);
            });
        }
        assert_eq!(Arc::strong_count(&held), 4);
        tasks.abort_all().await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(tasks.join_next().await, None);
    }
}

//! The one task of this service, which ends with its owner, and work that may block.

use std::future::Future;

use tokio::task::JoinSet;

/// A background task that is aborted when this is dropped.
#[derive(Debug)]
pub(crate) struct Background(JoinSet<()>);

impl Background {
    /// Starts `work`. Must be called within a tokio runtime.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        Self(tasks)
    }

    /// Ends the task and waits until it has let go of everything.
    pub(crate) async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

/// Runs `work` on a thread that may block; none when it panicked or the runtime ends.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> + Send {
    let running = tokio::task::spawn_blocking(work);
    async move { running.await.ok() }
}

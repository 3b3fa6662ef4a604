//! The one task of this service, which ends with its owner.

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

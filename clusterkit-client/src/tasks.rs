//! The one background task of a client, owned by it: dropping the handle ends the task.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;

/// The task that follows the topology.
#[derive(Debug)]
pub(crate) struct Follower {
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// Runs `follow` until this handle is dropped.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the file that spawns; the handle aborts the task when it is dropped"
    )]
    pub(crate) fn spawn(follow: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            _task: AbortOnDropHandle::new(tokio::spawn(follow)),
        }
    }
}

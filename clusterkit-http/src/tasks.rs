//! Every task of this crate: the accept loop of a server and, inside it, one per connection.
//!
//! The loop owns its connections, the server owns the loop: nothing outlives its owner.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::net::Listener;
use crate::server::Service;

/// How long accepting pauses when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A task that ends with its owner.
pub(crate) struct OwnedTask(AbortOnDropHandle<()>);

impl OwnedTask {
    /// Waits for the task for at most `limit`, then ends it. Returns whether it ended by itself.
    pub(crate) async fn join_within(self, limit: Duration) -> bool {
        let mut handle = self.0;
        if timeout(limit, &mut handle).await.is_ok() {
            return true;
        }
        handle.abort();
        let _ = handle.await;
        false
    }
}

/// Serves the connections of `listener` until the service is closing and the last one has ended.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the file that spawns, and the handle is owned by the caller"
)]
pub(crate) fn accept(listener: Box<dyn Listener>, service: Service) -> OwnedTask {
    OwnedTask(AbortOnDropHandle::new(tokio::spawn(accept_loop(
        listener, service,
    ))))
}

async fn accept_loop(listener: Box<dyn Listener>, service: Service) {
    let room = Arc::new(Semaphore::new(service.connections_max()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = service.closing().cancelled() => break,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            Service::turn_away(stream);
            continue;
        };
        let service = service.clone();
        connections.spawn(async move {
            service.connection(stream, remote).await;
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

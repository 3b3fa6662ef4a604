//! Runs one task to its end, or until a signal asks us to stop.
//!
//! Dropping the task is what cleans up: everything it started (processes, connections) belongs to
//! values inside it.

use std::fmt;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Somebody asked us to stop: Ctrl-C, SIGTERM or a closed terminal.
#[derive(Debug)]
pub(crate) struct Interrupted(&'static str);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Runs `task`; when a signal comes first, drops it and answers [`Interrupted`].
pub(crate) fn run<F, T>(task: F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            outcome = task => outcome,
            _ = interrupt.recv() => Err(Interrupted("Ctrl-C").into()),
            _ = terminate.recv() => Err(Interrupted("SIGTERM").into()),
            _ = hangup.recv() => Err(Interrupted("SIGHUP").into()),
        }
    })
}

//! The only place of this crate that reads a clock.
//!
//! Wall-clock time is for people; deadlines use the runtime's monotonic clock. Nothing here
//! decides anything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clusterkit_core::time::UnixMillis;

use crate::options::WallClock;

/// The wall clock of the operating system.
#[derive(Debug)]
pub(crate) struct SystemWallClock;

impl WallClock for SystemWallClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Returns the runtime's monotonic time, for deadlines.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Returns the time since a moment that the Raft library measured.
pub(crate) fn since(moment: impl openraft::Instant) -> Duration {
    moment.elapsed()
}

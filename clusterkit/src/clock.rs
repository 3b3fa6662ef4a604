//! Where time comes from: the only file that reads a clock.
//!
//! The rules of `clusterkit-core` take time as an argument; the driver reads it here once a turn.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use clusterkit_core::time::{Instant, UnixMillis};

/// A source of time: monotonic for deadlines, wall-clock for people.
///
/// Implement it to run nodes under a simulated time. Both answers must be cheap.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the monotonic time. It never goes backwards.
    fn now(&self) -> Instant;

    /// Returns the wall-clock time. It may jump in both directions.
    fn wall(&self) -> UnixMillis;
}

/// The clocks of the operating system.
///
/// Its monotonic time is the one timers of the async runtime follow, and begins at the creation of
/// the clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Starts a clock at [`Instant::ZERO`].
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the file that reads clocks"
    )]
    pub fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the file that reads clocks"
    )]
    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis());
        UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn monotonic_time_follows_the_timers_of_the_runtime() {
        let clock = SystemClock::new();
        assert_eq!(clock.now(), Instant::ZERO);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now(), Instant::ZERO + Duration::from_secs(3));
        assert!(clock.wall() > UnixMillis(1_600_000_000_000));
    }
}

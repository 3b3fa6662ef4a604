//! The one place of this program that reads the clock: to say how long a run took.

use std::time::{Duration, Instant};

/// Measures time since it was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub(crate) fn start() -> Self {
        #[allow(clippy::disallowed_methods, reason = "clock.rs is where time is read")]
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

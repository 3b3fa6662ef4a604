//! The clocks of one simulated machine.

use std::time::Duration;

use clusterkit::{Clock, Instant, UnixMillis};

/// When every run begins, for people: the first of January 2030.
const BEGINNING: UnixMillis = UnixMillis(1_893_456_000_000);

/// The clocks of a process. Both follow the timers of its runtime, which the world drives at the
/// machine's own rate: a clock that drifts takes the timers along.
#[derive(Debug)]
pub(crate) struct SimClock {
    base: tokio::time::Instant,
    /// What the machine's wall clock said when the process began.
    began: Duration,
}

impl SimClock {
    /// Returns the clocks of a process that begins at `began`, in the runtime that is entered.
    pub(crate) fn new(began: Duration) -> Self {
        Self { base: now(), began }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.base.elapsed()
    }

    fn wall(&self) -> UnixMillis {
        let since = self.began + self.base.elapsed();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        UnixMillis(BEGINNING.0.saturating_add(millis))
    }
}

/// Returns the present of the runtime that is entered.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the file that reads the clock, a simulated one"
)]
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

//! The clock of this program: deadlines only. Versions never come from a clock.

use std::time::Duration;

use tokio::time::Instant;

/// Returns the point `after` from now.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the file that reads the clock"
)]
pub(crate) fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}

/// Returns how long there is until `deadline`, zero when it has passed.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(self::deadline(Duration::ZERO))
}

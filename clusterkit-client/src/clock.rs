//! The clock of this crate: deadlines of calls and requests only.

use std::time::Duration;

use tokio::time::Instant;

/// The longest deadline: longer ones mean the same and would overflow.
const DEADLINE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Returns the monotonic time.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the file that reads the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the point `after` from now.
pub(crate) fn deadline(after: Duration) -> Instant {
    now() + after.min(DEADLINE_MAX)
}

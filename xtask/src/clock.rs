//! The one place of xtask that reads the clock; everything else holds a [`Stopwatch`].

use std::time::Duration;

use tokio::time::Instant;

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
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Returns a short number that differs from run to run.
pub(crate) fn seed_of_now() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "clock.rs is where time is read")]
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() % 1_000_000
}

/// Renders a duration as people read it: `38 ms`, `1.42 s`, `3 min 07 s`.
pub(crate) fn human(took: Duration) -> String {
    let seconds = took.as_secs();
    if took < Duration::from_millis(1) {
        format!("{} us", took.as_micros())
    } else if seconds < 1 {
        format!("{} ms", took.as_millis())
    } else if seconds < 60 {
        format!("{seconds}.{:02} s", took.subsec_millis() / 10)
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let read = |millis| human(Duration::from_millis(millis));
        assert_eq!(human(Duration::from_micros(120)), "120 us");
        assert_eq!(read(38), "38 ms");
        assert_eq!(read(1_426), "1.42 s");
        assert_eq!(read(187_000), "3 min 07 s");
    }
}

//! Times and durations as the documents write them.

use std::fmt::Write as _;
use std::time::Duration;

use clusterkit_core::time::UnixMillis;

/// Writes `at` as RFC 3339 in UTC, with milliseconds when there are any.
#[must_use]
pub fn rfc3339(at: UnixMillis) -> String {
    i64::try_from(at.value())
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        // Beyond the year 9999 there is no such text.
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// Writes `duration` as Go's `time.Duration` does: `1h2m3.5s`, `16.006647521s`, `1.5ms`, `0s`.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return String::from("0s");
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return fraction(nanos, 1_000, 3, "µs");
    }
    if nanos < 1_000_000_000 {
        return fraction(nanos, 1_000_000, 6, "ms");
    }
    let minutes = duration.as_secs() / 60;
    let seconds = nanos - u128::from(minutes) * 60_000_000_000;
    let mut text = String::new();
    if minutes >= 60 {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}h", minutes / 60);
    }
    if minutes > 0 {
        let _ = write!(text, "{}m", minutes % 60);
    }
    text + &fraction(seconds, 1_000_000_000, 9, "s")
}

fn fraction(nanos: u128, unit: u128, digits: usize, suffix: &str) -> String {
    let whole = nanos / unit;
    let rest = nanos % unit;
    if rest == 0 {
        return format!("{whole}{suffix}");
    }
    let rest = format!("{rest:0digits$}");
    format!("{whole}.{}{suffix}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        let check = |nanos: u64, expected: &str| {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), expected);
        };
        check(0, "0s");
        check(1, "1ns");
        check(1_100, "1.1µs");
        check(2_200_000, "2.2ms");
        check(16_006_647_521, "16.006647521s");
        check(60_000_000_000, "1m0s");
        check(245_000_000_000, "4m5s");
        check(245_001_000_000, "4m5.001s");
        check(18_367_001_000_000, "5h6m7.001s");
        check(3_600_000_000_000, "1h0m0s");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(UnixMillis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(
            rfc3339(UnixMillis(1_700_000_000_123)),
            "2023-11-14T22:13:20.123Z"
        );
        assert!(rfc3339(UnixMillis(u64::MAX)).starts_with("9999-12-30"));
    }
}

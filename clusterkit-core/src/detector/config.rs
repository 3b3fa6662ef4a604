//! The timing of the failure detector, checked once when it is made.

use core::time::Duration;

use crate::config::ConfigError;
use crate::lease::LeaseTiming;
use crate::planted::{self, Bug};

/// For how many times its patience a node that others see is waited for, unless told otherwise.
const VOUCHED_PATIENCES: u32 = 20;

/// Timing of failure detection.
///
/// A node that dies is condemned about `lease + drift_margin + window` after it was last heard
/// from: 1.35 s with the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built with struct update syntax from the default by people who tune it"
)]
pub struct DetectorConfig {
    /// How long a heartbeat vouches for its sender. Default 1 s; 10 ms to 10 min.
    ///
    /// Several heartbeat intervals: with too short a lease a pause of the machine condemns healthy
    /// nodes, with too long a one the partitions of a dead primary wait for it.
    pub lease: Duration,
    /// What is added to the lease because clocks do not run equally fast. Default 50 ms; from 2
    /// permille of the lease to the lease. With less, a node whose clock is slow may believe in its
    /// lease after it was condemned.
    pub drift_margin: Duration,
    /// For how long suspicions are collected before they are issued as one cut. Default 300 ms;
    /// 1 ms to 1 min. Longer than a heartbeat interval, so that nodes that died together go
    /// together, and that what others saw of them before does not delay the cut; all of it is added
    /// to the time a failover takes.
    pub window: Duration,
    /// How long the leader may not hear a node that others see until the node is condemned all the
    /// same. Default 20 times the lease and the drift margin, 21 s; from twice the lease and the
    /// margin to 1 day.
    ///
    /// It is for a network in which nobody who can lead hears everybody: a leader that misses
    /// somebody hands over first. Until then the partitions of such a node have no primary with a
    /// lease, so with a long limit they wait, with a short one a node is given up that only a link
    /// fails.
    pub vouched_limit: Duration,
    /// How many permille of the tracked nodes may go at once before the verdict is `protected`.
    /// Default 334; 1 to 1000. One node alone never is too many.
    pub max_down_permille: u32,
    /// How long one strike against a flapping node is remembered. Default 1 min; 1 s to 1 day.
    pub strike_memory: Duration,
    /// The longest time a flapping node must be heard steadily before it is up again. Default
    /// 30 s; from one window to 1 day.
    pub return_delay_max: Duration,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self::for_leases(LeaseTiming::LAN)
    }
}

impl DetectorConfig {
    /// Returns the default for leases of this timing.
    #[must_use]
    pub const fn for_leases(timing: LeaseTiming) -> Self {
        Self {
            lease: timing.lease,
            drift_margin: timing.drift_margin,
            window: Duration::from_millis(300),
            vouched_limit: timing
                .lease
                .saturating_add(timing.drift_margin)
                .saturating_mul(VOUCHED_PATIENCES),
            max_down_permille: 334,
            strike_memory: Duration::from_mins(1),
            return_delay_max: Duration::from_secs(30),
        }
    }

    /// Checks every field against its limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let within = |field, value: Duration, min: Duration, max: Duration| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::new(
                    field,
                    format_args!("{value:?}"),
                    format_args!("{min:?} to {max:?}"),
                ))
            }
        };
        let day = Duration::from_hours(24);
        within(
            "detector.lease",
            self.lease,
            Duration::from_millis(10),
            Duration::from_mins(10),
        )?;
        within(
            "detector.drift_margin",
            self.drift_margin,
            LeaseTiming::least_margin(self.lease),
            self.lease,
        )?;
        within(
            "detector.window",
            self.window,
            Duration::from_millis(1),
            Duration::from_mins(1),
        )?;
        let patience = self.lease.saturating_add(self.drift_margin);
        within(
            "detector.vouched_limit",
            self.vouched_limit,
            patience.saturating_mul(2),
            day,
        )?;
        within(
            "detector.strike_memory",
            self.strike_memory,
            Duration::from_secs(1),
            day,
        )?;
        within(
            "detector.return_delay_max",
            self.return_delay_max,
            self.window,
            day,
        )?;
        if !(1..=1_000).contains(&self.max_down_permille) {
            return Err(ConfigError::new(
                "detector.max_down_permille",
                self.max_down_permille,
                "1 to 1000",
            ));
        }
        Ok(())
    }

    /// Returns the timing of the leases that the leader grants, three heartbeats to a lease.
    #[must_use]
    pub fn lease_timing(&self) -> LeaseTiming {
        LeaseTiming {
            heartbeat: self.lease / 3,
            lease: self.lease,
            drift_margin: self.drift_margin,
        }
    }

    /// Returns for how long a node may be silent before it is suspect.
    pub(super) fn patience(&self) -> Duration {
        if planted::is_on(Bug::CondemnTheHeard) {
            return self.lease / 10;
        }
        self.lease + self.drift_margin
    }
}

//! The times that leases follow, checked once when they are set.

use core::time::Duration;

use crate::config::ConfigError;

/// How often a lease is renewed, how long it lasts, and by how much clocks may differ.
///
/// `heartbeat < lease < lease + drift_margin`: several heartbeats fit into a lease, so that a lost
/// one costs nothing; the leader waits for the lease and the margin before it gives a node up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built with struct update syntax from a profile by people who tune it"
)]
pub struct LeaseTiming {
    /// How often a node asks. Default 100 ms; 1 ms to a third of the lease. Rare requests make the
    /// loss of one end the lease, frequent ones load the leader.
    pub heartbeat: Duration,
    /// How long a granted lease lasts. Default 1 s; 10 ms to 10 min. Short ones end in a pause of
    /// the machine, for long ones every failover waits.
    pub lease: Duration,
    /// What the leader waits beyond the lease because clocks do not run equally fast. Default
    /// 50 ms; from 2 permille of the lease, which allows for clocks 0.1 % off, to the lease.
    pub drift_margin: Duration,
}

impl LeaseTiming {
    /// For machines in one data centre: the default.
    pub const LAN: Self = Self::from_millis(100, 1_000, 50);
    /// For machines in one rack that are never starved: failover within a fraction of a second.
    pub const FAST: Self = Self::from_millis(25, 150, 10);
    /// For machines far apart.
    pub const WAN: Self = Self::from_millis(500, 5_000, 250);

    const fn from_millis(heartbeat: u64, lease: u64, drift_margin: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            lease: Duration::from_millis(lease),
            drift_margin: Duration::from_millis(drift_margin),
        }
    }

    /// Checks every field against its limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let within = |field, value: Duration, min: Duration, max: Duration| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::new(
                field,
                format_args!("{value:?}"),
                format_args!("{min:?} to {max:?}"),
            ))
        };
        let ms = Duration::from_millis;
        within("lease.lease", self.lease, ms(10), Duration::from_mins(10))?;
        within("lease.heartbeat", self.heartbeat, ms(1), self.lease / 3)?;
        let least = Self::least_margin(self.lease);
        within("lease.drift_margin", self.drift_margin, least, self.lease)
    }

    /// Returns the shortest margin that a lease may have.
    #[must_use]
    pub fn least_margin(lease: Duration) -> Duration {
        lease / 500
    }

    /// Returns how long after the last request a lease may still live, by the leader's clock.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.lease.saturating_add(self.drift_margin)
    }

    /// Returns by how many millionths the rate of any clock may be off.
    #[must_use]
    pub fn tolerated_drift_ppm(&self) -> u32 {
        let margin = self.drift_margin.as_nanos();
        let ppm = margin * 1_000_000 / (2 * self.lease.as_nanos() + margin).max(1);
        u32::try_from(ppm).unwrap_or(u32::MAX)
    }
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self::LAN
    }
}

//! [`Health`]: what a node says of itself, beyond that it runs.
//!
//! Reported with its heartbeats; what the cluster makes of it is in `state/fitness.rs` and in
//! [`crate::coordinator`].

use alloc::sync::Arc;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::time::UnixMillis;

/// The longest reason for a verdict of a node on itself, in bytes.
pub const HEALTH_REASON_MAX_BYTES: usize = 256;

/// What a node says of itself.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "what the cluster does about each is documented"
)]
pub enum Health {
    /// It can do its work.
    #[default]
    Healthy,
    /// It should lead nothing: its primaries go to members in sync elsewhere, where there are any,
    /// and it is given none. It keeps its copies. No data moves.
    Unhealthy,
    /// It should not be counted on at all: it counts as down, although it runs, until it says
    /// otherwise.
    Down,
}

impl Health {
    /// Returns its name: `healthy`, `unhealthy` or `down`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a node reports with its heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HealthReport {
    /// The verdict of its application.
    pub health: Health,
    /// Why, as the application put it; at most 256 bytes.
    pub reason: Arc<str>,
}

impl HealthReport {
    /// Returns a report.
    ///
    /// # Errors
    /// [`ConfigError`] when the reason is too long.
    pub fn new(health: Health, reason: &str) -> Result<Self, ConfigError> {
        let reason = Arc::from(reason);
        let report = Self { health, reason };
        report.validate().map(|()| report)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.reason.len() <= HEALTH_REASON_MAX_BYTES {
            return Ok(());
        }
        let limit = format_args!("at most {HEALTH_REASON_MAX_BYTES} bytes");
        Err(ConfigError::new("reason", &self.reason, limit))
    }
}

/// A verdict of a node on itself that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Veto {
    /// The verdict; never [`Health::Healthy`].
    pub health: Health,
    /// Why, as the application put it.
    pub reason: Arc<str>,
    /// Since when it is known to the cluster.
    pub since: UnixMillis,
}

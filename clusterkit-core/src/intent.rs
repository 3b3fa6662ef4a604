//! [`Intent`]: what an operator is about to do with a node, so that the cluster prepares for it.
//!
//! What the state makes of it is in `state/intents.rs`, what the leader does in
//! [`crate::coordinator`].

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::time::UnixMillis;

/// The shortest time a restart may be announced for.
pub const RESTART_TTL_MIN: Duration = Duration::from_secs(1);

/// The longest time a restart may be announced for.
pub const RESTART_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What an operator is about to do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Intent {
    /// It is to lead nothing until that is taken back. It keeps its copies.
    Handover,
    /// Its process will stop and start again: it is to lead nothing, and is waited for, until it has
    /// started again or the time is over.
    Restart {
        /// How long, in milliseconds: 1 second to 24 hours.
        ttl_ms: u64,
    },
}

impl Intent {
    /// Returns its name: `handover` or `restart`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handover => "handover",
            Self::Restart { .. } => "restart",
        }
    }

    /// Checks its limits.
    ///
    /// # Errors
    /// [`ConfigError`] when the time is too short or too long.
    pub fn validate(self) -> Result<(), ConfigError> {
        let Self::Restart { ttl_ms } = self else {
            return Ok(());
        };
        let range = RESTART_TTL_MIN..=RESTART_TTL_MAX;
        if range.contains(&Duration::from_millis(ttl_ms)) {
            return Ok(());
        }
        let (least, most) = (RESTART_TTL_MIN.as_millis(), RESTART_TTL_MAX.as_millis());
        let limit = format_args!("{least} to {most}");
        Err(ConfigError::new("ttl_ms", ttl_ms, limit))
    }

    /// Returns until when it stands at most if it is declared at `at`; none where only an operator
    /// ends it.
    #[must_use]
    pub const fn until(self, at: UnixMillis) -> Option<UnixMillis> {
        match self {
            Self::Handover => None,
            Self::Restart { ttl_ms } => Some(UnixMillis(at.0.saturating_add(ttl_ms))),
        }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An intent that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Intended {
    /// What is to be done.
    pub intent: Intent,
    /// When it was declared.
    pub since: UnixMillis,
    /// When it ends by itself; none where only an operator ends it.
    pub until: Option<UnixMillis>,
    /// How many partitions the node led then.
    pub led: u32,
}

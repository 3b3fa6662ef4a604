//! [`Work`] that an operator may pause, and the switches that are on.
//!
//! The switches are part of the replicated state. Which moves they hold back is decided in
//! `state/pauses.rs`; failovers, first placements and moves under way are never held back.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::time::UnixMillis;

/// The longest reason for a pause, in bytes.
pub const PAUSE_REASON_MAX_BYTES: usize = 256;

/// What data moves for, the most urgent first. Each can be paused by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "a switch for each, documented as a closed set"
)]
pub enum Work {
    /// Copies that are missing: of what a lost node held, or because more copies are wanted.
    ///
    /// While it is paused nodes that stay down are waited for without end, and no missing copy is
    /// made. Who takes over from a lost primary is no repair: failovers go on.
    Repair,
    /// Emptying nodes that are being drained or that leave.
    ///
    /// While it is paused drains are recorded, and the node keeps what it has.
    Drain,
    /// Everything else that moves data: shares of nodes that have joined, other weights, zones,
    /// surplus copies, and who leads what.
    Balance,
}

impl Work {
    /// Every kind of work.
    pub const ALL: [Self; 3] = [Self::Repair, Self::Drain, Self::Balance];

    /// Returns its name: `repair`, `drain` or `balance`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repair => "repair",
            Self::Drain => "drain",
            Self::Balance => "balance",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Work {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |work: &&Self| work.as_str() == text;
        let found = Self::ALL.iter().find(named).copied();
        found.ok_or_else(|| ConfigError::new("work", text, "`balance`, `repair` or `drain`"))
    }
}

/// A switch that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pause {
    /// What is paused.
    pub work: Work,
    /// Since when.
    pub since: UnixMillis,
    /// Why, as the operator put it; empty when nothing was said.
    pub reason: Arc<str>,
}

impl Pause {
    /// Checks a reason.
    ///
    /// # Errors
    /// [`ConfigError`] when it is too long.
    pub(crate) fn check(reason: &str) -> Result<(), ConfigError> {
        if reason.len() <= PAUSE_REASON_MAX_BYTES {
            return Ok(());
        }
        let limit = format_args!("at most {PAUSE_REASON_MAX_BYTES} bytes");
        Err(ConfigError::new("reason", reason, limit))
    }

    pub(crate) fn new(work: Work, since: UnixMillis, reason: &str) -> Self {
        let reason = Arc::from(String::from(reason));
        Self {
            work,
            since,
            reason,
        }
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is paused", self.work)?;
        match &*self.reason {
            "" => Ok(()),
            reason => write!(f, ": {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn work_is_named_and_read_back() {
        for work in Work::ALL {
            assert_eq!(work.as_str().parse(), Ok(work));
        }
        let refused = "Balance".parse::<Work>().unwrap_err().to_string();
        assert_eq!(
            refused,
            "work is `Balance`, must be `balance`, `repair` or `drain`"
        );
    }
}

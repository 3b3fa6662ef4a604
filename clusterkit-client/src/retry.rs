//! What a failed attempt means, and whether to try again.

use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use clusterkit_core::id::Epoch;
use clusterkit_http::client::HttpError;

/// What became of an attempt that brought no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "applications map their errors onto it; a new kind must be noticed"
)]
pub enum CallOutcome {
    /// The node does not serve the partition and did nothing: HTTP 421, or a stale epoch.
    Moved {
        /// The epoch of the topology the node knows, where it says so.
        epoch: Option<Epoch>,
    },
    /// The request was not sent, or was refused for the time being without any effect.
    Unavailable,
    /// The request may have been carried out: a time-out, or a connection that broke.
    Unknown,
    /// The service has answered: trying again cannot help.
    Fatal,
}

/// An error that knows what it means for the call.
///
/// ```
/// use clusterkit_client::{CallFailure, CallOutcome};
///
/// #[derive(Debug, thiserror::Error)]
/// enum PutError {
///     #[error("another node serves the key")]
///     NotMine,
///     #[error("no connection")]
///     Refused,
///     #[error("no answer in time")]
///     TimedOut,
///     #[error("the value has {0} bytes, too many")]
///     TooLarge(usize),
/// }
///
/// impl CallFailure for PutError {
///     fn outcome(&self) -> CallOutcome {
///         match self {
///             Self::NotMine => CallOutcome::Moved { epoch: None },
///             Self::Refused => CallOutcome::Unavailable,
///             Self::TimedOut => CallOutcome::Unknown,
///             Self::TooLarge(_) => CallOutcome::Fatal,
///         }
///     }
/// }
/// ```
pub trait CallFailure: std::error::Error + Send + Sync + 'static {
    /// Returns what became of the attempt. When in doubt: [`CallOutcome::Unknown`].
    fn outcome(&self) -> CallOutcome;
}

impl CallFailure for HttpError {
    fn outcome(&self) -> CallOutcome {
        match self {
            Self::Unreachable { .. } => CallOutcome::Unavailable,
            Self::Timeout { .. }
            | Self::Interrupted { .. }
            | Self::Protocol { .. }
            | Self::BodyTooLarge { .. } => CallOutcome::Unknown,
            Self::Status { status: 421, .. } => CallOutcome::Moved {
                epoch: self
                    .problem()
                    .map(|problem| problem.epoch)
                    .filter(|epoch| *epoch != Epoch::default()),
            },
            Self::Status {
                status: 429 | 503, ..
            } => CallOutcome::Unavailable,
            // Other errors of the server, a crash of its handler among them, may have come after
            // the request was carried out.
            Self::Status { status: 500.., .. } => CallOutcome::Unknown,
            _ => CallOutcome::Fatal,
        }
    }
}

/// A failed attempt, as a [`RetryPolicy`] sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// Its number within the call, from 1.
    pub number: u32,
    /// What became of it. Never [`CallOutcome::Fatal`], and [`CallOutcome::Unknown`] only for
    /// idempotent calls: those are not a matter of policy.
    pub outcome: CallOutcome,
    /// How many attempts in a row ended as moved.
    pub moved_in_a_row: u32,
    /// How many candidates of the same snapshot were not tried yet.
    pub alternatives: usize,
    /// How long the call has taken so far.
    pub elapsed: Duration,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Try the next candidate of the same snapshot at once.
    Next,
    /// Fetch a newer topology and route again at once.
    Refresh,
    /// Pause, fetch a newer topology, route again. A newly published route ends the pause early.
    Pause,
    /// Give up.
    GiveUp,
}

/// Decides whether and how a call goes on after a failed attempt.
///
/// The deadline is the call's: no policy can exceed it.
pub trait RetryPolicy: fmt::Debug + Send + Sync + 'static {
    /// Decides about `failed`.
    fn decide(&self, failed: &FailedAttempt) -> Decision;

    /// Returns the pauses of one call, one for each [`Decision::Pause`]; the call gives up when
    /// they end.
    fn pauses(&self) -> Box<dyn Iterator<Item = Duration> + Send>;
}

/// The default retries: the next replica at once, a refresh at once where the key has moved,
/// otherwise exponential pauses with jitter until the deadline.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built with struct update syntax from the default by people who tune it"
)]
pub struct ExponentialRetry {
    /// The most attempts of one call. Default 64; 1 is no retry at all.
    pub attempts_max: u32,
    /// The first pause. Default 10 ms; a random part of the same length is added.
    pub pause_min: Duration,
    /// The longest pause. Default 500 ms.
    pub pause_max: Duration,
}

impl Default for ExponentialRetry {
    fn default() -> Self {
        Self {
            attempts_max: 64,
            pause_min: Duration::from_millis(10),
            pause_max: Duration::from_millis(500),
        }
    }
}

impl RetryPolicy for ExponentialRetry {
    fn decide(&self, failed: &FailedAttempt) -> Decision {
        if failed.number >= self.attempts_max {
            return Decision::GiveUp;
        }
        match failed.outcome {
            CallOutcome::Fatal => Decision::GiveUp,
            // A second "moved" right after a refresh: the nodes disagree for the moment.
            CallOutcome::Moved { .. } if failed.moved_in_a_row > 1 => Decision::Pause,
            CallOutcome::Moved { .. } => Decision::Refresh,
            CallOutcome::Unavailable | CallOutcome::Unknown if failed.alternatives > 0 => {
                Decision::Next
            }
            CallOutcome::Unavailable | CallOutcome::Unknown => Decision::Pause,
        }
    }

    fn pauses(&self) -> Box<dyn Iterator<Item = Duration> + Send> {
        let builder = ExponentialBuilder::new()
            .with_min_delay(self.pause_min)
            .with_max_delay(self.pause_max)
            .with_jitter()
            .without_max_times();
        Box::new(builder.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: CallOutcome, number: u32, moved: u32, alternatives: usize) -> Decision {
        ExponentialRetry::default().decide(&FailedAttempt {
            number,
            outcome,
            moved_in_a_row: moved,
            alternatives,
            elapsed: Duration::ZERO,
        })
    }

    #[test]
    fn the_default_decides_by_outcome() {
        let moved = CallOutcome::Moved { epoch: None };
        assert_eq!(check(moved, 1, 1, 0), Decision::Refresh);
        assert_eq!(check(moved, 2, 2, 0), Decision::Pause);
        assert_eq!(check(CallOutcome::Unavailable, 1, 0, 1), Decision::Next);
        assert_eq!(check(CallOutcome::Unavailable, 1, 0, 0), Decision::Pause);
        assert_eq!(check(CallOutcome::Unknown, 1, 0, 2), Decision::Next);
        assert_eq!(check(CallOutcome::Unavailable, 64, 0, 2), Decision::GiveUp);
        assert_eq!(check(CallOutcome::Fatal, 1, 0, 2), Decision::GiveUp);
    }

    #[test]
    fn pauses_grow_to_their_limit_and_do_not_end() {
        let pauses: Vec<Duration> = ExponentialRetry::default().pauses().take(100).collect();
        assert_eq!(pauses.len(), 100);
        assert!(pauses[0] >= Duration::from_millis(10) && pauses[0] <= Duration::from_millis(20));
        assert!(pauses[99] <= Duration::from_secs(1), "{:?}", pauses[99]);
        assert!(pauses[99] >= Duration::from_millis(500), "{:?}", pauses[99]);
    }
}

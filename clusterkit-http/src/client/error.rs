//! What may go wrong with one HTTP exchange, by what a caller can do about it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::api::Problem;

/// A failed HTTP exchange.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address is not `host:port` or a header cannot be sent. Nothing was sent; a retry
    /// cannot help.
    #[error("{field} is `{value}`, must be {limit}")]
    Invalid {
        /// What was refused.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        limit: &'static str,
    },
    /// No connection could be had. Nothing was sent; a retry, here or elsewhere, is safe.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// The address asked.
        address: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer came within the deadline. Unknown outcome: the server may have acted.
    #[error("{address} did not answer within {after:?}, the outcome is unknown")]
    Timeout {
        /// The address asked.
        address: String,
        /// The deadline given.
        after: Duration,
    },
    /// The connection broke after the request was sent. Unknown outcome: the server may have acted.
    #[error("the connection to {address} broke before its answer, the outcome is unknown")]
    Interrupted {
        /// The address asked.
        address: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer is larger than the limit. The server has acted; a retry cannot help.
    #[error("the answer of {address} is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The address asked.
        address: String,
        /// The limit.
        limit_bytes: usize,
    },
    /// The answer is not what was asked for. The server has acted; a retry rarely helps.
    #[error("the answer of {address} is not understood: {message}")]
    Protocol {
        /// The address asked.
        address: String,
        /// What is wrong with it.
        message: String,
    },
    /// The server answered with an error status.
    #[error("{address} answered {status}{}", Explained(.problem.as_deref()))]
    Status {
        /// The address asked.
        address: String,
        /// The HTTP status.
        status: u16,
        /// What the server said about it.
        problem: Option<Box<Problem>>,
    },
}

impl HttpError {
    pub(crate) fn unreachable(
        address: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Unreachable {
            address: address.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn interrupted(
        address: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Interrupted {
            address: address.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn protocol(address: &str, message: impl fmt::Display) -> Self {
        Self::Protocol {
            address: address.to_owned(),
            message: message.to_string(),
        }
    }

    /// Tells whether the server may have acted although no answer arrived.
    #[must_use]
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Interrupted { .. })
    }

    /// Tells whether the same request may succeed later or elsewhere, and is safe to send again:
    /// it never reached the server, or the server refused it for the time being.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Status {
                    status: 421 | 429 | 503,
                    ..
                }
        )
    }

    /// Returns what the server said, if it said anything.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Status { problem, .. } => problem.as_deref(),
            _ => None,
        }
    }
}

struct Explained<'a>(Option<&'a Problem>);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(problem) => write!(f, " {}: {}", problem.code, problem.message),
            None => Ok(()),
        }
    }
}

//! Why connecting, refreshing or calling has failed: one enum an operation.

use std::fmt;
use std::time::Duration;

use clusterkit_core::config::ConfigError;
use clusterkit_core::id::{Epoch, NodeId, PartitionId};

use crate::{CallFailure, SourceError};

/// What one node answered when it was asked for the topology.
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeFailure {
    /// The address asked.
    pub address: String,
    /// Why it gave none.
    pub error: SourceError,
}

impl NodeFailure {
    pub(crate) const fn new(address: String, error: SourceError) -> Self {
        Self { address, error }
    }
}

struct Failures<'a>(&'a [NodeFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, failure) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}", failure.error)?;
        }
        Ok(())
    }
}

/// Why a client could not connect. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting is refused, before anybody was asked.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No seed gave a topology within the time to connect. A retry helps once one of them is up.
    #[error("no seed answered: {}", Failures(.failures))]
    NoSeedAnswered {
        /// The last answer of each seed, in the order of the seeds.
        failures: Vec<NodeFailure>,
    },
    /// The cluster cannot be used by this version of the client. A retry cannot help.
    #[error("the cluster cannot be used by this client")]
    Incompatible {
        /// What it publishes.
        source: SourceError,
    },
}

/// Why the topology could not be refreshed. The client keeps the one it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// No node answered.
    #[error("no node answered: {}", Failures(.failures))]
    NoNodeAnswered {
        /// What each node answered, in the order in which they failed.
        failures: Vec<NodeFailure>,
    },
}

/// Why a call has no result.
///
/// `E` is the error of the attempt, the application's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E: CallFailure> {
    /// The service answered with an error that a retry cannot help. What it did is its own to say.
    #[error("{node} refused the call on partition {partition}")]
    Refused {
        /// The node that answered.
        node: NodeId,
        /// The partition of the key.
        partition: PartitionId,
        /// Its answer.
        source: E,
    },
    /// An attempt may have been carried out, and no later one succeeded: the call may or may not
    /// have taken effect, now or later. Not repeated unless it was declared idempotent.
    #[error(
        "the outcome of the call on partition {partition} is unknown, attempt {attempts} was on {node}"
    )]
    Unknown {
        /// The node of the last attempt.
        node: NodeId,
        /// The partition of the key.
        partition: PartitionId,
        /// How many attempts were made.
        attempts: u32,
        /// The error of the last attempt, `None` when it was cut off by the deadline.
        source: Option<E>,
    },
    /// The deadline passed, or the retries were used up, and nothing was carried out: every attempt
    /// was refused or never sent. Repeating the call is safe and may help.
    #[error(
        "partition {partition} was not served within {after:?}, {attempts} attempts without effect"
    )]
    Unserved {
        /// The partition of the key.
        partition: PartitionId,
        /// How long the call took.
        after: Duration,
        /// How many attempts were made.
        attempts: u32,
        /// The error of the last attempt, `None` when there was none.
        source: Option<E>,
    },
    /// All the time there was nobody to ask: the partition has no primary. Nothing was sent.
    #[error("partition {partition} has no primary at epoch {epoch}, waited {after:?}")]
    NoTarget {
        /// The partition of the key.
        partition: PartitionId,
        /// The epoch of the topology at the end.
        epoch: Epoch,
        /// How long the call took.
        after: Duration,
    },
    /// There is no such partition. Nothing was sent, a retry cannot help. Calls by key never see it.
    #[error("partition {partition} does not exist, the cluster has {count}")]
    NoSuchPartition {
        /// What was asked for.
        partition: PartitionId,
        /// How many there are.
        count: u32,
    },
}

impl<E: CallFailure> CallError<E> {
    /// Tells whether the call surely had no effect, so that anybody may repeat it.
    #[must_use]
    pub const fn is_without_effect(&self) -> bool {
        matches!(
            self,
            Self::Unserved { .. } | Self::NoTarget { .. } | Self::NoSuchPartition { .. }
        )
    }

    /// Returns the error of the last attempt, where there is one.
    #[must_use]
    pub const fn attempt_error(&self) -> Option<&E> {
        match self {
            Self::Refused { source, .. } => Some(source),
            Self::Unknown { source, .. } | Self::Unserved { source, .. } => source.as_ref(),
            Self::NoTarget { .. } | Self::NoSuchPartition { .. } => None,
        }
    }
}

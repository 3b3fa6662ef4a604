//! Why a node could not start, and why an operation on a running one failed.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clusterkit_core::config::ConfigError;
use clusterkit_core::control::ProposeError;
use clusterkit_core::explain::PreviewId;
use clusterkit_core::id::{Epoch, NodeId};
use clusterkit_core::lease::NoToken;
use clusterkit_core::topology::LookupError;

/// Why a node could not start. It then holds no port and no file, and is no member, except where
/// [`JoinError::Timeout`] says that an answer may have been lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option is out of bounds. Nothing was opened.
    #[error(transparent)]
    Config(ConfigError),
    /// The address could not be listened on. Nothing was written.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// Why, and what to do.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The data directory cannot be used; the source says why and what to do.
    #[error("cannot use the data directory {}", path.display())]
    Storage {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node may not form a cluster and has nobody to join through.
    #[error(
        "node `{node}` has no seeds and may not form a cluster: name a seed, or allow bootstrap"
    )]
    NothingToJoin {
        /// The node.
        node: NodeId,
    },
    /// The node could not become a member.
    #[error(transparent)]
    Join(JoinError),
    /// The control plane could not be opened or formed; the source says why.
    #[error("the control plane did not start")]
    Control {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a node could not become a member. It left nothing behind in the cluster, except where the
/// variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No seed admitted the node in time. An answer may have been lost: asking again is safe.
    #[error("could not join within {after:?}: {}", attempts.join("; "))]
    Timeout {
        /// How long it tried.
        after: Duration,
        /// The last answer of each seed.
        attempts: Vec<String>,
    },
    /// A live node has the id. Retrying cannot help.
    #[error("{reason}")]
    NodeIdInUse {
        /// Who has it, where.
        reason: String,
    },
    /// A live node has the address. Retrying cannot help.
    #[error("{reason}")]
    AddressInUse {
        /// Who has it.
        reason: String,
    },
    /// The node is configured for another cluster; the reason names the field. Retrying cannot
    /// help.
    #[error("{reason}")]
    Mismatch {
        /// Which field differs, and how.
        reason: String,
    },
    /// The node was removed from the cluster and its directory still says it is a member. Remove
    /// the directory to join as a new node.
    #[error("{reason}: remove the data directory to join as a new node")]
    Removed {
        /// What the cluster said.
        reason: String,
    },
    /// The cluster gave this node up before it was ever active: it was admitted and then silent for
    /// longer than the repair delay. It holds nothing, so that starting it joins it as a new node;
    /// [`ClusterKit::start`](crate::ClusterKit::start) does so by itself.
    #[error("{reason}: start it again to join as a new node")]
    Dismissed {
        /// What the cluster said.
        reason: String,
    },
    /// The cluster uses features that this node does not know, or does not announce. Start a newer
    /// build.
    #[error("{reason}")]
    OlderFeatureLevel {
        /// Both levels.
        reason: String,
    },
    /// The cluster could not reach this node at the address it announced.
    #[error("{reason}")]
    Unverified {
        /// What was tried.
        reason: String,
    },
    /// The cluster refused for another reason.
    #[error("the cluster refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
}

/// Why a guarded write counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// It was not begun: this node could not prove that it owns the partition. Asking again can
    /// help, here or at the primary.
    #[error("not begun: {0}")]
    NotOwner(NoToken),
    /// It ran to its end, but this node cannot prove that it owned the partition all along. Unknown
    /// outcome: it must not be acknowledged.
    #[error("ownership of the partition was lost meanwhile: {0}")]
    Lost(NoToken),
}

/// Why a running node has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The lookup itself has no answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The proposal failed; the variant says whether anything may have changed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// No such node is a member.
    #[error("no member is called `{node}`")]
    UnknownNode {
        /// What was asked for.
        node: String,
    },
    /// Nothing of that id goes on, or not any more. Nothing was changed.
    #[error("no operation `{id}` goes on")]
    UnknownOperation {
        /// What was asked for.
        id: String,
    },
    /// The operation cannot be cancelled: see
    /// [`Operation::cancellable`](clusterkit_core::operation::Operation::cancellable).
    #[error("operation `{id}` cannot be cancelled")]
    NotCancellable {
        /// What was asked for.
        id: String,
    },
    /// The placement could not be computed.
    #[error("the placement could not be computed: {reason}")]
    Placement {
        /// Why.
        reason: String,
    },
    /// A value is out of bounds. Retrying cannot help.
    #[error(transparent)]
    Invalid(ConfigError),
    /// The topology changed since the preview, so that the plan is another one now. Nothing was
    /// changed; preview again.
    #[error("preview {id} does not hold any more, the topology is at epoch {current}")]
    StalePreview {
        /// The preview.
        id: PreviewId,
        /// The epoch this node knows.
        current: Epoch,
    },
    /// It did not happen in time; it may still.
    #[error("{what} did not happen within {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
}

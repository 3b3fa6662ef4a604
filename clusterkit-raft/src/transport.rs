//! How members reach each other, as bytes: [`Transport`] sends, [`PeerHandler`] receives.
//!
//! The HTTP implementation lives in `clusterkit-http`, an in-process one in
//! [`crate::channel`]. What the bytes of the Raft kinds say is known by
//! [`RaftControlPlane::handle_peer`](crate::RaftControlPlane::handle_peer); the kinds
//! [`RpcKind::Identify`], [`RpcKind::Join`], [`RpcKind::Heartbeat`] and [`RpcKind::Probe`] belong to the
//! embedding crate.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::id::RaftId;

/// Carries one request to a peer and brings back its answer.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `body` to the peer and returns its answer.
    ///
    /// Callers bound the wait by dropping the future; an implementation may have its own, larger
    /// limit. Bodies range from some dozen bytes to a whole snapshot.
    ///
    /// # Errors
    /// [`TransportError`], which says whether the peer may have acted on the request.
    ///
    /// # Cancel safety
    /// Dropping the future gives up on the answer; the peer may still act on the request.
    async fn send(
        &self,
        to: &PeerAddress,
        kind: RpcKind,
        body: Bytes,
    ) -> Result<Bytes, TransportError>;
}

/// Answers the requests of peers, at the receiving end of a [`Transport`].
#[async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers `body`.
    ///
    /// # Errors
    /// [`PeerError`], which the transport carries back to the sender.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the request carried out and unanswered.
    async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, PeerError>;
}

/// Where a peer is, and who it is thought to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built by whoever sends; both fields are all there is"
)]
pub struct PeerAddress {
    /// Its id within the control plane; `None` while it is not known, as for a seed.
    pub raft_id: Option<RaftId>,
    /// `host:port`, as the peer announced it.
    pub address: String,
}

impl PeerAddress {
    /// Returns the address of the member `raft_id`.
    pub fn member(raft_id: RaftId, address: impl Into<String>) -> Self {
        Self {
            raft_id: Some(raft_id),
            address: address.into(),
        }
    }

    /// Returns the address of somebody not known yet.
    pub fn seed(address: impl Into<String>) -> Self {
        Self {
            raft_id: None,
            address: address.into(),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.raft_id {
            Some(raft_id) => write!(f, "member {raft_id} at {}", self.address),
            None => f.write_str(&self.address),
        }
    }
}

macro_rules! rpc_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a request between peers asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum RpcKind {
            $($(#[$doc])* $name,)*
        }

        impl RpcKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the kind as the wire knows it: the last segment of the path over HTTP.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Returns the kind that the wire calls `text`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

rpc_kinds! {
    /// Raft: a candidate asks for a vote.
    Vote = "vote",
    /// Raft: a would-be candidate asks whether it would get a vote.
    PreVote = "pre-vote",
    /// Raft: the leader replicates entries, or says that it is alive.
    Append = "append",
    /// Raft: the leader sends a whole snapshot.
    Snapshot = "snapshot",
    /// Raft: the leader hands leadership over.
    TransferLeader = "transfer-leader",
    /// Raft: a member forwards a command to the leader.
    Propose = "propose",
    /// Raft: a member asks the leader how far it must have applied to read what is current.
    ReadBarrier = "read-barrier",
    /// A node reports to the leader that it is alive.
    Heartbeat = "heartbeat",
    /// A node looks whether another one is alive, to tell the leader.
    Probe = "probe",
    /// A node asks to become a member.
    Join = "join",
    /// Anybody asks who answers at this address, and for which cluster.
    Identify = "identify",
}

impl RpcKind {
    /// Tells whether [`RaftControlPlane::handle_peer`](crate::RaftControlPlane::handle_peer)
    /// answers this kind; the others are up to the embedding crate.
    #[must_use]
    pub const fn is_raft(self) -> bool {
        match self {
            Self::Vote
            | Self::PreVote
            | Self::Append
            | Self::Snapshot
            | Self::TransferLeader
            | Self::Propose
            | Self::ReadBarrier => true,
            Self::Heartbeat | Self::Probe | Self::Join | Self::Identify => false,
        }
    }
}

impl fmt::Display for RpcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a peer does not answer what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The sender is not welcome: another cluster, another wire version, a removed member, or the
    /// receiver is not who the sender takes it for. Nothing was done; a retry does not help.
    #[error("refused: {reason}")]
    Refused {
        /// What does not fit, naming the values.
        reason: String,
    },
    /// The body is not what the kind says. Nothing was done; a retry does not help.
    #[error("malformed {kind} request: {detail}")]
    Malformed {
        /// The kind of the request.
        kind: RpcKind,
        /// What is wrong with it.
        detail: String,
    },
    /// The receiver is not running yet, or stops. Whether anything was done is unknown.
    #[error("unavailable: {detail}")]
    Unavailable {
        /// What it waits for, or why it stopped.
        detail: String,
    },
}

impl PeerError {
    /// Returns the error as a stable word, for carrying it over a wire.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "peer_refused",
            Self::Malformed { .. } => "peer_malformed",
            Self::Unavailable { .. } => "peer_unavailable",
        }
    }
}

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection could be made: the peer has not received the request. A retry may help.
    #[error("{peer} is unreachable")]
    Unreachable {
        /// Whom it was meant for.
        peer: PeerAddress,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke after the request was under way: the peer may have acted on it.
    #[error("connection to {peer} broke")]
    Interrupted {
        /// Whom it was meant for.
        peer: PeerAddress,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer came in time: the peer may have acted on the request, or may still do so.
    #[error("{peer} did not answer within {after:?}")]
    Timeout {
        /// Whom it was meant for.
        peer: PeerAddress,
        /// How long the wait was.
        after: Duration,
    },
    /// The peer refused the sender, as one of another cluster; it did nothing. A retry does not
    /// help.
    #[error("{peer} refused: {reason}")]
    Refused {
        /// Who refused.
        peer: PeerAddress,
        /// What does not fit.
        reason: String,
    },
    /// The peer failed at answering: it may have acted on the request.
    #[error("{peer} failed: {detail}")]
    Remote {
        /// Who failed.
        peer: PeerAddress,
        /// What it said.
        detail: String,
    },
}

impl TransportError {
    /// Returns what a transport reports when `peer` answered with `error`.
    #[must_use]
    pub fn from_peer(peer: PeerAddress, error: PeerError) -> Self {
        match error {
            PeerError::Refused { reason } => Self::Refused { peer, reason },
            PeerError::Malformed { .. } | PeerError::Unavailable { .. } => Self::Remote {
                peer,
                detail: error.to_string(),
            },
        }
    }

    /// Tells whether the peer certainly did nothing, so that sending again cannot act twice.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { .. })
    }

    /// Tells whether sending the same again can succeed without anybody changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_on_the_wire() {
        for &kind in RpcKind::ALL {
            assert_eq!(RpcKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(RpcKind::parse("Vote"), None);
        assert_eq!(RpcKind::ALL.iter().filter(|kind| kind.is_raft()).count(), 7);
    }

    #[test]
    fn what_a_peer_says_keeps_its_meaning() {
        let peer = PeerAddress::member(RaftId(7), "127.0.0.1:1");
        let reason = String::from("cluster a, expected b");
        let refused = TransportError::from_peer(peer.clone(), PeerError::Refused { reason });
        assert!(refused.is_harmless() && !refused.is_retryable());
        assert_eq!(
            refused.to_string(),
            "member 7 at 127.0.0.1:1 refused: cluster a, expected b"
        );
        let detail = String::from("stopping");
        let failed = TransportError::from_peer(peer, PeerError::Unavailable { detail });
        assert!(!failed.is_harmless() && failed.is_retryable());
    }
}

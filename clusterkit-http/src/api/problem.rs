//! The one document of errors.

use std::fmt;

use clusterkit_core::command::Rejected;
use clusterkit_core::config::ConfigError;
use clusterkit_core::control::ProposeError;
use clusterkit_core::id::{Epoch, NodeId};
use serde::{Deserialize, Serialize};

/// What kind of error it is: stable text on the wire, an enum for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemCode {
    /// 400: the request cannot be read as HTTP wants it.
    BadRequest,
    /// 400: the body is not the JSON document expected; the message names the position.
    BadJson,
    /// 400: a parameter or field is out of bounds; the message names field, value and limit.
    InvalidArgument,
    /// 401: the caller did not prove who it is.
    Unauthorized,
    /// 403: the caller may not do this.
    Forbidden,
    /// 404: there is no such path.
    NotFound,
    /// 404: there is no such node.
    UnknownNode,
    /// 404: there is no such key of custom data.
    UnknownKey,
    /// 404: nothing of that id goes on (any more).
    UnknownOperation,
    /// 405: the path exists, the method does not; see the `Allow` header.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    RequestTimeout,
    /// 409: the cluster refuses the command as it stands; the message says why.
    Rejected,
    /// 409: a live node has this id already.
    NodeIdTaken,
    /// 409: the joining node is configured differently; the message names the field.
    ConfigMismatch,
    /// 409: the sender belongs to another cluster.
    WrongCluster,
    /// 409: the sender speaks another version of the peer wire format.
    WireMismatch,
    /// 409: the change would break the replication factor; it can be forced.
    Unsafe,
    /// 409: the topology has changed since the epoch the request was made against.
    StaleEpoch,
    /// 410: the events asked for are no longer kept; start from the topology.
    CursorExpired,
    /// 412: the value is not at the revision `If-Match` names.
    PreconditionFailed,
    /// 413: the body is larger than the limit.
    BodyTooLarge,
    /// 421: the partition is owned elsewhere; the route is in the answer.
    StaleRoute,
    /// 422: the joining node could not be verified at the address it announced.
    AddressUnverified,
    /// 429: a limit is reached; try later.
    TooMany,
    /// 500: a bug of ours.
    Internal,
    /// 503: no leader is known.
    NoLeader,
    /// 503: this node is not the leader; the leader is in the answer.
    NotLeader,
    /// 503: this node has not joined or has not caught up yet.
    NotReady,
    /// 503: this node is stopping.
    ShuttingDown,
    /// 504: no answer in time; the change may or may not have been applied.
    OutcomeUnknown,
    /// 409: a peer refused the sender; it did nothing.
    PeerRefused,
    /// 400: a peer could not read the request.
    PeerMalformed,
    /// 503: a peer is not running yet, or stops.
    PeerUnavailable,
    /// A code this build does not know.
    #[serde(other)]
    Unrecognized,
}

impl ProblemCode {
    /// Returns the HTTP status the code is sent with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadJson | Self::InvalidArgument | Self::PeerMalformed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::UnknownNode | Self::UnknownKey | Self::UnknownOperation => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Rejected
            | Self::NodeIdTaken
            | Self::ConfigMismatch
            | Self::WrongCluster
            | Self::WireMismatch
            | Self::Unsafe
            | Self::StaleEpoch
            | Self::PeerRefused => 409,
            Self::CursorExpired => 410,
            Self::PreconditionFailed => 412,
            Self::BodyTooLarge => 413,
            Self::StaleRoute => 421,
            Self::AddressUnverified => 422,
            Self::TooMany => 429,
            Self::Internal | Self::Unrecognized => 500,
            Self::NoLeader
            | Self::NotLeader
            | Self::NotReady
            | Self::ShuttingDown
            | Self::PeerUnavailable => 503,
            Self::OutcomeUnknown => 504,
        }
    }

    /// Returns the code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadJson => "bad_json",
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::UnknownNode => "unknown_node",
            Self::UnknownKey => "unknown_key",
            Self::UnknownOperation => "unknown_operation",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Rejected => "rejected",
            Self::NodeIdTaken => "node_id_taken",
            Self::ConfigMismatch => "config_mismatch",
            Self::WrongCluster => "wrong_cluster",
            Self::WireMismatch => "wire_mismatch",
            Self::Unsafe => "unsafe",
            Self::StaleEpoch => "stale_epoch",
            Self::CursorExpired => "cursor_expired",
            Self::PreconditionFailed => "precondition_failed",
            Self::BodyTooLarge => "body_too_large",
            Self::StaleRoute => "stale_route",
            Self::AddressUnverified => "address_unverified",
            Self::TooMany => "too_many",
            Self::Internal => "internal",
            Self::NoLeader => "no_leader",
            Self::NotLeader => "not_leader",
            Self::NotReady => "not_ready",
            Self::ShuttingDown => "shutting_down",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::PeerRefused => "peer_refused",
            Self::PeerMalformed => "peer_malformed",
            Self::PeerUnavailable => "peer_unavailable",
            Self::Unrecognized => "unrecognized",
        }
    }

    /// Tells whether the same request may succeed a little later without any change.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::TooMany
                | Self::NoLeader
                | Self::NotLeader
                | Self::NotReady
                | Self::ShuttingDown
                | Self::StaleRoute
        )
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where to send what only the leader takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaderHint {
    /// The leader's id.
    pub id: NodeId,
    /// The leader's address.
    pub address: String,
}

impl LeaderHint {
    /// Names the leader `id` at `address`.
    #[must_use]
    pub fn new(id: NodeId, address: impl Into<String>) -> Self {
        Self {
            id,
            address: address.into(),
        }
    }
}

/// An error as every endpoint answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct Problem {
    /// What kind of error it is.
    pub code: ProblemCode,
    /// What happened, for people: lowercase, names the values.
    pub message: String,
    /// The leader as this node knows it.
    #[serde(default)]
    pub leader: Option<LeaderHint>,
    /// The epoch of the topology this node knows, 0 when it knows none.
    #[serde(default)]
    pub epoch: Epoch,
}

impl Problem {
    /// Describes a problem; leader and epoch are filled in where the answer is made.
    #[must_use]
    pub fn new(code: ProblemCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            leader: None,
            epoch: Epoch::default(),
        }
    }

    /// Refuses `value` for `field`, which must be `limit`.
    #[must_use]
    pub fn invalid(field: &str, value: impl fmt::Display, limit: impl fmt::Display) -> Self {
        let refused = ConfigError::new(field, value, limit);
        Self::new(ProblemCode::InvalidArgument, refused)
    }

    /// Adds the leader as this node knows it.
    #[must_use]
    pub fn with_leader(mut self, leader: Option<LeaderHint>) -> Self {
        self.leader = leader;
        self
    }

    /// Adds the epoch this node knows.
    #[must_use]
    pub const fn with_epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = epoch;
        self
    }

    /// Returns the HTTP status it is sent with.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        let code = match &error {
            ProposeError::Rejected(rejected) => rejection(rejected),
            ProposeError::NoLeader { .. } => ProblemCode::NoLeader,
            ProposeError::Stopped { .. } => ProblemCode::ShuttingDown,
            ProposeError::TooLarge { .. } => ProblemCode::BodyTooLarge,
            // `Unknown`, and whatever comes later: nothing may be claimed about it.
            _ => ProblemCode::OutcomeUnknown,
        };
        Self::new(code, error)
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        Self::new(rejection(&rejected), rejected)
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new(ProblemCode::InvalidArgument, error)
    }
}

fn rejection(rejected: &Rejected) -> ProblemCode {
    match rejected {
        Rejected::NotFormed => ProblemCode::NotReady,
        Rejected::Invalid(_) => ProblemCode::InvalidArgument,
        Rejected::NodeIdInUse { .. } => ProblemCode::NodeIdTaken,
        Rejected::UnknownNode { .. } => ProblemCode::UnknownNode,
        Rejected::HoldsPartitions { .. } | Rejected::LastNode { .. } | Rejected::NoHeir { .. } => {
            ProblemCode::Unsafe
        }
        Rejected::StaleEpoch { .. } => ProblemCode::StaleEpoch,
        Rejected::DataMismatch { .. } => ProblemCode::PreconditionFailed,
        _ => ProblemCode::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_one_text_and_unknown_ones_are_kept_apart() {
        for code in [
            ProblemCode::BadJson,
            ProblemCode::NodeIdTaken,
            ProblemCode::OutcomeUnknown,
            ProblemCode::Unrecognized,
        ] {
            let text = serde_json::to_string(&code).unwrap();
            assert_eq!(text, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ProblemCode>(&text).unwrap(), code);
        }
        let newer: ProblemCode = serde_json::from_str("\"from_the_future\"").unwrap();
        assert_eq!(newer, ProblemCode::Unrecognized);
    }

    #[test]
    fn the_document_has_four_fields() {
        let problem = Problem::invalid("offset", -1, "0 or more");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"code":"invalid_argument","message":"offset is `-1`, must be 0 or more","leader":null,"epoch":0}"#
        );
        let short: Problem = serde_json::from_str(r#"{"code":"no_leader","message":"m"}"#).unwrap();
        assert_eq!(short.status(), 503);
    }
}

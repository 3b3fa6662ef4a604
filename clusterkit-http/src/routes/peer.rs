//! `POST /peer/v1/<kind>`: the receiving end of [`crate::transport`].
//!
//! The headers say who sends, for which cluster, and whom the sender takes this node for: a
//! restarted process on another's port, or a node of another cluster, is refused before its bytes
//! are read. They prove nothing; authentication of peers is a later matter.

use clusterkit_core::id::ClusterId;
use clusterkit_raft::transport::{PeerError, RpcKind};

use super::{Answer, ClusterApi};
use crate::api::{Problem, ProblemCode};
use crate::headers::{CLUSTER, FROM, TO, WIRE, WIRE_VERSION};
use crate::server::{Request, Response};

impl ClusterApi {
    pub(super) async fn peer(&self, request: &Request, kind: RpcKind) -> Answer {
        self.check_sender(request, kind)?;
        let answered = self
            .backend
            .peer()
            .handle(kind, request.body().clone())
            .await;
        answered
            .map(|body| Response::binary(200, body))
            .map_err(|error| {
                let code = match &error {
                    PeerError::Refused { .. } => ProblemCode::PeerRefused,
                    PeerError::Malformed { .. } => ProblemCode::PeerMalformed,
                    _ => ProblemCode::PeerUnavailable,
                };
                let message = match error {
                    PeerError::Refused { reason } => reason,
                    other => other.to_string(),
                };
                Problem::new(code, message)
            })
    }

    fn check_sender(&self, request: &Request, kind: RpcKind) -> Result<(), Problem> {
        match request.header(WIRE) {
            Some(spoken) if spoken.parse() == Ok(WIRE_VERSION) => {}
            spoken => {
                let spoken = spoken.unwrap_or("nothing");
                let message = format!("{WIRE} is `{spoken}`, this node speaks {WIRE_VERSION}");
                return Err(Problem::new(ProblemCode::WireMismatch, message));
            }
        }
        let own = self.backend.identity();
        // Whoever asks who is here, or asks to join, belongs nowhere yet.
        let may_be_stranger = matches!(kind, RpcKind::Identify | RpcKind::Join);
        match (request.header(CLUSTER), own.cluster) {
            (Some(theirs), Some(ours)) if theirs.parse::<ClusterId>() != Ok(ours) => {
                let message = format!("{CLUSTER} is `{theirs}`, this node belongs to {ours}");
                return Err(Problem::new(ProblemCode::WrongCluster, message));
            }
            (None, _) if !may_be_stranger => return Err(missing(CLUSTER)),
            _ => {}
        }
        match request.header(FROM).map(str::parse::<u64>) {
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                let given = request.header(FROM).unwrap_or_default();
                return Err(Problem::invalid(FROM, given, "a member id"));
            }
            None if !may_be_stranger => return Err(missing(FROM)),
            None => {}
        }
        if let (Some(meant), Some(own)) = (request.header(TO), own.raft_id)
            && meant.parse() != Ok(own.value())
        {
            let message = format!("{TO} is `{meant}`, this is member {own}");
            return Err(Problem::new(ProblemCode::PeerRefused, message));
        }
        Ok(())
    }
}

fn missing(header: &str) -> Problem {
    Problem::invalid(header, "", "given on every request between members")
}

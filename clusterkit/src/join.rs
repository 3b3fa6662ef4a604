//! Becoming a member: asking the seeds in turn, following them to the leader, until a clear answer.
//!
//! The answering end is in `peer.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::id::{ClusterId, RaftId};
use clusterkit_raft::transport::{PeerAddress, RpcKind, Transport, TransportError};

use crate::error::JoinError;
use crate::inner::Inner;
use crate::messages::{JoinReply, JoinRequest, Refusal, Wanted, decode, encode};
use crate::peer::describe;

/// How long one seed is given to answer: admission waits for a commit.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// How long to wait between two rounds over all seeds, at first and at most.
const ROUND_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How long the first of a list of seeds looks for a cluster among the others before it forms one.
const LOOK_AROUND: Duration = Duration::from_secs(3);

impl Inner {
    /// Asks `seeds`, and whoever they name as leader, until admitted, refused for good, or
    /// `limit` has passed.
    ///
    /// With `member` the node is one already and says that it runs again.
    pub(crate) async fn ask_admission(
        &self,
        seeds: &[String],
        member: Option<RaftId>,
        limit: Duration,
    ) -> Result<(ClusterId, RaftId), JoinError> {
        let request = JoinRequest {
            spec: self.spec.clone(),
            member,
            wanted: Wanted::new(&self.settings.fixed, self.cluster()),
        };
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        let asking = async {
            let mut pause = ROUND_PAUSE.0;
            loop {
                let mut foreign = None;
                let mut heard = false;
                for seed in seeds {
                    match self.ask_seed(seed, &request, &mut last).await {
                        Answer::Final(result) => return result,
                        Answer::Again { heard: now } => heard |= now,
                        Answer::Foreign(reason) => foreign = Some(reason),
                    }
                }
                if let Some(reason) = foreign.filter(|_| !heard) {
                    return Err(JoinError::Mismatch { reason });
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ROUND_PAUSE.1);
            }
        };
        match tokio::time::timeout(limit, asking).await {
            Ok(result) => result,
            Err(_) => {
                let attempts = last
                    .into_iter()
                    .map(|(seed, answer)| format!("{seed}: {answer}"));
                Err(JoinError::Timeout {
                    after: limit,
                    attempts: attempts.collect(),
                })
            }
        }
    }

    /// Asks one seed and, when it names one, the leader.
    async fn ask_seed(
        &self,
        seed: &str,
        request: &JoinRequest,
        last: &mut BTreeMap<String, String>,
    ) -> Answer {
        let mut asked = seed.to_owned();
        // A leader may change between two answers: follow twice, then start over.
        for _ in 0..3 {
            let reply = match self.ask(&asked, request).await {
                Ok(reply) => reply,
                Err(Unanswered::Foreign(reason)) => {
                    last.insert(asked, reason.clone());
                    return Answer::Foreign(reason);
                }
                Err(Unanswered::Silent(reason)) => {
                    last.insert(asked, reason);
                    return Answer::Again { heard: false };
                }
            };
            let later = match reply {
                JoinReply::Admitted { cluster, raft_id } => {
                    return Answer::Final(Ok((cluster, raft_id)));
                }
                JoinReply::Refused { refusal, reason } => {
                    return Answer::Final(Err(refused(refusal, reason)));
                }
                JoinReply::NotLeader {
                    leader: Some(leader),
                } if leader != asked => {
                    asked = leader;
                    continue;
                }
                JoinReply::NotLeader { .. } => String::from("no leader is elected"),
                JoinReply::Later { reason } => reason,
            };
            last.insert(asked, later);
            return Answer::Again { heard: true };
        }
        Answer::Again { heard: true }
    }

    async fn ask(&self, address: &str, request: &JoinRequest) -> Result<JoinReply, Unanswered> {
        let peer = PeerAddress::seed(address);
        let sent = self
            .transport
            .send(&peer, RpcKind::Join, encode(RpcKind::Join, request));
        match tokio::time::timeout(ANSWER_LIMIT, sent).await {
            Ok(Ok(answer)) => decode(RpcKind::Join, &answer)
                .map_err(|error| Unanswered::Silent(error.to_string())),
            Ok(Err(TransportError::Refused { reason, .. })) => Err(Unanswered::Foreign(format!(
                "{address} refuses node `{}` of cluster {}: {reason}",
                self.spec.id,
                self.cluster()
                    .map_or_else(|| String::from("none"), |id| id.to_string()),
            ))),
            Ok(Err(error)) => Err(Unanswered::Silent(describe(&error))),
            Err(_) => Err(Unanswered::Silent(format!(
                "no answer within {ANSWER_LIMIT:?}"
            ))),
        }
    }

    /// Looks whether any of `others` belongs to a cluster. Silence counts as no only after a
    /// while: a cluster may be starting too.
    pub(crate) async fn some_seed_knows_a_cluster(&self, others: &[String]) -> bool {
        let looking = async {
            loop {
                let mut silent = false;
                for seed in others {
                    match self.identify(seed).await {
                        Ok(who) if who.cluster.is_some() => return true,
                        Ok(_) => {}
                        Err(_) => silent = true,
                    }
                }
                if !silent {
                    return false;
                }
                tokio::time::sleep(ROUND_PAUSE.1).await;
            }
        };
        tokio::time::timeout(LOOK_AROUND, looking)
            .await
            .unwrap_or(false)
    }
}

/// What asking one seed led to.
enum Answer {
    /// Admitted, or refused for good.
    Final(Result<(ClusterId, RaftId), JoinError>),
    /// Asking again may help; `heard` tells whether anybody of this cluster spoke.
    Again { heard: bool },
    /// Somebody of another cluster answers there.
    Foreign(String),
}

/// Why there is no reply to a request.
enum Unanswered {
    /// Nobody answered, or not understandably.
    Silent(String),
    /// The node there refuses this one as not of its cluster.
    Foreign(String),
}

fn refused(refusal: Refusal, reason: String) -> JoinError {
    match refusal {
        Refusal::NodeIdInUse => JoinError::NodeIdInUse { reason },
        Refusal::AddressInUse => JoinError::AddressInUse { reason },
        Refusal::Mismatch => JoinError::Mismatch { reason },
        Refusal::Removed => JoinError::Removed { reason },
        Refusal::Dismissed => JoinError::Dismissed { reason },
        Refusal::OlderFeatureLevel => JoinError::OlderFeatureLevel { reason },
        Refusal::Unverified => JoinError::Unverified { reason },
        Refusal::Other => JoinError::Refused { reason },
    }
}

//! Answers to peers: Raft's requests go to the control plane, joins and pulses are judged here.
//!
//! The asking ends are in `join.rs`, `pulse.rs` and `probe.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::control::{ControlPlane, ProposeError, View};
use clusterkit_core::detector::Heard;
use clusterkit_core::health::{Health, HealthReport, Veto};
use clusterkit_core::id::RaftId;
use clusterkit_core::node::{Node, NodeSpec, NodeStatus};
use clusterkit_raft::transport::{PeerAddress, PeerError, PeerHandler, RpcKind, Transport};

use crate::inner::Inner;
use crate::messages::{JoinReply, JoinRequest, Pulse, PulseReply, Refusal, Whoami, decode, encode};

/// How long a node is given to answer who it is.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(1);

/// Answers the requests of peers.
#[derive(Debug)]
pub(crate) struct Peers(pub(crate) Arc<Inner>);

#[async_trait]
impl PeerHandler for Peers {
    async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, PeerError> {
        match kind {
            RpcKind::Identify => Ok(encode(kind, &self.0.whoami())),
            RpcKind::Heartbeat => {
                let pulse = decode(kind, &body)?;
                Ok(encode(kind, &self.0.hear(&pulse)))
            }
            RpcKind::Probe => {
                let probe = decode(kind, &body)?;
                let answer = self.0.answer_probe(&probe)?;
                Ok(encode(kind, &answer))
            }
            RpcKind::Join => {
                let request = decode(kind, &body)?;
                Ok(encode(kind, &self.0.admit(request).await))
            }
            raft => match self.0.control() {
                Some(control) => control.handle_peer(raft, body).await,
                None => Err(PeerError::Unavailable {
                    detail: String::from("not a member yet"),
                }),
            },
        }
    }
}

impl Inner {
    fn whoami(&self) -> Whoami {
        let identity = self.identity();
        Whoami {
            node: identity.node,
            disk: identity.disk,
            incarnation: identity.incarnation,
            cluster: identity.cluster,
            raft_id: identity.raft_id,
        }
    }

    /// Asks who answers at `address`.
    pub(crate) async fn identify(&self, address: &str) -> Result<Whoami, String> {
        let peer = PeerAddress::seed(address);
        let asked = self.transport.send(&peer, RpcKind::Identify, Bytes::new());
        match tokio::time::timeout(IDENTIFY_LIMIT, asked).await {
            Ok(Ok(answer)) => decode(RpcKind::Identify, &answer).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!(
                "{address} did not answer within {IDENTIFY_LIMIT:?}"
            )),
        }
    }

    fn hear(&self, pulse: &Pulse) -> PulseReply {
        let Some(control) = self.control() else {
            return PulseReply::NotLeader;
        };
        let view = control.view();
        if !view.leadership.is_leader {
            return PulseReply::NotLeader;
        }
        let Some(node) = view.state.node(pulse.node) else {
            let known = view.state.applied().0 >= pulse.node.0;
            return if known {
                PulseReply::Removed
            } else {
                PulseReply::Unknown
            };
        };
        let now = self.clock.now();
        let (counts, heard) = {
            let Pulse {
                node,
                incarnation,
                report,
                late,
                ..
            } = pulse;
            let mut coordinator = self.coordinator();
            let counts = coordinator.handle_health(*node, *incarnation, report, *late, now);
            let heard = match counts {
                true => coordinator.handle_heartbeat(*node, *incarnation, pulse.applied, now),
                false => Heard::Counted,
            };
            if counts && heard == Heard::Counted {
                for seen in &pulse.sightings {
                    let (of, process) = (seen.node, seen.incarnation);
                    // One of somebody unknown here, or of an earlier process, is none.
                    let _ = coordinator.handle_sighting(*node, of, process, seen.age, now);
                }
            }
            (counts, heard)
        };
        let waits = matches!(node.status, NodeStatus::Joining | NodeStatus::Down);
        if waits || differs(view.state.veto(pulse.node), &pulse.report) {
            self.heard.notify_one();
        }
        match heard {
            Heard::Counted => {
                self.hear_copies(pulse.node, &pulse.copies);
                PulseReply::Counted {
                    // Who wants to count as down gets no lease.
                    grant: match counts {
                        true => self.renew(&view, &pulse.lease),
                        false => None,
                    },
                    copies: self.copy_news(&view, pulse.copies_seen),
                }
            }
            Heard::Stale => PulseReply::Superseded,
            _ => PulseReply::Unknown,
        }
    }

    /// Decides about a node that asks to become a member, or says that it runs again.
    pub(crate) async fn admit(&self, request: JoinRequest) -> JoinReply {
        let Some(control) = self.control() else {
            return later("this node is not a member yet");
        };
        let view = control.view();
        let Some(cluster) = view.state.cluster() else {
            return later("no cluster is formed yet");
        };
        if let Some(mismatch) = request.wanted.mismatch(cluster, view.state.config()) {
            return refused(Refusal::Mismatch, &mismatch);
        }
        if !view.leadership.is_leader {
            let leader = view
                .leadership
                .leader
                .and_then(|id| view.state.node(id).cloned());
            let leader = leader.map(|node| node.peer_address().to_owned());
            return JoinReply::NotLeader { leader };
        }
        if let Err(reason) = self.verify(&request.spec).await {
            return refused(Refusal::Unverified, &reason);
        }
        let at = self.clock.wall();
        let command = match request.member {
            Some(node) if !self.may_judge(&view, node) => {
                return later("some members have not reported in since this leader was elected");
            }
            Some(node) => Command::Announce {
                node,
                spec: request.spec.clone(),
                at,
            },
            None => {
                let replaces = match self.dead_holder(&view, &request.spec).await {
                    Ok(replaces) => replaces,
                    Err(reply) => return reply,
                };
                Command::Join {
                    node: request.spec.clone(),
                    replaces,
                    at,
                }
            }
        };
        match control.propose(command).await {
            Ok(applied) => match applied.node {
                Some(raft_id) => JoinReply::Admitted { cluster, raft_id },
                None => later("no member id was assigned"),
            },
            // The joining node was called back at this very address, so the node that had it is
            // gone and will be declared down.
            Err(ProposeError::Rejected(taken @ Rejected::AddressInUse { .. }))
                if request.spec.peer_address.is_none() =>
            {
                later(&taken)
            }
            Err(ProposeError::Rejected(unknown @ Rejected::UnknownNode { node }))
                if control.view().state.was_dismissed(node) =>
            {
                refused(Refusal::Dismissed, &unknown)
            }
            Err(ProposeError::Rejected(rejected)) => reject(&rejected),
            Err(error) => later(&error),
        }
    }

    /// Tells whether a start of `node` may be committed now. A node the log has as live gives its
    /// roles away by starting, and those must go to somebody who is there.
    pub(crate) fn may_judge(&self, view: &View, node: RaftId) -> bool {
        let me = self.member_control().raft_id();
        !view.state.is_live(node) || self.coordinator().has_heard_all_but(&view.state, node, me)
    }

    /// Calls the node back at the address it announced: a made-up address must not become a
    /// member that never answers.
    async fn verify(&self, spec: &NodeSpec) -> Result<(), String> {
        let address = spec.peer_address();
        let answer = self.identify(address).await;
        let who = answer.map_err(|error| {
            format!(
                "node `{}` announced {address}, where nobody answers: {error}",
                spec.id
            )
        })?;
        if who.cluster.is_some() && who.cluster != self.cluster() {
            return Err(format!(
                "node `{}` at {address} is in another cluster",
                spec.id
            ));
        }
        if who.disk == spec.disk && who.node == spec.id {
            return Ok(());
        }
        Err(format!(
            "node `{}` announced {address}, where node `{}` answers",
            spec.id, who.node
        ))
    }

    /// Finds the member whose id the joining node has, and makes sure that it is dead: the same
    /// address answers with the new disk and the lease of its old process is over, or the cluster
    /// has declared it down.
    async fn dead_holder(&self, view: &View, spec: &NodeSpec) -> Result<Option<RaftId>, JoinReply> {
        let Some(holder) = view.state.node_by_id(spec.id.as_str()) else {
            return Ok(None);
        };
        if holder.disk == spec.disk {
            return Ok(None);
        }
        if holder.status == NodeStatus::Down {
            return Ok(Some(holder.raft_id));
        }
        let answer = self.identify(holder.peer_address()).await;
        match answer {
            Ok(who) if who.disk == holder.disk => Err(in_use(holder)),
            Ok(who) if who.disk == spec.disk => {
                // Its own address answers as the new one: the old process is gone, or cut off and
                // not yet aware of it. It gets no lease any more; the one it may have must end.
                let nodes = vec![holder.raft_id];
                let at = self.clock.wall();
                let over = {
                    let now = self.clock.now();
                    let mut coordinator = self.coordinator();
                    let leases = coordinator.leases();
                    leases.condemn(&nodes, now);
                    leases.may_commit_down(holder.raft_id, now)
                };
                if !over {
                    return Err(later(&format_args!(
                        "node id `{}` belonged to a process whose lease may still live",
                        holder.id
                    )));
                }
                let down = Command::MarkDown {
                    nodes,
                    promotions: Vec::new(),
                    at,
                };
                match self.member_control().propose(down).await {
                    Ok(_) => Ok(Some(holder.raft_id)),
                    Err(error) => Err(later(&error)),
                }
            }
            Ok(_) | Err(_) => Err(later(&format_args!(
                "node id `{}` belongs to a member at {} that is not declared down yet",
                holder.id, holder.address
            ))),
        }
    }
}

/// Tells whether what a node says of itself is not what the log says of it.
pub(crate) fn differs(known: Option<&Veto>, report: &HealthReport) -> bool {
    match known {
        None => report.health != Health::Healthy,
        Some(veto) => veto.health != report.health || veto.reason != report.reason,
    }
}

fn in_use(holder: &Node) -> JoinReply {
    let reason = Rejected::NodeIdInUse {
        id: holder.id.clone(),
        holder: holder.raft_id,
        address: Arc::clone(&holder.address),
        status: holder.status,
    };
    refused(Refusal::NodeIdInUse, &reason)
}

fn refused(refusal: Refusal, reason: &(impl ToString + ?Sized)) -> JoinReply {
    JoinReply::Refused {
        refusal,
        reason: reason.to_string(),
    }
}

fn later(reason: &(impl ToString + ?Sized)) -> JoinReply {
    JoinReply::Later {
        reason: reason.to_string(),
    }
}

fn reject(rejected: &Rejected) -> JoinReply {
    let refusal = match rejected {
        Rejected::NodeIdInUse { .. } => Refusal::NodeIdInUse,
        Rejected::AddressInUse { .. } => Refusal::AddressInUse,
        Rejected::UnknownNode { .. } => Refusal::Removed,
        Rejected::OlderFeatureLevel { .. } => Refusal::OlderFeatureLevel,
        Rejected::NotFormed => return later(rejected),
        _ => Refusal::Other,
    };
    refused(refusal, rejected)
}

/// Returns an error with its causes, for people.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

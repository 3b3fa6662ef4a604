//! Changes people ask for: join, drain, remove; and one node in detail. Placement is in
//! `placement.rs`.

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::command::Applied;
use clusterkit_core::id::NodeId;
use clusterkit_core::intent::{Intent, RESTART_TTL_MAX, RESTART_TTL_MIN};

use super::{Answer, ClusterApi, leader_hint, params};
use crate::Method;
use crate::api::compat::{JoinDocument, JoinRedirect};
use crate::api::v1::{ChangedDocument, IntentDocument, NodeDetailDocument, VetoDocument};
use crate::api::{MemberDocument, Problem, ProblemCode};
use crate::server::{Request, Response};

impl ClusterApi {
    /// `POST /join`, as old nodes and scripts send it. Followers point to the leader: the caller
    /// is to ask the one who verifies it.
    pub(super) async fn join(&self, request: &Request) -> Answer {
        let join: JoinDocument = params::json(request)?;
        if let Err(error) = NodeId::new(&join.node.id) {
            return Err(Problem::from(error));
        }
        let address = if join.node.ip.is_empty() {
            &join.raft_addr
        } else {
            &join.node.ip
        };
        let port = address
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(Problem::invalid(
                "node.ip",
                address,
                "host:port of the joining node",
            ));
        }
        let view = self.formed()?.view;
        if !view.leadership.is_leader {
            let Some(leader) = leader_hint(&view) else {
                return Err(Problem::new(
                    ProblemCode::NoLeader,
                    "no leader is known, try again later",
                ));
            };
            let location = format!("http://{}/join", leader.address);
            let shown = self.show_address(&leader.address);
            let redirect = JoinRedirect::new(leader.id.as_str(), &shown);
            return Ok(Response::json(307, &redirect).header("location", location));
        }
        let reply = self.backend.join(join).await?;
        Ok(Response::json(200, &reply))
    }

    pub(super) fn node(&self, id: &NodeId) -> Answer {
        let view = self.formed()?.view;
        let topology = &view.topology;
        let node = topology.node(id.as_str()).ok_or_else(|| unknown(id))?;
        let is = |other: &clusterkit_core::node::Node| other.raft_id == node.raft_id;
        let count = |holds: &dyn Fn(clusterkit_core::id::PartitionId) -> bool| {
            topology.partitions().filter(|&p| holds(p)).count()
        };
        let document = NodeDetailDocument {
            node: MemberDocument::from(&**node),
            is_leader: view.leadership.leader == Some(node.raft_id),
            primaries: count(&|p| topology.primary(p).is_some_and(is)),
            replicas: count(&|p| topology.replicas(p).any(is)),
            behind: count(&|p| topology.members(p).any(is) && !topology.in_sync(p).any(is)),
            joining: count(&|p| topology.joining(p).any(is)),
            epoch: topology.epoch(),
            veto: VetoDocument::of(&view.state, node),
            intent: view.state.intent(node.raft_id).map(IntentDocument::from),
        };
        Ok(Response::json(200, &document))
    }

    pub(super) async fn drain(&self, request: &Request, id: &NodeId) -> Answer {
        let on = request.method() == Method::Post;
        let leave = params::flag(request, "leave")?;
        self.known(id)?;
        if on && params::flag(request, "dry_run")? {
            return self
                .adjust(request, &Adjustment::Drain { node: id.clone() })
                .await;
        }
        let applied = self.backend.drain(id, on, leave).await?;
        self.changed(&applied).await
    }

    /// `POST` and `DELETE /v1/nodes/{id}/handover`.
    pub(super) async fn handover(&self, request: &Request, id: &NodeId) -> Answer {
        self.intend(request, id, Intent::Handover).await
    }

    /// `POST /v1/nodes/{id}/restart-intent?ttl_ms=`, and `DELETE`.
    pub(super) async fn restart_intent(&self, request: &Request, id: &NodeId) -> Answer {
        let mut ttl_ms = 0;
        if request.method() == Method::Post {
            let [least, most] = [RESTART_TTL_MIN, RESTART_TTL_MAX]
                .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
            if request.query().text("ttl_ms").is_none() {
                let limit = format!("given: {least} to {most}");
                return Err(Problem::invalid("ttl_ms", "", limit));
            }
            ttl_ms = params::number(request, "ttl_ms", least, &(least..=most))?;
        }
        self.intend(request, id, Intent::Restart { ttl_ms }).await
    }

    /// Declares `intent`, or takes back whatever stands.
    async fn intend(&self, request: &Request, id: &NodeId, intent: Intent) -> Answer {
        let on = request.method() == Method::Post;
        let force = params::flag(request, "force")?;
        self.known(id)?;
        let adjustment = Adjustment::Intent {
            node: id.clone(),
            intent: on.then_some(intent),
            force,
        };
        let applied = self.backend.adjust(&adjustment).await?;
        self.changed(&applied).await
    }

    pub(super) async fn remove(&self, request: &Request, id: &NodeId) -> Answer {
        let force = params::flag(request, "force")?;
        self.known(id)?;
        let applied = self.backend.remove(id, force).await?;
        self.changed(&applied).await
    }

    pub(super) fn known(&self, id: &NodeId) -> Result<(), Problem> {
        let view = self.formed()?.view;
        let node = view.state.node_by_id(id.as_str());
        node.map(|_| ()).ok_or_else(|| unknown(id))
    }

    /// Answers a committed change once it is visible here.
    pub(super) async fn changed(&self, applied: &Applied) -> Answer {
        if let Some(control) = self.backend.control() {
            self.settle(&*control, applied.index).await;
        }
        Ok(Response::json(200, &ChangedDocument::from(applied)))
    }
}

fn unknown(id: &NodeId) -> Problem {
    Problem::new(
        ProblemCode::UnknownNode,
        format!("no member is called `{id}`"),
    )
}

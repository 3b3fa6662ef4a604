//! Placement over HTTP: rebalance, its preview, explanations, and runtime changes of weight, zone
//! and replication factor.
//!
//! The reasons are found in `clusterkit_core::explain`; here questions are read and answers sent.

use std::sync::Arc;

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::explain::PreviewId;
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::Topology;

use super::{Answer, ClusterApi, params};
use crate::Method;
use crate::api::Problem;
use crate::api::v1::{ConfigChangeDocument, ConfigDocument, NodeChangeDocument};
use crate::server::{Request, Response};

impl ClusterApi {
    pub(super) async fn rebalance(&self, request: &Request) -> Answer {
        let dry_run = params::flag(request, "dry_run")?;
        self.formed()?;
        let document = match request.query().text("apply") {
            Some(_) if dry_run => {
                let limit = "left out where `apply` is given";
                return Err(Problem::invalid("dry_run", true, limit));
            }
            Some(id) => {
                let id: PreviewId = id
                    .parse()
                    .map_err(|_| Problem::invalid("apply", &id, "the `id` of a dry run"))?;
                self.backend.apply_rebalance(id).await?
            }
            None => self.backend.rebalance(dry_run).await?,
        };
        Ok(Response::json(200, &document))
    }

    pub(super) async fn explain(&self, request: &Request) -> Answer {
        let view = self.formed()?.view;
        let partition = asked_partition(request, &view.topology)?;
        let node = match request.query().text("node") {
            None => None,
            Some(text) => {
                let known = view.topology.node(&text);
                let known = known.ok_or_else(|| {
                    Problem::invalid("node", &text, "the id of a member, see /v1/topology")
                })?;
                Some(known.id.clone())
            }
        };
        let document = self.backend.explain(partition, node.as_ref()).await?;
        Ok(Response::json(200, &document))
    }

    pub(super) async fn plans(&self) -> Answer {
        self.formed()?;
        let document = self.backend.plans().await?;
        Ok(Response::json(200, &document))
    }

    /// `POST /v1/nodes/{id}` with `{"weight","zone"}`.
    pub(super) async fn change_node(&self, request: &Request, id: &NodeId) -> Answer {
        let change: NodeChangeDocument = params::json(request)?;
        if change == NodeChangeDocument::default() {
            return Err(Problem::invalid("body", "{}", "weight, zone or both"));
        }
        self.known(id)?;
        let zone = change.zone.as_deref().map(Arc::from);
        self.adjust(
            request,
            &Adjustment::Node {
                node: id.clone(),
                weight: change.weight,
                zone,
            },
        )
        .await
    }

    /// `GET` and `POST /v1/config`.
    pub(super) async fn config(&self, request: &Request) -> Answer {
        if request.method() != Method::Post {
            let document = ConfigDocument::from(self.formed()?.view.state.config());
            return Ok(Response::json(200, &document));
        }
        let change: ConfigChangeDocument = params::json(request)?;
        if change == ConfigChangeDocument::default() {
            let limit = "at least one setting, such as replication_factor";
            return Err(Problem::invalid("body", "{}", limit));
        }
        self.formed()?;
        self.adjust(request, &Adjustment::Config(change.into()))
            .await
    }

    /// Carries an adjustment out or, with `dry_run`, says what it would move.
    pub(super) async fn adjust(&self, request: &Request, adjustment: &Adjustment) -> Answer {
        if params::flag(request, "dry_run")? {
            let document = self.backend.preview(adjustment).await?;
            return Ok(Response::json(200, &document));
        }
        let applied = self.backend.adjust(adjustment).await?;
        self.changed(&applied).await
    }
}

/// Reads `partition` (`12` or `partition-12`) or `key`.
fn asked_partition(request: &Request, topology: &Topology) -> Result<Option<PartitionId>, Problem> {
    let query = request.query();
    let Some(text) = query.text("partition") else {
        return Ok(query.bytes("key").map(|key| topology.partition(&key)));
    };
    if query.bytes("key").is_some() {
        return Err(Problem::invalid(
            "key",
            "given",
            "left out beside `partition`",
        ));
    }
    let number = text.strip_prefix("partition-").unwrap_or(&text);
    let last = topology.partition_count().saturating_sub(1);
    let known = number.parse().ok().filter(|number| *number <= last);
    known
        .map(|number| Some(PartitionId(number)))
        .ok_or_else(|| {
            let limit = format!("a whole number from 0 to {last}");
            Problem::invalid("partition", &text, limit)
        })
}

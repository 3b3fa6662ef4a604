//! What goes on in the cluster, over HTTP: operations, how they are cancelled, pause switches.

use std::sync::Arc;

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::id::NodeId;
use clusterkit_core::pause::Work;

use super::{Answer, ClusterApi, params};
use crate::Method;
use crate::api::v1::{
    MayStopDocument, OperationDocument, OperationsDocument, PauseRequest, PausesDocument,
};
use crate::api::{Problem, ProblemCode};
use crate::server::{Request, Response};

/// The most operations in one answer, and the number when none is given.
const OPERATIONS_MAX: usize = 10_000;
const OPERATIONS_DEFAULT: usize = 200;

impl ClusterApi {
    /// `GET /v1/operations`.
    pub(super) fn operations(&self, request: &Request) -> Answer {
        let range = 1..=OPERATIONS_MAX;
        let limit = params::number(request, "limit", OPERATIONS_DEFAULT, &range)?;
        let view = self.formed()?.view;
        let (operations, protected) = self.backend.operations();
        let document = OperationsDocument::new(&view.state, &operations, protected, limit);
        Ok(Response::json(200, &document))
    }

    /// `GET` and `DELETE /v1/operations/{id}`.
    pub(super) async fn operation(&self, request: &Request, id: &str) -> Answer {
        self.formed()?;
        let (operations, _) = self.backend.operations();
        let Some(operation) = operations.iter().find(|operation| operation.id == id) else {
            return Err(over(id));
        };
        if request.method() != Method::Delete {
            return Ok(Response::json(200, &OperationDocument::from(operation)));
        }
        if !operation.cancellable {
            let message = format!("a {} cannot be cancelled", operation.kind);
            return Err(Problem::new(ProblemCode::Rejected, message));
        }
        let applied = self.backend.cancel(operation).await?;
        match applied.refused.is_empty() {
            true => self.changed(&applied).await,
            false => Err(over(id)),
        }
    }

    /// `GET /v1/may-stop?nodes=a,b`.
    pub(super) async fn may_stop(&self, request: &Request) -> Answer {
        let given = request.query().text("nodes").unwrap_or_default();
        if given.is_empty() {
            return Err(Problem::invalid(
                "nodes",
                "",
                "one or more ids, with commas",
            ));
        }
        let nodes: Result<Vec<NodeId>, _> = given.split(',').map(NodeId::new).collect();
        let nodes = nodes?;
        self.formed()?;
        let answer = self.backend.may_stop(&nodes).await?;
        Ok(Response::json(200, &MayStopDocument::new(nodes, answer)))
    }

    /// `GET /v1/pauses`.
    pub(super) fn pauses(&self) -> Answer {
        let document = PausesDocument::from(&*self.formed()?.view.state);
        Ok(Response::json(200, &document))
    }

    /// `PUT`, `POST` and `DELETE /v1/pauses/{work}`.
    pub(super) async fn pause(&self, request: &Request, work: Work) -> Answer {
        self.formed()?;
        if request.method() == Method::Delete {
            return self.adjust(request, &Adjustment::Resume { work }).await;
        }
        let PauseRequest { reason } = match request.body().is_empty() {
            true => PauseRequest::default(),
            false => params::json(request)?,
        };
        let reason = Arc::from(reason);
        self.adjust(request, &Adjustment::Pause { work, reason })
            .await
    }
}

fn over(id: &str) -> Problem {
    let message = format!("no operation `{id}` goes on");
    Problem::new(ProblemCode::UnknownOperation, message)
}

//! What goes on in the cluster, over HTTP: pause switches.

use std::sync::Arc;

use clusterkit_core::adjust::Adjustment;
use clusterkit_core::pause::Work;

use super::{Answer, ClusterApi, params};
use crate::Method;
use crate::api::v1::{PauseRequest, PausesDocument};
use crate::server::{Request, Response};

impl ClusterApi {
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

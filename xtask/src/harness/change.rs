//! What an operator changes about a running cluster, over HTTP and through any node.

use anyhow::{Context, bail};
use clusterkit_http::client::HttpRequest;
use serde_json::{Value, json};

use super::Cluster;
use super::observe::LOOK_LIMIT;

impl Cluster {
    /// Asks for `id` to be drained: its data moves away, then it may stop.
    pub(crate) async fn drain(&self, id: &str) -> anyhow::Result<()> {
        let through = self.up().into_iter().find(|up| up != id);
        let through = through.context("no other node runs")?;
        let path = format!("/v1/nodes/{id}/drain");
        self.change(&through, &path, None).await
    }

    /// Gives `id` another share of the data.
    pub(crate) async fn set_weight(&self, id: &str, weight: u32) -> anyhow::Result<()> {
        let body = json!({"weight": weight});
        self.change(id, &format!("/v1/nodes/{id}"), Some(body))
            .await
    }

    /// Puts `id` into another failure domain.
    pub(crate) async fn set_zone(&self, id: &str, zone: &str) -> anyhow::Result<()> {
        let body = json!({"zone": zone});
        self.change(id, &format!("/v1/nodes/{id}"), Some(body))
            .await
    }

    /// Asks for another number of copies.
    pub(crate) async fn set_replication_factor(&self, copies: usize) -> anyhow::Result<()> {
        let through = self.up().into_iter().next().context("no node runs")?;
        let body = json!({"replication_factor": copies});
        self.change(&through, "/v1/config", Some(body)).await
    }

    async fn change(&self, through: &str, path: &str, body: Option<Value>) -> anyhow::Result<()> {
        let address = self.member(through)?.address();
        let request = HttpRequest::post(path).within(LOOK_LIMIT);
        let request = match &body {
            Some(body) => request.json_body(body),
            None => request,
        };
        let answer = self.http.send(&address, request).await?;
        if !answer.is_success() {
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            bail!("{through} answered {} to {path}: {body}", answer.status());
        }
        Ok(())
    }
}

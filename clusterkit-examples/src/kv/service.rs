//! The service over HTTP: `/kv/set|get|delete|stats|migrate` for clients, as the example servers of
//! earlier releases spoke it, and `/kv/replicate|recover|obey` between nodes.
//!
//! A request that names the epoch it was routed by (`x-clusterkit-epoch`) is answered 421 when
//! another node is the primary; one that names none is passed on to it. What is decided about a
//! write stands in `replication`. Anybody who reaches the port may use it: put it on a network
//! where that is what you want.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_http::api::{Problem, ProblemCode};
use clusterkit_http::client::HttpResponse;
use clusterkit_http::query::escape_bytes;
use clusterkit_http::server::{Handler, Request, Response};
use clusterkit_http::{Method, headers};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::clock;
use super::engine::{Engine, Receipt, Refused};
use super::migration::NoPage;
use super::peers::{Ask, FORWARDED, PARTITION, PeerError, SERVICE};
use super::record::Record;
use super::replication::{Disobeyed, ORDER_BYTES};
use super::rules;
use super::store::StoreError;
use super::wire;

/// The longest key in bytes, so that one escaped fits the head of a request.
pub(crate) const KEY_MAX_BYTES: usize = 4_096;
const SMALL_BODY_BYTES: usize = 64 << 10;
/// The largest partition that is answered as one document.
const DOCUMENT_MAX_BYTES: usize = 64 << 20;
const PAUSE: Duration = Duration::from_millis(20);
const RAW: &str = "application/octet-stream";

/// Answers the requests of clients and of other nodes.
pub(crate) struct KvService {
    engine: Arc<Engine>,
    node_id: String,
    value_max_bytes: usize,
}

#[derive(Deserialize)]
struct SetRequest {
    key: String,
    value: String,
}

/// A client's request on its way to the primary.
struct Routed<'a> {
    request: &'a Request,
    deadline: Instant,
    /// The client knows the topology, or another node passed the request on: refuse rather than
    /// pass on.
    refuse: bool,
}

impl KvService {
    pub(crate) fn new(engine: Arc<Engine>, node_id: String, value_max_bytes: usize) -> Self {
        Self {
            engine,
            node_id,
            value_max_bytes,
        }
    }

    async fn set(&self, request: &Request) -> Result<Response, Box<Response>> {
        let (key, value) = self.read_set(request).map_err(|problem| refuse(&problem))?;
        self.check_key(&key)?;
        if value.len() > self.value_max_bytes {
            let limit = format!("at most {} bytes", self.value_max_bytes);
            let problem = Problem::invalid("length of value", value.len(), limit);
            return Err(refuse(&problem));
        }
        let routed = self.routed(request, &key).await?;
        let written = self.write(&routed, key, Some(value)).await?;
        Ok(match written {
            Written::Here(receipt) => self.done(&json!({
                "status": "ok",
                "node_id": self.node_id,
                "node": self.node_id,
                "role": "primary",
                "partition": receipt.partition,
                "version": receipt.version.to_string(),
                "token": receipt.token,
            })),
            Written::There(primary) => {
                self.done(&json!({"status": "forwarded", "node_id": primary.id}))
            }
        })
    }

    fn read_set(&self, request: &Request) -> Result<(Bytes, Bytes), Problem> {
        if let Some(key) = request.query().bytes("key") {
            return Ok((Bytes::from(key), request.body().clone()));
        }
        let document: SetRequest = serde_json::from_slice(request.body()).map_err(|error| {
            Problem::new(
                ProblemCode::BadJson,
                format!("the body must be {{\"key\": text, \"value\": text}}: {error}"),
            )
        })?;
        Ok((Bytes::from(document.key), Bytes::from(document.value)))
    }

    async fn delete(&self, request: &Request) -> Result<Response, Box<Response>> {
        let key = self.key_of(request)?;
        let routed = self.routed(request, &key).await?;
        let written = self.write(&routed, key, None).await?;
        let node_id = match &written {
            Written::Here(_) => self.node_id.as_str(),
            Written::There(primary) => primary.id.as_str(),
        };
        Ok(self.done(&json!({"status": "deleted", "node_id": node_id})))
    }

    async fn get(&self, request: &Request) -> Result<Response, Box<Response>> {
        let key = self.key_of(request)?;
        let raw = request.header("accept") == Some(RAW);
        if request.query().text("local").as_deref() == Some("1") {
            return self.get_local(&key, raw).await;
        }
        let routed = self.routed(request, &key).await?;
        loop {
            let primary = match self.engine.read(&key).await {
                Ok(record) => return self.found(&key, record, raw, None),
                Err(refused) => self.elsewhere(&routed, refused).await?,
            };
            let Some(primary) = primary else { continue };
            match self.pass_on(&routed, &primary, &key).await {
                Ok(answer) if !is_retryable(&answer) => return Ok(relay(answer)),
                Ok(answer) if is_over(routed.deadline) => return Ok(relay(answer)),
                Err(error) if is_over(routed.deadline) => {
                    let problem = Problem::new(ProblemCode::NotReady, error);
                    return Err(refuse(&problem));
                }
                Ok(_) | Err(_) => self.wait(routed.deadline).await,
            }
        }
    }

    async fn get_local(&self, key: &Bytes, raw: bool) -> Result<Response, Box<Response>> {
        let topology = self
            .engine
            .topology()
            .map_err(|error| self.refused(error))?;
        let partition = topology.partition(key);
        let role = if topology.is_primary(partition) {
            "primary"
        } else if topology.is_replica(partition) {
            "replica"
        } else if rules::reaches_me(&topology, partition) {
            "joining"
        } else {
            "none"
        };
        let record = self.engine.read_local(partition, key).await;
        let record = record.map_err(|error| self.refused(error))?;
        self.found(key, record, raw, Some(role))
    }

    fn found(
        &self,
        key: &Bytes,
        record: Option<Record>,
        raw: bool,
        role: Option<&str>,
    ) -> Result<Response, Box<Response>> {
        let version = record.as_ref().map(|record| record.version.to_string());
        let Some(value) = record.and_then(|record| record.value) else {
            return Err(Box::new(Response::text(404, "key not found\n")));
        };
        if raw {
            return Ok(Response::binary(200, value));
        }
        let Ok(text) = std::str::from_utf8(&value) else {
            let message = format!(
                "the value of {} bytes is not text: ask for it with `accept: {RAW}`",
                value.len()
            );
            return Err(refuse(&Problem::new(ProblemCode::InvalidArgument, message)));
        };
        let mut document = json!({"key": String::from_utf8_lossy(key), "value": text});
        if let Some(role) = role {
            document["role"] = json!(role);
            document["version"] = json!(version);
            document["node_id"] = json!(self.node_id);
        }
        Ok(self.done(&document))
    }

    fn stats(&self) -> Response {
        let totals = self.engine.store.totals();
        let topology = self.engine.topology().ok();
        let count = |holds: &dyn Fn(PartitionId) -> bool| {
            let all = topology.iter().flat_map(|topology| topology.partitions());
            all.filter(|&partition| holds(partition)).count()
        };
        let primary = count(&|p| topology.as_ref().is_some_and(|t| t.is_primary(p)));
        let replica = count(&|p| topology.as_ref().is_some_and(|t| t.is_replica(p)));
        self.done(&json!({
            "node_id": self.node_id,
            "keys": totals.keys,
            "mode": "sync-quorum",
            "deleted": totals.deleted,
            "bytes": totals.bytes,
            "partitions": {"stored": totals.partitions, "primary": primary, "replica": replica},
            "epoch": topology.as_ref().map(|topology| topology.epoch()),
        }))
    }

    async fn migrate(&self, request: &Request) -> Result<Response, Box<Response>> {
        let query = request.query();
        let text = query.text("partition").unwrap_or_default();
        let number = text.strip_prefix("partition-").unwrap_or(&text);
        let topology = self
            .engine
            .topology()
            .map_err(|error| self.refused(error))?;
        let count = topology.partition_count();
        let partition = number.parse().ok().filter(|&number| number < count);
        let Some(partition) = partition.map(PartitionId) else {
            let limit = format!("partition-0 to partition-{}", count - 1);
            return Err(refuse(&Problem::invalid("partition", text, limit)));
        };
        let Some(epoch) = query.text("epoch") else {
            return self.document(partition).await;
        };
        let number = |name: &str, text: &str| -> Result<u64, Box<Response>> {
            let limit = "a whole number";
            text.parse()
                .map_err(|_| refuse(&Problem::invalid(name, text, limit)))
        };
        let epoch = Epoch(number("epoch", &epoch)?);
        let at = query.text("at").map(|at| number("at", &at)).transpose()?;
        let from = self.sender(request)?;
        let after = query.bytes("after").map(Bytes::from);
        let page = self
            .engine
            .page(partition, from, epoch, at.map(Epoch), after);
        match page.await {
            Ok(page) => Ok(Response::binary(200, page.encode())),
            Err(NoPage::Refused(refused)) => Err(self.refused(refused)),
            Err(error @ NoPage::Early { .. }) => {
                Err(refuse(&Problem::new(ProblemCode::NotReady, error)))
            }
            Err(error @ (NoPage::Moved { .. } | NoPage::Stranger { .. })) => {
                Err(refuse(&Problem::new(ProblemCode::StaleEpoch, error)))
            }
        }
    }

    /// The partition as earlier releases answered it: one document, text only.
    async fn document(&self, partition: PartitionId) -> Result<Response, Box<Response>> {
        let page = self
            .engine
            .store
            .page(partition, None, DOCUMENT_MAX_BYTES)
            .await
            .map_err(|error| self.refused(Refused::Store(error)))?;
        let (entries, more) = page;
        if more {
            let message = format!(
                "partition {partition} is larger than {DOCUMENT_MAX_BYTES} bytes: members copy it in pages"
            );
            return Err(refuse(&Problem::new(ProblemCode::InvalidArgument, message)));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let keys: serde_json::Map<String, serde_json::Value> = entries
            .iter()
            .filter_map(|entry| Some((text(&entry.key), json!(text(entry.record.value.as_ref()?)))))
            .collect();
        Ok(self.done(&json!({
            "partition_id": format!("partition-{partition}"),
            "count": keys.len(),
            "keys": keys,
        })))
    }

    async fn obey(&self, ask: Ask, request: &Request) -> Result<Response, Box<Response>> {
        let from = self.sender(request)?;
        let cluster = request.header(headers::CLUSTER).unwrap_or_default();
        let order = wire::Order::decode(request.body().clone())
            .map_err(|error| refuse(&Problem::new(ProblemCode::BadRequest, error)))?;
        match self.engine.obey(ask, cluster, from, order).await {
            Ok(holdings) => Ok(Response::binary(200, holdings.encode())),
            Err(error) => {
                let (code, epoch) = match &error {
                    Disobeyed::NotReady | Disobeyed::Early { .. } => (ProblemCode::NotReady, None),
                    Disobeyed::Cluster { .. } => (ProblemCode::WrongCluster, None),
                    Disobeyed::Stale { epoch, .. } => (ProblemCode::StaleEpoch, Some(*epoch)),
                    Disobeyed::Store(StoreError::Busy { .. }) => (ProblemCode::TooMany, None),
                    Disobeyed::Store(_) => (ProblemCode::Internal, None),
                };
                let problem = Problem::new(code, error).with_epoch(epoch.unwrap_or_default());
                Err(refuse(&problem))
            }
        }
    }

    fn sender(&self, request: &Request) -> Result<RaftId, Box<Response>> {
        let text = request.header(headers::FROM).unwrap_or_default();
        let limit = "the internal id of a member";
        text.parse()
            .map(RaftId)
            .map_err(|_| refuse(&Problem::invalid(headers::FROM, text, limit)))
    }

    fn key_of(&self, request: &Request) -> Result<Bytes, Box<Response>> {
        let key = Bytes::from(request.query().bytes("key").unwrap_or_default());
        self.check_key(&key)?;
        Ok(key)
    }

    fn check_key(&self, key: &[u8]) -> Result<(), Box<Response>> {
        if key.is_empty() {
            return Err(Box::new(Response::text(400, "key required\n")));
        }
        if key.len() > KEY_MAX_BYTES {
            let limit = format!("1 to {KEY_MAX_BYTES} bytes");
            return Err(refuse(&Problem::invalid("length of key", key.len(), limit)));
        }
        if std::str::from_utf8(key).is_err() {
            let lossy = String::from_utf8_lossy(key);
            return Err(refuse(&Problem::invalid("key", lossy, "UTF-8 text")));
        }
        Ok(())
    }

    /// Reads how a request was routed, and waits a moment when its sender knows more than we do.
    async fn routed<'a>(
        &self,
        request: &'a Request,
        key: &[u8],
    ) -> Result<Routed<'a>, Box<Response>> {
        let patience = self.engine.patience;
        let deadline = clock::deadline(patience.request);
        let mut topology = self
            .engine
            .topology()
            .map_err(|error| self.refused(error))?;
        let partition = topology.partition(key);
        if let Some(claimed) = request.header(PARTITION)
            && claimed.strip_prefix("partition-").unwrap_or(claimed) != partition.to_string()
        {
            let limit = format!("{partition}: the client hashes keys in another way");
            return Err(refuse(&Problem::invalid(PARTITION, claimed, limit)));
        }
        let mut refuse_others = request.header(FORWARDED).is_some();
        if let Some(text) = request.header(headers::EPOCH) {
            let limit = "a whole number";
            let epoch: u64 = text
                .trim_matches('"')
                .parse()
                .map_err(|_| refuse(&Problem::invalid(headers::EPOCH, text, limit)))?;
            refuse_others = true;
            if topology.epoch() < Epoch(epoch) {
                let newer = async {
                    while topology.epoch() < Epoch(epoch) {
                        topology = self.engine.cluster.changed(topology.epoch()).await;
                    }
                };
                // When it does not come, what is known here has to do.
                let _ = timeout(patience.catch_up, newer).await;
            }
        }
        Ok(Routed {
            request,
            deadline,
            refuse: refuse_others,
        })
    }

    async fn write(
        &self,
        routed: &Routed<'_>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<Written, Box<Response>> {
        loop {
            let written = self
                .engine
                .write(key.clone(), value.clone(), routed.deadline)
                .await;
            let primary = match written {
                Ok(receipt) => return Ok(Written::Here(receipt)),
                Err(refused) => self.elsewhere(routed, refused).await?,
            };
            let Some(primary) = primary else { continue };
            match self.pass_on(routed, &primary, &key).await {
                Ok(answer) if answer.is_success() => return Ok(Written::There(primary)),
                Ok(answer) if !is_retryable(&answer) => return Err(Box::new(relay(answer))),
                Ok(answer) if is_over(routed.deadline) => return Err(Box::new(relay(answer))),
                Err(error) if !error.is_unsent() => {
                    let problem = Problem::new(ProblemCode::OutcomeUnknown, error);
                    return Err(refuse(&problem));
                }
                Err(error) if is_over(routed.deadline) => {
                    let problem = Problem::new(ProblemCode::NotReady, error);
                    return Err(refuse(&problem));
                }
                Ok(_) | Err(_) => self.wait(routed.deadline).await,
            }
        }
    }

    /// Returns who to pass a refused request on to; none to try again here.
    async fn elsewhere(
        &self,
        routed: &Routed<'_>,
        refused: Refused,
    ) -> Result<Option<Arc<Node>>, Box<Response>> {
        match refused {
            Refused::NotPrimary { primary, .. } if !routed.refuse => Ok(Some(primary)),
            Refused::NoPrimary { .. } if !routed.refuse && !is_over(routed.deadline) => {
                self.wait(routed.deadline).await;
                Ok(None)
            }
            refused => Err(self.refused(refused)),
        }
    }

    /// Waits for a newer topology, a moment at most.
    async fn wait(&self, deadline: Instant) {
        let Ok(topology) = self.engine.topology() else {
            return sleep(PAUSE).await;
        };
        let until = clock::deadline(PAUSE).min(deadline);
        // Whether it changed or not: the request is tried again.
        let _ = timeout_at(until, self.engine.cluster.changed(topology.epoch())).await;
    }

    async fn pass_on(
        &self,
        routed: &Routed<'_>,
        primary: &Node,
        key: &[u8],
    ) -> Result<HttpResponse, PeerError> {
        let request = routed.request;
        let mut target = request.path().to_owned();
        if request.query().bytes("key").is_some() {
            target.push_str("?key=");
            target.push_str(&escape_bytes(key));
        }
        self.engine
            .peers
            .forward(
                primary,
                request.method(),
                target,
                request.body().clone(),
                request.header("accept"),
                clock::left(routed.deadline),
            )
            .await
    }

    fn done(&self, document: &serde_json::Value) -> Response {
        let answer = Response::json(200, &document);
        match self.engine.cluster.topology() {
            Some(topology) => answer.header(headers::EPOCH, topology.epoch().to_string()),
            None => answer,
        }
    }

    fn refused(&self, refused: Refused) -> Box<Response> {
        let code = match &refused {
            Refused::NotReady
            | Refused::NoPrimary { .. }
            | Refused::Busy { .. }
            | Refused::Unproven { .. } => ProblemCode::NotReady,
            Refused::NotPrimary { .. } => ProblemCode::StaleRoute,
            Refused::Unknown { .. } => ProblemCode::OutcomeUnknown,
            Refused::Store(StoreError::Busy { .. }) => ProblemCode::TooMany,
            Refused::Store(_) => ProblemCode::Internal,
        };
        let epoch = self.engine.cluster.topology().map(|t| t.epoch());
        let problem = Problem::new(code, &refused).with_epoch(epoch.unwrap_or_default());
        let Refused::NotPrimary {
            partition,
            epoch,
            primary,
        } = refused
        else {
            return refuse(&problem);
        };
        let mut document = json!(problem);
        document["route"] = json!({
            "partition": partition,
            "primary": {
                "id": primary.id,
                "address": primary.address,
                "services": {SERVICE: primary.service(SERVICE)},
            },
        });
        let answer = Response::json(problem.status(), &document);
        Box::new(answer.header(headers::EPOCH, epoch.to_string()))
    }
}

/// Where a write was made.
enum Written {
    Here(Receipt),
    There(Arc<Node>),
}

/// Boxed, as every refusal: the way of an answer that is none stays cheap.
fn refuse(problem: &Problem) -> Box<Response> {
    Box::new(Response::json(problem.status(), problem))
}

/// Tells whether another node certainly did not act and may do so later, or a third one may.
fn is_retryable(answer: &HttpResponse) -> bool {
    matches!(answer.status(), 421 | 429 | 503)
}

fn is_over(deadline: Instant) -> bool {
    clock::left(deadline).is_zero()
}

fn relay(answer: HttpResponse) -> Response {
    let kind = match answer.header("content-type") {
        Some(kind) if kind.starts_with("text/plain") => "text/plain; charset=utf-8",
        Some(RAW) => RAW,
        _ => "application/json",
    };
    Response::typed(answer.status(), kind, answer.into_body())
}

#[async_trait]
impl Handler for KvService {
    fn body_limit_bytes(&self, _: Method, path: &str) -> usize {
        match path {
            // As JSON a value may take more room than it has bytes.
            "/kv/set" => self.value_max_bytes * 2 + SMALL_BODY_BYTES,
            "/kv/replicate" => self.value_max_bytes + ORDER_BYTES + SMALL_BODY_BYTES,
            _ => SMALL_BODY_BYTES,
        }
    }

    async fn handle(&self, request: Request) -> Response {
        let allowed: &[Method] = match request.path() {
            "/kv/set" => &[Method::Post, Method::Put],
            "/kv/delete" => &[Method::Get, Method::Post, Method::Delete],
            "/kv/replicate" | "/kv/recover" | "/kv/obey" => &[Method::Post],
            "/kv/get" | "/kv/stats" | "/kv/migrate" | "/health" => &[Method::Get, Method::Head],
            path => {
                let message = format!("there is no path `{path}`");
                return *refuse(&Problem::new(ProblemCode::NotFound, message));
            }
        };
        if !allowed.contains(&request.method()) {
            let names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
            let message = format!("{} is not allowed on {}", request.method(), request.path());
            let problem = Problem::new(ProblemCode::MethodNotAllowed, message);
            return (*refuse(&problem)).header("allow", names.join(", "));
        }
        let answered = match request.path() {
            "/kv/set" => self.set(&request).await,
            "/kv/get" => self.get(&request).await,
            "/kv/delete" => self.delete(&request).await,
            "/kv/migrate" => self.migrate(&request).await,
            "/kv/replicate" => self.obey(Ask::Replicate, &request).await,
            "/kv/recover" => self.obey(Ask::Recover, &request).await,
            "/kv/obey" => self.obey(Ask::Obey, &request).await,
            "/kv/stats" => Ok(self.stats()),
            _ => Ok(Response::json(
                200,
                &json!({"success": true, "message": "healthy"}),
            )),
        };
        answered.unwrap_or_else(|refused| *refused)
    }

    fn refuse(&self, status: u16, message: &str) -> Response {
        let code = match status {
            413 => ProblemCode::BodyTooLarge,
            408 => ProblemCode::RequestTimeout,
            500 => ProblemCode::Internal,
            503 => ProblemCode::TooMany,
            _ => ProblemCode::BadRequest,
        };
        Response::json(status, &Problem::new(code, message))
    }
}

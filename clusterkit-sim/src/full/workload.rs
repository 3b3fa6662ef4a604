//! What the clients of a run do, and what came of it.
//!
//! Values are numbers that no two writes share, so that whoever reads one knows who wrote it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_client::{CallError, Client, HttpSource, HttpSourceLimits, Target};
use clusterkit_core::id::LogIndex;
use clusterkit_http::client::{ClientLimits, HttpClient, HttpError, HttpRequest, HttpResponse};
use clusterkit_http::{Method, headers};

use super::program::Client as SimClient;
use crate::check::{Answer, Call, Ending, Expected, History, Seen, Ticket, Value, Version};

/// How long a call may take, and one attempt of it.
const CALL_LIMIT: Duration = Duration::from_secs(2);
const ATTEMPT_LIMIT: Duration = Duration::from_millis(500);
/// How long a client rests between two calls, at most.
const REST: Duration = Duration::from_millis(60);

/// What the clients share.
#[derive(Debug)]
pub(super) struct Workload {
    keys: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the key-value service and of custom data.
    records: History,
    data: History,
    next_value: u64,
    /// The entity tag of some topology, early in the run.
    tag: Option<String>,
}

/// Which of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Records,
    Data,
}

impl Workload {
    pub(super) fn new(keys: u64) -> Self {
        Self {
            keys,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was recorded of the key-value service and of custom data.
    pub(super) fn take(&self) -> (History, History) {
        let mut state = self.lock();
        let state = &mut *state;
        (
            std::mem::take(&mut state.records),
            std::mem::take(&mut state.data),
        )
    }

    /// Returns the entity tag of some early topology.
    pub(super) fn tag(&self) -> Option<String> {
        self.lock().tag.clone()
    }

    /// Returns the keys of the key-value service.
    pub(super) fn record_keys(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.keys).map(|number| format!("k{number}"))
    }

    fn value(&self) -> u64 {
        let mut state = self.lock();
        state.next_value += 1;
        state.next_value
    }
}

impl State {
    fn history(&mut self, service: Service) -> &mut History {
        match service {
            Service::Records => &mut self.records,
            Service::Data => &mut self.data,
        }
    }
}

/// One client.
struct Worker<'a> {
    me: SimClient,
    work: &'a Workload,
    http: HttpClient,
    client: Client,
    /// What it saw last under each key of the data.
    seen: Vec<Option<LogIndex>>,
}

/// Runs the client `me` until it is told to stop.
pub(super) async fn run(me: SimClient, work: &Workload) {
    let http = HttpClient::over(me.network(), ClientLimits::default());
    let client = loop {
        if me.is_closing() {
            return;
        }
        let limits = HttpSourceLimits {
            request: Duration::from_millis(500),
            silence: Duration::from_secs(5),
        };
        let connecting = Client::builder(me.seeds().iter().map(String::as_str))
            .source(HttpSource::over(me.network(), limits))
            .attempt_timeout(ATTEMPT_LIMIT)
            .call_deadline(CALL_LIMIT)
            .connect();
        match connecting.await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    note_tag(&http, &client, work).await;
    let mut worker = Worker {
        me,
        work,
        http,
        client,
        seen: Vec::new(),
    };
    while !worker.me.is_closing() {
        let rest = worker.me.rng().duration(Duration::ZERO..=REST);
        tokio::time::sleep(rest).await;
        worker.act().await;
    }
}

/// Asks for the topology and remembers its entity tag, unless that is known.
async fn note_tag(http: &HttpClient, client: &Client, work: &Workload) {
    let topology = client.topology();
    let (Some(node), None) = (topology.nodes().first(), work.tag()) else {
        return;
    };
    let request = HttpRequest::get("/v1/topology").within(ATTEMPT_LIMIT);
    if let Ok(answer) = http.send(&node.address, request).await
        && answer.is_success()
    {
        let tag = answer.header("etag").map(str::to_owned);
        work.lock().tag = tag;
    }
}

impl Worker<'_> {
    fn begin(&self, service: Service, key: &str, call: Call) -> Ticket {
        let (client, now) = (self.me.number(), self.me.true_time());
        let mut state = self.work.lock();
        state.history(service).invoke(client, key, call, now)
    }

    fn end(&self, service: Service, ticket: Ticket, ending: Ending) {
        let now = self.me.true_time();
        let mut state = self.work.lock();
        state.history(service).ended(ticket, now, ending);
    }

    async fn act(&mut self) {
        match self.me.rng().below(100) {
            0..40 => self.put().await,
            40..48 => self.delete().await,
            48..75 => self.get().await,
            75..90 => self.compare_and_set().await,
            _ => self.read_data().await,
        }
    }

    fn key(&mut self) -> String {
        format!("k{}", self.me.rng().below(self.work.keys))
    }

    async fn put(&mut self) {
        let key = self.key();
        let value = self.work.value();
        let call = Call::Write(Value(value));
        let ticket = self.begin(Service::Records, &key, call);
        let request =
            HttpRequest::post(format!("/kv/set?key={key}")).body(Bytes::from(value.to_string()));
        let ending = self.write(&key, request).await;
        self.end(Service::Records, ticket, ending);
    }

    async fn delete(&mut self) {
        let key = self.key();
        let ticket = self.begin(Service::Records, &key, Call::Delete);
        let request = HttpRequest::new(Method::Delete, format!("/kv/delete?key={key}"));
        let ending = self.write(&key, request).await;
        self.end(Service::Records, ticket, ending);
    }

    async fn write(&self, key: &str, request: HttpRequest) -> Ending {
        // Not idempotent: a second try after a lost answer could undo what others wrote between.
        let sent = self
            .client
            .call(key.as_bytes())
            .idempotent(false)
            .send(|target| {
                let request = routed(request.clone(), &target);
                self.service(target, request)
            });
        match sent.await {
            Ok(_) => Ending::Done(Answer::Written(None)),
            Err(error) => ending(&error),
        }
    }

    async fn get(&mut self) {
        let key = self.key();
        // A primary whose clock is so slow trusts a token that others know to be over.
        let fresh = self.me.clocks_are_kept();
        let call = Call::Read { fresh };
        let ticket = self.begin(Service::Records, &key, call);
        let sent = self
            .client
            .call(key.as_bytes())
            .idempotent(true)
            .send(|target| {
                let request = HttpRequest::get(format!("/kv/get?key={key}"))
                    .header("accept", "application/octet-stream");
                let request = routed(request, &target);
                self.service(target, request)
            });
        let ending = match sent.await {
            Ok(answer) if answer.status() == 404 => Ending::Done(Answer::Found(Seen::Absent)),
            Ok(answer) => {
                let value = Value::of(answer.body());
                Ending::Done(Answer::Found(Seen::Value(value, None)))
            }
            Err(_) => Ending::Failed,
        };
        self.end(Service::Records, ticket, ending);
    }

    /// Sends `request` to the key-value service of `target`.
    async fn service(
        &self,
        target: Target,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let address = target.service("kv").map(std::borrow::Cow::into_owned);
        let address = address.ok_or_else(|| HttpError::Invalid {
            field: "services.kv",
            value: target.id().to_string(),
            limit: "announced by the node",
        })?;
        let sent = self.http.send(&address, request.within(ATTEMPT_LIMIT));
        let answer = sent.await?;
        if answer.status() == 404 {
            return Ok(answer);
        }
        answer.require_success(&address)
    }

    /// Asks any node about custom data.
    async fn ask(&mut self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let topology = self.client.topology();
        let nodes: Vec<String> = topology
            .nodes()
            .iter()
            .map(|n| n.address.to_string())
            .collect();
        let nodes = match nodes.is_empty() {
            true => self.me.seeds().to_vec(),
            false => nodes,
        };
        let address = self.me.rng().pick(&nodes).cloned().unwrap_or_default();
        self.http.send(&address, request.within(CALL_LIMIT)).await
    }

    async fn compare_and_set(&mut self) {
        let number = self.me.rng().index(3);
        self.seen.resize(3, None);
        let key = format!("d{number}");
        let value = self.work.value();
        let expected = match self.seen[number] {
            None => Expected::Absent,
            Some(version) => Expected::Version(Version::from(version)),
        };
        let call = Call::CompareAndSet {
            expected,
            value: Some(Value(value)),
        };
        let ticket = self.begin(Service::Data, &key, call);
        let mut request = HttpRequest::new(Method::Put, format!("/v1/data/{key}"))
            .body(Bytes::from(value.to_string()));
        request = match self.seen[number] {
            None => request.header("if-none-match", "*"),
            Some(version) => request.header("if-match", format!("\"{version}\"")),
        };
        let ending = match self.ask(request).await {
            Ok(answer) if answer.is_success() => {
                let version = version_of(&answer);
                self.seen[number] = version;
                Ending::Done(Answer::Written(version.map(Version::from)))
            }
            Ok(answer) if answer.status() == 412 => {
                self.seen[number] = None;
                Ending::Done(Answer::Mismatch(Seen::Unsaid))
            }
            Ok(answer) if answer.status() < 500 => Ending::Failed,
            Ok(_) => Ending::Unknown,
            Err(error) if error.is_retryable() => Ending::Failed,
            Err(_) => Ending::Unknown,
        };
        self.end(Service::Data, ticket, ending);
        if ending == Ending::Done(Answer::Mismatch(Seen::Unsaid)) {
            self.read(number).await;
        }
    }

    async fn read_data(&mut self) {
        let number = self.me.rng().index(3);
        self.read(number).await;
    }

    async fn read(&mut self, number: usize) {
        self.seen.resize(3, None);
        let key = format!("d{number}");
        let call = Call::Read { fresh: true };
        let ticket = self.begin(Service::Data, &key, call);
        let request = HttpRequest::get(format!("/v1/data/{key}?consistent=1"));
        let ending = match self.ask(request).await {
            Ok(answer) if answer.is_success() => {
                let version = version_of(&answer);
                self.seen[number] = version;
                let value = Value::of(answer.body());
                Ending::Done(Answer::Found(Seen::Value(
                    value,
                    version.map(Version::from),
                )))
            }
            Ok(answer) if answer.status() == 404 => {
                self.seen[number] = None;
                Ending::Done(Answer::Found(Seen::Absent))
            }
            Ok(_) | Err(_) => Ending::Failed,
        };
        self.end(Service::Data, ticket, ending);
    }
}

/// Says by which topology `request` was routed.
fn routed(request: HttpRequest, target: &Target) -> HttpRequest {
    request.header(headers::EPOCH, target.topology().epoch().to_string())
}

fn version_of(answer: &HttpResponse) -> Option<LogIndex> {
    let tag = answer.header("etag")?;
    tag.trim_matches('"').parse().ok().map(LogIndex)
}

fn ending(error: &CallError<HttpError>) -> Ending {
    match error {
        CallError::Unknown { .. } => Ending::Unknown,
        _ => Ending::Failed,
    }
}

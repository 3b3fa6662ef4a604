//! The example key-value service as the [`Program`] of a run, with custom data beside it.
//!
//! `workload` is what its clients do; what they saw is judged at the end by [`crate::check`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clusterkit_client::{Client as Router, HttpSource, HttpSourceLimits};
use clusterkit_core::id::RaftId;
use clusterkit_examples::kv::{HookUp, KvNode, KvOptions, StoreKind};
use clusterkit_http::client::{ClientLimits, HttpClient, HttpRequest};

use super::program::{Cast, Client, Process, Program, ProgramError};
use super::workload::{self, Workload};
use crate::check::Value;
use crate::check::linear::{self, Linear};
use crate::check::records::{self, Copies, Losses};
use crate::{Rng, Violation};

/// Where keys are served.
const KV_PORT: u16 = 9_080;
/// How many situations the search for an order may look at, for each key.
const LINEAR_STEPS: u64 = 100_000;
/// How long after quiet copies may differ: the service looks for unfinished writes every two
/// seconds and is done with one within five.
const COPIES_MAX: Duration = Duration::from_secs(15);
/// How long to wait before copies that differ are looked at again.
const COPIES_PAUSE: Duration = Duration::from_millis(250);
/// How long one look at a copy may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// The service on all nodes, and its clients.
#[derive(Debug)]
struct Kv {
    shape: Shape,
    workload: Workload,
}

/// What all nodes are told alike.
#[derive(Clone, Debug)]
struct Shape {
    partitions: u32,
    copies: u32,
    expect: usize,
    repair_delay: Duration,
}

/// Returns the service for a cluster of `nodes`, as `rng` says.
pub(super) fn cast(rng: &mut Rng, nodes: u32) -> Cast {
    let shape = Shape {
        partitions: [4, 8, 8, 16][rng.index(4)],
        copies: nodes.min([3, 3, 3, 2][rng.index(4)]),
        expect: usize::try_from(nodes).unwrap_or(1),
        repair_delay: rng.duration(Duration::from_millis(500)..=Duration::from_secs(4)),
    };
    let about = format!("{shape:?}");
    let workload = Workload::new(rng.within(2..=12));
    let clients = u32::try_from(rng.within(1..=3)).unwrap_or(1);
    Cast::new(Kv { shape, workload }, about, clients)
}

#[async_trait]
impl Program for Kv {
    async fn node(&self, process: Process) -> Result<(), ProgramError> {
        let process = Arc::new(process);
        let address = process.address(KV_PORT);
        let mut options = KvOptions::new(process.id(), "", address);
        options.environment = process.environment();
        let watching = Arc::clone(&process);
        options.hook_up = HookUp::new(move |node, hooks| node.hooks(watching.watched(hooks)));
        options.store = StoreKind::Redb(process.directory());
        options.node = process
            .options()
            .partitions(self.shape.partitions)
            .replication_factor(self.shape.copies)
            .repair_delay(self.shape.repair_delay)
            .expect(self.shape.expect);
        let node = KvNode::start(options)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let cluster = node.cluster().clone();
        process.started(&cluster);
        tokio::select! {
            biased;
            () = process.stopped() => {}
            () = cluster.left() => {}
            () = node.failed() => {
                node.stop().await;
                return Err("the disk under the records failed".into());
            }
        }
        node.stop().await;
        Ok(())
    }

    async fn client(&self, client: Client) {
        workload::run(client, &self.workload).await;
    }

    async fn verify(&self, client: Client) -> Result<(), Violation> {
        let (history, data) = self.workload.take();
        if let Linear::Undecided(keys) = linear::check(&data, LINEAR_STEPS)? {
            client
                .observer()
                .note(format_args!("no order was found in time for {keys:?}"));
        }
        if client.disks_lost() > 0 {
            // Whether the last copy of a record was on a disk that is gone is not worked out.
            return Ok(());
        }
        let losses = Losses::new();
        records::check(&history, &losses)?;
        let router = self.router(&client).await?;
        self.check_tags(&client, &router).await?;
        let until = client.true_time() + COPIES_MAX;
        loop {
            let judged = match self.copies(&client, &router).await {
                Ok(copies) => records::check_final(&history, &losses, &copies, client.true_time()),
                Err(unreadable) => Err(unreadable),
            };
            match judged {
                // A write that some copies lack is finished by the primary without being asked, and
                // a member that was drained may leave while it is asked.
                Err(found)
                    if matches!(&*found.rule, "replicas-differ" | "copy-unreadable")
                        && client.true_time() < until =>
                {
                    tokio::time::sleep(COPIES_PAUSE).await;
                }
                judged => return judged,
            }
        }
    }
}

impl Kv {
    /// Returns a client that knows the topology.
    async fn router(&self, client: &Client) -> Result<Router, Violation> {
        let source = HttpSource::over(client.network(), HttpSourceLimits::default());
        let seeds = client.seeds().iter().map(String::as_str);
        let router = Router::builder(seeds).source(source).connect().await;
        router.map_err(|error| Violation::new("no-topology", error, client.true_time()))
    }

    /// Asks every node for the topology with the entity tag of an early one.
    async fn check_tags(&self, client: &Client, router: &Router) -> Result<(), Violation> {
        let Some(tag) = self.workload.tag() else {
            return Ok(());
        };
        let http = HttpClient::over(client.network(), ClientLimits::default());
        let topology = router.topology();
        let epoch = topology.epoch();
        let right = if tag == format!("\"{epoch}\"") {
            304
        } else {
            200
        };
        for node in topology.nodes().iter().filter(|node| node.status.is_live()) {
            let request = HttpRequest::get("/v1/topology")
                .header("if-none-match", tag.as_str())
                .within(LOOK_LIMIT);
            let answer = http.send(&node.address, request).await;
            let answer = answer.map(|answer| answer.status());
            if !matches!(answer, Ok(status) if status == right) {
                let detail = format!(
                    "{} at epoch {epoch} answers {answer:?} to whoever has {tag}, not {right}",
                    node.id
                );
                return Err(Violation::new("etag-lies", detail, client.true_time()));
            }
        }
        Ok(())
    }

    /// Asks every node for its copy of every key.
    async fn copies(&self, client: &Client, router: &Router) -> Result<Vec<Copies>, Violation> {
        let topology = router.topology();
        let http = HttpClient::over(client.network(), ClientLimits::default());
        let mut all = Vec::new();
        for key in self.workload.record_keys() {
            let partition = topology.partition(key.as_bytes());
            let mut copies: BTreeMap<RaftId, Option<Value>> = BTreeMap::new();
            for member in topology.members(partition) {
                let Some(address) = member.service("kv") else {
                    continue;
                };
                let found = look(&http, address, &key).await.map_err(|error| {
                    let detail = format!("`{key}` at {address}: {error}");
                    Violation::new("copy-unreadable", detail, client.true_time())
                })?;
                copies.insert(member.raft_id, found);
            }
            let copies = copies.into_iter().collect();
            all.push(Copies { key, copies });
        }
        Ok(all)
    }
}

/// Returns what the node at `address` itself holds under `key`.
async fn look(http: &HttpClient, address: &str, key: &str) -> Result<Option<Value>, String> {
    let request = HttpRequest::get(format!("/kv/get?key={key}&local=1"))
        .header("accept", "application/octet-stream")
        .within(LOOK_LIMIT);
    match http.send(address, request).await {
        Ok(answer) if answer.status() == 404 => Ok(None),
        Ok(answer) if answer.is_success() => Ok(Some(Value::of(answer.body()))),
        Ok(answer) => Err(format!("status {}", answer.status())),
        Err(error) => Err(error.to_string()),
    }
}

//! A node of the service: the embedded member of the cluster, the store and the listener together.
//!
//! How options come about from flags and the environment is in `args`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clusterkit::disk::Directory;
use clusterkit::{
    ChangeStage, ClusterKit, Environment, Execution, HookResult, Hooks, NoToken, Options,
    PartitionChange,
};
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::topology::Topology;
use clusterkit_http::server::{RunningServer, Server, ServerLimits};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::engine::{Engine, Patience};
use super::migration::Copied;
use super::peers::SERVICE;
use super::service::KvService;
use super::store::{FileStore, MemoryStore, Store};
use super::tasks::Background;

/// The largest value unless told otherwise, in bytes (8 MiB).
pub const VALUE_MAX_BYTES: usize = 8 << 20;
/// How many connections are open at once unless told otherwise.
pub const CONNECTIONS_MAX: usize = 2_048;

/// How long requests in flight may take to finish when the node stops.
const DRAIN_REQUESTS: Duration = Duration::from_secs(2);

/// Where values are kept.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum StoreKind {
    /// In memory: a restarted node copies everything from the others.
    #[default]
    Memory,
    /// In the file `kv.redb` of this directory, durable when a write is acknowledged.
    Redb(Arc<dyn Directory>),
}

/// How the hooks of the service get into the options of its member of the cluster. A simulation puts
/// a subscriber of its own around them.
#[derive(Clone)]
pub struct HookUp(Arc<dyn Fn(Options, Hooks) -> Options + Send + Sync>);

impl HookUp {
    /// Returns `hook_up`, which must see to it that every call reaches the hooks it is given.
    pub fn new(hook_up: impl Fn(Options, Hooks) -> Options + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook_up))
    }
}

impl Default for HookUp {
    fn default() -> Self {
        Self::new(|options, hooks| options.hooks(hooks))
    }
}

impl fmt::Debug for HookUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookUp").finish_non_exhaustive()
    }
}

/// What a node of the service is started with.
#[derive(Debug)]
#[non_exhaustive]
pub struct KvOptions {
    /// The member of the cluster; its service `kv` and its hooks are set here.
    pub node: Options,
    /// The operator's id, as `node` has it: answers name it.
    pub node_id: String,
    /// Where clients are served: `host:port`, or `:port` for every interface; port 0 is a free one.
    pub listen: String,
    /// What others are told, where it differs from `listen`: `host:port`.
    pub advertise: Option<String>,
    /// Where values are kept. Default in memory.
    pub store: StoreKind,
    /// The largest value in bytes. Default [`VALUE_MAX_BYTES`]. The same on every node: a smaller
    /// one elsewhere refuses what it should copy.
    pub value_max_bytes: usize,
    /// How many connections are open at once; further ones are answered 503. Default
    /// [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// What the service and its member of the cluster take from the machine.
    pub environment: Environment,
    /// How the hooks of the service are set. Default: as they are.
    pub hook_up: HookUp,
}

impl KvOptions {
    /// Returns the options of the node `node_id`, which serves keys on `listen` and its cluster on
    /// `address`, with values in memory.
    pub fn new(
        node_id: impl Into<String>,
        address: impl Into<String>,
        listen: impl Into<String>,
    ) -> Self {
        let node_id = node_id.into();
        Self {
            node: Options::new(node_id.clone(), address),
            node_id,
            listen: listen.into(),
            advertise: None,
            store: StoreKind::Memory,
            value_max_bytes: VALUE_MAX_BYTES,
            connections_max: CONNECTIONS_MAX,
            environment: Environment::default(),
            hook_up: HookUp::default(),
        }
    }
}

/// A running node of the service. Dropping it without [`shutdown`](Self::shutdown) or
/// [`stop`](Self::stop) ends the listener; the embedded node ends with its last handle.
#[derive(Debug)]
pub struct KvNode {
    cluster: ClusterKit,
    seam: Arc<Embedded>,
    file: Option<Arc<FileStore>>,
    address: String,
    server: RunningServer,
    execution: Execution,
    background: Background,
}

impl KvNode {
    /// Starts a node: binds, opens the store, becomes a member of the cluster.
    ///
    /// # Errors
    /// Any of these steps' errors; nothing stays bound or open.
    ///
    /// # Cancel safety
    /// As [`ClusterKit::start`].
    pub async fn start(options: KvOptions) -> anyhow::Result<Self> {
        let environment = options.environment;
        let execution = environment.execution;
        let bound = Server::bind_on(&*environment.network, &options.listen).await?;
        let port = bound.local_addr().port();
        let address = options.advertise.clone();
        let address = address.unwrap_or_else(|| announced(&options.listen, port));

        let file = match &options.store {
            StoreKind::Memory => None,
            StoreKind::Redb(directory) => {
                let directory = Arc::clone(directory);
                let opened = execution
                    .run(move || FileStore::open(directory, execution))
                    .await;
                Some(Arc::new(opened.map_err(panicked)??))
            }
        };
        let store: Arc<dyn Store> = match &file {
            Some(file) => file.clone(),
            None => Arc::new(MemoryStore::default()),
        };
        let seam = Arc::new(Embedded::default());
        let engine = Engine::new(
            seam.clone(),
            store,
            &environment.network,
            Patience::default(),
        );
        let service = KvService::new(
            Arc::clone(&engine),
            options.node_id,
            options.value_max_bytes,
        );
        let mut limits = ServerLimits::default();
        limits.connections = options.connections_max;
        // It answers 503 until the node has joined; others may hear of this address before.
        let server = bound.serve(Arc::new(service), limits);

        let hooks = hooks(Arc::clone(&engine), seam.clone());
        let HookUp(hook_up) = options.hook_up;
        let node = options
            .node
            .service(SERVICE, &address)
            .environment(environment);
        let node = hook_up(node, hooks);
        let cluster = match ClusterKit::start(node).await {
            Ok(cluster) => cluster,
            Err(error) => {
                // The file must be free again for the next attempt.
                close(execution, file).await;
                return Err(error.into());
            }
        };
        if let Some(file) = &file
            && let Err(error) = claim(execution, file, &cluster).await
        {
            cluster.stop().await;
            close(execution, Some(Arc::clone(file))).await;
            return Err(error);
        }
        seam.0.send_replace(Some(cluster.clone()));
        let background = Background::spawn(async move { engine.run().await });
        Ok(Self {
            cluster,
            seam,
            file,
            address,
            server,
            execution,
            background,
        })
    }

    /// Returns the embedded node.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterKit {
        &self.cluster
    }

    /// Returns the address of the service, as announced.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Resolves once this node cannot keep records any more, because its disk failed or is full: stop
    /// it, so that others take over what it was primary of, and start it again once the disk is well.
    /// Never for a store in memory.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn failed(&self) {
        match &self.file {
            Some(file) => file.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Stops: leaves the cluster first, unless its options say otherwise; keys are served until
    /// others hold them.
    ///
    /// # Cancel safety
    /// Dropping the future ends the listener at once.
    pub async fn shutdown(self) {
        self.cluster.shutdown().await;
        self.end().await;
    }

    /// Stops at once, as a crash would look to the others.
    ///
    /// # Cancel safety
    /// Dropping the future ends the listener at once.
    pub async fn stop(self) {
        self.cluster.stop().await;
        self.end().await;
    }

    async fn end(self) {
        self.background.stop().await;
        self.server.shutdown(DRAIN_REQUESTS).await;
        // The node's hooks hold the seam and the seam holds the node: without this neither ends.
        self.seam.0.send_replace(None);
        close(self.execution, self.file).await;
    }
}

/// Returns the address of the service that others are told, bound to `port`.
fn announced(listen: &str, port: u16) -> String {
    let host = listen.rsplit_once(':').map_or("", |(host, _)| host);
    match host {
        "0.0.0.0" | "[::]" => format!(":{port}"),
        host => format!("{host}:{port}"),
    }
}

fn panicked(panic: String) -> anyhow::Error {
    anyhow::Error::msg(panic).context("the store panicked")
}

async fn close(execution: Execution, file: Option<Arc<FileStore>>) {
    if let Some(file) = file {
        // A panic of it has been reported.
        let _ = execution.run(move || file.close()).await;
    }
}

async fn claim(
    execution: Execution,
    file: &Arc<FileStore>,
    cluster: &ClusterKit,
) -> anyhow::Result<()> {
    let topology = cluster.topology();
    let me = topology
        .this_node()
        .context("the topology of a member names it")?;
    let owner = format!("{} {}", topology.cluster(), me.raft_id);
    let file = Arc::clone(file);
    let claimed = execution.run(move || file.claim(&owner)).await;
    Ok(claimed.map_err(panicked)??)
}

/// The embedded node as a source of topologies, none before it has started.
#[derive(Debug)]
struct Embedded(watch::Sender<Option<ClusterKit>>);

impl Default for Embedded {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Embedded {
    async fn started(&self) -> ClusterKit {
        let mut started = self.0.subscribe();
        // The sender is `self`, so this ends with the wait for it or not at all.
        let found = started.wait_for(Option::is_some).await;
        match found.map(|cluster| cluster.clone()) {
            Ok(Some(cluster)) => cluster,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Cluster for Embedded {
    fn topology(&self) -> Option<Arc<Topology>> {
        let cluster = self.0.borrow().clone()?;
        let topology = cluster.topology();
        // Before the start of this very process is in the log, the others may still count on what
        // its predecessor held.
        let is_current = topology
            .this_node()
            .is_some_and(|me| me.incarnation == cluster.incarnation());
        is_current.then_some(topology)
    }

    fn owned(&self, partition: PartitionId) -> Result<Epoch, NoToken> {
        let cluster = self.0.borrow().clone().ok_or(NoToken::LeaseOver)?;
        cluster.ownership(partition).map(|token| token.epoch())
    }

    fn changed(&self, after: Epoch) -> BoxFuture<'_, Arc<Topology>> {
        async move { self.started().await.changed(after).await }.boxed()
    }
}

fn hooks(engine: Arc<Engine>, seam: Arc<Embedded>) -> Hooks {
    Hooks::new().on_partition_change(move |change: PartitionChange| {
        let (engine, seam) = (Arc::clone(&engine), Arc::clone(&seam));
        async move {
            if !change.local {
                return Ok(());
            }
            // `cargo xtask bench failover` reads this line.
            tracing::debug!(
                partition = %change.partition,
                stage = ?change.stage,
                role = ?change.role,
                reason = ?change.reason,
                epoch = %change.epoch,
                "hook"
            );
            seam.started().await;
            follow(&engine, &change).await
        }
    })
}

async fn follow(engine: &Engine, change: &PartitionChange) -> HookResult {
    let partition = change.partition;
    match change.stage {
        ChangeStage::Syncing => {
            // Whoever hears that the stage is over is dropped soon.
            let told = |records| drop(change.progress(records, None, "records"));
            if let Copied::All { records } = engine.copy(partition, &told).await? {
                tracing::info!(%partition, records, "copied");
            }
        }
        ChangeStage::Cleanup | ChangeStage::Reverted => {
            if engine.release(partition).await? {
                tracing::info!(%partition, "released");
            }
        }
        // A new primary takes over by itself, whoever stays a replica has nothing to do.
        ChangeStage::Switched => {}
    }
    Ok(())
}

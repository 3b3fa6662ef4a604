//! From options to a running node: open, bind, then form, join or resume.
//!
//! Order matters: nothing is written before the options are checked and the port is bound, and
//! nothing is proposed before the directory says whom it belongs to.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::Rejected;
use clusterkit_core::control::ControlPlane;
use clusterkit_core::coordinator::Coordinator;
use clusterkit_core::id::{ClusterId, DiskId, Incarnation, RaftId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::planted::{self, Bug};
use clusterkit_http::client::ClientLimits;
use clusterkit_http::routes::{ApiLimits, ClusterApi};
use clusterkit_http::server::{RunningServer, Server, ServerLimits};
use clusterkit_http::transport::HttpTransport;
use clusterkit_raft::storage::{Identity, RedbStorage, Storage, StorageError};
use clusterkit_raft::transport::Transport;
use clusterkit_raft::{RaftControlPlane, RaftOptions};

use crate::address;
use crate::backend::NodeBackend;
use crate::environment::{Environment, WallOf};
use crate::error::{JoinError, StartError};
use crate::inner::{Inner, Phase};
use crate::options::Settings;

/// How long a restarted node tries to announce itself before it goes on trying in the background.
const ANNOUNCE_AT_START: Duration = Duration::from_secs(2);

/// Opens and binds everything, and makes the node a member.
pub(crate) async fn start(settings: Settings) -> Result<(Arc<Inner>, RunningServer), StartError> {
    let mut storage = open_storage(&settings).await?;
    let mut opened = open(settings.clone(), Arc::clone(&storage)).await;
    if let Err(StartError::Join(JoinError::Dismissed { reason })) = &opened {
        tracing::info!(%reason, "given up before it was ever active: joining as a new node");
        // The control plane closed it when it was shut down.
        storage.close();
        storage = open_storage(&settings).await?;
        opened = match forget_membership(&*storage) {
            Ok(()) => open(settings, Arc::clone(&storage)).await,
            Err(source) => Err(StartError::Storage {
                path: storage.location(),
                source: Box::new(source),
            }),
        };
    }
    if opened.is_err() {
        // The file must be free again for the next attempt.
        storage.close();
    }
    opened
}

/// Forgets which member this directory belongs to, but not of which cluster. What stands in its log
/// came from that cluster and is the beginning of what a new member is sent, or replaced by it.
fn forget_membership(storage: &dyn Storage) -> Result<(), StorageError> {
    if let Some(mut identity) = Identity::load(storage)? {
        // This first: a crash in between leaves a member that is given up once more.
        RaftControlPlane::forget_member(storage)?;
        identity.raft_id = None;
        identity.save(storage)?;
    }
    Ok(())
}

async fn open(
    settings: Settings,
    storage: Arc<dyn Storage>,
) -> Result<(Arc<Inner>, RunningServer), StartError> {
    let at_storage = |source: StorageError| StartError::Storage {
        path: storage.location(),
        source: Box::new(source),
    };
    let known = Identity::load(&*storage).map_err(at_storage)?;
    if let Some(identity) = &known {
        identity
            .check(&*storage, &settings.id, None)
            .map_err(at_storage)?;
    }
    let listen = settings.listen.to_string();
    let environment = settings.environment.clone();
    let Environment {
        network, entropy, ..
    } = &environment;
    let server = Server::bind_on(&**network, &listen)
        .await
        .map_err(|source| StartError::Bind {
            address: listen,
            source: Box::new(source),
        })?;
    let mut identity = known
        .unwrap_or_else(|| Identity::new(settings.id.clone(), DiskId::from_bytes(entropy.id())));
    if identity.raft_id.is_some() {
        identity.incarnation = Incarnation(identity.incarnation.0 + 1);
    }
    identity.save(&*storage).map_err(at_storage)?;

    let spec = spec(&settings, &identity, server.local_addr().port())?;
    let coordinator = Coordinator::new(settings.timing.detector).map_err(StartError::Config)?;
    let mut coordinator = coordinator.with_strategy(Arc::clone(&settings.strategy));
    coordinator.expect(settings.expect);
    let transport = Arc::new(HttpTransport::over(network, &ClientLimits::default()));
    let inner = Arc::new(Inner::new(
        settings,
        spec,
        Arc::clone(&storage),
        transport,
        Arc::clone(&environment.clock),
        identity.clone(),
        coordinator,
    ));
    let backend = Arc::new(NodeBackend::new(Arc::clone(&inner)));
    let server = server.serve(
        Arc::new(ClusterApi::new(backend, ApiLimits::default())),
        ServerLimits::default(),
    );
    let became = match (identity.cluster, identity.raft_id) {
        (Some(cluster), Some(raft_id)) => resume(&inner, cluster, raft_id).await,
        _ => enter(&inner).await,
    };
    match became {
        Ok(()) => Ok((inner, server)),
        Err(error) => {
            inner.stop.cancel();
            if let Some(control) = inner.control() {
                control.shutdown().await;
            }
            server.shutdown(Duration::ZERO).await;
            Err(error)
        }
    }
}

async fn open_storage(settings: &Settings) -> Result<Arc<dyn Storage>, StartError> {
    if let Some(storage) = &settings.storage {
        return Ok(Arc::clone(storage));
    }
    let directory = Arc::clone(&settings.directory);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Storage {
        path: settings.directory.path(),
        source,
    };
    match settings
        .environment
        .execution
        .run(move || RedbStorage::open_in(directory))
        .await
    {
        Ok(Ok(storage)) => Ok(Arc::new(storage)),
        Ok(Err(error)) => Err(failed(Box::new(error))),
        Err(panicked) => Err(failed(panicked.into())),
    }
}

/// Returns what this process says of itself, bound to `port`.
fn spec(settings: &Settings, identity: &Identity, port: u16) -> Result<NodeSpec, StartError> {
    let mut listen = settings.listen.clone();
    listen.port = port;
    let advertise = match &settings.advertise {
        Some(advertise) => advertise.clone(),
        None => address::advertised(&listen, &settings.seeds, &*settings.environment.network),
    };
    let mut spec = NodeSpec::new(settings.id.clone(), identity.disk, &advertise.to_string());
    spec.incarnation = identity.incarnation;
    spec.name = Arc::from(settings.name.as_str());
    spec.peer_address = settings
        .peer_address
        .as_ref()
        .map(|peer| Arc::from(peer.to_string()));
    spec.services = Arc::new(settings.services.clone());
    spec.zone = Arc::from(settings.zone.as_str());
    spec.weight = settings.weight;
    spec.feature_level = settings.feature_level;
    spec.validate().map_err(StartError::Config)?;
    Ok(spec)
}

/// Resumes as the member this directory belongs to.
async fn resume(inner: &Inner, cluster: ClusterId, raft_id: RaftId) -> Result<(), StartError> {
    open_control(inner, cluster, raft_id).await?;
    let view = inner.view();
    if raft_id == RaftId::BOOTSTRAP && view.state.cluster().is_none() {
        // The process died while it formed the cluster; nobody else can have joined.
        form(inner).await?;
    }
    let (given, current) = (inner.spec.feature_level, view.state.feature_level());
    if given < current {
        // Already by what stands in its own directory it does not know what the others use.
        let id = inner.spec.id.clone();
        let reason = Rejected::OlderFeatureLevel { id, given, current }.to_string();
        return Err(StartError::Join(JoinError::OlderFeatureLevel { reason }));
    }
    inner.set_phase(Phase::Announcing);
    match inner.announce(ANNOUNCE_AT_START).await {
        Ok(()) => Ok(()),
        Err(
            error @ (JoinError::Removed { .. }
            | JoinError::Dismissed { .. }
            | JoinError::Mismatch { .. }
            | JoinError::AddressInUse { .. }
            | JoinError::OlderFeatureLevel { .. }
            | JoinError::Unverified { .. }),
        ) => Err(StartError::Join(error)),
        Err(error) => {
            tracing::info!(%error, "resuming without a leader: the start is announced later");
            Ok(())
        }
    }
}

/// Forms a cluster or joins one, as the options say.
async fn enter(inner: &Inner) -> Result<(), StartError> {
    let settings = &inner.settings;
    let me = inner.spec.address.to_string();
    let others: Vec<String> = settings
        .seeds
        .iter()
        .map(ToString::to_string)
        .filter(|seed| *seed != me)
        .collect();
    let first = address::is_first(
        &settings.seeds,
        &settings.listen,
        &*settings.environment.network,
    ) || settings
        .seeds
        .first()
        .is_some_and(|seed| seed.to_string() == me);
    let forms = if planted::is_on(Bug::TwoBootstraps) {
        // Planted bug: not the first of the list only, and whatever the options say.
        !inner.some_seed_knows_a_cluster(&others).await
    } else if settings.bootstrap == Some(false) || inner.cluster().is_some() {
        false
    } else if settings.seeds.is_empty() {
        true
    } else {
        first && !inner.some_seed_knows_a_cluster(&others).await
    };
    if forms {
        let cluster = ClusterId::from_bytes(settings.environment.entropy.id());
        remember(inner, cluster, RaftId::BOOTSTRAP)?;
        open_control(inner, cluster, RaftId::BOOTSTRAP).await?;
        form(inner).await?;
        inner.set_phase(Phase::Member);
        return Ok(());
    }
    if others.is_empty() {
        return Err(StartError::NothingToJoin {
            node: settings.id.clone(),
        });
    }
    let asked = inner
        .ask_admission(&others, None, settings.join_timeout)
        .await;
    let (cluster, raft_id) = asked.map_err(StartError::Join)?;
    remember(inner, cluster, raft_id)?;
    open_control(inner, cluster, raft_id).await?;
    // An earlier attempt may have been admitted with another process: say which one runs.
    inner.set_phase(Phase::Announcing);
    catch_up(inner, raft_id).await
}

/// Waits until this node has applied its own admission.
async fn catch_up(inner: &Inner, raft_id: RaftId) -> Result<(), StartError> {
    let limit = inner.settings.join_timeout;
    let control = inner.member_control();
    let applying = async {
        let mut view = control.view();
        while view.state.node(raft_id).is_none() {
            view = control.changed(view.version).await;
        }
    };
    match tokio::time::timeout(limit, applying).await {
        Ok(()) => Ok(()),
        Err(_) => Err(StartError::Join(JoinError::Timeout {
            after: limit,
            attempts: vec![String::from("admitted, but the log did not arrive")],
        })),
    }
}

fn remember(inner: &Inner, cluster: ClusterId, raft_id: RaftId) -> Result<(), StartError> {
    let mut identity = inner.identity();
    identity.cluster = Some(cluster);
    identity.raft_id = Some(raft_id);
    identity
        .save(&*inner.storage)
        .map_err(|source| StartError::Storage {
            path: inner.storage.location(),
            source: Box::new(source),
        })?;
    inner.set_identity(identity);
    Ok(())
}

async fn open_control(
    inner: &Inner,
    cluster: ClusterId,
    raft_id: RaftId,
) -> Result<(), StartError> {
    inner.transport.identify(cluster, raft_id);
    let timing = &inner.settings.timing;
    let address = inner.spec.peer_address();
    let mut options = RaftOptions::new(cluster, raft_id, inner.spec.disk, address);
    options.heartbeat = timing.raft_heartbeat;
    (options.election_min, options.election_max) = timing.election;
    options.execution = inner.settings.environment.execution;
    options.wall_clock = Arc::new(WallOf(Arc::clone(&inner.clock)));
    let transport: Arc<dyn Transport> = Arc::<HttpTransport>::clone(&inner.transport);
    let opened = RaftControlPlane::open(Arc::clone(&inner.storage), transport, options).await;
    let control = opened.map_err(|source| StartError::Control {
        source: Box::new(source),
    })?;
    inner.set_control(Arc::new(control));
    Ok(())
}

/// Forms the cluster on this node alone.
async fn form(inner: &Inner) -> Result<(), StartError> {
    let config = inner.settings.config.clone();
    let formed = inner
        .member_control()
        .initialize(config, inner.spec.clone(), inner.clock.wall())
        .await;
    formed.map_err(|source| StartError::Control {
        source: Box::new(source),
    })
}

//! The embedded control plane: [`RaftControlPlane`], core's `ControlPlane` on Raft.
//!
//! Opening, forming, answering peers and stopping stand here; proposing and reading in
//! `propose.rs`, keeping the membership in step with the cluster's nodes in `membership.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::command::{Applied, Command};
use clusterkit_core::config::{ClusterConfig, ConfigError};
use clusterkit_core::control::{Confirmation, ControlPlane, ControlStats, ProposeError, View};
use clusterkit_core::id::{ClusterId, DiskId, RaftId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::time::UnixMillis;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError as RaftInitializeError, RaftError};
use openraft::impls::BasicNode;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock;
use crate::codec;
use crate::log_store::LogStore;
use crate::membership;
use crate::network::{Network, SnapshotMessage};
use crate::options::RaftOptions;
use crate::peers::Peers;
use crate::state_machine::{self, StateMachine};
use crate::storage::{Storage, StorageError, WriteOp};
use crate::tasks::{self, Tasks};
use crate::transport::{PeerError, PeerHandler, RpcKind, Transport};
use crate::types::{CommandBytes, Raft, Snapshot, TypeConfig};
use crate::view::{Role, ViewCell};
use crate::writer::Writer;

/// Where the member that a storage belongs to is noted.
const MEMBER_KEY: &str = "member";

/// The control plane of one node, embedded in its process. Clones share it.
///
/// Call [`shutdown`](ControlPlane::shutdown) before the process ends: dropping it stops its tasks
/// too, but does not wait for them.
#[derive(Clone)]
pub struct RaftControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Local>,
    writer: Writer,
    storage: Arc<dyn Storage>,
    tasks: Tasks,
    stopping: Mutex<Option<tokio::task::JoinHandle<()>>>,
    stopped: watch::Sender<bool>,
}

/// What the tasks of this member work with.
pub(crate) struct Local {
    pub(crate) raft: Raft,
    pub(crate) view: Arc<ViewCell>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) options: RaftOptions,
    log: LogStore,
    /// Why the Raft library stopped by itself.
    failure: watch::Sender<Option<String>>,
}

/// Why a control plane cannot be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of bounds.
    #[error("bad option: {0}")]
    Options(ConfigError),
    /// The storage cannot be used.
    #[error(transparent)]
    Storage(StorageError),
    /// The log cannot be brought into effect.
    #[error("the log cannot be recovered: {detail}")]
    Recovery {
        /// What the Raft library found.
        detail: String,
    },
}

/// Why a cluster cannot be formed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitializeError {
    /// Only the member [`RaftId::BOOTSTRAP`] forms a cluster. Nothing was changed.
    #[error(
        "member {raft_id} cannot form a cluster, only member {} can",
        RaftId::BOOTSTRAP
    )]
    NotFirst {
        /// The member asked.
        raft_id: RaftId,
    },
    /// The log is prepared, and the first command has no result. Initializing again is safe.
    #[error("forming the cluster: {0}")]
    Propose(ProposeError),
}

/// The member that a storage was opened as.
#[derive(Debug, Serialize, Deserialize)]
struct MemberRecord {
    cluster: ClusterId,
    raft_id: RaftId,
    disk: DiskId,
}

impl RaftControlPlane {
    /// Makes `storage` free to be opened as another member of the same cluster, for a member that the
    /// cluster gave up before it was ever active. It never voted, and what it was sent of the log is
    /// the beginning of what any member is sent, or is replaced by it.
    ///
    /// # Errors
    /// [`StorageError`] when the storage fails.
    pub fn forget_member(storage: &dyn Storage) -> Result<(), StorageError> {
        storage.write(&[WriteOp::SetMeta {
            key: MEMBER_KEY,
            value: Bytes::new(),
        }])
    }

    /// Opens this member on `storage`, reaching others over `transport`.
    ///
    /// An empty storage becomes that of `options.raft_id`; the member then waits to be added by a
    /// leader, or for [`initialize`](Self::initialize). Requests of peers are answered by
    /// [`handle_peer`](Self::handle_peer), which the caller wires to its server.
    ///
    /// # Errors
    /// - [`OpenError::Options`] naming the option;
    /// - [`OpenError::Storage`] where the storage is damaged, or belongs to another cluster
    ///   ([`StorageError::WrongCluster`]) or member ([`StorageError::WrongRaftId`]).
    ///
    /// # Cancel safety
    /// Dropping the future closes nothing that was open before; the storage can be opened again.
    pub async fn open(
        storage: Arc<dyn Storage>,
        transport: Arc<dyn Transport>,
        options: RaftOptions,
    ) -> Result<Self, OpenError> {
        options.validate().map_err(OpenError::Options)?;
        let config = options
            .raft_config()
            .validate()
            .map_err(|error| OpenError::Recovery {
                detail: error.to_string(),
            })?;
        claim(&*storage, &options).map_err(OpenError::Storage)?;

        let state = state_machine::load_state(&*storage).map_err(OpenError::Storage)?;
        let view = Arc::new(ViewCell::new(
            options.raft_id,
            state,
            Arc::clone(&options.wall_clock),
        ));
        let writer = Writer::start(Arc::clone(&storage), options.execution).map_err(|source| {
            OpenError::Storage(StorageError::Io {
                path: storage.location(),
                source,
            })
        })?;
        let log =
            LogStore::open(Arc::clone(&storage), writer.clone()).map_err(OpenError::Storage)?;
        let machine = StateMachine::open(Arc::clone(&storage), writer.clone(), Arc::clone(&view))
            .map_err(OpenError::Storage)?;
        let peers = Arc::new(Peers::new(&options, transport, Arc::clone(&view)));
        let network = Network::new(Arc::clone(&peers), &options);
        let opened = Raft::new(
            options.raft_id.0,
            Arc::new(config),
            network,
            log.clone(),
            machine,
        );
        let raft = match Box::pin(opened).await {
            Ok(raft) => raft,
            Err(error) => {
                writer.stop().await;
                return Err(match log.take_failure() {
                    Some(failure) => OpenError::Storage(failure),
                    None => OpenError::Recovery {
                        detail: error.to_string(),
                    },
                });
            }
        };
        let node = Arc::new(Local {
            raft,
            view,
            peers,
            options,
            log,
            failure: watch::Sender::new(None),
        });
        let tasks = Tasks::default();
        tasks.spawn(watch_raft(Arc::clone(&node)));
        tasks.spawn(membership::reconcile(Arc::clone(&node)));
        Ok(Self {
            inner: Arc::new(Inner {
                node,
                writer,
                storage,
                tasks,
                stopping: Mutex::default(),
                stopped: watch::Sender::new(false),
            }),
        })
    }

    /// Forms the cluster with this node as its first member.
    ///
    /// Doing it again after an error, a crash or a success is safe: what is done stays done.
    ///
    /// # Errors
    /// [`InitializeError`]; the command of forming may be rejected, as for a bad configuration.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; initialize again.
    pub async fn initialize(
        &self,
        config: ClusterConfig,
        node: NodeSpec,
        at: UnixMillis,
    ) -> Result<(), InitializeError> {
        let local = &self.inner.node;
        if local.options.raft_id != RaftId::BOOTSTRAP {
            return Err(InitializeError::NotFirst {
                raft_id: local.options.raft_id,
            });
        }
        let members =
            BTreeMap::from([(RaftId::BOOTSTRAP.0, BasicNode::new(&local.options.address))]);
        match local.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(RaftInitializeError::NotAllowed(_))) => {}
            Err(error) => {
                return Err(InitializeError::Propose(ProposeError::Stopped {
                    reason: error.to_string(),
                }));
            }
        }
        self.read_barrier()
            .await
            .map_err(InitializeError::Propose)?;
        let cluster = local.options.cluster;
        if self.view().state.cluster() == Some(cluster) {
            return Ok(());
        }
        let command = Command::Bootstrap {
            cluster,
            config,
            node,
            at,
        };
        match self.propose(command).await {
            Ok(_) => Ok(()),
            Err(_) if self.view().state.cluster() == Some(cluster) => Ok(()),
            Err(error) => Err(InitializeError::Propose(error)),
        }
    }

    /// Returns this member's id.
    #[must_use]
    pub fn raft_id(&self) -> RaftId {
        self.inner.node.options.raft_id
    }

    /// Returns the cluster this member belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.inner.node.options.cluster
    }

    /// Waits until this member has stopped by itself, and returns why: its storage failed, or a
    /// command could not be applied. Pending for as long as it works; after a
    /// [`shutdown`](ControlPlane::shutdown), for ever.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.node.failure.subscribe();
        let found = failure.wait_for(Option::is_some).await;
        match found.ok().and_then(|reason| reason.clone()) {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Answers a request of a peer, for the kinds of which [`RpcKind::is_raft`] says so.
    ///
    /// # Errors
    /// - [`PeerError::Refused`] for another cluster, a member that has left or has lost its disk,
    ///   or a request meant for somebody else;
    /// - [`PeerError::Malformed`] for a body or kind this member cannot read;
    /// - [`PeerError::Unavailable`] when it has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the request carried out and unanswered.
    pub async fn handle_peer(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, PeerError> {
        let local = &self.inner.node;
        let (raft, peers) = (&local.raft, &local.peers);
        // One that the state has let go takes part in the log until its members have let it go, too: it may
        // be the leader that sees to that, or have a vote without which that cannot be.
        let takes_part = |id: RaftId| {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.get_node(&id.0).is_some()
        };
        match kind {
            RpcKind::Append => {
                let (_, request) = peers.receive(kind, &body, takes_part)?;
                let answer = raft.append_entries(request).await.map_err(unavailable)?;
                Peers::answer(kind, &answer)
            }
            RpcKind::Vote => {
                let (_, request) = peers.receive(kind, &body, takes_part)?;
                let answer = raft.vote(request).await.map_err(unavailable)?;
                Peers::answer(kind, &answer)
            }
            RpcKind::PreVote => {
                let (_, request) = peers.receive(kind, &body, takes_part)?;
                let answer = raft.pre_vote(request).await.map_err(unavailable)?;
                Peers::answer(kind, &answer)
            }
            RpcKind::Snapshot => {
                let (_, message): (_, SnapshotMessage) = peers.receive(kind, &body, takes_part)?;
                let snapshot = Snapshot {
                    meta: message.meta,
                    snapshot: message.state.0,
                };
                let answer = raft
                    .install_full_snapshot(message.vote, snapshot)
                    .await
                    .map_err(unavailable)?;
                Peers::answer(kind, &answer)
            }
            RpcKind::TransferLeader => {
                let (_, request) = peers.receive(kind, &body, takes_part)?;
                let answer = raft
                    .handle_transfer_leader(request)
                    .await
                    .map_err(unavailable)?;
                Peers::answer(kind, &answer)
            }
            RpcKind::Propose => {
                let (_, command): (_, CommandBytes) = peers.receive(kind, &body, |_| false)?;
                let limit = local.options.propose_timeout;
                Peers::answer(kind, &local.propose_here(command, limit).await)
            }
            RpcKind::ReadBarrier => {
                let (_, ()) = peers.receive(kind, &body, |_| false)?;
                let limit = local.options.rpc_timeout;
                Peers::answer(kind, &local.read_index_within(limit).await)
            }
            RpcKind::Heartbeat | RpcKind::Probe | RpcKind::Join | RpcKind::Identify => {
                Err(PeerError::Malformed {
                    kind,
                    detail: String::from("the control plane does not answer this kind"),
                })
            }
        }
    }
}

impl fmt::Debug for RaftControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftControlPlane")
            .field("raft_id", &self.raft_id())
            .field("cluster", &self.cluster())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PeerHandler for RaftControlPlane {
    async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, PeerError> {
        self.handle_peer(kind, body).await
    }
}

#[async_trait]
impl ControlPlane for RaftControlPlane {
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.inner.node.propose(&command).await
    }

    fn view(&self) -> Arc<View> {
        self.inner.node.view.current()
    }

    async fn changed(&self, after: u64) -> Arc<View> {
        let mut views = self.inner.node.view.subscribe();
        let found = views.wait_for(|view| view.version > after).await;
        match found.ok().map(|view| Arc::clone(&view)) {
            Some(view) => view,
            None => std::future::pending().await,
        }
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        self.inner.node.read_barrier().await
    }

    fn confirmed(&self) -> Option<Confirmation> {
        let metrics = self.inner.node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let this = self.raft_id().0;
        if !metrics.state.is_leader() || metrics.current_leader != Some(this) {
            return None;
        }
        let membership = metrics.membership_config.membership();
        let alone = membership.voter_ids().all(|id| id == this);
        let acked = metrics.last_quorum_acked.as_ref();
        // Whoever votes alone is its own majority, at any time.
        let begun_ago = match alone {
            true => Some(Duration::ZERO),
            false => acked.map(|at| clock::since(at.into_inner())),
        };
        begun_ago.map(|begun_ago| Confirmation {
            term: metrics.current_term,
            begun_ago,
        })
    }

    fn stats(&self) -> ControlStats {
        let metrics = self.inner.node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.committed_membership_config.membership();
        // During a change only those count that vote before and after it.
        let configs = membership.get_joint_config();
        let votes = |id: &u64| configs.iter().all(|config| config.contains(id));
        let members = membership.nodes().map(|(id, _)| *id);
        let (voters, learners): (Vec<u64>, Vec<u64>) = members.partition(votes);
        let [voters, learners] =
            [voters, learners].map(|ids| ids.into_iter().map(RaftId).collect::<Vec<_>>());
        let this = self.raft_id();
        let others = voters.iter().chain(&learners).filter(|id| **id != this);
        let state = match metrics.running_state {
            Ok(()) => format!("{:?}", metrics.state),
            Err(_) => String::from("Shutdown"),
        };
        ControlStats {
            state,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            last_log_term: self.inner.node.log.last_term(),
            commit_index: metrics.local_committed.as_ref().map_or(0, |id| id.index()),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index()),
            peers: u64::try_from(others.count()).unwrap_or(u64::MAX),
            voters,
            learners,
        }
    }

    async fn transfer_leadership(&self) -> Result<(), ProposeError> {
        membership::hand_over(&self.inner.node, &[]).await
    }

    async fn transfer_leadership_to(&self, preferred: &[RaftId]) -> Result<(), ProposeError> {
        membership::hand_over(&self.inner.node, preferred).await
    }

    async fn relieved(&self) {
        let this = self.raft_id().0;
        // Of a change both steps have to be committed: between them the votes of before count, too.
        let has_a_vote = |metrics: &RaftMetrics<TypeConfig>| {
            let membership = metrics.committed_membership_config.membership();
            membership.voter_ids().any(|id| id == this)
        };
        let mut metrics = self.inner.node.raft.metrics();
        while has_a_vote(&metrics.borrow_watched()) {
            // It changes no more once Raft has stopped.
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    async fn shutdown(&self) {
        let mut stopped = self.inner.stopped.subscribe();
        {
            let mut stopping = self
                .inner
                .stopping
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if stopping.is_none() {
                *stopping = Some(tasks::spawn_owned(stop(Arc::clone(&self.inner))));
            }
        }
        let _ = stopped.wait_for(|stopped| *stopped).await;
        let task = self
            .inner
            .stopping
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .is_some_and(|task| task.is_finished());
        tracing::debug!(raft_id = %self.raft_id(), joined = task, "the control plane has stopped");
    }
}

async fn stop(inner: Arc<Inner>) {
    inner.tasks.stop().await;
    if let Err(error) = inner.node.raft.shutdown().await {
        tracing::warn!(%error, "raft did not stop cleanly");
    }
    inner.writer.stop().await;
    inner.storage.close();
    inner.node.view.publish_role(Role::default());
    inner.stopped.send_replace(true);
}

/// Follows Raft's metrics: publishes who leads, and notices when Raft has stopped by itself.
async fn watch_raft(local: Arc<Local>) {
    let mut metrics = local.raft.metrics();
    let this = local.options.raft_id.0;
    let mut role = Role::default();
    loop {
        let (next, committed, failure) = {
            let now = metrics.borrow_watched();
            let leads = now.state.is_leader() && now.current_leader == Some(this);
            let held = role.ready_at.filter(|_| role.term == now.current_term);
            let next = Role {
                leader: now.current_leader.map(RaftId),
                term: now.current_term,
                ready_at: leads.then(|| held.or(now.last_log_index).unwrap_or(0)),
            };
            let committed = now.cluster_committed.as_ref().map_or(0, |id| id.index());
            let failure = now.running_state.as_ref().err().map(ToString::to_string);
            (next, committed, failure)
        };
        local.view.note_committed(committed);
        if let Some(reason) = failure {
            tracing::error!(reason, "raft has stopped, this node takes no part any more");
            local.view.publish_role(Role::default());
            local.failure.send_replace(Some(reason));
            return;
        }
        if next != role {
            role = next;
            local.view.publish_role(role);
        }
        if metrics.changed().await.is_err() {
            local.view.publish_role(Role::default());
            return;
        }
    }
}

impl Local {
    /// Returns why Raft has stopped by itself, if it has.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
}

/// Checks that `storage` is that of this member, and makes an unused one so.
fn claim(storage: &dyn Storage, options: &RaftOptions) -> Result<(), StorageError> {
    // Empty where the member it belonged to was forgotten.
    let known = storage.meta(MEMBER_KEY)?.filter(|bytes| !bytes.is_empty());
    let Some(bytes) = known else {
        let record = MemberRecord {
            cluster: options.cluster,
            raft_id: options.raft_id,
            disk: options.disk,
        };
        let bytes = codec::encode(MEMBER_KEY, &record)
            .expect("invariant: a member record is plain data and always encodes");
        return storage.write(&[WriteOp::SetMeta {
            key: MEMBER_KEY,
            value: Bytes::from(bytes),
        }]);
    };
    let record: MemberRecord =
        codec::decode(MEMBER_KEY, &bytes).map_err(|error| StorageError::damaged(storage, error))?;
    if record.cluster != options.cluster {
        return Err(StorageError::WrongCluster {
            path: storage.location(),
            found: record.cluster,
            expected: options.cluster,
        });
    }
    if record.raft_id != options.raft_id {
        return Err(StorageError::WrongRaftId {
            path: storage.location(),
            found: record.raft_id,
            expected: options.raft_id,
        });
    }
    if record.disk != options.disk {
        return Err(StorageError::damaged(
            storage,
            format_args!(
                "written on data directory {}, opened as {}",
                record.disk, options.disk
            ),
        ));
    }
    Ok(())
}

fn unavailable(error: impl std::error::Error) -> PeerError {
    PeerError::Unavailable {
        detail: error.to_string(),
    }
}

//! What the parts of a running node share.
//!
//! Built by `start.rs`; the loops in `lead.rs`, `pulse.rs`, `probe.rs` and `feed.rs` and the answers to peers
//! and HTTP all hold one [`Inner`]. No decision is taken here.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use clusterkit_core::control::{ControlPlane, View};
use clusterkit_core::coordinator::Coordinator;
use clusterkit_core::health::HealthReport;
use clusterkit_core::id::{ClusterId, RaftId};
use clusterkit_core::lease::Lease;
use clusterkit_core::node::NodeSpec;
use clusterkit_http::transport::HttpTransport;
use clusterkit_raft::RaftControlPlane;
use clusterkit_raft::storage::{Identity, Storage};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::copies::OthersCopies;
use crate::hooks::{Copies, HookCounters};
use crate::options::Settings;
use crate::probe::Probing;

/// Where this process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not yet a member.
    Starting,
    /// A member whose present process the cluster does not know of yet.
    Announcing,
    /// A member.
    Member,
    /// No member any more.
    Left,
    /// Stopped.
    Stopped,
}

/// What the parts of a running node share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) spec: NodeSpec,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) transport: Arc<HttpTransport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: clusterkit_core::time::Instant,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) stop: CancellationToken,
    pub(crate) hook_counters: Arc<HookCounters>,
    /// What the copies of this node report.
    pub(crate) copies: Arc<Copies>,
    /// What the leader has passed on of the copies of others.
    pub(crate) others_copies: Mutex<OthersCopies>,
    /// Wakes the leader's loop: something was heard.
    pub(crate) heard: Notify,
    /// What the application says of this node.
    pub(crate) health: watch::Sender<HealthReport>,
    /// Placements that were replaced by the systematic layout.
    pub(crate) fallbacks: AtomicU64,
    control: OnceLock<Arc<RaftControlPlane>>,
    identity: Mutex<Identity>,
    coordinator: Mutex<Coordinator>,
    /// None until the node asks for the first time.
    pub(crate) lease: Mutex<Option<Lease>>,
    pub(crate) probing: Mutex<Probing>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("id", &self.spec.id)
            .field("phase", &*self.phase.borrow())
            .finish_non_exhaustive()
    }
}

impl Inner {
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, by the start of the node"
    )]
    pub(crate) fn new(
        settings: Settings,
        spec: NodeSpec,
        storage: Arc<dyn Storage>,
        transport: Arc<HttpTransport>,
        clock: Arc<dyn Clock>,
        identity: Identity,
        coordinator: Coordinator,
    ) -> Self {
        let started = clock.now();
        Self {
            settings,
            spec,
            storage,
            transport,
            clock,
            started,
            phase: watch::Sender::new(Phase::Starting),
            stop: CancellationToken::new(),
            hook_counters: Arc::default(),
            copies: Arc::default(),
            others_copies: Mutex::default(),
            heard: Notify::new(),
            health: watch::Sender::new(HealthReport::default()),
            fallbacks: AtomicU64::new(0),
            control: OnceLock::new(),
            identity: Mutex::new(identity),
            coordinator: Mutex::new(coordinator),
            lease: Mutex::default(),
            probing: Mutex::default(),
        }
    }

    /// Returns the control plane, none before the node is a member.
    pub(crate) fn control(&self) -> Option<&Arc<RaftControlPlane>> {
        self.control.get()
    }

    /// Returns the control plane of a node that has started.
    pub(crate) fn member_control(&self) -> &Arc<RaftControlPlane> {
        self.control
            .get()
            .expect("invariant: a started node has opened its control plane")
    }

    pub(crate) fn set_control(&self, control: Arc<RaftControlPlane>) {
        let first = self.control.set(control).is_ok();
        assert!(first, "invariant: the control plane is opened once");
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.member_control().view()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity_lock().clone()
    }

    /// Returns this node's id within the control plane, none before it was admitted.
    pub(crate) fn raft_id(&self) -> Option<RaftId> {
        self.identity_lock().raft_id
    }

    /// Returns the cluster this node belongs to, none before it was admitted.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.identity_lock().cluster
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity_lock() = identity;
    }

    fn identity_lock(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the leader's brain. Held for the time of one decision, never across an await.
    pub(crate) fn coordinator(&self) -> MutexGuard<'_, Coordinator> {
        self.coordinator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_if_modified(|present| {
            let advances = phase > *present;
            if advances {
                *present = phase;
            }
            advances
        });
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Tells whether the log says that this very member is none any more.
    pub(crate) fn was_removed(&self, view: &View) -> bool {
        self.raft_id()
            .is_some_and(|me| view.state.node(me).is_none() && view.state.applied().0 >= me.0)
    }
}

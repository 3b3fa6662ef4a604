//! The view that this node publishes: what is applied, and who leads.
//!
//! Two sides feed it: the state machine after every batch, and the watch over Raft's metrics.
//! It decides when this node may call itself the leader; it decides nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::control::{Leadership, View};
use clusterkit_core::explain::PlanHistory;
use clusterkit_core::id::{LogIndex, RaftId};
use clusterkit_core::state::ClusterState;
use tokio::sync::watch;

use crate::options::WallClock;

/// Publishes views; clones of the receiving end may be many.
#[derive(Debug)]
pub(crate) struct ViewCell {
    this: RaftId,
    sender: watch::Sender<Arc<View>>,
    committed: AtomicU64,
    role: Mutex<Role>,
    clock: Arc<dyn WallClock>,
}

/// What Raft says about leadership, before the question whether this node is ready to lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) leader: Option<RaftId>,
    pub(crate) term: u64,
    /// Set while this node leads: it acts as the leader once it has applied up to here, so that
    /// it never decides on less than what the leader before it knew.
    pub(crate) ready_at: Option<u64>,
}

impl ViewCell {
    pub(crate) fn new(this: RaftId, state: Arc<ClusterState>, clock: Arc<dyn WallClock>) -> Self {
        let view = View {
            version: 1,
            topology: Arc::new(state.topology(this)),
            applied: state.applied(),
            committed: state.applied(),
            plans: PlanHistory::starting_after(state.applied()),
            state,
            leadership: Leadership::default(),
        };
        Self {
            this,
            sender: watch::Sender::new(Arc::new(view)),
            committed: AtomicU64::new(0),
            role: Mutex::default(),
            clock,
        }
    }

    pub(crate) fn current(&self) -> Arc<View> {
        Arc::clone(&self.sender.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.sender.subscribe()
    }

    /// Publishes `state`, applied up to `applied`.
    pub(crate) fn publish_state(
        &self,
        state: &Arc<ClusterState>,
        plans: &PlanHistory,
        applied: u64,
    ) {
        self.publish(|view| {
            let same = view.state.epoch() == state.epoch()
                && view.state.cluster() == state.cluster()
                && view.state.applied() <= state.applied();
            if !same {
                view.topology = Arc::new(state.topology(self.this));
            }
            view.state = Arc::clone(state);
            view.plans = plans.clone();
            view.applied = LogIndex(applied);
            true
        });
    }

    /// Publishes who leads, if that changed.
    pub(crate) fn publish_role(&self, role: Role) {
        *self.lock_role() = role;
        self.publish(|_| false);
    }

    /// Notes what is known to be committed; the next view tells.
    pub(crate) fn note_committed(&self, index: u64) {
        self.committed.fetch_max(index, Ordering::Relaxed);
    }

    fn lock_role(&self) -> MutexGuard<'_, Role> {
        self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, change: impl FnOnce(&mut View) -> bool) {
        self.sender.send_if_modified(|current| {
            let mut next = View::clone(current);
            let changed = change(&mut next);
            let role = *self.lock_role();
            let is_leader = role.ready_at.is_some_and(|ready| next.applied.0 >= ready);
            let known = &mut next.leadership;
            let moved = known.leader != role.leader
                || known.is_leader != is_leader
                || known.term != role.term;
            if moved {
                *known = Leadership {
                    leader: role.leader,
                    is_leader,
                    term: role.term,
                    since: self.clock.wall(),
                };
            }
            if !changed && !moved {
                return false;
            }
            let committed = self.committed.load(Ordering::Relaxed).max(next.applied.0);
            next.committed = LogIndex(committed);
            next.version += 1;
            *current = Arc::new(next);
            true
        });
    }
}

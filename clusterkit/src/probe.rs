//! Looking after others: each member asks a few others whether they live, and its pulses tell the
//! leader whom it has seen.
//!
//! Who asks whom is `clusterkit_core::detector::Mesh`'s, what the leader makes of it the detector's: a
//! node that it does not hear itself and others see is not declared down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use clusterkit_core::detector::Mesh;
use clusterkit_core::health::Health;
use clusterkit_core::id::{Incarnation, RaftId};
use clusterkit_core::time::Instant;
use clusterkit_raft::transport::{PeerAddress, PeerError, RpcKind, Transport};

use crate::inner::{Inner, Phase};
use crate::messages::{Probe, ProbeReply, Sighting, decode, encode};
use crate::tasks::{Ended, TaskSet};

/// How many intervals between pulses an answer may take.
const ANSWER_INTERVALS: u32 = 3;

/// What probing leaves behind on a node.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    /// Whom this node has seen, as which process, and when it had asked.
    seen: BTreeMap<RaftId, (Incarnation, Instant)>,
    /// When the loop that reports to the leader last went round.
    reported_at: Option<Instant>,
}

/// Probes others once an interval until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    tokio::select! {
        () = probe(&inner) => {}
        () = inner.stop.cancelled() => {}
    }
}

/// One question at a time for each target: somebody who does not answer costs no more than others.
async fn probe(inner: &Arc<Inner>) {
    let interval = inner.settings.timing.leases.heartbeat;
    let mut probes = TaskSet::new();
    let mut waiting = BTreeSet::new();
    let mut due = inner.clock.now();
    loop {
        let left = due.saturating_since(inner.clock.now());
        tokio::select! {
            Some(ended) = probes.join_next() => match ended {
                Ended::Done(target) => {
                    waiting.remove(&target);
                }
                Ended::Panicked(_) | Ended::Aborted => waiting.clear(),
            },
            () = tokio::time::sleep(left) => {
                due = inner.clock.now() + interval;
                for peer in inner.targets() {
                    if let Some(target) = peer.raft_id && waiting.insert(target) {
                        let inner = Arc::clone(inner);
                        probes.spawn(async move {
                            inner.look_at(target, &peer).await;
                            target
                        });
                    }
                }
            }
        }
    }
}

impl Inner {
    fn probing(&self) -> MutexGuard<'_, Probing> {
        self.probing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whom this node is to probe.
    fn targets(&self) -> Vec<PeerAddress> {
        let Some(me) = self.raft_id().filter(|_| self.phase() == Phase::Member) else {
            return Vec::new();
        };
        let view = self.view();
        let mesh = Mesh::of(&view.state, view.leadership.leader);
        let targets = mesh.targets(me).filter_map(|id| view.state.node(id));
        targets
            .map(|node| PeerAddress::member(node.raft_id, node.peer_address()))
            .collect()
    }

    /// Asks `target` whether it lives, and takes note of the answer.
    async fn look_at(&self, target: RaftId, peer: &PeerAddress) {
        let kind = RpcKind::Probe;
        let asked_at = self.clock.now();
        let limit = self.settings.timing.leases.heartbeat * ANSWER_INTERVALS;
        let sent = self
            .transport
            .send(peer, kind, encode(kind, &Probe { target }));
        let answer = match tokio::time::timeout(limit, sent).await {
            Ok(Ok(answer)) => decode::<ProbeReply>(kind, &answer).ok(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a probe was not answered");
                None
            }
            Err(_) => None,
        };
        if let Some(reply) = answer.filter(|reply| reply.node == target) {
            let seen = (reply.incarnation, asked_at);
            self.probing().seen.insert(target, seen);
        }
    }

    /// Returns whom this node has seen lately enough to count, and forgets the rest.
    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        let now = self.clock.now();
        let patience = self.settings.timing.leases.wait();
        let mut probing = self.probing();
        let age = |asked_at: Instant| now.saturating_since(asked_at);
        probing
            .seen
            .retain(|_, &mut (_, asked_at)| age(asked_at) < patience);
        let seen = probing.seen.iter();
        seen.map(|(&node, &(incarnation, asked_at))| Sighting {
            node,
            incarnation,
            age: age(asked_at),
        })
        .collect()
    }

    /// Takes note that this node reports in, or tries to.
    pub(crate) fn note_reporting(&self) {
        let now = self.clock.now();
        self.probing().reported_at = Some(now);
    }

    /// Answers a probe. A node vouches for itself only while it does what it is there for: it is a
    /// member, its application does not say otherwise, and it keeps trying to report to the leader. So
    /// what others see of it speaks of a link that fails, not of a node that does.
    pub(crate) fn answer_probe(&self, probe: &Probe) -> Result<ProbeReply, PeerError> {
        let unavailable = |detail: &str| PeerError::Unavailable {
            detail: detail.to_owned(),
        };
        let node = self.raft_id().filter(|_| self.phase() == Phase::Member);
        let Some(node) = node.filter(|_| !self.stop.is_cancelled()) else {
            return Err(unavailable("not a member that reports in"));
        };
        if node != probe.target {
            return Err(PeerError::Refused {
                reason: format!("the probe is for member {}, this is {node}", probe.target),
            });
        }
        if self.health.borrow().health == Health::Down {
            return Err(unavailable("it wants to count as down"));
        }
        let now = self.clock.now();
        let patience = self.settings.timing.leases.wait();
        let reported_at = self.probing().reported_at;
        if reported_at.is_none_or(|at| now.saturating_since(at) >= patience) {
            return Err(unavailable("its own loop is late"));
        }
        Ok(ProbeReply {
            node,
            incarnation: self.spec.incarnation,
        })
    }
}

//! Reporting in: announcing the process after a start, then a pulse to the leader at short intervals.
//!
//! The leader's end is in `peer.rs`; what it makes of silence is in `clusterkit_core::detector`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::control::{ControlPlane, ProposeError, View};
use clusterkit_core::id::RaftId;
use clusterkit_raft::transport::{PeerAddress, RpcKind, Transport};

use crate::error::JoinError;
use crate::inner::{Inner, Phase};
use crate::messages::{Pulse, PulseReply, decode, encode};

/// How long one attempt at announcing may take before the leader is looked up again.
const ANNOUNCE_ROUND: Duration = Duration::from_secs(2);

/// Announces this process, then reports in until the node stops or is no member any more.
pub(crate) async fn run(inner: Arc<Inner>) {
    let work = async {
        while inner.phase() == Phase::Announcing {
            if let Err(error) = inner.announce(ANNOUNCE_ROUND).await {
                tracing::info!(%error, "this start could not be announced yet");
            }
        }
        inner.report_in().await;
    };
    tokio::select! {
        () = work => {}
        () = inner.stop.cancelled() => {}
    }
}

impl Inner {
    /// Makes the present process known to the cluster, within `limit`.
    pub(crate) async fn announce(&self, limit: Duration) -> Result<(), JoinError> {
        let Some(me) = self.raft_id() else {
            return Ok(());
        };
        let view = self.view();
        let known = view.state.node(me).is_some_and(|node| {
            node.incarnation == self.spec.incarnation && node.address == self.spec.address
        });
        if known && view.state.is_live(me) {
            self.set_phase(Phase::Member);
            return Ok(());
        }
        let result = if view.leadership.is_leader {
            self.announce_to_oneself(me).await
        } else {
            let others = self.known_addresses(&view);
            if others.is_empty() {
                // Nobody to ask: wait for leadership, or for news.
                let _ =
                    tokio::time::timeout(limit, self.member_control().changed(view.version)).await;
                return Ok(());
            }
            tokio::select! {
                asked = self.ask_admission(&others, Some(me), limit) => asked.map(|_| ()),
                () = self.becomes_leader() => return Ok(()),
            }
        };
        match &result {
            Ok(()) => self.set_phase(Phase::Member),
            Err(JoinError::Removed { reason }) => {
                tracing::error!(%reason, "this node is no member any more");
                self.set_phase(Phase::Left);
            }
            Err(_) => {}
        }
        result
    }

    async fn announce_to_oneself(&self, node: RaftId) -> Result<(), JoinError> {
        let control = self.member_control();
        let view = control.view();
        if !self.may_judge(&view, node) {
            // Wait for a pulse, or for the silent to be declared down.
            tokio::select! {
                _ = control.changed(view.version) => {}
                () = tokio::time::sleep(self.settings.timing.pulse) => {}
            }
            return Err(JoinError::Refused {
                reason: String::from("some members have not reported in yet"),
            });
        }
        let spec = self.spec.clone();
        let at = self.clock.wall();
        match self
            .member_control()
            .propose(Command::Announce { node, spec, at })
            .await
        {
            Ok(_) => Ok(()),
            Err(ProposeError::Rejected(rejected @ Rejected::UnknownNode { .. })) => {
                Err(JoinError::Removed {
                    reason: rejected.to_string(),
                })
            }
            Err(error) => Err(JoinError::Refused {
                reason: error.to_string(),
            }),
        }
    }

    async fn becomes_leader(&self) {
        let control = self.member_control();
        let mut view = control.view();
        while !view.leadership.is_leader {
            view = control.changed(view.version).await;
        }
    }

    /// Returns where others can be reached: members as last known here, and the seeds.
    fn known_addresses(&self, view: &View) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        seen.insert(self.spec.peer_address().to_owned());
        let members = view
            .state
            .nodes()
            .filter(|node| Some(node.raft_id) != self.raft_id());
        let members = members.map(|node| node.peer_address().to_owned());
        let seeds = self.settings.seeds.iter().map(ToString::to_string);
        for address in members.chain(seeds) {
            if seen.insert(address.clone()) {
                addresses.push(address);
            }
        }
        addresses
    }

    async fn report_in(&self) {
        let interval = self.settings.timing.pulse;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.phase() == Phase::Member {
            ticks.tick().await;
            let view = self.view();
            if self.was_removed(&view) {
                self.set_phase(Phase::Left);
                return;
            }
            let Some(node) = self.raft_id() else { return };
            if view.leadership.is_leader {
                self.renew_own(&view, node);
                continue;
            }
            let leader = view.leadership.leader;
            let Some(leader) = leader.and_then(|id| view.state.node(id).cloned()) else {
                continue;
            };
            let incarnation = self.spec.incarnation;
            let pulse = Pulse {
                node,
                incarnation,
                applied: view.state.applied(),
                lease: self.request_lease(&view, node),
            };
            let peer = PeerAddress::member(leader.raft_id, leader.peer_address());
            match self.pulse(&peer, &pulse, interval * 3).await {
                Some(PulseReply::Removed) => {
                    tracing::warn!("the leader says that this node is no member any more");
                    self.set_phase(Phase::Left);
                }
                Some(PulseReply::Superseded) => {
                    // The membership lives on in the other process: its log must stay.
                    tracing::error!("a newer process of this node reports in: stopping this one");
                    self.set_phase(Phase::Stopped);
                }
                Some(PulseReply::Counted { grant }) => self.take_grant(grant),
                Some(PulseReply::NotLeader | PulseReply::Unknown) | None => {}
            }
        }
    }

    async fn pulse(&self, to: &PeerAddress, pulse: &Pulse, limit: Duration) -> Option<PulseReply> {
        let kind = RpcKind::Heartbeat;
        let sent = self.transport.send(to, kind, encode(kind, pulse));
        match tokio::time::timeout(limit, sent).await {
            Ok(Ok(answer)) => decode(kind, &answer).ok(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a pulse was not answered");
                None
            }
            Err(_) => None,
        }
    }
}

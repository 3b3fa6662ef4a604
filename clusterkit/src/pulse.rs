//! Reporting in: announcing the process after a start, then a pulse to the leader at short intervals,
//! and at once when there is news.
//!
//! The leader's end is in `peer.rs`; what it makes of silence is in `clusterkit_core::detector`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::control::{ControlPlane, ProposeError, View};
use clusterkit_core::health::HealthReport;
use clusterkit_core::id::{Epoch, RaftId};
use clusterkit_core::time::Instant;
use clusterkit_raft::transport::{PeerAddress, RpcKind, Transport};

use crate::copies::CopiesTold;
use crate::error::JoinError;
use crate::inner::{Inner, Phase};
use crate::messages::{Pulse, PulseReply, decode, encode};
use crate::peer::differs;

/// How long one attempt at announcing may take before the leader is looked up again.
const ANNOUNCE_ROUND: Duration = Duration::from_secs(2);

/// Into how many steps the interval between pulses is divided: the gap between two of them is never
/// shorter than one step.
const STEPS: u32 = 8;

/// What a pulse says that others may wait for: what is let go, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct News {
    epoch: Epoch,
    leader: Option<RaftId>,
    term: u64,
    report: HealthReport,
}

impl News {
    fn of(view: &View, report: HealthReport) -> Self {
        Self {
            epoch: view.state.epoch(),
            leader: view.leadership.leader,
            term: view.leadership.term,
            report,
        }
    }
}

/// A pulse that is due.
struct Due {
    view: Arc<View>,
    news: News,
    /// Whether this loop noticed too late that it was.
    late: bool,
}

/// Why a pulse is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// Only the interval is over.
    None,
    /// This node is primary of something whose token waits for the others.
    Waiting,
    /// The last pulse does not say what this one does.
    News,
}

/// When the next pulse is due. A handover takes as long as the pulses that make its token possible,
/// so news go out at once, and whoever waits for a token asks more often: after one step, then two,
/// then four. Never more than [`STEPS`] pulses in an interval, and one for however many news.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    sent: Option<Instant>,
    /// How long to wait for the next one while a token is waited for.
    gap: Duration,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            sent: None,
            gap: interval,
        }
    }

    fn step(&self) -> Duration {
        self.interval / STEPS
    }

    /// Returns how long the next pulse has to wait.
    fn left(&self, urgency: Urgency, now: Instant) -> Duration {
        let gap = match urgency {
            Urgency::None => self.interval,
            Urgency::Waiting => self.gap,
            Urgency::News => self.step(),
        };
        self.sent
            .map_or(Duration::ZERO, |sent| (sent + gap).saturating_since(now))
    }

    /// Takes note of a pulse sent `now`.
    fn sent(&mut self, urgency: Urgency, now: Instant) {
        self.sent = Some(now);
        self.gap = match urgency {
            Urgency::News => self.step(),
            Urgency::Waiting | Urgency::None => (self.gap * 2).min(self.interval),
        };
    }
}

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
            Err(JoinError::Removed { reason } | JoinError::Dismissed { reason }) => {
                tracing::error!(%reason, "this node is no member any more");
                self.set_phase(Phase::Left);
            }
            Err(JoinError::OlderFeatureLevel { reason }) => {
                // What the others write from now on it would not understand.
                tracing::error!(%reason, "this build takes part no more: start a newer one");
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
                () = tokio::time::sleep(self.settings.timing.leases.heartbeat) => {}
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
            Err(ProposeError::Rejected(older @ Rejected::OlderFeatureLevel { .. })) => {
                Err(JoinError::OlderFeatureLevel {
                    reason: older.to_string(),
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
        let interval = self.settings.timing.leases.heartbeat;
        let mut pace = Pace::new(interval);
        let mut said = None;
        let mut told = CopiesTold::default();
        while self.phase() == Phase::Member {
            let Due { view, news, late } = self.until_due(&mut pace, said.as_ref()).await;
            self.note_reporting();
            let report = news.report.clone();
            said = Some(news);
            if self.was_removed(&view) {
                self.set_phase(Phase::Left);
                return;
            }
            let Some(node) = self.raft_id() else { return };
            let (copies, upto) = told.news(self, &view);
            if view.leadership.is_leader {
                self.hear_copies(node, &copies);
                told.heard(upto);
                self.report_to_oneself(&view, node, &report, late).await;
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
                report,
                late,
                copies,
                copies_seen: self.copies_seen(),
                sightings: self.sightings(),
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
                Some(PulseReply::Counted { grant, copies }) => {
                    self.take_grant(grant);
                    told.heard(upto);
                    self.take_copies(&view, copies);
                }
                Some(PulseReply::NotLeader | PulseReply::Unknown) | None => {}
            }
        }
    }

    /// Does as the leader what others do with a pulse.
    async fn report_to_oneself(&self, view: &View, me: RaftId, report: &HealthReport, late: bool) {
        let (incarnation, now) = (self.spec.incarnation, self.clock.now());
        let counts = {
            let mut coordinator = self.coordinator();
            coordinator.handle_health(me, incarnation, report, late, now)
        };
        if differs(view.state.veto(me), report) {
            self.heard.notify_one();
        }
        if counts {
            self.renew_own(view, me);
        } else if let Err(error) = self.member_control().transfer_leadership().await {
            // Whoever leads counts as up: somebody else has to.
            tracing::debug!(%error, "wants to count as down, and nobody else takes the lead");
        }
    }

    /// Waits until the next pulse is due, the last one having `said` this, and returns what it is to
    /// say.
    async fn until_due(&self, pace: &mut Pace, said: Option<&News>) -> Due {
        let mut reports = self.health.subscribe();
        let mut late = false;
        loop {
            let view = self.view();
            let news = News::of(&view, reports.borrow_and_update().clone());
            let urgency = if said != Some(&news) {
                Urgency::News
            } else if self.awaits_fence(&view) {
                Urgency::Waiting
            } else {
                Urgency::None
            };
            let left = pace.left(urgency, self.clock.now());
            if left.is_zero() {
                pace.sent(urgency, self.clock.now());
                return Due { view, news, late };
            }
            let due = self.clock.now() + left;
            tokio::select! {
                _ = self.member_control().changed(view.version) => {}
                _ = reports.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
            late |= self.clock.now().saturating_since(due) > pace.interval;
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

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(80);

    /// Returns when pulses go out, up to `end`, if the urgency at each millisecond is `urgency`.
    fn pulses(end: u64, urgency: impl Fn(u64) -> Urgency) -> Vec<u64> {
        let mut pace = Pace::new(INTERVAL);
        let mut sent = Vec::new();
        for ms in 0..=end {
            let now = Instant::from_millis(ms);
            if pace.left(urgency(ms), now).is_zero() {
                pace.sent(urgency(ms), now);
                sent.push(ms);
            }
        }
        sent
    }

    #[test]
    fn news_go_out_at_once_and_a_waiting_primary_asks_again_soon() {
        assert_eq!(pulses(240, |_| Urgency::None), [0, 80, 160, 240]);
        let news = pulses(200, |ms| match ms {
            45 => Urgency::News,
            _ => Urgency::None,
        });
        assert_eq!(news, [0, 45, 125], "the interval counts from the last one");
        let waiting = pulses(400, |ms| match ms {
            0..45 => Urgency::None,
            45 => Urgency::News,
            _ => Urgency::Waiting,
        });
        assert_eq!(waiting, [0, 45, 55, 75, 115, 195, 275, 355]);
    }

    #[test]
    fn news_without_end_make_no_storm() {
        let sent = pulses(800, |_| Urgency::News);
        assert_eq!(sent.len(), 81);
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] == 10));
    }
}

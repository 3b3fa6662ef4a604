//! Failure detector of the leader: heartbeats in, verdicts out, time as an argument.
//!
//! A [`Detector`] only says who is silent and who is back. What the cluster does about it (the
//! commands, promotions, protected mode) is [`crate::coordinator`]'s; what a node itself may still
//! do while it cannot reach the leader is the lease's, on the node.
//!
//! A tracked node is *up* while it is heard from, *suspect* once it was silent for its lease and
//! the drift margin (for its *patience*), *down* once the log says so, and *up* again when it is
//! heard from. Suspicions are collected for one window and issued as one cut.
//!
//! Detection has two sides: members probe each other too ([`Mesh`]) and tell the leader whom they
//! have seen. A suspect that others see is *vouched for*. The leader gives it no lease meanwhile, as
//! its link to it is gone, so it should let somebody lead who hears it; who that may be is in
//! [`Verdicts::hearers`]. Where nobody hears everybody, the limit ends the waiting: partitions
//! without a primary help nobody.
//!
//! Invariants:
//! - a node heard from within the lease is never condemned;
//! - a node that somebody who is up has seen within the patience is not condemned before it was
//!   silent for the [`vouched_limit`](DetectorConfig::vouched_limit), so that a leader cut off from
//!   one node cannot remove it;
//! - sightings only delay verdicts: a node that dies is not seen any more, and what was seen of it
//!   before is over when its window is, if that is longer than the interval of heartbeats;
//! - a node is condemned only if an earlier poll already suspected it, so heartbeats that were
//!   waiting to be read are read first;
//! - nothing is condemned within one window of a poll that came late, up to four times in a row:
//!   the leader itself was paused or starved then;
//! - a new leader condemns nobody for one full lease.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::config::ConfigError;
use crate::id::{Incarnation, RaftId};
use crate::time::Instant;

mod config;
mod mesh;
mod sighting;
#[cfg(test)]
mod tests;

pub use config::DetectorConfig;
pub use mesh::{Mesh, PROBES_PER_NODE};
use sighting::{Sighting, Vouched};

/// How many late polls in a row are excused. A leader that is always late must still be able to
/// condemn: a wrong verdict costs a failover, none at all costs the partitions of a dead node.
const EXCUSES_MAX: u32 = 4;

/// The largest number of strikes remembered; beyond it the delay is at its cap anyway.
const STRIKES_MAX: u32 = 16;

/// What the detector thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a documented, closed cycle")]
pub enum Liveness {
    /// Heard from within its lease.
    Up,
    /// Silent for longer; the log does not know yet.
    Suspect,
    /// Down in the log.
    Down,
}

/// What became of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub enum Heard {
    /// It counts.
    Counted,
    /// It came from an earlier process of this node and was ignored.
    Stale,
    /// The node is not tracked: it was removed, or is not known yet.
    Unknown,
}

/// The outcome of a poll. Lists are in the order of the ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Verdicts {
    /// Nodes to be marked down, as one command. Issued again after a lease while the log does not
    /// say so (see [`Detector::track`]): a proposal may get lost.
    pub down: Vec<RaftId>,
    /// Nodes that are down in the log and heard from again, to be marked up. Issued again likewise.
    pub up: Vec<RaftId>,
    /// Nodes that are silent for longer than their lease, the ones in `down` included.
    pub suspect: Vec<RaftId>,
    /// Suspects that are not condemned, although their window is over, because others see them.
    pub vouched: Vec<RaftId>,
    /// Nodes that are up and hear some of `vouched`, those that hear most first: each of them is a
    /// better leader.
    pub hearers: Vec<RaftId>,
    /// Those of `down` that others still see, and that were silent for the limit.
    pub overruled: Vec<RaftId>,
    /// More than `max_down_permille` of the tracked nodes go at once. Meaningful only with a
    /// non-empty `down`: failovers are due all the same, copies are not.
    pub protected: bool,
    /// When to poll again at the latest, if nothing happens before. Always later than this poll.
    pub next: Instant,
}

#[derive(Clone, Debug)]
struct Tracked {
    down_in_log: bool,
    incarnation: Incarnation,
    last_heard: Instant,
    /// Since when it was heard without a gap of a lease. Meaningful while down.
    heard_since: Option<Instant>,
    suspect_since: Option<Instant>,
    /// When a verdict was last issued that the log has not confirmed.
    issued_at: Option<Instant>,
    /// When it was last condemned by a cut of ours.
    condemned_at: Option<Instant>,
    strikes: u32,
    struck_at: Instant,
    /// The last sighting by each node that has seen it lately.
    sightings: Vec<Sighting>,
}

impl Tracked {
    fn new(down_in_log: bool, now: Instant) -> Self {
        Self {
            down_in_log,
            incarnation: Incarnation::default(),
            last_heard: now,
            heard_since: None,
            suspect_since: None,
            issued_at: None,
            condemned_at: None,
            strikes: 0,
            struck_at: now,
            sightings: Vec::new(),
        }
    }

    fn is_silent(&self, config: &DetectorConfig, now: Instant) -> bool {
        now.saturating_since(self.last_heard) >= config.patience()
    }

    /// Returns the strikes not forgotten by `now`: one fades with every `memory` without a new one.
    fn strikes(&self, memory: Duration, now: Instant) -> u32 {
        let faded = now.saturating_since(self.struck_at).as_nanos() / memory.as_nanos().max(1);
        self.strikes
            .saturating_sub(u32::try_from(faded).unwrap_or(u32::MAX))
    }

    /// Returns for how long it must be heard before it is up again: at once after a first failure,
    /// one window after a second one, twice as long after each further one.
    fn return_delay(&self, config: &DetectorConfig, now: Instant) -> Duration {
        match self.strikes(config.strike_memory, now) {
            0 | 1 => Duration::ZERO,
            strikes => config
                .window
                .saturating_mul(1 << (strikes - 2))
                .min(config.return_delay_max),
        }
    }
}

/// The failure detector of one process; idle unless this process leads.
///
/// Call [`poll`](Self::poll) after handling what has arrived, and no later than the `next` of the
/// last answer.
///
/// ```
/// use std::time::Duration;
/// use clusterkit_core::detector::{Detector, DetectorConfig};
/// use clusterkit_core::id::RaftId;
/// use clusterkit_core::time::Instant;
///
/// let mut detector = Detector::new(DetectorConfig::default())?;
/// let (me, other) = (RaftId(1), RaftId(7));
/// detector.lead(me, Instant::ZERO);
/// detector.track(me, false, Instant::ZERO);
/// detector.track(other, false, Instant::ZERO);
/// let mut now = detector.poll(Instant::ZERO).next;         // lease and margin: 1.05 s
/// let verdicts = detector.poll(now);
/// assert_eq!((verdicts.suspect, verdicts.down), (vec![other], vec![]));
/// now = verdicts.next;                                     // one window later
/// assert_eq!(detector.poll(now).down, vec![other]);
/// # Ok::<(), clusterkit_core::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Detector {
    config: DetectorConfig,
    nodes: BTreeMap<RaftId, Tracked>,
    /// This process, while it leads.
    leading: Option<RaftId>,
    /// The end of the open window. Invariant: open only while somebody is suspect.
    cut_at: Option<Instant>,
    /// Until when nothing is condemned, because this process was late.
    excused_until: Instant,
    excuses: u32,
    /// How often silence was excused because most nodes doubted themselves, since last nobody was
    /// suspect.
    doubts: u32,
    /// When the last poll asked to be called again.
    asked: Option<Instant>,
}

impl Detector {
    /// Returns a detector that tracks nobody.
    ///
    /// # Errors
    /// [`ConfigError`] from [`DetectorConfig::validate`].
    pub fn new(config: DetectorConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            nodes: BTreeMap::new(),
            leading: None,
            cut_at: None,
            excused_until: Instant::ZERO,
            excuses: 0,
            doubts: 0,
            asked: None,
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// Starts to judge: this process, node `me`, has gained leadership.
    ///
    /// Everybody counts as heard from `now`: the last leader may have granted leases up to this
    /// moment, and nobody has sent this one a heartbeat yet.
    pub fn lead(&mut self, me: RaftId, now: Instant) {
        self.leading = Some(me);
        self.cut_at = None;
        self.excuses = 0;
        self.excused_until = now;
        self.asked = None;
        for node in self.nodes.values_mut() {
            node.last_heard = node.last_heard.max(now);
            node.heard_since = None;
            node.suspect_since = None;
            node.issued_at = None;
            node.condemned_at = None;
        }
    }

    /// Stops to judge: leadership was lost.
    pub fn follow(&mut self) {
        self.leading = None;
        self.cut_at = None;
        self.asked = None;
    }

    /// Returns this process's own node, while it leads.
    #[must_use]
    pub const fn leading(&self) -> Option<RaftId> {
        self.leading
    }

    /// Tells whether verdicts are given.
    #[must_use]
    pub const fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// Tracks `node`, and learns what the log says of it.
    ///
    /// Idempotent: call it for every member whenever the state changes, the own node included. A
    /// node not tracked before gets a full lease from `now`, and so does one the log marked up.
    pub fn track(&mut self, node: RaftId, down_in_log: bool, now: Instant) {
        let Some(tracked) = self.nodes.get_mut(&node) else {
            self.nodes.insert(node, Tracked::new(down_in_log, now));
            return;
        };
        if tracked.down_in_log == down_in_log {
            return;
        }
        tracked.down_in_log = down_in_log;
        tracked.suspect_since = None;
        tracked.issued_at = None;
        tracked.heard_since = None;
        if down_in_log {
            tracked.strikes =
                (tracked.strikes(self.config.strike_memory, now) + 1).min(STRIKES_MAX);
            tracked.struck_at = now;
        } else {
            tracked.last_heard = tracked.last_heard.max(now);
        }
    }

    /// Forgets a node that is no longer a member.
    pub fn forget(&mut self, node: RaftId) {
        self.nodes.remove(&node);
    }

    /// Forgets every node `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(RaftId) -> bool) {
        self.nodes.retain(|node, _| keep(*node));
    }

    /// Takes note of a heartbeat of `node`, sent by the process `incarnation` of it and handled
    /// `now`.
    pub fn handle_heartbeat(
        &mut self,
        node: RaftId,
        incarnation: Incarnation,
        now: Instant,
    ) -> Heard {
        let lease = self.config.lease;
        let Some(tracked) = self.nodes.get_mut(&node) else {
            return Heard::Unknown;
        };
        if incarnation < tracked.incarnation {
            return Heard::Stale;
        }
        tracked.incarnation = incarnation;
        if tracked.down_in_log {
            let steady = now.saturating_since(tracked.last_heard) <= lease;
            match tracked.heard_since {
                Some(_) if steady => {}
                _ => tracked.heard_since = Some(now),
            }
        } else {
            // Heard before the log took the verdict: it is withdrawn.
            tracked.issued_at = None;
        }
        tracked.last_heard = tracked.last_heard.max(now);
        tracked.suspect_since = None;
        Heard::Counted
    }

    /// Returns what is thought of `node` at `now`, `None` when it is not tracked.
    #[must_use]
    pub fn liveness(&self, node: RaftId, now: Instant) -> Option<Liveness> {
        let tracked = self.nodes.get(&node)?;
        Some(if tracked.down_in_log {
            Liveness::Down
        } else if self.leading != Some(node) && tracked.is_silent(&self.config, now) {
            Liveness::Suspect
        } else {
            Liveness::Up
        })
    }

    /// Returns how often `node` failed lately; one strike fades with every `strike_memory`.
    ///
    /// More than one means that it flaps: prefer others as primaries.
    #[must_use]
    pub fn strikes(&self, node: RaftId, now: Instant) -> u32 {
        self.nodes
            .get(&node)
            .map_or(0, |tracked| tracked.strikes(self.config.strike_memory, now))
    }

    /// Returns when `node` was last heard from, or first waited for.
    #[must_use]
    pub fn last_heard(&self, node: RaftId) -> Option<Instant> {
        self.nodes.get(&node).map(|tracked| tracked.last_heard)
    }

    /// Takes back the verdict on `node`, which was not acted on: it is issued again if the node
    /// stays silent.
    pub fn withdraw(&mut self, node: RaftId) {
        if let Some(node) = self.nodes.get_mut(&node) {
            (node.issued_at, node.condemned_at) = (None, None);
        }
    }

    /// Judges everybody at `now`.
    pub fn poll(&mut self, now: Instant) -> Verdicts {
        let mut verdicts = Verdicts {
            down: Vec::new(),
            up: Vec::new(),
            suspect: Vec::new(),
            vouched: Vec::new(),
            hearers: Vec::new(),
            overruled: Vec::new(),
            protected: false,
            next: Instant::FAR_FUTURE,
        };
        if self.leading.is_none() {
            return verdicts;
        }
        self.excuse_lateness(now);
        let vouched = self.vouched(now);
        let due = self.suspect(&vouched, now, &mut verdicts);
        self.cut(due, now, &mut verdicts);
        let seen = |node: &&RaftId| vouched.iter().any(|(id, _)| id == *node);
        verdicts.overruled = verdicts.down.iter().filter(seen).copied().collect();
        if now >= self.excused_until {
            verdicts.hearers = self.hearers(&verdicts.vouched, now);
        }
        self.welcome(now, &mut verdicts);
        verdicts.next = self.next_deadline(&vouched, now);
        self.asked = Some(verdicts.next);
        verdicts
    }

    /// Puts silence down to something else for one window: to be called when most nodes say that
    /// they are late themselves. At most four times while anybody is suspect: a node that died is condemned
    /// all the same.
    pub fn excuse(&mut self, now: Instant) {
        if self.doubts < EXCUSES_MAX && now >= self.excused_until {
            self.doubts += 1;
            self.excused_until = now + self.config.window;
        }
    }

    fn excuse_lateness(&mut self, now: Instant) {
        let late = self
            .asked
            .is_some_and(|asked| now.saturating_since(asked) > self.config.window / 2);
        if !late {
            self.excuses = 0;
        } else if self.excuses < EXCUSES_MAX {
            self.excuses += 1;
            self.excused_until = now + self.config.window;
        }
    }

    /// Updates suspicions and returns the nodes a cut would take: those already suspected by an
    /// earlier poll, without a verdict under way, and that nobody vouches for.
    fn suspect(
        &mut self,
        vouched: &[(RaftId, Vouched)],
        now: Instant,
        verdicts: &mut Verdicts,
    ) -> Vec<RaftId> {
        let config = self.config;
        let mut due = Vec::new();
        let mut waiting = false;
        for (id, node) in &mut self.nodes {
            let silent = self.leading != Some(*id) && node.is_silent(&self.config, now);
            if node.down_in_log || !silent {
                node.suspect_since = None;
                continue;
            }
            verdicts.suspect.push(*id);
            let is_vouched = vouched.iter().any(|(seen, _)| seen == id)
                && now.saturating_since(node.last_heard) < config.vouched_limit;
            let reissue = |issued| now.saturating_since(issued) >= config.lease;
            match node.suspect_since {
                None => {
                    node.suspect_since = Some(now);
                    waiting = true;
                }
                // Its window stays open: what was seen before it died will not count by then. Once
                // that is over it keeps nobody waiting, and has a new one if it is not seen any more.
                Some(since) if is_vouched && now < since + config.window => waiting = true,
                Some(_) if is_vouched => verdicts.vouched.push(*id),
                Some(_) if node.issued_at.is_none_or(reissue) => due.push(*id),
                Some(_) => {}
            }
        }
        if verdicts.suspect.is_empty() {
            self.doubts = 0;
        }
        if due.is_empty() && !waiting {
            self.cut_at = None;
        } else if self.cut_at.is_none() {
            self.cut_at = Some(now + self.config.window);
        }
        due
    }

    fn cut(&mut self, due: Vec<RaftId>, now: Instant, verdicts: &mut Verdicts) {
        let Some(cut_at) = self.cut_at else { return };
        if now < cut_at.max(self.excused_until) {
            return;
        }
        if due.is_empty() {
            // Only this poll's suspicions remain: they wait for a window of their own.
            self.cut_at = Some(now + self.config.window);
            return;
        }
        for id in &due {
            if let Some(node) = self.nodes.get_mut(id) {
                node.issued_at = Some(now);
                node.condemned_at = Some(now);
            }
        }
        let left_over = verdicts.suspect.len() > due.len() + verdicts.vouched.len();
        self.cut_at = left_over.then_some(now + self.config.window);
        verdicts.protected = self.too_many_at_once(now);
        verdicts.down = due;
    }

    /// Counts everybody condemned within a lease and a window as one event: a switch that dies
    /// takes its nodes over two cuts when their heartbeats straddle the end of a window.
    fn too_many_at_once(&self, now: Instant) -> bool {
        let event = self.config.lease + self.config.window;
        let going = self.nodes.values().filter(|node| {
            node.condemned_at
                .is_some_and(|at| now.saturating_since(at) <= event)
                && (node.down_in_log || node.suspect_since.is_some())
        });
        let (going, all) = (going.count() as u64, self.nodes.len() as u64);
        // One node alone is no mass failure, even where it is half the cluster.
        going > 1 && going * 1_000 > all * u64::from(self.config.max_down_permille)
    }

    fn welcome(&mut self, now: Instant, verdicts: &mut Verdicts) {
        let (leading, config) = (self.leading, self.config);
        for (id, node) in &mut self.nodes {
            if !node.down_in_log {
                continue;
            }
            if leading == Some(*id) && node.heard_since.is_none() {
                // The leader is alive by definition.
                node.heard_since = Some(now);
                node.last_heard = now;
            }
            let Some(since) = node.heard_since else {
                continue;
            };
            if leading != Some(*id) && now.saturating_since(node.last_heard) > config.lease {
                node.heard_since = None;
                continue;
            }
            let proven = now.saturating_since(since) >= node.return_delay(&config, now);
            let reissue = |issued| now.saturating_since(issued) >= config.lease;
            if proven && node.issued_at.is_none_or(reissue) {
                node.issued_at = Some(now);
                verdicts.up.push(*id);
            }
        }
    }

    fn next_deadline(&self, vouched: &[(RaftId, Vouched)], now: Instant) -> Instant {
        let config = &self.config;
        let mut next = Instant::FAR_FUTURE;
        let mut consider = |at: Instant| {
            if at > now {
                next = next.min(at);
            }
        };
        for (id, node) in &self.nodes {
            if let Some(issued) = node.issued_at {
                consider(issued + config.lease);
            }
            if node.down_in_log {
                if let Some(since) = node.heard_since {
                    consider(since + node.return_delay(config, now));
                    consider(node.last_heard + config.lease);
                }
            } else if self.leading != Some(*id) {
                consider(node.last_heard + config.patience());
                if let Some((_, vouched)) = vouched.iter().find(|(seen, _)| seen == id) {
                    consider(vouched.until);
                    consider(node.last_heard + config.vouched_limit);
                }
            }
        }
        if let Some(cut_at) = self.cut_at {
            consider(cut_at.max(self.excused_until));
        }
        next
    }
}

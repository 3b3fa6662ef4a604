//! Sightings: what others have seen of a node that the leader itself does not hear.
//!
//! The leader's link to a node may be cut while everybody else reaches it, so silence at the leader
//! alone condemns nobody whom a prober has seen lately. The age of a sighting counts from when the
//! probe was *sent*. A sighting is worth as much as whoever relays it: only nodes that are up
//! themselves vouch, so that a part of the cluster that the leader has lost as a whole cannot vouch
//! for itself. No report is no sighting.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Detector, Heard};
use crate::id::{Incarnation, RaftId};
use crate::planted::{self, Bug};
use crate::time::Instant;

/// That a node was seen by another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    by: RaftId,
    /// The process that answered.
    incarnation: Incarnation,
    /// When it was asked, by the clock of this process: late by what the report took.
    at: Instant,
}

/// What speaks for a node that is silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vouched {
    /// Until when, without further sightings.
    pub(super) until: Instant,
}

impl Detector {
    /// Takes note that `by` has seen the process `incarnation` of `of`, `age` before `now`: it was
    /// asked then, and has answered. To be called with each heartbeat of `by` that counts.
    pub fn handle_sighting(
        &mut self,
        by: RaftId,
        of: RaftId,
        incarnation: Incarnation,
        age: Duration,
        now: Instant,
    ) -> Heard {
        if by == of || !self.nodes.contains_key(&by) {
            return Heard::Unknown;
        }
        let patience = self.config.patience();
        let Some(node) = self.nodes.get_mut(&of) else {
            return Heard::Unknown;
        };
        if incarnation < node.incarnation {
            return Heard::Stale;
        }
        // What is too old to count is forgotten, so that this holds nobody but those who probe now.
        node.sightings
            .retain(|seen| now.saturating_since(seen.at) < patience);
        let new = Sighting {
            by,
            incarnation,
            at: now - age,
        };
        match node.sightings.iter_mut().find(|seen| seen.by == by) {
            Some(seen) if seen.at <= new.at => *seen = new,
            Some(_) => {}
            None => node.sightings.push(new),
        }
        Heard::Counted
    }

    /// Returns the sightings of `of` that count `now`.
    fn counting(&self, of: RaftId, now: Instant) -> impl Iterator<Item = Sighting> + '_ {
        let patience = self.config.patience();
        let node = self.nodes.get(&of);
        let since = node.map(|node| node.incarnation).unwrap_or_default();
        let seen = node.into_iter().flat_map(|node| node.sightings.iter());
        seen.copied().filter(move |seen| {
            seen.incarnation >= since
                && now.saturating_since(seen.at) < patience
                && self.is_up(seen.by, now)
        })
    }

    fn is_up(&self, node: RaftId, now: Instant) -> bool {
        let node = self.nodes.get(&node);
        node.is_some_and(|node| !node.down_in_log && !node.is_silent(&self.config, now))
    }

    /// Returns for every silent node what speaks for it, in the order of the ids.
    pub(super) fn vouched(&self, now: Instant) -> Vec<(RaftId, Vouched)> {
        if planted::is_on(Bug::CondemnDespiteSighting) {
            return Vec::new();
        }
        let patience = self.config.patience();
        let silent = self.nodes.iter().filter(|&(id, node)| {
            self.leading != Some(*id) && !node.down_in_log && node.is_silent(&self.config, now)
        });
        let vouched = silent.filter_map(|(&id, _)| {
            let newest = self.counting(id, now).map(|seen| seen.at).max()?;
            let until = newest + patience;
            Some((id, Vouched { until }))
        });
        vouched.collect()
    }

    /// Returns who hears nodes of `lost` that this leader does not, those that hear most first: seen
    /// not before this leader had lost them, so that they are known to live.
    pub(super) fn hearers(&self, lost: &[RaftId], now: Instant) -> Vec<RaftId> {
        let mut hearers: Vec<(RaftId, usize)> = Vec::new();
        for &node in lost {
            let since = self.nodes.get(&node).and_then(|node| node.suspect_since);
            let seen = self.counting(node, now);
            for seen in seen.filter(|seen| since.is_some_and(|since| since <= seen.at)) {
                match hearers.iter_mut().find(|(by, _)| *by == seen.by) {
                    Some((_, hears)) => *hears += 1,
                    None => hearers.push((seen.by, 1)),
                }
            }
        }
        hearers.sort_unstable_by_key(|&(by, hears)| (core::cmp::Reverse(hears), by));
        hearers.into_iter().map(|(by, _)| by).collect()
    }
}

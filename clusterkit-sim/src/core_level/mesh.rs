//! Probes, what is reported of them, and what must not happen to a node that others see.
//!
//! A probe is idealised: whether it is answered, and how soon, is decided when it is sent. So it costs
//! no event; the answer counts with the first report after it has come.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::detector::Mesh;
use clusterkit_core::id::{Epoch, Incarnation, RaftId};
use clusterkit_core::time::Instant;

use super::event::Slot;
use super::process::Phase;
use super::world::{Check, World, ensure};
use crate::Rng;

/// Who probes whom at the moment, and how long it takes.
#[derive(Debug)]
pub(super) struct Ring {
    rng: Rng,
    /// The last one asked for: most nodes have the same state.
    known: Option<(Epoch, Option<RaftId>, Arc<Mesh>)>,
}

/// An answer to a probe, which has come or is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probed {
    sighting: Sighting,
    /// When it was asked, by the clock of whoever asked.
    asked_at: Instant,
    comes_at: Duration,
}

/// A report that somebody was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    of: RaftId,
    incarnation: Incarnation,
    /// How old it is by the clock of whoever asked.
    age: Duration,
    /// When it was asked, and which process answered, in truth.
    asked_at: Duration,
    home: (Slot, u32),
}

impl Ring {
    pub(super) fn new(rng: Rng) -> Self {
        let known = None;
        Self { rng, known }
    }
}

impl World {
    /// Lets `slot`, which runs as `me`, probe whom it is to.
    pub(super) fn probe(&mut self, slot: Slot, me: RaftId) {
        if self.process(slot).leads.is_some() {
            return;
        }
        let leader = self.process(slot).follows;
        let leader = leader.and_then(|leader| self.process(leader).disk.raft_id);
        let mesh = self.mesh_of(slot, leader);
        let now = self.now;
        let local = self.process(slot).clock.monotonic(now);
        for of in mesh.targets(me) {
            let Some(home) = self.home_of(of) else {
                continue;
            };
            let (way, back) = (self.probe_takes(), self.probe_takes());
            let (Some(way), Some(back)) = (way, back) else {
                continue;
            };
            let target = self.process(home);
            let answers = self.is_awake(home)
                && target.phase == Phase::Member
                && target.disk.raft_id == Some(of)
                && self.talks(slot, home);
            if !answers {
                continue;
            }
            let sighting = Sighting {
                of,
                incarnation: target.disk.incarnation,
                age: Duration::ZERO,
                asked_at: now,
                home: (home, target.life),
            };
            let comes_at = now + way + back;
            let probed = Probed {
                sighting,
                asked_at: local,
                comes_at,
            };
            self.process_mut(slot).probes.insert(of, probed);
        }
    }

    /// Returns how long one way of a probe takes, none when it is lost.
    fn probe_takes(&mut self) -> Option<Duration> {
        self.net.deliver_by(&mut self.mesh.rng).0
    }

    fn mesh_of(&mut self, slot: Slot, leader: Option<RaftId>) -> Arc<Mesh> {
        let view = &self.processes[slot as usize - 1].view;
        match &self.mesh.known {
            Some((epoch, under, mesh)) if (*epoch, *under) == (view.epoch(), leader) => {
                Arc::clone(mesh)
            }
            _ => {
                let mesh = Arc::new(Mesh::of(view, leader));
                self.mesh.known = Some((view.epoch(), leader, Arc::clone(&mesh)));
                mesh
            }
        }
    }

    /// Returns whom `slot` has seen lately, as it tells the leader.
    pub(super) fn sightings(&mut self, slot: Slot) -> Vec<Sighting> {
        let now = self.now;
        let patience = self.settings.detector.lease_timing().wait();
        let process = self.process_mut(slot);
        let local = process.clock.monotonic(now);
        let age = |probed: &Probed| local.saturating_since(probed.asked_at);
        process.probes.retain(|_, probed| age(probed) < patience);
        let come = process.probes.values();
        come.filter(|probed| probed.comes_at <= now)
            .map(|probed| Sighting {
                age: age(probed),
                ..probed.sighting
            })
            .collect()
    }

    /// Takes in, as the leader, what `by` has seen.
    pub(super) fn hear_sightings(&mut self, slot: Slot, by: RaftId, sightings: &[Sighting]) {
        let now = self.now;
        let process = self.process_mut(slot);
        let local = process.clock.monotonic(now);
        for seen in sightings {
            let (of, incarnation) = (seen.of, seen.incarnation);
            let _ = process
                .coordinator
                .handle_sighting(by, of, incarnation, seen.age, local);
            let newest = process.decides.seen.entry((by, of)).or_insert(*seen);
            if newest.asked_at <= seen.asked_at {
                *newest = *seen;
            }
        }
    }

    /// A node that has run all the time since somebody saw it is not condemned by a leader that was
    /// told so, by somebody that it hears itself, unless it has waited for the limit.
    pub(super) fn check_unseen(&self, slot: Slot, node: RaftId) -> Check {
        let process = self.process(slot);
        let (local, config) = (process.clock.monotonic(self.now), &self.settings.detector);
        let heard_within = |id: RaftId, limit: Duration| {
            let heard = process.decides.heard.get(&id);
            heard.is_some_and(|&at| local.saturating_since(at) < limit)
        };
        // A leader that was never told of it counts from its beginning, which is later.
        if !self.trusts_clocks || !heard_within(node, config.vouched_limit) {
            return Ok(());
        }
        let speaks = |&(&(by, of), seen): &(&(RaftId, RaftId), &Sighting)| {
            let home = self.process(seen.home.0);
            of == node
                && process.view.is_live(by)
                && heard_within(by, config.lease)
                && self.now.saturating_sub(seen.asked_at) < config.lease
                && home.running
                && home.life == seen.home.1
        };
        let speaks = process.decides.seen.iter().find(speaks);
        ensure(speaks.is_none(), "seen-is-not-condemned", || {
            format!("n{slot} condemns {node} although {speaks:?}")
        })
    }

    /// Lets one of `heirs` lead instead of `slot`, which wishes so.
    pub(super) fn yield_leadership(&mut self, slot: Slot, heirs: &[RaftId]) {
        let truly =
            self.log.leader == Some(slot) && self.process(slot).leads == Some(self.log.term);
        if heirs.is_empty() || !truly {
            return;
        }
        let homes = heirs.iter().filter_map(|&heir| self.home_of(heir));
        self.log.heirs = homes.collect();
        self.depose(Duration::ZERO);
    }
}

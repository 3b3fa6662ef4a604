//! Leases and tokens: asked for with every report, granted by whoever leads and can prove it.
//!
//! What is promised: at no moment do two processes hold a live token of one partition, as long as
//! clocks keep to the margin. A process that stands still counts: its token is good until it says.

use std::time::Duration;

use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::lease::{LeadershipProof, Lease, LeaseGrant, LeaseRequest};

use super::event::Slot;
use super::world::{Check, World, ensure};
use crate::{Fault, FaultSchedule};

impl World {
    pub(super) fn request_lease(&mut self, slot: Slot, me: RaftId) -> LeaseRequest {
        let (now, lasts) = (self.now, self.settings.detector.lease);
        let process = self.process_mut(slot);
        let incarnation = process.disk.incarnation;
        let lease = process
            .lease
            .get_or_insert_with(|| Lease::new(me, incarnation, lasts));
        lease.observe(&process.view);
        lease.request(process.clock.monotonic(now))
    }

    /// Lets a majority confirm that `slot` leads, if it does and can reach one.
    pub(super) fn confirm_leadership(&mut self, slot: Slot) {
        let leads = self.process(slot).leads;
        let truly = self.log.leader == Some(slot) && leads == Some(self.log.term);
        if truly && self.can_lead(slot) {
            // By its own clock, which may be fast: no later than the round really began.
            let took = self
                .rng
                .duration(Duration::ZERO..=Duration::from_millis(60))
                * 2;
            let (now, term) = (self.now, self.log.term);
            let process = self.process_mut(slot);
            process.confirmed = Some((term, process.clock.monotonic(now) - took));
        }
    }

    /// Answers a request as the leader, with the newest grant that is proven by now.
    pub(super) fn renew(&mut self, slot: Slot, request: &LeaseRequest) -> Option<LeaseGrant> {
        let now = self.now;
        let process = self.process_mut(slot);
        let local = process.clock.monotonic(now);
        let leases = process.coordinator.leases();
        if let Some((term, begun_at)) = process.confirmed {
            leases.handle_proof(LeadershipProof { term, begun_at });
        }
        leases.handle_request(request, &process.view, local).ok()?;
        leases.grant(request.node, request.incarnation, local)
    }

    /// Takes a grant in. Now, or when it applies what it was granted for, a token begins.
    pub(super) fn granted(&mut self, slot: Slot, grant: LeaseGrant) -> Check {
        let now = self.now;
        let process = self.process_mut(slot);
        let local = process.clock.monotonic(now);
        let Some(lease) = &mut process.lease else {
            return Ok(());
        };
        let before = (lease.is_live(local), lease.fence());
        lease.handle_grant(grant, local);
        // A lease that is only prolonged begins no token.
        let begins = before != (lease.is_live(local), lease.fence());
        if self.settings.hurries {
            let waits = self.process(slot).lease.as_ref();
            if waits.is_some_and(Lease::awaits_fence) {
                self.hurry_pulse(slot);
            }
        }
        if begins {
            return self.check_tokens_soon();
        }
        Ok(())
    }

    /// Checks the tokens of a small world.
    pub(super) fn check_tokens_soon(&self) -> Check {
        if self.processes.len() < 100 {
            return self.check_tokens();
        }
        Ok(())
    }

    /// Tells whether `slot` holds a live token of `id`, by what it has applied.
    pub(super) fn holds_token(&self, slot: Slot, id: PartitionId) -> bool {
        let process = self.process(slot);
        let local = process.clock.monotonic(self.now);
        process.running
            && process
                .lease
                .as_ref()
                .is_some_and(|lease| lease.token(id, local).is_ok())
    }

    /// Checks that nobody holds a token beside somebody else's. Only a process that lags behind
    /// the log can hold one that it should not.
    pub(super) fn check_tokens(&self) -> Check {
        if !self.trusts_clocks {
            return Ok(());
        }
        let state = &self.log.state;
        for process in self.processes.iter().filter(|process| process.running) {
            let (Some(me), Some(lease)) = (process.disk.raft_id, &process.lease) else {
                continue;
            };
            if process.view.epoch() == state.epoch() {
                continue;
            }
            let local = process.clock.monotonic(self.now);
            if !lease.is_live(local) {
                continue;
            }
            for (id, partition) in process.view.partitions_by_id() {
                let other = state.partition(id).and_then(|now| now.primary);
                if partition.primary != Some(me)
                    || other == Some(me)
                    || lease.token(id, local).is_err()
                {
                    continue;
                }
                let other = self
                    .processes
                    .iter()
                    .find(|other| other.slot != process.slot && self.holds_token(other.slot, id));
                ensure(other.is_none(), "one-token-a-partition", || {
                    let (slot, other) = (process.slot, other.map(|other| other.slot));
                    format!("n{slot} and n{other:?} both hold a token of {id}")
                })?;
            }
        }
        Ok(())
    }

    /// Whoever leads a partition can prove it, once nothing goes wrong any more.
    pub(super) fn check_owners(&self) -> Check {
        for (id, partition) in self.log.state.partitions_by_id() {
            let Some(primary) = partition.primary else {
                continue;
            };
            let holds = self
                .home_of(primary)
                .is_some_and(|home| self.holds_token(home, id));
            ensure(holds, "owners-hold-tokens", || {
                format!("{primary} holds none of {id}")
            })?;
        }
        Ok(())
    }
}

/// Tells whether every clock of the run keeps to what `tolerated_ppm` allows.
pub(super) fn keeps_margin(faults: &FaultSchedule, tolerated_ppm: u32) -> bool {
    faults.faults().iter().all(|fault| match &fault.fault {
        Fault::Drift { ppm, .. } => ppm.unsigned_abs() <= tolerated_ppm,
        _ => true,
    })
}

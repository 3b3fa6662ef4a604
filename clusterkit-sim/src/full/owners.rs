//! Who held which ownership token when, in true time.
//!
//! A process is asked for its tokens whenever it shows something new, and every few turns. A token
//! counts from the moment it was given until it runs out by the clock of its machine, also while the
//! process stands still; it ends earlier where the process learns that it owns the partition no
//! more, or dies. Judged by [`crate::check::owners`].

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit::{ClusterKit, Instant};
use clusterkit_core::id::{PartitionId, RaftId};

use crate::check::owners::Claim;

/// The tokens of a run.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// By node of the world and partition.
    open: BTreeMap<(usize, PartitionId), Claim>,
    over: Vec<Claim>,
}

/// A process at the moment it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) index: usize,
    pub(super) node: RaftId,
    pub(super) cluster: &'a ClusterKit,
    /// What its clock says since it began, and by how many millionths that is too fast.
    pub(super) local: Duration,
    pub(super) ppm: i32,
}

impl Tokens {
    /// Asks for the tokens of `partitions` partitions.
    pub(super) fn ask(&mut self, asked: Asked<'_>, partitions: u32, now: Duration) {
        let clock = Instant::ZERO + asked.local;
        for partition in (0..partitions).map(PartitionId) {
            let key = (asked.index, partition);
            let token = asked.cluster.ownership(partition);
            let Ok(token) = token else {
                self.end(key, now);
                continue;
            };
            let left = token.valid_until().saturating_since(clock);
            let rate = u32::try_from(1_000_000 + asked.ppm.max(-999_999)).unwrap_or(1);
            let until = now + left * 1_000_000 / rate;
            let claim = Claim {
                node: asked.node,
                partition,
                epoch: token.epoch(),
                from: now,
                until,
            };
            match self.open.get_mut(&key) {
                // Renewed in time or not: nobody else may have had it in between.
                Some(known) if known.epoch == claim.epoch && known.node == claim.node => {
                    known.until = known.until.max(until);
                }
                _ => {
                    self.end(key, now);
                    self.open.insert(key, claim);
                }
            }
        }
    }

    /// The process on `index` is no more.
    pub(super) fn died(&mut self, index: usize, now: Duration) {
        let keys: Vec<_> = self
            .open
            .keys()
            .filter(|(at, _)| *at == index)
            .copied()
            .collect();
        for key in keys {
            self.end(key, now);
        }
    }

    fn end(&mut self, key: (usize, PartitionId), now: Duration) {
        if let Some(mut claim) = self.open.remove(&key) {
            claim.until = claim.until.min(now);
            self.over.push(claim);
        }
    }

    /// Returns all there were.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.over
            .iter()
            .chain(self.open.values())
            .copied()
            .collect()
    }
}

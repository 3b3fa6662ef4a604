//! A running estimate of how many partitions each node leads, for ties only.
//!
//! Replicas could be moved without a thought for primaries and still cost the fewest copies; the
//! ledger steers which of equally cheap moves takes along a primary that has to move anyway. The
//! exact choice of primaries is made in [`primary`](crate::placement).

use alloc::vec::Vec;

use crate::placement::problem::Problem;
use crate::placement::targets::Targets;

/// Counts of led partitions against their bounds.
///
/// Beyond what bounds force, ceilings have to change hands a known number of times: at most
/// `gives` nodes within bounds give one away, at most `takes` take one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    count: Vec<u32>,
    floor: Vec<u32>,
    ceil: Vec<u32>,
    gives: i64,
    takes: i64,
}

impl Ledger {
    pub(super) fn new(problem: &Problem<'_>, targets: &Targets) -> Self {
        let mut count = alloc::vec![0u32; problem.nodes()];
        for partition in 0..problem.partitions {
            if let Some(primary) = problem.held.primary(partition) {
                count[usize::from(primary)] += 1;
            }
        }
        let (floor, ceil) = (targets.lead_floor.clone(), targets.lead_ceil.clone());
        let floors: i64 = floor.iter().map(|&least| i64::from(least)).sum();
        let ceilings = problem.partitions as i64 - floors;
        let taken: i64 = (0..count.len())
            .map(|node| i64::from(count[node].min(ceil[node])) - i64::from(floor[node]))
            .map(|above| above.max(0))
            .sum();
        Self {
            count,
            floor,
            ceil,
            gives: (taken - ceilings).max(0),
            takes: (ceilings - taken).max(0),
        }
    }

    pub(super) fn can_give(&self, node: usize) -> bool {
        self.count[node] > self.ceil[node]
            || (self.count[node] > self.floor[node] && self.gives > 0)
    }

    pub(super) fn give(&mut self, node: usize) {
        if self.count[node] <= self.ceil[node] {
            self.gives -= 1;
        }
        self.count[node] -= 1;
    }

    pub(super) fn can_take(&self, node: usize) -> bool {
        self.count[node] < self.floor[node]
            || (self.count[node] < self.ceil[node] && self.takes > 0)
    }

    pub(super) fn take(&mut self, node: usize) {
        if self.count[node] >= self.floor[node] {
            self.takes -= 1;
        }
        self.count[node] += 1;
    }

    /// Returns how many partitions the node must still get to lead.
    pub(super) fn must_take(&self, node: usize) -> u32 {
        self.floor[node].saturating_sub(self.count[node])
    }

    /// Returns how many ceilings the node may get beyond what it must.
    pub(super) fn may_take(&self, node: usize) -> u32 {
        self.ceil[node].saturating_sub(self.count[node].max(self.floor[node]))
    }

    pub(super) const fn ceilings_to_take(&self) -> bool {
        self.takes > 0
    }
}

//! Settling the hub: deciding provisionally who holds a ceiling.
//!
//! Quotas move along arcs that cost nothing, in one direction only. Both directions in one run
//! would open a free path from a source to a sink past the exact search, which then could no
//! longer trust that open places have distance 0 and overfull nodes at least 1.

use alloc::vec;
use alloc::vec::Vec;

use super::{ReplicaFlow, Stuck};

impl ReplicaFlow<'_> {
    /// Raises quotas while the hub lacks replicas: small shares first, then larger remainders, so
    /// that the loads of all nodes are as close together as the weights allow.
    pub(super) fn settle_up(&mut self) -> Result<(), Stuck> {
        match self.hub < 0 {
            true => self.settle(true),
            false => Ok(()),
        }
    }

    /// Moves the hub to zero, whatever its sign: large shares give way first.
    pub(super) fn settle_down(&mut self) -> Result<(), Stuck> {
        match self.hub {
            0 => Ok(()),
            excess => self.settle(excess < 0),
        }
    }

    fn settle(&mut self, up: bool) -> Result<(), Stuck> {
        let mut order: Vec<(u64, u64, u64, usize)> = (0..self.load.len())
            .map(|node| {
                let share =
                    u64::from(self.targets.floor[node]) + u64::from(self.problem.fixed[node]);
                let rest = self.targets.rest[node];
                let tie = self
                    .problem
                    .toss(self.problem.key[node], 77 + u64::from(up));
                match up {
                    true => (share, !rest, tie, node),
                    false => (!share, rest, tie, node),
                }
            })
            .collect();
        order.sort_unstable();
        let (mut sums, least, most) = self.zone_sums();
        // First the zones that are outside what zones can hold, then within, then anywhere.
        for pass in 0..3 {
            let mut moved = true;
            while moved {
                moved = false;
                for &(_, _, _, node) in &order {
                    if self.hub == 0 {
                        return Ok(());
                    }
                    let zone = self.zone(node);
                    let (sum, low, high) = (sums[zone], least[zone], most[zone]);
                    let (bound, closed) = match up {
                        true => (
                            self.quota[node] >= self.targets.ceil[node],
                            [sum >= low, sum >= high, false][pass],
                        ),
                        false => (
                            self.quota[node] <= self.targets.floor[node],
                            [sum <= high, sum <= low, false][pass],
                        ),
                    };
                    if bound || closed {
                        continue;
                    }
                    moved = true;
                    match up {
                        true => {
                            self.raise(node);
                            sums[zone] += 1;
                        }
                        false => {
                            self.lower(node);
                            sums[zone] -= 1;
                        }
                    }
                }
            }
        }
        match self.hub {
            0 => Ok(()),
            _ => Err(Stuck::Broken),
        }
    }

    /// Returns the quotas per zone, and the least and the most they can be given the other zones.
    fn zone_sums(&self) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
        let rows = self.rows() as i64;
        let total = rows * self.problem.factor as i64;
        let bound =
            |bounds: &[u16]| -> Vec<i64> { bounds.iter().map(|&b| i64::from(b) * rows).collect() };
        let (low, high) = (
            bound(&self.targets.zone_least),
            bound(&self.targets.zone_most),
        );
        let (all_low, all_high): (i64, i64) = (low.iter().sum(), high.iter().sum());
        let mut sums = vec![0; self.problem.zones];
        for node in 0..self.load.len() {
            sums[self.zone(node)] += i64::from(self.quota[node]);
        }
        let least = (0..low.len()).map(|z| low[z].max(total - (all_high - high[z])));
        let most = (0..low.len()).map(|z| high[z].min(total - (all_low - low[z])));
        (sums, least.collect(), most.collect())
    }
}

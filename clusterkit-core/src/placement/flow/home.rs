//! Following the hint: a node that returns finds its old partitions, where that costs nothing.
//!
//! Both passes only choose among steps that other passes would take anyway: filling an open place
//! (distance 0) and moving a replica off an overfull node (distance 1).

use super::ReplicaFlow;

impl ReplicaFlow<'_> {
    /// Fills open places with nodes of the home row.
    pub(super) fn fill_home(&mut self) {
        if self.problem.home.is_empty() {
            return;
        }
        for row in 0..self.rows() {
            if self.row_excess(row) <= 0 && !self.every_zone {
                continue;
            }
            for &node in self.home(row) {
                if node == super::NO_NODE || self.is_member(row, usize::from(node)) {
                    continue;
                }
                let node = usize::from(node);
                let full = self.load[node] >= self.quota[node];
                let may_raise = self.hub < 0
                    && self.quota[node] < self.targets.ceil[node]
                    && self.load[node] == self.quota[node];
                if full && !may_raise {
                    continue;
                }
                if self.try_place(row, node) && full {
                    self.raise(node);
                }
            }
        }
    }

    /// Moves replicas from overfull nodes to nodes of the home row with room.
    pub(super) fn shift_home(&mut self) {
        if self.problem.home.is_empty() {
            return;
        }
        for row in 0..self.rows() {
            for &to in self.home(row) {
                if to == super::NO_NODE {
                    continue;
                }
                let to = usize::from(to);
                if self.room(to) == 0 || self.is_member(row, to) {
                    continue;
                }
                let Some((lowers, from)) = self.home_source(row, to) else {
                    continue;
                };
                if lowers {
                    self.lower(from);
                }
                self.move_replica(row, from, to);
            }
        }
    }

    /// Returns the member to be replaced by `to`: not at home itself, not leading, overfull.
    ///
    /// While the hub has too much, a node at its quota counts as overfull once that is lowered.
    fn home_source(&self, row: usize, to: usize) -> Option<(bool, usize)> {
        let home = self.home(row);
        let mut best = None;
        for node in self.members(row) {
            let from = usize::from(node);
            let overfull = self.is_overfull(from);
            let may_lower = self.hub > 0
                && self.quota[from] > self.targets.floor[from]
                && self.load[from] == self.quota[from];
            if !(overfull || may_lower) || !self.can_move(row, from, to) {
                continue;
            }
            let key = (
                home.contains(&node),
                self.leader[row] == node,
                !overfull,
                from,
            );
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
        }
        best.map(|(_, _, lowers, from)| (lowers, from))
    }
}

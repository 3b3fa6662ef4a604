//! Free exchanges that give a row back to its old primary.
//!
//! When row `p` dropped its primary `a` and received `x` instead, and some row `q` kept `a` as a
//! plain replica and could hold `x`, then `p` keeps `a` and `q` exchanges `a` for `x`: the loads
//! and the number of copies are the same, and one primary change is saved. The flow stays one of
//! minimum cost.

use super::ReplicaFlow;
use super::ledger::Ledger;
use crate::placement::rows::NO_NODE;

/// How many rows are looked at for an exchange.
const TRIES: usize = 64;

impl ReplicaFlow<'_> {
    /// Exchanges wherever a primary was dropped although its node leads no more than it should.
    pub(super) fn polish(&mut self, mut before: Ledger) {
        for row in 0..self.rows() {
            let leader = self.leader[row];
            if leader == NO_NODE || self.is_member(row, usize::from(leader)) {
                continue;
            }
            let leader = usize::from(leader);
            if before.can_give(leader) {
                before.give(leader);
                continue;
            }
            if let Some((other, newcomer)) = self.exchange(row, leader) {
                self.move_replica(other, leader, newcomer);
                self.move_replica(row, newcomer, leader);
            }
        }
    }

    /// Finds the row that can give up `leader` for a newcomer of `row`.
    fn exchange(&self, row: usize, leader: usize) -> Option<(usize, usize)> {
        self.members(row)
            .map(usize::from)
            .filter(|&newcomer| {
                !self.is_held(row, newcomer) && self.can_move(row, newcomer, leader)
            })
            .find_map(|newcomer| {
                self.pairs
                    .items(leader)
                    .take(TRIES)
                    .map(|place| self.row_of[place] as usize)
                    .find(|&other| {
                        usize::from(self.leader[other]) != leader
                            && self.is_held(other, leader)
                            && !self.is_held(other, newcomer)
                            && self.can_move(other, leader, newcomer)
                    })
                    .map(|other| (other, newcomer))
            })
    }
}

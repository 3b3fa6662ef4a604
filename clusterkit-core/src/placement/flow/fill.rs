//! Filling open places: the cheapest paths of all, straight from a row to a node with room.
//!
//! Every placement here is an augmentation at distance 0. Nodes come as shuffled tokens, one per
//! replica they have room for, which spreads the pairs of nodes that share partitions.

use alloc::vec;
use alloc::vec::Vec;

use super::{ReplicaFlow, Stuck};
use crate::placement::mix::mix;

/// How many tokens are looked at before a zone is given up for a row.
const LOOK_BACK: usize = 24;
/// From how many zones on a hashed rotation replaces "longest queue first".
const FEW_ZONES: usize = 8;

impl ReplicaFlow<'_> {
    /// Deals nodes with room to rows with open places.
    pub(super) fn fill(&mut self) -> Result<(), Stuck> {
        let open: Vec<u32> = (0..self.rows())
            .filter(|&row| self.is_open(row))
            .map(|row| row as u32)
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        self.match_orphans(&open)?;
        let mut tokens = self.shuffled_tokens();
        let mut zones: Vec<u16> = (0..self.problem.zones as u16)
            .filter(|&zone| !tokens[usize::from(zone)].is_empty())
            .collect();
        for &row in &open {
            let row = row as usize;
            if self.every_zone {
                self.fill_cells(row, &mut tokens);
            }
            while self.row_excess(row) > 0 && !zones.is_empty() {
                let dealt = match zones.len() <= FEW_ZONES {
                    true => self.deal_from_longest(row, &zones, &mut tokens),
                    false => self.deal_in_rotation(row, &zones, &mut tokens),
                };
                let Some(at) = dealt else {
                    break;
                };
                if tokens[usize::from(zones[at])].is_empty() {
                    zones.swap_remove(at);
                    zones.sort_unstable();
                }
            }
        }
        Ok(())
    }

    fn is_open(&self, row: usize) -> bool {
        self.row_excess(row) > 0
            || (self.every_zone
                && self.cells[self.places(row)]
                    .iter()
                    .any(|cell| cell.flow > cell.used))
    }

    fn shuffled_tokens(&self) -> Vec<Vec<u16>> {
        let mut tokens = vec![Vec::new(); self.problem.zones];
        let mut state = self.problem.toss(0x1234_5678, 0);
        for (zone, queue) in tokens.iter_mut().enumerate() {
            for &node in &self.zone_nodes[zone] {
                let room = self.room(usize::from(node)) as usize;
                queue.extend(core::iter::repeat_n(node, room));
            }
            for last in (1..queue.len()).rev() {
                state = mix(state, last as u64);
                queue.swap(last, (state % (last as u64 + 1)) as usize);
            }
        }
        tokens
    }

    /// Fills the places that zones with a lower bound keep for themselves.
    fn fill_cells(&mut self, row: usize, tokens: &mut [Vec<u16>]) {
        for (zone, queue) in tokens.iter_mut().enumerate() {
            while self
                .cell(row, zone)
                .is_some_and(|at| self.cells[at].flow > self.cells[at].used)
            {
                if !self.deal(row, queue) {
                    break;
                }
            }
        }
    }

    /// Deals from the zone with the most tokens that is open to the row.
    fn deal_from_longest(
        &mut self,
        row: usize,
        zones: &[u16],
        tokens: &mut [Vec<u16>],
    ) -> Option<usize> {
        let mut tried = [false; FEW_ZONES];
        loop {
            let mut best: Option<(usize, usize)> = None;
            for (at, &zone) in zones.iter().enumerate() {
                let length = tokens[usize::from(zone)].len();
                if !tried[at]
                    && self.can_widen(row, usize::from(zone))
                    && best.is_none_or(|(longest, _)| length > longest)
                {
                    best = Some((length, at));
                }
            }
            let (_, at) = best?;
            tried[at] = true;
            if self.deal(row, &mut tokens[usize::from(zones[at])]) {
                return Some(at);
            }
        }
    }

    /// Deals from the first open zone, starting somewhere else for every row and place.
    fn deal_in_rotation(
        &mut self,
        row: usize,
        zones: &[u16],
        tokens: &mut [Vec<u16>],
    ) -> Option<usize> {
        let count = zones.len();
        let toss = self.problem.toss(row as u64, self.row_excess(row) as u64);
        let start = (toss % count as u64) as usize;
        (0..count).map(|step| (start + step) % count).find(|&at| {
            let zone = usize::from(zones[at]);
            self.can_widen(row, zone) && self.deal(row, &mut tokens[zone])
        })
    }

    /// Gives the row one of the last tokens of a queue.
    fn deal(&mut self, row: usize, queue: &mut Vec<u16>) -> bool {
        for at in (0..queue.len()).rev().take(LOOK_BACK) {
            let node = usize::from(queue[at]);
            // A token may be stale: the orphans were served before the deal.
            if self.room(node) == 0 || self.is_member(row, node) {
                continue;
            }
            if !self.try_place(row, node) {
                return false;
            }
            queue.remove(at);
            return true;
        }
        false
    }

    /// Returns whether the row has an open place for `node`, whether or not it has room.
    pub(super) fn can_place(&self, row: usize, node: usize) -> bool {
        let zone = self.zone(node);
        let waiting = self
            .cell(row, zone)
            .is_some_and(|at| self.cells[at].flow > self.cells[at].used);
        !self.is_member(row, node)
            && (waiting || (self.row_excess(row) > 0 && self.can_widen(row, zone)))
    }

    /// Puts `node` into an open place of the row, if its zone allows.
    pub(super) fn try_place(&mut self, row: usize, node: usize) -> bool {
        let zone = self.zone(node);
        let waiting = self
            .cell(row, zone)
            .filter(|&at| self.cells[at].flow > self.cells[at].used);
        let cell = match waiting {
            Some(cell) => cell,
            None if self.row_excess(row) <= 0 || !self.can_widen(row, zone) => return false,
            None => {
                let cell = self.open_cell(row, zone);
                self.widen(row, cell);
                cell
            }
        };
        self.add_member(row, cell, node);
        self.stats.direct += 1;
        true
    }
}

//! How the rows are laid out at the start: one run of places per row in flat arrays.
//!
//! A row has a place for every member it must lose, every one it must gain, and one to spare, and
//! as many cells as places. Nothing moves later; what the places mean is in [`ReplicaFlow`].
//!
//! [`ReplicaFlow`]: super::ReplicaFlow

use alloc::vec;
use alloc::vec::Vec;

use super::{Cell, NO_CELL};
use crate::placement::problem::Problem;
use crate::placement::rows::NO_NODE;
use crate::placement::targets::Targets;

/// The rows as they are, and what the nodes hold in them.
pub(super) struct Layout<'a> {
    problem: &'a Problem<'a>,
    targets: &'a Targets,
    pub(super) every_zone: bool,
    pub(super) start: Vec<u32>,
    pub(super) member: Vec<u16>,
    pub(super) cells: Vec<Cell>,
    pub(super) row_flow: Vec<u16>,
    /// The primary of every row. Invariant: where there is one, it is at the row's first place.
    pub(super) leader: Vec<u16>,
    pub(super) load: Vec<u32>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(problem: &'a Problem<'a>, targets: &'a Targets) -> Self {
        let rows = problem.free.len();
        let places = rows * (problem.factor + 1);
        let mut layout = Self {
            problem,
            targets,
            every_zone: targets.zone_least.iter().any(|&least| least > 0),
            start: Vec::with_capacity(rows + 1),
            member: Vec::with_capacity(places),
            cells: Vec::with_capacity(places),
            row_flow: Vec::with_capacity(rows),
            leader: Vec::with_capacity(rows),
            load: vec![0; problem.nodes()],
        };
        layout.start.push(0);
        for &partition in &problem.free {
            layout.open_row(problem.held.row(partition as usize));
        }
        layout
    }

    /// Lays out one row: its members as they are, and the flow its zones can carry of them.
    fn open_row(&mut self, row: &[u16]) {
        let base = self.cells.len();
        if self.every_zone {
            let zones = 0..self.problem.zones as u16;
            self.cells
                .extend(zones.map(|zone| Cell { zone, ..NO_CELL }));
        }
        for &node in row.iter().filter(|&&node| node != NO_NODE) {
            let zone = self.problem.zone[usize::from(node)];
            self.member.push(node);
            self.load[usize::from(node)] += 1;
            match self.cells[base..].iter_mut().find(|cell| cell.zone == zone) {
                Some(cell) => cell.used += 1,
                None => self.cells.push(Cell {
                    zone,
                    flow: 0,
                    used: 1,
                }),
            }
        }
        let (mut flow, mut places) = (0, 0);
        for cell in &mut self.cells[base..] {
            let zone = usize::from(cell.zone);
            let (least, most) = (self.targets.zone_least[zone], self.targets.zone_most[zone]);
            cell.flow = cell.used.clamp(least, most);
            flow += cell.flow;
            places += usize::from(cell.flow.max(cell.used));
        }
        let end = base + places + self.problem.factor.saturating_sub(usize::from(flow)) + 1;
        self.member.resize(end, NO_NODE);
        self.cells.resize(end, NO_CELL);
        self.start.push(end as u32);
        self.row_flow.push(flow);
        self.leader.push(row.first().copied().unwrap_or(NO_NODE));
    }

    /// Returns the row of every place.
    pub(super) fn row_of(&self) -> Vec<u32> {
        let mut row_of = Vec::with_capacity(self.member.len());
        for (row, &end) in self.start[1..].iter().enumerate() {
            row_of.resize(end as usize, row as u32);
        }
        row_of
    }
}

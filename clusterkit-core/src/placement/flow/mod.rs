//! The replica flow: fewest copies from the rows as they are to rows within the targets.
//!
//! A minimum-cost flow over *rows* (one per free partition), *cells* (a row's share of a zone),
//! *nodes* and the *hub*, which decides who holds a ceiling. It starts from the current rows, which
//! violate bounds but cost nothing, and moves the violations (excess) along cheapest paths until
//! none is left:
//!
//! - row: units still to be placed, `factor - row_flow`; negative when the row is too long;
//! - cell: `flow - used`, members still to be found in that zone; negative when it is crowded;
//! - node: `load - quota`; hub: the sum of all quotas against the number of replicas.
//!
//! Dropping a held replica costs 1, taking it back -1, everything else 0. "Any node may join any
//! row" is never stored as arcs: a cell offers itself to all nodes of its zone at once (`search`).
//!
//! The passes run in an order that keeps every step a cheapest one: `fill` and `orphans` place at
//! distance 0, `settle` decides ceilings in one direction only, `shift` moves at distance 1, and
//! `search` with `augment` do exactly what is left. Invariant: no pass opens a residual cycle of
//! negative cost, so the final flow has minimum cost; `certificate` turns that into prices.
//!
//! Who leads the rows is chosen afterwards, in [`primary`](super::primary); here it only guides
//! ties (`ledger`).

mod augment;
mod fill;
mod home;
mod layout;
mod ledger;
mod orphans;
mod polish;
mod search;
mod settle;
mod shift;

use alloc::vec;
use alloc::vec::Vec;

use self::layout::Layout;
use self::ledger::Ledger;
use self::search::Search;
use super::lists::Lists;
use super::problem::Problem;
use super::rows::{NO_NODE, Rows};
use super::targets::Targets;

/// A cell that belongs to no zone.
const NO_ZONE: u16 = u16::MAX;

/// Why the exact way was left. The caller falls back to the systematic layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// The work budget ran out.
    Budget,
    /// A rule that must hold did not: a bug here, never the input's fault.
    Broken,
}

/// How many steps were taken and how many are left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) spent: u64,
    pub(super) limit: u64,
}

impl Budget {
    /// Takes `steps` from the budget.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Stuck> {
        self.spent += steps as u64;
        match self.spent > self.limit {
            true => Err(Stuck::Budget),
            false => Ok(()),
        }
    }
}

/// Figures of the passes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowStats {
    pub(super) direct: u32,
    pub(super) rounds: u32,
    pub(super) paths: u32,
    pub(super) longest: u32,
}

/// A row's share of one zone.
#[derive(Clone, Copy, Debug)]
struct Cell {
    zone: u16,
    /// Members the row is to have in the zone. Invariant: within the zone's bounds.
    flow: u16,
    /// Members it has there. Equal to `flow` when no excess is left.
    used: u16,
}

const NO_CELL: Cell = Cell {
    zone: NO_ZONE,
    flow: 0,
    used: 0,
};

/// The state of the flow.
///
/// Row `r` owns the places `start[r]..start[r + 1]` of `member`, `held`, `cells` and the pair
/// lists. Invariant: a row has a place for every member it must lose, every one it must gain, and
/// one to spare, and as many cells as places.
#[derive(Debug)]
pub(super) struct ReplicaFlow<'a> {
    problem: &'a Problem<'a>,
    targets: &'a Targets,
    start: Vec<u32>,
    row_of: Vec<u32>,
    member: Vec<u16>,
    held: Vec<u16>,
    cells: Vec<Cell>,
    row_flow: Vec<u16>,
    /// Old primary of every row, [`NO_NODE`] when it is gone.
    leader: Vec<u16>,
    /// The places every node is a member at.
    pairs: Lists,
    load: Vec<u32>,
    /// How many replicas of a node were not held there: giving one of them up costs nothing.
    fresh: Vec<u32>,
    /// What a node is to hold. Invariant: within floor and ceiling.
    quota: Vec<u32>,
    /// The sum of all quotas less the number of replicas.
    hub: i64,
    /// Nodes of every zone, in order of rank.
    zone_nodes: Vec<Vec<u16>>,
    /// Whether zones have lower bounds, so that every row has a cell for every zone.
    every_zone: bool,
    ledger: Ledger,
    search: Search,
    /// The largest distance at which anything has been moved so far. Invariant: no path through the
    /// residual network costs less than the negative of it.
    deepest: i32,
    budget: Budget,
    stats: FlowStats,
    broken: bool,
}

impl<'a> ReplicaFlow<'a> {
    /// Starts from the current rows: nothing moved, nothing paid, bounds violated where they are.
    pub(super) fn new(problem: &'a Problem<'a>, targets: &'a Targets, budget: Budget) -> Self {
        let nodes = problem.nodes();
        let mut zone_nodes = vec![Vec::new(); problem.zones];
        for (rank, &zone) in problem.zone.iter().enumerate() {
            zone_nodes[usize::from(zone)].push(rank as u16);
        }
        let rows = problem.free.len();
        let layout = Layout::new(problem, targets);
        // A node takes what its ceiling allows, and one more on the way.
        let rooms = layout.load.iter().zip(&targets.ceil);
        let rooms = rooms.map(|(&load, &ceil)| load.max(ceil) + 1);
        let mut flow = Self {
            problem,
            targets,
            row_of: layout.row_of(),
            held: layout.member.clone(),
            pairs: Lists::new(rooms, layout.member.len()),
            start: layout.start,
            member: layout.member,
            cells: layout.cells,
            row_flow: layout.row_flow,
            leader: layout.leader,
            load: layout.load,
            fresh: vec![0; nodes],
            quota: vec![0; nodes],
            hub: 0,
            zone_nodes,
            every_zone: layout.every_zone,
            ledger: Ledger::new(problem, targets),
            search: Search::default(),
            deepest: 0,
            budget,
            stats: FlowStats::default(),
            broken: false,
        };
        flow.link_all();
        let mut quotas = 0;
        for rank in 0..nodes {
            flow.quota[rank] = flow.load[rank].clamp(targets.floor[rank], targets.ceil[rank]);
            quotas += i64::from(flow.quota[rank]);
        }
        flow.hub = quotas - (rows * problem.factor) as i64;
        flow
    }

    /// Builds the pair lists: plain replicas first, partitions the node leads last, both ascending.
    fn link_all(&mut self) {
        // A present primary is at the first place of its row.
        for row in (0..self.rows()).rev() {
            let node = self.leader[row];
            if node != NO_NODE {
                let place = self.start[row] as usize;
                self.pairs.link(place, usize::from(node));
            }
        }
        for row in (0..self.rows()).rev() {
            let plain = usize::from(self.leader[row] != NO_NODE);
            for place in self.places(row).skip(plain).rev() {
                let node = self.member[place];
                if node != NO_NODE {
                    self.pairs.link(place, usize::from(node));
                }
            }
        }
    }

    /// Runs all passes. On success no excess is left.
    pub(super) fn run(&mut self) -> Result<(), Stuck> {
        if self.problem.factor == 0 {
            return Ok(());
        }
        let before = self.ledger.clone();
        self.fill_home();
        self.settle_up()?;
        self.fill()?;
        if self.has_open() {
            self.search_until(0)?;
        }
        self.shift_home();
        self.settle_down()?;
        self.shift();
        self.search_until(i32::MAX)?;
        self.polish(before);
        match self.broken || self.has_source() {
            true => Err(Stuck::Broken),
            false => Ok(()),
        }
    }

    /// Returns the members of the rows in order of the free partitions.
    pub(super) fn members(&self, row: usize) -> impl Iterator<Item = u16> + '_ {
        self.member[self.places(row)]
            .iter()
            .copied()
            .filter(|&node| node != NO_NODE)
    }

    /// Returns the figures of the passes.
    pub(super) const fn stats(&self) -> (FlowStats, Budget) {
        (self.stats, self.budget)
    }

    fn places(&self, row: usize) -> core::ops::Range<usize> {
        self.start[row] as usize..self.start[row + 1] as usize
    }

    fn rows(&self) -> usize {
        self.row_flow.len()
    }

    /// Units the row has still to send to zones; negative when it is too long.
    fn row_excess(&self, row: usize) -> i32 {
        self.problem.factor as i32 - i32::from(self.row_flow[row])
    }

    fn is_member(&self, row: usize, node: usize) -> bool {
        self.member[self.places(row)].contains(&(node as u16))
    }

    fn is_held(&self, row: usize, node: usize) -> bool {
        self.held[self.places(row)].contains(&(node as u16))
    }

    fn zone(&self, node: usize) -> usize {
        usize::from(self.problem.zone[node])
    }

    /// Returns the cell of `row` for `zone`.
    fn cell(&self, row: usize, zone: usize) -> Option<usize> {
        let base = self.start[row] as usize;
        self.cells[self.places(row)]
            .iter()
            .position(|cell| usize::from(cell.zone) == zone)
            .map(|at| base + at)
    }

    /// Returns the cell of `row` for `zone`, which a member of the row there implies.
    fn cell_of_member(&self, row: usize, node: usize) -> usize {
        self.cell_in_zone(row, self.zone(node))
    }

    /// Returns the cell of `row` for the zone of one of its members.
    fn cell_in_zone(&self, row: usize, zone: usize) -> usize {
        self.cell(row, zone)
            .expect("invariant: a row has a cell for every zone it has a member in")
    }

    /// Returns the cell of `row` for `zone`, opening one when there is none.
    fn open_cell(&mut self, row: usize, zone: usize) -> usize {
        if let Some(at) = self.cell(row, zone) {
            return at;
        }
        let mut places = self.places(row);
        let base = places.start;
        let unused = places.find(|&at| {
            let cell = self.cells[at];
            cell.zone == NO_ZONE || (cell.flow == 0 && cell.used == 0)
        });
        self.broken |= unused.is_none();
        let at = unused.unwrap_or(base);
        self.cells[at] = Cell {
            zone: zone as u16,
            ..NO_CELL
        };
        at
    }

    /// Forgets cells that carry nothing, unless every zone has to have one.
    fn close_cell(&mut self, at: usize) {
        let cell = self.cells[at];
        if !self.every_zone && cell.flow == 0 && cell.used == 0 {
            self.cells[at] = NO_CELL;
        }
    }

    fn can_widen(&self, row: usize, zone: usize) -> bool {
        let flow = self.cell(row, zone).map_or(0, |at| self.cells[at].flow);
        flow < self.targets.zone_most[zone]
    }

    fn widen(&mut self, row: usize, cell: usize) {
        self.cells[cell].flow += 1;
        self.row_flow[row] += 1;
    }

    fn narrow(&mut self, row: usize, cell: usize) {
        self.cells[cell].flow -= 1;
        self.row_flow[row] -= 1;
    }

    fn add_member(&mut self, row: usize, cell: usize, node: usize) {
        let place = self.places(row).find(|&at| self.member[at] == NO_NODE);
        let Some(place) = place else {
            self.broken = true;
            return;
        };
        self.member[place] = node as u16;
        self.pairs.link(place, node);
        self.load[node] += 1;
        self.fresh[node] += u32::from(!self.is_held(row, node));
        self.cells[cell].used += 1;
    }

    fn remove_member(&mut self, row: usize, cell: usize, node: usize) {
        let mut places = self.places(row);
        let Some(place) = places.find(|&at| self.member[at] == node as u16) else {
            self.broken = true;
            return;
        };
        self.member[place] = NO_NODE;
        self.pairs.unlink(place, node);
        self.load[node] -= 1;
        match self.is_held(row, node) {
            true => self.deepest = self.deepest.max(1),
            false => self.fresh[node] -= 1,
        }
        self.cells[cell].used -= 1;
    }

    /// Whether a row or a cell has still members to find.
    fn has_open(&self) -> bool {
        (0..self.rows()).any(|row| self.row_excess(row) > 0)
            || (self.every_zone && self.cells.iter().any(|cell| cell.flow > cell.used))
    }

    /// Whether any excess is left to be moved.
    fn has_source(&self) -> bool {
        self.hub > 0
            || (0..self.load.len()).any(|node| self.load[node] > self.quota[node])
            || (0..self.rows()).any(|row| self.row_excess(row) > 0)
            || self.cells.iter().any(|cell| cell.flow > cell.used)
    }

    /// Returns how far below its quota a node is.
    fn room(&self, node: usize) -> u32 {
        self.quota[node].saturating_sub(self.load[node])
    }

    fn is_overfull(&self, node: usize) -> bool {
        self.load[node] > self.quota[node]
    }

    fn raise(&mut self, node: usize) {
        self.quota[node] += 1;
        self.hub += 1;
    }

    fn lower(&mut self, node: usize) {
        self.quota[node] -= 1;
        self.hub -= 1;
    }

    /// Whether no unit waits at the cell, so that a member can be exchanged there.
    fn is_even(&self, cell: usize) -> bool {
        self.cells[cell].flow == self.cells[cell].used
    }

    fn home(&self, row: usize) -> &'a [u16] {
        let rows: &'a Rows = &self.problem.home;
        rows.row(self.problem.free[row] as usize)
    }
}

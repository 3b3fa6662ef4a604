//! Labels: how far every vertex is from the nearest excess, and from anywhere for the prices.
//!
//! A bucket queue (Dial, first in first out, entered again on improvement) over the residual
//! network. Vertices are numbered nodes first, then the hub, rows and cells. The arcs from a cell
//! to every node of its zone stay implicit: the first offer at a distance labels all nodes but the
//! row's own members, and only those few are looked at again when another row offers the same.
//! Likewise one level up for "this row may open any zone it does not use".
//!
//! What is done with the labels is in [`augment`](super::augment).

use alloc::vec::Vec;

use super::{Budget, NO_ZONE, ReplicaFlow, Stuck};
use crate::placement::rows::NO_NODE;

/// The distance of what cannot be reached.
pub(super) const FAR: i32 = i32::MAX / 4;
/// The lowest distance is the negative of this: far beyond what augmentation can produce.
const OFFSET: i32 = 1_024;

/// The distance of a vertex from the nearest source and the number of arcs on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) distance: i32,
    pub(super) hops: u32,
}

const UNREACHED: Label = Label {
    distance: FAR,
    hops: 0,
};

/// A vertex of the residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vertex {
    Node(usize),
    Hub,
    Row(usize),
    Cell(usize),
}

/// Labels and the queue behind them; kept between rounds so that nothing is allocated anew.
#[derive(Debug, Default)]
pub(super) struct Search {
    label: Vec<Label>,
    buckets: Vec<Bucket>,
    lowest: usize,
    /// The largest distance that matters.
    bound: i32,
    seek: Option<Seek>,
    /// The best distance at which a zone was offered, and its nodes that are not yet at it.
    zone_offer: Vec<i32>,
    zone_missing: Vec<Vec<u16>>,
    /// The best distance at which a row offered to open any zone, and the zones not yet at it.
    open_offer: i32,
    open_zones: Vec<u16>,
    underflow: bool,
}

/// What a search for sinks has found.
#[derive(Clone, Copy, Debug)]
struct Seek {
    /// The distance of the nearest sink; before one is found, the largest that is of interest.
    limit: i32,
    /// What the sinks at that distance can take.
    found: u64,
    /// What all sources have to send.
    wanted: u64,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    queue: Vec<u32>,
    head: usize,
}

impl Search {
    pub(super) fn label(&self, vertex: usize) -> Label {
        self.label[vertex]
    }

    fn reset(&mut self, vertices: usize, zones: usize, label: Label) {
        self.label.clear();
        self.label.resize(vertices, label);
        for bucket in &mut self.buckets {
            bucket.queue.clear();
            bucket.head = 0;
        }
        self.lowest = usize::MAX;
        self.zone_offer.clear();
        self.zone_offer.resize(zones, FAR);
        self.zone_missing.resize(zones, Vec::new());
        self.zone_missing.iter_mut().for_each(Vec::clear);
        self.open_offer = FAR;
        self.open_zones.clear();
        self.underflow = false;
    }

    /// Lowers the label of `vertex` if that is an improvement.
    fn reach(&mut self, vertex: usize, label: Label) {
        if label.distance < self.label[vertex].distance && label.distance <= self.bound {
            self.label[vertex] = label;
            let Ok(bucket) = usize::try_from(label.distance + OFFSET) else {
                self.underflow = true;
                return;
            };
            if self.buckets.len() <= bucket {
                self.buckets.resize(bucket + 1, Bucket::default());
            }
            self.buckets[bucket].queue.push(vertex as u32);
            self.lowest = self.lowest.min(bucket);
        }
    }

    /// Returns the next vertex within the bound to be scanned, with its label.
    fn pop(&mut self) -> Option<(usize, Label)> {
        while let Some(bucket) = self.buckets.get_mut(self.lowest) {
            if self.lowest as i32 - OFFSET > self.bound {
                return None;
            }
            if let Some(&vertex) = bucket.queue.get(bucket.head) {
                bucket.head += 1;
                let label = self.label[vertex as usize];
                if label.distance + OFFSET == self.lowest as i32 {
                    return Some((vertex as usize, label));
                }
            } else {
                self.lowest += 1;
            }
        }
        None
    }
}

impl ReplicaFlow<'_> {
    pub(super) fn hub_vertex(&self) -> usize {
        self.load.len()
    }

    pub(super) fn row_vertex(&self, row: usize) -> usize {
        self.load.len() + 1 + row
    }

    pub(super) fn cell_vertex(&self, cell: usize) -> usize {
        self.load.len() + 1 + self.rows() + cell
    }

    pub(super) fn vertices(&self) -> usize {
        self.cell_vertex(self.cells.len())
    }

    pub(super) fn vertex(&self, index: usize) -> Vertex {
        let nodes = self.load.len();
        if index < nodes {
            Vertex::Node(index)
        } else if index == nodes {
            Vertex::Hub
        } else if index <= nodes + self.rows() {
            Vertex::Row(index - nodes - 1)
        } else {
            Vertex::Cell(index - nodes - 1 - self.rows())
        }
    }

    /// Moves all excess whose nearest sink is within `limit`, round by round.
    pub(super) fn search_until(&mut self, limit: i32) -> Result<(), Stuck> {
        loop {
            let sources = self.sources();
            if sources.is_empty() {
                return Ok(());
            }
            let mut search = core::mem::take(&mut self.search);
            let mut budget = self.budget;
            search.reset(self.vertices(), self.problem.zones, UNREACHED);
            search.seek = Some(Seek {
                limit,
                found: 0,
                wanted: self.excess(&sources),
            });
            search.bound = limit.saturating_add(self.deepest);
            self.seed(&sources, &mut search);
            let done = search.run(self, &mut budget);
            let seek = search.seek.take();
            self.search = search;
            self.budget = budget;
            done?;
            let Some(Seek {
                limit: distance,
                found: 1..,
                ..
            }) = seek
            else {
                return match limit {
                    i32::MAX => Err(Stuck::Broken),
                    _ => Ok(()),
                };
            };
            self.stats.rounds += 1;
            self.stats.longest = self.stats.longest.max(distance.unsigned_abs());
            let paths = self.augment(distance, &sources)?;
            self.deepest = self.deepest.max(distance);
            self.stats.paths += paths;
            if paths == 0 || self.broken {
                return Err(Stuck::Broken);
            }
        }
    }

    /// Labels every vertex with its distance from anywhere, in a network without excess, and
    /// returns the distances of the nodes relative to the hub.
    pub(in crate::placement) fn potentials(&mut self) -> Result<Vec<i32>, Stuck> {
        let mut search = core::mem::take(&mut self.search);
        let origin = Label {
            distance: 0,
            hops: 0,
        };
        search.reset(self.vertices(), self.problem.zones, origin);
        // Only taking back what was dropped costs less than nothing, so all else starts there.
        search.bound = -1;
        for place in 0..self.held.len() {
            let node = self.held[place];
            let row = self.row_of[place] as usize;
            let stayed = node == NO_NODE || node == self.member[place];
            if !stayed && !self.is_member(row, usize::from(node)) {
                let label = Label {
                    distance: -1,
                    hops: 1,
                };
                search.reach(usize::from(node), label);
            }
        }
        let mut budget = self.budget;
        let done = search.run(self, &mut budget);
        let hub = search.label[self.hub_vertex()].distance;
        let labels = search.label[..self.load.len()].iter();
        let potentials = labels.map(|label| label.distance - hub).collect();
        self.search = search;
        self.budget = budget;
        done.map(|()| potentials)
    }

    /// Labels the sources: nodes first, then the hub, rows and cells.
    fn seed(&self, sources: &[usize], search: &mut Search) {
        let source = Label {
            distance: 0,
            hops: 0,
        };
        let inner = self.hub_vertex();
        let mut nodes: Vec<usize> = Vec::new();
        nodes.extend(sources.iter().copied().filter(|&vertex| vertex <= inner));
        nodes.sort_unstable();
        let others = sources.iter().copied().filter(|&vertex| vertex > inner);
        for vertex in nodes.into_iter().chain(others) {
            search.reach(vertex, source);
        }
    }

    /// Returns how many units all sources together have to send.
    fn excess(&self, sources: &[usize]) -> u64 {
        let units = sources.iter().map(|&vertex| match self.vertex(vertex) {
            Vertex::Node(node) => u64::from(self.load[node] - self.quota[node]),
            Vertex::Hub => self.hub.unsigned_abs(),
            Vertex::Row(row) => u64::from(self.row_excess(row).unsigned_abs()),
            Vertex::Cell(at) => u64::from(self.cells[at].flow - self.cells[at].used),
        });
        units.sum()
    }

    /// Returns how many units a vertex can take.
    pub(super) fn sink(&self, vertex: Vertex) -> u64 {
        match vertex {
            Vertex::Node(node) => u64::from(self.room(node)),
            Vertex::Hub => self.hub.min(0).unsigned_abs(),
            Vertex::Row(row) => u64::from(self.row_excess(row).min(0).unsigned_abs()),
            Vertex::Cell(at) => {
                let cell = self.cells[at];
                u64::from(cell.used.saturating_sub(cell.flow))
            }
        }
    }
}

impl Search {
    /// Scans until no label within the bound can be improved, or enough sinks are known.
    fn run(&mut self, flow: &ReplicaFlow<'_>, budget: &mut Budget) -> Result<(), Stuck> {
        while let Some((index, label)) = self.pop() {
            let vertex = flow.vertex(index);
            if self.sees(label, flow.sink(vertex), flow.deepest) {
                return Ok(());
            }
            let next = Label {
                distance: label.distance,
                hops: label.hops + 1,
            };
            let steps = match vertex {
                Vertex::Node(node) => self.scan_node(flow, node, next),
                Vertex::Hub => self.scan_hub(flow, next),
                Vertex::Row(row) => self.scan_row(flow, row, next),
                Vertex::Cell(cell) => self.scan_cell(flow, cell, next),
            };
            budget.spend(steps)?;
            if self.underflow {
                return Err(Stuck::Broken);
            }
        }
        Ok(())
    }

    /// Takes note of a sink, and returns whether the search may end.
    ///
    /// Only what can still lead to a sink as near as the nearest one matters from there on. While
    /// nothing has been dropped yet, labels are final when their vertex is scanned, and the search
    /// ends as soon as the sinks found can take everything: a path that a label is missing for is
    /// left to the next round.
    fn sees(&mut self, label: Label, units: u64, deepest: i32) -> bool {
        let Some(seek) = self.seek.as_mut().filter(|_| units > 0) else {
            return false;
        };
        if label.distance < seek.limit || seek.found == 0 {
            seek.found = 0;
            seek.limit = label.distance.min(seek.limit);
            self.bound = seek.limit.saturating_add(deepest);
        }
        if label.distance == seek.limit {
            seek.found += units;
        }
        deepest == 0 && seek.found >= seek.wanted
    }

    /// A node gives up a replica (1 when it was held), or its claim on the quota.
    fn scan_node(&mut self, flow: &ReplicaFlow<'_>, node: usize, label: Label) -> usize {
        let mut steps = 1;
        // Within the bound, fresh replicas only may matter, and most nodes have none.
        let fresh_only = label.distance >= self.bound;
        if !fresh_only || flow.fresh[node] > 0 {
            let zone = flow.zone(node);
            for place in flow.pairs.items(node) {
                steps += 1;
                let row = flow.row_of[place] as usize;
                let held = usize::from(flow.held[place]) == node || flow.is_held(row, node);
                if held && fresh_only {
                    continue;
                }
                let cell = flow.cell_in_zone(row, zone);
                let distance = label.distance + i32::from(held);
                self.reach(flow.cell_vertex(cell), Label { distance, ..label });
            }
        }
        if flow.quota[node] < flow.targets.ceil[node] {
            self.reach(flow.hub_vertex(), label);
        }
        steps
    }

    /// The hub lowers a quota.
    fn scan_hub(&mut self, flow: &ReplicaFlow<'_>, label: Label) -> usize {
        for node in 0..flow.load.len() {
            if flow.quota[node] > flow.targets.floor[node] {
                self.reach(node, label);
            }
        }
        flow.load.len()
    }

    /// A row sends a unit to a zone it uses, or opens one.
    fn scan_row(&mut self, flow: &ReplicaFlow<'_>, row: usize, label: Label) -> usize {
        for at in flow.places(row) {
            let cell = flow.cells[at];
            if cell.zone != NO_ZONE && cell.flow < flow.targets.zone_most[usize::from(cell.zone)] {
                self.reach(flow.cell_vertex(at), label);
            }
        }
        for at in flow.places(row) {
            let node = flow.held[at];
            if node == NO_NODE || node == flow.member[at] {
                continue;
            }
            let zone = flow.zone(usize::from(node));
            if flow.cell(row, zone).is_none() && flow.targets.zone_most[zone] > 0 {
                self.take_back(usize::from(node), label);
            }
        }
        match flow.every_zone {
            true => flow.places(row).len(),
            false => flow.places(row).len() + self.offer_new_zones(flow, row, label),
        }
    }

    /// A cell takes back a member it dropped, finds any other, or returns the unit to its row.
    fn scan_cell(&mut self, flow: &ReplicaFlow<'_>, cell: usize, label: Label) -> usize {
        let row = flow.row_of[cell] as usize;
        let zone = usize::from(flow.cells[cell].zone);
        if flow.cells[cell].flow > flow.targets.zone_least[zone] {
            self.reach(flow.row_vertex(row), label);
        }
        // Before anything was moved off a node, nothing was dropped that could be taken back.
        let places = match flow.deepest {
            0 => 0..0,
            _ => flow.places(row),
        };
        for at in places.clone() {
            let node = flow.held[at];
            if node != NO_NODE
                && node != flow.member[at]
                && flow.zone(usize::from(node)) == zone
                && !flow.is_member(row, usize::from(node))
            {
                self.take_back(usize::from(node), label);
            }
        }
        1 + places.len() + self.offer(flow, zone, row, label)
    }

    fn take_back(&mut self, node: usize, label: Label) {
        let distance = label.distance - 1;
        self.reach(node, Label { distance, ..label });
    }

    /// Offers a place in `row` to all nodes of `zone` that are not members.
    fn offer(&mut self, flow: &ReplicaFlow<'_>, zone: usize, row: usize, label: Label) -> usize {
        let distance = label.distance;
        if self.is_settled(zone, distance) {
            return 0;
        }
        if distance < self.zone_offer[zone] {
            self.zone_offer[zone] = distance;
            let mut missing = core::mem::take(&mut self.zone_missing[zone]);
            missing.clear();
            for &node in &flow.zone_nodes[zone] {
                let index = usize::from(node);
                if self.label[index].distance <= distance {
                    continue;
                }
                match flow.is_member(row, index) {
                    true => missing.push(node),
                    false => self.reach(index, label),
                }
            }
            self.zone_missing[zone] = missing;
            return flow.zone_nodes[zone].len();
        }
        let mut missing = core::mem::take(&mut self.zone_missing[zone]);
        let steps = missing.len();
        missing.retain(|&node| {
            let index = usize::from(node);
            if self.label[index].distance > distance && !flow.is_member(row, index) {
                self.reach(index, label);
            }
            self.label[index].distance > self.zone_offer[zone]
        });
        self.zone_missing[zone] = missing;
        steps
    }

    /// Offers a place in `row` to all zones the row does not use.
    fn offer_new_zones(&mut self, flow: &ReplicaFlow<'_>, row: usize, label: Label) -> usize {
        let distance = label.distance;
        let lower = distance < self.open_offer;
        let mut zones = core::mem::take(&mut self.open_zones);
        if lower {
            self.open_offer = distance;
            zones.clear();
            let all = 0..flow.problem.zones as u16;
            zones.extend(all.filter(|&zone| flow.targets.zone_most[usize::from(zone)] > 0));
        }
        let mut steps = zones.len();
        zones.retain(|&zone| {
            let zone = usize::from(zone);
            if flow.cell(row, zone).is_none() && !self.is_settled(zone, distance) {
                steps += self.offer(flow, zone, row, label);
            }
            !self.is_settled(zone, self.open_offer)
        });
        self.open_zones = zones;
        steps
    }

    /// Whether no node of the zone could gain from an offer at `distance`.
    fn is_settled(&self, zone: usize, distance: i32) -> bool {
        self.zone_offer[zone] <= distance && self.zone_missing[zone].is_empty()
    }
}

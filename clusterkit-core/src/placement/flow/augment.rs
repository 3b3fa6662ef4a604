//! Augmentation: moving excess along the labels, as many disjoint paths as one round finds.
//!
//! Depth first from every source along arcs that are tight in distance *and* in hops, to sinks at
//! the nearest distance. Without the hops, paths would wander along arcs that cost nothing and
//! rewire rows needlessly. Every row is changed by one path per round at most (`dirty`), so the
//! labels, which were computed before, stay true for all that a path touches.

use alloc::vec;
use alloc::vec::Vec;

use super::search::{FAR, Label, Vertex};
use super::{NO_ZONE, ReplicaFlow, Stuck};
use crate::placement::lists::Cursor;
use crate::placement::rows::NO_NODE;

/// One change of the flow.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The node leaves the row; the cell has to find another member.
    Leave {
        node: usize,
        row: usize,
        cell: usize,
    },
    /// The node joins the row in its zone's cell.
    Join {
        node: usize,
        row: usize,
    },
    /// The row opens a cell for the node's zone, and the node joins.
    OpenJoin {
        node: usize,
        row: usize,
    },
    /// The row sends one more unit to the cell.
    Widen {
        row: usize,
        cell: usize,
    },
    /// The cell returns one unit to the row.
    Narrow {
        row: usize,
        cell: usize,
    },
    Raise(usize),
    Lower(usize),
}

/// A vertex on the path being sought: which kind of arc is tried next, and which one of them.
#[derive(Clone, Copy, Debug)]
struct Frame {
    vertex: usize,
    stage: u8,
    cursor: usize,
}

/// The state of one round.
struct Round {
    distance: i32,
    visited: Vec<bool>,
    dirty: Vec<bool>,
    /// Nodes of every zone by label, so that a cell finds its tight arcs at once.
    by_label: Vec<Vec<(Label, Vec<u16>)>>,
    /// Whether a node is still listed in `by_label`; visited ones are taken out.
    listed: Vec<bool>,
    /// The next pair of every node to be looked at. Pairs behind are used up for this round.
    cursor: Vec<Cursor>,
    hub_cursor: usize,
    stack: Vec<Frame>,
    path: Vec<Step>,
    steps: usize,
}

impl ReplicaFlow<'_> {
    /// Moves units from sources to sinks at `distance` and returns how many.
    pub(super) fn augment(&mut self, distance: i32, sources: &[usize]) -> Result<u32, Stuck> {
        let mut round = Round {
            distance,
            visited: vec![false; self.vertices()],
            dirty: vec![false; self.rows()],
            by_label: self.nodes_by_label(),
            listed: vec![true; self.load.len()],
            cursor: self.pairs.starts(),
            hub_cursor: 0,
            stack: Vec::new(),
            path: Vec::new(),
            steps: 0,
        };
        let mut count = 0;
        for &source in sources {
            while self.is_source(source, &round)
                && !round.visited[source]
                && self.find_path(source, &mut round)
            {
                self.apply_path(&mut round);
                count += 1;
            }
        }
        self.budget.spend(round.steps)?;
        Ok(count)
    }

    /// Returns the vertices with excess: rows and cells, nodes, the hub.
    pub(super) fn sources(&self) -> Vec<usize> {
        let mut sources = Vec::new();
        for row in 0..self.rows() {
            if self.row_excess(row) > 0 {
                sources.push(self.row_vertex(row));
            }
            let cells = self.places(row);
            let waiting = cells.filter(|&at| self.cells[at].flow > self.cells[at].used);
            sources.extend(waiting.map(|at| self.cell_vertex(at)));
        }
        let nodes = self.zone_nodes.iter().flatten();
        sources.extend(
            nodes
                .map(|&node| usize::from(node))
                .filter(|&node| self.is_overfull(node)),
        );
        if self.hub > 0 {
            sources.push(self.hub_vertex());
        }
        sources
    }

    fn is_source(&self, vertex: usize, round: &Round) -> bool {
        self.search.label(vertex).distance == 0
            && match self.vertex(vertex) {
                Vertex::Node(node) => self.is_overfull(node),
                Vertex::Hub => self.hub > 0,
                Vertex::Row(row) => !round.dirty[row] && self.row_excess(row) > 0,
                Vertex::Cell(at) => {
                    let cell = self.cells[at];
                    !round.dirty[self.row_of[at] as usize] && cell.flow > cell.used
                }
            }
    }

    fn nodes_by_label(&self) -> Vec<Vec<(Label, Vec<u16>)>> {
        let by_label = |zone: &Vec<u16>| {
            let mut lists: Vec<(Label, Vec<u16>)> = Vec::new();
            for &node in zone {
                let label = self.search.label(usize::from(node));
                if label.distance >= FAR {
                    continue;
                }
                match lists.iter_mut().find(|(other, _)| *other == label) {
                    Some((_, nodes)) => nodes.push(node),
                    None => lists.push((label, vec![node])),
                }
            }
            lists
        };
        self.zone_nodes.iter().map(by_label).collect()
    }

    /// Finds a path from `source` to a sink, left in `round.path`.
    fn find_path(&self, source: usize, round: &mut Round) -> bool {
        round.path.clear();
        round.stack.clear();
        self.enter(source, round);
        while let Some(&frame) = round.stack.last() {
            let vertex = frame.vertex;
            if frame.stage == 0 && frame.cursor == 0 {
                let label = self.search.label(vertex);
                if label.distance == round.distance && self.sink(self.vertex(vertex)) > 0 {
                    return true;
                }
            }
            match self.advance(round) {
                Some((next, step)) => {
                    round.path.push(step);
                    self.enter(next, round);
                }
                None => {
                    round.stack.pop();
                    round.path.pop();
                }
            }
        }
        false
    }

    fn enter(&self, vertex: usize, round: &mut Round) {
        round.visited[vertex] = true;
        round.steps += 1;
        round.stack.push(Frame {
            vertex,
            stage: 0,
            cursor: 0,
        });
    }

    /// Returns the next tight arc out of the vertex on top of the stack.
    fn advance(&self, round: &mut Round) -> Option<(usize, Step)> {
        let mut frame = *round.stack.last()?;
        let label = self.search.label(frame.vertex);
        let next = Label {
            hops: label.hops + 1,
            ..label
        };
        let found = match self.vertex(frame.vertex) {
            Vertex::Node(node) => self.arc_of_node(node, next, &mut frame, round),
            Vertex::Hub => self.arc_of_hub(next, round),
            Vertex::Row(row) => self.arc_of_row(row, next, &mut frame, round),
            Vertex::Cell(cell) => self.arc_of_cell(cell, next, &mut frame, round),
        };
        if let Some(top) = round.stack.last_mut() {
            *top = frame;
        }
        found
    }

    fn is_tight(&self, vertex: usize, label: Label, round: &Round) -> bool {
        !round.visited[vertex] && self.search.label(vertex) == label
    }

    fn arc_of_node(
        &self,
        node: usize,
        next: Label,
        frame: &mut Frame,
        round: &mut Round,
    ) -> Option<(usize, Step)> {
        if frame.stage == 0 {
            frame.stage = 1;
            let hub = self.hub_vertex();
            if self.quota[node] < self.targets.ceil[node] && self.is_tight(hub, next, round) {
                return Some((hub, Step::Raise(node)));
            }
        }
        while let Some(place) = round.cursor[node].item() {
            round.cursor[node] = self.pairs.after(place, node);
            round.steps += 1;
            let row = self.row_of[place] as usize;
            if round.dirty[row] {
                continue;
            }
            let cell = self.cell_of_member(row, node);
            let distance = next.distance + i32::from(self.is_held(row, node));
            let vertex = self.cell_vertex(cell);
            if self.is_tight(vertex, Label { distance, ..next }, round) {
                return Some((vertex, Step::Leave { node, row, cell }));
            }
        }
        None
    }

    fn arc_of_hub(&self, next: Label, round: &mut Round) -> Option<(usize, Step)> {
        while round.hub_cursor < self.load.len() {
            let node = round.hub_cursor;
            round.hub_cursor += 1;
            if self.quota[node] > self.targets.floor[node] && self.is_tight(node, next, round) {
                return Some((node, Step::Lower(node)));
            }
        }
        None
    }

    fn arc_of_row(
        &self,
        row: usize,
        next: Label,
        frame: &mut Frame,
        round: &mut Round,
    ) -> Option<(usize, Step)> {
        let places = self.places(row);
        if frame.stage == 0 {
            while frame.cursor < places.len() {
                let node = self.held[places.start + frame.cursor];
                frame.cursor += 1;
                if node == NO_NODE {
                    continue;
                }
                let node = usize::from(node);
                let zone = self.zone(node);
                if self.is_tight(node, taken_back(next), round)
                    && self.cell(row, zone).is_none()
                    && self.targets.zone_most[zone] > 0
                {
                    return Some((node, Step::OpenJoin { node, row }));
                }
            }
            (frame.stage, frame.cursor) = (1, 0);
        }
        if frame.stage == 1 {
            while frame.cursor < places.len() {
                let at = places.start + frame.cursor;
                frame.cursor += 1;
                let cell = self.cells[at];
                if cell.zone != NO_ZONE
                    && cell.flow < self.targets.zone_most[usize::from(cell.zone)]
                    && self.is_tight(self.cell_vertex(at), next, round)
                {
                    return Some((self.cell_vertex(at), Step::Widen { row, cell: at }));
                }
            }
            (frame.stage, frame.cursor) = (2, 0);
        }
        while !self.every_zone && frame.cursor < self.problem.zones {
            let zone = frame.cursor;
            if self.targets.zone_most[zone] > 0
                && self.cell(row, zone).is_none()
                && let Some(node) = self.tight_newcomer(row, zone, next, round)
            {
                return Some((node, Step::OpenJoin { node, row }));
            }
            frame.cursor += 1;
        }
        None
    }

    fn arc_of_cell(
        &self,
        cell: usize,
        next: Label,
        frame: &mut Frame,
        round: &mut Round,
    ) -> Option<(usize, Step)> {
        let row = self.row_of[cell] as usize;
        let zone = usize::from(self.cells[cell].zone);
        let places = self.places(row);
        if frame.stage == 0 {
            while frame.cursor < places.len() {
                let node = self.held[places.start + frame.cursor];
                frame.cursor += 1;
                if node == NO_NODE || self.zone(usize::from(node)) != zone {
                    continue;
                }
                let node = usize::from(node);
                if self.is_tight(node, taken_back(next), round) && !self.is_member(row, node) {
                    return Some((node, Step::Join { node, row }));
                }
            }
            (frame.stage, frame.cursor) = (1, 0);
        }
        if frame.stage == 1 {
            if let Some(node) = self.tight_newcomer(row, zone, next, round) {
                return Some((node, Step::Join { node, row }));
            }
            frame.stage = 2;
        }
        if frame.stage == 2 {
            frame.stage = 3;
            let vertex = self.row_vertex(row);
            if self.cells[cell].flow > self.targets.zone_least[zone]
                && self.is_tight(vertex, next, round)
            {
                return Some((vertex, Step::Narrow { row, cell }));
            }
        }
        None
    }

    /// Finds a node of the zone at the label that is new to the row, unlisting visited ones.
    fn tight_newcomer(
        &self,
        row: usize,
        zone: usize,
        label: Label,
        round: &mut Round,
    ) -> Option<usize> {
        let lists = round.by_label[zone].iter_mut();
        let (_, nodes) = lists.into_iter().find(|(other, _)| *other == label)?;
        let mut at = nodes.len();
        while at > 0 {
            at -= 1;
            round.steps += 1;
            let node = usize::from(nodes[at]);
            if round.visited[node] {
                nodes.swap_remove(at);
                round.listed[node] = false;
            } else if !self.is_member(row, node) && !self.is_held(row, node) {
                return Some(node);
            }
        }
        None
    }

    /// Applies the path found and releases its vertices for further paths.
    fn apply_path(&mut self, round: &mut Round) {
        for &step in &round.path {
            self.apply(step, &mut round.dirty);
        }
        for &step in &round.path {
            if let Step::Leave { row, .. } | Step::Narrow { row, .. } = step {
                for at in self.places(row) {
                    self.close_cell(at);
                }
            }
        }
        for frame in &round.stack {
            round.visited[frame.vertex] = false;
            let Vertex::Node(node) = self.vertex(frame.vertex) else {
                continue;
            };
            if !round.listed[node] {
                round.listed[node] = true;
                let label = self.search.label(node);
                let mut lists = round.by_label[self.zone(node)].iter_mut();
                if let Some((_, nodes)) = lists.find(|(other, _)| *other == label) {
                    nodes.push(node as u16);
                }
            }
        }
    }

    fn apply(&mut self, step: Step, dirty: &mut [bool]) {
        if let Step::Leave { row, .. }
        | Step::Join { row, .. }
        | Step::OpenJoin { row, .. }
        | Step::Widen { row, .. }
        | Step::Narrow { row, .. } = step
        {
            dirty[row] = true;
        }
        match step {
            Step::Leave { node, row, cell } => self.remove_member(row, cell, node),
            Step::Join { node, row } => {
                let cell = self.cell_of_member(row, node);
                self.add_member(row, cell, node);
            }
            Step::OpenJoin { node, row } => {
                let cell = self.open_cell(row, self.zone(node));
                self.widen(row, cell);
                self.add_member(row, cell, node);
            }
            Step::Widen { row, cell } => self.widen(row, cell),
            Step::Narrow { row, cell } => self.narrow(row, cell),
            Step::Raise(node) => self.raise(node),
            Step::Lower(node) => self.lower(node),
        }
    }
}

fn taken_back(label: Label) -> Label {
    Label {
        distance: label.distance - 1,
        ..label
    }
}

//! The exact assignment of rows to nodes: one candidate per row, bounds per node, least cost.
//!
//! A minimum-cost flow compressed to nodes and a hub: a row led by `a` that could be led by `b` is
//! an arc from `a` to `b`. Leaving a node's bounds costs so much that it happens only when it must,
//! so an assignment always exists. Rows without candidates stay without a primary.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::super::flow::{Budget, Stuck};
use super::super::lists::Lists;
use super::super::mix::mix;
use super::super::outcome::{LEAD_CHANGE_COST, LEAD_VIOLATION_COST};
use super::super::rows::NO_NODE;

const FAR: i64 = i64::MAX / 4;
/// "Nothing chosen".
const NONE: u32 = u32::MAX;

/// One change of the assignment.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The row is led by this candidate from now on.
    Choose {
        row: usize,
        candidate: usize,
    },
    Raise(usize),
    Lower(usize),
}

/// A vertex on the path being sought: the row it leads and the candidate tried next. Of the hub,
/// which leads no row, `candidate` is the node tried next.
#[derive(Clone, Copy, Debug)]
struct Frame {
    vertex: usize,
    stage: u8,
    row: Option<usize>,
    candidate: usize,
}

/// The state of one round of augmentation.
struct Round {
    distance: i64,
    visited: Vec<bool>,
    dirty: Vec<bool>,
    path: Vec<Step>,
    trail: Vec<usize>,
    stack: Vec<Frame>,
    steps: usize,
}

/// Rows with candidates, and the choice among them.
#[derive(Debug)]
pub(in crate::placement) struct Assignment {
    /// Row `r` may be led by `node[start[r]..start[r + 1]]` at the cost beside it.
    start: Vec<u32>,
    node: Vec<u16>,
    cost: Vec<i64>,
    /// The candidate chosen for every row.
    chosen: Vec<u32>,
    /// The rows every node leads.
    led: Lists,
    count: Vec<u32>,
    /// How many rows a node is to lead; outside of its bounds only at a price.
    quota: Vec<u32>,
    floor: Vec<u32>,
    ceil: Vec<u32>,
    /// The sum of all quotas less the number of rows with candidates.
    hub: i64,
    label: Vec<i64>,
    rounds: u32,
}

impl Assignment {
    pub(in crate::placement) fn new(rows: usize, floor: Vec<u32>, ceil: Vec<u32>) -> Self {
        let nodes = floor.len();
        let mut start = Vec::with_capacity(rows + 1);
        start.push(0);
        Self {
            start,
            node: Vec::with_capacity(rows * 3),
            cost: Vec::with_capacity(rows * 3),
            chosen: Vec::with_capacity(rows),
            led: Lists::new(core::iter::empty(), 0),
            count: vec![0; nodes],
            quota: vec![0; nodes],
            floor,
            ceil,
            hub: 0,
            label: Vec::new(),
            rounds: 0,
        }
    }

    /// Adds the next row. A candidate that costs nothing is its present primary.
    pub(in crate::placement) fn push_row(&mut self, candidates: &[(u16, i64)]) {
        let mut chosen = NONE;
        for &(node, cost) in candidates {
            if cost == 0 {
                chosen = self.node.len() as u32;
            }
            self.node.push(node);
            self.cost.push(cost);
        }
        self.start.push(self.node.len() as u32);
        self.chosen.push(chosen);
    }

    /// Finds the assignment of least cost.
    pub(in crate::placement) fn solve(
        &mut self,
        keys: &[u64],
        budget: &mut Budget,
    ) -> Result<(), Stuck> {
        self.begin();
        self.settle(keys);
        self.direct(keys);
        self.search(budget)
    }

    /// Returns the node chosen to lead a row.
    pub(in crate::placement) fn chosen(&self, row: usize) -> u16 {
        match self.chosen.get(row) {
            None | Some(&NONE) => NO_NODE,
            Some(&candidate) => self.node[candidate as usize],
        }
    }

    /// Returns how far all nodes together are outside of their bounds.
    pub(in crate::placement) fn violation(&self) -> u32 {
        (0..self.count.len())
            .map(|node| {
                let count = self.count[node];
                self.floor[node].saturating_sub(count) + count.saturating_sub(self.ceil[node])
            })
            .sum()
    }

    /// Returns how many rows are led beyond the upper bounds of their nodes.
    pub(in crate::placement) fn excess(&self) -> u32 {
        let nodes = self.count.iter().zip(&self.ceil);
        nodes.map(|(count, ceil)| count.saturating_sub(*ceil)).sum()
    }

    pub(in crate::placement) const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Returns the price of leading one more row for every node, relative to the hub.
    pub(in crate::placement) fn prices(&mut self, budget: &mut Budget) -> Result<Vec<i64>, Stuck> {
        let hub = self.hub_vertex();
        self.label.clear();
        self.label.resize(hub + 1, 0);
        self.lower_by_negative_arcs();
        let lowered = (0..=hub).filter(|&vertex| self.label[vertex] < 0);
        self.relax_all(lowered.collect(), budget)?;
        Ok(self.label[..hub]
            .iter()
            .map(|label| label - self.label[hub])
            .collect())
    }

    /// Takes every arc that costs less than nothing once; no other can lower a label of 0.
    fn lower_by_negative_arcs(&mut self) {
        for row in 0..self.rows() {
            let Some(&chosen) = self.cost.get(self.chosen[row] as usize) else {
                continue;
            };
            for other in self.candidates(row) {
                let node = usize::from(self.node[other]);
                self.label[node] = self.label[node].min(self.cost[other] - chosen);
            }
        }
        let hub = self.hub_vertex();
        for node in 0..hub {
            self.label[hub] = self.label[hub].min(self.raise_cost(node));
            if let Some(cost) = self.lower_cost(node) {
                self.label[node] = self.label[node].min(cost);
            }
        }
    }

    fn hub_vertex(&self) -> usize {
        self.count.len()
    }

    fn rows(&self) -> usize {
        self.chosen.len()
    }

    fn candidates(&self, row: usize) -> core::ops::Range<usize> {
        self.start[row] as usize..self.start[row + 1] as usize
    }

    fn begin(&mut self) {
        let mut wanted = 0;
        for row in 0..self.rows() {
            wanted += i64::from(!self.candidates(row).is_empty());
            if self.chosen[row] != NONE {
                self.count[usize::from(self.node[self.chosen[row] as usize])] += 1;
            }
        }
        // What a node may lead, where that is near what there is.
        let usual = (2 * self.rows() / self.count.len().max(1) + 1) as u32;
        let rooms = self.count.iter().zip(&self.ceil);
        let rooms = rooms.map(|(&count, &ceil)| count.max(ceil.min(usual)) + 1);
        self.led = Lists::new(rooms, self.chosen.len());
        for row in (0..self.rows()).rev() {
            if self.chosen[row] != NONE {
                let node = usize::from(self.node[self.chosen[row] as usize]);
                self.led.link(row, node);
            }
        }
        self.hub = -wanted;
        for node in 0..self.count.len() {
            self.quota[node] = self.count[node].clamp(self.floor[node], self.ceil[node]);
            self.hub += i64::from(self.quota[node]);
        }
    }

    fn choose(&mut self, row: usize, candidate: usize) {
        if self.chosen[row] != NONE {
            let node = usize::from(self.node[self.chosen[row] as usize]);
            self.led.unlink(row, node);
            self.count[node] -= 1;
        }
        self.chosen[row] = candidate as u32;
        let node = usize::from(self.node[candidate]);
        self.led.link(row, node);
        self.count[node] += 1;
    }

    /// Moves the hub towards zero within the bounds, in one direction only.
    fn settle(&mut self, keys: &[u64]) {
        let up = self.hub < 0;
        let mut order: Vec<(u64, usize)> = (0..self.count.len())
            .map(|node| (mix(keys[node], 991), node))
            .collect();
        order.sort_unstable();
        let mut moved = true;
        while moved && self.hub != 0 {
            moved = false;
            for &(_, node) in &order {
                if self.hub == 0 {
                    break;
                }
                if up && self.quota[node] < self.ceil[node] {
                    self.raise(node);
                    moved = true;
                } else if !up && self.quota[node] > self.floor[node] {
                    self.lower(node);
                    moved = true;
                }
            }
        }
    }

    fn raise(&mut self, node: usize) {
        self.quota[node] += 1;
        self.hub += 1;
    }

    fn lower(&mut self, node: usize) {
        self.quota[node] -= 1;
        self.hub -= 1;
    }

    /// Takes steps that are shortest paths by themselves: rows without a primary, then rows of
    /// nodes that lead too many, to a candidate with room at the plain cost of a change.
    fn direct(&mut self, keys: &[u64]) {
        for row in 0..self.rows() {
            if self.chosen[row] == NONE
                && let Some(candidate) = self.neediest(row, keys, true)
            {
                self.choose(row, candidate);
            }
        }
        for node in 0..self.count.len() {
            let mut at = self.led.start(node);
            while let Some(row) = at.item().filter(|_| self.count[node] > self.quota[node]) {
                at = self.led.after(row, node);
                if self.cost[self.chosen[row] as usize] != 0 {
                    continue;
                }
                if let Some(candidate) = self.neediest(row, keys, false) {
                    self.choose(row, candidate);
                }
            }
        }
    }

    /// Returns the candidate with most room, relative to its quota or absolute.
    fn neediest(&self, row: usize, keys: &[u64], relative: bool) -> Option<usize> {
        self.candidates(row)
            .filter(|&at| {
                let node = usize::from(self.node[at]);
                self.cost[at] <= LEAD_CHANGE_COST && self.count[node] < self.quota[node]
            })
            .min_by_key(|&at| {
                let node = usize::from(self.node[at]);
                let room = u64::from(self.quota[node] - self.count[node]);
                let need = match relative {
                    true => (room << 16) / u64::from(self.quota[node]),
                    false => room,
                };
                (u64::MAX - need, mix(row as u64, keys[node]), at)
            })
    }

    /// Assigns what is left along cheapest paths, round by round.
    fn search(&mut self, budget: &mut Budget) -> Result<(), Stuck> {
        loop {
            let open: Vec<usize> = (0..self.rows())
                .filter(|&row| self.chosen[row] == NONE && !self.candidates(row).is_empty())
                .collect();
            let hub = self.hub_vertex();
            let mut sources: Vec<usize> = (0..hub)
                .filter(|&node| self.count[node] > self.quota[node])
                .collect();
            if self.hub > 0 {
                sources.push(hub);
            }
            if sources.is_empty() && open.is_empty() {
                return Ok(());
            }
            self.rounds += 1;
            self.label_from(&sources, &open, budget)?;
            let distance = self.nearest_sink();
            if distance >= FAR || self.augment(distance, &sources, &open, budget)? == 0 {
                return Err(Stuck::Broken);
            }
        }
    }

    fn label_from(
        &mut self,
        sources: &[usize],
        open: &[usize],
        budget: &mut Budget,
    ) -> Result<(), Stuck> {
        self.label.clear();
        self.label.resize(self.hub_vertex() + 1, FAR);
        let mut queue = VecDeque::new();
        for &vertex in sources {
            self.label[vertex] = 0;
            queue.push_back(vertex);
        }
        for &row in open {
            for at in self.candidates(row) {
                let node = usize::from(self.node[at]);
                if self.cost[at] < self.label[node] {
                    if self.label[node] == FAR {
                        queue.push_back(node);
                    }
                    self.label[node] = self.cost[at];
                }
            }
        }
        self.relax_all(queue, budget)
    }

    /// Scans until no label can be improved.
    fn relax_all(&mut self, mut queue: VecDeque<usize>, budget: &mut Budget) -> Result<(), Stuck> {
        let hub = self.hub_vertex();
        let mut queued = vec![false; hub + 1];
        for &vertex in &queue {
            queued[vertex] = true;
        }
        let mut label = core::mem::take(&mut self.label);
        let reach = |vertex: usize,
                     distance: i64,
                     queue: &mut VecDeque<usize>,
                     label: &mut [i64],
                     queued: &mut [bool]| {
            if distance < label[vertex] {
                label[vertex] = distance;
                if !queued[vertex] {
                    queued[vertex] = true;
                    queue.push_back(vertex);
                }
            }
        };
        let mut done = Ok(());
        while let Some(vertex) = queue.pop_front() {
            queued[vertex] = false;
            let distance = label[vertex];
            let mut steps = 1;
            if vertex == hub {
                for node in 0..hub {
                    if let Some(cost) = self.lower_cost(node) {
                        reach(node, distance + cost, &mut queue, &mut label, &mut queued);
                    }
                }
                steps += hub;
            } else {
                let up = distance + self.raise_cost(vertex);
                reach(hub, up, &mut queue, &mut label, &mut queued);
                for row in self.led.items(vertex) {
                    let chosen = self.chosen[row] as usize;
                    let given = distance - self.cost[chosen];
                    for other in self.candidates(row).filter(|&other| other != chosen) {
                        let node = usize::from(self.node[other]);
                        let to = given + self.cost[other];
                        reach(node, to, &mut queue, &mut label, &mut queued);
                    }
                    steps += self.candidates(row).len();
                }
            }
            done = budget.spend(steps);
            if done.is_err() {
                break;
            }
        }
        self.label = label;
        done
    }

    fn raise_cost(&self, node: usize) -> i64 {
        if self.quota[node] < self.floor[node] {
            -LEAD_VIOLATION_COST
        } else if self.quota[node] < self.ceil[node] {
            0
        } else {
            LEAD_VIOLATION_COST
        }
    }

    fn lower_cost(&self, node: usize) -> Option<i64> {
        if self.quota[node] == 0 {
            None
        } else if self.quota[node] > self.ceil[node] {
            Some(-LEAD_VIOLATION_COST)
        } else if self.quota[node] > self.floor[node] {
            Some(0)
        } else {
            Some(LEAD_VIOLATION_COST)
        }
    }

    fn is_sink(&self, vertex: usize) -> bool {
        match vertex == self.hub_vertex() {
            true => self.hub < 0,
            false => self.count[vertex] < self.quota[vertex],
        }
    }

    fn nearest_sink(&self) -> i64 {
        (0..=self.hub_vertex())
            .filter(|&vertex| self.is_sink(vertex))
            .map(|vertex| self.label[vertex])
            .min()
            .unwrap_or(FAR)
    }

    fn augment(
        &mut self,
        distance: i64,
        sources: &[usize],
        open: &[usize],
        budget: &mut Budget,
    ) -> Result<u32, Stuck> {
        let hub = self.hub_vertex();
        let mut round = Round {
            distance,
            visited: vec![false; hub + 1],
            dirty: vec![false; self.rows()],
            path: Vec::new(),
            trail: Vec::new(),
            stack: Vec::new(),
            steps: 0,
        };
        let mut count = 0;
        for &row in open {
            if !round.dirty[row] && self.path_for_row(row, &mut round) {
                self.apply(&mut round);
                count += 1;
            }
        }
        for &vertex in sources {
            loop {
                let excess = match vertex == hub {
                    true => self.hub > 0,
                    false => self.count[vertex] > self.quota[vertex],
                };
                if !excess || round.visited[vertex] || self.label[vertex] != 0 {
                    break;
                }
                round.path.clear();
                round.trail.clear();
                if !self.find_path(vertex, &mut round) {
                    break;
                }
                self.apply(&mut round);
                count += 1;
            }
        }
        budget.spend(round.steps)?;
        Ok(count)
    }

    fn path_for_row(&self, row: usize, round: &mut Round) -> bool {
        self.candidates(row).any(|candidate| {
            let node = usize::from(self.node[candidate]);
            if round.visited[node] || self.label[node] != self.cost[candidate] {
                return false;
            }
            round.trail.clear();
            round.path.clear();
            round.path.push(Step::Choose { row, candidate });
            self.find_path(node, round)
        })
    }

    fn apply(&mut self, round: &mut Round) {
        for &step in &round.path {
            match step {
                Step::Choose { row, candidate } => {
                    self.choose(row, candidate);
                    round.dirty[row] = true;
                }
                Step::Raise(node) => self.raise(node),
                Step::Lower(node) => self.lower(node),
            }
        }
        for &vertex in &round.trail {
            round.visited[vertex] = false;
        }
    }

    /// Extends `round.path` from `source` to a sink along tight arcs, if that can be done.
    fn find_path(&self, source: usize, round: &mut Round) -> bool {
        round.stack.clear();
        self.enter(source, round);
        while let Some(&(mut frame)) = round.stack.last() {
            let top = round.stack.len() - 1;
            let vertex = frame.vertex;
            if frame.stage == 0 {
                frame.stage = 1;
                if self.is_sink(vertex) && self.label[vertex] == round.distance {
                    return true;
                }
            }
            let found = self.advance(&mut frame, round);
            round.stack[top] = frame;
            match found {
                Some((next, step)) => {
                    round.path.push(step);
                    self.enter(next, round);
                }
                None => {
                    round.stack.pop();
                    round.trail.pop();
                    if !round.stack.is_empty() {
                        round.path.pop();
                    }
                }
            }
        }
        false
    }

    fn enter(&self, vertex: usize, round: &mut Round) {
        round.visited[vertex] = true;
        round.trail.push(vertex);
        round.stack.push(Frame {
            vertex,
            stage: 0,
            row: match vertex == self.hub_vertex() {
                true => None,
                false => self.led.start(vertex).item(),
            },
            candidate: 0,
        });
    }

    fn advance(&self, frame: &mut Frame, round: &mut Round) -> Option<(usize, Step)> {
        let (vertex, hub) = (frame.vertex, self.hub_vertex());
        if vertex == hub {
            while frame.candidate < hub {
                let node = frame.candidate;
                frame.candidate += 1;
                let tight = |cost| self.label[node] == self.label[hub] + cost;
                if !round.visited[node] && self.lower_cost(node).is_some_and(tight) {
                    return Some((node, Step::Lower(node)));
                }
            }
            return None;
        }
        if frame.stage == 1 {
            frame.stage = 2;
            let up = self.label[vertex] + self.raise_cost(vertex);
            if !round.visited[hub] && self.label[hub] == up {
                return Some((hub, Step::Raise(vertex)));
            }
        }
        while let Some(row) = frame.row {
            round.steps += 1;
            if !round.dirty[row] {
                let candidates = self.candidates(row);
                let chosen = self.chosen[row] as usize;
                let given = self.label[vertex] - self.cost[chosen];
                while candidates.start + frame.candidate < candidates.end {
                    let candidate = candidates.start + frame.candidate;
                    frame.candidate += 1;
                    let node = usize::from(self.node[candidate]);
                    if candidate != chosen
                        && !round.visited[node]
                        && self.label[node] == given + self.cost[candidate]
                    {
                        return Some((node, Step::Choose { row, candidate }));
                    }
                }
            }
            frame.row = self.led.after(row, vertex).item();
            frame.candidate = 0;
        }
        None
    }
}

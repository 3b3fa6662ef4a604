//! Direct moves at distance 1: replicas leave overfull nodes for nodes with room.
//!
//! Runs when no open place is left, so a move from an overfull node straight to one with room is a
//! shortest path. Rows that are too long are shortened first, which costs a drop and no copy.

use alloc::vec::Vec;

use super::ReplicaFlow;
use crate::placement::rows::NO_NODE;

/// From how many zones on the first one found is taken instead of the one with most room.
const FEW_ZONES: usize = 8;
/// How many nodes of a zone are asked whether they need to lead.
const LEADERS_ASKED: usize = 32;

/// What a move does for the primaries, in the order tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The node's own primary has to move and the receiver needs one.
    OwnPrimary,
    /// Another member's primary has to move and the receiver needs one.
    OtherPrimary,
    /// The node is a plain replica.
    Replica,
    /// Whatever is left: the node loses a primary.
    Any,
}

const CLASSES: [Class; 4] = [
    Class::OwnPrimary,
    Class::OtherPrimary,
    Class::Replica,
    Class::Any,
];

/// Nodes with room by zone, and the zones that have any.
struct Receivers {
    nodes: Vec<Vec<u16>>,
    zones: Vec<u16>,
}

impl ReplicaFlow<'_> {
    /// Shortens long rows, then moves what can be moved in one step.
    pub(super) fn shift(&mut self) {
        self.shed();
        let mut receivers = self.receivers();
        let mut sources: Vec<(u64, usize)> = (0..self.load.len())
            .filter(|&node| self.is_overfull(node))
            .map(|node| (self.problem.toss(self.problem.key[node], 5), node))
            .collect();
        sources.sort_unstable();
        let mut rows = Vec::new();
        for &(_, from) in &sources {
            rows.clear();
            rows.extend(self.pairs.items(from).map(|place| self.row_of[place]));
            if rows.is_empty() || receivers.zones.is_empty() {
                continue;
            }
            let toss = self.problem.toss(self.problem.key[from], 21);
            let start = (toss % rows.len() as u64) as usize;
            rows.rotate_left(start);
            for class in CLASSES {
                if !self.shift_class(from, class, &mut rows, &mut receivers) {
                    break;
                }
            }
        }
    }

    fn receivers(&self) -> Receivers {
        let nodes: Vec<Vec<u16>> = self
            .zone_nodes
            .iter()
            .map(|zone| {
                let zone = zone.iter().copied();
                zone.filter(|&node| self.room(usize::from(node)) > 0)
                    .collect()
            })
            .collect();
        let zones = (0..nodes.len() as u16)
            .filter(|&zone| !nodes[usize::from(zone)].is_empty())
            .collect();
        Receivers { nodes, zones }
    }

    /// Moves replicas of one class away from `from`, striking their rows from `rows`, and returns
    /// whether there is more to do.
    fn shift_class(
        &mut self,
        from: usize,
        class: Class,
        rows: &mut Vec<u32>,
        receivers: &mut Receivers,
    ) -> bool {
        let mut more = self.is_overfull(from) && !receivers.zones.is_empty();
        if class == Class::OwnPrimary && !self.ledger.can_give(from) {
            return more;
        }
        rows.retain(|&row| {
            let shifted = more && self.shift_one(row as usize, from, class, receivers);
            if shifted {
                more = self.is_overfull(from) && !receivers.zones.is_empty();
            }
            !shifted
        });
        more
    }

    /// Moves the replica of `row` away from `from`, if the class fits and a receiver is found.
    fn shift_one(
        &mut self,
        row: usize,
        from: usize,
        class: Class,
        receivers: &mut Receivers,
    ) -> bool {
        let leader = self.leader[row];
        let own = leader == from as u16;
        let gives = || leader != NO_NODE && self.ledger.can_give(usize::from(leader));
        let fits = match class {
            Class::OwnPrimary => own && gives(),
            Class::OtherPrimary => gives(),
            Class::Replica => !own,
            Class::Any => true,
        };
        if !fits {
            return false;
        }
        let leads = matches!(class, Class::OwnPrimary | Class::OtherPrimary);
        let Some((zone_at, node_at)) = self.receiver(row, from, receivers, leads) else {
            return false;
        };
        let queue = &mut receivers.nodes[usize::from(receivers.zones[zone_at])];
        let to = usize::from(queue[node_at]);
        if leads {
            self.ledger.take(to);
            self.ledger.give(usize::from(leader));
        }
        self.move_replica(row, from, to);
        if self.room(to) == 0 {
            queue.swap_remove(node_at);
            if queue.is_empty() {
                receivers.zones.swap_remove(zone_at);
            }
        }
        true
    }

    /// Finds a node with room that may replace `from` in `row`, as indices into `receivers`.
    fn receiver(
        &self,
        row: usize,
        from: usize,
        receivers: &Receivers,
        leads: bool,
    ) -> Option<(usize, usize)> {
        let zone = self.zone(from);
        let cell = self.cell_of_member(row, from);
        if !self.is_even(cell) {
            return None;
        }
        let may_leave = self.cells[cell].flow > self.targets.zone_least[zone];
        let count = receivers.zones.len();
        let start = (self.problem.toss(row as u64, 3) % count as u64) as usize;
        let mut best: Option<(usize, usize, usize)> = None;
        for step in 0..count {
            let at = (start + step) % count;
            let other = usize::from(receivers.zones[at]);
            let open = other == zone
                || (may_leave
                    && self.can_widen(row, other)
                    && self.cell(row, other).is_none_or(|cell| self.is_even(cell)));
            let queue = &receivers.nodes[other];
            if !open || best.is_some_and(|(most, _, _)| most >= queue.len()) {
                continue;
            }
            let toss = self.problem.toss(row as u64, from as u64 + 9);
            let offset = (toss % queue.len() as u64) as usize;
            let asked = match leads {
                true => queue.len().min(LEADERS_ASKED),
                false => queue.len(),
            };
            let found = (0..asked)
                .map(|step| (offset + step) % queue.len())
                .find(|&at| {
                    let node = usize::from(queue[at]);
                    (!leads || self.ledger.can_take(node)) && !self.is_member(row, node)
                });
            if let Some(node_at) = found {
                best = Some((queue.len(), at, node_at));
                if count > FEW_ZONES {
                    break;
                }
            }
        }
        best.map(|(_, zone_at, node_at)| (zone_at, node_at))
    }

    /// Drops members of rows that are too long or crowded in a zone, from overfull nodes only:
    /// plain replicas in the first pass, primaries in the second.
    fn shed(&mut self) {
        for spare_leader in [true, false] {
            for row in 0..self.rows() {
                while let Some((node, cell, crowded)) = self.sheddable(row, spare_leader) {
                    self.remove_member(row, cell, node);
                    if !crowded {
                        self.narrow(row, cell);
                        self.close_cell(cell);
                    }
                }
            }
        }
    }

    /// Returns the member to drop: the one on the fullest node.
    fn sheddable(&self, row: usize, spare_leader: bool) -> Option<(usize, usize, bool)> {
        let long = self.row_excess(row) < 0;
        let mut best: Option<(u32, usize, usize, bool)> = None;
        for member in self.members(row) {
            let node = usize::from(member);
            if !self.is_overfull(node) || (spare_leader && self.leader[row] == member) {
                continue;
            }
            let at = self.cell_of_member(row, node);
            let cell = self.cells[at];
            let crowded = cell.used > cell.flow;
            let spare = cell.flow > self.targets.zone_least[usize::from(cell.zone)];
            let sheddable = crowded || (long && self.is_even(at) && spare);
            if !sheddable {
                continue;
            }
            let excess = self.load[node] - self.quota[node];
            if best.is_none_or(|(most, first, _, _)| (excess, first) > (most, node)) {
                best = Some((excess, node, at, crowded));
            }
        }
        best.map(|(_, node, at, crowded)| (node, at, crowded))
    }

    /// Whether `from` can be replaced by `to` in `row` without touching anything else.
    pub(super) fn can_move(&self, row: usize, from: usize, to: usize) -> bool {
        let (zone, other) = (self.zone(from), self.zone(to));
        let cell = self.cell_of_member(row, from);
        if self.is_member(row, to) || !self.is_even(cell) {
            return false;
        }
        zone == other
            || (self.cells[cell].flow > self.targets.zone_least[zone]
                && self.can_widen(row, other)
                && self.cell(row, other).is_none_or(|cell| self.is_even(cell)))
    }

    /// Replaces `from` by `to` in `row`.
    pub(super) fn move_replica(&mut self, row: usize, from: usize, to: usize) {
        let (zone, other) = (self.zone(from), self.zone(to));
        let cell = self.cell_of_member(row, from);
        self.remove_member(row, cell, from);
        let receiving = match zone == other {
            true => cell,
            false => {
                self.narrow(row, cell);
                self.close_cell(cell);
                let opened = self.open_cell(row, other);
                self.widen(row, opened);
                opened
            }
        };
        self.add_member(row, receiving, to);
        self.stats.direct += 1;
    }
}

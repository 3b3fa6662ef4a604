//! Matching partitions that lost their primary with nodes that need one to lead.
//!
//! A bipartite matching with augmenting paths: surviving members before fresh nodes, nodes below
//! their share before those that merely may hold a ceiling. Matched fresh nodes are placed at once,
//! which is a step of [`fill`](super::fill) like any other, so this only decides ties.

use alloc::vec;
use alloc::vec::Vec;

use super::{ReplicaFlow, Stuck};
use crate::placement::rows::NO_NODE;

/// How many partitions may change their match for one more to find one.
const DEPTH_MAX: u32 = 6;
/// The effort spent on ties: per node, and at least.
const WORK_PER_NODE: usize = 64;
const WORK_LEAST: usize = 40_000;

/// The state of the matching.
struct Matching {
    /// Row of every orphan.
    rows: Vec<u32>,
    /// The node an orphan is matched with, and whether the row has to receive it first.
    matched: Vec<(u16, bool)>,
    /// Orphans matched with a node.
    at: Vec<Vec<u32>>,
    /// How many partitions a node may be matched with, and is.
    lead_room: Vec<u32>,
    used: Vec<u32>,
    /// How many of those it may have to receive first, and has.
    place_room: Vec<u32>,
    fresh: Vec<u32>,
    /// Nodes worth asking that are not members.
    candidates: Vec<u16>,
    visited: Vec<u32>,
    stamp: u32,
    work: usize,
    work_limit: usize,
}

impl ReplicaFlow<'_> {
    /// Matches the orphans among the rows `open`, and places the fresh nodes found.
    pub(super) fn match_orphans(&mut self, open: &[u32]) -> Result<(), Stuck> {
        let orphans: Vec<u32> = open
            .iter()
            .copied()
            .filter(|&row| {
                self.leader[row as usize] == NO_NODE && self.members(row as usize).next().is_some()
            })
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        let nodes = self.load.len();
        let mut matching = Matching {
            matched: vec![(NO_NODE, false); orphans.len()],
            rows: orphans,
            at: vec![Vec::new(); nodes],
            lead_room: (0..nodes).map(|node| self.ledger.must_take(node)).collect(),
            used: vec![0; nodes],
            place_room: (0..nodes).map(|node| self.room(node)).collect(),
            fresh: vec![0; nodes],
            candidates: Vec::new(),
            visited: vec![0; nodes],
            stamp: 0,
            work: 0,
            work_limit: WORK_PER_NODE * nodes + WORK_LEAST,
        };
        matching.phase(self);
        if self.ledger.ceilings_to_take() {
            for node in 0..nodes {
                matching.lead_room[node] += self.ledger.may_take(node);
            }
            matching.phase(self);
        }
        self.budget.spend(matching.work)?;
        for (orphan, &(node, fresh)) in matching.matched.iter().enumerate() {
            if node == NO_NODE {
                continue;
            }
            let (row, node) = (matching.rows[orphan] as usize, usize::from(node));
            if fresh && (self.room(node) == 0 || !self.try_place(row, node)) {
                continue;
            }
            if self.ledger.can_take(node) {
                self.ledger.take(node);
            }
        }
        Ok(())
    }
}

impl Matching {
    /// Matches what can be matched within the present room to lead.
    fn phase(&mut self, flow: &ReplicaFlow<'_>) {
        for orphan in 0..self.rows.len() {
            if self.matched[orphan].0 != NO_NODE {
                continue;
            }
            let neediest = flow
                .members(self.rows[orphan] as usize)
                .filter(|&node| self.has_room(usize::from(node)))
                .max_by_key(|&node| {
                    let node = usize::from(node);
                    (self.lead_room[node] - self.used[node], node)
                });
            if let Some(node) = neediest {
                self.assign(orphan, usize::from(node), false);
            }
        }
        self.candidates = (0..self.lead_room.len() as u16)
            .filter(|&node| {
                self.lead_room[usize::from(node)] > 0 && self.place_room[usize::from(node)] > 0
            })
            .collect();
        let room: u32 = self.lead_room.iter().sum();
        let mut taken: u32 = self.used.iter().sum();
        for orphan in 0..self.rows.len() {
            if taken >= room || self.work > self.work_limit {
                break;
            }
            if self.matched[orphan].0 == NO_NODE {
                self.stamp += 1;
                taken += u32::from(self.seek(flow, orphan, 0));
            }
        }
    }

    fn has_room(&self, node: usize) -> bool {
        self.used[node] < self.lead_room[node]
    }

    fn assign(&mut self, orphan: usize, node: usize, fresh: bool) {
        self.used[node] += 1;
        self.fresh[node] += u32::from(fresh);
        self.matched[orphan] = (node as u16, fresh);
        self.at[node].push(orphan as u32);
    }

    /// Finds a node for the orphan, letting others change theirs if need be.
    fn seek(&mut self, flow: &ReplicaFlow<'_>, orphan: usize, depth: u32) -> bool {
        let row = self.rows[orphan] as usize;
        let survivor = flow
            .members(row)
            .find(|&node| self.has_room(usize::from(node)));
        if let Some(node) = survivor {
            self.assign(orphan, usize::from(node), false);
            return true;
        }
        let count = self.candidates.len();
        let start = match count {
            0 => 0,
            _ => (flow.problem.toss(row as u64, 31) % count as u64) as usize,
        };
        for step in 0..count {
            self.work += 1;
            let node = usize::from(self.candidates[(start + step) % count]);
            if self.has_room(node)
                && self.fresh[node] < self.place_room[node]
                && flow.can_place(row, node)
            {
                self.assign(orphan, node, true);
                return true;
            }
        }
        if depth == DEPTH_MAX || self.work > self.work_limit {
            return false;
        }
        if flow
            .members(row)
            .any(|node| self.displace(flow, orphan, usize::from(node), false, depth))
        {
            return true;
        }
        (0..count).any(|step| {
            let node = usize::from(self.candidates[(start + step) % count]);
            flow.can_place(row, node) && self.displace(flow, orphan, node, true, depth)
        })
    }

    /// Gives the orphan the place of another one at `node`, which finds a new match.
    fn displace(
        &mut self,
        flow: &ReplicaFlow<'_>,
        orphan: usize,
        node: usize,
        fresh: bool,
        depth: u32,
    ) -> bool {
        if self.lead_room[node] == 0 || self.visited[node] == self.stamp {
            return false;
        }
        self.visited[node] = self.stamp;
        for index in 0..self.at[node].len() {
            self.work += 1;
            let other = self.at[node][index];
            let other_fresh = self.matched[other as usize].1;
            if fresh && !other_fresh && self.fresh[node] >= self.place_room[node] {
                continue;
            }
            self.at[node].swap_remove(index);
            self.fresh[node] -= u32::from(other_fresh);
            // `used` still counts the place, so that `other` cannot come straight back.
            if self.seek(flow, other as usize, depth + 1) {
                self.used[node] -= 1;
                self.assign(orphan, node, fresh);
                return true;
            }
            self.fresh[node] += u32::from(other_fresh);
            self.at[node].push(other);
            let last = self.at[node].len() - 1;
            self.at[node].swap(index, last);
        }
        false
    }
}

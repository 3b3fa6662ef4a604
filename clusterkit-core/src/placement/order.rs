//! The order in which a target is reached: steps by urgency, in waves that spare the nodes.
//!
//! A pure function from rows to steps; it starts nothing and waits for nothing. Who executes steps
//! decides when one is complete; several may be under way at once as long as those of one
//! partition stay in order.
//!
//! Invariants of every prefix: the live copies of a row never fall below what they were, or the
//! replicas the target has if that is less; the primary is always a member that holds data; a zone
//! never holds more replicas of a row than before or after. A step counts as one: while it lasts,
//! the row has the node that joins and the one that leaves.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::input::{PlacementInput, Standing};
use super::rows::Rows;

/// Why a step is taken, the most urgent first: what endangers data, what breaks a constraint, what
/// an operator asked for, then balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepKind {
    /// A live member takes over from a primary that is gone. Moves no data.
    Promote,
    /// A row with fewer live copies than it should have gets one more.
    Repair,
    /// A zone holds more replicas of the row than it should: one moves to another zone.
    Respread,
    /// A draining node gives up a replica.
    Evacuate,
    /// A node that has joined since the last complete placement receives part of its share.
    Join,
    /// A replica moves for balance between nodes that were there before.
    Balance,
    /// A member that is in sync takes over as primary.
    Handover,
    /// A member that is not replaced leaves.
    Remove,
}

/// One change of one row: `add` receives a copy; once that is confirmed, `lead` becomes primary;
/// then `drop` leaves. Parts that are `None` are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlanStep {
    /// The partition.
    pub partition: u32,
    /// Why.
    pub kind: StepKind,
    /// The node that receives a copy.
    pub add: Option<u16>,
    /// The node the copy is best read from: one that holds the data and is least busy then.
    /// `None` when nobody is left who does.
    pub from: Option<u16>,
    /// The node that becomes primary.
    pub lead: Option<u16>,
    /// The node that leaves.
    pub drop: Option<u16>,
    /// Steps of one wave may run at the same time without a node copying more than it may.
    pub wave: u32,
}

/// Lists the steps from `input.current` to `target` in the order they should be started.
///
/// `live[node]` says whether a node is reachable now; positions beyond it are not. A wave gives
/// every node at most `per_node` incoming and as many outgoing copies (at least 1).
#[must_use]
pub fn plan_steps(
    input: &PlacementInput,
    target: &Rows,
    live: &[bool],
    per_node: u32,
) -> Vec<PlanStep> {
    let rows = Planner {
        input,
        target,
        live,
        settled: settled(input),
    };
    let mut drafts = Vec::new();
    for partition in 0..target.len() {
        rows.add_steps(partition, &mut drafts);
    }
    sort(&mut drafts);
    rows.lead(&mut drafts);
    colour(&mut drafts, per_node.max(1));
    drafts.into_iter().map(|draft| draft.step).collect()
}

struct Planner<'a> {
    input: &'a PlacementInput,
    target: &'a Rows,
    live: &'a [bool],
    /// Which nodes held anything when the placement was last complete.
    settled: Vec<bool>,
}

/// Returns which nodes the hint names, or the current rows where there is no hint.
fn settled(input: &PlacementInput) -> Vec<bool> {
    let mut settled = vec![false; input.nodes.len()];
    let rows = match input.home.total() {
        0 => &input.current,
        _ => &input.home,
    };
    for partition in 0..rows.len() {
        for node in rows.members(partition) {
            if let Some(settled) = settled.get_mut(usize::from(node)) {
                *settled = true;
            }
        }
    }
    settled
}

/// A step before it is complete: the live copies of its row decide among repairs.
struct Draft {
    step: PlanStep,
    copies: usize,
    /// The nodes the copy could be read from, those to be spared last.
    sources: Vec<u16>,
}

/// A row on its way.
struct Walk {
    holders: Vec<u16>,
    leader: Option<u16>,
}

impl Planner<'_> {
    /// Whether a member of a current row can serve its data.
    fn serves(&self, node: u16) -> bool {
        let at = usize::from(node);
        let record = self.input.nodes.get(at);
        record.is_some_and(|record| record.standing != Standing::Excluded)
            && self.live.get(at).copied().unwrap_or(false)
    }

    fn zone(&self, node: u16) -> &str {
        let record = self.input.nodes.get(usize::from(node));
        match record {
            Some(record) if !self.input.policy.ignore_zones => &record.zone,
            _ => "",
        }
    }

    fn drains(&self, node: u16) -> bool {
        let record = self.input.nodes.get(usize::from(node));
        record.is_some_and(|record| !record.is_eligible())
    }

    /// Tells whether `members` have more nodes in the zone of `node` than the target allows any.
    fn crowds(&self, partition: usize, members: &[u16], node: u16) -> bool {
        let within = |zone: &str, members: &mut dyn Iterator<Item = u16>| {
            members.filter(|&other| self.zone(other) == zone).count()
        };
        let wanted = |zone| within(zone, &mut self.target.members(partition));
        let zones = self.target.members(partition).map(|node| self.zone(node));
        let most = zones.map(wanted).max().unwrap_or(0);
        within(self.zone(node), &mut members.iter().copied()) > most
    }

    /// Drafts the steps of one partition; `lead` of all but promotions is filled in later.
    fn add_steps(&self, partition: usize, drafts: &mut Vec<Draft>) {
        let current = distinct(self.input.current.members(partition));
        let mut adds: Vec<u16> = self.target.members(partition).collect();
        adds.retain(|node| !current.contains(node));
        let mut drops = current.clone();
        drops.retain(|&node| !self.target.contains(partition, node));
        let copies = current.iter().filter(|&&node| self.serves(node)).count();
        let wanted = self.target.members(partition).count();
        let mut draft = |kind, add, lead, drop| {
            let partition = u32::try_from(partition).expect("invariant: partition counts fit u32");
            let step = PlanStep {
                partition,
                kind,
                add,
                from: None,
                lead,
                drop,
                wave: 0,
            };
            drafts.push(Draft {
                step,
                copies,
                sources: Vec::new(),
            });
        };
        let primary = self.input.current.primary(partition);
        if !primary.is_some_and(|node| self.serves(node)) {
            let heir = self.heir(partition, &current);
            if heir.is_some() {
                draft(StepKind::Promote, None, heir, None);
            }
        }
        if wanted == 0 {
            // Nobody may take the data, so whoever has it keeps it.
            return;
        }
        for (add, drop) in self.pair(&adds, &mut drops) {
            let gone = drop.is_none_or(|node| !self.serves(node));
            let kind = if gone || copies < wanted {
                StepKind::Repair
            } else if drop.is_some_and(|node| {
                self.zone(node) != self.zone(add) && self.crowds(partition, &current, node)
            }) {
                StepKind::Respread
            } else if drop.is_some_and(|node| self.drains(node)) {
                StepKind::Evacuate
            } else if !self.settled[usize::from(add)] {
                StepKind::Join
            } else {
                StepKind::Balance
            };
            draft(kind, Some(add), None, drop);
        }
        if self.target.primary(partition) != primary {
            draft(StepKind::Handover, None, None, None);
        }
        for node in drops {
            draft(StepKind::Remove, None, None, Some(node));
        }
    }

    /// Returns who leads a row whose primary is gone: the target's primary, or who stays, or any.
    fn heir(&self, partition: usize, current: &[u16]) -> Option<u16> {
        let able =
            |node: &&u16| self.serves(**node) && self.input.nodes[usize::from(**node)].may_lead;
        let rank = |node: &&u16| {
            (
                self.target.primary(partition) != Some(**node),
                !self.target.contains(partition, **node),
            )
        };
        current.iter().filter(able).min_by_key(rank).copied()
    }

    /// Pairs nodes that join with nodes that leave: within a zone first, then the gone ones, then
    /// in order. What cannot be paired stays in `drops`.
    fn pair(&self, adds: &[u16], drops: &mut Vec<u16>) -> Vec<(u16, Option<u16>)> {
        let mut partner = vec![None; adds.len()];
        for (add, partner) in adds.iter().zip(&mut partner) {
            let same = drops.iter().position(|&n| self.zone(n) == self.zone(*add));
            *partner = same.map(|at| drops.remove(at));
        }
        for partner in partner.iter_mut().filter(|partner| partner.is_none()) {
            let next = (0..drops.len()).min_by_key(|&at| (self.serves(drops[at]), at));
            *partner = next.map(|at| drops.remove(at));
        }
        adds.iter().copied().zip(partner).collect()
    }

    /// Walks the rows through the steps and fills in who leads after each, and who is copied from.
    fn lead(&self, drafts: &mut Vec<Draft>) {
        let mut walks: BTreeMap<u32, Walk> = BTreeMap::new();
        drafts.retain_mut(|draft| {
            let step = &mut draft.step;
            let partition = step.partition as usize;
            let walk = walks.entry(step.partition).or_insert_with(|| {
                let members = distinct(self.input.current.members(partition));
                let holders = members.into_iter().filter(|&node| self.serves(node));
                let primary = self.input.current.primary(partition);
                Walk {
                    holders: holders.collect(),
                    leader: primary.filter(|&node| self.serves(node)),
                }
            });
            if let Some(add) = step.add {
                draft.sources.clone_from(&walk.holders);
                // Who leaves has least else to do, who leads most.
                draft
                    .sources
                    .sort_by_key(|&node| (Some(node) != step.drop, Some(node) == walk.leader));
                walk.holders.push(add);
            }
            if let Some(drop) = step.drop {
                walk.holders.retain(|&node| node != drop);
            }
            match step.kind {
                StepKind::Promote => walk.leader = step.lead,
                StepKind::Handover => {
                    let wanted = self.target.primary(partition);
                    step.lead = wanted.filter(|node| walk.holders.contains(node));
                    if step.lead.is_none() || step.lead == walk.leader {
                        return false;
                    }
                    walk.leader = step.lead;
                }
                _ if step.drop.is_some() && step.drop == walk.leader => {
                    step.lead = self.heir(partition, &walk.holders);
                    walk.leader = step.lead;
                }
                _ => {}
            }
            true
        });
    }
}

/// Sorts by urgency; within a kind, rows with fewest copies first, then destinations in turn.
fn sort(drafts: &mut [Draft]) {
    let copies = |draft: &Draft| match draft.step.kind {
        StepKind::Repair => draft.copies,
        _ => 0,
    };
    drafts.sort_by_key(|draft| (draft.step.kind, copies(draft), draft.step.partition));
    // The wave holds the turn of the destination until the waves are known.
    let mut turns: BTreeMap<(StepKind, usize, Option<u16>), u32> = BTreeMap::new();
    for draft in drafts.iter_mut() {
        let key = (draft.step.kind, copies(draft), draft.step.add);
        let turn = turns.entry(key).or_default();
        *turn += 1;
        draft.step.wave = *turn;
    }
    drafts.sort_by_key(|draft| {
        let step = &draft.step;
        (step.kind, copies(draft), step.wave, step.partition)
    });
}

/// Puts every copy into the first wave in which both of its nodes have room, and every other step
/// into the wave in which its row is ready for it.
fn colour(drafts: &mut [Draft], per_node: u32) {
    let mut incoming: BTreeMap<(u16, u32), u32> = BTreeMap::new();
    let mut outgoing: BTreeMap<(u16, u32), u32> = BTreeMap::new();
    let mut ready: BTreeMap<u32, u32> = BTreeMap::new();
    for draft in drafts {
        let step = &mut draft.step;
        let first = ready.entry(step.partition).or_default();
        let mut wave = *first;
        if let Some(add) = step.add {
            let full = |counts: &BTreeMap<(u16, u32), u32>, node: u16, wave: u32| {
                let count = counts.get(&(node, wave)).copied();
                count.is_some_and(|count| count >= per_node)
            };
            loop {
                let mut sources = draft.sources.iter().copied();
                step.from = sources.find(|&node| !full(&outgoing, node, wave));
                let sendable = step.from.is_some() || draft.sources.is_empty();
                if sendable && !full(&incoming, add, wave) {
                    break;
                }
                wave += 1;
            }
            *incoming.entry((add, wave)).or_default() += 1;
            if let Some(from) = step.from {
                *outgoing.entry((from, wave)).or_default() += 1;
            }
        }
        step.wave = wave;
        *first = wave;
    }
}

fn distinct(members: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut row = Vec::new();
    for node in members {
        if !row.contains(&node) {
            row.push(node);
        }
    }
    row
}

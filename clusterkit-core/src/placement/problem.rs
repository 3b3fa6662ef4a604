//! The input put in order: eligible nodes by id, zones numbered, rows cleaned.
//!
//! Everything behind this file speaks of *ranks*: positions in the list of eligible nodes sorted
//! by id. The order of the input, unknown indices, repeated members and members that must go
//! cannot reach the solver. What the shares are is the business of [`targets`](super::targets).

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::input::{PlacementInput, Standing};
use super::mix::{mix, node_key};
use super::rows::{NO_NODE, Rows};

/// A placement problem in dense form.
#[derive(Debug)]
pub(super) struct Problem<'a> {
    pub(super) input: &'a PlacementInput,
    /// Position in the input of every rank.
    pub(super) position: Vec<u16>,
    /// Rank of every position, [`NO_NODE`] when it is not eligible.
    pub(super) rank: Vec<u16>,
    pub(super) weight: Vec<u32>,
    pub(super) may_lead: Vec<bool>,
    /// A stable random-like key of every rank's id, and the salt mixed into it.
    pub(super) key: Vec<u64>,
    salt: u64,
    /// The zone of every rank. Invariant: below `zones`, and every zone has a node.
    pub(super) zone: Vec<u16>,
    pub(super) zones: usize,
    /// Replicas a row will have: the factor, or fewer when there are fewer nodes.
    pub(super) factor: usize,
    pub(super) partitions: usize,
    /// Partitions to be placed, ascending. The others are frozen.
    pub(super) free: Vec<u32>,
    /// Replicas in frozen rows per rank.
    pub(super) fixed: Vec<u32>,
    /// The current rows in ranks, primary first, without repetition; only eligible members.
    pub(super) held: Rows,
    /// The hint in the same form, empty when there is none.
    pub(super) home: Rows,
}

impl<'a> Problem<'a> {
    /// Puts a validated input in order.
    pub(super) fn new(input: &'a PlacementInput) -> Self {
        let position: Vec<u16> = by_id(input)
            .into_iter()
            .filter(|&at| input.nodes[usize::from(at)].is_eligible())
            .collect();
        let mut rank = vec![NO_NODE; input.nodes.len()];
        for (at, &node) in (0u16..).zip(&position) {
            rank[usize::from(node)] = at;
        }
        let nodes = || position.iter().map(|&at| &input.nodes[usize::from(at)]);
        let (zone, zones) = number_zones(input, &position);
        let partitions = input.partition_count as usize;
        let held = in_ranks(&input.current, &rank, partitions);
        let home = match input.home.is_empty() {
            true => Rows::new(),
            false => in_ranks(&input.home, &rank, partitions),
        };
        let mut fixed = vec![0; position.len()];
        let mut free = Vec::with_capacity(partitions);
        for partition in 0..input.partition_count {
            let index = partition as usize;
            if input.is_frozen(index) {
                for node in held.members(index) {
                    fixed[usize::from(node)] += 1;
                }
            } else {
                free.push(partition);
            }
        }
        Self {
            weight: nodes().map(|node| node.weight).collect(),
            may_lead: nodes().map(|node| node.may_lead).collect(),
            key: keys(input, &position, input.policy.salt),
            salt: input.policy.salt,
            factor: position.len().min(input.replication_factor as usize),
            input,
            rank,
            zone,
            zones,
            partitions,
            free,
            fixed,
            held,
            home,
            position,
        }
    }

    /// Returns the number of eligible nodes.
    pub(super) fn nodes(&self) -> usize {
        self.position.len()
    }

    /// Returns an arbitrary but reproducible number for `a` and `b`.
    pub(super) fn toss(&self, a: u64, b: u64) -> u64 {
        mix(a ^ self.salt, b)
    }

    /// Lets all ties fall anew, in a reproducible way.
    pub(super) fn toss_again(&mut self, attempt: u64) {
        self.salt = mix(self.input.policy.salt, attempt);
        self.key = keys(self.input, &self.position, self.salt);
    }

    /// Returns the frozen primary of `partition` as a position, when the partition is frozen and
    /// the primary still exists.
    pub(super) fn pinned_primary(&self, partition: usize) -> Option<u16> {
        let primary = self.input.current.primary(partition)?;
        let node = self.input.nodes.get(usize::from(primary))?;
        (self.input.is_frozen(partition) && node.standing != Standing::Excluded).then_some(primary)
    }
}

fn keys(input: &PlacementInput, position: &[u16], salt: u64) -> Vec<u64> {
    let id = |&at: &u16| input.nodes[usize::from(at)].id.as_str();
    position
        .iter()
        .map(|at| mix(node_key(id(at)), salt))
        .collect()
}

/// Returns all positions in the order of the ids.
pub(super) fn by_id(input: &PlacementInput) -> Vec<u16> {
    let mut order: Vec<u16> = (0u16..).take(input.nodes.len()).collect();
    order.sort_unstable_by_key(|&at| &input.nodes[usize::from(at)].id);
    order
}

fn number_zones(input: &PlacementInput, position: &[u16]) -> (Vec<u16>, usize) {
    if input.policy.ignore_zones {
        return (vec![0; position.len()], 1);
    }
    let text = |at: &u16| &*input.nodes[usize::from(*at)].zone;
    let mut number: BTreeMap<&str, u16> = position.iter().map(|at| (text(at), 0)).collect();
    for (index, entry) in (0u16..).zip(number.values_mut()) {
        *entry = index;
    }
    let zone = position.iter().map(|at| number[text(at)]).collect();
    (zone, number.len().max(1))
}

/// Translates rows of positions into rows of ranks, dropping what is unknown or repeated.
fn in_ranks(rows: &Rows, rank: &[u16], partitions: usize) -> Rows {
    let mut table = Rows::with_capacity(partitions, rows.total() / partitions.max(1) + 1);
    let mut seen = vec![u32::MAX; rank.len()];
    let mut others = Vec::new();
    for partition in 0..partitions {
        let stamp = u32::try_from(partition).expect("invariant: partition counts fit u32");
        let mut primary = None;
        others.clear();
        for (place, &node) in rows.row(partition).iter().enumerate() {
            let at = rank.get(usize::from(node)).copied().unwrap_or(NO_NODE);
            if at == NO_NODE || seen[usize::from(node)] == stamp {
                continue;
            }
            seen[usize::from(node)] = stamp;
            match place {
                0 => primary = Some(at),
                _ => others.push(at),
            }
        }
        table.push_led(primary, others.iter().copied());
    }
    table
}

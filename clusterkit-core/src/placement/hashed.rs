//! What the stateless strategies share: filling a row from a ranking of the nodes.
//!
//! How nodes are ranked is the business of [`rendezvous`](super::rendezvous) and
//! [`ring`](super::ring).

use alloc::vec;
use alloc::vec::Vec;

use super::answer::{all_rows, describe, present};
use super::input::{PlacementError, PlacementInput};
use super::outcome::Placement;
use super::problem::Problem;
use super::rows::NO_NODE;
use super::stage;
use super::targets::{Targets, targets};

/// Takes members of one row: as many per zone as its bounds allow.
pub(super) struct Picker<'a> {
    problem: &'a Problem<'a>,
    targets: &'a Targets,
    per_zone: Vec<u16>,
    pub(super) row: Vec<u16>,
}

impl<'a> Picker<'a> {
    fn new(problem: &'a Problem<'a>, targets: &'a Targets) -> Self {
        Self {
            problem,
            targets,
            per_zone: vec![0; problem.zones],
            row: Vec::with_capacity(problem.factor),
        }
    }

    fn begin(&mut self) {
        self.per_zone.fill(0);
        self.row.clear();
    }

    /// How many members the zones' lower bounds demand, and how many there are to be in all.
    pub(super) fn wanted(&self) -> [usize; 2] {
        let least = self.targets.zone_least.iter();
        let demanded = least.map(|&least| usize::from(least)).sum();
        [demanded, self.problem.factor]
    }

    /// Whether a node may join: in the first stage up to its zone's least, then up to its most.
    pub(super) fn may_take(&self, stage: usize, node: u16) -> bool {
        let zone = usize::from(self.problem.zone[usize::from(node)]);
        let bounds = [&self.targets.zone_least, &self.targets.zone_most][stage];
        self.per_zone[zone] < bounds[zone] && !self.row.contains(&node)
    }

    pub(super) fn take(&mut self, node: u16) {
        self.per_zone[usize::from(self.problem.zone[usize::from(node)])] += 1;
        self.row.push(node);
    }
}

/// A ranking of the nodes for every partition.
pub(super) trait Ranking {
    /// Adds the best nodes for `partition` to the picker's row until it is full.
    fn pick(&mut self, partition: u32, picker: &mut Picker<'_>);

    /// Sorts the members of a row by their rank for `partition`, the best first.
    fn sort(&mut self, partition: u32, row: &mut [u16]);
}

/// Places every free partition by a ranking; the best member that may lead is primary.
pub(super) fn place<'p, R: Ranking>(
    input: &'p PlacementInput,
    ranking: impl FnOnce(&Problem<'p>) -> R,
) -> Result<Placement, PlacementError> {
    input.validate()?;
    let problem = Problem::new(input);
    let targets = targets(&problem);
    let mut ranking = ranking(&problem);
    let mut picker = Picker::new(&problem, &targets);
    let mut picked = Vec::with_capacity(problem.free.len());
    if problem.factor > 0 {
        for &partition in &problem.free {
            picker.begin();
            ranking.pick(partition, &mut picker);
            picked.push(picker.row.clone());
        }
    }
    let rows = all_rows(&problem, |free, members| {
        members.extend(picked.get(free).into_iter().flatten());
    });
    let mut sorted = Vec::new();
    let chosen: Vec<u16> = (0..input.partition_count)
        .map(|partition| {
            sorted.clear();
            sorted.extend_from_slice(rows.row(partition as usize));
            ranking.sort(partition, &mut sorted);
            let mut leaders = sorted.iter().copied();
            leaders
                .find(|&node| problem.may_lead[usize::from(node)])
                .unwrap_or(NO_NODE)
        })
        .collect();
    let mut placement = Placement::new(input, present(&problem, &rows, &chosen));
    describe(&problem, &targets, &mut placement);
    if let Some(limit) = input.policy.max_moves
        && placement.moves > limit
    {
        placement.stage = Some(stage::towards(input, &placement.rows, limit));
    }
    Ok(placement)
}

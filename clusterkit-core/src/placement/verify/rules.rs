//! What a valid row is, written down independently of the solver.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::VerifyError;
use crate::placement::input::{PlacementInput, Standing};
use crate::placement::rows::Rows;

/// The least and the most of something.
pub(super) type Range = (u32, u32);

/// The rules of one input. Vectors over nodes follow the positions of the input.
pub(super) struct Rules<'a> {
    pub(super) input: &'a PlacementInput,
    /// Replicas every free row must have.
    pub(super) width: u32,
    /// The number of every eligible node's zone; zones are numbered by the order of their text.
    pub(super) zone: Vec<Option<usize>>,
    /// The least and the most replicas of a partition per zone.
    pub(super) zone_range: Vec<Range>,
    pub(super) free: u32,
    /// Replicas in frozen rows per node.
    pub(super) fixed: Vec<u32>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(input: &'a PlacementInput, per_zone: u32) -> Result<Self, VerifyError> {
        let eligible = |at: &usize| input.nodes[*at].is_eligible();
        let positions: Vec<usize> = (0..input.nodes.len()).filter(eligible).collect();
        let text = |at: usize| match input.policy.ignore_zones {
            true => "",
            false => &*input.nodes[at].zone,
        };
        let mut members: BTreeMap<&str, u32> = BTreeMap::new();
        for &at in &positions {
            *members.entry(text(at)).or_default() += 1;
        }
        let number: BTreeMap<&str, usize> = members.keys().copied().zip(0..).collect();
        let mut zone = vec![None; input.nodes.len()];
        for &at in &positions {
            zone[at] = number.get(text(at)).copied();
        }
        let sizes: Vec<u32> = members.into_values().collect();
        let width = input
            .replication_factor
            .min(u32::try_from(positions.len()).unwrap_or(u32::MAX));
        let mut rules = Self {
            input,
            width,
            zone,
            zone_range: zone_range(input, &sizes, width, per_zone)?,
            free: 0,
            fixed: vec![0; input.nodes.len()],
        };
        for partition in 0..input.partition_count as usize {
            if !input.is_frozen(partition) {
                rules.free += 1;
                continue;
            }
            for at in rules.standing_members(partition) {
                rules.fixed[at] += 1;
            }
        }
        Ok(rules)
    }

    /// Returns the distinct members of the current row that exist.
    fn existing_members(&self, partition: usize) -> Vec<u16> {
        let mut members: Vec<u16> = Vec::new();
        for node in self.input.current.members(partition) {
            if usize::from(node) < self.input.nodes.len() && !members.contains(&node) {
                members.push(node);
            }
        }
        members
    }

    fn standing_members(&self, partition: usize) -> Vec<usize> {
        let members = self.existing_members(partition).into_iter();
        members
            .map(usize::from)
            .filter(|&at| self.zone[at].is_some())
            .collect()
    }

    /// Whether the primary of a frozen partition must stay: its node still exists.
    pub(super) fn pinned_primary(&self, partition: usize) -> Option<u16> {
        let primary = self.input.current.primary(partition)?;
        let record = self.input.nodes.get(usize::from(primary))?;
        (self.input.is_frozen(partition) && record.standing != Standing::Excluded)
            .then_some(primary)
    }

    /// Returns the nodes that could lead the row: eligible members that may lead.
    pub(super) fn leaders<'r>(&'r self, row: &'r [u16]) -> impl Iterator<Item = u16> + 'r {
        row.iter().copied().filter(|&node| {
            let at = usize::from(node);
            self.zone.get(at).is_some_and(Option::is_some) && self.input.nodes[at].may_lead
        })
    }

    /// Checks every row by itself.
    pub(super) fn check_rows(&self, rows: &Rows) -> Result<(), VerifyError> {
        let partitions = self.input.partition_count;
        let broken = |partition, rule| Err(VerifyError::Row { partition, rule });
        if rows.len() != partitions as usize {
            return broken(partitions, "there must be one row per partition");
        }
        let mut seen = vec![u32::MAX; self.input.nodes.len()];
        let mut per_zone = vec![0; self.zone_range.len()];
        for partition in 0..partitions {
            let index = partition as usize;
            let row = rows.row(index);
            let primary = rows.primary(index);
            for node in rows.members(index) {
                match seen.get_mut(usize::from(node)) {
                    None => return broken(partition, "a member does not exist"),
                    Some(last) if *last == partition => {
                        return broken(partition, "a member is listed twice");
                    }
                    Some(last) => *last = partition,
                }
            }
            if row
                .iter()
                .skip(1)
                .any(|&node| node == super::super::NO_NODE)
            {
                return broken(partition, "only the primary may be missing");
            }
            if self.input.is_frozen(index) {
                self.check_frozen(partition, rows)?;
                continue;
            }
            let leader = self.leaders(row).any(|node| Some(node) == primary);
            if !leader && (primary.is_some() || self.leaders(row).next().is_some()) {
                return broken(partition, "the primary must be a member that may lead");
            }
            if rows.members(index).count() != self.width as usize {
                return broken(partition, "the number of replicas is wrong");
            }
            per_zone.fill(0);
            for node in rows.members(index) {
                match self.zone[usize::from(node)] {
                    None => return broken(partition, "a member is not eligible"),
                    Some(zone) => per_zone[zone] += 1,
                }
            }
            let within = per_zone
                .iter()
                .zip(&self.zone_range)
                .all(|(&count, &(least, most))| (least..=most).contains(&count));
            if !within {
                return broken(partition, "a zone holds too few or too many replicas");
            }
        }
        Ok(())
    }

    fn check_frozen(&self, partition: u32, rows: &Rows) -> Result<(), VerifyError> {
        let index = partition as usize;
        let mut wanted = self.existing_members(index);
        let mut found: Vec<u16> = rows.members(index).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        let pinned = self.pinned_primary(index);
        if wanted != found || (pinned.is_some() && pinned != rows.primary(index)) {
            return Err(VerifyError::Row {
                partition,
                rule: "the row is frozen and must not change",
            });
        }
        Ok(())
    }

    /// Checks the loads in free partitions against the shares.
    pub(super) fn check_loads(&self, rows: &Rows, shares: &[Range]) -> Result<(), VerifyError> {
        let mut loads = vec![0; self.input.nodes.len()];
        for partition in 0..rows.len() {
            if !self.input.is_frozen(partition) {
                for node in rows.members(partition) {
                    loads[usize::from(node)] += 1;
                }
            }
        }
        for ((node, load), &(floor, ceil)) in (0u16..).zip(loads).zip(shares) {
            if !(floor..=ceil).contains(&load) {
                return Err(VerifyError::Load {
                    node,
                    load,
                    floor,
                    ceil,
                });
            }
        }
        Ok(())
    }
}

/// Checks the cap claimed against the policy and returns the bounds per zone.
fn zone_range(
    input: &PlacementInput,
    sizes: &[u32],
    width: u32,
    per_zone: u32,
) -> Result<Vec<Range>, VerifyError> {
    let room = |cap: u32| -> u64 { sizes.iter().map(|&size| u64::from(size.min(cap))).sum() };
    let mut strictest = 1;
    while room(strictest) < u64::from(width) {
        strictest += 1;
    }
    let policy = &input.policy;
    let as_asked = match (policy.max_per_zone, policy.overload_limit_permille) {
        (Some(most), _) => per_zone == most.max(strictest),
        (None, Some(_)) => per_zone >= strictest,
        (None, None) => per_zone == strictest,
    };
    if !as_asked {
        return Err(VerifyError::ZoneCap { per_zone });
    }
    let range = |&size: &u32| match (sizes.len(), per_zone == strictest) {
        (1, _) => (0, width),
        (_, true) => (size.min(strictest - 1), size.min(per_zone)),
        (_, false) => (0, size.min(per_zone).min(width)),
    };
    Ok(sizes.iter().map(range).collect())
}

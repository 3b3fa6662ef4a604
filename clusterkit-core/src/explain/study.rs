//! Figures of a record that many answers need: loads, leads, shares, before and after.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{ExplainError, PlanRecord};
use crate::id::PartitionId;
use crate::placement::{NodeShare, Rows, Shares, shares};

/// Loads and shares by position in the record's input.
pub(super) struct Study<'a> {
    record: &'a PlanRecord,
    pub(super) shares: Shares,
    /// Replicas held before and after.
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
    /// Partitions led before and after.
    pub(super) led_before: Vec<u32>,
    pub(super) led_after: Vec<u32>,
}

impl<'a> Study<'a> {
    pub(super) fn new(record: &'a PlanRecord) -> Result<Self, ExplainError> {
        let nodes = record.input.nodes.len();
        let (before, led_before) = count(&record.input.current, nodes);
        let (after, led_after) = count(&record.placement.rows, nodes);
        Ok(Self {
            record,
            shares: shares(&record.input).map_err(ExplainError::Input)?,
            before,
            after,
            led_before,
            led_after,
        })
    }

    /// Returns how many nodes hold one replica more than the floor of a share that is not whole.
    pub(super) fn ceil_holders(&self) -> u32 {
        let above = |(share, &load): (&Option<NodeShare>, &u32)| {
            share.is_some_and(|it| it.floor + 1 == it.ceil && load == it.ceil)
        };
        let holders = self.shares.nodes.iter().zip(&self.after);
        u32::try_from(holders.filter(|&it| above(it)).count()).unwrap_or(u32::MAX)
    }

    /// Returns everybody who has or had `partition`: new members first, then former ones.
    pub(super) fn concerned(&self, partition: PartitionId) -> Vec<usize> {
        let at = partition.index();
        let rows = &self.record.placement.rows;
        let mut nodes: Vec<usize> = rows.members(at).map(usize::from).collect();
        for node in self.record.input.current.members(at) {
            let node = usize::from(node);
            if node < self.record.input.nodes.len() && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Returns the zone of the node at `at` and how many members of the row of `partition` in
    /// `rows` are in it.
    pub(super) fn zone_count(&self, rows: &Rows, partition: usize, at: usize) -> (String, u32) {
        let zone = &self.record.input.nodes[at].zone;
        let same = rows.members(partition).filter(|&node| {
            let other = self.record.input.nodes.get(usize::from(node));
            other.is_some_and(|other| other.zone == *zone && other.is_eligible())
        });
        (
            String::from(&**zone),
            u32::try_from(same.count()).unwrap_or(u32::MAX),
        )
    }

    /// Returns how many members of the present row of `partition` still take data.
    pub(super) fn keepable(&self, partition: usize) -> u32 {
        let row = self.record.input.current.members(partition);
        let kept = row.filter(|&node| {
            let node = self.record.input.nodes.get(usize::from(node));
            node.is_some_and(|node| node.is_eligible())
        });
        u32::try_from(kept.count()).unwrap_or(u32::MAX)
    }
}

/// Counts replicas and primaries per node; members beyond `nodes` are ignored.
fn count(rows: &Rows, nodes: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut held, mut led) = (vec![0; nodes], vec![0; nodes]);
    for partition in 0..rows.len() {
        for node in rows.members(partition) {
            if let Some(count) = held.get_mut(usize::from(node)) {
                *count += 1;
            }
        }
        if let Some(primary) = rows.primary(partition)
            && let Some(count) = led.get_mut(usize::from(primary))
        {
            *count += 1;
        }
    }
    (held, led)
}

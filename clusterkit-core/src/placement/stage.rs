//! Staging: the rows to go to when only some of the moves may be made now.
//!
//! Any `k` of the moves from here to the target leave exactly the rest: the target is still within
//! reach, and if fewer than the rest sufficed, fewer than all would have sufficed before.

use alloc::vec::Vec;

use super::input::{PlacementInput, Standing};
use super::rows::Rows;

/// Returns `input.current` after at most `limit` of the moves to `target`.
///
/// Rows with the fewest usable copies come first, then lower partitions. A row is changed as a
/// whole where the limit allows; otherwise some of its members are exchanged. Rows that need no
/// copy at all take their final form at once.
pub(super) fn towards(input: &PlacementInput, target: &Rows, limit: u32) -> Rows {
    let partitions = input.partition_count as usize;
    let usable = |partition: usize| {
        let members = input.current.members(partition);
        members
            .filter(|&node| {
                let record = input.nodes.get(usize::from(node));
                record.is_some_and(|record| record.standing != Standing::Excluded)
            })
            .count()
    };
    let mut order: Vec<(usize, usize)> = (0..partitions)
        .map(|partition| (usable(partition), partition))
        .collect();
    order.sort_unstable();
    let mut allowed = alloc::vec![0usize; partitions];
    let mut left = limit as usize;
    for &(_, partition) in &order {
        let wanted = additions(input, target, partition).count();
        allowed[partition] = wanted.min(left);
        left -= allowed[partition];
    }
    let mut rows = Rows::with_capacity(partitions, input.replication_factor as usize);
    for (partition, &allowed) in allowed.iter().enumerate() {
        let wanted = additions(input, target, partition).count();
        match allowed == wanted {
            true => rows.push(target.row(partition)),
            false => rows.push(&partial(input, target, partition, allowed)),
        }
    }
    rows
}

fn additions<'a>(
    input: &'a PlacementInput,
    target: &'a Rows,
    partition: usize,
) -> impl Iterator<Item = u16> + 'a {
    target
        .members(partition)
        .filter(move |&node| !input.current.contains(partition, node))
}

/// Returns the current row with `allowed` members added, each in exchange for one that leaves, the
/// primary last.
fn partial(input: &PlacementInput, target: &Rows, partition: usize, allowed: usize) -> Vec<u16> {
    let mut row: Vec<u16> = Vec::new();
    for node in input.current.members(partition) {
        let exists = usize::from(node) < input.nodes.len();
        if exists && !row.contains(&node) {
            row.push(node);
        }
    }
    let primary = input.current.primary(partition);
    row.extend(additions(input, target, partition).take(allowed));
    let width = target.members(partition).count();
    while row.len() > width {
        let leaving = row
            .iter()
            .rposition(|&node| !target.contains(partition, node))
            .expect("invariant: a row longer than its target has a member that leaves");
        row.remove(leaving);
    }
    let can_lead = |node: &u16| {
        let record = &input.nodes[usize::from(*node)];
        record.may_lead && record.standing != Standing::Excluded
    };
    let leader = primary
        .into_iter()
        .chain(target.primary(partition))
        .chain(row.iter().copied())
        .find(|node| row.contains(node) && can_lead(node));
    let mut led = Rows::new();
    led.push_led(
        leader,
        row.iter().copied().filter(|&node| Some(node) != leader),
    );
    led.row(0).to_vec()
}

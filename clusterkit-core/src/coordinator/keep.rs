//! Rows that replace nobody who may stay: what a placement comes down to while balance is paused.
//!
//! A strategy places for balance. Where only lost copies are to be made, or a node is to be emptied,
//! its answer says who might take them; everybody else stays, whatever the balance.

use alloc::vec::Vec;

use crate::placement::{Placement, PlacementInput, Rows};

/// Returns `placement` with every member kept that takes data, and missing ones taken from it.
pub(super) fn keep_members(input: &PlacementInput, placement: Placement) -> Placement {
    let count = placement.rows.len();
    let mut rows = Rows::with_capacity(count, input.replication_factor as usize);
    for partition in 0..count {
        if input.is_frozen(partition) || input.current.members(partition).next().is_none() {
            rows.push(placement.rows.row(partition));
        } else {
            push_kept(input, &placement, partition, &mut rows);
        }
    }
    if rows == placement.rows {
        return placement;
    }
    // Its proof is about other rows.
    let mut kept = Placement::new(input, rows);
    kept.flags = placement.flags;
    kept
}

fn push_kept(input: &PlacementInput, placement: &Placement, partition: usize, rows: &mut Rows) {
    let node = |at: u16| input.nodes.get(usize::from(at));
    let width = placement.rows.members(partition).count();
    let stays = |&at: &u16| node(at).is_some_and(|it| it.is_eligible());
    let mut row: Vec<u16> = input.current.members(partition).filter(stays).collect();
    row.truncate(width);
    let mut offered: Vec<u16> = placement.rows.members(partition).collect();
    offered.retain(|at| !row.contains(at));
    while row.len() < width && !offered.is_empty() {
        let zone = |at: u16| node(at).map(|it| &it.zone);
        let crowd = |&at: &u16| row.iter().filter(|&&other| zone(other) == zone(at)).count();
        let least = (0..offered.len()).min_by_key(|&it| crowd(&offered[it]));
        let Some(next) = least else { break };
        row.push(offered.remove(next));
    }
    let may_lead = |at: &u16| node(*at).is_some_and(|it| it.may_lead) && row.contains(at);
    let present = input.current.primary(partition).filter(may_lead);
    // Whoever holds the data can take over before the copy is made; those stand first.
    let holds = |at: &u16| input.current.contains(partition, *at);
    let wanted = placement.rows.primary(partition);
    let wanted = wanted.filter(may_lead).filter(holds);
    let primary = present
        .or(wanted)
        .or_else(|| row.iter().copied().find(may_lead));
    let others = row.iter().copied().filter(|&at| Some(at) != primary);
    rows.push_led(primary, others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::placement::{PlacementNode, Standing};

    /// Returns what becomes of `current` when the strategy wants `wanted`; node 0 is being emptied,
    /// nodes 0 and 1 are in one zone, the others in zones of their own.
    fn check(current: &[u16], wanted: &[u16]) -> Vec<u16> {
        let mut nodes = Vec::new();
        for (at, zone) in ["a", "a", "b", "c", "d"].into_iter().enumerate() {
            let id = NodeId::new(alloc::format!("n{at}")).unwrap();
            nodes.push(PlacementNode::new(id).with_zone(zone));
        }
        nodes[0].standing = Standing::Draining;
        let rows = |row: &[u16]| {
            let mut rows = Rows::new();
            rows.push(row);
            rows
        };
        let input = PlacementInput::new(1, 3, nodes).with_current(rows(current));
        let placement = Placement::new(&input, rows(wanted));
        let kept = keep_members(&input, placement);
        let copies = wanted.len() - current.iter().filter(|&&at| at != 0).count();
        assert_eq!(kept.moves as usize, copies);
        kept.rows.row(0).to_vec()
    }

    #[test]
    fn only_who_must_go_is_replaced_and_the_primary_stays() {
        assert_eq!(check(&[1, 2, 0], &[3, 4, 2]), [1, 2, 3]);
        assert_eq!(check(&[2, 1], &[3, 4, 2]), [2, 1, 3]);
        assert_eq!(check(&[0, 2, 3], &[4, 2, 1]), [2, 3, 4]);
    }

    #[test]
    fn zones_that_hold_nothing_yet_are_filled_first() {
        assert_eq!(check(&[2, 0], &[2, 1, 3]), [2, 1, 3]);
        assert_eq!(check(&[3, 1, 0], &[2, 4, 1]), [3, 1, 2]);
    }
}

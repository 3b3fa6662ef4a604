//! What placement's own checker says about views: are they balanced, and what is the least that
//! must move from one to the other?
//!
//! Asked here, of what real nodes show over HTTP, and not of what they say about their plans.

use anyhow::{Context, ensure};
use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    MinimalMove, Placement, PlacementInput, PlacementNode, PlacementStrategy, Rows, Standing,
    shares, verify,
};

use crate::harness::View;

/// Checks that every node holds and leads exactly its share by weight and zone, and that nothing
/// could be changed for the better.
pub(crate) fn balanced(view: &View) -> anyhow::Result<()> {
    let input = input(view, view)?;
    let shares = shares(&input)?;
    for (id, share) in view.nodes.keys().zip(&shares.nodes) {
        let share = share.unwrap_or_default();
        let check = |what: &str, count: usize, floor: u32, ceil: u32| {
            let fair = (floor as usize..=ceil as usize).contains(&count);
            ensure!(
                fair,
                "not balanced: {id} {what} {count}, should be {floor} to {ceil}"
            );
            Ok(())
        };
        let led = view.primaries_of(id);
        check("holds", led + view.replicas_of(id), share.floor, share.ceil)?;
        check("leads", led, share.lead_floor, share.lead_ceil)?;
    }
    let proven = prove(&input)?;
    ensure!(
        proven.moves == 0 && proven.primary_changes == 0,
        "not balanced: {} copies and {} primaries would be changed",
        proven.moves,
        proven.primary_changes
    );
    Ok(())
}

/// Returns the fewest copies that lead from the rows of `before` to any balanced placement on the
/// nodes of `after`, proven by a certificate that is checked here.
pub(crate) fn minimum(before: &View, after: &View) -> anyhow::Result<usize> {
    Ok(prove(&input(before, after)?)?.moves as usize)
}

fn prove(input: &PlacementInput) -> anyhow::Result<Placement> {
    let placement = MinimalMove::new().place(input)?;
    verify(input, &placement).context("the certificate does not hold")?;
    Ok(placement)
}

/// Returns what placement is told: the nodes of `view`, and the rows of `before` as the present.
fn input(before: &View, view: &View) -> anyhow::Result<PlacementInput> {
    let active = view.active();
    let nodes = view.nodes.iter().map(|(id, row)| {
        let is_active = active.contains(id.as_str());
        let standing = match is_active {
            true => Standing::Eligible,
            false => Standing::Draining,
        };
        let node = PlacementNode::new(NodeId::new(id.as_str())?)
            .with_weight(row.weight)
            .with_zone(row.zone.as_str())
            .with_standing(standing);
        Ok(node.with_may_lead(is_active))
    });
    let nodes: Vec<PlacementNode> = nodes.collect::<anyhow::Result<_>>()?;
    let position = |id: &String| {
        let at = view.nodes.keys().position(|known| known == id)?;
        u16::try_from(at).ok()
    };
    let mut current = Rows::new();
    for row in &before.partitions {
        let primary = row.primary.as_ref().and_then(position);
        current.push_led(primary, row.replicas.iter().filter_map(position));
    }
    let partitions = u32::try_from(view.partitions.len())?;
    let copies = u32::try_from(view.replication_factor)?;
    Ok(PlacementInput::new(partitions, copies, nodes).with_current(current))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::view;

    #[test]
    fn shares_follow_weight() {
        let rows: [&[&str]; 4] = [&["a", "b"], &["b", "a"], &["a", "c"], &["c", "b"]];
        let mut uneven = view(&["a", "b", "c"], &rows);
        let says = |view: &View| balanced(view).map_err(|error| error.to_string());
        assert_eq!(says(&uneven), Ok(()));
        uneven.nodes.get_mut("c").unwrap().weight = 2;
        assert_eq!(
            says(&uneven),
            Err("not balanced: a holds 3, should be 2 to 2".to_owned())
        );
        let fair = view(
            &["a", "b", "c"],
            &[&["a", "c"], &["b", "c"], &["c", "a"], &["c", "b"]],
        );
        assert_eq!(
            minimum(
                &uneven,
                &View {
                    nodes: uneven.nodes.clone(),
                    ..fair
                }
            )
            .unwrap(),
            2
        );
    }

    #[test]
    fn the_minimum_counts_copies_and_not_primaries() {
        let before = view(&["a", "b"], &[&["a", "b"], &["b", "a"], &["a", "b"]]);
        let after = view(&["a", "b", "c"], &[&["a", "b"], &["b", "c"], &["c", "a"]]);
        assert_eq!(minimum(&before, &after).unwrap(), 2);
        assert_eq!(minimum(&after, &after).unwrap(), 0);
        let mut gone = after.clone();
        gone.nodes.remove("c");
        assert_eq!(minimum(&after, &gone).unwrap(), 2);
    }
}

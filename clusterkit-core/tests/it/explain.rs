//! Explanations and previews of many small plans agree with the plans: shares bound the loads,
//! every member has a reason, and counts add up.

use clusterkit_core::command::Command;
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::coordinator::PlanRequest;
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::explain::{Outcome, PlanRecord, Reason};
use clusterkit_core::id::{ClusterId, DiskId, Epoch, LogIndex, NodeId, PartitionId, RaftId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::placement::{
    MinimalMove, PlacementInput, PlacementNode, PlacementStrategy, Rows, Standing, shares,
};
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::UnixMillis;
use proptest::prelude::*;

/// A node by weight, zone, and whether it takes data.
type Spec = (u32, u8, bool);

fn nodes(specs: &[Spec]) -> Vec<PlacementNode> {
    let node = |(at, &(weight, zone, takes)): (usize, &Spec)| {
        let standing = match takes {
            true => Standing::Eligible,
            false => Standing::Draining,
        };
        PlacementNode::new(NodeId::new(format!("n{at}")).unwrap())
            .with_weight(weight)
            .with_zone(format!("z{zone}"))
            .with_standing(standing)
    };
    specs.iter().enumerate().map(node).collect()
}

fn record(input: PlacementInput) -> PlanRecord {
    let placement = MinimalMove::new().place(&input).unwrap();
    let members = (1..).map(RaftId).take(input.nodes.len()).collect();
    let request = PlanRequest {
        input,
        members,
        base: Epoch(3),
        basis: 1,
        trigger: PlanTrigger::Rebalance,
        trigger_node: None,
    };
    let mut state = ClusterState::new();
    let id = NodeId::new("n0").unwrap();
    let bootstrap = Command::Bootstrap {
        cluster: ClusterId::from_bytes([1; 16]),
        config: ClusterConfig::default(),
        node: NodeSpec::new(id, DiskId::from_bytes([1; 16]), "127.0.0.1:1"),
        at: UnixMillis(1),
    };
    state.apply(LogIndex(1), &bootstrap).unwrap();
    PlanRecord::new(&state, &request, placement, "minimal_move", UnixMillis(2))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_agrees_with_what_was_planned(
        before in prop::collection::vec((1u32..5, 0u8..3, any::<bool>()), 1..7),
        after in prop::collection::vec((0u32..5, 0u8..3, prop::bool::weighted(0.8)), 1..7),
        factor in 1u32..4,
        pinned in prop::collection::vec(any::<bool>(), 0..5),
    ) {
        let first = PlacementInput::new(16, factor, nodes(&before));
        let mut current = Rows::new();
        for row in MinimalMove::new().place(&first).unwrap().rows.iter() {
            let known: Vec<u16> = row.iter().copied()
                .filter(|&node| usize::from(node) < after.len()).collect();
            current.push(&known);
        }
        let input = PlacementInput::new(16, factor, nodes(&after))
            .with_current(current)
            .with_frozen(pinned);
        let bounds = shares(&input).unwrap();
        let record = record(input);
        let preview = record.preview().unwrap();
        for (load, share) in preview.nodes.iter().zip(&bounds.nodes) {
            if let Some(share) = share {
                prop_assert!(
                    (share.floor..=share.ceil).contains(&load.replicas_after),
                    "{:?} {:?}", load, share
                );
            }
        }
        let made = preview.transfers.iter().filter(|it| it.to.is_some()).count();
        prop_assert_eq!(made, record.placement.moves as usize);
        if !record.placement.flags.fallback {
            prop_assert_eq!(preview.minimum, Some(preview.moves));
        }
        for partition in (0..16).map(PartitionId) {
            let told = record.explain(Some(partition), None).unwrap();
            let after = record.placement.rows.members(partition.index()).count();
            let there = |outcome| matches!(outcome, Outcome::Kept | Outcome::Added);
            prop_assert_eq!(told.placed.iter().filter(|it| there(it.outcome)).count(), after);
            for node in &record.input.nodes {
                let told = record.explain(Some(partition), Some(&node.id)).unwrap();
                prop_assert!(!told.placed[0].reasons.is_empty(), "{:?}", told);
                for reason in &told.placed[0].reasons {
                    let text = reason.to_string();
                    prop_assert!(text.ends_with('.') && !text.contains("  "), "{}", text);
                    if let Reason::WouldCost { extra, .. } = reason {
                        prop_assert!(*extra > 0 && told.placed[0].outcome == Outcome::Absent);
                    }
                }
            }
        }
    }
}

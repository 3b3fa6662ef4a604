//! Records of small plans and what they answer.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::event::PlanTrigger;
use crate::id::{Epoch, RaftId};
use crate::node::{Drain, NodeStatus};
use crate::placement::{
    MinimalMove, PlacementInput, PlacementNode, PlacementStrategy, Rows, Standing,
};
use crate::time::UnixMillis;

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

const ACTIVE: Condition = Condition {
    status: NodeStatus::Active,
    drain: Drain::No,
    evicted: false,
};

/// A record of the plan for nodes of the names given, each with weight, zone and condition.
fn record(
    partitions: u32,
    factor: u32,
    nodes: &[(&str, u32, &str, Condition)],
    current: Rows,
) -> PlanRecord {
    let known = nodes.iter().map(|(name, weight, zone, condition)| {
        let standing = match condition.cause(*weight) {
            None => Standing::Eligible,
            Some(_) => Standing::Draining,
        };
        PlacementNode::new(id(name))
            .with_weight(*weight)
            .with_zone(*zone)
            .with_standing(standing)
            .with_may_lead(condition.status.is_live())
    });
    let input = PlacementInput::new(partitions, factor, known.collect()).with_current(current);
    let placement = MinimalMove::new().place(&input).unwrap();
    let recorded = (1..).zip(nodes).map(|(member, node)| RecordedNode {
        member: RaftId(member),
        condition: node.3,
    });
    PlanRecord {
        plan: None,
        epoch: Epoch(7),
        basis: 1,
        at: UnixMillis(5),
        trigger: PlanTrigger::NodeJoin,
        trigger_node: None,
        strategy: String::from("minimal_move"),
        input,
        placement,
        nodes: recorded.collect(),
        moving: Vec::new(),
        waiting: Vec::new(),
        paused: Vec::new(),
        moves_in_flight: 4,
        moves_per_node: 2,
    }
}

/// The rows that a first placement over `nodes` gives.
fn placed(partitions: u32, factor: u32, nodes: &[(&str, u32, &str, Condition)]) -> Rows {
    record(partitions, factor, nodes, Rows::new())
        .placement
        .rows
}

fn reasons(record: &PlanRecord, partition: Option<u32>, node: Option<&str>) -> Vec<Reason> {
    let node = node.map(id);
    let answer = record
        .explain(partition.map(PartitionId), node.as_ref())
        .unwrap();
    let placed = answer.placed.into_iter().flat_map(|placed| placed.reasons);
    answer.reasons.into_iter().chain(placed).collect()
}

fn text(record: &PlanRecord, partition: Option<u32>, node: Option<&str>) -> String {
    let node = node.map(id);
    let answer = record.explain(partition.map(PartitionId), node.as_ref());
    answer.unwrap().to_string()
}

const THREE: [(&str, u32, &str, Condition); 3] = [
    ("a", 1, "", ACTIVE),
    ("b", 1, "", ACTIVE),
    ("c", 1, "", ACTIVE),
];

#[test]
fn a_joining_node_is_given_its_share_and_the_others_keep_theirs() {
    let four = [THREE[0], THREE[1], THREE[2], ("d", 1, "", ACTIVE)];
    let record = record(16, 2, &four, placed(16, 2, &THREE));
    assert_eq!(record.placement.moves, 8);
    let told = text(&record, None, Some("d"));
    assert!(
        told.starts_with(
            "d holds 8 of 32 replicas (0 before); with weight 1 of 4 its share is 8.\n\
             d leads 4 partitions (0 before); its share is 4."
        ),
        "{told}"
    );
    let gained: Vec<u32> = (0..16)
        .filter(|&p| record.placement.rows.contains(p as usize, 3))
        .collect();
    let answer = record
        .explain(Some(PartitionId(gained[0])), Some(&id("d")))
        .unwrap();
    assert_eq!(answer.minimum, Some(8));
    assert_eq!(answer.placed[0].outcome, Outcome::Added);
    let below = Reason::BelowShare {
        node: id("d"),
        before: 0,
        floor: 8,
        ceil: 8,
    };
    assert!(answer.placed[0].reasons.contains(&below), "{answer}");
    let stays = (0..16).find(|p| !gained.contains(p)).unwrap();
    let all = record.explain(Some(PartitionId(stays)), None).unwrap();
    assert!(all.placed.iter().all(|it| it.outcome == Outcome::Kept));
    assert!(matches!(
        all.placed[0].reasons[..],
        [Reason::KeptForFree { .. }, ..]
    ));
    let absent = reasons(&record, Some(stays), Some("d"));
    assert!(
        absent.iter().any(|it| matches!(
            it,
            Reason::NodeFull {
                load: 8,
                ceil: 8,
                ..
            }
        )),
        "{absent:?}"
    );
}

#[test]
fn every_cause_of_an_empty_node_is_told_apart() {
    let draining = Condition {
        drain: Drain::Empty,
        status: NodeStatus::Draining,
        ..ACTIVE
    };
    let leaving = Condition {
        drain: Drain::Leave,
        ..draining
    };
    let joining = Condition {
        status: NodeStatus::Joining,
        ..ACTIVE
    };
    let evicted = Condition {
        status: NodeStatus::Down,
        evicted: true,
        ..ACTIVE
    };
    let mut nodes = THREE.to_vec();
    nodes.extend([
        ("d", 1, "", draining),
        ("e", 1, "", leaving),
        ("f", 0, "", ACTIVE),
        ("g", 1, "", joining),
        ("h", 1, "", evicted),
    ]);
    let current: Rows = (0..12u16).map(|p| [p % 3, 3 + p % 5]).collect();
    let record = record(12, 2, &nodes, current);
    for (node, cause) in [
        ("d", Cause::Draining),
        ("e", Cause::Leaving),
        ("f", Cause::WeightZero),
        ("g", Cause::Joining),
        ("h", Cause::Evicted),
    ] {
        let told = reasons(&record, None, Some(node));
        let expected = Reason::TakesNothing {
            node: id(node),
            cause,
        };
        assert_eq!(told, [expected]);
    }
    let told = text(&record, Some(0), Some("d"));
    assert!(
        told.contains("d held a copy of partition 0 and must give it up: it is being drained."),
        "{told}"
    );
    // Whoever takes the copy over is told the same.
    let new = record.placement.rows.row(0)[1];
    let new = record.input.nodes[usize::from(new)].id.clone();
    let told = text(&record, Some(0), Some(new.as_str()));
    assert!(told.contains("must give it up"), "{told}");
}

#[test]
fn zones_caps_and_replica_bounds_name_their_values() {
    let zoned = [
        ("a", 1, "east", ACTIVE),
        ("b", 1, "east", ACTIVE),
        ("c", 1, "west", ACTIVE),
    ];
    let one = record(8, 2, &zoned, Rows::new());
    let told = text(&one, None, Some("a"));
    assert!(
        told.contains(
            "By weight alone a would hold 5 replicas, but zone `east` may hold at most 1 replicas \
             of a partition, shared by its 2 nodes, so its share is 4."
        ),
        "{told}"
    );
    let told = text(&one, None, Some("c"));
    assert!(
        told.contains("the rest falls to it, so its share is 8."),
        "{told}"
    );
    let three = record(8, 3, &zoned, Rows::new());
    let told = reasons(&three, None, Some("a"));
    assert_eq!(
        told[0],
        Reason::ZoneCap {
            zones: 2,
            per_zone: 2
        }
    );
    let heavy = [("a", 20, "", ACTIVE), THREE[1], THREE[2]];
    let told = text(&record(8, 2, &heavy, Rows::new()), None, Some("a"));
    assert!(
        told.contains("By weight alone a would hold 14 replicas, but a node holds a partition at most once, so its share is 8."),
        "{told}"
    );
    let few = record(8, 3, &THREE[..2], Rows::new());
    let told = text(&few, None, None);
    assert!(
        told.starts_with("3 copies of every partition are wanted, but 2 nodes take data"),
        "{told}"
    );
}

#[test]
fn ceil_units_go_to_those_who_held_them() {
    // 16 replicas on 3 nodes: 6, 5, 5.
    let current: Rows = (0..8u16).map(|p| [p % 3, (p + 1) % 3]).collect();
    let record = record(8, 2, &THREE, current);
    assert_eq!(record.placement.moves, 0);
    let ceil = |it: &Reason| {
        matches!(
            it,
            Reason::CeilUnit {
                kept: true,
                holders: 1,
                ceil: 6,
                ..
            }
        )
    };
    let told: Vec<Reason> = reasons(&record, None, None);
    assert_eq!(told.iter().filter(|it| ceil(it)).count(), 1, "{told:?}");
    let floor = |it: &Reason| {
        matches!(
            it,
            Reason::FloorUnit {
                floor: 5,
                holders: 1,
                ..
            }
        )
    };
    assert_eq!(told.iter().filter(|it| floor(it)).count(), 2, "{told:?}");
}

#[test]
fn a_lost_primary_is_replaced_and_the_others_stay() {
    let down = Condition {
        status: NodeStatus::Down,
        ..ACTIVE
    };
    let nodes = [("a", 1, "", down), THREE[1], THREE[2]];
    let current = placed(9, 2, &THREE);
    let led = (0..9)
        .find(|&p| current.primary(p as usize) == Some(0))
        .unwrap();
    let record = record(9, 2, &nodes, current);
    let told = reasons(&record, Some(led), None);
    let orphaned = |it: &Reason| matches!(it, Reason::OrphanedPrimary { old: Some(old), in_sync: true, .. } if *old == "a");
    assert!(told.iter().any(orphaned), "{told:?}");
    let told = reasons(&record, None, Some("a"));
    assert!(told.contains(&Reason::AwaitsReturn { node: id("a") }));
    assert!(told.contains(&Reason::MayNotLead { node: id("a") }));
}

#[test]
fn what_a_copy_elsewhere_would_cost_is_proven() {
    let record = record(16, 2, &THREE, placed(16, 2, &THREE));
    for partition in 0..16 {
        for node in ["a", "b", "c"] {
            for reason in reasons(&record, Some(partition), Some(node)) {
                if let Reason::WouldCost { extra, minimum, .. } = reason {
                    assert_eq!((extra, minimum), (1, 0));
                }
            }
        }
    }
}

#[test]
fn previews_count_what_changes_and_are_named_after_it() {
    let four = [THREE[0], THREE[1], THREE[2], ("d", 1, "", ACTIVE)];
    let record = record(16, 2, &four, placed(16, 2, &THREE));
    let preview = record.preview().unwrap();
    assert_eq!((preview.moves, preview.minimum), (8, Some(8)));
    assert_eq!(preview.transfers.len(), 8);
    assert!(preview.transfers.iter().all(|it| it.to == Some(id("d"))));
    assert_eq!(
        preview.primary_changes.len(),
        record.placement.primary_changes as usize
    );
    assert_eq!(
        preview.to_string(),
        "moves 8, minimum 8; 4 primaries change"
    );
    let load = &preview.nodes[3];
    assert_eq!((load.replicas_before, load.replicas_after), (0, 8));
    assert_eq!((load.replicas_floor, load.replicas_ceil), (8, 8));
    assert_eq!(
        preview.limits,
        [
            Limit::MovesInFlight {
                partitions: 8,
                at_most: 4
            },
            Limit::MovesPerNode {
                node: id("d"),
                copies: 8,
                at_most: 2
            },
        ]
    );
    let text = preview.id.to_string();
    assert!(text.starts_with("7-"), "{text}");
    assert_eq!(text.parse::<PreviewId>().unwrap(), preview.id);
    for bad in [
        "",
        "7",
        "7-x",
        "-0123456789abcdef",
        "7-0123456789abcdeg",
        "x7-0123456789abcdef",
    ] {
        let refused = bad.parse::<PreviewId>().unwrap_err().to_string();
        assert!(refused.contains("must be an id of a preview"), "{refused}");
    }
}

#[test]
fn a_record_survives_storage_and_replay() {
    let record = record(16, 2, &THREE, Rows::new());
    let stored = serde_json::to_string(&record).unwrap();
    let read: PlanRecord = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, record);
    assert_eq!(read.replay(&MinimalMove::new()).unwrap(), record.placement);
    for reason in reasons(&record, Some(3), None) {
        let stored = serde_json::to_string(&reason).unwrap();
        assert!(stored.starts_with("{\"reason\":\""), "{stored}");
        assert_eq!(serde_json::from_str::<Reason>(&stored).unwrap(), reason);
    }
    let binary = bincode::serde::encode_to_vec(&record, bincode::config::standard()).unwrap();
    let (read, _): (PlanRecord, usize) =
        bincode::serde::decode_from_slice(&binary, bincode::config::standard()).unwrap();
    assert_eq!(read, record);
}

#[test]
fn questions_without_an_answer_name_what_was_asked() {
    let record = record(16, 2, &THREE, Rows::new());
    let refused = record.explain(Some(PartitionId(16)), None).unwrap_err();
    assert_eq!(refused.to_string(), "partition is `16`, must be 0 to 15");
    let refused = record.explain(None, Some(&id("z"))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no member was called `z` when the plan was made"
    );
}

#[test]
fn progress_is_told_where_something_moves_or_waits() {
    let mut record = record(16, 2, &THREE, Rows::new());
    record.moving = vec![PartitionId(2)];
    record.waiting = vec![PartitionId(3), PartitionId(5)];
    let told = text(&record, Some(2), None);
    assert!(told.starts_with("Partition 2 is moving now"), "{told}");
    let told = text(&record, Some(5), None);
    assert!(
        told.contains("1 moves are under way (at most 4, and at most 2 per node)"),
        "{told}"
    );
}

//! Inputs for placement tests: the JSON form of the golden file, and short hands.

use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    MinimalMove, PlacementInput, PlacementNode, PlacementPolicy, PlacementStrategy, Rows, Standing,
};
use proptest::prelude::ProptestConfig;
use serde_json::Value;

/// Returns the node id used for number `index`.
pub(crate) fn id(index: usize) -> NodeId {
    NodeId::new(format!("node-{index:05}")).unwrap()
}

/// Reads an input in the form of the golden file.
pub(crate) fn from_json(input: &Value) -> PlacementInput {
    let number = |key: &str| input[key].as_u64().map(|n| u32::try_from(n).unwrap());
    let row = |row: &Value| -> Vec<u16> { serde_json::from_value(row.clone()).unwrap() };
    let rows = |key: &str| -> Rows {
        input[key]
            .as_array()
            .into_iter()
            .flatten()
            .map(row)
            .collect()
    };
    let partitions = number("partitions").unwrap();
    let nodes = input["nodes"].as_array().unwrap().iter().enumerate();
    let nodes = nodes.map(|(at, node)| {
        let standing = match node["state"].as_str().unwrap() {
            "active" => Standing::Eligible,
            "draining" => Standing::Draining,
            _ => Standing::Excluded,
        };
        PlacementNode::new(id(at))
            .with_weight(u32::try_from(node["weight"].as_u64().unwrap()).unwrap())
            .with_zone(node["zone"].to_string())
            .with_standing(standing)
    });
    let mut frozen = vec![];
    if let Some(list) = input["frozen"].as_array() {
        frozen = vec![false; partitions as usize];
        for partition in list {
            frozen[usize::try_from(partition.as_u64().unwrap()).unwrap()] = true;
        }
    }
    let mut policy = PlacementPolicy::default();
    policy.max_per_zone = number("max_per_zone");
    PlacementInput::new(
        partitions,
        number("replication_factor").unwrap(),
        nodes.collect(),
    )
    .with_current(rows("current"))
    .with_home(rows("home"))
    .with_frozen(frozen)
    .with_policy(policy)
}

/// A reproducible source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5DEE_CE66_D123_4567)
    }

    /// Returns a number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = usize::try_from(self.0 >> 33).unwrap();
        high % sides
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    /// Returns `take` of the numbers below `of`, in random order.
    pub(crate) fn pick(&mut self, of: usize, take: usize) -> Vec<u16> {
        let mut all: Vec<u16> = (0..u16::try_from(of).unwrap()).collect();
        let take = take.min(of);
        for at in 0..take {
            let other = at + self.roll(of - at);
            all.swap(at, other);
        }
        all.truncate(take);
        all
    }
}

/// Returns a small random cluster with random, possibly senseless, current rows.
pub(crate) fn random(dice: &mut Dice, nodes_max: usize, partitions_max: usize) -> PlacementInput {
    let partitions = 1 + dice.roll(partitions_max);
    let factor = 1 + dice.roll(4);
    let zones = 1 + [0, 0, 1, 2, 3, 5][dice.roll(6)];
    let weights: &[u32] = [&[1][..], &[1], &[1, 2, 4], &[1, 1, 1, 20], &[0, 3, 5, 7]][dice.roll(5)];
    let count = 1 + dice.roll(nodes_max);
    let nodes: Vec<PlacementNode> = (0..count)
        .map(|at| random_node(dice, at, zones, weights))
        .collect();
    let rows: Rows = match dice.roll(4) {
        0 => Rows::new(),
        1 => (0..partitions).map(|_| dice.pick(count, factor)).collect(),
        2 => (0..partitions)
            .map(|_| {
                let take = dice.roll(factor + 3);
                dice.pick(count, take)
            })
            .collect(),
        _ => {
            // The answer for a cluster of some of the nodes.
            let some = nodes.iter().cloned().map(|node| {
                let gone = dice.chance(15);
                node.with_standing(if gone {
                    Standing::Excluded
                } else {
                    Standing::Eligible
                })
            });
            let before = PlacementInput::new(
                u32::try_from(partitions).unwrap(),
                u32::try_from(factor).unwrap(),
                some.collect(),
            );
            MinimalMove::new().place(&before).unwrap().rows
        }
    };
    PlacementInput::new(
        u32::try_from(partitions).unwrap(),
        u32::try_from(factor).unwrap(),
        nodes,
    )
    .with_current(rows)
}

fn random_node(dice: &mut Dice, at: usize, zones: usize, weights: &[u32]) -> PlacementNode {
    let standing = match dice.roll(12) {
        0 => Standing::Draining,
        1 => Standing::Excluded,
        _ => Standing::Eligible,
    };
    PlacementNode::new(id(at))
        .with_weight(weights[dice.roll(weights.len())])
        .with_zone(format!("zone-{}", dice.roll(zones)))
        .with_standing(standing)
}

/// Freezes some of the partitions.
pub(crate) fn freeze_some(input: PlacementInput, dice: &mut Dice) -> PlacementInput {
    let frozen = (0..input.partition_count)
        .map(|_| dice.chance(20))
        .collect();
    input.with_frozen(frozen)
}

/// Returns the settings of a property: `PLACEMENT_EFFORT=50` tries 50 times as many cases.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let effort = std::env::var("PLACEMENT_EFFORT")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases * effort.unwrap_or(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Returns a cluster of equal nodes in equal zones with three replicas and no rows.
pub(crate) fn even_cluster(partitions: u32, nodes: usize, zones: usize) -> PlacementInput {
    let node = |at| PlacementNode::new(id(at)).with_zone(format!("zone-{}", at % zones));
    PlacementInput::new(partitions, 3, (0..nodes).map(node).collect())
}

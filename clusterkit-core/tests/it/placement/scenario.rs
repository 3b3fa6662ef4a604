//! Inputs for placement tests: the JSON form of the golden file, and short hands.

use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{PlacementInput, PlacementNode, PlacementPolicy, Rows, Standing};
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

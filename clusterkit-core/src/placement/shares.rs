//! Fair shares for people: the bounds every node's load has to meet, and what set them.
//!
//! Says in the caller's terms (positions of the input) what `targets` computes for the solver. Used
//! to explain and to preview; how a placement is checked against its shares is in `verify`, which
//! computes them a second time.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::input::{PlacementError, PlacementInput};
use super::problem::Problem;
use super::targets::targets;

/// What keeps a node from its plain share by weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ShareBound {
    /// Nothing: its share is what its weight gives it.
    #[default]
    Weight,
    /// A node holds a partition at most once: the share ends at one replica of each partition.
    OnePerPartition,
    /// The zone must hold a replica of every partition, so its nodes hold more.
    ZoneLeast,
    /// The zone may hold so many replicas of a partition and no more, so its nodes hold less.
    ZoneMost,
    /// Other nodes are held below their share, and the rest falls to this one.
    RestOfOthers,
    /// Other nodes must hold more than their share, so less is left for this one.
    LeftByOthers,
}

/// The share of one node. All counts are replicas or partitions of the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeShare {
    /// The least replicas it should hold.
    pub floor: u32,
    /// The most replicas it should hold.
    pub ceil: u32,
    /// The replicas it holds in pinned partitions, part of `floor` and `ceil`.
    pub pinned: u32,
    /// The floor of its plain share by weight: `replicas * weight / weights`.
    pub by_weight: u32,
    /// What keeps it from that share.
    pub bound: ShareBound,
    /// The least partitions it should lead.
    pub lead_floor: u32,
    /// The most partitions it should lead.
    pub lead_ceil: u32,
    /// The nodes of its zone that take a share, itself included.
    pub zone_nodes: u32,
    /// The least replicas of a partition its zone must hold.
    pub zone_least: u32,
    /// The most replicas of a partition its zone may hold.
    pub zone_most: u32,
}

/// The shares of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shares {
    /// Per position in [`PlacementInput::nodes`]; none for a node that takes no share.
    pub nodes: Vec<Option<NodeShare>>,
    /// The replicas every partition has: the factor, or fewer when there are fewer nodes.
    pub factor: u32,
    /// The replicas of all partitions together.
    pub replicas: u64,
    /// The weights of all nodes that take a share, together.
    pub weights: u64,
    /// The number of zones with a node that takes a share.
    pub zones: u32,
    /// How many replicas of a partition one zone may hold.
    pub per_zone: u32,
}

/// Computes what every node should hold and lead.
///
/// # Errors
/// [`PlacementError`] when the input is beyond a limit.
pub fn shares(input: &PlacementInput) -> Result<Shares, PlacementError> {
    input.validate()?;
    let problem = Problem::new(input);
    let targets = targets(&problem);
    let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let weights: u64 = problem.weight.iter().map(|&weight| u64::from(weight)).sum();
    let replicas = problem.partitions as u64 * problem.factor as u64;
    let mut zone_nodes = alloc::vec![0u32; problem.zones];
    for &zone in &problem.zone {
        zone_nodes[usize::from(zone)] += 1;
    }
    let mut nodes = alloc::vec![None; input.nodes.len()];
    for rank in 0..problem.nodes() {
        if problem.factor == 0 {
            break;
        }
        let zone = usize::from(problem.zone[rank]);
        let (fixed, cap) = (problem.fixed[rank], small(problem.free.len()));
        let weight = u128::from(problem.weight[rank]);
        let plain = u128::from(replicas) * weight;
        let by_weight = plain / u128::from(weights.max(1));
        let (common, own) = (targets.level, targets.zone_level[zone]);
        let (mine, all) = (own.0 * common.1, common.0 * own.1);
        // The share itself, with what is pinned, against the plain share, as products.
        let risen = (weight * own.0).max(u128::from(fixed) * own.1);
        let share = risen.min((u128::from(fixed) + u128::from(cap)) * own.1);
        let (actual, fair) = (share * u128::from(weights), plain * own.1);
        let bound = if targets.floor[rank] == cap && risen > share {
            ShareBound::OnePerPartition
        } else if mine > all {
            ShareBound::ZoneLeast
        } else if mine < all {
            ShareBound::ZoneMost
        } else if actual > fair {
            ShareBound::RestOfOthers
        } else if actual < fair {
            ShareBound::LeftByOthers
        } else {
            ShareBound::Weight
        };
        nodes[usize::from(problem.position[rank])] = Some(NodeShare {
            floor: fixed + targets.floor[rank],
            ceil: fixed + targets.ceil[rank],
            pinned: fixed,
            by_weight: u32::try_from(by_weight).unwrap_or(u32::MAX),
            bound,
            lead_floor: targets.lead_floor[rank],
            lead_ceil: targets.lead_ceil[rank],
            zone_nodes: zone_nodes[zone],
            zone_least: u32::from(targets.zone_least[zone]),
            zone_most: u32::from(targets.zone_most[zone]),
        });
    }
    Ok(Shares {
        nodes,
        factor: small(problem.factor),
        replicas,
        weights,
        zones: match problem.nodes() {
            0 => 0,
            _ => small(problem.zones),
        },
        per_zone: targets.per_zone,
    })
}

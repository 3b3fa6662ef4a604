//! [`Reason`]: one cause of a placement, with the values that made it one.
//!
//! Programs match on the variant; the text is for people and names the same values. Which reasons
//! apply is found in `pair.rs` and `record.rs`.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use crate::id::{NodeId, PartitionId};
use crate::pause::Work;
use crate::placement::ShareBound;

/// One cause of a placement. In JSON `reason` names it and the values stand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as the text names them")]
pub enum Reason {
    /// The node takes no data at all.
    TakesNothing { node: NodeId, cause: Cause },
    /// The node is down, and its place is kept until the repair delay ends.
    AwaitsReturn { node: NodeId },
    /// What the node should hold by its weight, and what it holds.
    Share {
        node: NodeId,
        weight: u32,
        weights: u64,
        replicas: u64,
        before: u32,
        after: u32,
        floor: u32,
        ceil: u32,
    },
    /// The shares are not whole numbers; this node holds one replica more than its floor.
    CeilUnit {
        node: NodeId,
        ceil: u32,
        holders: u32,
        kept: bool,
    },
    /// The shares are not whole numbers; this node holds its floor.
    FloorUnit {
        node: NodeId,
        floor: u32,
        holders: u32,
    },
    /// Something else than its weight sets the node's share.
    BoundShare {
        node: NodeId,
        by_weight: u32,
        floor: u32,
        ceil: u32,
        bound: ShareBound,
        zone: alloc::string::String,
        zone_nodes: u32,
        zone_least: u32,
        zone_most: u32,
    },
    /// Loads may stray from the share by so many permille.
    Tolerance { permille: u32 },
    /// Pinned partitions stay where they are, whatever the balance.
    Pinned { node: NodeId, partitions: u32 },
    /// How many partitions the node leads, and should.
    Leads {
        node: NodeId,
        before: u32,
        after: u32,
        floor: u32,
        ceil: u32,
    },
    /// The node may lead nothing now.
    MayNotLead { node: NodeId },
    /// Fewer nodes take data than copies are wanted.
    UnderReplicated { wanted: u32, nodes: u32 },
    /// There are fewer zones than copies, so zones hold several copies of a partition.
    ZoneCap { zones: u32, per_zone: u32 },
    /// The rows are the systematic layout: valid and balanced, but not the fewest moves.
    Fallback,
    /// The copy was there, and keeping it costs nothing.
    KeptForFree {
        partition: PartitionId,
        node: NodeId,
        load: u32,
        floor: u32,
        ceil: u32,
    },
    /// The row is pinned.
    PinnedRow { partition: PartitionId },
    /// The partition was placed for the first time.
    FirstPlacement { partition: PartitionId },
    /// The row had fewer copies than wanted.
    MissingCopy {
        partition: PartitionId,
        had: u32,
        wanted: u32,
    },
    /// The row had more copies than wanted.
    SurplusCopy {
        partition: PartitionId,
        had: u32,
        wanted: u32,
    },
    /// A member that held a copy takes no data any more.
    MemberMustGo {
        partition: PartitionId,
        gone: NodeId,
        cause: Cause,
    },
    /// The node held fewer replicas than its share.
    BelowShare {
        node: NodeId,
        before: u32,
        floor: u32,
        ceil: u32,
    },
    /// The node held fewer replicas than its share allows.
    RoomLeft {
        node: NodeId,
        before: u32,
        ceil: u32,
    },
    /// The node held more replicas than its share.
    AboveShare {
        node: NodeId,
        before: u32,
        floor: u32,
        ceil: u32,
    },
    /// The zone held more copies of the partition than it may.
    ZoneCrowded {
        partition: PartitionId,
        zone: alloc::string::String,
        had: u32,
        most: u32,
    },
    /// The zone held fewer copies of the partition than it must.
    ZoneMissing {
        partition: PartitionId,
        zone: alloc::string::String,
        had: u32,
        least: u32,
    },
    /// The move is a link of a shortest chain: it makes room for others.
    Chain {
        partition: PartitionId,
        node: NodeId,
        moves: u32,
    },
    /// The row has all its copies already, and one here would be a copy for nothing.
    RowComplete { partition: PartitionId, copies: u32 },
    /// The node holds as many replicas as its share allows.
    NodeFull { node: NodeId, load: u32, ceil: u32 },
    /// The zone holds as many copies of the partition as it may.
    ZoneFull {
        partition: PartitionId,
        zone: alloc::string::String,
        holds: u32,
        most: u32,
    },
    /// The certificate proves that a copy here would make the whole plan more expensive.
    WouldCost {
        partition: PartitionId,
        node: NodeId,
        extra: u32,
        minimum: u32,
    },
    /// A copy here would have been possible at the same cost; the tie was broken reproducibly.
    Tie {
        partition: PartitionId,
        node: NodeId,
    },
    /// The primary stays.
    PrimaryKept {
        partition: PartitionId,
        node: NodeId,
    },
    /// The former primary is no member of the new row, or may not lead.
    OrphanedPrimary {
        partition: PartitionId,
        old: Option<NodeId>,
        new: NodeId,
        in_sync: bool,
    },
    /// The primary moves between members to balance how many partitions each leads.
    PrimaryBalance {
        partition: PartitionId,
        old: NodeId,
        old_led: u32,
        old_ceil: u32,
        new: NodeId,
        new_led: u32,
        new_floor: u32,
    },
    /// No member of the row may lead.
    Leaderless { partition: PartitionId },
    /// The move is under way: the present members serve until the copy is complete.
    InFlight { partition: PartitionId },
    /// Moving the partition would be work that an operator has paused.
    Paused { partition: PartitionId, work: Work },
    /// An operator has paused this work, so that so many partitions stay as they are.
    WorkPaused { work: Work, partitions: u32 },
    /// The plan in force moves the partition, but not yet.
    Waiting {
        partition: PartitionId,
        in_flight: u32,
        in_flight_limit: u32,
        per_node_limit: u32,
    },
}

impl fmt::Display for Reason {
    #[allow(
        clippy::too_many_lines,
        reason = "one sentence per reason, side by side, so that they read alike"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakesNothing { node, cause } => {
                write!(f, "{node} takes no data: {cause}.")
            }
            Self::AwaitsReturn { node } => write!(
                f,
                "{node} is down, and its place is kept until the repair delay ends, so that a \
                 restart copies nothing."
            ),
            Self::Share {
                node,
                weight,
                weights,
                replicas,
                before,
                after,
                floor,
                ceil,
            } => {
                write!(f, "{node} holds {after} of {replicas} replicas")?;
                if before != after {
                    write!(f, " ({before} before)")?;
                }
                write!(f, "; with weight {weight} of {weights} its share is ")?;
                range(f, *floor, *ceil)?;
                f.write_str(".")
            }
            Self::CeilUnit {
                node,
                ceil,
                holders,
                kept,
            } => {
                write!(
                    f,
                    "The shares are not whole numbers, so {holders} nodes hold one replica more \
                     than their floor; {node} is one of them with {ceil}"
                )?;
                f.write_str(match kept {
                    true => ", because it held that many before and keeping a copy costs nothing.",
                    false => ".",
                })
            }
            Self::FloorUnit {
                node,
                floor,
                holders,
            } => write!(
                f,
                "The shares are not whole numbers; {node} holds its floor of {floor}, and {holders} \
                 other nodes hold one more than theirs."
            ),
            Self::BoundShare {
                node,
                by_weight,
                floor,
                ceil,
                bound,
                zone,
                zone_nodes,
                zone_least,
                zone_most,
            } => {
                write!(
                    f,
                    "By weight alone {node} would hold {by_weight} replicas, but "
                )?;
                match bound {
                    ShareBound::OnePerPartition => {
                        f.write_str("a node holds a partition at most once")?;
                    }
                    ShareBound::ZoneLeast => write!(
                        f,
                        "zone `{zone}` must hold at least {zone_least} replicas of every partition \
                         and has {zone_nodes} nodes to hold them"
                    )?,
                    ShareBound::ZoneMost => write!(
                        f,
                        "zone `{zone}` may hold at most {zone_most} replicas of a partition, shared \
                         by its {zone_nodes} nodes"
                    )?,
                    ShareBound::RestOfOthers => {
                        f.write_str(
                            "other nodes cannot take their share, and the rest falls to it",
                        )?;
                    }
                    ShareBound::LeftByOthers => {
                        f.write_str("other nodes must take more than their share")?;
                    }
                    ShareBound::Weight => f.write_str("that is not a whole number")?,
                }
                f.write_str(", so its share is ")?;
                range(f, *floor, *ceil)?;
                f.write_str(".")
            }
            Self::Tolerance { permille } => write!(
                f,
                "Loads may stray from the share by {permille} permille, so that fewer copies are \
                 made."
            ),
            Self::Pinned { node, partitions } => write!(
                f,
                "{partitions} pinned partitions stay on {node}, whatever the balance."
            ),
            Self::Leads {
                node,
                before,
                after,
                floor,
                ceil,
            } => {
                write!(f, "{node} leads {after} partitions")?;
                if before != after {
                    write!(f, " ({before} before)")?;
                }
                f.write_str("; its share is ")?;
                range(f, *floor, *ceil)?;
                f.write_str(".")
            }
            Self::MayNotLead { node } => {
                write!(f, "{node} is not up, so it may lead no partition.")
            }
            Self::UnderReplicated { wanted, nodes } => write!(
                f,
                "{wanted} copies of every partition are wanted, but {nodes} nodes take data, so \
                 every partition has {nodes}."
            ),
            Self::ZoneCap { zones, per_zone } => write!(
                f,
                "There are {zones} zones, fewer than the copies wanted, so one zone holds up to \
                 {per_zone} copies of a partition."
            ),
            Self::Fallback => f.write_str(
                "The placement is the systematic layout, which is valid and balanced but may copy \
                 more than needed: the search gave up or its result was refuted.",
            ),
            Self::KeptForFree {
                partition,
                node,
                load,
                floor,
                ceil,
            } => {
                write!(
                    f,
                    "{node} held partition {partition} already, and keeping a copy costs nothing; \
                     its load of {load} is within its share of "
                )?;
                range(f, *floor, *ceil)?;
                f.write_str(".")
            }
            Self::PinnedRow { partition } => write!(
                f,
                "Partition {partition} is pinned: its members and its primary stay."
            ),
            Self::FirstPlacement { partition } => write!(
                f,
                "Partition {partition} had no members and was placed for the first time."
            ),
            Self::MissingCopy {
                partition,
                had,
                wanted,
            } => write!(
                f,
                "Partition {partition} had {had} copies on nodes that take data, and {wanted} are \
                 wanted."
            ),
            Self::SurplusCopy {
                partition,
                had,
                wanted,
            } => write!(
                f,
                "Partition {partition} had {had} copies, and {wanted} are wanted."
            ),
            Self::MemberMustGo {
                partition,
                gone,
                cause,
            } => write!(
                f,
                "{gone} held a copy of partition {partition} and must give it up: {cause}."
            ),
            Self::BelowShare {
                node,
                before,
                floor,
                ceil,
            } => {
                write!(f, "{node} held {before} replicas, and its share is ")?;
                range(f, *floor, *ceil)?;
                f.write_str(", so it had to be given some.")
            }
            Self::RoomLeft { node, before, ceil } => write!(
                f,
                "{node} held {before} replicas, and its share allows {ceil}, so it had room."
            ),
            Self::AboveShare {
                node,
                before,
                floor,
                ceil,
            } => {
                write!(f, "{node} held {before} replicas, and its share is ")?;
                range(f, *floor, *ceil)?;
                f.write_str(", so it had to give some up.")
            }
            Self::ZoneCrowded {
                partition,
                zone,
                had,
                most,
            } => write!(
                f,
                "Zone `{zone}` held {had} copies of partition {partition} and may hold {most}."
            ),
            Self::ZoneMissing {
                partition,
                zone,
                had,
                least,
            } => write!(
                f,
                "Zone `{zone}` held {had} copies of partition {partition} and must hold {least}."
            ),
            Self::Chain {
                partition,
                node,
                moves,
            } => write!(
                f,
                "Moving partition {partition} at {node} is a link of a chain that makes room \
                 elsewhere: within the shares and zones, no placement needs fewer than {moves} \
                 copies in all."
            ),
            Self::RowComplete { partition, copies } => write!(
                f,
                "Partition {partition} has its {copies} copies, all of which it had before: one \
                 more, or another one, would be a copy without need."
            ),
            Self::NodeFull { node, load, ceil } => write!(
                f,
                "{node} holds {load} replicas, and its share ends at {ceil}."
            ),
            Self::ZoneFull {
                partition,
                zone,
                holds,
                most,
            } => write!(
                f,
                "Zone `{zone}` holds {holds} copies of partition {partition} and may hold {most}."
            ),
            Self::WouldCost {
                partition,
                node,
                extra,
                minimum,
            } => write!(
                f,
                "With partition {partition} on {node}, any balanced placement would copy at least \
                 {extra} more than the {minimum} replicas of this plan; the certificate proves it."
            ),
            Self::Tie { partition, node } => write!(
                f,
                "The certificate does not rule out partition {partition} on {node} at the same \
                 cost; between equal placements a fixed tie-break chooses."
            ),
            Self::PrimaryKept { partition, node } => write!(
                f,
                "{node} led partition {partition} already, and keeping a primary costs nothing."
            ),
            Self::OrphanedPrimary {
                partition,
                old,
                new,
                in_sync,
            } => {
                match old {
                    Some(old) => write!(
                        f,
                        "The primary of partition {partition}, {old}, cannot lead it any more"
                    )?,
                    None => write!(f, "Partition {partition} had no primary")?,
                }
                write!(f, ", so {new} leads it")?;
                f.write_str(match in_sync {
                    true => "; it held a copy already.",
                    false => " once its copy is complete.",
                })
            }
            Self::PrimaryBalance {
                partition,
                old,
                old_led,
                old_ceil,
                new,
                new_led,
                new_floor,
            } => write!(
                f,
                "Partition {partition} is led by {new} instead of {old} to balance the primaries: \
                 {old} led {old_led} (at most {old_ceil} are its share), {new} led {new_led} (at \
                 least {new_floor} are its share)."
            ),
            Self::Leaderless { partition } => {
                write!(f, "No member of partition {partition} may lead it now.")
            }
            Self::InFlight { partition } => write!(
                f,
                "Partition {partition} is moving now: its present members serve until the copy is \
                 complete."
            ),
            Self::Paused { partition, work } => write!(
                f,
                "Partition {partition} stays as it is: moving it would be {work}, which an \
                 operator has paused."
            ),
            Self::WorkPaused { work, partitions } => write!(
                f,
                "An operator has paused {work}: {partitions} partitions stay as they are."
            ),
            Self::Waiting {
                partition,
                in_flight,
                in_flight_limit,
                per_node_limit,
            } => write!(
                f,
                "The plan in force moves partition {partition}, but not yet: {in_flight} moves are \
                 under way (at most {in_flight_limit}, and at most {per_node_limit} per node)."
            ),
        }
    }
}

fn range(f: &mut fmt::Formatter<'_>, floor: u32, ceil: u32) -> fmt::Result {
    match floor == ceil {
        true => write!(f, "{floor}"),
        false => write!(f, "{floor} to {ceil}"),
    }
}

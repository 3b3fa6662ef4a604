//! [`may_stop`]: whether nodes may be stopped together, and what would be lost where they may not.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, PartitionId, RaftId};
use crate::state::ClusterState;

/// How many partitions the text of a risk names.
const NAMED_MAX: usize = 8;

/// Whether nodes may be stopped together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MayStop {
    /// The epoch the answer was made from.
    pub epoch: Epoch,
    /// What speaks against it, the worst first; empty when nothing does.
    pub risks: Vec<StopRisk>,
}

impl MayStop {
    /// Tells whether nothing speaks against it.
    #[must_use]
    pub const fn is_yes(&self) -> bool {
        self.risks.is_empty()
    }
}

impl fmt::Display for MayStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.risks.split_first() else {
            return f.pad("nothing speaks against it");
        };
        write!(f, "{first}")?;
        others.iter().try_for_each(|risk| write!(f, "; {risk}"))
    }
}

/// What would be lost if nodes were stopped together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "risk", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopRisk {
    /// No live node would be left that has all the data of these partitions: nobody could serve them.
    NoCopy {
        /// Which, in order.
        partitions: Vec<PartitionId>,
    },
    /// Fewer copies of these partitions would be live and in sync than must be; repair would begin at
    /// once.
    BelowMinInSync {
        /// Which, in order.
        partitions: Vec<PartitionId>,
        /// How many there must be.
        min_in_sync: u32,
    },
    /// The log would lose its majority: nothing could be changed, no failover included.
    NoMajority {
        /// How many members vote.
        voters: u32,
        /// How many of those would still be live.
        live: u32,
        /// How many it takes.
        needed: u32,
    },
}

impl fmt::Display for StopRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCopy { partitions } => {
                write!(f, "no live copy would be left of {}", Named(partitions))
            }
            Self::BelowMinInSync {
                partitions,
                min_in_sync,
            } => write!(
                f,
                "fewer than {min_in_sync} live copies in sync would be left of {}",
                Named(partitions)
            ),
            Self::NoMajority {
                voters,
                live,
                needed,
            } => write!(
                f,
                "{live} of {voters} voters would be left, the log needs {needed}"
            ),
        }
    }
}

/// Says how many partitions there are, and which the first of them are.
pub(crate) struct Named<'a>(pub(crate) &'a [PartitionId]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} partition{many} (", self.0.len())?;
        for (at, partition) in self.0.iter().take(NAMED_MAX).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{partition}")?;
        }
        let more = self.0.len() > NAMED_MAX;
        f.write_str(if more { ", ..)" } else { ")" })
    }
}

/// A node was named that is no member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no member is called `{node}`")]
#[non_exhaustive]
pub struct UnknownMember {
    /// What was named.
    pub node: NodeId,
}

/// Returns whether `nodes` may be stopped together as `state` stands, where `voters` are the members
/// that vote in the log; none where that is not known.
///
/// Only what stopping them would make worse counts: what is lost already, or short of copies without
/// them, does not speak against it.
///
/// # Errors
/// [`UnknownMember`] naming the first of `nodes` that is no member.
pub fn may_stop(
    state: &ClusterState,
    nodes: &[NodeId],
    voters: &[RaftId],
) -> Result<MayStop, UnknownMember> {
    let mut stopped: Vec<RaftId> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let known = state.node_by_id(node.as_str());
        let known = known.ok_or_else(|| UnknownMember { node: node.clone() })?;
        stopped.push(known.raft_id);
    }
    let min_in_sync = state.config().min_in_sync;
    let (mut lost, mut short) = (Vec::new(), Vec::new());
    for (id, partition) in state.partitions_by_id() {
        let in_sync = || partition.in_sync().filter(|&node| state.is_live(node));
        if !in_sync().any(|node| stopped.contains(&node)) {
            continue;
        }
        match in_sync().filter(|node| !stopped.contains(node)).count() {
            0 => lost.push(id),
            left if left < min_in_sync as usize => short.push(id),
            _ => {}
        }
    }
    let mut risks = Vec::new();
    if !lost.is_empty() {
        risks.push(StopRisk::NoCopy { partitions: lost });
    }
    let votes = voters
        .iter()
        .any(|voter| stopped.contains(voter) && state.is_live(*voter));
    let left = |voter: &&RaftId| state.is_live(**voter) && !stopped.contains(voter);
    let (live, needed) = (voters.iter().filter(left).count(), voters.len() / 2 + 1);
    if votes && live < needed {
        let [voters, live, needed] =
            [voters.len(), live, needed].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
        risks.push(StopRisk::NoMajority {
            voters,
            live,
            needed,
        });
    }
    if !short.is_empty() {
        risks.push(StopRisk::BelowMinInSync {
            partitions: short,
            min_in_sync,
        });
    }
    Ok(MayStop {
        epoch: state.epoch(),
        risks,
    })
}

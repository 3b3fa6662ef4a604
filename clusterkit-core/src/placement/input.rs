//! What a placement is computed from: nodes, policy, the rows as they are.
//!
//! A plain value: whoever plans builds it from the cluster state. What comes out is in
//! [`outcome`](super::outcome), the rules that bind it in [`targets`](super).

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::rows::Rows;
use crate::config::PARTITIONS_MAX;
use crate::id::NodeId;

/// The most nodes a placement can be asked for.
pub const PLACEMENT_NODES_MAX: usize = 65_534;
/// The largest replication factor a placement can be asked for.
pub const PLACEMENT_FACTOR_MAX: u32 = 64;
/// The most indices a table of rows may hold (current rows and hint alike).
pub const PLACEMENT_INDICES_MAX: usize = 1 << 24;
/// The largest tolerance: all balance given up.
pub const TOLERANCE_PERMILLE_MAX: u32 = 1_000;

/// Whether a node may be given replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Standing {
    /// It takes its share.
    #[default]
    Eligible,
    /// It is to be emptied: it receives nothing, but still serves as a source of copies and leads
    /// what it led until those moves are complete.
    Draining,
    /// It is gone, and its data with it.
    Excluded,
}

/// A node as the placement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacementNode {
    /// The node's id: the tie-break, so that the order of the list never matters.
    pub id: NodeId,
    /// The share relative to other nodes. 0 is the same as [`Standing::Draining`].
    pub weight: u32,
    /// The failure domain. Nodes of equal text are in one zone, the empty text included.
    pub zone: Arc<str>,
    /// Whether it may be given replicas.
    pub standing: Standing,
    /// Whether it may be primary. Default true.
    pub may_lead: bool,
}

impl PlacementNode {
    /// Returns an eligible node of weight 1 without a zone.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            weight: 1,
            zone: Arc::from(""),
            standing: Standing::Eligible,
            may_lead: true,
        }
    }

    /// Sets the weight.
    #[must_use]
    pub const fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the zone.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Sets the standing.
    #[must_use]
    pub const fn with_standing(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    /// Sets whether it may be primary.
    #[must_use]
    pub const fn with_may_lead(mut self, may_lead: bool) -> Self {
        self.may_lead = may_lead;
        self
    }

    /// Returns whether the node takes a share of the replicas.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.standing == Standing::Eligible && self.weight > 0
    }
}

/// The operator's wishes. The default is the strictest balance and spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacementPolicy {
    /// Treats all nodes as one zone.
    pub ignore_zones: bool,
    /// How many replicas of a partition one zone may hold. Default: as few as the zones allow.
    /// A smaller value than that is raised to it; a larger one trades spread for balance.
    pub max_per_zone: Option<u32>,
    /// How far the load of a node may exceed its share by weight because of the zones, in permille
    /// of that share (1,500: half more). The cap per zone is raised until no node exceeds it, or
    /// raising it no longer helps. Default: no limit. Ignored when `max_per_zone` is set.
    pub overload_limit_permille: Option<u32>,
    /// How far loads may stray from the fair share, in permille of it, 0 to 1,000. Movement is
    /// minimal within the wider band. Default 0; 50 suits weights that are measured.
    pub tolerance_permille: u32,
    /// How many replicas may be copied before the next plan. Default: no limit.
    pub max_moves: Option<u32>,
    /// Changes which of equally good placements is chosen. Must be the same wherever the same
    /// answer is expected. Default 0.
    pub salt: u64,
    /// How many steps the solver may take before it gives the valid systematic layout instead.
    /// Default: enough for every cluster within the limits of this module.
    pub work_limit: Option<u64>,
    /// Keeps every member that takes data where it is, whatever the balance: only copies that are
    /// missing are made. Seen to by whoever asks the strategy, after it has answered: the proof of
    /// other rows is then dropped.
    pub keep_members: bool,
}

/// Everything a strategy may look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacementInput {
    /// The number of partitions, 1 to [`PARTITIONS_MAX`].
    pub partition_count: u32,
    /// The copies wanted of each partition, 1 to [`PLACEMENT_FACTOR_MAX`].
    pub replication_factor: u32,
    /// The nodes. Rows refer to them by position.
    pub nodes: Vec<PlacementNode>,
    /// The rows as they are, primary first. Rows may be missing, short, long, or name nodes twice
    /// or that do not exist: what makes no sense is ignored.
    pub current: Rows,
    /// Partitions whose row and primary must stay as they are. Empty: none.
    pub frozen: Vec<bool>,
    /// The last complete placement, as a hint: a node that returns gets its old partitions back
    /// where that costs nothing. Empty: no hint. Never changes the number of moves.
    pub home: Rows,
    /// The operator's wishes.
    pub policy: PlacementPolicy,
}

impl PlacementInput {
    /// Returns an input without current rows.
    #[must_use]
    pub fn new(partition_count: u32, replication_factor: u32, nodes: Vec<PlacementNode>) -> Self {
        Self {
            partition_count,
            replication_factor,
            nodes,
            ..Self::default()
        }
    }

    /// Sets the rows as they are.
    #[must_use]
    pub fn with_current(mut self, current: Rows) -> Self {
        self.current = current;
        self
    }

    /// Sets which partitions must stay as they are.
    #[must_use]
    pub fn with_frozen(mut self, frozen: Vec<bool>) -> Self {
        self.frozen = frozen;
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn with_home(mut self, home: Rows) -> Self {
        self.home = home;
        self
    }

    /// Sets the operator's wishes.
    #[must_use]
    pub fn with_policy(mut self, policy: PlacementPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Returns whether partition `partition` must stay as it is.
    #[must_use]
    pub fn is_frozen(&self, partition: usize) -> bool {
        self.frozen.get(partition).copied().unwrap_or(false)
    }

    /// Checks every limit a strategy relies on.
    ///
    /// # Errors
    /// [`PlacementError`] naming what is beyond its limit.
    pub fn validate(&self) -> Result<(), PlacementError> {
        within(
            "partition_count",
            self.partition_count as usize,
            1,
            PARTITIONS_MAX as usize,
        )?;
        within(
            "replication_factor",
            self.replication_factor as usize,
            1,
            PLACEMENT_FACTOR_MAX as usize,
        )?;
        within("nodes", self.nodes.len(), 0, PLACEMENT_NODES_MAX)?;
        let partitions = self.partition_count as usize;
        within("current", self.current.len(), 0, partitions)?;
        within("home", self.home.len(), 0, partitions)?;
        within("frozen", self.frozen.len(), 0, partitions)?;
        within(
            "indices in current",
            self.current.total(),
            0,
            PLACEMENT_INDICES_MAX,
        )?;
        within(
            "indices in home",
            self.home.total(),
            0,
            PLACEMENT_INDICES_MAX,
        )?;
        within(
            "tolerance_permille",
            self.policy.tolerance_permille as usize,
            0,
            TOLERANCE_PERMILLE_MAX as usize,
        )?;
        let mut ids = BTreeSet::new();
        for node in &self.nodes {
            if !ids.insert(&node.id) {
                return Err(PlacementError::DuplicateNode {
                    id: node.id.clone(),
                });
            }
        }
        Ok(())
    }
}

fn within(field: &str, value: usize, least: usize, most: usize) -> Result<(), PlacementError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(PlacementError::OutOfRange {
        field: field.to_string(),
        value,
        least,
        most,
    })
}

/// Why a placement was refused. Nothing has happened; a retry with the same input fails again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// A number or a length is beyond its limit.
    #[error("{field} is {value}, allowed is {least} to {most}")]
    OutOfRange {
        /// What was refused.
        field: String,
        /// Its value, or its length for a list.
        value: usize,
        /// The least allowed.
        least: usize,
        /// The most allowed.
        most: usize,
    },
    /// Two nodes have one id, so rows could not be told apart.
    #[error("node {id} is listed twice")]
    DuplicateNode {
        /// The id listed twice.
        id: NodeId,
    },
}

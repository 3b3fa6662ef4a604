//! What a placement consists of: rows, flags, the certificate, figures.
//!
//! How the certificate is checked without trusting its maker is in [`verify`](super).

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::input::PlacementInput;
use super::rows::Rows;

/// What a change of a primary costs in the units of [`Certificate::primary_prices`]. A leader that
/// holds no data yet, where another member does, costs one more.
pub const LEAD_CHANGE_COST: i64 = 1 << 20;
/// What every partition led above or below a node's share costs in the same units: more than any
/// number of changes.
pub const LEAD_VIOLATION_COST: i64 = 1 << 42;

/// The answer of a strategy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Placement {
    /// The target: one row per partition, primary first.
    pub rows: Rows,
    /// The rows to go to now when `max_moves` does not allow the whole way; `None` when the target
    /// is within reach. Going there and planning again costs no more copies in total.
    pub stage: Option<Rows>,
    /// What could not be had.
    pub flags: PlacementFlags,
    /// The replicas to be copied on the way to `rows`.
    pub moves: u32,
    /// The partitions whose primary in `rows` is not the current one.
    pub primary_changes: u32,
    /// What a third party needs to check that nothing better exists. `None` from strategies that
    /// do not promise it, and from the systematic fallback.
    pub certificate: Option<Certificate>,
    /// How the answer was found.
    pub stats: PlacementStats,
}

impl Placement {
    /// Wraps `rows` and counts what changes against `input`.
    #[must_use]
    pub fn new(input: &PlacementInput, rows: Rows) -> Self {
        let (moves, primary_changes) = changes(input, &rows);
        Self {
            rows,
            moves,
            primary_changes,
            ..Self::default()
        }
    }
}

/// Counts the replicas to be copied and the primaries that change from `input.current` to `rows`.
///
/// A member that `input.current` has already needs no copy, whatever the node's standing.
#[must_use]
pub fn changes(input: &PlacementInput, rows: &Rows) -> (u32, u32) {
    let (mut moves, mut changed) = (0, 0);
    for partition in 0..rows.len() {
        for node in rows.members(partition) {
            moves += u32::from(!input.current.contains(partition, node));
        }
        let primary = rows.primary(partition);
        changed += u32::from(primary.is_some() && primary != input.current.primary(partition));
    }
    (moves, changed)
}

/// What a placement could not honour, and what stood in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacementFlags {
    /// Fewer eligible nodes than the replication factor: every partition has as many replicas as
    /// there are nodes.
    pub under_replicated: bool,
    /// No eligible node at all: rows are empty.
    pub unavailable: bool,
    /// There are fewer zones than replicas, so zones hold more than one replica of a partition.
    pub zone_cap: bool,
    /// How many replicas of a partition one zone may hold in this placement.
    pub per_zone: u32,
    /// A node's load exceeds its share by weight because of zones or the replica cap (by more than
    /// `overload_limit`, when that is set).
    pub overloaded: bool,
    /// The work budget ran out or a check failed: the rows are the systematic layout, valid and
    /// balanced, but not the fewest moves.
    pub fallback: bool,
    /// Partitions that have members but no primary, since none may or can lead.
    pub leaderless: u32,
}

/// What proves a placement: prices for which no valid placement can be cheaper.
///
/// Node vectors follow the order of [`PlacementInput::nodes`]. See [`verify`](super::verify()) for
/// the inequalities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Certificate {
    /// Per node the price of one replica there, in copies: what the solver would pay to have the
    /// load of the node raised by one.
    pub replica_prices: Vec<i32>,
    /// Per node the price of leading one partition, in the units of [`LEAD_CHANGE_COST`].
    pub primary_prices: Vec<i64>,
    /// The replicas a zone may hold of one partition, as applied.
    pub per_zone: u32,
    /// The water level of the fair shares: load per unit of weight as numerator and denominator.
    pub level: (u128, u128),
    /// Zones at one of their bounds, whose shares have a level of their own: a node of the zone
    /// and the level.
    pub zone_levels: Vec<(u16, (u128, u128))>,
}

/// Figures of one run. All zero for strategies that do not search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlacementStats {
    /// The fewest moves that anything could need, by counting alone (a lower bound).
    pub moves_bound: u32,
    /// The fewest primary changes that anything could need, by counting alone (a lower bound where
    /// every node can lead its share).
    pub primary_bound: u32,
    /// Primaries above or below their share because frozen rows or limits leave no choice.
    pub primary_violation: u32,
    /// Replicas placed by the direct passes.
    pub direct: u32,
    /// Rounds of the exact search.
    pub rounds: u32,
    /// Augmenting paths found in those rounds.
    pub paths: u32,
    /// The longest distance of a path, in copies.
    pub longest: u32,
    /// How often ties were tossed anew for fewer primary changes, in small clusters.
    pub attempts: u32,
    /// Rounds of the exact search for primaries.
    pub primary_rounds: u32,
    /// Steps taken, as counted against the work limit.
    pub work: u64,
}

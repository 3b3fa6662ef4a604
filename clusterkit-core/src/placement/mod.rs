//! Placement: which nodes hold and lead each partition, as a pure function of values.
//!
//! [`MinimalMove`] finds, for any current rows, a placement that is valid, exactly balanced within
//! the zones and weights, and reached with the fewest copies possible; it delivers a
//! [`Certificate`] that anybody can check with [`verify`](verify()). Its rooms, in the order of the work:
//! the input put in order (`problem`), fair shares (`targets`), the replica flow (`flow`),
//! primaries (`primary`), prices (`certificate`).
//!
//! [`Rendezvous`] and [`Ring`] are stateless and promise less; they are here because people know
//! them.
//!
//! Nothing here performs a move: the result is a target. How a plan is carried out, step by step,
//! is the business of the cluster state and the migration engine.

mod answer;
mod certificate;
#[allow(
    clippy::cast_possible_truncation,
    reason = "`PlacementInput::validate` bounds nodes by u16 and partitions times row length by u32"
)]
mod flow;
mod hashed;
mod input;
#[allow(
    clippy::cast_possible_truncation,
    reason = "`PlacementInput::validate` bounds nodes by u16 and partitions times row length by u32"
)]
mod lists;
mod minimal;
mod mix;
mod order;
mod outcome;
#[allow(
    clippy::cast_possible_truncation,
    reason = "`PlacementInput::validate` bounds nodes by u16 and partitions times row length by u32"
)]
mod primary;
mod problem;
mod rendezvous;
mod ring;
mod rows;
mod shares;
mod stage;
mod systematic;
mod targets;
mod verify;

pub use input::{
    PLACEMENT_FACTOR_MAX, PLACEMENT_INDICES_MAX, PLACEMENT_NODES_MAX, PlacementError,
    PlacementInput, PlacementNode, PlacementPolicy, Standing, TOLERANCE_PERMILLE_MAX,
};
pub use minimal::MinimalMove;
pub use order::{PlanStep, StepKind, plan_steps};
pub use outcome::{
    Certificate, LEAD_CHANGE_COST, LEAD_VIOLATION_COST, Placement, PlacementFlags, PlacementStats,
    changes,
};
pub use rendezvous::Rendezvous;
pub use ring::Ring;
pub use rows::{NO_NODE, Rows};
pub use shares::{NodeShare, ShareBound, Shares, shares};
pub use verify::{Verdict, VerifyError, verify};

/// Decides which nodes hold and lead each partition.
///
/// Implementations are pure: equal inputs give equal placements on every machine, and the order of
/// [`PlacementInput::nodes`] does not matter. They run on the leader of the control plane only;
/// what they answer is proposed and recorded as explicit rows.
pub trait PlacementStrategy: Send + Sync + core::fmt::Debug {
    /// Returns the name for configuration, logs and documents.
    fn name(&self) -> &'static str;

    /// Computes a placement for `input`.
    ///
    /// # Errors
    /// [`PlacementError`] when the input is beyond a limit. Never because a good placement does
    /// not exist: what cannot be had is said in [`Placement::flags`].
    fn place(&self, input: &PlacementInput) -> Result<Placement, PlacementError>;

    /// Replaces exactly the primaries that are not live (`live[node]`, by position in
    /// [`PlacementInput::nodes`]), leaving rows and all other primaries as they are.
    ///
    /// Rows without a live member that may lead get no primary. Positions beyond `live` are not
    /// live. Called by the leader while it decides that nodes are lost, so it must be quick.
    ///
    /// # Errors
    /// [`PlacementError`] when the input is beyond a limit.
    fn failover(&self, input: &PlacementInput, live: &[bool]) -> Result<Placement, PlacementError> {
        input.validate()?;
        Ok(primary::failover(input, live))
    }
}

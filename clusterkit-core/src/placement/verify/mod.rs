//! The check: is this placement valid, balanced and minimal? Answered without trusting its maker.
//!
//! Shares no code with the solver; its rules are written a second time here, from the input alone:
//!
//! 1. Rows: as many distinct eligible nodes as asked for and possible, zones within their bounds,
//!    frozen rows untouched (`rules`).
//! 2. Shares: given the water levels of the certificate, every node's share follows, and the
//!    shares must add up; a zone with its own level must be at the bound that forces it. Loads are
//!    the floor or the ceiling of the share (`shares`).
//! 3. Movement: for *any* prices `v` per node, every valid placement needs at least
//!    `sum over rows of (cheapest valid row at costs c - v)
//!    + sum over nodes of (v * floor if v >= 0, else v * ceil)` copies, where `c` is 0 for a member
//!    that is there already and 1 otherwise. The placement must reach that bound (`bounds`).
//! 4. Primaries: the same bound on the rows given, with the costs of
//!    [`LEAD_CHANGE_COST`](super::LEAD_CHANGE_COST) and the price of leaving the bounds.
//!
//! Time is linear in the placement, apart from sorting the nodes once.

mod bounds;
mod rules;
mod shares;

use super::input::{PlacementError, PlacementInput};
use super::outcome::Placement;

/// What a check confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The copies the placement needs: no placement within the bounds needs fewer.
    pub moves: u32,
    /// The primaries that change: on these rows, no fewer can without worse balance.
    pub primary_changes: u32,
    /// Partitions led above or below the nodes' shares, the least possible on these rows.
    pub primary_violation: u32,
}

/// Why a placement was not accepted. Each names the first thing found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The input itself is beyond a limit.
    #[error("the input is refused: {0}")]
    Input(PlacementError),
    /// The placement carries no certificate, or one for another number of nodes.
    #[error("the placement has no certificate for {nodes} nodes")]
    NoCertificate {
        /// The nodes of the input.
        nodes: usize,
    },
    /// A row breaks a rule.
    #[error("partition {partition}: {rule}")]
    Row {
        /// The partition.
        partition: u32,
        /// The rule broken.
        rule: &'static str,
    },
    /// The cap per zone is not what the policy asks for.
    #[error("{per_zone} replicas per zone are not what the policy asks for")]
    ZoneCap {
        /// The cap claimed.
        per_zone: u32,
    },
    /// The water levels do not give fair shares.
    #[error("the shares are not fair: {rule}")]
    Level {
        /// The rule broken.
        rule: &'static str,
    },
    /// A node's load is not the floor or the ceiling of its share.
    #[error("node {node} holds {load} replicas, its share is {floor} to {ceil}")]
    Load {
        /// The node's position in the input.
        node: u16,
        /// Its load in free partitions.
        load: u32,
        /// The least it should hold.
        floor: u32,
        /// The most it should hold.
        ceil: u32,
    },
    /// The numbers claimed are not those of the rows.
    #[error("{claimed} {what} are claimed, the rows have {counted}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The number claimed.
        claimed: u32,
        /// The number counted.
        counted: u32,
    },
    /// The prices do not prove that nothing better exists.
    #[error("the prices prove that {what} cost at least {bound}, these cost {cost}")]
    NotMinimal {
        /// What was priced.
        what: &'static str,
        /// The cost of the placement.
        cost: i128,
        /// The bound proven.
        bound: i128,
    },
}

/// Checks that `placement` is valid and balanced for `input`, and that its certificate proves the
/// fewest moves and, on its rows, the fewest primary changes.
///
/// # Errors
/// [`VerifyError`] naming the first rule that does not hold.
pub fn verify(input: &PlacementInput, placement: &Placement) -> Result<Verdict, VerifyError> {
    input.validate().map_err(VerifyError::Input)?;
    let nodes = input.nodes.len();
    let certificate = placement
        .certificate
        .as_ref()
        .filter(|proof| proof.replica_prices.len() == nodes && proof.primary_prices.len() == nodes)
        .ok_or(VerifyError::NoCertificate { nodes })?;
    let rules = rules::Rules::new(input, certificate.per_zone)?;
    rules.check_rows(&placement.rows)?;
    let shares = shares::replica_shares(&rules, certificate)?;
    rules.check_loads(&placement.rows, &shares)?;
    let moves = bounds::check_moves(
        &rules,
        &placement.rows,
        &shares,
        &certificate.replica_prices,
    )?;
    let leads = shares::lead_shares(&rules);
    let (primary_changes, primary_violation) =
        bounds::check_primaries(&rules, &placement.rows, &leads, &certificate.primary_prices)?;
    same("moves", placement.moves, moves)?;
    same(
        "primary changes",
        placement.primary_changes,
        primary_changes,
    )?;
    Ok(Verdict {
        moves,
        primary_changes,
        primary_violation,
    })
}

fn same(what: &'static str, claimed: u32, counted: u32) -> Result<(), VerifyError> {
    match claimed == counted {
        true => Ok(()),
        false => Err(VerifyError::Count {
            what,
            claimed,
            counted,
        }),
    }
}

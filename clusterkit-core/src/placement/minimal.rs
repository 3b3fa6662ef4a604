//! [`MinimalMove`]: the default strategy, exact in balance and movement.
//!
//! Puts the rooms together: problem, targets, flow, primaries, certificate, staging. The search can
//! fail only by a bug or an exhausted budget, and then the systematic layout takes its place.
//! Whether the answer is right is for others to say: see [`MinimalMove`].

use alloc::vec::Vec;

use super::answer::{all_rows, describe, present, primary_bound};
use super::certificate::certificate;
use super::flow::{Budget, FlowStats, ReplicaFlow, Stuck};
use super::input::{PlacementError, PlacementInput};
use super::outcome::{Certificate, Placement, PlacementStats};
use super::primary::{self, Primaries};
use super::problem::Problem;
use super::rows::{NO_NODE, Rows};
use super::targets::{Targets, targets};
use super::{PlacementStrategy, stage, systematic};

/// The least work limit, and what is added per replica wanted and per node.
const WORK_LEAST: u64 = 1 << 26;
const WORK_PER_UNIT: u64 = 1 << 12;

/// The largest problem for which ties are tossed anew, in replicas, and how often.
///
/// Which of the placements with fewest moves allows the fewest primary changes is no flow; with
/// many partitions ties even out, with few they matter and another attempt costs little.
const SMALL: usize = 1_024;
const ATTEMPTS: u32 = 12;

/// Finds the placement that is balanced exactly and reached with the fewest copies.
///
/// - Every partition has as many replicas as asked for, on different nodes, spread over zones as
///   evenly as the zones allow.
/// - The load of every node is the floor or the ceiling of its share by weight.
/// - No placement with these properties needs fewer copies. Always; the certificate proves it.
/// - Primaries are balanced by weight; on the rows found, no fewer of them could change.
///
/// It does not know sizes or traffic of partitions: all count as equal.
///
/// # Who checks
/// `place` does not check its own answer: it delivers the certificate, and
/// [`PlanRequest::compute`](crate::coordinator::PlanRequest::compute) checks it once, for this
/// strategy as for any other, before a plan is proposed; an answer that fails is replaced by the
/// systematic layout. Whoever calls `place` directly and relies on the promises above calls
/// [`verify`](super::verify()) with the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MinimalMove;

impl MinimalMove {
    /// Returns the strategy. It has no settings: wishes are part of the input.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl PlacementStrategy for MinimalMove {
    fn name(&self) -> &'static str {
        "minimal_move"
    }

    fn place(&self, input: &PlacementInput) -> Result<Placement, PlacementError> {
        input.validate()?;
        let mut problem = Problem::new(input);
        let targets = targets(&problem);
        let mut placement = match solve_repeatedly(&mut problem, &targets) {
            Ok(solution) => assemble(&problem, solution),
            Err(spent) => fall_back(&problem, &targets, spent),
        };
        describe(&problem, &targets, &mut placement);
        if let Some(limit) = input.policy.max_moves
            && placement.moves > limit
        {
            placement.stage = Some(stage::towards(input, &placement.rows, limit));
        }
        Ok(placement)
    }
}

/// What the solver found, in ranks.
struct Solution {
    rows: Rows,
    primaries: Primaries,
    certificate: Option<Certificate>,
    stats: FlowStats,
    attempts: u32,
    work: u64,
}

impl Solution {
    /// Returns what is to be small, once movement is: violations and changes of primaries.
    fn lead_cost(&self, problem: &Problem<'_>) -> (u32, u32) {
        let chosen = self.primaries.chosen.iter().enumerate();
        let changed = chosen.filter(|&(partition, &node)| {
            node != NO_NODE && problem.held.primary(partition) != Some(node)
        });
        let changes = u32::try_from(changed.count()).unwrap_or(u32::MAX);
        (self.primaries.violation, changes)
    }
}

/// Solves, in small clusters several times, and takes what changes the fewest primaries.
fn solve_repeatedly(problem: &mut Problem<'_>, targets: &Targets) -> Result<Solution, u64> {
    let mut best = solve(problem, targets)?;
    if problem.partitions * problem.factor > SMALL {
        return Ok(best);
    }
    let ideal = (0, primary_bound(problem, targets));
    let mut cost = best.lead_cost(problem);
    for attempt in 1..=ATTEMPTS {
        if cost <= ideal || cost.1 == 0 {
            break;
        }
        best.attempts = attempt;
        problem.toss_again(attempt.into());
        if let Ok(other) = solve(problem, targets) {
            let other_cost = other.lead_cost(problem);
            let work = best.work + other.work;
            if other_cost < cost {
                (best, cost) = (other, other_cost);
            }
            best.attempts = attempt;
            best.work = work;
        }
    }
    Ok(best)
}

fn solve(problem: &Problem<'_>, targets: &Targets) -> Result<Solution, u64> {
    let units = problem.partitions as u64 * (problem.factor as u64 + 1) + problem.nodes() as u64;
    let budget = Budget {
        spent: 0,
        limit: problem
            .input
            .policy
            .work_limit
            .unwrap_or(WORK_LEAST + WORK_PER_UNIT * units),
    };
    let mut flow = ReplicaFlow::new(problem, targets, budget);
    let solved = flow.run().and_then(|()| match problem.factor {
        0 => Ok(Vec::new()),
        _ => flow.potentials(),
    });
    let (stats, mut budget) = flow.stats();
    let finish = |budget: &mut Budget| -> Result<Solution, Stuck> {
        let prices = solved?;
        let rows = all_rows(problem, |row, members| members.extend(flow.members(row)));
        let primaries = primary::choose(problem, targets, &rows, budget)?;
        Ok(Solution {
            certificate: Some(certificate(problem, targets, &prices, &primaries.prices)),
            rows,
            primaries,
            stats,
            attempts: 0,
            work: 0,
        })
    };
    let result = finish(&mut budget);
    result
        .map(|solution| Solution {
            work: budget.spent,
            ..solution
        })
        .map_err(|_| budget.spent)
}

fn assemble(problem: &Problem<'_>, solution: Solution) -> Placement {
    let rows = present(problem, &solution.rows, &solution.primaries.chosen);
    let mut placement = Placement::new(problem.input, rows);
    placement.certificate = solution.certificate;
    placement.stats = PlacementStats {
        primary_violation: solution.primaries.violation,
        direct: solution.stats.direct,
        rounds: solution.stats.rounds,
        paths: solution.stats.paths,
        longest: solution.stats.longest,
        attempts: solution.attempts,
        primary_rounds: solution.primaries.rounds,
        work: solution.work,
        ..PlacementStats::default()
    };
    placement
}

/// Takes the systematic layout, with primaries chosen exactly if that can be afforded.
fn fall_back(problem: &Problem<'_>, targets: &Targets, spent: u64) -> Placement {
    let layout = systematic::layout(problem, targets);
    let rows = all_rows(problem, |row, members| {
        members.extend_from_slice(&layout[row]);
    });
    let mut budget = Budget {
        spent: 0,
        limit: WORK_LEAST,
    };
    let primaries = primary::choose(problem, targets, &rows, &mut budget);
    let chosen = match &primaries {
        Ok(primaries) => primaries.chosen.clone(),
        Err(_) => first_leaders(problem, &rows),
    };
    let mut placement = Placement::new(problem.input, present(problem, &rows, &chosen));
    placement.flags.fallback = true;
    placement.stats.work = spent;
    placement
}

/// Chooses the present primary or else any member that may lead.
fn first_leaders(problem: &Problem<'_>, rows: &Rows) -> Vec<u16> {
    let leader = |partition: usize| {
        let may_lead = |node: &u16| problem.may_lead[usize::from(*node)];
        let present = problem.held.primary(partition).filter(may_lead);
        let row = rows.row(partition);
        present
            .filter(|node| row.contains(node))
            .or_else(|| row.iter().copied().find(may_lead))
            .unwrap_or(NO_NODE)
    };
    (0..problem.partitions).map(leader).collect()
}

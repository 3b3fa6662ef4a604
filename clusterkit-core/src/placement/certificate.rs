//! The certificate: prices read off the residual network of the finished flows.
//!
//! When no residual cycle has a negative cost, the distances of the nodes from anywhere, relative
//! to the hub, are prices under which no row can be improved and no node wants another load. That
//! makes them a proof by linear programming duality. The check is in `verify`, which shares
//! nothing with the solver.

use alloc::vec;
use alloc::vec::Vec;

use super::outcome::Certificate;
use super::problem::Problem;
use super::targets::Targets;

/// Wraps the prices (per rank) and the water levels for readers who know only the input.
pub(super) fn certificate(
    problem: &Problem<'_>,
    targets: &Targets,
    replica_prices: &[i32],
    primary_prices: &[i64],
) -> Certificate {
    let nodes = problem.input.nodes.len();
    let mut certificate = Certificate {
        replica_prices: vec![0; nodes],
        primary_prices: vec![0; nodes],
        per_zone: targets.per_zone,
        level: targets.level,
        zone_levels: Vec::new(),
    };
    let mut shown = vec![false; problem.zones];
    for (rank, &position) in problem.position.iter().enumerate() {
        let at = usize::from(position);
        certificate.replica_prices[at] = replica_prices[rank];
        certificate.primary_prices[at] = primary_prices[rank];
        let zone = usize::from(problem.zone[rank]);
        let own = targets.zone_level.get(zone).copied();
        if let Some(own) = own.filter(|&own| own != targets.level && !shown[zone]) {
            shown[zone] = true;
            certificate.zone_levels.push((position, own));
        }
    }
    certificate
}

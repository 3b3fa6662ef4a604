//! The public way to run one's own program: the example, right and wrong.

use std::time::Duration;

use clusterkit_sim::{FaultSchedule, Simulation};

#[path = "../../examples/failover/scheduler.rs"]
mod scheduler;

use scheduler::{Ownership, Scheduler};

fn simulation(ownership: Ownership) -> Simulation {
    Simulation::new(move |_| Scheduler::new(ownership)).clients(0)
}

#[test]
fn a_program_with_tokens_keeps_its_promise() {
    let totals = simulation(Ownership::Token).check(1..=3).unwrap();
    assert_eq!(totals.seeds, 3);
    assert!(totals.virtual_hours * 3_600.0 > 10.0, "{totals:?}");
}

/// The primary is cut off from all others: it learns of its successor when it is mended.
#[test]
fn the_same_program_without_tokens_is_found_out() {
    let cut: FaultSchedule = CUT.parse().unwrap();
    let wrong = simulation(Ownership::Topology).nodes(3).faults(cut.clone());
    let failure = wrong.check(1..=3).unwrap_err();
    assert_eq!(failure.violation.rule, "one-at-a-time", "{failure}");
    assert!(failure.violation.at > Duration::from_secs(2), "{failure}");
    assert!(!failure.faults.faults().is_empty(), "{failure}");
    let right = simulation(Ownership::Token).nodes(3).faults(cut);
    right.check(1..=1).unwrap();
}

const CUT: &str = "2s cut from=n1 to=n2 both=true lasts=3s
2s cut from=n1 to=n3 both=true lasts=3s
";

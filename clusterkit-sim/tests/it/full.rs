//! Whole clusters: what every seed must show, and that a seed means the same every time.

use clusterkit_sim::{RunOptions, full};

/// Runs `seed` and returns its trace hash.
fn hash(seed: u64) -> u64 {
    let report = full::run(seed, &RunOptions::default());
    assert_eq!(report.outcome.violation, None, "{}", report.faults);
    assert!(report.trace.steps() > 100, "nothing happened");
    report.outcome.trace_hash
}

#[test]
fn clusters_form_are_disturbed_and_become_well_again() {
    let hashes = [hash(1), hash(2), hash(3)];
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2]);
}

/// The async runtime takes a seed only in builds with this switch.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_means_the_same_every_time() {
    assert_eq!(hash(1), hash(1));
}

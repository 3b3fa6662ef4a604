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

/// Runs `seed` with `nodes` nodes and exactly `faults`.
fn survives(seed: u64, nodes: u32, faults: &str) {
    let options = RunOptions {
        nodes: Some(nodes),
        faults: Some(faults.parse().unwrap()),
        ..RunOptions::default()
    };
    let report = full::run(seed, &options);
    assert_eq!(report.outcome.violation, None, "seed {seed}: {faults}");
}

/// It was refused at every start: its directory said that it was a member.
#[test]
fn a_node_given_up_before_it_was_active_joins_anew() {
    for seed in 1..=3 {
        let stopped = "0.016106s restart node=2 older=false lasts=4.741874s";
        survives(seed, 3, stopped);
    }
}

/// The service took no more writes, and its node stayed primary.
#[test]
fn a_node_whose_disk_was_full_for_a_moment_is_well_again() {
    for seed in 1..=3 {
        survives(seed, 3, "2.0s full-disk node=2 lasts=0.5s");
    }
}

/// The async runtime takes a seed only in builds with this switch.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_means_the_same_every_time() {
    assert_eq!(hash(1), hash(1));
}

#[test]
fn an_older_build_is_refused_and_comes_back_as_a_newer_one() {
    let options = RunOptions {
        nodes: Some(3),
        faults: Some("6s restart node=2 older=true lasts=1s\n".parse().unwrap()),
        trace: true,
        ..RunOptions::default()
    };
    let report = full::run(5, &options);
    assert_eq!(report.outcome.violation, None);
    let lines = report.trace.lines().join("\n");
    let refused = "node `node-2` supports feature level 0, the cluster uses 1";
    assert!(lines.contains(refused), "{lines}");
}

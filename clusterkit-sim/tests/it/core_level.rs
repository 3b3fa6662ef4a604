//! A short look at the core level: the same seed gives the same run, every promise holds, and a
//! schedule of one's own is carried out. Long runs are `cargo xtask sim`.

use std::time::Duration;

use clusterkit_sim::{FaultKind, FaultSchedule, Report, RunOptions, core_level};

fn run(seed: u64, options: &RunOptions) -> Report {
    let report = core_level::run(seed, options);
    assert_eq!(
        report.outcome.violation, None,
        "seed {seed}:\n{}",
        report.faults
    );
    report
}

#[test]
fn every_promise_holds_over_some_seeds() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=60 {
        let report = run(seed, &RunOptions::default());
        kinds.extend(
            report
                .faults
                .faults()
                .iter()
                .map(|fault| fault.fault.kind()),
        );
        assert!(report.outcome.virtual_time > Duration::from_secs(15));
    }
    for kind in [
        FaultKind::Crash,
        FaultKind::Cut,
        FaultKind::Wipe,
        FaultKind::Drain,
    ] {
        assert!(kinds.contains(&kind), "{} never happened", kind.verb());
    }
}

#[test]
fn the_same_seed_gives_the_same_run_whether_anybody_reads_it() {
    for seed in 100..110 {
        let read = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let (read, unread) = (run(seed, &read), run(seed, &RunOptions::default()));
        assert_eq!(read.outcome, unread.outcome);
        assert!(read.trace.lines().len() > 20 && unread.trace.lines().is_empty());
    }
    let hash = |seed| run(seed, &RunOptions::default()).outcome.trace_hash;
    assert_ne!(hash(100), hash(101));
}

#[test]
fn a_schedule_of_ones_own_takes_the_place_of_the_drawn_one() {
    let faults: FaultSchedule = "5s crash node=2 unsynced=lost operation=0 lasts=4s\n"
        .parse()
        .unwrap();
    let options = RunOptions {
        nodes: Some(4),
        faults: Some(faults.clone()),
        trace: true,
        ..RunOptions::default()
    };
    let report = run(7, &options);
    assert_eq!(report.faults, faults);
    let lines = report.trace.lines().join("\n");
    for told in [
        "boot n4",
        "dead n2",
        "boot n2 as process 2",
        "MarkDown",
        "settled",
    ] {
        assert!(lines.contains(told), "{told}:\n{lines}");
    }
    assert!(!lines.contains("boot n5"));
}

#[test]
fn hundreds_of_nodes_settle() {
    let options = RunOptions {
        nodes: Some(200),
        ..RunOptions::default()
    };
    run(3, &options);
}

#[test]
fn faults_are_spread_over_hours_where_hours_are_asked_for() {
    let options = RunOptions {
        nodes: Some(12),
        hours: Some(1),
        ..RunOptions::default()
    };
    let report = run(7, &options);
    assert!(report.outcome.virtual_time > Duration::from_secs(3_000));
    assert!(report.faults.faults().len() > 15);
}

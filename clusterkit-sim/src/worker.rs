//! Running seeds in this process: one line a seed for the runner, or one seed for a reader.

use std::any::Any;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use clusterkit_sim::{FaultSchedule, Level, Outcome, Report, RunOptions, Violation};

use crate::Cli;

/// Runs `seed` at `level`.
fn run(level: Level, seed: u64, options: &RunOptions) -> Result<Report, String> {
    match level {
        Level::Core => Ok(clusterkit_sim::core_level::run(seed, options)),
        Level::Full => Ok(clusterkit_sim::full::run(seed, options)),
    }
}

/// Runs `seed`; a panic is a violation like any other.
fn outcome(level: Level, seed: u64, options: &RunOptions) -> Result<Outcome, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| run(level, seed, options)));
    match caught {
        Ok(report) => report.map(|report| report.outcome),
        Err(panic) => {
            let message = format!("panicked: {}", message(panic.as_ref()));
            let violation = Violation::new("nothing-panics", message, Duration::ZERO);
            Ok(Outcome::new(
                seed,
                level,
                Some(violation),
                Duration::ZERO,
                0,
            ))
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    text.or(owned).unwrap_or("without a message")
}

/// Runs the seeds asked for, one line each.
pub(crate) fn work(cli: &Cli) -> Result<(), String> {
    let options = options(cli)?;
    for seed in cli.from..cli.from.saturating_add(cli.seeds) {
        println!("{}", outcome(cli.level(), seed, &options)?);
    }
    Ok(())
}

/// Runs one seed for somebody to read. Returns whether every promise held.
pub(crate) fn show(cli: &Cli, seed: u64) -> Result<bool, String> {
    let options = options(cli)?;
    let report = run(cli.level(), seed, &options)?;
    for line in report.trace.lines() {
        println!("{line}");
    }
    println!("\nfaults of seed {seed}:\n{}", report.faults);
    let outcome = &report.outcome;
    let (seconds, hash) = (outcome.virtual_time.as_secs_f64(), outcome.trace_hash);
    let steps = report.trace.steps();
    println!("{seconds:.3} virtual seconds, {steps} steps, trace hash {hash:016x}");
    match &outcome.violation {
        None => println!("every promise held"),
        Some(violation) => println!("violation: {violation}"),
    }
    Ok(outcome.violation.is_none())
}

/// Returns the faults that `seed` draws, none where its run panics.
pub(crate) fn faults(cli: &Cli, seed: u64) -> Option<FaultSchedule> {
    let options = RunOptions {
        nodes: cli.nodes,
        hours: cli.hours,
        ..RunOptions::default()
    };
    let caught = catch_unwind(AssertUnwindSafe(|| run(cli.level(), seed, &options)));
    caught.ok()?.ok().map(|report| report.faults)
}

/// Returns how seeds are to be run.
fn options(cli: &Cli) -> Result<RunOptions, String> {
    let mut faults = None;
    if cli.faults {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| format!("standard input: {error}"))?;
        faults = Some(text.parse().map_err(|error| format!("{error}"))?);
    }
    Ok(RunOptions {
        nodes: cli.nodes,
        hours: cli.hours,
        faults,
        trace: cli.trace,
    })
}

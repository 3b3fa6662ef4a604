//! `cargo xtask cluster-test`: clusters of real processes put through faults while records are
//! written, and what must hold afterwards.
//!
//! The faults are in `catalog`, the background writers in `writer` and `register`, the last look in
//! `audit`. A
//! deterministic cluster in one process is the simulator's matter, not this one's.

mod audit;
mod catalog;
mod register;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use console::style;

use crate::clock::{Stopwatch, human, seed_of_now};
use crate::harness::{Manner, NetworkArg, ProgramArgs};
use crate::{runtime, ui};
use catalog::{Scenario, Test};

/// Options of `cargo xtask cluster-test`.
#[derive(Args)]
pub(crate) struct ClusterTestArgs {
    /// List the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Run only this scenario (repeatable).
    #[arg(long = "scenario", value_enum, value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// Decides which node is hit and what is written (default: from the clock; always printed).
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes, where the scenario leaves it open; never fewer than it needs.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=32))]
    nodes: Option<u8>,
    /// Run every scenario this often, each time with the next seed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    program: ProgramArgs,
    /// How nodes are cut off from each other; what is used is printed with each run.
    #[arg(long, value_enum, default_value = "auto")]
    network: NetworkArg,
    /// Stop at the first run that fails.
    #[arg(long)]
    fail_fast: bool,
}

/// How one run ended.
struct Outcome {
    took: Duration,
    summary: String,
    failure: Option<Failure>,
}

struct Failure {
    reason: String,
    logs: PathBuf,
}

/// Runs the chosen scenarios, or all of them.
pub(crate) fn run(args: &ClusterTestArgs) -> anyhow::Result<()> {
    if args.list {
        for scenario in Scenario::value_variants() {
            println!("{:<22} {}", scenario.name(), scenario.about());
        }
        return Ok(());
    }
    let scenarios = if args.scenarios.is_empty() {
        Scenario::value_variants()
    } else {
        &args.scenarios
    };
    let first_seed = args.seed.unwrap_or_else(seed_of_now);
    let binary = args.program.prepare()?;
    ui::headline(&format!("cluster-test, seed {first_seed}"));
    let whole = Stopwatch::start();
    let runs: Vec<(Scenario, u64)> = (0..args.repeat)
        .flat_map(|round| {
            scenarios
                .iter()
                .map(move |scenario| (*scenario, first_seed + round))
        })
        .collect();
    let (mut passed, mut failed) = (0, Vec::new());
    for (index, (scenario, seed)) in runs.iter().enumerate() {
        let outcome = runtime::run(run_one(args, &binary, *scenario, *seed))?;
        let verdict = match outcome.failure {
            None => style("ok    ").green(),
            Some(_) => style("FAILED").red().bold(),
        };
        println!(
            "  [{}/{}] {verdict} {:<22} {:>10}  {}",
            index + 1,
            runs.len(),
            scenario.name(),
            human(outcome.took),
            outcome.summary
        );
        let Some(failure) = outcome.failure else {
            passed += 1;
            continue;
        };
        let again = command(args, *scenario, *seed);
        println!(
            "      {}\n      logs: {}\n      again: {again}",
            failure.reason,
            failure.logs.display()
        );
        failed.push(again);
        if args.fail_fast {
            break;
        }
    }
    println!(
        "\n{passed} passed, {} failed, {}",
        failed.len(),
        human(whole.elapsed())
    );
    if !failed.is_empty() {
        bail!(
            "{} of {} runs failed; again:\n  {}",
            failed.len(),
            passed + failed.len(),
            failed.join("\n  ")
        );
    }
    Ok(())
}

async fn run_one(
    args: &ClusterTestArgs,
    binary: &Path,
    scenario: Scenario,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let watch = Stopwatch::start();
    let wait = ui::spinner(format!("{} (seed {seed})", scenario.name()));
    let nodes = args.nodes.map_or(0, usize::from);
    let mut test = Test::new(
        binary,
        args.manner,
        args.network,
        scenario,
        seed,
        nodes,
        wait.clone(),
    )?;
    let ended = test.run().await;
    wait.finish_and_clear();
    let failure = ended.err().map(|error| Failure {
        reason: format!("{error:#}"),
        logs: test.keep_directory(),
    });
    Ok(Outcome {
        took: watch.elapsed(),
        summary: test.summary(),
        failure,
    })
}

/// Returns the command that runs exactly this again.
fn command(args: &ClusterTestArgs, scenario: Scenario, seed: u64) -> String {
    let mut command = format!(
        "cargo xtask cluster-test --scenario {} --seed {seed}",
        scenario.name()
    );
    if let Some(nodes) = args.nodes {
        command.push_str(&format!(" --nodes {nodes}"));
    }
    if args.network != NetworkArg::Auto {
        command.push_str(&format!(" --network {}", args.network.name()));
    }
    command.push_str(&args.manner.shown());
    command.push_str(&args.program.shown());
    command
}

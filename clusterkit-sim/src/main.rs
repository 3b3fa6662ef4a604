//! `clusterkit-sim`: runs the simulator over many seeds, or one seed for somebody to read.
//!
//! `cargo xtask sim` builds and starts it. This file reads the command line; `runner` spreads
//! seeds over worker processes, which are this same program; `planted` holds the table of bugs
//! that must be found.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its terminal"
)]

mod clock;
mod planted;
mod runner;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use clusterkit_sim::Level;
use tracing_subscriber::EnvFilter;

/// Runs the cluster in simulation, seed after seed, and says where a promise did not hold.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Cli {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How much of ClusterKit runs: `core` or `full`. Without it both do, and `full` runs one seed for
    /// every twenty of `core`.
    #[arg(long)]
    level: Option<Level>,
    /// How many nodes there are at the start, instead of what each seed says.
    #[arg(long)]
    nodes: Option<u32>,
    /// Over how many virtual hours the faults of a seed are spread, with the leases of machines far
    /// apart. Only at the level `core`.
    #[arg(long, requires = "level")]
    hours: Option<u32>,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened, line by line. Only with --seed. Where `RUST_LOG` is set, what the nodes log
    /// goes to standard error.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Read faults from standard input, one a line, instead of drawing them from the seed.
    #[arg(long)]
    faults: bool,
    /// Plant one bug after the other and show that each is found.
    #[arg(long, conflicts_with = "seed")]
    planted: bool,
    /// Plant this bug. Only in builds with the feature `planted`.
    #[arg(long)]
    plant: Option<String>,
    /// How many seeds run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run every seed twice, in two processes: the same must happen.
    #[arg(long, conflicts_with_all = ["seed", "planted"])]
    twice: bool,
    /// Print the trace hash of every seed, to compare two builds.
    #[arg(long, conflicts_with_all = ["seed", "planted"])]
    hashes: bool,
    /// Be a worker: one line a seed, nothing else.
    #[arg(long, hide = true)]
    worker: bool,
}

impl Cli {
    /// The level of whatever runs at one level only.
    fn level(&self) -> Level {
        self.level.unwrap_or(Level::Core)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.trace
        && let Ok(filter) = EnvFilter::try_from_default_env()
    {
        // What the nodes log: in the order in which it happens, virtual time is in the trace.
        let log = tracing_subscriber::fmt().without_time();
        log.with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
    let done = plant(cli.plant.as_deref()).and_then(|()| {
        if cli.hours.is_some() && cli.level() != Level::Core {
            return Err(String::from("--hours: only at the level `core`"));
        }
        if cli.worker {
            worker::work(&cli).map(|()| true)
        } else if let Some(seed) = cli.seed {
            worker::show(&cli, seed)
        } else if cli.planted {
            planted::run(&cli)
        } else {
            runner::run(&cli)
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} {error}", console::style("error:").red().bold());
            ExitCode::from(2)
        }
    }
}

/// Plants the bug called `name` in this process.
#[cfg(feature = "planted")]
fn plant(name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    let bug = clusterkit_core::planted::Bug::from_name(name);
    let bug = bug.ok_or_else(|| format!("no bug is called `{name}`"))?;
    clusterkit_core::planted::plant(bug);
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(name: Option<&str>) -> Result<(), String> {
    match name {
        None => Ok(()),
        Some(name) => Err(format!(
            "`{name}` cannot be planted: this build is without the feature `planted`"
        )),
    }
}

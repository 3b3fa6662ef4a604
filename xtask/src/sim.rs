//! `cargo xtask sim`: builds the simulator with every assertion on and starts it.
//!
//! The program itself is `clusterkit-sim`, which has its own `--help`; the options are repeated
//! here so that what documents show can be checked.

use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::check::cargo_path;

/// Options of `cargo xtask sim`.
#[derive(Args)]
pub(crate) struct SimArgs {
    /// How many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long)]
    from: Option<u64>,
    /// How much of ClusterKit runs: `core` or `full`. Without it both do, and `full` runs one seed for
    /// every twenty of `core`.
    #[arg(long)]
    level: Option<String>,
    /// How many nodes there are at the start, instead of what each seed says.
    #[arg(long)]
    nodes: Option<u32>,
    /// Over how many virtual hours the faults of a seed are spread, with the leases of machines far
    /// apart. Only at the level `core`.
    #[arg(long)]
    hours: Option<u32>,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened, line by line. Only with --seed. Where `RUST_LOG` is set, what the nodes log
    /// goes to standard error.
    #[arg(long)]
    trace: bool,
    /// Read faults from standard input, one a line, instead of drawing them from the seed.
    #[arg(long)]
    faults: bool,
    /// Plant one bug after the other and show that each is found.
    #[arg(long)]
    planted: bool,
    /// Plant this bug.
    #[arg(long)]
    plant: Option<String>,
    /// Run every seed twice, in two processes: the same must happen.
    #[arg(long)]
    twice: bool,
    /// Print the trace hash of every seed, to compare two builds.
    #[arg(long)]
    hashes: bool,
    /// How many seeds run at once.
    #[arg(long)]
    jobs: Option<usize>,
}

impl SimArgs {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([format!("--{name}"), value]);
            }
        };
        option("seeds", self.seeds.map(|seeds| seeds.to_string()));
        option("from", self.from.map(|from| from.to_string()));
        option("level", self.level.clone());
        option("nodes", self.nodes.map(|nodes| nodes.to_string()));
        option("hours", self.hours.map(|hours| hours.to_string()));
        option("seed", self.seed.map(|seed| seed.to_string()));
        option("plant", self.plant.clone());
        option("jobs", self.jobs.map(|jobs| jobs.to_string()));
        for (name, given) in [
            ("trace", self.trace),
            ("faults", self.faults),
            ("planted", self.planted),
            ("twice", self.twice),
            ("hashes", self.hashes),
        ] {
            if given {
                words.push(format!("--{name}"));
            }
        }
        words
    }
}

/// Builds and starts the simulator.
pub(crate) fn run(args: &SimArgs) -> anyhow::Result<()> {
    let mut cargo = Command::new(cargo_path());
    cargo.args([
        "run",
        "--quiet",
        "--profile",
        "sim",
        "--package",
        "clusterkit-sim",
    ]);
    if args.planted || args.plant.is_some() {
        cargo.args(["--features", "planted"]);
    }
    // Lets the simulator seed the chance of the async runtime, too.
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" --cfg tokio_unstable");
    let status = cargo
        .env("RUSTFLAGS", flags.trim())
        .arg("--")
        .args(args.words())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the simulator ended with {status}");
    }
    Ok(())
}

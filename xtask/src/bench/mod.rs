//! `cargo xtask bench`: measurements of real processes, each with a figure at the end.
//!
//! What is measured stands in the module of its name; benches of single functions are beside the
//! code they measure.

mod failover;
mod figures;
mod steady;

use clap::{Args, Subcommand};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Kill a primary and measure until its successor serves.
    Failover(failover::FailoverArgs),
    /// Load every core and watch that no node that runs is declared down.
    Steady(steady::SteadyArgs),
}

/// Measures.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Failover(args) => failover::run(args),
        What::Steady(args) => steady::run(args),
    }
}

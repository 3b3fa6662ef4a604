//! `cargo xtask bench`: measurements of real processes, each with a figure at the end.
//!
//! What is measured stands in the module of its name; benches of single functions are beside the
//! code they measure.

mod failover;
mod figures;

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
}

/// Measures.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Failover(args) => failover::run(args),
    }
}

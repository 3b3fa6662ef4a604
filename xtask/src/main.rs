//! Development tasks of ClusterKit: `cargo xtask test`, `tidy`, `demo`, `cluster-test`.
//!
//! This file only reads the command line; each task lives in the module of its name. Nothing here
//! is shipped: users run `demo` and `cluster-test`, CI runs `.ci/run`, which calls these.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its terminal"
)]

mod balance;
mod bench;
mod check;
mod clock;
mod demo;
mod draw;
mod harness;
mod kv;
mod picture;
mod place;
mod random;
mod runtime;
mod scenarios;
mod sim;
mod tidy;
mod ui;
mod verdict;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Development tasks of ClusterKit.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check: format, lints, tests, doctests, docs, invariants of the repository.
    Test(check::TestArgs),
    /// Check the invariants of the repository that a program can check.
    Tidy,
    /// Form a cluster of real processes, load it, break it and show it healed.
    Demo(demo::DemoArgs),
    /// Put clusters of real processes through faults and check that nothing is lost.
    ClusterTest(scenarios::ClusterTestArgs),
    /// Measure real processes.
    Bench(bench::BenchArgs),
    /// Place scenarios of your own: JSON lines in, rows out.
    Place(place::PlaceArgs),
    /// Run the cluster in simulation: faults, checks and planted bugs, from seeds.
    Sim(sim::SimArgs),
    /// Draw the pictures of the documentation, or check that they are up to date.
    Draw(draw::DrawArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test(args) => check::run(&args),
        Task::Tidy => tidy::run(&Cli::command()),
        Task::Demo(args) => demo::run(&args),
        Task::ClusterTest(args) => scenarios::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Place(args) => place::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Draw(args) => draw::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").red().bold());
            // As a shell reports a program that SIGINT ended.
            let code = if error.is::<runtime::Interrupted>() {
                130
            } else if error.is::<place::Malformed>() {
                2
            } else {
                1
            };
            ExitCode::from(code)
        }
    }
}

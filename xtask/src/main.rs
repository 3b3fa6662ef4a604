//! Development tasks of ClusterKit: `cargo xtask test`, `tidy`, `demo`, `cluster-test`.
//!
//! This file only reads the command line; each task lives in the module of its name. Nothing here
//! is shipped: users run `demo` and `cluster-test`, CI runs `.ci/run`, which calls these.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its terminal"
)]

mod check;
mod clock;
mod tidy;

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
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test(args) => check::run(&args),
        Task::Tidy => tidy::run(&Cli::command()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").red().bold());
            ExitCode::FAILURE
        }
    }
}

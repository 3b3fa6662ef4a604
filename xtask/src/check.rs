//! `cargo xtask test`: every check of the repository, one step after the other, with a summary.
//!
//! The rules that only this repository has live in `tidy`; real clusters are `cluster-test`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, ValueEnum};
use console::style;

use crate::clock::{Stopwatch, human};

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Run only this step (repeatable).
    #[arg(long = "step", value_enum)]
    steps: Vec<Step>,
    /// Stop at the first step that fails.
    #[arg(long)]
    fail_fast: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// `cargo fmt --all --check`
    Fmt,
    /// The invariants of the repository that a program can check.
    Tidy,
    /// `cargo clippy --workspace --all-targets -- -D warnings`
    Clippy,
    /// The client alone, so that it builds without the server half.
    ClippyClient,
    /// Unit and integration tests, with nextest where it is installed.
    Tests,
    /// Examples in the documentation.
    Doctests,
    /// `cargo doc` with warnings denied.
    Docs,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Fmt,
        Self::Tidy,
        Self::Clippy,
        Self::ClippyClient,
        Self::Tests,
        Self::Doctests,
        Self::Docs,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Clippy => "clippy",
            Self::ClippyClient => "clippy-client",
            Self::Tests => "tests",
            Self::Doctests => "doctests",
            Self::Docs => "docs",
        }
    }

    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"], &[]),
            Self::Tidy => crate::tidy::run(&crate::Cli::command()),
            Self::Clippy => cargo(
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            ),
            Self::ClippyClient => cargo(
                &[
                    "clippy",
                    "-p",
                    "clusterkit-client",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            ),
            Self::Tests if has_nextest() => cargo(
                &[
                    "nextest",
                    "run",
                    "--workspace",
                    "--locked",
                    "--no-tests=pass",
                ],
                &[],
            ),
            Self::Tests => cargo(
                &[
                    "test",
                    "--workspace",
                    "--lib",
                    "--bins",
                    "--tests",
                    "--locked",
                ],
                &[],
            ),
            Self::Doctests => cargo(&["test", "--workspace", "--doc", "--locked"], &[]),
            Self::Docs => cargo(
                &["doc", "--workspace", "--no-deps", "--locked"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            ),
        }
    }
}

/// Runs the chosen steps, or all of them, and prints what each took.
pub(crate) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let steps = if args.steps.is_empty() {
        &Step::ALL[..]
    } else {
        &args.steps
    };
    let whole = Stopwatch::start();
    let mut results: Vec<(Step, Duration, Option<String>)> = Vec::new();
    for (index, &step) in steps.iter().enumerate() {
        let title = format!("[{}/{}] {}", index + 1, steps.len(), step.name());
        println!("\n{}", style(format!("=== {title}")).bold().cyan());
        let watch = Stopwatch::start();
        let failure = step.run().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("{} {failure}", style("failed:").red().bold());
        }
        let stop = failure.is_some() && args.fail_fast;
        results.push((step, watch.elapsed(), failure));
        if stop {
            break;
        }
    }
    println!("\n{}", style("=== summary").bold().cyan());
    let mut failed = Vec::new();
    for (step, took, failure) in &results {
        let verdict = if failure.is_none() {
            style("ok").green()
        } else {
            style("FAILED").red()
        };
        println!("{:<14} {:>12}  {verdict}", step.name(), human(*took));
        if failure.is_some() {
            failed.push(step.name());
        }
    }
    let skipped = steps.len() - results.len();
    println!(
        "{} steps passed, {} failed, {skipped} not run, in {}",
        results.len() - failed.len(),
        failed.len(),
        human(whole.elapsed()),
    );
    if let Some(first) = failed.first() {
        bail!(
            "failed: {}; again: cargo xtask test --step {first}",
            failed.join(", ")
        );
    }
    Ok(())
}

/// Runs cargo with its own output on the terminal.
fn cargo(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    println!("{}", style(format!("$ cargo {}", args.join(" "))).dim());
    let status = Command::new(cargo_path())
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root()?)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", args.join(" "));
    }
    Ok(())
}

fn has_nextest() -> bool {
    Command::new(cargo_path())
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the cargo that runs us.
pub(crate) fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Returns the workspace's root directory.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let root = PathBuf::from(manifest).parent().map(PathBuf::from);
    root.context("xtask's manifest has no parent directory")
}

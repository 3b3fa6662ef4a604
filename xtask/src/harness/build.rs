//! Builds the `kv` program with cargo and finds where cargo put it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::check::{cargo_path, root};
use crate::ui::headline;

const PACKAGE: &str = "clusterkit-examples";
const PROGRAM: &str = "kv";

/// Which program the nodes run.
#[derive(Args)]
pub(crate) struct ProgramArgs {
    /// Build the nodes in release mode.
    #[arg(long)]
    release: bool,
    /// Run this program instead of building `kv`.
    #[arg(long, value_name = "PATH", conflicts_with = "release")]
    program: Option<PathBuf>,
}

impl ProgramArgs {
    /// Returns what is built in release mode, or not, unless `program` is given.
    pub(crate) const fn of(release: bool, program: Option<PathBuf>) -> Self {
        Self { release, program }
    }

    /// Builds the program with cargo's own progress on the terminal, and returns its path.
    pub(crate) fn prepare(&self) -> anyhow::Result<PathBuf> {
        if let Some(program) = &self.program {
            return std::path::absolute(program)
                .with_context(|| format!("cannot find {}", program.display()));
        }
        headline("build");
        build(self.release)
    }

    /// Returns the options as they were given, to be repeated.
    pub(crate) fn shown(&self) -> String {
        match &self.program {
            Some(program) => format!(" --program {}", program.display()),
            None if self.release => " --release".to_owned(),
            None => String::new(),
        }
    }
}

fn build(release: bool) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(cargo_path());
    command
        .args(["build", "--locked", "-p", PACKAGE, "--bin", PROGRAM])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root()?)
        .stdout(Stdio::piped());
    if release {
        command.arg("--release");
    }
    let mut build = command.spawn().context("cannot run cargo build")?;
    let mut found = None;
    if let Some(messages) = build.stdout.take() {
        for line in BufReader::new(messages).lines() {
            let line = line.context("cannot read what cargo writes")?;
            found = executable(&line).or(found);
        }
    }
    let status = build.wait().context("cargo build was lost")?;
    if !status.success() {
        bail!("`cargo build -p {PACKAGE} --bin {PROGRAM}` ended with {status}");
    }
    found.with_context(|| format!("cargo built no program called {PROGRAM}"))
}

/// Reads one of cargo's JSON messages: the path, if it is about our program.
fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_ours = message["reason"] == "compiler-artifact"
        && message["target"]["name"] == PROGRAM
        && message["target"]["kind"]
            .as_array()?
            .iter()
            .any(|kind| kind == "bin");
    is_ours
        .then(|| message["executable"].as_str().map(PathBuf::from))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_the_messages() {
        let message = |name: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"executable":"target/debug/{name}"}}"#
            )
        };
        assert_eq!(
            executable(&message("kv", "bin")),
            Some(PathBuf::from("target/debug/kv"))
        );
        assert_eq!(executable(&message("embed", "bin")), None);
        assert_eq!(executable(&message("kv", "lib")), None);
        assert_eq!(executable("   Compiling kv"), None);
    }
}

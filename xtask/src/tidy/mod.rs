//! `cargo xtask tidy`: the invariants of the repository that a program can check.
//!
//! Each rule is a pure function from text to [`Finding`]s, with a unit test that shows it failing:
//! `layers` reads the dependency graph, `source` tokens, `surface` public signatures, `rules` the names
//! of tests, `text` the README and whatever else is tracked. What a compiler or clippy checks is not repeated here.

mod layers;
mod rules;
mod source;
mod surface;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use console::style;
use serde_json::Value;

use crate::check::{cargo_path, root};
use crate::clock::{Stopwatch, human};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    place: String,
    rule: &'static str,
    message: String,
    warning: bool,
}

impl Finding {
    fn error(place: impl Into<String>, rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            rule,
            message: message.into(),
            warning: false,
        }
    }

    fn warning(place: impl Into<String>, rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::error(place, rule, message)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [{}] {}", self.place, self.rule, self.message)
    }
}

/// Checks the repository; `cli` is our own command line, which the README may mention.
pub(crate) fn run(cli: &clap::Command) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    let root = root()?;
    let metadata = metadata(&root)?;
    let files = files(&root, Files::NotIgnored)?;
    let mut findings = layers::check(&metadata);
    let (mut rust, mut tested) = (0, rules::Tested::default());
    for path in &files {
        let Ok(content) = std::fs::read(root.join(path)) else {
            continue; // deleted and not yet committed
        };
        let Ok(content) = String::from_utf8(content) else {
            continue;
        };
        findings.extend(text::check(path, &content));
        if path.ends_with(".rs") {
            rust += 1;
            findings.extend(source::check(path, &content));
            findings.extend(surface::check(path, &content));
            tested.read(path, &content);
        }
        if path == "README.md" {
            findings.extend(text::check_commands(path, &content, cli, &metadata));
        }
    }
    findings.extend(tested.check());
    let (warnings, errors): (Vec<_>, Vec<_>) = findings.iter().partition(|found| found.warning);
    for found in &warnings {
        println!("{} {found}", style("warning:").yellow());
    }
    for found in &errors {
        println!("{} {found}", style("broken:").red().bold());
    }
    println!(
        "tidy: {} files ({rust} Rust), {} broken, {} warnings, {}",
        files.len(),
        errors.len(),
        warnings.len(),
        human(watch.elapsed())
    );
    if !errors.is_empty() {
        bail!("{} rules of the repository are broken", errors.len());
    }
    Ok(())
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let output = Command::new(cargo_path())
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata wrote no JSON")
}

/// Which files of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// Those git tracks.
    Tracked,
    /// Also those about to be added.
    NotIgnored,
}

/// Lists files of the repository: as git knows them, or all of them where git is absent.
pub(crate) fn files(root: &Path, which: Files) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached"]);
    if which == Files::NotIgnored {
        command.args(["--others", "--exclude-standard"]);
    }
    let git = command.current_dir(root).output();
    let mut files: Vec<String> = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
        _ => {
            let mut found = Vec::new();
            walk(root, root, &mut found)?;
            found
        }
    };
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("{}", directory.display()))?;
    for entry in entries {
        let path: PathBuf = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "clusterkit-data" {
                walk(root, &path, found)?;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

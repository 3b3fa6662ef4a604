//! Rules about any tracked text: nothing of one machine in it, and no command that does not exist.
//!
//! Rust files are also read by `source` and `surface`.

use serde_json::Value;

use super::Finding;

/// The only registry a lock file may name.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Directories of one machine. Written in two halves, so that this file does not break the rule.
const MACHINE: [(&str, &str); 4] = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/home/", "user/"),
    ("/tmp/", "land"),
];

pub(super) fn check(path: &str, content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in content.lines().enumerate() {
        let place = || format!("{path}:{}", number + 1);
        for (head, tail) in MACHINE {
            let needle = format!("{head}{tail}");
            if mentions_directory(line, &needle) {
                let message = format!("names `{needle}`, a directory of one machine");
                findings.push(Finding::error(place(), "machine", message));
            }
        }
        if path == "Cargo.lock"
            && let Some(source) = line.strip_prefix("source = ")
            && source.trim_matches('"') != REGISTRY
        {
            let message = format!("takes a package from {source}, not from crates.io");
            findings.push(Finding::error(place(), "registry", message));
        }
        if path.ends_with(".cargo/config.toml") && replaces_registry(line) {
            let message = "replaces or adds a registry";
            findings.push(Finding::error(place(), "registry", message));
        }
    }
    findings
}

/// Tells whether `line` has `directory` at the start of an absolute path (not inside a longer one).
fn mentions_directory(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}'))
    })
}

fn replaces_registry(line: &str) -> bool {
    let line = line.trim();
    [
        "[source",
        "[registr",
        "replace-with",
        "index =",
        "registry =",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

/// Checks that every `cargo` command the README shows exists.
pub(super) fn check_commands(
    path: &str,
    content: &str,
    cli: &clap::Command,
    metadata: &Value,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in content.lines().enumerate() {
        for (at, _) in line.match_indices("cargo ") {
            let shown = line[at..]
                .split(['`', '#', ';', '|', '&', ')'])
                .next()
                .unwrap_or_default();
            let words: Vec<&str> = shown.split_whitespace().skip(1).collect();
            if let Some(message) = check_command(&words, cli, metadata) {
                let place = format!("{path}:{}", number + 1);
                findings.push(Finding::error(place, "commands", message));
            }
        }
    }
    findings
}

fn check_command(words: &[&str], cli: &clap::Command, metadata: &Value) -> Option<String> {
    let (&first, rest) = words.split_first()?;
    if first == "xtask" {
        return check_xtask(rest, cli);
    }
    let packages = metadata["packages"].as_array()?;
    for pair in rest.windows(2) {
        let exists = match pair[0] {
            "-p" | "--package" => packages.iter().any(|package| package["name"] == pair[1]),
            "--bin" | "--example" => packages
                .iter()
                .flat_map(|package| package["targets"].as_array().into_iter().flatten())
                .any(|target| target["name"] == pair[1]),
            _ => true,
        };
        if !exists {
            return Some(format!(
                "`cargo {first} {} {}`: there is none",
                pair[0], pair[1]
            ));
        }
    }
    None
}

/// Checks the words after `cargo xtask`: tasks, tasks within tasks, and their options.
fn check_xtask(words: &[&str], cli: &clap::Command) -> Option<String> {
    let (mut command, mut path) = (cli, String::from("cargo xtask"));
    for (at, word) in words.iter().enumerate() {
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or(flag);
            let mut arguments = command.get_arguments();
            if flag != "help" && !arguments.any(|known| known.get_long() == Some(flag)) {
                return Some(format!("`{path}` has no option --{flag}"));
            }
        } else if let Some(task) = command.find_subcommand(word) {
            (command, path) = (task, format!("{path} {word}"));
        } else if at == 0 {
            return Some(format!("`{path} {word}` does not exist"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_directory_of_one_machine_is_refused() {
        let with = |head: &str, tail: &str| check("a.md", &format!("see {head}{tail}main"));
        assert_eq!(with("/wo", "rk/").len(), 1);
        assert_eq!(with("/ro", "ot/").len(), 1);
        assert!(with("https://example.org/net", "work/").is_empty());
        assert!(
            with("docs/wo", "rk/").is_empty(),
            "a path inside the repository"
        );
    }

    #[test]
    fn packages_come_from_crates_io() {
        let lock = |source: &str| check("Cargo.lock", &format!("source = \"{source}\"")).len();
        assert_eq!(lock(REGISTRY), 0);
        assert_eq!(lock("registry+https://mirror.example/index"), 1);
        assert_eq!(lock("git+https://github.com/a/b#1234"), 1);
        assert_eq!(check(".cargo/config.toml", "[source.crates-io]").len(), 1);
        assert_eq!(check(".cargo/config.toml", "xtask = \"run\"").len(), 0);
    }

    #[test]
    fn readme_shows_only_commands_that_exist() {
        let cli = Command::new("cargo xtask")
            .subcommand(Command::new("demo").arg(Arg::new("keep").long("keep")))
            .subcommand(
                Command::new("bench")
                    .subcommand(Command::new("failover").arg(Arg::new("profile").long("profile"))),
            );
        let metadata = json!({"packages": [{"name": "kv-store", "targets": [{"name": "kv"}]}]});
        let check = |line: &str| check_commands("README.md", line, &cli, &metadata).len();
        assert_eq!(check("run `cargo xtask demo --keep` and look"), 0);
        assert_eq!(check("run `cargo xtask deploy`"), 1);
        assert_eq!(check("$ cargo xtask demo --fast"), 1);
        assert_eq!(check("cargo xtask bench failover --profile fast"), 0);
        assert_eq!(check("cargo xtask bench --profile fast"), 1);
        assert_eq!(check("cargo xtask bench failover --fast"), 1);
        assert_eq!(check("cargo run -p kv-store --bin kv"), 0);
        assert_eq!(check("cargo run -p kv-shop"), 1);
        assert_eq!(check("cargo run --bin kw"), 1);
    }
}

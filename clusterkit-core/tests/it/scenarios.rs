//! Narrated transcripts of the state machine: each file of `scenarios/` is prose, commands
//! (`> command`) and what they answered. `BLESS=1` rewrites the answers; a diff is to be explained.
//!
//! Every step also goes through the checks of [`crate::world`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::event::{Event, EventKind, PartitionChanged};
use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::partition::Stage;

use crate::world::{
    AT, World, activate, bootstrap, disk, drain, join, mark_down, mark_up, plan, remove, restarted,
    spec,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scenarios")
}

fn check(name: &str) {
    let path = folder().join(name).with_extension("txt");
    let script = std::fs::read_to_string(&path).unwrap();
    let mut world = World::default();
    let mut told = String::new();
    for line in script.lines() {
        // Answers stand indented below their command.
        if line.starts_with("  ") {
            continue;
        }
        writeln!(told, "{line}").unwrap();
        if let Some(words) = line.strip_prefix("> ") {
            let words: Vec<&str> = words.split_whitespace().collect();
            told.push_str(&step(&mut world, &words));
        }
    }
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(&path, &told).unwrap();
    }
    assert!(
        told == script,
        "{} tells another story:\n{told}",
        path.display()
    );
}

#[test]
fn every_transcript_still_holds() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    names.sort_unstable();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        check(&name);
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn numbers(words: &[&str]) -> Vec<u64> {
    words.iter().map(|word| number(word)).collect()
}

/// Reads rows like `0=1,2 1=2,3`.
fn rows(words: &[&str]) -> Vec<(u32, Vec<u64>)> {
    let row = |word: &&str| {
        let (id, row) = word.split_once('=').unwrap();
        let row: Vec<&str> = row.split(',').collect();
        (id.parse().unwrap(), numbers(&row))
    };
    words.iter().map(row).collect()
}

fn step(world: &mut World, words: &[&str]) -> String {
    let (verb, rest) = words.split_first().unwrap();
    let command = match *verb {
        "form" => bootstrap(
            number(rest[0]).try_into().unwrap(),
            number(rest[1]).try_into().unwrap(),
        ),
        "join" => join(spec(number(rest[0])), None),
        "wiped" => {
            let mut wiped = spec(number(rest[0]));
            wiped.disk = disk(100 + number(rest[0]));
            join(wiped, rest.get(1).map(|word| number(word)))
        }
        "activate" => activate(number(rest[0])),
        "restart" => restarted(&world.state, number(rest[0])),
        "down" => mark_down(&numbers(rest)),
        "up" => mark_up(&numbers(rest)),
        "evict" => Command::Evict {
            nodes: numbers(rest).into_iter().map(RaftId).collect(),
            at: AT,
        },
        "drain" => drain(number(rest[0]), true, rest.contains(&"leave")),
        "undrain" => drain(number(rest[0]), false, false),
        "remove" => remove(number(rest[0]), rest.contains(&"force")),
        "plan" => {
            let rows = rows(rest);
            let rows: Vec<(u32, &[u64])> = rows.iter().map(|(id, row)| (*id, &row[..])).collect();
            plan(&world.state, &rows)
        }
        "start" => return tell(&Ok(world.start_all()), world),
        "synced" => return tell(&Ok(world.sync(number(rest[0]))), world),
        "switch" => return tell(&Ok(world.switch()), world),
        "revert" => return tell(&Ok(world.revert()), world),
        "release" => {
            world.release();
            return show(world);
        }
        "write" => {
            world.write();
            return String::new();
        }
        "show" => return show(world),
        other => panic!("no command is called {other}"),
    };
    let outcome = world.apply(command);
    tell(&outcome, world)
}

fn tell(outcome: &Result<Applied, Rejected>, world: &World) -> String {
    let applied = match outcome {
        Ok(applied) => applied,
        Err(rejected) => return format!("  rejected: {rejected}\n"),
    };
    let mut text = format!("  epoch {}", applied.epoch);
    if let Some(node) = applied.node {
        write!(text, ", node {node}").unwrap();
    }
    text.push('\n');
    for (id, stage) in &applied.refused {
        writeln!(text, "  refused: partition {id}, stage {stage}").unwrap();
    }
    for event in &applied.events {
        if let Some(line) = event_line(event) {
            writeln!(text, "  {line}").unwrap();
        }
    }
    if world
        .state
        .partitions()
        .iter()
        .any(|partition| !partition.is_unplaced())
    {
        text.push_str(&show(world));
    }
    text
}

fn event_line(event: &Event) -> Option<String> {
    Some(match &event.kind {
        EventKind::PartitionChanged(change) => change_line(change),
        EventKind::NodeJoined {
            node, cluster_size, ..
        } => {
            format!("event: node {node} joined, {cluster_size} nodes")
        }
        EventKind::NodeRejoined { node, verdicts, .. } => {
            let verdicts: Vec<String> = verdicts
                .iter()
                .map(|(id, verdict)| format!("{id} {verdict:?}"))
                .collect();
            format!("event: node {node} rejoined: {}", verdicts.join(", "))
        }
        EventKind::NodeLeft {
            node,
            reason,
            partitions_owned,
            partitions_replica,
        } => format!(
            "event: node {node} left ({reason:?}), led {}, followed {}",
            list(partitions_owned),
            list(partitions_replica),
        ),
        EventKind::RebalanceStarted {
            partitions_to_move, ..
        } => {
            format!("event: rebalance of {partitions_to_move} started")
        }
        EventKind::RebalanceCompleted {
            partitions_moved, ..
        } => {
            format!("event: rebalance completed, {partitions_moved} moved")
        }
        EventKind::PartitionLost {
            partition,
            recovered_from,
        } => {
            format!("event: partition {partition} lost, recovered from {recovered_from:?}")
        }
        EventKind::ClusterHealthChanged(health) => format!(
            "event: cluster {:?}, {} of {} up",
            health.status, health.healthy, health.total
        ),
        _ => return None,
    })
}

fn change_line(change: &PartitionChanged) -> String {
    let PartitionChanged {
        partition,
        stage,
        target,
        role,
        reason,
        ..
    } = change;
    let mut line =
        format!("event: partition {partition} {stage:?} on {target} as {role:?} ({reason:?})");
    if matches!(stage, clusterkit_core::event::ChangeStage::Syncing) {
        let sources: Vec<String> = change.sources.iter().map(ToString::to_string).collect();
        write!(line, " from {}", sources.join(" ")).unwrap();
        if let Some(since) = change.behind_since {
            write!(line, " since epoch {since}").unwrap();
        }
    }
    line
}

fn list(ids: &[PartitionId]) -> String {
    if ids.is_empty() {
        return String::from("nothing");
    }
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(" ")
}

/// Shows each partition: the primary in brackets, `~` before members that are behind.
fn show(world: &World) -> String {
    let mut text = String::new();
    for (id, partition) in world.state.partitions_by_id() {
        write!(text, "  {id}: ").unwrap();
        match partition.primary {
            Some(primary) => write!(text, "[{primary}]").unwrap(),
            None => text.push_str("[-]"),
        }
        for &node in &partition.replicas {
            let mark = if partition.is_behind(node) { "~" } else { "" };
            write!(text, " {mark}{node}").unwrap();
        }
        match &partition.stage {
            Stage::Stable => {}
            Stage::Syncing(migration) => {
                let target: Vec<String> =
                    migration.target.iter().map(ToString::to_string).collect();
                write!(text, " syncing to {}", target.join(" ")).unwrap();
            }
            Stage::Cleanup { leaving, .. } => {
                let leaving: Vec<String> = leaving.iter().map(ToString::to_string).collect();
                write!(text, " cleanup of {}", leaving.join(" ")).unwrap();
            }
        }
        writeln!(text, " (epoch {})", partition.epoch).unwrap();
    }
    text
}

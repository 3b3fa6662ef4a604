//! The bugs that must be found, and within how many seeds.
//!
//! Where each is planted stands in `clusterkit_core::planted`. A limit is about ten times what it
//! took when the row was written, so that a simulator that has become blind is noticed.

use clusterkit_sim::Level;
use console::style;

use crate::Cli;
use crate::clock::Stopwatch;
use crate::runner::Pool;

/// One bug of the table.
struct Row {
    name: &'static str,
    level: Level,
    /// Within how many seeds it must be found.
    limit: u64,
    /// What it breaks.
    breaks: &'static str,
}

const fn core(name: &'static str, limit: u64, breaks: &'static str) -> Row {
    let level = Level::Core;
    Row {
        name,
        level,
        limit,
        breaks,
    }
}

const fn full(name: &'static str, limit: u64, breaks: &'static str) -> Row {
    let level = Level::Full;
    Row {
        name,
        level,
        limit,
        breaks,
    }
}

const TABLE: &[Row] = &[
    core(
        "promote-out-of-sync",
        100,
        "a primary lacks acknowledged writes",
    ),
    core(
        "switch-before-synced",
        20,
        "a member lacks acknowledged writes",
    ),
    core(
        "forget-plan",
        200,
        "a new leader leaves the plan it finds alone",
    ),
    core("reuse-raft-id", 50, "two disks share one internal id"),
    core(
        "accept-late-answer",
        500,
        "an answer about an earlier stage counts",
    ),
    core("never-revert", 200, "a move whose target died stays open"),
    core(
        "revert-keeps-epoch",
        100,
        "writers of a move called off are not fenced",
    ),
    core(
        "release-before-switch",
        20,
        "a member is asked to let go of its copy",
    ),
    core("skip-event-on-resume", 20, "a node misses an event"),
    core(
        "plan-on-any-epoch",
        50,
        "a plan made on another topology counts",
    ),
    core(
        "copy-while-protected",
        50,
        "copies start while too many nodes are down",
    ),
    core(
        "max-down-off-by-one",
        50,
        "copies start while one node too many is down",
    ),
    core("ignore-pause", 500, "what an operator has paused begins"),
    core(
        "epoch-stands-still",
        20,
        "the topology changes and its number does not",
    ),
    core(
        "apply-depends-on-process",
        100,
        "replicas come to different states",
    ),
    core(
        "rejoin-is-current",
        50,
        "a copy that lacks writes is called current",
    ),
    core(
        "failover-keeps-epoch",
        20,
        "one epoch of a partition has two primaries",
    ),
    core(
        "condemn-the-heard",
        20,
        "a node heard within its lease is declared down",
    ),
    core(
        "condemn-despite-sighting",
        200,
        "a node that only the leader misses is declared down",
    ),
    core(
        "skip-lease-wait",
        500,
        "two processes hold a token of one partition",
    ),
    core(
        "renew-after-expiry",
        200,
        "two processes hold a token of one partition",
    ),
    core(
        "forget-margin",
        500,
        "two processes hold a token of one partition",
    ),
    core(
        "grant-on-deposed-leader",
        200,
        "two processes hold a token of one partition",
    ),
    core(
        "ignore-fence",
        50,
        "two processes hold a token of one partition",
    ),
    full("skip-fsync", 100, "the log is lost with the power"),
    full(
        "ack-before-fsync",
        100,
        "what Raft counts on is not on disk",
    ),
    full(
        "stale-read",
        100,
        "a current read misses acknowledged writes",
    ),
    full("two-bootstraps", 20, "one cluster becomes two"),
    full("reuse-raft-id", 100, "two disks share one internal id"),
    full("skip-event-on-resume", 20, "a hook is never told an event"),
    full("quorum-off-by-one", 100, "two majorities need not meet"),
    full("etag-never-changes", 10, "clients keep the map they have"),
    full("kv-ack-before-copies", 20, "acknowledged records are lost"),
];

/// Plants every bug of the table in turn. Returns whether each was found in time.
pub(crate) fn run(cli: &Cli) -> Result<bool, String> {
    let watch = Stopwatch::start();
    let rows = TABLE
        .iter()
        .filter(|row| cli.plant.as_deref().is_none_or(|only| only == row.name));
    let (mut found_all, mut bugs) = (true, 0);
    println!(
        "{:<26} {:<5} {:>8} {:>7}  {:<28} breaks",
        "bug", "level", "found in", "limit", "rule"
    );
    for row in rows {
        bugs += 1;
        let found = find(cli, row)?;
        let (seeds, rule) = match &found {
            Some((seeds, rule)) => (seeds.to_string(), rule.as_str()),
            None => (String::from("-"), "not found"),
        };
        let rule = if found.is_some() {
            style(rule).green()
        } else {
            style(rule).red().bold()
        };
        println!(
            "{:<26} {:<5} {seeds:>8} {:>7}  {rule:<28} {}",
            row.name, row.level, row.limit, row.breaks
        );
        found_all &= found.is_some();
    }
    let wall = watch.elapsed().as_secs_f64();
    println!(
        "{bugs} bugs, {} found in time, {wall:.1} wall seconds",
        if found_all { "all" } else { "NOT all" }
    );
    Ok(found_all)
}

/// Runs seeds with the bug of `row` until one fails. Returns how many it took, and which promise.
fn find(cli: &Cli, row: &Row) -> Result<Option<(u64, String)>, String> {
    let cli = Cli {
        level: Some(row.level),
        nodes: None,
        ..cli.clone()
    };
    let pool = Pool::new(&cli, Some(row.name));
    // A few for each worker, and of those that fail the first: however many workers there are.
    let (step, each) = match row.level {
        Level::Core => (40, 20),
        Level::Full => (4, 1),
    };
    let mut at = 1;
    while at <= row.limit {
        let end = (at + step).min(row.limit + 1);
        let mut found: Option<(u64, String)> = None;
        let pieces = (at..end).step_by(each);
        let pieces = pieces.map(|from| (from, (end - from).min(each as u64)));
        pool.run(pieces.collect(), |outcome| {
            if let Some(violation) = outcome.violation
                && found.as_ref().is_none_or(|(seed, _)| outcome.seed < *seed)
            {
                found = Some((outcome.seed, violation.rule));
            }
            true
        })?;
        if found.is_some() {
            return Ok(found);
        }
        at = end;
    }
    Ok(None)
}

//! `cargo xtask bench steady`: nothing fails, and nobody may be taken for dead.
//!
//! A cluster under writes, on a machine whose every core is kept busy by threads that do nothing
//! but compute. Verdicts and elections are read from the logs of the nodes; a single node declared
//! down is a failure of the bench, because every one of them runs all the time.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, available_parallelism};
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::failover::{Subject, load};
use super::figures::{millis, percentile, rounded};
use crate::clock::{Stopwatch, human};
use crate::harness::{Line, Manner, ProgramArgs};
use crate::{runtime, ui};

/// How often a record is written.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// How long a write may take before it counts as failed.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Options of `cargo xtask bench steady`.
#[derive(Args)]
pub(crate) struct SteadyArgs {
    /// How long the cluster is watched, in minutes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    minutes: u16,
    /// How many nodes the cluster has.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How many threads compute all the time [default: one for every core].
    #[arg(long)]
    burners: Option<usize>,
    /// Print the figures as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    manner: Manner,
    /// Measure the nodes as cargo builds them for development, not the release build.
    #[arg(long)]
    debug: bool,
    /// Measure this program.
    #[arg(long, value_name = "PATH", conflicts_with = "debug")]
    program: Option<std::path::PathBuf>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Lines that declare somebody down.
    removals: Vec<String>,
    /// How often a node began to lead.
    elections: usize,
    /// How long each accepted write took.
    writes: Vec<Duration>,
    /// How many writes were not accepted in time.
    failed: usize,
}

impl Seen {
    fn take(&mut self, line: &Line) {
        if line.text.contains("declared down") {
            self.removals.push(format!("{}: {}", line.node, line.text));
        } else if line.text.contains("leads the cluster term=") {
            self.elections += 1;
        }
    }
}

/// Runs the bench.
pub(crate) fn run(args: &SteadyArgs) -> anyhow::Result<()> {
    let binary = ProgramArgs::of(!args.debug, args.program.clone()).prepare()?;
    let cores = available_parallelism().map_or(1, usize::from);
    let burners = args.burners.unwrap_or(cores);
    let profile = args.manner.profile;
    let lasts = Duration::from_secs(60 * u64::from(args.minutes));
    ui::headline(&format!(
        "bench steady: {} for {} nodes, profile {}, {burners} threads compute on {cores} cores",
        human(lasts),
        args.nodes,
        profile.name(),
    ));
    let bar = ui::bar("seconds watched", lasts.as_secs());
    let burning = Burners::start(burners);
    let mut seen = Seen::default();
    let watching = watch(&binary, args, lasts, &bar, &mut seen);
    let ended = runtime::run(watching);
    let load = load();
    drop(burning);
    bar.finish_and_clear();
    ended?;

    let shown = |percent| percentile(&seen.writes, percent).map_or_else(String::new, millis);
    let header = [
        "declared down",
        "elections",
        "writes",
        "failed",
        "p50",
        "p99",
        "max",
    ];
    let mut row: Vec<String> = [
        seen.removals.len(),
        seen.elections,
        seen.writes.len(),
        seen.failed,
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    row.extend([50, 99, 100].map(shown));
    print!("{}", ui::table(&[header.map(str::to_owned).to_vec(), row]));
    println!("\n  load {load} at the end; nobody was killed, stopped or cut off");
    if args.json {
        let document = json!({
            "profile": profile.name(),
            "minutes": args.minutes,
            "burners": burners,
            "removals": seen.removals.len(),
            "elections": seen.elections,
            "writes": seen.writes.len(),
            "failed": seen.failed,
            "p50_ms": rounded(percentile(&seen.writes, 50)),
            "p99_ms": rounded(percentile(&seen.writes, 99)),
        });
        println!("{document}");
    }
    ensure!(
        seen.removals.is_empty(),
        "{} times a node that ran was declared down:\n{}",
        seen.removals.len(),
        seen.removals.join("\n")
    );
    Ok(())
}

async fn watch(
    binary: &Path,
    args: &SteadyArgs,
    lasts: Duration,
    bar: &ProgressBar,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut subject = Subject::form(binary, args.manner, usize::from(args.nodes)).await?;
    while let Ok(line) = subject.lines.try_recv() {
        seen.take(&line);
    }
    // Forming takes an election; what happened before there was a cluster is no removal.
    ensure!(
        seen.removals.is_empty(),
        "the cluster lost a node while it formed"
    );
    let begun = subject.watch.elapsed();
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        let passed = subject.watch.elapsed() - begun;
        bar.set_position(passed.as_secs());
        if passed >= lasts {
            break;
        }
        ticks.tick().await;
        let key = format!("steady/{}", number % 1_000);
        let took = Stopwatch::start();
        let write = subject.records.put(&key, b"value", WRITE_LIMIT);
        match timeout(WRITE_LIMIT, write).await {
            Ok(Ok(())) => seen.writes.push(took.elapsed()),
            Ok(Err(_)) | Err(_) => seen.failed += 1,
        }
        while let Ok(line) = subject.lines.try_recv() {
            seen.take(&line);
        }
    }
    subject.cluster.check_alive()?;
    subject.cluster.check_no_panic()?;
    if !seen.removals.is_empty() {
        let kept = subject.cluster.keep_directory();
        ui::say(&format!("logs in {}", kept.display()));
    }
    Ok(())
}

/// Threads that keep cores busy for as long as this lives.
struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let burn = |stop: Arc<AtomicBool>| {
            let mut value = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..10_000 {
                    value = black_box(value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
                }
            }
        };
        let threads = (0..count)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || burn(stop))
            })
            .collect();
        Self { stop, threads }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It computes and cannot fail.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_elections_are_recognised() {
        let mut seen = Seen::default();
        for text in [
            "INFO clusterkit::lead: leads the cluster term=2",
            "WARN clusterkit::lead: declared down nodes=node-2",
            "INFO started",
        ] {
            seen.take(&Line {
                node: String::from("node-1"),
                at: Duration::ZERO,
                text: text.into(),
            });
        }
        assert_eq!((seen.removals.len(), seen.elections), (1, 1));
    }
}

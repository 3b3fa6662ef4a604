//! Many seeds over several worker processes: seeds that failed once first, then those asked for.
//!
//! A worker is this same program; it prints one line a seed. A worker that dies or says nothing
//! for too long is a violation of the seed it was at, and the seeds after it go to another one.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clusterkit_sim::{FaultSchedule, Level, Outcome, Violation};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Cli;
use crate::clock::Stopwatch;

/// Seeds that failed once: level, seed, and what was found.
const REGRESSIONS: &str = include_str!("../regressions.txt");

/// How long one seed may take, and as long again for every hour asked for.
const SEED_MAX: Duration = Duration::from_secs(300);
/// How many violations are made small and printed whole; further ones are counted.
const SHOWN_MAX: usize = 5;
/// How many runs making one schedule small may take.
const SHRINK_TRIES: u32 = 400;

/// Where no level is asked for, one seed of `full` is run for so many of `core`.
const CORE_SEEDS_PER_FULL: u64 = 20;

/// What running many seeds came to.
#[derive(Default)]
struct Tally {
    seeds: u64,
    violations: usize,
    virtual_time: Duration,
}

/// Runs the regressions and the seeds asked for. Returns whether every promise held.
pub(crate) fn run(cli: &Cli) -> Result<bool, String> {
    let watch = Stopwatch::start();
    let mut tally = Tally::default();
    let levels = match cli.level {
        Some(level) => vec![(level, cli.seeds)],
        None => vec![
            (Level::Core, cli.seeds),
            (Level::Full, cli.seeds.div_ceil(CORE_SEEDS_PER_FULL)),
        ],
    };
    for (level, seeds) in levels {
        let cli = Cli {
            level: Some(level),
            seeds,
            ..cli.clone()
        };
        run_level(&cli, level, &mut tally)?;
    }
    let Tally {
        seeds,
        violations,
        virtual_time,
    } = tally;
    let hours = virtual_time.as_secs_f64() / 3_600.0;
    let wall = watch.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {violations} violations, {hours:.1} virtual hours, {wall:.1} wall seconds"
    );
    Ok(violations == 0)
}

fn run_level(cli: &Cli, level: Level, tally: &mut Tally) -> Result<(), String> {
    let mut found = Vec::new();
    let mut hashes: BTreeMap<u64, u64> = BTreeMap::new();
    // Under other circumstances than their own they say nothing.
    let as_drawn = cli.nodes.is_none() && cli.hours.is_none();
    let regressions = if as_drawn {
        regressions(level)?
    } else {
        Vec::new()
    };
    let pool = Pool::new(cli, None);
    let times = if cli.twice { 2 } else { 1 };
    let bar = progress(regressions.len() as u64 + cli.seeds * times);
    let mut ranges: Vec<(u64, u64)> = regressions.iter().map(|&seed| (seed, 1)).collect();
    for _ in 0..times {
        ranges.extend(chunks(cli));
    }
    pool.run(ranges, |mut outcome| {
        bar.inc(1);
        tally.seeds += 1;
        tally.virtual_time += outcome.virtual_time;
        let (seed, hash) = (outcome.seed, outcome.trace_hash);
        let before = hashes.insert(seed, hash).filter(|before| *before != hash);
        if let Some(before) = before.filter(|_| outcome.violation.is_none()) {
            let detail = format!("trace hash {hash:016x}, and {before:016x} before");
            outcome.violation = Some(Violation::new("same-every-time", detail, Duration::ZERO));
        }
        if outcome.violation.is_some() {
            // Not `bar.println`, which says nothing where there is no terminal.
            bar.suspend(|| println!("violation: seed {seed}: {}", rule(&outcome)));
            found.push(outcome);
        }
        true
    })?;
    bar.finish_and_clear();
    if cli.hashes {
        for (seed, hash) in &hashes {
            println!("{level} seed {seed} {hash:016x}");
        }
    }
    found.sort_by_key(|outcome| outcome.seed);
    for outcome in found.iter().take(SHOWN_MAX) {
        explain(cli, outcome)?;
    }
    let mut rules: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for outcome in &found {
        rules.entry(rule(outcome)).or_default().push(outcome.seed);
    }
    for (rule, seeds) in rules {
        let some: Vec<String> = seeds.iter().take(8).map(ToString::to_string).collect();
        println!("{rule}: {} seeds, {} ...", seeds.len(), some.join(" "));
    }
    tally.violations += found.len();
    Ok(())
}

fn rule(outcome: &Outcome) -> &str {
    outcome
        .violation
        .as_ref()
        .map_or("", |violation| &violation.rule)
}

fn progress(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let looks = "{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left {msg}";
    if let Ok(style) = ProgressStyle::with_template(looks) {
        bar.set_style(style);
    }
    bar
}

/// Reads the seeds that failed once at `level`.
fn regressions(level: Level) -> Result<Vec<u64>, String> {
    let lines = REGRESSIONS.lines().map(str::trim);
    let mut seeds = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let malformed = || format!("regressions.txt: `{line}` is not `level seed note`");
        let mut words = line.split_whitespace();
        let of: Level = words
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| malformed())?;
        let seed = words
            .next()
            .and_then(|seed| seed.parse().ok())
            .ok_or_else(malformed)?;
        if of == level {
            seeds.push(seed);
        }
    }
    Ok(seeds)
}

/// Cuts the seeds asked for into pieces for workers.
fn chunks(cli: &Cli) -> impl Iterator<Item = (u64, u64)> {
    let size = match cli.level() {
        Level::Core => 250,
        // A fresh process for every few: what one run leaves behind must not reach the next.
        Level::Full => 5,
    };
    let end = cli.from.saturating_add(cli.seeds);
    (cli.from..end)
        .step_by(size)
        .map(move |from| (from, (end - from).min(size as u64)))
}

/// Makes the schedule of a violation small and prints how to see it again.
fn explain(cli: &Cli, outcome: &Outcome) -> Result<(), String> {
    let Some(violation) = &outcome.violation else {
        return Ok(());
    };
    let (seed, level) = (outcome.seed, outcome.level);
    println!(
        "\n{} seed {seed}: {violation}",
        style("violation:").red().bold()
    );
    let nodes = cli
        .nodes
        .map(|nodes| format!(" --nodes {nodes}"))
        .unwrap_or_default();
    let hours = cli
        .hours
        .map(|hours| format!(" --hours {hours}"))
        .unwrap_or_default();
    println!("  again: cargo xtask sim --level {level}{nodes}{hours} --seed {seed} --trace");
    let Some(whole) = faults_of(cli, seed) else {
        return Ok(());
    };
    let pool = Pool::new(cli, None);
    let mut failed = None;
    let shrunk = whole.shrink(SHRINK_TRIES, |faults| match pool.once(seed, Some(faults)) {
        Ok(again) => rule(&again) == violation.rule,
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    if let Some(error) = failed {
        println!("  its faults could not be made small: {error}");
    }
    let (left, all) = (shrunk.schedule.faults().len(), whole.faults().len());
    println!(
        "  {left} of its {all} faults are enough ({} runs); again with these, from standard input: --faults",
        shrunk.tries
    );
    for fault in shrunk.schedule.faults() {
        println!("    {fault}");
    }
    Ok(())
}

/// Returns the faults that `seed` draws. None where drawing them needs the run, and that crashes.
fn faults_of(cli: &Cli, seed: u64) -> Option<FaultSchedule> {
    crate::worker::faults(cli, seed)
}

/// Worker processes, so many at once.
pub(crate) struct Pool<'a> {
    cli: &'a Cli,
    plant: Option<&'a str>,
}

impl<'a> Pool<'a> {
    /// Returns a pool whose workers run with `plant` planted.
    pub(crate) const fn new(cli: &'a Cli, plant: Option<&'a str>) -> Self {
        Self { cli, plant }
    }

    /// Runs every range of seeds, `(from, count)`, and hands each outcome to `each`, which says
    /// whether to go on.
    pub(crate) fn run(
        &self,
        ranges: Vec<(u64, u64)>,
        mut each: impl FnMut(Outcome) -> bool,
    ) -> Result<(), String> {
        let queue = Mutex::new(ranges.into_iter());
        let next = || queue.lock().ok().and_then(|mut queue| queue.next());
        std::thread::scope(|scope| {
            let (send, outcomes) = channel();
            for _ in 0..self.cli.jobs.max(1) {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    while let Some((from, count)) = next() {
                        if !self.work_off(from, count, &send) {
                            return;
                        }
                    }
                });
            }
            drop(send);
            for outcome in outcomes {
                if !each(outcome?) {
                    // Workers notice when they hand over their next outcome.
                    break;
                }
            }
            Ok(())
        })
    }

    /// Runs `count` seeds from `from` on, over as many workers as it takes. Returns whether
    /// anybody still listens.
    fn work_off(&self, from: u64, count: u64, send: &Sender<Result<Outcome, String>>) -> bool {
        let end = from + count;
        let mut at = from;
        while at < end {
            let mut worker = match self.start(at, end - at, None) {
                Ok(worker) => worker,
                Err(error) => {
                    let _ = send.send(Err(error));
                    return false;
                }
            };
            let lines = lines_of(&mut worker);
            while at < end {
                let outcome = match lines.recv_timeout(self.seed_max()) {
                    Ok(line) => line.parse::<Outcome>().map_err(|error| error.to_string()),
                    Err(RecvTimeoutError::Timeout) => Ok(self.died(
                        at,
                        &format!("nothing came of it within {:?}", self.seed_max()),
                    )),
                    Err(RecvTimeoutError::Disconnected) => {
                        let status = worker
                            .wait()
                            .map_or_else(|error| error.to_string(), |s| s.to_string());
                        Ok(self.died(at, &format!("its process ended with {status}")))
                    }
                };
                at += 1;
                let died = matches!(&outcome, Ok(outcome) if rule(outcome) == "processes-live");
                if send.send(outcome).is_err() {
                    let _ = worker.kill();
                    let _ = worker.wait();
                    return false;
                }
                if died {
                    let _ = worker.kill();
                    break;
                }
            }
            let _ = worker.wait();
        }
        true
    }

    /// Runs one seed in a process of its own.
    pub(crate) fn once(
        &self,
        seed: u64,
        faults: Option<&FaultSchedule>,
    ) -> Result<Outcome, String> {
        let mut worker = self.start(seed, 1, faults)?;
        let lines = lines_of(&mut worker);
        let line = lines.recv_timeout(self.seed_max());
        let _ = worker.kill();
        let _ = worker.wait();
        match line {
            Ok(line) => line.parse::<Outcome>().map_err(|error| error.to_string()),
            Err(_) => Ok(self.died(seed, "its process ended")),
        }
    }

    /// Returns how long a seed may take.
    fn seed_max(&self) -> Duration {
        SEED_MAX * (1 + self.cli.hours.unwrap_or(0))
    }

    fn died(&self, seed: u64, how: &str) -> Outcome {
        let violation = Violation::new("processes-live", how, Duration::ZERO);
        Outcome::new(seed, self.cli.level(), Some(violation), Duration::ZERO, 0)
    }

    fn start(
        &self,
        from: u64,
        seeds: u64,
        faults: Option<&FaultSchedule>,
    ) -> Result<Child, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command
            .arg("--worker")
            .args(["--level", self.cli.level().name()]);
        command.args(["--from", &from.to_string(), "--seeds", &seeds.to_string()]);
        if let Some(nodes) = self.cli.nodes {
            command.args(["--nodes", &nodes.to_string()]);
        }
        if let Some(hours) = self.cli.hours {
            command.args(["--hours", &hours.to_string()]);
        }
        if let Some(bug) = self.plant.or(self.cli.plant.as_deref()) {
            command.args(["--plant", bug]);
        }
        let stdin = if faults.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        if faults.is_some() {
            command.arg("--faults");
        }
        // A panic is in the outcome; its backtrace would only drown the others.
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut worker = command
            .spawn()
            .map_err(|error| format!("cannot start a worker: {error}"))?;
        if let (Some(faults), Some(mut stdin)) = (faults, worker.stdin.take()) {
            let written = stdin.write_all(faults.to_string().as_bytes());
            written.map_err(|error| format!("cannot hand faults to a worker: {error}"))?;
        }
        Ok(worker)
    }
}

/// Reads the lines of a worker beside whoever waits for them.
fn lines_of(worker: &mut Child) -> Receiver<String> {
    let (send, lines) = channel();
    if let Some(stdout) = worker.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
    }
    lines
}

//! `cargo xtask bench failover`: kill -9 of a primary, until its successor's hook is called and
//! until its successor has accepted a write.
//!
//! One process reads the clock: this one. Hooks, elections and verdicts are read from the logs of
//! the nodes line by line as they are written, writes are those of an ordinary client. Half the
//! nodes killed are the Raft leader. A cluster is formed anew every few runs, because a node that
//! fails again and again is taken back later each time, which is not what is measured.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::figures::{self, Run};
use crate::clock::{Stopwatch, human, seed_of_now};
use crate::harness::{Cluster, Line, Manner, ProgramArgs};
use crate::kv::Records;
use crate::random::Random;
use crate::{runtime, ui, verdict};

/// How many runs one cluster is used for: every node fails about twice within a minute.
const RUNS_PER_CLUSTER: usize = 6;
/// How long a cluster may take to form or to heal.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// How long a failover may take before the bench gives up.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// Options of `cargo xtask bench failover`.
#[derive(Args)]
pub(crate) struct FailoverArgs {
    /// How many nodes are killed, one after the other.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    runs: u16,
    /// How many nodes the cluster has.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// Print the figures as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Decides which nodes are killed (default: from the clock; always printed).
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    manner: Manner,
    /// Measure the nodes as cargo builds them for development, not the release build.
    #[arg(long)]
    debug: bool,
    /// Measure this program.
    #[arg(long, value_name = "PATH", conflicts_with = "debug")]
    program: Option<std::path::PathBuf>,
}

/// Runs the bench.
pub(crate) fn run(args: &FailoverArgs) -> anyhow::Result<()> {
    let binary = ProgramArgs::of(!args.debug, args.program.clone()).prepare()?;
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let profile = args.manner.profile;
    ui::headline(&format!(
        "bench failover: {} runs, {} nodes, profile {}, seed {seed}, load {}",
        args.runs,
        args.nodes,
        profile.name(),
        load()
    ));
    let progress = ui::bar("killing primaries", u64::from(args.runs));
    let watch = Stopwatch::start();
    let mut bench = Bench {
        binary: &binary,
        manner: args.manner,
        nodes: usize::from(args.nodes),
        random: Random::new(seed),
        progress: progress.clone(),
        runs: Vec::new(),
    };
    let ended = runtime::run(bench.run(usize::from(args.runs)));
    progress.finish_and_clear();
    if bench.runs.is_empty() {
        return ended;
    }
    print!("{}", figures::table(&bench.runs));
    println!(
        "\n  {} runs in {}; the budget of `{}` is {} for a follower, and an election before it for \
         the leader; load {}",
        bench.runs.len(),
        human(watch.elapsed()),
        profile.name(),
        human(profile.removal()),
        load()
    );
    // What was measured before it went wrong is shown, but is no result.
    ended?;
    if args.json {
        println!("{}", figures::document(&bench.runs, profile.name()));
    }
    Ok(())
}

/// Returns the load of the machine over the last minute: it belongs to every figure.
pub(super) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

struct Bench<'a> {
    binary: &'a Path,
    manner: Manner,
    nodes: usize,
    random: Random,
    progress: ProgressBar,
    runs: Vec<Run>,
}

/// A cluster that is healthy between runs.
pub(super) struct Subject {
    pub(super) cluster: Cluster,
    pub(super) records: Records,
    pub(super) lines: Receiver<Line>,
    pub(super) watch: Stopwatch,
}

impl Subject {
    /// Forms a cluster of `nodes` and waits until it is healthy.
    pub(super) async fn form(binary: &Path, manner: Manner, nodes: usize) -> anyhow::Result<Self> {
        let mut cluster = Cluster::new(binary, manner)?;
        let watch = Stopwatch::start();
        let lines = cluster.listen(watch);
        let ids: Vec<String> = (1..=nodes).map(|n| format!("node-{n}")).collect();
        for id in &ids {
            cluster.add(id)?;
        }
        let seeds: anyhow::Result<Vec<String>> = ids
            .iter()
            .map(|id| Ok(cluster.member(id)?.address()))
            .collect();
        let seeds = seeds?;
        for id in &ids {
            cluster.start(id, &seeds)?;
        }
        healthy(&mut cluster).await?;
        let records = Records::connect(&cluster.seeds()).await?;
        Ok(Self {
            cluster,
            records,
            lines,
            watch,
        })
    }
}

impl Bench<'_> {
    async fn run(&mut self, runs: usize) -> anyhow::Result<()> {
        while self.runs.len() < runs {
            self.progress.set_message("forming a cluster");
            let mut subject = Subject::form(self.binary, self.manner, self.nodes).await?;
            for _ in 0..RUNS_PER_CLUSTER.min(runs - self.runs.len()) {
                let measured = self.kill_one(&mut subject).await;
                let run = measured.with_context(|| {
                    let kept = subject.cluster.keep_directory();
                    format!("run {}, logs in {}", self.runs.len() + 1, kept.display())
                })?;
                self.runs.push(run);
                self.progress.inc(1);
            }
        }
        Ok(())
    }

    /// One run: a healthy cluster before, a healthy cluster after.
    async fn kill_one(&mut self, subject: &mut Subject) -> anyhow::Result<Run> {
        let of_leader = self.runs.len().is_multiple_of(2);
        let leader = subject.cluster.leader().await?;
        let victim = if of_leader {
            leader
        } else {
            let ids = subject.cluster.up();
            let followers: Vec<String> = ids.into_iter().filter(|id| *id != leader).collect();
            self.random.pick(&followers).context("no follower")?.clone()
        };
        let whom = if of_leader { "leader" } else { "follower" };
        self.progress
            .set_message(format!("killing {victim}, {whom}"));
        let view = subject.cluster.newest_view().await?;
        let owned = view.partitions.iter().enumerate();
        let owned = owned.filter(|(_, row)| row.primary.as_ref() == Some(&victim));
        let owned: Vec<u64> = owned.map(|(partition, _)| partition as u64).collect();
        let partition = *self
            .random
            .pick(&owned)
            .with_context(|| format!("{victim} is primary of nothing"))?;
        let key = self.key_of(&subject.records, partition)?;
        subject.records.put(&key, b"before", FAILOVER_LIMIT).await?;

        while subject.lines.try_recv().is_ok() {}
        let killed = subject.watch.elapsed();
        subject.cluster.kill(&victim)?;
        let mut notes = Notes::new(&victim, owned, partition, of_leader);
        let write = async {
            loop {
                let accepted = subject
                    .records
                    .write(&key, b"after", FAILOVER_LIMIT)
                    .await?;
                // The victim may have sent an answer just before it was killed.
                if accepted.node != victim {
                    return anyhow::Ok((accepted, subject.watch.elapsed()));
                }
            }
        };
        let read = async {
            while !notes.is_complete() {
                let line = subject.lines.recv().await;
                notes.take(&line.context("the nodes say no more")?);
            }
            anyhow::Ok(())
        };
        let both = async { tokio::try_join!(write, read) };
        let ended = timeout(FAILOVER_LIMIT, both).await;
        let Ok(done) = ended else {
            bail!("{victim} was not replaced within {FAILOVER_LIMIT:?}: {notes:?}");
        };
        let ((accepted, written), ()) = done?;
        ensure!(
            accepted.partition == partition,
            "the write went to partition {}, not {partition}",
            accepted.partition
        );
        let run = notes.run(of_leader, killed, written, &accepted.node)?;

        self.progress.set_message("healing");
        subject.cluster.restart(&victim)?;
        healthy(&mut subject.cluster).await?;
        Ok(run)
    }

    /// Returns a key of `partition` that was not used before.
    fn key_of(&mut self, records: &Records, partition: u64) -> anyhow::Result<String> {
        for _ in 0..1_000_000 {
            let key = format!("bench/{:016x}", self.random.next());
            if records.locate(&key).0 as u64 == partition {
                return Ok(key);
            }
        }
        bail!("no key of partition {partition} was found");
    }
}

async fn healthy(cluster: &mut Cluster) -> anyhow::Result<()> {
    let look = async |cluster: &Cluster| {
        verdict::healed(&cluster.views().await?, &cluster.up())?;
        cluster.all_ready().await
    };
    cluster
        .wait_until("a healthy cluster", HEAL_LIMIT, look)
        .await?;
    Ok(())
}

/// What the logs of the survivors have told so far.
#[derive(Debug)]
struct Notes {
    victim: String,
    partition: u64,
    /// Partitions of the victim whose new primary's hook was not called yet.
    waiting: Vec<u64>,
    /// When another node said that it leads; not waited for where the victim did not.
    elected: Option<Duration>,
    needs_election: bool,
    condemned: Option<Duration>,
    /// The node and time of the hook for `partition`.
    hook: Option<(String, Duration)>,
    last_hook: Option<Duration>,
}

impl Notes {
    fn new(victim: &str, owned: Vec<u64>, partition: u64, needs_election: bool) -> Self {
        Self {
            victim: victim.to_owned(),
            partition,
            waiting: owned,
            elected: None,
            needs_election,
            condemned: None,
            hook: None,
            last_hook: None,
        }
    }

    fn is_complete(&self) -> bool {
        let elected = !self.needs_election || self.elected.is_some();
        elected && self.condemned.is_some() && self.waiting.is_empty()
    }

    fn take(&mut self, line: &Line) {
        if line.node == self.victim {
            return;
        }
        if line.text.contains("leads the cluster term=") {
            self.elected = Some(line.at);
        } else if line.text.contains("declared down") && line.text.contains(&self.victim) {
            self.condemned.get_or_insert(line.at);
        } else if let Some(partition) = promotion(&line.text) {
            self.waiting.retain(|waiting| *waiting != partition);
            self.last_hook = Some(line.at);
            if partition == self.partition {
                self.hook
                    .get_or_insert_with(|| (line.node.clone(), line.at));
            }
        }
    }

    fn run(
        self,
        leader: bool,
        killed: Duration,
        written: Duration,
        writer: &str,
    ) -> anyhow::Result<Run> {
        let (hooked, hook) = self.hook.context("the hook was not called")?;
        ensure!(
            hooked == writer,
            "the hook was called on {hooked}, the write was accepted by {writer}"
        );
        let since = |at: Duration| at.saturating_sub(killed);
        Ok(Run {
            leader,
            elected: self.elected.map(since),
            condemned: since(self.condemned.context("nobody was declared down")?),
            hook: since(hook),
            last_hook: since(self.last_hook.context("no hook was called")?),
            write: since(written),
        })
    }
}

/// Returns the partition whose new primary, after a failover, this line is the hook of.
fn promotion(line: &str) -> Option<u64> {
    let (_, hook) = line.split_once(" hook ")?;
    let field = |name: &str| {
        let mut words = hook.split(' ');
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let is_promotion = field("stage") == Some("Switched")
        && field("role") == Some("Primary")
        && field("reason") == Some("Failover");
    field("partition")?.parse().ok().filter(|_| is_promotion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_of_a_new_primary_is_recognised() {
        let line = |stage: &str, role: &str| {
            format!(
                "2026-11-21T14:00:00.000001Z DEBUG clusterkit_examples::kv::server: hook \
                 partition=12 stage={stage} role={role} reason=Failover epoch=9"
            )
        };
        assert_eq!(promotion(&line("Switched", "Primary")), Some(12));
        assert_eq!(promotion(&line("Switched", "Replica")), None);
        assert_eq!(promotion(&line("Syncing", "Primary")), None);
        assert_eq!(promotion("INFO started"), None);
    }

    #[test]
    fn what_the_victim_still_says_does_not_count() {
        let ms = Duration::from_millis;
        let say = |notes: &mut Notes, node: &str, at: u64, text: &str| {
            notes.take(&Line {
                node: node.into(),
                at: ms(at),
                text: text.into(),
            });
        };
        let mut notes = Notes::new("node-1", vec![4, 5], 5, true);
        say(&mut notes, "node-1", 10, " leads the cluster term=2");
        assert_eq!(notes.elected, None);
        say(&mut notes, "node-2", 110, " leads the cluster term=3");
        say(&mut notes, "node-2", 300, " declared down nodes=node-1");
        for (partition, at) in [(5, 310), (4, 320)] {
            assert!(!notes.is_complete());
            let text =
                format!(" hook partition={partition} stage=Switched role=Primary reason=Failover");
            say(&mut notes, "node-3", at, &text);
        }
        assert!(notes.is_complete());
        let run = notes.run(true, ms(100), ms(330), "node-3").unwrap();
        let parts = [run.condemned, run.hook, run.last_hook, run.write];
        assert_eq!(parts, [ms(200), ms(210), ms(220), ms(230)]);
        assert_eq!(run.elected, Some(ms(10)));
    }
}

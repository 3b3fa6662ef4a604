//! A program that must never do a job twice at once: each partition is a job, run by whoever owns
//! the partition, one step after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clusterkit::{ClusterKit, Epoch, Hooks, NodeId, PartitionChange, PartitionId};
use clusterkit_sim::{Client, Process, Program, ProgramError, Violation};

/// How many jobs there are.
const JOBS: u32 = 8;
/// How long a step of a job takes, and how long a node rests between two looks at its jobs.
const STEP: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_millis(5);

/// How a node finds out whether a job is its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ownership {
    /// By a token, checked before and after every step. This is right.
    Token,
    /// By the topology it knows. This is wrong: it may know an old one.
    Topology,
}

/// The program, and what an observer of all its nodes sees.
#[derive(Debug)]
pub(crate) struct Scheduler {
    ownership: Ownership,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Which steps of each job counted, by whom, from when to when, in true time.
    steps: BTreeMap<PartitionId, Vec<Step>>,
    /// Who was given each epoch of each job, as the hooks of any node were told.
    owners: BTreeMap<(PartitionId, Epoch), NodeId>,
    broken: Option<Violation>,
}

#[derive(Clone, Debug)]
struct Step {
    node: u32,
    from: Duration,
    to: Duration,
}

impl Scheduler {
    /// Returns the program, with nothing done yet.
    #[must_use]
    pub(crate) fn new(ownership: Ownership) -> Self {
        Self {
            ownership,
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Returns hooks that write down whom each epoch of a job was given to.
    fn hooks(&self, process: &Process) -> Hooks {
        let (seen, observer) = (Arc::clone(&self.seen), process.observer());
        Hooks::new().on_partition_change(move |change| {
            // Here a real program fetches the state of the job where it has none.
            lock(&seen).hand_over(&change, observer.true_time());
            async { Ok(()) }
        })
    }

    /// Does a step of every job that is this node's, and counts it if it still is afterwards.
    async fn turn(&self, process: &Process, cluster: &ClusterKit) {
        for job in (0..JOBS).map(PartitionId) {
            let from = process.true_time();
            let work = async || tokio::time::sleep(STEP).await;
            let counts = match self.ownership {
                Ownership::Token => cluster.guard(job, async |_| work().await).await.is_ok(),
                Ownership::Topology => {
                    let mine = cluster.topology().is_primary(job);
                    if mine {
                        work().await;
                    }
                    mine
                }
            };
            if counts {
                let (node, to) = (process.number(), process.true_time());
                self.seen().note(job, Step { node, from, to });
            }
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn hand_over(&mut self, change: &PartitionChange, now: Duration) {
        let Some(owner) = &change.new_primary else {
            return;
        };
        let key = (change.partition, change.epoch);
        let first = self.owners.entry(key).or_insert_with(|| owner.id.clone());
        if *first != owner.id {
            let detail = format!("{key:?} belongs to {first} and to {}", owner.id);
            let violation = Violation::new("hooks-agree", detail, now);
            self.broken.get_or_insert(violation);
        }
    }

    fn note(&mut self, job: PartitionId, step: Step) {
        let steps = self.steps.entry(job).or_default();
        let others = steps.iter().filter(|other| other.node != step.node);
        for other in others {
            if other.from < step.to && step.from < other.to {
                let detail = format!("job {job}: {other:?} and {step:?}");
                let violation = Violation::new("one-at-a-time", detail, step.to);
                self.broken.get_or_insert(violation);
            }
        }
        steps.push(step);
    }
}

#[async_trait]
impl Program for Scheduler {
    async fn node(&self, process: Process) -> Result<(), ProgramError> {
        let hooks = process.watched(self.hooks(&process));
        let options = process.options().partitions(JOBS).hooks(hooks);
        let cluster = ClusterKit::start(options).await?;
        process.started(&cluster);
        loop {
            tokio::select! {
                () = process.stopped() => break,
                () = cluster.left() => break,
                () = tokio::time::sleep(REST) => self.turn(&process, &cluster).await,
            }
        }
        cluster.stop().await;
        Ok(())
    }

    fn check(&self, _now: Duration) -> Result<(), Violation> {
        self.seen().broken.take().map_or(Ok(()), Err)
    }

    async fn verify(&self, client: Client) -> Result<(), Violation> {
        // The cluster is well again: every job must be going on.
        let asked = client.true_time();
        let idle = || {
            let seen = self.seen();
            let goes_on = |steps: &Vec<Step>| steps.last().is_some_and(|step| step.to > asked);
            let jobs = (0..JOBS).map(PartitionId);
            jobs.filter(|job| !seen.steps.get(job).is_some_and(goes_on))
                .count()
        };
        while idle() > 0 {
            if client.true_time() > asked + Duration::from_secs(5) {
                let detail = format!("{} of {JOBS} jobs stand still", idle());
                return Err(Violation::new("jobs-go-on", detail, client.true_time()));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}

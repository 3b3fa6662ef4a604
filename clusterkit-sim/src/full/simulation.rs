//! [`Simulation`]: a user's program under faults, seed by seed.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::program::{Cast, Program};
use crate::{FaultKind, FaultSchedule, Level, Outcome, Report, Rng, RunOptions, Violation};

/// How many clients there are unless the user says so.
const CLIENTS: u32 = 2;
/// How many runs making a schedule small may take.
const SHRINK_TRIES: u32 = 200;

/// Runs a [`Program`] of the user's as a whole cluster, under faults, from seeds.
///
/// Nodes, their number, zones and faults are drawn from the seed unless they are set here. What is
/// always judged is what ClusterKit promises (`cargo xtask sim` judges the same): states that agree,
/// one leader a term, one primary an epoch, and a cluster that is well again after the last fault.
/// What the program promises it says itself, in [`Program::check`] and [`Program::verify`].
///
/// A seed means the same again in builds with `--cfg tokio_unstable` (`RUSTFLAGS`); in others nearly
/// so, since tokio's own chance cannot be seeded there.
///
/// The example `clusterkit-sim/examples/failover.rs` is a whole program with its promise.
pub struct Simulation {
    make: Make,
    options: RunOptions,
    clients: u32,
    unwanted: Vec<FaultKind>,
}

/// Makes the program of a run.
type Make = Arc<dyn Fn(&mut Rng) -> Arc<dyn Program> + Send + Sync>;

/// What many seeds came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Totals {
    /// How many seeds ran.
    pub seeds: u64,
    /// How many hours passed in them.
    pub virtual_hours: f64,
}

/// The first seed that broke a promise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed: [`Simulation::run`] shows it again.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// The fewest faults found that still break it, for [`Simulation::faults`].
    pub faults: FaultSchedule,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, violation) = (self.seed, &self.violation);
        write!(
            f,
            "seed {seed}: {violation}; with these faults:\n{}",
            self.faults
        )
    }
}

impl std::error::Error for Failure {}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("options", &self.options)
            .field("clients", &self.clients)
            .field("unwanted", &self.unwanted)
            .finish_non_exhaustive()
    }
}

impl Simulation {
    /// Returns the simulation of what `make` makes: one value for each run, with the chance that
    /// the program may use to draw what it does.
    #[must_use]
    pub fn new<P: Program>(make: impl Fn(&mut Rng) -> P + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(move |rng| Arc::new(make(rng))),
            options: RunOptions::default(),
            clients: CLIENTS,
            unwanted: Vec::new(),
        }
    }

    /// Sets how many nodes there are at the start, 1 to 200. Default: 1 to 9, as the seed says.
    #[must_use]
    pub const fn nodes(mut self, nodes: u32) -> Self {
        self.options.nodes = Some(nodes);
        self
    }

    /// Sets how many clients there are, at most 100. Default 2.
    #[must_use]
    pub const fn clients(mut self, clients: u32) -> Self {
        self.clients = clients;
        self
    }

    /// Sets the faults. Default: drawn from the seed.
    #[must_use]
    pub fn faults(mut self, faults: FaultSchedule) -> Self {
        self.options.faults = Some(faults);
        self
    }

    /// Leaves out faults of these kinds, which the program does not promise to live through.
    #[must_use]
    pub fn without(mut self, kinds: &[FaultKind]) -> Self {
        self.unwanted.extend_from_slice(kinds);
        self
    }

    /// Keeps the lines of the trace, for reading: [`Report::trace`].
    #[must_use]
    pub const fn trace(mut self) -> Self {
        self.options.trace = true;
        self
    }

    /// Runs one seed.
    ///
    /// # Panics
    /// When the program does where nobody catches it.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        self.run_with(seed, self.options.clone())
    }

    /// Runs every seed of `seeds` up to the first that breaks a promise, and makes the faults of
    /// that one few.
    ///
    /// # Errors
    /// [`Failure`], the first seed with a broken promise.
    ///
    /// # Panics
    /// When the program does where nobody catches it.
    pub fn check(&self, seeds: RangeInclusive<u64>) -> Result<Totals, Failure> {
        let mut totals = Totals::default();
        for seed in seeds {
            let report = self.run(seed);
            let Outcome {
                violation,
                virtual_time,
                ..
            } = report.outcome;
            totals.seeds += 1;
            totals.virtual_hours += virtual_time.as_secs_f64() / 3_600.0;
            if let Some(violation) = violation {
                let faults = self.shrink(seed, &violation.rule, &report.faults);
                return Err(Failure {
                    seed,
                    violation,
                    faults,
                });
            }
        }
        Ok(totals)
    }

    /// Returns the fewest of `faults` that still break `rule`.
    fn shrink(&self, seed: u64, rule: &str, faults: &FaultSchedule) -> FaultSchedule {
        let breaks = |faults: &FaultSchedule| {
            let mut options = self.options.clone();
            options.faults = Some(faults.clone());
            let again = self.run_with(seed, options).outcome.violation;
            again.is_some_and(|violation| violation.rule == rule)
        };
        faults.shrink(SHRINK_TRIES, breaks).schedule
    }

    fn run_with(&self, seed: u64, options: RunOptions) -> Report {
        let (make, clients) = (Arc::clone(&self.make), self.clients);
        let unwanted = self.unwanted.clone();
        super::run_as(seed, options, move |rng, _| Cast {
            program: make(rng),
            about: Level::Full.to_string(),
            clients,
            unwanted,
        })
    }
}

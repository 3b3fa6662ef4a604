//! One seed at one level: what is asked of it and what comes back.

use std::time::Duration;

use crate::{FaultSchedule, Outcome, Trace};

/// How one seed is run. The default is what the seed alone says.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built with struct update syntax from the default"
)]
pub struct RunOptions {
    /// How many nodes there are at the start, instead of what the seed says.
    pub nodes: Option<u32>,
    /// Over how many virtual hours the faults are spread, instead of less than a minute. Only at the
    /// core level. Clocks, leases and reports are then those of machines far apart.
    pub hours: Option<u32>,
    /// The faults, instead of those drawn from the seed.
    pub faults: Option<FaultSchedule>,
    /// Whether the trace keeps its lines.
    pub trace: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The result in short.
    pub outcome: Outcome,
    /// The faults that happened.
    pub faults: FaultSchedule,
    /// What happened, with lines if they were asked for.
    pub trace: Trace,
}

impl Report {
    /// Returns the report of a run.
    #[must_use]
    pub const fn new(outcome: Outcome, faults: FaultSchedule, trace: Trace) -> Self {
        Self {
            outcome,
            faults,
            trace,
        }
    }
}

/// Returns nanoseconds as traces and clocks count them.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

//! Which faults happen when: drawn from the seed, printed for people, made smaller when it found
//! something.
//!
//! The schedule says nothing about how a level carries a fault out; both levels share it.

mod duel;
mod fault;
mod generate;
mod shrink;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use duel::DuelConfig;
pub use fault::{Fault, FaultKind, Side, Unsynced};
pub use generate::ScheduleConfig;
pub use shrink::Shrunk;

/// A fault and when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "written by hand in tests of schedules"
)]
pub struct ScheduledFault {
    /// Since the start of the run.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

impl ScheduledFault {
    /// Returns when it is over.
    #[must_use]
    pub fn ends_at(&self) -> Duration {
        self.at + self.fault.lasts().unwrap_or_default()
    }
}

impl fmt::Display for ScheduledFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", fault::write_time(self.at), self.fault)
    }
}

impl FromStr for ScheduledFault {
    type Err = MalformedSchedule;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let malformed = || MalformedSchedule::new(line);
        let (at, fault) = line.trim().split_once(' ').ok_or_else(malformed)?;
        Ok(Self {
            at: fault::read_time(at).ok_or_else(malformed)?,
            fault: Fault::read(fault).map_err(|_| malformed())?,
        })
    }
}

/// The faults of one run in the order of their beginnings.
///
/// ```
/// use clusterkit_sim::FaultSchedule;
///
/// let text = "1.5s cut from=n1 to=z2 both=true lasts=4s\n3s weight node=2 weight=3\n";
/// let schedule: FaultSchedule = text.parse()?;
/// assert_eq!(schedule.faults().len(), 2);
/// assert_eq!(schedule.to_string(), text);
/// # Ok::<(), clusterkit_sim::MalformedSchedule>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultSchedule {
    /// Invariant: in the order of their beginnings.
    faults: Vec<ScheduledFault>,
}

impl FaultSchedule {
    /// Returns the schedule of `faults`; those that begin together keep their order.
    #[must_use]
    pub fn new(mut faults: Vec<ScheduledFault>) -> Self {
        faults.sort_by_key(|fault| fault.at);
        Self { faults }
    }

    /// Returns the faults in the order of their beginnings.
    #[must_use]
    pub fn faults(&self) -> &[ScheduledFault] {
        &self.faults
    }

    /// Returns when the last of them is over.
    #[must_use]
    pub fn ends_at(&self) -> Duration {
        let ends = self.faults.iter().map(ScheduledFault::ends_at);
        ends.max().unwrap_or_default()
    }
}

/// One line a fault.
impl fmt::Display for FaultSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults
            .iter()
            .try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

/// Reads lines of faults; blank ones and those that begin with `#` say nothing.
impl FromStr for FaultSchedule {
    type Err = MalformedSchedule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lines = text.lines().map(str::trim);
        let faults = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let faults: Result<Vec<ScheduledFault>, _> = faults.map(str::parse).collect();
        Ok(Self::new(faults?))
    }
}

/// A line that is no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedSchedule(String);

impl MalformedSchedule {
    fn new(line: &str) -> Self {
        Self(String::from(line))
    }
}

impl fmt::Display for MalformedSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no fault", self.0)
    }
}

impl std::error::Error for MalformedSchedule {}

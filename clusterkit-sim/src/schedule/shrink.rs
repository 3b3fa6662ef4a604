//! Making a schedule that found something as small as it can be and still find it.
//!
//! Delta debugging over the faults: halves are struck out, then smaller parts, then single ones;
//! what is left is shortened. Each try runs the seed again, so their number is bounded.

use std::time::Duration;

use super::{FaultSchedule, ScheduledFault};

/// The shortest a fault is cut down to.
const LASTS_MIN: Duration = Duration::from_millis(1);

/// A schedule made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shrunk {
    /// The smallest one found that still fails.
    pub schedule: FaultSchedule,
    /// How many were tried.
    pub tries: u32,
}

impl FaultSchedule {
    /// Makes the schedule smaller as long as `fails` says that it still fails, within `tries_max`
    /// tries. The schedule itself is taken to fail.
    pub fn shrink(&self, tries_max: u32, fails: impl FnMut(&Self) -> bool) -> Shrunk {
        let mut search = Search {
            best: self.clone(),
            tries: 0,
            tries_max,
            fails,
        };
        search.strike_out();
        search.shorten();
        // What was too long to be struck out may be short enough now.
        search.strike_out();
        Shrunk {
            schedule: search.best,
            tries: search.tries,
        }
    }
}

struct Search<F> {
    best: FaultSchedule,
    tries: u32,
    tries_max: u32,
    fails: F,
}

impl<F: FnMut(&FaultSchedule) -> bool> Search<F> {
    /// Takes `faults` over if they still fail.
    fn tried(&mut self, faults: Vec<ScheduledFault>) -> bool {
        if self.tries == self.tries_max {
            return false;
        }
        self.tries += 1;
        let schedule = FaultSchedule::new(faults);
        let fails = (self.fails)(&schedule);
        if fails {
            self.best = schedule;
        }
        fails
    }

    fn strike_out(&mut self) {
        let mut part = self.best.faults.len().div_ceil(2);
        while part > 0 && self.tries < self.tries_max {
            let mut at = 0;
            let mut struck = false;
            while at < self.best.faults.len() && self.tries < self.tries_max {
                let mut rest = self.best.faults.clone();
                rest.drain(at..(at + part).min(rest.len()));
                if self.tried(rest) {
                    struck = true;
                } else {
                    at += part;
                }
            }
            part = match part {
                1 if struck => 1,
                _ => part / 2,
            };
        }
    }

    fn shorten(&mut self) {
        for at in 0..self.best.faults.len() {
            while let Some(lasts) = self.best.faults[at].fault.lasts() {
                let mut shorter = self.best.faults.clone();
                shorter[at].fault = shorter[at].fault.lasting(lasts / 2);
                if lasts / 2 < LASTS_MIN || !self.tried(shorter) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, ScheduleConfig};
    use super::*;
    use crate::Rng;

    fn drawn() -> FaultSchedule {
        let config = ScheduleConfig {
            faults: 60,
            nodes: 9,
            ..ScheduleConfig::default()
        };
        FaultSchedule::generate(&mut Rng::new(5), &config)
    }

    #[test]
    fn what_does_not_matter_is_struck_out_and_what_is_left_is_short() {
        let whole = drawn();
        let lasting = |schedule: &FaultSchedule| {
            let faults = schedule
                .faults
                .iter()
                .filter_map(|fault| fault.fault.lasts());
            faults
                .filter(|lasts| *lasts >= Duration::from_millis(40))
                .count()
        };
        assert!(lasting(&whole) >= 2);
        // Two faults of a certain length are what it takes.
        let shrunk = whole.shrink(1_000, |schedule| lasting(schedule) >= 2);
        let left = shrunk.schedule.faults();
        assert_eq!(left.len(), 2, "{}", shrunk.schedule);
        for fault in left {
            assert!(
                fault.fault.lasts().unwrap() < Duration::from_millis(80),
                "{fault}"
            );
        }
    }

    #[test]
    fn tries_are_bounded_and_the_result_always_fails() {
        for tries_max in [0, 1, 7] {
            let mut tries = 0;
            let whole = drawn();
            let many = |schedule: &FaultSchedule| schedule.faults().len() > 20;
            let shrunk = whole.shrink(tries_max, |schedule| {
                tries += 1;
                many(schedule)
            });
            assert!(many(&shrunk.schedule));
            assert!(tries == shrunk.tries && tries <= tries_max);
        }
        let nothing = FaultSchedule::default().shrink(10, |_| true);
        assert_eq!(nothing.schedule, FaultSchedule::default());
    }

    #[test]
    fn a_fault_without_a_length_stays_as_it_is() {
        let fault = Fault::Weight { node: 1, weight: 2 };
        assert_eq!(fault.lasting(Duration::from_secs(1)), fault);
    }
}

//! Drawing a schedule from a seed.
//!
//! Each seed takes only some kinds of faults: a run that sees everything at once hides what two
//! kinds do to each other. How long a fault lasts is drawn over the orders of magnitude, from far
//! below every timeout to far beyond.

use std::time::Duration;

use clusterkit_core::pause::Work;

use super::{Fault, FaultKind, FaultSchedule, ScheduledFault, Side, Unsynced};
use crate::Rng;

/// The shortest a fault lasts.
const LASTS_MIN: Duration = Duration::from_millis(5);

/// What a schedule is drawn for.
#[derive(Clone, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "built with struct update syntax from the default"
)]
pub struct ScheduleConfig {
    /// How many nodes there are at the start, numbered from 1.
    pub nodes: u32,
    /// Over how many zones they are spread, numbered from 1; 0 for none.
    pub zones: u32,
    /// How many nodes may join on the way.
    pub joins_max: u32,
    /// When everything must be over.
    pub duration: Duration,
    /// How many faults there are.
    pub faults: u32,
    /// By how many millionths a clock may be off without harm; some are off by more.
    pub drift_margin_ppm: u32,
    /// The kinds to draw from and how often each is drawn relative to others.
    pub weights: Vec<(FaultKind, u32)>,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        let weight = |&kind| {
            let weight = match kind {
                FaultKind::Crash | FaultKind::Cut => 6,
                FaultKind::Pause | FaultKind::Restart | FaultKind::Join => 4,
                FaultKind::Drain | FaultKind::Weight | FaultKind::Depose => 3,
                FaultKind::Factor | FaultKind::Remove | FaultKind::CrashMany => 1,
                _ => 2,
            };
            (kind, weight)
        };
        Self {
            nodes: 3,
            zones: 0,
            joins_max: 3,
            duration: Duration::from_secs(60),
            faults: 10,
            drift_margin_ppm: 50_000,
            weights: FaultKind::ALL.iter().map(weight).collect(),
        }
    }
}

impl ScheduleConfig {
    /// Returns the same without the kinds in `kinds`.
    #[must_use]
    pub fn without(mut self, kinds: &[FaultKind]) -> Self {
        self.weights.retain(|(kind, _)| !kinds.contains(kind));
        self
    }
}

impl FaultSchedule {
    /// Draws a schedule from `rng`.
    #[must_use]
    pub fn generate(rng: &mut Rng, config: &ScheduleConfig) -> Self {
        let mut drawing = Drawing {
            rng,
            config,
            nodes: config.nodes,
            bursts: Vec::new(),
        };
        let kinds = drawing.kinds();
        drawing.draw_bursts();
        let mut begins: Vec<Duration> = (0..config.faults).map(|_| drawing.begin()).collect();
        // In order, so that a node that joins is not hit before.
        begins.sort_unstable();
        let faults = begins.into_iter().filter_map(|at| {
            let kind = drawing.kind(&kinds)?;
            let fault = drawing.fault(kind, at)?;
            Some(ScheduledFault { at, fault })
        });
        Self::new(faults.collect())
    }
}

struct Drawing<'a> {
    rng: &'a mut Rng,
    config: &'a ScheduleConfig,
    /// The highest number of a node so far.
    nodes: u32,
    /// When most faults begin, where they come in bursts.
    bursts: Vec<Duration>,
}

impl Drawing<'_> {
    /// Draws which kinds this seed takes: about half of them, at least one.
    fn kinds(&mut self) -> Vec<(FaultKind, u32)> {
        let all = self.config.weights.iter().copied();
        let all: Vec<(FaultKind, u32)> = all.filter(|(_, weight)| *weight > 0).collect();
        let spared = self.rng.index(all.len());
        let mut kinds = Vec::new();
        for (at, &kind) in all.iter().enumerate() {
            if self.rng.chance(500) || at == spared {
                kinds.push(kind);
            }
        }
        kinds
    }

    fn kind(&mut self, kinds: &[(FaultKind, u32)]) -> Option<FaultKind> {
        let total: u32 = kinds.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(u64::from(total));
        for &(kind, weight) in kinds {
            match drawn.checked_sub(u64::from(weight)) {
                None => return Some(kind),
                Some(rest) => drawn = rest,
            }
        }
        None
    }

    /// Lets the faults of every other seed come in bursts: what one does is then hit by the next.
    fn draw_bursts(&mut self) {
        if self.rng.chance(500) {
            for _ in 0..self.rng.within(1..=3) {
                let burst = self.rng.duration(Duration::ZERO..=self.config.duration);
                self.bursts.push(burst);
            }
        }
    }

    /// Draws a beginning.
    fn begin(&mut self) -> Duration {
        let end = self.config.duration.saturating_sub(LASTS_MIN);
        let within_burst = self.rng.chance(700);
        let burst = self.rng.pick(&self.bursts).copied();
        match burst.filter(|_| within_burst) {
            Some(burst) => {
                let after = self
                    .rng
                    .duration(Duration::ZERO..=Duration::from_millis(2_500));
                (burst + after).min(end)
            }
            None => self.rng.duration(Duration::ZERO..=end),
        }
    }

    /// Draws a length over the orders of magnitude, ending in time.
    fn lasts(&mut self, at: Duration) -> Duration {
        let left = self.config.duration.saturating_sub(at).max(LASTS_MIN);
        let octaves = (left.as_micros() / LASTS_MIN.as_micros()).max(1).ilog2();
        let longest = LASTS_MIN * (1 << self.rng.below(u64::from(octaves) + 1).min(31));
        self.rng
            .duration(longest / 2..=longest)
            .clamp(LASTS_MIN, left)
    }

    fn node(&mut self) -> u32 {
        let number = self.rng.within(1..=u64::from(self.nodes));
        u32::try_from(number).unwrap_or(1)
    }

    fn number(&mut self, from: u32, to: u32) -> u32 {
        let number = self.rng.within(u64::from(from)..=u64::from(to));
        u32::try_from(number).unwrap_or(from)
    }

    fn side(&mut self) -> Side {
        if self.config.zones > 1 && self.rng.chance(300) {
            Side::Zone(self.number(1, self.config.zones))
        } else {
            Side::Node(self.node())
        }
    }

    fn drift(&mut self) -> i32 {
        let margin = i32::try_from(self.config.drift_margin_ppm).unwrap_or(i32::MAX / 8);
        let beyond = self.rng.chance(250);
        let (least, most) = if beyond {
            (margin, margin * 4)
        } else {
            (0, margin)
        };
        let ppm = self.number(least.unsigned_abs(), most.unsigned_abs());
        let ppm = i32::try_from(ppm).unwrap_or(0);
        if self.rng.chance(500) { -ppm } else { ppm }
    }

    fn third(&mut self) -> Vec<u32> {
        let mut nodes: Vec<u32> = (1..=self.nodes).collect();
        self.rng.shuffle(&mut nodes);
        nodes.truncate((nodes.len() / 3).max(1));
        nodes.sort_unstable();
        nodes
    }

    /// Draws the particulars. None when there is nobody to do it to.
    fn fault(&mut self, kind: FaultKind, at: Duration) -> Option<Fault> {
        let lasts = self.lasts(at);
        let extra = Duration::from_micros(1) * (1 << self.rng.within(8..=20));
        let permille = self.number(1, 300);
        let node = self.node();
        Some(match kind {
            FaultKind::Loss => Fault::Loss { permille, lasts },
            FaultKind::Delay => Fault::Delay { extra, lasts },
            FaultKind::Reorder => Fault::Reorder { permille, lasts },
            FaultKind::Duplicate => Fault::Duplicate { permille, lasts },
            FaultKind::Cut => {
                let (from, to) = (self.side(), self.side());
                let both = self.rng.chance(600);
                (from != to).then_some(Fault::Cut {
                    from,
                    to,
                    both,
                    lasts,
                })?
            }
            FaultKind::Crash => {
                let all = [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn];
                let unsynced = all[self.rng.index(all.len())];
                let at_operation = self.rng.chance(400);
                let operation = if at_operation {
                    self.rng.within(1..=40)
                } else {
                    0
                };
                Fault::Crash {
                    node,
                    unsynced,
                    operation,
                    lasts,
                }
            }
            FaultKind::CrashMany => Fault::CrashMany {
                nodes: self.third(),
                lasts,
            },
            FaultKind::Restart => {
                let older = self.rng.chance(250);
                Fault::Restart { node, older, lasts }
            }
            FaultKind::Wipe => Fault::Wipe { node, lasts },
            FaultKind::SlowDisk => Fault::SlowDisk { node, extra, lasts },
            FaultKind::FullDisk => Fault::FullDisk { node, lasts },
            FaultKind::Pause => Fault::Pause { node, lasts },
            FaultKind::Drift => Fault::Drift {
                node,
                ppm: self.drift(),
                lasts,
            },
            FaultKind::Depose => Fault::Depose {
                lasts: lasts.min(Duration::from_secs(5)),
            },
            FaultKind::Join => {
                if self.nodes - self.config.nodes >= self.config.joins_max {
                    return None;
                }
                self.nodes += 1;
                Fault::Join { node: self.nodes }
            }
            FaultKind::Drain => {
                let (on, leave) = (self.rng.chance(700), self.rng.chance(400));
                Fault::Drain {
                    node,
                    on,
                    leave: on && leave,
                }
            }
            FaultKind::Remove => Fault::Remove {
                node,
                force: self.rng.chance(300),
            },
            FaultKind::Weight => Fault::Weight {
                node,
                weight: self.number(0, 4),
            },
            FaultKind::Zone => Fault::Zone {
                node,
                zone: self.number(1, self.config.zones.max(2)),
            },
            FaultKind::Factor => Fault::Factor {
                copies: self.number(1, 4),
            },
            FaultKind::PauseMoves => {
                let work = Work::ALL[self.rng.index(Work::ALL.len())];
                Fault::PauseMoves { work, lasts }
            }
            FaultKind::Rebalance => Fault::Rebalance {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_survives_its_text_and_keeps_its_bounds() {
        let config = ScheduleConfig {
            nodes: 5,
            zones: 3,
            faults: 40,
            ..ScheduleConfig::default()
        };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut rng = Rng::new(seed).split("faults");
            let schedule = FaultSchedule::generate(&mut rng, &config);
            assert_eq!(
                schedule.to_string().parse(),
                Ok(schedule.clone()),
                "seed {seed}"
            );
            assert!(
                schedule.ends_at() <= config.duration,
                "seed {seed}:\n{schedule}"
            );
            assert!(schedule.faults().is_sorted_by_key(|fault| fault.at));
            seen.extend(schedule.faults().iter().map(|fault| fault.fault.kind()));
        }
        assert!(
            seen.iter().eq(FaultKind::ALL),
            "every kind is drawn: {seen:?}"
        );
    }

    #[test]
    fn kinds_that_are_left_out_are_never_drawn() {
        let config = ScheduleConfig::default().without(&[FaultKind::Crash]);
        for seed in 0..50 {
            let schedule = FaultSchedule::generate(&mut Rng::new(seed), &config);
            let crashes = |fault: &ScheduledFault| fault.fault.kind() == FaultKind::Crash;
            assert!(!schedule.faults().iter().any(crashes));
        }
    }

    #[test]
    fn a_line_that_says_more_or_less_than_a_fault_is_refused() {
        for bad in [
            "crash node=1",
            "1s crash",
            "1s pause node=1 lasts=1s more=2",
            "1s pause node=1 lasts=1",
            "1s pause node=x lasts=1s",
            "1.0000001s rebalance",
        ] {
            assert!(bad.parse::<ScheduledFault>().is_err(), "{bad}");
        }
    }
}

//! Drawing a schedule against leases: somebody owns what another one is about to own.
//!
//! Two tokens of one partition need much at once: an owner that does not hear that it owns no more, a
//! successor within the owner's lease, clocks at the edge of what is allowed, often a leader that is
//! none any more. Faults that know nothing of each other come to that once in thousands of runs, so
//! these are drawn in scenes whose times are counted in leases.

use std::time::Duration;

use super::{Fault, FaultSchedule, ScheduledFault, Side};
use crate::Rng;

/// Nothing happens before: the cluster forms.
const FIRST: Duration = Duration::from_secs(3);

/// What a schedule of scenes is drawn for.
#[derive(Clone, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "every field says something about the run that only the caller knows"
)]
pub struct DuelConfig {
    /// How many nodes there are at the start, numbered from 1.
    pub nodes: u32,
    /// When everything must be over.
    pub duration: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// By how many millionths a clock may be off without harm. None is off by more.
    pub drift_margin_ppm: u32,
}

impl FaultSchedule {
    /// Draws a schedule of scenes from `rng`: an ownership changes while its owner is apart from the
    /// others for about a lease.
    #[must_use]
    pub fn duel(rng: &mut Rng, config: &DuelConfig) -> Self {
        let mut drawing = Drawing {
            rng,
            config,
            faults: Vec::new(),
        };
        let usual = drawing.node();
        drawing.clocks(usual);
        let first = FIRST.min(config.duration / 2);
        let last = config.duration.saturating_sub(config.lease).max(first);
        for _ in 0..drawing.rng.within(2..=6) {
            let at = drawing.rng.duration(first..=last);
            let other = drawing.node();
            let victim = if drawing.rng.chance(500) {
                usual
            } else {
                other
            };
            drawing.scene(at, victim);
        }
        Self::new(drawing.faults)
    }
}

struct Drawing<'a> {
    rng: &'a mut Rng,
    config: &'a DuelConfig,
    faults: Vec<ScheduledFault>,
}

impl Drawing<'_> {
    /// Adds a fault that is over in time.
    fn add(&mut self, at: Duration, fault: Fault) {
        let end = self.config.duration;
        let at = at.min(end.saturating_sub(Duration::from_millis(5)));
        let fault = match fault.lasts() {
            Some(lasts) => fault.lasting(lasts.min(end - at)),
            None => fault,
        };
        self.faults.push(ScheduledFault { at, fault });
    }

    fn node(&mut self) -> u32 {
        let number = self.rng.within(1..=u64::from(self.config.nodes));
        u32::try_from(number).unwrap_or(1)
    }

    /// Draws from `from` to `to` hundredths of a lease.
    fn leases(&mut self, from: u32, to: u32) -> Duration {
        let (from, to) = (self.config.lease * from / 100, self.config.lease * to / 100);
        self.rng.duration(from..=to)
    }

    /// Lets clocks run as fast or as slowly as they may: mostly that of `victim` slowly and the
    /// others fast, which is what a margin is for.
    fn clocks(&mut self, victim: u32) {
        let margin = i32::try_from(self.config.drift_margin_ppm).unwrap_or(i32::MAX / 8);
        let worst = self.rng.chance(700);
        for node in 1..=self.config.nodes {
            let drawn = [-margin, 0, margin][self.rng.index(3)];
            let ppm = match worst {
                true if node == victim => -margin,
                true => margin,
                false => drawn,
            };
            if ppm != 0 {
                let lasts = self.config.duration;
                self.add(Duration::ZERO, Fault::Drift { node, ppm, lasts });
            }
        }
    }

    /// Draws what happens around `at`, when `victim` begins to be apart.
    fn scene(&mut self, at: Duration, victim: u32) {
        match self.rng.below(4) {
            // Ownership passes by command while its owner does not hear of it.
            0 | 1 => {
                let lasts = self.apart_for();
                self.part(at, victim, lasts);
                self.change(at, victim);
                if self.rng.chance(500) {
                    self.depose(at);
                }
            }
            // The owner is given up while what renews its lease is still under way.
            2 => {
                let lasts = self.leases(160, 500);
                self.part(at, victim, lasts);
                self.noise(at);
            }
            // Anything with anything.
            _ => {
                let lasts = self.apart_for();
                self.part(at, victim, lasts);
                if self.rng.chance(300) {
                    self.change(at, victim);
                }
                if self.rng.chance(300) {
                    self.depose(at);
                }
                if self.rng.chance(300) {
                    self.noise(at);
                }
            }
        }
    }

    /// Draws a time apart: within a lease, a little beyond, far beyond.
    fn apart_for(&mut self) -> Duration {
        match self.rng.below(4) {
            0 => self.leases(30, 100),
            1 | 2 => self.leases(100, 180),
            _ => self.leases(180, 500),
        }
    }

    fn depose(&mut self, at: Duration) {
        let begins = (at + self.leases(0, 100)).saturating_sub(self.config.lease / 2);
        let lasts = self.leases(1, 10);
        self.add(begins, Fault::Depose { lasts });
    }

    /// Keeps `victim` apart: it stands still, or is cut off.
    fn part(&mut self, at: Duration, victim: u32, lasts: Duration) {
        let (stands, is_cut) = [(true, false), (false, true), (true, true)][self.rng.index(3)];
        if stands {
            let node = victim;
            self.add(at, Fault::Pause { node, lasts });
        }
        if !is_cut {
            return;
        }
        let (both, outward) = (self.rng.chance(800), self.rng.chance(500));
        // Sometimes with a companion: a minority of its own.
        let companion = self.rng.chance(300).then(|| self.node());
        let lasts = if stands {
            lasts + self.leases(0, 100)
        } else {
            lasts
        };
        for other in (1..=self.config.nodes).filter(|&other| other != victim) {
            if companion == Some(other) {
                continue;
            }
            for side in [Some(victim), companion].into_iter().flatten() {
                let (side, other) = (Side::Node(side), Side::Node(other));
                let (from, to) = if outward {
                    (side, other)
                } else {
                    (other, side)
                };
                let cut = Fault::Cut {
                    from,
                    to,
                    both,
                    lasts,
                };
                if from != to {
                    self.add(at, cut);
                }
            }
        }
    }

    /// Lets ownership pass from `victim` to others soon after `at`, and perhaps back later.
    fn change(&mut self, at: Duration, victim: u32) {
        let node = victim;
        let soon = at + self.leases(1, 60);
        // A plan settles and is computed before it counts.
        let early = soon.saturating_sub(Duration::from_millis(200));
        let back = soon + self.leases(50, 400);
        let leave = false;
        match self.rng.below(6) {
            0 => self.add(early, Fault::Rebalance {}),
            1 | 2 => {
                let force = self.rng.chance(900);
                self.add(soon, Fault::Remove { node, force });
            }
            3 => {
                self.add(early, Fault::Weight { node, weight: 0 });
                self.add(back, Fault::Weight { node, weight: 1 });
            }
            _ => {
                let on = true;
                self.add(early, Fault::Drain { node, on, leave });
                let on = false;
                self.add(back, Fault::Drain { node, on, leave });
            }
        }
    }

    /// Lets messages that are under way at `at` arrive late.
    fn noise(&mut self, at: Duration) {
        let early = self.leases(20, 120);
        let extra = self.leases(20, 200);
        let lasts = if self.rng.chance(500) {
            early
        } else {
            early + self.leases(1, 200)
        };
        let permille = 500;
        let fault = match self.rng.below(4) {
            0 => Fault::Reorder { permille, lasts },
            1 => Fault::Duplicate { permille, lasts },
            _ => Fault::Delay { extra, lasts },
        };
        self.add(at.saturating_sub(early), fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FaultKind;

    #[test]
    fn scenes_survive_their_text_and_keep_their_bounds() {
        let config = DuelConfig {
            nodes: 5,
            duration: Duration::from_secs(20),
            lease: Duration::from_secs(1),
            drift_margin_ppm: 24_390,
        };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let schedule = FaultSchedule::duel(&mut Rng::new(seed), &config);
            assert_eq!(schedule.to_string().parse(), Ok(schedule.clone()));
            assert!(schedule.ends_at() <= config.duration, "{schedule}");
            for fault in schedule.faults() {
                seen.insert(fault.fault.kind());
                if let Fault::Drift { ppm, .. } = fault.fault {
                    assert_eq!(ppm.unsigned_abs(), config.drift_margin_ppm);
                }
            }
        }
        for kind in [
            FaultKind::Cut,
            FaultKind::Pause,
            FaultKind::Depose,
            FaultKind::Drain,
            FaultKind::Remove,
            FaultKind::Delay,
        ] {
            assert!(seen.contains(&kind), "{} is never drawn", kind.verb());
        }
    }
}

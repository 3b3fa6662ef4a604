//! The network: who reaches whom, and how long it takes.

use std::time::Duration;

use super::event::Slot;
use crate::{Fault, Rng, Side};

/// What the network does to messages.
#[derive(Debug)]
pub(super) struct Net {
    rng: Rng,
    /// Faults of the network in force, each with its number in the schedule.
    faults: Vec<(usize, Fault)>,
    /// The shortest and the longest way of a message.
    usual: (Duration, Duration),
}

impl Net {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            faults: Vec::new(),
            usual: (Duration::from_micros(200), Duration::from_millis(5)),
        }
    }

    pub(super) fn begin(&mut self, number: usize, fault: Fault) {
        self.faults.push((number, fault));
    }

    pub(super) fn end(&mut self, number: usize) {
        self.faults.retain(|(begun, _)| *begun != number);
    }

    /// Tells whether a message of `from` would reach `to`. Each is given with its zone.
    pub(super) fn reaches(&self, from: (Slot, u32), to: (Slot, u32)) -> bool {
        let on = |side: &Side, (slot, zone): (Slot, u32)| match side {
            Side::Node(number) => *number == slot,
            Side::Zone(number) => *number == zone,
        };
        from.0 == to.0
            || !self.faults.iter().any(|(_, fault)| match fault {
                Fault::Cut {
                    from: a,
                    to: b,
                    both,
                    ..
                } => (on(a, from) && on(b, to)) || (*both && on(a, to) && on(b, from)),
                _ => false,
            })
    }

    /// Returns when a message that can get through arrives: never, once or twice.
    pub(super) fn deliver(&mut self) -> (Option<Duration>, Option<Duration>) {
        let mut rng = std::mem::replace(&mut self.rng, Rng::new(0));
        let delivered = self.deliver_by(&mut rng);
        self.rng = rng;
        delivered
    }

    /// Does the same by another source of chance.
    pub(super) fn deliver_by(&self, rng: &mut Rng) -> (Option<Duration>, Option<Duration>) {
        let mut delay = rng.duration(self.usual.0..=self.usual.1);
        let mut again = None;
        for (_, fault) in &self.faults {
            match fault {
                Fault::Loss { permille, .. } if rng.chance(*permille) => return (None, None),
                Fault::Delay { extra, .. } => delay += rng.duration(Duration::ZERO..=*extra),
                Fault::Reorder { permille, .. } if rng.chance(*permille) => {
                    delay += rng.duration(Duration::ZERO..=Duration::from_millis(800));
                }
                Fault::Duplicate { permille, .. } if rng.chance(*permille) => {
                    again = Some(rng.duration(Duration::ZERO..=Duration::from_secs(2)));
                }
                _ => {}
            }
        }
        (Some(delay), again.map(|more| delay + more))
    }
}

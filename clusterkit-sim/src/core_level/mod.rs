//! The fast level: the pure rules alone, over an idealised log.
//!
//! What is real: the state machine, the coordinator with its detector, placement. What is
//! idealised: one total order of commands (`log`) whose leader changes, loses proposals and lets
//! late ones through; a network (`net`) of heartbeats, proposals and questions; probes (`mesh`); processes
//! (`process`) that start, join, announce themselves and die; an application (`app`) that writes,
//! copies, lets go and sometimes fails. Every node has a view of its own, as late as the network
//! makes it. `judge` watches every command from outside and `settle` says what must stand once
//! nothing goes wrong any more.
//!
//! Nothing is polled: the world jumps from one event to the next.
//!
//! Leases are asked for and granted as the embedded node does it (`tokens`); the application of this
//! level does not use them, so that its fencing by epochs is judged by itself.

mod app;
mod event;
mod faults;
mod hooks;
mod join;
mod judge;
mod lead;
mod log;
mod mesh;
mod net;
mod process;
mod settle;
mod setup;
mod tokens;
mod world;

use crate::run::{Report, RunOptions};
use crate::{Level, Outcome};

/// Runs `seed` at the core level.
#[must_use]
pub fn run(seed: u64, options: &RunOptions) -> Report {
    let mut world = setup::build(seed, options);
    let violation = world.run().err();
    let (now, hash) = (world.now, world.trace.hash());
    let outcome = Outcome::new(seed, Level::Core, violation, now, hash);
    let (faults, trace) = world.into_parts();
    Report::new(outcome, faults, trace)
}

//! The full level: everything that ships, on simulated machines, from one seed.
//!
//! Every node is the example key-value service with its embedded node: `clusterkit`, the Raft layer
//! on redb, HTTP and the hooks, as they ship. Clients are `clusterkit-client`. What they take from
//! a machine ([`clusterkit::Environment`], [`clusterkit::disk`]) is replaced:
//!
//! - time: each machine has a single-threaded tokio runtime whose time the world drives (`machine`),
//!   in turns of [`TURN`]. A clock that drifts takes all timers along; a paused process finds its
//!   timers late;
//! - network: `fabric` behaves like TCP over a bad network (`net` is what a node sees of it);
//! - disk: [`crate::disk`];
//! - threads: none. Blocking work runs in the task that asks for it;
//! - chance: the node's identities and all else come from the seed. `fastrand`, which the Raft
//!   layer, the client and the pauses between retries draw from, is seeded for the thread of a run;
//!   tokio's own chance (whom a `watch` wakes first, which branch of a `select!` is looked at
//!   first) can be seeded only in builds with `--cfg tokio_unstable`, as `cargo xtask sim` makes.
//!   Other builds run the same worlds, and replay them only nearly.
//!
//! It is its own small world and not turmoil's, which cannot stop a process, drift its timers, or
//! send again what a cut held up.
//!
//! `world` carries out the faults and looks at every node after every turn (`judge`). What runs on
//! its machines is a [`Program`]: `kv` for `cargo xtask sim`, whose clients (`workload`) write down
//! what they saw, and any other by [`Simulation`].

mod clock;
mod ending;
mod fabric;
mod faults;
mod hooks;
mod judge;
mod kv;
mod machine;
mod net;
mod owners;
mod program;
mod simulation;
mod workload;
mod world;

use std::time::Duration;

use program::Cast;
pub use program::{Client, Observer, Process, Program, ProgramError};
pub use simulation::{Failure, Simulation, Totals};

use crate::{Report, Rng, RunOptions};

/// How long the world lets machines run between two looks at the network.
pub const TURN: Duration = Duration::from_millis(2);

/// Runs `seed` with the example key-value service as the program.
///
/// # Panics
/// When anything that runs in it does where nobody catches it.
#[must_use]
pub fn run(seed: u64, options: &RunOptions) -> Report {
    run_as(seed, options.clone(), kv::cast)
}

/// Runs `seed` with what `cast` says.
fn run_as(
    seed: u64,
    options: RunOptions,
    cast: impl FnOnce(&mut Rng, u32) -> Cast + Send + 'static,
) -> Report {
    // A thread of its own: its chance begins with the seed, whatever ran before.
    let running = std::thread::Builder::new()
        .name(format!("seed-{seed}"))
        .spawn(move || world::World::new(seed, options, cast).run());
    let joined = running
        .expect("invariant: a process that simulates may start a thread")
        .join();
    match joined {
        Ok(report) => report,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

//! A whole cluster, its faults and its checks in one process, in virtual time, from one seed.
//!
//! The simulator runs ClusterKit's own code at two levels ([`Level`]). *Core* drives the pure rules
//! alone over an idealised log: thousands of nodes and hours of virtual time in seconds. *Full*
//! drives everything that ships over a simulated network and simulated disks. Nothing in either
//! reads a real clock, thread, socket, disk or source of entropy, so that the same seed gives the
//! same [`Trace`], on any build.
//!
//! ```
//! use clusterkit_sim::Rng;
//!
//! let root = Rng::new(42);
//! let (mut network, mut clients) = (root.split("network"), root.split("clients"));
//! let delays: Vec<u64> = (0..3).map(|_| network.below(100)).collect();
//! // What one consumer draws never shifts what another one sees.
//! let mut again = Rng::new(42).split("network");
//! clients.u64();
//! assert_eq!(delays, (0..3).map(|_| again.below(100)).collect::<Vec<_>>());
//! ```
//!
//! The primary type is [`Outcome`]: what one seed came to. A broken promise is a [`Violation`], a
//! value and never a panic, because a panic inside a simulated host may take the runtime with it.
//!
//! # Your own program
//!
//! A [`Program`] is what a user brings: what a node runs, what a client does, what must hold.
//! [`Simulation`] runs it as a cluster under faults, and makes those of a failure few.
//!
//! ```
//! use clusterkit::ClusterKit;
//! use clusterkit_sim::{Client, Process, Program, ProgramError, Simulation, Violation};
//!
//! /// Announces who it is; that is all it does.
//! struct Greeter;
//!
//! #[async_trait::async_trait]
//! impl Program for Greeter {
//!     async fn node(&self, process: Process) -> Result<(), ProgramError> {
//!         let greeting = format!("{} is here", process.id());
//!         let cluster = ClusterKit::start(process.options().partitions(4)).await?;
//!         process.started(&cluster);
//!         cluster.set_data(process.id(), greeting.into_bytes()).await?;
//!         process.stopped().await;
//!         cluster.stop().await;
//!         Ok(())
//!     }
//!
//!     async fn verify(&self, client: Client) -> Result<(), Violation> {
//!         // Ask the nodes over `client.network()` whether all is there.
//!         assert!(!client.seeds().is_empty());
//!         Ok(())
//!     }
//! }
//!
//! let report = Simulation::new(|_| Greeter).nodes(1).faults("".parse()?).run(7);
//! assert_eq!(report.outcome.violation, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The example `failover` of this crate is a whole program with a promise of its own.
//!
//! `cargo xtask sim` runs many seeds over several processes; the binary of this crate is behind it.

pub mod check;
pub mod core_level;
pub mod disk;
pub mod full;
mod outcome;
mod rng;
mod run;
mod schedule;
mod trace;

pub use full::{Client, Failure, Observer, Process, Program, ProgramError, Simulation, Totals};
pub use outcome::{Level, MalformedOutcome, Outcome, Violation};
pub use rng::Rng;
pub use run::{Report, RunOptions};
pub use schedule::{
    DuelConfig, Fault, FaultKind, FaultSchedule, MalformedSchedule, ScheduleConfig, ScheduledFault,
    Shrunk, Side, Unsynced,
};
pub use trace::Trace;

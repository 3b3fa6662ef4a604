//! Your own program under faults: a scheduler that must never do one job twice at once.
//!
//! `cargo run --release -p clusterkit-sim --example failover` runs a hundred seeds of it, and then
//! shows that the same program without ownership tokens breaks its promise.

#![allow(clippy::print_stdout, reason = "a program that shows what it found")]

mod scheduler;

use clusterkit_sim::{Simulation, Totals};
use scheduler::{Ownership, Scheduler};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let simulation = |ownership| Simulation::new(move |_| Scheduler::new(ownership)).clients(0);
    let Totals {
        seeds,
        virtual_hours,
        ..
    } = simulation(Ownership::Token).check(1..=100)?;
    println!("with tokens: {seeds} seeds, {virtual_hours:.2} virtual hours, no job was done twice");
    match simulation(Ownership::Topology).check(1..=100) {
        Ok(_) => Err("a hundred seeds did not show what is wrong without tokens".into()),
        Err(failure) => {
            println!("without tokens: {failure}");
            Ok(())
        }
    }
}

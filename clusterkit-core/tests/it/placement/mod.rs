//! Placement: everything PLACEMENT.md section 7 asks for.
//!
//! `scenario` builds inputs, `reference` knows the exact optima by other means, the rest asserts.

mod allocation;
mod checker;
mod failover;
mod golden;
mod hashed;
mod limits;
mod order;
mod properties;
mod reference;
mod relations;
mod scenario;

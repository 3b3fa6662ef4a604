//! Judging a run by what was recorded of it: checkers that need no world.
//!
//! Whoever drives a world (either level, or a test of real processes) records what clients, hooks,
//! owners and replicas did in the neutral forms of these modules and hands the record in. A promise
//! that did not hold comes back as a [`Violation`](crate::Violation), a value. All work is bounded
//! and deterministic: the same record has the same verdict on every build.
//!
//! | module | judges | from |
//! | --- | --- | --- |
//! | [`linear`] | linearizability, key by key | a [`History`] |
//! | [`records`] | what the key-value service promises: nothing lost, nothing invented | a [`History`], the copies at the end |
//! | [`hooks`] | at least once, in order, rejoin first | committed events, calls of each process |
//! | [`owners`] | one primary per partition and epoch, tokens that never overlap | claims in true time |
//! | [`replicas`] | equal state at equal index, a log that never changes | hashes as they are made |
//!
//! ```
//! use std::time::Duration;
//!
//! use clusterkit_sim::check::linear::{self, Linear};
//! use clusterkit_sim::check::{Answer, Call, History, Ending, Seen, Value};
//!
//! let at = Duration::from_millis;
//! let mut history = History::new();
//! let write = history.invoke(1, "color", Call::Write(Value(7)), at(10));
//! let read = history.invoke(2, "color", Call::Read { fresh: true }, at(12));
//! let found = Answer::Found(Seen::Value(Value(7), None));
//! history.ended(read, at(15), Ending::Done(found));
//! history.ended(write, at(90), Ending::Unknown); // Timed out, but it had its effect.
//! assert_eq!(linear::check(&history, 100_000), Ok(Linear::Holds));
//!
//! let late = history.invoke(2, "color", Call::Read { fresh: true }, at(95));
//! history.ended(late, at(96), Ending::Done(Answer::Found(Seen::Absent)));
//! let violation = linear::check(&history, 100_000).unwrap_err();
//! assert_eq!(violation.rule, "linearizable");
//! ```

mod history;
pub mod hooks;
pub mod linear;
pub mod owners;
pub mod records;
pub mod replicas;
#[cfg(test)]
mod testing;

pub use history::{
    Answer, Call, Ending, Expected, History, Operation, Seen, Ticket, Value, Version,
};

//! Nodes as users run them: real sockets, real files, several nodes in one process.
//!
//! What whole processes do under kill -9 and SIGSTOP is `cargo xtask cluster-test`'s business.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy exempts only the test functions themselves"
)]

mod adjust;
mod cluster;
mod copying;
mod fitness;
mod hooks;
mod killed;
mod operations;
mod ownership;
mod quorum_lost;
mod refusals;
mod restart;
mod rules;
mod support;

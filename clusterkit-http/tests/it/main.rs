//! Integration tests of the HTTP layer over real sockets on free loopback ports.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod changes;
mod compat;
mod exchange;
mod fake;
mod formats;
mod operations;
mod peers;
mod placement;
mod raft;
mod raw;
mod watch;

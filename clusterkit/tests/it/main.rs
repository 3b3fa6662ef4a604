//! Nodes as users run them: real sockets, real files, several nodes in one process.
//!
//! What whole processes do under kill -9 and SIGSTOP is `cargo xtask cluster-test`'s business.

mod cluster;
mod hooks;
mod refusals;
mod support;

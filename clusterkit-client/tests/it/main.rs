//! Integration tests of the client: against scripted nodes on real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy exempts only the test functions themselves"
)]

mod calls;
mod connecting;
mod following;
mod node;
mod scripts;

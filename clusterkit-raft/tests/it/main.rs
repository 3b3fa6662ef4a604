//! Tests of `clusterkit-raft` through its public API; unit tests stand beside the code.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests, which fail by panicking and take what is convenient"
)]

mod cluster;
mod failing;
mod lab;
mod storage;

//! Tests of `clusterkit-sim` through its public API; unit tests stand beside the code.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy exempts only the test functions themselves"
)]

mod core_level;
mod disk;
mod full;
mod program;
mod storage;

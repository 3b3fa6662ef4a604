//! Integration tests of the core: one binary, one module per feature.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy exempts only the test functions themselves"
)]

mod cluster;
mod coordinator;
mod deadlines;
mod explain;
mod feature_level;
mod fitness;
mod hashing;
mod intents;
mod may_stop;
mod oracle;
mod pauses;
mod placement;
mod plan_history;
mod replan;
mod scenarios;
mod state;
mod state_exhaustive;
mod state_plans;
mod state_random;
mod topology;
mod world;

//! Tests of `clusterkit-raft` through its public API; unit tests stand beside the code.

mod cluster;
mod lab;
mod storage;

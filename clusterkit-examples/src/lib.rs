//! What the example programs are made of.
//!
//! [`kv`] is a replicated key-value service over an embedded node: the program `kv` is a thin shell
//! around it. The library that it shows off is in crate `clusterkit`; nothing here is needed to use
//! that.

pub mod kv;

/// The programs of the README, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[allow(
    missing_debug_implementations,
    reason = "exists in documentation tests only"
)]
pub struct Readme;

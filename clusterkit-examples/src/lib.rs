//! What the example programs are made of.
//!
//! [`kv`] is a replicated key-value service over an embedded node: the program `kv` is a thin shell
//! around it. The library that it shows off is in crate `clusterkit`; nothing here is needed to use
//! that.

pub mod kv;

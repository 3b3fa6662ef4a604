//! A replicated key-value service on top of an embedded node.
//!
//! Every node embeds a member of the cluster and serves keys on a port of its own, announced as
//! service `kv`. Writes go through the primary of a key's partition to every live copy before they
//! are acknowledged; a new primary takes over what may not be everywhere before it serves. A write is
//! applied and acknowledged only while the node holds the token of its partition.
//! [`KvNode`] is a running node, [`Args`] the options of the program `kv`.
//!
//! What it does not do: transactions, expiry, forgetting deletions, authentication, reads that are
//! current on a primary which does not know yet that it was replaced. It shows what an application
//! adds to a cluster; the cluster itself is crate `clusterkit`.

mod args;
mod cell;
mod clock;
mod cluster;
mod engine;
mod migration;
mod peers;
mod record;
mod replication;
mod rules;
mod server;
mod service;
mod store;
mod tasks;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

pub use args::{Args, ProfileArg, StoreArg};
pub use server::{CONNECTIONS_MAX, HookUp, KvNode, KvOptions, StoreKind, VALUE_MAX_BYTES};

//! A replicated key-value service on top of an embedded node.
//!
//! Every node embeds a member of the cluster and serves keys on a port of its own, announced as
//! service `kv`. Writes go through the primary of a key's partition to every live copy before they
//! are acknowledged; a new primary takes over what may not be everywhere before it serves.
//!
//! What it does not do: transactions, expiry, forgetting deletions, authentication. It shows what
//! an application adds to a cluster; the cluster itself is crate `clusterkit`.

mod cell;
mod clock;
mod cluster;
mod engine;
mod migration;
mod peers;
mod record;
mod replication;
mod rules;
mod service;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

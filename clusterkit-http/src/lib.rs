//! The only crate of ClusterKit that knows HTTP and JSON.
//!
//! [`api`] holds every JSON document, [`client`] a small keep-alive HTTP/1.1 client with
//! server-sent events. With the default feature `server` there is also `server` (the listener),
//! `routes` (the endpoints of a node, over a `backend::Backend`) and `transport` (peer traffic).
//! Without it nothing of the control plane is linked: that is what clients use.
//!
//! What it is not: the embedded node (crate `clusterkit`, which implements the backend) and the
//! rules of the cluster (crate `clusterkit-core`).
//!
//! No type of hyper stands in a public signature.

pub mod api;
#[cfg(feature = "server")]
pub mod backend;
pub mod client;
mod clock;
pub mod headers;
mod method;
pub mod net;
pub mod query;
#[cfg(feature = "server")]
pub mod routes;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod tasks;
#[cfg(feature = "server")]
pub mod transport;

pub use method::Method;

//! Binding an address, and saying what to do when it cannot be had.

use std::io;
use std::net::SocketAddr;

use crate::net::{Listener, Network};

/// Why an address cannot be listened on. Nothing was bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address has no port or is not `host:port`. A retry cannot help.
    #[error(
        "http_addr is `{address}`, must be host:port or :port with a port of 0 to 65535 (for example 127.0.0.1:8080)"
    )]
    Address {
        /// The address given.
        address: String,
    },
    /// Another process (or an earlier one that is still stopping) listens there.
    #[error(
        "http_addr `{address}` is taken by another process: stop it or choose another port (port 0 takes a free one)"
    )]
    InUse {
        /// The address given.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address is not one of this machine.
    #[error(
        "http_addr `{address}` is no address of this machine: use one of its own, or `:port` for every interface and tell peers another one with advertise_addr"
    )]
    NotLocal {
        /// The address given.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The process may not bind it.
    #[error(
        "http_addr `{address}` may not be bound by this user: ports below 1024 need a privilege, choose a higher one"
    )]
    Denied {
        /// The address given.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Anything else, a name that does not resolve for example.
    #[error("http_addr `{address}` cannot be listened on")]
    Failed {
        /// The address given.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BindError {
    pub(super) fn failed(address: &str, source: io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, source },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address, source },
            io::ErrorKind::PermissionDenied => Self::Denied { address, source },
            _ => Self::Failed { address, source },
        }
    }
}

pub(super) async fn listen(
    network: &dyn Network,
    address: &str,
) -> Result<Box<dyn Listener>, BindError> {
    let refused = || BindError::Address {
        address: address.to_owned(),
    };
    let bound = if let Ok(socket) = address.parse::<SocketAddr>() {
        network.bind(&socket.ip().to_string(), socket.port()).await
    } else {
        let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
        let port: u16 = port.parse().map_err(|_| refused())?;
        if host.contains([':', '[', ']', '/']) {
            return Err(refused());
        }
        network.bind(host, port).await
    };
    bound.map_err(|source| BindError::failed(address, source))
}

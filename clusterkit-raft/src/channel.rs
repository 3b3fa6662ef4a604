//! A [`Transport`] within one process, with faults to switch on.
//!
//! For tests of whatever is built on the control plane: members register their handler under an
//! address, and links between addresses can be cut, or lose requests or replies. It keeps no time
//! and has no randomness of its own. Real sockets are in `clusterkit-http`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::transport::{PeerAddress, PeerError, PeerHandler, RpcKind, Transport, TransportError};

/// What is wrong with a link, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No connection can be made.
    Cut,
    /// Requests vanish: the peer never sees them, the sender waits.
    LoseRequests,
    /// Replies vanish: the peer acts on the request, the sender waits.
    LoseReplies,
}

/// A network of members within this process.
#[derive(Clone, Default)]
pub struct ChannelNetwork {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    handlers: BTreeMap<String, Arc<dyn PeerHandler>>,
    faults: BTreeMap<(String, String), Fault>,
}

impl ChannelNetwork {
    /// Returns a network without members and faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the sending end of the member at `address`.
    pub fn transport(&self, address: impl Into<String>) -> ChannelTransport {
        ChannelTransport {
            network: self.clone(),
            address: address.into(),
        }
    }

    /// Lets `handler` answer at `address`, in the place of who answered there before.
    pub fn listen(&self, address: impl Into<String>, handler: Arc<dyn PeerHandler>) {
        self.lock().handlers.insert(address.into(), handler);
    }

    /// Lets nobody answer at `address` any more.
    pub fn hang_up(&self, address: &str) {
        self.lock().handlers.remove(address);
    }

    /// Breaks the link from `from` to `to`; the other direction stays as it is.
    pub fn break_link(&self, from: &str, to: &str, fault: Fault) {
        self.lock()
            .faults
            .insert((from.to_string(), to.to_string()), fault);
    }

    /// Cuts every link between the addresses of `one` and those of `other`, both ways.
    pub fn partition(&self, one: &[&str], other: &[&str]) {
        for a in one {
            for b in other {
                self.break_link(a, b, Fault::Cut);
                self.break_link(b, a, Fault::Cut);
            }
        }
    }

    /// Repairs every link.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChannelNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("ChannelNetwork")
            .field("addresses", &inner.handlers.keys().collect::<Vec<_>>())
            .field("faults", &inner.faults)
            .finish()
    }
}

/// The sending end of one member of a [`ChannelNetwork`].
#[derive(Clone, Debug)]
pub struct ChannelTransport {
    network: ChannelNetwork,
    address: String,
}

#[async_trait]
impl Transport for ChannelTransport {
    async fn send(
        &self,
        to: &PeerAddress,
        kind: RpcKind,
        body: Bytes,
    ) -> Result<Bytes, TransportError> {
        let (handler, fault) = {
            let inner = self.network.lock();
            let link = (self.address.clone(), to.address.clone());
            (
                inner.handlers.get(&to.address).cloned(),
                inner.faults.get(&link).copied(),
            )
        };
        let unreachable = || TransportError::Unreachable {
            peer: to.clone(),
            source: Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
        };
        match fault {
            Some(Fault::Cut) => return Err(unreachable()),
            Some(Fault::LoseRequests) => return std::future::pending().await,
            Some(Fault::LoseReplies) | None => {}
        }
        let answer = handler.ok_or_else(unreachable)?.handle(kind, body).await;
        if fault == Some(Fault::LoseReplies) {
            return std::future::pending().await;
        }
        answer.map_err(|error: PeerError| TransportError::from_peer(to.clone(), error))
    }
}

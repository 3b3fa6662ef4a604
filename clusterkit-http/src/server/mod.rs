//! The listener: binds, limits, serves a [`Handler`], and stops without dropping answers.
//!
//! [`Server::bind`] then [`Server::serve`]. It knows HTTP/1.1 and nothing of clusters: the
//! endpoints of a node are a handler in [`crate::routes`], an application may serve its own.

mod bind;
mod body;
mod message;
mod service;
mod stall;

pub(crate) use service::Service;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Method;
use crate::net::{Listener, Network, TcpNetwork};
use crate::tasks::{self, OwnedTask};
pub use bind::BindError;
pub use message::{Closing, Request, Response};

/// The limits of a [`Server`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// How many connections are open at once; further ones are answered 503 and closed. Default
    /// 8,192. Watchers and peers count too.
    pub connections: usize,
    /// How long the head of a request may take to arrive, and how long an unused connection stays
    /// open. Default 30 s.
    pub header_read_timeout: Duration,
    /// How long a request's body may take to arrive. Default 60 s.
    pub body_read_timeout: Duration,
    /// How long a connection may refuse to take what is written to it, as one whose other end
    /// vanished does. Default 30 s.
    pub write_stall_timeout: Duration,
    /// How many bytes the head of a request may have. Default 64 KiB.
    pub header_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            header_read_timeout: Duration::from_secs(30),
            body_read_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(30),
            header_bytes: 64 << 10,
        }
    }
}

/// What answers requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Returns how large the body of a request to `path` may be, in bytes.
    fn body_limit_bytes(&self, method: Method, path: &str) -> usize;

    /// Answers `request`, whose body has been read. For `HEAD` the body of the answer is dropped.
    async fn handle(&self, request: Request) -> Response;

    /// Answers what the server itself refused (`413`, `408`, `400`), with `status` and `message`.
    fn refuse(&self, status: u16, message: &str) -> Response {
        Response::text(status, format!("{message}\n"))
    }
}

/// A bound listener that does not serve yet.
///
/// # Examples
/// ```no_run
/// # use std::sync::Arc;
/// # async fn run(handler: Arc<dyn clusterkit_http::server::Handler>)
/// # -> Result<(), clusterkit_http::server::BindError> {
/// use clusterkit_http::server::{Server, ServerLimits};
///
/// let server = Server::bind("127.0.0.1:0").await?.serve(handler, ServerLimits::default());
/// println!("listening on {}", server.local_addr());
/// server.shutdown(std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    listener: Box<dyn Listener>,
    local: SocketAddr,
}

impl Server {
    /// Binds `address`: `host:port`, or `:port` for every interface; port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError`] naming the address and what to do about it.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing stays bound when the future is dropped.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        Self::bind_on(&TcpNetwork::default(), address).await
    }

    /// Binds `address` on `network`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Cancel safety
    /// As [`bind`](Self::bind).
    pub async fn bind_on(network: &dyn Network, address: &str) -> Result<Self, BindError> {
        let listener = bind::listen(network, address).await?;
        let local = listener
            .local_addr()
            .map_err(|source| BindError::failed(address, source))?;
        Ok(Self { listener, local })
    }

    /// Returns the address bound, with the port chosen.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Starts to answer with `handler`, until the returned [`RunningServer`] is shut down or
    /// dropped. Must be called within a tokio runtime.
    #[must_use]
    pub fn serve(self, handler: Arc<dyn Handler>, limits: ServerLimits) -> RunningServer {
        let closing = CancellationToken::new();
        let service = Service::new(handler, limits, closing.clone());
        let accepting = tasks::accept(self.listener, service);
        RunningServer {
            local: self.local,
            closing,
            accepting,
        }
    }
}

/// A server that answers. Dropping it ends every connection at once.
pub struct RunningServer {
    local: SocketAddr,
    closing: CancellationToken,
    accepting: OwnedTask,
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl RunningServer {
    /// Returns the address bound.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops: takes no new connection, ends streams, lets requests in flight finish for at most
    /// `limit`, then closes what is left. Returns whether everything had finished by itself.
    ///
    /// # Cancel safety
    /// Dropping the future closes everything at once.
    pub async fn shutdown(self, limit: Duration) -> bool {
        self.closing.cancel();
        self.accepting.join_within(limit).await
    }
}

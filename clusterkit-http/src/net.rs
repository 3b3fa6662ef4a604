//! Where connections come from: [`Network`], and TCP as its implementation.
//!
//! Server and client open nothing themselves, so that whole clusters can run over a network of
//! somebody else's making: a simulated one above all, a proxy or an encrypted one as well. What
//! goes over the connections is not its matter.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// One connection: bytes in both directions, in order.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Stream for T {}

/// A connection, whoever made it.
pub type BoxStream = Box<dyn Stream>;

/// Opens connections and takes them.
///
/// Hosts are names or addresses without brackets. Errors are those of sockets:
/// [`io::ErrorKind::AddrInUse`], [`io::ErrorKind::ConnectionRefused`] and so on are told apart by
/// the callers. Connections send small writes at once.
#[async_trait]
pub trait Network: Debug + Send + Sync + 'static {
    /// Connects to `host`.
    ///
    /// # Errors
    /// What prevented it; nothing was sent. A host that does not answer may take for ever: callers
    /// bound the time.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream>;

    /// Listens on `host`, an empty one being every interface; port 0 takes a free one.
    ///
    /// # Errors
    /// What prevented it; nothing was bound.
    ///
    /// # Cancel safety
    /// Nothing stays bound when the future is dropped.
    async fn bind(&self, host: &str, port: u16) -> io::Result<Box<dyn Listener>>;

    /// Tells whether `host` is the one this runs on.
    fn is_own(&self, host: &str) -> bool;

    /// Returns the address of this host that leads to another, none when nothing does.
    fn address_toward(&self, host: &str, port: u16) -> Option<IpAddr>;
}

/// Takes connections on one address. Dropping it gives the address back.
#[async_trait]
pub trait Listener: Debug + Send + Sync + 'static {
    /// Returns the address bound, with the port chosen.
    ///
    /// # Errors
    /// What the system said.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for the next connection, and returns it with the address of its other end.
    ///
    /// # Errors
    /// One connection failed, or there is no room for it; the listener goes on.
    ///
    /// # Cancel safety
    /// Cancel safe: no connection is lost when the future is dropped.
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)>;
}

/// The network of the operating system.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TcpNetwork;

impl TcpNetwork {
    /// Returns it, shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Network> {
        Arc::new(Self)
    }
}

#[async_trait]
impl Network for TcpNetwork {
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let stream = TcpStream::connect((host, port)).await?;
        // Without it a small request waits for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn bind(&self, host: &str, port: u16) -> io::Result<Box<dyn Listener>> {
        let listener = match host {
            "" => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
            host => TcpListener::bind((host, port)).await,
        };
        Ok(Box::new(listener?))
    }

    fn is_own(&self, host: &str) -> bool {
        UdpSocket::bind((host, 0)).is_ok()
    }

    fn address_toward(&self, host: &str, port: u16) -> Option<IpAddr> {
        // Connecting a datagram socket sends nothing: it only picks the route.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((host, port)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    }
}

#[async_trait]
impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, remote) = Self::accept(self).await?;
        // Without it a small answer waits for the acknowledgement of the one before. It fails on a
        // connection that has been reset already, which its first read reports.
        let _ = stream.set_nodelay(true);
        Ok((Box::new(stream), remote))
    }
}

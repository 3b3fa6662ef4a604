//! The network as a node sees it: connections and listeners over the [`Fabric`].

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use clusterkit_http::net::{BoxStream, Listener, Network};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fabric::Fabric;

/// The network of one process on one machine.
#[derive(Clone)]
pub(crate) struct SimNetwork {
    fabric: Arc<Fabric>,
    host: IpAddr,
    boot: u64,
}

impl SimNetwork {
    /// Returns the network of the process that runs on `host` since its boot number `boot`.
    pub(crate) fn new(fabric: Arc<Fabric>, host: IpAddr, boot: u64) -> Self {
        Self { fabric, host, boot }
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

fn ip(host: &str) -> io::Result<IpAddr> {
    host.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "no such host"))
}

#[async_trait]
impl Network for SimNetwork {
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let to = SocketAddr::new(ip(host)?, port);
        let connection = self.fabric.open(self.host, self.boot, to);
        // Closes what was begun when the future is dropped.
        let stream = SimStream {
            fabric: Arc::clone(&self.fabric),
            connection,
            side: 0,
        };
        std::future::poll_fn(|cx| self.fabric.poll_opened(connection, cx)).await?;
        Ok(Box::new(stream))
    }

    async fn bind(&self, host: &str, port: u16) -> io::Result<Box<dyn Listener>> {
        let host = if host.is_empty() {
            self.host
        } else {
            ip(host)?
        };
        if host != self.host {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let address = self.fabric.listen(host, self.boot, port)?;
        Ok(Box::new(SimListener {
            fabric: Arc::clone(&self.fabric),
            boot: self.boot,
            address,
        }))
    }

    fn is_own(&self, host: &str) -> bool {
        ip(host).is_ok_and(|ip| ip == self.host)
    }

    fn address_toward(&self, _host: &str, _port: u16) -> Option<IpAddr> {
        Some(self.host)
    }
}

struct SimListener {
    fabric: Arc<Fabric>,
    boot: u64,
    address: SocketAddr,
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimListener").field(&self.address).finish()
    }
}

#[async_trait]
impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let accepted =
            std::future::poll_fn(|cx| self.fabric.poll_accept(self.address, self.boot, cx));
        let (connection, remote) = accepted.await?;
        let stream = SimStream {
            fabric: Arc::clone(&self.fabric),
            connection,
            side: 1,
        };
        Ok((Box::new(stream), remote))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.fabric.unlisten(self.address, self.boot);
    }
}

/// One end of a connection.
struct SimStream {
    fabric: Arc<Fabric>,
    connection: u64,
    side: usize,
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fabric
            .poll_read(self.connection, self.side, cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fabric
            .poll_write(self.connection, self.side, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fabric.finish(self.connection, self.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.fabric.close(self.connection, self.side);
    }
}

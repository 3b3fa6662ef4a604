//! A small HTTP/1.1 keep-alive client: a bounded pool per address, a deadline on everything.
//!
//! [`HttpClient`] is the type to start from. A request drives its own connection, so dropping the
//! future of a request ends the exchange and closes that connection; nothing runs in the
//! background. Server-sent events are in [`EventStream`].
//!
//! What it is not: a router. Which address to ask is the caller's matter (crate
//! `clusterkit-client` for applications, the peer transport for nodes).

mod connection;
mod error;
mod events;
mod message;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::net::{Network, TcpNetwork};
use connection::{Connection, SendFailure};
pub use error::HttpError;
pub use events::{EventStream, ServerEvent};
pub use message::{HttpRequest, HttpResponse};

/// The limits of an [`HttpClient`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientLimits {
    /// How long opening a connection may take. Default 1 s. Too short refuses distant nodes, too
    /// long hides dead ones; a request's own deadline bounds it as well.
    pub connect_timeout: Duration,
    /// How many connections to one address may be in use at once; further requests wait for one
    /// within their deadline. Default 128.
    pub connections_per_address: usize,
    /// How many unused connections are kept per address. Default 32.
    pub idle_per_address: usize,
    /// How long an unused connection is kept. Default 20 s: less than the 30 s after which a
    /// ClusterKit server closes it, so that the race for a closing connection is rare.
    pub idle_timeout: Duration,
    /// The largest body of an answer. Default 64 MiB.
    pub response_bytes: usize,
    /// The largest single server-sent event. Default 64 MiB.
    pub event_bytes: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            connections_per_address: 128,
            idle_per_address: 32,
            idle_timeout: Duration::from_secs(20),
            response_bytes: 64 << 20,
            event_bytes: 64 << 20,
        }
    }
}

/// An HTTP client with a bounded keep-alive pool per address. Clones share the pool.
///
/// # Examples
/// ```no_run
/// # async fn run() -> Result<(), clusterkit_http::client::HttpError> {
/// use clusterkit_http::client::{HttpClient, HttpRequest};
///
/// let client = HttpClient::default();
/// let answer = client.send("127.0.0.1:8080", HttpRequest::get("/health")).await?;
/// assert_eq!(answer.status(), 200);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    network: Arc<dyn Network>,
    limits: ClientLimits,
    /// In order, so that what is dropped together is dropped in the same order every time.
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
}

/// The connections to one address.
struct Pool {
    in_use: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new(ClientLimits::default())
    }
}

impl HttpClient {
    /// Creates a client with an empty pool.
    #[must_use]
    pub fn new(limits: ClientLimits) -> Self {
        Self::over(TcpNetwork::shared(), limits)
    }

    /// Creates a client with an empty pool that connects over `network`.
    #[must_use]
    pub fn over(network: Arc<dyn Network>, limits: ClientLimits) -> Self {
        Self {
            inner: Arc::new(Inner {
                network,
                limits,
                pools: Mutex::default(),
            }),
        }
    }

    /// Sends `request` to `address` (`host:port`; an empty host is this machine) and reads the
    /// whole answer, whatever its status.
    ///
    /// A kept connection that turns out to be closed before the request was written is replaced
    /// once by a new one. Nothing else is retried.
    ///
    /// # Errors
    /// [`HttpError::Unreachable`] when nothing was sent, [`HttpError::Timeout`] and
    /// [`HttpError::Interrupted`] when the outcome is unknown, [`HttpError::BodyTooLarge`] and
    /// [`HttpError::Protocol`] when the answer cannot be taken.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; whether the server acted is then unknown.
    pub async fn send(
        &self,
        address: &str,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let after = request.deadline();
        let deadline = clock::deadline(after);
        let pool = self.pool(address);
        let _permit = acquire(&pool, address, deadline).await?;

        let limit = request
            .response_limit()
            .unwrap_or(self.inner.limits.response_bytes);
        let mut message = request.build(address)?;
        if let Some(mut kept) = self.take_idle(&pool) {
            let suspicion = Suspicion::new(&pool);
            match self
                .exchange(address, &mut kept, message, limit, deadline, after)
                .await
            {
                Ok(response) => {
                    suspicion.dispel();
                    self.put_back(&pool, kept);
                    return Ok(response);
                }
                Err(Exchange::Unsent(unsent)) => message = *unsent,
                Err(Exchange::Failed(error)) => return Err(error),
            }
        }

        let mut fresh = self.connect(address, deadline).await?;
        match self
            .exchange(address, &mut fresh, message, limit, deadline, after)
            .await
        {
            Ok(response) => {
                self.put_back(&pool, fresh);
                Ok(response)
            }
            Err(Exchange::Unsent(_)) => Err(HttpError::unreachable(
                address,
                "the connection closed before the request was sent",
            )),
            Err(Exchange::Failed(error)) => Err(error),
        }
    }

    /// Sends `request` and reads the answer's body as JSON.
    ///
    /// # Errors
    /// Those of [`HttpClient::send`]; [`HttpError::Status`] for any status but 2xx, with the
    /// [`crate::api::Problem`] the server sent if there is one; [`HttpError::Protocol`] for a body
    /// that is not the document.
    ///
    /// # Cancel safety
    /// As [`HttpClient::send`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        address: &str,
        request: HttpRequest,
    ) -> Result<T, HttpError> {
        self.send(address, request)
            .await?
            .require_success(address)?
            .json(address)
    }

    /// Opens a stream of server-sent events at `request` over a connection of its own.
    ///
    /// The request's deadline bounds the time to the answer's head. `silence` is how long the
    /// stream may stay without a byte (events or keep-alive comments) before it counts as broken.
    ///
    /// # Errors
    /// As [`HttpClient::send`], and [`HttpError::Status`] for any status but 200.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn events(
        &self,
        address: &str,
        request: HttpRequest,
        silence: Duration,
    ) -> Result<EventStream, HttpError> {
        let after = request.deadline();
        let deadline = clock::deadline(after);
        let message = request
            .header("accept", "text/event-stream")
            .build(address)?;
        let connection = self.connect(address, deadline).await?;
        events::open(
            address,
            connection,
            message,
            events::Patience {
                deadline,
                after,
                silence,
            },
            self.inner.limits.event_bytes,
        )
        .await
    }

    /// Closes the unused connections to `address`: it is known to be gone.
    pub fn forget(&self, address: &str) {
        lock(&self.inner.pools).remove(address);
    }

    /// Returns how many unused connections to `address` are kept.
    #[must_use]
    pub fn idle_connections(&self, address: &str) -> usize {
        lock(&self.inner.pools)
            .get(address)
            .map_or(0, |pool| lock(&pool.idle).len())
    }

    async fn connect(&self, address: &str, deadline: Instant) -> Result<Connection, HttpError> {
        let until = deadline.min(clock::deadline(self.inner.limits.connect_timeout));
        match timeout_at(until, Connection::open(&*self.inner.network, address)).await {
            Ok(opened) => opened,
            Err(_) => Err(HttpError::unreachable(address, "connecting took too long")),
        }
    }

    async fn exchange(
        &self,
        address: &str,
        connection: &mut Connection,
        message: connection::Message,
        limit: usize,
        deadline: Instant,
        after: Duration,
    ) -> Result<HttpResponse, Exchange> {
        let exchanged = timeout_at(deadline, connection.exchange(address, message, limit)).await;
        match exchanged {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(SendFailure::Unsent(message))) => Err(Exchange::Unsent(message)),
            Ok(Err(SendFailure::Failed(error))) => Err(Exchange::Failed(error)),
            Err(_) => Err(Exchange::Failed(HttpError::Timeout {
                address: address.to_owned(),
                after,
            })),
        }
    }

    fn pool(&self, address: &str) -> Arc<Pool> {
        let mut pools = lock(&self.inner.pools);
        if let Some(pool) = pools.get(address) {
            return Arc::clone(pool);
        }
        // A new address is the moment to drop those nobody asks any more.
        let oldest = clock::now().checked_sub(self.inner.limits.idle_timeout);
        pools.retain(|_, pool| {
            let mut idle = lock(&pool.idle);
            idle.retain(|kept| oldest.is_none_or(|oldest| kept.since >= oldest));
            !idle.is_empty() || Arc::strong_count(pool) > 1
        });
        let pool = Arc::new(Pool {
            in_use: Semaphore::new(self.inner.limits.connections_per_address.max(1)),
            idle: Mutex::default(),
        });
        pools.insert(address.to_owned(), Arc::clone(&pool));
        pool
    }

    fn take_idle(&self, pool: &Pool) -> Option<Connection> {
        let oldest = clock::now().checked_sub(self.inner.limits.idle_timeout);
        loop {
            let mut kept = lock(&pool.idle).pop()?;
            let fresh = oldest.is_none_or(|oldest| kept.since >= oldest);
            if fresh && kept.connection.is_usable() {
                return Some(kept.connection);
            }
        }
    }

    fn put_back(&self, pool: &Pool, mut connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        let since = clock::now();
        let oldest = since.checked_sub(self.inner.limits.idle_timeout);
        let mut idle = lock(&pool.idle);
        // The vector is ordered by age: the newest is taken first, the oldest stand in front.
        let expired = idle
            .iter()
            .take_while(|kept| oldest.is_some_and(|oldest| kept.since < oldest))
            .count();
        idle.drain(..expired);
        if idle.len() < self.inner.limits.idle_per_address {
            idle.push(Idle { connection, since });
        }
    }
}

enum Exchange {
    Unsent(Box<connection::Message>),
    Failed(HttpError),
}

/// Drops the kept connections of a pool unless the exchange over one of them succeeds: what broke
/// one, a vanished host above all, has broken the others, and each would cost a whole deadline.
struct Suspicion<'a> {
    pool: Option<&'a Pool>,
    since: Instant,
}

/// An exchange given up sooner than this says nothing about the others.
const SUSPICIOUS_AFTER: Duration = Duration::from_millis(50);

impl<'a> Suspicion<'a> {
    fn new(pool: &'a Pool) -> Self {
        Self {
            pool: Some(pool),
            since: clock::now(),
        }
    }

    fn dispel(mut self) {
        self.pool = None;
    }
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool
            && clock::now().saturating_duration_since(self.since) >= SUSPICIOUS_AFTER
        {
            lock(&pool.idle).clear();
        }
    }
}

async fn acquire<'a>(
    pool: &'a Pool,
    address: &str,
    deadline: Instant,
) -> Result<SemaphorePermit<'a>, HttpError> {
    match timeout_at(deadline, pool.in_use.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(HttpError::unreachable(
            address,
            "every connection to it is in use",
        )),
    }
}

/// A poisoned lock guards plain collections: they stay usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

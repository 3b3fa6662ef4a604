//! Requests and answers in our own types.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Method;
use crate::query::Query;

/// A request whose body has been read.
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) remote: SocketAddr,
    pub(super) closing: Closing,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies and headers may hold what does not belong into logs.
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Returns the method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Returns the path, still escaped.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the parameters of the query.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        Query::new(&self.query)
    }

    /// Returns the first header called `name`, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the address of the caller's end of the connection.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Returns a signal of the server's shutdown, for handlers that wait.
    #[must_use]
    pub fn closing(&self) -> Closing {
        self.closing.clone()
    }
}

/// Tells when the server begins to stop.
#[derive(Clone, Debug)]
pub struct Closing(pub(super) CancellationToken);

impl Closing {
    /// Resolves when the server begins to stop.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) {
        self.0.cancelled().await;
    }

    /// Tells whether the server has begun to stop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_cancelled()
    }
}

pub(super) enum Content {
    Whole(Bytes),
    Stream(BoxStream<'static, Bytes>),
}

/// An answer.
pub struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            content: Content::Whole(Bytes::new()),
        }
    }

    /// An answer of raw bytes.
    #[must_use]
    pub fn binary(status: u16, body: impl Into<Bytes>) -> Self {
        Self::typed(status, "application/octet-stream", body.into())
    }

    /// An answer of plain text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::typed(
            status,
            "text/plain; charset=utf-8",
            Bytes::from(body.into()),
        )
    }

    /// An answer of `document` as JSON; 500 when it cannot be written, which ours all can.
    #[must_use]
    pub fn json<T: Serialize>(status: u16, document: &T) -> Self {
        match serde_json::to_vec(document) {
            Ok(body) => Self::typed(status, "application/json", Bytes::from(body)),
            Err(_) => Self::empty(500),
        }
    }

    /// An answer of JSON that is written already.
    #[must_use]
    pub fn json_bytes(status: u16, body: impl Into<Bytes>) -> Self {
        Self::typed(status, "application/json", body.into())
    }

    /// An answer whose body is sent as `parts` come; it ends when the server stops.
    #[must_use]
    pub fn stream(
        status: u16,
        content_type: &'static str,
        parts: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Self {
        let mut response = Self::empty(status).header("content-type", content_type);
        response.content = Content::Stream(Box::pin(parts));
        response
    }

    /// An answer with a body of type `content_type`.
    #[must_use]
    pub fn typed(status: u16, content_type: &'static str, body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers,
            content: Content::Whole(body),
        }
    }

    /// Sets a header; one whose value cannot stand in a header is left out.
    ///
    /// # Panics
    /// When `name` is not a header name in lowercase.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// Returns the status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }
}

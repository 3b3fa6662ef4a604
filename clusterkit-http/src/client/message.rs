//! One request and one answer, in our own types.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::HttpError;
use super::connection::Message;
use crate::Method;
use crate::api::Problem;

/// The deadline of a request that names none.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// How much of an error's body is read as a [`Problem`].
const PROBLEM_MAX_BYTES: usize = 64 << 10;

/// A request to be sent by [`super::HttpClient`].
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpRequest {
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    deadline: Duration,
    response_limit: Option<usize>,
}

impl HttpRequest {
    /// A request of `method` for `target` (path and query, starting with `/`) with a deadline of
    /// 5 s.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            deadline: DEADLINE_DEFAULT,
            response_limit: None,
        }
    }

    /// A `GET` of `target`.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::Get, target)
    }

    /// A `POST` to `target`.
    pub fn post(target: impl Into<String>) -> Self {
        Self::new(Method::Post, target)
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `document` as JSON. A document that cannot be written is sent empty and
    /// refused by the server; ours all can be.
    pub fn json_body<T: Serialize>(self, document: &T) -> Self {
        let body = serde_json::to_vec(document).unwrap_or_default();
        self.header("content-type", "application/json").body(body)
    }

    /// Sets how long connecting, sending and the whole answer may take together.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the largest answer for this request, in place of the client's.
    pub fn response_limit_bytes(mut self, limit: usize) -> Self {
        self.response_limit = Some(limit);
        self
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn response_limit(&self) -> Option<usize> {
        self.response_limit
    }

    pub(super) fn build(self, address: &str) -> Result<Message, HttpError> {
        if self.method == Method::Other {
            return Err(HttpError::Invalid {
                field: "method",
                value: self.method.to_string(),
                limit: "GET, HEAD, POST, PUT or DELETE",
            });
        }
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        let host = if address.starts_with(':') {
            format!("localhost{address}")
        } else {
            address.to_owned()
        };
        let host = HeaderValue::try_from(host).map_err(|_| HttpError::Invalid {
            field: "address",
            value: address.to_owned(),
            limit: "host:port in printable ASCII",
        })?;
        headers.insert(HOST, host);
        for (name, value) in self.headers {
            let refused = || HttpError::Invalid {
                field: name,
                value: value.clone(),
                limit: "a header of printable ASCII",
            };
            let field = HeaderName::from_lowercase(name.as_bytes()).map_err(|_| refused())?;
            let content = HeaderValue::try_from(&value).map_err(|_| refused())?;
            headers.append(field, content);
        }
        let uri = hyper::Uri::try_from(&self.target).map_err(|_| HttpError::Invalid {
            field: "target",
            value: self.target.clone(),
            limit: "a path with escaped characters",
        })?;
        if !self.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
        }
        let mut message = hyper::Request::new(Full::new(self.body));
        *message.method_mut() = self.method.to_hyper();
        *message.uri_mut() = uri;
        *message.headers_mut() = headers;
        Ok(message)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl HttpResponse {
    pub(super) fn new(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            status,
            headers,
            body,
        }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Tells whether the status is 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
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

    /// Returns the body by value.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// Returns the error document of the answer, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        if self.is_success() || self.body.len() > PROBLEM_MAX_BYTES {
            return None;
        }
        serde_json::from_slice(&self.body).ok()
    }

    /// Reads the body as JSON; `address` is named in the error.
    ///
    /// # Errors
    /// [`HttpError::Protocol`] when the body is not that document.
    pub fn json<T: DeserializeOwned>(&self, address: &str) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| HttpError::protocol(address, error))
    }

    /// Returns the answer itself when its status is 2xx; `address` is named in the error.
    ///
    /// # Errors
    /// [`HttpError::Status`] for any other status.
    pub fn require_success(self, address: &str) -> Result<Self, HttpError> {
        if self.is_success() {
            return Ok(self);
        }
        Err(HttpError::Status {
            address: address.to_owned(),
            status: self.status,
            problem: self.problem().map(Box::new),
        })
    }
}

//! From hyper's request to ours and back, within the limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body::{self, AnswerBody, ReadError};
use super::message::{Closing, Content, Request, Response};
use super::stall::StallGuard;
use super::{Handler, ServerLimits};
use crate::Method;
use crate::net::BoxStream;

/// What a connection that is one too many is told.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// What every connection shares.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    handler: Arc<dyn Handler>,
    limits: ServerLimits,
    closing: CancellationToken,
    http: http1::Builder,
}

impl Service {
    pub(super) fn new(
        handler: Arc<dyn Handler>,
        limits: ServerLimits,
        closing: CancellationToken,
    ) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout)
            .max_buf_size(limits.header_bytes.max(8_192))
            .half_close(false);
        Self {
            shared: Arc::new(Shared {
                handler,
                limits,
                closing,
                http,
            }),
        }
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.shared.limits.connections
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.shared.closing
    }

    /// Tells a connection that is one too many, without waiting for it.
    pub(crate) fn turn_away(mut stream: BoxStream) {
        // The connection ends here, whatever could be written.
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut *stream).poll_write(&mut context, OVERLOADED);
    }

    /// Serves one connection to its end.
    pub(crate) async fn connection(self, stream: BoxStream, remote: SocketAddr) {
        let guarded = StallGuard::new(stream, self.shared.limits.write_stall_timeout);
        let shared = Arc::clone(&self.shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(shared.answer(request, remote).await) }
        });
        let served = self
            .shared
            .http
            .serve_connection(TokioIo::new(guarded), service);
        let mut served = pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.shared.closing.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            // Old clients close connections unread; garbage and slow heads end here too.
            tracing::trace!(%remote, %error, "connection ended early");
        }
    }
}

impl Shared {
    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        remote: SocketAddr,
    ) -> hyper::Response<AnswerBody> {
        let method = Method::from_hyper(request.method());
        // A panic must not take other requests of the process down, nor leave this one unanswered.
        let answered = AssertUnwindSafe(self.dispatch(method, request, remote))
            .catch_unwind()
            .await;
        let response = answered.unwrap_or_else(|_| {
            tracing::error!(%remote, %method, "a request handler panicked");
            self.handler
                .refuse(500, "the request could not be handled, this is a bug")
        });
        self.finish(method, response)
    }

    async fn dispatch(
        &self,
        method: Method,
        request: hyper::Request<Incoming>,
        remote: SocketAddr,
    ) -> Response {
        let (head, incoming) = request.into_parts();
        let path = head.uri.path().to_owned();
        let limit = self.handler.body_limit_bytes(method, &path);
        let patience: Duration = self.limits.body_read_timeout;
        let body = match timeout(patience, body::read(incoming, limit)).await {
            Ok(Ok(body)) => body,
            Ok(Err(ReadError::TooLarge)) => {
                let message = format!("the body is larger than {limit} bytes");
                return self.handler.refuse(413, &message).closing();
            }
            Ok(Err(ReadError::Broken)) => {
                return self
                    .handler
                    .refuse(
                        400,
                        "the body ended early or is not framed as HTTP/1.1 wants",
                    )
                    .closing();
            }
            Err(_) => {
                let message = format!("the body did not arrive within {patience:?}");
                return self.handler.refuse(408, &message).closing();
            }
        };
        self.handler
            .handle(Request {
                method,
                path,
                query: head.uri.query().unwrap_or_default().to_owned(),
                headers: head.headers,
                body,
                remote,
                closing: Closing(self.closing.clone()),
            })
            .await
    }

    fn finish(&self, method: Method, response: Response) -> hyper::Response<AnswerBody> {
        let Response {
            status,
            mut headers,
            content,
        } = response;
        let body = match content {
            Content::Whole(body) => {
                if method == Method::Head {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                    AnswerBody::whole(bytes::Bytes::new())
                } else {
                    AnswerBody::whole(body)
                }
            }
            Content::Stream(_) if method == Method::Head => AnswerBody::whole(bytes::Bytes::new()),
            Content::Stream(parts) => {
                let closing = self.closing.clone();
                AnswerBody::Stream(
                    parts
                        .take_until(async move { closing.cancelled().await })
                        .boxed(),
                )
            }
        };
        assemble(status, headers, body)
    }
}

fn assemble(status: u16, headers: HeaderMap, body: AnswerBody) -> hyper::Response<AnswerBody> {
    let mut answer = hyper::Response::new(body);
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *answer.headers_mut() = headers;
    answer
}

impl Response {
    /// Ends the connection after this answer: the rest of the request was not read.
    fn closing(mut self) -> Self {
        self.headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
        self
    }
}

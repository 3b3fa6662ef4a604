//! Server-sent events over one connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::body::{Body, Incoming};
use sse_stream::SseByteStream;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::HttpError;
use super::connection::{Connection, Driver, Message, SendFailure};
use crate::clock;

/// How much of an error answer is read to find out what the server said.
const REFUSAL_MAX_BYTES: usize = 64 << 10;

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEvent {
    /// What kind of event it is: empty when the server named none.
    pub kind: String,
    /// The id to resume after.
    pub id: Option<String>,
    /// The payload: one JSON document in ours.
    pub data: String,
}

/// A stream of server-sent events. Dropping it closes its connection.
pub struct EventStream {
    address: String,
    decoder: SseByteStream<Driven>,
    pending_bytes: Arc<AtomicUsize>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    /// Returns the next event, `None` when the server has ended the stream.
    ///
    /// # Errors
    /// [`HttpError::Timeout`] when the server has been silent for too long,
    /// [`HttpError::Interrupted`] when the connection broke, [`HttpError::BodyTooLarge`] when one
    /// event exceeds the limit, [`HttpError::Protocol`] when it is not an event. The stream has
    /// ended after any of them.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, HttpError> {
        loop {
            let event = match self.decoder.next().await {
                None => return Ok(None),
                Some(Ok(event)) => event,
                Some(Err(error)) => return Err(refuse(&self.address, error)),
            };
            self.pending_bytes.store(0, Ordering::Relaxed);
            // A block without data is no event (it may set an id or a retry delay only).
            if let Some(data) = event.data {
                return Ok(Some(ServerEvent {
                    kind: event.event.unwrap_or_default(),
                    id: event.id,
                    data,
                }));
            }
        }
    }
}

fn refuse(address: &str, error: sse_stream::Error) -> HttpError {
    match error {
        sse_stream::Error::Body(source) => match source.downcast::<HttpError>() {
            Ok(ours) => *ours,
            Err(source) => HttpError::interrupted(address, source),
        },
        other => HttpError::protocol(address, other),
    }
}

/// How long to wait for what.
pub(super) struct Patience {
    pub(super) deadline: Instant,
    pub(super) after: Duration,
    pub(super) silence: Duration,
}

pub(super) async fn open(
    address: &str,
    mut connection: Connection,
    message: Message,
    patience: Patience,
    event_bytes: usize,
) -> Result<EventStream, HttpError> {
    let begun = timeout_at(patience.deadline, connection.begin(address, message)).await;
    let response = match begun {
        Err(_) => {
            return Err(HttpError::Timeout {
                address: address.to_owned(),
                after: patience.after,
            });
        }
        Ok(Err(SendFailure::Unsent(_))) => {
            return Err(HttpError::unreachable(
                address,
                "the connection closed before the request was sent",
            ));
        }
        Ok(Err(SendFailure::Failed(error))) => return Err(error),
        Ok(Ok(response)) => response,
    };
    let (head, body) = response.into_parts();
    let pending_bytes = Arc::new(AtomicUsize::new(0));
    let mut stream = Driven {
        address: address.to_owned(),
        driver: connection.into_driver(),
        body,
        silence: patience.silence,
        until_silent: Box::pin(sleep(patience.silence)),
        pending_bytes: Arc::clone(&pending_bytes),
        limit_bytes: event_bytes,
    };
    if head.status != 200 {
        let mut said = Vec::new();
        while let Ok(Some(Ok(part))) = timeout_at(patience.deadline, stream.next()).await {
            said.extend_from_slice(&part);
            if said.len() > REFUSAL_MAX_BYTES {
                break;
            }
        }
        return Err(HttpError::Status {
            address: address.to_owned(),
            status: head.status.as_u16(),
            problem: serde_json::from_slice(&said).ok().map(Box::new),
        });
    }
    let kind = head.headers.get(hyper::header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return Err(HttpError::protocol(address, "not a stream of events"));
    }
    Ok(EventStream {
        address: address.to_owned(),
        decoder: SseByteStream::new(stream),
        pending_bytes,
    })
}

/// The bytes of a body, read while driving its connection.
struct Driven {
    address: String,
    driver: Driver,
    body: Incoming,
    silence: Duration,
    until_silent: Pin<Box<Sleep>>,
    /// Bytes since the last whole event: the decoder itself knows no limit.
    pending_bytes: Arc<AtomicUsize>,
    limit_bytes: usize,
}

impl Stream for Driven {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.driver.step(cx);
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // Taking the last frame may have been what the driver waited for.
                    this.driver.step(cx);
                    match Pin::new(&mut this.body).poll_frame(cx) {
                        Poll::Ready(frame) => frame,
                        Poll::Pending => {
                            ready!(this.until_silent.as_mut().poll(cx));
                            return Poll::Ready(Some(Err(HttpError::Timeout {
                                address: this.address.clone(),
                                after: this.silence,
                            })));
                        }
                    }
                }
            };
            let data = match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    let error = HttpError::interrupted(&this.address, error);
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            this.until_silent
                .as_mut()
                .reset(clock::deadline(this.silence));
            let pending = this.pending_bytes.load(Ordering::Relaxed) + data.len();
            // A blank line ends an event or a keep-alive comment: nothing is pending after it.
            let kept = if data.ends_with(b"\n\n") { 0 } else { pending };
            this.pending_bytes.store(kept, Ordering::Relaxed);
            if pending > this.limit_bytes {
                return Poll::Ready(Some(Err(HttpError::BodyTooLarge {
                    address: this.address.clone(),
                    limit_bytes: this.limit_bytes,
                })));
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }
}

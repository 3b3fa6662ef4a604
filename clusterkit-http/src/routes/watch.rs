//! The topology as a document, and everything that waits: watches, long polls, event streams.
//!
//! A stream is pulled by its connection: a slow watcher skips to the newest topology when it gets
//! round to it, holds up nobody, and costs nothing while nothing changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use clusterkit_core::control::{ControlPlane, View};
use clusterkit_core::id::{Epoch, EventSeq};
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{timeout, timeout_at};

use super::legacy::NO_EPOCH;
use super::params::{self, accepts, etag, none_match, not_modified};
use super::{Answer, ClusterApi, Rendered};
use crate::api::v1::{EventDocument, EventsDocument};
use crate::api::{Problem, ProblemCode};
use crate::clock;
use crate::server::{Request, Response};

const EVENT_STREAM: &str = "text/event-stream";
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// How long a long poll waits when it does not say, and at most.
const POLL_WAIT_DEFAULT_MS: u64 = 30_000;
const POLL_WAIT_MAX_MS: u64 = 300_000;
/// The most events on a page, and the number when none is given.
const EVENTS_PAGE_MAX: usize = 1_000;
const EVENTS_PAGE_DEFAULT: usize = 100;

impl ClusterApi {
    pub(super) fn topology(&self, request: &Request) -> Answer {
        let view = self.formed()?.view;
        Ok(self.topology_or_unchanged(request, &view))
    }

    fn topology_or_unchanged(&self, request: &Request, view: &View) -> Response {
        let etag = etag(view.topology.epoch());
        if none_match(request, &etag) {
            return not_modified(&etag);
        }
        Response::json_bytes(200, self.topology.topology(&view.topology))
            .header("etag", etag)
            .header("cache-control", "no-cache")
    }

    pub(super) async fn watch(&self, request: &Request) -> Answer {
        let after = Epoch(after(request, "after")?.unwrap_or(NO_EPOCH.0));
        if accepts(request, "application/json") {
            return self.long_poll(request, after).await;
        }
        let control = self.formed()?.control;
        let permit = self.watcher()?;
        let documents = Documents {
            control,
            rendered: Arc::clone(&self.topology),
            known: after,
            keep_alive: self.limits.keep_alive_interval,
            _permit: permit,
        };
        Ok(Response::stream(200, EVENT_STREAM, topologies(documents))
            .header("cache-control", "no-store"))
    }

    async fn long_poll(&self, request: &Request, after: Epoch) -> Answer {
        let range = 0..=POLL_WAIT_MAX_MS;
        let wait_ms = params::number(request, "wait_ms", POLL_WAIT_DEFAULT_MS, &range)?;
        let formed = self.formed()?;
        let _permit = self.watcher()?;
        let deadline = clock::deadline(Duration::from_millis(wait_ms));
        let closing = request.closing();
        let mut view = formed.view;
        while view.topology.epoch() <= after {
            let newer = async {
                tokio::select! {
                    newer = formed.control.changed(view.version) => Some(newer),
                    () = closing.closed() => None,
                }
            };
            match timeout_at(deadline, newer).await {
                Ok(Some(newer)) => view = newer,
                Ok(None) | Err(_) => return Ok(not_modified(&etag(view.topology.epoch()))),
            }
        }
        let document = self.topology.topology(&view.topology);
        Ok(Response::json_bytes(200, document).header("etag", etag(view.topology.epoch())))
    }

    pub(super) fn events(&self, request: &Request) -> Answer {
        let range = 1..=EVENTS_PAGE_MAX;
        let limit = params::number(request, "limit", EVENTS_PAGE_DEFAULT, &range)?;
        let formed = self.formed()?;
        let state = &formed.view.state;
        let cursor = after(request, "after")?.map(EventSeq);
        let (events, missed) = state.events_after(cursor.unwrap_or_default());
        // Who names no cursor takes what there is; who names one must not miss anything unnoticed.
        if missed && let Some(cursor) = cursor {
            let oldest = events
                .first()
                .map_or_else(|| state.last_event(), |event| event.seq);
            let message = format!("events after {cursor} are not kept, the oldest is {oldest}");
            return Err(Problem::new(ProblemCode::CursorExpired, message));
        }
        if accepts(request, EVENT_STREAM) {
            let start = events.first().map_or_else(
                || state.last_event(),
                |event| EventSeq(event.seq.value().saturating_sub(1)),
            );
            let feed = Feed {
                control: formed.control,
                cursor: start,
                keep_alive: self.limits.keep_alive_interval,
                ended: false,
                _permit: self.watcher()?,
            };
            return Ok(Response::stream(200, EVENT_STREAM, happenings(feed))
                .header("cache-control", "no-store"));
        }
        let page: Vec<EventDocument> = events
            .iter()
            .take(limit)
            .map(|event| EventDocument::new(event, state))
            .collect();
        let next_after = page
            .last()
            .map_or_else(|| state.last_event(), |event| event.seq);
        let document = EventsDocument {
            has_more: page.len() < events.len(),
            events: page,
            next_after,
        };
        Ok(Response::json(200, &document))
    }

    fn watcher(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| {
            let message = format!("{} watches are open, the most", self.limits.watchers);
            Problem::new(ProblemCode::TooMany, message)
        })
    }
}

/// Returns the cursor: the parameter, or what a reconnecting event source remembers.
fn after(request: &Request, name: &str) -> Result<Option<u64>, Problem> {
    let resumed = request.header("last-event-id").map(str::to_owned);
    let given = request.query().text(name).map(String::from);
    let Some(text) = resumed.or(given) else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|_| Problem::invalid(name, text, "a whole number of 0 or more"))
}

/// A watch of the topology.
struct Documents {
    control: Arc<dyn ControlPlane>,
    rendered: Arc<Rendered>,
    known: Epoch,
    keep_alive: Duration,
    _permit: OwnedSemaphorePermit,
}

fn topologies(documents: Documents) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(documents, |mut documents| async move {
        let mut view = documents.control.view();
        while view.topology.epoch() <= documents.known {
            let newer = documents.control.changed(view.version);
            match timeout(documents.keep_alive, newer).await {
                Ok(newer) => view = newer,
                Err(_) => return Some((KEEP_ALIVE, documents)),
            }
        }
        documents.known = view.topology.epoch();
        let written = documents.rendered.topology(&view.topology);
        let part = event("topology", documents.known.value(), &written);
        Some((part, documents))
    })
}

/// A stream of events.
struct Feed {
    control: Arc<dyn ControlPlane>,
    cursor: EventSeq,
    keep_alive: Duration,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

fn happenings(feed: Feed) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(feed, next_happenings)
}

async fn next_happenings(mut feed: Feed) -> Option<(Bytes, Feed)> {
    if feed.ended {
        return None;
    }
    let mut view = feed.control.view();
    while view.state.last_event() <= feed.cursor {
        match timeout(feed.keep_alive, feed.control.changed(view.version)).await {
            Ok(newer) => view = newer,
            Err(_) => return Some((KEEP_ALIVE, feed)),
        }
    }
    let (events, missed) = view.state.events_after(feed.cursor);
    if missed {
        // The watcher was too slow: it must start again from the topology.
        feed.ended = true;
        let told = Problem::new(
            ProblemCode::CursorExpired,
            format!("events after {} are not kept", feed.cursor),
        );
        let told = serde_json::to_vec(&told).ok()?;
        return Some((event("expired", feed.cursor.value(), &told), feed));
    }
    let mut part = BytesMut::new();
    for happened in events.iter().take(EVENTS_PAGE_MAX) {
        let document = EventDocument::new(happened, &view.state);
        let written = serde_json::to_vec(&document).ok()?;
        part.extend_from_slice(&event(document.body.kind(), happened.seq.value(), &written));
        feed.cursor = happened.seq;
    }
    Some((part.freeze(), feed))
}

/// Writes one server-sent event; `data` is JSON on one line.
fn event(kind: &str, id: u64, data: &[u8]) -> Bytes {
    let mut part = BytesMut::with_capacity(data.len() + kind.len() + 48);
    part.put_slice(b"event: ");
    part.put_slice(kind.as_bytes());
    part.put_slice(b"\nid: ");
    part.put_slice(id.to_string().as_bytes());
    part.put_slice(b"\ndata: ");
    part.put_slice(data);
    part.put_slice(b"\n\n");
    part.freeze()
}

//! The bodies of answers as hyper reads them, and of requests as we read them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// How much of a body that is too large is still taken in, so that its sender gets to read the
/// refusal instead of a reset connection. Larger ones are cut off.
const DRAIN_MAX_BYTES: usize = 16 << 20;
/// How long that may take.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How much of an announced body is reserved before it arrives.
const RESERVE_MAX_BYTES: usize = 1 << 20;

/// The body of an answer.
pub(super) enum AnswerBody {
    Whole(Option<Bytes>),
    Stream(BoxStream<'static, Bytes>),
}

impl AnswerBody {
    pub(super) fn whole(body: Bytes) -> Self {
        Self::Whole(Some(body).filter(|body| !body.is_empty()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(parts) => parts
                .poll_next_unpin(cx)
                .map(|part| part.map(|part| Ok(Frame::data(part)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

pub(super) enum ReadError {
    TooLarge,
    Broken,
}

/// Reads a request's body up to `limit` bytes.
pub(super) async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, ReadError> {
    let announced = usize::try_from(body.size_hint().lower()).map_err(|_| ReadError::TooLarge)?;
    if announced > limit {
        if announced - limit <= DRAIN_MAX_BYTES {
            drain(&mut body).await;
        }
        return Err(ReadError::TooLarge);
    }
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ReadError::Broken)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = first.as_ref().map_or(all.len(), Bytes::len);
        let length = so_far + data.len();
        if length > limit {
            drain(&mut body).await;
            return Err(ReadError::TooLarge);
        }
        // Most bodies arrive in one piece, which is then not copied.
        if so_far == 0 {
            first = Some(data);
            continue;
        }
        if let Some(begun) = first.take() {
            all.reserve(announced.min(RESERVE_MAX_BYTES).max(length));
            all.extend_from_slice(&begun);
        }
        all.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// Takes in and drops what follows, within limits.
async fn drain(body: &mut Incoming) {
    let draining = async {
        let mut left = DRAIN_MAX_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // The refusal is sent either way; only a sender that is still sending may miss it.
    let _ = timeout(DRAIN_MAX, draining).await;
}

//! One connection that is driven by the request that uses it.
//!
//! hyper splits a connection into a sender and a driver future. We poll the driver beside the
//! request instead of spawning it: no task to own, no wake-up between tasks, and dropping a request
//! drops its connection.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::{HttpError, HttpResponse};
use crate::net::Network;

pub(super) type Message = hyper::Request<Full<Bytes>>;

/// How much of an announced body is reserved before it arrives.
const RESERVE_MAX_BYTES: usize = 1 << 20;

pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

/// The half of a connection that moves bytes. `None` once the connection has ended.
pub(super) struct Driver(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

pub(super) enum SendFailure {
    /// Nothing of the message was written; here it is again.
    Unsent(Box<Message>),
    Failed(HttpError),
}

impl Driver {
    pub(super) fn step(&mut self, cx: &mut Context<'_>) {
        if let Some(future) = &mut self.0
            && future.as_mut().poll(cx).is_ready()
        {
            self.0 = None;
        }
    }

    /// Resolves `future` while moving the bytes it waits for.
    async fn with<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.step(cx);
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(output),
                Poll::Pending => {
                    // The first poll of `future` may be what hands the driver its work.
                    self.step(cx);
                    future.as_mut().poll(cx)
                }
            }
        })
        .await
    }
}

impl Connection {
    pub(super) async fn open(network: &dyn Network, address: &str) -> Result<Self, HttpError> {
        let (host, port) = split_address(address)?;
        let stream = network
            .connect(host, port)
            .await
            .map_err(|error| HttpError::unreachable(address, error))?;
        let (sender, driver) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpError::unreachable(address, error))?;
        Ok(Self {
            sender,
            driver: Driver(Some(Box::pin(driver))),
        })
    }

    /// Tells whether another request may be sent: notices a connection the server has closed.
    pub(super) fn is_usable(&mut self) -> bool {
        self.driver.step(&mut Context::from_waker(Waker::noop()));
        self.driver.0.is_some() && self.sender.is_ready()
    }

    /// Sends `message` and returns the answer's head and unread body.
    pub(super) async fn begin(
        &mut self,
        address: &str,
        message: Message,
    ) -> Result<hyper::Response<Incoming>, SendFailure> {
        let sent = self.sender.try_send_request(message);
        match self.driver.with(sent).await {
            Ok(response) => Ok(response),
            Err(mut refused) => Err(match refused.take_message() {
                Some(message) => SendFailure::Unsent(Box::new(message)),
                None => {
                    let error = refused.into_error();
                    SendFailure::Failed(if error.is_parse() {
                        HttpError::protocol(address, error)
                    } else {
                        HttpError::interrupted(address, error)
                    })
                }
            }),
        }
    }

    /// Sends `message` and reads the whole answer, up to `limit` bytes of body.
    pub(super) async fn exchange(
        &mut self,
        address: &str,
        message: Message,
        limit: usize,
    ) -> Result<HttpResponse, SendFailure> {
        let (head, mut body) = self.begin(address, message).await?.into_parts();
        let collected = self
            .read(address, &mut body, limit)
            .await
            .map_err(SendFailure::Failed)?;
        Ok(HttpResponse::new(
            head.status.as_u16(),
            head.headers,
            collected,
        ))
    }

    async fn read(
        &mut self,
        address: &str,
        body: &mut Incoming,
        limit: usize,
    ) -> Result<Bytes, HttpError> {
        let too_large = || HttpError::BodyTooLarge {
            address: address.to_owned(),
            limit_bytes: limit,
        };
        let announced = body.size_hint().lower();
        let announced = usize::try_from(announced).map_err(|_| too_large())?;
        if announced > limit {
            return Err(too_large());
        }
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        loop {
            let frame = self.driver.with(body.frame()).await;
            let data = match frame {
                None => break,
                Some(Err(error)) => return Err(HttpError::interrupted(address, error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            let so_far = first.as_ref().map_or(all.len(), Bytes::len);
            if so_far + data.len() > limit {
                return Err(too_large());
            }
            if so_far == 0 {
                first = Some(data);
                continue;
            }
            if let Some(begun) = first.take() {
                all.reserve(announced.clamp(
                    begun.len() + data.len(),
                    RESERVE_MAX_BYTES.max(begun.len() + data.len()),
                ));
                all.extend_from_slice(&begun);
            }
            all.extend_from_slice(&data);
        }
        Ok(first.unwrap_or_else(|| all.freeze()))
    }

    pub(super) fn into_driver(self) -> Driver {
        self.driver
    }
}

/// Splits `host:port`; an empty host is this machine.
fn split_address(address: &str) -> Result<(&str, u16), HttpError> {
    let refused = || HttpError::Invalid {
        field: "address",
        value: address.to_owned(),
        limit: "host:port",
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
    let port = port.parse().map_err(|_| refused())?;
    let host = match host {
        "" => "127.0.0.1",
        bracketed if bracketed.starts_with('[') && bracketed.ends_with(']') => {
            &bracketed[1..bracketed.len() - 1]
        }
        bare if bare.contains(':') => return Err(refused()),
        bare => bare,
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_or_refused_by_name() {
        assert_eq!(split_address(":8080").unwrap(), ("127.0.0.1", 8080));
        assert_eq!(split_address("[::1]:8080").unwrap(), ("::1", 8080));
        assert_eq!(split_address("node-1:8080").unwrap(), ("node-1", 8080));
        for bad in ["", "8080", "::1:8080", "host:", "host:99999", "host:x"] {
            let error = split_address(bad).unwrap_err().to_string();
            assert_eq!(error, format!("address is `{bad}`, must be host:port"));
        }
    }
}

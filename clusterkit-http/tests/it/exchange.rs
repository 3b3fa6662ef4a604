//! Client and server against each other, with a handler that knows nothing of clusters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_http::Method;
use clusterkit_http::client::{ClientLimits, HttpClient, HttpError, HttpRequest};
use clusterkit_http::server::{
    BindError, Handler, Request, Response, RunningServer, Server, ServerLimits,
};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::raw::talk;

const BODY_LIMIT: usize = 1_000;

/// Answers by path; counts what it was asked.
#[derive(Default)]
struct Echo {
    asked: AtomicUsize,
    entered: Notify,
    release: Notify,
}

#[async_trait]
impl Handler for Echo {
    fn body_limit_bytes(&self, _method: Method, _path: &str) -> usize {
        BODY_LIMIT
    }

    async fn handle(&self, request: Request) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match request.path() {
            "/echo" => Response::binary(200, request.body().clone()),
            "/big" => Response::binary(200, vec![7; 300_000]),
            "/panic" => panic!("asked to"),
            "/wait" => {
                self.entered.notify_one();
                self.release.notified().await;
                Response::text(200, "waited")
            }
            "/stream" => Response::stream(
                200,
                "text/event-stream",
                stream::unfold(0, |n| async move {
                    match n {
                        0 => Some((Bytes::from(": hello\n\nid: 1\nevent: first\nda"), 1)),
                        1 => Some((Bytes::from("ta: one\ndata: more\n\n"), 2)),
                        _ => futures_util::future::pending().await,
                    }
                }),
            ),
            path => Response::text(404, format!("no {path}")),
        }
    }
}

async fn start(limits: ServerLimits) -> (RunningServer, Arc<Echo>, String) {
    let echo = Arc::new(Echo::default());
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let server = server.serve(Arc::clone(&echo) as Arc<dyn Handler>, limits);
    let address = server.local_addr().to_string();
    (server, echo, address)
}

#[tokio::test]
async fn requests_in_a_row_share_one_connection() {
    let (server, echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();
    for size in [0, 1, 999, 1_000] {
        let body = vec![42; size];
        let answer = client
            .send(&address, HttpRequest::post("/echo").body(body.clone()))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body(), &body);
        assert_eq!(client.idle_connections(&address), 1);
    }
    let big = client.send(&address, HttpRequest::get("/big")).await;
    assert_eq!(big.unwrap().body().len(), 300_000);
    assert_eq!(client.idle_connections(&address), 1);
    assert_eq!(echo.asked.load(Ordering::SeqCst), 5);
    assert!(server.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn head_answers_the_length_without_the_body() {
    let (_server, _echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();
    let answer = client
        .send(&address, HttpRequest::new(Method::Head, "/big"))
        .await
        .unwrap();
    assert_eq!(answer.header("content-length"), Some("300000"));
    assert!(answer.body().is_empty());
    // The connection is still in step.
    let next = client.send(&address, HttpRequest::get("/big")).await;
    assert_eq!(next.unwrap().body().len(), 300_000);
    assert_eq!(client.idle_connections(&address), 1);
}

#[tokio::test]
async fn a_kept_connection_the_server_closed_is_replaced_without_an_error() {
    let (server, _echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();
    let hello = || HttpRequest::post("/echo").body("hello");
    client.send(&address, hello()).await.unwrap();
    assert_eq!(client.idle_connections(&address), 1);
    assert!(server.shutdown(Duration::from_secs(5)).await);

    let echo = Arc::new(Echo::default());
    let again = Server::bind(&address).await.unwrap();
    let _again = again.serve(echo, ServerLimits::default());
    let answer = client.send(&address, hello()).await.unwrap();
    assert_eq!(answer.body(), "hello".as_bytes());
}

#[tokio::test]
async fn each_failure_is_its_own_variant() {
    let (server, echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();

    let slow = HttpRequest::get("/wait").within(Duration::from_millis(50));
    let error = client.send(&address, slow).await.unwrap_err();
    assert!(matches!(error, HttpError::Timeout { .. }), "{error}");
    assert!(error.is_outcome_unknown() && !error.is_retryable());

    let short = HttpRequest::get("/big").response_limit_bytes(1_000);
    let error = client.send(&address, short).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the answer of {address} is larger than 1000 bytes")
    );

    let error = client
        .json::<u32>(&address, HttpRequest::get("/nowhere"))
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Status { status: 404, .. }));

    let error = client
        .json::<u32>(&address, HttpRequest::post("/echo").body("{"))
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Protocol { .. }), "{error}");

    let error = client
        .send("nowhere", HttpRequest::get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "address is `nowhere`, must be host:port");

    // The server dies while it works on a request: whether it acted cannot be known.
    let waiting = client.send(&address, HttpRequest::get("/wait"));
    let dying = async {
        echo.entered.notified().await;
        echo.entered.notified().await;
        drop(server);
    };
    let (error, ()) = tokio::join!(waiting, dying);
    let error = error.unwrap_err();
    assert!(matches!(error, HttpError::Interrupted { .. }), "{error}");

    let error = client
        .send(&address, HttpRequest::get("/"))
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
    assert!(error.is_retryable() && !error.is_outcome_unknown());
}

#[tokio::test]
async fn connections_to_one_address_are_bounded() {
    let (_server, _echo, address) = start(ServerLimits::default()).await;
    let mut limits = ClientLimits::default();
    limits.connections_per_address = 1;
    let client = HttpClient::new(limits);
    let long = client.send(
        &address,
        HttpRequest::get("/wait").within(Duration::from_millis(400)),
    );
    let second = client.send(
        &address,
        HttpRequest::get("/echo").within(Duration::from_millis(100)),
    );
    let (long, second) = tokio::join!(long, second);
    assert!(matches!(long, Err(HttpError::Timeout { .. })));
    // It never left: safe to send again.
    assert!(matches!(second, Err(HttpError::Unreachable { .. })));
    let after = client.send(&address, HttpRequest::get("/echo")).await;
    assert_eq!(after.unwrap().status(), 200);
}

/// Answers the first request of each connection, then falls silent: a host that vanished.
async fn vanishing() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let serving = async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer).await;
            held.push(stream);
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(serving);
    (address, tasks)
}

#[tokio::test]
async fn connections_to_a_vanished_host_are_not_tried_one_by_one() {
    let (address, _serving) = vanishing().await;
    let client = HttpClient::default();
    let send = |deadline| {
        let request = HttpRequest::get("/").within(Duration::from_millis(deadline));
        client.send(&address, request)
    };
    let (first, second, third) = tokio::join!(send(5_000), send(5_000), send(5_000));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    let kept = client.idle_connections(&address);
    assert!(kept > 1, "{kept}");
    // Given up by the caller, as Raft does, before the deadline of the request itself.
    let given_up = timeout(Duration::from_millis(100), send(5_000)).await;
    assert!(given_up.is_err());
    assert_eq!(client.idle_connections(&address), 0);
    assert!(send(5_000).await.is_ok());
}

#[tokio::test]
async fn unused_connections_are_closed_and_streams_are_not() {
    let mut limits = ServerLimits::default();
    limits.header_read_timeout = Duration::from_millis(100);
    let (server, _echo, address) = start(limits).await;
    let client = HttpClient::default();
    let silence = Duration::from_secs(5);
    let open = client.events(&address, HttpRequest::get("/stream"), silence);
    let mut events = open.await.unwrap();
    events.next().await.unwrap().unwrap();
    let half = b"GET /echo HTTP/1.1\r\nhost";
    let answer = talk(address.parse().unwrap(), half).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer:?}"
    );
    let unused = TcpStream::connect(&address).await.unwrap();
    let closed = async {
        let mut byte = [0];
        unused.readable().await.unwrap();
        matches!(unused.try_read(&mut byte), Ok(0))
    };
    assert_eq!(timeout(silence, closed).await, Ok(true));
    // The stream has been open for several times that long.
    assert!(
        timeout(Duration::from_millis(200), events.next())
            .await
            .is_err()
    );
    assert!(server.shutdown(silence).await);
}

#[tokio::test]
async fn rule_15_oversize_bodies_are_refused_announced_or_not() {
    let (_server, echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();
    let answer = client
        .send(&address, HttpRequest::post("/echo").body(vec![0; 1_001]))
        .await
        .unwrap();
    assert_eq!(answer.status(), 413);
    let socket = address.parse().unwrap();
    let mut chunked =
        b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        chunked.extend_from_slice(b"1f4\r\n");
        chunked.extend_from_slice(&[b'x'; 500]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = talk(socket, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("the body is larger than 1000 bytes"));
    assert_eq!(echo.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn garbage_is_answered_400_and_a_panic_500() {
    let (_server, _echo, address) = start(ServerLimits::default()).await;
    let socket = address.parse().unwrap();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"GET /echo HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let answer = talk(socket, garbage).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    }
    let pipelined = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n\0\x01garbage\r\n\r\n";
    let answer = talk(socket, pipelined).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert!(answer.contains("HTTP/1.1 400"), "{answer:?}");

    let client = HttpClient::default();
    let answer = client.send(&address, HttpRequest::get("/panic")).await;
    assert_eq!(answer.unwrap().status(), 500);
    let answer = client.send(&address, HttpRequest::get("/echo")).await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn clients_that_leave_unread_do_no_harm() {
    let (server, echo, address) = start(ServerLimits::default()).await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        drop(stream);
    }
    let client = HttpClient::default();
    let answer = client.send(&address, HttpRequest::get("/echo")).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert!(echo.asked.load(Ordering::SeqCst) >= 1);
    assert!(server.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let mut limits = ServerLimits::default();
    limits.connections = 1;
    let (_server, _echo, address) = start(limits).await;
    let held = TcpStream::connect(&address).await.unwrap();
    let answer = talk(address.parse().unwrap(), b"").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
    drop(held);
}

#[tokio::test]
async fn events_arrive_whole_and_end_with_the_server() {
    let (server, _echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();
    let silence = Duration::from_secs(5);
    let mut events = client
        .events(&address, HttpRequest::get("/stream"), silence)
        .await
        .unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first.kind, "first");
    assert_eq!(first.id.as_deref(), Some("1"));
    assert_eq!(first.data, "one\nmore");

    let refused = client
        .events(&address, HttpRequest::get("/nowhere"), silence)
        .await
        .unwrap_err();
    assert!(matches!(refused, HttpError::Status { status: 404, .. }));
    let refused = client
        .events(&address, HttpRequest::get("/echo"), silence)
        .await
        .unwrap_err();
    assert!(matches!(refused, HttpError::Protocol { .. }));

    let mut silent = client
        .events(
            &address,
            HttpRequest::get("/stream"),
            Duration::from_millis(100),
        )
        .await
        .unwrap();
    silent.next().await.unwrap().unwrap();
    assert!(matches!(
        silent.next().await,
        Err(HttpError::Timeout { .. })
    ));

    // An open stream does not hold up the shutdown.
    let stopped = timeout(
        Duration::from_secs(2),
        server.shutdown(Duration::from_secs(5)),
    );
    let (stopped, last) = tokio::join!(stopped, events.next());
    assert_eq!(stopped, Ok(true));
    assert!(matches!(last, Ok(None)));
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_finish_within_its_limit() {
    let (server, echo, address) = start(ServerLimits::default()).await;
    let client = HttpClient::default();
    let finishing = async {
        echo.entered.notified().await;
        let stopping = server.shutdown(Duration::from_secs(5));
        let releasing = async { echo.release.notify_one() };
        tokio::join!(stopping, releasing).0
    };
    let (answer, finished) =
        tokio::join!(client.send(&address, HttpRequest::get("/wait")), finishing);
    assert_eq!(answer.unwrap().body(), "waited".as_bytes());
    assert!(finished);

    let (server, echo, address) = start(ServerLimits::default()).await;
    let stuck = async {
        echo.entered.notified().await;
        server.shutdown(Duration::from_millis(50)).await
    };
    let (answer, finished) = tokio::join!(client.send(&address, HttpRequest::get("/wait")), stuck);
    assert!(matches!(answer, Err(HttpError::Interrupted { .. })));
    assert!(!finished);
}

#[tokio::test]
async fn addresses_that_cannot_be_bound_say_what_to_do() {
    let taken = Server::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().to_string();
    let error = Server::bind(&address).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "http_addr `{address}` is taken by another process: stop it or choose another port \
             (port 0 takes a free one)"
        )
    );
    for bad in ["", "8080", "127.0.0.1", "host:99999", "http://x:1"] {
        let error = Server::bind(bad).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("http_addr is `{bad}`, must be host:port")),
            "{error}"
        );
    }
    let error = Server::bind("192.0.2.1:0").await.unwrap_err();
    assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
    assert!(Server::bind(":0").await.is_ok());
    assert!(Server::bind("localhost:0").await.is_ok());
}

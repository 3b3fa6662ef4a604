//! Watches, long polls and event streams.

use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_http::api::TopologyDocument;
use clusterkit_http::api::v1::{EventDocument, EventsDocument};
use clusterkit_http::client::{EventStream, HttpClient, HttpError, HttpRequest, HttpResponse};
use clusterkit_http::routes::ApiLimits;
use clusterkit_http::server::ServerLimits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fake::{Cluster, NOW, Served};

const LIMIT: Duration = Duration::from_secs(10);

impl Served {
    async fn open(&self, target: &str) -> EventStream {
        let opened = HttpClient::default()
            .events(&self.address, HttpRequest::get(target), LIMIT)
            .await;
        opened.unwrap()
    }

    /// Changes the topology once.
    fn change(&self) -> u64 {
        let node = self.node.control.some_follower();
        let weight = Some(2 + u32::try_from(self.node.control.view_epoch()).unwrap());
        let update = Command::UpdateNode {
            node,
            weight,
            zone: None,
            at: NOW,
        };
        self.node.control.apply(&update).unwrap();
        self.node.control.view_epoch()
    }

    async fn poll(&self, query: &str) -> HttpResponse {
        let request =
            HttpRequest::get(format!("/v1/watch?{query}")).header("accept", "application/json");
        let client = HttpClient::default();
        client.send(&self.address, request).await.unwrap()
    }
}

async fn document(stream: &mut EventStream) -> TopologyDocument {
    let event = timeout(LIMIT, stream.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(event.kind, "topology");
    let document: TopologyDocument = serde_json::from_str(&event.data).unwrap();
    assert_eq!(event.id, Some(document.epoch.to_string()));
    document
}

#[tokio::test]
async fn a_watch_begins_with_the_topology_and_follows_it() {
    let served = Cluster::default().serve().await;
    let mut watch = served.open("/v1/watch").await;
    let first = document(&mut watch).await;
    assert_eq!(first.epoch.value(), served.node.control.view_epoch());
    let rebuilt = first.to_topology().unwrap();
    let own = served.node.control.topology();
    assert_eq!(rebuilt.parts(), own.parts());

    let changed = served.change();
    assert_eq!(document(&mut watch).await.epoch.value(), changed);
    // Many changes while nobody reads: the newest counts.
    for _ in 0..20 {
        served.change();
    }
    let last = served.change();
    while document(&mut watch).await.epoch.value() < last {}

    // Who knows the newest gets the next only.
    let mut up_to_date = served.open(&format!("/v1/watch?after={last}")).await;
    let next = served.change();
    assert_eq!(document(&mut up_to_date).await.epoch.value(), next);
}

#[tokio::test]
async fn a_long_poll_answers_a_change_or_304() {
    let served = Cluster::default().serve().await;
    let epoch = served.node.control.view_epoch();
    let at_once = served.poll("after=0&wait_ms=0").await;
    assert_eq!(at_once.status(), 200);
    let nothing = served.poll(&format!("after={epoch}&wait_ms=20")).await;
    assert_eq!(nothing.status(), 304);
    let query = format!("after={epoch}&wait_ms=9000");
    let waiting = served.poll(&query);
    let changing = async {
        while served.api.watcher_count() == 0 {
            tokio::task::yield_now().await;
        }
        served.change()
    };
    let (answer, changed) = tokio::join!(waiting, changing);
    assert_eq!(
        answer.header("etag"),
        Some(format!("\"{changed}\"").as_str())
    );
    assert_eq!(served.api.watcher_count(), 0);
    for (query, message) in [
        (
            "after=x",
            "after is `x`, must be a whole number of 0 or more",
        ),
        (
            "wait_ms=-1",
            "wait_ms is `-1`, must be a whole number from 0 to 300000",
        ),
    ] {
        let answer = served.poll(query).await;
        assert_eq!(answer.problem().unwrap().message, message);
    }
}

#[tokio::test]
async fn idle_watches_are_kept_alive_and_closed_ones_are_let_go() {
    let mut limits = ApiLimits::default();
    limits.keep_alive_interval = Duration::from_millis(20);
    limits.watchers = 2;
    let cluster = Cluster {
        limits,
        ..Cluster::default()
    };
    let served = cluster.serve().await;
    let epoch = served.node.control.view_epoch();
    let target = format!("/v1/watch?after={epoch}");
    // Silence of five intervals would end these.
    let silence = Duration::from_millis(500);
    let client = HttpClient::default();
    let open = || client.events(&served.address, HttpRequest::get(&target), silence);
    let mut first = open().await.unwrap();
    let second = open().await.unwrap();
    assert!(timeout(silence * 2, first.next()).await.is_err());

    let error = open().await.unwrap_err();
    assert_eq!(
        error.problem().unwrap().message,
        "2 watches are open, the most"
    );
    assert!(error.is_retryable());
    drop(second);
    // The next comment finds the connection closed.
    timeout(LIMIT, async {
        while matches!(open().await, Err(HttpError::Status { .. })) {}
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_watcher_that_never_reads_holds_up_nobody() {
    let cluster = Cluster {
        partitions: 4_096,
        ..Cluster::default()
    };
    let served = cluster.serve().await;
    let mut stuck = TcpStream::connect(&served.address).await.unwrap();
    stuck
        .write_all(b"GET /v1/watch HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut watch = served.open("/v1/watch").await;
    document(&mut watch).await;
    // Far more than the socket buffers hold.
    for _ in 0..60 {
        let epoch = served.change();
        while document(&mut watch).await.epoch.value() < epoch {}
    }
    let answer = HttpClient::default()
        .send(&served.address, HttpRequest::get("/health"))
        .await;
    assert_eq!(answer.unwrap().status(), 200);
    drop(stuck);
}

#[tokio::test]
async fn a_watcher_that_vanished_is_let_go() {
    let mut limits = ApiLimits::default();
    limits.watchers = 1;
    let mut server_limits = ServerLimits::default();
    server_limits.write_stall_timeout = Duration::from_millis(100);
    let cluster = Cluster {
        partitions: 4_096,
        limits,
        server_limits,
        ..Cluster::default()
    };
    let served = cluster.serve().await;
    let mut gone = TcpStream::connect(&served.address).await.unwrap();
    gone.write_all(b"GET /v1/watch HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    while served.api.watcher_count() == 0 {
        tokio::task::yield_now().await;
    }
    let let_go = async {
        while served.api.watcher_count() > 0 {
            served.change();
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, let_go).await.unwrap();
    drop(gone);
}

#[tokio::test]
async fn shutdown_ends_watches_and_polls() {
    let served = Cluster::default().serve().await;
    let epoch = served.node.control.view_epoch();
    let mut watch = served.open(&format!("/v1/watch?after={epoch}")).await;
    let mut events = served.open("/v1/events?after=99999").await;
    let request = HttpRequest::get(format!("/v1/watch?after={epoch}&wait_ms=60000"))
        .header("accept", "application/json")
        .within(LIMIT);
    let client = HttpClient::default();
    let poll = client.send(&served.address, request);
    let stopping = async {
        while served.api.watcher_count() < 3 {
            tokio::task::yield_now().await;
        }
        timeout(LIMIT, served.server.shutdown(Duration::from_secs(30))).await
    };
    let (polled, stopped) = tokio::join!(poll, stopping);
    assert_eq!(stopped, Ok(true));
    assert!(matches!(watch.next().await, Ok(None)));
    assert!(matches!(events.next().await, Ok(None)));
    assert_eq!(polled.unwrap().status(), 304);
}

#[tokio::test]
async fn events_are_paged_and_streamed_without_a_gap() {
    let served = Cluster::default().serve().await;
    let client = HttpClient::default();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let request = HttpRequest::get(format!("/v1/events?after={after}&limit=3"));
        let page: EventsDocument = client.json(&served.address, request).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.seq.value()));
        after = page.next_after.value();
        if !page.has_more {
            break;
        }
    }
    assert!(seen.len() > 6);
    assert!(seen.iter().copied().eq(1..=after));

    let mut stream = served
        .open(&format!("/v1/events?after={}", after - 1))
        .await;
    let mut next = async || {
        let event = timeout(LIMIT, stream.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let document: EventDocument = serde_json::from_str(&event.data).unwrap();
        assert_eq!(event.kind, document.body.kind());
        assert_eq!(event.id, Some(document.seq.to_string()));
        document
    };
    assert_eq!(next().await.seq.value(), after);
    let nodes = vec![served.node.control.some_follower()];
    let down = Command::MarkDown {
        nodes,
        promotions: Vec::new(),
        at: NOW,
    };
    served.node.control.apply(&down).unwrap();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&"cluster_health_changed") {
        let event = next().await;
        after += 1;
        assert_eq!(event.seq.value(), after);
        kinds.push(event.body.kind());
    }
    assert!(kinds.contains(&"node_left"), "{kinds:?}");
}

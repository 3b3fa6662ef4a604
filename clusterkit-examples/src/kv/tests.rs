//! Nodes of this service over real sockets, in a cluster whose topology the test dictates.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId, RaftId};
use clusterkit_http::client::{HttpClient, HttpRequest, HttpResponse};
use clusterkit_http::net::TcpNetwork;
use clusterkit_http::server::{Handler, RunningServer, Server, ServerLimits};
use futures_util::FutureExt;

use super::engine::{Engine, Patience, Refused};
use super::migration::Copied;
use super::record::{Entry, Record, Version};
use super::service::KvService;
use super::store::{MemoryStore, Store, WriteOp};
use super::testing::{Script, Scripted, at};
use super::{clock, cluster::Cluster};

const P: PartitionId = PartitionId(0);
const SOON: Duration = Duration::from_secs(20);
const VALUE_MAX: usize = 1_000;

struct Member {
    id: u64,
    cluster: Arc<Scripted>,
    store: Arc<MemoryStore>,
    engine: Arc<Engine>,
    service: Arc<KvService>,
    server: Option<RunningServer>,
    address: String,
}

struct Cast {
    members: Vec<Member>,
    script: Script,
    client: HttpClient,
}

impl Cast {
    /// Starts nodes 1 to `count` and shows them `script`.
    async fn start(count: u64, script: Script) -> Self {
        let mut cast = Self {
            members: Vec::new(),
            script,
            client: HttpClient::default(),
        };
        for id in 1..=count {
            let patience = Patience {
                request: Duration::from_millis(900),
                exchange: Duration::from_millis(300),
                catch_up: Duration::from_millis(300),
                copy: Duration::from_secs(5),
            };
            let cluster = Scripted::new();
            let store = Arc::new(MemoryStore::default());
            let seam: Arc<dyn Cluster> = cluster.clone();
            let engine = Engine::new(seam, store.clone(), &TcpNetwork::shared(), patience);
            let service = KvService::new(Arc::clone(&engine), format!("node-{id}"), VALUE_MAX);
            let service = Arc::new(service);
            let bound = Server::bind("127.0.0.1:0").await.unwrap();
            let address = bound.local_addr().to_string();
            let handler: Arc<dyn Handler> = service.clone();
            let server = Some(bound.serve(handler, ServerLimits::default()));
            cast.script = cast.script.served_at(id, address.clone());
            cast.members.push(Member {
                id,
                cluster,
                store,
                engine,
                service,
                server,
                address,
            });
        }
        cast.show_all();
        cast
    }

    fn member(&self, id: u64) -> &Member {
        &self.members[at(id)]
    }

    /// Changes the topology; nobody is told.
    fn change(&mut self, change: impl FnOnce(Script) -> Script) {
        self.script = change(self.script.clone());
        self.script.epoch += 1;
    }

    fn show(&self, id: u64) {
        let member = self.member(id);
        member.cluster.show(self.script.seen_by(id));
    }

    fn show_all(&self) {
        self.members.iter().for_each(|member| self.show(member.id));
    }

    async fn set(&self, id: u64, key: &str, value: &str) -> HttpResponse {
        let document = serde_json::json!({"key": key, "value": value});
        self.post(id, HttpRequest::post("/kv/set").json_body(&document))
            .await
    }

    async fn post(&self, id: u64, request: HttpRequest) -> HttpResponse {
        let address = &self.member(id).address;
        self.client
            .send(address, request.within(SOON))
            .await
            .unwrap()
    }

    async fn get(&self, id: u64, target: &str) -> (u16, String) {
        let answer = self.post(id, HttpRequest::get(target)).await;
        (
            answer.status(),
            String::from_utf8(answer.into_body().to_vec()).unwrap(),
        )
    }

    /// Returns the value of `key` in the copy of node `id`.
    fn held(&self, id: u64, key: &str) -> Option<String> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let got = self.member(id).store.get(P, key).now_or_never();
        let record = got.unwrap().unwrap()?;
        Some(String::from_utf8(record.value?.to_vec()).unwrap())
    }

    fn stop(&mut self, id: u64) {
        self.members[at(id)].server = None;
    }

    /// Serves again at the same address, with whatever `id` holds.
    async fn resume(&mut self, id: u64) {
        let address = self.member(id).address.clone();
        let bound = Server::bind(&address).await.unwrap();
        let handler: Arc<dyn Handler> = self.member(id).service.clone();
        let server = bound.serve(handler, ServerLimits::default());
        self.members[at(id)].server = Some(server);
    }
}

fn version(epoch: u64, seq: u64) -> Version {
    Version {
        epoch: Epoch(epoch),
        seq,
    }
}

fn merge(key: &str, version: Version, value: &str) -> WriteOp {
    WriteOp::Merge {
        partition: P,
        entry: Entry {
            key: Bytes::copy_from_slice(key.as_bytes()),
            record: Record {
                version,
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
            },
        },
    }
}

#[tokio::test]
async fn a_write_is_on_every_copy_before_it_is_acknowledged() {
    let cast = Cast::start(4, Script::new(4, &[1, 2, 3]).joining(&[4])).await;
    let answer = cast.set(1, "user:1", "Jané").await;
    let body = String::from_utf8(answer.into_body().to_vec()).unwrap();
    assert!(
        body.contains(r#""status":"ok""#) && body.contains(r#""node_id":"node-1""#),
        "{body}"
    );
    for id in 1..=4 {
        assert_eq!(cast.held(id, "user:1").as_deref(), Some("Jané"));
    }
    assert_eq!(
        cast.get(1, "/kv/get?key=user:1").await,
        (200, String::from(r#"{"key":"user:1","value":"Jané"}"#))
    );
    assert_eq!(cast.get(3, "/kv/get?key=user:1").await.0, 200);
    assert_eq!(cast.get(2, "/kv/delete?key=user:1").await.0, 200);
    assert_eq!(
        cast.get(1, "/kv/get?key=user:1").await,
        (404, String::from("key not found\n"))
    );
    assert_eq!(
        cast.get(1, "/kv/get").await,
        (400, String::from("key required\n"))
    );
    assert_eq!(cast.held(3, "user:1"), None);
}

#[tokio::test]
async fn a_node_that_is_not_primary_passes_on_or_refuses_with_the_route() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2, 3])).await;
    let answer = cast.set(2, "k", "v").await;
    assert_eq!(
        answer.json::<serde_json::Value>("").unwrap()["status"],
        "forwarded"
    );
    assert_eq!(cast.held(3, "k").as_deref(), Some("v"));

    let request = HttpRequest::post("/kv/set?key=k").body("raw");
    let stale = request.clone().header("x-clusterkit-epoch", "1");
    let answer = cast.post(2, stale).await;
    assert_eq!(answer.status(), 421);
    let document: serde_json::Value = answer.json("").unwrap();
    assert_eq!(document["code"], "stale_route");
    assert_eq!(document["route"]["primary"]["id"], "node-1");
    assert_eq!(document["epoch"], 1);
    let wrong = request
        .clone()
        .header("x-clusterkit-partition", "partition-3");
    assert_eq!(cast.post(2, wrong).await.status(), 400);

    // A request from the future waits for this node to learn of it.
    cast.change(|script| script.members(&[2, 1, 3]).epoch(2));
    let ahead = request.header("x-clusterkit-epoch", "2");
    let (answer, ()) = tokio::join!(cast.post(2, ahead), async { cast.show_all() });
    assert_eq!(answer.status(), 200);
    assert_eq!(cast.held(1, "k").as_deref(), Some("raw"));
}

#[tokio::test]
async fn a_write_waits_for_a_dead_copy_until_the_topology_drops_it() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2, 3])).await;
    assert_eq!(cast.set(1, "k", "1").await.status(), 200);
    cast.stop(3);
    let answer = cast.set(1, "k", "2").await;
    assert_eq!(answer.status(), 504, "never a false OK");
    assert_eq!(answer.problem().unwrap().code.as_str(), "outcome_unknown");
    assert_eq!(
        cast.held(1, "k").as_deref(),
        Some("1"),
        "nothing is read that may be lost"
    );

    cast.change(|script| script.down(3).behind(&[3]));
    let (answer, ()) = tokio::join!(cast.set(1, "k", "3"), async { cast.show_all() });
    assert_eq!(answer.status(), 200);
    assert_eq!(cast.held(2, "k").as_deref(), Some("3"));

    // Back again, it copies before it counts.
    cast.resume(3).await;
    cast.change(|script| script.up(3));
    cast.show_all();
    let copied = cast.member(3).engine.copy(P, &|_| ()).await.unwrap();
    assert_eq!(copied, Copied::All { records: 1 });
    assert_eq!(cast.held(3, "k").as_deref(), Some("3"));
}

#[tokio::test]
async fn a_write_left_half_way_is_finished_before_the_next() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2, 3])).await;
    assert_eq!(cast.set(1, "a", "before").await.status(), 200);
    cast.stop(3);
    assert_eq!(cast.set(1, "a", "half").await.status(), 504);
    assert_eq!(
        cast.set(1, "b", "none").await.status(),
        503,
        "nothing new before that"
    );
    assert_eq!(cast.held(2, "a").as_deref(), Some("half"));
    cast.resume(3).await;
    assert_eq!(cast.set(1, "b", "whole").await.status(), 200);
    for id in 1..=3 {
        assert_eq!(cast.held(id, "a").as_deref(), Some("half"));
        assert_eq!(cast.held(id, "b").as_deref(), Some("whole"));
    }
}

#[tokio::test]
async fn a_new_primary_spreads_what_only_some_copies_hold_before_it_serves() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2, 3])).await;
    assert_eq!(cast.set(1, "k", "acknowledged").await.status(), 200);
    cast.stop(3);
    assert_eq!(cast.set(1, "half", "of node 2").await.status(), 504);
    cast.resume(3).await;
    cast.stop(1);
    cast.change(|script| script.members(&[3, 2, 1]).down(1).behind(&[1]).epoch(2));
    cast.show_all();
    let (status, body) = cast.get(3, "/kv/get?key=half").await;
    assert_eq!((status, body.contains("of node 2")), (200, true), "{body}");
    assert_eq!(cast.set(3, "k", "newer").await.status(), 200);
    let record = cast
        .member(2)
        .store
        .get(P, Bytes::from("k"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.version, version(2, 1));
}

#[tokio::test]
async fn a_replaced_primary_cannot_acknowledge_a_write() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2, 3])).await;
    assert_eq!(cast.set(1, "k", "before").await.status(), 200);
    cast.change(|script| script.members(&[2, 1, 3]).epoch(2));
    cast.show(2);
    cast.show(3);
    let answer = cast.set(1, "k", "stale").await;
    assert_eq!(answer.status(), 504);
    for id in 1..=3 {
        assert_eq!(cast.held(id, "k").as_deref(), Some("before"));
    }
    cast.show(1);
    assert_eq!(cast.get(1, "/kv/get?key=k").await.0, 200);
    let own = cast.set(1, "k", "after").await;
    assert_eq!(
        own.json::<serde_json::Value>("").unwrap()["status"],
        "forwarded"
    );
}

#[tokio::test]
async fn a_copy_made_under_load_misses_no_acknowledged_write() {
    let mut cast = Cast::start(4, Script::new(4, &[1, 2, 3])).await;
    for i in 0..200 {
        assert_eq!(
            cast.set(1, &format!("key-{i:03}"), "old").await.status(),
            200
        );
    }
    cast.change(|script| script.joining(&[4]));
    // The joining node learns of it first, the primary a moment later.
    cast.show(4);
    let joining = Arc::clone(&cast.member(4).engine);
    let load = async {
        for i in (0..200).rev() {
            if i == 150 {
                cast.show_all();
            }
            assert_eq!(
                cast.set(1, &format!("key-{i:03}"), "new").await.status(),
                200
            );
            assert_eq!(
                cast.set(1, &format!("more-{i:03}"), "new").await.status(),
                200
            );
        }
    };
    let (copied, ()) = tokio::join!(joining.copy(P, &|_| ()), load);
    assert!(matches!(copied.unwrap(), Copied::All { records } if records >= 200));
    let held = |cast: &Cast, id| {
        cast.member(id)
            .store
            .page(P, None, usize::MAX)
            .now_or_never()
            .unwrap()
            .unwrap()
            .0
    };
    assert_eq!(held(&cast, 4).len(), 400);
    assert_eq!(held(&cast, 4), held(&cast, 1));
}

#[tokio::test]
async fn a_copy_in_many_pages_drops_what_the_primary_does_not_know() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2]).epoch(5)).await;
    let big = "x".repeat(200 << 10);
    for i in 0..20 {
        let op = merge(&format!("k{i:02}"), version(5, i + 1), &big);
        cast.member(1).store.write(vec![op]).await.unwrap();
    }
    // Larger than one order: what a primary found on its disk after a crash.
    let ops = vec![merge("k200", version(3, 1), "committed")];
    cast.member(1).store.write(ops).await.unwrap();
    let stray = [("k055", 4), ("a", 4), ("z", 4), ("k07", 3), ("k200", 4)];
    for (key, epoch) in stray {
        let op = merge(key, version(epoch, 9), "stray");
        cast.member(3).store.write(vec![op]).await.unwrap();
    }
    cast.change(|script| script.joining(&[3]));
    cast.show_all();
    let copied = cast.member(3).engine.copy(P, &|_| ()).await.unwrap();
    assert_eq!(copied, Copied::All { records: 21 });
    let held = |cast: &Cast, id| {
        cast.member(id)
            .store
            .page(P, None, usize::MAX)
            .now_or_never()
            .unwrap()
            .unwrap()
            .0
    };
    assert_eq!(held(&cast, 3), held(&cast, 1));

    // Released only when it counts no more.
    let engine = Arc::clone(&cast.member(3).engine);
    assert!(!engine.release(P).await.unwrap());
    cast.change(|script| script.joining(&[]));
    cast.show_all();
    assert!(engine.release(P).await.unwrap());
    assert!(held(&cast, 3).is_empty());
}

#[tokio::test]
async fn a_source_hands_nothing_to_a_node_it_would_not_write_to() {
    let mut cast = Cast::start(3, Script::new(3, &[1, 2])).await;
    let engine = Arc::clone(&cast.member(1).engine);
    let stranger = engine.page(P, RaftId(3), Epoch(1), None, None).await;
    assert!(
        stranger
            .unwrap_err()
            .to_string()
            .contains("takes no writes")
    );
    let early = engine.page(P, RaftId(2), Epoch(9), None, None).await;
    assert!(
        early
            .unwrap_err()
            .to_string()
            .contains("not known here yet")
    );
    assert_eq!(
        cast.member(3).engine.copy(P, &|_| ()).await.unwrap(),
        Copied::NotWanted
    );
    let from_replica = cast
        .member(2)
        .engine
        .page(P, RaftId(3), Epoch(1), None, None)
        .await;
    assert!(from_replica.is_err());
    cast.change(|script| script.epoch(2));
    cast.show_all();
    let moved = engine
        .page(P, RaftId(2), Epoch(1), Some(Epoch(1)), None)
        .await;
    assert!(moved.unwrap_err().to_string().contains("start again"));
}

#[tokio::test]
async fn bad_requests_are_refused_by_name_and_limit() {
    let cast = Cast::start(1, Script::new(1, &[1])).await;
    let check = async |request: HttpRequest, status: u16, words: &str| {
        let answer = cast.post(1, request).await;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        assert_eq!(answer.status(), status, "{body}");
        assert!(body.contains(words), "{body}");
    };
    let set = || HttpRequest::post("/kv/set");
    check(set().body("{"), 400, "bad_json").await;
    check(
        set().body(r#"{"key":"k","value":5}"#),
        400,
        "expected a string",
    )
    .await;
    check(set().body(r#"{"key":"","value":"v"}"#), 400, "key required").await;
    let long = format!(r#"{{"key":"k","value":"{}"}}"#, "x".repeat(VALUE_MAX + 1));
    check(
        set().body(long),
        400,
        "length of value is `1001`, must be at most 1000 bytes",
    )
    .await;
    check(set().body("x".repeat(100_000)), 413, "body_too_large").await;
    let key = HttpRequest::get(format!("/kv/get?key={}", "k".repeat(5_000)));
    check(key, 400, "1 to 4096 bytes").await;
    check(HttpRequest::get("/kv/get?key=%ff"), 400, "UTF-8").await;
    check(HttpRequest::get("/kv/set"), 405, "GET is not allowed").await;
    check(HttpRequest::get("/nothing"), 404, "not_found").await;
    check(
        HttpRequest::get("/kv/migrate?partition=partition-1"),
        400,
        "partition-0 to partition-0",
    )
    .await;
    check(
        HttpRequest::post("/kv/replicate").body("x"),
        400,
        "x-clusterkit-from",
    )
    .await;
    let raw = HttpRequest::post("/kv/set?key=bin").body(&b"\xff\0"[..]);
    check(raw, 200, "ok").await;
    check(HttpRequest::get("/kv/get?key=bin"), 400, "not text").await;
    let raw = HttpRequest::get("/kv/get?key=bin").header("accept", "application/octet-stream");
    assert_eq!(&cast.post(1, raw).await.into_body()[..], b"\xff\0");
    check(
        HttpRequest::get("/kv/stats"),
        200,
        r#""mode":"sync-quorum""#,
    )
    .await;
    check(
        HttpRequest::get("/kv/migrate?partition=partition-0"),
        200,
        r#""count":1"#,
    )
    .await;
}

#[tokio::test]
async fn a_node_that_has_not_joined_serves_nothing() {
    let cast = Cast::start(2, Script::new(2, &[1])).await;
    cast.member(2).cluster.hide();
    for target in [
        "/kv/get?key=k",
        "/kv/get?key=k&local=1",
        "/kv/migrate?partition=0",
    ] {
        let (status, body) = cast.get(2, target).await;
        assert_eq!((status, body.contains("not_ready")), (503, true), "{body}");
    }
    let deadline = clock::deadline(SOON);
    let refused = cast
        .member(2)
        .engine
        .write(Bytes::from("k"), None, deadline)
        .await;
    assert!(matches!(refused, Err(Refused::NotReady)));
}

#[tokio::test]
async fn a_read_is_answered_only_by_the_proven_owner() {
    let cast = Cast::start(2, Script::new(2, &[1, 2])).await;
    assert_eq!(cast.set(1, "k", "1").await.status(), 200);
    let engine = Arc::clone(&cast.member(1).engine);
    let read = engine.read(&Bytes::from("k")).await.unwrap().unwrap();
    assert_eq!(read.value.as_deref(), Some(&b"1"[..]));
    // Others may have replaced it, and written, without its knowing.
    cast.member(1).cluster.end_lease();
    let refused = engine.read(&Bytes::from("k")).await;
    assert!(
        matches!(refused, Err(Refused::Unproven { .. })),
        "{refused:?}"
    );
    let (status, body) = cast.get(1, "/kv/get?key=k").await;
    assert_eq!((status, body.contains("not_ready")), (503, true), "{body}");
    let (status, _) = cast.get(1, "/kv/get?key=k&local=1").await;
    assert_eq!(
        status, 200,
        "what this copy holds is told to whoever asks for that"
    );
}

#[tokio::test]
async fn a_write_is_applied_and_acknowledged_only_by_the_proven_owner() {
    let cast = Cast::start(3, Script::new(3, &[1, 2, 3])).await;
    assert_eq!(cast.set(1, "k", "1").await.status(), 200);
    // The lease ends while a write is on its way: it gets everywhere, and is not acknowledged.
    let deadline = clock::deadline(Duration::from_millis(900));
    let engine = Arc::clone(&cast.member(1).engine);
    let mut writing = Box::pin(engine.write(Bytes::from("k"), Some(Bytes::from("2")), deadline));
    assert!(futures_util::poll!(&mut writing).is_pending());
    cast.member(1).cluster.end_lease();
    let written = writing.await;
    assert!(
        matches!(written, Err(Refused::Unknown { reason }) if reason.contains("prove")),
        "{written:?}"
    );
    assert_eq!(cast.held(3, "k").as_deref(), Some("2"));
    // And the next one is not even begun.
    let refused = cast.set(1, "k", "3").await;
    assert_eq!(refused.status(), 503);
    for id in 1..=3 {
        assert_eq!(cast.held(id, "k").as_deref(), Some("2"));
    }
}

//! The documents of earlier releases, byte for byte: each reply is a file in `golden/`.
//!
//! `BLESS=1` rewrites the files; a difference must be explained where it is committed. The example
//! of the specification stands here as text, so that blessing cannot bend it.

use std::path::Path;
use std::sync::atomic::Ordering;

use clusterkit_core::command::Command;
use clusterkit_core::hash::HashAlgorithm;
use clusterkit_http::Method;
use clusterkit_http::client::{HttpClient, HttpRequest, HttpResponse};

use crate::fake::{Cluster, NOW, Served};

async fn send(served: &Served, request: HttpRequest) -> HttpResponse {
    let client = HttpClient::default();
    client.send(&served.address, request).await.unwrap()
}

async fn get(served: &Served, target: &str) -> HttpResponse {
    send(served, HttpRequest::get(target)).await
}

fn text(answer: &HttpResponse) -> String {
    String::from_utf8(answer.body().to_vec()).unwrap()
}

fn golden(name: &str, answer: &HttpResponse) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/{name}"));
    let given = format!("{}\n{}\n", answer.status(), text(answer));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &given).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(given, expected, "{name}");
}

#[tokio::test]
async fn the_example_of_the_specification_is_served_exactly() {
    let cluster = Cluster {
        partitions: 1,
        legacy: true,
        ..Cluster::default()
    };
    let served = cluster.serve().await;
    let answer = get(&served, "/cluster").await;
    let expected = concat!(
        r#"{"cluster":{"id":"clusterkit-cluster","name":"clusterkit-cluster","nodes":["#,
        r#"{"id":"node-1","ip":":8080","port":0,"name":"Server-1","status":"active","services":{"kv":":9080"}},"#,
        r#"{"id":"node-2","ip":":8081","port":0,"name":"Server-2","status":"active","services":{"kv":":9081"}},"#,
        r#"{"id":"node-3","ip":":8082","port":0,"name":"Server-3","status":"active","services":{"kv":":9082"}}],"#,
        r#""partition_map":{"partitions":{"partition-0":{"id":"partition-0","primary_node":"node-1","replica_nodes":["node-2","node-3"]}}},"#,
        r#""config":{"cluster_name":"clusterkit-cluster","partition_count":1,"replication_factor":3}},"#,
        r#""hash_config":{"algorithm":"md5","encoding":"big_endian_uint32","format":"partition-%d","modulo":1}}"#,
    );
    assert_eq!(text(&answer), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn every_document_keeps_its_shape() {
    let served = Cluster::default().serve().await;
    for (name, target) in [
        ("cluster.json", "/cluster"),
        ("health.json", "/health"),
        ("health_detailed.json", "/health/detailed"),
        ("ready.json", "/ready"),
        ("partitions.json", "/partitions"),
        ("partitions_stats.json", "/partitions/stats"),
        ("partitions_key.json", "/partitions/key?key=user:123"),
        ("nodes.json", "/nodes?limit=2"),
        ("nodes_last.json", "/nodes?limit=2&offset=2"),
        ("nodes_beyond.json", "/nodes?offset=7"),
        ("consensus_leader.json", "/consensus/leader"),
        ("consensus_stats.json", "/consensus/stats"),
        ("topology.json", "/v1/topology"),
        ("node.json", "/v1/nodes/node-2"),
        ("events.json", "/v1/events?limit=2"),
    ] {
        golden(name, &get(&served, target).await);
    }
    let join = |id: &str, ip: &str| {
        let body = format!(
            r#"{{"node":{{"id":"{id}","name":"x","ip":"{ip}","port":0,"status":"active","services":{{}}}},"raft_addr":"127.0.0.1:10002"}}"#
        );
        HttpRequest::post("/join").body(body)
    };
    golden(
        "join.json",
        &send(&served, join("node-9", "127.0.0.1:9009")).await,
    );

    served.node.control.lead(Some(2));
    let redirected = send(&served, join("node-8", "127.0.0.1:9008")).await;
    golden("join_redirect.json", &redirected);
    assert_eq!(
        redirected.header("location"),
        Some("http://127.0.0.1:8081/join")
    );
    served.node.control.lead(None);
    golden(
        "join_no_leader.json",
        &send(&served, join("node-8", "127.0.0.1:9008")).await,
    );
    golden(
        "consensus_leader_none.json",
        &get(&served, "/consensus/leader").await,
    );
    golden("ready_without_leader.json", &get(&served, "/ready").await);
    served.node.joined.store(false, Ordering::SeqCst);
    golden("ready_not_joined.json", &get(&served, "/ready").await);
    golden("cluster_not_joined.json", &get(&served, "/cluster").await);
    assert_eq!(get(&served, "/health").await.status(), 200);
}

#[tokio::test]
async fn a_join_with_a_made_up_address_changes_nothing() {
    let served = Cluster::default().serve().await;
    let join = |ip: &str| {
        let body = format!(r#"{{"node":{{"id":"node-9","ip":"{ip}"}}}}"#);
        HttpRequest::post("/join").body(body)
    };
    let before = served.node.control.view_epoch();
    let answer = send(&served, join("192.0.2.1:8080")).await;
    assert_eq!(answer.status(), 422);
    assert!(text(&answer).contains(r#""code":"address_unverified""#));
    for bad in ["", "8080", "host:0", "host:port"] {
        let answer = send(&served, join(bad)).await;
        assert_eq!(answer.status(), 400, "{bad}");
        let expected = format!("node.ip is `{bad}`, must be host:port of the joining node");
        assert!(text(&answer).contains(&expected), "{}", text(&answer));
    }
    assert_eq!(served.node.control.view_epoch(), before);
}

#[tokio::test]
async fn metrics_are_text_or_json_as_asked() {
    let served = Cluster::default().serve().await;
    get(&served, "/nothing").await;
    let json = HttpRequest::get("/metrics").header("accept", "application/json");
    golden("metrics.json", &send(&served, json).await);
    let answer = get(&served, "/metrics").await;
    let scraped = text(&answer);
    for line in [
        "clusterkit_nodes{status=\"active\"} 3\n",
        "clusterkit_partitions 4\n",
        "clusterkit_partitions_primary 2\n",
        "clusterkit_is_leader 1\n",
        "clusterkit_requests_total 2\n",
        "clusterkit_request_errors_total 1\n",
        "clusterkit_raft_term 3\n",
        "# EOF\n",
    ] {
        assert!(scraped.contains(line), "no {line} in {scraped}");
    }
}

#[tokio::test]
async fn the_etag_is_the_epoch_and_changes_when_the_map_does() {
    let served = Cluster::default().serve().await;
    for target in ["/cluster", "/v1/topology"] {
        let first = get(&served, target).await;
        let epoch = served.node.control.view_epoch();
        let etag = format!("\"{epoch}\"");
        assert_eq!(first.header("etag"), Some(etag.as_str()));
        let known = |tag: &str| HttpRequest::get(target).header("if-none-match", tag);
        for tag in [etag.as_str(), "W/\"1\", *", &format!("W/{etag}")] {
            let answer = send(&served, known(tag)).await;
            assert_eq!(answer.status(), 304, "{tag}");
            assert!(answer.body().is_empty());
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
        }
        assert_eq!(send(&served, known("\"1\"")).await.status(), 200);

        let head = send(&served, HttpRequest::new(Method::Head, target)).await;
        assert_eq!(head.status(), 200);
        assert_eq!(head.header("etag"), Some(etag.as_str()));
        let length = first.body().len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        assert!(head.body().is_empty());

        let nodes = vec![served.node.control.some_follower()];
        served
            .node
            .control
            .apply(&Command::MarkDown {
                nodes: nodes.clone(),
                promotions: Vec::new(),
                at: NOW,
            })
            .unwrap();
        let after = send(&served, known(&etag)).await;
        assert_eq!(after.status(), 200);
        assert_ne!(after.header("etag"), Some(etag.as_str()));
        assert_ne!(after.body(), first.body());
        served
            .node
            .control
            .apply(&Command::MarkUp { nodes, at: NOW })
            .unwrap();
    }
}

#[tokio::test]
async fn another_hash_is_named_with_seed_and_reduction() {
    for (hash, expected) in [
        (
            HashAlgorithm::Xxh3_64,
            r#""hash_config":{"algorithm":"xxh3_64","encoding":"uint64","format":"partition-%d","modulo":4,"seed":0,"reduce":"multiply_shift"}}"#,
        ),
        (
            HashAlgorithm::Fnv1a32,
            r#""hash_config":{"algorithm":"fnv1a_32","encoding":"uint32","format":"partition-%d","modulo":4,"reduce":"modulo"}}"#,
        ),
    ] {
        let cluster = Cluster {
            hash,
            ..Cluster::default()
        };
        let served = cluster.serve().await;
        let answer = get(&served, "/cluster").await;
        assert!(text(&answer).ends_with(expected), "{}", text(&answer));
    }
}

#[tokio::test]
async fn nodes_with_a_bad_page_are_refused_by_name() {
    let served = Cluster::default().serve().await;
    let offset = "offset is `{}`, must be a whole number from 0 to 4294967295";
    let limit = "limit is `{}`, must be a whole number from 1 to 1000";
    for (field, given, expected) in [
        ("offset", "-1", offset),
        ("offset", "x", offset),
        ("offset", "99999999999999999999", offset),
        ("offset", "", offset),
        ("limit", "0", limit),
        ("limit", "1001", limit),
        ("limit", "-5", limit),
        ("limit", "2.5", limit),
    ] {
        let answer = get(&served, &format!("/nodes?{field}={given}")).await;
        assert_eq!(answer.status(), 400);
        let problem = answer.problem().unwrap();
        assert_eq!(problem.message, expected.replace("{}", given));
        assert_eq!(problem.code.as_str(), "invalid_argument");
        assert_eq!(problem.leader.unwrap().id, "node-1");
        assert!(problem.epoch.value() > 0);
    }
}

#[tokio::test]
async fn keys_of_old_clients_arrive_as_they_were_meant() {
    let served = Cluster {
        partitions: 64,
        ..Cluster::default()
    }
    .serve()
    .await;
    for (query, key, partition) in [
        ("user:1", "user:1", 16),
        ("user:123", "user:123", 48),
        ("a", "a", 57),
        ("", "", 25),
        ("user%3A1", "user:1", 16),
    ] {
        let answer = get(&served, &format!("/partitions/key?key={query}")).await;
        let said = text(&answer);
        let expected = format!(r#"{{"key":"{key}","partition":{{"id":"partition-{partition}","#);
        assert!(said.starts_with(&expected), "{said}");
    }
    let answer = get(&served, "/partitions/key").await;
    assert_eq!(answer.status(), 400);
    assert!(text(&answer).contains("key is ``, must be given"));

    // Nothing of this is escaped, as old clients send it.
    let socket = served.address.parse().unwrap();
    let request = "GET /partitions/key?key=a/b?c=d%é\"<> HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = crate::raw::talk(socket, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    let request = "GET /partitions/key?key=a/b?c=d%é|{x} HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = crate::raw::talk(socket, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#"{"key":"a/b?c=d%é|{x}""#), "{answer}");
}

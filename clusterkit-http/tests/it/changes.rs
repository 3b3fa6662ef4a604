//! What people and programs change over HTTP, and how bad requests are refused.

use clusterkit_http::Method;
use clusterkit_http::api::ProblemCode;
use clusterkit_http::api::v1::{ChangedDocument, DataListDocument, NodeDetailDocument};
use clusterkit_http::client::{HttpClient, HttpRequest, HttpResponse};

use crate::fake::{Cluster, Served};
use crate::raw::talk;

async fn send(served: &Served, request: HttpRequest) -> HttpResponse {
    let client = HttpClient::default();
    client.send(&served.address, request).await.unwrap()
}

async fn check_problem(
    served: &Served,
    request: HttpRequest,
    code: ProblemCode,
    message: &str,
) -> HttpResponse {
    let answer = send(served, request).await;
    let problem = answer.problem().unwrap();
    assert_eq!(problem.code, code, "{problem}");
    assert_eq!(answer.status(), code.status());
    assert!(problem.message.contains(message), "{problem}");
    answer
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_say_so() {
    let served = Cluster::default().serve().await;
    let check = |method, target: &str, code, message: &str| {
        let request = HttpRequest::new(method, target);
        let (target, message) = (target.to_owned(), message.to_owned());
        let served = &served;
        async move {
            let answer = check_problem(served, request, code, &message).await;
            (target, answer.header("allow").map(str::to_owned))
        }
    };
    use Method::{Delete, Get, Post, Put};
    for target in [
        "/",
        "/nope",
        "/cluster/x",
        "/v1",
        "/v1/nodes/a/b",
        "/peer/v1/nope",
    ] {
        let message = format!("there is no path {target}");
        check(Get, target, ProblemCode::NotFound, &message).await;
    }
    for (method, target, allowed) in [
        (Post, "/cluster", "GET, HEAD"),
        (Get, "/join", "POST"),
        (Put, "/v1/nodes/node-1/drain", "POST, DELETE"),
        (Get, "/v1/rebalance", "POST"),
        (Post, "/v1/data/x", "GET, HEAD, PUT, DELETE"),
        (Delete, "/v1/watch", "GET"),
        (Get, "/peer/v1/vote", "POST"),
    ] {
        let code = ProblemCode::MethodNotAllowed;
        let (target, allow) = check(method, target, code, "does not take").await;
        assert_eq!(allow.as_deref(), Some(allowed), "{target}");
    }
    let answer = talk(
        served.address.parse().unwrap(),
        b"BREW /cluster HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn bodies_that_cannot_be_are_refused_with_the_position_or_the_limit() {
    let served = Cluster::default().serve().await;
    let bad = |body: &str| HttpRequest::post("/join").body(body.to_owned());
    let code = ProblemCode::BadJson;
    check_problem(&served, bad(""), code, "at line 1 column 0").await;
    check_problem(&served, bad("{"), code, "at line 1 column 1").await;
    check_problem(&served, bad("{\n\"node\": 5}"), code, "at line 2 column 9").await;
    check_problem(&served, bad("{}"), code, "missing field `node`").await;
    let huge = HttpRequest::post("/join").body(vec![b' '; 2 << 20]);
    let message = "the body is larger than 1114112 bytes";
    check_problem(&served, huge, ProblemCode::BodyTooLarge, message).await;
    let value = HttpRequest::new(Method::Put, "/v1/data/k").body(vec![0; (1 << 20) + 1]);
    let message = "the body is larger than 1048576 bytes";
    check_problem(&served, value, ProblemCode::BodyTooLarge, message).await;
    let bad_id = bad(r#"{"node":{"id":"a b","ip":"127.0.0.1:1"}}"#);
    let message = "node_id is `a b`, must be printable ASCII without spaces";
    check_problem(&served, bad_id, ProblemCode::InvalidArgument, message).await;
    let taken = bad(r#"{"node":{"id":"node-2","ip":"127.0.0.1:1"}}"#);
    let message = "node id `node-2` is in use by the node at 127.0.0.1:8081";
    check_problem(&served, taken, ProblemCode::NodeIdTaken, message).await;
}

#[tokio::test]
async fn custom_data_is_written_compared_listed_and_deleted() {
    let served = Cluster::default().serve().await;
    let put = |key: &str, value: &str| {
        HttpRequest::new(Method::Put, format!("/v1/data/{key}")).body(value.to_owned())
    };
    let get = |key: &str| HttpRequest::get(format!("/v1/data/{key}"));
    let message = "there is no value under `app/one`";
    check_problem(&served, get("app/one"), ProblemCode::UnknownKey, message).await;

    let answer = send(&served, put("app/one", "1")).await;
    let written: ChangedDocument = answer.json("").unwrap();
    let etag = answer.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", written.index));

    for target in ["app%2Fone", "app/one?consistent=true"] {
        let read = send(&served, get(target)).await;
        assert_eq!(read.body(), "1".as_bytes());
        assert_eq!(read.header("etag"), Some(etag.as_str()));
    }
    let known = get("app/one").header("if-none-match", &etag);
    assert_eq!(send(&served, known).await.status(), 304);

    let code = ProblemCode::PreconditionFailed;
    let message = "the value of `app/one` is not the expected one";
    let stale = put("app/one", "2").header("if-match", "\"1\"");
    check_problem(&served, stale, code, message).await;
    let absent = put("app/one", "2").header("if-none-match", "*");
    check_problem(&served, absent, code, message).await;
    let swapped = send(&served, put("app/one", "2").header("if-match", &etag)).await;
    assert_eq!(swapped.status(), 200);
    let created = send(&served, put("app/two", "").header("if-none-match", "*")).await;
    assert_eq!(created.status(), 200);
    send(&served, put("other", "x")).await;

    let list = |query: &str| HttpRequest::get(format!("/v1/data?{query}"));
    let keys = |answer: HttpResponse| {
        let list: DataListDocument = answer.json("").unwrap();
        let keys: Vec<_> = list.entries.into_iter().map(|entry| entry.key).collect();
        (keys.join(" "), list.has_more)
    };
    let all = keys(send(&served, list("")).await);
    assert_eq!(all, ("app/one app/two other".into(), false));
    let first = keys(send(&served, list("prefix=app/&limit=1")).await);
    assert_eq!(first, ("app/one".into(), true));
    let rest = keys(send(&served, list("prefix=app/&after=app/one")).await);
    assert_eq!(rest, ("app/two".into(), false));

    let delete = |key: &str| HttpRequest::new(Method::Delete, format!("/v1/data/{key}"));
    assert_eq!(send(&served, delete("other")).await.status(), 200);
    let message = "there is no value under `other`";
    check_problem(&served, delete("other"), ProblemCode::UnknownKey, message).await;

    let long = "k".repeat(513);
    let message = "must be 1 to 512 bytes";
    check_problem(
        &served,
        put(&long, ""),
        ProblemCode::InvalidArgument,
        message,
    )
    .await;
    let odd = put("k", "v").header("if-match", "yesterday");
    let message = "if-match is `yesterday`, must be";
    check_problem(&served, odd, ProblemCode::InvalidArgument, message).await;

    served.node.control.lead(None);
    let message = "no leader is known or reachable";
    let answer = check_problem(&served, put("k", "v"), ProblemCode::NoLeader, message).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn nodes_are_drained_kept_and_removed() {
    let served = Cluster::default().serve().await;
    let drain =
        |method, query: &str| HttpRequest::new(method, format!("/v1/nodes/node-2/drain{query}"));
    let status = async || {
        let answer = send(&served, HttpRequest::get("/v1/nodes/node-2")).await;
        let node: NodeDetailDocument = answer.json("").unwrap();
        (node.node.status.as_str(), node.primaries, node.replicas)
    };
    assert_eq!(status().await, ("active", 1, 3));
    assert_eq!(send(&served, drain(Method::Post, "")).await.status(), 200);
    assert_eq!(status().await.0, "draining");
    assert_eq!(send(&served, drain(Method::Delete, "")).await.status(), 200);
    assert_eq!(status().await.0, "active");
    let odd = drain(Method::Post, "?leave=perhaps");
    let message = "leave is `perhaps`, must be true or false";
    check_problem(&served, odd, ProblemCode::InvalidArgument, message).await;

    let remove = |query: &str| HttpRequest::post(format!("/v1/nodes/node-2/remove{query}"));
    let message = "node `node-2` still holds 4 partitions";
    check_problem(&served, remove(""), ProblemCode::Unsafe, message).await;
    assert_eq!(send(&served, remove("?force=true")).await.status(), 200);
    let message = "no member is called `node-2`";
    let gone = HttpRequest::get("/v1/nodes/node-2");
    check_problem(&served, gone, ProblemCode::UnknownNode, message).await;
    check_problem(&served, remove(""), ProblemCode::UnknownNode, message).await;

    let dry = send(&served, HttpRequest::post("/v1/rebalance?dry_run")).await;
    let said = String::from_utf8(dry.body().to_vec()).unwrap();
    assert!(said.starts_with(r#"{"dry_run":true,"epoch":"#), "{said}");
}

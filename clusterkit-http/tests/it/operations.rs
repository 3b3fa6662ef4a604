//! Operations and pause switches over HTTP, and how what cannot be is refused.

use clusterkit_core::pause::Work;
use clusterkit_http::Method;
use clusterkit_http::api::v1::{
    MayStopDocument, NodeDetailDocument, OperationDocument, OperationsDocument, PausesDocument,
    RebalanceDocument,
};
use clusterkit_http::api::{Problem, ProblemCode};
use clusterkit_http::client::{HttpClient, HttpRequest, HttpResponse};

use crate::fake::{Cluster, Served};

async fn send(served: &Served, request: HttpRequest) -> HttpResponse {
    let client = HttpClient::default();
    client.send(&served.address, request).await.unwrap()
}

fn put(target: &str) -> HttpRequest {
    HttpRequest::new(Method::Put, target)
}

fn delete(target: &str) -> HttpRequest {
    HttpRequest::new(Method::Delete, target)
}

async fn refused(served: &Served, request: HttpRequest) -> Problem {
    let answer = send(served, request).await;
    assert_eq!(answer.status(), 400);
    let problem = answer.problem().unwrap();
    assert_eq!(problem.code, ProblemCode::InvalidArgument, "{problem}");
    problem
}

#[tokio::test]
async fn each_kind_of_work_is_paused_and_resumed_and_shown_with_its_reason() {
    let served = Cluster::default().serve().await;
    let pauses = || HttpRequest::get("/v1/pauses");
    let none: PausesDocument = send(&served, pauses()).await.json("").unwrap();
    assert_eq!(none, PausesDocument::default());

    let drain = put("/v1/pauses/drain").body(r#"{"reason":"disk is full"}"#);
    assert_eq!(send(&served, drain).await.status(), 200);
    let post = HttpRequest::post("/v1/pauses/balance");
    assert_eq!(send(&served, post).await.status(), 200);
    let both: PausesDocument = send(&served, pauses()).await.json("").unwrap();
    let shown: Vec<(Work, &str)> = both
        .paused
        .iter()
        .map(|it| (it.work, &*it.reason))
        .collect();
    assert_eq!(shown, [(Work::Drain, "disk is full"), (Work::Balance, "")]);
    let health = send(&served, HttpRequest::get("/health/detailed")).await;
    let health: serde_json::Value = serde_json::from_slice(health.body()).unwrap();
    assert_eq!(health["paused"][0]["work"], "drain");
    assert_eq!(health["paused"][0]["reason"], "disk is full");

    let dry = delete("/v1/pauses/drain?dry_run=true");
    let would: RebalanceDocument = send(&served, dry).await.json("").unwrap();
    assert!(would.dry_run && would.moves.is_empty());
    let resume = delete("/v1/pauses/drain");
    assert_eq!(send(&served, resume).await.status(), 200);
    let one: PausesDocument = send(&served, pauses()).await.json("").unwrap();
    assert_eq!(one.paused.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_paused_is_refused_by_name() {
    let served = Cluster::default().serve().await;
    let problem = refused(&served, put("/v1/pauses/everything")).await;
    assert_eq!(
        problem.message,
        "work is `everything`, must be `balance`, `repair` or `drain`"
    );
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(300));
    let long = put("/v1/pauses/repair").body(long);
    let problem = refused(&served, long).await;
    assert!(
        problem.message.ends_with("must be at most 256 bytes"),
        "{problem}"
    );
    let unknown = put("/v1/pauses/repair").body(r#"{"why":"x"}"#);
    assert_eq!(send(&served, unknown).await.status(), 400);
    let get = send(&served, HttpRequest::get("/v1/pauses/repair")).await;
    assert_eq!(get.status(), 405);
    assert_eq!(get.header("allow"), Some("PUT, POST, DELETE"));
}

#[tokio::test]
async fn what_goes_on_is_listed_with_its_blockers_and_cancelled_by_its_id() {
    let served = Cluster::default().serve().await;
    let list = || HttpRequest::get("/v1/operations");
    let quiet: OperationsDocument = send(&served, list()).await.json("").unwrap();
    assert_eq!((quiet.operations.len(), quiet.protected), (0, Some(false)));

    let pause = put("/v1/pauses/drain").body(r#"{"reason":"not today"}"#);
    assert_eq!(send(&served, pause).await.status(), 200);
    let drain = HttpRequest::post("/v1/nodes/node-2/drain");
    assert_eq!(send(&served, drain).await.status(), 200);
    let answer = send(&served, list()).await;
    let value: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let shown = &value["operations"][0];
    assert_eq!(shown["id"], "drain-node-2");
    assert_eq!(
        (&shown["kind"], &shown["state"]),
        (&"drain".into(), &"paused".into())
    );
    assert_eq!(
        shown["progress"],
        serde_json::json!({"done": 0, "total": 4})
    );
    assert_eq!(shown["blockers"][0]["blocker"], "paused");
    assert_eq!(
        shown["blockers"][0]["text"],
        "An operator has paused drain: not today."
    );
    let document: OperationsDocument = answer.json("").unwrap();
    let one = HttpRequest::get("/v1/operations/drain-node-2");
    let one: OperationDocument = send(&served, one).await.json("").unwrap();
    assert_eq!(document.operations, [one]);

    let cancel = || delete("/v1/operations/drain-node-2");
    assert_eq!(send(&served, cancel()).await.status(), 200);
    let quiet: OperationsDocument = send(&served, list()).await.json("").unwrap();
    assert_eq!(quiet.operations, []);
    let again = send(&served, cancel()).await;
    assert_eq!(again.status(), 404);
    let problem = again.problem().unwrap();
    assert_eq!(problem.code, ProblemCode::UnknownOperation);
    let limit = refused(&served, HttpRequest::get("/v1/operations?limit=0")).await;
    assert!(limit.message.contains("limit is `0`"), "{limit}");
}

#[tokio::test]
async fn whether_nodes_may_stop_is_answered_with_what_would_be_lost() {
    let served = Cluster::default().serve().await;
    let ask = |nodes: &str| HttpRequest::get(format!("/v1/may-stop?nodes={nodes}"));
    let answer = send(&served, ask("node-1,node-2,node-3")).await;
    let shown: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(shown["may_stop"], false, "{shown}");
    assert_eq!(shown["risks"][0]["risk"], "no_copy");
    assert_eq!(shown["risks"][0]["partitions"][0], 0);
    let text = shown["risks"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("no live copy would be left of "), "{text}");
    let read: MayStopDocument = answer.json("").unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), shown);
    assert_eq!(read.nodes.len(), 3);

    let unknown = send(&served, ask("node-1,node-9")).await.problem().unwrap();
    assert_eq!(unknown.code, ProblemCode::UnknownNode);
    assert_eq!(unknown.message, "no member is called `node-9`");
    let none = refused(&served, ask("")).await;
    assert_eq!(
        none.message,
        "nodes is ``, must be one or more ids, with commas"
    );
    refused(&served, ask("node-1,,node-2")).await;
}

#[tokio::test]
async fn a_restart_is_announced_shown_and_taken_back() {
    let served = Cluster::default().serve().await;
    let node = || HttpRequest::get("/v1/nodes/node-2");
    let shown = async || -> NodeDetailDocument { send(&served, node()).await.json("").unwrap() };
    assert_eq!(shown().await.intent, None);
    let target = "/v1/nodes/node-2/restart-intent";
    for given in ["999", "86400001", "-1", "soon"] {
        let asked = HttpRequest::post(format!("{target}?ttl_ms={given}"));
        assert_eq!(
            refused(&served, asked).await.message,
            format!("ttl_ms is `{given}`, must be a whole number from 1000 to 86400000")
        );
    }
    refused(&served, HttpRequest::post(target)).await;
    let asked = HttpRequest::post(format!("{target}?ttl_ms=60000&force=true"));
    assert_eq!(send(&served, asked).await.status(), 200);
    let intent = shown().await.intent.unwrap();
    assert_eq!(intent.intent, "restart");
    assert!(intent.until.unwrap() > intent.since);
    let listed = send(&served, HttpRequest::get("/v1/operations")).await;
    let listed: OperationsDocument = listed.json("").unwrap();
    let found = listed.operations.iter();
    let found: Vec<&str> = found.map(|it| it.id.as_str()).collect();
    assert!(found.contains(&"restart-node-2"), "{found:?}");
    let over = delete("/v1/operations/restart-node-2");
    assert_eq!(send(&served, over).await.status(), 200);
    assert_eq!(shown().await.intent, None);

    let target = "/v1/nodes/node-2/handover?force=true";
    assert_eq!(send(&served, HttpRequest::post(target)).await.status(), 200);
    let intent = shown().await.intent.unwrap();
    assert_eq!((&*intent.intent, intent.until), ("handover", None));
    assert_eq!(send(&served, delete(target)).await.status(), 200);
    assert_eq!(shown().await.intent, None);
    let unknown = HttpRequest::post("/v1/nodes/node-9/handover");
    assert_eq!(send(&served, unknown).await.status(), 404);
}

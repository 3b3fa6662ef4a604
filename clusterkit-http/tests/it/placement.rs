//! Explanations, previews and runtime changes over HTTP, and how bad questions are refused.

use clusterkit_core::explain::{Limit, Reason};
use clusterkit_http::api::v1::{ConfigDocument, ExplainDocument, PlansDocument, RebalanceDocument};
use clusterkit_http::api::{MemberDocument, Problem, ProblemCode};
use clusterkit_http::client::{HttpClient, HttpRequest, HttpResponse};

use crate::fake::{Cluster, Served};

async fn send(served: &Served, request: HttpRequest) -> HttpResponse {
    let client = HttpClient::default();
    client.send(&served.address, request).await.unwrap()
}

async fn refused(served: &Served, request: HttpRequest, code: ProblemCode) -> Problem {
    let answer = send(served, request).await;
    assert_eq!(answer.status(), code.status());
    let problem = answer.problem().unwrap();
    assert_eq!(problem.code, code, "{problem}");
    problem
}

#[tokio::test]
async fn a_partition_a_node_or_both_are_explained_with_types_and_text() {
    let served = Cluster::default().serve().await;
    let get = |query: &str| HttpRequest::get(format!("/v1/explain{query}"));
    let answer = send(&served, get("?partition=2&node=node-1")).await;
    let both: ExplainDocument = answer.json("").unwrap();
    assert_eq!(both.partition.unwrap().value(), 2);
    assert_eq!(both.node.as_ref().unwrap(), "node-1");
    let [placed] = &both.present.placed[..] else {
        panic!("one node was asked about: {both:?}")
    };
    let kept = |reason: &Reason| matches!(reason, Reason::KeptForFree { .. });
    assert!(placed.reasons.iter().any(|it| kept(&it.reason)), "{both:?}");
    assert!(
        both.text
            .contains("node-1 held partition 2 already, and keeping a copy costs nothing"),
        "{}",
        both.text
    );
    let value: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let share = &value["present"]["reasons"][0];
    assert_eq!(share["reason"], "share");
    assert_eq!(share["replicas"], 12);
    assert!(
        share["text"]
            .as_str()
            .unwrap()
            .starts_with("node-1 holds 4 of 12")
    );

    let row: ExplainDocument = send(&served, get("?partition=partition-2"))
        .await
        .json("")
        .unwrap();
    assert_eq!(row.present.placed.len(), 3);
    let node: ExplainDocument = send(&served, get("?node=node-3")).await.json("").unwrap();
    assert!(node.present.placed.is_empty());
    let all: ExplainDocument = send(&served, get("")).await.json("").unwrap();
    let shares = all.present.reasons.iter();
    let share = |reason: &Reason| matches!(reason, Reason::Share { .. });
    assert_eq!(shares.filter(|it| share(&it.reason)).count(), 3);
    let keyed: ExplainDocument = send(&served, get("?key=user:1")).await.json("").unwrap();
    assert!(keyed.partition.is_some());
}

#[tokio::test]
async fn bad_questions_name_field_value_and_limit() {
    let served = Cluster::default().serve().await;
    let get = |query: &str| HttpRequest::get(format!("/v1/explain{query}"));
    let invalid = ProblemCode::InvalidArgument;
    for (query, message) in [
        (
            "?partition=4",
            "partition is `4`, must be a whole number from 0 to 3",
        ),
        (
            "?partition=x",
            "partition is `x`, must be a whole number from 0 to 3",
        ),
        (
            "?partition=-1",
            "partition is `-1`, must be a whole number from 0 to 3",
        ),
        (
            "?node=node-9",
            "node is `node-9`, must be the id of a member, see /v1/topology",
        ),
        (
            "?partition=1&key=a",
            "key is `given`, must be left out beside `partition`",
        ),
    ] {
        assert_eq!(refused(&served, get(query), invalid).await.message, message);
    }
    let post = |target: &str, body: &str| HttpRequest::post(target).body(body.to_owned());
    let problem = refused(&served, post("/v1/rebalance?apply=7", ""), invalid).await;
    assert_eq!(
        problem.message,
        "apply is `7`, must be the `id` of a dry run"
    );
    let problem = refused(&served, post("/v1/nodes/node-1", "{}"), invalid).await;
    assert_eq!(
        problem.message,
        "body is `{}`, must be weight, zone or both"
    );
    let problem = refused(
        &served,
        post("/v1/config", "{\"replication_factor\":8}"),
        invalid,
    )
    .await;
    assert_eq!(problem.message, "replication_factor is `8`, must be 1 to 7");
    let half = "{\"moves_per_node\":9,\"moves_in_flight\":0}";
    let problem = refused(&served, post("/v1/config", half), invalid).await;
    assert_eq!(
        problem.message,
        "moves_in_flight is `0`, must be 1 to 65536"
    );
    let same: ConfigDocument = send(&served, HttpRequest::get("/v1/config"))
        .await
        .json("")
        .unwrap();
    assert_eq!(same.moves_per_node, 32, "nothing is half applied");
    let bad = ProblemCode::BadJson;
    refused(&served, post("/v1/nodes/node-1", "{\"weight\":-1}"), bad).await;
    refused(&served, post("/v1/config", "{\"partition_count\":8}"), bad).await;
    let gone = ProblemCode::UnknownNode;
    refused(&served, post("/v1/nodes/node-9", "{\"weight\":1}"), gone).await;
}

#[tokio::test]
async fn changes_are_previewed_and_then_made() {
    let cluster = Cluster {
        copies: 2,
        partitions: 12,
        ..Cluster::default()
    };
    let served = cluster.serve().await;
    let post = |target: &str, body: &str| HttpRequest::post(target).body(body.to_owned());
    let change = "{\"weight\":2,\"zone\":\"b\"}";
    let target = "/v1/nodes/node-2?dry_run=true";
    let preview: RebalanceDocument = send(&served, post(target, change)).await.json("").unwrap();
    assert!(preview.dry_run && preview.id.is_none());
    assert_eq!(preview.minimum, Some(preview.copies));
    assert!(preview.copies > 0);
    let before = served.node.control.view_epoch();
    let answer = send(&served, post("/v1/nodes/node-2", change)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(served.node.control.view_epoch(), before + 1);
    let node: serde_json::Value = send(&served, HttpRequest::get("/v1/nodes/node-2"))
        .await
        .json("")
        .unwrap();
    let node: MemberDocument = serde_json::from_value(node["node"].clone()).unwrap();
    assert_eq!((node.weight, node.zone.as_str()), (2, "b"));

    let change = "{\"replication_factor\":3,\"moves_in_flight\":5}";
    let answer = send(&served, post("/v1/config", change)).await;
    assert_eq!(answer.status(), 200);
    let config: ConfigDocument = send(&served, HttpRequest::get("/v1/config"))
        .await
        .json("")
        .unwrap();
    assert_eq!((config.replication_factor, config.moves_in_flight), (3, 5));
    let answer = send(&served, post("/v1/rebalance?dry_run=1", "")).await;
    let dry: RebalanceDocument = answer.json("").unwrap();
    assert_eq!(dry.copies, 12);
    let zone_cap = |limit: &Limit| {
        matches!(
            limit,
            Limit::ZoneCap {
                zones: 2,
                per_zone: 2
            }
        )
    };
    assert!(dry.limits.iter().any(|it| zone_cap(&it.limit)), "{dry:?}");
    let id = dry.id.unwrap();
    let apply = format!("/v1/rebalance?apply={id}");
    let done: RebalanceDocument = send(&served, post(&apply, "")).await.json("").unwrap();
    assert_eq!(done.id, Some(id));
    let other = format!("/v1/rebalance?apply={}-{:016x}", id.epoch, id.digest ^ 1);
    refused(&served, post(&other, ""), ProblemCode::StaleEpoch).await;
}

#[tokio::test]
async fn the_plans_of_the_log_are_listed_with_their_proof_and_explain_what_moved() {
    let served = Cluster::default().serve().await;
    let answer = send(&served, HttpRequest::get("/v1/plans")).await;
    let plans: PlansDocument = answer.json("").unwrap();
    assert_eq!(plans.after.value(), 0);
    let [plan] = &plans.plans[..] else {
        panic!("the first placement: {plans:?}")
    };
    assert_eq!((plan.copies, plan.minimum), (12, Some(12)));
    assert_eq!(plan.primary_changes, 4);
    let answer = send(&served, HttpRequest::get("/v1/explain?partition=2")).await;
    let told: ExplainDocument = answer.json("").unwrap();
    assert_eq!(told.recorded.unwrap().plan, plan.plan);
    assert!(
        told.text
            .contains("The last plan that concerned it was computed on epoch"),
        "{}",
        told.text
    );
}

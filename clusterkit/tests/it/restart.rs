//! Rule 10: what operators do with a node that is to stop for a while.

use clusterkit::StopRisk;
use clusterkit_http::api::v1::MayStopDocument;
use clusterkit_http::client::{HttpClient, HttpRequest};

use crate::support::Nodes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_may_stop_says_what_would_be_lost() {
    let cluster = Nodes::form(4, 16).await;
    let ids: Vec<_> = cluster
        .nodes
        .iter()
        .map(|it| it.node_id().clone())
        .collect();
    for node in &cluster.nodes {
        assert!(node.may_stop(&ids[1..2]).await.unwrap().is_yes());
        let three = node.may_stop(&ids[..3]).await.unwrap();
        let no_copy = |risk: &StopRisk| matches!(risk, StopRisk::NoCopy { .. });
        let no_majority = |risk: &StopRisk| matches!(risk, StopRisk::NoMajority { .. });
        assert!(three.risks.iter().any(no_copy), "{three}");
        assert!(three.risks.iter().any(no_majority), "{three}");
    }
    let unknown = [clusterkit::NodeId::new("node-9").unwrap()];
    let refused = cluster.nodes[0].may_stop(&unknown).await.unwrap_err();
    assert!(refused.to_string().contains("node-9"), "{refused}");
    let ask = HttpRequest::get("/v1/may-stop?nodes=node-2");
    let client = HttpClient::default();
    let answer = client.send(cluster.nodes[3].address(), ask).await.unwrap();
    let shown: MayStopDocument = answer.json("").unwrap();
    assert_eq!((shown.may_stop, &shown.nodes[..]), (true, &ids[1..2]));
    cluster.stop().await;
}

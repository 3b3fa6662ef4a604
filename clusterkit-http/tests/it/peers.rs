//! The peer transport against the peer endpoint.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, RaftId};
use clusterkit_http::client::{ClientLimits, HttpClient, HttpRequest};
use clusterkit_http::transport::HttpTransport;
use clusterkit_raft::transport::{PeerAddress, RpcKind, Transport, TransportError};

use crate::fake::{CLUSTER, Cluster};

fn transport() -> HttpTransport {
    HttpTransport::new(&ClientLimits::default())
}

#[tokio::test]
async fn bytes_reach_the_peer_and_come_back() {
    let served = Cluster::default().serve().await;
    let transport = transport();
    transport.identify(CLUSTER, RaftId(2));
    let peer = PeerAddress::member(RaftId(1), &served.address);
    for size in [0, 1, 70_000, 3 << 20] {
        let body = Bytes::from(vec![9; size]);
        let answer = transport.send(&peer, RpcKind::Append, body.clone()).await;
        assert_eq!(answer.unwrap(), body);
    }
    let unavailable = transport
        .send(&peer, RpcKind::Heartbeat, Bytes::new())
        .await
        .unwrap_err();
    assert!(matches!(unavailable, TransportError::Remote { .. }));
    served.node.peers.refuse.store(true, Ordering::SeqCst);
    let refused = transport.send(&peer, RpcKind::Vote, Bytes::new()).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(
            "member 1 at {} refused: member 9 was removed",
            served.address
        )
    );
}

#[tokio::test]
async fn strangers_and_mistaken_senders_are_refused_before_their_bytes_are_read() {
    let served = Cluster::default().serve().await;
    let stranger = transport();
    let seed = PeerAddress::seed(&served.address);
    let hello = Bytes::from_static(b"hello");
    let answer = stranger.send(&seed, RpcKind::Identify, hello.clone()).await;
    assert_eq!(answer.unwrap(), hello);
    let handled = served.node.peers.handled.load(Ordering::SeqCst);

    let error = stranger.send(&seed, RpcKind::Vote, hello.clone()).await;
    assert!(matches!(error, Err(TransportError::Remote { .. })));

    let other = transport();
    other.identify(ClusterId::from_bytes([0xcd; 16]), RaftId(2));
    let error = other.send(&seed, RpcKind::Append, hello.clone()).await;
    let error = error.unwrap_err().to_string();
    let expected = format!(
        "{} refused: x-clusterkit-cluster is `{}`, this node belongs to {CLUSTER}",
        served.address,
        "cd".repeat(16)
    );
    assert_eq!(error, expected);

    let own = transport();
    own.identify(CLUSTER, RaftId(2));
    let mistaken = PeerAddress::member(RaftId(7), &served.address);
    let error = own.send(&mistaken, RpcKind::Append, hello.clone()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }));
    assert!(
        error
            .to_string()
            .ends_with("x-clusterkit-to is `7`, this is member 1")
    );

    let client = HttpClient::default();
    let wire =
        |version: &str| HttpRequest::post("/peer/v1/vote").header("x-clusterkit-wire", version);
    for version in ["2", "", "x"] {
        let answer = client.send(&served.address, wire(version)).await.unwrap();
        assert_eq!(answer.status(), 409);
        let message = format!("x-clusterkit-wire is `{version}`, this node speaks 1");
        assert_eq!(answer.problem().unwrap().message, message);
    }
    assert_eq!(served.node.peers.handled.load(Ordering::SeqCst), handled);
}

#[tokio::test]
async fn a_dead_peer_is_unreachable() {
    let served = Cluster::default().serve().await;
    let peer = PeerAddress::member(RaftId(1), &served.address);
    assert!(served.server.shutdown(Duration::from_secs(5)).await);
    let transport = transport();
    transport.identify(CLUSTER, RaftId(2));
    let error = transport.send(&peer, RpcKind::Append, Bytes::new()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }));
    assert!(error.is_harmless());
}

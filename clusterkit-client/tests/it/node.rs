//! A scripted node: serves one topology over HTTP, as a fetch and as a stream, and can be stopped.
//!
//! The real server is tested in `clusterkit-http`; this one can also hang, refuse and lie.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_client::Client;
use clusterkit_core::hash::{HashAlgorithm, HashConfig};
use clusterkit_core::id::{ClusterId, DiskId, Epoch, NodeId, RaftId};
use clusterkit_core::node::{Node, NodeSpec, NodeStatus};
use clusterkit_core::time::UnixMillis;
use clusterkit_core::topology::{Topology, TopologyParts, TopologyRow};
use clusterkit_http::api::TopologyDocument;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The longest any test waits for anything.
const LIMIT: Duration = Duration::from_secs(10);

/// Waits for `future`, failing the test when it takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("waited too long")
}

/// Returns the time as tests with a paused clock have it.
#[allow(
    clippy::disallowed_methods,
    reason = "tests measure how long something took"
)]
pub(crate) fn virtual_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers and streams.
    Streams,
    /// Answers, and does not know `/v1/watch`.
    Polled,
    /// Takes connections and never answers.
    Hangs,
}

/// What has been asked of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) fetches: u32,
    pub(crate) unchanged: u32,
    pub(crate) watches: u32,
    pub(crate) watching: u32,
}

/// A scripted node; stopped when dropped.
pub(crate) struct FakeNode {
    pub(crate) address: String,
    document: watch::Sender<String>,
    asked: watch::Sender<Asked>,
    _tasks: JoinSet<()>,
}

impl FakeNode {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let document = watch::Sender::new(String::new());
        let asked = watch::Sender::new(Asked::default());
        let mut tasks = JoinSet::new();
        let (documents, counts) = (document.clone(), asked.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, manner, documents.clone(), counts.clone()));
            }
        });
        Self {
            address,
            document,
            asked,
            _tasks: tasks,
        }
    }

    /// Serves `topology` from now on.
    pub(crate) fn publish(&self, topology: &Topology) {
        let document = TopologyDocument::from(topology);
        self.publish_text(serde_json::to_string(&document).unwrap());
    }

    pub(crate) fn publish_text(&self, text: String) {
        self.document.send_replace(text);
    }

    pub(crate) fn asked(&self) -> Asked {
        *self.asked.borrow()
    }

    /// Waits until what was asked of the node satisfies `condition`.
    pub(crate) async fn until_asked(&self, condition: impl FnMut(&Asked) -> bool) {
        let mut asked = self.asked.subscribe();
        soon(asked.wait_for(condition)).await.unwrap();
    }
}

/// An address at which nobody listens.
pub(crate) async fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn serve(
    mut stream: TcpStream,
    manner: Manner,
    document: watch::Sender<String>,
    asked: watch::Sender<Asked>,
) {
    loop {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        if manner == Manner::Hangs {
            std::future::pending::<()>().await;
        }
        let text = document.borrow().clone();
        let etag = format!("\"{}\"", epoch_of(&text));
        if head.starts_with("GET /v1/topology ") {
            asked.send_modify(|asked| asked.fetches += 1);
            let answer = if head.contains(&format!("if-none-match: {etag}")) {
                asked.send_modify(|asked| asked.unchanged += 1);
                format!("HTTP/1.1 304 Not Modified\r\netag: {etag}\r\n\r\n")
            } else if text.is_empty() {
                let body = r#"{"code":"not_ready","message":"not a member yet"}"#;
                let length = body.len();
                format!(
                    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: {length}\r\n\r\n{body}"
                )
            } else {
                let length = text.len();
                format!("HTTP/1.1 200 OK\r\netag: {etag}\r\ncontent-length: {length}\r\n\r\n{text}")
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        } else if head.starts_with("GET /v1/watch?after=") && manner == Manner::Streams {
            let after = head["GET /v1/watch?after=".len()..]
                .split(' ')
                .next()
                .unwrap();
            watched(stream, after.parse().unwrap(), document, asked).await;
            return;
        } else {
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn watched(
    mut stream: TcpStream,
    after: u64,
    document: watch::Sender<String>,
    asked: watch::Sender<Asked>,
) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    asked.send_modify(|asked| {
        asked.watches += 1;
        asked.watching += 1;
    });
    let mut documents = document.subscribe();
    let mut after = after;
    loop {
        let text = documents.borrow_and_update().clone();
        if epoch_of(&text) > after {
            after = epoch_of(&text);
            let event = format!("event: topology\nid: {after}\ndata: {text}\n\n");
            if stream.write_all(event.as_bytes()).await.is_err() {
                break;
            }
        }
        let mut ignored = [0; 64];
        tokio::select! {
            changed = documents.changed() => if changed.is_err() { break },
            read = stream.read(&mut ignored) => if matches!(read, Ok(0) | Err(_)) { break },
        }
    }
    asked.send_modify(|asked| asked.watching -= 1);
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn epoch_of(text: &str) -> u64 {
    let document: Result<serde_json::Value, _> = serde_json::from_str(text);
    document.map_or(0, |document| document["epoch"].as_u64().unwrap_or(0))
}

/// A cluster to be described: nodes 1, 2, 3.. at addresses, all partitions alike.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) id: u8,
    pub(crate) epoch: u64,
    pub(crate) addresses: Vec<String>,
    pub(crate) down: Vec<u64>,
    pub(crate) primary: Option<u64>,
    pub(crate) replicas: Vec<u64>,
    pub(crate) behind: Vec<u64>,
    pub(crate) joining: Vec<u64>,
}

impl Cluster {
    /// Node 1 is primary of everything, the others are replicas.
    pub(crate) fn of(nodes: &[&FakeNode]) -> Self {
        Self::at(nodes.iter().map(|node| node.address.clone()).collect())
    }

    pub(crate) fn at(addresses: Vec<String>) -> Self {
        Self {
            id: 7,
            epoch: 1,
            replicas: (2..=addresses.len() as u64).collect(),
            addresses,
            down: Vec::new(),
            primary: Some(1),
            behind: Vec::new(),
            joining: Vec::new(),
        }
    }

    pub(crate) fn topology(&self) -> Topology {
        let ids = |list: &[u64]| list.iter().copied().map(RaftId).collect::<Vec<_>>();
        let node = |(at, address): (usize, &String)| {
            let id = at as u64 + 1;
            let name = NodeId::new(format!("node-{id}")).unwrap();
            let mut spec = NodeSpec::new(name, DiskId::from_bytes([0; 16]), address);
            spec.services = Arc::new(BTreeMap::from([
                ("kv".to_owned(), ":9080".to_owned()),
                ("admin".to_owned(), "10.1.1.1:7".to_owned()),
            ]));
            let mut node = Node::new(RaftId(id), spec, UnixMillis(0));
            node.status = if self.down.contains(&id) {
                NodeStatus::Down
            } else {
                NodeStatus::Active
            };
            Arc::new(node)
        };
        let row = TopologyRow {
            primary: self.primary.map(RaftId),
            replicas: ids(&self.replicas),
            behind: ids(&self.behind),
            joining: ids(&self.joining),
            epoch: Epoch(self.epoch),
        };
        Topology::new(TopologyParts {
            cluster: ClusterId::from_bytes([self.id; 16]),
            name: "test".to_owned(),
            generation: 0,
            epoch: Epoch(self.epoch),
            hash: HashConfig::new(HashAlgorithm::Md5),
            replication_factor: 3,
            nodes: self.addresses.iter().enumerate().map(node).collect(),
            rows: vec![row; 16],
        })
        .unwrap()
    }

    /// Raises the epoch and makes `primary` primary in place of whoever was.
    pub(crate) fn promote(&mut self, primary: u64) {
        self.epoch += 1;
        let old = self.primary.replace(primary);
        self.replicas.retain(|node| *node != primary);
        self.replicas.extend(old);
    }
}

/// Three nodes that publish the same cluster, and a client of it.
pub(crate) async fn three(manner: Manner) -> (Vec<FakeNode>, Cluster, Client) {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(FakeNode::start(manner).await);
    }
    let cluster = Cluster::of(&nodes.iter().collect::<Vec<_>>());
    for node in &nodes {
        node.publish(&cluster.topology());
    }
    let seeds = nodes.iter().map(|node| node.address.clone());
    let client = soon(
        Client::builder(seeds)
            .poll_interval(Duration::from_millis(20))
            .verify_interval(Duration::from_secs(60))
            .connect(),
    )
    .await
    .unwrap();
    (nodes, cluster, client)
}

//! A TCP proxy in this process before every node, where namespaces cannot be made.
//!
//! Who connects is found by who has its socket open in `/proc`, so that nodes need not know of the
//! proxy. Bytes of a direction that is cut wait, as those of TCP do while packets are lost, and go
//! on when it is healed; while either direction is cut no new connection gets through. What differs
//! from a real cut: the connection to the proxy itself is always accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;

use super::{Place, diag};

/// Nodes listen here, proxies on addresses of their own in 127.0.0.0/8.
const NODES: Ipv4Addr = Ipv4Addr::LOCALHOST;

type Cuts = BTreeSet<(String, String)>;

/// The proxies of a network. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Proxies {
    cuts: watch::Sender<Cuts>,
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    listeners: JoinSet<()>,
}

/// What one proxy needs to know.
#[derive(Clone, Debug)]
struct Gate {
    /// The node behind it.
    to: String,
    cuts: watch::Receiver<Cuts>,
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Proxies {
    pub(super) fn new() -> Self {
        Self {
            cuts: watch::Sender::new(Cuts::new()),
            pids: Arc::default(),
            listeners: JoinSet::new(),
        }
    }

    /// Puts a proxy before each of `ports` of node `id`. Runs on the runtime of the caller.
    pub(super) fn add(&mut self, id: &str, number: u8, ports: [u16; 2]) -> anyhow::Result<Place> {
        let host = Ipv4Addr::new(127, 77, 0, number);
        for port in ports {
            let listener = std::net::TcpListener::bind((host, port))
                .with_context(|| format!("cannot listen on {host}:{port}"))?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let gate = Gate {
                to: id.to_owned(),
                cuts: self.cuts.subscribe(),
                pids: Arc::clone(&self.pids),
            };
            self.listeners.spawn(serve(listener, port, gate));
        }
        Ok(Place {
            host: host.to_string(),
            listen: NODES.to_string(),
            namespace: None,
        })
    }

    pub(super) fn runs_as(&self, id: &str, pid: u32) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids.insert(id.to_owned(), pid);
    }

    pub(super) fn cut(&self, from: &str, to: &str) {
        let way = (from.to_owned(), to.to_owned());
        self.cuts.send_modify(|cuts| {
            cuts.insert(way);
        });
    }

    pub(super) fn heal(&self) {
        self.cuts.send_modify(Cuts::clear);
    }
}

async fn serve(listener: TcpListener, port: u16, gate: Gate) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, from)) = accepted {
                    connections.spawn(carry(stream, from, port, gate.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection to the node and back until either end closes it.
async fn carry(client: TcpStream, from: SocketAddr, port: u16, gate: Gate) {
    let Ok(here) = client.local_addr() else {
        return;
    };
    let line = Connection {
        from,
        here,
        gate,
        source: OnceCell::new(),
    };
    if line.pass(&[Way::There, Way::Back]).await.is_err() {
        return;
    }
    let Ok(node) = TcpStream::connect((NODES, port)).await else {
        return;
    };
    let (_, _) = (client.set_nodelay(true), node.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (node_read, node_write) = node.into_split();
    // The end of one direction is passed on; a failure of either ends both.
    let _ = tokio::try_join!(
        pump(client_read, node_write, &line, Way::There),
        pump(node_read, client_write, &line, Way::Back)
    );
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    line: &Connection,
    way: Way,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        line.pass(&[way]).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From who connected to the node.
    There,
    /// From the node to who connected.
    Back,
}

/// A connection through a proxy.
#[derive(Debug)]
struct Connection {
    from: SocketAddr,
    here: SocketAddr,
    gate: Gate,
    /// The node that connected, none for somebody outside. Looked for once something is cut.
    source: OnceCell<Option<String>>,
}

impl Connection {
    /// Waits until none of `ways` is cut. An error says that the network has ended.
    async fn pass(&self, ways: &[Way]) -> std::io::Result<()> {
        let mut cuts = self.gate.cuts.clone();
        if cuts.borrow().is_empty() {
            return Ok(());
        }
        let look = async || {
            let (gate, from, here) = (self.gate.clone(), self.from, self.here);
            let found = tokio::task::spawn_blocking(move || gate.owner_of(from, here));
            found.await.ok().flatten()
        };
        let Some(source) = self.source.get_or_init(look).await else {
            return Ok(());
        };
        let is_cut = |cuts: &Cuts, way: &Way| {
            let (from, to) = match way {
                Way::There => (source, &self.gate.to),
                Way::Back => (&self.gate.to, source),
            };
            cuts.contains(&(from.clone(), to.clone()))
        };
        let open = |cuts: &Cuts| !ways.iter().any(|way| is_cut(cuts, way));
        let waited = cuts.wait_for(open).await;
        waited
            .map(drop)
            .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl Gate {
    /// Returns the node whose process connected from `from` to the proxy at `here`.
    fn owner_of(&self, from: SocketAddr, here: SocketAddr) -> Option<String> {
        let (SocketAddr::V4(from), SocketAddr::V4(here)) = (from, here) else {
            return None;
        };
        let link = format!("socket:[{}]", diag::inode(from, here).ok()?);
        let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        let has_it = |pid: &u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
            let mut files = files.into_iter().flatten().flatten();
            files.any(|file| {
                let target = std::fs::read_link(file.path());
                target.is_ok_and(|target| target.as_os_str() == &*link)
            })
        };
        let owner = pids.iter().find(|(_, pid)| has_it(pid));
        owner.map(|(id, _)| id.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const MOMENT: Duration = Duration::from_millis(100);

    async fn say(stream: &mut TcpStream, word: &[u8; 4]) {
        stream.write_all(word).await.unwrap();
    }

    async fn hear(stream: &mut TcpStream) -> [u8; 4] {
        let mut word = [0; 4];
        let read = timeout(LIMIT, stream.read_exact(&mut word)).await;
        read.unwrap().unwrap();
        word
    }

    #[tokio::test]
    async fn each_direction_is_cut_and_healed_by_itself() {
        let node = TcpListener::bind((NODES, 0)).await.unwrap();
        let port = node.local_addr().unwrap().port();
        let mut proxies = Proxies::new();
        // This process is the node `a`; `b` is behind the proxy.
        proxies.runs_as("a", std::process::id());
        let other = TcpListener::bind((NODES, 0)).await.unwrap();
        let spare = other.local_addr().unwrap().port();
        let place = proxies.add("b", 201, [port, spare]).unwrap();

        let mut a = TcpStream::connect((place.host.as_str(), port))
            .await
            .unwrap();
        let (mut b, _) = node.accept().await.unwrap();
        say(&mut a, b"one ").await;
        assert_eq!(&hear(&mut b).await, b"one ");

        proxies.cut("a", "b");
        say(&mut a, b"two ").await;
        say(&mut b, b"back").await;
        assert_eq!(&hear(&mut a).await, b"back", "the other way is open");
        let mut word = [0; 4];
        assert!(timeout(MOMENT, b.read_exact(&mut word)).await.is_err());
        let _refused = TcpStream::connect((place.host.as_str(), port))
            .await
            .unwrap();
        assert!(
            timeout(MOMENT, node.accept()).await.is_err(),
            "a new one waits"
        );

        proxies.heal();
        assert_eq!(&hear(&mut b).await, b"two ", "nothing was lost, only late");
        assert!(timeout(LIMIT, node.accept()).await.is_ok());
    }

    #[tokio::test]
    async fn the_owner_of_a_socket_is_found() {
        let listener = TcpListener::bind((NODES, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (address, here) = {
            let client = client.as_ref().unwrap();
            (client.local_addr().unwrap(), client.peer_addr().unwrap())
        };
        let pids = BTreeMap::from([("me".to_owned(), std::process::id())]);
        let gate = Gate {
            to: "b".into(),
            cuts: watch::Sender::new(Cuts::new()).subscribe(),
            pids: Arc::new(Mutex::new(pids)),
        };
        assert_eq!(gate.owner_of(address, here).as_deref(), Some("me"));
        gate.pids.lock().unwrap().clear();
        assert_eq!(gate.owner_of(address, here), None);
    }
}

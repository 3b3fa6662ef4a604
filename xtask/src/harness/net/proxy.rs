//! A TCP proxy in this process before every node, where namespaces cannot be made.
//!
//! Who connects is found by the owner of its socket in `/proc`, so that nodes need not know of the
//! proxy. Bytes of a direction that is cut wait, as those of TCP do while packets are lost, and go
//! on when it is healed; while either direction is cut no new connection gets through. What differs
//! from a real cut: the connection to the proxy itself is always accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Place;

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
async fn carry(client: TcpStream, from: SocketAddr, port: u16, mut gate: Gate) {
    let source = gate.owner_of(from);
    let (there, back) = match &source {
        Some(source) => (
            (source.clone(), gate.to.clone()),
            (gate.to.clone(), source.clone()),
        ),
        // Somebody outside: never cut off.
        None => Default::default(),
    };
    let open = |cuts: &Cuts| !cuts.contains(&there) && !cuts.contains(&back);
    if gate.cuts.wait_for(open).await.is_err() {
        return;
    }
    let Ok(node) = TcpStream::connect((NODES, port)).await else {
        return;
    };
    let (_, _) = (client.set_nodelay(true), node.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (node_read, node_write) = node.into_split();
    let (cuts, cuts_back) = (gate.cuts.clone(), gate.cuts);
    // The end of one direction is passed on; a failure of either ends both.
    let _ = tokio::try_join!(
        pump(client_read, node_write, cuts, &there),
        pump(node_read, client_write, cuts_back, &back)
    );
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut cuts: watch::Receiver<Cuts>,
    way: &(String, String),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if cuts.wait_for(|cuts| !cuts.contains(way)).await.is_err() {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

impl Gate {
    /// Returns the node whose process has the socket at `address`.
    fn owner_of(&self, address: SocketAddr) -> Option<String> {
        let link = format!("socket:[{}]", inode_of(address)?);
        let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        let has_it = |pid: &u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
            let mut files = files.into_iter().flatten().flatten();
            files.any(|file| {
                std::fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == &*link)
            })
        };
        let mut nodes = pids.iter();
        nodes.find(|(_, pid)| has_it(pid)).map(|(id, _)| id.clone())
    }
}

/// Returns the inode of the socket of this machine that is bound to `address`.
fn inode_of(address: SocketAddr) -> Option<u64> {
    let IpAddr::V4(host) = address.ip() else {
        return None;
    };
    // As the kernel prints it: the bytes of the address as they are in memory.
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(host.octets()),
        address.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        // From the local address on: remote, state, queues, timer, retransmits, uid, timeout, inode.
        let inode = fields.nth(7)?.parse().ok()?;
        (local == wanted && inode != 0).then_some(inode)
    })
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
        let address = client.as_ref().unwrap().local_addr().unwrap();
        let pids = BTreeMap::from([("me".to_owned(), std::process::id())]);
        let gate = Gate {
            to: "b".into(),
            cuts: watch::Sender::new(Cuts::new()).subscribe(),
            pids: Arc::new(Mutex::new(pids)),
        };
        assert_eq!(gate.owner_of(address).as_deref(), Some("me"));
        gate.pids.lock().unwrap().clear();
        assert_eq!(gate.owner_of(address), None);
    }
}

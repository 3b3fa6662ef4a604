//! The network between the nodes of a cluster, to be cut one way or both, and healed.
//!
//! Two kinds with the same operations, chosen at run time: a network namespace per node where the
//! machine lets us make them, else a proxy in this process before every node. Only what nodes send
//! each other is cut; this process reaches every node all the time, as a client outside does.

mod diag;
mod namespaces;
mod proxy;

use std::collections::BTreeMap;

use anyhow::Context;
use clap::ValueEnum;

use namespaces::Namespaces;
use proxy::Proxies;

/// Which kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkArg {
    /// Namespaces where they can be made, else proxies.
    Auto,
    /// A network namespace per node, on one bridge: needs root and `ip` (iproute2).
    Namespaces,
    /// A TCP proxy in this process before every node.
    Proxy,
}

impl NetworkArg {
    /// Returns the name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Namespaces => "namespaces",
            Self::Proxy => "proxy",
        }
    }
}

/// The network between nodes.
#[derive(Debug)]
pub(crate) struct Network {
    kind: Kind,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Kind {
    Namespaces(Namespaces),
    Proxy(Proxies),
}

/// Where a node is on the network.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The host everybody reaches it at.
    pub(super) host: String,
    /// The host its process listens on.
    pub(super) listen: String,
    /// The namespace its process runs in.
    pub(super) namespace: Option<String>,
}

impl Default for Place {
    /// On the loopback of this machine, without a network of our own.
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            listen: "127.0.0.1".to_owned(),
            namespace: None,
        }
    }
}

impl Network {
    /// Makes a network without nodes.
    pub(crate) fn new(wanted: NetworkArg) -> anyhow::Result<Self> {
        let kind = match wanted {
            NetworkArg::Namespaces => Kind::Namespaces(Namespaces::new()?),
            NetworkArg::Proxy => Kind::Proxy(Proxies::new()),
            NetworkArg::Auto => match Namespaces::new() {
                Ok(namespaces) => Kind::Namespaces(namespaces),
                Err(_) => Kind::Proxy(Proxies::new()),
            },
        };
        Ok(Self {
            kind,
            places: BTreeMap::new(),
        })
    }

    /// Says which kind it is.
    pub(crate) const fn about(&self) -> &'static str {
        match self.kind {
            Kind::Namespaces(_) => "a network namespace per node",
            Kind::Proxy(_) => "a proxy before every node",
        }
    }

    /// Gives `id` a place on the network.
    pub(super) fn add(&mut self, id: &str, ports: [u16; 2]) -> anyhow::Result<Place> {
        let number = u8::try_from(self.places.len() + 1).context("at most 255 nodes")?;
        let place = match &mut self.kind {
            Kind::Namespaces(namespaces) => namespaces.add(number)?,
            Kind::Proxy(proxies) => proxies.add(id, number, ports)?,
        };
        self.places.insert(id.to_owned(), place.clone());
        Ok(place)
    }

    /// Learns that `id` runs as the process `pid` now.
    pub(super) fn runs_as(&self, id: &str, pid: u32) {
        if let Kind::Proxy(proxies) = &self.kind {
            proxies.runs_as(id, pid);
        }
    }

    fn place(&self, id: &str) -> anyhow::Result<&Place> {
        let place = self.places.get(id);
        place.with_context(|| format!("{id} is not on the network"))
    }

    /// Loses everything that `from` sends to `to`.
    pub(crate) fn cut(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        match &self.kind {
            Kind::Namespaces(_) => namespaces::cut(source, target),
            Kind::Proxy(proxies) => {
                proxies.cut(from, to);
                Ok(())
            }
        }
    }

    /// Loses everything that `id` and the other nodes send each other.
    pub(crate) fn isolate(&self, id: &str) -> anyhow::Result<()> {
        self.mute(id)?;
        self.deafen(id)
    }

    /// Loses everything that `id` sends to the other nodes.
    pub(crate) fn mute(&self, id: &str) -> anyhow::Result<()> {
        let mut others = self.places.keys().filter(|other| *other != id);
        others.try_for_each(|other| self.cut(id, other))
    }

    /// Loses everything that the other nodes send to `id`.
    pub(crate) fn deafen(&self, id: &str) -> anyhow::Result<()> {
        let mut others = self.places.keys().filter(|other| *other != id);
        others.try_for_each(|other| self.cut(other, id))
    }

    /// Lets everything pass again.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        match &self.kind {
            Kind::Namespaces(_) => {
                let places: Vec<&Place> = self.places.values().collect();
                namespaces::heal(&places)
            }
            Kind::Proxy(proxies) => {
                proxies.heal();
                Ok(())
            }
        }
    }
}

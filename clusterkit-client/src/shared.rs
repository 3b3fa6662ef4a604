//! What the calls of a client and its follower share: the current topology, and fetching a newer one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use clusterkit_core::id::Epoch;
use clusterkit_core::topology::Topology;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use crate::error::NodeFailure;
use crate::{SourceError, TopologySource};

/// How long a node is waited for before the next one is asked as well.
const STAGGER: Duration = Duration::from_millis(100);

pub(crate) struct Shared {
    topology: ArcSwap<Topology>,
    /// Raised with every published topology; its lock also orders publishers.
    published: watch::Sender<u64>,
    source: Arc<dyn TopologySource>,
    seeds: Vec<String>,
    /// Held while refreshing, so that a thousand failed calls ask once.
    refreshing: Mutex<()>,
    refreshed: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("epoch", &self.topology().epoch())
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

/// Whom to ask for a newer topology, and what would satisfy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// Asked first: it has said that it knows more.
    pub(crate) prefer: Option<&'a str>,
    /// Asked last: it has just failed.
    pub(crate) avoid: Option<&'a str>,
    /// Nodes that know less are passed over.
    pub(crate) epoch: Option<Epoch>,
}

impl Shared {
    pub(crate) fn new(
        topology: Arc<Topology>,
        source: Arc<dyn TopologySource>,
        seeds: Vec<String>,
    ) -> Self {
        Self {
            topology: ArcSwap::new(topology),
            published: watch::Sender::new(0),
            source,
            seeds,
            refreshing: Mutex::default(),
            refreshed: AtomicU64::new(0),
        }
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    pub(crate) fn source(&self) -> &dyn TopologySource {
        &*self.source
    }

    pub(crate) fn publications(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Makes `next` current if it is newer than what is; `address` is where it came from.
    pub(crate) fn publish(&self, next: &Arc<Topology>, address: &str) -> Result<(), SourceError> {
        let mut outcome = Ok(());
        self.published.send_if_modified(|version| {
            let current = self.topology.load();
            if next.cluster() != current.cluster() {
                outcome = Err(SourceError::ForeignCluster {
                    address: address.to_owned(),
                    expected: current.cluster(),
                    found: next.cluster(),
                });
                return false;
            }
            let age = |topology: &Topology| (topology.generation(), topology.epoch());
            if age(next) <= age(&current) {
                return false;
            }
            tracing::debug!(epoch = %next.epoch(), address, "topology changed");
            self.topology.store(Arc::clone(next));
            *version += 1;
            true
        });
        outcome
    }

    /// Fetches a newer topology from whoever answers first and publishes it.
    ///
    /// Returns the current one, which is not newer when nobody knew a newer one. Concurrent
    /// callers share one round of requests.
    pub(crate) async fn refresh(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<Arc<Topology>, Vec<NodeFailure>> {
        let seen = self.refreshed.load(Ordering::Acquire);
        let _alone = self.refreshing.lock().await;
        let current = self.topology();
        let satisfied = wanted.epoch.is_none_or(|epoch| current.epoch() >= epoch);
        if self.refreshed.load(Ordering::Acquire) > seen && satisfied {
            return Ok(current);
        }
        let addresses = self.addresses(wanted);
        let enough =
            |topology: &Topology| wanted.epoch.is_none_or(|epoch| topology.epoch() >= epoch);
        let answer = ask(self.source(), &addresses, Some(&current), enough).await?;
        self.refreshed.fetch_add(1, Ordering::AcqRel);
        if let Some((address, topology)) = answer
            && let Err(error) = self.publish(&topology, &address)
        {
            return Err(vec![NodeFailure::new(address, error)]);
        }
        Ok(self.topology())
    }

    /// Returns every address worth asking: live members in random order, then members marked down
    /// and seeds, each once.
    pub(crate) fn addresses(&self, wanted: Wanted<'_>) -> Vec<String> {
        let topology = self.topology();
        let (live, down): (Vec<_>, Vec<_>) = topology
            .nodes()
            .iter()
            .partition(|node| node.status.is_live());
        let mut members: Vec<&str> = live.iter().map(|node| &*node.address).collect();
        if !members.is_empty() {
            let first = random() % members.len() as u64;
            members.rotate_left(usize::try_from(first).unwrap_or_default());
        }
        members.extend(down.iter().map(|node| &*node.address));
        members.extend(self.seeds.iter().map(String::as_str));
        let is_avoided = |address: &&str| Some(*address) == wanted.avoid;
        let mut addresses: Vec<String> = Vec::with_capacity(members.len());
        let wished = wanted.prefer.into_iter();
        let others = members
            .iter()
            .copied()
            .filter(|address| !is_avoided(address));
        let last = members.iter().copied().filter(is_avoided);
        for address in wished.chain(others).chain(last) {
            if !addresses.iter().any(|listed| listed == address) {
                addresses.push(address.to_owned());
            }
        }
        addresses
    }
}

/// Asks `addresses` in order, the next one as soon as the one before has failed or is slow, and
/// returns the first topology that is `enough`.
///
/// `Ok(None)`: somebody answered, nobody knew more than `known`. An incompatible cluster ends the
/// search: every node publishes the same.
pub(crate) async fn ask(
    source: &dyn TopologySource,
    addresses: &[String],
    known: Option<&Arc<Topology>>,
    enough: impl Fn(&Topology) -> bool,
) -> Result<Option<(String, Arc<Topology>)>, Vec<NodeFailure>> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut answered = false;
    let mut best: Option<(String, Arc<Topology>)> = None;
    loop {
        let done = if running.is_empty() {
            None
        } else {
            tokio::select! {
                done = running.next() => done,
                () = sleep(STAGGER), if waiting.len() > 0 => None,
            }
        };
        match done {
            Some((address, Ok(Some(topology)))) => {
                let topology: Arc<Topology> = topology;
                if enough(&topology) {
                    return Ok(Some((address, topology)));
                }
                answered = true;
                if best
                    .as_ref()
                    .is_none_or(|(_, best)| best.epoch() < topology.epoch())
                {
                    best = Some((address, topology));
                }
            }
            Some((_, Ok(None))) => {
                if known.is_some_and(|known| enough(known)) {
                    return Ok(None);
                }
                answered = true;
            }
            Some((address, Err(error))) => {
                tracing::debug!(address, %error, "no topology from this node");
                let incompatible = matches!(error, SourceError::Incompatible { .. });
                failures.push(NodeFailure::new(address, error));
                if incompatible {
                    return Err(failures);
                }
            }
            None => {}
        }
        if let Some(address) = waiting.next() {
            running.push(async move { (address.clone(), source.fetch(address, known).await) });
        } else if running.is_empty() {
            return if answered { Ok(best) } else { Err(failures) };
        }
    }
}

/// Returns a number that differs between processes and calls: it spreads clients over nodes. From
/// the thread's `fastrand` generator, as the pauses between attempts are, which a simulation seeds.
pub(crate) fn random() -> u64 {
    fastrand::u64(..)
}

//! The state of the service on this node: the store, the partitions' cells, the others.
//!
//! What it does with them is in `replication` (writes, recovery, orders of a primary) and
//! `migration` (copying and letting go); HTTP is in `service`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::lease::NoToken;
use clusterkit_core::node::Node;
use clusterkit_core::planted::{self, Bug};
use clusterkit_core::topology::Topology;
use clusterkit_http::net::Network;

use super::cell::Cell;
use super::clock;
use super::cluster::Cluster;
use super::peers::Peers;
use super::record::{Record, Version};
use super::replication::Unproven;
use super::rules::{self, Lead, NotLead};
use super::store::{Store, StoreError};

/// How long things may take. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the arrival of a client's request to its answer.
    pub(crate) request: Duration,
    /// One exchange with another node.
    pub(crate) exchange: Duration,
    /// How long an order of a primary waits for this node to learn what the primary knows.
    pub(crate) catch_up: Duration,
    /// One run of copying a partition, however often it has to start again.
    pub(crate) copy: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(5),
            exchange: Duration::from_secs(2),
            catch_up: Duration::from_secs(1),
            copy: Duration::from_secs(60),
        }
    }
}

/// The service on this node.
pub(crate) struct Engine {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) peers: Peers,
    pub(crate) patience: Patience,
    cells: Mutex<HashMap<PartitionId, Arc<Cell>>>,
}

/// Why a request was not served. Unless it says so, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("this node has not joined its cluster yet")]
    NotReady,
    #[error("partition {partition} has no primary at epoch {epoch}")]
    NoPrimary {
        partition: PartitionId,
        epoch: Epoch,
    },
    #[error("partition {partition} is served by {} at epoch {epoch}", .primary.id)]
    NotPrimary {
        partition: PartitionId,
        epoch: Epoch,
        primary: Arc<Node>,
    },
    #[error(
        "partition {partition} could not be served within {after:?}: it is taking over from another primary or many requests wait"
    )]
    Busy {
        partition: PartitionId,
        after: Duration,
    },
    #[error("this node cannot prove that it owns partition {partition}: {reason}")]
    Unproven {
        partition: PartitionId,
        reason: NoToken,
    },
    #[error("the write may or may not be applied: {reason}")]
    Unknown { reason: &'static str },
    #[error("{0}")]
    Store(StoreError),
}

/// A write that is on every node that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    pub(crate) partition: PartitionId,
    pub(crate) version: Version,
    /// The epoch of the ownership token that this node held when it was on all of them.
    pub(crate) token: Epoch,
}

impl Engine {
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        store: Arc<dyn Store>,
        network: &Arc<dyn Network>,
        patience: Patience,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            store,
            peers: Peers::over(network),
            patience,
            cells: Mutex::default(),
        })
    }

    pub(crate) fn topology(&self) -> Result<Arc<Topology>, Refused> {
        let topology = self.cluster.topology();
        topology
            .filter(|topology| topology.this_node().is_some())
            .ok_or(Refused::NotReady)
    }

    /// Returns what this node leads `partition` with by the newest topology.
    pub(crate) fn lead(&self, partition: PartitionId) -> Result<Lead, Refused> {
        let topology = self.topology()?;
        let epoch = topology.epoch();
        rules::lead(&topology, partition).map_err(|not| match not {
            NotLead::Nobody => Refused::NoPrimary { partition, epoch },
            NotLead::Other(primary) => Refused::NotPrimary {
                partition,
                epoch,
                primary,
            },
        })
    }

    /// Returns the cell of `partition`, reading what the store holds of it the first time.
    pub(crate) async fn cell(&self, partition: PartitionId) -> Result<Arc<Cell>, StoreError> {
        if let Some(cell) = self.known_cell(partition) {
            return Ok(cell);
        }
        // Nothing is written without a cell, so whoever comes first has read the truth.
        let summary = self.store.summary(partition).await?;
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = cells
            .entry(partition)
            .or_insert_with(|| Arc::new(Cell::new(partition, summary)));
        Ok(Arc::clone(cell))
    }

    /// Returns the cell of `partition` if it was asked for before.
    pub(crate) fn known_cell(&self, partition: PartitionId) -> Option<Arc<Cell>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.get(&partition).cloned()
    }

    /// Returns the record of `key` if this node is the primary of its partition, and proves that it
    /// was while it read: whoever replaced it may have written meanwhile.
    pub(crate) async fn read(&self, key: &Bytes) -> Result<Option<Record>, Refused> {
        let partition = self.topology()?.partition(key);
        let cell = self.cell(partition).await.map_err(Refused::Store)?;
        let deadline = clock::deadline(self.patience.request);
        loop {
            let mut lead = self.lead(partition)?;
            if !cell.is_recovered(lead.epoch) {
                // What was acknowledged is here, but what was read before may not be everywhere yet.
                (_, lead) = self.hold(&cell, partition, deadline).await?;
            }
            let record = self.read_local(partition, key).await?;
            if planted::is_on(Bug::KvReadUnproven) {
                return Ok(record);
            }
            match self.prove(&lead, deadline).await {
                Ok(()) => return Ok(record),
                Err(Unproven::Moved) => {}
                Err(Unproven::Late(reason)) => {
                    return Err(Refused::Unproven { partition, reason });
                }
            }
        }
    }

    /// Returns the record of `key` as this node holds it, whatever it is to the partition.
    pub(crate) async fn read_local(
        &self,
        partition: PartitionId,
        key: &Bytes,
    ) -> Result<Option<Record>, Refused> {
        let found = self.store.get(partition, key.clone()).await;
        found.map_err(Refused::Store)
    }
}

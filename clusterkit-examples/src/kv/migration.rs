//! Copying a partition to a new or returning member, and letting go of one.
//!
//! A copy is complete because of two facts: the source is the primary, and before it reads its
//! first page it waits until its own topology makes every later write go to the copying node too,
//! and until the write under way has ended. Pages follow in key order; what the copying node holds
//! and the source does not know, is deleted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, Epoch, PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_core::topology::Topology;
use tokio::time::{Instant, sleep, timeout_at};

use super::clock;
use super::engine::{Engine, Refused};
use super::peers::{PageRequest, PeerError};
use super::record::Version;
use super::rules::{self, NotLead};
use super::store::{StoreError, WriteOp};
use super::wire::Page;

/// How large a page is, unless one record is larger.
const PAGE_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(50);

/// How copying ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// This node holds everything.
    All { records: u64 },
    /// There is nothing to copy: this node takes no writes of the partition (any more), or is its
    /// primary.
    NotWanted,
}

/// Why a partition is not copied. What was copied so far stays and does no harm.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("this node has not joined its cluster yet")]
    NotReady,
    #[error("partition {partition} could not be copied within {after:?}: {reason}")]
    Late {
        partition: PartitionId,
        after: Duration,
        reason: String,
    },
    #[error("{0}")]
    Store(StoreError),
}

/// Why a page is not handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPage {
    #[error("{0}")]
    Refused(Refused),
    #[error("epoch {epoch} is not known here yet")]
    Early { epoch: Epoch },
    #[error("partition {partition} changed from epoch {at} to {epoch}: start again")]
    Moved {
        partition: PartitionId,
        at: Epoch,
        epoch: Epoch,
    },
    #[error("node {from} takes no writes of partition {partition} at epoch {epoch}")]
    Stranger {
        from: RaftId,
        partition: PartitionId,
        epoch: Epoch,
    },
}

/// What interrupts a copy.
enum Interrupted {
    /// The source could not be asked, or refused: start again.
    Source(String),
    Store(StoreError),
}

/// Whom a copy is taken from, and as whom.
struct Source<'a> {
    primary: &'a Node,
    identity: (ClusterId, RaftId),
    /// The epoch since which this node takes writes.
    epoch: Epoch,
}

impl Engine {
    /// Copies `partition` from its primary, starting again when that changes. `told` hears how many
    /// records are here, page by page.
    pub(crate) async fn copy(
        &self,
        partition: PartitionId,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<Copied, CopyError> {
        let after = self.patience.copy;
        let deadline = clock::deadline(after);
        loop {
            let topology = self.joined(deadline).await?;
            let known = topology.epoch();
            let reason = match rules::lead(&topology, partition) {
                _ if !rules::reaches_me(&topology, partition) => return Ok(Copied::NotWanted),
                Ok(_) => return Ok(Copied::NotWanted),
                Err(NotLead::Nobody) => String::from("it has no primary"),
                Err(NotLead::Other(primary)) => {
                    let me = topology
                        .this_node()
                        .map(|me| me.raft_id)
                        .unwrap_or_default();
                    let identity = (topology.cluster(), me);
                    let source = Source {
                        primary: &primary,
                        identity,
                        epoch: known,
                    };
                    let copied = self.copy_from(&source, partition, deadline, told);
                    match copied.await {
                        Ok(records) => return Ok(Copied::All { records }),
                        Err(Interrupted::Source(reason)) => format!("{}: {reason}", primary.id),
                        Err(Interrupted::Store(error)) => return Err(CopyError::Store(error)),
                    }
                }
            };
            tracing::debug!(%partition, reason, "copying starts again");
            if clock::left(deadline).is_zero() {
                return Err(CopyError::Late {
                    partition,
                    after,
                    reason,
                });
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits until this process is known to the cluster.
    async fn joined(&self, deadline: Instant) -> Result<Arc<Topology>, CopyError> {
        loop {
            match self.topology() {
                Ok(topology) => return Ok(topology),
                Err(_) if clock::left(deadline).is_zero() => return Err(CopyError::NotReady),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn copy_from(
        &self,
        source: &Source<'_>,
        partition: PartitionId,
        deadline: Instant,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, Interrupted> {
        let Source {
            primary,
            identity,
            epoch,
        } = *source;
        let (mut at, mut after, mut records) = (None, None::<Bytes>, 0_u64);
        let mut barrier = None;
        loop {
            let wanted = PageRequest {
                partition,
                epoch,
                at,
                after: after.as_deref(),
            };
            let within = clock::left(deadline).min(self.patience.request * 2);
            let mut page = self
                .peers
                .page(primary, identity, wanted, within)
                .await
                .map_err(|error: PeerError| Interrupted::Source(error.to_string()))?;
            at = Some(page.epoch);
            page.barrier = *barrier.get_or_insert(page.barrier);
            records += page.entries.len() as u64;
            let last = page.entries.last().map(|entry| entry.key.clone());
            if page.more && last.is_none() {
                return Err(Interrupted::Source(String::from("an empty page")));
            }
            let more = page.more;
            self.take_page(partition, after, page)
                .await
                .map_err(Interrupted::Store)?;
            told(records);
            if !more {
                return Ok(records);
            }
            after = last;
        }
    }

    /// Makes the local copy between `after` and the end of `page` what the source holds there.
    async fn take_page(
        &self,
        partition: PartitionId,
        after: Option<Bytes>,
        page: Page,
    ) -> Result<(), StoreError> {
        let cell = self.cell(partition).await?;
        let mut replica = cell.replica.lock().await;
        let until = page.entries.last().map(|entry| entry.key.clone());
        let until = until.filter(|_| page.more);
        let held = self.store.versions(partition, after, until).await?;
        // What the source lists is the latest that was committed up to the barrier: whatever this
        // copy holds beyond that was written by a primary that could not finish it.
        let listed = |key: &Bytes| {
            let found = page.entries.binary_search_by(|entry| entry.key.cmp(key));
            found.ok().map(|at| page.entries[at].record.version)
        };
        let is_stray = |key: &Bytes, version: Version| {
            version <= page.barrier && listed(key).is_none_or(|listed| version > listed)
        };
        let mut ops: Vec<WriteOp> = held
            .into_iter()
            .filter(|(key, version)| is_stray(key, *version))
            .map(|(key, _)| WriteOp::Prune {
                partition,
                key,
                at_most: page.barrier,
            })
            .collect();
        ops.extend(replica.copy(page.entries));
        if !page.more {
            replica.settle(page.barrier, &mut ops);
        }
        self.store.write(ops).await
    }

    /// Hands out the page of `partition` after `after` to `from`, which takes writes of it since
    /// `epoch`. On the first page `at` is none.
    pub(crate) async fn page(
        &self,
        partition: PartitionId,
        from: RaftId,
        epoch: Epoch,
        at: Option<Epoch>,
        after: Option<Bytes>,
    ) -> Result<Page, NoPage> {
        let (at, barrier) = match at {
            Some(at) => {
                let lead = self.lead(partition).map_err(NoPage::Refused)?;
                if lead.epoch != at {
                    return Err(NoPage::Moved {
                        partition,
                        at,
                        epoch: lead.epoch,
                    });
                }
                (at, None)
            }
            None => {
                let (at, barrier) = self.barrier(partition, from, epoch).await?;
                (at, Some(barrier))
            }
        };
        let page = self.store.page(partition, after, PAGE_BYTES).await;
        let (entries, more) = page.map_err(|error| NoPage::Refused(Refused::Store(error)))?;
        Ok(Page {
            epoch: at,
            barrier: barrier.unwrap_or_else(|| Version::start_of(at)),
            more,
            entries,
        })
    }

    /// Waits until every later write of `partition` goes to `from` too and none is under way.
    async fn barrier(
        &self,
        partition: PartitionId,
        from: RaftId,
        epoch: Epoch,
    ) -> Result<(Epoch, Version), NoPage> {
        let deadline = clock::deadline(self.patience.request);
        loop {
            let topology = self.topology().map_err(NoPage::Refused)?;
            if topology.epoch() >= epoch {
                break;
            }
            let newer = self.cluster.changed(topology.epoch());
            if timeout_at(deadline, newer).await.is_err() {
                return Err(NoPage::Early { epoch });
            }
        }
        let cell = self
            .cell(partition)
            .await
            .map_err(|error| NoPage::Refused(Refused::Store(error)))?;
        let held = self.hold(&cell, partition, deadline).await;
        let (order, lead) = held.map_err(NoPage::Refused)?;
        if !lead.others.iter().any(|other| other.node.raft_id == from) {
            return Err(NoPage::Stranger {
                from,
                partition,
                epoch: lead.known,
            });
        }
        let barrier = order.committed.max(Version::start_of(lead.epoch));
        Ok((lead.epoch, barrier))
    }

    /// Deletes the copy of `partition`, unless this node counts for it again.
    pub(crate) async fn release(&self, partition: PartitionId) -> Result<bool, CopyError> {
        let deadline = clock::deadline(self.patience.copy);
        self.joined(deadline).await?;
        let cell = self.cell(partition).await.map_err(CopyError::Store)?;
        let mut order = cell.order.lock().await;
        let mut replica = cell.replica.lock().await;
        let topology = self.joined(deadline).await?;
        let counts = topology.this_node().is_some_and(|me| {
            let members = topology.members(partition);
            let mut all = members.chain(topology.joining(partition));
            all.any(|node| node.raft_id == me.raft_id)
        });
        if counts {
            return Ok(false);
        }
        let ops = vec![WriteOp::Drop { partition }];
        self.store.write(ops).await.map_err(CopyError::Store)?;
        replica.clear();
        cell.set_pending(&mut order, None);
        cell.set_recovered(Epoch::default());
        *order = super::cell::Order::default();
        Ok(true)
    }
}

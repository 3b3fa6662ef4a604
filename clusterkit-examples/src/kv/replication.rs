//! Writes through the primary, recovery of a new one, and what the others do for it.
//!
//! A primary sends one write of a partition at a time and applies it to its own copy last, so that
//! nothing is read that could still be lost. A new primary first asks every node that counts for
//! what may not be everywhere, spreads that, and only then serves: its versions carry a later epoch
//! and win. Who counts is decided in `rules`.
//!
//! A write is guarded twice by the proof that this node owns the partition: before anything of it is
//! applied, and before it is acknowledged. A read is guarded once, after it. The partition and the epoch of that proof are the fencing
//! token every copy is handed with it (`cell`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, Epoch, PartitionId, RaftId};
use clusterkit_core::lease::NoToken;
use clusterkit_core::planted::{self, Bug};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::cell::{Cell, Fenced, Order};
use super::clock;
use super::engine::{Engine, Receipt, Refused};
use super::peers::Ask;
use super::record::{Entry, Record, Version};
use super::rules::{self, Admission, Lead, Other, Owed};
use super::store::StoreError;
use super::wire::{self, Holdings};

/// The first pause before another node is asked again; it doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How many partitions are taken over at once.
const RECOVERIES: usize = 32;
/// How much one order carries, unless one entry is larger.
pub(crate) const ORDER_BYTES: usize = 4 << 20;
/// How long unfinished work rests when no topology changes.
const REST: Duration = Duration::from_millis(500);

/// Why an order did not reach everybody.
#[derive(Debug)]
enum Halt {
    /// The partition has another epoch.
    Moved,
    /// Time ran out.
    Late,
    /// The own store failed.
    Store(StoreError),
}

/// Why this node could not prove that it owns what it leads.
#[derive(Debug)]
pub(crate) enum Unproven {
    /// The partition has another epoch.
    Moved,
    /// Time ran out.
    Late(NoToken),
}

/// Why an order of another node was not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disobeyed {
    #[error("this node has not joined its cluster yet")]
    NotReady,
    #[error("the order comes from cluster {given}, this is {own}")]
    Cluster { given: String, own: ClusterId },
    #[error("partition {partition} is at epoch {epoch} here and the sender is not its primary")]
    Stale {
        partition: PartitionId,
        epoch: Epoch,
    },
    #[error("this node does not know epoch {epoch} of partition {partition} yet")]
    Early {
        partition: PartitionId,
        epoch: Epoch,
    },
    #[error("{0}")]
    Store(StoreError),
}

impl Engine {
    /// Writes `value` (none deletes) as primary, and returns once every node that counts has it.
    ///
    /// Dropping the future leaves an unknown outcome, as a crash would.
    pub(crate) async fn write(
        &self,
        key: Bytes,
        value: Option<Bytes>,
        deadline: Instant,
    ) -> Result<Receipt, Refused> {
        let partition = self.topology()?.partition(&key);
        let cell = self.cell(partition).await.map_err(Refused::Store)?;
        // Nothing is applied before this node has proven that it is the only primary.
        let (mut order, mut lead) = loop {
            let (order, lead) = self.hold(&cell, partition, deadline).await?;
            match self.prove(&lead, deadline).await {
                Ok(()) => break (order, lead),
                Err(Unproven::Moved) => {}
                Err(Unproven::Late(reason)) => {
                    return Err(Refused::Unproven { partition, reason });
                }
            }
        };
        let version = order.last.next(lead.epoch);
        order.last = version;
        let entry = Entry {
            key,
            record: Record { version, value },
        };
        cell.set_pending(&mut order, Some(entry.clone()));
        loop {
            match self.push(&cell, &mut order, &lead, &entry, deadline).await {
                // Nothing is acknowledged before it has proven that it still was.
                Ok(()) => match self.prove(&lead, deadline).await {
                    Ok(()) => {
                        let token = lead.epoch;
                        return Ok(Receipt {
                            partition,
                            version,
                            token,
                        });
                    }
                    Err(Unproven::Moved) => {}
                    Err(Unproven::Late(_)) => {
                        let reason = "this node could not prove that it was the primary all along";
                        return Err(Refused::Unknown { reason });
                    }
                },
                Err(Halt::Moved) => {}
                Err(Halt::Late) => {
                    let reason = "not every copy confirmed it in time";
                    return Err(Refused::Unknown { reason });
                }
                Err(Halt::Store(error)) => {
                    tracing::warn!(%partition, %error, "a write is not on this node");
                    let reason = "this node could not store it";
                    return Err(Refused::Unknown { reason });
                }
            }
            let reason = "the partition moved to another primary meanwhile";
            lead = self
                .lead(partition)
                .map_err(|_| Refused::Unknown { reason })?;
            self.settle(&cell, &mut order, &lead, deadline)
                .await
                .map_err(|_| Refused::Unknown { reason })?;
            if order.last > version {
                // Somebody else was primary in between and decided about this write.
                return Err(Refused::Unknown { reason });
            }
            cell.set_pending(&mut order, Some(entry.clone()));
        }
    }

    /// Waits until this node proves that it owns what it leads, which takes a moment after the
    /// partition changed hands.
    pub(crate) async fn prove(&self, lead: &Lead, deadline: Instant) -> Result<(), Unproven> {
        let mut pause = PAUSE_MIN;
        loop {
            let reason = match self.cluster.owned(lead.partition) {
                Ok(epoch) if epoch == lead.epoch => return Ok(()),
                // What was applied here since is newer than `lead`, or not published yet.
                Ok(_) | Err(NoToken::NotPrimary { .. }) => {
                    let moved = self.lead(lead.partition).map(|lead| lead.epoch);
                    if moved.ok() != Some(lead.epoch) {
                        return Err(Unproven::Moved);
                    }
                    NoToken::NotPrimary {
                        partition: lead.partition,
                    }
                }
                Err(reason) => reason,
            };
            if clock::left(deadline).is_zero() {
                return Err(Unproven::Late(reason));
            }
            sleep(pause.min(clock::left(deadline))).await;
            pause = (pause * 2).min(PAUSE_MAX / 4);
        }
    }

    /// Waits for the order of `partition`, which this node must lead, and brings it up to date.
    pub(crate) async fn hold<'a>(
        &self,
        cell: &'a Cell,
        partition: PartitionId,
        deadline: Instant,
    ) -> Result<(MutexGuard<'a, Order>, Lead), Refused> {
        let after = clock::left(deadline);
        let busy = || Refused::Busy { partition, after };
        let mut order = timeout_at(deadline, cell.order.lock())
            .await
            .map_err(|_| busy())?;
        loop {
            let lead = self.lead(partition)?;
            match self.settle(cell, &mut order, &lead, deadline).await {
                Ok(()) => return Ok((order, lead)),
                Err(Halt::Moved) => {}
                Err(Halt::Late) => return Err(busy()),
                Err(Halt::Store(error)) => return Err(Refused::Store(error)),
            }
        }
    }

    /// Recovers under a new epoch, or finishes the write that was left half way.
    async fn settle(
        &self,
        cell: &Cell,
        order: &mut Order,
        lead: &Lead,
        deadline: Instant,
    ) -> Result<(), Halt> {
        if order.recovered != Some(lead.epoch) {
            return self.recover(cell, order, lead, deadline).await;
        }
        match order.pending.clone() {
            Some(entry) => self.push(cell, order, lead, &entry, deadline).await,
            None => Ok(()),
        }
    }

    /// Brings `entry` to everybody else and then into the own copy.
    async fn push(
        &self,
        cell: &Cell,
        order: &mut Order,
        lead: &Lead,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<(), Halt> {
        let entries = vec![entry.clone()];
        self.spread(lead, order.committed, entries.clone(), deadline)
            .await?;
        let committed = order.committed.max(entry.record.version);
        self.keep(cell, lead, entries, committed).await?;
        order.committed = committed;
        cell.set_pending(order, None);
        Ok(())
    }

    async fn recover(
        &self,
        cell: &Cell,
        order: &mut Order,
        lead: &Lead,
        deadline: Instant,
    ) -> Result<(), Halt> {
        // Whoever holds the write that was left half way tells of it; if nobody does, it is gone.
        cell.set_pending(order, None);
        let own = cell.replica.lock().await.holdings();
        let question = wire::Order {
            partition: lead.partition,
            epoch: lead.epoch,
            committed: Version::default(),
            entries: Vec::new(),
        };
        let answers = self
            .ask_all(lead, Ask::Recover, &question, deadline)
            .await?;
        let mut seen = own.seen;
        let mut merged = BTreeMap::new();
        merge(&mut merged, own.unsettled);
        for (other, body) in lead.others.iter().zip(answers) {
            let Some(body) = body else { continue };
            let Ok(holdings) = Holdings::decode(body) else {
                tracing::error!(node = %other.node.id, "its answer to a new primary is not understood");
                return Err(Halt::Late);
            };
            seen = seen.max(holdings.seen);
            merge(&mut merged, holdings.unsettled);
        }
        let entries: Vec<Entry> = merged
            .into_iter()
            .map(|(key, record)| Entry { key, record })
            .collect();
        if !entries.is_empty() {
            tracing::debug!(partition = %lead.partition, count = entries.len(), "finishing writes of the primary before");
            for part in parts(&entries) {
                self.spread(lead, order.committed, part.to_vec(), deadline)
                    .await?;
            }
        }
        self.keep(cell, lead, entries, seen).await?;
        // A write under way here is seen by nobody yet, so it counts as given, not as committed.
        order.last = order.last.max(seen);
        order.committed = seen;
        order.recovered = Some(lead.epoch);
        cell.set_recovered(lead.epoch);
        tracing::debug!(partition = %lead.partition, epoch = %lead.epoch, "serving as primary");
        Ok(())
    }

    async fn spread(
        &self,
        lead: &Lead,
        committed: Version,
        entries: Vec<Entry>,
        deadline: Instant,
    ) -> Result<(), Halt> {
        // Planted bug: nobody but the primary has it.
        if planted::is_on(Bug::KvAckBeforeCopies) {
            return Ok(());
        }
        let order = wire::Order {
            partition: lead.partition,
            epoch: lead.epoch,
            committed,
            entries,
        };
        self.ask_all(lead, Ask::Replicate, &order, deadline)
            .await
            .map(drop)
    }

    /// Stores `entries` in the own copy.
    async fn keep(
        &self,
        cell: &Cell,
        lead: &Lead,
        entries: Vec<Entry>,
        committed: Version,
    ) -> Result<(), Halt> {
        let mut replica = cell.replica.lock().await;
        let ops = replica.take(lead.epoch, entries, committed);
        let ops = ops.map_err(|Fenced { .. }| Halt::Moved)?;
        self.store.write(ops).await.map_err(Halt::Store)
    }

    /// Asks everybody who counts; the answers come in their order, none for a node that counts no
    /// more.
    async fn ask_all(
        &self,
        lead: &Lead,
        ask: Ask,
        order: &wire::Order,
        deadline: Instant,
    ) -> Result<Vec<Option<Bytes>>, Halt> {
        let body = order.encode();
        let all = lead
            .others
            .iter()
            .map(|other| self.ask_until(lead, other, ask, &body, deadline));
        try_join_all(all).await
    }

    async fn ask_until(
        &self,
        lead: &Lead,
        other: &Other,
        ask: Ask,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Halt> {
        let mut known = lead.known;
        let mut node = other.node.clone();
        let mut pause = PAUSE_MIN;
        let Some(cluster) = self.cluster.topology().map(|topology| topology.cluster()) else {
            return Err(Halt::Late);
        };
        loop {
            let target = node.clone();
            let within = self.patience.exchange.min(clock::left(deadline));
            let rest = pause;
            // What a copy that lacks writes holds beyond does not count, and may be much.
            let ask = match ask {
                Ask::Recover if !other.in_sync => Ask::Obey,
                ask => ask,
            };
            let attempt = async {
                let identity = (cluster, lead.me);
                let asked = self
                    .peers
                    .ask(&target, ask, identity, body.clone(), within)
                    .await;
                match asked {
                    Ok(answer) => Some(answer),
                    Err(error) => {
                        tracing::debug!(partition = %lead.partition, node = %target.id, %error, "{} failed", ask.path());
                        sleep(rest.min(clock::left(deadline))).await;
                        None
                    }
                }
            };
            let mut attempt = std::pin::pin!(attempt);
            let answered = loop {
                let newer = tokio::select! {
                    answered = &mut attempt => break answered,
                    newer = self.cluster.changed(known) => newer,
                };
                known = newer.epoch();
                match rules::owed(&newer, lead, other.node.raft_id) {
                    Owed::Yes(record) => node = record,
                    Owed::No => return Ok(None),
                    Owed::Moved => return Err(Halt::Moved),
                }
            };
            if let Some(answer) = answered {
                return Ok(Some(answer));
            }
            if clock::left(deadline).is_zero() {
                return Err(Halt::Late);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Follows an order of `from`, if it is the primary, and answers what this node held.
    pub(crate) async fn obey(
        &self,
        ask: Ask,
        cluster: &str,
        from: RaftId,
        order: wire::Order,
    ) -> Result<Holdings, Disobeyed> {
        let deadline = clock::deadline(self.patience.catch_up);
        let wire::Order {
            partition,
            epoch,
            committed,
            entries,
        } = order;
        let mut topology = self.topology().map_err(|_| Disobeyed::NotReady)?;
        if cluster != topology.cluster().to_string() {
            return Err(Disobeyed::Cluster {
                given: cluster.to_owned(),
                own: topology.cluster(),
            });
        }
        if partition.0 >= topology.partition_count() {
            let epoch = Epoch::default();
            return Err(Disobeyed::Stale { partition, epoch });
        }
        let cell = self.cell(partition).await.map_err(Disobeyed::Store)?;
        loop {
            {
                // Decided under the lock: once a new primary has its answer, none of an earlier
                // one can slip in behind it.
                let mut replica = cell.replica.lock().await;
                topology = self.topology().map_err(|_| Disobeyed::NotReady)?;
                match rules::admit(&topology, partition, epoch, from) {
                    Admission::Take if ask == Ask::Recover => return Ok(replica.holdings()),
                    Admission::Take if ask == Ask::Obey => return Ok(Holdings::default()),
                    Admission::Take => {
                        let ops = replica.take(epoch, entries, committed);
                        let ops = ops.map_err(|Fenced { by }| Disobeyed::Stale {
                            partition,
                            epoch: by,
                        })?;
                        let written = self.store.write(ops).await;
                        return written
                            .map(|()| Holdings::default())
                            .map_err(Disobeyed::Store);
                    }
                    Admission::Refuse { epoch } => {
                        return Err(Disobeyed::Stale { partition, epoch });
                    }
                    Admission::Wait => {}
                }
            }
            let newer = self.cluster.changed(topology.epoch());
            if timeout_at(deadline, newer).await.is_err() {
                return Err(Disobeyed::Early { partition, epoch });
            }
        }
    }

    /// Takes over what this node becomes primary of and finishes what was left half way, for ever.
    pub(crate) async fn run(&self) {
        let mut known = Epoch::default();
        loop {
            let mut unfinished = true;
            if let Ok(topology) = self.topology() {
                known = topology.epoch();
                let wanting = topology
                    .partitions()
                    .filter(|&partition| self.wants_work(&topology, partition));
                unfinished = stream::iter(wanting)
                    .map(|partition| self.take_over(partition))
                    .buffer_unordered(RECOVERIES)
                    .fold(false, async |failed, done| failed || !done)
                    .await;
            }
            let newer = self.cluster.changed(known);
            // Whether it changed or not: what is unfinished is tried again.
            let rest = if unfinished { REST } else { REST * 4 };
            if let Ok(newest) = timeout(rest, newer).await {
                // Also one this node does not go by, or the next wait would be none at all.
                known = newest.epoch();
            }
        }
    }

    fn wants_work(
        &self,
        topology: &clusterkit_core::topology::Topology,
        partition: PartitionId,
    ) -> bool {
        topology.is_primary(partition)
            && self
                .known_cell(partition)
                .is_none_or(|cell| cell.wants_work(topology.partition_epoch(partition)))
    }

    /// Returns whether nothing is left to do.
    async fn take_over(&self, partition: PartitionId) -> bool {
        let deadline = clock::deadline(self.patience.request);
        let Ok(cell) = self.cell(partition).await else {
            return false;
        };
        match self.hold(&cell, partition, deadline).await {
            Ok(_) | Err(Refused::NotPrimary { .. } | Refused::NoPrimary { .. }) => true,
            Err(error) => {
                tracing::debug!(%partition, %error, "not served yet");
                false
            }
        }
    }
}

/// Divides `entries` into orders that are not too large.
fn parts(entries: &[Entry]) -> Vec<&[Entry]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, entry) in entries.iter().enumerate() {
        bytes += entry.size();
        if bytes > ORDER_BYTES && at > start {
            parts.push(&entries[start..at]);
            (start, bytes) = (at, entry.size());
        }
    }
    parts.push(&entries[start..]);
    parts
}

fn merge(into: &mut BTreeMap<Bytes, Record>, entries: Vec<Entry>) {
    for Entry { key, record } in entries {
        let stored = into.get(&key).map(|stored| stored.version);
        if super::store::wins(record.version, stored) {
            into.insert(key, record);
        }
    }
}

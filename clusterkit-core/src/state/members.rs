//! Nodes coming, starting, going: what each does to the partitions they hold.
//!
//! Two operations carry the rules. *Condemn*: a node stops being trusted with anything; where
//! others hold the data one of them takes over and the node's copy counts as behind. *Revive*: a
//! node that is running again learns what its copies are worth and catches up on those behind.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::change::{Change, What};
use super::{Absence, ClusterState, DEPARTED_KEPT};
use crate::command::Rejected;
use crate::config::{ConfigError, NODES_MAX};
use crate::event::{ChangeReason, ChangeStage, EventKind, LeaveReason, Role, Verdict};
use crate::id::{Epoch, PartitionId, RaftId};
use crate::node::{Drain, NODE_TEXT_MAX_BYTES, Node, NodeSpec, NodeStatus};
use crate::partition::{Behind, Partition, Stage};
use crate::planted::{self, Bug};
use crate::time::UnixMillis;

impl ClusterState {
    pub(super) fn join(
        &mut self,
        spec: &NodeSpec,
        replaces: Option<RaftId>,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        spec.validate().map_err(Rejected::Invalid)?;
        self.refuse_older(spec)?;
        if let Some(known) = self.nodes.values().find(|node| node.disk == spec.disk) {
            if known.id != spec.id {
                return Err(Rejected::WrongDisk {
                    node: known.raft_id,
                });
            }
            // The answer to an earlier join was lost: the same node asks again.
            change.node = Some(known.raft_id);
            return Ok(());
        }
        let holder = self.node_by_id(spec.id.as_str()).cloned();
        if let Some(holder) = &holder {
            let dead = holder.status == NodeStatus::Down && replaces == Some(holder.raft_id);
            if !dead {
                return Err(Rejected::NodeIdInUse {
                    id: holder.id.clone(),
                    holder: holder.raft_id,
                    address: Arc::clone(&holder.address),
                    status: holder.status,
                });
            }
        }
        self.refuse_taken_address(&spec.address, holder.as_ref().map(|node| node.raft_id))?;
        if self.nodes.len() - usize::from(holder.is_some()) >= NODES_MAX {
            let limit = u32::try_from(NODES_MAX).unwrap_or(u32::MAX);
            return Err(Rejected::TooManyNodes { limit });
        }
        if let Some(holder) = holder {
            self.expel(&holder, LeaveReason::Removed, change);
        }
        let mut id = RaftId(change.index.0);
        if planted::is_on(Bug::ReuseRaftId) {
            // As if the node were the same whatever became of its disk.
            id = replaces.unwrap_or(id);
        }
        let node = Node::new(id, spec.clone(), change.at);
        change.node = Some(node.raft_id);
        change.published = true;
        self.nodes.insert(node.raft_id, Arc::new(node));
        Ok(())
    }

    pub(super) fn announce(
        &mut self,
        raft_id: RaftId,
        spec: &NodeSpec,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        spec.validate().map_err(Rejected::Invalid)?;
        let node = self.member(raft_id)?;
        if node.disk != spec.disk || node.id != spec.id {
            return Err(Rejected::WrongDisk { node: raft_id });
        }
        if spec.incarnation < node.incarnation {
            return Err(Rejected::StaleIncarnation {
                node: raft_id,
                given: spec.incarnation.0,
                current: node.incarnation.0,
            });
        }
        self.refuse_older(spec)?;
        self.refuse_taken_address(&spec.address, Some(raft_id))?;
        change.node = Some(raft_id);
        let before = Arc::clone(node);
        let position = change.position();
        let restarted = spec.incarnation > before.incarnation;
        let was_down = before.status == NodeStatus::Down;
        let mut after = (*before).clone();
        after.announce(spec.clone());
        if after != *before {
            change.published = true;
            self.note_drain(raft_id, after.drain != Drain::No, change);
            self.nodes.insert(raft_id, Arc::new(after));
        }
        if restarted && self.vetoes.remove(&raft_id).is_some() {
            // What the process before said of itself is over with it.
            change.judged = true;
            self.roles_stale = true;
        }
        if restarted {
            self.end_restart(raft_id);
        }
        if restarted && !was_down {
            // It was not missed, but its process is another one: what it led in memory is gone.
            self.condemn(&[raft_id], &[], ChangeReason::Failover, change);
        }
        if restarted || was_down {
            self.revive(raft_id, &[], position, change);
        }
        Ok(())
    }

    /// Refuses a node that does not know what the cluster uses.
    fn refuse_older(&self, spec: &NodeSpec) -> Result<(), Rejected> {
        if spec.feature_level < self.feature_level {
            return Err(Rejected::OlderFeatureLevel {
                id: spec.id.clone(),
                given: spec.feature_level,
                current: self.feature_level,
            });
        }
        Ok(())
    }

    /// Raises the feature level to what every member knows.
    pub(super) fn raise_feature_level(&mut self) {
        let known = self.nodes.values().map(|node| node.feature_level);
        self.feature_level = self.feature_level.max(known.min().unwrap_or(0));
    }

    pub(super) fn activate(
        &mut self,
        raft_id: RaftId,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        change.node = Some(raft_id);
        let node = self.member(raft_id)?;
        if node.status != NodeStatus::Joining {
            return Ok(());
        }
        let status = running(node.drain);
        self.set_status(raft_id, status, change);
        let cluster_size = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        change.emit(EventKind::NodeJoined {
            node: raft_id,
            cluster_size,
            is_bootstrap: false,
        });
        Ok(())
    }

    pub(super) fn update_node(
        &mut self,
        raft_id: RaftId,
        weight: Option<u32>,
        zone: Option<&Arc<str>>,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let before = Arc::clone(self.member(raft_id)?);
        change.node = Some(raft_id);
        let mut node = (*before).clone();
        if let Some(zone) = zone {
            if zone.len() > NODE_TEXT_MAX_BYTES {
                let limit = format_args!("at most {NODE_TEXT_MAX_BYTES} bytes");
                return Err(Rejected::Invalid(ConfigError::new("zone", zone, limit)));
            }
            node.zone = Arc::clone(zone);
        }
        node.weight = weight.unwrap_or(node.weight);
        let others = || {
            let mut others = self.nodes.values();
            others.any(|other| other.raft_id != raft_id && other.takes_data())
        };
        if before.takes_data() && !node.takes_data() && !others() {
            return Err(Rejected::LastNode {
                id: before.id.clone(),
            });
        }
        if node != *before {
            change.published = true;
            self.nodes.insert(raft_id, Arc::new(node));
        }
        Ok(())
    }

    pub(super) fn mark_down(
        &mut self,
        nodes: &[RaftId],
        promotions: &[(PartitionId, RaftId)],
        change: &mut Change,
    ) {
        let mut gone: Vec<RaftId> = nodes
            .iter()
            .copied()
            .filter(|&id| self.is_live(id))
            .collect();
        gone.sort_unstable();
        gone.dedup();
        for &node in &gone {
            self.emit_left(node, LeaveReason::Failed, change);
        }
        self.condemn(&gone, promotions, ChangeReason::Failover, change);
        for id in gone {
            let never_active = self.was_never_active(id);
            self.note_fall(id, change);
            self.set_status(id, NodeStatus::Down, change);
            if never_active && let Some(node) = self.nodes.get_mut(&id) {
                Arc::make_mut(node).evicted = true;
            }
        }
    }

    pub(super) fn mark_up(&mut self, nodes: &[RaftId], change: &mut Change) {
        let mut back: Vec<&Arc<Node>> = Vec::new();
        for node in nodes.iter().filter_map(|&id| self.node(id)) {
            // Whoever lives at its address now answers in its place: it must announce itself.
            let taken = back.iter().any(|other| other.address == node.address)
                || self
                    .refuse_taken_address(&node.address, Some(node.raft_id))
                    .is_err();
            if node.status == NodeStatus::Down && !taken {
                back.push(node);
            }
        }
        let back: Vec<RaftId> = back.iter().map(|node| node.raft_id).collect();
        for &node in &back {
            self.revive(node, &back, change.position(), change);
        }
    }

    pub(super) fn evict(&mut self, nodes: &[RaftId], change: &mut Change) {
        for &id in nodes {
            let waited_for = |node: &&Arc<Node>| node.status == NodeStatus::Down && !node.evicted;
            let Some(node) = self.node(id).filter(waited_for) else {
                continue;
            };
            let mut node = (**node).clone();
            node.evicted = true;
            change.published = true;
            self.nodes.insert(id, Arc::new(node));
        }
    }

    pub(super) fn drain(
        &mut self,
        raft_id: RaftId,
        on: bool,
        leave: bool,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let node = self.member(raft_id)?;
        change.node = Some(raft_id);
        let wanted = match (on, leave) {
            (false, _) => Drain::No,
            (true, false) => Drain::Empty,
            (true, true) => Drain::Leave,
        };
        if node.drain == wanted {
            return Ok(());
        }
        let others = self
            .nodes
            .values()
            .any(|other| other.raft_id != raft_id && other.takes_data());
        if on && !others {
            return Err(Rejected::LastNode {
                id: node.id.clone(),
            });
        }
        let mut node = (**node).clone();
        node.drain = wanted;
        if matches!(node.status, NodeStatus::Active | NodeStatus::Draining) {
            let status = running(wanted);
            if node.status != status {
                node.status = status;
                node.status_since = change.at;
            }
        }
        change.published = true;
        self.nodes.insert(raft_id, Arc::new(node));
        self.note_drain(raft_id, on, change);
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        raft_id: RaftId,
        reason: LeaveReason,
        force: bool,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let node = Arc::clone(self.member(raft_id)?);
        change.node = Some(raft_id);
        if !self
            .nodes
            .values()
            .any(|other| other.raft_id != raft_id && other.status.is_live())
        {
            return Err(Rejected::LastNode {
                id: node.id.clone(),
            });
        }
        if !force {
            let held = self
                .partitions
                .iter()
                .filter(|partition| partition.involves(raft_id));
            let partitions = u32::try_from(held.count()).unwrap_or(u32::MAX);
            if partitions > 0 {
                return Err(Rejected::HoldsPartitions {
                    id: node.id.clone(),
                    partitions,
                });
            }
        }
        self.expel(&node, reason, change);
        Ok(())
    }

    /// Takes every role from `gone` at once. Where an in-sync live member remains, the copies of
    /// `gone` count as behind; where none remains, the last ones stay what they are: the truth.
    fn condemn(
        &mut self,
        gone: &[RaftId],
        promotions: &[(PartitionId, RaftId)],
        reason: ChangeReason,
        change: &mut Change,
    ) {
        for &node in gone {
            let copies = |partition: &Partition| partition.joining().iter().any(|j| j.node == node);
            let absence = Absence {
                since: change.at,
                held: self.held(node).map(|(id, _)| id).collect(),
                copied: self
                    .partitions_by_id()
                    .filter(|(_, partition)| copies(partition))
                    .map(|(id, _)| id)
                    .collect(),
                was_joining: self.was_never_active(node),
            };
            self.absences.insert(node, absence);
        }
        for i in 0..self.partitions.len() {
            if !gone.iter().any(|&node| self.partitions[i].involves(node)) {
                continue;
            }
            let id = PartitionId::from_index(i);
            let mut partition = self.partitions[i].clone();
            forget_stage_of(&mut partition, gone);
            let wanted = promotions
                .iter()
                .find(|(promoted, _)| *promoted == id)
                .map(|&(_, node)| node)
                .filter(|&node| partition.is_in_sync(node))
                .filter(|node| self.is_live(*node) && !gone.contains(node));
            let successor = wanted.or_else(|| self.successor(&partition, gone, change.at));
            let old_primary = partition.primary;
            let orphaned = old_primary.is_some_and(|primary| gone.contains(&primary));
            if successor.is_some() {
                let since = partition.epoch;
                mark_behind(&mut partition, gone, since);
            }
            if orphaned {
                lead(&mut partition, successor);
                if !planted::is_on(Bug::FailoverKeepsEpoch) {
                    partition.epoch = change.next;
                }
                self.roles_stale = true;
            }
            if partition.primary.is_none() {
                // There is nobody to catch up from.
                for behind in &mut partition.behind {
                    behind.stage = None;
                }
            }
            change.published = true;
            if orphaned && let Some(target) = successor {
                let what = switched(change, Role::Primary, reason, old_primary);
                change.emit_partition(id, &partition, target, what);
            }
            Arc::make_mut(&mut self.partitions)[i] = partition;
        }
    }

    /// Makes a member that runs again live, judges its copies and lets it catch up. Its return is
    /// told at `position`, before what it causes. The nodes `with` return in the same cut.
    fn revive(&mut self, raft_id: RaftId, with: &[RaftId], position: usize, change: &mut Change) {
        let Some(node) = self.node(raft_id) else {
            return;
        };
        let joining = self.was_never_active(raft_id);
        let status = if joining {
            NodeStatus::Joining
        } else {
            running(node.drain)
        };
        let mut node = (**node).clone();
        node.evicted = false;
        self.nodes.insert(raft_id, Arc::new(node));
        self.set_status(raft_id, status, change);
        let absence = self.absences.remove(&raft_id);
        // A plan made while it was away gave it no primaries.
        self.roles_stale |= absence.is_some();
        let mut verdicts = Vec::new();
        let held = absence.iter().flat_map(|a| a.held.iter().chain(&a.copied));
        for &id in held {
            if !self.partitions[id.index()].involves(raft_id) {
                verdicts.push((id, Verdict::Foreign));
            }
        }
        for i in 0..self.partitions.len() {
            if !self.partitions[i].involves(raft_id) {
                continue;
            }
            let id = PartitionId::from_index(i);
            let mut partition = self.partitions[i].clone();
            let knew = |a: &Absence| a.held.contains(&id) || a.copied.contains(&id);
            if partition.is_member(raft_id) && absence.as_ref().is_some_and(knew) {
                let behind = partition
                    .behind
                    .iter()
                    .find(|behind| behind.node == raft_id);
                let verdict = match behind {
                    _ if planted::is_on(Bug::RejoinIsCurrent) => Verdict::Current,
                    None => Verdict::Current,
                    Some(behind) if behind.diverged => Verdict::Diverged,
                    Some(behind) => Verdict::Behind(behind.since),
                };
                verdicts.push((id, verdict));
            }
            if partition.primary.is_none() && partition.is_in_sync(raft_id) {
                self.take_over(id, &mut partition, raft_id, with, change);
            }
            self.open_catch_up(id, &mut partition, change);
            reopen_joining(id, &mut partition, raft_id, change);
            change.published = true;
            Arc::make_mut(&mut self.partitions)[i] = partition;
        }
        if joining {
            return;
        }
        let last_seen_at = absence.as_ref().map_or(change.at, |absence| absence.since);
        verdicts.sort_by_key(|(id, _)| *id);
        change.emit_at(
            position,
            EventKind::NodeRejoined {
                node: raft_id,
                last_seen_at,
                partitions_before_leave: absence.map(|absence| absence.held).unwrap_or_default(),
                verdicts,
            },
        );
    }

    /// Makes the in-sync member `node` the primary of a partition that has none. Members that are
    /// not live, nor about to be (`with`), will now miss writes.
    fn take_over(
        &mut self,
        id: PartitionId,
        partition: &mut Partition,
        node: RaftId,
        with: &[RaftId],
        change: &mut Change,
    ) {
        let absent: Vec<RaftId> = partition
            .members()
            .filter(|&member| member != node && !self.is_live(member) && !with.contains(&member))
            .collect();
        let since = partition.epoch;
        mark_behind(partition, &absent, since);
        lead(partition, Some(node));
        partition.epoch = change.next;
        self.roles_stale = true;
        let what = switched(change, Role::Primary, ChangeReason::Failover, None);
        change.emit_partition(id, partition, node, what);
    }

    /// Asks every live member that is behind, and not yet asked, to catch up.
    pub(super) fn open_catch_up(
        &self,
        id: PartitionId,
        partition: &mut Partition,
        change: &mut Change,
    ) {
        if partition.primary.is_none() {
            return;
        }
        let mut asked = Vec::new();
        for behind in &mut partition.behind {
            if behind.stage.is_none() && self.is_live(behind.node) {
                behind.stage = Some(change.stage());
                behind.asked_at = change.at;
                asked.push(behind.node);
            }
        }
        for node in asked {
            let what = What {
                stage: ChangeStage::Syncing,
                stage_id: change.stage(),
                role: Role::Replica,
                reason: ChangeReason::NodeJoin,
                old_primary: partition.primary,
            };
            change.emit_partition(id, partition, node, what);
        }
    }

    /// Removes `node` for good, whatever it holds.
    fn expel(&mut self, node: &Arc<Node>, reason: LeaveReason, change: &mut Change) {
        let raft_id = node.raft_id;
        let was_dismissed = reason == LeaveReason::Failed && self.was_never_active(raft_id);
        self.emit_left(raft_id, reason, change);
        self.condemn(&[raft_id], &[], ChangeReason::NodeLeave, change);
        // From here on it counts as absent: it is asked for nothing any more.
        self.set_status(raft_id, NodeStatus::Left, change);
        for i in 0..self.partitions.len() {
            let id = PartitionId::from_index(i);
            if self.partitions[i].is_member(raft_id) {
                self.strike(id, raft_id, change);
            }
            let migrating = matches!(&self.partitions[i].stage, Stage::Syncing(migration)
                if migration.target.contains(&raft_id));
            if migrating {
                self.cut_short(id, change);
            }
        }
        self.absences.remove(&raft_id);
        self.drains.remove(&raft_id);
        self.vetoes.remove(&raft_id);
        self.falls.remove(&raft_id);
        self.intents.remove(&raft_id);
        self.nodes.remove(&raft_id);
        self.forget_rows_naming(raft_id);
        self.complete_plan_if_done(change);
        let mut record = (**node).clone();
        // Who was given up before it was ever active may come again, unlike who was removed.
        record.status = match was_dismissed {
            true => NodeStatus::Joining,
            false => NodeStatus::Left,
        };
        record.status_since = change.at;
        if self.departed.len() == DEPARTED_KEPT {
            self.departed.pop_front();
        }
        self.departed.push_back(Arc::new(record));
        change.node = Some(raft_id);
        change.published = true;
    }

    /// Takes the condemned member `node` out of a row. When it held the last in-sync copy, a
    /// joining node that has copied everything stands in; where there is none, that copy is lost,
    /// and the member least far behind becomes the truth.
    fn strike(&mut self, id: PartitionId, node: RaftId, change: &mut Change) {
        let mut partition = self.partitions[id.index()].clone();
        let last = partition.is_in_sync(node) && partition.in_sync().all(|member| member == node);
        partition.replicas.retain(|&member| member != node);
        partition.behind.retain(|behind| behind.node != node);
        if partition.primary == Some(node) {
            partition.primary = None;
        }
        let stand_in = partition
            .joining()
            .iter()
            .find(|joining| joining.synced && self.is_live(joining.node))
            .map(|joining| joining.node);
        if last {
            let heir = if stand_in.is_some() {
                admit_synced(&mut partition, stand_in);
                stand_in
            } else {
                lose(id, &mut partition, |node| self.is_live(node), change)
            };
            partition.epoch = change.next;
            if let Some(heir) = heir.filter(|&heir| self.is_live(heir)) {
                self.take_over(id, &mut partition, heir, &[], change);
                self.open_catch_up(id, &mut partition, change);
            }
        }
        Arc::make_mut(&mut self.partitions)[id.index()] = partition;
        if last && stand_in.is_none() {
            // What is being copied is a copy of what is lost.
            self.call_off(id, change);
        }
        // The row is shorter than planned: the next decision must plan again.
        self.plan_basis = 0;
        change.published = true;
    }

    /// Tells that `node` left, if it was ever told to have joined.
    fn emit_left(&self, node: RaftId, reason: LeaveReason, change: &mut Change) {
        if self.was_never_active(node) {
            return;
        }
        let (owned, replica): (Vec<_>, Vec<_>) = self
            .held(node)
            .partition(|(_, partition)| partition.primary == Some(node));
        let ids =
            |list: Vec<(PartitionId, &Partition)>| list.into_iter().map(|(id, _)| id).collect();
        change.emit(EventKind::NodeLeft {
            node,
            reason,
            partitions_owned: ids(owned),
            partitions_replica: ids(replica),
        });
    }

    fn held(&self, node: RaftId) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.partitions_by_id().filter(move |(_, partition)| {
            partition.is_member(node) || partition.leaving().contains(&node)
        })
    }

    /// Tells whether `node` has been joining ever since it was admitted.
    #[must_use]
    pub fn was_never_active(&self, node: RaftId) -> bool {
        let joining = |node: &Arc<Node>| node.status == NodeStatus::Joining;
        self.node(node).is_some_and(joining)
            || self
                .absences
                .get(&node)
                .is_some_and(|absence| absence.was_joining)
    }

    fn set_status(&mut self, raft_id: RaftId, status: NodeStatus, change: &mut Change) {
        let Some(node) = self.nodes.get_mut(&raft_id) else {
            return;
        };
        let node = Arc::make_mut(node);
        node.status = status;
        node.status_since = change.at;
        change.published = true;
    }

    pub(super) fn member(&self, node: RaftId) -> Result<&Arc<Node>, Rejected> {
        self.node(node).ok_or(Rejected::UnknownNode { node })
    }

    fn refuse_taken_address(
        &self,
        address: &Arc<str>,
        except: Option<RaftId>,
    ) -> Result<(), Rejected> {
        let taken = self.nodes.values().find(|node| {
            node.address == *address && Some(node.raft_id) != except && node.status.is_live()
        });
        taken.map_or(Ok(()), |node| {
            Err(Rejected::AddressInUse {
                address: Arc::clone(address),
                holder: node.id.clone(),
            })
        })
    }
}

/// Returns the status of a node that runs and takes part.
const fn running(drain: Drain) -> NodeStatus {
    match drain {
        Drain::No => NodeStatus::Active,
        Drain::Empty | Drain::Leave => NodeStatus::Draining,
    }
}

/// Makes a joining node that has copied everything a member ahead of its switch.
fn admit_synced(partition: &mut Partition, node: Option<RaftId>) {
    if let Stage::Syncing(migration) = &mut partition.stage {
        migration
            .joining
            .retain(|joining| Some(joining.node) != node);
    }
    partition.replicas.extend(node);
}

/// Gives up what the last in-sync copy held beyond the others. The member least far behind, a live
/// one before an absent one, becomes the truth; what the others hold beyond it counts for nothing.
fn lose(
    id: PartitionId,
    partition: &mut Partition,
    is_live: impl Fn(RaftId) -> bool,
    change: &mut Change,
) -> Option<RaftId> {
    let heir = partition
        .behind
        .iter()
        .max_by_key(|behind| (is_live(behind.node), !behind.diverged, behind.since))
        .copied();
    let node = heir.map(|heir| heir.node);
    partition.behind.retain(|behind| Some(behind.node) != node);
    for behind in &mut partition.behind {
        behind.diverged = true;
    }
    change.emit(EventKind::PartitionLost {
        partition: id,
        recovered_from: node,
    });
    node
}

/// Makes `successor` the primary; the old one becomes the last replica.
pub(super) fn lead(partition: &mut Partition, successor: Option<RaftId>) {
    partition.replicas.retain(|&node| Some(node) != successor);
    partition
        .replicas
        .extend(partition.primary.filter(|&old| Some(old) != successor));
    partition.primary = successor;
}

/// Counts the copies of `nodes` as behind from the epoch `since` on.
pub(super) fn mark_behind(partition: &mut Partition, nodes: &[RaftId], since: Epoch) {
    for &node in nodes {
        if partition.is_in_sync(node) {
            partition.behind.push(Behind {
                node,
                since,
                diverged: false,
                stage: None,
                asked_at: UnixMillis(0),
            });
        }
    }
}

/// Closes what `gone` was doing: catching up, copying, letting go.
fn forget_stage_of(partition: &mut Partition, gone: &[RaftId]) {
    for behind in &mut partition.behind {
        if gone.contains(&behind.node) {
            behind.stage = None;
        }
    }
    match &mut partition.stage {
        Stage::Stable => {}
        Stage::Syncing(migration) => {
            for joining in &mut migration.joining {
                joining.synced &= !gone.contains(&joining.node);
            }
            migration.leaving.retain(|node| !gone.contains(node));
        }
        Stage::Cleanup { leaving, .. } => {
            leaving.retain(|node| !gone.contains(node));
            if leaving.is_empty() {
                partition.stage = Stage::Stable;
            }
        }
    }
}

/// Asks a joining node whose process is another one, or which was away, to copy again.
fn reopen_joining(id: PartitionId, partition: &mut Partition, node: RaftId, change: &mut Change) {
    let Stage::Syncing(migration) = &mut partition.stage else {
        return;
    };
    let (reason, first) = (migration.reason, migration.target.first().copied());
    let Some(joining) = migration
        .joining
        .iter_mut()
        .find(|joining| joining.node == node)
    else {
        return;
    };
    joining.synced = false;
    joining.stage = change.stage();
    joining.asked_at = change.at;
    let what = What {
        stage: ChangeStage::Syncing,
        stage_id: change.stage(),
        role: if first == Some(node) {
            Role::Primary
        } else {
            Role::Replica
        },
        reason,
        old_primary: partition.primary,
    };
    change.emit_partition(id, partition, node, what);
}

pub(super) fn switched(
    change: &Change,
    role: Role,
    reason: ChangeReason,
    old_primary: Option<RaftId>,
) -> What {
    What {
        stage: ChangeStage::Switched,
        stage_id: change.stage(),
        role,
        reason,
        old_primary,
    }
}

//! The replicated record of one partition: who serves it, who is catching up, which stage it is in.
//!
//! The transitions between stages are commands applied in [`crate::state`]; this file holds the
//! record, its invariants and the questions asked of it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::event::ChangeReason;
use crate::id::{Epoch, RaftId, StageId};
use crate::time::UnixMillis;

/// A member that lacks writes and may not become primary until it has synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The member.
    pub node: RaftId,
    /// The partition's epoch during which it fell behind: it holds every write of earlier epochs,
    /// and may lack writes of this one and of later ones.
    pub since: Epoch,
    /// Whether it may hold writes that the partition has lost since: what it holds is then no
    /// beginning of the truth, and it must copy everything.
    pub diverged: bool,
    /// The stage under which it is catching up; none while it is down.
    pub stage: Option<StageId>,
    /// When it was last asked to catch up; meaningful with a stage.
    pub asked_at: UnixMillis,
}

/// A node that is becoming a member: it takes writes and copies, and serves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The node.
    pub node: RaftId,
    /// The stage it must name when it reports that it is in sync.
    pub stage: StageId,
    /// Whether it has reported.
    pub synced: bool,
    /// Whom it was asked to copy from, none when nobody was chosen. A source that has gone since is
    /// replaced by the best one left: see [`Partition::sources`].
    pub source: Option<RaftId>,
    /// When it was asked.
    pub asked_at: UnixMillis,
}

/// A move of one partition to a new set of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// The identity of the stage.
    pub id: StageId,
    /// The members after the switch, the wanted primary first.
    pub target: Vec<RaftId>,
    /// Who is copying. Invariant: disjoint from the members, a subset of `target`.
    pub joining: Vec<Joining>,
    /// Who was copying, is not wanted any more, and has not yet confirmed the release. Invariant:
    /// disjoint from the members and from `target`.
    pub leaving: Vec<RaftId>,
    /// Why.
    pub reason: ChangeReason,
}

/// Where a partition stands between two sets of members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::exhaustive_enums,
    reason = "every reader must handle every stage"
)]
pub enum Stage {
    /// Nothing moves.
    #[default]
    Stable,
    /// Joining members copy; the current members serve.
    Syncing(Migration),
    /// The switch is committed; former members still hold data they may now delete.
    Cleanup {
        /// The identity of the stage.
        id: StageId,
        /// Who has not yet confirmed the release. Invariant: disjoint from the members.
        leaving: Vec<RaftId>,
        /// When they were asked.
        asked_at: UnixMillis,
    },
}

/// The replicated record of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Who serves writes. Invariant: live, in sync, not among `replicas`. None while no in-sync
    /// member lives, or before the first placement.
    pub primary: Option<RaftId>,
    /// The other members in order of preference. Invariant: distinct.
    pub replicas: Vec<RaftId>,
    /// Members that are not in sync. Invariant: a proper subset of the members, by distinct node.
    pub behind: Vec<Behind>,
    /// Where it stands between two sets of members.
    pub stage: Stage,
    /// The epoch of the last ownership change.
    pub epoch: Epoch,
}

impl Partition {
    /// A partition before its first placement.
    pub const UNPLACED: Self = Self {
        primary: None,
        replicas: Vec::new(),
        behind: Vec::new(),
        stage: Stage::Stable,
        epoch: Epoch(0),
    };

    /// Returns the members, the primary first.
    pub fn members(&self) -> impl Iterator<Item = RaftId> + '_ {
        self.primary
            .into_iter()
            .chain(self.replicas.iter().copied())
    }

    /// Returns the members that hold every acknowledged write, best source first.
    pub fn in_sync(&self) -> impl Iterator<Item = RaftId> + '_ {
        self.members().filter(|&node| !self.is_behind(node))
    }

    /// Tells whether `node` is a member.
    #[must_use]
    pub fn is_member(&self, node: RaftId) -> bool {
        self.members().any(|member| member == node)
    }

    /// Tells whether `node` is a member that lacks writes.
    #[must_use]
    pub fn is_behind(&self, node: RaftId) -> bool {
        self.behind.iter().any(|behind| behind.node == node)
    }

    /// Tells whether `node` is a member that holds every acknowledged write.
    #[must_use]
    pub fn is_in_sync(&self, node: RaftId) -> bool {
        self.is_member(node) && !self.is_behind(node)
    }

    /// Returns the nodes that are copying to become members.
    #[must_use]
    pub fn joining(&self) -> &[Joining] {
        match &self.stage {
            Stage::Syncing(migration) => &migration.joining,
            Stage::Stable | Stage::Cleanup { .. } => &[],
        }
    }

    /// Returns the former members, and those that ceased to join, that have not confirmed their
    /// release.
    #[must_use]
    pub fn leaving(&self) -> &[RaftId] {
        match &self.stage {
            Stage::Cleanup { leaving, .. } => leaving,
            Stage::Syncing(migration) => &migration.leaving,
            Stage::Stable => &[],
        }
    }

    /// Returns who holds every acknowledged write apart from `node`, the best source for it first:
    /// the one it was asked to copy from, then the members in their order.
    #[must_use]
    pub fn sources(&self, node: RaftId) -> Vec<RaftId> {
        let joining = self.joining().iter().find(|joining| joining.node == node);
        let chosen = joining.and_then(|joining| joining.source);
        let mut sources: Vec<RaftId> = self.in_sync().filter(|&other| other != node).collect();
        if let Some(at) = sources.iter().position(|&other| Some(other) == chosen) {
            sources[..=at].rotate_right(1);
        }
        sources
    }

    /// Tells whether `node` is a member, a joining one or one being released.
    #[must_use]
    pub fn involves(&self, node: RaftId) -> bool {
        self.is_member(node)
            || self.joining().iter().any(|joining| joining.node == node)
            || self.leaving().contains(&node)
    }

    /// Tells whether `node` is asked to copy under `stage`: it joins, or it catches up.
    #[must_use]
    pub fn is_syncing(&self, node: RaftId, stage: StageId) -> bool {
        let joins = |joining: &Joining| joining.node == node && joining.stage == stage;
        let catches_up = |behind: &Behind| behind.node == node && behind.stage == Some(stage);
        self.joining().iter().any(joins) || self.behind.iter().any(catches_up)
    }

    /// Returns the stage under which `node` is asked to copy.
    #[must_use]
    pub fn stage_of(&self, node: RaftId) -> Option<StageId> {
        let joining = self.joining().iter().find(|joining| joining.node == node);
        let behind = self.behind.iter().find(|behind| behind.node == node);
        let joins = joining.map(|joining| joining.stage);
        joins.or_else(|| behind.and_then(|behind| behind.stage))
    }

    /// Tells whether `node` has yet to confirm its release under `stage`.
    #[must_use]
    pub fn is_releasing(&self, node: RaftId, stage: StageId) -> bool {
        let open = match &self.stage {
            Stage::Cleanup { id, .. } => Some(*id),
            Stage::Syncing(migration) => Some(migration.id),
            Stage::Stable => None,
        };
        open == Some(stage) && self.leaving().contains(&node)
    }

    /// Tells whether the partition has no members, so that there is nothing to copy: it has never
    /// had any, or lost all of them for good.
    #[must_use]
    pub fn is_unplaced(&self) -> bool {
        self.primary.is_none() && self.replicas.is_empty()
    }

    /// Returns what breaks an invariant of this record alone, if anything does.
    ///
    /// Whether nodes exist and live is checked by the state that holds the record.
    #[must_use]
    pub fn broken_invariant(&self) -> Option<&'static str> {
        let leads_twice = |primary| self.replicas.contains(&primary);
        if has_duplicates(&self.replicas) || self.primary.is_some_and(leads_twice) {
            return Some("members are distinct");
        }
        if let Some(primary) = self.primary
            && self.is_behind(primary)
        {
            return Some("the primary is in sync");
        }
        let strays = |(at, behind): (usize, &Behind)| {
            let again = self.behind[..at].iter().any(|it| it.node == behind.node);
            again || !self.is_member(behind.node)
        };
        if self.behind.iter().enumerate().any(strays) {
            return Some("members behind are distinct members");
        }
        let members = self.members().count();
        if members > 0 && self.behind.len() == members {
            return Some("some member is in sync");
        }
        match &self.stage {
            Stage::Stable => None,
            Stage::Syncing(migration) => {
                let outside = |joining: &Joining| {
                    self.is_member(joining.node) || !migration.target.contains(&joining.node)
                };
                if has_duplicates(&migration.target) || migration.target.is_empty() {
                    Some("targets are distinct and not empty")
                } else if migration.joining.iter().any(outside) {
                    Some("joining nodes are targets and not yet members")
                } else if migration
                    .leaving
                    .iter()
                    .any(|&node| self.is_member(node) || migration.target.contains(&node))
                    || has_duplicates(&migration.leaving)
                {
                    Some("nodes called off are distinct, no members and no targets")
                } else {
                    None
                }
            }
            Stage::Cleanup { leaving, .. } => {
                if leaving.is_empty() || has_duplicates(leaving) {
                    Some("leaving nodes are distinct and not empty")
                } else if leaving.iter().any(|&node| self.is_member(node)) {
                    Some("leaving nodes are no members")
                } else {
                    None
                }
            }
        }
    }
}

pub(crate) fn has_duplicates(ids: &[RaftId]) -> bool {
    ids.iter().enumerate().any(|(i, id)| ids[..i].contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_record_knows_its_own_invariants() {
        let good = Partition {
            primary: Some(RaftId(1)),
            replicas: vec![RaftId(2), RaftId(3)],
            behind: vec![Behind {
                node: RaftId(3),
                since: Epoch(4),
                diverged: false,
                stage: None,
                asked_at: UnixMillis(0),
            }],
            ..Partition::default()
        };
        assert_eq!(good.broken_invariant(), None);
        assert_eq!(good.in_sync().collect::<Vec<_>>(), [RaftId(1), RaftId(2)]);

        let mut twice = good.clone();
        twice.replicas.push(RaftId(1));
        assert_eq!(twice.broken_invariant(), Some("members are distinct"));

        let mut stale_primary = good.clone();
        stale_primary.primary = Some(RaftId(3));
        stale_primary.replicas = vec![RaftId(2)];
        assert_eq!(
            stale_primary.broken_invariant(),
            Some("the primary is in sync")
        );

        let mut stays = good;
        stays.stage = Stage::Cleanup {
            id: StageId(9),
            leaving: vec![RaftId(2)],
            asked_at: UnixMillis(0),
        };
        assert_eq!(
            stays.broken_invariant(),
            Some("leaving nodes are no members")
        );
    }
}

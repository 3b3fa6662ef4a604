//! Who probes whom: the same on every node that has applied the same state.

use alloc::vec::Vec;

use crate::id::RaftId;
use crate::state::ClusterState;

/// By how many others a member is probed, and how many it probes, where there are so many: what
/// probing costs a node does not grow with the cluster.
pub const PROBES_PER_NODE: usize = 3;

/// Who probes whom, under one leader.
///
/// All live members but the leader stand in a ring, in the order of their ids, and each probes those
/// that come next. The leader takes no part: it hears everybody anyway, and what the mesh is for is a
/// second opinion about that. Nobody probes itself, everybody probes as many as it is probed by, and
/// when one member comes or goes, only those next to it are given other targets.
///
/// ```
/// use clusterkit_core::detector::Mesh;
/// use clusterkit_core::id::RaftId;
///
/// let mesh = Mesh::new((1..=5).map(RaftId), Some(RaftId(1)));
/// assert!(mesh.targets(RaftId(4)).eq([RaftId(5), RaftId(2), RaftId(3)]));
/// assert_eq!(mesh.targets(RaftId(1)).count(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// Sorted, without the leader.
    ring: Vec<RaftId>,
}

impl Mesh {
    /// Returns the mesh of the live `members` under `leader`. Their order does not matter.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = RaftId>, leader: Option<RaftId>) -> Self {
        let members = members.into_iter().filter(|&id| Some(id) != leader);
        let mut ring: Vec<RaftId> = members.collect();
        ring.sort_unstable();
        ring.dedup();
        Self { ring }
    }

    /// Returns the mesh of the live members of `state` under `leader`.
    #[must_use]
    pub fn of(state: &ClusterState, leader: Option<RaftId>) -> Self {
        let live = state.nodes().filter(|node| node.status.is_live());
        Self::new(live.map(|node| node.raft_id), leader)
    }

    /// Returns whom `node` probes: nobody if it leads or is no live member.
    pub fn targets(&self, node: RaftId) -> impl Iterator<Item = RaftId> + '_ {
        let (at, count) = self.place(node);
        (1..=count).map(move |step| self.ring[(at + step) % self.ring.len()])
    }

    /// Returns who probes `node`.
    pub fn probers(&self, node: RaftId) -> impl Iterator<Item = RaftId> + '_ {
        let (at, count) = self.place(node);
        (1..=count).map(move |step| self.ring[(at + self.ring.len() - step) % self.ring.len()])
    }

    /// Returns where `node` stands in the ring, and how many others it has to do with.
    fn place(&self, node: RaftId) -> (usize, usize) {
        match self.ring.binary_search(&node) {
            Ok(at) => (at, PROBES_PER_NODE.min(self.ring.len() - 1)),
            Err(_) => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    fn pairs(mesh: &Mesh) -> BTreeSet<(RaftId, RaftId)> {
        let of = |&by: &RaftId| mesh.targets(by).map(move |target| (by, target));
        mesh.ring.iter().flat_map(of).collect()
    }

    #[test]
    fn everybody_but_the_leader_probes_as_many_as_it_is_probed_by() {
        for nodes in 1..=12_u64 {
            let ids = (0..nodes).map(|number| RaftId(3 * number + 1));
            let leader = RaftId(1);
            let mesh = Mesh::new(ids.clone().rev(), Some(leader));
            let wanted = usize::try_from(nodes).unwrap().saturating_sub(2).min(3);
            for id in ids {
                let targets: BTreeSet<RaftId> = mesh.targets(id).collect();
                let probers: BTreeSet<RaftId> = mesh.probers(id).collect();
                let expected = if id == leader { 0 } else { wanted };
                assert_eq!((targets.len(), probers.len()), (expected, expected), "{id}");
                assert!(!targets.contains(&id) && !targets.contains(&leader));
                assert!(
                    probers
                        .iter()
                        .all(|&by| mesh.targets(by).any(|it| it == id))
                );
            }
        }
    }

    #[test]
    fn one_member_more_or_less_changes_few_pairs() {
        let all = || (1..=20).map(RaftId);
        let before = pairs(&Mesh::new(all(), Some(RaftId(20))));
        for gone in 1..20 {
            let rest = all().filter(|&id| id != RaftId(gone));
            let after = pairs(&Mesh::new(rest, Some(RaftId(20))));
            assert_eq!(before.difference(&after).count(), 2 * PROBES_PER_NODE);
            assert_eq!(after.difference(&before).count(), PROBES_PER_NODE);
        }
    }

    #[test]
    fn somebody_who_is_no_live_member_has_no_part_in_it() {
        let mesh = Mesh::new([RaftId(2), RaftId(2), RaftId(5)], None);
        assert_eq!(mesh.targets(RaftId(3)).count(), 0);
        assert_eq!(mesh.probers(RaftId(3)).count(), 0);
        assert!(mesh.targets(RaftId(5)).eq([RaftId(2)]));
        assert_eq!(Mesh::default().targets(RaftId(1)).count(), 0);
    }
}

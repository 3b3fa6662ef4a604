//! Who may write what, decided from one topology: the part of replication that is a pure function.
//!
//! The promise: a write is acknowledged once every live member and every joining node of one
//! topology has it, unless a newer topology has dropped them since. So whoever the cluster promotes
//! holds every acknowledged write, and a primary that was replaced cannot acknowledge any: its
//! successor is among those it must ask. Waiting and sending are in `replication`.

use std::sync::Arc;

use clusterkit_core::id::{Epoch, PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_core::topology::Topology;

/// This node as primary of one partition, from one topology.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    pub(crate) partition: PartitionId,
    /// The partition's epoch: what the others compare.
    pub(crate) epoch: Epoch,
    /// The epoch of the topology this was read from.
    pub(crate) known: Epoch,
    pub(crate) me: RaftId,
    /// Everybody else that a write must reach.
    pub(crate) others: Vec<Other>,
}

/// Another node that a write must reach.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) node: Arc<Node>,
    /// Whether it holds every acknowledged write, so that what it holds beyond counts too.
    pub(crate) in_sync: bool,
}

/// Why this node does not lead a partition.
#[derive(Clone, Debug)]
pub(crate) enum NotLead {
    /// Nobody does for the time being.
    Nobody,
    /// This node does.
    Other(Arc<Node>),
}

/// Returns what this node leads `partition` with, from `topology`.
pub(crate) fn lead(topology: &Topology, partition: PartitionId) -> Result<Lead, NotLead> {
    let primary = topology.primary(partition).ok_or(NotLead::Nobody)?;
    let shared = |node: &Node| topology.member(node.raft_id).cloned();
    if !topology.is_primary(partition) {
        return Err(shared(primary).map_or(NotLead::Nobody, NotLead::Other));
    }
    let me = primary.raft_id;
    let in_sync: Vec<RaftId> = topology
        .in_sync(partition)
        .map(|node| node.raft_id)
        .collect();
    let others = must_reach(topology, partition)
        .filter(|node| node.raft_id != me)
        .filter_map(|node| {
            Some(Other {
                node: shared(node)?,
                in_sync: in_sync.contains(&node.raft_id),
            })
        })
        .collect();
    Ok(Lead {
        partition,
        epoch: topology.partition_epoch(partition),
        known: topology.epoch(),
        me,
        others,
    })
}

/// Returns whom a write of `partition` must reach. A joining node that is down is not among them:
/// it has to copy again from the start once it is back.
pub(crate) fn must_reach(
    topology: &Topology,
    partition: PartitionId,
) -> impl Iterator<Item = &Node> {
    topology
        .write_set(partition)
        .filter(|node| node.status.is_live())
}

/// Tells whether a write of `partition` must reach this node.
pub(crate) fn reaches_me(topology: &Topology, partition: PartitionId) -> bool {
    topology
        .this_node()
        .is_some_and(|me| must_reach(topology, partition).any(|node| node.raft_id == me.raft_id))
}

/// What a newer topology means for a write on its way to one node.
#[derive(Clone, Debug)]
pub(crate) enum Owed {
    /// It must still get there; this is its record now.
    Yes(Arc<Node>),
    /// It need not get there any more: the node would have to copy before it counts.
    No,
    /// The partition has another epoch: decide anew.
    Moved,
}

/// Returns what `newer` means for a write that `lead` is sending to `member`.
pub(crate) fn owed(newer: &Topology, lead: &Lead, member: RaftId) -> Owed {
    let same =
        newer.is_primary(lead.partition) && newer.partition_epoch(lead.partition) == lead.epoch;
    if !same {
        return Owed::Moved;
    }
    must_reach(newer, lead.partition)
        .find(|node| node.raft_id == member)
        .and_then(|node| newer.member(node.raft_id).cloned())
        .map_or(Owed::No, Owed::Yes)
}

/// Whether an order of a primary is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The sender is the primary.
    Take,
    /// The sender knows a newer topology: wait for it.
    Wait,
    /// The sender is not the primary, or not any more.
    Refuse {
        /// The partition's epoch here.
        epoch: Epoch,
    },
}

/// Decides whether an order of `from`, which calls itself primary of `partition` under `epoch`, is
/// taken by a node that knows `topology`.
pub(crate) fn admit(
    topology: &Topology,
    partition: PartitionId,
    epoch: Epoch,
    from: RaftId,
) -> Admission {
    if partition.0 >= topology.partition_count() {
        return Admission::Refuse {
            epoch: Epoch::default(),
        };
    }
    let here = topology.partition_epoch(partition);
    let primary = topology.primary(partition).map(|node| node.raft_id);
    if epoch > here {
        Admission::Wait
    } else if epoch == here && primary == Some(from) {
        Admission::Take
    } else {
        Admission::Refuse { epoch: here }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::testing::Script;

    const P: PartitionId = PartitionId(0);

    #[test]
    fn a_write_reaches_live_members_and_joining_nodes_only() {
        let check = |script: &Script, me: u64, expected: &[u64]| {
            let lead = lead(&script.seen_by(me), P).unwrap();
            let others: Vec<u64> = lead.others.iter().map(|o| o.node.raft_id.0).collect();
            assert_eq!(others, expected);
        };
        let script = Script::new(4, &[1, 2, 3]);
        check(&script, 1, &[2, 3]);
        check(&script.clone().down(3), 1, &[2]);
        check(&script.clone().joining(&[4]), 1, &[2, 3, 4]);
        check(&script.clone().joining(&[4]).down(4), 1, &[2, 3]);
        check(&script.clone().behind(&[2]), 1, &[2, 3]);
        assert!(
            matches!(lead(&script.seen_by(2), P), Err(NotLead::Other(node)) if node.raft_id.0 == 1)
        );
        let alone = Script::new(1, &[]);
        assert!(matches!(lead(&alone.seen_by(1), P), Err(NotLead::Nobody)));
    }

    #[test]
    fn only_the_primary_of_the_same_epoch_is_obeyed() {
        let script = Script::new(3, &[1, 2, 3]).epoch(5);
        let here = script.seen_by(2);
        let check = |epoch, from, expected| {
            assert_eq!(admit(&here, P, Epoch(epoch), RaftId(from)), expected);
        };
        check(5, 1, Admission::Take);
        check(6, 3, Admission::Wait);
        check(4, 1, Admission::Refuse { epoch: Epoch(5) });
        check(5, 3, Admission::Refuse { epoch: Epoch(5) });
        let none = Admission::Refuse { epoch: Epoch(0) };
        assert_eq!(admit(&here, PartitionId(9), Epoch(5), RaftId(1)), none);
    }

    #[test]
    fn a_newer_topology_drops_a_node_or_calls_the_write_off() {
        let script = Script::new(4, &[1, 2, 3]).epoch(5);
        let lead = lead(&script.seen_by(1), P).unwrap();
        let after = |newer: Script| owed(&newer.seen_by(1), &lead, RaftId(3));
        assert!(matches!(after(script.clone()), Owed::Yes(_)));
        assert!(matches!(after(script.clone().down(3)), Owed::No));
        assert!(matches!(after(script.clone().behind(&[3])), Owed::Yes(_)));
        assert!(matches!(after(script.clone().epoch(6)), Owed::Moved));
        let other = Script::new(4, &[2, 1, 3]).epoch(5);
        assert!(matches!(after(other), Owed::Moved));
    }
}

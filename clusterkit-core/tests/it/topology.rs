//! The published snapshot: what it answers, what it costs, what it refuses.

use std::hint::black_box;

use clusterkit_core::config::ConfigError;
use clusterkit_core::id::{Epoch, PartitionId, RaftId};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::topology::{LookupError, Topology, TopologyParts};

use crate::world::World;

/// Returns a cluster with a move under way, one copy behind, and a partition without primary.
fn lively() -> World {
    let mut world = World::formed(4, 4, 3);
    world.plan(&[(0, &[1, 2, 3]), (1, &[2, 1]), (2, &[4]), (3, &[3, 4])]);
    world.down(&[4]);
    world.start(&[(1, &[3, 2])]);
    world
}

fn numbers<'a>(nodes: impl Iterator<Item = &'a clusterkit_core::node::Node>) -> Vec<u64> {
    nodes.map(|node| node.raft_id.0).collect()
}

#[test]
fn a_snapshot_says_what_the_state_says() {
    let world = lively();
    let topology = world.state.topology(RaftId(2));
    assert_eq!(topology.epoch(), world.state.epoch());
    assert_eq!(topology.partitions().len(), 4);
    for (id, partition) in world.state.partitions_by_id() {
        let primary = topology.primary(id).map(|node| node.raft_id);
        assert_eq!(primary, partition.primary);
        let ids = |nodes: &mut dyn Iterator<Item = RaftId>| -> Vec<u64> {
            nodes.map(|node| node.0).collect()
        };
        assert_eq!(numbers(topology.members(id)), ids(&mut partition.members()));
        assert_eq!(numbers(topology.in_sync(id)), ids(&mut partition.in_sync()));
        assert_eq!(
            topology.is_primary(id),
            partition.primary == Some(RaftId(2))
        );
        assert_eq!(
            topology.is_replica(id),
            partition.replicas.contains(&RaftId(2))
        );
        assert_eq!(topology.partition_epoch(id), partition.epoch);
        match topology.location(id) {
            Ok(found) => {
                assert_eq!(Some(found.primary.raft_id), partition.primary);
                assert_eq!(
                    numbers(found.replicas()),
                    ids(&mut partition.replicas.iter().copied())
                );
            }
            Err(error) => {
                let epoch = topology.epoch();
                assert_eq!(
                    error,
                    LookupError::NoPrimary {
                        partition: id,
                        epoch
                    }
                );
            }
        }
    }
    assert_eq!(numbers(topology.joining(PartitionId(1))), [3]);
    assert_eq!(numbers(topology.write_set(PartitionId(1))), [2, 1, 3]);
    assert_eq!(numbers(topology.write_set(PartitionId(3))), [3]);
    assert_eq!(topology.node("n4").unwrap().status, NodeStatus::Down);
    assert_eq!(topology.node("n9"), None);
    assert_eq!(topology.node_id().unwrap().as_str(), "n2");
    assert!(matches!(
        topology.location(PartitionId(4)),
        Err(LookupError::NoSuchPartition { count: 4, .. })
    ));
}

#[test]
fn a_snapshot_survives_being_taken_apart() {
    let parts = lively().state.topology(RaftId(1)).parts();
    let again = Topology::new(parts.clone()).unwrap();
    assert_eq!(again.parts(), parts);
    assert_eq!(again.node_id(), None, "a client is no member");
    assert!(
        again
            .partitions()
            .all(|id| !again.is_primary(id) && !again.is_replica(id))
    );
}

#[test]
fn a_cluster_not_yet_formed_has_no_primary() {
    let topology = clusterkit_core::state::ClusterState::new().topology(RaftId(1));
    assert!(topology.locate(b"user:123").is_err());
    assert_eq!((topology.epoch(), topology.nodes().len()), (Epoch(0), 0));
}

#[test]
fn documents_that_cannot_be_are_refused() {
    let parts = lively().state.topology(RaftId(1)).parts();
    let check = |change: fn(&mut TopologyParts), field: &str| {
        let mut broken = parts.clone();
        change(&mut broken);
        let error: ConfigError = Topology::new(broken).unwrap_err();
        assert_eq!(error.field, field);
    };
    check(|parts| parts.rows.clear(), "partition_count");
    check(|parts| parts.nodes.reverse(), "nodes");
    check(|parts| parts.nodes[1] = parts.nodes[0].clone(), "nodes");
    check(
        |parts| parts.rows[0].primary = Some(RaftId(77)),
        "partition member",
    );
    check(
        |parts| parts.rows[0].joining.push(RaftId(77)),
        "partition member",
    );
    check(
        |parts| parts.rows[0].replicas = vec![RaftId(1); 300],
        "partition members",
    );
}

#[test]
fn a_lookup_allocates_nothing() {
    let topology = lively().state.topology(RaftId(1));
    let lookups = || {
        for number in 0..100_u32 {
            let key = number.to_be_bytes();
            let id = topology.partition(&key);
            black_box(
                topology
                    .locate(&key)
                    .map(|found| found.replicas().count())
                    .ok(),
            );
            black_box(topology.primary(id));
            black_box(topology.replicas(id).last());
            black_box((topology.is_primary(id), topology.is_replica(id)));
            black_box((topology.write_set(id).count(), topology.in_sync(id).count()));
            black_box((topology.node("n3"), topology.node_id(), topology.nodes()));
        }
    };
    let counted = allocation_counter::measure(lookups);
    assert_eq!(counted.count_total, 0);
    let proof = allocation_counter::measure(|| drop(black_box(Box::new(1))));
    assert_eq!(proof.count_total, 1, "allocations are counted at all");
}

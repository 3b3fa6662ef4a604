//! What a lookup costs beside hashing the key alone: both in one run, so that the ratio counts.
//!
//! `cargo bench -p clusterkit-core --bench lookup`; compare `lookup/locate/A` with `lookup/hash/A` of one
//! run: absolute times depend on the machine.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark, and criterion's macro emits undocumented items"
)]

use std::hint::black_box;
use std::sync::Arc;

use clusterkit_core::hash::{HashAlgorithm, HashConfig};
use clusterkit_core::id::{ClusterId, DiskId, Epoch, NodeId, PartitionId, RaftId};
use clusterkit_core::node::{Node, NodeSpec, NodeStatus};
use clusterkit_core::time::UnixMillis;
use clusterkit_core::topology::{Topology, TopologyParts, TopologyRow};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const PARTITIONS: u64 = 4_096;
const NODES: u64 = 64;

fn topology(algorithm: HashAlgorithm) -> Topology {
    let node = |id: u64| {
        let address = format!("10.0.0.{id}:8080");
        let name = NodeId::new(format!("node-{id}")).unwrap();
        let spec = NodeSpec::new(name, DiskId::from_bytes([0; 16]), &address);
        let mut node = Node::new(RaftId(id), spec, UnixMillis(0));
        node.status = NodeStatus::Active;
        Arc::new(node)
    };
    let row = |partition: u64| TopologyRow {
        primary: Some(RaftId(1 + partition % NODES)),
        replicas: vec![
            RaftId(1 + (partition + 7) % NODES),
            RaftId(1 + (partition + 31) % NODES),
        ],
        epoch: Epoch(1),
        ..TopologyRow::default()
    };
    Topology::new(TopologyParts {
        cluster: ClusterId::from_bytes([0; 16]),
        name: "bench".to_owned(),
        generation: 0,
        epoch: Epoch(1),
        hash: HashConfig::new(algorithm),
        replication_factor: 3,
        nodes: (1..=NODES).map(node).collect(),
        rows: (0..PARTITIONS).map(row).collect(),
    })
    .unwrap()
}

fn lookups(criterion: &mut Criterion) {
    // More keys than a branch predictor learns, few enough to stay in the cache: the cost of the
    // lookup itself is measured, not that of missing memory.
    let keys: Vec<String> = (0..4_096).map(|i| format!("user:{i:012}")).collect();
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 1) % keys.len();
        keys[turn].as_bytes()
    };
    let mut group = criterion.benchmark_group("lookup");
    for algorithm in HashAlgorithm::ALL {
        let topology = topology(algorithm);
        let partitioner = *topology.partitioner();
        group.bench_function(BenchmarkId::new("hash", algorithm), |bencher| {
            bencher.iter(|| black_box(partitioner.hash(black_box(next()))));
        });
        group.bench_function(BenchmarkId::new("partition", algorithm), |bencher| {
            bencher.iter(|| black_box(topology.partition(black_box(next()))));
        });
        group.bench_function(BenchmarkId::new("locate", algorithm), |bencher| {
            bencher.iter(|| {
                let found = topology.locate(black_box(next())).unwrap();
                black_box((found.partition, found.primary.raft_id, found.epoch))
            });
        });
    }
    let topology = topology(HashAlgorithm::default());
    group.bench_function("replicas", |bencher| {
        bencher.iter(|| {
            let partition = black_box(PartitionId(77));
            black_box(
                topology
                    .replicas(partition)
                    .map(|node| node.raft_id.0)
                    .sum::<u64>(),
            )
        });
    });
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);

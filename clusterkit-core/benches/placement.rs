//! What one event costs to plan, check included, beside plain rendezvous hashing in the same run.
//!
//! `cargo bench -p clusterkit-core --bench placement`; a part of it by name, such as
//! `placement/join/1024x100/3z`. Absolute times depend on the machine: compare with
//! `rendezvous/join` of the same run.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark, and criterion's macro emits undocumented items"
)]

use std::hint::black_box;
use std::time::Duration;

use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    MinimalMove, PlacementInput, PlacementNode, PlacementStrategy, Rendezvous, Standing, verify,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const SIZES: [(u32, usize); 3] = [(1_024, 100), (16_384, 1_000), (65_536, 300)];
const ZONES: [usize; 3] = [1, 3, 10];
const EVENTS: [&str; 4] = ["join", "leave", "grow", "replace"];

fn node(at: usize, zones: usize) -> PlacementNode {
    let id = NodeId::new(format!("node-{at:05}")).unwrap();
    PlacementNode::new(id).with_zone(format!("zone-{}", at % zones))
}

/// Returns a cluster in which `event` has just happened to a placement that was settled before.
fn after(event: &str, partitions: u32, count: usize, zones: usize) -> PlacementInput {
    let nodes = (0..count).map(|at| node(at, zones)).collect();
    let mut input = PlacementInput::new(partitions, 3, nodes);
    input.current = MinimalMove::new().place(&input).unwrap().rows;
    let joining = match event {
        "join" | "replace" => 1,
        "grow" => count.div_ceil(10),
        _ => 0,
    };
    let joining = count..count + joining;
    input.nodes.extend(joining.map(|at| node(at, zones)));
    if let "leave" | "replace" = event {
        input.nodes[count / 2].standing = Standing::Excluded;
    }
    input
}

fn events(criterion: &mut Criterion) {
    for (partitions, nodes) in SIZES {
        for event in EVENTS {
            let mut group = criterion.benchmark_group(format!("placement/{event}"));
            group
                .sample_size(10)
                .warm_up_time(Duration::from_millis(300))
                .measurement_time(Duration::from_secs(1));
            for zones in ZONES {
                let input = after(event, partitions, nodes, zones);
                let name = BenchmarkId::new(format!("{partitions}x{nodes}"), format!("{zones}z"));
                group.bench_function(name, |bencher| {
                    bencher.iter(|| MinimalMove::new().place(black_box(&input)).unwrap());
                });
            }
            group.finish();
        }
    }
}

/// The check alone, and the strategy everybody knows.
fn beside(criterion: &mut Criterion) {
    for (partitions, nodes) in SIZES {
        let input = after("join", partitions, nodes, 3);
        let placement = MinimalMove::new().place(&input).unwrap();
        let name = format!("{partitions}x{nodes}");
        let mut group = criterion.benchmark_group("beside");
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        group.bench_function(BenchmarkId::new("verify", &name), |bencher| {
            bencher.iter(|| verify(black_box(&input), &placement).unwrap());
        });
        group.bench_function(BenchmarkId::new("rendezvous", &name), |bencher| {
            bencher.iter(|| Rendezvous::new().place(black_box(&input)).unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, events, beside);
criterion_main!(benches);

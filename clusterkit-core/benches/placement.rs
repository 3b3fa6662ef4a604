//! What one event costs to plan, check included, beside plain rendezvous hashing in the same run.
//!
//! `cargo bench -p clusterkit-core --bench placement`; a part of it by name, such as
//! `placement/join/1024x100/3z`. Absolute times depend on the machine, so the run ends with a
//! table of ratios to rendezvous hashing, measured in turns; `ratios` as the name gives only that.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark, and criterion's macro emits undocumented items"
)]

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    MinimalMove, Placement, PlacementInput, PlacementNode, PlacementStrategy, Rendezvous, Standing,
    verify,
};
use criterion::measurement::{Measurement as _, WallTime};
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

/// Plans and checks, as `PlanRequest::compute` does.
fn plan(input: &PlacementInput) -> Placement {
    let placement = MinimalMove::new().place(input).unwrap();
    verify(input, &placement).unwrap();
    placement
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
                    bencher.iter(|| plan(black_box(&input)));
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

/// Prints the shortest time of every event, and how many plans rendezvous hashing takes as long as.
fn ratios(_: &mut Criterion) {
    const TURNS: usize = 7;
    let wanted = |argument: String| argument == "ratios" || argument == "--bench";
    if !std::env::args().skip(1).all(wanted) {
        return;
    }
    let shortest = |least: &mut Duration, work: &dyn Fn()| {
        let start = WallTime.start();
        work();
        *least = WallTime.end(start).min(*least);
    };
    let mut out = std::io::stdout();
    let head = "partitions x nodes, zones: event, time to plan and check, rendezvous / that";
    writeln!(out, "{head}").unwrap();
    for (partitions, nodes) in SIZES {
        for zones in ZONES {
            let inputs = EVENTS.map(|event| after(event, partitions, nodes, zones));
            let mut hashed = Duration::MAX;
            let mut planned = [Duration::MAX; EVENTS.len()];
            for _ in 0..TURNS {
                shortest(&mut hashed, &|| {
                    black_box(Rendezvous::new().place(&inputs[0]).unwrap());
                });
                for (least, input) in planned.iter_mut().zip(&inputs) {
                    shortest(least, &|| {
                        black_box(plan(input));
                    });
                }
            }
            for (event, least) in EVENTS.iter().zip(planned) {
                let ratio = hashed.as_secs_f64() / least.as_secs_f64();
                let case = format!("{partitions}x{nodes}, {zones}z: {event:8}");
                writeln!(out, "{case} {least:9.2?} {ratio:6.0}").unwrap();
            }
        }
    }
}

criterion_group!(benches, events, beside, ratios);
criterion_main!(benches);

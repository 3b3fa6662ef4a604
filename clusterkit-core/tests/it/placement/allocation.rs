//! What the solver allocates: nothing is kept between events, and no event needs more than those
//! before it in a cluster of the same size.

use allocation_counter::{AllocationInfo, measure};
use clusterkit_core::placement::{PlacementInput, Standing, verify};

use super::properties::place;
use super::scenario::even_cluster;

const NODES: usize = 12;
/// How often every node leaves, returns, and changes its weight.
const LAPS: usize = 12;

/// Places and checks, takes the answer as the new rows, and returns what the solver allocated.
fn settle(input: &mut PlacementInput) -> AllocationInfo {
    let mut answer = None;
    let used = measure(|| answer = Some(place(input)));
    let answer = answer.unwrap();
    verify(input, &answer).unwrap();
    assert!(!answer.flags.fallback);
    input.current = answer.rows;
    used
}

/// One lap: every node leaves, returns, becomes heavier and again as heavy as the others.
fn lap(input: &mut PlacementInput) -> Vec<AllocationInfo> {
    let mut used = Vec::new();
    for node in 0..NODES {
        input.nodes[node].standing = Standing::Excluded;
        used.push(settle(input));
        input.nodes[node].standing = Standing::Eligible;
        used.push(settle(input));
        input.nodes[node].weight = 2;
        used.push(settle(input));
        input.nodes[node].weight = 1;
        used.push(settle(input));
    }
    used
}

#[test]
fn no_event_allocates_more_than_those_before_it() {
    for zones in [1, 4] {
        let mut input = even_cluster(512, NODES, zones);
        settle(&mut input);
        let laps: Vec<_> = (0..LAPS).map(|_| lap(&mut input)).collect();
        // Rounds differ from event to event, and with them what is allocated; the most of any
        // event in the first third is the measure for all that follow.
        let (first, rest) = laps.split_at(LAPS / 3);
        let most = |laps: &[Vec<AllocationInfo>], of: fn(&AllocationInfo) -> u64| {
            laps.iter().flatten().map(of).max().unwrap()
        };
        for of in [
            |used: &AllocationInfo| used.bytes_max,
            |used: &AllocationInfo| used.bytes_total,
            |used: &AllocationInfo| used.count_total,
        ] {
            let (early, late) = (most(first, of), most(rest, of));
            assert!(early > 0);
            assert!(late <= early + early / 10, "{early}, later {late}");
        }
    }
}

#[test]
fn nothing_is_kept_between_events() {
    let mut input = even_cluster(512, NODES, 3);
    settle(&mut input);
    for node in 0..NODES {
        input.nodes[node].standing = Standing::Excluded;
        let used = measure(|| drop(place(&input)));
        assert!(used.bytes_max > 0);
        assert_eq!((used.bytes_current, used.count_current), (0, 0));
        input.nodes[node].standing = Standing::Eligible;
    }
}

#[test]
fn the_number_of_allocations_does_not_follow_the_partitions() {
    let join = |partitions: u32| {
        let mut input = even_cluster(partitions, NODES, 3);
        let newcomer = input.nodes.pop().unwrap();
        settle(&mut input);
        input.nodes.push(newcomer);
        settle(&mut input)
    };
    // Above the size up to which ties are tossed again, which is more runs, not larger ones.
    let (small, large) = (join(512), join(8_192));
    assert!(
        large.count_total <= 2 * small.count_total,
        "{} allocations for 512 partitions, {} for 8192",
        small.count_total,
        large.count_total
    );
    assert!(
        large.bytes_max <= 24 * small.bytes_max,
        "{} bytes at a time for 512 partitions, {} for 8192",
        small.bytes_max,
        large.bytes_max
    );
}

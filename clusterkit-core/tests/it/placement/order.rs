//! The order of steps: every prefix keeps the invariants, and the end is the target.
//!
//! This is the second half of group 7 of the properties; the first is in `relations`.

use std::collections::BTreeMap;

use clusterkit_core::placement::{PlacementInput, PlanStep, Rows, Standing, StepKind, plan_steps};
use proptest::prelude::*;

use super::properties::place;
use super::scenario::{Dice, config, even_cluster, random};

struct Row {
    members: Vec<u16>,
    data: Vec<u16>,
    leader: Option<u16>,
}

fn zones(input: &PlacementInput, members: &[u16]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for &node in members {
        *count
            .entry(input.nodes[usize::from(node)].zone.to_string())
            .or_insert(0) += 1;
    }
    count
}

/// Walks through the steps and asserts the invariants after each.
fn walk(input: &PlacementInput, target: &Rows, live: &[bool], steps: &[PlanStep]) {
    let serves = |node: &u16| {
        live[usize::from(*node)] && input.nodes[usize::from(*node)].standing != Standing::Excluded
    };
    let start = |p: usize| {
        let mut members: Vec<u16> = vec![];
        for node in input.current.members(p) {
            if !members.contains(&node) {
                members.push(node);
            }
        }
        Row {
            data: members.iter().copied().filter(serves).collect(),
            leader: input.current.primary(p).filter(serves),
            members,
        }
    };
    let mut rows: Vec<Row> = (0..target.len()).map(start).collect();
    let mut last = StepKind::Promote;
    for step in steps {
        assert!(last <= step.kind, "urgent steps come first");
        last = step.kind;
        let p = step.partition as usize;
        let (before, wanted) = (start(p), target.members(p).count());
        let row = &mut rows[p];
        assert!(
            step.from.is_none_or(|from| row.data.contains(&from)),
            "{step:?}"
        );
        if let Some(add) = step.add {
            assert!(!row.members.contains(&add) && target.contains(p, add));
            row.members.push(add);
            row.data.push(add);
        }
        if let Some(lead) = step.lead {
            assert!(row.data.contains(&lead), "{step:?}");
            row.leader = Some(lead);
        }
        if let Some(drop) = step.drop {
            assert!(!target.contains(p, drop));
            assert!(row.leader != Some(drop) || row.data == [drop], "{step:?}");
            row.members.retain(|&node| node != drop);
            row.data.retain(|&node| node != drop);
        }
        assert!(row.data.len() >= before.data.len().min(wanted), "{step:?}");
        if before.leader.is_some() || step.kind > StepKind::Promote && !before.data.is_empty() {
            let able = row
                .data
                .iter()
                .any(|&node| input.nodes[usize::from(node)].may_lead);
            assert!(row.leader.is_some() || !able, "{step:?}");
        }
        let (first, end) = (
            zones(input, &before.members),
            target.members(p).collect::<Vec<_>>(),
        );
        let end = zones(input, &end);
        for (zone, count) in zones(input, &row.members) {
            let most = first.get(&zone).max(end.get(&zone)).copied().unwrap_or(0);
            assert!(count <= most, "zone {zone}: {step:?}");
        }
    }
    for (p, row) in rows.iter_mut().enumerate() {
        if target.row(p).is_empty() {
            assert_eq!(row.members, start(p).members, "the last copies stay");
            continue;
        }
        row.members.sort_unstable();
        let mut end: Vec<u16> = target.members(p).collect();
        end.sort_unstable();
        assert_eq!(row.members, end);
        assert_eq!(row.leader, target.primary(p));
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn every_prefix_keeps_the_invariants(seed: u64) {
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 12, 32);
        let target = place(&input).rows;
        // Members of the target are live, or copies could not reach them.
        let mut live: Vec<bool> = input.nodes.iter().map(|_| dice.chance(85)).collect();
        for &node in target.iter().flatten() {
            live[usize::from(node)] = true;
        }
        let steps = plan_steps(&input, &target, &live, 2);
        walk(&input, &target, &live, &steps);
        let copies = steps.iter().filter(|step| step.add.is_some()).count();
        prop_assert_eq!(copies, place(&input).moves as usize);
        let mut copying = BTreeMap::new();
        for step in &steps {
            if let Some(add) = step.add {
                *copying.entry((true, add, step.wave)).or_insert(0) += 1;
            }
            if let Some(from) = step.from {
                *copying.entry((false, from, step.wave)).or_insert(0) += 1;
            }
        }
        prop_assert!(copying.values().all(|&count| count <= 2));
    }
}

#[test]
fn urgency_is_lost_primary_missing_copy_zone_drain_join_balance() {
    let [a, b, c, d, e, gone] = [0u16, 1, 2, 3, 4, 5];
    let mut input = even_cluster(7, 6, 1);
    input.replication_factor = 2;
    for (node, zone) in [
        (a, "x"),
        (b, "x"),
        (c, "y"),
        (d, "y"),
        (e, "x"),
        (gone, "y"),
    ] {
        input.nodes[usize::from(node)].zone = zone.into();
    }
    input.nodes[usize::from(d)].standing = Standing::Draining;
    input.nodes[usize::from(gone)].standing = Standing::Excluded;
    let moves = [
        ([a, c], [c, a], StepKind::Handover),
        ([a, c], [b, c], StepKind::Balance),
        ([b, c], [e, c], StepKind::Join),
        ([a, d], [a, c], StepKind::Evacuate),
        ([a, b], [a, c], StepKind::Respread),
        ([a, gone], [a, c], StepKind::Repair),
        ([gone, b], [b, c], StepKind::Promote),
    ];
    let (mut current, mut target) = (Rows::new(), Rows::new());
    for (from, to, _) in &moves {
        current.push(from);
        target.push(to);
    }
    input.home = current.clone();
    input.current = current;
    let live = [true, true, true, true, true, false];
    let steps = plan_steps(&input, &target, &live, 1);
    walk(&input, &target, &live, &steps);
    let mut first: Vec<(u32, StepKind)> = Vec::new();
    for step in &steps {
        if first
            .iter()
            .all(|(partition, _)| *partition != step.partition)
        {
            first.push((step.partition, step.kind));
        }
    }
    let wanted = (0..).zip(moves.map(|(_, _, kind)| kind));
    assert_eq!(
        first,
        wanted
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
}

#[test]
fn waves_come_near_the_floor_and_repairs_come_first() {
    let mut input = even_cluster(256, 10, 1);
    input.current = place(&input).rows;
    input.nodes[4].standing = Standing::Excluded;
    input.nodes[5].standing = Standing::Draining;
    let target = place(&input).rows;
    let mut live = vec![true; 10];
    live[4] = false;
    let steps = plan_steps(&input, &target, &live, 1);
    walk(&input, &target, &live, &steps);
    let of = |kind| steps.iter().filter(|step| step.kind == kind).count();
    assert!(
        of(StepKind::Promote) >= 25 && of(StepKind::Repair) >= 70 && of(StepKind::Evacuate) > 0
    );
    let mut busiest = BTreeMap::new();
    for step in &steps {
        if let Some(add) = step.add {
            *busiest.entry(add).or_insert(0) += 1;
        }
    }
    let floor = busiest.values().max().unwrap();
    let waves = steps.iter().map(|step| step.wave + 1).max().unwrap();
    assert!(
        waves <= 3 * floor,
        "{waves} waves, the busiest node receives {floor}"
    );
}

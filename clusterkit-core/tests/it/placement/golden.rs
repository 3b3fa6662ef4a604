//! The golden cases: exact optima found by an independent oracle.

use std::collections::BTreeMap;

use clusterkit_core::placement::{MinimalMove, PlacementStrategy, verify};
use serde_json::Value;

use super::scenario::from_json;

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn all_golden_cases() {
    let file: Value =
        serde_json::from_str(include_str!("../../data/placement-golden.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (input, expect) = (from_json(&case["input"]), &case["expect"]);
        let placement = MinimalMove::new().place(&input).unwrap();
        let verdict = verify(&input, &placement).unwrap_or_else(|error| panic!("{name}: {error}"));
        let number = |key: &str| u32::try_from(expect[key].as_u64().unwrap()).unwrap();
        assert_eq!(verdict.moves, number("optimal_replica_moves"), "{name}");
        assert_eq!(
            verdict.primary_violation,
            number("primary_bound_violation"),
            "{name}"
        );
        let optimum = number("optimal_primary_changes");
        let allowed = optimum + (optimum / 10).max(5);
        assert!(verdict.primary_changes <= allowed, "{name}: {verdict:?}");
        assert_eq!(
            placement.stats.moves_bound,
            number("closed_form_bound"),
            "{name}"
        );
        assert_eq!(
            placement.stats.primary_bound,
            number("primary_change_bound"),
            "{name}"
        );
        assert_eq!(
            placement.flags.under_replicated,
            expect["under_replicated"].as_bool().unwrap(),
            "{name}"
        );
        assert!(!placement.flags.fallback, "{name}");
        let mut load = vec![0; input.nodes.len()];
        let mut leads = vec![0; input.nodes.len()];
        for partition in 0..placement.rows.len() {
            let row = placement.rows.row(partition);
            leads[usize::from(row[0])] += 1;
            if input.is_frozen(partition) {
                assert_eq!(row, input.current.row(partition), "{name}");
                continue;
            }
            assert_eq!(row.len(), number("effective_rf") as usize, "{name}");
            let mut zones = BTreeMap::new();
            for &node in row {
                load[usize::from(node)] += 1;
                *zones
                    .entry(input.nodes[usize::from(node)].zone.clone())
                    .or_insert(0) += 1;
            }
            let (least, most) = (numbers(&expect["zone_min"]), numbers(&expect["zone_max"]));
            for (zone, (least, most)) in least.into_iter().zip(most).enumerate() {
                let count = zones.get(&*zone.to_string()).copied().unwrap_or(0);
                assert!((least..=most).contains(&count), "{name}: {row:?}");
            }
        }
        for (key, counts) in [("replica", &load), ("primary", &leads)] {
            let least = numbers(&expect[format!("{key}_min")]);
            let most = numbers(&expect[format!("{key}_max")]);
            for (node, count) in counts.iter().enumerate() {
                assert!(
                    (least[node]..=most[node]).contains(count),
                    "{name}: {key} {counts:?}"
                );
            }
        }
        // The spread counts frozen replicas too.
        let mut total = vec![0u32; input.nodes.len()];
        for node in placement.rows.iter().flatten() {
            total[usize::from(*node)] += 1;
        }
        let nodes = input.nodes.iter().zip(&total);
        let full = nodes
            .filter(|(node, _)| node.is_eligible())
            .map(|(_, &load)| load);
        let (least, most) = full.fold((u32::MAX, 0), |(least, most), load| {
            (least.min(load), most.max(load))
        });
        assert_eq!(
            most - least,
            number("best_replica_max_min"),
            "{name}: {total:?}"
        );
    }
}

//! What a healed cluster must look like: the views of all its nodes, judged together.
//!
//! Pure: views in, the first thing that is wrong out. Waiting for it is the harness's matter,
//! records are compared by `demo` and `scenarios`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};

use crate::balance;
use crate::harness::{Movement, PartitionRow, View};

/// Checks that every view is the same and shows a healed cluster of exactly the nodes `expected`.
pub(crate) fn healed(views: &BTreeMap<String, View>, expected: &[String]) -> anyhow::Result<()> {
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let asked: BTreeSet<&str> = views.keys().map(String::as_str).collect();
    ensure!(
        asked == expected,
        "views of {asked:?}, expected {expected:?}"
    );
    agreed(views)?;
    if let Some(view) = views.values().next() {
        whole(view, &expected)?;
        balance::balanced(view)?;
    }
    Ok(())
}

/// Checks that every node sees the same topology at the same epoch.
pub(crate) fn agreed(views: &BTreeMap<String, View>) -> anyhow::Result<()> {
    let Some((first, view)) = views.first_key_value() else {
        bail!("no node shows a topology");
    };
    for (id, other) in views {
        ensure!(
            other.epoch == view.epoch,
            "{first} is at epoch {}, {id} at {}",
            view.epoch,
            other.epoch
        );
        let same = view.partitions.len() == other.partitions.len();
        let differs = view
            .partitions
            .iter()
            .zip(&other.partitions)
            .position(|(a, b)| a != b);
        if let Some(partition) = differs {
            bail!(
                "{first} and {id} differ about partition {partition} at epoch {}",
                view.epoch
            );
        }
        ensure!(
            same,
            "{first} and {id} show different numbers of partitions"
        );
        ensure!(
            other.nodes == view.nodes,
            "{first} and {id} differ about the nodes at epoch {}",
            view.epoch
        );
    }
    Ok(())
}

/// Checks that every partition has a primary and as many current copies on distinct live nodes as
/// there can be, and that nothing is on the move.
pub(crate) fn whole(view: &View, expected: &BTreeSet<&str>) -> anyhow::Result<()> {
    let active = view.active();
    ensure!(
        active == *expected,
        "active are {active:?}, expected {expected:?}"
    );
    ensure!(!view.partitions.is_empty(), "there are no partitions");
    let copies = view.replication_factor.min(active.len());
    for (partition, row) in view.partitions.iter().enumerate() {
        let Some(primary) = &row.primary else {
            bail!("partition {partition} has no primary");
        };
        let holders: Vec<&str> = row.holders().map(String::as_str).collect();
        let distinct: BTreeSet<&str> = holders.iter().copied().collect();
        ensure!(
            distinct.len() == holders.len(),
            "partition {partition} names a node twice: {holders:?}"
        );
        let dead: Vec<&&str> = distinct.difference(&active).collect();
        ensure!(
            dead.is_empty(),
            "partition {partition} is held by {dead:?}, which is not active"
        );
        ensure!(
            !row.is_moving(),
            "partition {partition} is on the move: +{:?} -{:?}",
            row.joining,
            row.leaving
        );
        ensure!(
            holders.len() == copies,
            "partition {partition} has {} copies, expected {copies}",
            holders.len()
        );
        ensure!(
            !row.behind.contains(primary),
            "the primary of partition {partition}, {primary}, is behind"
        );
        ensure!(
            row.behind.is_empty(),
            "partition {partition} is not current on {:?}",
            row.behind
        );
    }
    Ok(())
}

/// Checks that exactly as much moved as had to, and returns how much that was. The plans of the
/// cluster must prove their minimum, and what they prove together must be the least that leads from
/// `before` to a balance on the nodes of `after`.
pub(crate) fn moved_the_minimum(
    before: &View,
    after: &View,
    movement: &Movement,
) -> anyhow::Result<usize> {
    let (moved, proven) = (movement.copied, movement.minimum()?);
    let reasons = movement.plans.iter().map(|plan| plan.trigger);
    ensure!(
        moved <= proven,
        "moved {moved}, minimum {proven}; plans: {:?}",
        reasons.collect::<Vec<_>>()
    );
    let least = balance::minimum(before, after)?;
    ensure!(
        proven == least,
        "the plans prove a minimum of {proven}, from before to after {least} would do"
    );
    let there = after.copies_since(before);
    ensure!(
        there == proven,
        "{there} new copies are there, the plans asked for {proven}"
    );
    Ok(moved)
}

/// Returns how many copies are current and where they belong, and how many there should be: the
/// progress of healing. A node's copies beyond its share by weight do not count.
pub(crate) fn copies_in_place(view: &View, expected: &[String]) -> (usize, usize) {
    let nodes = expected.len().max(1);
    let wanted = view.partitions.len() * view.replication_factor.min(nodes);
    let weight = |id: &String| view.nodes.get(id).map_or(1, |node| node.weight as usize);
    let weights: usize = expected.iter().map(weight).sum();
    let current = |id: &String| {
        let is_current = |row: &&PartitionRow| {
            row.holders().any(|holder| holder == id) && !row.behind.contains(id)
        };
        let share = (wanted * weight(id)).div_ceil(weights.max(1));
        view.partitions.iter().filter(is_current).count().min(share)
    };
    (
        expected.iter().map(current).sum::<usize>().min(wanted),
        wanted,
    )
}

/// Checks that every partition is served by a live primary, whatever else is still to heal.
pub(crate) fn served(view: &View, dead: &str) -> anyhow::Result<()> {
    let active = view.active();
    for (partition, row) in view.partitions.iter().enumerate() {
        match &row.primary {
            None => bail!("partition {partition} has no primary"),
            Some(primary) if primary == dead || !active.contains(primary.as_str()) => {
                bail!("the primary of partition {partition} is still {primary}")
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use clusterkit_http::api::v1::PlanDocument;

    use super::*;
    use crate::harness::NodeRow;

    /// A view of `nodes`, all active, whose partitions have the holders given, primary first.
    pub(crate) fn view(nodes: &[&str], partitions: &[&[&str]]) -> View {
        let node = |id: &&str| {
            let row = NodeRow {
                status: "active".into(),
                address: format!("{id}:1"),
                kv: None,
                weight: 1,
                zone: String::new(),
            };
            ((*id).to_owned(), row)
        };
        let partition = |holders: &&[&str]| PartitionRow {
            primary: holders.first().map(|id| (*id).to_owned()),
            replicas: holders.iter().skip(1).map(|id| (*id).to_owned()).collect(),
            ..PartitionRow::default()
        };
        View {
            epoch: 7,
            replication_factor: 2,
            nodes: nodes.iter().map(node).collect(),
            partitions: partitions.iter().map(partition).collect(),
        }
    }

    fn good() -> View {
        view(&["a", "b", "c"], &[&["a", "b"], &["b", "c"], &["c", "a"]])
    }

    /// Judges a cluster whose nodes all show what `change` made of a good view.
    fn judge(change: impl Fn(&mut View)) -> String {
        let mut view = good();
        change(&mut view);
        let ids = ["a", "b", "c"].map(str::to_owned);
        let views = ids.iter().map(|id| (id.clone(), view.clone())).collect();
        healed(&views, &ids).map_or_else(|wrong| wrong.to_string(), |()| "healed".into())
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(judge(|_| {}), "healed");
        assert_eq!(
            judge(|v| v.partitions[1].primary = None),
            "partition 1 has no primary"
        );
        assert_eq!(
            judge(|v| v.partitions[0].replicas = vec![]),
            "partition 0 has 1 copies, expected 2"
        );
        assert_eq!(
            judge(|v| v.partitions[0].replicas = vec!["a".into()]),
            "partition 0 names a node twice: [\"a\", \"a\"]"
        );
        assert_eq!(
            judge(|v| v.partitions[2].behind = vec!["a".into()]),
            "partition 2 is not current on [\"a\"]"
        );
        assert!(judge(|v| v.partitions[2].joining = vec!["b".into()]).contains("on the move"));
        assert!(
            judge(|v| v.nodes.get_mut("b").unwrap().status = "down".into())
                .starts_with("active are")
        );
        assert!(judge(|v| v.partitions[1].primary = Some("a".into())).contains("not balanced"));
    }

    #[test]
    fn nodes_must_agree() {
        let mut other = good();
        other.epoch = 8;
        let views = [("a".to_owned(), good()), ("b".to_owned(), other)].into();
        assert_eq!(
            agreed(&views).unwrap_err().to_string(),
            "a is at epoch 7, b at 8"
        );
        let mut other = good();
        other.partitions[1].replicas.clear();
        let views = [("a".to_owned(), good()), ("b".to_owned(), other)].into();
        assert!(
            agreed(&views)
                .unwrap_err()
                .to_string()
                .contains("differ about partition 1")
        );
    }

    #[test]
    fn what_moved_is_held_against_what_is_proven() {
        let before = view(&["a", "b"], &[&["a", "b"], &["b", "a"], &["a", "b"]]);
        let after = good();
        let plan: PlanDocument = serde_json::from_value(serde_json::json!({
            "plan": 9, "epoch": 7, "at": "", "trigger": "node_join", "trigger_node": "c",
            "copies": 2, "minimum": 2, "primary_changes": 1,
        }))
        .unwrap();
        let judge = |copied, plans: &[PlanDocument]| {
            let plans = plans.to_vec();
            moved_the_minimum(&before, &after, &Movement { copied, plans })
                .map_err(|wrong| wrong.to_string())
        };
        assert_eq!(judge(2, std::slice::from_ref(&plan)), Ok(2));
        assert_eq!(
            judge(3, std::slice::from_ref(&plan)),
            Err("moved 3, minimum 2; plans: [NodeJoin]".to_owned())
        );
        let twice = judge(4, &[plan.clone(), plan.clone()]).unwrap_err();
        assert!(twice.contains("prove a minimum of 4"), "{twice}");
        let mut unproven = plan;
        unproven.minimum = None;
        let refused = judge(2, &[unproven]).unwrap_err();
        assert!(refused.contains("is not proven"), "{refused}");
    }

    #[test]
    fn progress_counts_current_copies_up_to_an_even_share() {
        let ids = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(copies_in_place(&good(), &ids), (6, 6));
        let uneven = view(&["a", "b", "c"], &[&["a", "b"], &["a", "b"], &["a", "b"]]);
        assert_eq!(copies_in_place(&uneven, &ids), (4, 6));
        let mut behind = good();
        behind.partitions[0].behind = vec!["b".into()];
        assert_eq!(copies_in_place(&behind, &ids), (5, 6));
    }

    #[test]
    fn a_dead_primary_does_not_serve() {
        assert!(served(&good(), "x").is_ok());
        assert!(
            served(&good(), "a")
                .unwrap_err()
                .to_string()
                .contains("partition 0 is still a")
        );
    }
}

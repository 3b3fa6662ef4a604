//! What the runs of a bench came to: percentiles, the table for people, the JSON line.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::ui;

/// What one run of the failover bench measured, everything from the moment of the kill.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Whether the node killed was the Raft leader too.
    pub(super) leader: bool,
    /// Until another node led, where it was the leader.
    pub(super) elected: Option<Duration>,
    /// Until the leader decided that the node is down.
    pub(super) condemned: Duration,
    /// Until the hook of the new primary was called.
    pub(super) hook: Duration,
    /// Until the last partition of the node had a new primary, by its hook.
    pub(super) last_hook: Duration,
    /// Until the new primary had accepted a write.
    pub(super) write: Duration,
}

/// One thing measured, taken out of a run.
type Measure = (&'static str, &'static str, fn(&Run) -> Option<Duration>);

const MEASURES: [Measure; 5] = [
    ("elected", "another node leads", |run| run.elected),
    ("condemned", "declared down", |run| Some(run.condemned)),
    ("hook", "hook of the new primary", |run| Some(run.hook)),
    ("last_hook", "last hook of all partitions", |run| {
        Some(run.last_hook)
    }),
    ("write", "first write accepted", |run| Some(run.write)),
];

/// Returns the smallest of `times` that `percent` of them do not exceed (nearest rank).
pub(super) fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn of(runs: &[&Run], measure: fn(&Run) -> Option<Duration>) -> Vec<Duration> {
    runs.iter().filter_map(|run| measure(run)).collect()
}

/// Renders all that was measured, followers and leaders apart.
pub(super) fn table(runs: &[Run]) -> String {
    let header = [
        "from kill -9 to",
        "killed",
        "runs",
        "min",
        "p50",
        "p99",
        "max",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (_, what, measure) in MEASURES {
        for (whom, leader) in [("follower", false), ("leader", true)] {
            let chosen: Vec<&Run> = runs.iter().filter(|run| run.leader == leader).collect();
            let times = of(&chosen, measure);
            let shown = |percent| percentile(&times, percent).map_or_else(String::new, millis);
            if times.is_empty() {
                continue;
            }
            let mut row = vec![what.to_owned(), whom.to_owned(), times.len().to_string()];
            row.extend([0, 50, 99, 100].map(shown));
            rows.push(row);
        }
    }
    ui::table(&rows)
}

/// Returns everything as one JSON object; `p50_ms` and `p99_ms` are those of the first write.
pub(super) fn document(runs: &[Run], profile: &str) -> Value {
    let mut document = Map::new();
    document.insert("profile".into(), json!(profile));
    document.insert("runs".into(), json!(runs.len()));
    let all: Vec<&Run> = runs.iter().collect();
    let write = of(&all, |run| Some(run.write));
    for percent in [50, 99] {
        let name = format!("p{percent}_ms");
        document.insert(name, rounded(percentile(&write, percent)));
    }
    let groups = [
        ("", None),
        ("follower_", Some(false)),
        ("leader_", Some(true)),
    ];
    for (prefix, leader) in groups {
        let chosen = runs
            .iter()
            .filter(|run| leader.is_none_or(|wanted| run.leader == wanted));
        let chosen: Vec<&Run> = chosen.collect();
        if leader.is_some() {
            document.insert(format!("{prefix}runs"), json!(chosen.len()));
        }
        for (name, _, measure) in MEASURES {
            let times = of(&chosen, measure);
            for percent in [50, 99] {
                let name = format!("{prefix}{name}_p{percent}_ms");
                document.insert(name, rounded(percentile(&times, percent)));
            }
        }
    }
    Value::Object(document)
}

pub(super) fn rounded(time: Option<Duration>) -> Value {
    // A tenth of a millisecond is more than the clock of another process deserves.
    time.map_or(Value::Null, |time| {
        json!((time.as_secs_f64() * 10_000.0).round() / 10.0)
    })
}

pub(super) fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(leader: bool, write: u64) -> Run {
        let ms = Duration::from_millis;
        Run {
            leader,
            elected: leader.then_some(ms(50)),
            condemned: ms(write - 20),
            hook: ms(write - 10),
            last_hook: ms(write - 5),
            write: ms(write),
        }
    }

    #[test]
    fn percentiles_are_measured_values() {
        let ms = Duration::from_millis;
        let times: Vec<Duration> = (1..=50).rev().map(ms).collect();
        assert_eq!(percentile(&times, 50), Some(ms(25)));
        assert_eq!(percentile(&times, 99), Some(ms(50)));
        assert_eq!(percentile(&times, 0), Some(ms(1)));
        assert_eq!(percentile(&times[..1], 99), Some(ms(50)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn leaders_and_followers_are_told_apart() {
        let runs = [run(false, 100), run(true, 300), run(false, 200)];
        let document = document(&runs, "fast");
        assert_eq!(document["runs"], 3);
        assert_eq!(document["p50_ms"], 200.0);
        assert_eq!(document["p99_ms"], 300.0);
        assert_eq!(document["leader_runs"], 1);
        assert_eq!(document["follower_write_p50_ms"], 100.0);
        assert_eq!(document["leader_hook_p50_ms"], 290.0);
        assert_eq!(document["follower_elected_p50_ms"], Value::Null);
        assert_eq!(table(&runs).lines().count(), 2 + 9);
    }
}

//! `cargo xtask place`: the product's placement solver for scenarios of your own.
//!
//! Reads one JSON object a line in the form of `input` in
//! `clusterkit-core/tests/data/placement-golden.json`, prints one `{"rows": [[primary, replica,
//! ...], ...]}` a line. Every answer is checked before it is printed. The solver itself is
//! `clusterkit_core::placement`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};

use clap::{Args, ValueEnum};
use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    MinimalMove, NO_NODE, Placement, PlacementInput, PlacementNode, PlacementPolicy,
    PlacementStrategy, Rendezvous, Ring, Rows, Standing, verify,
};
use serde::{Deserialize, Serialize};

/// Options of `cargo xtask place`.
#[derive(Args)]
pub(crate) struct PlaceArgs {
    /// The strategy to ask.
    #[arg(long, value_enum, default_value = "minimal-move")]
    strategy: Strategy,
    /// Tell moves, lower bounds and flags of every answer on standard error.
    #[arg(long)]
    explain: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    MinimalMove,
    Rendezvous,
    Ring,
}

/// A scenario that cannot be read; ends the program with code 2.
#[derive(Debug)]
pub(crate) struct Malformed {
    line: usize,
    reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "malformed scenario on line {}: {}",
            self.line, self.reason
        )
    }
}

impl std::error::Error for Malformed {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    partitions: u32,
    replication_factor: u32,
    nodes: Vec<ScenarioNode>,
    #[serde(default)]
    current: Vec<Vec<Option<u16>>>,
    #[serde(default)]
    frozen: Vec<u32>,
    #[serde(default)]
    home: Vec<Vec<Option<u16>>>,
    #[serde(default)]
    max_per_zone: Option<u32>,
    #[serde(default, alias = "overload_limit")]
    overload_limit_permille: Option<u32>,
    #[serde(default, alias = "tolerance")]
    tolerance_permille: u32,
    #[serde(default)]
    ignore_zones: bool,
    #[serde(default)]
    salt: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioNode {
    #[serde(default)]
    id: Option<String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    zone: Zone,
    #[serde(default)]
    state: State,
    #[serde(default = "yes")]
    may_lead: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Zone {
    Number(u64),
    Name(String),
}

impl Default for Zone {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    #[default]
    Active,
    Draining,
    Down,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Answer {
    rows: Vec<Vec<Option<u16>>>,
}

/// Answers every scenario on standard input, line by line.
pub(crate) fn run(args: &PlaceArgs) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    for (at, text) in std::io::stdin().lock().lines().enumerate() {
        let (line, text) = (at + 1, text?);
        if text.trim().is_empty() {
            continue;
        }
        let malformed = |reason| Malformed { line, reason };
        let scenario: Scenario =
            serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let input = input(scenario).map_err(malformed)?;
        let placement = strategy(args.strategy)
            .place(&input)
            .map_err(|error| malformed(error.to_string()))?;
        if args.strategy == Strategy::MinimalMove && !placement.flags.fallback {
            verify(&input, &placement)?;
        }
        if args.explain {
            explain(line, &placement);
        }
        serde_json::to_writer(&mut output, &answer(&placement))?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

fn strategy(strategy: Strategy) -> Box<dyn PlacementStrategy> {
    match strategy {
        Strategy::MinimalMove => Box::new(MinimalMove::new()),
        Strategy::Rendezvous => Box::new(Rendezvous::new()),
        Strategy::Ring => Box::new(Ring::default()),
    }
}

fn input(scenario: Scenario) -> Result<PlacementInput, String> {
    let (count, partitions) = (scenario.nodes.len(), scenario.partitions);
    let mut nodes = Vec::with_capacity(count);
    for (at, node) in scenario.nodes.into_iter().enumerate() {
        nodes.push(record(at, node)?);
    }
    let mut frozen = BTreeMap::new();
    for partition in scenario.frozen {
        if partition >= partitions {
            return Err(format!(
                "frozen names partition {partition} of {partitions}"
            ));
        }
        frozen.insert(partition, true);
    }
    let frozen = match frozen.is_empty() {
        true => Vec::new(),
        false => (0..partitions).map(|p| frozen.contains_key(&p)).collect(),
    };
    let mut policy = PlacementPolicy::default();
    policy.max_per_zone = scenario.max_per_zone;
    policy.overload_limit_permille = scenario.overload_limit_permille;
    policy.tolerance_permille = scenario.tolerance_permille;
    policy.ignore_zones = scenario.ignore_zones;
    policy.salt = scenario.salt;
    let input = PlacementInput::new(partitions, scenario.replication_factor, nodes)
        .with_current(table("current", &scenario.current, partitions, count)?)
        .with_home(table("home", &scenario.home, partitions, count)?)
        .with_frozen(frozen)
        .with_policy(policy);
    input.validate().map_err(|error| error.to_string())?;
    Ok(input)
}

fn record(at: usize, node: ScenarioNode) -> Result<PlacementNode, String> {
    let id = node.id.unwrap_or_else(|| format!("node-{at:05}"));
    let id = NodeId::new(id).map_err(|error| format!("nodes[{at}]: {error}"))?;
    let zone = match node.zone {
        Zone::Number(number) => number.to_string(),
        Zone::Name(name) => name,
    };
    let standing = match node.state {
        State::Active => Standing::Eligible,
        State::Draining => Standing::Draining,
        State::Down => Standing::Excluded,
    };
    Ok(PlacementNode::new(id)
        .with_weight(node.weight)
        .with_zone(zone)
        .with_standing(standing)
        .with_may_lead(node.may_lead))
}

/// Reads rows, in which the first entry may be `null` for "no primary".
fn table(
    name: &str,
    rows: &[Vec<Option<u16>>],
    partitions: u32,
    nodes: usize,
) -> Result<Rows, String> {
    if rows.len() > partitions as usize {
        let found = rows.len();
        return Err(format!(
            "{name} has {found} rows for {partitions} partitions"
        ));
    }
    let mut table = Rows::new();
    for (at, row) in rows.iter().enumerate() {
        let mut members = Vec::with_capacity(row.len());
        for (place, node) in row.iter().enumerate() {
            match *node {
                None if place == 0 => members.push(NO_NODE),
                Some(node) if usize::from(node) < nodes => members.push(node),
                _ => {
                    let node = node.map_or_else(|| "null".to_owned(), |node| node.to_string());
                    return Err(format!("{name}[{at}] names node {node} of {nodes}"));
                }
            }
        }
        table.push(&members);
    }
    Ok(table)
}

fn answer(placement: &Placement) -> Answer {
    let row = |row: &[u16]| {
        row.iter()
            .map(|&node| (node != NO_NODE).then_some(node))
            .collect()
    };
    Answer {
        rows: placement.rows.iter().map(row).collect(),
    }
}

fn explain(line: usize, placement: &Placement) {
    let (flags, stats) = (&placement.flags, &placement.stats);
    eprintln!(
        "line {line}: moved {}, counting alone needs {}; {} primaries change, counting alone needs {}; \
         {} led out of bounds; {stats:?} {flags:?}",
        placement.moves,
        stats.moves_bound,
        placement.primary_changes,
        stats.primary_bound,
        stats.primary_violation,
    );
}

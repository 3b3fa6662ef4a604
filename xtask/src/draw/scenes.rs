//! What the pictures show: small clusters before and after an event, and the flow behind one.
//!
//! Each scene is a plan of `MinimalMove`; its caption states moves, the proven minimum and loads as
//! computed.

use anyhow::ensure;
use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    MinimalMove, Placement, PlacementInput, PlacementNode, PlacementStrategy, Rows, Standing,
    shares, verify,
};

use super::svg::{FAINT, GONE, INK, NEW, NONE, PRIMARY, REPLICA, Svg};

/// The partitions of every scene: few enough to see each.
const PARTITIONS: u32 = 24;
const CELL: u32 = 22;
const LEFT: u32 = 190;
const HEAD: u32 = 64;

/// A node of a scene: its name, zone, and whether it takes data.
type Spec = (&'static str, &'static str, Standing);

/// An event: who was there, who is there, how many copies are wanted.
struct Scene {
    file: &'static str,
    title: &'static str,
    before: &'static [Spec],
    after: &'static [Spec],
    factor: u32,
}

const A: Spec = ("node-1", "", Standing::Eligible);
const B: Spec = ("node-2", "", Standing::Eligible);
const C: Spec = ("node-3", "", Standing::Eligible);
const D: Spec = ("node-4", "", Standing::Eligible);
const D_DRAINING: Spec = ("node-4", "", Standing::Draining);
const D_GONE: Spec = ("node-4", "", Standing::Excluded);

const SCENES: [Scene; 4] = [
    Scene {
        file: "placement-join.svg",
        title: "A fourth node joins three, two copies of each partition",
        before: &[A, B, C],
        after: &[A, B, C, D],
        factor: 2,
    },
    Scene {
        file: "placement-leave.svg",
        title: "One of four nodes is gone, two copies of each partition",
        before: &[A, B, C, D],
        after: &[A, B, C, D_GONE],
        factor: 2,
    },
    Scene {
        file: "placement-drain.svg",
        title: "One of four nodes is drained, two copies of each partition",
        before: &[A, B, C, D],
        after: &[A, B, C, D_DRAINING],
        factor: 2,
    },
    Scene {
        file: "placement-zones.svg",
        title: "Five nodes without zones are put into three, three copies of each partition",
        before: &[A, B, C, D, ("node-5", "", Standing::Eligible)],
        after: &[
            ("node-1", "east", Standing::Eligible),
            ("node-2", "east", Standing::Eligible),
            ("node-3", "west", Standing::Eligible),
            ("node-4", "west", Standing::Eligible),
            ("node-5", "north", Standing::Eligible),
        ],
        factor: 3,
    },
];

/// Draws every picture, with its file name.
pub(super) fn all() -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut pictures = Vec::new();
    for scene in &SCENES {
        let (input, placement) = play(scene)?;
        pictures.push((scene.file, table(scene, &input, &placement)?));
    }
    let (input, placement) = play(&SCENES[0])?;
    pictures.push(("placement-flow.svg", flow(&input, &placement)?));
    Ok(pictures)
}

fn nodes(specs: &[Spec]) -> anyhow::Result<Vec<PlacementNode>> {
    let known = |&(id, zone, standing): &Spec| -> anyhow::Result<PlacementNode> {
        let node = PlacementNode::new(NodeId::new(id)?).with_zone(zone);
        Ok(node
            .with_standing(standing)
            .with_may_lead(standing != Standing::Excluded))
    };
    specs.iter().map(known).collect()
}

/// Places the nodes before, and from there the nodes after; both checked.
fn play(scene: &Scene) -> anyhow::Result<(PlacementInput, Placement)> {
    let strategy = MinimalMove::new();
    let first = PlacementInput::new(PARTITIONS, scene.factor, nodes(scene.before)?);
    let start = strategy.place(&first)?;
    verify(&first, &start)?;
    let input = PlacementInput::new(PARTITIONS, scene.factor, nodes(scene.after)?);
    let input = input.with_current(start.rows);
    let placement = strategy.place(&input)?;
    verify(&input, &placement)?;
    Ok((input, placement))
}

/// Draws a line a node and a cell a partition.
fn table(scene: &Scene, input: &PlacementInput, placement: &Placement) -> anyhow::Result<String> {
    let bounds = shares(input)?;
    let verdict = verify(input, placement)?;
    let lines = u32::try_from(input.nodes.len())?;
    let width = LEFT + PARTITIONS * CELL + 190;
    let height = HEAD + (lines + 1) * (CELL + 8) + 40;
    let mut svg = Svg::new(width, height, scene.title);
    svg.text(12, 22, INK, scene.title);
    let caption = format!(
        "moved {}, minimum {} (proven by the certificate); {} primaries change",
        placement.moves, verdict.moves, placement.primary_changes
    );
    svg.text(12, 42, FAINT, &caption);
    let mut y = HEAD;
    for (at, node) in (0u16..).zip(&input.nodes) {
        let name = match (&*node.zone, node.standing) {
            ("", Standing::Eligible) => node.id.to_string(),
            ("", Standing::Draining) => format!("{} (draining)", node.id),
            ("", _) => format!("{} (gone)", node.id),
            (zone, _) => format!("{} ({zone})", node.id),
        };
        svg.text(12, y + 16, INK, &name);
        for partition in 0..PARTITIONS {
            let x = LEFT + partition * CELL;
            cell(
                &mut svg,
                input,
                &placement.rows,
                (partition as usize, at),
                (x, y),
            );
        }
        let share = bounds.nodes[usize::from(at)];
        let range = share.map_or_else(
            || "takes no data".to_owned(),
            |share| match share.floor == share.ceil {
                true => format!("share {}", share.floor),
                false => format!("share {} to {}", share.floor, share.ceil),
            },
        );
        let (before, after) = (load(&input.current, at), load(&placement.rows, at));
        let text = format!("{before} -> {after}, {range}");
        svg.text(LEFT + PARTITIONS * CELL + 10, y + 16, FAINT, &text);
        y += CELL + 8;
    }
    legend(&mut svg, y + 10);
    Ok(svg.finish())
}

/// Draws what a node is to a partition, and what it was.
fn cell(
    svg: &mut Svg,
    input: &PlacementInput,
    rows: &Rows,
    (partition, node): (usize, u16),
    (x, y): (u32, u32),
) {
    let (was, is) = (
        input.current.contains(partition, node),
        rows.contains(partition, node),
    );
    let leads = rows.primary(partition) == Some(node);
    let fill = match (is, leads) {
        (true, true) => PRIMARY,
        (true, false) => REPLICA,
        (false, _) => NONE,
    };
    svg.rect(x, y, CELL - 2, CELL - 2, fill);
    match (was, is) {
        (false, true) => svg.frame(x + 1, y + 1, CELL - 4, CELL - 4, NEW),
        (true, false) => svg.frame(x + 1, y + 1, CELL - 4, CELL - 4, GONE),
        _ => {}
    }
}

fn legend(svg: &mut Svg, y: u32) {
    let mut x = LEFT;
    for (fill, frame, text) in [
        (PRIMARY, None, "primary"),
        (REPLICA, None, "replica"),
        (REPLICA, Some(NEW), "copied"),
        (NONE, Some(GONE), "given up"),
    ] {
        svg.rect(x, y, CELL - 2, CELL - 2, fill);
        if let Some(frame) = frame {
            svg.frame(x + 1, y + 1, CELL - 4, CELL - 4, frame);
        }
        svg.text(x + CELL + 4, y + 15, FAINT, text);
        x += 120;
    }
}

fn load(rows: &Rows, node: u16) -> usize {
    (0..rows.len())
        .filter(|&row| rows.contains(row, node))
        .count()
}

/// Draws the network that the join is a flow of: some partitions, all nodes, prices and bounds.
fn flow(input: &PlacementInput, placement: &Placement) -> anyhow::Result<String> {
    let bounds = shares(input)?;
    ensure!(
        placement.certificate.is_some(),
        "a checked plan has a certificate"
    );
    let prices = placement
        .certificate
        .iter()
        .flat_map(|it| &it.replica_prices);
    let prices: Vec<i32> = prices.copied().collect();
    let shown: Vec<usize> = (0..placement.rows.len())
        .filter(|&row| {
            placement
                .rows
                .members(row)
                .any(|node| !input.current.contains(row, node))
        })
        .take(3)
        .chain(
            (0..placement.rows.len())
                .filter(|&row| {
                    placement
                        .rows
                        .members(row)
                        .all(|node| input.current.contains(row, node))
                })
                .take(3),
        )
        .collect();
    let title = "The join as a flow: six of the 24 partitions";
    let mut svg = Svg::new(760, 400, title);
    svg.text(12, 22, INK, title);
    svg.text(
        12,
        42,
        FAINT,
        "a line is one replica; blue costs 0 (it was there), green costs 1 (a copy), grey is given up",
    );
    let row_y = |at: usize| 80 + u32::try_from(at).unwrap_or(0) * 52;
    let node_y = |node: u16| 95 + u32::from(node) * 78;
    for (at, &row) in shown.iter().enumerate() {
        for node in placement.rows.members(row) {
            let (stroke, width) = match input.current.contains(row, node) {
                true => (PRIMARY, 2),
                false => (NEW, 3),
            };
            svg.arrow((170, row_y(at)), (420, node_y(node)), stroke, width);
        }
        for node in input.current.members(row) {
            if !placement.rows.contains(row, node) {
                svg.arrow((170, row_y(at)), (420, node_y(node)), "#c0c7ce", 2);
            }
        }
        svg.text(24, row_y(at) + 4, INK, &format!("partition {row}: 2 out"));
    }
    for (at, node) in (0u16..).zip(&input.nodes) {
        let Some(share) = bounds.nodes[usize::from(at)] else {
            continue;
        };
        let price = prices.get(usize::from(at)).copied().unwrap_or(0);
        let (was, is) = (load(&input.current, at), load(&placement.rows, at));
        let (id, floor, ceil) = (&node.id, share.floor, share.ceil);
        svg.text(
            430,
            node_y(at),
            INK,
            &format!("{id}: [{floor}, {ceil}] in, price {price}"),
        );
        svg.text(
            430,
            node_y(at) + 18,
            FAINT,
            &format!("held {was}, holds {is}"),
        );
    }
    Ok(svg.finish())
}

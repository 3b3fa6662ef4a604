//! The partition map as a picture: a line a node, a cell a partition; and what every node holds
//! before and after a step as bars.
//!
//! On a terminal cells are blocks in the node's colour; elsewhere they are plain characters.

use std::collections::BTreeSet;

use console::{Color, style};

use crate::harness::{PartitionRow, View};

const COLORS: [Color; 6] = [
    Color::Cyan,
    Color::Green,
    Color::Yellow,
    Color::Magenta,
    Color::Blue,
    Color::Red,
];

/// What a node is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Replica,
    Joining,
    Leaving,
    None,
}

impl Role {
    fn of(node: &str, row: &PartitionRow) -> Self {
        let among = |ids: &[String]| ids.iter().any(|id| id == node);
        if among(&row.joining) {
            Self::Joining
        } else if among(&row.leaving) {
            Self::Leaving
        } else if row.primary.as_deref() == Some(node) {
            Self::Primary
        } else if among(&row.replicas) {
            Self::Replica
        } else {
            Self::None
        }
    }

    fn cell(self, pretty: bool) -> char {
        match (self, pretty) {
            (Self::Primary, true) => '█',
            (Self::Replica, true) => '░',
            (Self::None, true) => ' ',
            (Self::Primary, false) => 'P',
            (Self::Replica, false) => 'r',
            (Self::None, false) => '.',
            (Self::Joining, _) => '+',
            (Self::Leaving, _) => '-',
        }
    }
}

/// How many columns the counts of a node take.
const COUNTS: usize = 30;

/// Draws `view` in lines of at most `columns` columns.
pub(crate) fn draw(view: &View, columns: usize, pretty: bool) -> String {
    let names = view.nodes.keys().map(|name| name.chars().count());
    let names = names.max().unwrap_or_default();
    let room = columns.saturating_sub(names + 4);
    let per_line = [128, 64, 32].into_iter().find(|width| *width <= room);
    let per_line = per_line.unwrap_or(16).min(view.partitions.len().max(1));
    let counts_fit = names + 4 + per_line + COUNTS <= columns;
    let mut out = String::new();
    for (block, rows) in view.partitions.chunks(per_line).enumerate() {
        let first = block * per_line;
        let last = first + rows.len() - 1;
        if view.partitions.len() > per_line {
            out.push_str(&format!("  partitions {first} to {last}\n"));
        }
        let is_last = last + 1 == view.partitions.len();
        for (index, id) in view.nodes.keys().enumerate() {
            let cells: String = rows
                .iter()
                .map(|row| Role::of(id, row).cell(pretty))
                .collect();
            let cells = paint(&cells, index, pretty);
            let mut line = format!("  {id:names$} {cells}");
            if is_last && counts_fit {
                line.push_str(&" ".repeat(per_line - rows.len()));
                line.push_str(&counts(view, id));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    if !counts_fit {
        for (index, id) in view.nodes.keys().enumerate() {
            let id_padded = paint(&format!("{id:names$}"), index, pretty);
            out.push_str(&format!("  {id_padded} {}\n", counts(view, id)));
        }
    }
    let legend = [
        Role::Primary,
        Role::Replica,
        Role::Joining,
        Role::Leaving,
        Role::None,
    ];
    let names = ["primary", "replica", "joining", "leaving", "nothing"];
    let legend: Vec<String> = legend
        .iter()
        .zip(names)
        .map(|(role, name)| format!("{:?} {name}", role.cell(pretty)))
        .collect();
    out.push_str(&format!("  epoch {}; {}\n", view.epoch, legend.join(", ")));
    out
}

/// The longest bar of [`balance`]: two of them, their figures and a name fit 80 columns.
const BAR: usize = 18;

/// Draws what every node of either view holds, before and after, as bars of primaries and replicas.
pub(crate) fn balance(before: &View, after: &View, pretty: bool) -> String {
    let ids: BTreeSet<&String> = before.nodes.keys().chain(after.nodes.keys()).collect();
    let names = ids.iter().map(|id| id.chars().count()).max();
    let names = names.unwrap_or_default();
    let held = |view: &View, id: &str| (view.primaries_of(id), view.replicas_of(id));
    let sums = ids
        .iter()
        .flat_map(|id| [held(before, id), held(after, id)]);
    let most = sums.map(|(led, other)| led + other).max();
    let most = most.unwrap_or_default().max(1);
    let side = |view: &View, id: &str, index: usize| {
        let (led, other) = held(view, id);
        // Any primary shows, and both parts end where the whole does.
        let whole = ((led + other) * BAR).div_ceil(most);
        let solid = (led * BAR).div_ceil(most).min(whole);
        let cell = |role: Role, count| role.cell(pretty).to_string().repeat(count);
        let bar = cell(Role::Primary, solid) + &cell(Role::Replica, whole - solid);
        let figures = match view.nodes.contains_key(id) {
            true => format!("{led:>3} +{other:>4}"),
            false => format!("{:>8}", "-"),
        };
        let room = " ".repeat(BAR - whole);
        format!("{}{room} {figures}", paint(&bar, index, pretty))
    };
    let width = BAR + 9;
    let mut out = format!("  {:names$} {:width$}    after\n", "", "before");
    for (index, id) in ids.into_iter().enumerate() {
        let (then, now) = (side(before, id, index), side(after, id, index));
        let weight = after.nodes.get(id).map_or(1, |node| node.weight);
        let weight = match weight {
            1 => String::new(),
            weight => format!("  weight {weight}"),
        };
        out.push_str(&format!("  {id:names$} {then} -> {now}{weight}\n"));
    }
    out
}

fn paint(text: &str, index: usize, pretty: bool) -> String {
    if pretty {
        style(text).fg(COLORS[index % COLORS.len()]).to_string()
    } else {
        text.to_owned()
    }
}

fn counts(view: &View, id: &str) -> String {
    let (primaries, replicas) = (view.primaries_of(id), view.replicas_of(id));
    let status = view.nodes.get(id).map(|node| node.status.as_str());
    let status = status
        .filter(|status| *status != "active")
        .unwrap_or_default();
    let counts = format!("{primaries:>4} primary {replicas:>4} replica  {status}");
    counts.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::view;

    #[test]
    fn a_cell_shows_the_role() {
        let mut view = view(&["a", "b"], &[&["a", "b"], &["b"], &["a"]]);
        view.partitions[1].joining = vec!["a".into()];
        let drawn = draw(&view, 80, false);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[0], "  a P+P   2 primary    0 replica");
        assert_eq!(lines[1], "  b rP.   1 primary    1 replica");
        assert!(
            lines[2].starts_with("  epoch 7; 'P' primary"),
            "{}",
            lines[2]
        );
    }

    #[test]
    fn the_balance_stands_side_by_side() {
        let before = view(&["a", "b"], &[&["a", "b"], &["b", "a"], &["a", "b"]]);
        let mut after = view(&["a", "c"], &[&["a", "c"], &["c"], &["a"]]);
        after.nodes.get_mut("c").unwrap().weight = 2;
        let lines = [
            "    before                         after",
            "  a PPPPPPPPPPPPrrrrrr   2 +   1 -> PPPPPPPPPPPP         2 +   0",
            "  b PPPPPPrrrrrrrrrrrr   1 +   2 ->                           -",
            "  c                           - -> PPPPPPrrrrrr         1 +   1  weight 2",
        ];
        let drawn = balance(&before, &after, false);
        assert_eq!(drawn.lines().collect::<Vec<_>>(), lines, "{drawn}");
    }

    #[test]
    fn a_wide_map_wraps_and_the_counts_go_below() {
        let rows: Vec<&[&str]> = vec![&["a"]; 40];
        let drawn = draw(&view(&["a"], &rows), 40, false);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[0], "  partitions 0 to 31");
        assert_eq!(lines[1], format!("  a {}", "P".repeat(32)));
        assert_eq!(lines[2], "  partitions 32 to 39");
        assert_eq!(lines[3], "  a PPPPPPPP");
        assert_eq!(lines[4], "  a   40 primary    0 replica");
    }
}

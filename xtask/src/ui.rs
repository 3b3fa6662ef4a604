//! Lines, progress bars and tables on the terminal; plain lines where there is no terminal.
//!
//! Bars live on standard error and vanish when done; what is worth keeping goes to standard output.

use std::time::Duration;

use console::{Term, measure_text_width, style};
use indicatif::{ProgressBar, ProgressStyle};

/// Tells whether colour and pictures make sense on standard output.
pub(crate) fn is_terminal() -> bool {
    Term::stdout().is_term() && console::colors_enabled()
}

/// Returns how many columns standard output has.
pub(crate) fn columns() -> usize {
    let (_, columns) = Term::stdout().size();
    if Term::stdout().is_term() {
        usize::from(columns)
    } else {
        170
    }
}

/// Prints the headline of a step.
pub(crate) fn headline(text: &str) {
    println!("\n{}", style(text).bold().cyan());
}

/// Prints one thing that happened.
pub(crate) fn say(text: &str) {
    println!("  {text}");
}

/// A bar over `total` things, for what takes long.
pub(crate) fn bar(what: &'static str, total: u64) -> ProgressBar {
    let template = "  {msg:<28} [{bar:40}] {human_pos}/{human_len} {elapsed}";
    let look = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::new(total).with_style(look);
    bar.set_message(what);
    bar
}

/// A line that shows something is being waited for.
pub(crate) fn spinner(what: String) -> ProgressBar {
    let look = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(look);
    spinner.set_message(what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// Renders rows as a table; the first row is the header, all columns but the first lean right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| measure_text_width(cell))
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - measure_text_width(cell));
            let cell = if column == 0 {
                format!("{cell}{padding}")
            } else {
                format!("{padding}{cell}")
            };
            line.push_str(if column == 0 { "  " } else { "   " });
            line.push_str(&cell);
        }
        out.push_str(line.trim_end());
        out.push('\n');
        if index == 0 {
            let rule: usize = widths.iter().map(|width| width + 3).sum::<usize>() - 1;
            out.push_str(&format!("  {}\n", "-".repeat(rule.saturating_sub(2))));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let shown = table(&[
            row(["step", "took", "moved"]),
            row(["form three", "940 ms", "512"]),
        ]);
        assert_eq!(
            shown,
            "  step           took   moved\n  ---------------------------\n  form three   940 ms     512\n"
        );
    }
}

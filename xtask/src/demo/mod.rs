//! `cargo xtask demo`: forms a cluster of real processes, loads it, breaks it and shows it healed.
//!
//! This file holds the frame: options, the closing table, what stays up. The steps are in `steps`.

mod input;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use console::style;

use crate::clock::human;
use crate::harness::{Cluster, Manner, ProgramArgs, View};
use crate::kv::Records;
use crate::ui::{self, headline, say};
use crate::{picture, runtime};
use input::Input;

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Load the lines of this file, a record a line (default: the files of this repository).
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Leave the cluster up at the end and print its URLs, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    program: ProgramArgs,
}

/// Three, four and five nodes can share them evenly: every node, the leader too, is then primary
/// of most.
const PARTITIONS: u32 = 240;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let input = Input::read(args.input.as_deref())?;
    let binary = args.program.prepare()?;
    let mut manner = args.manner;
    manner.partitions.get_or_insert(PARTITIONS);
    let mut kept = false;
    let outcome = runtime::run(async {
        let mut demo = Demo {
            cluster: Cluster::new(&binary, manner)?,
            input,
            records: None,
            rows: Vec::new(),
            notes: Vec::new(),
        };
        let outcome = demo.steps().await;
        demo.close(&outcome);
        if args.keep && outcome.is_ok() {
            kept = true;
            demo.stay_up().await;
        }
        outcome
    });
    match outcome {
        // All was shown; Ctrl-C is how a kept cluster is meant to end.
        Err(error) if kept && error.is::<runtime::Interrupted>() => Ok(()),
        outcome => outcome,
    }
}

struct Demo {
    cluster: Cluster,
    input: Input,
    records: Option<Records>,
    rows: Vec<Row>,
    /// What else was measured, shown below the table.
    notes: Vec<String>,
}

/// One line of the closing table.
struct Row {
    step: String,
    took: Duration,
    /// Copies made, and the fewest that were proven to do; none where nothing was to be moved.
    moved: Option<(usize, usize)>,
    verified: usize,
}

impl Demo {
    fn records(&self) -> anyhow::Result<&Records> {
        self.records
            .as_ref()
            .context("the client is not connected yet")
    }

    fn show(&self, view: &View) {
        print!("{}", picture::draw(view, ui::columns(), ui::is_terminal()));
    }

    fn row(&mut self, step: &str, took: Duration, moved: Option<(usize, usize)>, verified: usize) {
        self.rows.push(Row {
            step: step.to_owned(),
            took,
            moved,
            verified,
        });
    }

    /// Prints the closing table, and where the logs are if something went wrong.
    fn close(&mut self, outcome: &anyhow::Result<()>) {
        headline("summary");
        let header = ["step", "took", "moved", "minimum", "records verified"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(|row| {
            let figure =
                |value: Option<usize>| value.map_or_else(|| "-".to_owned(), |it| it.to_string());
            let verified = figure(Some(row.verified).filter(|verified| *verified > 0));
            vec![
                row.step.clone(),
                human(row.took),
                figure(row.moved.map(|(moved, _)| moved)),
                figure(row.moved.map(|(_, minimum)| minimum)),
                verified,
            ]
        }));
        print!("{}", ui::table(&rows));
        println!();
        for note in &self.notes {
            say(note);
        }
        match outcome {
            Ok(()) => println!(
                "  {} every step healed with the fewest copies, every record verified",
                style("ok:").green().bold()
            ),
            Err(error) => {
                println!("  {} {error:#}", style("failed:").red().bold());
                println!(
                    "  logs and data: {}",
                    self.cluster.keep_directory().display()
                );
            }
        }
    }

    /// Prints where the cluster is, and waits for ever.
    async fn stay_up(&self) {
        headline("the cluster stays up; Ctrl-C ends it");
        for member in self.cluster.members().filter(|member| member.is_up()) {
            let pid = member.pid().unwrap_or_default();
            let address = member.address();
            say(&format!(
                "{}  http://{address}/cluster  http://127.0.0.1:{}/kv/stats  pid {pid}",
                member.id, member.kv_port
            ));
        }
        say(&format!(
            "directory: {}",
            self.cluster.directory().display()
        ));
        std::future::pending().await
    }
}

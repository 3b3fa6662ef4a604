//! The output of processes as it comes: each line with the time at which it was read here.
//!
//! Processes share no clock that can be compared; lines read by one process do. The log of a node
//! gets every byte all the same.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::clock::Stopwatch;

/// How many lines may wait to be read; further ones stand in the log only.
const LINES_MAX: usize = 65_536;

/// A line of the output of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The node.
    pub(crate) node: String,
    /// When it was read, by the stopwatch of the listener.
    pub(crate) at: Duration,
    /// The line.
    pub(crate) text: String,
}

/// Takes lines of one node.
#[derive(Debug)]
pub(super) struct Ear {
    node: String,
    listening: Listening,
}

/// Takes lines of all nodes of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    watch: Stopwatch,
    lines: Sender<Line>,
}

impl Listening {
    /// Returns both ends; times are those of `watch`.
    pub(super) fn start(watch: Stopwatch) -> (Self, Receiver<Line>) {
        let (lines, received) = channel(LINES_MAX);
        (Self { watch, lines }, received)
    }

    pub(super) fn ear(&self, node: &str) -> Ear {
        Ear {
            node: node.to_owned(),
            listening: self.clone(),
        }
    }
}

/// Copies `output` to `log` and tells of every line, until the process ends.
pub(super) fn copy_and_tell(output: PipeReader, mut log: File, ear: &Ear) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match output.read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let at = ear.listening.watch.elapsed();
        // A full disk must not stop the node.
        let _ = log.write_all(&bytes);
        let line = Line {
            node: ear.node.clone(),
            at,
            text: String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        };
        // Never wait: that would stop the node.
        let _ = ear.listening.lines.try_send(line);
    }
}

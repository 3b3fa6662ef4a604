//! What happened in one run, in virtual time: lines for people, a running hash for comparison.
//!
//! The hash is the same whether the lines are kept or not, so that a run that nobody reads is
//! compared with one that somebody does.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

/// The most lines kept; the oldest beyond it are dropped by halves.
const LINES_MAX: usize = 1_000_000;

/// The record of one run.
#[derive(Clone)]
pub struct Trace {
    hash: Xxh3,
    steps: u64,
    /// Lines for people, where somebody reads them.
    lines: Option<Vec<String>>,
    /// What [`Self::line`] writes into.
    scratch: String,
}

impl Trace {
    /// Returns an empty record that keeps its lines if `keep_lines`.
    #[must_use]
    pub fn new(keep_lines: bool) -> Self {
        Self {
            hash: Xxh3::new(),
            steps: 0,
            lines: keep_lines.then(Vec::new),
            scratch: String::new(),
        }
    }

    /// Records one step at `at`: `what` and `numbers` go into the hash, and `line` is asked for
    /// only where somebody reads. For steps taken by the million.
    pub fn step(
        &mut self,
        at: Duration,
        what: &'static str,
        numbers: &[u64],
        line: impl FnOnce() -> String,
    ) {
        self.begin(at);
        self.hash.update(what.as_bytes());
        for number in numbers {
            self.hash.update(&number.to_le_bytes());
        }
        if self.lines.is_some() {
            let line = line();
            self.keep(at, &format!("{what} {line}"));
        }
    }

    /// Records the line `text` at `at`; the hash is of the text.
    pub fn line(&mut self, at: Duration, text: fmt::Arguments<'_>) {
        self.begin(at);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // Writing into a string does not fail; a `Display` that does has written what it could.
        let _ = scratch.write_fmt(text);
        self.hash.update(scratch.as_bytes());
        self.keep(at, &scratch);
        self.scratch = scratch;
    }

    /// Keeps a line for people that says nothing new: it does not go into the hash.
    pub fn comment(&mut self, at: Duration, text: &str) {
        self.keep(at, text);
    }

    fn begin(&mut self, at: Duration) {
        self.steps += 1;
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.hash.update(&nanos.to_le_bytes());
    }

    fn keep(&mut self, at: Duration, text: &str) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_MAX {
            lines.drain(..LINES_MAX / 2);
        }
        lines.push(format!("{:>12.6}  {text}", at.as_secs_f64()));
    }

    /// Tells whether lines are kept.
    #[must_use]
    pub const fn keeps_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// Returns the hash of everything recorded so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    /// Returns how many steps were recorded.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the lines kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash())
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_millis(1_250);

    #[test]
    fn the_hash_does_not_depend_on_who_reads() {
        let (mut read, mut unread) = (Trace::new(true), Trace::new(false));
        for trace in [&mut read, &mut unread] {
            trace.step(AT, "crash", &[3], || String::from("node-3"));
            trace.line(AT, format_args!("node-{} restarts", 3));
        }
        assert_eq!((read.hash(), read.steps()), (unread.hash(), 2));
        assert_eq!(unread.lines(), [""; 0]);
        let lines = [
            "    1.250000  crash node-3",
            "    1.250000  node-3 restarts",
        ];
        assert_eq!(read.lines(), lines);
    }

    #[test]
    fn time_order_and_numbers_all_count() {
        let hash = |steps: &[(u64, u64)]| {
            let mut trace = Trace::new(false);
            for &(at, number) in steps {
                trace.step(Duration::from_nanos(at), "x", &[number], String::new);
            }
            trace.hash()
        };
        let base = hash(&[(1, 1), (2, 2)]);
        assert_ne!(base, hash(&[(1, 1), (3, 2)]));
        assert_ne!(base, hash(&[(1, 2), (2, 1)]));
        assert_ne!(base, hash(&[(1, 1)]));
    }
}

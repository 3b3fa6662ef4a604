//! How far copies are: what the copying node says of one copy, on its way to the leader and from
//! there to everybody.
//!
//! Not part of the replicated state: a report is worth nothing once the next one is there, and
//! nothing is decided by it but that a copy that advances is not overdue
//! ([`crate::coordinator`]). [`CopyBook`] is the same on all three ends: the copying node writes
//! its own down, the leader those of all, every other node what the leader passes on.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::id::{PartitionId, RaftId, StageId};
use crate::state::ClusterState;
use crate::time::UnixMillis;

/// The longest text of a progress report, in bytes.
pub const COPY_TEXT_MAX_BYTES: usize = 128;

/// The most reports one message carries; the rest goes with the next one.
pub const COPY_REPORTS_PER_MESSAGE: usize = 256;

/// How far one copy is, in whatever the program counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyProgress {
    /// How much is done.
    pub done: u64,
    /// How much there is, where the program knows.
    pub total: Option<u64>,
    /// What the program says to it: a unit, a file; at most 128 bytes.
    pub text: Arc<str>,
}

impl CopyProgress {
    /// Returns how far a copy is.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is too long.
    pub fn new(done: u64, total: Option<u64>, text: &str) -> Result<Self, ConfigError> {
        if text.len() > COPY_TEXT_MAX_BYTES {
            let limit = format_args!("at most {COPY_TEXT_MAX_BYTES} bytes");
            return Err(ConfigError::new("text", text, limit));
        }
        let text = Arc::from(text);
        Ok(Self { done, total, text })
    }
}

impl fmt::Display for CopyProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.done)?;
        if let Some(total) = self.total {
            write!(f, " of {total}")?;
        }
        match &*self.text {
            "" => Ok(()),
            text => write!(f, " {text}"),
        }
    }
}

/// One copy and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyReport {
    /// Who copies.
    pub node: RaftId,
    /// What.
    pub partition: PartitionId,
    /// The stage under which it was asked to.
    pub stage: StageId,
    /// How far it is.
    pub progress: CopyProgress,
    /// When it last got further, by the wall clock of the leader.
    pub advanced_at: UnixMillis,
}

impl CopyReport {
    /// Returns a report of the copying node itself.
    #[must_use]
    pub const fn new(
        node: RaftId,
        partition: PartitionId,
        stage: StageId,
        progress: CopyProgress,
    ) -> Self {
        Self {
            node,
            partition,
            stage,
            progress,
            advanced_at: UnixMillis(0),
        }
    }

    /// Tells whether the cluster still waits for this copy.
    #[must_use]
    pub fn is_awaited(&self, state: &ClusterState) -> bool {
        let partition = state.partition(self.partition);
        partition.is_some_and(|partition| {
            let mut joining = partition.joining().iter();
            // Nodes that join in one move share its stage.
            let done = joining.any(|joining| joining.node == self.node && joining.synced);
            partition.is_syncing(self.node, self.stage) && !done
        })
    }
}

/// The newest report about each copy, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct CopyBook {
    newest: u64,
    reports: BTreeMap<(PartitionId, StageId, RaftId), Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The how manieth report this is.
    number: u64,
    /// The most that was ever said to be done.
    most: u64,
    report: CopyReport,
}

impl CopyBook {
    /// Takes `report` down, as it is, and forgets an older one. The same again is nothing new.
    pub fn record(&mut self, report: CopyReport) {
        let key = (report.partition, report.stage, report.node);
        let known = self.reports.get(&key);
        if known.is_some_and(|known| known.report == report) {
            return;
        }
        let most = known.map_or(0, |known| known.most);
        self.newest += 1;
        let entry = Entry {
            number: self.newest,
            most: most.max(report.progress.done),
            report,
        };
        self.reports.insert(key, entry);
    }

    /// Takes down what the copying node reports `at` this moment. Tells whether the copy got further:
    /// more is done than was ever said under its stage.
    pub fn heed(&mut self, mut report: CopyReport, at: UnixMillis) -> bool {
        let key = (report.partition, report.stage, report.node);
        let known = self.reports.get(&key);
        let advances = known.is_none_or(|known| report.progress.done > known.most);
        report.advanced_at = known
            .filter(|_| !advances)
            .map_or(at, |known| known.report.advanced_at);
        self.record(report);
        advances
    }

    /// Returns the report about the copy of `partition` that `node` makes under `stage`.
    #[must_use]
    pub fn find(
        &self,
        node: RaftId,
        partition: PartitionId,
        stage: StageId,
    ) -> Option<&CopyReport> {
        let found = self.reports.get(&(partition, stage, node));
        found.map(|entry| &entry.report)
    }

    /// Returns the reports that came after the first `seen` ones, oldest first, as many as go into
    /// one message, and what `seen` is after them.
    #[must_use]
    pub fn after(&self, seen: u64) -> (Vec<CopyReport>, u64) {
        let entries = self.reports.values();
        let mut newer: Vec<&Entry> = entries.filter(|entry| entry.number > seen).collect();
        newer.sort_unstable_by_key(|entry| entry.number);
        newer.truncate(COPY_REPORTS_PER_MESSAGE);
        let upto = newer.last().map_or(seen, |entry| entry.number);
        let reports = newer.into_iter().map(|entry| entry.report.clone());
        (reports.collect(), upto)
    }

    /// Forgets what the cluster waits for no more. A stage that `state` has yet to open is kept: who
    /// reports may have applied more of the log.
    pub fn retain_awaited(&mut self, state: &ClusterState) {
        let applied = state.applied().0;
        self.reports.retain(|_, Entry { report, .. }| {
            // A stage is the log index that opened it.
            report.stage.0 > applied || report.is_awaited(state)
        });
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const NOW: UnixMillis = UnixMillis(5);
    const LATER: UnixMillis = UnixMillis(9);

    fn report(partition: u32, done: u64, text: &str) -> CopyReport {
        let progress = CopyProgress::new(done, Some(10), text).unwrap();
        CopyReport::new(RaftId(2), PartitionId(partition), StageId(7), progress)
    }

    #[test]
    fn a_copy_advances_by_doing_more_and_not_by_talking() {
        let mut book = CopyBook::default();
        let advanced_at = |book: &CopyBook| {
            let found = book.find(RaftId(2), PartitionId(1), StageId(7));
            found.unwrap().advanced_at
        };
        assert!(book.heed(report(1, 0, ""), NOW), "the first report");
        assert!(!book.heed(report(1, 0, ""), LATER), "the same again");
        assert!(!book.heed(report(1, 0, "still here"), LATER));
        assert_eq!(advanced_at(&book), NOW);
        assert!(book.heed(report(1, 4, ""), LATER));
        assert_eq!(advanced_at(&book), LATER);
        assert!(!book.heed(report(1, 0, "again from the start"), LATER));
        assert!(!book.heed(report(1, 3, ""), LATER), "it was further before");
        assert!(book.heed(report(1, 5, ""), LATER));
    }

    #[test]
    fn each_report_is_passed_on_once_and_many_in_turns() {
        let mut book = CopyBook::default();
        for partition in 0..300 {
            book.record(report(partition, 1, ""));
        }
        let (first, seen) = book.after(0);
        assert_eq!((first.len(), seen), (256, 256));
        book.record(report(3, 2, ""));
        let (rest, seen) = book.after(seen);
        assert_eq!((rest.len(), seen), (45, 301));
        assert_eq!(rest[44], report(3, 2, ""));
        assert_eq!(book.after(seen), (Vec::new(), 301));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_with_the_limit() {
        let refused = CopyProgress::new(0, None, &"x".repeat(129)).unwrap_err();
        assert!(refused.to_string().ends_with("must be at most 128 bytes"));
    }
}

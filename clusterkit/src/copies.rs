//! Reports of copies on their way: to the leader with pulses, from it to everybody with the answers.
//!
//! What a report is, and what it is good for, is in `clusterkit_core::copying`; programs make them
//! through `hooks/copying.rs`.

use std::sync::PoisonError;

use clusterkit_core::control::View;
use clusterkit_core::copying::{CopyBook, CopyReport};
use clusterkit_core::id::RaftId;
use serde::{Deserialize, Serialize};

use crate::inner::Inner;

/// How far a node has read the book of a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopiesSeen {
    /// The term of the leader: another one keeps another book.
    term: u64,
    seen: u64,
}

/// What a leader passes on: reports that are new to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyNews {
    upto: CopiesSeen,
    reports: Vec<CopyReport>,
}

/// What the leader has passed on so far.
#[derive(Debug, Default)]
pub(crate) struct OthersCopies {
    upto: CopiesSeen,
    book: CopyBook,
}

/// How much of its own reports a node has told the leader.
#[derive(Debug, Default)]
pub(crate) struct CopiesTold {
    term: u64,
    told: u64,
}

impl CopiesTold {
    /// Returns what the leader in `view` is to hear, and what [`Self::heard`] takes once it has.
    pub(crate) fn news(&mut self, inner: &Inner, view: &View) -> (Vec<CopyReport>, u64) {
        if self.term != view.leadership.term {
            let term = view.leadership.term;
            *self = Self { term, told: 0 };
        }
        inner.copies.after(self.told, &view.state)
    }

    pub(crate) const fn heard(&mut self, upto: u64) {
        self.told = upto;
    }
}

impl Inner {
    /// Returns how far this node has read the leader's book.
    pub(crate) fn copies_seen(&self) -> CopiesSeen {
        let others = self.others_copies.lock();
        others.unwrap_or_else(PoisonError::into_inner).upto
    }

    /// Takes what the leader has passed on.
    pub(crate) fn take_copies(&self, view: &View, news: CopyNews) {
        let others = self.others_copies.lock();
        let mut others = others.unwrap_or_else(PoisonError::into_inner);
        others.book.retain_awaited(&view.state);
        others.upto = news.upto;
        for report in news.reports {
            others.book.record(report);
        }
    }

    /// Takes down as the leader what `node` says of its copies.
    pub(crate) fn hear_copies(&self, node: RaftId, reports: &[CopyReport]) {
        if reports.is_empty() {
            return;
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut coordinator = self.coordinator();
        for report in reports.iter().filter(|report| report.node == node) {
            coordinator.handle_copy(report.clone(), now, wall);
        }
    }

    /// Returns as the leader what a node that is at `seen` has not heard yet.
    pub(crate) fn copy_news(&self, view: &View, seen: CopiesSeen) -> CopyNews {
        let term = view.leadership.term;
        let known = if seen.term == term { seen.seen } else { 0 };
        let (reports, seen) = self.coordinator().copies().after(known);
        let upto = CopiesSeen { term, seen };
        CopyNews { upto, reports }
    }

    /// Returns how far copies are, as far as this node knows.
    pub(crate) fn known_copies(&self, view: &View) -> CopyBook {
        if view.leadership.is_leader {
            return self.coordinator().copies().clone();
        }
        let others = self.others_copies.lock();
        let others = others.unwrap_or_else(PoisonError::into_inner);
        others.book.clone()
    }
}

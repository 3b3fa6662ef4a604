//! One simulated file: what reads see, what is durable, and what lies between.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use super::crash::{CrashReport, Fate};
use super::image::{Image, Page, Span};

/// Bytes of a sector: what a medium writes whole or not at all.
const SECTOR: usize = 512;

/// A file, whatever it is called.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What reads see.
    seen: Image,
    /// What a crash cannot take.
    durable: Image,
    /// What came since, in order.
    unsynced: Vec<Unsynced>,
}

#[derive(Clone, Debug)]
struct Unsynced {
    change: Change,
    /// A sync failed after it: no later one covers it.
    abandoned: bool,
}

#[derive(Clone, Debug)]
enum Change {
    /// A part of a page was written; the page as it was then.
    Write(Span, Page),
    SetLen(u64),
}

impl Inode {
    pub(super) const fn len(&self) -> u64 {
        self.seen.len()
    }

    pub(super) fn allocated(&self) -> usize {
        self.seen.allocated()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.seen.read(offset, out)
    }

    /// Writes until `free` further pages are used up; tells whether all was written.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], mut free: usize) -> bool {
        let mut rest = data;
        for span in Span::of(offset, data.len()) {
            if self.seen.page(span.page).is_none() {
                if free == 0 {
                    return false;
                }
                free -= 1;
            }
            let (part, after) = rest.split_at(span.len());
            let page = self.seen.write(span, part);
            self.changed(Change::Write(span, page));
            rest = after;
        }
        true
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.seen.set_len(len);
        self.changed(Change::SetLen(len));
    }

    fn changed(&mut self, change: Change) {
        self.unsynced.push(Unsynced {
            change,
            abandoned: false,
        });
    }

    pub(super) fn sync(&mut self) {
        let mut pages = BTreeSet::new();
        let mut shrunk = false;
        let mut least = self.durable.len();
        for entry in self.unsynced.iter().filter(|entry| !entry.abandoned) {
            match &entry.change {
                Change::Write(span, _) => {
                    pages.insert(span.page);
                }
                Change::SetLen(len) => {
                    shrunk |= *len < least;
                    least = least.min(*len);
                }
            }
        }
        if shrunk {
            // What was cut off may be zeros by now: rare, so all is taken over.
            self.durable = self.seen.clone();
            self.unsynced.clear();
            return;
        }
        self.durable.set_len(self.seen.len());
        for &page in &pages {
            self.durable.put(page, self.seen.page(page).cloned());
        }
        self.unsynced.retain(|entry| match &entry.change {
            Change::Write(span, _) => entry.abandoned && !pages.contains(&span.page),
            Change::SetLen(_) => false,
        });
    }

    /// A sync that failed: what it should have covered is left to chance.
    pub(super) fn abandon(&mut self) {
        for entry in &mut self.unsynced {
            entry.abandoned = true;
        }
    }

    /// Returns the file as a crash leaves it.
    pub(super) fn crashed(&self, fate: &mut Fate<'_>, report: &mut CrashReport) -> Self {
        let mut left = self.durable.clone();
        let count = self.unsynced.len();
        for (position, entry) in self.unsynced.iter().enumerate() {
            let survives = fate.of(position, count);
            report.count(survives);
            match &entry.change {
                Change::SetLen(len) if survives.wholly() => left.set_len(*len),
                Change::SetLen(_) => {}
                Change::Write(span, page) => {
                    let mut any = false;
                    for sector in sectors(*span) {
                        if survives.wholly() || (survives.partly() && fate.sector()) {
                            // All of the sector as it was then: it went out as one.
                            left.overlay(span.page, sector.clone(), &page[sector]);
                            any = true;
                        }
                    }
                    if any {
                        left.reach(span.end());
                    }
                }
            }
        }
        left.clear_beyond_end();
        Self {
            seen: left.clone(),
            durable: left,
            unsynced: Vec::new(),
        }
    }

    /// Flips one bit of what is durable, if there is any; returns where.
    pub(super) fn rot(&mut self, at: u64, bit: u8) -> Option<u64> {
        let offset = at.checked_rem(self.durable.len())?;
        for image in [&mut self.durable, &mut self.seen] {
            let mut byte = [0];
            if image.read(offset, &mut byte).is_ok() {
                let span = Span::of(offset, 1).next()?;
                image.write(span, &[byte[0] ^ (1 << (bit % 8))]);
            }
        }
        Some(offset)
    }
}

/// Returns the sectors of its page that `span` touches.
fn sectors(span: Span) -> impl Iterator<Item = Range<usize>> {
    let first = span.from / SECTOR;
    let end = span.until.div_ceil(SECTOR);
    (first..end).map(|number| number * SECTOR..(number + 1) * SECTOR)
}

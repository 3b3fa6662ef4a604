//! The content of one file, in pages that copies share until one of them is written to.

use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a page: what a system writes back at once.
pub(super) const PAGE: usize = 4_096;

pub(super) type Page = Arc<[u8; PAGE]>;

/// Bytes by position. Pages nobody wrote to hold zeros and cost nothing, as in a sparse file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    len: u64,
    pages: Vec<Option<Page>>,
}

/// The part of a write that falls into one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Which page.
    pub(super) page: usize,
    /// Where in the page it begins.
    pub(super) from: usize,
    /// Where in the page it ends.
    pub(super) until: usize,
}

impl Span {
    /// Cuts `length` bytes from `offset` on at the ends of pages.
    pub(super) fn of(offset: u64, length: usize) -> impl Iterator<Item = Self> {
        let end = offset + length as u64;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let page = at / PAGE as u64;
            let until = end.min((page + 1) * PAGE as u64);
            let span = Self {
                page: index(page),
                from: index(at % PAGE as u64),
                until: index(until - page * PAGE as u64),
            };
            at = until;
            Some(span)
        })
    }

    /// Returns where in the file it ends.
    pub(super) const fn end(self) -> u64 {
        (self.page * PAGE + self.until) as u64
    }

    pub(super) const fn len(self) -> usize {
        self.until - self.from
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("invariant: a simulated file fits into memory")
}

impl Image {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Returns how many pages hold anything.
    pub(super) fn allocated(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for span in Span::of(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(span.len());
            match self.page(span.page) {
                Some(page) => part.copy_from_slice(&page[span.from..span.until]),
                None => part.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    /// Returns the page number `page`, none while it is all zeros or beyond the end.
    pub(super) fn page(&self, page: usize) -> Option<&Page> {
        self.pages.get(page)?.as_ref()
    }

    /// Puts `data` into its page and returns the page as it is then.
    pub(super) fn write(&mut self, span: Span, data: &[u8]) -> Page {
        self.reach(span.end());
        let slot = &mut self.pages[span.page];
        if let Ok(whole) = <&[u8; PAGE]>::try_from(data) {
            return Arc::clone(slot.insert(Arc::new(*whole)));
        }
        let page = slot.get_or_insert_with(|| Arc::new([0; PAGE]));
        Arc::make_mut(page)[span.from..span.until].copy_from_slice(data);
        Arc::clone(page)
    }

    /// Takes over a page of another image, none for zeros.
    pub(super) fn put(&mut self, number: usize, page: Option<Page>) {
        if number < self.pages.len() {
            self.pages[number] = page;
        }
    }

    /// Puts `data` into a page without regard to where the file ends.
    pub(super) fn overlay(&mut self, page: usize, place: Range<usize>, data: &[u8]) {
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
        Arc::make_mut(page)[place].copy_from_slice(data);
    }

    /// Cuts off or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.len = len;
            self.clear_beyond_end();
        }
        self.reach(len);
    }

    /// Extends with zeros.
    pub(super) fn reach(&mut self, len: u64) {
        self.len = self.len.max(len);
        let pages = index(self.len.div_ceil(PAGE as u64));
        if pages > self.pages.len() {
            self.pages.resize(pages, None);
        }
    }

    /// Forgets what [`overlay`](Self::overlay) left, or a shorter length leaves, beyond the end.
    pub(super) fn clear_beyond_end(&mut self) {
        self.pages.truncate(index(self.len.div_ceil(PAGE as u64)));
        let kept = index(self.len % PAGE as u64);
        if kept > 0
            && let Some(Some(page)) = self.pages.last_mut()
            && page[kept..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(page)[kept..].fill(0);
        }
    }
}

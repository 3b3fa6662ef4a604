//! A table of rows of node indices in one allocation: current rows, targets, hints.
//!
//! What the indices mean (positions in [`PlacementInput::nodes`]) and which rows are valid is
//! decided by the strategies; this file only stores them.
//!
//! [`PlacementInput::nodes`]: crate::placement::PlacementInput::nodes

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// The index that means "no node": in the first place of a row it says "no primary".
pub const NO_NODE: u16 = u16::MAX;

/// One row of node indices per partition, the primary first.
///
/// A row whose first index is [`NO_NODE`] has replicas but no primary; an empty row has neither.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rows {
    ends: Vec<u32>,
    nodes: Vec<u16>,
}

impl Rows {
    /// Returns a table without rows.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ends: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Returns a table without rows that can take `rows` rows of `width` nodes without growing.
    #[must_use]
    pub fn with_capacity(rows: usize, width: usize) -> Self {
        Self {
            ends: Vec::with_capacity(rows),
            nodes: Vec::with_capacity(rows * width),
        }
    }

    /// Returns `rows` empty rows.
    #[must_use]
    pub fn empty(rows: usize) -> Self {
        Self {
            ends: alloc::vec![0; rows],
            nodes: Vec::new(),
        }
    }

    /// Appends a row.
    ///
    /// # Panics
    /// When the table would hold more than `u32::MAX` indices.
    pub fn push(&mut self, row: &[u16]) {
        self.nodes.extend_from_slice(row);
        let end = u32::try_from(self.nodes.len()).expect("invariant: row tables fit u32");
        self.ends.push(end);
    }

    /// Appends a row made of a primary (or none) and the other members.
    pub fn push_led(&mut self, primary: Option<u16>, others: impl IntoIterator<Item = u16>) {
        let start = self.nodes.len();
        self.nodes.push(primary.unwrap_or(NO_NODE));
        self.nodes.extend(others);
        if primary.is_none() && self.nodes.len() == start + 1 {
            self.nodes.truncate(start);
        }
        self.push(&[]);
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no rows at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns row `partition`, empty when it is beyond the table.
    #[must_use]
    pub fn row(&self, partition: usize) -> &[u16] {
        let Some(&end) = self.ends.get(partition) else {
            return &[];
        };
        let start = match partition {
            0 => 0,
            _ => self.ends[partition - 1],
        };
        &self.nodes[start as usize..end as usize]
    }

    /// Returns the primary of row `partition`.
    #[must_use]
    pub fn primary(&self, partition: usize) -> Option<u16> {
        self.row(partition)
            .first()
            .copied()
            .filter(|&node| node != NO_NODE)
    }

    /// Returns the members of row `partition`, the primary first when there is one.
    pub fn members(&self, partition: usize) -> impl Iterator<Item = u16> + '_ {
        self.row(partition)
            .iter()
            .copied()
            .filter(|&node| node != NO_NODE)
    }

    /// Returns whether `node` is a member of row `partition`.
    #[must_use]
    pub fn contains(&self, partition: usize, node: u16) -> bool {
        node != NO_NODE && self.row(partition).contains(&node)
    }

    /// Returns all rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u16]> + '_ {
        (0..self.len()).map(|partition| self.row(partition))
    }

    /// Returns the number of indices in all rows together, [`NO_NODE`] included.
    #[must_use]
    pub fn total(&self) -> usize {
        self.nodes.len()
    }
}

impl<R: AsRef<[u16]>> FromIterator<R> for Rows {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut table = Self::new();
        for row in rows {
            table.push(row.as_ref());
        }
        table
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_was_pushed() {
        let mut rows = Rows::new();
        rows.push(&[3, 1]);
        rows.push(&[]);
        rows.push_led(None, [4]);
        rows.push_led(None, []);
        rows.push_led(Some(2), [0]);
        assert_eq!(rows.len(), 5);
        assert_eq!(rows.row(0), [3, 1]);
        assert_eq!(rows.primary(2), None);
        assert_eq!(rows.members(2).collect::<Vec<_>>(), [4]);
        assert!(rows.row(3).is_empty());
        assert_eq!(rows.row(4), [2, 0]);
        assert!(rows.row(9).is_empty());
        assert!(rows.contains(4, 0) && !rows.contains(2, NO_NODE));
    }
}

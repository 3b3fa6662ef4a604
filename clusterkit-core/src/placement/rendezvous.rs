//! [`Rendezvous`]: weighted highest-random-weight hashing, in integers.
//!
//! Every node draws a reproducible lot for every partition; the best lots win. A node of weight
//! `w` draws `-log2(u) / w` with `u` uniform, so the chance to win is proportional to the weight.
//! The logarithm comes from a table of 256 values with straight lines between, which is within
//! 0.2 % where lots are won and the same on every machine.

use alloc::vec;
use alloc::vec::Vec;

use super::PlacementStrategy;
use super::hashed::{Picker, Ranking, place};
use super::input::{PlacementError, PlacementInput};
use super::mix::mix;
use super::outcome::Placement;

/// Bits after the binary point of a logarithm.
const POINT: u32 = 40;
/// The table has `1 << TABLE_BITS` steps between 1 and 2.
const TABLE_BITS: u32 = 8;
/// `log2(1 + i / 256)` with [`POINT`] bits after the binary point.
const LOG2: [u64; (1 << TABLE_BITS) + 1] = log2_table();

/// Places by weighted rendezvous hashing.
///
/// Rows depend on the nodes alone, not on the current rows, and a change of one node moves on
/// average only what it must. Replicas are on different nodes and spread over zones as evenly as
/// the zones allow; frozen rows stay. It does *not* promise balance (loads vary like random
/// numbers), movement that is minimal in any given case, or balanced primaries. Use it where an
/// answer must be found without knowing the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendezvous;

impl Rendezvous {
    /// Returns the strategy. It has no settings.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl PlacementStrategy for Rendezvous {
    fn name(&self) -> &'static str {
        "rendezvous"
    }

    fn place(&self, input: &PlacementInput) -> Result<Placement, PlacementError> {
        place(input, |problem| Lots {
            key: problem.key.clone(),
            weight: problem.weight.clone(),
            equal: problem.weight.windows(2).all(|pair| pair[0] == pair[1]),
            lot: vec![0; problem.nodes()],
        })
    }
}

/// The lots of all nodes for one partition.
struct Lots {
    key: Vec<u64>,
    weight: Vec<u32>,
    /// Whether all weights are the same, so that there is nothing to divide.
    equal: bool,
    lot: Vec<u128>,
}

impl Lots {
    /// Returns the lot of a node; the smallest wins.
    fn lot(&self, partition: u32, node: usize) -> u128 {
        let drawn = u128::from(minus_log2(mix(u64::from(partition), self.key[node])));
        match self.equal {
            true => drawn,
            false => (drawn << 64) / u128::from(self.weight[node]),
        }
    }
}

impl Ranking for Lots {
    fn pick(&mut self, partition: u32, picker: &mut Picker<'_>) {
        for node in 0..self.lot.len() {
            self.lot[node] = self.lot(partition, node);
        }
        for (stage, wanted) in picker.wanted().into_iter().enumerate() {
            while picker.row.len() < wanted {
                let best = (0u16..)
                    .zip(&self.lot)
                    .filter(|&(node, _)| picker.may_take(stage, node))
                    .min_by_key(|&(node, lot)| (lot, node));
                let Some((node, _)) = best else {
                    break;
                };
                picker.take(node);
            }
        }
    }

    fn sort(&mut self, partition: u32, row: &mut [u16]) {
        row.sort_by_key(|&node| (self.lot(partition, usize::from(node)), node));
    }
}

/// Returns `-log2((word + 1) / 2^64)` with [`POINT`] bits after the binary point.
const fn minus_log2(word: u64) -> u64 {
    let Some(word) = word.checked_add(1) else {
        return 0;
    };
    let zeros = word.leading_zeros();
    // The bits after the leading one: the fraction of a number between 1 and 2.
    let fraction = (word << zeros) << 1;
    let step = (fraction >> (64 - TABLE_BITS)) as usize;
    // 30 bits, so that the product with `rise`, which has 33, fits a word.
    let within = (fraction << TABLE_BITS) >> 34;
    let between = ((LOG2[step + 1] - LOG2[step]) * within) >> 30;
    ((zeros as u64 + 1) << POINT) - LOG2[step] - between
}

const fn log2_table() -> [u64; (1 << TABLE_BITS) + 1] {
    let mut table = [0; (1 << TABLE_BITS) + 1];
    let mut step = 1;
    while step < 1 << TABLE_BITS {
        table[step] = log2_fraction((1 << 62) + ((step as u128) << (62 - TABLE_BITS)));
        step += 1;
    }
    table[1 << TABLE_BITS] = 1 << POINT;
    table
}

/// Returns `log2(x / 2^62)` for `2^62 <= x < 2^63`, bit by bit: squaring doubles a logarithm.
const fn log2_fraction(x: u128) -> u64 {
    let (mut x, mut log, mut bit) = (x, 0, 0);
    while bit < POINT {
        x = (x * x) >> 62;
        log <<= 1;
        if x >= 1 << 63 {
            x >>= 1;
            log |= 1;
        }
        bit += 1;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_exact_at_powers_of_two_and_fall_in_between() {
        assert_eq!(minus_log2(u64::MAX), 0);
        assert_eq!(minus_log2((1 << 63) - 1), 1 << POINT);
        assert_eq!(minus_log2(0), 64 << POINT);
        // log2(3 / 4) = -0.41503749927884...
        let expected = 456_338_557_061_u64;
        assert!(minus_log2((3 << 62) - 1).abs_diff(expected) < 1 << 12);
        let mut last = u64::MAX;
        for word in (0..1_000).map(|at| at * (u64::MAX / 1_000)) {
            let log = minus_log2(word);
            assert!(log < last);
            last = log;
        }
    }
}

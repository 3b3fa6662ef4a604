//! [`Ring`]: consistent hashing with virtual nodes on a SHA-256 ring.
//!
//! Exactly: node `id` of average weight has `virtual_nodes` points; point `4i..4i + 4` are the four
//! big-endian words of the SHA-256 of the id, a zero byte and `i` as four big-endian bytes. A
//! partition is at the first word of the SHA-256 of its number as four big-endian bytes, and takes
//! the nodes it meets clockwise.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::PlacementStrategy;
use super::hashed::{Picker, Ranking, place};
use super::input::{PlacementError, PlacementInput};
use super::outcome::Placement;
use super::problem::Problem;

/// The most points of one node.
const POINTS_MAX: u64 = 1 << 16;
/// Points that one digest yields.
const POINTS_PER_DIGEST: u64 = 4;

/// Places by consistent hashing on a ring.
///
/// Rows depend on the nodes alone, not on the current rows. Replicas are on different nodes and
/// spread over zones as evenly as the zones allow; frozen rows stay. It does *not* promise balance:
/// with 128 virtual nodes loads stray from the average by about a tenth, with fewer by more. Nor
/// does it promise minimal movement in any given case, or balanced primaries. It exists for users
/// who come from ring-based systems and want to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ring {
    virtual_nodes: u32,
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(128)
    }
}

impl Ring {
    /// Returns the strategy with `virtual_nodes` points for a node of average weight, at least 1.
    /// More points balance better and take more time and memory. Default: 128.
    #[must_use]
    pub const fn new(virtual_nodes: u32) -> Self {
        Self { virtual_nodes }
    }

    /// Returns all points in order of the ring, as (position, rank).
    fn points(self, problem: &Problem<'_>) -> Vec<(u64, u16)> {
        let total: u64 = problem.weight.iter().map(|&weight| u64::from(weight)).sum();
        let nodes = problem.nodes() as u128;
        let mut points = Vec::new();
        for (rank, &position) in (0u16..).zip(&problem.position) {
            let id = problem.input.nodes[usize::from(position)].id.as_str();
            let weight = u128::from(problem.weight[usize::from(rank)]);
            let share = u128::from(self.virtual_nodes.max(1)) * weight * nodes;
            let count = share
                .div_ceil(u128::from(total))
                .min(u128::from(POINTS_MAX));
            let count = u64::try_from(count).unwrap_or(POINTS_MAX);
            let digests = (0u32..).take_while(|&i| u64::from(i) * POINTS_PER_DIGEST < count);
            let words = digests.flat_map(|i| {
                let digest = Sha256::new()
                    .chain_update(id)
                    .chain_update([0])
                    .chain_update(i.to_be_bytes())
                    .finalize();
                words(&digest)
            });
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            points.extend(words.take(count).map(|word| (word, rank)));
        }
        points.sort_unstable();
        points
    }
}

impl PlacementStrategy for Ring {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn place(&self, input: &PlacementInput) -> Result<Placement, PlacementError> {
        place(input, |problem| Circle {
            points: self.points(problem),
        })
    }
}

struct Circle {
    points: Vec<(u64, u16)>,
}

impl Circle {
    /// Returns the nodes met from the partition's place on, many of them repeatedly.
    fn from(&self, partition: u32) -> impl Iterator<Item = u16> + '_ {
        let digest = Sha256::digest(partition.to_be_bytes());
        let place = words(&digest)[0];
        let start = self.points.partition_point(|&(point, _)| point < place);
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|&(_, node)| node)
    }
}

impl Ranking for Circle {
    fn pick(&mut self, partition: u32, picker: &mut Picker<'_>) {
        for (stage, wanted) in picker.wanted().into_iter().enumerate() {
            for node in self.from(partition) {
                if picker.row.len() >= wanted {
                    break;
                }
                if picker.may_take(stage, node) {
                    picker.take(node);
                }
            }
        }
    }

    fn sort(&mut self, partition: u32, row: &mut [u16]) {
        let mut sorted = 0;
        for node in self.from(partition) {
            if sorted == row.len() {
                break;
            }
            if let Some(at) = row[sorted..].iter().position(|&other| other == node) {
                row.swap(sorted, sorted + at);
                sorted += 1;
            }
        }
    }
}

/// Returns the four big-endian words of a digest.
fn words(digest: &[u8]) -> [u64; 4] {
    let word = |at: usize| {
        let bytes = digest[8 * at..8 * at + 8].try_into();
        u64::from_be_bytes(bytes.expect("invariant: a digest has 32 bytes"))
    };
    [word(0), word(1), word(2), word(3)]
}

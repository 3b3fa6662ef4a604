//! The one source of chance: seeded, and split by name.
//!
//! Every consumer takes a stream of its own from the root of the run, so that adding a consumer,
//! or drawing more from one, does not shift what the others see. The generator is ChaCha with 8
//! rounds, which its crate documents as portable: a seed means the same on every build.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A seeded sequence of numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    /// What [`Self::split`] derives from. Drawing does not change it.
    key: u128,
    stream: ChaCha8Rng,
}

impl Rng {
    /// Returns the root of the run `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(xxh3_128_with_seed(b"clusterkit-sim", seed))
    }

    fn of(key: u128) -> Self {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&key.to_le_bytes());
        Self {
            key,
            stream: ChaCha8Rng::from_seed(seed),
        }
    }

    /// Returns the stream called `name`: the same one whatever was drawn from this one.
    #[must_use]
    pub fn split(&self, name: &str) -> Self {
        self.derive(name.as_bytes())
    }

    /// Returns the stream number `number` of those called `name`, for consumers that are counted.
    #[must_use]
    pub fn split_at(&self, name: &str, number: u64) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 9);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&number.to_le_bytes());
        self.derive(&bytes)
    }

    fn derive(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 16);
        bytes.extend_from_slice(&self.key.to_le_bytes());
        bytes.extend_from_slice(name);
        Self::of(xxh3_128_with_seed(&bytes, 0))
    }

    /// Returns the next 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// Returns the next 16 bytes, for identifiers.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.stream.fill_bytes(&mut bytes);
        bytes
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.stream.fill_bytes(bytes);
    }

    /// Returns a number below `end`, 0 when `end` is 0. Uniform up to one part in 2^64 / `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.u64()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(u64::MAX)
    }

    /// Returns an index into something of length `len`, 0 when that is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Returns a number of `range`, its start when it is empty.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        match end.saturating_sub(start).checked_add(1) {
            Some(width) => start + self.below(width),
            None => self.u64(),
        }
    }

    /// Tells with a chance of `permille` in a thousand.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1_000) < u64::from(permille)
    }

    /// Returns a duration of `range`, to the microsecond.
    pub fn duration(&mut self, range: RangeInclusive<Duration>) -> Duration {
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(range.start())..=micros(range.end())))
    }

    /// Returns one of `items`, none when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// Puts `items` into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_on_every_build() {
        let mut rng = Rng::new(1);
        let first = [rng.u64(), rng.u64()];
        let mut named = Rng::new(1).split("network");
        let numbered = Rng::new(1).split_at("node", 7).u64();
        assert_eq!(
            (first, named.u64(), numbered),
            (
                [11_072_510_951_008_483_226, 7_863_482_715_675_614_066],
                12_131_325_725_960_564_903,
                10_457_054_239_057_873_482
            ),
            "the checked-in regression seeds mean something else now"
        );
    }

    #[test]
    fn streams_do_not_shift_each_other() {
        let mut root = Rng::new(9);
        let before = root.split("a").u64();
        root.u64();
        assert_eq!(root.split("a").u64(), before);
        assert_ne!(root.split("b").u64(), before);
        assert_ne!(root.split("a").split("a").u64(), before);
        assert_ne!(root.split_at("a", 0).u64(), root.split_at("a", 1).u64());
    }

    #[test]
    fn draws_keep_to_their_bounds() {
        let mut rng = Rng::new(3);
        let mut seen = [false; 4];
        for _ in 0..200 {
            let number = rng.within(3..=6);
            seen[usize::try_from(number - 3).unwrap()] = true;
            assert!(
                rng.duration(Duration::ZERO..=Duration::from_secs(1)) <= Duration::from_secs(1)
            );
        }
        assert_eq!(seen, [true; 4], "both ends are reached");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.pick::<u8>(&[]), None);
        assert!(!rng.chance(0) && rng.chance(1_000));
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}

//! Small sets of slot numbers, all of one width.

/// A set of numbers below the width it was made with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    pub(super) fn new(width: usize) -> Self {
        Self(vec![0; width.div_ceil(64)].into_boxed_slice())
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(super) fn clear(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    /// Tells whether every number here is in `other`, which has the same width.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let mut words = self.0.iter().zip(&other.0);
        words.all(|(here, there)| here & !there == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_past_one_word_are_kept_apart() {
        let (mut few, mut many) = (Bits::new(130), Bits::new(130));
        few.set(129);
        many.set(129);
        many.set(1);
        assert!(few.has(129) && !few.has(1) && !few.has(65));
        assert!(few.is_within(&many) && !many.is_within(&few));
        many.clear(129);
        assert!(!few.is_within(&many) && many.has(1));
    }
}

//! Who took itself for the primary of what, and when: claims in true virtual time.
//!
//! Without tokens a replaced primary may believe in itself for a while; what must hold even then is
//! that no two nodes are accepted under one epoch ([`check_epochs`]). A token promises more: while
//! one node's is valid no other node has one ([`check_tokens`]). True time is the time of the
//! simulation, which no node can read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clusterkit_core::id::{Epoch, PartitionId, RaftId};

use crate::Violation;

/// One node's claim to be the primary of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "who, what and when")]
pub struct Claim {
    /// Who claims it.
    pub node: RaftId,
    /// Of which partition.
    pub partition: PartitionId,
    /// Under which epoch of the partition.
    pub epoch: Epoch,
    /// From when on. For a token the moment it was granted, or the last renewal before which it
    /// was valid all the time.
    pub from: Duration,
    /// The first moment it does not hold any more. For a token when it runs out by the node's own
    /// clock, told in true time, or when it was given back.
    pub until: Duration,
}

/// Judges that no two nodes were primary of a partition under the same epoch, at whatever times.
///
/// # Errors
/// `two-primaries`: both claims.
pub fn check_epochs(claims: &[Claim]) -> Result<(), Violation> {
    let mut first: BTreeMap<(PartitionId, Epoch), &Claim> = BTreeMap::new();
    for claim in claims {
        let key = (claim.partition, claim.epoch);
        let known = first.entry(key).or_insert(claim);
        if known.node != claim.node {
            let at = known.from.max(claim.from);
            let detail = format!("{known}, and under the same epoch {claim}");
            return Err(Violation::new("two-primaries", detail, at));
        }
    }
    Ok(())
}

/// Judges that tokens of one partition held by different nodes never overlap, and that none of an
/// earlier epoch begins after one of a later epoch has begun.
///
/// # Errors
/// `tokens-overlap` or `token-of-the-past`: both claims.
pub fn check_tokens(claims: &[Claim]) -> Result<(), Violation> {
    check_epochs(claims)?;
    let mut sorted: Vec<&Claim> = claims.iter().filter(|c| c.from < c.until).collect();
    sorted.sort_by_key(|claim| (claim.partition, claim.from, claim.epoch, claim.node));
    for tokens in sorted.chunk_by(|a, b| a.partition == b.partition) {
        check_partition(tokens)?;
    }
    Ok(())
}

/// Judges the tokens of one partition, which are sorted by their beginning.
fn check_partition(tokens: &[&Claim]) -> Result<(), Violation> {
    let Some((&first, rest)) = tokens.split_first() else {
        return Ok(());
    };
    let mut newest = first;
    // The two claims that run longest, of different nodes.
    let (mut longest, mut second): (&Claim, Option<&Claim>) = (first, None);
    for &token in rest {
        let other = if longest.node == token.node {
            second
        } else {
            Some(longest)
        };
        if let Some(other) = other.filter(|other| other.until > token.from) {
            let both = other.until.min(token.until) - token.from;
            let detail = format!("{other} and {token} hold it together for {both:?}");
            return Err(Violation::new("tokens-overlap", detail, token.from));
        }
        if token.epoch < newest.epoch {
            let detail = format!("{token} begins after {newest}");
            return Err(Violation::new("token-of-the-past", detail, token.from));
        }
        newest = token;
        if longest.node == token.node {
            if token.until > longest.until {
                longest = token;
            }
        } else if token.until > longest.until {
            (longest, second) = (token, Some(longest));
        } else if second.is_none_or(|second| token.until > second.until) {
            second = Some(token);
        }
    }
    Ok(())
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from.as_secs_f64(), self.until.as_secs_f64());
        let Self {
            node,
            partition,
            epoch,
            ..
        } = self;
        write!(
            f,
            "node {node} owns partition {partition} under epoch {epoch} [{from:.6} to {until:.6}]"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn claim(node: u64, epoch: u64, from: u64, until: u64) -> Claim {
        Claim {
            node: RaftId(node),
            partition: PartitionId(3),
            epoch: Epoch(epoch),
            from: Duration::from_millis(from),
            until: Duration::from_millis(until),
        }
    }

    #[test]
    fn one_epoch_has_one_primary() {
        let renewed = [claim(1, 5, 0, 10), claim(1, 5, 4, 20), claim(2, 6, 15, 30)];
        assert_eq!(check_epochs(&renewed), Ok(()));
        let elsewhere = Claim {
            partition: PartitionId(4),
            ..claim(2, 5, 0, 9)
        };
        assert_eq!(check_epochs(&[renewed[0], elsewhere]), Ok(()));
        let violation = check_epochs(&[claim(1, 5, 0, 10), claim(2, 5, 50, 60)]).unwrap_err();
        assert_eq!(
            violation.to_string(),
            "two-primaries at 0.050000 s: node 1 owns partition 3 under epoch 5 [0.000000 to \
             0.010000], and under the same epoch node 2 owns partition 3 under epoch 5 [0.050000 \
             to 0.060000]"
        );
    }

    #[test]
    fn tokens_of_two_nodes_do_not_overlap() {
        let rule = |claims: &[Claim]| check_tokens(claims).map_err(|found| found.rule);
        // Touching is not overlapping, and a node may renew as it likes.
        let good = [claim(1, 5, 0, 10), claim(1, 5, 4, 20), claim(2, 6, 20, 30)];
        assert_eq!(rule(&good), Ok(()));
        let overlap = Err(String::from("tokens-overlap"));
        assert_eq!(rule(&[claim(1, 5, 0, 21), claim(2, 6, 20, 30)]), overlap);
        // The overlap is with an older claim than the last one.
        let hidden = [claim(1, 5, 0, 99), claim(1, 5, 1, 2), claim(2, 6, 50, 60)];
        assert_eq!(rule(&hidden), overlap);
        let past = [claim(2, 6, 0, 5), claim(1, 5, 9, 12)];
        assert_eq!(rule(&past), Err(String::from("token-of-the-past")));
        assert_eq!(
            rule(&[claim(1, 5, 8, 8), claim(2, 6, 0, 20)]),
            Ok(()),
            "never valid"
        );
    }

    #[test]
    fn overlaps_are_found_as_by_comparing_all_pairs() {
        let mut verdicts = [0_u32; 2];
        for seed in 0..3_000 {
            let mut rng = Rng::new(seed).split("owners");
            let mut claims: Vec<Claim> = (0..rng.within(2..=6))
                .map(|_| {
                    let (node, from) = (rng.within(1..=3), rng.below(40));
                    claim(node, from * 3 + node, from, from + rng.within(1..=8))
                })
                .collect();
            rng.shuffle(&mut claims);
            let expected = claims.iter().any(|a| {
                claims
                    .iter()
                    .any(|b| a.node != b.node && a.from < b.until && b.from < a.until)
            });
            let found = check_tokens(&claims).map_err(|found| found.rule);
            assert_eq!(
                found == Err(String::from("tokens-overlap")),
                expected,
                "seed {seed}"
            );
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|&count| count > 300), "{verdicts:?}");
    }
}

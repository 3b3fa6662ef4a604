//! Who votes: a pure choice among the members.
//!
//! One, three, five or seven voters, never an even number. Carrying the choice out is up to the
//! reconciling leader in `membership.rs`; finding out who is alive and caught up, too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clusterkit_core::id::RaftId;

/// What is known of one member when voters are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "every input of the choice must be given"
)]
pub struct VoterCandidate {
    /// The member.
    pub id: RaftId,
    /// Whether it answers.
    pub alive: bool,
    /// Whether it votes now.
    pub voter: bool,
    /// Whether it leads now.
    pub leader: bool,
    /// Whether it holds the log but for a bounded tail.
    pub caught_up: bool,
    /// Its failure domain, empty when there is none.
    pub zone: Arc<str>,
}

impl VoterCandidate {
    /// A dead voter may stay; nobody becomes one but alive and caught up.
    const fn is_eligible(&self) -> bool {
        self.voter || (self.alive && self.caught_up)
    }
}

/// Chooses who should vote among `members`, which are all that belong to the cluster and stay.
///
/// Order of preference: alive, already a voter, the leader first, caught up, then the zone with
/// the fewest voters, then the longest membership. Where at least three zones have a candidate
/// that is alive, no zone gets a majority. A dead voter is given up only for a live caught-up
/// member, in the same change. `None` when nobody can be chosen, or when the choice would have no
/// live majority: then the voters must stay as they are.
#[must_use]
pub fn choose_voters(members: &[VoterCandidate], max_voters: u32) -> Option<BTreeSet<RaftId>> {
    let eligible: Vec<&VoterCandidate> = members.iter().filter(|m| m.is_eligible()).collect();
    let most = members.len().min(eligible.len());
    let wanted = largest_odd(most.min(usize::try_from(max_voters).unwrap_or(usize::MAX)))?;

    let live_zones: BTreeSet<&str> = eligible
        .iter()
        .filter(|member| member.alive)
        .map(|member| &*member.zone)
        .collect();
    let per_zone = if live_zones.len() >= 3 && wanted >= 3 {
        wanted / 2
    } else {
        wanted
    };

    let mut left = eligible;
    let mut chosen: Vec<&VoterCandidate> = Vec::new();
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < wanted {
        let in_zone = |member: &VoterCandidate| zones.get(&*member.zone).copied().unwrap_or(0);
        let best = (0..left.len()).max_by_key(|&at| {
            let member = left[at];
            (
                in_zone(member) < per_zone,
                member.alive,
                member.voter,
                member.leader,
                member.caught_up,
                Reverse(in_zone(member)),
                Reverse(member.id),
            )
        })?;
        let member = left.swap_remove(best);
        *zones.entry(&member.zone).or_default() += 1;
        chosen.push(member);
    }

    let live = chosen.iter().filter(|member| member.alive).count();
    if live <= wanted / 2 {
        return None;
    }
    Some(chosen.iter().map(|member| member.id).collect())
}

fn largest_odd(count: usize) -> Option<usize> {
    count.checked_sub(1).map(|below| below - below % 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads members like `1VL 2vd 3 4c@a`: `V` voter, `L` leader, `c` caught up, `d` dead,
    /// `@zone`. Voters count as caught up.
    fn members(text: &str) -> Vec<VoterCandidate> {
        let member = |word: &str| {
            let (flags, zone) = word.split_once('@').unwrap_or((word, ""));
            let id: String = flags.chars().take_while(char::is_ascii_digit).collect();
            VoterCandidate {
                id: RaftId(id.parse().unwrap()),
                alive: !flags.contains('d'),
                voter: flags.contains('V'),
                leader: flags.contains('L'),
                caught_up: flags.contains('c') || flags.contains('V'),
                zone: Arc::from(zone),
            }
        };
        text.split_whitespace().map(member).collect()
    }

    /// Expects nothing where the voters stay as they are.
    fn check(text: &str, expected: &[u64]) {
        let members = members(text);
        let current: BTreeSet<RaftId> = members.iter().filter(|m| m.voter).map(|m| m.id).collect();
        let chosen = choose_voters(&members, 5).filter(|chosen| *chosen != current);
        let expected: BTreeSet<RaftId> = expected.iter().copied().map(RaftId).collect();
        let expected = (!expected.is_empty()).then_some(expected);
        assert_eq!(chosen, expected, "{text}");
    }

    #[test]
    fn the_number_is_odd_and_grows_with_the_members() {
        check("", &[]);
        check("1VL", &[]);
        check("1VL 2c", &[]);
        check("1VL 2c 3c", &[1, 2, 3]);
        check("1VL 2V 3V 4c", &[]);
        check("1VL 2V 3V 4c 5c", &[1, 2, 3, 4, 5]);
        check("1VL 2V 3V 4V 5V 6c 7c", &[]);
        let seven = choose_voters(&members("1VL 2V 3V 4V 5V 6c 7c"), 7).unwrap();
        assert_eq!(seven.len(), 7);
        let one = choose_voters(&members("1VL 2c 3c"), 1).unwrap();
        assert_eq!(one, BTreeSet::from([RaftId(1)]));
    }

    #[test]
    fn nobody_votes_before_it_has_the_log() {
        check("1VL 2 3", &[]);
        check("1VL 2c 3", &[]);
        check("1VL 2c 3cd", &[]);
        check("1VL 2V 3V 4c 5", &[]);
    }

    #[test]
    fn a_dead_voter_is_replaced_in_one_change_and_only_by_a_live_member() {
        check("1VL 2V 3Vd 4c", &[1, 2, 4]);
        check("1VL 2V 3Vd", &[]);
        check("1VL 2V 3Vd 4", &[]);
        check("1VL 2V 3Vd 4cd", &[]);
        check("1VL 2V 3V 4Vd 5Vd 6c", &[1, 2, 3, 4, 6]);
    }

    #[test]
    fn a_live_voter_is_not_replaced_by_a_better_one() {
        check("2V 3V 4VL 1c", &[]);
        check("1VL@a 2V@a 3V@a 4c@b", &[]);
    }

    #[test]
    fn members_that_leave_shrink_the_voters_around_the_leader() {
        // The third voter is gone from the members.
        check("1V 2VL", &[2]);
        check("1V 2VL 4c", &[1, 2, 4]);
        check("1V 2V 4VL 5V", &[1, 2, 4]);
        // The only voter leaves: the learner takes over.
        check("2c", &[2]);
        check("2", &[]);
    }

    #[test]
    fn no_change_leaves_voters_without_a_live_majority() {
        check("1VL 2Vd 3Vd", &[]);
        check("1Vd 2Vd 3VL 4V 5Vd", &[]);
        // Four members of five voters are left, three of them dead.
        check("1VL 2Vd 3Vd 4Vd", &[]);
    }

    #[test]
    fn no_zone_holds_a_majority_where_there_are_three() {
        check("1VL@a 2c@a 3c@b 4c@c", &[1, 3, 4]);
        check("1VL@a 2V@a 3V@b 4c@c", &[1, 3, 4]);
        check("1VL@a 2V@a 3V@a 4c@b 5c@c 6c@c", &[1, 2, 4, 5, 6]);
        check("1VL@a 2c@a 3c@b", &[1, 2, 3]);
        // A third zone whose only member is dead does not count.
        check("1VL@a 2V@a 3V@b 4cd@c", &[]);
    }

    #[test]
    fn the_choice_is_stable() {
        for text in [
            "1VL@a 2c@a 3c@b 4c@c 5c@a 6c@b",
            "1VL 2V 3Vd 4c 5c",
            "1V@a 2VL@b 3Vd@c 4c@c 5c@a",
        ] {
            let mut members = members(text);
            let chosen = choose_voters(&members, 5).unwrap();
            for member in &mut members {
                member.voter = chosen.contains(&member.id);
            }
            assert_eq!(choose_voters(&members, 5), Some(chosen), "{text}");
        }
    }
}

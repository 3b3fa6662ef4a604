//! Whether the nodes agree: equal state at equal index, one log that never changes, and every
//! acknowledged proposal in it.
//!
//! It is told hashes as they are made and answers at once; what it keeps is two words for each
//! index. A node that starts again and goes through its log once more is judged like any other.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::id::{LogIndex, RaftId};

use crate::Violation;

/// What was said first of an index.
#[derive(Clone, Copy, Debug)]
struct First {
    hash: u64,
    node: RaftId,
    at: Duration,
}

/// What the nodes of one cluster said of their logs and states.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    states: BTreeMap<LogIndex, First>,
    entries: BTreeMap<LogIndex, First>,
    /// Acknowledged, but not yet seen in a log.
    acknowledged: BTreeMap<LogIndex, (u64, Duration)>,
}

impl Replicas {
    /// Returns the record of a cluster of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes notice that the state of `node` is `hash` once everything up to `index` is applied.
    ///
    /// # Errors
    /// `states-differ`: some node had another state at that index.
    pub fn applied(
        &mut self,
        node: RaftId,
        index: LogIndex,
        hash: u64,
        at: Duration,
    ) -> Result<(), Violation> {
        let said = First { hash, node, at };
        agree(&mut self.states, index, said, "states-differ", "the state")
    }

    /// Takes notice that `node` knows the entry at `index` to be committed, and that it is `hash`.
    ///
    /// # Errors
    /// - `log-changed`: another entry was committed there.
    /// - `ack-lost`: another proposal was acknowledged to be there.
    pub fn committed(
        &mut self,
        node: RaftId,
        index: LogIndex,
        hash: u64,
        at: Duration,
    ) -> Result<(), Violation> {
        let said = First { hash, node, at };
        agree(&mut self.entries, index, said, "log-changed", "the entry")?;
        match self.acknowledged.remove(&index) {
            Some((told, since)) if told != hash => Err(lost(index, told, since, Some(said), at)),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes notice that a client was told that its proposal `hash` is in the log at `index`.
    ///
    /// # Errors
    /// `ack-lost`: another entry is committed there.
    pub fn acknowledged(
        &mut self,
        index: LogIndex,
        hash: u64,
        at: Duration,
    ) -> Result<(), Violation> {
        if let Some(entry) = self.entries.get(&index).copied() {
            return if entry.hash == hash {
                Ok(())
            } else {
                Err(lost(index, hash, at, Some(entry), at))
            };
        }
        match self.acknowledged.insert(index, (hash, at)) {
            Some((other, since)) if other != hash => {
                let detail = format!(
                    "index {index} was acknowledged to proposal {other:016x} at {:.6} s and to \
                     proposal {hash:016x} as well",
                    since.as_secs_f64()
                );
                Err(Violation::new("ack-lost", detail, at))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Judges at the end that every acknowledged proposal was seen in a log. All nodes that live
    /// have said by then what they hold.
    ///
    /// # Errors
    /// `ack-lost`: the first that is nowhere.
    pub fn finish(&self, at: Duration) -> Result<(), Violation> {
        match self.acknowledged.first_key_value() {
            Some((index, (hash, since))) => Err(lost(*index, *hash, *since, None, at)),
            None => Ok(()),
        }
    }

    /// Returns the highest index that is known to be committed.
    #[must_use]
    pub fn last_committed(&self) -> Option<LogIndex> {
        self.entries.last_key_value().map(|(index, _)| *index)
    }
}

fn agree(
    known: &mut BTreeMap<LogIndex, First>,
    index: LogIndex,
    said: First,
    rule: &str,
    what: &str,
) -> Result<(), Violation> {
    let first = known.entry(index).or_insert(said);
    if first.hash == said.hash {
        return Ok(());
    }
    let detail = format!(
        "{what} at index {index} is {:016x} on node {} and was {:016x} on node {} at {:.6} s",
        said.hash,
        said.node,
        first.hash,
        first.node,
        first.at.as_secs_f64()
    );
    Err(Violation::new(rule, detail, said.at))
}

fn lost(
    index: LogIndex,
    hash: u64,
    since: Duration,
    instead: Option<First>,
    at: Duration,
) -> Violation {
    let stands = match instead {
        Some(entry) => format!("node {} holds {:016x} there", entry.node, entry.hash),
        None => String::from("no node has it"),
    };
    let since = since.as_secs_f64();
    let detail =
        format!("proposal {hash:016x} was acknowledged at index {index} at {since:.6} s: {stands}");
    Violation::new("ack-lost", detail, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1);

    /// What one node says, or a client is told.
    #[derive(Clone, Copy)]
    enum Said {
        Applied(u64, u64, u64),
        Committed(u64, u64, u64),
        Acknowledged(u64, u64),
    }
    use Said::{Acknowledged, Applied, Committed};

    fn judge(all: &[Said]) -> Result<(), String> {
        let mut replicas = Replicas::new();
        let mut told = all.iter().map(|said| match *said {
            Applied(node, index, hash) => replicas.applied(RaftId(node), LogIndex(index), hash, AT),
            Committed(node, index, hash) => {
                replicas.committed(RaftId(node), LogIndex(index), hash, AT)
            }
            Acknowledged(index, hash) => replicas.acknowledged(LogIndex(index), hash, AT),
        });
        let judged = told.try_for_each(|said| said);
        let judged = judged.and_then(|()| replicas.finish(AT));
        judged.map_err(|violation| violation.rule)
    }

    #[test]
    fn nodes_that_agree_break_nothing() {
        let restarted = [
            Applied(1, 1, 10),
            Applied(1, 2, 20),
            Applied(2, 1, 10),
            Applied(1, 1, 10),
            Committed(1, 1, 7),
            Acknowledged(1, 7),
            Acknowledged(2, 8),
            Committed(2, 1, 7),
            Committed(2, 2, 8),
        ];
        assert_eq!(judge(&restarted), Ok(()));
        let mut replicas = Replicas::new();
        assert_eq!(replicas.last_committed(), None);
        replicas.committed(RaftId(1), LogIndex(4), 1, AT).unwrap();
        assert_eq!(replicas.last_committed(), Some(LogIndex(4)));
    }

    #[test]
    fn what_differs_is_found() {
        let check = |all: &[Said], rule: &str| assert_eq!(judge(all), Err(rule.to_owned()));
        check(&[Applied(1, 2, 20), Applied(2, 2, 21)], "states-differ");
        check(&[Committed(1, 2, 20), Committed(1, 2, 21)], "log-changed");
        check(&[Committed(1, 2, 20), Acknowledged(2, 21)], "ack-lost");
        check(&[Acknowledged(2, 21), Committed(1, 2, 20)], "ack-lost");
        check(&[Acknowledged(2, 21), Acknowledged(2, 22)], "ack-lost");
        check(&[Acknowledged(2, 21), Committed(1, 1, 20)], "ack-lost");
    }

    #[test]
    fn the_violation_says_who_and_when() {
        let mut replicas = Replicas::new();
        replicas.applied(RaftId(1), LogIndex(2), 20, AT).unwrap();
        let violation = replicas.applied(RaftId(3), LogIndex(2), 21, AT * 2);
        assert_eq!(
            violation.unwrap_err().to_string(),
            "states-differ at 2.000000 s: the state at index 2 is 0000000000000015 on node 3 and \
             was 0000000000000014 on node 1 at 1.000000 s"
        );
    }
}

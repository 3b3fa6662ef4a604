//! What the key-value service promises about its records, told from what clients saw.
//!
//! An acknowledged write is on every copy that counts, whoever is promoted holds it, and nothing is
//! read that could still be lost. So no read shows what nobody wrote; a read answered by a primary
//! that has not been replaced (a fresh one) is no older than what was acknowledged, or read, before
//! it was asked for; and what stands at the end is what was acknowledged last. A write of unknown
//! outcome may come later, or never. What faults explain is told as [`Losses`].
//!
//! These are the consequences that can be judged in a time that does not grow with overlap and that
//! name the record. That one order explains all answers is judged in [`super::linear`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::id::RaftId;

use super::history::{Ending, History, Moment, Operation, Seen, Value};
use crate::Violation;

/// The end of time.
const NEVER: Moment = (Duration::MAX, u64::MAX);
const ALWAYS: Moment = (Duration::ZERO, 0);

/// When the faults of a run excuse that records are lost: every copy of a partition that was in
/// sync is gone for good.
#[derive(Clone, Debug, Default)]
pub struct Losses(BTreeMap<String, BTreeSet<Duration>>);

impl Losses {
    /// Returns no excuse.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Excuses the loss of everything about `key` that was asked for up to `at`, for whoever looks
    /// from then on.
    pub fn add(&mut self, key: &str, at: Duration) {
        self.0.entry(key.to_owned()).or_default().insert(at);
    }

    /// Returns the last moment before which nothing need be there any more at `now`.
    fn until(&self, key: &str, now: Duration) -> Moment {
        let times = self
            .0
            .get(key)
            .and_then(|all| all.range(..=now).next_back());
        times.map_or(ALWAYS, |&at| (at, u64::MAX))
    }
}

/// What every node that holds a copy of a key has under it.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "a key and its copies")]
pub struct Copies {
    /// The key.
    pub key: String,
    /// Each member with its value, none where it has none or a deletion.
    pub copies: Vec<(RaftId, Option<Value>)>,
}

/// Judges every read of `history`.
///
/// # Errors
/// - `value-from-nowhere`: nobody wrote what was read, or only a write that failed.
/// - `record-lost`: a fresh read finds nothing although a write was acknowledged or read before.
/// - `record-stale`: a fresh read finds an older value than that.
pub fn check(history: &History, losses: &Losses) -> Result<(), Violation> {
    for (key, operations) in history.keys() {
        let writes = Writes::new(&operations);
        for &read in &operations {
            let (Some((told, _)), Some(seen)) = (read.done(), read.seen()) else {
                continue;
            };
            let value = match seen {
                Seen::Absent => None,
                Seen::Value(value, _) => Some(value),
                Seen::Version(_) | Seen::Unsaid => continue,
            };
            let asked = if read.is_fresh() {
                read.invoked()
            } else {
                ALWAYS
            };
            let losses = losses.until(key, told.0);
            writes
                .explain(value, asked, told, losses)
                .map_err(|wrong| wrong.into_violation(key, value, &read.to_string(), told.0))?;
        }
    }
    Ok(())
}

/// Judges what stands at `at`, after quiet: every key of `history` has its copies in `all`.
///
/// # Errors
/// - `replicas-differ`: two members have different values.
/// - `record-lost`: an acknowledged write, followed by none that may have replaced it, is not there.
/// - `value-from-nowhere`: nobody wrote what is there.
pub fn check_final(
    history: &History,
    losses: &Losses,
    all: &[Copies],
    at: Duration,
) -> Result<(), Violation> {
    let mut stand: BTreeMap<&str, Option<Value>> = BTreeMap::new();
    for Copies { key, copies } in all {
        let Some(&(first, value)) = copies.first() else {
            continue;
        };
        if let Some((other, differs)) = copies.iter().find(|(_, other)| *other != value) {
            let (one, two) = (named(value), named(*differs));
            let detail = format!("key `{key}` is {one} on node {first} and {two} on node {other}");
            return Err(Violation::new("replicas-differ", detail, at));
        }
        stand.insert(key, value);
    }
    let now = (at, u64::MAX);
    let known: BTreeMap<&str, Vec<&Operation>> = history
        .keys()
        .map(|(key, operations)| (&**key, operations))
        .collect();
    let keys: BTreeSet<&str> = known.keys().chain(stand.keys()).copied().collect();
    for key in keys {
        let value = stand.get(key).copied().flatten();
        let writes = Writes::new(known.get(key).map_or(&[][..], Vec::as_slice));
        let told = writes.explain(value, now, now, losses.until(key, at));
        told.map_err(|mut wrong| {
            if let Wrong::Stale { is_final, .. } = &mut wrong {
                *is_final = true;
            }
            wrong.into_violation(key, value, "after quiet", at)
        })?;
    }
    Ok(())
}

/// One operation that may have changed a key.
struct Write<'a> {
    operation: Option<&'a Operation>,
    value: Option<Value>,
    asked: Moment,
    /// From when on it is known to have had its effect.
    known: Moment,
}

/// All writes of one key, and the state before them.
struct Writes<'a> {
    all: Vec<Write<'a>>,
    /// By when they are known to have had their effect; the latest asked for among those so far.
    latest: Vec<(Moment, usize)>,
    failed: Vec<(Option<Value>, &'a Operation)>,
}

/// Why a value does not stand there by right.
enum Wrong {
    Nowhere { failed: Option<String> },
    Stale { newer: String, is_final: bool },
}

impl<'a> Writes<'a> {
    fn new(operations: &[&'a Operation]) -> Self {
        let mut all = vec![Write {
            operation: None,
            value: None,
            asked: ALWAYS,
            known: ALWAYS,
        }];
        let mut failed = Vec::new();
        for &operation in operations {
            if operation.outcome == Ending::Failed {
                failed.push((operation.wanted().flatten(), operation));
            }
            if let Some(value) = operation.effect() {
                all.push(Write {
                    operation: Some(operation),
                    value,
                    asked: operation.invoked(),
                    known: operation.done().map_or(NEVER, |(told, _)| told),
                });
            }
        }
        // What was read has had its effect by then, where only one write can have been it.
        let mut writers: BTreeMap<Value, Vec<usize>> = BTreeMap::new();
        for (number, write) in all.iter().enumerate() {
            if let Some(value) = write.value {
                writers.entry(value).or_default().push(number);
            }
        }
        for read in operations {
            let value = read.seen().and_then(Seen::value);
            let Some([number]) = value
                .and_then(|value| writers.get(&value))
                .map(Vec::as_slice)
            else {
                continue;
            };
            if let Some((told, _)) = read.done() {
                let write = &mut all[*number];
                write.known = write.known.min(told);
            }
        }
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|&number| all[number].known);
        let mut best = 0;
        let latest = order.iter().map(|&number| {
            if all[number].asked > all[best].asked {
                best = number;
            }
            (all[number].known, best)
        });
        let latest = latest.collect();
        Self {
            all,
            latest,
            failed,
        }
    }

    /// Judges that `value` may be told at `told` to somebody who asked at `asked`, when what was
    /// asked for up to `lost` need not be there.
    fn explain(
        &self,
        value: Option<Value>,
        asked: Moment,
        told: Moment,
        lost: Moment,
    ) -> Result<(), Wrong> {
        let same = |write: &&Write<'_>| write.value == value && write.asked <= told;
        let mut writers = self.all.iter().filter(same).peekable();
        if writers.peek().is_none() {
            let mut failed = self.failed.iter().filter(|(wrote, _)| *wrote == value);
            let failed = failed.next().map(|(_, operation)| operation.to_string());
            return Err(Wrong::Nowhere { failed });
        }
        // The latest asked for of all that were known to be done before the question.
        let before = self.latest.partition_point(|(known, _)| *known < asked);
        let Some((_, newest)) = before.checked_sub(1).map(|last| self.latest[last]) else {
            return Ok(());
        };
        let newest = &self.all[newest];
        // A write that was known to be done before that one was asked for is replaced by it.
        if newest.asked <= lost || writers.any(|write| newest.asked <= write.known) {
            return Ok(());
        }
        let newer = newest
            .operation
            .map_or_else(String::new, ToString::to_string);
        let is_final = false;
        Err(Wrong::Stale { newer, is_final })
    }
}

impl Wrong {
    fn into_violation(
        self,
        key: &str,
        value: Option<Value>,
        seen: &str,
        at: Duration,
    ) -> Violation {
        let value_text = named(value);
        match self {
            Self::Nowhere { failed } => {
                let why = failed.map_or_else(
                    || String::from("nobody wrote that"),
                    |failed| format!("only {failed} wrote that"),
                );
                let detail = format!("key `{key}` is {value_text}, {seen}: {why}");
                Violation::new("value-from-nowhere", detail, at)
            }
            Self::Stale { newer, is_final } => {
                let is_lost = is_final || value.is_none();
                let rule = if is_lost {
                    "record-lost"
                } else {
                    "record-stale"
                };
                let detail = format!("key `{key}` is {value_text}, {seen}, but before: {newer}");
                Violation::new(rule, detail, at)
            }
        }
    }
}

fn named(value: Option<Value>) -> String {
    value.map_or_else(|| String::from("absent"), |value| value.to_string())
}

#[cfg(test)]
mod tests;

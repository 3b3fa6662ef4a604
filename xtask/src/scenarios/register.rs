//! A register workload: a few keys, each written again and again by one writer, every accepted
//! write recorded with the ownership token it was acknowledged under; and what must hold of the
//! record.
//!
//! What is judged is the order of accepted writes as clients saw it, and what it proves of tokens:
//! whoever acknowledges a write held its token at some moment between its sending and its answer,
//! so that a token lived at least from the first answer under it to the last sending. Those spans
//! of one partition must not touch, and follow each other as the epochs do. Until when a token
//! would have been valid says nothing more: its node gives it up early when the partition moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::task::JoinSet;

use crate::clock::{Stopwatch, human};
use crate::kv::{Acceptance, Records};

/// How many registers there are: enough for every node to be primary of some.
const REGISTERS: u64 = 24;
/// The pause of a writer between two writes.
const PACE: Duration = Duration::from_millis(60);
/// How long one write may take before its outcome counts as unknown.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// A write that a client was told is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The register.
    pub(super) key: String,
    /// What was written: the number of the write among those of the register.
    pub(super) value: u64,
    /// Which node accepted it, for which partition, under which epoch and number.
    pub(super) by: Acceptance,
    /// When the client sent it.
    pub(super) sent: Duration,
    /// When the client was told.
    pub(super) told: Duration,
}

/// All that was written.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// In the order in which clients were told.
    pub(super) accepted: Vec<Accepted>,
    /// Writes with an unknown outcome: register and value.
    pub(super) unknown: Vec<(String, u64)>,
    last_error: Option<String>,
}

/// The running writers. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Registers {
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
    watch: Stopwatch,
}

impl Registers {
    /// Starts to write.
    pub(super) fn start(records: &Arc<Records>) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Stopwatch::start();
        let mut writers = JoinSet::new();
        for number in 0..REGISTERS {
            let (records, history, stop) =
                (Arc::clone(records), Arc::clone(&history), Arc::clone(&stop));
            writers.spawn(async move {
                let key = format!("register/{number}");
                let mut value = 0;
                while !stop.load(Ordering::Relaxed) {
                    value += 1;
                    write(&records, &history, &key, value, watch).await;
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        Self {
            history,
            stop,
            writers,
            watch,
        }
    }

    /// Returns how long the writers have run: the time that writes carry.
    pub(super) fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Returns how many registers on partitions that `count` have accepted no write that was sent at
    /// `since` or later, and how many such registers there are.
    pub(super) fn silent_since(
        &self,
        since: Duration,
        count: impl Fn(u64) -> bool,
    ) -> (usize, usize) {
        let history = lock(&self.history);
        let ours = history.accepted.iter();
        let ours = ours.filter(|write| count(write.by.partition));
        let keys = ours.clone().map(|write| &write.key);
        let keys: BTreeSet<&String> = keys.collect();
        let later = ours.filter(|write| write.sent >= since);
        let later: BTreeSet<&String> = later.map(|write| &write.key).collect();
        (keys.len() - later.len(), keys.len())
    }

    /// Returns how many writes were accepted so far.
    pub(super) fn accepted(&self) -> usize {
        lock(&self.history).accepted.len()
    }

    /// Returns the last error a write met.
    pub(super) fn last_error(&self) -> String {
        let last = lock(&self.history).last_error.clone();
        last.unwrap_or_else(|| "no write failed".to_owned())
    }

    /// Lets every write under way end, and returns all that was written.
    pub(super) async fn finish(&mut self) -> anyhow::Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            if let Err(error) = ended {
                bail!("a writer ended by itself: {error}");
            }
        }
        Ok(lock(&self.history).clone())
    }

    /// Says how much was written.
    pub(super) fn summary(&self) -> String {
        let history = lock(&self.history);
        let took = |accepted: &Accepted| accepted.told.saturating_sub(accepted.sent);
        let slowest = history.accepted.iter().map(took).max().unwrap_or_default();
        format!(
            "{} accepted, {} unknown, slowest {}",
            history.accepted.len(),
            history.unknown.len(),
            human(slowest)
        )
    }
}

async fn write(
    records: &Records,
    history: &Mutex<History>,
    key: &str,
    value: u64,
    watch: Stopwatch,
) {
    let sent = watch.elapsed();
    let written = records
        .write(key, value.to_string().as_bytes(), WRITE_LIMIT)
        .await;
    let told = watch.elapsed();
    let mut history = lock(history);
    match written {
        Ok(by) => history.accepted.push(Accepted {
            key: key.to_owned(),
            value,
            by,
            sent,
            told,
        }),
        Err(error) => {
            history.unknown.push((key.to_owned(), value));
            history.last_error = Some(format!("{error:#}"));
        }
    }
}

fn lock(history: &Mutex<History>) -> std::sync::MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks what must hold of every history: one primary for each epoch of a partition, no two tokens
/// of one partition at once, and versions that rise in the order clients saw.
pub(super) fn check(history: &History) -> anyhow::Result<()> {
    let mut partitions: BTreeMap<u64, Vec<&Accepted>> = BTreeMap::new();
    for accepted in &history.accepted {
        let partition = accepted.by.partition;
        partitions.entry(partition).or_default().push(accepted);
    }
    for accepted in partitions.values() {
        one_primary_an_epoch(accepted, |by| by.epoch)?;
        one_primary_an_epoch(accepted, |by| by.token)?;
        tokens_never_overlap(accepted)?;
        versions_rise(accepted)?;
    }
    Ok(())
}

fn one_primary_an_epoch(
    accepted: &[&Accepted],
    epoch: impl Fn(&Acceptance) -> u64,
) -> anyhow::Result<()> {
    let mut primaries: BTreeMap<u64, &Accepted> = BTreeMap::new();
    for write in accepted {
        let first = *primaries.entry(epoch(&write.by)).or_insert(write);
        ensure!(
            first.by.node == write.by.node,
            "two nodes accepted writes of partition {} under epoch {}: {first:?} and {write:?}",
            write.by.partition,
            epoch(&write.by)
        );
    }
    Ok(())
}

/// What the writes acknowledged under one token prove of when it lived.
struct Span<'a> {
    /// The first that a client was told of: the token was held by then.
    first: &'a Accepted,
    /// The last that a client sent: the token was held still.
    last: &'a Accepted,
}

/// Every token of a partition must have been over before the next one was held.
fn tokens_never_overlap(accepted: &[&Accepted]) -> anyhow::Result<()> {
    let mut spans: BTreeMap<u64, Span<'_>> = BTreeMap::new();
    for &write in accepted {
        ensure!(
            write.by.token >= write.by.epoch,
            "a write was acknowledged under a token older than its own version: {write:?}"
        );
        let span = spans.entry(write.by.token).or_insert(Span {
            first: write,
            last: write,
        });
        if write.told < span.first.told {
            span.first = write;
        }
        if write.sent > span.last.sent {
            span.last = write;
        }
    }
    // Of all tokens before: whichever is known to have lived longest.
    let mut before: Option<&Accepted> = None;
    for (token, span) in &spans {
        if let Some(older) = before {
            ensure!(
                older.sent <= span.first.told,
                "two tokens of partition {} lived at once: {older:?} was sent after {:?} had been \
                 acknowledged under token {token}",
                older.by.partition,
                span.first
            );
        }
        if before.is_none_or(|older| span.last.sent > older.sent) {
            before = Some(span.last);
        }
    }
    Ok(())
}

/// A write sent after another was accepted must have the higher version: else a primary accepted
/// it that had been replaced.
fn versions_rise(accepted: &[&Accepted]) -> anyhow::Result<()> {
    let version = |write: &Accepted| (write.by.epoch, write.by.seq);
    let mut by_sent = accepted.to_vec();
    by_sent.sort_by_key(|write| write.sent);
    let mut by_told = accepted.to_vec();
    by_told.sort_by_key(|write| write.told);
    let mut told = by_told.into_iter().peekable();
    let mut highest: Option<&Accepted> = None;
    for write in by_sent {
        while let Some(before) = told.next_if(|before| before.told < write.sent) {
            if highest.is_none_or(|highest| version(before) > version(highest)) {
                highest = Some(before);
            }
        }
        if let Some(before) = highest {
            ensure!(
                version(before) < version(write),
                "partition {} went back: {before:?}, and after it {write:?}",
                write.by.partition
            );
        }
    }
    Ok(())
}

/// Checks that a register still holds what was accepted last, or a write after that whose outcome
/// is unknown.
pub(super) fn check_final(
    history: &History,
    found: &BTreeMap<String, Option<u64>>,
) -> anyhow::Result<()> {
    for (key, found) in found {
        let of_key = history.accepted.iter().filter(|write| write.key == *key);
        let Some(last) = of_key.max_by_key(|write| write.value) else {
            continue;
        };
        let is_unknown = |value| history.unknown.contains(&(key.clone(), value));
        let is_right = |value| value == last.value || (value > last.value && is_unknown(value));
        ensure!(
            found.is_some_and(is_right),
            "`{key}` holds {found:?}, accepted last was {last:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write of register `k` in partition 7: value, epoch, number, node, and when.
    fn accepted(value: u64, (epoch, seq): (u64, u64), node: &str, at: (u64, u64)) -> Accepted {
        Accepted {
            key: "k".into(),
            value,
            by: Acceptance {
                node: node.into(),
                partition: 7,
                epoch,
                seq,
                token: epoch,
            },
            sent: Duration::from_millis(at.0),
            told: Duration::from_millis(at.1),
        }
    }

    fn judge(accepted: Vec<Accepted>) -> String {
        let history = History {
            accepted,
            ..History::default()
        };
        check(&history).map_or_else(|wrong| wrong.to_string(), |()| "right".into())
    }

    #[test]
    fn a_replaced_primary_that_accepts_a_write_is_found() {
        let first = accepted(1, (5, 9), "a", (0, 10));
        let after = accepted(2, (6, 1), "b", (20, 30));
        assert_eq!(judge(vec![first.clone(), after.clone()]), "right");
        let late = accepted(3, (5, 10), "a", (40, 50));
        let wrong = judge(vec![first.clone(), after.clone(), late]);
        assert!(wrong.starts_with("two tokens of partition 7"), "{wrong}");
        // Sent before the new primary's write was done: either order is right.
        let concurrent = accepted(3, (5, 10), "a", (25, 50));
        assert_eq!(judge(vec![first.clone(), after, concurrent]), "right");
        let twice = accepted(2, (5, 9), "a", (20, 30));
        assert!(judge(vec![first, twice]).contains("went back"));
    }

    #[test]
    fn two_primaries_of_one_epoch_are_found() {
        let wrong = judge(vec![
            accepted(1, (5, 1), "a", (0, 10)),
            accepted(2, (5, 2), "b", (5, 15)),
        ]);
        assert!(wrong.starts_with("two nodes accepted"), "{wrong}");
    }

    /// The same as [`accepted`], acknowledged under another token than that of its version.
    fn under(token: u64, mut write: Accepted) -> Accepted {
        write.by.token = token;
        write
    }

    #[test]
    fn two_tokens_that_lived_at_once_are_found() {
        // Of different registers: their versions alone do not contradict each other.
        let old = |seq, at| accepted(seq, (5, seq), "a", at);
        let new = |seq, at| accepted(seq, (6, seq), "b", at);
        let right = vec![old(1, (0, 10)), old(2, (20, 40)), new(1, (15, 30))];
        assert_eq!(judge(right), "right", "the old one may have ended at 25");
        let forged = vec![old(1, (0, 10)), new(1, (15, 30)), old(2, (31, 40))];
        let wrong = judge(forged);
        assert!(
            wrong.starts_with("two tokens of partition 7 lived at once"),
            "{wrong}"
        );
        // Also where another token lies between the two.
        let between = accepted(1, (7, 1), "c", (50, 60));
        let forged = vec![old(1, (0, 10)), between, new(1, (61, 70))];
        assert!(judge(forged).starts_with("two tokens of partition 7"));
        // And where the versions alone are in order.
        let ahead = under(8, accepted(1, (5, 1), "a", (0, 10)));
        let forged = vec![ahead, accepted(2, (6, 1), "b", (20, 30))];
        assert!(judge(forged).starts_with("two tokens of partition 7"));
    }

    #[test]
    fn a_write_acknowledged_under_the_token_of_its_successor_is_found() {
        let mine = under(6, accepted(1, (5, 1), "a", (0, 10)));
        assert_eq!(judge(vec![mine.clone()]), "right", "it kept the partition");
        let theirs = accepted(2, (6, 1), "b", (20, 30));
        let wrong = judge(vec![mine, theirs]);
        assert!(wrong.contains("under epoch 6"), "{wrong}");
        let older = under(4, accepted(1, (5, 1), "a", (0, 10)));
        assert!(judge(vec![older]).contains("older than its own version"));
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut history = History {
            accepted: vec![accepted(4, (5, 4), "a", (0, 10))],
            unknown: vec![("k".into(), 3), ("k".into(), 5)],
            last_error: None,
        };
        let judge = |history: &History, value: Option<u64>| {
            check_final(history, &BTreeMap::from([("k".to_owned(), value)])).is_ok()
        };
        assert!(judge(&history, Some(4)));
        assert!(judge(&history, Some(5)), "it was carried out after all");
        for wrong in [Some(3), Some(6), None] {
            assert!(!judge(&history, wrong), "{wrong:?}");
        }
        history.accepted.clear();
        assert!(judge(&history, None), "nothing was accepted");
    }
}

//! Writes records in the background and remembers which of them were acknowledged.
//!
//! Every key is written once with a value of its own: a write whose outcome is unknown may or may
//! not be there afterwards, an acknowledged one must be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use tokio::task::JoinSet;

use crate::clock::{Stopwatch, human};
use crate::kv::Records;
use crate::random::Random;

const WORKERS: u64 = 4;
/// The pause of a worker between two writes: enough to keep every partition busy, and to leave the
/// machine to the cluster.
const PACE: Duration = Duration::from_millis(8);
/// How long one write may take before its outcome counts as unknown.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What was written so far.
#[derive(Debug, Default)]
struct Ledger {
    acknowledged: Vec<(String, Vec<u8>)>,
    unknown: usize,
    slowest: Duration,
    last_error: Option<String>,
}

/// The running writers. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Writer {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    workers: JoinSet<()>,
}

impl Writer {
    /// Starts writing keys that begin with `prefix`.
    pub(super) fn start(records: &Arc<Records>, prefix: &str, seed: u64) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let (records, ledger, stop) =
                (Arc::clone(records), Arc::clone(&ledger), Arc::clone(&stop));
            let prefix = format!("{prefix}/{worker}");
            let mut random = Random::new(seed ^ (worker << 32));
            workers.spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    write(&records, &ledger, format!("{prefix}/{number}"), &mut random).await;
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        Self {
            ledger,
            stop,
            workers,
        }
    }

    /// Returns how many records were acknowledged so far.
    pub(super) fn acknowledged(&self) -> usize {
        lock(&self.ledger).acknowledged.len()
    }

    /// Returns the last error a write met.
    pub(super) fn last_error(&self) -> String {
        lock(&self.ledger)
            .last_error
            .clone()
            .unwrap_or_else(|| "no write failed".to_owned())
    }

    /// Lets every write under way end, and returns what was acknowledged.
    pub(super) async fn finish(&mut self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            if let Err(error) = ended {
                bail!("a writer ended by itself: {error}");
            }
        }
        Ok(lock(&self.ledger).acknowledged.clone())
    }

    /// Says how much was written.
    pub(super) fn summary(&self) -> String {
        let ledger = lock(&self.ledger);
        format!(
            "{} acknowledged, {} unknown, slowest {}",
            ledger.acknowledged.len(),
            ledger.unknown,
            human(ledger.slowest)
        )
    }
}

async fn write(records: &Records, ledger: &Mutex<Ledger>, key: String, random: &mut Random) {
    let length = random.next() % 6;
    let value: Vec<u8> = (0..length)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    let watch = Stopwatch::start();
    let written = records.put(&key, &value, WRITE_LIMIT).await;
    let took = watch.elapsed();
    let mut ledger = lock(ledger);
    match written {
        Ok(()) => {
            ledger.slowest = ledger.slowest.max(took);
            ledger.acknowledged.push((key, value));
        }
        Err(error) => {
            ledger.unknown += 1;
            ledger.last_error = Some(format!("{error:#}"));
        }
    }
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

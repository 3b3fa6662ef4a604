//! The one that writes: it groups what is waiting into one durable batch, on a thread of its own
//! or, in a simulation, in a task.
//!
//! One fsync then answers many appends. Order is the order of submission; an answer is given only
//! after the batch is durable. After a failed write nothing more is written: the outcome of that
//! batch is unknown, and writing on top of it could tear the log. What is written is decided by
//! the log store and the state machine.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use clusterkit_core::planted::{self, Bug};
use tokio::sync::{mpsc, oneshot};

use crate::execution::Execution;
use crate::storage::{Storage, WriteOp};
use crate::tasks::{self, Worker};

/// How many submissions may wait; a submitter beyond it waits itself.
const QUEUE_MAX: usize = 4_096;

/// At how many bytes a batch is full. Larger batches amortize the fsync no further and delay the
/// first answer.
const BATCH_MAX_BYTES: usize = 4 << 20;

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    ops: Vec<WriteOp>,
    done: Option<Done>,
}

/// The submitting end; clones share one writer.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    worker: Mutex<Option<Worker>>,
}

impl Writer {
    /// Starts what writes.
    pub(crate) fn start(storage: Arc<dyn Storage>, execution: Execution) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let worker = match execution {
            Execution::Threads => {
                tasks::thread("clusterkit-log", move || write_here(&*storage, receiver))?
            }
            Execution::Inline => tasks::worker(write_in_turn(storage, receiver)),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                jobs: Mutex::new(Some(sender)),
                worker: Mutex::new(Some(worker)),
            }),
        })
    }

    /// Submits `ops` and returns at once; `done` is called when they are durable, or failed.
    pub(crate) async fn submit(
        &self,
        ops: Vec<WriteOp>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        self.send(Job {
            ops,
            done: Some(Box::new(done)),
        })
        .await
    }

    /// Submits `ops` to be written with whatever is written next, and no later than at the end.
    pub(crate) async fn submit_lazily(&self, ops: Vec<WriteOp>) -> io::Result<()> {
        self.send(Job { ops, done: None }).await
    }

    /// Writes `ops` and waits until they are durable.
    pub(crate) async fn write(&self, ops: Vec<WriteOp>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.submit(ops, move |result| {
            let _ = sender.send(result);
        })
        .await?;
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Writes what was submitted, ends what writes and waits for it.
    pub(crate) async fn stop(&self) {
        let sender = self.lock_jobs().take();
        if let Some(sender) = sender {
            let (answer, receiver) = oneshot::channel();
            let job = Job {
                ops: Vec::new(),
                done: Some(Box::new(move |result| {
                    let _ = answer.send(result);
                })),
            };
            if sender.send(job).await.is_ok() {
                let _ = receiver.await;
            }
        }
        let worker = self
            .shared
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(worker) = worker {
            // All was written when the last job was answered: this waits for the return only.
            worker.join().await;
        }
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        let sender = self.lock_jobs().clone();
        let sender = sender.ok_or_else(closed)?;
        sender.send(job).await.map_err(|_| closed())
    }

    fn lock_jobs(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Job>>> {
        self.shared
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has stopped")
}

/// Writes until every submitter is gone, on a thread that may block.
fn write_here(storage: &dyn Storage, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Batch::default();
    while let Some(job) = jobs.blocking_recv() {
        if batch.gather(job, &mut jobs) {
            batch.commit(storage);
            batch.answer();
        }
    }
    batch.commit(storage);
}

/// The same in a task, on a disk that does not block: what it should have taken is waited for
/// before anything is called durable.
async fn write_in_turn(storage: Arc<dyn Storage>, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Batch::default();
    while let Some(job) = jobs.recv().await {
        if batch.gather(job, &mut jobs) {
            if planted::is_on(Bug::AckBeforeFsync) {
                batch.answer();
                if batch.ops.len() < 4 {
                    continue;
                }
            }
            batch.commit(&*storage);
            let late = storage.pending_latency();
            if !late.is_zero() {
                tokio::time::sleep(late).await;
            }
            batch.answer();
        }
    }
    batch.commit(&*storage);
}

/// What is written together.
#[derive(Default)]
struct Batch {
    ops: Vec<WriteOp>,
    waiting: Vec<Done>,
    failure: Option<String>,
}

impl Batch {
    /// Takes `job` and what waits behind it, until the batch is full. Returns whether it is to be
    /// written now: lazy operations alone wait for company.
    fn gather(&mut self, job: Job, jobs: &mut mpsc::Receiver<Job>) -> bool {
        let mut bytes = 0;
        let mut next = Some(job);
        while let Some(job) = next {
            bytes += job.ops.iter().map(WriteOp::size).sum::<usize>();
            self.ops.extend(job.ops);
            self.waiting.extend(job.done);
            next = if bytes < BATCH_MAX_BYTES {
                jobs.try_recv().ok()
            } else {
                None
            };
        }
        !self.waiting.is_empty() || bytes >= BATCH_MAX_BYTES
    }

    fn commit(&mut self, storage: &dyn Storage) {
        if self.failure.is_none()
            && !self.ops.is_empty()
            && let Err(error) = storage.write(&self.ops)
        {
            let text = error.with_causes();
            tracing::error!(error = %text, "writing the log failed, nothing more is written");
            self.failure = Some(text);
        }
        self.ops.clear();
    }

    fn answer(&mut self) {
        for done in self.waiting.drain(..) {
            done(answer(self.failure.as_deref()));
        }
    }
}

fn answer(failure: Option<&str>) -> io::Result<()> {
    match failure {
        None => Ok(()),
        Some(text) => Err(io::Error::other(text.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock;
    use crate::storage::{LogRecord, MemoryStorage, StorageError};

    /// Counts batches, and can hold the first one until told, or fail.
    #[derive(Debug)]
    struct Counting {
        inner: MemoryStorage,
        batches: AtomicUsize,
        gate: Barrier,
        fail: AtomicBool,
    }

    impl Storage for Counting {
        fn write(&self, batch: &[WriteOp]) -> Result<(), StorageError> {
            if self.batches.fetch_add(1, Ordering::SeqCst) == 0 {
                self.gate.wait();
            }
            if self.fail.load(Ordering::SeqCst) {
                return Err(StorageError::Io {
                    path: self.location(),
                    source: io::Error::from(io::ErrorKind::StorageFull),
                });
            }
            self.inner.write(batch)
        }
        fn log_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
            self.inner.log_bounds()
        }
        fn read_log(&self, f: u64, u: u64, m: usize) -> Result<Vec<LogRecord>, StorageError> {
            self.inner.read_log(f, u, m)
        }
        fn meta(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
            self.inner.meta(key)
        }
        fn snapshot(&self) -> Result<Option<Bytes>, StorageError> {
            self.inner.snapshot()
        }
        fn location(&self) -> PathBuf {
            PathBuf::from("counting")
        }
    }

    fn counting() -> Arc<Counting> {
        Arc::new(Counting {
            inner: MemoryStorage::new(),
            batches: AtomicUsize::new(0),
            gate: Barrier::new(2),
            fail: AtomicBool::new(false),
        })
    }

    fn record(index: u64) -> Vec<WriteOp> {
        vec![WriteOp::Append(LogRecord {
            index,
            bytes: Bytes::from_static(b"record"),
        })]
    }

    #[tokio::test]
    async fn what_waits_is_written_as_one_batch_in_order() {
        let storage = counting();
        let writer = Writer::start(storage.clone(), Execution::Threads).unwrap();
        let (answers, mut answered) = mpsc::unbounded_channel();
        for index in 0..100 {
            let answers = answers.clone();
            let done = move |result: io::Result<()>| {
                result.unwrap();
                answers.send(index).unwrap();
            };
            writer.submit(record(index), done).await.unwrap();
        }
        storage.gate.wait();
        for index in 0..100 {
            assert_eq!(answered.recv().await, Some(index));
        }
        assert!(storage.batches.load(Ordering::SeqCst) <= 2);
        assert_eq!(storage.log_bounds().unwrap(), Some((0, 99)));
        writer.stop().await;
        assert!(writer.write(record(100)).await.is_err());
    }

    #[tokio::test]
    async fn lazy_writes_wait_for_company_and_are_kept_at_the_end() {
        let storage = counting();
        let writer = Writer::start(storage.clone(), Execution::Threads).unwrap();
        writer.submit_lazily(record(0)).await.unwrap();
        let gate = storage.clone();
        let opener = std::thread::spawn(move || gate.gate.wait());
        writer.stop().await;
        opener.join().unwrap();
        assert_eq!(storage.batches.load(Ordering::SeqCst), 1);
        assert_eq!(storage.log_bounds().unwrap(), Some((0, 0)));
    }

    #[tokio::test]
    async fn nothing_is_written_after_a_failure() {
        let storage = counting();
        storage.fail.store(true, Ordering::SeqCst);
        let writer = Writer::start(storage.clone(), Execution::Threads).unwrap();
        let gate = storage.clone();
        let opener = std::thread::spawn(move || gate.gate.wait());
        let first = writer.write(record(0)).await.unwrap_err();
        assert!(first.to_string().starts_with("storage in counting failed"));
        opener.join().unwrap();
        storage.fail.store(false, Ordering::SeqCst);
        assert!(writer.write(record(1)).await.is_err());
        assert_eq!(storage.log_bounds().unwrap(), None);
        writer.stop().await;
    }

    /// Answers at once and is late by a second per batch.
    #[derive(Debug, Default)]
    struct Late {
        inner: MemoryStorage,
        batches: AtomicUsize,
    }

    impl Storage for Late {
        fn write(&self, batch: &[WriteOp]) -> Result<(), StorageError> {
            self.batches.fetch_add(1, Ordering::SeqCst);
            self.inner.write(batch)
        }
        fn log_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
            self.inner.log_bounds()
        }
        fn read_log(&self, f: u64, u: u64, m: usize) -> Result<Vec<LogRecord>, StorageError> {
            self.inner.read_log(f, u, m)
        }
        fn meta(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
            self.inner.meta(key)
        }
        fn snapshot(&self) -> Result<Option<Bytes>, StorageError> {
            self.inner.snapshot()
        }
        fn pending_latency(&self) -> Duration {
            Duration::from_secs(1)
        }
        fn location(&self) -> PathBuf {
            PathBuf::from("late")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_task_batches_form_while_the_disk_is_late() {
        let storage = Arc::new(Late::default());
        let writer = Writer::start(storage.clone(), Execution::Inline).unwrap();
        let start = clock::now();
        writer.submit(record(0), |_| {}).await.unwrap();
        while storage.batches.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        for index in 1..100 {
            writer.submit(record(index), |_| {}).await.unwrap();
        }
        writer.write(record(100)).await.unwrap();
        assert_eq!(storage.batches.load(Ordering::SeqCst), 2);
        assert_eq!(clock::now() - start, Duration::from_secs(2));
        assert_eq!(storage.log_bounds().unwrap(), Some((0, 100)));
        writer.stop().await;
        assert!(writer.write(record(101)).await.is_err());
    }
}

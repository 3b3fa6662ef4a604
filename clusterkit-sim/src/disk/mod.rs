//! A simulated disk, which loses, tears, fails, fills up and is slow.
//!
//! A [`SimDisk`] is the machine's side: the harness crashes, wipes and slows it. What a node is
//! given is its [`directory`](SimDisk::directory), which belongs to one run of a process: once the
//! process or the machine has died, everything through it fails, so that what is dropped late
//! cannot write any more. What is durable when stands in [`clusterkit_raft::disk`]; the simulated
//! disk keeps not a byte more than is promised there. Chance comes from the generator it was made
//! with and from nothing else.
//!
//! ```
//! use clusterkit_sim::disk::SimDisk;
//! use clusterkit_sim::{Rng, Unsynced};
//!
//! # fn main() -> std::io::Result<()> {
//! let disk = SimDisk::new("node-1", Rng::new(7).split("disk"));
//! let directory = disk.directory();
//! directory.publish("kept", b"synced")?;
//! directory.create("lost")?.write(0, b"not synced, nor is its name")?;
//! disk.crash(Unsynced::Lost);
//! assert!(directory.read("kept").is_err(), "the process died with its machine");
//! assert_eq!(disk.directory().read("kept")?.as_deref(), Some(&b"synced"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! A crash *within* an operation of a program is made with [`SimDisk::crash_after`]: from some
//! operation on all fail, the program finds out, and the harness, which finds
//! [`SimDisk::is_dead`], crashes the machine.

mod crash;
mod file;
mod image;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clusterkit_raft::disk::Directory;

pub use self::crash::CrashReport;
use self::crash::Fate;
use self::file::Inode;
use self::image::PAGE;
use self::node::Handle;
use crate::{Rng, Unsynced};

/// The disk of one simulated machine. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskFigures {
    /// Operations that change something, syncs included.
    pub operations: u64,
    /// Writes to files.
    pub writes: u64,
    /// Bytes in them.
    pub written_bytes: u64,
    /// Syncs of files and of the directory.
    pub syncs: u64,
    /// Operations that failed because the harness wanted it.
    pub failures: u64,
    /// Deaths of the process, with or without the machine.
    pub crashes: u64,
}

type File = Arc<Mutex<Inode>>;
type Names = BTreeMap<String, File>;

#[derive(Debug)]
struct State {
    rng: Rng,
    /// Which run of the process may use the disk.
    boot: u64,
    names: Names,
    durable_names: Names,
    unsynced_names: Vec<NameChange>,
    locks: BTreeSet<String>,
    /// After how many further operations the machine is dead.
    dies_after: Option<u64>,
    /// After how many further operations one fails.
    fails_after: Option<u64>,
    capacity_bytes: Option<u64>,
    sync_takes: RangeInclusive<Duration>,
    figures: DiskFigures,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, File),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(name, file) => {
                names.insert(name.clone(), Arc::clone(file));
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl SimDisk {
    /// Returns an empty disk; `path` stands in messages only.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, rng: Rng) -> Self {
        Self {
            path: path.into(),
            state: Arc::new(Mutex::new(State {
                rng,
                boot: 0,
                names: Names::new(),
                durable_names: Names::new(),
                unsynced_names: Vec::new(),
                locks: BTreeSet::new(),
                dies_after: None,
                fails_after: None,
                capacity_bytes: None,
                sync_takes: Duration::ZERO..=Duration::ZERO,
                figures: DiskFigures::default(),
            })),
        }
    }

    /// Returns the disk as the process that runs now sees it. Who takes several gets one account
    /// of pending latency each.
    #[must_use]
    pub fn directory(&self) -> Arc<dyn Directory> {
        let boot = self.lock().boot;
        Arc::new(Handle::new(
            self.path.clone(),
            Arc::clone(&self.state),
            boot,
        ))
    }

    /// The process dies; with [`Unsynced::Kept`] it dies alone, so that locks are free, what was
    /// written is still read, and what was not synced is still not durable. Else the machine dies
    /// with it and of what was not synced any part is left, of a write the whole
    /// ([`Unsynced::Lost`]) or any sectors ([`Unsynced::Torn`]).
    ///
    /// Ends what [`crash_after`](Self::crash_after) and [`fail_after`](Self::fail_after) asked for.
    pub fn crash(&self, unsynced: Unsynced) -> CrashReport {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut report = CrashReport::default();
        state.figures.crashes += 1;
        state.next_boot();
        let torn = match unsynced {
            Unsynced::Kept => return report,
            Unsynced::Lost => false,
            Unsynced::Torn => true,
        };
        let mut fate = Fate::new(&mut state.rng, torn);
        let kept = fate.names(state.unsynced_names.len());
        let mut names = std::mem::take(&mut state.durable_names);
        for change in &state.unsynced_names[..kept] {
            change.apply(&mut names);
        }
        report.names_undone = (state.unsynced_names.len() - kept) as u64;
        for file in names.values_mut() {
            let left = lock(file).crashed(&mut fate, &mut report);
            *file = Arc::new(Mutex::new(left));
        }
        state.durable_names.clone_from(&names);
        state.names = names;
        state.unsynced_names.clear();
        report
    }

    /// The machine dies and comes back with an empty disk.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.names.clear();
        state.durable_names.clear();
        state.unsynced_names.clear();
        state.figures.crashes += 1;
        state.next_boot();
    }

    /// Lets `operations` more that change something succeed; then all fail, reads too, until the
    /// next [`crash`](Self::crash) or [`wipe`](Self::wipe).
    pub fn crash_after(&self, operations: u64) {
        self.lock().dies_after = Some(operations);
    }

    /// Lets `operations` more that change something succeed and the next one fail. What a write
    /// that fails leaves in its range, and whether what a sync that fails should have covered will
    /// ever be durable, is left to chance.
    pub fn fail_after(&self, operations: u64) {
        self.lock().fails_after = Some(operations);
    }

    /// Tells whether all operations fail since [`crash_after`](Self::crash_after).
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dies_after == Some(0)
    }

    /// Lets writes fail that need more than `bytes` in all files together; `None` ends it.
    pub fn full(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Returns how many bytes all files take together.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Lets every sync take a time of this range: see
    /// [`Directory::pending_latency`].
    pub fn slow(&self, sync_takes: RangeInclusive<Duration>) {
        self.lock().sync_takes = sync_takes;
    }

    /// Flips one bit of the file `name` in what is durable; returns where.
    pub fn rot(&self, name: &str) -> Option<u64> {
        let mut guard = self.lock();
        let (at, bit) = (guard.rng.u64(), guard.rng.below(8));
        let file = guard.names.get(name)?;
        let offset = lock(file).rot(at, u8::try_from(bit).unwrap_or(0));
        drop(guard);
        offset
    }

    /// Returns what it has done so far.
    #[must_use]
    pub fn figures(&self) -> DiskFigures {
        self.lock().figures
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn next_boot(&mut self) {
        self.boot += 1;
        self.locks.clear();
        self.dies_after = None;
        self.fails_after = None;
    }

    fn used_bytes(&self) -> u64 {
        let pages = self.names.values().map(|file| lock(file).allocated());
        pages.map(|pages| (pages * PAGE) as u64).sum()
    }

    /// Returns how many further pages may be allocated.
    fn free_pages(&self) -> usize {
        let Some(capacity) = self.capacity_bytes else {
            return usize::MAX;
        };
        let free = capacity.saturating_sub(self.used_bytes()) / PAGE as u64;
        usize::try_from(free).unwrap_or(usize::MAX)
    }

    /// Admits a call of the run `boot`.
    fn admit(&self, boot: u64) -> io::Result<()> {
        if self.boot != boot {
            return Err(io::Error::other("the process that opened this has died"));
        }
        if self.dies_after == Some(0) {
            return Err(io::Error::other("the machine has lost its disk"));
        }
        Ok(())
    }

    /// Admits a call that changes something and counts it; tells whether it is to fail.
    fn admit_change(&mut self, boot: u64) -> io::Result<bool> {
        self.admit(boot)?;
        if let Some(left) = &mut self.dies_after {
            *left -= 1;
        }
        self.figures.operations += 1;
        match self.fails_after {
            Some(0) => {
                self.fails_after = None;
                self.figures.failures += 1;
                Ok(true)
            }
            Some(left) => {
                self.fails_after = Some(left - 1);
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn sync_names(&mut self) {
        // A change for each, and few files: copying all is nothing.
        self.durable_names.clone_from(&self.names);
        self.unsynced_names.clear();
    }

    /// Counts a sync and books what it takes to `account`, in nanoseconds.
    fn count_sync(&mut self, account: &AtomicU64) {
        self.figures.syncs += 1;
        if *self.sync_takes.end() > Duration::ZERO {
            let takes = self.rng.duration(self.sync_takes.clone());
            let nanos = u64::try_from(takes.as_nanos()).unwrap_or(u64::MAX);
            account.fetch_add(nanos, Ordering::Relaxed);
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the medium failed")
}

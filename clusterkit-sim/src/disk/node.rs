//! The disk as a node sees it: the seam's traits over the machine's state.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clusterkit_raft::disk::{Directory, DirectoryLock, DiskFile};

use super::{File, NameChange, State, broken, lock};

/// The disk for one run of a process.
#[derive(Debug)]
pub(super) struct Handle {
    path: PathBuf,
    run: Run,
}

/// What a directory, its files and its locks have in common.
#[derive(Clone, Debug)]
struct Run {
    state: Arc<Mutex<State>>,
    boot: u64,
    /// How late the disk is, in nanoseconds.
    late: Arc<AtomicU64>,
}

impl Handle {
    pub(super) fn new(path: PathBuf, state: Arc<Mutex<State>>, boot: u64) -> Self {
        Self {
            path,
            run: Run {
                state,
                boot,
                late: Arc::default(),
            },
        }
    }

    fn file(&self, file: File) -> Box<dyn DiskFile> {
        Box::new(OpenFile {
            file,
            run: self.run.clone(),
        })
    }
}

impl Run {
    fn read(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        state.admit(self.boot)?;
        Ok(state)
    }

    /// Admits a change; an error when it is to fail without having done anything.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = lock(&self.state);
        if state.admit_change(self.boot)? {
            return Err(broken());
        }
        Ok(state)
    }
}

impl Directory for Handle {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn make(&self) -> io::Result<()> {
        self.run.read().map(drop)
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        let mut state = self.run.read()?;
        if !state.locks.insert(name.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock {
            name: name.to_owned(),
            run: self.run.clone(),
        })))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        let state = self.run.read()?;
        Ok(state
            .names
            .get(name)
            .map(|file| self.file(Arc::clone(file))))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.run.change()?;
        if let Some(file) = state.names.get(name) {
            lock(file).set_len(0);
            return Ok(self.file(Arc::clone(file)));
        }
        if state.free_pages() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = File::default();
        state.change_names(NameChange::Create(name.to_owned(), Arc::clone(&file)));
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.run.change()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<bool> {
        let mut state = self.run.change()?;
        if !state.names.contains_key(name) {
            return Ok(false);
        }
        state.change_names(NameChange::Remove(name.to_owned()));
        Ok(true)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.run.change()?;
        state.count_sync(&self.run.late);
        state.sync_names();
        Ok(())
    }

    fn pending_latency(&self) -> Duration {
        Duration::from_nanos(self.run.late.swap(0, Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Lock {
    name: String,
    run: Run,
}

impl DirectoryLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = lock(&self.run.state);
        // A later run may hold it by now.
        if state.boot == self.run.boot {
            state.locks.remove(&self.name);
        }
    }
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    run: Run,
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let _state = self.run.read()?;
        Ok(lock(&self.file).len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let _state = self.run.change()?;
        lock(&self.file).set_len(length);
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let _state = self.run.read()?;
        lock(&self.file).read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.run.state);
        let fails = state.admit_change(self.run.boot)?;
        // What fails may have got as far as anywhere.
        let length = if fails {
            state.rng.index(data.len() + 1)
        } else {
            data.len()
        };
        state.figures.writes += 1;
        state.figures.written_bytes += length as u64;
        let free = state.free_pages();
        let written = lock(&self.file).write(offset, &data[..length], free);
        if fails {
            return Err(broken());
        }
        if !written {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.run.state);
        let fails = state.admit_change(self.run.boot)?;
        state.count_sync(&self.run.late);
        let mut file = lock(&self.file);
        if fails {
            file.abandon();
            return Err(broken());
        }
        file.sync();
        Ok(())
    }
}

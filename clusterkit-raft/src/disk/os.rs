//! The [`Directory`] of the operating system. What is durable when stands with the trait.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Directory, DirectoryLock, DiskFile};

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct OsDirectory {
    path: PathBuf,
}

impl OsDirectory {
    /// Returns the directory at `path`, which need not exist yet: see [`Directory::make`].
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options
    }
}

impl Directory for OsDirectory {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn make(&self) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut next = Some(self.path.as_path());
        while let Some(path) = next
            && !path.as_os_str().is_empty()
            && !path.exists()
        {
            missing.push(path);
            next = path.parent();
        }
        fs::create_dir_all(&self.path)?;
        // A new directory is durable once the one that holds its name is.
        for made in missing.iter().rev() {
            match made.parent() {
                Some(above) if !above.as_os_str().is_empty() => sync_directory(above)?,
                _ => sync_directory(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path.join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        match Self::options().open(self.path.join(name)) {
            Ok(file) => Ok(Some(Box::new(OsFile::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Self::options()
            .create(true)
            .truncate(true)
            .open(self.path.join(name))?;
        Ok(Box::new(OsFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

impl DirectoryLock for File {}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file; the system journals names by itself.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Reads and writes at offsets, without a position that calls would share.
#[cfg(unix)]
#[derive(Debug)]
struct OsFile {
    file: File,
}

#[cfg(unix)]
impl OsFile {
    const fn new(file: File) -> Self {
        Self { file }
    }
}

#[cfg(unix)]
impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Moves one position under a lock, where the system has no calls with offsets in common.
#[cfg(not(unix))]
#[derive(Debug)]
struct OsFile {
    file: std::sync::Mutex<File>,
}

#[cfg(not(unix))]
impl OsFile {
    const fn new(file: File) -> Self {
        Self {
            file: std::sync::Mutex::new(file),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, File> {
        self.file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(not(unix))]
impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lock().set_len(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut file = self.lock();
        io::Seek::seek(&mut *file, io::SeekFrom::Start(offset))?;
        io::Read::read_exact(&mut *file, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut file = self.lock();
        io::Seek::seek(&mut *file, io::SeekFrom::Start(offset))?;
        io::Write::write_all(&mut *file, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.lock().sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, OsDirectory) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = OsDirectory::new(temporary.path().join("made/on/the/way"));
        directory.make().unwrap();
        (temporary, directory)
    }

    #[test]
    fn files_are_made_renamed_read_and_removed_by_name() {
        let (_temporary, directory) = directory();
        directory.make().unwrap();
        assert!(directory.open("a").unwrap().is_none());
        assert_eq!(directory.read("a").unwrap(), None);
        let file = directory.create("a").unwrap();
        file.write(3, b"abc").unwrap();
        assert_eq!(file.len().unwrap(), 6);
        file.set_len(8).unwrap();
        file.sync().unwrap();
        directory.rename("a", "b").unwrap();
        directory.sync().unwrap();
        assert!(directory.open("a").unwrap().is_none());
        let found = directory.read("b").unwrap();
        assert_eq!(found.as_deref(), Some(&b"\0\0\0abc\0\0"[..]));
        let beyond = file.read(4, &mut [0; 5]).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        directory.create("b").unwrap();
        assert_eq!(directory.read("b").unwrap(), Some(Vec::new()));
        assert!(directory.remove("b").unwrap());
        assert!(!directory.remove("b").unwrap());
    }

    #[test]
    fn a_file_is_published_in_the_place_of_the_one_before() {
        let (_temporary, directory) = directory();
        for content in [&b"a longer first one"[..], b"second", b""] {
            directory.publish("note", content).unwrap();
            assert_eq!(directory.read("note").unwrap().as_deref(), Some(content));
            assert!(directory.open("note.new").unwrap().is_none());
        }
    }

    #[test]
    fn a_lock_is_held_by_one_until_it_is_dropped() {
        let (_temporary, directory) = directory();
        let held = directory.lock("lock").unwrap().unwrap();
        assert!(directory.lock("lock").unwrap().is_none());
        assert!(directory.lock("other").unwrap().is_some());
        drop(held);
        assert!(directory.lock("lock").unwrap().is_some());
    }
}

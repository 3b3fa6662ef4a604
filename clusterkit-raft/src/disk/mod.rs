//! Everything a node keeps on disk goes through here: [`Directory`] and [`DiskFile`].
//!
//! One directory belongs to one node. [`OsDirectory`] is one of the operating system; a simulator
//! brings its own that loses, tears, fails and is slow. The traits are small, blocking and deal in
//! bytes; what the files mean is known by [`crate::storage`] and by whoever else keeps one.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! # let temporary = tempfile::tempdir()?;
//! # let path = temporary.path().join("node-1");
//! use clusterkit_raft::disk::{Directory, OsDirectory};
//!
//! let directory = OsDirectory::new(path);
//! directory.make()?;
//! directory.publish("note", b"durable when this returns")?;
//! assert_eq!(directory.read("note")?.as_deref(), Some(&b"durable when this returns"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # What is durable when
//!
//! *Durable* means: there after a crash of the process, of the system and after a loss of power.
//!
//! - What [`DiskFile::write`] and [`DiskFile::set_len`] did is seen by every read at once and is
//!   durable once [`DiskFile::sync`] of that file returned `Ok`, through whichever handle. Until
//!   then a crash keeps any part of it: all, nothing, some writes and not others in whatever order
//!   they came, and of one write any of its sectors.
//! - What [`Directory::create`], [`Directory::rename`] and [`Directory::remove`] did is seen at
//!   once and is durable once [`Directory::sync`] returned `Ok`. Until then a crash may undo it,
//!   and then also what followed it. A rename is never half done.
//! - The two are independent: a file that was synced is lost with its name, and a name that was
//!   synced may stand before an empty file.
//! - After a `sync` failed, whether what came before it will ever be durable is unknown, and a
//!   later `sync` that succeeds says nothing of it: do not retry, give the file up. Systems go on
//!   showing such writes to whoever opens the file next, for as long as the machine runs.
//! - A crash of the process alone loses nothing that was written, synced or not. Who opens a file
//!   again can therefore read what is not durable yet.

mod os;

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::os::OsDirectory;

/// What [`Directory::publish`] adds to a name while the file is made.
const NEW_SUFFIX: &str = ".new";

/// The directory of one node: files by name, no directories within.
///
/// Methods block. Calls may overlap. See the [module](self) for what is durable when.
///
/// # Errors
/// Every method returns what the system said; a full disk is [`io::ErrorKind::StorageFull`].
pub trait Directory: Debug + Send + Sync + 'static {
    /// Returns where it lies, for messages.
    fn path(&self) -> PathBuf;

    /// Creates the directory and those above it where missing, durable when it returns.
    fn make(&self) -> io::Result<()>;

    /// Takes the lock `name`, which holds until the result is dropped or the process ends.
    /// Returns `None` while somebody else has it, in this process or another.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn DirectoryLock>>>;

    /// Opens the file `name` for reading and writing, `None` when there is none.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// Creates the file `name`; one that is there loses its content.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives the file `from` the name `to`; a file of that name is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the file `name`; tells whether there was one.
    fn remove(&self, name: &str) -> io::Result<bool>;

    /// Makes durable which files there are and how they are called.
    fn sync(&self) -> io::Result<()>;

    /// Returns what the file `name` holds, `None` when there is none. For small files.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else {
            return Ok(None);
        };
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut content = vec![0; length];
        file.read(0, &mut content)?;
        Ok(Some(content))
    }

    /// Makes `content` the file `name`, durable when it returns; a crash leaves the file as it
    /// was before or as it is after, never in between. One caller at a time per name.
    fn publish(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = format!("{name}{NEW_SUFFIX}");
        let file = self.create(&new)?;
        file.write(0, content)?;
        // Before the rename: a name must never lead to a file that is not all there.
        file.sync()?;
        self.rename(&new, name)?;
        self.sync()
    }

    /// Returns how much longer than it took all that was done since the last call should have
    /// taken, and starts to count anew. Only a simulated disk is ever late: it cannot block, so
    /// who can wait otherwise waits for this before it says that something is done.
    fn pending_latency(&self) -> Duration {
        Duration::ZERO
    }
}

/// One file of a [`Directory`].
///
/// Methods block. Calls may overlap as long as their ranges do not. See the [module](self) for
/// what is durable when.
///
/// # Errors
/// Every method returns what the system said; a full disk is [`io::ErrorKind::StorageFull`]. After
/// a failed write the content of its range is unknown.
#[allow(
    clippy::len_without_is_empty,
    reason = "nobody asks a file whether it is empty"
)]
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file off at `length`, or fills it with zeros up to there.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Fills `out` from `offset` on; a file that ends before is
    /// [`io::ErrorKind::UnexpectedEof`].
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` from `offset` on; a gap before it is zeros.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes durable what was written, the length included; not the name.
    fn sync(&self) -> io::Result<()>;
}

/// A lock that was taken, released when it is dropped.
pub trait DirectoryLock: Debug + Send + Sync + 'static {}

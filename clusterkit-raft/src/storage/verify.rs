//! Checks a whole redb file before it is trusted, without changing it.
//!
//! redb compares checksums only when it repairs after a crash. A key that rotted on the medium
//! would read as a value that was never there, a vote or an identity among them. Its own check
//! repairs what it finds by going back to an older commit, which here would be to forget what was
//! acknowledged: so it runs on an overlay that keeps every change in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError, StorageBackend};

use crate::disk::DiskFile;

/// Bytes of a piece of the overlay: what redb writes at once.
const PIECE: u64 = 4_096;

/// Tells whether all checksums in `file` match.
pub(super) fn is_intact(
    file: Arc<dyn DiskFile>,
    cache_bytes: usize,
) -> Result<bool, DatabaseError> {
    let mut database = Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(Overlay::new(file)?)?;
    database.check_integrity()
}

/// A file whose changes stay in memory.
#[derive(Debug)]
struct Overlay {
    file: Arc<dyn DiskFile>,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    length: u64,
    /// Up to where the file below counts: what was cut off once does not come back.
    kept: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let length = file.len()?;
        let changes = Mutex::new(Changes {
            length,
            kept: length,
            pieces: BTreeMap::new(),
        });
        Ok(Self { file, changes })
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out` from the file up to `kept`, with zeros beyond.
    fn below(&self, offset: u64, kept: u64, out: &mut [u8]) -> io::Result<()> {
        let there = kept.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        let (from_file, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if from_file.is_empty() {
            return Ok(());
        }
        self.file.read(offset, from_file)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.lock();
        if offset.saturating_add(out.len() as u64) > changes.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.below(offset, changes.kept, out)?;
        for (at, part) in parts(offset, out.len()) {
            if let Some(piece) = changes.pieces.get(&(at / PIECE)) {
                let from = to_index(at % PIECE);
                let length = part.len();
                out[part].copy_from_slice(&piece[from..from + length]);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.lock();
        changes.length = length;
        changes.kept = changes.kept.min(length);
        changes.pieces.split_off(&length.div_ceil(PIECE));
        if let Some(piece) = changes.pieces.get_mut(&(length / PIECE)) {
            piece[to_index(length % PIECE)..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.lock();
        for (at, part) in parts(offset, data.len()) {
            let kept = changes.kept;
            let piece = match changes.pieces.entry(at / PIECE) {
                Entry::Occupied(piece) => piece.into_mut(),
                Entry::Vacant(place) => {
                    let mut piece = vec![0; to_index(PIECE)];
                    self.below(at - at % PIECE, kept, &mut piece)?;
                    place.insert(piece)
                }
            };
            let from = to_index(at % PIECE);
            piece[from..from + part.len()].copy_from_slice(&data[part]);
        }
        changes.length = changes.length.max(offset + data.len() as u64);
        Ok(())
    }
}

/// Cuts `length` bytes from `offset` on at the ends of pieces: where each part begins in the file,
/// and where it lies among the bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let part = to_index(PIECE - at % PIECE).min(length - done);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((at, range))
    })
}

fn to_index(number: u64) -> usize {
    usize::try_from(number).expect("invariant: no more than the bytes of a piece")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Directory, OsDirectory};

    #[test]
    fn an_overlay_reads_its_changes_and_leaves_the_file_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = OsDirectory::new(temporary.path());
        let before = vec![7; 10_000];
        directory.publish("file", &before).unwrap();
        let file = directory.open("file").unwrap().unwrap();
        let overlay = Overlay::new(file.into()).unwrap();
        let mut expected = before.clone();
        for (offset, length, byte) in [(10, 5, 1), (4_000, 5_000, 2), (9_990, 10, 3), (0, 1, 4)] {
            overlay.write(offset as u64, &vec![byte; length]).unwrap();
            expected[offset..offset + length].fill(byte);
        }
        overlay.set_len(7_000).unwrap();
        overlay.set_len(20_000).unwrap();
        expected.truncate(7_000);
        overlay.write(15_000, &[5; 100]).unwrap();
        expected.resize(20_000, 0);
        expected[15_000..15_100].fill(5);
        let mut found = vec![0; 20_000];
        overlay.read(0, &mut found).unwrap();
        assert!(found == expected);
        let mut part = [0; 20];
        overlay.read(3_990, &mut part).unwrap();
        assert_eq!(part[..], expected[3_990..4_010]);
        assert!(overlay.read(19_990, &mut [0; 11]).is_err());
        assert_eq!(directory.read("file").unwrap(), Some(before));
    }
}

//! The storages that ship: their contract, and how each kind of bad directory is refused.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use clusterkit_raft::storage::{
    DATABASE_FILE, LogRecord, MemoryStorage, RedbStorage, Storage, StorageError, WriteOp,
};
use clusterkit_raft::testing::{check_raft_storage, check_storage};

fn fill(directory: &Path) {
    let storage = RedbStorage::open(directory).unwrap();
    let batch: Vec<WriteOp> = (0..200)
        .map(|index| {
            WriteOp::Append(LogRecord {
                index,
                bytes: Bytes::from(vec![u8::try_from(index).unwrap(); 300]),
            })
        })
        .chain([WriteOp::SaveSnapshot(Bytes::from(vec![7; 20_000]))])
        .chain([WriteOp::SetMeta {
            key: "vote",
            value: Bytes::from_static(b"vote"),
        }])
        .collect();
    storage.write(&batch).unwrap();
    storage.close();
}

/// Opens and reads everything; whatever the file holds, this returns.
fn read_all(directory: &Path) -> Result<(usize, usize), StorageError> {
    let storage = RedbStorage::open(directory)?;
    let bounds = storage.log_bounds()?;
    let log = storage.read_log(0, u64::MAX, usize::MAX)?;
    for record in &log {
        let expected = u8::try_from(record.index).unwrap();
        assert!(record.bytes.iter().all(|byte| *byte == expected));
    }
    if let Some(vote) = storage.meta("vote")? {
        assert_eq!(vote, "vote");
    }
    let snapshot = storage.snapshot()?.unwrap_or_default();
    assert!(snapshot.iter().all(|byte| *byte == 7));
    storage.write(&[WriteOp::TruncateFrom(100)])?;
    assert_eq!(bounds.is_some(), !log.is_empty());
    Ok((log.len(), snapshot.len()))
}

#[test]
fn both_storages_keep_the_contract() {
    let memory = MemoryStorage::new();
    check_storage(|| Ok(memory.clone())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    check_storage(|| RedbStorage::open(directory.path().join("made/on/the/way"))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_library_s_suite_passes_in_memory() {
    check_raft_storage(|| Ok(MemoryStorage::new()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_library_s_suite_passes_on_redb() {
    let directory = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    check_raft_storage(|| {
        let next = count.fetch_add(1, Ordering::Relaxed);
        RedbStorage::open(directory.path().join(next.to_string()))
    })
    .await
    .unwrap();
    assert!(count.into_inner() > 40);
}

#[test]
fn a_directory_open_twice_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let first = RedbStorage::open(directory.path()).unwrap();
    let error = RedbStorage::open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    assert!(error.is_retryable());
    first.close();
    assert!(matches!(
        first.meta("vote"),
        Err(StorageError::Closed { .. })
    ));
    RedbStorage::open(directory.path()).unwrap();
}

#[test]
fn a_process_killed_while_making_the_file_leaves_nothing_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("clusterkit.redb.new"), "half").unwrap();
    fill(directory.path());
    assert_eq!(read_all(directory.path()).unwrap(), (200, 20_000));
    assert!(!directory.path().join("clusterkit.redb.new").exists());
}

#[test]
fn a_path_that_cannot_be_a_directory_is_not_writable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let error = RedbStorage::open(&file).unwrap_err();
    assert!(matches!(error, StorageError::NotWritable { .. }), "{error}");
    assert!(error.to_string().contains(&file.display().to_string()));
    let taken = directory.path().join("taken");
    fs::create_dir_all(taken.join(DATABASE_FILE)).unwrap();
    let error = RedbStorage::open(&taken).unwrap_err();
    assert!(matches!(error, StorageError::NotWritable { .. }), "{error}");
}

#[test]
fn a_file_of_something_else_is_corrupted_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    for garbage in [vec![b'x'; 10], vec![0; 100_000], b"%PDF-1.7".repeat(9_000)] {
        fs::write(&path, garbage).unwrap();
        let error = RedbStorage::open(directory.path()).unwrap_err();
        assert!(matches!(error, StorageError::Corrupted { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(
            text.ends_with("remove the data directory and rejoin as a new node"),
            "{text}"
        );
    }
}

#[test]
fn a_truncated_file_is_refused_or_reads_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    let path = directory.path().join(DATABASE_FILE);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for part in 1..40 {
        fs::write(&path, &whole[..whole.len() * part / 40]).unwrap();
        match read_all(directory.path()) {
            Ok(read) => assert_eq!(read, (200, 20_000)),
            Err(StorageError::Corrupted { .. }) => refused += 1,
            Err(other) => panic!("expected corrupted, got {other:?}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn flipped_bits_never_panic_and_never_change_what_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    let path = directory.path().join(DATABASE_FILE);
    let whole = fs::read(&path).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut refused = 0;
    for _ in 0..150 {
        let mut damaged = whole.clone();
        for _ in 0..8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(seed >> 16).unwrap() % damaged.len();
            damaged[at] ^= 1 << (seed % 8);
        }
        fs::write(&path, damaged).unwrap();
        match read_all(directory.path()) {
            Ok(_) => {}
            Err(StorageError::Corrupted { .. }) => refused += 1,
            Err(other) => panic!("expected corrupted, got {other:?}"),
        }
    }
    assert!(refused > 0);
}

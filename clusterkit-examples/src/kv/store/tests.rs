//! Both stores behave the same, in whatever order writes arrive.

use std::path::Path;
use std::sync::Arc;

use clusterkit::Execution;
use clusterkit::disk::OsDirectory;
use clusterkit_core::id::Epoch;

use super::*;

const HERE: PartitionId = PartitionId(7);
const NEXT: PartitionId = PartitionId(8);

fn version(epoch: u64, seq: u64) -> Version {
    Version {
        epoch: Epoch(epoch),
        seq,
    }
}

fn entry(key: &str, at: Version, value: Option<&str>) -> Entry {
    Entry {
        key: Bytes::copy_from_slice(key.as_bytes()),
        record: Record {
            version: at,
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        },
    }
}

fn merge(partition: PartitionId, key: &str, at: Version, value: Option<&str>) -> WriteOp {
    WriteOp::Merge {
        partition,
        entry: entry(key, at, value),
    }
}

/// Runs `check` against both stores.
async fn both(check: impl AsyncFn(&dyn Store)) {
    check(&MemoryStore::default()).await;
    let directory = tempfile::tempdir().unwrap();
    check(&open(directory.path()).unwrap()).await;
}

fn open(path: &Path) -> Result<FileStore, StoreError> {
    FileStore::open(Arc::new(OsDirectory::new(path)), Execution::Threads)
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let record = store.get(HERE, key).await.unwrap()?;
    Some(String::from_utf8(record.value?.to_vec()).unwrap())
}

#[tokio::test]
async fn an_older_record_never_replaces_a_newer_one() {
    both(async |store| {
        let ops = vec![
            merge(HERE, "k", version(2, 1), Some("new")),
            merge(HERE, "k", version(1, 9), Some("old")),
            merge(HERE, "k", version(2, 1), Some("twin")),
        ];
        store.write(ops).await.unwrap();
        assert_eq!(value(store, "k").await.as_deref(), Some("new"));
        let gone = merge(HERE, "k", version(2, 2), None);
        store.write(vec![gone]).await.unwrap();
        assert_eq!(value(store, "k").await, None);
        let late = merge(HERE, "k", version(2, 1), Some("late"));
        store.write(vec![late]).await.unwrap();
        assert_eq!(value(store, "k").await, None);
        assert_eq!(store.get(NEXT, Bytes::from("k")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn pages_cover_a_partition_once_and_never_its_neighbours() {
    both(async |store| {
        let mut ops = vec![merge(NEXT, "a", version(1, 1), Some("x"))];
        ops.push(merge(PartitionId(6), "z", version(1, 1), Some("x")));
        for i in 0..50_u64 {
            ops.push(merge(
                HERE,
                &format!("k{i:02}"),
                version(1, i + 1),
                Some("0123456789"),
            ));
        }
        store.write(ops).await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None::<Bytes>);
        loop {
            let (entries, more) = store.page(HERE, after.clone(), 100).await.unwrap();
            assert!(!entries.is_empty() && entries.len() < 10);
            seen.extend(entries.iter().map(|entry| entry.key.clone()));
            after = seen.last().cloned();
            if !more {
                break;
            }
        }
        let all: Vec<Bytes> = (0..50).map(|i| Bytes::from(format!("k{i:02}"))).collect();
        assert_eq!(seen, all);
        let (first, more) = store.page(HERE, None, 1).await.unwrap();
        assert_eq!((first.len(), more), (1, true));
        assert!(
            !store
                .page(HERE, Some(Bytes::from("k49")), 1)
                .await
                .unwrap()
                .1
        );
        let some = store
            .versions(HERE, Some(Bytes::from("k10")), Some(Bytes::from("k12")))
            .await
            .unwrap();
        assert_eq!(some.len(), 2);
        assert!(
            store
                .versions(HERE, Some(Bytes::from("k2")), Some(Bytes::from("k1")))
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn pruning_spares_what_is_newer_and_dropping_spares_the_neighbours() {
    both(async |store| {
        let ops = vec![
            merge(HERE, "old", version(1, 1), Some("1")),
            merge(HERE, "new", version(3, 1), Some("22")),
            merge(NEXT, "old", version(1, 1), Some("3")),
            merge(NEXT, "gone", version(1, 2), None),
        ];
        store.write(ops).await.unwrap();
        let prune = |key: &'static str| WriteOp::Prune {
            partition: HERE,
            key: Bytes::from(key),
            at_most: version(2, 0),
        };
        let totals = store.totals();
        assert_eq!((totals.keys, totals.deleted, totals.partitions), (3, 1, 2));
        assert_eq!(totals.bytes, 4 + 5 + 4 + 4);
        store
            .write(vec![prune("old"), prune("new"), prune("none")])
            .await
            .unwrap();
        assert_eq!(value(store, "old").await, None);
        assert_eq!(value(store, "new").await.as_deref(), Some("22"));
        store
            .write(vec![WriteOp::Drop { partition: HERE }])
            .await
            .unwrap();
        assert_eq!(value(store, "new").await, None);
        let totals = store.totals();
        assert_eq!(
            (totals.keys, totals.deleted, totals.bytes, totals.partitions),
            (1, 1, 8, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_not_known_to_be_everywhere_is_told_apart() {
    both(async |store| {
        let ops = vec![
            merge(HERE, "c", version(1, 3), Some("c")),
            merge(HERE, "a", version(1, 1), Some("a")),
            merge(HERE, "b", version(1, 2), None),
            WriteOp::Settle {
                partition: HERE,
                version: version(1, 1),
            },
            WriteOp::Settle {
                partition: HERE,
                version: version(0, 9),
            },
        ];
        store.write(ops).await.unwrap();
        let summary = store.summary(HERE).await.unwrap();
        assert_eq!(
            (summary.seen, summary.settled),
            (version(1, 3), version(1, 1))
        );
        let keys: Vec<&[u8]> = summary
            .unsettled
            .iter()
            .map(|entry| &entry.key[..])
            .collect();
        assert_eq!(keys, [b"b", b"c"]);
        assert_eq!(store.summary(NEXT).await.unwrap(), Summary::default());
    })
    .await;
}

#[tokio::test]
async fn a_file_keeps_everything_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let written = {
        let store = open(directory.path()).unwrap();
        for i in 0..20 {
            let op = merge(HERE, &format!("k{i}"), version(1, i + 1), Some("value"));
            store.write(vec![op]).await.unwrap();
        }
        store
            .write(vec![merge(NEXT, "k", version(1, 1), None)])
            .await
            .unwrap();
        store.totals()
    };
    let store = open(directory.path()).unwrap();
    assert_eq!(store.totals(), written);
    assert_eq!(value(&store, "k19").await.as_deref(), Some("value"));
    assert_eq!(store.summary(HERE).await.unwrap().unsettled.len(), 20);
}

#[tokio::test]
async fn a_file_in_use_or_damaged_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let check = |directory: &Path| {
        let error = open(directory).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    };
    const FILE: &str = "kv.redb";
    let store = open(directory.path()).unwrap();
    check(directory.path());
    drop(store);
    let path = directory.path().join(FILE);
    std::fs::write(&path, b"not a database at all").unwrap();
    check(directory.path());
}

#[tokio::test]
async fn records_of_another_membership_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.claim("cluster-a 1").unwrap();
    store
        .write(vec![merge(HERE, "k", version(9, 9), Some("v"))])
        .await
        .unwrap();
    store.claim("cluster-a 1").unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some("v"));
    store.claim("cluster-b 1").unwrap();
    assert_eq!(value(&store, "k").await, None);
    assert_eq!(store.totals(), Totals::default());
    assert_eq!(store.summary(HERE).await.unwrap(), Summary::default());
}

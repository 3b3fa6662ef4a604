//! The control plane's storage on the simulated disk: its contract, and crashes at any operation.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{DiskId, Incarnation, NodeId};
use clusterkit_examples::kv::{KvNode, KvOptions, StoreKind};
use clusterkit_http::client::{HttpClient, HttpRequest};
use clusterkit_raft::storage::{
    DATABASE_FILE, Identity, LogRecord, RedbStorage, Storage, StorageError, WriteOp,
};
use clusterkit_raft::testing::{check_raft_storage, check_storage};
use clusterkit_sim::disk::SimDisk;
use clusterkit_sim::{Rng, Unsynced};

/// Far beyond what anything here should take.
const LIMIT: Duration = Duration::from_secs(30);
const KEYS: [&str; 3] = ["vote", "committed", "purged"];
/// Longer than a page, so that records spread over several.
const RECORD_MAX_BYTES: u64 = 6_000;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new("node-1", Rng::new(seed).split("disk"))
}

fn open(disk: &SimDisk) -> Result<RedbStorage, StorageError> {
    RedbStorage::open_in(disk.directory())
}

#[test]
fn redb_on_a_simulated_disk_keeps_the_contract() {
    let disk = disk(1);
    check_storage(|| open(&disk)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_library_s_suite_passes_on_a_simulated_disk() {
    let count = AtomicU64::new(0);
    check_raft_storage(|| open(&disk(count.fetch_add(1, Ordering::Relaxed))))
        .await
        .unwrap();
    assert!(count.into_inner() > 40);
}

/// Found by the full level, seed 81: the store took no more writes after one had failed, and its node
/// stayed primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_record_disk_is_full_says_so_and_serves_again_once_started_anew() {
    let (log, records) = (disk(1), disk(2));
    let start = || {
        let mut options = KvOptions::new("node-1", "127.0.0.1:0", "127.0.0.1:0");
        options.store = StoreKind::Redb(records.directory());
        options.node = options.node.directory(log.directory()).partitions(4);
        KvNode::start(options)
    };
    let set = async |node: &KvNode, key: &str| {
        let value = vec![b'v'; 64 << 10];
        let request = HttpRequest::post(format!("/kv/set?key={key}")).body(value);
        let http = HttpClient::default();
        let sent = http.send(node.address(), request.within(LIMIT));
        sent.await.unwrap().status()
    };
    let node = start().await.unwrap();
    node.cluster().wait_ready(LIMIT).await.unwrap();
    assert_eq!(set(&node, "before").await, 200);
    records.full(Some(records.used_bytes()));
    let mut full = 0;
    // What redb has allocated takes a few more.
    while set(&node, &format!("full{full}")).await == 200 {
        full += 1;
        assert!(full < 1_000, "the disk is not full");
    }
    tokio::time::timeout(LIMIT, node.failed()).await.unwrap();
    records.full(None);
    assert!(set(&node, "still").await >= 500, "until it is started anew");
    node.stop().await;

    let node = start().await.unwrap();
    node.cluster().wait_ready(LIMIT).await.unwrap();
    assert_eq!(set(&node, "after").await, 200);
    let request = HttpRequest::get("/kv/get?key=before").within(LIMIT);
    let kept = HttpClient::default().send(node.address(), request).await;
    assert_eq!(kept.unwrap().status(), 200);
    node.stop().await;
}

/// Returns how many seeds to run: `default`, or as many times that as `SEEDS_FACTOR` says.
fn seeds(default: u64) -> u64 {
    let factor = std::env::var("SEEDS_FACTOR").ok();
    default * factor.map_or(1, |factor| factor.parse::<u64>().unwrap())
}

/// Everything a storage holds, as a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    log: BTreeMap<u64, Bytes>,
    meta: BTreeMap<&'static str, Bytes>,
    snapshot: Option<Bytes>,
    identity: Option<Identity>,
}

impl Content {
    fn read(storage: &dyn Storage) -> Result<Self, StorageError> {
        let log = storage.read_log(0, u64::MAX, usize::MAX)?;
        let bounds = log.first().zip(log.last());
        let bounds = bounds.map(|(first, last)| (first.index, last.index));
        assert_eq!(storage.log_bounds()?, bounds);
        let mut meta = BTreeMap::new();
        for key in KEYS {
            if let Some(value) = storage.meta(key)? {
                meta.insert(key, value);
            }
        }
        Ok(Self {
            log: log.into_iter().map(|r| (r.index, r.bytes)).collect(),
            meta,
            snapshot: storage.snapshot()?,
            identity: Identity::load(storage)?,
        })
    }

    fn apply(&mut self, batch: &[WriteOp]) {
        for op in batch {
            match op {
                WriteOp::Append(record) => {
                    self.log.insert(record.index, record.bytes.clone());
                }
                WriteOp::TruncateFrom(index) => drop(self.log.split_off(index)),
                WriteOp::PurgeThrough(index) => self.log = self.log.split_off(&(index + 1)),
                WriteOp::SetMeta { key, value } => {
                    self.meta.insert(key, value.clone());
                }
                WriteOp::SaveSnapshot(bytes) => self.snapshot = Some(bytes.clone()),
            }
        }
    }

    fn batch(&self, rng: &mut Rng) -> Vec<WriteOp> {
        let mut bytes = |max| {
            let mut bytes = vec![0; usize::try_from(rng.within(1..=max)).unwrap()];
            rng.fill(&mut bytes);
            Bytes::from(bytes)
        };
        let (first, next) = match self.log.first_key_value().zip(self.log.last_key_value()) {
            Some(((first, _), (last, _))) => (*first, last + 1),
            None => (7, 7),
        };
        let mut batch = Vec::new();
        let value = bytes(100);
        let records: Vec<Bytes> = (0..4).map(|_| bytes(RECORD_MAX_BYTES)).collect();
        let snapshot = bytes(30_000);
        let append = |from: u64, count: usize| {
            (from..)
                .zip(records.clone())
                .take(count)
                .map(|(index, bytes)| WriteOp::Append(LogRecord { index, bytes }))
        };
        let at = rng.within(first..=next);
        match rng.below(10) {
            0 => batch.push(WriteOp::SetMeta {
                key: rng.pick(&KEYS).unwrap(),
                value,
            }),
            1 => {
                batch.push(WriteOp::TruncateFrom(at));
                batch.extend(append(at, 2));
            }
            2 => {
                batch.push(WriteOp::SaveSnapshot(snapshot));
                batch.push(WriteOp::PurgeThrough(at.saturating_sub(1)));
            }
            _ => batch.extend(append(next, 1 + rng.index(4))),
        }
        batch
    }
}

/// One node's life on one disk.
struct Life {
    disk: SimDisk,
    rng: Rng,
    /// What was acknowledged, or was read after a start.
    sure: Content,
    /// What a write that was not acknowledged would make of it.
    perhaps: Content,
    starts: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            disk: disk(seed),
            rng: Rng::new(seed).split("life"),
            sure: Content::default(),
            perhaps: Content::default(),
            starts: 0,
        }
    }

    /// Starts as a node does: opens, reads, counts the start.
    fn start(&mut self) -> Result<RedbStorage, StorageError> {
        let storage = open(&self.disk)?;
        let found = Content::read(&storage)?;
        assert!(
            found == self.sure || found == self.perhaps,
            "neither what was acknowledged nor that and one whole batch more"
        );
        // From now on others may have seen it.
        self.sure = found;
        let mut identity = self.sure.identity.clone().unwrap_or_else(|| {
            Identity::new(NodeId::new("node-1").unwrap(), DiskId::from_bytes([1; 16]))
        });
        identity.incarnation = Incarnation(identity.incarnation.0 + 1);
        assert!(
            identity.incarnation.0 > self.starts,
            "a start is counted twice"
        );
        self.perhaps = self.sure.clone();
        self.perhaps.identity = Some(identity.clone());
        identity.save(&storage)?;
        self.sure = self.perhaps.clone();
        self.starts = identity.incarnation.0;
        Ok(storage)
    }

    fn run(&mut self, writes: u64) -> Result<(), StorageError> {
        let storage = self.start()?;
        for _ in 0..writes {
            let batch = self.sure.batch(&mut self.rng);
            self.perhaps = self.sure.clone();
            self.perhaps.apply(&batch);
            storage.write(&batch)?;
            self.sure = self.perhaps.clone();
        }
        if self.rng.chance(300) {
            storage.close();
        }
        Ok(())
    }
}

#[test]
fn after_a_crash_at_any_operation_all_that_was_acknowledged_is_there() {
    let (mut died, seeds) = (0, seeds(60));
    for seed in 0..seeds {
        let mut life = Life::new(seed);
        for _ in 0..8 {
            let operations = life.rng.within(0..=60);
            life.disk.crash_after(operations);
            let writes = life.rng.within(0..=12);
            let ended = life.run(writes);
            let dead = life.disk.is_dead();
            died += u64::from(ended.is_err());
            assert!(ended.is_ok() || dead, "seed {seed}: {ended:?}");
            let all = [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn];
            let unsynced = *life.rng.pick(&all).unwrap();
            let report = life.disk.crash(unsynced);
            println!("seed {seed}: {unsynced:?} after {operations} operations, {report}");
        }
        life.start().unwrap();
    }
    assert!(died > 2 * seeds, "only {died} crashes were felt");
}

#[test]
fn a_full_disk_is_a_clear_error_and_nothing_is_half_applied() {
    for seed in 0..seeds(30) {
        let mut life = Life::new(seed);
        life.run(6).unwrap();
        life.disk.crash(Unsynced::Kept);
        let room = life.rng.below(12) * 4_096;
        life.disk.full(Some(life.disk.used_bytes() + room));
        let error = loop {
            match life.run(20) {
                Ok(()) => drop(life.disk.crash(Unsynced::Kept)),
                Err(error) => break error,
            }
        };
        let StorageError::Io { path, source } = &error else {
            panic!("seed {seed}: {error:?}");
        };
        assert_eq!(
            source.kind(),
            ErrorKind::StorageFull,
            "seed {seed}: {error:?}"
        );
        assert!(path.ends_with(DATABASE_FILE));
        let unsynced = *life.rng.pick(&[Unsynced::Kept, Unsynced::Torn]).unwrap();
        life.disk.crash(unsynced);
        life.disk.full(None);
        life.run(3).unwrap();
    }
}

#[test]
fn after_a_failure_nothing_is_written_and_a_restart_finds_what_was_acknowledged() {
    let (mut felt, seeds) = (0, seeds(60));
    for seed in 0..seeds {
        let mut life = Life::new(seed);
        let storage = life.start().unwrap();
        let operations = life.rng.within(0..=40);
        life.disk.fail_after(operations);
        let failed = (0..20).find_map(|_| {
            let batch = life.sure.batch(&mut life.rng);
            life.perhaps = life.sure.clone();
            life.perhaps.apply(&batch);
            let written = storage.write(&batch);
            if written.is_ok() {
                life.sure = life.perhaps.clone();
            }
            written.err()
        });
        if let Some(error) = failed {
            felt += 1;
            assert!(
                matches!(error, StorageError::Io { .. }),
                "seed {seed}: {error:?}"
            );
            let more = life.sure.batch(&mut life.rng);
            let refused = storage.write(&more).unwrap_err();
            assert!(!refused.is_retryable(), "seed {seed}: {refused:?}");
        }
        storage.close();
        let unsynced = *life.rng.pick(&[Unsynced::Lost, Unsynced::Torn]).unwrap();
        life.disk.crash(unsynced);
        life.run(3).unwrap();
    }
    assert!(felt > seeds / 2, "only {felt} failures were felt");
}

/// Lets a file rot that one life filled; tells whether it was refused.
fn rot(seed: u64) -> bool {
    let mut life = Life::new(seed);
    life.run(10).unwrap();
    life.disk.crash(Unsynced::Kept);
    for _ in 0..20 {
        life.disk.rot(DATABASE_FILE).unwrap();
    }
    let read = open(&life.disk).and_then(|storage| Content::read(&storage));
    match read {
        Ok(content) => {
            assert!(content == life.sure, "seed {seed}: not what was written");
            false
        }
        Err(error @ StorageError::Corrupted { .. }) => {
            let text = error.to_string();
            assert!(text.contains("node-1/clusterkit.redb"), "{text}");
            assert!(text.ends_with("rejoin as a new node"), "{text}");
            true
        }
        Err(other) => panic!("seed {seed}: {other:?}"),
    }
}

#[test]
fn a_file_that_rots_is_refused_by_name_or_reads_back_whole() {
    let seeds = seeds(30);
    let refused = (0..seeds).filter(|seed| rot(*seed)).count() as u64;
    assert!(refused > seeds / 3, "only {refused} were refused");
}

#[test]
fn a_key_that_rots_is_no_value_that_was_never_there() {
    assert!(rot(546), "the directory forgot whose it is");
}

#[test]
fn a_damaged_file_that_nobody_closed_does_not_panic_when_it_is_dropped() {
    rot(68);
}

//! A member whose disk fails, and links that lose replies.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::control::{ControlPlane, ProposeError};
use clusterkit_core::id::RaftId;
use clusterkit_core::time::UnixMillis;
use clusterkit_raft::channel::{ChannelNetwork, Fault};
use clusterkit_raft::storage::{LogRecord, MemoryStorage, Storage, StorageError, WriteOp};
use clusterkit_raft::{RaftControlPlane, RaftOptions};

use crate::lab::{LIMIT, Lab, address, cluster_id, disk, has, put, put_result, spec, until};

/// Fails every write once told.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryStorage,
    fails: AtomicBool,
}

impl Storage for Failing {
    fn write(&self, batch: &[WriteOp]) -> Result<(), StorageError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StorageError::Io {
                path: self.location(),
                source: std::io::Error::from(std::io::ErrorKind::StorageFull),
            });
        }
        self.inner.write(batch)
    }

    fn log_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        self.inner.log_bounds()
    }

    fn read_log(
        &self,
        from: u64,
        until: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        self.inner.read_log(from, until, max_bytes)
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        self.inner.meta(key)
    }

    fn snapshot(&self) -> Result<Option<Bytes>, StorageError> {
        self.inner.snapshot()
    }

    fn location(&self) -> PathBuf {
        PathBuf::from("failing")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_fails_stops_and_says_why() {
    let network = ChannelNetwork::new();
    let storage = Arc::new(Failing::default());
    let options = RaftOptions::new(cluster_id(), RaftId(1), disk("n1"), address("n1"));
    let transport = Arc::new(network.transport(address("n1")));
    let opened = RaftControlPlane::open(storage.clone(), transport, options);
    let member = opened.await.unwrap();
    let formed = member.initialize(ClusterConfig::default(), spec("n1"), UnixMillis(1));
    formed.await.unwrap();
    put(&member, "before").await;
    storage.fails.store(true, Ordering::SeqCst);
    // It may have been written: nobody can tell.
    let unknown = put_result(&member, "during").await;
    assert!(
        matches!(unknown, Err(ProposeError::Unknown { .. })),
        "{unknown:?}"
    );
    let reason = tokio::time::timeout(LIMIT, member.failed()).await.unwrap();
    assert!(reason.contains("storage in failing failed"), "{reason}");
    assert!(!member.view().leadership.is_leader);
    let stopped = put_result(&member, "after").await;
    assert!(
        matches!(stopped, Err(ProposeError::Stopped { .. })),
        "{stopped:?}"
    );
    member.shutdown().await;
    // What was acknowledged before is there.
    storage.fails.store(false, Ordering::SeqCst);
    let options = RaftOptions::new(cluster_id(), RaftId(1), disk("n1"), address("n1"));
    let transport = Arc::new(network.transport(address("n1")));
    let again = RaftControlPlane::open(storage, transport, options);
    let again = again.await.unwrap();
    again.read_barrier().await.unwrap();
    has(&again, "before");
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_an_unknown_outcome_and_never_a_second_try() {
    let lab = Lab::of(3, |options| {
        options.propose_timeout = Duration::from_millis(800);
        // The leader's own replication must not suffer from what the test breaks.
        options.member_timeout = Duration::from_secs(60);
    })
    .await;
    let leader = lab.until_leader().await;
    let follower = lab.members.keys().copied().find(|id| *id != leader);
    let follower = &lab.members[&follower.unwrap()];
    let (from, to) = (lab.address(follower.raft_id()), lab.address(leader));
    lab.network.break_link(&from, &to, Fault::LoseReplies);
    let outcome = put_result(follower, "once").await;
    assert!(
        matches!(outcome, Err(ProposeError::Unknown { .. })),
        "{outcome:?}"
    );
    lab.network.heal();
    until("the command that was taken", || {
        follower.view().state.data("once").map(|_| ())
    })
    .await;
    let first = follower.view().state.data("once").unwrap().version;
    put(follower, "another").await;
    assert_eq!(
        follower.view().state.data("once").unwrap().version,
        first,
        "applied twice"
    );
    lab.shutdown().await;
}

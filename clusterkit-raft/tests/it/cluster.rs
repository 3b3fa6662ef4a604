//! Several members at once: forming, failing, returning, growing and shrinking.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clusterkit_core::command::{Command, Rejected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::control::{ControlPlane, ProposeError};
use clusterkit_core::id::{ClusterId, RaftId};
use clusterkit_core::time::UnixMillis;
use clusterkit_raft::channel::ChannelTransport;
use clusterkit_raft::storage::{MemoryStorage, StorageError};
use clusterkit_raft::transport::{PeerAddress, RpcKind, Transport, TransportError};
use clusterkit_raft::{OpenError, RaftControlPlane, RaftOptions};

use crate::lab::{LIMIT, Lab, cluster_id, disk, has, put, put_result, set, spec, until};

fn usual(_: &mut RaftOptions) {}

/// Snapshots after a few entries, and no log behind them.
fn compact(options: &mut RaftOptions) {
    options.snapshot_every = 20;
    options.log_kept = 0;
}

/// A silent member is soon not counted on.
fn impatient(options: &mut RaftOptions) {
    options.member_timeout = Duration::from_millis(500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_forms_a_cluster_and_keeps_it_over_a_restart() {
    let mut lab = Lab::form(usual).await;
    put(lab.any(), "a").await;
    let view = lab.any().view();
    assert!(view.leadership.is_leader);
    assert_eq!(view.state.cluster(), Some(cluster_id()));
    assert_eq!(view.topology.partition_count(), 8);
    lab.stop(RaftId::BOOTSTRAP).await;
    lab.start(RaftId::BOOTSTRAP).await;
    lab.until_leader().await;
    has(lab.any(), "a");
    // Forming again changes nothing.
    let again = lab
        .any()
        .initialize(Default::default(), spec("n1"), UnixMillis(9));
    again.await.unwrap();
    assert_eq!(lab.any().view().topology.partition_count(), 8);
    let stats = lab.any().stats();
    assert_eq!((stats.state.as_str(), stats.peers), ("Leader", 0));
    assert_eq!(stats.last_log_term, stats.term);
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_on_any_member_is_applied_and_seen_by_the_proposer() {
    let lab = Lab::of(3, usual).await;
    lab.until_leader().await;
    for (id, member) in &lab.members {
        let applied = put(member, id).await;
        assert!(applied.index.0 > 0);
        has(member, id);
    }
    let view = lab.until_alike().await;
    assert_eq!(view.state.nodes().len(), 3);
    let repeated = lab
        .members
        .values()
        .last()
        .unwrap()
        .propose(Command::Bootstrap {
            cluster: cluster_id(),
            config: Default::default(),
            node: spec("n9"),
            at: UnixMillis(1),
        });
    let rejected = repeated.await.unwrap_err();
    assert!(
        matches!(
            &rejected,
            ProposeError::Rejected(Rejected::AlreadyFormed { .. })
        ),
        "{rejected}"
    );
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_barrier_on_a_follower_sees_what_was_written_before() {
    let lab = Lab::of(3, usual).await;
    let leader = lab.until_leader().await;
    for round in 0..20 {
        put(&lab.members[&leader], round).await;
        for member in lab.members.values() {
            member.read_barrier().await.unwrap();
            has(member, round);
        }
    }
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_leader_brings_another_one() {
    let mut lab = Lab::of(3, usual).await;
    let leader = lab.until_leader().await;
    put(lab.any(), "before").await;
    lab.stop(leader).await;
    let next = lab.until_leader().await;
    assert_ne!(next, leader);
    for member in lab.members.values() {
        put(member, member.raft_id()).await;
        has(member, "before");
    }
    lab.start(leader).await;
    lab.until_leader().await;
    lab.until_alike().await;
    has(&lab.members[&leader], next);
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_commits_nothing_and_returns_as_a_follower() {
    let lab = Lab::of(3, |options| {
        options.propose_timeout = Duration::from_millis(700);
    })
    .await;
    let leader = lab.until_leader().await;
    let address = lab.address(leader);
    let ids: Vec<RaftId> = lab
        .members
        .keys()
        .copied()
        .filter(|id| *id != leader)
        .collect();
    let others: Vec<String> = ids.iter().map(|id| lab.address(*id)).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    lab.network.partition(&[&address], &others);
    let lost = put_result(&lab.members[&leader], "lost").await.unwrap_err();
    let harmless = matches!(
        lost,
        ProposeError::Unknown { .. } | ProposeError::NoLeader { .. }
    );
    assert!(harmless, "{lost}");
    until("another leader", || {
        let view = lab.members[&ids[0]].view();
        view.leadership.leader.filter(|id| *id != leader)
    })
    .await;
    until("a write on the other side", || Some(())).await;
    while put_result(&lab.members[&ids[0]], "kept").await.is_err() {}
    lab.network.heal();
    let view = lab.until_alike().await;
    lab.until_leader().await;
    assert!(
        view.state.data("kept").is_some() || lab.until_alike().await.state.data("kept").is_some()
    );
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_restarted_from_disk_have_what_was_acknowledged() {
    let mut lab = Lab::of(3, usual).await;
    for n in 0..50 {
        put(lab.any(), n).await;
    }
    let ids: Vec<RaftId> = lab.members.keys().copied().collect();
    for &id in &ids {
        lab.stop(id).await;
    }
    for &id in &ids {
        lab.start(id).await;
    }
    lab.until_leader().await;
    for member in lab.members.values() {
        member.read_barrier().await.unwrap();
        for n in 0..50 {
            has(member, n);
        }
    }
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_purged_log_resumes_from_its_snapshot() {
    let mut lab = Lab::form(compact).await;
    for n in 0..100 {
        put(lab.any(), n).await;
    }
    let before = lab.any().stats();
    lab.stop(RaftId::BOOTSTRAP).await;
    lab.start(RaftId::BOOTSTRAP).await;
    lab.until_leader().await;
    let after = lab.any().stats();
    assert!(after.last_log_index >= before.last_log_index);
    for n in 0..100 {
        has(lab.any(), n);
    }
    put(lab.any(), "more").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_late_is_sent_a_snapshot() {
    let mut lab = Lab::form(compact).await;
    for n in 0..100 {
        put(lab.any(), n).await;
    }
    let late = lab.join("n2").await;
    until("the late member has all", || {
        let view = lab.members[&late].view();
        view.state.data("99").map(|_| ())
    })
    .await;
    // One that was away while the log was purged, too.
    let third = lab.join("n3").await;
    lab.until_voters(3).await;
    lab.stop(third).await;
    for n in 100..200 {
        put(lab.any(), n).await;
    }
    lab.start(third).await;
    lab.until_alike().await;
    has(&lab.members[&third], 199);
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_become_voters_once_there_are_three() {
    let mut lab = Lab::form(usual).await;
    let second = lab.join("n2").await;
    until("two members, one of them a learner", || {
        let stats = lab.any().stats();
        (stats.learners == [second] && stats.voters == [RaftId::BOOTSTRAP]).then_some(())
    })
    .await;
    lab.join("n3").await;
    lab.until_voters(3).await;
    lab.join("n4").await;
    until("four members, three of them voters", || {
        let stats = lab.any().stats();
        (stats.learners.len() == 1 && stats.voters.len() == 3).then_some(())
    })
    .await;
    lab.join("n5").await;
    lab.until_voters(5).await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_08_a_dead_voter_is_replaced_by_a_live_learner() {
    let mut lab = Lab::of(3, impatient).await;
    let learner = lab.join("n4").await;
    until("a learner", || {
        (lab.any().stats().learners == [learner]).then_some(())
    })
    .await;
    let leader = lab.until_leader().await;
    let voters = lab.any().stats().voters;
    let victim = *voters.iter().find(|id| **id != leader).unwrap();
    lab.stop(victim).await;
    until("the learner votes in its place", || {
        let stats = lab.members[&leader].stats();
        let replaced = stats.voters.contains(&learner) && !stats.voters.contains(&victim);
        (replaced && stats.voters.len() == 3).then_some(())
    })
    .await;
    put(lab.any(), "after").await;
    // It returns as a learner.
    lab.start(victim).await;
    until("the victim follows", || {
        lab.members[&victim].view().state.data("after").map(|_| ())
    })
    .await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_members_leave_the_log_and_are_refused() {
    let mut lab = Lab::of(3, usual).await;
    let leader = lab.until_leader().await;
    let gone = *lab.members.keys().find(|id| **id != leader).unwrap();
    lab.remove(gone).await;
    until("two members, one voter", || {
        let stats = lab.members[&leader].stats();
        (stats.peers == 1 && stats.voters == [leader]).then_some(())
    })
    .await;
    let left = lab.members[&gone].clone();
    let refused = put_result(&left, "from the other side").await.unwrap_err();
    assert!(!matches!(refused, ProposeError::Rejected(_)), "{refused}");
    lab.stop(gone).await;
    put(lab.any(), "still works").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_first() {
    let lab = Lab::of(3, usual).await;
    let leader = lab.until_leader().await;
    lab.remove(leader).await;
    let others: Vec<&RaftControlPlane> = lab
        .members
        .values()
        .filter(|member| member.raft_id() != leader)
        .collect();
    until("another leader without the old one", || {
        let stats = others[0].stats();
        let view = others[0].view();
        let moved = view.leadership.leader.is_some_and(|id| id != leader);
        (moved && stats.peers == 1 && stats.voters.len() == 1).then_some(())
    })
    .await;
    // It still gets to know that nobody counts on its vote any more.
    let relieved = lab.members[&leader].relieved();
    tokio::time::timeout(LIMIT, relieved).await.unwrap();
    assert_eq!(lab.members[&leader].stats().voters.len(), 1);
    put(others[0], "one").await;
    put(others[1], "two").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_the_only_voter_can_be_removed() {
    let mut lab = Lab::of(2, usual).await;
    let leader = lab.until_leader().await;
    lab.remove(leader).await;
    let relieved = lab.members[&leader].relieved();
    tokio::time::timeout(LIMIT, relieved).await.unwrap();
    lab.stop(leader).await;
    lab.until_leader().await;
    put(lab.any(), "after").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request() {
    let lab = Lab::of(3, usual).await;
    let leader = lab.until_leader().await;
    lab.members[&leader].transfer_leadership().await.unwrap();
    let next = lab.until_leader().await;
    assert_ne!(next, leader);
    // Not leading, there is nothing to hand over.
    lab.members[&leader].transfer_leadership().await.unwrap();
    put(lab.any(), "after").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_the_only_voter_can_hand_over() {
    let lab = Lab::of(2, usual).await;
    let leader = lab.until_leader().await;
    let other = *lab.members.keys().find(|id| **id != leader).unwrap();
    until("the other follows", || {
        let learners = lab.members[&leader].stats().learners;
        (learners == [other]).then_some(())
    })
    .await;
    until("a heartbeat was answered", || {
        let same = lab.members[&other].view().state == lab.members[&leader].view().state;
        same.then_some(())
    })
    .await;
    lab.members[&leader].transfer_leadership().await.unwrap();
    assert_eq!(lab.until_leader().await, other);
    put(lab.any(), "after").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_stopped_amid_its_handover_remains_a_member() {
    let mut lab = Lab::of(2, |options| {
        options.propose_timeout = Duration::from_millis(700);
    })
    .await;
    let leader = lab.until_leader().await;
    let other = *lab.members.keys().find(|id| **id != leader).unwrap();
    until("the other follows", || {
        let same = lab.members[&other].view().state == lab.members[&leader].view().state;
        let learners = lab.members[&leader].stats().learners;
        (same && learners == [other]).then_some(())
    })
    .await;
    // It answered just now, so it is asked to take over, and cannot agree.
    lab.stop(other).await;
    let unfinished = lab.members[&leader].transfer_leadership().await;
    assert!(
        matches!(unfinished, Err(ProposeError::Unknown { .. })),
        "{unfinished:?}"
    );
    lab.stop(leader).await;
    lab.start(leader).await;
    lab.start(other).await;
    until("the other leads, and the first one is its learner", || {
        let stats = lab.members[&other].stats();
        let leads = lab.members[&other].view().leadership.is_leader;
        (leads && stats.voters == [other] && stats.learners == [leader]).then_some(())
    })
    .await;
    put(&lab.members[&leader], "first").await;
    put(&lab.members[&other], "other").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_cannot_return_under_its_old_id() {
    let mut lab = Lab::of(3, usual).await;
    let leader = lab.until_leader().await;
    let wiped = *lab.members.keys().find(|id| **id != leader).unwrap();
    put(lab.any(), "kept").await;
    lab.stop(wiped).await;
    fs::remove_dir_all(lab.path(wiped)).unwrap();
    // Somebody configures the old id again, on the new disk.
    let mut options = lab.options(wiped);
    options.disk = disk("new");
    let impostor = lab.open(options).await.unwrap();
    lab.network
        .listen(lab.address(wiped), Arc::new(impostor.clone()));
    for n in 0..20 {
        put(&lab.members[&leader], n).await;
    }
    assert_eq!(impostor.view().applied.0, 0);
    assert_eq!(impostor.stats().last_log_index, 0);
    assert!(put_result(&impostor, "not taken").await.is_err());
    impostor.shutdown().await;
    lab.network.hang_up(&lab.address(wiped));
    // As a new node it is welcome, once the old one is gone.
    lab.remove(wiped).await;
    let new = lab.join("n4").await;
    assert!(new > wiped);
    lab.until_voters(3).await;
    lab.until_alike().await;
    has(&lab.members[&new], "kept");
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_or_member_is_refused() {
    let mut lab = Lab::form(usual).await;
    let id = RaftId::BOOTSTRAP;
    lab.stop(id).await;
    let mut foreign = lab.options(id);
    foreign.cluster = ClusterId::from_bytes([0xee; 16]);
    let refused = lab.open(foreign).await.unwrap_err();
    let wrong = matches!(
        &refused,
        OpenError::Storage(StorageError::WrongCluster { .. })
    );
    assert!(wrong, "{refused}");
    lab.start(id).await;
    lab.until_leader().await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_cluster_is_refused() {
    let lab = Lab::form(usual).await;
    let here = lab.address(RaftId::BOOTSTRAP);
    // Another cluster takes the address of this one's member for that of a node of its own.
    let foreign = ClusterId::from_bytes([0xee; 16]);
    let options = RaftOptions::new(foreign, RaftId::BOOTSTRAP, disk("other"), "other:1");
    let storage = Arc::new(MemoryStorage::new());
    let transport = Arc::new(Recorder {
        inner: lab.network.transport("other:1"),
        refusals: Mutex::default(),
    });
    let opened = RaftControlPlane::open(storage, transport.clone(), options);
    let other = opened.await.unwrap();
    let formed = other.initialize(ClusterConfig::default(), spec("other"), UnixMillis(1));
    formed.await.unwrap();
    let mut astray = spec("astray");
    astray.address = Arc::from(here.as_str());
    let join = Command::Join {
        node: astray,
        replaces: None,
        at: UnixMillis(2),
    };
    other.propose(join).await.unwrap();
    let reason = until("a refusal", || transport.refusals.lock().unwrap().pop()).await;
    let expected = format!(
        "this is cluster {}, the request is for {foreign}",
        cluster_id()
    );
    assert_eq!(reason, expected);
    other.shutdown().await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_raft_s_or_not_readable_are_told_so() {
    let lab = Lab::form(usual).await;
    let sender = lab.network.transport("test:1");
    let here = PeerAddress::member(RaftId::BOOTSTRAP, lab.address(RaftId::BOOTSTRAP));
    for &kind in RpcKind::ALL {
        for body in [&b""[..], b"?", &[1; 100]] {
            let answer = sender.send(&here, kind, Bytes::from(body)).await;
            let told = matches!(
                answer,
                Err(TransportError::Remote { .. } | TransportError::Refused { .. })
            );
            assert!(told, "{kind}: {answer:?}");
        }
    }
    put(lab.any(), "unharmed").await;
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_too_large_for_the_log_is_refused_at_once() {
    let lab = Lab::form(usual).await;
    let huge = lab.any().propose(set("huge", "x".repeat(5 << 20))).await;
    assert!(
        matches!(huge, Err(ProposeError::TooLarge { .. })),
        "{huge:?}"
    );
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_shutdown_proposals_say_so_and_shutdown_can_be_repeated() {
    let lab = Lab::form(usual).await;
    let member = lab.any().clone();
    lab.shutdown().await;
    member.shutdown().await;
    let stopped = put_result(&member, "late").await;
    assert!(
        matches!(stopped, Err(ProposeError::Stopped { .. })),
        "{stopped:?}"
    );
    let stopped = member.read_barrier().await;
    assert!(
        matches!(stopped, Err(ProposeError::Stopped { .. })),
        "{stopped:?}"
    );
    assert_eq!(member.stats().state, "Shutdown");
    assert!(!member.view().leadership.is_leader);
}

/// Notes why requests were refused.
#[derive(Debug)]
struct Recorder {
    inner: ChannelTransport,
    refusals: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Recorder {
    async fn send(
        &self,
        to: &PeerAddress,
        kind: RpcKind,
        body: Bytes,
    ) -> Result<Bytes, TransportError> {
        let answer = self.inner.send(to, kind, body).await;
        if let Err(TransportError::Refused { reason, .. }) = &answer {
            self.refusals.lock().unwrap().push(reason.clone());
        }
        answer
    }
}

//! Calls: who is asked, what is repeated, what never is, and the deadline.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clusterkit_client::{
    CallError, CallFailure, CallOutcome, Client, ExponentialRetry, ReadFrom, Role, Target,
};
use clusterkit_core::id::{Epoch, PartitionId};

use crate::node::{Cluster, FakeNode, Manner, dead_address, soon, three};

/// An attempt's error that says of itself what it means.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}")]
struct Failure(CallOutcome);

impl CallFailure for Failure {
    fn outcome(&self) -> CallOutcome {
        self.0
    }
}

const MOVED: CallOutcome = CallOutcome::Moved { epoch: None };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs `answer` for each target asked, and records the targets' ids.
async fn asked<T>(
    call: clusterkit_client::Call<'_>,
    answer: impl Fn(&Target, usize) -> Result<T, Failure>,
) -> (Result<T, CallError<Failure>>, Vec<String>) {
    let seen = Mutex::new(Vec::new());
    let result = soon(call.send(|target| {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(target.id().to_string());
            seen.len()
        };
        let answered = answer(&target, number);
        async move { answered }
    }))
    .await;
    (result, seen.into_inner().unwrap())
}

#[tokio::test]
async fn a_call_goes_to_the_primary_with_partition_and_epoch() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let call = client.call(b"a");
    assert_eq!(call.partition(), PartitionId(9));
    let (result, asked) = asked(call, |target, _| {
        assert_eq!(target.partition(), PartitionId(9));
        assert_eq!(target.role(), Role::Primary);
        assert_eq!(target.epoch(), Epoch(1));
        Ok(5)
    })
    .await;
    assert_eq!(
        (result.unwrap(), asked.as_slice()),
        (5, &["node-1".to_owned()][..])
    );
    let located = client.locate(b"a").unwrap();
    assert_eq!(*located.id(), "node-1");
    assert_eq!(located.service("kv").unwrap(), "127.0.0.1:9080");
    assert_eq!(located.service("admin").unwrap(), "10.1.1.1:7");
    assert!(located.service("mail").is_none());
}

#[tokio::test]
async fn rule_14_a_moved_key_costs_one_retry() {
    // Nobody can be watched and nobody is polled soon: only the answer tells of the change.
    let (nodes, mut cluster, _) = three(Manner::Polled).await;
    let client = soon(
        Client::builder([nodes[0].address.as_str()])
            .poll_interval(Duration::from_secs(60))
            .connect(),
    )
    .await
    .unwrap();
    cluster.promote(2);
    nodes[0].publish(&cluster.topology());
    let (result, asked) = asked(client.call(b"a"), |target, _| {
        if *target.id() == "node-2" {
            assert_eq!(target.epoch(), Epoch(2));
            Ok(())
        } else {
            Err(Failure(CallOutcome::Moved {
                epoch: Some(Epoch(2)),
            }))
        }
    })
    .await;
    result.unwrap();
    assert_eq!(asked, ["node-1", "node-2"]);
}

#[tokio::test]
async fn nodes_that_disagree_are_asked_again_until_they_agree() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let (result, asked) = asked(client.call(b"a"), |_, number| {
        if number < 5 {
            Err(Failure(MOVED))
        } else {
            Ok(())
        }
    })
    .await;
    result.unwrap();
    assert_eq!(asked.len(), 5);
}

#[tokio::test]
async fn a_read_tries_the_next_replica_at_once() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let call = client
        .call(b"a")
        .idempotent(true)
        .read_from(ReadFrom::PrimaryFirst);
    let (result, asked) = asked(call, |target, number| match number {
        1 => Err(Failure(CallOutcome::Unavailable)),
        2 => Err(Failure(CallOutcome::Unknown)),
        _ => Ok(target.role()),
    })
    .await;
    assert_eq!(result.unwrap(), Role::Replica);
    assert_eq!(asked, ["node-1", "node-2", "node-3"]);
}

#[tokio::test]
async fn a_hung_node_costs_an_idempotent_call_one_attempt_timeout() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let call = client
        .call(b"a")
        .idempotent(true)
        .attempt_timeout(ms(30))
        .read_from(ReadFrom::PrimaryFirst);
    let result = soon(call.send(|target| async move {
        if target.role() == Role::Primary {
            std::future::pending::<()>().await;
        }
        Ok::<_, Failure>(target.id().to_string())
    }))
    .await;
    assert_eq!(result.unwrap(), "node-2");
}

#[tokio::test]
async fn reads_from_any_member_are_spread_over_those_in_sync() {
    let (nodes, mut cluster, client) = three(Manner::Streams).await;
    cluster.epoch = 2;
    cluster.behind = vec![3];
    for node in &nodes {
        node.publish(&cluster.topology());
    }
    soon(client.wait_for_epoch(Epoch(2))).await;
    let mut first = BTreeSet::new();
    for _ in 0..8 {
        let call = client.call(b"a").read_from(ReadFrom::AnyInSync);
        let (_, asked) = asked(call, |_, _| Ok(())).await;
        first.extend(asked);
    }
    assert_eq!(first.into_iter().collect::<Vec<_>>(), ["node-1", "node-2"]);
}

#[tokio::test]
async fn a_call_that_is_not_idempotent_is_never_repeated_after_an_unknown_outcome() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let (result, asked) = asked(client.call(b"a"), |_, _| {
        Err::<(), _>(Failure(CallOutcome::Unknown))
    })
    .await;
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Unknown {
                attempts: 1,
                source: Some(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.is_without_effect());
    assert_eq!(asked.len(), 1);
    assert_eq!(
        error.to_string(),
        "the outcome of the call on partition 9 is unknown, attempt 1 was on node-1"
    );
}

#[tokio::test]
async fn an_attempt_cut_off_by_the_deadline_has_an_unknown_outcome() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    for idempotent in [false, true] {
        let call = client.call(b"a").idempotent(idempotent).deadline(ms(60));
        let result = soon(call.send(|_| std::future::pending::<Result<(), Failure>>())).await;
        let error = result.unwrap_err();
        assert!(
            matches!(error, CallError::Unknown { source: None, .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_call_that_is_not_idempotent_is_repeated_while_nothing_was_sent() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let (result, asked) = asked(client.call(b"a"), |_, number| {
        if number < 4 {
            Err(Failure(CallOutcome::Unavailable))
        } else {
            Ok(())
        }
    })
    .await;
    result.unwrap();
    assert_eq!(asked, ["node-1"; 4]);
}

#[tokio::test]
async fn the_deadline_is_kept() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let call = client.call(b"a").deadline(ms(150));
    let (result, asked) = asked(call, |_, _| Err::<(), _>(Failure(CallOutcome::Unavailable))).await;
    let error = result.unwrap_err();
    let CallError::Unserved {
        after, attempts, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(*after >= ms(150) && *after < ms(600), "{after:?}");
    assert_eq!(*attempts as usize, asked.len());
    assert!(*attempts > 2);
    assert!(error.is_without_effect());
}

#[tokio::test]
async fn an_answer_is_final() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let call = client.call(b"a").idempotent(true);
    let (result, asked) = asked(call, |_, _| Err::<(), _>(Failure(CallOutcome::Fatal))).await;
    let error = result.unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
    assert_eq!(error.to_string(), "node-1 refused the call on partition 9");
    assert_eq!(error.attempt_error().unwrap().0, CallOutcome::Fatal);
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn retries_end_where_the_policy_says() {
    let node = FakeNode::start(Manner::Streams).await;
    node.publish(&Cluster::of(&[&node]).topology());
    let client = soon(
        Client::builder([node.address.as_str()])
            .retry(ExponentialRetry {
                attempts_max: 3,
                ..ExponentialRetry::default()
            })
            .connect(),
    )
    .await
    .unwrap();
    let (result, asked) = asked(client.call(b"a"), |_, _| {
        Err::<(), _>(Failure(CallOutcome::Unavailable))
    })
    .await;
    assert!(matches!(
        result.unwrap_err(),
        CallError::Unserved { attempts: 3, .. }
    ));
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn a_call_waits_for_a_primary_and_goes_as_soon_as_there_is_one() {
    let (nodes, mut cluster, client) = three(Manner::Streams).await;
    cluster.epoch = 2;
    cluster.primary = None;
    for node in &nodes {
        node.publish(&cluster.topology());
    }
    soon(client.wait_for_epoch(Epoch(2))).await;
    let (result, _) = asked(client.call(b"a").deadline(ms(50)), |_, _| Ok(())).await;
    let error = result.unwrap_err();
    assert!(matches!(error, CallError::NoTarget { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("partition 9 has no primary at epoch 2")
    );

    let calling = asked(client.call(b"a"), |_, _| Ok(()));
    let promoting = async {
        cluster.promote(3);
        for node in &nodes {
            node.publish(&cluster.topology());
        }
    };
    let ((result, asked), ()) = tokio::join!(calling, promoting);
    result.unwrap();
    assert_eq!(asked, ["node-3"]);
}

#[tokio::test]
async fn a_failover_ends_the_pause_early() {
    let (nodes, mut cluster, _) = three(Manner::Streams).await;
    // With pauses of a minute only the pushed change can make this call succeed in time.
    let client = soon(
        Client::builder([nodes[0].address.as_str()])
            .retry(ExponentialRetry {
                pause_min: Duration::from_secs(60),
                pause_max: Duration::from_secs(60),
                ..ExponentialRetry::default()
            })
            .connect(),
    )
    .await
    .unwrap();
    cluster.promote(2);
    let changed = cluster.topology();
    let call = client.call(b"a").deadline(Duration::from_secs(9));
    let (result, asked) = asked(call, |target, _| {
        if *target.id() == "node-2" {
            return Ok(());
        }
        for node in &nodes {
            node.publish(&changed);
        }
        Err(Failure(CallOutcome::Unavailable))
    })
    .await;
    result.unwrap();
    assert_eq!(asked, ["node-1", "node-2"]);
}

#[tokio::test]
async fn many_failing_calls_share_their_refreshes() {
    let (nodes, _, client) = three(Manner::Streams).await;
    let attempts = AtomicU32::new(0);
    let calls = (0..200).map(|_| {
        client.call(b"a").deadline(ms(200)).send(|_| {
            attempts.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), _>(Failure(CallOutcome::Unavailable)) }
        })
    });
    soon(futures_util::future::join_all(calls)).await;
    let fetches: u32 = nodes.iter().map(|node| node.asked().fetches).sum();
    let attempts = attempts.into_inner();
    assert!(attempts >= 800, "{attempts} attempts");
    assert!(
        fetches * 4 < attempts,
        "{fetches} fetches for {attempts} attempts"
    );
}

#[tokio::test]
async fn writes_go_to_members_that_live_and_to_joining_nodes() {
    let mut addresses = Vec::new();
    let node = FakeNode::start(Manner::Streams).await;
    addresses.push(node.address.clone());
    for _ in 0..3 {
        addresses.push(dead_address().await);
    }
    let mut cluster = Cluster::at(addresses);
    cluster.replicas = vec![2, 3];
    cluster.down = vec![3];
    cluster.joining = vec![4];
    node.publish(&cluster.topology());
    let client = soon(Client::connect([node.address.as_str()]))
        .await
        .unwrap();
    let set: Vec<(String, Role)> = client
        .write_set(PartitionId(3))
        .iter()
        .map(|target| (target.id().to_string(), target.role()))
        .collect();
    let expected = [
        ("node-1".to_owned(), Role::Primary),
        ("node-2".to_owned(), Role::Replica),
        ("node-4".to_owned(), Role::Joining),
    ];
    assert_eq!(set, expected);
}

/// A call is spawned like any other work, so its future must be `Send`.
#[tokio::test]
async fn a_call_can_be_spawned() {
    fn spawnable<T: Send>(work: T) -> T {
        work
    }
    let (_nodes, _cluster, client) = three(Manner::Streams).await;
    let call = client.call(b"k");
    let reply = spawnable(call.send(|_| async { Ok::<_, Failure>(7) })).await;
    assert_eq!(reply.unwrap(), 7);
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_refused_at_once() {
    let (_nodes, _, client) = three(Manner::Streams).await;
    let (result, asked) = asked(client.call_partition(PartitionId(16)), |_, _| Ok(())).await;
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "partition 16 does not exist, the cluster has 16"
    );
    assert!(asked.is_empty());
    assert!(client.write_set(PartitionId(16)).is_empty());
}

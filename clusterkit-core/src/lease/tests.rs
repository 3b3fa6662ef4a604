//! Both ends of leases: small cases by hand, and the [`model`] of a whole cluster in true time.

mod model;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use super::{LeadershipProof, Lease, LeaseBook, LeaseRefused, LeaseTiming, NoToken};
use crate::command::Command;
use crate::id::{Epoch, Incarnation, PartitionId, RaftId};
use crate::planted::Bug;
use crate::time::Instant;
use model::{AT, Log, World};

#[test]
fn no_two_live_tokens_of_one_partition_overlap() {
    let (mut seen, mut changes) = (0, 0);
    for seed in 0..300 {
        let world = match World::new(seed, None).run() {
            Ok(world) => world,
            Err(violation) => panic!("seed {seed}: {violation}"),
        };
        seen += world.tokens_seen.values().sum::<usize>();
        changes += world.tokens_seen.len();
        // Nothing is safe only because nothing is granted: once it is quiet, everything is owned.
        let state = world.log.last();
        for (id, partition) in state.partitions_by_id() {
            let primary = state
                .node(partition.primary.expect("somebody leads"))
                .unwrap();
            let process = world.processes.iter().find(|process| {
                process.node == primary.raft_id && process.incarnation == primary.incarnation
            });
            let process = process.unwrap();
            let token = process.lease.token(id, process.clock(world.now));
            assert!(token.is_ok(), "seed {seed}: {id}: {token:?}");
        }
    }
    assert!(
        seen > 100_000 && changes > 3_000,
        "{seen} tokens, {changes} ownerships"
    );
}

/// Returns the first seed that shows a violation.
fn found(flaw: Bug, seeds: u64) -> Option<u64> {
    (0..seeds).find(|&seed| World::new(seed, Some(flaw)).run().is_err())
}

#[test]
fn without_the_wait_of_a_new_leader_tokens_overlap() {
    assert!(found(Bug::SkipLeaseWait, 300).is_some());
}

#[test]
fn counted_from_the_arrival_of_a_grant_tokens_overlap() {
    assert!(found(Bug::RenewAfterExpiry, 300).is_some());
}

#[test]
fn without_the_margin_tokens_overlap() {
    assert!(found(Bug::ForgetMargin, 300).is_some());
}

#[test]
fn granted_without_proof_of_leadership_tokens_overlap() {
    assert!(found(Bug::GrantOnDeposedLeader, 300).is_some());
}

#[test]
fn without_the_fence_tokens_overlap() {
    assert!(found(Bug::IgnoreFence, 300).is_some());
}

const LEASE: Duration = LeaseTiming::LAN.lease;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// A leader of the formed cluster, its node's lease granted.
fn led() -> (Log, LeaseBook, Lease) {
    let log = Log::formed();
    let mut book = LeaseBook::new(LeaseTiming::LAN);
    book.lead(1, at(0));
    book.observe(log.last(), at(0));
    let mut lease = Lease::new(RaftId(1), Incarnation(1), LEASE);
    lease.observe(log.last());
    (log, book, lease)
}

fn proof(term: u64, ms: u64) -> LeadershipProof {
    LeadershipProof {
        term,
        begun_at: at(ms),
    }
}

#[test]
fn a_lease_counts_from_the_request_that_a_proof_covers() {
    let (log, mut book, mut lease) = led();
    let me = (RaftId(1), Incarnation(1));
    for ms in [2_000, 2_100] {
        let request = lease.request(at(ms));
        assert_eq!(
            book.handle_request(&request, log.last(), at(ms + 5)),
            Ok(())
        );
    }
    assert_eq!(book.grant(me.0, me.1, at(2_110)), None, "nothing is proven");
    book.handle_proof(proof(2, 2_200));
    assert_eq!(book.grant(me.0, me.1, at(2_210)), None, "of another term");
    book.handle_proof(proof(1, 2_050));
    let grant = book
        .grant(me.0, me.1, at(2_210))
        .expect("the first one is covered");
    lease.handle_grant(grant, at(2_220));
    assert_eq!(lease.until(), Some(at(3_000)));
    book.handle_proof(proof(1, 2_150));
    lease.handle_grant(book.grant(me.0, me.1, at(2_230)).unwrap(), at(2_230));
    assert_eq!(lease.until(), Some(at(3_100)));
    let token = lease.token(PartitionId(0), at(3_000)).unwrap();
    assert_eq!(
        (token.valid_until(), token.epoch()),
        (at(3_100), log.last().epoch())
    );
    assert_eq!(lease.check(&token, at(3_099)), Ok(()));
    assert_eq!(lease.check(&token, at(3_100)), Err(NoToken::LeaseOver));
    lease.handle_grant(grant, at(3_200));
    assert!(!lease.is_live(at(3_200)), "a late grant renews nothing");
}

#[test]
fn a_node_is_given_up_only_after_lease_and_margin() {
    let (log, mut book, mut lease) = led();
    assert!(
        !book.may_commit_down(RaftId(3), at(1_049)),
        "a predecessor may have granted"
    );
    assert!(book.may_commit_down(RaftId(3), at(1_050)));
    let request = lease.request(at(2_000));
    book.handle_request(&request, log.last(), at(2_010))
        .unwrap();
    assert!(!book.may_commit_down(RaftId(1), at(3_059)));
    assert!(book.may_commit_down(RaftId(1), at(3_060)));
    book.condemn(&[RaftId(1)], at(3_060));
    let late = lease.request(at(3_070));
    let refused = book.handle_request(&late, log.last(), at(3_080));
    assert_eq!(refused, Err(LeaseRefused::Condemned { node: RaftId(1) }));
    book.handle_proof(proof(1, 3_090));
    assert_eq!(book.grant(RaftId(1), Incarnation(1), at(3_095)), None);
    assert_eq!(book.unmarked(at(4_109)), []);
    assert_eq!(
        book.unmarked(at(4_110)),
        [RaftId(1)],
        "to be proposed again"
    );
}

#[test]
fn a_new_primary_waits_until_the_old_one_has_let_go() {
    let (mut log, mut book, mut old) = led();
    let members = log.members();
    let mut new = Lease::new(members[1], Incarnation(1), LEASE);
    new.observe(log.last());
    let renew = |book: &mut LeaseBook, lease: &mut Lease, log: &Log, ms: u64| {
        let request = lease.request(at(ms));
        book.handle_request(&request, log.last(), at(ms)).unwrap();
        book.handle_proof(proof(1, ms));
        let grant = book
            .grant(request.node, request.incarnation, at(ms))
            .unwrap();
        lease.handle_grant(grant, at(ms));
    };
    renew(&mut book, &mut old, &log, 2_000);
    renew(&mut book, &mut new, &log, 2_000);
    let partition = PartitionId(0);
    let token = old.token(partition, at(2_001)).unwrap();
    // The primary role goes to the second node, which knows at once; the first one lags.
    let plan = log.plan(vec![(partition, vec![members[1], members[0], members[2]])]);
    log.append(&plan);
    let plan = log.last().plan().expect("a plan").id;
    log.append(&Command::StartMoves {
        plan,
        moves: vec![partition.into()],
        at: AT,
    });
    book.observe(log.last(), at(2_010));
    new.observe(log.last());
    renew(&mut book, &mut new, &log, 2_020);
    assert!(new.awaits_fence() && !old.awaits_fence());
    let refused = new.token(partition, at(2_030));
    assert!(
        matches!(refused, Err(NoToken::NotReleased { .. })),
        "{refused:?}"
    );
    assert_eq!(old.check(&token, at(2_030)), Ok(()));
    // It learns of it: its token ends, and once it has said so the other one begins.
    old.observe(log.last());
    assert_eq!(
        old.check(&token, at(2_040)),
        Err(NoToken::NotPrimary { partition })
    );
    renew(&mut book, &mut old, &log, 2_050);
    renew(&mut book, &mut new, &log, 2_060);
    assert!(new.token(partition, at(2_061)).is_ok());
}

#[test]
fn a_process_that_lags_for_longer_than_a_lease_is_not_renewed() {
    let (mut log, mut book, mut lease) = led();
    let plan = log.plan(vec![(
        PartitionId(0),
        log.members().into_iter().rev().collect(),
    )]);
    log.append(&plan);
    let plan = log.last().plan().unwrap().id;
    log.append(&Command::StartMoves {
        plan,
        moves: vec![PartitionId(0).into()],
        at: AT,
    });
    let before = log.states[log.states.len() - 3].epoch();
    let mut refused_at = None;
    for ms in (0..5_000).step_by(100) {
        let request = lease.request(at(ms));
        book.handle_proof(proof(1, ms));
        if book.handle_request(&request, log.last(), at(ms)).is_err() {
            refused_at.get_or_insert(ms);
        }
        // The last request that counted came at 1,900 ms; lease and margin later it is over.
        let fence = match ms {
            0..=1_000 => Epoch(0),
            1_100..=2_900 => before,
            _ => log.last().epoch(),
        };
        assert_eq!(book.fence(at(ms)), fence, "at {ms} ms");
    }
    assert_eq!(refused_at, Some(2_000));
}

#[test]
fn timing_is_refused_where_its_parts_do_not_fit() {
    let check = |timing: LeaseTiming| timing.validate().map_err(|error| format!("{error}"));
    for profile in [LeaseTiming::LAN, LeaseTiming::FAST, LeaseTiming::WAN] {
        assert_eq!(check(profile), Ok(()));
        assert!(profile.tolerated_drift_ppm() > 20_000);
    }
    let slow = LeaseTiming {
        heartbeat: Duration::from_millis(400),
        ..LeaseTiming::LAN
    };
    let text = "lease.heartbeat is `400ms`, must be 1ms to 333.333333ms";
    assert_eq!(check(slow), Err(String::from(text)));
    let bold = LeaseTiming {
        drift_margin: Duration::ZERO,
        ..LeaseTiming::LAN
    };
    let text = "lease.drift_margin is `0ns`, must be 2ms to 1s";
    assert_eq!(check(bold), Err(String::from(text)));
}

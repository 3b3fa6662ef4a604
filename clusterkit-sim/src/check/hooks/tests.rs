//! Calls as the hook runner makes them are accepted, whatever crashes; each way to break the
//! promise is found.

use clusterkit_core::event::{ChangeReason, PartitionChanged, Role};
use clusterkit_core::id::{Epoch, LogIndex};

use super::*;
use crate::Rng;

const ME: RaftId = RaftId(1);
const NOW: Duration = Duration::from_secs(60);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn event(seq: u64, kind: EventKind) -> Event {
    Event {
        seq: EventSeq(seq),
        index: LogIndex(seq * 2),
        epoch: Epoch(seq),
        at: UnixMillis(1_000 + seq),
        kind,
    }
}

fn change(seq: u64, partition: u32, target: u64, stage: ChangeStage) -> Event {
    let change = PartitionChanged {
        partition: PartitionId(partition),
        stage,
        stage_id: StageId(seq),
        sources: vec![RaftId(8)],
        target: RaftId(target),
        role: Role::Replica,
        reason: ChangeReason::Rebalance,
        old_primary: Some(RaftId(9)),
        new_primary: None,
        behind_since: None,
        epoch: Epoch(seq),
    };
    event(seq, EventKind::PartitionChanged(change))
}

fn switched(seq: u64, partition: u32) -> Event {
    change(seq, partition, 7, ChangeStage::Switched)
}

fn rejoined(seq: u64, node: u64, held: &[u32]) -> Event {
    let kind = EventKind::NodeRejoined {
        node: RaftId(node),
        last_seen_at: UnixMillis(0),
        partitions_before_leave: held.iter().copied().map(PartitionId).collect(),
        verdicts: Vec::new(),
    };
    event(seq, kind)
}

fn call(event: &Event, from: u64, to: u64, end: CallEnd) -> HookCall {
    HookCall {
        told: Told::of(event).unwrap(),
        from: ms(from),
        ended: Some((ms(to), end)),
    }
}

fn process(after: u64, lives: bool, calls: Vec<HookCall>) -> Process {
    Process {
        node: ME,
        after: EventSeq(after),
        calls,
        lives,
    }
}

fn judge(committed: &[Event], processes: &[Process]) -> Result<(), String> {
    let until = committed.last().map_or(EventSeq(0), |event| event.seq);
    check(committed, processes, until, NOW).map_err(|violation| violation.rule)
}

fn broken(rule: &str) -> Result<(), String> {
    Err(rule.to_owned())
}

const DONE: CallEnd = CallEnd::Ok;

#[test]
fn everything_is_told_in_order_to_who_lives() {
    let log = [switched(1, 0), switched(2, 1), switched(3, 0)];
    let [a, b, c] = [0, 1, 2].map(|at: u64| {
        let at_index = usize::try_from(at).unwrap();
        call(&log[at_index], at * 10, at * 10 + 5, DONE)
    });
    let living = |calls: &[HookCall]| judge(&log, &[process(0, true, calls.to_vec())]);
    assert_eq!(living(&[a, b, c]), Ok(()));
    // Partitions do not wait for each other.
    assert_eq!(living(&[a, c, call(&log[1], 30, 40, DONE)]), Ok(()));
    assert_eq!(living(&[a, c]), broken("hook-lost"));
    assert_eq!(judge(&log, &[process(0, false, vec![a])]), Ok(()));
    assert_eq!(judge(&log, &[process(1, true, vec![b, c])]), Ok(()));
    let early = call(&log[2], 0, 5, DONE);
    let late = call(&log[0], 10, 15, DONE);
    assert_eq!(living(&[early, late, b]), broken("hook-order"));
    let at_once = call(&log[2], 3, 9, DONE);
    assert_eq!(living(&[a, at_once, b]), broken("hook-overlap"));
    assert_eq!(
        living(&[a, b, c, call(&log[2], 50, 51, DONE)]),
        broken("hook-repeated")
    );
    let invented = call(&switched(4, 0), 50, 51, DONE);
    assert_eq!(living(&[a, b, c, invented]), broken("hook-uncommitted"));
}

#[test]
fn a_new_process_goes_on_behind_its_cursor() {
    let log = [switched(1, 0), switched(2, 0)];
    let a = call(&log[0], 0, 5, DONE);
    let cut = HookCall {
        ended: None,
        ..call(&log[1], 6, 7, DONE)
    };
    let rest = |after, calls| {
        judge(
            &log,
            &[process(0, false, vec![a, cut]), process(after, true, calls)],
        )
    };
    let again = call(&log[1], 20, 25, DONE);
    assert_eq!(rest(1, vec![again]), Ok(()));
    // An older cursor repeats more.
    assert_eq!(rest(0, vec![call(&log[0], 10, 15, DONE), again]), Ok(()));
    assert_eq!(
        rest(1, vec![call(&log[0], 10, 15, DONE), again]),
        broken("hook-repeated")
    );
    // The cursor has run ahead of a call that was cut short.
    assert_eq!(rest(2, vec![]), broken("hook-lost"));
    assert_eq!(
        judge(
            &log,
            &[process(0, false, vec![a, cut]), process(2, false, vec![])]
        ),
        broken("hook-lost")
    );
}

#[test]
fn only_what_this_node_is_asked_for_is_asked_again() {
    let asked = [change(1, 0, ME.0, ChangeStage::Cleanup)];
    let failed = |event: &Event, from| call(event, from, from + 1, CallEnd::Failed);
    let twice = |log: &[Event]| {
        let calls = vec![
            failed(&log[0], 0),
            failed(&log[0], 5),
            call(&log[0], 9, 10, DONE),
        ];
        judge(log, &[process(0, true, calls)])
    };
    assert_eq!(twice(&asked), Ok(()));
    assert_eq!(twice(&[switched(1, 0)]), broken("hook-repeated"));
    let told_once = vec![failed(&asked[0], 0)];
    assert_eq!(
        judge(&asked, &[process(0, true, told_once.clone())]),
        broken("hook-lost")
    );
    assert_eq!(
        judge(
            &[switched(1, 0)],
            &[process(0, true, vec![failed(&switched(1, 0), 0)])]
        ),
        Ok(())
    );
    // Its stage ended first: a later change of the partition says so.
    let log = [asked[0].clone(), switched(2, 0)];
    let rest = call(&log[1], 9, 10, DONE);
    assert_eq!(
        judge(&log, &[process(0, true, [told_once, vec![rest]].concat())]),
        Ok(())
    );
    assert_eq!(judge(&log, &[process(0, true, vec![rest])]), Ok(()));
}

#[test]
fn a_rejoin_is_through_before_what_it_causes() {
    let check = |log: [Event; 2], is_bound: bool| {
        let rejoin = call(&log[0], 0, 50, DONE);
        let (during, later) = (call(&log[1], 20, 30, DONE), call(&log[1], 50, 60, DONE));
        assert_eq!(
            judge(&log, &[process(0, true, vec![rejoin, later])]),
            Ok(())
        );
        let expected = if is_bound {
            broken("rejoin-late")
        } else {
            Ok(())
        };
        assert_eq!(
            judge(&log, &[process(0, true, vec![rejoin, during])]),
            expected
        );
    };
    check([rejoined(1, 5, &[3]), switched(2, 3)], true);
    check([rejoined(1, 5, &[4]), switched(2, 3)], false);
    check([rejoined(1, 7, &[]), switched(2, 3)], true);
    check([rejoined(1, ME.0, &[]), switched(2, 3)], true);
    // It was through in the process before.
    let log = [rejoined(1, 5, &[3]), switched(2, 3)];
    let processes = [
        process(0, false, vec![call(&log[0], 0, 5, DONE)]),
        process(1, true, vec![call(&log[1], 20, 30, DONE)]),
    ];
    assert_eq!(judge(&log, &processes), Ok(()));
}

#[test]
fn what_is_said_to_be_missed_is_not_owed() {
    let log = [
        switched(1, 0),
        change(2, 1, ME.0, ChangeStage::Reverted),
        switched(3, 0),
    ];
    let missed = HookCall {
        told: Told::Missed(EventSeq(1), EventSeq(2)),
        from: ms(0),
        ended: Some((ms(1), DONE)),
    };
    // What is still asked for is told as a cleanup.
    let stage = change(2, 1, ME.0, ChangeStage::Cleanup);
    let calls = vec![missed, call(&log[2], 1, 2, DONE), call(&stage, 3, 4, DONE)];
    assert_eq!(judge(&log, &[process(0, true, calls.clone())]), Ok(()));
    assert_eq!(
        judge(&log, &[process(0, true, calls[1..].to_vec())]),
        broken("hook-lost")
    );
}

/// Makes a random log and the calls of one node that crashes now and then.
fn run(rng: &mut Rng) -> (Vec<Event>, Vec<Process>) {
    let log: Vec<Event> = (1..=rng.within(5..=40))
        .map(|seq| match rng.below(8) {
            0 => rejoined(
                seq,
                rng.within(5..=9),
                &[u32::try_from(rng.below(4)).unwrap()],
            ),
            1 => event(
                seq,
                EventKind::NodeLeft {
                    node: RaftId(6),
                    reason: clusterkit_core::event::LeaveReason::Failed,
                    partitions_owned: Vec::new(),
                    partitions_replica: Vec::new(),
                },
            ),
            _ => switched(seq, u32::try_from(rng.below(4)).unwrap()),
        })
        .collect();
    let index = Log::new(&log);
    let (mut processes, mut cursor, mut begin) = (Vec::new(), 0, 0);
    loop {
        let crash = rng.chance(600).then(|| begin + rng.within(10..=200));
        let mut free: BTreeMap<Option<PartitionId>, u64> = BTreeMap::new();
        let mut calls: Vec<(u64, u64, usize)> = Vec::new();
        for (at, event) in log.iter().enumerate().filter(|(_, e)| e.seq.0 > cursor) {
            let fact = &index.facts[&event.seq];
            let lane = fact.told.partition();
            let rejoins = calls.iter().filter(|(_, _, other)| {
                lane.is_some() && index.concerns(log[*other].seq, fact, ME)
            });
            let after = rejoins.map(|(_, end, _)| *end).max().unwrap_or(begin);
            let from = after.max(free.get(&lane).copied().unwrap_or(begin)) + rng.below(9);
            let end = from + rng.below(15);
            free.insert(lane, end);
            calls.push((from, end, at));
        }
        let is_cut = |time: u64| crash.is_some_and(|crash| time > crash);
        let unfinished = calls.iter().filter(|(_, end, _)| is_cut(*end));
        let oldest = unfinished.map(|(_, _, at)| log[*at].seq.0 - 1).min();
        calls.retain(|(from, _, _)| !is_cut(*from));
        calls.sort_by_key(|(from, end, at)| (*from, *end, *at));
        let made = calls.iter().map(|&(from, end, at)| {
            let made = call(
                &log[at],
                from,
                end,
                if rng.chance(100) {
                    CallEnd::Failed
                } else {
                    DONE
                },
            );
            let ended = made.ended.filter(|_| !is_cut(end));
            HookCall { ended, ..made }
        });
        processes.push(process(cursor, crash.is_none(), made.collect()));
        let Some(crash) = crash else {
            return (log, processes);
        };
        // The cursor is written down now and then only.
        let reached = oldest.unwrap_or(log.len() as u64);
        cursor = cursor.max(reached - rng.below(3).min(reached));
        begin = crash + 1;
    }
}

#[test]
fn calls_of_nodes_that_crash_are_accepted_and_spoiled_ones_are_not() {
    let mut found = BTreeMap::new();
    for seed in 0..1_500 {
        let mut rng = Rng::new(seed).split("hooks");
        let (log, mut processes) = run(&mut rng);
        assert_eq!(judge(&log, &processes), Ok(()), "seed {seed}");
        let Some(last) = processes.last_mut().filter(|last| !last.calls.is_empty()) else {
            continue;
        };
        let at = rng.index(last.calls.len());
        let end = last
            .calls
            .iter()
            .filter_map(|call| call.ended)
            .map(|(end, _)| end)
            .max();
        let end = end.unwrap_or_default();
        let spoiled = last.calls[at];
        let lane = spoiled.told.partition();
        let expected = match rng.below(4) {
            0 => {
                last.calls.remove(at);
                // Told by an earlier process it is not lost, but what follows may come too soon.
                None
            }
            1 => {
                last.calls.push(HookCall {
                    from: end,
                    ended: Some((end, DONE)),
                    ..spoiled
                });
                Some("hook-repeated")
            }
            2 => {
                last.calls[at].ended = None;
                let is_last = !last.calls[at + 1..]
                    .iter()
                    .any(|c| c.told.partition() == lane);
                (!is_last).then_some("hook-overlap")
            }
            _ => {
                let mut invented = spoiled;
                invented.told = Told::RebalanceStarted(PlanId(99));
                last.calls[at] = invented;
                Some("hook-uncommitted")
            }
        };
        let told_before = processes.len() > 1;
        let judged = judge(&log, &processes);
        match expected {
            // A rejoin that does not end holds up partitions too, and one of them may be first.
            Some("hook-overlap") if matches!(spoiled.told, Told::Rejoined(..)) => {
                let found = [broken("hook-overlap"), broken("rejoin-late")];
                assert!(found.contains(&judged), "seed {seed}: {judged:?}");
            }
            Some(rule) => assert_eq!(judged, broken(rule), "seed {seed}"),
            None if !told_before => assert!(judged.is_err(), "seed {seed}"),
            None => {}
        }
        if let Err(rule) = judged {
            *found.entry(rule).or_insert(0) += 1;
        }
    }
    for rule in [
        "hook-lost",
        "hook-overlap",
        "hook-repeated",
        "hook-uncommitted",
    ] {
        assert!(
            found.get(rule).is_some_and(|&count| count > 100),
            "{found:?}"
        );
    }
}

//! Records against histories written by hand, made by a correct object, and spoiled ones.

use super::super::history::{Answer, Call};
use super::super::linear::{self, Linear};
use super::super::testing::{self, Shape};
use super::*;
use crate::Rng;

const READ: Call = Call::Read { fresh: true };
const OK: Ending = Ending::Done(Answer::Written(None));
const ABSENT: Ending = Ending::Done(Answer::Found(Seen::Absent));

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn found(value: u64) -> Ending {
    Ending::Done(Answer::Found(Seen::Value(Value(value), None)))
}

fn write(value: u64, from: u64, ending: Ending) -> (Call, u64, u64, Ending) {
    (Call::Write(Value(value)), from, from + 1, ending)
}

fn read(from: u64, ending: Ending) -> (Call, u64, u64, Ending) {
    (READ, from, from + 1, ending)
}

fn made(operations: &[(Call, u64, u64, Ending)]) -> History {
    let mut history = History::new();
    for &(call, from, to, ending) in operations {
        let ticket = history.invoke(1, "k", call, at(from));
        history.ended(ticket, at(to), ending);
    }
    history
}

fn rule(operations: &[(Call, u64, u64, Ending)]) -> Option<String> {
    let judged = check(&made(operations), &Losses::new());
    judged.err().map(|violation| violation.rule)
}

fn rule_final(operations: &[(Call, u64, u64, Ending)], copies: &[Option<u64>]) -> Option<String> {
    let copies = copies.iter().map(|value| (RaftId(1), value.map(Value)));
    let all = [Copies {
        key: String::from("k"),
        copies: copies.collect(),
    }];
    let judged = check_final(&made(operations), &Losses::new(), &all, at(1_000));
    judged.err().map(|violation| violation.rule)
}

fn some(rule: &str) -> Option<String> {
    Some(rule.to_owned())
}

#[test]
fn an_acknowledged_write_is_read_by_everybody_after_it() {
    assert_eq!(rule(&[write(1, 0, OK), read(2, found(1))]), None);
    assert_eq!(
        rule(&[write(1, 0, OK), read(2, ABSENT)]),
        some("record-lost")
    );
    let two = [write(1, 0, OK), write(2, 2, OK)];
    assert_eq!(
        rule(&[two[0], two[1], read(4, found(1))]),
        some("record-stale")
    );
    let during = (READ, 1, 9, found(1));
    assert_eq!(rule(&[two[0], two[1], during]), None);
    let stale = (Call::Read { fresh: false }, 4, 5, found(1));
    assert_eq!(rule(&[two[0], two[1], stale]), None);
    let deleted = (Call::Delete, 2, 3, OK);
    assert_eq!(rule(&[two[0], deleted, read(4, ABSENT)]), None);
    assert_eq!(
        rule(&[two[0], deleted, read(4, found(1))]),
        some("record-stale")
    );
}

#[test]
fn what_was_read_once_is_not_lost_either() {
    let lost = write(2, 2, Ending::Unknown);
    let first = write(1, 0, OK);
    assert_eq!(
        rule(&[first, lost, read(4, found(1)), read(6, found(2))]),
        None
    );
    let back = [first, lost, read(4, found(2)), read(6, found(1))];
    assert_eq!(rule(&back), some("record-stale"));
    // Replaced after it was read, it does not come back.
    let revived = [lost, read(4, found(2)), write(3, 6, OK), read(8, found(2))];
    assert_eq!(rule(&revived), some("record-stale"));
    assert_eq!(rule(&[lost, write(3, 6, OK), read(8, found(2))]), None);
}

#[test]
fn nothing_is_read_that_nobody_wrote() {
    let stale = (Call::Read { fresh: false }, 4, 5, found(7));
    assert_eq!(rule(&[stale, write(7, 9, OK)]), some("value-from-nowhere"));
    let violation = check(
        &made(&[write(7, 0, Ending::Failed), read(2, found(7))]),
        &Losses::new(),
    );
    assert_eq!(
        violation.unwrap_err().to_string(),
        "value-from-nowhere at 0.003000 s: key `k` is 7, c1 read [0.002000 to 0.003000] -> 7: only \
         c1 write 7 [0.000000 to 0.001000] failed wrote that"
    );
}

#[test]
fn a_loss_excuses_what_came_before_it_only() {
    let judge = |operations: &[_], lost_at| {
        let mut losses = Losses::new();
        losses.add("k", at(lost_at));
        check(&made(operations), &losses).map_err(|violation| violation.rule)
    };
    let lost = [write(1, 0, OK), write(2, 2, OK), read(10, found(1))];
    assert_eq!(judge(&lost, 5), Ok(()));
    assert_eq!(
        judge(&lost, 20),
        Err(String::from("record-stale")),
        "not yet"
    );
    let after = [lost[0], write(3, 7, OK), read(10, found(1))];
    assert_eq!(judge(&after, 5), Err(String::from("record-stale")));
    assert_eq!(
        judge(&[read(10, found(9))], 5),
        Err(String::from("value-from-nowhere"))
    );
}

#[test]
fn what_stands_at_the_end_was_acknowledged_last() {
    let two = [write(1, 0, OK), write(2, 2, OK)];
    assert_eq!(rule_final(&two, &[Some(2), Some(2)]), None);
    assert_eq!(
        rule_final(&two, &[Some(2), Some(1)]),
        some("replicas-differ")
    );
    assert_eq!(rule_final(&two, &[Some(2), None]), some("replicas-differ"));
    assert_eq!(rule_final(&two, &[Some(1), Some(1)]), some("record-lost"));
    assert_eq!(rule_final(&two, &[]), some("record-lost"));
    assert_eq!(rule_final(&two, &[Some(5)]), some("value-from-nowhere"));
    assert_eq!(rule_final(&[], &[Some(5)]), some("value-from-nowhere"));
    let maybe = [two[0], write(2, 2, Ending::Unknown)];
    assert_eq!(rule_final(&maybe, &[Some(1)]), None);
    assert_eq!(rule_final(&maybe, &[Some(2)]), None);
}

/// What a correct object answers is accepted, and what is found wrong in a spoiled history has no
/// linear order either.
#[test]
fn what_is_wrong_here_is_never_linearizable() {
    let mut wrong = 0;
    for seed in 0..1_500 {
        let mut rng = Rng::new(seed).split("records");
        let shape = Shape {
            clients: 4,
            keys: 1,
            calls_per_client: 8,
            is_lossy: rng.chance(700),
            swaps: rng.chance(300),
            repeats: rng.chance(300),
        };
        let mut all = testing::run(&mut rng, shape);
        let history = testing::history(&all);
        assert_eq!(check(&history, &Losses::new()), Ok(()), "seed {seed}");
        testing::spoil(&mut rng, &mut all);
        let history = testing::history(&all);
        if let Err(violation) = check(&history, &Losses::new()) {
            wrong += 1;
            let judged = linear::check(&history, 100_000);
            assert_ne!(judged, Ok(Linear::Holds), "seed {seed}: {violation}");
        }
    }
    assert!(wrong > 150, "{wrong}");
}

//! The search against histories whose verdict is known: written by hand, made by a correct object,
//! and spoiled at random and judged by trying every order.

use std::time::Duration;

use super::super::history::Expected;
use super::super::testing::{self, Planned, Shape};
use super::*;
use crate::Rng;

const LIMIT: u64 = 100_000;

fn version(number: u64) -> Version {
    Version { epoch: 0, number }
}

fn read() -> Call {
    Call::Read { fresh: true }
}

fn found(value: u64) -> Ending {
    Ending::Done(Answer::Found(Seen::Value(Value(value), None)))
}

const ABSENT: Ending = Ending::Done(Answer::Found(Seen::Absent));
const OK: Ending = Ending::Done(Answer::Written(None));

/// Judges operations on one key, each with when it was called and when it ended.
fn judge(operations: &[(Call, u64, u64, Ending)]) -> Result<Linear, Violation> {
    let mut history = History::new();
    for &(call, from, to, outcome) in operations {
        let ticket = history.invoke(1, "k", call, Duration::from_millis(from));
        history.ended(ticket, Duration::from_millis(to), outcome);
    }
    check(&history, LIMIT)
}

fn holds(operations: &[(Call, u64, u64, Ending)]) {
    assert_eq!(judge(operations), Ok(Linear::Holds));
}

fn breaks(operations: &[(Call, u64, u64, Ending)], at: u64) -> String {
    let violation = judge(operations).unwrap_err();
    assert_eq!(violation.at, Duration::from_millis(at), "{violation}");
    violation.detail
}

#[test]
fn what_is_read_stood_there_between_call_and_answer() {
    let write = |value, from, to| (Call::Write(Value(value)), from, to, OK);
    holds(&[
        (read(), 0, 1, ABSENT),
        write(1, 2, 3),
        (read(), 4, 5, found(1)),
    ]);
    holds(&[
        write(1, 0, 9),
        (read(), 1, 2, found(1)),
        write(2, 3, 4),
        (read(), 5, 6, found(2)),
    ]);
    let stale = [
        write(1, 0, 1),
        write(2, 2, 3),
        (read(), 4, 5, found(1)),
        (read(), 6, 7, found(9)),
    ];
    assert_eq!(
        breaks(&stale, 5),
        "key `k`: no order explains the first 3 answers, the last of them c1 read [0.004000 to \
         0.005000] -> 1; before it may stand: 2; 0 others, then: c1 write 1 [0.000000 to 0.001000] \
         ok; c1 write 2 [0.002000 to 0.003000] ok"
    );
    // Readers that see two writes in different orders.
    let mut seen = vec![write(1, 0, 9), write(2, 0, 9)];
    seen.extend([1, 2].map(|value| (read(), 2 * value, 2 * value + 1, found(value))));
    holds(&seen);
    seen.push((read(), 6, 7, found(1)));
    breaks(&seen, 7);
}

#[test]
fn an_unknown_write_has_its_effect_at_any_later_time_or_never() {
    let lost = |from| (Call::Write(Value(5)), from, from + 1, Ending::Unknown);
    holds(&[
        lost(0),
        (read(), 5, 6, ABSENT),
        (read(), 7, 8, found(5)),
        (read(), 9, 10, found(5)),
    ]);
    holds(&[lost(0), (read(), 5, 6, ABSENT)]);
    breaks(
        &[lost(0), (read(), 5, 6, found(5)), (read(), 7, 8, ABSENT)],
        8,
    );
    breaks(&[(read(), 0, 1, found(5)), lost(2)], 1);
    let refused = (Call::Write(Value(5)), 0, 1, Ending::Failed);
    breaks(&[refused, (read(), 5, 6, found(5))], 6);
}

#[test]
fn compare_and_set_compares_what_stands_there() {
    let swap = |expected, value, from, outcome| {
        let value = Some(Value(value));
        (
            Call::CompareAndSet { expected, value },
            from,
            from + 1,
            outcome,
        )
    };
    let written = |number| Ending::Done(Answer::Written(Some(version(number))));
    let mismatch = |number| Ending::Done(Answer::Mismatch(Seen::Version(version(number))));
    let first = swap(Expected::Absent, 1, 0, written(4));
    holds(&[
        first,
        swap(Expected::Absent, 2, 2, mismatch(4)),
        swap(Expected::Version(version(4)), 3, 4, written(6)),
        swap(Expected::Value(Value(3)), 4, 6, written(9)),
    ]);
    // Both cannot have found nothing there.
    breaks(&[first, swap(Expected::Absent, 2, 2, written(5))], 3);
    // It was told that what it expected does not stand there, and that it does.
    breaks(
        &[
            first,
            swap(Expected::Version(version(4)), 2, 2, mismatch(4)),
        ],
        3,
    );
    // A version does not come back.
    breaks(
        &[first, swap(Expected::Version(version(4)), 2, 2, written(4))],
        3,
    );
    // An unknown write has one version, which the first who sees it learns.
    let lost = (Call::Write(Value(7)), 2, 3, Ending::Unknown);
    holds(&[
        first,
        lost,
        swap(Expected::Version(version(8)), 9, 4, written(9)),
    ]);
    breaks(
        &[
            first,
            lost,
            swap(Expected::Version(version(3)), 9, 4, written(9)),
        ],
        5,
    );
    let sees = |number, from| swap(Expected::Absent, 9, from, mismatch(number));
    breaks(&[first, lost, sees(8, 4), sees(9, 6)], 7);
    // One unknown compare-and-set on the same version excludes the other.
    let maybe = |value, from| swap(Expected::Version(version(4)), value, from, Ending::Unknown);
    holds(&[first, maybe(5, 2), maybe(6, 2), (read(), 8, 9, found(6))]);
    breaks(
        &[
            first,
            maybe(5, 2),
            maybe(6, 2),
            (read(), 8, 9, found(6)),
            (read(), 10, 11, found(5)),
        ],
        11,
    );
}

#[test]
fn a_read_that_may_be_stale_shows_what_stood_there_once() {
    let stale = Call::Read { fresh: false };
    let write = |value, from| (Call::Write(Value(value)), from, from + 1, OK);
    holds(&[
        write(1, 0),
        write(2, 2),
        (stale, 8, 9, found(1)),
        (stale, 8, 9, ABSENT),
    ]);
    breaks(&[write(1, 0), (stale, 8, 9, found(2)), write(2, 20)], 9);
}

#[test]
fn an_answer_that_does_not_fit_its_call_is_never_explained() {
    breaks(&[(read(), 0, 1, OK)], 1);
    breaks(&[(Call::Write(Value(1)), 0, 1, ABSENT)], 1);
}

#[test]
fn what_takes_too_long_is_undecided_and_not_passed() {
    let mut history = History::new();
    let at = Duration::from_millis;
    for client in 0..12 {
        let write = Call::Write(Value(u64::from(client) + 1));
        let ticket = history.invoke(client, "busy", write, at(1));
        history.ended(ticket, at(50 + u64::from(client)), OK);
    }
    let quiet = history.invoke(99, "quiet", read(), at(1));
    history.ended(quiet, at(2), ABSENT);
    assert_eq!(
        check(&history, 50),
        Ok(Linear::Undecided(vec![Arc::from("busy")]))
    );
    assert_eq!(check(&history, LIMIT), Ok(Linear::Holds));
}

#[test]
fn what_a_correct_object_answers_is_always_accepted() {
    let shapes = [
        (true, true, true),
        (true, true, false),
        (true, false, false),
        (false, true, true),
    ];
    for seed in 0..600 {
        let mut rng = Rng::new(seed).split("linear");
        let (is_lossy, swaps, repeats) = shapes[rng.index(shapes.len())];
        let shape = Shape {
            clients: u32::try_from(rng.within(1..=6)).unwrap(),
            keys: 2,
            calls_per_client: 25,
            is_lossy,
            swaps,
            repeats,
        };
        let history = testing::history(&testing::run(&mut rng, shape));
        assert_eq!(
            check(&history, LIMIT),
            Ok(Linear::Holds),
            "seed {seed}, {shape:?}"
        );
    }
}

#[test]
fn spoiled_histories_are_judged_as_by_trying_every_order() {
    let mut verdicts = [0_u32; 2];
    for seed in 0..4_000 {
        let mut rng = Rng::new(seed).split("spoiled");
        let shape = Shape {
            clients: 3,
            keys: 1,
            calls_per_client: 2,
            is_lossy: rng.chance(700),
            swaps: rng.chance(700),
            repeats: rng.chance(500),
        };
        let mut all = testing::run(&mut rng, shape);
        for _ in 0..rng.within(1..=2) {
            testing::spoil(&mut rng, &mut all);
        }
        let history = testing::history(&all);
        let expected = reference::has_order(history.operations());
        verdicts[usize::from(expected)] += 1;
        match check(&history, LIMIT) {
            Ok(Linear::Holds) => assert!(expected, "seed {seed}: {:#?}", history.lines("k0")),
            Err(violation) => {
                assert!(!expected, "seed {seed}: {violation}");
                shortest(&all, &violation);
            }
            undecided @ Ok(Linear::Undecided(_)) => panic!("seed {seed}: {undecided:?}"),
        }
    }
    assert!(verdicts.iter().all(|&count| count > 700), "{verdicts:?}");
}

/// Without the answer that `violation` ends with and everything after it, there is an order.
fn shortest(all: &[Planned], violation: &Violation) {
    let end = u64::try_from(violation.at.as_millis()).unwrap();
    let mut before: Vec<Planned> = all.iter().filter(|op| op.from <= end).cloned().collect();
    for op in &mut before {
        // That an operation failed is held against the search from its call on.
        if op.outcome != Ending::Failed && op.to.is_some_and(|to| to >= end) {
            (op.to, op.outcome) = (None, Ending::Unknown);
        }
    }
    let before = testing::history(&before);
    assert!(reference::has_order(before.operations()), "{violation}");
}

/// The definition itself: any set of the unknown operations, in any order that keeps to real time,
/// with any versions where nobody was told one.
mod reference {
    use super::*;

    type Stands = Option<(Value, Option<Version>)>;

    pub(super) fn has_order(operations: &[Operation]) -> bool {
        let is_unknown = |op: &&Operation| op.outcome == Ending::Unknown;
        let unknown: Vec<&Operation> = operations.iter().filter(is_unknown).collect();
        let known: Vec<&Operation> = operations
            .iter()
            .filter(|op| matches!(op.outcome, Ending::Done(_)))
            .collect();
        let mut versions: Vec<Option<Version>> = (0..=40).map(|n| Some(version(n))).collect();
        let text: String = operations.iter().map(|op| format!("{op} ")).collect();
        versions.retain(|v| v.is_some_and(|v| text.contains(&format!("{v} "))));
        versions.push(None);
        (0..1_u32 << unknown.len()).any(|chosen| {
            let taken = unknown
                .iter()
                .enumerate()
                .filter(|(at, _)| chosen >> at & 1 == 1);
            let all: Vec<&Operation> = known
                .iter()
                .copied()
                .chain(taken.map(|(_, op)| *op))
                .collect();
            order(&all, None, None, &versions)
        })
    }

    fn order(
        left: &[&Operation],
        stands: Stands,
        newest: Option<Version>,
        versions: &[Option<Version>],
    ) -> bool {
        left.is_empty()
            || (0..left.len()).any(|at| {
                let mut rest = left.to_vec();
                let op = rest.remove(at);
                let is_after =
                    |other: &&Operation| other.done().is_some_and(|(end, _)| end < op.invoked());
                if op.is_fresh() && rest.iter().any(is_after) {
                    return false;
                }
                match (op.call, op.outcome) {
                    (Call::Read { .. }, Ending::Done(Answer::Found(seen))) => {
                        shows(stands, seen) && order(&rest, stands, newest, versions)
                    }
                    (Call::Read { .. }, Ending::Unknown) => order(&rest, stands, newest, versions),
                    (
                        Call::CompareAndSet { expected, .. },
                        Ending::Done(Answer::Mismatch(seen)),
                    ) => {
                        shows(stands, seen)
                            && !meets(stands, expected)
                            && order(&rest, stands, newest, versions)
                    }
                    (Call::CompareAndSet { expected, value }, _) => {
                        meets(stands, expected) && write(&rest, op, value, newest, versions)
                    }
                    (Call::Write(value), _) => write(&rest, op, Some(value), newest, versions),
                    (Call::Delete, _) => write(&rest, op, None, newest, versions),
                    (Call::Read { .. }, _) => false,
                }
            })
    }

    fn write(
        rest: &[&Operation],
        op: &Operation,
        value: Option<Value>,
        newest: Option<Version>,
        versions: &[Option<Version>],
    ) -> bool {
        let told = match op.outcome {
            Ending::Done(Answer::Written(told)) => told,
            Ending::Done(_) => return false,
            Ending::Failed | Ending::Unknown => None,
        };
        let mut may = versions
            .iter()
            .copied()
            .filter(|v| told.is_none() || *v == told);
        may.any(|version| {
            let is_newer = version.is_none() || version > newest;
            is_newer
                && order(
                    rest,
                    value.map(|value| (value, version)),
                    version.max(newest),
                    versions,
                )
        })
    }

    fn shows(stands: Stands, seen: Seen) -> bool {
        match (stands, seen) {
            (_, Seen::Unsaid) | (None, Seen::Absent) => true,
            (Some((value, version)), Seen::Value(v, told)) => {
                value == v && (told.is_none() || told == version)
            }
            (Some((_, version)), Seen::Version(told)) => version == Some(told),
            _ => false,
        }
    }

    fn meets(stands: Stands, expected: Expected) -> bool {
        shows(stands, expected.as_seen())
    }
}

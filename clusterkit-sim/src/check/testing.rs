//! Histories of a correct object: operations that overlap at random, each carried out at one
//! instant between its call and its end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::history::{Answer, Call, Ending, Expected, History, Seen, Value, Version};
use crate::Rng;

/// What histories are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) clients: u32,
    pub(super) keys: usize,
    pub(super) calls_per_client: usize,
    /// Whether writes may say that they are unknown or failed, and reads may be stale.
    pub(super) is_lossy: bool,
    /// Whether there are compare-and-set operations, as for custom data.
    pub(super) swaps: bool,
    /// Whether some values are written more than once.
    pub(super) repeats: bool,
}

/// One operation before it is put into a history.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) client: u32,
    pub(super) key: usize,
    pub(super) call: Call,
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    pub(super) outcome: Ending,
    /// When it takes effect, if it does.
    effect: Option<u64>,
}

/// What stood under a key, and since which write.
type States = Vec<Option<(Value, Version)>>;

/// Returns the operations of a random run of a correct object.
pub(super) fn run(rng: &mut Rng, shape: Shape) -> Vec<Planned> {
    let mut all = Vec::new();
    for client in 0..shape.clients {
        let mut now = rng.within(1..=20);
        for _ in 0..shape.calls_per_client {
            let planned = plan(rng, shape, client, all.len() as u64, now);
            now = planned.to.unwrap_or(planned.from + 30) + rng.within(1..=10);
            all.push(planned);
        }
    }
    // In the order of their effects the object answers.
    let mut order: Vec<(u64, usize)> = Vec::new();
    order.extend(
        all.iter()
            .enumerate()
            .filter_map(|(at, op)| Some((op.effect?, at))),
    );
    order.sort_unstable();
    let mut states: BTreeMap<usize, States> = BTreeMap::new();
    for (index, (_, at)) in (1..).zip(order) {
        let op = &mut all[at];
        let states = states.entry(op.key).or_insert_with(|| vec![None]);
        answer(rng, op, states, index);
    }
    all
}

fn plan(rng: &mut Rng, shape: Shape, client: u32, number: u64, now: u64) -> Planned {
    let fresh = !shape.is_lossy || !rng.chance(150);
    let value = Value(if shape.repeats {
        rng.within(1..=3)
    } else {
        number + 1
    });
    let call = match rng.below(if shape.swaps { 10 } else { 7 }) {
        0..=2 => Call::Read { fresh },
        3..=5 => Call::Write(value),
        6 => Call::Delete,
        _ => Call::CompareAndSet {
            // What it expects is decided when the object answers, so that it often holds.
            expected: Expected::Absent,
            value: (!rng.chance(200)).then_some(value),
        },
    };
    let effect = now + rng.within(1..=15);
    let end = effect + rng.within(1..=15);
    let is_read = matches!(call, Call::Read { .. });
    let (outcome, effect, to) = match rng.below(10) {
        0 if shape.is_lossy => (Ending::Failed, None, Some(end)),
        1 if shape.is_lossy && !is_read => {
            let late = rng.chance(500).then(|| now + rng.within(1..=80));
            (Ending::Unknown, late, rng.chance(700).then_some(end))
        }
        _ => {
            let told = Ending::Done(Answer::Found(Seen::Unsaid));
            (told, Some(effect), Some(end))
        }
    };
    Planned {
        client,
        key: rng.index(shape.keys),
        call,
        from: now,
        to,
        outcome,
        effect,
    }
}

fn answer(rng: &mut Rng, op: &mut Planned, states: &mut States, index: u64) {
    let stands = states.last().copied().flatten();
    let version = Version {
        epoch: 0,
        number: index,
    };
    let shown = |rng: &mut Rng, state: Option<(Value, Version)>| match state {
        None => Seen::Absent,
        Some((value, version)) => Seen::Value(value, rng.chance(500).then_some(version)),
    };
    let written = Answer::Written(rng.chance(700).then_some(version));
    let found = match (&mut op.call, stands) {
        (Call::Read { fresh: true }, _) => Answer::Found(shown(rng, stands)),
        (Call::Read { fresh: false }, _) => {
            let old = states[rng.index(states.len())];
            Answer::Found(shown(rng, old))
        }
        (Call::Write(value), _) => {
            states.push(Some((*value, version)));
            written
        }
        (Call::Delete, _) => {
            states.push(None);
            written
        }
        (Call::CompareAndSet { expected, value }, stands) => {
            let meets = rng.chance(500);
            *expected = match stands {
                None if meets => Expected::Absent,
                Some((_, version)) if meets && rng.chance(500) => Expected::Version(version),
                Some((value, _)) if meets => Expected::Value(value),
                None => Expected::Version(version),
                Some((Value(value), _)) if rng.chance(300) => Expected::Value(Value(value + 77)),
                Some(_) => Expected::Absent,
            };
            if meets {
                states.push(value.map(|value| (value, version)));
                written
            } else {
                Answer::Mismatch(match stands {
                    _ if rng.chance(200) => Seen::Unsaid,
                    Some((_, version)) if rng.chance(700) => Seen::Version(version),
                    stands => shown(rng, stands),
                })
            }
        }
    };
    if let Ending::Done(answer) = &mut op.outcome {
        *answer = found;
    }
}

/// Changes one thing about one operation of `all`, so that it may be wrong.
pub(super) fn spoil(rng: &mut Rng, all: &mut [Planned]) {
    let other = all[rng.index(all.len())].clone();
    let at = rng.index(all.len());
    let op = &mut all[at];
    match rng.below(5) {
        0 => op.from = other.from,
        1 => op.to = other.to,
        2 => op.outcome = Ending::Failed,
        _ => {
            let answer = match &mut op.outcome {
                Ending::Done(answer) => answer,
                Ending::Failed | Ending::Unknown => return,
            };
            let version = Version {
                epoch: 0,
                number: rng.within(1..=6),
            };
            let seen = match rng.below(4) {
                0 => Seen::Absent,
                1 => Seen::Version(version),
                2 => Seen::Value(Value(rng.within(1..=6)), Some(version)),
                _ => Seen::Value(Value(rng.within(1..=6)), None),
            };
            *answer = match *answer {
                Answer::Found(_) => Answer::Found(seen),
                Answer::Mismatch(_) if rng.chance(500) => Answer::Mismatch(seen),
                Answer::Mismatch(_) => Answer::Written(Some(version)),
                Answer::Written(_) if matches!(op.call, Call::CompareAndSet { .. }) => {
                    Answer::Mismatch(seen)
                }
                Answer::Written(_) => Answer::Written(Some(version)),
            };
        }
    }
    op.to = op.to.map(|to| to.max(op.from + 1));
}

/// Puts `all` into a history, in the order of time.
pub(super) fn history(all: &[Planned]) -> History {
    let mut steps: Vec<(u64, bool, usize)> = Vec::new();
    for (number, op) in all.iter().enumerate() {
        steps.push((op.from, false, number));
        steps.extend(op.to.map(|to| (to, true, number)));
    }
    steps.sort_unstable();
    let mut history = History::new();
    let mut tickets = BTreeMap::new();
    for (at, is_end, number) in steps {
        let (op, at) = (&all[number], Duration::from_millis(at));
        if is_end {
            history.ended(tickets[&number], at, op.outcome);
        } else {
            let key = format!("k{}", op.key);
            tickets.insert(number, history.invoke(op.client, &key, op.call, at));
        }
    }
    history
}

//! Linearizability: is there one order of all operations on a key that every answer agrees with?
//!
//! The search is the one of Wing and Gong with Lowe's memoization, in its forward form: the history
//! is walked once with the set of all situations that its beginning may have led to, and an
//! operation is given its place no earlier than when some answer needs it. So the beginning after
//! which no situation is left is the shortest one that has no order. Keys are judged one by one. An
//! operation of unknown outcome may have its effect at any time after its call, or never; a read
//! that is not promised to be fresh shows some state from before its end. What the sequential
//! object does is in `register`.

mod bits;
mod register;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use self::bits::Bits;
use self::register::Register;
use super::history::{Answer, Call, Ending, History, Moment, Operation, Seen, Value, Version};
use crate::Violation;

/// How many operations and possible states a violation names.
const NAMED: usize = 12;

/// What a history came to that breaks nothing as far as anybody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "it was decided or it was not")]
#[must_use = "an undecided history has not passed"]
pub enum Linear {
    /// Every key is linearizable.
    Holds,
    /// These keys took more steps than allowed; all others are linearizable.
    Undecided(Vec<Arc<str>>),
}

/// Judges `history`, whose keys are absent before it begins, with at most `limit` steps for each
/// key. A step looks at one situation.
///
/// # Errors
/// `linearizable`: the key, the operation that ended the shortest beginning without an order, what
/// may have stood there before it, and the latest operations of that beginning.
pub fn check(history: &History, limit: u64) -> Result<Linear, Violation> {
    let mut undecided = Vec::new();
    for (key, operations) in history.keys() {
        match Search::new(&operations).run(limit) {
            Ok(()) => {}
            Err(Stopped::Limit) => undecided.push(Arc::clone(key)),
            Err(Stopped::Impossible(found)) => return Err(found.into_violation(key)),
        }
    }
    if undecided.is_empty() {
        return Ok(Linear::Holds);
    }
    Ok(Linear::Undecided(undecided))
}

enum Stopped<'a> {
    Limit,
    Impossible(Impossible<'a>),
}

/// A beginning of a history that no order explains.
struct Impossible<'a> {
    last: &'a Operation,
    /// What may have stood there before the last one.
    before: BTreeSet<Register>,
    /// The others that matter: those that ended, latest last, then those still open.
    others: Vec<&'a Operation>,
    /// How many operations ended in it.
    ended: usize,
}

impl Impossible<'_> {
    fn into_violation(self, key: &str) -> Violation {
        let (last, ended) = (self.last, self.ended);
        let mut text = format!(
            "key `{key}`: no order explains the first {ended} answers, the last of them {last}; \
             before it may stand:"
        );
        let mut list = |all: &mut dyn Iterator<Item = String>, count: usize, between: &str| {
            for (at, one) in all.take(NAMED).enumerate() {
                // Writing into a string does not fail.
                let _ = write!(text, "{} {one}", if at == 0 { "" } else { between });
            }
            if count > NAMED {
                let _ = write!(text, "{between} and {} more", count - NAMED);
            }
        };
        list(
            &mut self.before.iter().map(Register::to_string),
            self.before.len(),
            ",",
        );
        // The latest are the ones that matter.
        let skipped = self.others.len().saturating_sub(NAMED);
        let latest: Vec<String> = self
            .others
            .iter()
            .skip(skipped)
            .map(ToString::to_string)
            .collect();
        if !latest.is_empty() {
            let _ = write!(text, "; {skipped} others, then: {}", latest.join("; "));
        }
        Violation::new("linearizable", text, last.returned_at.unwrap_or_default())
    }
}

/// How an operation takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It changes what stands there, and did.
    Did,
    /// It tells what stood there.
    Told,
    /// It changes what stands there, if it took effect at all.
    May,
}

/// An operation with its place in the sets of its kind.
struct Part<'a> {
    operation: &'a Operation,
    kind: Kind,
    slot: usize,
}

#[derive(Clone, Copy)]
enum Step {
    Call,
    Return,
}

/// One way the history may have gone so far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Situation {
    register: Register,
    /// The open operations of each kind that have had their place.
    did: Bits,
    told: Bits,
    may: Bits,
}

impl Situation {
    const fn set(&self, kind: Kind) -> &Bits {
        match kind {
            Kind::Did => &self.did,
            Kind::Told => &self.told,
            Kind::May => &self.may,
        }
    }

    const fn set_mut(&mut self, kind: Kind) -> &mut Bits {
        match kind {
            Kind::Did => &mut self.did,
            Kind::Told => &mut self.told,
            Kind::May => &mut self.may,
        }
    }

    fn has(&self, part: &Part<'_>) -> bool {
        self.set(part.kind).has(part.slot)
    }

    /// Returns the situation after `part` had its place, if it can.
    fn after(&self, part: &Part<'_>) -> Option<Self> {
        let register = self.register.after(part.operation)?;
        let mut next = self.clone();
        next.register = register;
        next.set_mut(part.kind).set(part.slot);
        Some(next)
    }

    /// Gives their place to all open operations that only tell what stands here anyway: it cannot
    /// be a worse one than any later.
    fn settle(&mut self, parts: &[Part<'_>], open: &[usize]) {
        for part in open.iter().map(|&number| &parts[number]) {
            let is_told = part.kind == Kind::Told && !self.told.has(part.slot);
            if is_told && self.register.after(part.operation) == Some(self.register) {
                self.told.set(part.slot);
            }
        }
    }
}

/// Situations, without those that are no better than another one: with the same value and the same
/// writes behind them, whoever has used fewer of the unknown and told more can do all the other can.
#[derive(Default)]
struct Situations(BTreeMap<(Register, Bits), Vec<(Bits, Bits)>>);

impl Situations {
    /// Adds `situation`; false if it is no better than one that was here before.
    fn add(&mut self, situation: &Situation) -> bool {
        let key = (situation.register, situation.did.clone());
        let others = self.0.entry(key).or_default();
        let (may, told) = (&situation.may, &situation.told);
        if others
            .iter()
            .any(|(m, t)| m.is_within(may) && told.is_within(t))
        {
            return false;
        }
        others.retain(|(m, t)| !(may.is_within(m) && t.is_within(told)));
        others.push((may.clone(), told.clone()));
        true
    }

    fn into_all(self) -> impl Iterator<Item = Situation> {
        self.0.into_iter().flat_map(|((register, did), others)| {
            others.into_iter().map(move |(may, told)| Situation {
                register,
                did: did.clone(),
                told,
                may,
            })
        })
    }
}

struct Search<'a> {
    parts: Vec<Part<'a>>,
    /// What happened, in order: a call or a return, and whose.
    steps: Vec<(Step, usize)>,
    first: Situation,
}

impl<'a> Search<'a> {
    fn new(operations: &[&'a Operation]) -> Self {
        let needless = Needless::new(operations);
        let mut parts = Vec::new();
        let mut steps: Vec<(Option<Moment>, Step, usize)> = Vec::new();
        for &operation in operations {
            let kind = match (operation.effect(), operation.seen(), operation.outcome) {
                (_, _, Ending::Failed) => continue,
                (Some(_), _, Ending::Unknown) if needless.is_needless(operation) => continue,
                (Some(_), _, Ending::Unknown) => Kind::May,
                (None, _, Ending::Unknown) => continue,
                (Some(_), _, Ending::Done(_)) => Kind::Did,
                // An answer that does not fit its call is told by nothing that may stand there.
                (None, _, Ending::Done(_)) => Kind::Told,
            };
            let number = parts.len();
            let called = operation.is_fresh().then(|| operation.invoked());
            steps.push((called, Step::Call, number));
            if let Some((returned, _)) = operation.done() {
                steps.push((Some(returned), Step::Return, number));
            }
            parts.push(Part {
                operation,
                kind,
                slot: 0,
            });
        }
        steps.sort_by_key(|(moment, _, number)| (*moment, *number));
        let steps: Vec<(Step, usize)> = steps.into_iter().map(|(_, step, at)| (step, at)).collect();
        let mut most = |kind| {
            let of_kind = |(_, number): &&(Step, usize)| parts[*number].kind == kind;
            let of_kind: Vec<(Step, usize)> = steps.iter().filter(of_kind).copied().collect();
            seat(&mut parts, &of_kind)
        };
        let first = Situation {
            register: Register::default(),
            did: Bits::new(most(Kind::Did)),
            told: Bits::new(most(Kind::Told)),
            may: Bits::new(most(Kind::May)),
        };
        Self {
            parts,
            steps,
            first,
        }
    }

    fn run(&self, limit: u64) -> Result<(), Stopped<'a>> {
        let mut left = limit;
        let mut open: Vec<usize> = Vec::new();
        let mut ended: Vec<usize> = Vec::new();
        let mut situations = vec![self.first.clone()];
        for &(step, number) in &self.steps {
            match step {
                Step::Call => {
                    open.push(number);
                    if self.parts[number].kind == Kind::Told {
                        for situation in &mut situations {
                            situation.settle(&self.parts, &[number]);
                        }
                    }
                }
                Step::Return => {
                    let next = self.give_place(number, &situations, &open, &mut left)?;
                    open.retain(|&other| other != number);
                    if next.is_empty() {
                        return Err(Stopped::Impossible(self.impossible(
                            number,
                            &situations,
                            &ended,
                            &open,
                        )));
                    }
                    ended.push(number);
                    situations = next;
                }
            }
        }
        Ok(())
    }

    /// Returns the situations in which `number`, which now ends, has had its place. Its slot is
    /// free in them.
    fn give_place(
        &self,
        number: usize,
        situations: &[Situation],
        open: &[usize],
        left: &mut u64,
    ) -> Result<Vec<Situation>, Stopped<'a>> {
        let (part, mut seen, mut done) = (
            &self.parts[number],
            Situations::default(),
            Situations::default(),
        );
        let mut queue = VecDeque::new();
        for situation in situations {
            if seen.add(situation) {
                queue.push_back(situation.clone());
            }
        }
        while let Some(mut situation) = queue.pop_front() {
            *left = left.checked_sub(1).ok_or(Stopped::Limit)?;
            if situation.has(part) {
                situation.set_mut(part.kind).clear(part.slot);
                done.add(&situation);
                continue;
            }
            for other in open.iter().map(|&other| &self.parts[other]) {
                if situation.has(other) {
                    continue;
                }
                let Some(mut next) = situation.after(other) else {
                    continue;
                };
                next.settle(&self.parts, open);
                if seen.add(&next) {
                    queue.push_back(next);
                }
            }
        }
        Ok(done.into_all().collect())
    }

    fn impossible(
        &self,
        last: usize,
        before: &[Situation],
        ended: &[usize],
        open: &[usize],
    ) -> Impossible<'a> {
        let others = ended.iter().chain(open);
        Impossible {
            last: self.parts[last].operation,
            before: before.iter().map(|situation| situation.register).collect(),
            others: others.map(|&other| self.parts[other].operation).collect(),
            ended: ended.len() + 1,
        }
    }
}

/// Gives the operations in `steps` slots that no two open ones share; returns how many it took.
fn seat(parts: &mut [Part<'_>], steps: &[(Step, usize)]) -> usize {
    let (mut free, mut slots) = (BTreeSet::new(), 0);
    for &(step, number) in steps {
        match step {
            Step::Call => {
                parts[number].slot = free.pop_first().unwrap_or(slots);
                slots = slots.max(parts[number].slot + 1);
            }
            Step::Return => {
                free.insert(parts[number].slot);
            }
        }
    }
    slots
}

/// Which operations of unknown outcome need not be looked at: those that write what nobody ever saw
/// or asked for. Whatever has an order with them has one without.
struct Needless {
    values: BTreeSet<Value>,
    /// Whether something was seen that does not say which value it was.
    is_blurred: bool,
}

impl Needless {
    fn new(operations: &[&Operation]) -> Self {
        let told = || operations.iter().filter_map(|operation| operation.seen());
        let wanted = operations.iter().filter_map(|operation| {
            let is_met = operation.effect().is_some();
            match operation.call {
                Call::CompareAndSet { expected, .. } if is_met => Some(expected.as_seen()),
                _ => None,
            }
        });
        let seen: Vec<Seen> = told().chain(wanted).collect();
        let written = operations
            .iter()
            .filter_map(|operation| match operation.outcome {
                Ending::Done(Answer::Written(version)) => version,
                _ => None,
            });
        let read = seen.iter().filter_map(|seen| match seen {
            Seen::Value(_, version) => *version,
            _ => None,
        });
        let known: BTreeSet<Version> = written.chain(read).collect();
        Self {
            values: seen.iter().filter_map(|seen| seen.value()).collect(),
            is_blurred: seen.iter().any(|seen| match seen {
                Seen::Version(version) => !known.contains(version),
                Seen::Unsaid => true,
                Seen::Absent | Seen::Value(..) => false,
            }),
        }
    }

    fn is_needless(&self, operation: &Operation) -> bool {
        let value = operation.effect().flatten();
        !self.is_blurred && value.is_some_and(|value| !self.values.contains(&value))
    }
}

//! What clients asked and what they were told, for custom data and for the key-value service alike.
//!
//! It is recorded as it happens and judged afterwards, in `linear` and `records`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::id::LogIndex;
use xxhash_rust::xxh3::xxh3_64;

/// A value as the checkers know it. A workload whose writes all have values of their own is judged
/// most sharply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

impl Value {
    /// Returns what stands for `bytes`: their number if they are one in decimal digits, else their
    /// hash.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok();
        let number = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        Self(
            number
                .and_then(|number| number.parse().ok())
                .unwrap_or_else(|| xxh3_64(bytes)),
        )
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The place of a write among the writes of its key: each one has a greater version than those
/// before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs, reason = "both services have just these")]
pub struct Version {
    /// In the key-value service the epoch in front of the dot; zero for custom data.
    pub epoch: u64,
    /// In the key-value service the number behind the dot; the log index for custom data.
    pub number: u64,
}

impl From<LogIndex> for Version {
    fn from(index: LogIndex) -> Self {
        Self {
            epoch: 0,
            number: index.0,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.epoch, self.number)
    }
}

/// What an operation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the operations on one key")]
pub enum Call {
    /// Reads the key.
    Read {
        /// Whether the answer is promised to be no older than the call: custom data behind a read
        /// barrier, the key-value service while the node that answers is the primary. Any other
        /// answer must have been true at some time before it was given.
        fresh: bool,
    },
    /// Writes whatever stands there.
    Write(Value),
    /// Deletes whatever stands there.
    Delete,
    /// Writes, or deletes where `value` is none, if what stands there is `expected`.
    CompareAndSet {
        /// What must stand there.
        expected: Expected,
        /// What is to stand there.
        value: Option<Value>,
    },
}

/// The condition of [`Call::CompareAndSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the conditions of compare-and-set")]
pub enum Expected {
    /// Nothing.
    Absent,
    /// A value of this version.
    Version(Version),
    /// This value.
    Value(Value),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "it did, it did not, or nobody knows"
)]
pub enum Ending {
    /// It was carried out between the call and the return.
    Done(Answer),
    /// It was surely not applied, and never will be.
    Failed,
    /// It may be applied at any time after the call, or never.
    Unknown,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the answers to `Call`")]
pub enum Answer {
    /// A read found this.
    Found(Seen),
    /// It is written or deleted, under this version where the answer says so.
    Written(Option<Version>),
    /// A compare-and-set changed nothing, because this stands there.
    Mismatch(Seen),
}

/// What an answer says of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "what the answers of both services say"
)]
pub enum Seen {
    /// Nothing stands there.
    Absent,
    /// Some value of this version.
    Version(Version),
    /// This value, under this version where the answer says so.
    Value(Value, Option<Version>),
    /// The answer does not say.
    Unsaid,
}

impl Seen {
    /// Returns the value named, if one is.
    #[must_use]
    pub const fn value(self) -> Option<Value> {
        match self {
            Self::Value(value, _) => Some(value),
            Self::Absent | Self::Version(_) | Self::Unsaid => None,
        }
    }
}

/// A time, and the place of what happened then among everything recorded.
pub(super) type Moment = (Duration, u64);

/// One call of one client and its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// Who called.
    pub client: u32,
    /// About which key.
    pub key: Arc<str>,
    /// What was asked.
    pub call: Call,
    /// When.
    pub invoked_at: Duration,
    /// When it ended, none while it has not.
    pub returned_at: Option<Duration>,
    /// How; unknown while it has not ended.
    pub outcome: Ending,
    invoked: u64,
    returned: u64,
}

impl Operation {
    pub(super) const fn invoked(&self) -> Moment {
        (self.invoked_at, self.invoked)
    }

    /// Returns when it was known to be carried out.
    pub(super) fn done(&self) -> Option<(Moment, Answer)> {
        match (self.returned_at, self.outcome) {
            (Some(at), Ending::Done(answer)) => Some(((at, self.returned), answer)),
            _ => None,
        }
    }

    /// Returns what it is to leave behind: a value, or none for a deletion. Nothing for a read.
    pub(super) const fn wanted(&self) -> Option<Option<Value>> {
        match self.call {
            Call::Read { .. } => None,
            Call::Write(value) => Some(Some(value)),
            Call::Delete => Some(None),
            Call::CompareAndSet { value, .. } => Some(value),
        }
    }

    /// Returns what it may leave behind. Nothing for an operation that surely changes nothing.
    pub(super) fn effect(&self) -> Option<Option<Value>> {
        match self.outcome {
            Ending::Done(Answer::Written(_)) | Ending::Unknown => self.wanted(),
            Ending::Done(_) | Ending::Failed => None,
        }
    }

    /// Returns what it was told that stands there.
    pub(super) fn seen(&self) -> Option<Seen> {
        match self.outcome {
            Ending::Done(Answer::Found(seen) | Answer::Mismatch(seen)) => Some(seen),
            _ => None,
        }
    }

    /// Tells whether what it was told must be no older than its call.
    pub(super) const fn is_fresh(&self) -> bool {
        !matches!(self.call, Call::Read { fresh: false })
    }
}

/// Names an operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(usize);

/// The operations of all clients on all keys.
///
/// # Ordering
/// Times are true virtual time; what happens at the same time happened in the order of recording.
/// In a world that runs its hosts in turn the least delay of a message must not be shorter than a
/// turn, or an effect would be recorded before its cause.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    by_key: BTreeMap<Arc<str>, Vec<usize>>,
    recorded: u64,
}

impl History {
    /// Returns a history of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `client` calls. Until it is [`Self::ended`], its outcome is unknown.
    pub fn invoke(&mut self, client: u32, key: &str, call: Call, at: Duration) -> Ticket {
        let key = match self.by_key.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        let number = self.operations.len();
        self.by_key
            .entry(Arc::clone(&key))
            .or_default()
            .push(number);
        self.recorded += 1;
        self.operations.push(Operation {
            client,
            key,
            call,
            invoked_at: at,
            returned_at: None,
            outcome: Ending::Unknown,
            invoked: self.recorded,
            returned: 0,
        });
        Ticket(number)
    }

    /// Records how the operation of `ticket` ended. Only the first end counts.
    pub fn ended(&mut self, ticket: Ticket, at: Duration, outcome: Ending) {
        self.recorded += 1;
        let Some(operation) = self.operations.get_mut(ticket.0) else {
            return;
        };
        if operation.returned_at.is_none() {
            operation.returned_at = Some(at);
            operation.outcome = outcome;
            operation.returned = self.recorded;
        }
    }

    /// Returns the operations, in the order of their recording.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns the operations that have not ended.
    pub fn open(&self) -> impl Iterator<Item = &Operation> {
        let all = self.operations.iter();
        all.filter(|operation| operation.returned_at.is_none())
    }

    /// Returns the operations of `key` as readable lines, in the order of their recording.
    #[must_use]
    pub fn lines(&self, key: &str) -> Vec<String> {
        let of_key = self.by_key.get(key).into_iter().flatten();
        of_key
            .map(|&number| self.operations[number].to_string())
            .collect()
    }

    /// Returns the keys, each with its operations in the order of their recording.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Arc<str>, Vec<&Operation>)> {
        self.by_key.iter().map(|(key, numbers)| {
            let of_key = numbers.iter().map(|&number| &self.operations[number]);
            (key, of_key.collect())
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{} {} ", self.client, self.call)?;
        match self.returned_at {
            Some(at) => {
                let (from, to) = (self.invoked_at.as_secs_f64(), at.as_secs_f64());
                write!(f, "[{from:.6} to {to:.6}] {}", self.outcome)
            }
            None => write!(f, "[{:.6} on] open", self.invoked_at.as_secs_f64()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { fresh: true } => f.write_str("read"),
            Self::Read { fresh: false } => f.write_str("stale-read"),
            Self::Write(value) => write!(f, "write {value}"),
            Self::Delete => f.write_str("delete"),
            Self::CompareAndSet { expected, value } => {
                write!(f, "if {expected} ")?;
                match value {
                    Some(value) => write!(f, "write {value}"),
                    None => f.write_str("delete"),
                }
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Version(version) => fmt::Display::fmt(version, f),
            Self::Value(value) => fmt::Display::fmt(value, f),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(Answer::Found(seen)) => fmt::Display::fmt(seen, f),
            Self::Done(Answer::Written(None)) => f.write_str("ok"),
            Self::Done(Answer::Written(Some(version))) => write!(f, "ok {version}"),
            Self::Done(Answer::Mismatch(seen)) => write!(f, "mismatch {seen}"),
            Self::Failed => f.write_str("failed"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("-> absent"),
            Self::Version(version) => write!(f, "-> {version}"),
            Self::Value(value, None) => write!(f, "-> {value}"),
            Self::Value(value, Some(version)) => write!(f, "-> {value} {version}"),
            Self::Unsaid => f.write_str("-> unsaid"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_read_as_lines() {
        let at = Duration::from_millis;
        let version = Version::from(LogIndex(9));
        let mut history = History::new();
        let write = history.invoke(1, "a", Call::Write(Value(5)), at(1));
        let other = history.invoke(1, "b", Call::Delete, at(1));
        let swap = Call::CompareAndSet {
            expected: Expected::Version(version),
            value: None,
        };
        let swap = history.invoke(2, "a", swap, at(2));
        history.invoke(3, "a", Call::Read { fresh: false }, at(2));
        let written = Ending::Done(Answer::Written(Some(version)));
        history.ended(write, at(3), written);
        history.ended(write, at(4), Ending::Failed);
        let seen = Seen::Value(Value(6), None);
        history.ended(swap, at(4), Ending::Done(Answer::Mismatch(seen)));
        history.ended(other, at(4), Ending::Unknown);
        let lines = [
            "c1 write 5 [0.001000 to 0.003000] ok v0.9",
            "c2 if v0.9 delete [0.002000 to 0.004000] mismatch -> 6",
            "c3 stale-read [0.002000 on] open",
        ];
        assert_eq!(history.lines("a"), lines);
        assert_eq!(history.open().count(), 1);
    }

    #[test]
    fn bytes_that_are_a_number_stand_for_it() {
        assert_eq!(Value::of(b"17"), Value(17));
        assert_ne!(Value::of(b"+17"), Value(17));
        assert_eq!(Value::of(b"x"), Value::of(b"x"));
        assert_ne!(Value::of(b""), Value::of(b"y"));
    }
}

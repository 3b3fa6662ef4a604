//! The sequential object that a linearizable key behaves as: one value with its version.
//!
//! The version of a write whose answer did not say it is open until somebody sees it; then it is
//! that one, and greater than every version before.

use std::fmt;

use crate::check::history::{Answer, Call, Ending, Expected, Operation, Seen, Value, Version};

/// What stands under a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Register {
    value: Option<Value>,
    /// The value's version if `exact`, else the newest version known before it.
    version: Version,
    exact: bool,
}

impl Register {
    /// Returns what stands after `operation` was carried out here, none if it was not as it was
    /// answered, or, where the outcome is unknown, could not be.
    pub(super) fn after(self, operation: &Operation) -> Option<Self> {
        let (expected, value) = match (operation.call, operation.outcome) {
            (Call::Read { .. }, Ending::Done(Answer::Found(seen))) => return self.shows(seen),
            (Call::CompareAndSet { expected, .. }, Ending::Done(Answer::Mismatch(seen))) => {
                return self.shows(seen).filter(|seen| !seen.surely_is(expected));
            }
            (Call::Write(value), _) => (None, Some(value)),
            (Call::Delete, _) => (None, None),
            (Call::CompareAndSet { expected, value }, _) => (Some(expected), value),
            (Call::Read { .. }, _) => return None,
        };
        let version = match operation.outcome {
            Ending::Done(Answer::Written(version)) => version,
            Ending::Unknown => None,
            Ending::Done(_) | Ending::Failed => return None,
        };
        let found = match expected {
            None => self,
            Some(expected) => self.shows(expected.as_seen())?,
        };
        let is_newer = version.is_none_or(|version| version > found.version);
        is_newer.then_some(Self {
            value,
            version: version.unwrap_or(found.version),
            exact: value.is_some() && version.is_some(),
        })
    }

    /// Returns what is known to stand there once somebody was told `seen`.
    fn shows(self, seen: Seen) -> Option<Self> {
        let (value, version) = match seen {
            Seen::Unsaid => return Some(self),
            Seen::Absent => return self.value.is_none().then_some(self),
            Seen::Version(version) => (None, Some(version)),
            Seen::Value(value, version) => (Some(value), version),
        };
        let stands = self.value?;
        if value.is_some_and(|value| value != stands) {
            return None;
        }
        match version {
            None => Some(self),
            Some(version) if self.exact => (version == self.version).then_some(self),
            Some(version) => (version > self.version).then_some(Self {
                version,
                exact: true,
                ..self
            }),
        }
    }

    /// Tells whether the condition holds here whatever is still open.
    fn surely_is(self, expected: Expected) -> bool {
        match expected {
            Expected::Absent => self.value.is_none(),
            Expected::Value(value) => self.value == Some(value),
            Expected::Version(version) => self.exact && self.version == version,
        }
    }
}

impl Expected {
    pub(super) const fn as_seen(self) -> Seen {
        match self {
            Self::Absent => Seen::Absent,
            Self::Version(version) => Seen::Version(version),
            Self::Value(value) => Seen::Value(value, None),
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            None => f.write_str("absent"),
            Some(value) if self.exact => write!(f, "{value} {}", self.version),
            Some(value) => fmt::Display::fmt(&value, f),
        }
    }
}

//! What is stored: a value or its deletion, under a version that decides between two of them.
//!
//! Who assigns versions is in `replication`; who compares them is the store.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use clusterkit_core::id::Epoch;

/// The place of a write in the order of its partition: a later primary beats an earlier one, and
/// one primary counts its writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version {
    /// The partition's epoch under which the primary accepted the write.
    pub(crate) epoch: Epoch,
    /// The number of the write within that epoch, from 1.
    pub(crate) seq: u64,
}

impl Version {
    /// Returns the version of the next write that a primary of `epoch` accepts after this one.
    pub(crate) fn next(self, epoch: Epoch) -> Self {
        if epoch > self.epoch {
            return Self { epoch, seq: 1 };
        }
        Self {
            epoch: self.epoch,
            seq: self.seq + 1,
        }
    }

    /// Returns the version before every write of `epoch` and after every write of earlier ones.
    pub(crate) const fn start_of(epoch: Epoch) -> Self {
        Self { epoch, seq: 0 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, seq) = text.split_once('.').ok_or(())?;
        Ok(Self {
            epoch: Epoch(epoch.parse().map_err(|_| ())?),
            seq: seq.parse().map_err(|_| ())?,
        })
    }
}

/// A value, or the fact that there is none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) version: Version,
    /// None marks a deletion: it is kept, so that an older value cannot come back.
    pub(crate) value: Option<Bytes>,
}

/// A record with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) record: Record,
}

impl Entry {
    /// Returns how many bytes key and value have.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.record.value.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_primary_beats_every_version_of_an_earlier_one() {
        let old = Version {
            epoch: Epoch(3),
            seq: 900,
        };
        assert_eq!(old.next(Epoch(3)).to_string(), "3.901");
        assert_eq!(old.next(Epoch(7)).to_string(), "7.1");
        assert!(old.next(Epoch(7)) > old.next(Epoch(3)));
        assert!(Version::start_of(Epoch(4)) > old);
        assert!(Version::start_of(Epoch(4)) < old.next(Epoch(4)));
        assert_eq!("7.1".parse(), Ok(old.next(Epoch(7))));
        assert!("7".parse::<Version>().is_err());
    }
}

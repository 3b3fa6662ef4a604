//! The binary bodies that nodes of this service send to each other: a version byte, fixed
//! big-endian integers, then entries with their lengths in front.
//!
//! What the messages mean is in `replication` and `migration`; over which path they go in `peers`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clusterkit_core::id::{Epoch, PartitionId};

use super::record::{Entry, Record, Version};

const FORMAT: u8 = 1;
const VALUE: u8 = 1;
const DELETED: u8 = 0;

/// The body is not what this build writes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of another node is not understood: {0}")]
pub(crate) struct WireError(&'static str);

/// What the primary of a partition asks of the others: to store entries, or to hand over what may
/// not be everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) partition: PartitionId,
    /// The partition's epoch under which the sender is primary.
    pub(crate) epoch: Epoch,
    /// Every write up to this version is on every node that counts.
    pub(crate) committed: Version,
    pub(crate) entries: Vec<Entry>,
}

/// What a member knows when a new primary asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// The highest version it has seen.
    pub(crate) seen: Version,
    /// What it holds and does not know to be everywhere.
    pub(crate) unsettled: Vec<Entry>,
}

/// One page of a partition on its way to a new member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The partition's epoch at the source.
    pub(crate) epoch: Epoch,
    /// Versions up to this one that the source does not list do not exist.
    pub(crate) barrier: Version,
    /// Whether there are keys after the last one.
    pub(crate) more: bool,
    pub(crate) entries: Vec<Entry>,
}

impl Order {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = begin(&self.entries);
        out.put_u32(self.partition.0);
        out.put_u64(self.epoch.0);
        put_version(&mut out, self.committed);
        put_entries(&mut out, &self.entries);
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let input = &mut body;
        check_format(input)?;
        let order = Self {
            partition: PartitionId(input.try_get_u32().map_err(short)?),
            epoch: Epoch(input.try_get_u64().map_err(short)?),
            committed: get_version(input)?,
            entries: get_entries(input)?,
        };
        finish(input, order)
    }
}

impl Holdings {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = begin(&self.unsettled);
        put_version(&mut out, self.seen);
        put_entries(&mut out, &self.unsettled);
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let input = &mut body;
        check_format(input)?;
        let holdings = Self {
            seen: get_version(input)?,
            unsettled: get_entries(input)?,
        };
        finish(input, holdings)
    }
}

impl Page {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = begin(&self.entries);
        out.put_u64(self.epoch.0);
        put_version(&mut out, self.barrier);
        out.put_u8(u8::from(self.more));
        put_entries(&mut out, &self.entries);
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let input = &mut body;
        check_format(input)?;
        let page = Self {
            epoch: Epoch(input.try_get_u64().map_err(short)?),
            barrier: get_version(input)?,
            more: input.try_get_u8().map_err(short)? == 1,
            entries: get_entries(input)?,
        };
        finish(input, page)
    }
}

fn begin(entries: &[Entry]) -> BytesMut {
    let content: usize = entries.iter().map(|entry| entry.size() + 25).sum();
    let mut out = BytesMut::with_capacity(content + 64);
    out.put_u8(FORMAT);
    out
}

fn check_format(input: &mut Bytes) -> Result<(), WireError> {
    match input.try_get_u8().map_err(short)? {
        FORMAT => Ok(()),
        _ => Err(WireError("another format version")),
    }
}

fn finish<T>(rest: &Bytes, message: T) -> Result<T, WireError> {
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(WireError("bytes left over"))
    }
}

fn put_version(out: &mut BytesMut, version: Version) {
    out.put_u64(version.epoch.0);
    out.put_u64(version.seq);
}

fn get_version(input: &mut Bytes) -> Result<Version, WireError> {
    Ok(Version {
        epoch: Epoch(input.try_get_u64().map_err(short)?),
        seq: input.try_get_u64().map_err(short)?,
    })
}

fn put_entries(out: &mut BytesMut, entries: &[Entry]) {
    put_length(out, entries.len());
    for entry in entries {
        put_version(out, entry.record.version);
        put_bytes(out, &entry.key);
        match &entry.record.value {
            Some(value) => {
                out.put_u8(VALUE);
                put_bytes(out, value);
            }
            None => out.put_u8(DELETED),
        }
    }
}

fn get_entries(input: &mut Bytes) -> Result<Vec<Entry>, WireError> {
    let count = input.try_get_u32().map_err(short)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let version = get_version(input)?;
        let key = get_bytes(input)?;
        let value = match input.try_get_u8().map_err(short)? {
            VALUE => Some(get_bytes(input)?),
            DELETED => None,
            _ => return Err(WireError("an unknown kind of record")),
        };
        entries.push(Entry {
            key,
            record: Record { version, value },
        });
    }
    Ok(entries)
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32(
        u32::try_from(length).expect("invariant: limits of keys and values are below 4 GiB"),
    );
}

fn get_bytes(input: &mut Bytes) -> Result<Bytes, WireError> {
    let length = input.try_get_u32().map_err(short)? as usize;
    if length > input.len() {
        return Err(WireError("it ends early"));
    }
    Ok(input.split_to(length))
}

fn short(_: bytes::TryGetError) -> WireError {
    WireError("it ends early")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        let entry = |key: &'static str, value: Option<&'static str>| Entry {
            key: Bytes::from(key),
            record: Record {
                version: Version {
                    epoch: Epoch(4),
                    seq: 9,
                },
                value: value.map(Bytes::from),
            },
        };
        Order {
            partition: PartitionId(5),
            epoch: Epoch(4),
            committed: Version::start_of(Epoch(4)),
            entries: vec![
                entry("a", Some("\0value")),
                entry("gone", None),
                entry("e", Some("")),
            ],
        }
    }

    #[test]
    fn messages_survive_the_wire() {
        let order = order();
        assert_eq!(Order::decode(order.encode()), Ok(order.clone()));
        let page = Page {
            epoch: Epoch(2),
            barrier: order.committed,
            more: true,
            entries: order.entries.clone(),
        };
        assert_eq!(Page::decode(page.encode()), Ok(page));
        let holdings = Holdings {
            seen: order.committed,
            unsettled: order.entries,
        };
        assert_eq!(Holdings::decode(holdings.encode()), Ok(holdings));
    }

    #[test]
    fn every_cut_of_a_message_is_refused() {
        let whole = order().encode();
        for cut in 0..whole.len() {
            assert!(Order::decode(whole.slice(..cut)).is_err(), "{cut}");
        }
        let mut longer = BytesMut::from(&whole[..]);
        longer.put_u8(0);
        assert!(Order::decode(longer.freeze()).is_err());
    }
}

//! Identifiers: who a node is, which partition, which version of the answer.
//!
//! Every identifier is its own type, so that an epoch can never be passed where a log index is
//! meant. Names for people ([`NodeId`]) are strings; everything the state machine compares often
//! is an integer. Where identifiers are minted: [`crate::state`].

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::ConfigError;

/// The longest [`NodeId`], in bytes.
pub const NODE_ID_MAX_BYTES: usize = 128;

/// The operator's name of a node: unique among live nodes and stable across restarts.
///
/// One to [`NODE_ID_MAX_BYTES`] bytes of printable ASCII without spaces. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Parses `id`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field `node_id` when it is empty, too long or holds a character
    /// other than printable ASCII without spaces.
    pub fn new(id: impl AsRef<str>) -> Result<Self, ConfigError> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > NODE_ID_MAX_BYTES {
            return Err(ConfigError::new("node_id", id, "1 to 128 bytes"));
        }
        if !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::new(
                "node_id",
                id,
                "printable ASCII without spaces",
            ));
        }
        Ok(Self(Arc::from(id)))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for NodeId {
    type Err = ConfigError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for NodeId {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for NodeId {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Returns the plain integer.
            #[must_use]
            pub const fn value(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

integer_id! {
    /// The number of a partition, `0..partition_count`.
    PartitionId(u32)
}

integer_id! {
    /// The version of the published topology: raised by one with every change of it.
    ///
    /// A partition carries the epoch of its own last ownership change; the same value is the HTTP
    /// ETag of the cluster.
    Epoch(u64)
}

integer_id! {
    /// How many times the process of a node has started on its disk, counted from 1.
    Incarnation(u64)
}

integer_id! {
    /// The identity of one stage of one migration: the log index of the command that opened it.
    ///
    /// A message about a stage carries it, so that a late message of an aborted stage is refused.
    StageId(u64)
}

integer_id! {
    /// The identity of a member within the control plane: the log index at which it joined.
    ///
    /// Never reused. A node whose disk was wiped joins again under its old [`NodeId`] and a new
    /// `RaftId`. The bootstrapping node is [`RaftId::BOOTSTRAP`].
    RaftId(u64)
}

integer_id! {
    /// A position in the ordered log of commands.
    LogIndex(u64)
}

integer_id! {
    /// The number of an event in the order in which `apply` emitted it, from 1.
    EventSeq(u64)
}

integer_id! {
    /// The identity of a rebalance plan: the log index of the command that proposed it.
    PlanId(u64)
}

impl RaftId {
    /// The member that formed the cluster. No join can receive this id: the first log entries of
    /// a cluster are its formation.
    pub const BOOTSTRAP: Self = Self(1);
}

impl PartitionId {
    /// Returns the partition number as an index into dense arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the partition with the dense index `index`.
    ///
    /// # Panics
    /// When `index` is beyond `u32`, which no validated partition count reaches.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("invariant: partition counts fit u32"))
    }
}

impl Epoch {
    /// Returns the epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! minted_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 random bytes drawn by the caller (the core has no entropy of its own).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ConfigError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let refused = || ConfigError::new(stringify!($name), text, "32 hexadecimal digits");
                if text.len() != 32 || !text.is_ascii() {
                    return Err(refused());
                }
                let mut bytes = [0; 16];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| refused())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

minted_id! {
    /// The identity of a cluster, minted at bootstrap and checked on every peer connection.
    ClusterId
}

minted_id! {
    /// The identity of a data directory, minted when it is created: a wiped disk is a new disk.
    DiskId
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn node_id_refuses_what_it_cannot_carry() {
        for bad in ["", "a b", "é", "tab\t"] {
            let error = NodeId::new(bad).unwrap_err().to_string();
            assert!(error.contains("node_id"), "{error}");
        }
        assert!(NodeId::new("x".repeat(NODE_ID_MAX_BYTES)).is_ok());
        assert!(NodeId::new("x".repeat(NODE_ID_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn minted_ids_survive_their_text_form() {
        let id = ClusterId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<ClusterId>().unwrap(), id);
        assert!("zz".parse::<ClusterId>().is_err());
    }
}

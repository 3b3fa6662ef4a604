//! How a key becomes a partition: published as data, so that clients compute the same answer.
//!
//! [`Partitioner`] is what a lookup uses; [`HashConfig`] is what a cluster agrees on and
//! [`HashDescription`] what it tells clients in other languages (`docs/hashing.md` states the
//! algorithms exactly, with vectors). Which node holds a partition is [`crate::topology`]'s
//! answer; the JSON form of the description is in `clusterkit-http::api`.

use core::fmt;
use core::num::NonZeroU32;
use core::str::FromStr;

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{ConfigError, PARTITIONS_MAX};
use crate::id::PartitionId;

#[cfg(test)]
mod tests;

/// How a partition is named outside Rust, in the notation of `printf`.
pub const PARTITION_FORMAT: &str = "partition-%d";

/// A hash algorithm a cluster may be configured with.
///
/// The names on the wire, in text and in options are those of [`HashAlgorithm::as_str`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// XXH3 with 64 bits and seed 0, reduced by multiply-shift. The default.
    #[default]
    #[serde(rename = "xxh3_64")]
    Xxh3_64,
    /// The first 4 bytes of MD5 as a big-endian integer, reduced by modulo: what clients of
    /// earlier releases compute.
    #[serde(rename = "md5")]
    Md5,
    /// FNV-1a with 32 bits, reduced by modulo.
    #[serde(rename = "fnv1a_32")]
    Fnv1a32,
    /// The first 8 bytes of SHA-256 as a big-endian integer, reduced by multiply-shift.
    #[serde(rename = "sha256")]
    Sha256,
}

impl HashAlgorithm {
    /// Every algorithm of this version.
    pub const ALL: [Self; 4] = [Self::Xxh3_64, Self::Md5, Self::Fnv1a32, Self::Sha256];

    /// Returns the name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xxh3_64 => "xxh3_64",
            Self::Md5 => "md5",
            Self::Fnv1a32 => "fnv1a_32",
            Self::Sha256 => "sha256",
        }
    }

    /// Returns the hash of `key`; the 32-bit algorithms leave the upper half zero.
    #[must_use]
    #[inline]
    pub fn hash(self, key: &[u8]) -> u64 {
        match self {
            Self::Xxh3_64 => xxh3_64(key),
            Self::Md5 => {
                let [a, b, c, d, ..] = <[u8; 16]>::from(Md5::digest(key));
                u64::from(u32::from_be_bytes([a, b, c, d]))
            }
            Self::Fnv1a32 => u64::from(fnv1a_32(key)),
            Self::Sha256 => {
                let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(key));
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// Returns how a hash of this algorithm becomes a partition number.
    #[must_use]
    pub const fn reduction(self) -> Reduction {
        match self {
            Self::Xxh3_64 | Self::Sha256 => Reduction::MultiplyShift,
            Self::Md5 | Self::Fnv1a32 => Reduction::Modulo,
        }
    }

    /// Returns the published seed of an algorithm that takes one.
    #[must_use]
    pub const fn seed(self) -> Option<u64> {
        match self {
            Self::Xxh3_64 => Some(0),
            Self::Md5 | Self::Fnv1a32 | Self::Sha256 => None,
        }
    }

    /// Returns the published name of how the digest becomes an integer.
    #[must_use]
    pub const fn encoding(self) -> &'static str {
        match self {
            Self::Xxh3_64 => "uint64",
            Self::Md5 => "big_endian_uint32",
            Self::Fnv1a32 => "uint32",
            Self::Sha256 => "big_endian_uint64",
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for HashAlgorithm {
    type Err = ConfigError;

    /// Parses the name on the wire.
    ///
    /// # Errors
    /// [`ConfigError`] naming the known algorithms.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| {
                ConfigError::new(
                    "hash.algorithm",
                    name,
                    "one of xxh3_64, md5, fnv1a_32, sha256",
                )
            })
    }
}

// The `fnv` crate of the registry has the 64-bit variant only.
fn fnv1a_32(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// How a hash becomes a partition number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reduction {
    /// `hash % count`.
    Modulo,
    /// `(hash as u128 * count) >> 64`: uses the high bits, so a count that doubles splits each
    /// partition into two neighbours.
    MultiplyShift,
}

impl Reduction {
    /// Returns the name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Modulo => "modulo",
            Self::MultiplyShift => "multiply_shift",
        }
    }

    /// Returns the partition, below `count`, that `hash` falls into.
    #[must_use]
    #[inline]
    pub fn apply(self, hash: u64, count: NonZeroU32) -> PartitionId {
        let reduced = match self {
            Self::Modulo => hash % u64::from(count.get()),
            Self::MultiplyShift => {
                let product = u128::from(hash) * u128::from(count.get());
                // The high half of a u64 times a u32 is below that u32.
                (product >> 64) as u64
            }
        };
        PartitionId(u32::try_from(reduced).expect("invariant: reduced below a u32 count"))
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The published hash configuration: fixed for the life of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashConfig {
    /// The algorithm.
    pub algorithm: HashAlgorithm,
}

impl HashConfig {
    /// Returns the configuration that uses `algorithm`.
    #[must_use]
    pub const fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm }
    }

    /// Checks that the configuration can serve `partition_count` partitions.
    ///
    /// # Errors
    /// [`ConfigError`] when the count is not 1 to [`PARTITIONS_MAX`]: no partition at all cannot
    /// be reduced to, and far more of them than that would make modulo of a 32-bit hash uneven.
    pub fn validate(&self, partition_count: u32) -> Result<(), ConfigError> {
        Partitioner::new(*self, partition_count).map(|_| ())
    }

    /// Returns what a client in another language needs to compute partitions.
    #[must_use]
    pub const fn describe(&self, partition_count: u32) -> HashDescription<'static> {
        HashDescription {
            algorithm: self.algorithm.as_str(),
            encoding: self.algorithm.encoding(),
            reduce: self.algorithm.reduction().as_str(),
            seed: self.algorithm.seed(),
            format: PARTITION_FORMAT,
            modulo: partition_count,
        }
    }
}

/// The wire description of a hash configuration, `hash_config` of the published documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the JSON document in clusterkit-http is built from every field"
)]
pub struct HashDescription<'a> {
    /// The algorithm's name.
    pub algorithm: &'a str,
    /// How the digest becomes an integer.
    pub encoding: &'a str,
    /// How the integer becomes a partition number.
    pub reduce: &'a str,
    /// The seed of an algorithm that takes one.
    pub seed: Option<u64>,
    /// How a partition is named, see [`PARTITION_FORMAT`].
    pub format: &'a str,
    /// The partition count (called so since the first release).
    pub modulo: u32,
}

impl HashDescription<'_> {
    /// Returns the partitioner that computes what was published.
    ///
    /// # Errors
    /// [`ConfigError`] when the algorithm is unknown to this version, or known under another
    /// encoding, reduction or seed, or the count is out of range. A caller must give up then: a
    /// guess would send keys to partitions that do not hold them.
    pub fn partitioner(&self) -> Result<Partitioner, ConfigError> {
        let config = HashConfig::new(self.algorithm.parse()?);
        let ours = config.describe(self.modulo);
        let same = |field, published, known| {
            if published == known {
                Ok(())
            } else {
                Err(ConfigError::new(field, published, known))
            }
        };
        same("hash.encoding", self.encoding, ours.encoding)?;
        same("hash.reduce", self.reduce, ours.reduce)?;
        if self.seed.unwrap_or(0) != ours.seed.unwrap_or(0) {
            return Err(ConfigError::new("hash.seed", self.seed.unwrap_or(0), 0));
        }
        Partitioner::new(config, self.modulo)
    }
}

/// Maps a key to its partition, without allocation.
///
/// ```
/// use clusterkit_core::hash::{HashAlgorithm, HashConfig, Partitioner};
/// use clusterkit_core::id::PartitionId;
///
/// let partitioner = Partitioner::new(HashConfig::new(HashAlgorithm::Md5), 64)?;
/// assert_eq!(partitioner.partition(b"user:123"), PartitionId(48));
/// # Ok::<(), clusterkit_core::config::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partitioner {
    config: HashConfig,
    count: NonZeroU32,
}

impl Partitioner {
    /// Returns the partitioner over `count` partitions.
    ///
    /// # Errors
    /// [`ConfigError`] when `count` is not 1 to [`PARTITIONS_MAX`].
    pub fn new(config: HashConfig, count: u32) -> Result<Self, ConfigError> {
        match NonZeroU32::new(count) {
            Some(nonzero) if count <= PARTITIONS_MAX => Ok(Self {
                config,
                count: nonzero,
            }),
            _ => Err(ConfigError::new(
                "partition_count",
                count,
                format_args!("1 to {PARTITIONS_MAX}"),
            )),
        }
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> HashConfig {
        self.config
    }

    /// Returns the partition count.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count.get()
    }

    /// Returns the hash of `key`.
    #[must_use]
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.config.algorithm.hash(key)
    }

    /// Returns the partition of `key`.
    #[must_use]
    #[inline]
    pub fn partition(&self, key: &[u8]) -> PartitionId {
        let algorithm = self.config.algorithm;
        algorithm.reduction().apply(algorithm.hash(key), self.count)
    }
}

/// A hash brought by the application, for a cluster whose published algorithm has its name.
///
/// [`HashAlgorithm`] implements it too. An implementation must be a pure function of the key, the
/// same on every machine and in every version of the program: a change of it loses keys.
///
/// ```
/// use core::num::NonZeroU32;
/// use clusterkit_core::hash::{KeyHasher, Reduction};
///
/// /// Keys that start with their tenant's number stay together.
/// #[derive(Debug)]
/// struct ByTenant;
///
/// impl KeyHasher for ByTenant {
///     fn name(&self) -> &str { "by_tenant" }
///     fn hash(&self, key: &[u8]) -> u64 { key.first().copied().map_or(0, u64::from) }
///     fn reduction(&self) -> Reduction { Reduction::Modulo }
/// }
///
/// let hasher: &dyn KeyHasher = &ByTenant;
/// let count = NonZeroU32::new(16).expect("16 is not zero");
/// assert_eq!(hasher.partition(b"\x21orders", count), hasher.partition(b"\x21users", count));
/// ```
pub trait KeyHasher: fmt::Debug + Send + Sync {
    /// Returns the name under which the algorithm is published: 1 to 64 bytes, not one of
    /// [`HashAlgorithm::ALL`].
    fn name(&self) -> &str;

    /// Returns the hash of `key`.
    fn hash(&self, key: &[u8]) -> u64;

    /// Returns how the hash becomes a partition number; multiply-shift wants all 64 bits filled.
    fn reduction(&self) -> Reduction;

    /// Returns the partition of `key` among `count`.
    fn partition(&self, key: &[u8], count: NonZeroU32) -> PartitionId {
        self.reduction().apply(self.hash(key), count)
    }
}

impl KeyHasher for HashAlgorithm {
    fn name(&self) -> &str {
        self.as_str()
    }

    fn hash(&self, key: &[u8]) -> u64 {
        Self::hash(*self, key)
    }

    fn reduction(&self) -> Reduction {
        Self::reduction(*self)
    }
}

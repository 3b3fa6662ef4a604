//! How a key becomes a partition: published as data, so that clients compute the same answer.

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// A hash algorithm a cluster may be configured with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// XXH3 with 64 bits and seed 0, reduced by multiply-shift. The default.
    #[default]
    #[serde(rename = "xxh3_64")]
    Xxh3_64,
}

/// The published hash configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashConfig {
    /// The algorithm.
    pub algorithm: HashAlgorithm,
}

impl HashConfig {
    /// Checks that the configuration can serve `partition_count` partitions.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot.
    pub fn validate(&self, partition_count: u32) -> Result<(), ConfigError> {
        let _ = partition_count;
        Ok(())
    }
}

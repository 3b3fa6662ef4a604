//! What a cluster agrees on at bootstrap, and how bad values are refused.
//!
//! [`ClusterConfig`] is replicated: it lives in the log and is the same on every node. Options of
//! one process (addresses, directories, timing) live in the embedding crate.

use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::HashConfig;

/// The largest partition count.
pub const PARTITIONS_MAX: u32 = 65_536;
/// The largest replication factor.
pub const REPLICATION_FACTOR_MAX: u32 = 7;
/// The longest cluster name, in bytes.
pub const CLUSTER_NAME_MAX_BYTES: usize = 128;
/// The longest value of custom data, in bytes (1 MiB).
pub const DATA_VALUE_MAX_BYTES: usize = 1 << 20;
/// The longest key of custom data, in bytes.
pub const DATA_KEY_MAX_BYTES: usize = 512;
/// The most keys of custom data.
pub const DATA_KEYS_MAX: usize = 4_096;
/// The most nodes a cluster holds.
pub const NODES_MAX: usize = 4_096;
/// The most services a node announces.
pub const SERVICES_MAX: usize = 32;
/// The most events kept in the replicated state for hooks and watchers that lag.
pub const EVENTS_KEPT: usize = 8_192;

/// The shortest deadline of an operation, in milliseconds.
pub const DEADLINE_MIN_MS: u64 = 1_000;

/// A refused setting: which field, the value given, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// The field's name.
    pub field: String,
    /// The value given, shortened to 80 characters.
    pub value: String,
    /// What the value must be.
    pub limit: String,
}

impl ConfigError {
    /// Refuses `value` for `field`, which must be `limit`.
    pub fn new(field: &str, value: impl fmt::Display, limit: impl fmt::Display) -> Self {
        let mut value = value.to_string();
        if let Some((cut, _)) = value.char_indices().nth(80) {
            value.truncate(cut);
            value.push_str("...");
        }
        Self {
            field: field.to_string(),
            value,
            limit: limit.to_string(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is `{}`, must be {}",
            self.field, self.value, self.limit
        )
    }
}

impl core::error::Error for ConfigError {}

/// The settings that all nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The cluster's name, for people. Default `clusterkit-cluster`; 1 to 128 bytes.
    pub name: String,
    /// Into how many partitions keys are divided. Default 256; 1 to 65,536. Fixed for the life of
    /// the cluster: too few bound how evenly data spreads, too many cost state and time per change.
    pub partition_count: u32,
    /// How many copies of a partition there should be, the primary included. Default 3; 1 to 7.
    pub replication_factor: u32,
    /// How a key becomes a partition. Fixed for the life of the cluster.
    pub hash: HashConfig,
    /// How many partitions may be moving at once in the whole cluster. Default 64; 1 to 65,536.
    /// The plan in the log is the whole way to its target; this is how much of it is under way.
    pub moves_in_flight: u32,
    /// How many copies one node may receive at once, and as many it may serve as their source.
    /// Default 32; 1 to 65,536. Few make a move long, many take from what the node has to serve.
    pub moves_per_node: u32,
    /// How long a node may stay down before new copies of what it held are made elsewhere, in
    /// milliseconds. Default 300,000 (5 minutes). Short values copy data for a mere restart, long
    /// ones leave partitions under-replicated.
    pub repair_delay_ms: u64,
    /// How many in-sync copies a partition should never fall below: with fewer, repair does not
    /// wait for `repair_delay_ms`. Default 1 (never sooner); 1 to the replication factor.
    pub min_in_sync: u32,
    /// How many permille of the nodes may be declared down in one cut before the cluster stops
    /// copying data and only fails over. Default 334; 1 to 1000.
    pub max_down_permille: u32,
    /// Whether a primary stops being one when its lease runs out because no leader answers. Default
    /// true. With false it goes on by the last table it knows (*keep serving*): then a primary that
    /// is cut off and its successor may both serve. Tokens end with the lease either way.
    pub strict_lease: bool,
    /// How long a node may take to copy a partition that it is to join, in milliseconds. Default
    /// 3,600,000 (1 hour); 1,000 or more. A move that takes longer is called off and tried again
    /// later. Where the program reports progress the time counts from when the copy last got
    /// further, so that one that advances is never called off. Short values throw copies of large partitions away, long ones leave a move that
    /// nobody works on in the way of others.
    pub copy_deadline_ms: u64,
    /// How long a former member may take to let a partition go, in milliseconds. Default 600,000
    /// (10 minutes); 1,000 or more. Afterwards nobody waits for it any more: the partition may move
    /// again, and what it deletes is its own business. Its answer is refused when it comes.
    pub cleanup_deadline_ms: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            name: String::from("clusterkit-cluster"),
            partition_count: 256,
            replication_factor: 3,
            hash: HashConfig::default(),
            moves_in_flight: 64,
            moves_per_node: 32,
            repair_delay_ms: 300_000,
            min_in_sync: 1,
            max_down_permille: 334,
            strict_lease: true,
            copy_deadline_ms: 3_600_000,
            cleanup_deadline_ms: 600_000,
        }
    }
}

impl ClusterConfig {
    /// Checks every field against its limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() || self.name.len() > CLUSTER_NAME_MAX_BYTES {
            return Err(ConfigError::new(
                "cluster_name",
                &self.name,
                "1 to 128 bytes",
            ));
        }
        within("partition_count", self.partition_count, PARTITIONS_MAX)?;
        within(
            "replication_factor",
            self.replication_factor,
            REPLICATION_FACTOR_MAX,
        )?;
        within("moves_in_flight", self.moves_in_flight, PARTITIONS_MAX)?;
        within("moves_per_node", self.moves_per_node, PARTITIONS_MAX)?;
        within("min_in_sync", self.min_in_sync, self.replication_factor)?;
        within("max_down_permille", self.max_down_permille, 1_000)?;
        deadline("copy_deadline_ms", self.copy_deadline_ms)?;
        deadline("cleanup_deadline_ms", self.cleanup_deadline_ms)?;
        self.hash.validate(self.partition_count)
    }
}

/// What changes about the settings of a running cluster. What is none stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// [`ClusterConfig::replication_factor`].
    pub replication_factor: Option<u32>,
    /// [`ClusterConfig::repair_delay_ms`].
    pub repair_delay_ms: Option<u64>,
    /// [`ClusterConfig::moves_in_flight`]. What is under way already goes on.
    pub moves_in_flight: Option<u32>,
    /// [`ClusterConfig::moves_per_node`]. What is under way already goes on.
    pub moves_per_node: Option<u32>,
    /// [`ClusterConfig::min_in_sync`].
    pub min_in_sync: Option<u32>,
    /// [`ClusterConfig::max_down_permille`].
    pub max_down_permille: Option<u32>,
    /// [`ClusterConfig::copy_deadline_ms`].
    pub copy_deadline_ms: Option<u64>,
    /// [`ClusterConfig::cleanup_deadline_ms`].
    pub cleanup_deadline_ms: Option<u64>,
}

impl ConfigChange {
    /// Returns `config` with what changes.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that would be out of bounds.
    pub fn apply_to(self, config: &ClusterConfig) -> Result<ClusterConfig, ConfigError> {
        let changed = ClusterConfig {
            name: config.name.clone(),
            partition_count: config.partition_count,
            hash: config.hash,
            strict_lease: config.strict_lease,
            replication_factor: self.replication_factor.unwrap_or(config.replication_factor),
            repair_delay_ms: self.repair_delay_ms.unwrap_or(config.repair_delay_ms),
            moves_in_flight: self.moves_in_flight.unwrap_or(config.moves_in_flight),
            moves_per_node: self.moves_per_node.unwrap_or(config.moves_per_node),
            min_in_sync: self.min_in_sync.unwrap_or(config.min_in_sync),
            max_down_permille: self.max_down_permille.unwrap_or(config.max_down_permille),
            copy_deadline_ms: self.copy_deadline_ms.unwrap_or(config.copy_deadline_ms),
            cleanup_deadline_ms: self
                .cleanup_deadline_ms
                .unwrap_or(config.cleanup_deadline_ms),
        };
        changed.validate()?;
        Ok(changed)
    }
}

fn deadline(field: &str, value: u64) -> Result<(), ConfigError> {
    if value >= DEADLINE_MIN_MS {
        Ok(())
    } else {
        let limit = format_args!("{DEADLINE_MIN_MS} or more");
        Err(ConfigError::new(field, value, limit))
    }
}

fn within(field: &str, value: u32, max: u32) -> Result<(), ConfigError> {
    if (1..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(field, value, format_args!("1 to {max}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ClusterConfig), expected: &str) {
        let mut config = ClusterConfig::default();
        change(&mut config);
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
    }

    #[test]
    fn each_refusal_names_field_value_and_limit() {
        assert_eq!(ClusterConfig::default().validate(), Ok(()));
        check(
            |c| c.partition_count = 0,
            "partition_count is `0`, must be 1 to 65536",
        );
        check(
            |c| c.partition_count = 65_537,
            "partition_count is `65537`, must be 1 to 65536",
        );
        check(
            |c| c.replication_factor = 0,
            "replication_factor is `0`, must be 1 to 7",
        );
        check(
            |c| c.copy_deadline_ms = 999,
            "copy_deadline_ms is `999`, must be 1000 or more",
        );
        check(|c| c.min_in_sync = 4, "min_in_sync is `4`, must be 1 to 3");
        check(
            |c| c.moves_in_flight = 0,
            "moves_in_flight is `0`, must be 1 to 65536",
        );
        check(
            |c| c.name.clear(),
            "cluster_name is ``, must be 1 to 128 bytes",
        );
    }

    #[test]
    fn a_change_leaves_the_rest_and_is_refused_as_a_whole() {
        let config = ClusterConfig::default();
        let change = ConfigChange {
            moves_in_flight: Some(3),
            min_in_sync: Some(2),
            ..ConfigChange::default()
        };
        let changed = change.apply_to(&config).unwrap();
        assert_eq!((changed.moves_in_flight, changed.min_in_sync), (3, 2));
        let back = ConfigChange {
            moves_in_flight: Some(64),
            min_in_sync: Some(1),
            ..ConfigChange::default()
        };
        assert_eq!(back.apply_to(&changed).unwrap(), config);
        let fewer = ConfigChange {
            replication_factor: Some(1),
            ..ConfigChange::default()
        };
        let refused = fewer.apply_to(&changed).unwrap_err().to_string();
        assert_eq!(refused, "min_in_sync is `2`, must be 1 to 1");
    }
}

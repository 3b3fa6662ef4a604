//! The options of the program `kv`: flags, and the environment variables that earlier example
//! servers read.
//!
//! What they mean to the cluster is in [`clusterkit::Options`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use clusterkit::disk::OsDirectory;
use clusterkit::{HashAlgorithm, Options, Profile};

use super::server::{KvOptions, StoreKind};

/// A node of a replicated key-value service.
#[derive(Debug, Parser)]
#[command(name = "kv", version)]
#[non_exhaustive]
pub struct Args {
    /// Id of this node, unique in the cluster and the same after a restart.
    #[arg(long, env = "NODE_ID")]
    pub node_id: String,
    /// Name for people. Default: from the id.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Where the cluster is served: `host:port`, or `:port` for every interface.
    #[arg(long, env = "HTTP_ADDR")]
    pub http_addr: Option<String>,
    /// As `--http-addr :PORT`.
    #[arg(long, env = "HTTP_PORT")]
    pub http_port: Option<u16>,
    /// Where keys are served: `host:port` or `:port`.
    #[arg(long, env = "KV_ADDR")]
    pub kv_addr: Option<String>,
    /// Port for keys on the host of `--http-addr`; 0 is a free one.
    #[arg(long, env = "KV_PORT")]
    pub kv_port: Option<u16>,
    /// Address told to clients and other nodes where it differs from the one keys are served on.
    #[arg(long, env = "KV_ADVERTISE_ADDR")]
    pub kv_advertise_addr: Option<String>,
    /// Nodes to join through, separated by commas. Without any this node forms a cluster.
    #[arg(long, env = "JOIN_ADDR", value_delimiter = ',')]
    pub join_addr: Vec<String>,
    /// Address told to other nodes where it differs from the one listened on.
    #[arg(long, env = "ADVERTISE_ADDR")]
    pub advertise_addr: Option<String>,
    /// Directory of this node's identity, log and, with `--store redb`, values.
    #[arg(long, env = "DATA_DIR", default_value = "./clusterkit-data")]
    pub data_dir: PathBuf,
    /// Where values are kept.
    #[arg(long, env = "STORE", value_enum, default_value_t = StoreArg::Memory)]
    pub store: StoreArg,
    /// Form a cluster, or never do, whatever the seeds say.
    #[arg(long, env = "BOOTSTRAP")]
    pub bootstrap: Option<bool>,
    /// Place nothing before this many nodes are active.
    #[arg(long, env = "EXPECT")]
    pub expect: Option<usize>,
    /// Name of the cluster.
    #[arg(long, env = "CLUSTER_NAME")]
    pub cluster_name: Option<String>,
    /// Number of partitions; fixed for the life of the cluster.
    #[arg(long, env = "PARTITIONS")]
    pub partitions: Option<u32>,
    /// Copies of each partition.
    #[arg(long, env = "REPLICATION_FACTOR")]
    pub replication_factor: Option<u32>,
    /// How keys become partitions: xxh3_64, md5, fnv1a_32 or sha256.
    #[arg(long, env = "HASH")]
    pub hash: Option<String>,
    /// How long a node may be down before what it held is copied elsewhere, in milliseconds.
    #[arg(long, env = "REPAIR_DELAY_MS")]
    pub repair_delay_ms: Option<u64>,
    /// Failure domain of this node.
    #[arg(long, env = "ZONE")]
    pub zone: Option<String>,
    /// Share of the data relative to other nodes.
    #[arg(long, env = "WEIGHT")]
    pub weight: Option<u32>,
    /// How fast the cluster notices and decides.
    #[arg(long, env = "PROFILE", value_enum, default_value_t = ProfileArg::Lan)]
    pub profile: ProfileArg,
    /// How long joining may take, in milliseconds.
    #[arg(long, env = "JOIN_TIMEOUT_MS")]
    pub join_timeout_ms: Option<u64>,
    /// How long leaving may take, in milliseconds.
    #[arg(long, env = "LEAVE_TIMEOUT_MS")]
    pub leave_timeout_ms: Option<u64>,
    /// Stop without leaving the cluster: the node comes back.
    #[arg(long, env = "NO_LEAVE")]
    pub no_leave: bool,
    /// Show addresses as clients of earlier releases want them.
    #[arg(long, env = "LEGACY_ADDRESSES")]
    pub legacy_addresses: bool,
    /// Largest value in bytes.
    #[arg(long, env = "VALUE_MAX_BYTES", default_value_t = super::VALUE_MAX_BYTES)]
    pub value_max_bytes: usize,
    /// Connections open at once.
    #[arg(long, env = "CONNECTIONS_MAX", default_value_t = super::CONNECTIONS_MAX)]
    pub connections_max: usize,
}

/// Where values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum StoreArg {
    /// In memory.
    Memory,
    /// In `DATA_DIR/kv.redb`.
    Redb,
}

/// How fast the cluster notices and decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum ProfileArg {
    /// One data centre.
    Lan,
    /// Quiet machines and a fast network.
    Fast,
    /// Several data centres.
    Wan,
}

const HASHES: [HashAlgorithm; 4] = [
    HashAlgorithm::Xxh3_64,
    HashAlgorithm::Md5,
    HashAlgorithm::Fnv1a32,
    HashAlgorithm::Sha256,
];

/// The largest value that can be configured: bodies are held in memory.
const VALUE_LIMIT_BYTES: usize = 256 << 20;

impl Args {
    /// Turns the arguments into options.
    ///
    /// # Errors
    /// Names the field, its value and what it must be.
    pub fn into_options(self) -> anyhow::Result<KvOptions> {
        let address = match (self.http_addr, self.http_port) {
            (Some(address), _) => address,
            (None, Some(port)) => format!(":{port}"),
            (None, None) => bail!("http_addr is not set: give --http-addr or --http-port"),
        };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let listen = match (self.kv_addr, self.kv_port) {
            (Some(address), _) => address,
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => bail!("kv_port is not set: give --kv-port or --kv-addr"),
        };
        if !(1..=VALUE_LIMIT_BYTES).contains(&self.value_max_bytes) {
            let value = self.value_max_bytes;
            bail!("value_max_bytes is `{value}`, must be 1 to {VALUE_LIMIT_BYTES}");
        }
        if self.connections_max == 0 {
            bail!("connections_max is `0`, must be 1 or more");
        }
        let mut options = KvOptions::new(&self.node_id, address, listen);
        options.value_max_bytes = self.value_max_bytes;
        options.connections_max = self.connections_max;
        options.advertise = self.kv_advertise_addr;
        if self.store == StoreArg::Redb {
            options.store = StoreKind::Redb(Arc::new(OsDirectory::new(&self.data_dir)));
        }
        let mut node = options
            .node
            .data_dir(self.data_dir)
            .leave_on_shutdown(!self.no_leave)
            .legacy_addresses(self.legacy_addresses)
            .profile(match self.profile {
                ProfileArg::Lan => Profile::Lan,
                ProfileArg::Fast => Profile::Fast,
                ProfileArg::Wan => Profile::Wan,
            });
        for seed in self.join_addr.iter().map(|seed| seed.trim()) {
            if !seed.is_empty() {
                node = node.join(seed);
            }
        }
        if let Some(name) = &self.hash {
            let found = HASHES.into_iter().find(|hash| hash.as_str() == name);
            node = node.hash(found.with_context(|| {
                format!("hash is `{name}`, must be xxh3_64, md5, fnv1a_32 or sha256")
            })?);
        }
        node = set(node, self.node_name, Options::name);
        node = set(node, self.advertise_addr, Options::advertise);
        node = set(node, self.bootstrap, Options::bootstrap);
        node = set(node, self.expect, Options::expect);
        node = set(node, self.cluster_name, Options::cluster_name);
        node = set(node, self.partitions, Options::partitions);
        node = set(node, self.replication_factor, Options::replication_factor);
        node = set(node, self.zone, Options::zone);
        node = set(node, self.weight, Options::weight);
        let ms = Duration::from_millis;
        node = set(node, self.repair_delay_ms.map(ms), Options::repair_delay);
        node = set(node, self.join_timeout_ms.map(ms), Options::join_timeout);
        node = set(node, self.leave_timeout_ms.map(ms), Options::leave_timeout);
        options.node = node;
        Ok(options)
    }
}

fn set<T>(node: Options, value: Option<T>, with: impl FnOnce(Options, T) -> Options) -> Options {
    match value {
        Some(value) => with(node, value),
        None => node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> anyhow::Result<KvOptions> {
        let base = ["kv", "--node-id", "node-1"];
        Args::try_parse_from(base.iter().chain(more))?.into_options()
    }

    #[test]
    fn ports_and_hosts_follow_from_each_other() {
        let options = parse(&["--http-addr", "127.0.0.1:8080", "--kv-port", "9080"]).unwrap();
        assert_eq!(options.listen, "127.0.0.1:9080");
        let options = parse(&["--http-port", "8080", "--kv-port", "9080"]).unwrap();
        assert_eq!(options.listen, ":9080");
        assert!(options.node.validate().is_ok());
    }

    #[test]
    fn bad_options_name_field_value_and_limit() {
        let ports = ["--http-port", "8080", "--kv-port", "9080"];
        let check = |more: &[&str], words: &str| {
            let all: Vec<&str> = ports.iter().chain(more).copied().collect();
            let refused = parse(&all).and_then(|options| Ok(options.node.validate()?));
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        check(&["--hash", "crc32"], "hash is `crc32`, must be xxh3_64");
        check(&["--partitions", "0"], "partition_count is `0`");
        check(&["--replication-factor", "0"], "replication_factor is `0`");
        check(
            &["--value-max-bytes", "0"],
            "value_max_bytes is `0`, must be 1 to",
        );
        check(&["--store", "paper"], "possible values: memory, redb");
        check(&["--join-addr", "nowhere"], "nowhere");
        assert!(
            parse(&["--http-port", "8080"])
                .unwrap_err()
                .to_string()
                .contains("kv_port")
        );
    }
}

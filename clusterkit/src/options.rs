//! What a program tells its node: two required options, defaults for the rest.
//!
//! [`Options`] collects; [`Options::validate`] turns them into checked `Settings` once, before
//! anything is opened or bound. Settings all nodes share are in [`ClusterConfig`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::config::{ClusterConfig, ConfigChange, ConfigError};
use clusterkit_core::detector::DetectorConfig;
use clusterkit_core::hash::{HashAlgorithm, HashConfig};
use clusterkit_core::id::NodeId;
use clusterkit_core::lease::LeaseTiming;
use clusterkit_core::node::FEATURE_LEVEL;
use clusterkit_core::placement::{MinimalMove, PlacementStrategy};
use clusterkit_raft::disk::{Directory, OsDirectory};
use clusterkit_raft::storage::Storage;

use crate::address::{self, HostPort};
use crate::environment::Environment;
use crate::hooks::{HookSettings, Hooks, Subscriber};

/// The most hooks that may run at once.
const HOOKS_AT_ONCE_MAX: usize = 10_000;

/// How fast the cluster notices and decides. The three profiles keep the relations between the
/// times valid; single values are not tunable on purpose.
///
/// Every node is also probed by up to three others, once a heartbeat interval. One that only the
/// leader does not hear is not condemned: somebody else leads, and where nobody hears everybody it
/// is waited for 20 times as long as a lease and its margin last (21 s, 3.2 s, 105 s).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// One data centre. Heartbeats every 100 ms, a dead node is condemned after about 1.35 s,
    /// elections after 300 to 360 ms of silence.
    #[default]
    Lan,
    /// Quiet machines and a fast network. Heartbeats every 25 ms, condemned after about 220 ms,
    /// elections after 130 to 160 ms. On a loaded machine it condemns healthy nodes.
    Fast,
    /// Several data centres. Heartbeats every 500 ms, condemned after about 6 s, elections after
    /// 1.7 to 2 s.
    Wan,
}

/// The times that follow from a [`Profile`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) leases: LeaseTiming,
    pub(crate) detector: DetectorConfig,
    pub(crate) raft_heartbeat: Duration,
    pub(crate) election: (Duration, Duration),
}

impl Profile {
    pub(crate) fn timing(self) -> Timing {
        let ms = Duration::from_millis;
        let (leases, window, raft, election) = match self {
            Self::Lan => (LeaseTiming::LAN, 300, 50, (300, 360)),
            Self::Fast => (LeaseTiming::FAST, 60, 20, (130, 160)),
            Self::Wan => (LeaseTiming::WAN, 1_000, 250, (1_700, 2_000)),
        };
        Timing {
            leases,
            detector: DetectorConfig {
                window: ms(window),
                ..DetectorConfig::for_leases(leases)
            },
            raft_heartbeat: ms(raft),
            election: (ms(election.0), ms(election.1)),
        }
    }
}

impl Timing {
    fn validate(&self) -> Result<(), ConfigError> {
        self.leases.validate()?;
        self.detector.validate()?;
        // Sightings of a node that died are over by the end of the window only if one is sent and
        // told within it.
        if self.detector.window > self.leases.heartbeat {
            return Ok(());
        }
        Err(ConfigError::new(
            "detector.window",
            format_args!("{:?}", self.detector.window),
            format_args!("longer than lease.heartbeat, {:?}", self.leases.heartbeat),
        ))
    }
}

/// The options of one node.
///
/// # Examples
/// ```
/// use clusterkit::Options;
///
/// let options = Options::new("node-2", "127.0.0.1:8081")
///     .join("127.0.0.1:8080")
///     .service("kv", "127.0.0.1:9081");
/// assert!(options.validate().is_ok());
/// assert!(Options::new("node-2", "127.0.0.1").validate().is_err());
/// ```
#[derive(Clone)]
#[must_use]
pub struct Options {
    id: String,
    address: String,
    advertise: Option<String>,
    peer_address: Option<String>,
    name: Option<String>,
    seeds: Vec<String>,
    bootstrap: Option<bool>,
    expect: usize,
    data_dir: PathBuf,
    directory: Option<Arc<dyn Directory>>,
    cluster_name: Option<String>,
    partition_count: Option<u32>,
    hash: Option<HashAlgorithm>,
    settings: ConfigChange,
    strict_lease: Option<bool>,
    services: BTreeMap<String, String>,
    zone: String,
    weight: u32,
    feature_level: u32,
    profile: Profile,
    join_timeout: Duration,
    leave_timeout: Duration,
    leave_on_shutdown: bool,
    legacy_addresses: bool,
    hooks: Arc<dyn Subscriber>,
    hook_settings: HookSettings,
    strategy: Arc<dyn PlacementStrategy>,
    storage: Option<Arc<dyn Storage>>,
    environment: Environment,
}

/// Options that were checked.
#[derive(Clone)]
pub struct Settings {
    pub(crate) id: NodeId,
    pub(crate) listen: HostPort,
    pub(crate) advertise: Option<HostPort>,
    pub(crate) peer_address: Option<HostPort>,
    pub(crate) name: String,
    pub(crate) seeds: Vec<HostPort>,
    pub(crate) bootstrap: Option<bool>,
    pub(crate) expect: usize,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) config: ClusterConfig,
    pub(crate) fixed: Fixed,
    pub(crate) services: BTreeMap<String, String>,
    pub(crate) zone: String,
    pub(crate) weight: u32,
    pub(crate) feature_level: u32,
    pub(crate) timing: Timing,
    pub(crate) join_timeout: Duration,
    pub(crate) leave_timeout: Duration,
    pub(crate) leave_on_shutdown: bool,
    pub(crate) legacy_addresses: bool,
    pub(crate) hooks: Arc<dyn Subscriber>,
    pub(crate) hook_settings: HookSettings,
    pub(crate) strategy: Arc<dyn PlacementStrategy>,
    pub(crate) storage: Option<Arc<dyn Storage>>,
    pub(crate) environment: Environment,
}

/// Settings of the cluster that the operator named: a cluster that differs is refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fixed {
    pub(crate) cluster_name: Option<String>,
    pub(crate) partition_count: Option<u32>,
    pub(crate) hash: Option<HashAlgorithm>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("id", &self.id)
            .field("address", &self.address)
            .field("seeds", &self.seeds)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("id", &self.id)
            .field("listen", &self.listen)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Returns the options of the node `id`, which listens on `address` (`host:port`, or `:port`
    /// for every interface). Without [`join`](Self::join) and on an empty data directory it forms
    /// a cluster.
    pub fn new(id: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            address: address.into(),
            advertise: None,
            peer_address: None,
            name: None,
            seeds: Vec::new(),
            bootstrap: None,
            expect: 1,
            data_dir: PathBuf::from("./clusterkit-data"),
            directory: None,
            cluster_name: None,
            partition_count: None,
            hash: None,
            settings: ConfigChange::default(),
            strict_lease: None,
            services: BTreeMap::new(),
            zone: String::new(),
            weight: 1,
            feature_level: FEATURE_LEVEL,
            profile: Profile::default(),
            join_timeout: Duration::from_secs(30),
            leave_timeout: Duration::from_secs(30),
            leave_on_shutdown: true,
            legacy_addresses: false,
            hooks: Arc::new(Hooks::default()),
            hook_settings: HookSettings::default(),
            strategy: Arc::new(MinimalMove::default()),
            storage: None,
            environment: Environment::default(),
        }
    }

    /// Reads the options from the environment: `NODE_ID` and `HTTP_ADDR` (or `HTTP_PORT`) are
    /// required; `NODE_NAME`, `RAFT_ADDR`, `JOIN_ADDR` (a list separated by commas), `BOOTSTRAP`
    /// (`true` or `false`) and `DATA_DIR` are not. Each may also carry the prefix `CLUSTERKIT_`,
    /// which wins.
    ///
    /// # Errors
    /// [`ConfigError`] naming the variable that is missing or cannot be read.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    pub(crate) fn from_vars(read: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = |name: &str| {
            let value = read(&format!("CLUSTERKIT_{name}")).or_else(|| read(name));
            value.filter(|value| !value.is_empty())
        };
        let missing = |name: &str| ConfigError::new(name, "", "set in the environment");
        let id = read("NODE_ID").ok_or_else(|| missing("NODE_ID"))?;
        let address = match (read("HTTP_ADDR"), read("HTTP_PORT")) {
            (Some(address), _) => address,
            (None, Some(port)) => {
                let port = u16::from_str(&port)
                    .map_err(|_| ConfigError::new("HTTP_PORT", port, "a port, 0 to 65535"))?;
                format!(":{port}")
            }
            (None, None) => return Err(missing("HTTP_ADDR")),
        };
        let mut options = Self::new(id, address);
        options.name = read("NODE_NAME");
        options.peer_address = read("RAFT_ADDR");
        if let Some(seeds) = read("JOIN_ADDR") {
            for seed in seeds
                .split(',')
                .map(str::trim)
                .filter(|seed| !seed.is_empty())
            {
                options = options.join(seed);
            }
        }
        if let Some(bootstrap) = read("BOOTSTRAP") {
            let parsed = match bootstrap.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => true,
                "false" | "0" | "no" => false,
                _ => return Err(ConfigError::new("BOOTSTRAP", bootstrap, "true or false")),
            };
            options = options.bootstrap(parsed);
        }
        if let Some(dir) = read("DATA_DIR") {
            options = options.data_dir(dir);
        }
        Ok(options)
    }

    /// Adds a seed: the address of a node to join through. Seeds never form a cluster, except
    /// that a node which is the first of its own list, on an empty directory, does where within
    /// 3 s no other seed says that it knows one. Silence counts as no: after the first start,
    /// [`bootstrap(false)`](Self::bootstrap) keeps a first node that lost its disk while the others
    /// were unreachable from forming a second cluster.
    pub fn join(mut self, seed: impl Into<String>) -> Self {
        self.seeds.push(seed.into());
        self
    }

    /// Sets the address told to others, where it differs from the one listened on.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// Sets an address of their own for peers; it must lead to this node's port.
    pub fn peer_address(mut self, address: impl Into<String>) -> Self {
        self.peer_address = Some(address.into());
        self
    }

    /// Sets the name for people. Default: from the id (`node-7` becomes `Server-7`).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Forces (`true`) or forbids (`false`) that this node forms a cluster on an empty directory.
    /// Default: it does when it has no seeds, or is the first of them and none of the others knows a
    /// cluster.
    pub fn bootstrap(mut self, bootstrap: bool) -> Self {
        self.bootstrap = Some(bootstrap);
        self
    }

    /// Holds the first placement back until `nodes` nodes have become active, so that nothing is
    /// placed twice while a cluster forms. Default 1. A node that was removed since counts as well:
    /// nobody waits for what an operator does not want.
    pub fn expect(mut self, nodes: usize) -> Self {
        self.expect = nodes;
        self
    }

    /// Sets the directory that holds the node's identity and log. Default `./clusterkit-data`.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = dir.into();
        self
    }

    /// Sets what keeps the node's files, in the place of a directory of the operating system;
    /// [`data_dir`](Self::data_dir) then says nothing. For simulated disks.
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Sets the cluster's name. Default `clusterkit-cluster`.
    pub fn cluster_name(mut self, name: impl Into<String>) -> Self {
        self.cluster_name = Some(name.into());
        self
    }

    /// Sets the number of partitions, 1 to 65,536. Default 256. Joining a cluster with another
    /// number is refused.
    pub fn partitions(mut self, count: u32) -> Self {
        self.partition_count = Some(count);
        self
    }

    /// Sets the number of copies of each partition, 1 to 7. Default 3. Read when the cluster is
    /// formed; who joins goes by what it has by then
    /// ([`ClusterKit::set_replication_factor`](crate::ClusterKit::set_replication_factor)).
    pub fn replication_factor(mut self, factor: u32) -> Self {
        self.settings.replication_factor = Some(factor);
        self
    }

    /// Sets how keys become partitions. Default [`HashAlgorithm::Xxh3_64`]. Joining a cluster
    /// with another one is refused.
    pub fn hash(mut self, algorithm: HashAlgorithm) -> Self {
        self.hash = Some(algorithm);
        self
    }

    /// Sets how long a node may be down before what it held is copied elsewhere. Default 5 min.
    /// Read when the cluster is formed.
    pub fn repair_delay(mut self, delay: Duration) -> Self {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.settings.repair_delay_ms = Some(delay_ms);
        self
    }

    /// Sets how many partitions may be moving at once in the whole cluster. Default 64; 1 to 65,536.
    /// Read when the cluster is formed; [`ClusterKit::configure`](crate::ClusterKit::configure)
    /// changes it later.
    pub fn moves_in_flight(mut self, partitions: u32) -> Self {
        self.settings.moves_in_flight = Some(partitions);
        self
    }

    /// Sets how many copies one node may receive at once, and as many it may serve as their source.
    /// Default 32; 1 to 65,536. Read when the cluster is formed;
    /// [`ClusterKit::configure`](crate::ClusterKit::configure) changes it later.
    pub fn moves_per_node(mut self, copies: u32) -> Self {
        self.settings.moves_per_node = Some(copies);
        self
    }

    /// Sets how long a node may take to copy a partition that it is to join, before the move is
    /// called off and tried again later; where the program reports progress
    /// ([`Copying`](crate::Copying)), how long a copy may take to get further. Default 1 h; 1 s or more. Read when the cluster is formed;
    /// [`ClusterKit::configure`](crate::ClusterKit::configure) changes it later.
    pub fn copy_deadline(mut self, limit: Duration) -> Self {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.settings.copy_deadline_ms = Some(limit_ms);
        self
    }

    /// Sets how long a former member may take to let a partition go, before nobody waits for it any
    /// more. Default 10 min; 1 s or more. Read when the cluster is formed;
    /// [`ClusterKit::configure`](crate::ClusterKit::configure) changes it later.
    pub fn cleanup_deadline(mut self, limit: Duration) -> Self {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.settings.cleanup_deadline_ms = Some(limit_ms);
        self
    }

    /// Sets how many in-sync copies a partition should never fall below: with fewer, repair does
    /// not wait for [`repair_delay`](Self::repair_delay). Default 1 (never sooner); 1 to the
    /// replication factor. Read when the cluster is formed;
    /// [`ClusterKit::configure`](crate::ClusterKit::configure) changes it later.
    pub fn min_in_sync(mut self, copies: u32) -> Self {
        self.settings.min_in_sync = Some(copies);
        self
    }

    /// Sets whether [`ClusterKit::is_primary`](crate::ClusterKit::is_primary) ends with the lease of
    /// this node. Default true: where no leader can be reached, primaries stop within a lease. With
    /// false they *keep serving* by the last table they know, through the loss of a quorum too; one
    /// that is cut off then serves beside its successor, so that is for data which tolerates two
    /// writers. Tokens end with the lease either way. Read when the cluster is formed.
    pub fn strict_lease(mut self, strict: bool) -> Self {
        self.strict_lease = Some(strict);
        self
    }

    /// Announces a service of the application on this node: name, and `host:port` or `:port`.
    pub fn service(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.services.insert(name.into(), address.into());
        self
    }

    /// Sets the failure domain. Default none.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Sets the share of data this node takes relative to others. Default 1.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the feature level this node announces, at most that of this build. Default
    /// [`FEATURE_LEVEL`].
    ///
    /// The cluster uses what all its members announce, and never goes back. Announcing less keeps an
    /// upgrade reversible: new builds run, features that older ones do not know stay off. A node that
    /// announces less than the cluster uses is refused when it starts.
    pub fn feature_level(mut self, level: u32) -> Self {
        self.feature_level = level;
        self
    }

    /// Sets how fast failures are noticed. Default [`Profile::Lan`].
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Sets how long to try to join before giving up. Default 30 s.
    pub fn join_timeout(mut self, limit: Duration) -> Self {
        self.join_timeout = limit;
        self
    }

    /// Sets how long a graceful leave may take to move data away. Default 30 s.
    pub fn leave_timeout(mut self, limit: Duration) -> Self {
        self.leave_timeout = limit;
        self
    }

    /// Sets whether a shutdown leaves the cluster first. Default true. With false a stopped node
    /// counts as down and is expected back.
    pub fn leave_on_shutdown(mut self, leave: bool) -> Self {
        self.leave_on_shutdown = leave;
        self
    }

    /// Shows addresses in the documents of earlier releases the way their clients expect them
    /// (`:8080`). Changes nothing else. Default false.
    pub fn legacy_addresses(mut self, legacy: bool) -> Self {
        self.legacy_addresses = legacy;
        self
    }

    /// Sets what is called when the cluster changes: [`Hooks`], or a [`Subscriber`] of your own.
    /// Default: nothing.
    pub fn hooks(mut self, hooks: impl Subscriber) -> Self {
        self.hooks = Arc::new(hooks);
        self
    }

    /// Sets how many hooks run at once. Default 50; 1 to 10,000. A node that copies many
    /// partitions at a time needs a slot for each; few slots delay what comes after them.
    pub fn hooks_at_once(mut self, limit: usize) -> Self {
        self.hook_settings.at_once = limit;
        self
    }

    /// Sets how long running hooks may go on once the node stops; then they are dropped. Default
    /// 5 s.
    pub fn hook_grace(mut self, grace: Duration) -> Self {
        self.hook_settings.grace = grace;
        self
    }

    /// Sets how placements are computed while this node leads. Default
    /// [`MinimalMove`]: the fewest moves to a perfect balance.
    pub fn strategy(mut self, strategy: Arc<dyn PlacementStrategy>) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets where the log is stored, in place of a redb file in the data directory.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Sets what the node takes from the machine: network, clock, chance and threads. Default the
    /// operating system's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field refused, its value and the limit.
    pub fn validate(&self) -> Result<Settings, ConfigError> {
        let id = NodeId::new(&self.id)?;
        let listen = HostPort::parse("http_addr", &self.address)?;
        let parse = |field: &str, text: &Option<String>| {
            text.as_ref()
                .map(|text| HostPort::parse(field, text))
                .transpose()
        };
        let advertise = parse("advertise_addr", &self.advertise)?;
        if let Some(advertise) = advertise.as_ref().filter(|address| !address.is_reachable()) {
            let limit = "host:port that others can reach";
            return Err(ConfigError::new("advertise_addr", advertise, limit));
        }
        if self.feature_level > FEATURE_LEVEL {
            let limit = format_args!("at most {FEATURE_LEVEL}, what this build knows");
            let given = self.feature_level;
            return Err(ConfigError::new("feature_level", given, limit));
        }
        let peer_address = parse("raft_addr", &self.peer_address)?;
        let mut seeds = Vec::new();
        for seed in &self.seeds {
            let seed = HostPort::parse("join_addr", seed)?;
            if seed.port == 0 {
                return Err(ConfigError::new(
                    "join_addr",
                    seed,
                    "host:port with a port above 0",
                ));
            }
            seeds.push(seed.or_loopback());
        }
        if self.bootstrap == Some(true)
            && !seeds.is_empty()
            && seeds.first() != advertise.as_ref()
            && !address::is_first(&seeds, &listen, &*self.environment.network)
        {
            let limit = "false with seeds that do not begin with this node";
            return Err(ConfigError::new("bootstrap", true, limit));
        }
        for (name, service) in &self.services {
            if name.is_empty() || service.is_empty() {
                let shown = format_args!("{name}={service}");
                return Err(ConfigError::new("services", shown, "a name and an address"));
            }
            HostPort::parse("services", service)?;
        }
        if self.expect == 0 {
            return Err(ConfigError::new("expect", 0, "1 or more nodes"));
        }
        let at_once = self.hook_settings.at_once;
        if !(1..=HOOKS_AT_ONCE_MAX).contains(&at_once) {
            let limit = format_args!("1 to {HOOKS_AT_ONCE_MAX}");
            return Err(ConfigError::new("hooks_at_once", at_once, limit));
        }
        let mut config = ClusterConfig::default();
        if let Some(name) = &self.cluster_name {
            config.name.clone_from(name);
        }
        config.partition_count = self.partition_count.unwrap_or(config.partition_count);
        config.hash = self.hash.map_or(config.hash, HashConfig::new);
        config.strict_lease = self.strict_lease.unwrap_or(config.strict_lease);
        let config = self.settings.apply_to(&config)?;
        let timing = self.profile.timing();
        timing.validate()?;
        Ok(Settings {
            name: self
                .name
                .clone()
                .unwrap_or_else(|| default_name(id.as_str())),
            id,
            listen,
            advertise,
            peer_address,
            seeds,
            bootstrap: self.bootstrap,
            expect: self.expect,
            directory: self
                .directory
                .clone()
                .unwrap_or_else(|| Arc::new(OsDirectory::new(&self.data_dir))),
            config,
            fixed: Fixed {
                cluster_name: self.cluster_name.clone(),
                partition_count: self.partition_count,
                hash: self.hash,
            },
            services: self.services.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            feature_level: self.feature_level,
            timing,
            join_timeout: self.join_timeout,
            leave_timeout: self.leave_timeout,
            leave_on_shutdown: self.leave_on_shutdown,
            legacy_addresses: self.legacy_addresses,
            hooks: Arc::clone(&self.hooks),
            hook_settings: self.hook_settings.clone(),
            strategy: Arc::clone(&self.strategy),
            storage: self.storage.clone(),
            environment: self.environment.clone(),
        })
    }
}

/// Returns the name that earlier releases gave a node: `node-7`, `server-7` and `7` are `Server-7`.
fn default_name(id: &str) -> String {
    let number = id
        .strip_prefix("node-")
        .or_else(|| id.strip_prefix("server-"))
        .unwrap_or(id);
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("Server-{number}")
    } else {
        id.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &Options, expected: &str) {
        assert_eq!(options.validate().unwrap_err().to_string(), expected);
    }

    #[test]
    fn bad_options_name_field_value_and_limit() {
        let good = || Options::new("node-1", "127.0.0.1:0");
        assert!(good().validate().is_ok());
        check(
            &Options::new("", "127.0.0.1:0"),
            "node_id is ``, must be 1 to 128 bytes",
        );
        check(
            &Options::new("n", "127.0.0.1"),
            "http_addr is `127.0.0.1`, must be host:port, or :port for every interface",
        );
        check(
            &good().join("nowhere"),
            "join_addr is `nowhere`, must be host:port, or :port for every interface",
        );
        check(
            &good().partitions(0),
            "partition_count is `0`, must be 1 to 65536",
        );
        check(
            &good().replication_factor(0),
            "replication_factor is `0`, must be 1 to 7",
        );
        check(
            &good().service("kv", ""),
            "services is `kv=`, must be a name and an address",
        );
        check(
            &good().join("10.0.0.9:1").bootstrap(true),
            "bootstrap is `true`, must be false with seeds that do not begin with this node",
        );
        let first = good().advertise("10.0.0.9:1").join("10.0.0.9:1");
        first.bootstrap(true).validate().unwrap();
    }

    #[test]
    fn timing_is_checked_before_anything_is_opened() {
        for profile in [Profile::Lan, Profile::Fast, Profile::Wan] {
            let timing = profile.timing();
            assert_eq!(timing.validate(), Ok(()));
            // One source: the leader waits for what the nodes count.
            assert_eq!(timing.detector.lease_timing().wait(), timing.leases.wait());
            assert!(timing.raft_heartbeat <= timing.leases.heartbeat);
            assert!(timing.leases.heartbeat < timing.detector.window);
        }
        let refused = |change: fn(&mut Timing)| {
            let mut timing = Profile::Lan.timing();
            change(&mut timing);
            timing.validate().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|timing| timing.leases.heartbeat = Duration::from_millis(400)),
            "lease.heartbeat is `400ms`, must be 1ms to 333.333333ms"
        );
        assert_eq!(
            refused(|timing| timing.detector.drift_margin = Duration::ZERO),
            "detector.drift_margin is `0ns`, must be 2ms to 1s"
        );
        assert_eq!(
            refused(|timing| timing.detector.window = Duration::from_millis(100)),
            "detector.window is `100ms`, must be longer than lease.heartbeat, 100ms"
        );
        assert_eq!(
            refused(|timing| timing.detector.vouched_limit = Duration::from_secs(2)),
            "detector.vouched_limit is `2s`, must be 2.1s to 86400s"
        );
    }

    #[test]
    fn names_follow_the_earlier_releases() {
        for (id, name) in [
            ("node-7", "Server-7"),
            ("server-2", "Server-2"),
            ("3", "Server-3"),
        ] {
            assert_eq!(default_name(id), name);
        }
        assert_eq!(default_name("node-a"), "node-a");
    }

    #[test]
    fn the_environment_is_read_with_and_without_prefix() {
        let vars = |name: &str| {
            let value = match name {
                "NODE_ID" => "plain",
                "CLUSTERKIT_NODE_ID" => "prefixed",
                "HTTP_PORT" => "8080",
                "JOIN_ADDR" => "127.0.0.1:1, 127.0.0.1:2",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let settings = Options::from_vars(vars).unwrap().validate().unwrap();
        assert_eq!(settings.id, "prefixed");
        assert_eq!(settings.listen.to_string(), ":8080");
        assert_eq!(settings.seeds.len(), 2);
        let error = Options::from_vars(|_| None).unwrap_err().to_string();
        assert_eq!(error, "NODE_ID is ``, must be set in the environment");
    }
}

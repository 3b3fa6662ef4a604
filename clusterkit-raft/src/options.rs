//! The options of one member of the control plane.
//!
//! What all nodes of a cluster share is agreed through the log
//! ([`clusterkit_core::config::ClusterConfig`]); these are local, but timing should be alike on all.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::config::ConfigError;
use clusterkit_core::id::{ClusterId, DiskId, RaftId};
use clusterkit_core::time::UnixMillis;

use crate::clock::SystemWallClock;
use crate::execution::Execution;

/// The largest encoded command the log takes, in bytes (4 MiB).
pub const COMMAND_MAX_BYTES: usize = 4 << 20;

/// What tells the time of day, for people.
pub trait WallClock: Debug + Send + Sync + 'static {
    /// Returns the wall-clock time. It may jump in both directions.
    fn wall(&self) -> UnixMillis;
}

/// Who this member is, and how patient.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RaftOptions {
    /// The cluster it belongs to. Requests of any other are refused.
    pub cluster: ClusterId,
    /// Its id: [`RaftId::BOOTSTRAP`] for the first, else what its join was answered with.
    pub raft_id: RaftId,
    /// The id of its data directory. A member that lost its disk is refused under its old id.
    pub disk: DiskId,
    /// The address other members reach it at, `host:port`.
    pub address: String,
    /// How often the leader shows that it is alive. Default 50 ms. Longer than
    /// a third of `election_min` makes leaders change on a loaded machine; very short costs
    /// messages.
    pub heartbeat: Duration,
    /// The shortest silence of the leader after which a voter stands for election. Default 300 ms;
    /// must be more than `heartbeat` and half of `election_max` together; what it is
    /// beyond that half is the time a vote may take, disk and network. Short values fail over
    /// sooner, and too soon when the machine is loaded.
    pub election_min: Duration,
    /// The longest such silence. Default 360 ms; must be more than `election_min`. Close values
    /// make voters stand at the same moment and elect nobody. For half of it nobody votes against
    /// a leader it has heard from.
    pub election_max: Duration,
    /// How long a proposal is tried and waited for. Default 5 s. Short values report
    /// unknown outcomes during an election.
    pub propose_timeout: Duration,
    /// How long one request to a peer may take. Default 1 s.
    pub rpc_timeout: Duration,
    /// How long sending a whole snapshot may take. Default 30 s.
    pub snapshot_timeout: Duration,
    /// After how many entries a snapshot is taken. Default 5,000. Few cost disk traffic,
    /// many cost memory and time at start.
    pub snapshot_every: u64,
    /// How many entries are kept behind a snapshot, for members that lag. Default 1,000.
    pub log_kept: u64,
    /// How many members vote at most. Default 5; 1, 3, 5 or 7. More survive more
    /// failures and make every commit wait for more disks.
    pub max_voters: u32,
    /// How long a member may be silent before it is not counted on as a voter. Default 3 s.
    pub member_timeout: Duration,
    /// Where the disk is written. Default on a thread of its own.
    pub execution: Execution,
    /// What tells the time of day. Default the system's clock.
    pub wall_clock: Arc<dyn WallClock>,
}

impl RaftOptions {
    /// Returns the defaults for the member `raft_id` of `cluster`, on `disk`, at `address`.
    pub fn new(
        cluster: ClusterId,
        raft_id: RaftId,
        disk: DiskId,
        address: impl Into<String>,
    ) -> Self {
        Self {
            cluster,
            raft_id,
            disk,
            address: address.into(),
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(360),
            propose_timeout: Duration::from_secs(5),
            rpc_timeout: Duration::from_secs(1),
            snapshot_timeout: Duration::from_secs(30),
            snapshot_every: 5_000,
            log_kept: 1_000,
            max_voters: 5,
            member_timeout: Duration::from_secs(3),
            execution: Execution::default(),
            wall_clock: Arc::new(SystemWallClock),
        }
    }

    /// Checks every option against its limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first option out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let millis = |duration: Duration| format!("{duration:?}");
        let refused = |field, value, limit: &str| Err(ConfigError::new(field, value, limit));
        if self.raft_id == RaftId(0) {
            return refused("raft_id", self.raft_id.to_string(), "at least 1");
        }
        if self.heartbeat < Duration::from_millis(1) {
            return refused("heartbeat", millis(self.heartbeat), "at least 1ms");
        }
        let (lease, _) = self.election_timeouts();
        if self.election_min <= self.heartbeat + lease {
            let limit = self.heartbeat + lease;
            return refused(
                "election_min",
                millis(self.election_min),
                &format!("more than heartbeat and half of election_max ({limit:?})"),
            );
        }
        if self.election_max <= self.election_min {
            return refused(
                "election_max",
                millis(self.election_max),
                &format!("more than election_min ({:?})", self.election_min),
            );
        }
        if !matches!(self.max_voters, 1 | 3 | 5 | 7) {
            let value = self.max_voters.to_string();
            return refused("max_voters", value, "1, 3, 5 or 7");
        }
        if self.snapshot_every == 0 {
            return refused("snapshot_every", String::from("0"), "at least 1");
        }
        Ok(())
    }

    /// Returns the longest and the shortest election time-out as the Raft library counts them:
    /// from the end of the leader's lease on, which is as long as the longest of them.
    fn election_timeouts(&self) -> (Duration, Duration) {
        let lease = self.election_max / 2;
        (lease, self.election_min.saturating_sub(lease))
    }

    /// Returns the options as the Raft library takes them.
    pub(crate) fn raft_config(&self) -> openraft::Config {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (election_max, election_min) = self.election_timeouts();
        openraft::Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(election_min),
            election_timeout_max: millis(election_max),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.log_kept,
            replication_lag_threshold: self.snapshot_every + self.log_kept + 1,
            max_payload_entries: 1_024,
            enable_pre_vote: Some(true),
            // A leader that restarts knows neither how far its log was committed nor, until an entry of a
            // new term is, that it may answer reads: it has to be elected again.
            enable_leader_restore: Some(false),
            removed_leader_step_down: openraft::StepDownPolicy::After(millis(self.heartbeat)),
            // Short, doubling, bounded: a member that returns is found within half a second.
            backoff: String::from("20ms 40ms ...500ms"),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_stand_after_the_silence_that_is_asked_for() {
        let options = RaftOptions::new(
            ClusterId::from_bytes([1; 16]),
            RaftId(1),
            DiskId::from_bytes([2; 16]),
            "127.0.0.1:1",
        );
        let config = options.raft_config();
        // The library waits for the lease, which is `election_timeout_max`, and then the time-out.
        let silence = |timeout| Duration::from_millis(config.election_timeout_max + timeout);
        assert_eq!(silence(config.election_timeout_min), options.election_min);
        assert_eq!(silence(config.election_timeout_max), options.election_max);
    }

    #[test]
    fn each_bad_option_is_named_with_its_limit() {
        let options = RaftOptions::new(
            ClusterId::from_bytes([1; 16]),
            RaftId(1),
            DiskId::from_bytes([2; 16]),
            "127.0.0.1:1",
        );
        options.validate().unwrap();
        options.raft_config().validate().unwrap();
        let check = |change: fn(&mut RaftOptions), expected: &str| {
            let mut changed = options.clone();
            change(&mut changed);
            assert_eq!(changed.validate().unwrap_err().to_string(), expected);
        };
        check(
            |o| o.raft_id = RaftId(0),
            "raft_id is `0`, must be at least 1",
        );
        check(
            |o| o.election_min = o.heartbeat,
            "election_min is `50ms`, must be more than heartbeat and half of election_max (230ms)",
        );
        check(
            |o| o.election_max = o.election_min,
            "election_max is `300ms`, must be more than election_min (300ms)",
        );
        check(
            |o| o.election_min = Duration::from_millis(230),
            "election_min is `230ms`, must be more than heartbeat and half of election_max (230ms)",
        );
        check(
            |o| o.max_voters = 4,
            "max_voters is `4`, must be 1, 3, 5 or 7",
        );
        check(
            |o| o.heartbeat = Duration::ZERO,
            "heartbeat is `0ns`, must be at least 1ms",
        );
        check(
            |o| o.snapshot_every = 0,
            "snapshot_every is `0`, must be at least 1",
        );
    }
}

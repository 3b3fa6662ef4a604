//! A process, the disk it runs on and the clock it reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::coordinator::Coordinator;
use clusterkit_core::detector::DetectorConfig;
use clusterkit_core::id::{DiskId, EventSeq, Incarnation, NodeId, PartitionId, RaftId, StageId};
use clusterkit_core::lease::Lease;
use clusterkit_core::node::NodeSpec;
use clusterkit_core::state::ClusterState;
use clusterkit_core::time::{Instant, UnixMillis};

use super::event::Slot;
use super::lead::Loop;
use super::mesh::Probed;
use crate::run::nanos;

/// The feature levels of the two builds there are.
pub(super) const OLDER: u32 = 1;
pub(super) const NEWER: u32 = 2;

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not a member yet.
    Joining,
    /// A member whose start is not known yet.
    Announcing,
    /// A member that reports in.
    Member,
    /// No member any more.
    Left,
}

/// What survives the process.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) id: DiskId,
    pub(super) raft_id: Option<RaftId>,
    pub(super) incarnation: Incarnation,
    /// Up to where hooks need not be called again.
    pub(super) cursor: Option<EventSeq>,
}

/// What a hook was asked to do about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) stage: StageId,
    pub(super) seq: EventSeq,
    pub(super) copies: bool,
    /// It is done; the cluster has not taken note of it yet.
    pub(super) done: bool,
}

/// One slot of the world: a disk and whatever runs on it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) slot: Slot,
    pub(super) zone: u32,
    pub(super) weight: u32,
    /// What its build knows.
    pub(super) feature_level: u32,
    pub(super) disk: Disk,
    pub(super) running: bool,
    /// Raised with every start and every end, so that what was meant for an earlier process is
    /// known as such.
    pub(super) life: u32,
    pub(super) paused_until: Duration,
    pub(super) clock: Clock,
    pub(super) phase: Phase,
    /// The state as applied here.
    pub(super) view: Arc<ClusterState>,
    pub(super) catching_up: bool,
    pub(super) coordinator: Coordinator,
    /// The term in which it believes to lead.
    pub(super) leads: Option<u64>,
    pub(super) decides: Loop,
    /// When it reported last.
    pub(super) pulsed_at: Duration,
    /// When it reports next; later plans to report are void.
    pub(super) pulse_at: Option<Duration>,
    /// Whom it takes for the leader.
    pub(super) follows: Option<Slot>,
    pub(super) lease: Option<Lease>,
    /// Whom it has probed of late.
    pub(super) probes: BTreeMap<RaftId, Probed>,
    /// The newest round in which a majority confirmed that it leads: the term, and when the round
    /// began.
    pub(super) confirmed: Option<(u64, Instant)>,
    /// The newest event taken in.
    pub(super) fed: EventSeq,
    pub(super) asks: BTreeMap<PartitionId, Ask>,
    /// When it sends the answers of its hooks next.
    pub(super) acks_at: Option<Duration>,
}

impl Process {
    pub(super) fn new(slot: Slot, zone: u32, disk: DiskId, detector: DetectorConfig) -> Self {
        Self {
            slot,
            zone,
            weight: 1,
            feature_level: NEWER,
            disk: Disk {
                id: disk,
                raft_id: None,
                incarnation: Incarnation(0),
                cursor: None,
            },
            running: false,
            life: 0,
            paused_until: Duration::ZERO,
            clock: Clock::default(),
            phase: Phase::Joining,
            view: Arc::default(),
            catching_up: false,
            coordinator: Coordinator::new(detector)
                .expect("invariant: the simulator draws settings within their limits"),
            leads: None,
            decides: Loop::default(),
            pulsed_at: Duration::ZERO,
            pulse_at: None,
            follows: None,
            lease: None,
            probes: BTreeMap::new(),
            confirmed: None,
            fed: EventSeq(0),
            asks: BTreeMap::new(),
            acks_at: None,
        }
    }

    /// Returns what the process says about itself.
    pub(super) fn spec(&self) -> NodeSpec {
        let name = format!("n{}", self.slot);
        let id = NodeId::new(&name).expect("invariant: a letter and digits are a node id");
        let mut spec = NodeSpec::new(id, self.disk.id, &format!("{name}:7000"));
        spec.incarnation = self.disk.incarnation;
        spec.weight = self.weight;
        spec.feature_level = self.feature_level;
        if self.zone > 0 {
            spec.zone = Arc::from(format!("z{}", self.zone));
        }
        spec
    }

    /// Tells whether its view has it as the member that it is: live and the very process.
    pub(super) fn is_known(&self) -> bool {
        self.disk.raft_id.is_some_and(|me| {
            let node = self.view.node(me);
            node.is_some_and(|node| {
                node.status.is_live() && node.incarnation == self.disk.incarnation
            })
        })
    }
}

/// A monotonic clock that may run too fast or too slow, and a wall clock that is off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// The world's time and the clock's, at the last change of speed.
    since: (Duration, u64),
    ppm: i32,
    wall_ms: u64,
}

impl Clock {
    /// Returns a clock as the next process finds it: it says `start` at `now`, its wall clock is
    /// `wall_ms` ahead, and it is as fast as before.
    pub(super) const fn restarted(self, now: Duration, start: u64, wall_ms: u64) -> Self {
        Self {
            since: (now, start),
            ppm: self.ppm,
            wall_ms,
        }
    }

    pub(super) fn set_speed(&mut self, now: Duration, ppm: i32) {
        self.since = (now, self.read(now));
        self.ppm = ppm;
    }

    fn read(&self, now: Duration) -> u64 {
        let passed = nanos(now.saturating_sub(self.since.0));
        if self.ppm == 0 {
            return self.since.1 + passed;
        }
        let passed = i128::from(passed);
        let told = passed + passed * i128::from(self.ppm) / 1_000_000;
        self.since.1 + u64::try_from(told).unwrap_or(0)
    }

    /// Returns what the clock says at `now`.
    pub(super) fn monotonic(&self, now: Duration) -> Instant {
        Instant::from_nanos(self.read(now))
    }

    /// Returns what its wall clock says at `now`.
    pub(super) fn wall(&self, now: Duration) -> UnixMillis {
        UnixMillis(1_800_000_000_000 + self.wall_ms + nanos(now) / 1_000_000)
    }

    /// Returns when, in the world's time, `span` of this clock has passed after `now`.
    pub(super) fn after(&self, now: Duration, span: Duration) -> Duration {
        if self.ppm == 0 {
            return now + span;
        }
        let span = i128::from(nanos(span));
        let real = span * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        now + Duration::from_nanos(u64::try_from(real).unwrap_or(u64::MAX / 4))
    }
}

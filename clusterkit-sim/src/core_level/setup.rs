//! What a seed says about a run: sizes, settings, faults, and who starts when.

use std::time::Duration;

use clusterkit_core::command::Command;
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::detector::DetectorConfig;
use clusterkit_core::id::{ClusterId, RaftId};
use clusterkit_core::lease::LeaseTiming;

use super::app::App;
use super::event::{Agenda, Event, Slot};
use super::judge::Judge;
use super::log::Log;
use super::mesh::Ring;
use super::net::Net;
use super::process::{OLDER, Phase};
use super::settle::Quiet;
use super::tokens::keeps_margin;
use super::world::{Settings, World};
use crate::run::RunOptions;
use crate::{DuelConfig, FaultKind, FaultSchedule, Rng, ScheduleConfig, Trace};

/// How long everything has to settle after the last fault.
const SETTLE_MAX: Duration = Duration::from_secs(240);

/// How many runs of a thousand are about leases and nothing else.
const DUELS_PERMILLE: u32 = 300;

const HOUR: Duration = Duration::from_secs(3_600);

/// How many faults there are in an hour, where hours are asked for.
const FAULTS_AN_HOUR: u32 = 24;

/// For how many leases a node that only the leader misses is waited for, mostly.
const VOUCHED_LEASES: u32 = 21;

/// Faults that only the full level can carry out.
const ELSEWHERE: &[FaultKind] = &[FaultKind::FullDisk];

/// Builds the world of `seed`: the first node has formed the cluster, the others are about to
/// start.
pub(super) fn build(seed: u64, options: &RunOptions) -> World {
    let root = Rng::new(seed);
    let mut sizes = root.split("sizes");
    let mut profile = root.split("profile");
    // A scene cuts somebody off from everybody: a cut for each.
    let few = options.nodes.is_none_or(|nodes| nodes < 10);
    let duels = profile.chance(DUELS_PERMILLE) && few && options.hours.is_none();
    let mut drawn = draw_nodes(&mut sizes);
    if duels {
        drawn = [3, 3, 4, 5][profile.index(4)];
    }
    let nodes = options.nodes.unwrap_or(drawn).max(1);
    let zones = if sizes.chance(300) {
        sizes.within(2..=4)
    } else {
        0
    };
    let zones = u32::try_from(zones).unwrap_or(0);
    let mut settings = draw_settings(&mut sizes, nodes);
    let mut duration = sizes.duration(Duration::from_secs(10)..=Duration::from_secs(45));
    settings.hurries = duels || profile.chance(200);
    if let Some(hours) = options.hours {
        duration = HOUR * hours;
        slow_down(&mut settings, &mut profile);
    }
    if duels {
        sharpen(&mut settings, &mut profile);
    }
    let vouched_leases = if root.split("mesh").chance(300) {
        VOUCHED_LEASES / 5
    } else {
        VOUCHED_LEASES
    };
    settings.detector.vouched_limit = settings.detector.lease * vouched_leases;
    let tolerated = settings.detector.lease_timing().tolerated_drift_ppm();
    let drawn = if duels {
        let config = DuelConfig {
            nodes,
            duration: profile.duration(Duration::from_secs(8)..=Duration::from_secs(16)),
            lease: settings.detector.lease,
            drift_margin_ppm: tolerated,
        };
        FaultSchedule::duel(&mut root.split("faults"), &config)
    } else {
        let faults = options.hours.map(|hours| hours * FAULTS_AN_HOUR);
        let faults = faults.unwrap_or_else(|| u32::try_from(sizes.within(0..=14)).unwrap_or(5));
        draw_faults(&root, faults, (nodes, zones), duration, tolerated)
    };
    let faults = options.faults.clone().unwrap_or(drawn);
    let begins = faults.ends_at().max(Duration::from_secs(5));
    let mut world = World {
        now: Duration::ZERO,
        agenda: Agenda::default(),
        trace: Trace::new(options.trace),
        net: Net::new(root.split("net")),
        mesh: Ring::new(root.split("probes")),
        log: Log::new(root.split("log")),
        processes: Vec::new(),
        app: App::new(settings.config.partition_count as usize),
        judge: Judge::default(),
        quiet: Quiet::new(begins, SETTLE_MAX),
        trusts_clocks: keeps_margin(&faults, tolerated),
        rng: root.split("world"),
        hooks_rng: root.split("hooks"),
        settings,
        faults,
    };
    let numbers = [
        u64::from(nodes),
        u64::from(world.settings.config.partition_count),
    ];
    world.trace.step(Duration::ZERO, "world", &numbers, || {
        format!("{:?}", world.settings)
    });
    for number in 0..nodes {
        world.add_slot(if zones == 0 { 0 } else { number % zones + 1 });
    }
    draw_builds(&mut world, root.split("builds"));
    form(&mut world);
    for slot in 1..=nodes {
        let at = world.rng.duration(Duration::ZERO..=Duration::from_secs(2));
        let at = if slot == 1 { Duration::ZERO } else { at };
        world.agenda.plan(at, Event::Boot(slot));
    }
    for (number, fault) in world.faults.faults().iter().enumerate() {
        world.agenda.plan(fault.at, Event::FaultBegins(number));
        if fault.fault.lasts().is_some() {
            world.agenda.plan(fault.ends_at(), Event::FaultEnds(number));
        }
    }
    world.agenda.plan(world.first_write(), Event::Write);
    world.agenda.plan(
        world.quiet.begins() + Duration::from_secs(1),
        Event::Settled,
    );
    world
}

/// Lets some nodes of some clusters begin as older builds, which are upgraded when they restart.
fn draw_builds(world: &mut World, mut rng: Rng) {
    if !rng.chance(250) {
        return;
    }
    for process in &mut world.processes {
        if rng.chance(500) {
            process.feature_level = OLDER;
        }
    }
}

/// Lets the first node form the cluster, as its own process would.
fn form(world: &mut World) {
    let bytes = world.rng.bytes16();
    let process = world.process_mut(1);
    process.disk.raft_id = Some(RaftId::BOOTSTRAP);
    process.disk.incarnation.0 = 0;
    process.phase = Phase::Announcing;
    let mut node = process.spec();
    // The process that forms is the first one on its disk.
    node.incarnation.0 = 1;
    let at = process.clock.wall(Duration::ZERO);
    let command = Command::Bootstrap {
        cluster: ClusterId::from_bytes(bytes),
        config: world.settings.config.clone(),
        node,
        at,
    };
    world.log.leader = None;
    // Nothing is there yet that a first command could break.
    let formed = world.commit(&command);
    debug_assert!(
        matches!(formed, Ok(Ok(_))),
        "the settings drawn are valid: {formed:?}"
    );
    world.call_election();
}

/// Draws how many nodes there are: mostly a handful, sometimes dozens, rarely a thousand.
fn draw_nodes(rng: &mut Rng) -> u32 {
    let nodes = match rng.below(20_000) {
        0 => rng.within(1_000..=1_200),
        1..=200 => rng.within(20..=60),
        201..=600 => rng.within(1..=2),
        _ => rng.within(3..=9),
    };
    u32::try_from(nodes).unwrap_or(3)
}

fn draw_settings(rng: &mut Rng, nodes: Slot) -> Settings {
    let partitions = match nodes {
        0..=9 => rng.within(8..=32),
        10..=99 => rng.within(64..=200),
        _ => 1_024,
    };
    let lease = [500, 1_000, 2_000][rng.index(3)];
    let lease = Duration::from_millis(lease);
    let factor = [1, 2, 2, 3, 3, 3, 3, 4][rng.index(8)];
    let few = nodes < 10;
    let config = ClusterConfig {
        partition_count: u32::try_from(partitions).unwrap_or(16),
        replication_factor: factor,
        moves_in_flight: if few { [1, 4, 64][rng.index(3)] } else { 64 },
        moves_per_node: if few { [1, 2, 32][rng.index(3)] } else { 32 },
        repair_delay_ms: rng.within(500..=15_000),
        min_in_sync: u32::try_from(rng.within(1..=u64::from(factor))).unwrap_or(1),
        max_down_permille: [334, 334, 500, 1_000][rng.index(4)],
        ..ClusterConfig::default()
    };
    let detector = DetectorConfig {
        lease,
        drift_margin: lease / 20,
        window: rng.duration(Duration::from_millis(20)..=Duration::from_millis(400)),
        max_down_permille: config.max_down_permille,
        vouched_limit: lease * VOUCHED_LEASES,
        strike_memory: Duration::from_secs(15),
        return_delay_max: Duration::from_secs(8),
    };
    Settings {
        config,
        detector,
        pulse: lease / 4,
        hurries: false,
        expected: if rng.chance(500) { nodes as usize } else { 1 },
        write_every: rng.duration(Duration::from_millis(5)..=Duration::from_millis(80)),
        copy_max: rng.duration(Duration::from_millis(20)..=Duration::from_secs(3)),
        hooks_fail_permille: [0, 50, 300][rng.index(3)],
    }
}

/// Lets everything but leases be quick, so that what they forbid is tried within their time.
fn sharpen(settings: &mut Settings, rng: &mut Rng) {
    let config = &mut settings.config;
    config.partition_count = 8;
    config.replication_factor = [2, 3, 3][rng.index(3)];
    config.min_in_sync = config.min_in_sync.min(config.replication_factor);
    (config.moves_in_flight, config.moves_per_node) = (64, 32);
    let detector = &mut settings.detector;
    detector.drift_margin = detector.lease / [20, 4, 2, 2][rng.index(4)];
    detector.window = rng.duration(Duration::from_millis(5)..=Duration::from_millis(50));
    settings.pulse = detector.lease / [4, 8, 16][rng.index(3)];
    settings.copy_max = Duration::from_millis(50);
    settings.write_every = Duration::from_millis(20);
    settings.hooks_fail_permille = 0;
}

/// Lets leases and reports be those of machines far apart, and clients write now and then: an hour is
/// long.
fn slow_down(settings: &mut Settings, rng: &mut Rng) {
    let timing = LeaseTiming::WAN;
    settings.detector.lease = timing.lease;
    settings.detector.drift_margin = timing.drift_margin;
    settings.detector.window = Duration::from_secs(1);
    settings.pulse = timing.lease / 4;
    settings.hurries = false;
    settings.write_every = rng.duration(Duration::from_millis(100)..=Duration::from_millis(400));
}

fn draw_faults(
    root: &Rng,
    faults: u32,
    (nodes, zones): (u32, u32),
    duration: Duration,
    drift_margin_ppm: u32,
) -> FaultSchedule {
    let config = ScheduleConfig {
        nodes,
        zones,
        joins_max: 3,
        duration,
        faults,
        drift_margin_ppm,
        ..ScheduleConfig::default()
    };
    FaultSchedule::generate(&mut root.split("faults"), &config.without(ELSEWHERE))
}

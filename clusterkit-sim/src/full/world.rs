//! The world of one run: machines, time, and the order in which everything happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clusterkit_core::event::Event;
use clusterkit_core::id::{EventSeq, RaftId};
use clusterkit_core::lease::LeaseTiming;

use super::TURN;
use super::fabric::Fabric;
use super::faults::Change;
use super::hooks::{CURSOR_FILE, Cursor, Notes, Recorder};
use super::judge::Judge;
use super::machine::Machine;
use super::owners::{Asked, Tokens};
use super::program::{self, Cast, Client, End, HTTP_PORT, Probe, Shared, Start};
use crate::disk::SimDisk;
use crate::{
    Fault, FaultKind, FaultSchedule, Level, Outcome, Report, Rng, RunOptions, ScheduleConfig,
    ScheduledFault, Trace, Unsynced, Violation,
};

/// How long faults may go on, and when the first begins.
const FAULTS_LAST: Duration = Duration::from_secs(6);
const FAULTS_BEGIN: Duration = Duration::from_millis(1_200);
/// Every how many turns a process is asked for its tokens when it shows nothing new.
const TOKENS_EVERY: usize = 5;
/// How long a program that ended is left alone before it is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// How long after the last fault everything must be well again.
pub(super) const QUIET_MAX: Duration = Duration::from_secs(40);

/// A node of the run, whether it runs or not.
pub(super) struct Node {
    pub(super) number: u32,
    pub(super) host: IpAddr,
    pub(super) zone: u32,
    pub(super) disk: SimDisk,
    pub(super) machine: Machine,
    pub(super) probe: Arc<Probe>,
    starts: u64,
    /// The version of the last view looked at.
    seen: u64,
    applied: u64,
    /// Which of the world's notes are of its present process.
    pub(super) notes: usize,
    /// It starts as an older build: whether its next process does, too, an operator decides.
    pub(super) older: bool,
    /// Crashes when its disk says so: what is lost, and how long until it is back.
    pub(super) dies: Option<(Unsynced, Duration)>,
    /// It was asked to stop, to be started again no earlier than then.
    pub(super) returns: Option<Duration>,
    /// Nobody starts it again.
    pub(super) retired: bool,
    /// An operator has it out, or it was removed: not expected at the end.
    pub(super) dismissed: bool,
}

/// Everything there is.
pub(super) struct World {
    seed: u64,
    pub(super) now: Duration,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) fabric: Arc<Fabric>,
    pub(super) shared: Arc<Shared>,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Machine>,
    clients_wanted: u32,
    /// What runs, for people.
    about: String,
    judge: Judge,
    /// Every event of the log so far.
    pub(super) committed: Vec<Event>,
    /// Every process there was, as far as its hooks go.
    pub(super) notes: Vec<Notes>,
    pub(super) tokens: Tokens,
    turns: usize,
    pub(super) faults: FaultSchedule,
    changes: BTreeMap<(Duration, u64), Change>,
    changes_made: u64,
    /// Nodes that lost their disk, or were removed with what they held.
    wiped: BTreeSet<u32>,
    /// Members whose disk is gone, and whether a majority of the voters once was among them.
    pub(super) without_disk: BTreeSet<RaftId>,
    pub(super) is_lost: bool,
    /// Some node was seen as a member: from now on none may form a cluster.
    formed: bool,
}

impl World {
    pub(super) fn new(
        seed: u64,
        RunOptions {
            nodes,
            faults,
            trace: lines,
            hours: _,
        }: RunOptions,
        cast: impl FnOnce(&mut Rng, u32) -> Cast,
    ) -> Self {
        let root = Rng::new(seed);
        let mut rng = root.split("world");
        fastrand::seed(root.split("fastrand").u64());
        let count = nodes.unwrap_or_else(|| {
            [3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 5, 1, 2, 6, 7, 8, 9][rng.index(18)]
        });
        let zones = if count >= 3 && rng.chance(300) { 3 } else { 0 };
        let cast = cast(&mut root.split("program"), count);
        let faults = faults.unwrap_or_else(|| draw_faults(&root, count, zones, &cast.unwanted));
        let fabric = Arc::new(Fabric::new(root.split("network")));
        let clocks_are_kept = faults.faults().iter().all(|scheduled| {
            let margin = LeaseTiming::FAST.tolerated_drift_ppm();
            !matches!(scheduled.fault, Fault::Drift { ppm, .. } if ppm.unsigned_abs() > margin)
        });
        let shared = Arc::new(Shared {
            fabric: Arc::clone(&fabric),
            program: cast.program,
            seeds: (1..=count.min(3))
                .map(|n| format!("{}:{HTTP_PORT}", host(n)))
                .collect(),
            begun_with: count,
            clocks_are_kept,
            closing: AtomicBool::new(false),
            disks_lost: AtomicUsize::new(0),
            notes: Mutex::default(),
        });
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            rng,
            trace: Trace::new(lines),
            fabric,
            shared,
            nodes: Vec::new(),
            clients: Vec::new(),
            clients_wanted: cast.clients,
            about: cast.about,
            judge: Judge::default(),
            committed: Vec::new(),
            notes: Vec::new(),
            tokens: Tokens::default(),
            turns: 0,
            faults,
            changes: BTreeMap::new(),
            changes_made: 0,
            wiped: BTreeSet::new(),
            without_disk: BTreeSet::new(),
            is_lost: false,
            formed: false,
        };
        for number in 1..=count {
            let zone = if zones == 0 {
                0
            } else {
                (number - 1) % zones + 1
            };
            world.add(&root, number, zone);
        }
        let disturbed: Vec<ScheduledFault> = world.faults.faults().to_vec();
        for ScheduledFault { at, fault } in disturbed {
            world.plan(at, Change::Fault(fault));
        }
        world
    }

    /// Adds the machine of node `number`; nothing runs on it yet.
    pub(super) fn add(&mut self, root: &Rng, number: u32, zone: u32) {
        let rng = root.split_at("disk", u64::from(number));
        self.nodes.push(Node {
            number,
            host: host(number),
            zone,
            disk: SimDisk::new(format!("node-{number}"), rng),
            machine: Machine::default(),
            probe: Arc::default(),
            starts: 0,
            seen: 0,
            applied: 0,
            notes: 0,
            older: false,
            dies: None,
            returns: None,
            retired: false,
            dismissed: false,
        });
    }

    /// Runs it to its end.
    pub(super) fn run(mut self) -> Report {
        let violation = self.play().err();
        if let Some(violation) = &violation {
            self.trace
                .line(self.now, format_args!("violation {violation}"));
        }
        let (hash, figures) = (self.fabric.hash(), self.fabric.figures());
        self.trace
            .line(self.now, format_args!("network {hash:016x} {figures:?}"));
        let outcome = Outcome::new(
            self.seed,
            Level::Full,
            violation,
            self.now,
            self.trace.hash(),
        );
        // Within a runtime nothing may be left that another one's end would wake.
        for node in &mut self.nodes {
            node.probe.clear();
            node.machine.kill();
        }
        for client in &mut self.clients {
            client.kill();
        }
        Report::new(outcome, self.faults, self.trace)
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.trace.line(
            self.now,
            format_args!("{} nodes, {}", self.nodes.len(), self.about),
        );
        for index in 0..self.nodes.len() {
            self.start(index);
        }
        self.start_clients();
        let end = self
            .faults
            .ends_at()
            .max(FAULTS_BEGIN + Duration::from_secs(2));
        // A program that ends again and again is started again for ever, and an operator whose cluster is
        // lost tries for ever: that is for the end to judge.
        let goes_on = |change: &Change| !matches!(change, Change::Start(_) | Change::Lift(_));
        while self.now < end || self.changes.values().any(goes_on) {
            self.turn()?;
        }
        self.settle()
    }

    /// Lets one turn pass.
    pub(super) fn turn(&mut self) -> Result<(), Violation> {
        self.now += TURN;
        self.turns += 1;
        while let Some(entry) = self.changes.first_entry()
            && entry.key().0 <= self.now
        {
            let change = entry.remove();
            self.change(change);
        }
        self.fabric.advance(self.now);
        for index in 0..self.nodes.len() {
            self.nodes[index].machine.drive(self.now);
            self.attend(index)?;
            self.look(index)?;
        }
        for client in &mut self.clients {
            client.drive(self.now);
        }
        for line in self.shared.take_notes() {
            self.trace.line(self.now, format_args!("{line}"));
        }
        self.shared.program.check(self.now)
    }

    /// Looks after node `index`: its disk may have died, its program may have ended.
    fn attend(&mut self, index: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        if let Some((unsynced, lasts)) = node.dies
            && node.disk.is_dead()
        {
            node.dies = None;
            self.crash(index, unsynced);
            self.plan(self.now + lasts, Change::Start(index));
            return Ok(());
        }
        if !node.machine.has_ended() {
            return Ok(());
        }
        let end = node.probe.end();
        let (number, pause) = (node.number, RESTART_PAUSE);
        let text = format!("{end:?}");
        self.trace
            .line(self.now, format_args!("node-{number} ended {text}"));
        self.take_down(index, Unsynced::Kept, false);
        if let Some(End::Failed(text)) = &end
            && text.contains("is damaged")
        {
            let detail = format!("node-{number}: {text}");
            return Err(Violation::new("disk-damaged", detail, self.now));
        }
        match end {
            // Stopping takes its time.
            Some(End::Stopped) => {
                if let Some(at) = self.nodes[index].returns.take() {
                    self.plan(at.max(self.now), Change::Start(index));
                }
            }
            Some(End::Ended | End::Failed(_)) | None => {
                let stays = matches!(end, Some(End::Failed(_))) && self.is_member(number);
                let node = &mut self.nodes[index];
                // Where it was refused as too old, the operator has a newer build.
                node.older = false;
                if node.dismissed && !stays {
                    // Who was dismissed stays away: another start would be another node. But the
                    // command may have been refused.
                    node.retired = true;
                } else {
                    self.plan(self.now + pause, Change::Start(index));
                }
            }
        }
        Ok(())
    }

    /// Tells whether anybody who runs knows node `number` as a member.
    fn is_member(&self, number: u32) -> bool {
        let id = format!("node-{number}");
        let running = self.nodes.iter().filter_map(|node| node.probe.cluster());
        let mut states = running.map(|cluster| cluster.log_view());
        states.any(|view| view.state.node_by_id(&id).is_some())
    }

    /// Looks at what node `index` publishes.
    fn look(&mut self, index: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        let Some(cluster) = node.probe.cluster() else {
            return Ok(());
        };
        let view = cluster.log_view();
        let Some(me) = view.topology.this_node().map(|me| me.raft_id) else {
            return Ok(());
        };
        let is_new = view.version != node.seen;
        let turn_of_it = self.turns.wrapping_add(index).is_multiple_of(TOKENS_EVERY);
        if (is_new || turn_of_it) && !node.machine.is_paused() {
            let _entered = node.machine.enter();
            let asked = Asked {
                index,
                node: me,
                cluster: &cluster,
                local: node.machine.local(),
                ppm: node.machine.ppm(),
            };
            let partitions = view.topology.partition_count();
            self.tokens.ask(asked, partitions, self.now);
        }
        if !is_new {
            return Ok(());
        }
        node.seen = view.version;
        if let Some(notes) = self.notes.get_mut(node.notes) {
            notes.member = Some(me);
        }
        self.formed = true;
        let applied = view.applied.0;
        let changed = applied != node.applied;
        if applied < node.applied {
            let detail = format!("{me} went back from index {} to {applied}", node.applied);
            return Err(Violation::new("applied-backwards", detail, self.now));
        }
        node.applied = applied;
        let (number, leadership) = (u64::from(node.number), view.leadership);
        let epoch = view.topology.epoch().0;
        let leader = leadership.leader.unwrap_or(RaftId(0)).0;
        let numbers = [number, applied, epoch, leadership.term, leader];
        self.trace.step(self.now, "view", &numbers, || {
            format!("node-{number} applied {applied} epoch {epoch} {leadership:?}")
        });
        let known = self.committed.len();
        if view.state.last_event().0 > known as u64 {
            // Numbers begin with 1 and have no gaps.
            let (events, _) = view.state.events_after(EventSeq::default());
            for event in events.iter().skip(known) {
                if self.trace.keeps_lines() {
                    self.trace.comment(self.now, &format!("{event:?}"));
                }
                self.committed.push(Event::clone(event));
            }
        }
        self.judge.see(me, &view, changed, self.now)
    }

    /// Starts node `index`, unless it runs or nobody may start it.
    pub(super) fn start(&mut self, index: usize) {
        let seeds = self.seeds();
        let node = &mut self.nodes[index];
        if node.machine.is_running() || node.retired {
            return;
        }
        let number = node.number;
        let boot = self.fabric.boot(node.host);
        node.starts += 1;
        node.seen = 0;
        node.applied = 0;
        node.probe = Arc::default();
        let mut rng = self.rng.split_at(&format!("node-{number}"), node.starts);
        let recorder = Recorder::new(Arc::clone(&self.fabric));
        let found = node.disk.directory().read(CURSOR_FILE).ok().flatten();
        node.notes = self.notes.len();
        self.notes.push(Notes {
            recorder: Arc::clone(&recorder),
            cursor: found.as_deref().and_then(Cursor::parse),
            member: None,
        });
        let start = Start {
            number,
            host: node.host,
            boot,
            zone: match node.zone {
                0 => String::new(),
                zone => format!("zone-{zone}"),
            },
            began: self.now,
            may_form: !self.formed,
            older: node.older,
            seeds,
            shared: Arc::clone(&self.shared),
            directory: node.disk.directory(),
            rng: rng.split("identities"),
            probe: Arc::clone(&node.probe),
            recorder,
        };
        node.machine
            .start(self.now, &mut rng, || program::run(start));
        self.trace
            .line(self.now, format_args!("node-{number} starts"));
    }

    fn start_clients(&mut self) {
        for number in 0..self.clients_wanted {
            let client = self.client(number);
            let program = Arc::clone(&self.shared.program);
            let mut machine = Machine::default();
            let mut rng = self.rng.split_at("client machine", u64::from(number));
            machine.start(self.now, &mut rng, || async move {
                program.client(client).await;
            });
            self.clients.push(machine);
        }
    }

    /// Returns client `number`, on a machine that nothing ran on before.
    pub(super) fn client(&self, number: u32) -> Client {
        let host = client_host(number);
        let boot = self.fabric.boot(host);
        let rng = self.rng.split_at("client", u64::from(number));
        let shared = Arc::clone(&self.shared);
        Client::new(number, (host, boot), rng, self.seeds(), shared)
    }

    /// Returns the addresses that somebody who starts now is given: those of the first members, and of
    /// who came later and is to stay.
    fn seeds(&self) -> Vec<String> {
        let mut seeds = self.shared.seeds.clone();
        let staying = self.nodes.iter().filter(|node| !node.dismissed);
        for address in staying.map(|node| format!("{}:{HTTP_PORT}", node.host)) {
            if !seeds.contains(&address) {
                seeds.push(address);
            }
        }
        seeds
    }

    /// Notes that whatever node `number` held is gone.
    pub(super) fn wiped(&mut self, number: u32) {
        self.wiped.insert(number);
        self.shared
            .disks_lost
            .store(self.wiped.len(), Ordering::Relaxed);
    }

    /// The process of node `index` dies, and with it, unless writes are kept, its machine.
    pub(super) fn crash(&mut self, index: usize, unsynced: Unsynced) {
        let silent = unsynced != Unsynced::Kept && self.rng.chance(700);
        self.take_down(index, unsynced, silent);
        let number = self.nodes[index].number;
        self.trace.line(
            self.now,
            format_args!("node-{number} crashes, {unsynced:?}"),
        );
    }

    /// Ends what runs on node `index`. The order matters: nothing that is dropped may still reach
    /// the network or the disk.
    pub(super) fn take_down(&mut self, index: usize, unsynced: Unsynced, silent: bool) {
        let node = &mut self.nodes[index];
        self.fabric.died(node.host, silent);
        node.disk.crash(unsynced);
        node.dies = None;
        node.machine.kill();
        node.probe.clear();
        self.tokens.died(index, self.now);
    }

    pub(super) fn plan(&mut self, at: Duration, change: Change) {
        self.changes_made += 1;
        self.changes.insert((at, self.changes_made), change);
    }

    pub(super) fn note(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.now, text);
    }
}

/// Returns the address of node `number`.
pub(super) fn host(number: u32) -> IpAddr {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn client_host(number: u32) -> IpAddr {
    let number = u8::try_from(number + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, number))
}

fn draw_faults(root: &Rng, nodes: u32, zones: u32, unwanted: &[FaultKind]) -> FaultSchedule {
    let mut rng = root.split("faults");
    let config = ScheduleConfig {
        nodes,
        zones,
        joins_max: 2,
        duration: FAULTS_LAST,
        faults: u32::try_from(rng.within(1..=6)).unwrap_or(1),
        drift_margin_ppm: LeaseTiming::FAST.tolerated_drift_ppm(),
        ..ScheduleConfig::default()
    };
    let config = config.without(unwanted);
    let drawn = FaultSchedule::generate(&mut rng, &config);
    // Most clusters form in peace.
    let shift = if rng.chance(850) {
        FAULTS_BEGIN
    } else {
        Duration::ZERO
    };
    let shifted = drawn.faults().iter().map(|scheduled| ScheduledFault {
        at: scheduled.at + shift,
        fault: scheduled.fault.clone(),
    });
    FaultSchedule::new(shifted.collect())
}

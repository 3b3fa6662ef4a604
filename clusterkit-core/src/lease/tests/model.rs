//! Both ends together, in virtual true time, with clocks as wrong as the margin allows.
//!
//! An idealised log orders commands; leaders come and go, learn late that they are deposed, and
//! prove their leadership by rounds that answer late; meanwhile they apply what their successors
//! commit, as views of role and state are not published together. Messages are delayed, reordered and lost,
//! nodes are cut off, lag behind the log, and start again while their old process lives on. After
//! every event, no partition may have two processes with a live token.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::super::{
    LeadershipProof, Lease, LeaseBook, LeaseGrant, LeaseRefused, LeaseRequest, LeaseTiming,
};
use crate::command::Command;
use crate::config::ClusterConfig;
use crate::event::PlanTrigger;
use crate::id::{ClusterId, DiskId, Epoch, Incarnation, LogIndex, NodeId, PartitionId, RaftId};
use crate::node::{NodeSpec, NodeStatus};
use crate::planted::Bug;
use crate::state::ClusterState;
use crate::time::{Instant, UnixMillis};

const NODES: u64 = 3;
const PARTITIONS: u32 = 2;
const MS: u64 = 1_000_000;
/// How long faults happen, and when everything must be well again.
const TROUBLE: u64 = 20_000 * MS;
const END: u64 = 30_000 * MS;
pub(super) const AT: UnixMillis = UnixMillis(1);

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn spec(node: u64, incarnation: u64) -> NodeSpec {
    let mut disk = [0; 16];
    disk[0] = u8::try_from(node).unwrap();
    let id = NodeId::new(format!("n{node}")).unwrap();
    let mut spec = NodeSpec::new(id, DiskId::from_bytes(disk), &format!("10.0.0.{node}:1"));
    spec.incarnation = Incarnation(incarnation);
    spec
}

/// The states after each command of the log.
pub(super) struct Log {
    pub(super) states: Vec<Arc<ClusterState>>,
}

impl Log {
    /// A cluster of three nodes that hold two partitions.
    pub(super) fn formed() -> Self {
        let mut log = Self {
            states: vec![Arc::default()],
        };
        log.append(&Command::Bootstrap {
            cluster: ClusterId::from_bytes([7; 16]),
            config: ClusterConfig {
                partition_count: PARTITIONS,
                ..ClusterConfig::default()
            },
            node: spec(1, 1),
            at: AT,
        });
        for node in 2..=NODES {
            let node = spec(node, 1);
            log.append(&Command::Join {
                node,
                replaces: None,
                at: AT,
            });
            let node = RaftId(log.states.len() as u64 - 1);
            log.append(&Command::Activate { node, at: AT });
        }
        let rows = (0..PARTITIONS).map(|p| (PartitionId(p), log.members()));
        let plan = log.plan(rows.collect());
        log.append(&plan);
        log
    }

    pub(super) fn members(&self) -> Vec<RaftId> {
        self.last().nodes().map(|node| node.raft_id).collect()
    }

    pub(super) fn plan(&self, targets: Vec<(PartitionId, Vec<RaftId>)>) -> Command {
        Command::Plan {
            base: self.last().epoch(),
            trigger: PlanTrigger::Manual,
            trigger_node: None,
            basis: self.last().plan_basis(),
            targets,
            at: AT,
        }
    }

    pub(super) fn last(&self) -> &Arc<ClusterState> {
        self.states.last().unwrap()
    }

    pub(super) fn append(&mut self, command: &Command) {
        let mut state = (**self.last()).clone();
        let index = LogIndex(self.states.len() as u64);
        let _ = state.apply(index, command);
        state.check_invariants().unwrap();
        self.states.push(Arc::new(state));
    }
}

/// A process: a node may have several, though the log knows one of them.
pub(super) struct Process {
    pub(super) node: RaftId,
    pub(super) incarnation: Incarnation,
    rate_ppm: i64,
    offset: u64,
    applied: usize,
    pub(super) lease: Lease,
    book: LeaseBook,
    /// The term in which it thinks that it leads.
    leads: Option<u64>,
    cut_until: u64,
}

impl Process {
    pub(super) fn clock(&self, true_time: u64) -> Instant {
        let rate = u128::try_from(1_000_000 + self.rate_ppm).unwrap();
        let local = u128::from(true_time) * rate / 1_000_000;
        Instant::from_nanos(self.offset + u64::try_from(local).unwrap())
    }
}

enum Happens {
    Pulse(usize),
    Request(usize, usize, LeaseRequest),
    Grant(usize, LeaseGrant),
    Apply(usize, usize),
    Round(usize),
    Proof(usize, LeadershipProof),
    Tick(usize),
    Commit(u64, Vec<Command>),
    Elect,
    Aware(usize, u64),
    Deposed(usize, u64),
    Restart,
    Cut,
}

pub(super) struct World {
    dice: Dice,
    pub(super) now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Happens>,
    pub(super) log: Log,
    pub(super) processes: Vec<Process>,
    timing: LeaseTiming,
    flaw: Option<Bug>,
    /// The leader of each term, and when it was deposed.
    terms: Vec<(usize, u64)>,
    pub(super) tokens_seen: BTreeMap<(PartitionId, Epoch), usize>,
    violation: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, flaw: Option<Bug>) -> Self {
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            log: Log::formed(),
            processes: Vec::new(),
            timing: LeaseTiming::LAN,
            flaw,
            terms: Vec::new(),
            tokens_seen: BTreeMap::new(),
            violation: None,
        };
        for node in world.log.members() {
            world.start(node, Incarnation(1));
        }
        world.after(0, Happens::Elect);
        world.after(500 * MS, Happens::Restart);
        world.after(300 * MS, Happens::Cut);
        world
    }

    fn after(&mut self, delay: u64, what: Happens) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), what);
    }

    fn start(&mut self, node: RaftId, incarnation: Incarnation) {
        let drift = i64::from(self.timing.tolerated_drift_ppm());
        let rate_ppm = [-drift, 0, drift][usize::try_from(self.dice.below(3)).unwrap()];
        let mut lease = Lease::new(node, incarnation, self.timing.lease);
        let mut book = LeaseBook::new(self.timing);
        (lease.flaw, book.flaw) = (self.flaw, self.flaw);
        let at = self.processes.len();
        self.processes.push(Process {
            node,
            incarnation,
            rate_ppm,
            offset: self.dice.below(1_000_000 * MS),
            applied: 0,
            lease,
            book,
            leads: None,
            cut_until: 0,
        });
        self.apply(at, self.log.states.len() - 1);
        self.after(0, Happens::Pulse(at));
    }

    fn apply(&mut self, at: usize, index: usize) {
        let process = &mut self.processes[at];
        if index > process.applied {
            process.applied = index;
            process.lease.observe(&self.log.states[index]);
        }
    }

    /// A delay of a message; none when it is lost.
    fn delay(&mut self, from: usize, to: usize) -> Option<u64> {
        let cut = [from, to]
            .iter()
            .any(|&at| self.processes[at].cut_until > self.now);
        if from != to && (cut || self.now < TROUBLE && self.dice.chance(5)) {
            return None;
        }
        let most = match self.now < TROUBLE && self.dice.chance(5) {
            true => 1_500,
            false => 8,
        };
        Some(self.dice.below(most * MS))
    }

    fn is_leading(&self, term: u64) -> bool {
        self.terms.len() as u64 == term
    }

    pub(super) fn run(mut self) -> Result<Self, String> {
        while let Some(((at, _), what)) = self.queue.pop_first() {
            if at > END {
                break;
            }
            self.now = at;
            self.step(what);
            self.check();
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        Ok(self)
    }

    fn check(&mut self) {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let mut owner: Option<(usize, Epoch)> = None;
            for (at, process) in self.processes.iter().enumerate() {
                let now = process.clock(self.now);
                let Ok(token) = process.lease.token(partition, now) else {
                    continue;
                };
                assert_eq!(process.lease.check(&token, now), Ok(()));
                *self
                    .tokens_seen
                    .entry((partition, token.epoch()))
                    .or_default() += 1;
                if let Some((other, epoch)) = owner {
                    let (a, b) = (&self.processes[other], process);
                    self.violation = Some(format!(
                        "{partition}: {} {} in epoch {epoch}, {} {} in epoch {}",
                        a.node,
                        a.incarnation,
                        b.node,
                        b.incarnation,
                        token.epoch()
                    ));
                }
                owner = Some((at, token.epoch()));
            }
        }
    }

    fn step(&mut self, what: Happens) {
        match what {
            Happens::Pulse(at) => self.pulse(at),
            Happens::Request(from, to, request) => self.request(from, to, &request),
            Happens::Grant(to, grant) => {
                let now = self.processes[to].clock(self.now);
                self.processes[to].lease.handle_grant(grant, now);
            }
            Happens::Apply(at, index) => {
                self.apply(at, index);
                // Whoever learns something new says so at once.
                self.ask(at);
            }
            Happens::Round(at) => self.round(at),
            Happens::Proof(at, proof) => {
                self.processes[at].book.handle_proof(proof);
                for to in 0..self.processes.len() {
                    self.grant(at, to);
                }
            }
            Happens::Tick(at) => self.tick(at),
            Happens::Commit(term, commands) => self.commit(term, &commands),
            Happens::Elect => self.elect(),
            Happens::Aware(at, term) => self.aware(at, term),
            Happens::Deposed(at, term) => {
                if self.processes[at].leads == Some(term) {
                    self.processes[at].leads = None;
                    self.processes[at].book.follow();
                }
            }
            Happens::Restart => self.restart(),
            Happens::Cut => {
                if self.now < TROUBLE {
                    let at = self.any();
                    self.processes[at].cut_until = self.now + self.dice.below(4_000 * MS);
                    let next = self.dice.below(3_000 * MS);
                    self.after(next, Happens::Cut);
                }
            }
        }
    }

    fn any(&mut self) -> usize {
        let all = self.processes.len() as u64;
        usize::try_from(self.dice.below(all)).unwrap()
    }

    fn pulse(&mut self, at: usize) {
        self.ask(at);
        let spread = self.dice.below(20 * MS);
        self.after(90 * MS + spread, Happens::Pulse(at));
    }

    /// Sends a request to somebody who thinks that he leads.
    fn ask(&mut self, at: usize) {
        let leaders = self.processes.iter().enumerate();
        let leaders: Vec<usize> = leaders
            .filter(|(_, process)| process.leads.is_some())
            .map(|(at, _)| at)
            .collect();
        if leaders.is_empty() {
            return;
        }
        let pick = usize::try_from(self.dice.below(leaders.len() as u64)).unwrap();
        let now = self.processes[at].clock(self.now);
        let request = self.processes[at].lease.request(now);
        if let Some(delay) = self.delay(at, leaders[pick]) {
            self.after(delay, Happens::Request(at, leaders[pick], request));
        }
    }

    fn request(&mut self, from: usize, to: usize, request: &LeaseRequest) {
        let leader = &mut self.processes[to];
        let now = leader.clock(self.now);
        let state = Arc::clone(&self.log.states[leader.applied]);
        let taken = leader.book.handle_request(request, &state, now);
        let refused = matches!(taken, Err(LeaseRefused::NotLive { .. }));
        let down = state
            .node(request.node)
            .is_some_and(|it| it.status == NodeStatus::Down);
        let present = state.node(request.node).map(|node| node.incarnation);
        if let Some(term) = leader.leads.filter(|_| refused && down)
            && present == Some(request.incarnation)
        {
            let nodes = vec![request.node];
            self.after(
                MS,
                Happens::Commit(term, vec![Command::MarkUp { nodes, at: AT }]),
            );
        }
        self.grant(to, from);
    }

    fn grant(&mut self, from: usize, to: usize) {
        let now = self.processes[from].clock(self.now);
        let (node, incarnation) = (self.processes[to].node, self.processes[to].incarnation);
        let Some(grant) = self.processes[from].book.grant(node, incarnation, now) else {
            return;
        };
        // What is remembered of the holders is what looking at all of them gives.
        assert_eq!(grant.fence, self.processes[from].book.fence(now));
        if let Some(delay) = self.delay(from, to) {
            self.after(delay, Happens::Grant(to, grant));
        }
    }

    /// A round of heartbeats among the voters: proves leadership at the moment it began.
    fn round(&mut self, at: usize) {
        let Some(term) = self.processes[at].leads else {
            return;
        };
        let (_, deposed_at) = self.terms[usize::try_from(term).unwrap() - 1];
        let proof = LeadershipProof {
            term,
            begun_at: self.processes[at].clock(self.now),
        };
        if self.now < deposed_at && self.processes[at].cut_until <= self.now {
            let delay = self.dice.below(10 * MS) + u64::from(self.dice.chance(5)) * 800 * MS;
            self.after(delay, Happens::Proof(at, proof));
        }
        self.after(40 * MS, Happens::Round(at));
    }

    /// What a leader decides: who is down, and who should lead what.
    fn tick(&mut self, at: usize) {
        let Some(term) = self.processes[at].leads else {
            return;
        };
        let now = self.processes[at].clock(self.now);
        let process = &mut self.processes[at];
        let state = Arc::clone(&self.log.states[process.applied]);
        process.book.observe(&state, now);
        let live = state.nodes().filter(|node| node.status.is_live());
        let others = live
            .map(|node| node.raft_id)
            .filter(|&node| node != process.node);
        let mut down: Vec<RaftId> = others
            .filter(|&node| process.book.may_commit_down(node, now))
            .collect();
        down.retain(|node| !process.book.unmarked(Instant::ZERO).contains(node));
        down.extend(process.book.unmarked(now));
        process.book.condemn(&down, now);
        if !down.is_empty() {
            let delay = self.dice.below(5 * MS);
            let promotions = Vec::new();
            let command = Command::MarkDown {
                nodes: down,
                promotions,
                at: AT,
            };
            self.after(delay, Happens::Commit(term, vec![command]));
        } else if self.now < TROUBLE && self.dice.chance(3) {
            let partition =
                PartitionId(u32::try_from(self.dice.below(u64::from(PARTITIONS))).unwrap());
            let mut row: Vec<RaftId> = state.partition(partition).unwrap().members().collect();
            row.rotate_left(1);
            let delay = self.dice.below(5 * MS);
            let plan = Command::Plan {
                base: state.epoch(),
                trigger: PlanTrigger::Manual,
                trigger_node: None,
                basis: state.plan_basis(),
                targets: vec![(partition, row)],
                at: AT,
            };
            self.after(delay, Happens::Commit(term, vec![plan]));
        }
        self.after(10 * MS, Happens::Tick(at));
    }

    fn commit(&mut self, term: u64, commands: &[Command]) {
        if !self.is_leading(term) {
            return;
        }
        for command in commands {
            self.log.append(command);
        }
        // Copies that are asked for are there at once, and moves begin.
        let state = Arc::clone(self.log.last());
        if let Some(plan) = state.plan() {
            let moves = plan.targets.keys().map(|&id| id.into()).collect();
            self.log.append(&Command::StartMoves {
                plan: plan.id,
                moves,
                at: AT,
            });
        }
        let asked = self
            .log
            .last()
            .partitions_by_id()
            .flat_map(|(id, partition)| {
                let behind = partition.behind.iter();
                behind.filter_map(move |behind| Some((behind.node, (id, behind.stage?))))
            });
        for (node, stage) in asked.collect::<Vec<_>>() {
            let stages = vec![stage];
            self.log.append(&Command::Synced {
                node,
                stages,
                at: AT,
            });
        }
        let index = self.log.states.len() - 1;
        for at in 0..self.processes.len() {
            let most = match self.now < TROUBLE && self.dice.chance(10) {
                true => 3_000,
                false => 10,
            };
            // Who is cut off hears nothing of the log either.
            let cut = self.processes[at].cut_until.saturating_sub(self.now);
            let delay = cut + self.dice.below(most * MS);
            self.after(delay, Happens::Apply(at, index));
        }
    }

    fn elect(&mut self) {
        if self.now >= TROUBLE && !self.terms.is_empty() {
            return;
        }
        if let Some((old, until)) = self.terms.last_mut() {
            *until = self.now;
            let (old, term) = (*old, self.terms.len() as u64);
            let delay = self.dice.below(3_000 * MS);
            self.after(delay, Happens::Deposed(old, term));
        }
        let at = loop {
            let at = self.any();
            let process = &self.processes[at];
            let known = self.log.last().node(process.node);
            if known.is_some_and(|node| node.incarnation == process.incarnation) {
                break at;
            }
        };
        self.terms.push((at, u64::MAX));
        let term = self.terms.len() as u64;
        let delay = self.dice.below(100 * MS);
        self.after(delay, Happens::Aware(at, term));
        let next = self.dice.below(8_000 * MS);
        self.after(next, Happens::Elect);
    }

    /// Whoever was elected has committed an entry of its own, and so applied all before it.
    fn aware(&mut self, at: usize, term: u64) {
        if !self.is_leading(term) {
            return;
        }
        self.apply(at, self.log.states.len() - 1);
        let now = self.processes[at].clock(self.now);
        let process = &mut self.processes[at];
        process.leads = Some(term);
        process.book.lead(term, now);
        process.book.observe(&self.log.states[process.applied], now);
        self.after(0, Happens::Round(at));
        self.after(0, Happens::Tick(at));
    }

    /// Another process of a node starts, and the log knows it; the old one does not notice.
    fn restart(&mut self) {
        if self.now >= TROUBLE {
            return;
        }
        let node = self.log.members()[usize::try_from(self.dice.below(NODES)).unwrap()];
        let record = Arc::clone(self.log.last().node(node).unwrap());
        let number = self
            .log
            .members()
            .iter()
            .position(|&id| id == node)
            .unwrap() as u64
            + 1;
        let spec = spec(number, record.incarnation.0 + 1);
        let term = self.terms.len() as u64;
        self.commit(term, &[Command::Announce { node, spec, at: AT }]);
        self.start(node, Incarnation(record.incarnation.0 + 1));
        let next = 2_000 * MS + self.dice.below(8_000 * MS);
        self.after(next, Happens::Restart);
    }
}

//! How each fault is carried out.

use std::net::IpAddr;
use std::time::Duration;

use clusterkit::{ClusterKit, NodeId};
use clusterkit_core::id::RaftId;
use clusterkit_core::pause::Work;

use super::fabric::Weather;
use super::world::{Node, World};
use crate::{Fault, Side, Unsynced};

/// By when a command to pause has taken effect, if it ever does: longer than a proposal is tried for.
const PAUSE_SETTLES: Duration = Duration::from_secs(6);

/// When an operator looks whether a command has had its effect.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Something that is to happen at some time.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A fault begins.
    Fault(Fault),
    /// A node starts, unless it runs.
    Start(usize),
    /// A cut ends.
    Mend(Vec<(IpAddr, IpAddr)>),
    /// What this made worse gets better again.
    Clear(Weather),
    /// A paused process goes on.
    Resume(usize),
    /// A clock runs right again.
    Steady(usize),
    /// A disk is as fast as before.
    Fast(usize),
    /// A disk has room again.
    Room(usize),
    /// An operator lets work go on, for as long as any node knows it to be paused.
    Lift(Work),
}

impl World {
    /// Makes `change`.
    pub(super) fn change(&mut self, change: Change) {
        self.note(format_args!("change {change:?}"));
        match change {
            Change::Fault(fault) => self.begin(&fault),
            Change::Start(index) => self.start(index),
            Change::Mend(pairs) => {
                for (from, to) in pairs {
                    self.fabric.mend(from, to);
                }
            }
            Change::Clear(worse) => self.fabric.weather(|weather| {
                weather.extra = weather.extra.saturating_sub(worse.extra);
                weather.loss -= worse.loss.min(weather.loss);
                weather.reorder -= worse.reorder.min(weather.reorder);
                weather.duplicate -= worse.duplicate.min(weather.duplicate);
            }),
            Change::Resume(index) => self.nodes[index].machine.resume(),
            Change::Steady(index) => self.nodes[index].machine.drift(0),
            Change::Fast(index) => self.nodes[index].disk.slow(Duration::ZERO..=Duration::ZERO),
            Change::Room(index) => self.nodes[index].disk.full(None),
            Change::Lift(work) => self.lift(work),
        }
    }

    fn begin(&mut self, fault: &Fault) {
        let until = self.now + fault.lasts().unwrap_or_default();
        let fair = Weather {
            extra: Duration::ZERO,
            ..Weather::default()
        };
        match fault {
            Fault::Loss { permille, .. } => {
                let loss = *permille;
                self.worsen(Weather { loss, ..fair }, until);
            }
            Fault::Delay { extra, .. } => {
                let extra = *extra;
                self.worsen(Weather { extra, ..fair }, until);
            }
            Fault::Reorder { permille, .. } => {
                let reorder = *permille;
                self.worsen(Weather { reorder, ..fair }, until);
            }
            Fault::Duplicate { permille, .. } => {
                let duplicate = *permille;
                self.worsen(Weather { duplicate, ..fair }, until);
            }
            Fault::Cut { from, to, both, .. } => self.cut(*from, *to, *both, until),
            Fault::Crash {
                node,
                unsynced,
                operation,
                lasts,
            } => {
                let Some(index) = self.running(*node) else {
                    return;
                };
                if *operation == 0 {
                    self.crash(index, *unsynced);
                    self.plan(until, Change::Start(index));
                } else {
                    let node = &mut self.nodes[index];
                    node.dies = Some((*unsynced, *lasts));
                    node.disk.crash_after(*operation);
                }
            }
            Fault::CrashMany { nodes, .. } => {
                for node in nodes {
                    if let Some(index) = self.running(*node) {
                        self.crash(index, Unsynced::Lost);
                        self.plan(until, Change::Start(index));
                    }
                }
            }
            Fault::Restart { node, older, .. } => {
                if let Some(index) = self.running(*node) {
                    self.nodes[index].older = *older;
                    self.nodes[index].returns = Some(until);
                    self.nodes[index].probe.stop();
                }
            }
            Fault::Wipe { node, .. } => {
                if let Some(index) = self.index(*node) {
                    self.wiped(*node);
                    self.lose_disk(index);
                    self.take_down(index, Unsynced::Lost, true);
                    self.nodes[index].disk.wipe();
                    self.plan(until, Change::Start(index));
                }
            }
            Fault::SlowDisk { node, extra, .. } => {
                if let Some(index) = self.index(*node) {
                    self.nodes[index].disk.slow(*extra / 2..=*extra);
                    self.plan(until, Change::Fast(index));
                }
            }
            Fault::FullDisk { node, .. } => {
                if let Some(index) = self.index(*node) {
                    let disk = &self.nodes[index].disk;
                    disk.full(Some(disk.used_bytes()));
                    self.plan(until, Change::Room(index));
                }
            }
            Fault::Pause { node, .. } => {
                if let Some(index) = self.running(*node) {
                    self.nodes[index].machine.pause();
                    self.plan(until, Change::Resume(index));
                }
            }
            Fault::Drift { node, ppm, .. } => {
                if let Some(index) = self.index(*node) {
                    self.nodes[index].machine.drift(*ppm);
                    self.plan(until, Change::Steady(index));
                }
            }
            Fault::Join { node } => {
                if self.index(*node).is_none() {
                    let root = self.rng.split("joins");
                    self.add(&root, *node, 0);
                    self.start(self.nodes.len() - 1);
                }
            }
            Fault::Depose { .. } => {
                let leads = |node: &Node| {
                    let cluster = node.probe.cluster();
                    cluster.is_some_and(|cluster| cluster.log_view().leadership.is_leader)
                };
                if let Some(index) = self.nodes.iter().position(leads) {
                    self.nodes[index].machine.pause();
                    self.plan(until, Change::Resume(index));
                }
            }
            Fault::PauseMoves { work, .. } => {
                self.operate(fault);
                self.plan(until + PAUSE_SETTLES, Change::Lift(*work));
            }
            _ => self.operate(fault),
        }
    }

    /// Lets an operator resume `work` through any node that runs, and look again later: the command may
    /// get lost.
    fn lift(&mut self, work: Work) {
        let running = self.nodes.iter().enumerate();
        let running = running.filter_map(|(index, node)| Some((index, node.probe.cluster()?)));
        let running: Vec<(usize, ClusterKit)> = running.collect();
        let is_paused =
            |(_, node): &(usize, ClusterKit)| node.paused().iter().any(|pause| pause.work == work);
        if !running.is_empty() && !running.iter().any(is_paused) {
            return;
        }
        if let Some((index, cluster)) = self.rng.pick(&running).cloned() {
            self.nodes[index].machine.also(async move {
                drop(cluster.resume(work).await);
            });
        }
        self.plan(self.now + LOOK_AGAIN, Change::Lift(work));
    }

    /// Takes note of what is lost with the disk of node `index`: the cluster, where no majority of its
    /// voters is left.
    fn lose_disk(&mut self, index: usize) {
        let notes = self.notes.get(self.nodes[index].notes);
        if let Some(member) = notes.and_then(|notes| notes.member) {
            self.without_disk.insert(member);
        }
        // The only node there ever was, whether it runs or not.
        self.is_lost |= self.nodes.len() == 1;
        // Whoever votes by anybody's account: a change of voters may be under way.
        let accounts = self.nodes.iter().filter_map(|node| node.probe.cluster());
        let accounts: Vec<Vec<RaftId>> = accounts.map(|node| node.metrics().log.voters).collect();
        self.is_lost |= accounts.iter().any(|voters| {
            let gone = voters.iter().filter(|id| self.without_disk.contains(id));
            gone.count() * 2 >= voters.len()
        });
    }

    /// Lets an operator do something, through any node that runs.
    fn operate(&mut self, fault: &Fault) {
        let running: Vec<usize> = (0..self.nodes.len())
            .filter(|&index| self.nodes[index].probe.cluster().is_some())
            .collect();
        let Some(&picked) = self.rng.pick(&running) else {
            return;
        };
        let index = match fault {
            // Leaving is what a node does itself.
            Fault::Drain {
                node, leave: true, ..
            } => match self.running(*node) {
                Some(index) => index,
                None => return,
            },
            _ => picked,
        };
        if let Fault::Remove { node, .. }
        | Fault::Drain {
            node, leave: true, ..
        } = fault
            && let Some(gone) = self.index(*node)
        {
            let left = self.nodes.iter().filter(|node| !node.dismissed).count();
            if left < 2 {
                return;
            }
            if matches!(fault, Fault::Remove { force: true, .. }) {
                self.wiped(self.nodes[gone].number);
            }
            self.nodes[gone].dismissed = true;
        }
        let Some(cluster) = self.nodes[index].probe.cluster() else {
            return;
        };
        let fault = fault.clone();
        self.nodes[index].machine.also(command(cluster, fault));
    }

    fn worsen(&mut self, worse: Weather, until: Duration) {
        self.fabric.weather(|weather| {
            weather.extra += worse.extra;
            weather.loss += worse.loss;
            weather.reorder += worse.reorder;
            weather.duplicate += worse.duplicate;
        });
        self.plan(until, Change::Clear(worse));
    }

    fn cut(&mut self, from: Side, to: Side, both: bool, until: Duration) {
        let mut pairs = Vec::new();
        for from in self.side(from) {
            for to in self.side(to) {
                if from != to {
                    pairs.push((from, to));
                    if both {
                        pairs.push((to, from));
                    }
                }
            }
        }
        for (from, to) in &pairs {
            self.fabric.cut(*from, *to);
        }
        self.plan(until, Change::Mend(pairs));
    }

    fn side(&self, side: Side) -> Vec<IpAddr> {
        let here = |node: &&Node| match side {
            Side::Node(number) => node.number == number,
            Side::Zone(zone) => node.zone == zone,
        };
        self.nodes
            .iter()
            .filter(here)
            .map(|node| node.host)
            .collect()
    }

    pub(super) fn index(&self, number: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.number == number)
    }

    fn running(&self, number: u32) -> Option<usize> {
        self.index(number)
            .filter(|&index| self.nodes[index].machine.is_running())
    }
}

/// What an operator does; whether it works is not their concern.
async fn command(cluster: ClusterKit, fault: Fault) {
    let id = |number: u32| NodeId::new(format!("node-{number}"));
    let result = match fault {
        Fault::Drain { leave: true, .. } => cluster.leave().await,
        Fault::Drain { node, on, .. } => match id(node) {
            Ok(node) if on => cluster.drain(&node).await,
            Ok(node) => cluster.undrain(&node).await,
            Err(_) => Ok(()),
        },
        Fault::Remove { node, force } => match id(node) {
            Ok(node) => cluster.remove(&node, force).await,
            Err(_) => Ok(()),
        },
        Fault::Weight { node, weight } => match id(node) {
            Ok(node) => cluster.set_weight(&node, weight).await,
            Err(_) => Ok(()),
        },
        Fault::Zone { node, zone } => match id(node) {
            Ok(node) => cluster.set_zone(&node, &format!("zone-{zone}")).await,
            Err(_) => Ok(()),
        },
        Fault::Factor { copies } => cluster.set_replication_factor(copies).await,
        Fault::Rebalance {} => cluster.rebalance().await.map(|_| ()),
        Fault::PauseMoves { work, .. } => cluster.pause(work, "drawn").await,
        _ => Ok(()),
    };
    drop(result);
}

//! The scenarios: how a cluster is formed, what happens to it, and that it must heal.
//!
//! Each ends in the same place, [`Test::settle`]: every node shows the same whole and balanced map,
//! writes flow, and every acknowledged record is readable and on every copy.

mod cuts;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use indicatif::ProgressBar;

use super::audit;
use super::register::Registers;
use super::writer::Writer;
use crate::harness::{Cluster, Manner, Mark, Network, NetworkArg, Store};
use crate::kv::Records;
use crate::random::Random;
use crate::verdict;

/// How long a cluster may take to heal.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// How long a failover may take until every partition has a live primary.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);
/// How many further writes must be acknowledged before going on.
const WRITES: usize = 40;

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    #[value(name = "form-1")]
    Form1,
    #[value(name = "form-3")]
    Form3,
    #[value(name = "form-5")]
    Form5,
    JoinOneByOne,
    JoinAllAtOnce,
    KillFollower,
    KillLeader,
    Pause,
    KillAllRestartAll,
    WipeOneDisk,
    RejoinOtherAddress,
    Drain,
    KillTwo,
    KillWhileMoving,
    Leave,
    Weight,
    Zones,
    ReplicationFactor,
    CutLeaderOneWay,
    CutLeaderBothWays,
    CutLeaderFromOne,
    CutFollower,
    PausePrimary,
    KillPrimary,
}

impl Scenario {
    /// Returns the name on the command line.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Says what happens.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Form1 => "one node forms a cluster",
            Self::Form3 => "three nodes start at once, each with the list of all three",
            Self::Form5 => "five nodes start at once, each with the list of all five",
            Self::JoinOneByOne => "a cluster of one grows node by node, under load",
            Self::JoinAllAtOnce => "all others join a cluster of one at the same time, under load",
            Self::KillFollower => "kill -9 of a follower, restart on its disk",
            Self::KillLeader => "kill -9 of the Raft leader, restart on its disk",
            Self::Pause => "SIGSTOP of a node until it is replaced, then SIGCONT",
            Self::KillAllRestartAll => "kill -9 of every node, restart of every node (always redb)",
            Self::WipeOneDisk => "kill -9 of a node, its disk is lost, it comes back empty",
            Self::RejoinOtherAddress => "kill -9 of a node, restart on its disk with other ports",
            Self::Drain => "a node is drained under load and then stopped",
            Self::KillTwo => "kill -9 of two of five nodes at once, restart of both",
            Self::KillWhileMoving => "kill -9 of a node while a new one takes its share, restart",
            Self::Leave => "SIGTERM of a node under load: it hands over, leaves and ends",
            Self::Weight => "a node takes three shares, then one again, under load",
            Self::Zones => "a third of the nodes moves into a zone, then another, under load",
            Self::ReplicationFactor => "one copy fewer, two more, one fewer, under load",
            Self::CutLeaderOneWay => "the leader hears nobody, or nobody hears it; then healed",
            Self::CutLeaderBothWays => "the leader is cut off from all others; then healed",
            Self::CutLeaderFromOne => {
                "leader and one follower lose each other, nobody else; then healed"
            }
            Self::CutFollower => "a follower is cut off from all others; then healed",
            Self::PausePrimary => "SIGSTOP of a primary for three removals, then SIGCONT",
            Self::KillPrimary => "kill -9 of a primary, often the leader, restart on its disk",
        }
    }

    /// Returns how many nodes take part when the command line names none, and the fewest.
    const fn nodes(self) -> (usize, usize) {
        match self {
            Self::Form1 => (1, 1),
            Self::Form5 => (5, 5),
            Self::JoinOneByOne | Self::JoinAllAtOnce => (4, 2),
            Self::KillTwo => (5, 5),
            Self::CutLeaderOneWay
            | Self::CutLeaderBothWays
            | Self::CutFollower
            | Self::PausePrimary
            | Self::KillPrimary => (3, 3),
            Self::Drain | Self::KillWhileMoving | Self::Leave => (4, 4),
            Self::Weight | Self::ReplicationFactor | Self::CutLeaderFromOne => (5, 5),
            Self::Zones => (6, 6),
            Self::Form3
            | Self::KillFollower
            | Self::KillLeader
            | Self::Pause
            | Self::KillAllRestartAll
            | Self::WipeOneDisk
            | Self::RejoinOtherAddress => (3, 3),
        }
    }

    /// Tells whether nodes are cut off from each other.
    const fn needs_network(self) -> bool {
        matches!(
            self,
            Self::CutLeaderOneWay
                | Self::CutLeaderBothWays
                | Self::CutLeaderFromOne
                | Self::CutFollower
        )
    }

    /// Tells whether the number of nodes is part of the scenario's name.
    const fn is_fixed(self) -> bool {
        matches!(self, Self::Form1 | Self::Form3 | Self::Form5)
    }
}

/// One run of one scenario.
#[derive(Debug)]
pub(super) struct Test {
    cluster: Cluster,
    scenario: Scenario,
    seed: u64,
    ids: Vec<String>,
    random: Random,
    records: Option<Arc<Records>>,
    writer: Option<Writer>,
    /// From where on as little must move as can.
    mark: Option<Mark>,
    registers: Option<Registers>,
    manner: Manner,
    /// Which kind of network the nodes are on.
    network: &'static str,
    progress: ProgressBar,
}

impl Test {
    /// Prepares a run; `nodes` of 0 means the scenario's own number.
    pub(super) fn new(
        binary: &Path,
        mut manner: Manner,
        network: NetworkArg,
        scenario: Scenario,
        seed: u64,
        nodes: usize,
        progress: ProgressBar,
    ) -> anyhow::Result<Self> {
        let (usual, fewest) = scenario.nodes();
        let count = if nodes == 0 || scenario.is_fixed() {
            usual
        } else {
            nodes.max(fewest)
        };
        // With every process gone, what was in memory is gone: nothing could be asserted.
        if scenario == Scenario::KillAllRestartAll {
            manner.store = Store::Redb;
        }
        let mut cluster = Cluster::new(binary, manner)?;
        let mut kind = "";
        if scenario.needs_network() {
            let network = Network::new(network)?;
            kind = network.about();
            cluster.connect(network);
        }
        let ids: Vec<String> = (1..=count).map(|number| format!("node-{number}")).collect();
        for id in &ids {
            cluster.add(id)?;
        }
        let random = Random::new(seed);
        let (records, writer) = (None, None);
        Ok(Self {
            cluster,
            scenario,
            seed,
            ids,
            random,
            records,
            writer,
            mark: None,
            registers: None,
            manner,
            network: kind,
            progress,
        })
    }

    /// Keeps logs and data, and says where.
    pub(super) fn keep_directory(&mut self) -> PathBuf {
        self.cluster.keep_directory()
    }

    /// Says how much was written.
    pub(super) fn summary(&self) -> String {
        let writes = self.writer.as_ref().map(Writer::summary);
        let writes = writes.or_else(|| self.registers.as_ref().map(Registers::summary));
        let mut summary = format!("{} nodes, {}", self.ids.len(), writes.unwrap_or_default());
        if !self.network.is_empty() {
            summary.push_str(&format!(", {}", self.network));
        }
        summary
    }

    /// Runs the scenario to its end.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        match self.scenario {
            Scenario::Form1 | Scenario::Form3 | Scenario::Form5 => self.form().await?,
            Scenario::JoinOneByOne => self.join_one_by_one().await?,
            Scenario::JoinAllAtOnce => self.join_all_at_once().await?,
            Scenario::KillFollower => self.kill_follower().await?,
            Scenario::KillLeader => self.kill_leader().await?,
            Scenario::Pause => self.pause().await?,
            Scenario::KillAllRestartAll => self.kill_all_restart_all().await?,
            Scenario::WipeOneDisk => self.wipe_one_disk().await?,
            Scenario::RejoinOtherAddress => self.rejoin_other_address().await?,
            Scenario::Drain => self.drain().await?,
            Scenario::KillTwo => self.kill_two().await?,
            Scenario::KillWhileMoving => self.kill_while_moving().await?,
            Scenario::Leave => self.leave().await?,
            Scenario::Weight => self.weight().await?,
            Scenario::Zones => self.zones().await?,
            Scenario::ReplicationFactor => self.replication_factor().await?,
            Scenario::CutLeaderOneWay => return self.cut_leader_one_way().await,
            Scenario::CutLeaderBothWays => return self.cut_leader_both_ways().await,
            Scenario::CutLeaderFromOne => return self.cut_leader_from_one().await,
            Scenario::CutFollower => return self.cut_follower().await,
            Scenario::PausePrimary => return self.pause_primary().await,
            Scenario::KillPrimary => return self.kill_primary().await,
        }
        self.settle().await
    }

    async fn form(&mut self) -> anyhow::Result<()> {
        self.form_of(&self.ids.clone()).await
    }

    /// Starts `ids` at once, each with the same list; the first of the list forms the cluster.
    async fn form_of(&mut self, ids: &[String]) -> anyhow::Result<()> {
        self.form_healthy(ids).await?;
        self.write().await
    }

    async fn form_healthy(&mut self, ids: &[String]) -> anyhow::Result<()> {
        let members = ids.iter().map(|id| self.cluster.member(id));
        let seeds = members.map(|member| Ok(member?.address()));
        let seeds: Vec<String> = seeds.collect::<anyhow::Result<_>>()?;
        for id in ids {
            self.cluster.start(id, &seeds)?;
        }
        self.healed("the cluster to form").await
    }

    async fn join_one_by_one(&mut self) -> anyhow::Result<()> {
        self.first_node().await?;
        for id in self.ids.clone().iter().skip(1) {
            let seeds = self.cluster.seeds();
            self.mark().await?;
            self.cluster.start(id, &seeds)?;
            self.healed(&format!("{id} to hold its share")).await?;
            self.moved_the_minimum().await?;
        }
        Ok(())
    }

    async fn join_all_at_once(&mut self) -> anyhow::Result<()> {
        self.first_node().await?;
        let seeds = self.cluster.seeds();
        for id in self.ids.clone().iter().skip(1) {
            self.cluster.start(id, &seeds)?;
        }
        Ok(())
    }

    async fn kill_follower(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        self.mark().await?;
        let leader = self.leader().await?;
        let followers: Vec<String> = self
            .ids
            .iter()
            .filter(|id| **id != leader)
            .cloned()
            .collect();
        let victim = self.random.pick(&followers).context("no follower")?.clone();
        self.kill_and_restart(&victim).await
    }

    async fn kill_leader(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        self.mark().await?;
        let leader = self.leader().await?;
        self.kill_and_restart(&leader).await
    }

    /// A node that comes back in time costs no copy: what it holds is kept for it.
    async fn kill_and_restart(&mut self, victim: &str) -> anyhow::Result<()> {
        self.cluster.kill(victim)?;
        self.failed_over(victim).await?;
        self.more_writes().await?;
        self.cluster.restart(victim)
    }

    async fn pause(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let victim = self.any()?;
        self.mark().await?;
        self.cluster.pause(&victim)?;
        self.failed_over(&victim).await?;
        self.more_writes().await?;
        self.cluster.resume(&victim)
    }

    async fn kill_all_restart_all(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        self.mark().await?;
        for id in self.ids.clone() {
            self.cluster.kill(&id)?;
        }
        for id in self.ids.clone() {
            self.cluster.restart(&id)?;
        }
        Ok(())
    }

    async fn wipe_one_disk(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let victim = self.any()?;
        self.cluster.kill(&victim)?;
        self.cluster.wipe(&victim)?;
        self.failed_over(&victim).await?;
        self.cluster.restart(&victim)
    }

    async fn rejoin_other_address(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let victim = self.any()?;
        self.mark().await?;
        self.cluster.kill(&victim)?;
        self.cluster.readdress(&victim)?;
        let others = self.cluster.seeds();
        self.failed_over(&victim).await?;
        self.cluster.start(&victim, &others)
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let victim = self.any()?;
        self.mark().await?;
        self.cluster.drain(&victim).await?;
        self.note(&format!("draining {victim}"));
        let look = async |cluster: &Cluster| {
            let view = cluster.newest_view().await?;
            let holds = view.primaries_of(&victim) + view.replicas_of(&victim);
            ensure!(holds == 0, "{victim} still holds {holds} copies");
            Ok(())
        };
        self.cluster
            .wait_until("the drained node to be empty", HEAL_LIMIT, look)
            .await?;
        self.more_writes().await?;
        self.cluster.stop(&victim, Duration::from_secs(10)).await
    }

    async fn kill_two(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let first = self.any()?;
        let others: Vec<String> = self
            .ids
            .iter()
            .filter(|id| **id != first)
            .cloned()
            .collect();
        let second = self.random.pick(&others).context("no second node")?.clone();
        self.cluster.kill(&first)?;
        self.cluster.kill(&second)?;
        self.failed_over(&first).await?;
        self.failed_over(&second).await?;
        self.more_writes().await?;
        self.cluster.restart(&first)?;
        self.cluster.restart(&second)
    }

    async fn kill_while_moving(&mut self) -> anyhow::Result<()> {
        let (last, first) = self.ids.split_last().context("no node")?;
        let (last, first) = (last.clone(), first.to_vec());
        self.form_of(&first).await?;
        let seeds = self.cluster.seeds();
        self.cluster.start(&last, &seeds)?;
        self.note("waiting for a move");
        let look = async |cluster: &Cluster| {
            let moving = cluster
                .newest_view()
                .await?
                .partitions
                .iter()
                .any(|row| row.is_moving());
            ensure!(moving, "nothing moves");
            Ok(())
        };
        self.cluster
            .wait_until("a move", FAILOVER_LIMIT, look)
            .await?;
        let victim = self.any()?;
        self.kill_and_restart(&victim).await
    }

    async fn leave(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let victim = self.any()?;
        self.mark().await?;
        self.note(&format!("{victim} leaves"));
        self.cluster.stop(&victim, HEAL_LIMIT).await?;
        let view = self.cluster.newest_view().await?;
        ensure!(
            !view.nodes.contains_key(&victim),
            "{victim} has left and is still a member"
        );
        Ok(())
    }

    async fn weight(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let node = self.any()?;
        for weight in [3, 1] {
            self.mark().await?;
            self.cluster.set_weight(&node, weight).await?;
            let look = async |cluster: &Cluster| {
                let row = cluster.newest_view().await?.nodes.remove(&node);
                let present = row.map_or(0, |row| row.weight);
                ensure!(present == weight, "{node} has weight {present}");
                Ok(())
            };
            self.rebalanced(&format!("{node} to take {weight} shares"), look)
                .await?;
        }
        Ok(())
    }

    /// Each change of a zone is an event of its own: the cluster rebalances after each.
    async fn zones(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        let chosen: Vec<String> = self.ids.iter().step_by(3).cloned().collect();
        for (zone, node) in ["north", "south"]
            .iter()
            .flat_map(|zone| chosen.iter().map(move |node| (zone, node)))
        {
            self.mark().await?;
            self.cluster.set_zone(node, zone).await?;
            let look = async |cluster: &Cluster| {
                let row = cluster.newest_view().await?.nodes.remove(node);
                let present = row.map(|row| row.zone).unwrap_or_default();
                ensure!(present == *zone, "{node} is in zone `{present}`");
                Ok(())
            };
            self.rebalanced(&format!("{node} to be in zone {zone}"), look)
                .await?;
        }
        Ok(())
    }

    async fn replication_factor(&mut self) -> anyhow::Result<()> {
        self.form().await?;
        for copies in [2, 4, 3] {
            self.mark().await?;
            self.cluster.set_replication_factor(copies).await?;
            let look = async |cluster: &Cluster| {
                let wanted = cluster.newest_view().await?.replication_factor;
                ensure!(wanted == copies, "{wanted} copies are wanted");
                Ok(())
            };
            self.rebalanced(&format!("{copies} copies of everything"), look)
                .await?;
        }
        Ok(())
    }

    /// Waits until a change is known and carried out, and checks what it moved.
    async fn rebalanced<F>(&mut self, what: &str, known: F) -> anyhow::Result<()>
    where
        F: AsyncFnMut(&Cluster) -> anyhow::Result<()>,
    {
        self.cluster.wait_until(what, HEAL_LIMIT, known).await?;
        self.healed(what).await?;
        self.more_writes().await?;
        self.moved_the_minimum().await
    }

    /// Measures from here on what moves.
    async fn mark(&mut self) -> anyhow::Result<()> {
        self.mark = Some(self.cluster.mark().await?);
        Ok(())
    }

    /// Checks that no more moved since [`Self::mark`] than had to, on what every node says.
    async fn moved_the_minimum(&mut self) -> anyhow::Result<()> {
        let Some(mark) = self.mark.take() else {
            return Ok(());
        };
        let movement = self.cluster.moved_since(&mark).await?;
        let view = self.cluster.newest_view().await?;
        verdict::moved_the_minimum(&mark.view, &view, &movement)?;
        Ok(())
    }

    /// Starts the first node alone, and the writer.
    async fn first_node(&mut self) -> anyhow::Result<()> {
        let first = self.ids.first().context("no node")?.clone();
        self.cluster.start(&first, &[])?;
        self.healed("the first node").await?;
        self.write().await
    }

    /// Starts the writer and waits until it has written.
    async fn write(&mut self) -> anyhow::Result<()> {
        let records = Arc::new(Records::connect(&self.cluster.seeds()).await?);
        self.writer = Some(Writer::start(&records, &self.scenario.name(), self.seed));
        self.records = Some(records);
        self.more_writes().await
    }

    /// Waits until further writes are acknowledged.
    async fn more_writes(&mut self) -> anyhow::Result<()> {
        self.note("waiting for writes");
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        let wanted = writer.acknowledged() + WRITES;
        let look = async |_: &Cluster| {
            let done = writer.acknowledged();
            ensure!(
                done >= wanted,
                "{done} of {wanted} acknowledged; {}",
                writer.last_error()
            );
            Ok(())
        };
        self.cluster
            .wait_until("writes to be acknowledged", HEAL_LIMIT, look)
            .await?;
        Ok(())
    }

    /// Waits until every partition is served by somebody else than `victim`.
    async fn failed_over(&mut self, victim: &str) -> anyhow::Result<()> {
        self.note(&format!("waiting for the failover of {victim}"));
        let look = async |cluster: &Cluster| {
            let views = cluster.views().await?;
            verdict::agreed(&views)?;
            views
                .values()
                .try_for_each(|view| verdict::served(view, victim))
        };
        let what = format!("every partition of {victim} to be served by another node");
        self.cluster.wait_until(&what, FAILOVER_LIMIT, look).await?;
        Ok(())
    }

    /// Waits until every running node shows the same healed cluster.
    async fn healed(&mut self, what: &str) -> anyhow::Result<()> {
        self.note(&format!("waiting for {what}"));
        let look =
            async |cluster: &Cluster| verdict::healed(&cluster.views().await?, &cluster.up());
        self.cluster.wait_until(what, HEAL_LIMIT, look).await?;
        Ok(())
    }

    /// Waits until the cluster has healed, and checks everything that must hold then.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.healed("the cluster to heal").await?;
        self.more_writes().await?;
        let writer = self.writer.as_mut().context("nothing was written")?;
        let acknowledged = writer.finish().await?;
        self.healed("the cluster to stay whole").await?;
        self.moved_the_minimum().await?;
        let ready = async |cluster: &Cluster| cluster.all_ready().await;
        self.cluster
            .wait_until("every node to be ready", FAILOVER_LIMIT, ready)
            .await?;
        let records = Arc::clone(self.records.as_ref().context("no client")?);
        self.note(&format!("reading {} records back", acknowledged.len()));
        audit::readable(&records, &acknowledged).await?;
        self.note("comparing every copy");
        let view = self.cluster.newest_view().await?;
        audit::on_every_copy(&self.cluster, &records, &view, &acknowledged).await?;
        self.cluster.check_no_panic()
    }

    async fn leader(&mut self) -> anyhow::Result<String> {
        let look = async |cluster: &Cluster| cluster.leader().await.map(|_| ());
        self.cluster
            .wait_until("one leader", FAILOVER_LIMIT, look)
            .await?;
        self.cluster.leader().await
    }

    fn any(&mut self) -> anyhow::Result<String> {
        Ok(self.random.pick(&self.ids).context("no node")?.clone())
    }

    fn note(&self, what: &str) {
        self.progress.set_message(format!(
            "{} (seed {}): {what}",
            self.scenario.name(),
            self.seed
        ));
    }
}

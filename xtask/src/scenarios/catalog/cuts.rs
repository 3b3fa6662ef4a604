//! Scenarios in which nodes are cut off from each other, stand still or die, under a register
//! workload.
//!
//! Clients reach every node all the time: what must not happen is that a node which the others
//! have replaced accepts their writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{FAILOVER_LIMIT, HEAL_LIMIT, Test, WRITES};
use crate::harness::{Cluster, Network};
use crate::kv::Records;
use crate::scenarios::audit;
use crate::scenarios::register::{self, Registers};
use crate::verdict;

/// How long one register may take to be read at the end.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How many times the time a silent node is removed after a fault lasts at least.
const REMOVALS: u32 = 3;
/// How long a leader and a follower lose each other at least.
const CUT_LASTS: Duration = Duration::from_secs(10);
/// How long it may take, once the leases are over that the old leader granted, until somebody leads who
/// hears everybody and every primary has a lease again.
const BACK_LIMIT: Duration = Duration::from_secs(10);

impl Test {
    pub(super) async fn cut_leader_one_way(&mut self) -> anyhow::Result<()> {
        self.form_registers().await?;
        let leader = self.leader().await?;
        if self.random.next().is_multiple_of(2) {
            self.note(&format!("nobody hears {leader}, the leader"));
            self.cluster.network()?.mute(&leader)?;
        } else {
            self.note(&format!("{leader}, the leader, hears nobody"));
            self.cluster.network()?.deafen(&leader)?;
        }
        self.replaced_and_healed(&leader).await
    }

    pub(super) async fn cut_leader_both_ways(&mut self) -> anyhow::Result<()> {
        self.form_registers().await?;
        let leader = self.leader().await?;
        self.cluster.network()?.isolate(&leader)?;
        self.replaced_and_healed(&leader).await
    }

    /// Everybody but the leader hears the follower, so it stays; somebody leads who hears it.
    pub(super) async fn cut_leader_from_one(&mut self) -> anyhow::Result<()> {
        self.form_registers().await?;
        let mark = self.cluster.mark().await?;
        let leader = self.leader().await?;
        let victim = self.follower_of(&leader)?;
        self.note(&format!(
            "{leader}, the leader, and {victim} lose each other"
        ));
        let watch = crate::clock::Stopwatch::start();
        let network = self.cluster.network()?;
        network.cut(&leader, &victim)?;
        network.cut(&victim, &leader)?;
        let removal = self.manner.profile.removal();
        tokio::time::sleep(removal).await;
        let registers = self.registers.as_ref().context("nothing is written")?;
        let since = registers.elapsed();
        // Where both hold a copy, the program's own replication needs the very link that is cut.
        let view = self.cluster.newest_view().await?;
        let torn = |partition: u64| {
            let row = usize::try_from(partition)
                .ok()
                .and_then(|at| view.partitions.get(at));
            [&leader, &victim]
                .iter()
                .all(|id| row.is_some_and(|row| row.holders().any(|holder| *holder == **id)))
        };
        let look = async |_: &Cluster| {
            let (silent, of) = registers.silent_since(since, |partition| !torn(partition));
            let error = registers.last_error();
            ensure!(of > 0, "every register is on both {leader} and {victim}");
            ensure!(
                silent == 0,
                "{silent} of {of} registers are silent; {error}"
            );
            Ok(())
        };
        let what = "every register that the cut leaves alone to accept writes again";
        self.cluster.wait_until(what, BACK_LIMIT, look).await?;
        let least = CUT_LASTS.max(removal * REMOVALS);
        tokio::time::sleep(least.saturating_sub(watch.elapsed())).await;
        let led_by = self.leader().await?;
        ensure!(led_by != leader, "{leader} leads on and misses {victim}");
        self.more_accepted().await?;
        self.cluster.nobody_left_since(&mark).await?;
        self.note("healing the network");
        self.cluster.network().and_then(Network::heal)?;
        self.settle_registers().await?;
        self.cluster.nobody_left_since(&mark).await?;
        self.cluster.all_ready().await
    }

    fn follower_of(&mut self, leader: &str) -> anyhow::Result<String> {
        let followers = self.ids.iter().filter(|id| **id != leader);
        let followers: Vec<String> = followers.cloned().collect();
        Ok(self.random.pick(&followers).context("no follower")?.clone())
    }

    pub(super) async fn cut_follower(&mut self) -> anyhow::Result<()> {
        self.form_registers().await?;
        let leader = self.leader().await?;
        let victim = self.follower_of(&leader)?;
        self.cluster.network()?.isolate(&victim)?;
        self.replaced_and_healed(&victim).await
    }

    pub(super) async fn pause_primary(&mut self) -> anyhow::Result<()> {
        self.form_registers().await?;
        let view = self.cluster.newest_view().await?;
        let primaries = self.ids.iter().filter(|id| view.primaries_of(id) > 0);
        let primaries: Vec<String> = primaries.cloned().collect();
        let victim = self.random.pick(&primaries).context("no primary")?.clone();
        self.cluster.pause(&victim)?;
        self.replaced_and_lasted(&victim).await?;
        self.note(&format!("{victim} runs on"));
        self.cluster.resume(&victim)?;
        self.settle_registers().await
    }

    pub(super) async fn kill_primary(&mut self) -> anyhow::Result<()> {
        self.form_registers().await?;
        let leader = self.leader().await?;
        let view = self.cluster.newest_view().await?;
        let primaries = self.ids.iter().filter(|id| view.primaries_of(id) > 0);
        let primaries: Vec<String> = primaries.cloned().collect();
        let any = self.random.pick(&primaries).context("no primary")?.clone();
        let is_leader = self.random.next().is_multiple_of(2) && view.primaries_of(&leader) > 0;
        let victim = if is_leader { leader } else { any };
        self.note(&format!("kill -9 of {victim}"));
        self.cluster.kill(&victim)?;
        self.replaced_and_lasted(&victim).await?;
        self.note(&format!("{victim} starts again"));
        self.cluster.restart(&victim)?;
        self.settle_registers().await
    }

    async fn form_registers(&mut self) -> anyhow::Result<()> {
        self.form_healthy(&self.ids.clone()).await?;
        let records = Arc::new(Records::connect(&self.cluster.seeds()).await?);
        self.registers = Some(Registers::start(&records));
        self.records = Some(records);
        self.more_accepted().await
    }

    async fn replaced_and_healed(&mut self, victim: &str) -> anyhow::Result<()> {
        self.replaced_and_lasted(victim).await?;
        self.note("healing the network");
        self.cluster.network().and_then(Network::heal)?;
        self.settle_registers().await
    }

    /// Waits until the others have replaced `victim` and serve, and the fault has lasted a while.
    async fn replaced_and_lasted(&mut self, victim: &str) -> anyhow::Result<()> {
        let watch = crate::clock::Stopwatch::start();
        let others: Vec<String> = self
            .ids
            .iter()
            .filter(|id| *id != victim)
            .cloned()
            .collect();
        self.note(&format!("waiting for the others to replace {victim}"));
        let look = async |cluster: &Cluster| {
            let mut views = BTreeMap::new();
            for id in &others {
                views.insert(id.clone(), cluster.view_of(id).await?);
            }
            verdict::agreed(&views)?;
            let mut views = views.values();
            views.try_for_each(|view| verdict::served(view, victim))
        };
        let what = format!("every partition of {victim} to be served by another node");
        self.cluster.wait_until(&what, FAILOVER_LIMIT, look).await?;
        self.more_accepted().await?;
        let least = self.manner.profile.removal() * REMOVALS;
        tokio::time::sleep(least.saturating_sub(watch.elapsed())).await;
        self.more_accepted().await
    }

    /// Waits until further writes are accepted.
    async fn more_accepted(&mut self) -> anyhow::Result<()> {
        let registers = self.registers.as_ref().context("nothing is written")?;
        let wanted = registers.accepted() + WRITES;
        let look = async |_: &Cluster| {
            let done = registers.accepted();
            let error = registers.last_error();
            ensure!(done >= wanted, "{done} of {wanted} accepted; {error}");
            Ok(())
        };
        self.cluster
            .wait_until("writes to be accepted", HEAL_LIMIT, look)
            .await?;
        Ok(())
    }

    /// Waits until the cluster has healed, and judges all that was written.
    async fn settle_registers(&mut self) -> anyhow::Result<()> {
        self.healed("the cluster to heal").await?;
        self.more_accepted().await?;
        let registers = self.registers.as_mut().context("nothing was written")?;
        let history = registers.finish().await?;
        self.healed("the cluster to stay whole").await?;
        self.note(&format!("judging {} writes", history.accepted.len()));
        register::check(&history)?;
        let records = Arc::clone(self.records.as_ref().context("no client")?);
        let (mut found, mut held) = (BTreeMap::new(), Vec::new());
        for write in &history.accepted {
            if found.contains_key(&write.key) {
                continue;
            }
            let value = records.get(&write.key, READ_LIMIT).await?;
            let text = value.as_deref().map(String::from_utf8_lossy);
            found.insert(write.key.clone(), text.and_then(|text| text.parse().ok()));
            held.extend(value.map(|value| (write.key.clone(), value)));
        }
        register::check_final(&history, &found)?;
        let view = self.cluster.newest_view().await?;
        audit::on_every_copy(&self.cluster, &records, &view, &held).await?;
        self.cluster.check_no_panic()
    }
}

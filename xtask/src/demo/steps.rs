//! The steps of the demo, in the order they are run.
//!
//! What a healed cluster is stands in `verdict`; starting and killing processes is the harness's.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use console::style;
use futures_util::{StreamExt, stream};

use super::Demo;
use crate::clock::{Stopwatch, human};
use crate::harness::{Cluster, Mark, View};
use crate::kv::Records;
use crate::ui::{self, headline, say};
use crate::{picture, verdict};

/// How long a step may take to heal.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// How long one record may take, failover included.
const RECORD_LIMIT: Duration = Duration::from_secs(15);
/// How many records are on their way at once.
const IN_FLIGHT: usize = 16;
/// How many writes wait for the failover.
const PROBES: usize = 4;

impl Demo {
    /// Runs all steps.
    pub(super) async fn steps(&mut self) -> anyhow::Result<()> {
        let whole = Stopwatch::start();
        self.form().await?;
        self.load().await?;
        let killed = self.kill_leader().await?;
        self.bring_back(&killed).await?;
        self.add("node-4").await?;
        self.add("node-5").await?;
        self.reweigh("node-5", 2).await?;
        self.share_a_zone(&["node-1", "node-4"], "rack-a").await?;
        self.replicate(2).await?;
        self.replicate(3).await?;
        self.drain("node-2").await?;
        self.show(&self.cluster.newest_view().await?);
        self.cluster.check_no_panic()?;
        say(&format!("all steps took {}", human(whole.elapsed())));
        Ok(())
    }

    async fn form(&mut self) -> anyhow::Result<()> {
        headline("1. form: three processes at once");
        let ids = ["node-1", "node-2", "node-3"];
        for id in ids {
            self.cluster.add(id)?;
        }
        let seed = [self.cluster.member("node-1")?.address()];
        let watch = Stopwatch::start();
        self.cluster.start("node-1", &[])?;
        self.cluster.start("node-2", &seed)?;
        self.cluster.start("node-3", &seed)?;
        let ready = async |cluster: &Cluster, id: &str, nodes: u64| {
            let seen = cluster.readiness(id).await?;
            ensure!(seen.ready && seen.nodes >= nodes, "{id} says {seen:?}");
            Ok(())
        };
        let wait = ui::spinner("waiting for the first node".to_owned());
        let look = async |cluster: &Cluster| ready(cluster, "node-1", 1).await;
        self.cluster
            .wait_until("the first node to be ready", HEAL_LIMIT, look)
            .await?;
        let first = watch.elapsed();
        wait.set_message("waiting for three nodes");
        let look = async |cluster: &Cluster| {
            for id in ids {
                ready(cluster, id, 3).await?;
            }
            Ok(())
        };
        self.cluster
            .wait_until("three nodes to be ready", HEAL_LIMIT, look)
            .await?;
        let three = watch.elapsed();
        wait.finish_and_clear();
        for member in self.cluster.members() {
            let pid = member.pid().unwrap_or_default();
            say(&format!(
                "{}  http://{}  kv on port {}  pid {pid}",
                member.id,
                member.address(),
                member.kv_port
            ));
        }
        self.note(format!(
            "first node ready after {}",
            style(human(first)).green()
        ));
        self.note(format!(
            "three nodes ready after {}",
            style(human(three)).green()
        ));
        let view = self.healed("three nodes with every copy").await?;
        self.records = Some(Records::connect(&self.cluster.seeds()).await?);
        self.show(&view);
        self.row("form three nodes", watch.elapsed(), None, 0);
        Ok(())
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        let count = self.input.records.len();
        headline(&format!("2. load: {count} records, {}", self.input.origin));
        let watch = Stopwatch::start();
        let bar = ui::bar("writing", u64::try_from(count)?);
        let records = self.records()?;
        let mut writes = stream::iter(&self.input.records)
            .map(|(key, value)| records.put(key, value, RECORD_LIMIT))
            .buffer_unordered(IN_FLIGHT);
        while let Some(written) = writes.next().await {
            written?;
            bar.inc(1);
        }
        drop(writes);
        bar.finish_and_clear();
        let took = watch.elapsed();
        let rate = f64::from(u32::try_from(count)?) / took.as_secs_f64();
        say(&format!(
            "{count} records, {} kB in {} ({rate:.0}/s)",
            self.input.bytes() / 1000,
            human(took)
        ));
        let verified = self.verify().await?;
        self.row("load", took, None, verified);
        Ok(())
    }

    async fn kill_leader(&mut self) -> anyhow::Result<String> {
        let leader = self.cluster.leader().await?;
        headline(&format!("3. kill -9 {leader}, the Raft leader"));
        let mark = self.cluster.mark().await?;
        let before = &mark.view;
        let most = before
            .nodes
            .keys()
            .map(|id| before.primaries_of(id))
            .max()
            .unwrap_or_default();
        say(&format!(
            "{leader} is primary of {} of {} partitions (most: {most})",
            before.primaries_of(&leader),
            before.partitions.len()
        ));
        let probes = self.keys_owned_by(&leader)?;
        let value = b"written after the kill".to_vec();
        let watch = Stopwatch::start();
        self.cluster.kill(&leader)?;
        let wait = ui::spinner("writing to partitions that lost their primary".to_owned());
        let records = self.records()?;
        let mut writes: stream::FuturesUnordered<_> = probes
            .iter()
            .map(|key| records.put(key, &value, HEAL_LIMIT))
            .collect();
        let mut first = None;
        while let Some(written) = writes.next().await {
            written?;
            first.get_or_insert_with(|| watch.elapsed());
        }
        let last = watch.elapsed();
        drop(writes);
        wait.finish_and_clear();
        let first = first.context("no key belongs to the leader")?;
        self.note(format!(
            "writes flow again {} after kill -9 of {leader} (all {} probed partitions after {})",
            style(human(first)).green(),
            probes.len(),
            human(last)
        ));
        self.input
            .records
            .extend(probes.into_iter().map(|key| (key, value.clone())));
        let dead = leader.clone();
        let look = async |cluster: &Cluster| {
            let views = cluster.views().await?;
            verdict::agreed(&views)?;
            views
                .values()
                .try_for_each(|view| verdict::served(view, &dead))
        };
        self.cluster
            .wait_until("every partition to have a live primary", HEAL_LIMIT, look)
            .await?;
        let took = watch.elapsed();
        say(&format!("new leader: {}", self.cluster.leader().await?));
        let view = self.cluster.newest_view().await?;
        self.show(&view);
        let moved = self.moved(&mark, &view).await?;
        let verified = self.verify().await?;
        self.row(&format!("kill -9 {leader}"), took, Some(moved), verified);
        Ok(leader)
    }

    async fn bring_back(&mut self, id: &str) -> anyhow::Result<()> {
        headline(&format!("4. restart {id} on its disk"));
        let mark = self.cluster.mark().await?;
        let watch = Stopwatch::start();
        // The node that formed the cluster had no seeds; its disk is what brings it back.
        self.cluster.restart(id)?;
        let view = self.healed("the cluster to be whole again").await?;
        self.finish(&format!("restart {id}"), watch, &mark, &view)
            .await
    }

    async fn add(&mut self, id: &str) -> anyhow::Result<()> {
        headline(&format!("{}. add {id}", self.rows.len() + 1));
        let mark = self.cluster.mark().await?;
        let watch = Stopwatch::start();
        let seeds = self.cluster.seeds();
        self.cluster.add(id)?;
        self.cluster.start(id, &seeds)?;
        let view = self.healed("the new node to hold its share").await?;
        self.finish(&format!("add {id}"), watch, &mark, &view).await
    }

    async fn reweigh(&mut self, id: &str, weight: u32) -> anyhow::Result<()> {
        headline(&format!(
            "{}. {id} takes {weight} shares",
            self.rows.len() + 1
        ));
        let mark = self.cluster.mark().await?;
        let watch = Stopwatch::start();
        self.cluster.set_weight(id, weight).await?;
        let view = self.healed("the node to hold its new share").await?;
        self.finish(&format!("weight {weight} for {id}"), watch, &mark, &view)
            .await
    }

    /// Puts nodes that stood alone into one zone: no partition may have two copies there any more.
    async fn share_a_zone(&mut self, ids: &[&str], zone: &str) -> anyhow::Result<()> {
        let who = ids.join(" and ");
        headline(&format!("{}. {who} share a zone", self.rows.len() + 1));
        let mark = self.cluster.mark().await?;
        let watch = Stopwatch::start();
        for id in ids {
            self.cluster.set_zone(id, zone).await?;
        }
        let known = async |cluster: &Cluster| {
            let view = cluster.newest_view().await?;
            for id in ids {
                let present = view.nodes.get(*id).map(|row| row.zone.as_str());
                ensure!(present == Some(zone), "{id} is in {present:?}");
            }
            Ok(())
        };
        self.cluster
            .wait_until("the zone to be known", HEAL_LIMIT, known)
            .await?;
        let view = self.healed("one copy at most in the zone").await?;
        self.finish(&format!("zone {zone}"), watch, &mark, &view)
            .await
    }

    async fn replicate(&mut self, copies: usize) -> anyhow::Result<()> {
        headline(&format!(
            "{}. {copies} copies of everything",
            self.rows.len() + 1
        ));
        let mark = self.cluster.mark().await?;
        let watch = Stopwatch::start();
        self.cluster.set_replication_factor(copies).await?;
        let wanted = async |cluster: &Cluster| {
            let view = cluster.newest_view().await?;
            ensure!(
                view.replication_factor == copies,
                "{} copies are wanted",
                view.replication_factor
            );
            Ok(())
        };
        self.cluster
            .wait_until("the change to be known", HEAL_LIMIT, wanted)
            .await?;
        let view = self.healed("every copy to be there").await?;
        self.finish(&format!("{copies} copies"), watch, &mark, &view)
            .await
    }

    async fn drain(&mut self, id: &str) -> anyhow::Result<()> {
        headline(&format!("{}. drain {id}", self.rows.len() + 1));
        let mark = self.cluster.mark().await?;
        let watch = Stopwatch::start();
        self.cluster.drain(id).await?;
        let wait = ui::spinner(format!("moving data away from {id}"));
        let look = async |cluster: &Cluster| {
            let view = cluster.newest_view().await?;
            let holds = view.primaries_of(id) + view.replicas_of(id);
            ensure!(holds == 0, "{id} still holds {holds} copies");
            Ok(())
        };
        self.cluster
            .wait_until("the drained node to be empty", HEAL_LIMIT, look)
            .await?;
        wait.finish_and_clear();
        say(&format!(
            "{id} holds nothing after {}",
            human(watch.elapsed())
        ));
        self.cluster.stop(id, Duration::from_secs(10)).await?;
        let view = self.healed("the others to be whole").await?;
        self.finish(&format!("drain {id}"), watch, &mark, &view)
            .await
    }

    /// Says something that also belongs below the closing table.
    fn note(&mut self, text: String) {
        say(&text);
        self.notes.push(text);
    }

    /// Waits until every running node shows the same healed cluster.
    async fn healed(&mut self, what: &str) -> anyhow::Result<View> {
        let bar = ui::bar("copies in place", 0);
        let look = async |cluster: &Cluster| {
            let (views, up) = (cluster.views().await?, cluster.up());
            if let Some(view) = views.values().next() {
                let (done, wanted) = verdict::copies_in_place(view, &up);
                bar.set_length(u64::try_from(wanted)?);
                bar.set_position(u64::try_from(done)?);
            }
            verdict::healed(&views, &up)
        };
        self.cluster.wait_until(what, HEAL_LIMIT, look).await?;
        bar.finish_and_clear();
        self.cluster.newest_view().await
    }

    async fn finish(
        &mut self,
        step: &str,
        watch: Stopwatch,
        mark: &Mark,
        view: &View,
    ) -> anyhow::Result<()> {
        let took = watch.elapsed();
        say(&format!("healed after {}", style(human(took)).green()));
        print!("{}", picture::balance(&mark.view, view, ui::is_terminal()));
        let moved = self.moved(mark, view).await?;
        let verified = self.verify().await?;
        self.row(step, took, Some(moved), verified);
        Ok(())
    }

    /// Says what moved, and what had to. Fails when more moved, or when the cluster cannot prove
    /// what had to.
    async fn moved(&self, mark: &Mark, view: &View) -> anyhow::Result<(usize, usize)> {
        let movement = self.cluster.moved_since(mark).await?;
        let (moved, minimum) = (movement.copied, movement.minimum()?);
        say(&format!(
            "moved {}, minimum {minimum}{}",
            style(moved).green(),
            match movement.plans.len() {
                0 => " (no plan was made)",
                _ => " (proven by the certificate of the plan)",
            }
        ));
        verdict::moved_the_minimum(&mark.view, view, &movement)?;
        Ok((moved, minimum))
    }

    /// Reads every record back and compares it byte for byte.
    async fn verify(&self) -> anyhow::Result<usize> {
        let count = self.input.records.len();
        let records = self.records()?;
        let bar = ui::bar("reading back", u64::try_from(count)?);
        let mut reads = stream::iter(&self.input.records)
            .map(async |(key, value)| (key, value, records.get(key, RECORD_LIMIT).await))
            .buffer_unordered(IN_FLIGHT);
        let (mut verified, mut wrong) = (0, Vec::new());
        while let Some((key, value, read)) = reads.next().await {
            bar.inc(1);
            match read {
                Ok(Some(found)) if found == *value => verified += 1,
                Ok(Some(found)) => {
                    wrong.push(format!(
                        "{key}: {} bytes, expected {}",
                        found.len(),
                        value.len()
                    ));
                }
                Ok(None) => wrong.push(format!("{key}: lost")),
                Err(error) => wrong.push(format!("{key}: {error:#}")),
            }
        }
        bar.finish_and_clear();
        if !wrong.is_empty() {
            let shown = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
            bail!(
                "{} of {count} records do not read back: {shown}",
                wrong.len()
            );
        }
        say(&format!(
            "{verified} of {count} records read back byte for byte"
        ));
        Ok(verified)
    }

    fn keys_owned_by(&self, node: &str) -> anyhow::Result<Vec<String>> {
        let records = self.records()?;
        let mut partitions = BTreeSet::new();
        let mut keys = Vec::new();
        for number in 0..100_000 {
            let key = format!("demo/after-the-kill-{number}");
            let (partition, primary) = records.locate(&key);
            if primary.as_deref() == Some(node) && partitions.insert(partition) {
                keys.push(key);
                if keys.len() == PROBES {
                    break;
                }
            }
        }
        Ok(keys)
    }
}

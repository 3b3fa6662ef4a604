//! What moved in a cluster between two moments: its events say what was copied, its plans what had
//! to be.
//!
//! Asked of every running node, since every node must give the same answer. Whether as little moved
//! as could is judged by `verdict`.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use clusterkit_core::event::ChangeStage;
use clusterkit_http::api::v1::{EventBody, EventsDocument, PlanDocument, PlansDocument};
use clusterkit_http::client::HttpRequest;

use super::observe::LOOK_LIMIT;
use super::{Cluster, View};

/// How many events are asked for at once.
const PAGE: usize = 1_000;

/// A moment in the life of a cluster, to measure from.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// What the cluster looked like.
    pub(crate) view: View,
    event: u64,
    plan: u64,
}

/// What moved since a [`Mark`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Movement {
    /// Copies begun on nodes that did not hold the partition before, those in vain included.
    pub(crate) copied: usize,
    /// The plans carried out.
    pub(crate) plans: Vec<PlanDocument>,
}

impl Movement {
    /// Returns the fewest copies that the plans needed, as their certificates prove.
    pub(crate) fn minimum(&self) -> anyhow::Result<usize> {
        let proven = self.plans.iter().map(|plan| {
            plan.minimum
                .with_context(|| format!("the minimum of plan {:?} is not proven", plan.plan))
        });
        proven.sum()
    }
}

impl Cluster {
    /// Takes note of what the cluster looks like now.
    pub(crate) async fn mark(&self) -> anyhow::Result<Mark> {
        let id = self.up().into_iter().next().context("no node runs")?;
        let end: EventsDocument = self.read(&id, &events_after(u64::MAX)).await?;
        let plans: PlansDocument = self.read(&id, "/v1/plans").await?;
        let newest = plans.plans.first().and_then(|plan| plan.plan);
        Ok(Mark {
            view: self.newest_view().await?,
            event: end.next_after.0,
            plan: newest.map_or(plans.after.0, |plan| plan.0),
        })
    }

    /// Returns what moved since `mark`, on which every running node must agree.
    pub(crate) async fn moved_since(&self, mark: &Mark) -> anyhow::Result<Movement> {
        let mut seen: Option<(String, Movement)> = None;
        for id in self.up() {
            let movement = Movement {
                copied: self.copied_since(&id, mark).await?,
                plans: self.plans_since(&id, mark).await?,
            };
            match &seen {
                None => seen = Some((id, movement)),
                Some((first, other)) => ensure!(
                    *other == movement,
                    "{first} and {id} differ about what moved: {other:?}, {movement:?}"
                ),
            }
        }
        seen.map(|(_, movement)| movement).context("no node runs")
    }

    /// Checks that no running node was told since `mark` that a node has left, or failed.
    pub(crate) async fn nobody_left_since(&self, mark: &Mark) -> anyhow::Result<()> {
        for id in self.up() {
            let left = |event: &EventBody| matches!(event, EventBody::NodeLeft { .. });
            let left = self.told_since(&id, mark, left).await?;
            ensure!(left == 0, "{id} was told {left} times that a node has left");
        }
        Ok(())
    }

    async fn copied_since(&self, id: &str, mark: &Mark) -> anyhow::Result<usize> {
        let copied = |event: &EventBody| is_new_copy(event, &mark.view);
        self.told_since(id, mark, copied).await
    }

    /// Returns how many events like `this` the node was told since `mark`.
    async fn told_since(
        &self,
        id: &str,
        mark: &Mark,
        this: impl Fn(&EventBody) -> bool,
    ) -> anyhow::Result<usize> {
        let (mut after, mut told) = (mark.event, 0);
        loop {
            let page: EventsDocument = self.read(id, &events_after(after)).await?;
            told += page.events.iter().filter(|event| this(&event.body)).count();
            after = page.next_after.0;
            if !page.has_more {
                return Ok(told);
            }
        }
    }

    async fn plans_since(&self, id: &str, mark: &Mark) -> anyhow::Result<Vec<PlanDocument>> {
        let known: PlansDocument = self.read(id, "/v1/plans").await?;
        ensure!(
            known.after.0 <= mark.plan,
            "{id} remembers no plan up to log entry {}, asked for those after {}",
            known.after,
            mark.plan
        );
        let is_later = |plan: &PlanDocument| plan.plan.is_some_and(|plan| plan.0 > mark.plan);
        Ok(known.plans.into_iter().filter(is_later).collect())
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        id: &str,
        path: &str,
    ) -> anyhow::Result<T> {
        let address = self.member(id)?.address();
        let request = HttpRequest::get(path).within(LOOK_LIMIT);
        let answer = self.http.json(&address, request).await;
        answer.with_context(|| format!("{id} does not answer {path}"))
    }
}

fn events_after(cursor: u64) -> String {
    format!("/v1/events?limit={PAGE}&after={cursor}")
}

/// Tells whether a node that held nothing of the partition in `before` was told to copy it.
fn is_new_copy(event: &EventBody, before: &View) -> bool {
    let EventBody::PartitionChanged {
        partition,
        stage: ChangeStage::Syncing,
        target,
        ..
    } = event
    else {
        return false;
    };
    let row = before.partitions.get(partition.index());
    let holders: BTreeSet<&String> = row.into_iter().flat_map(|row| row.holders()).collect();
    !holders.contains(target)
}

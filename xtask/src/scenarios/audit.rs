//! The last look at a cluster: every acknowledged record, through the client and on every copy.
//!
//! That the nodes agree and the map is whole was checked before (`verdict`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, stream};

use crate::harness::{Cluster, View};
use crate::kv::{Records, encode};

const READ_LIMIT: Duration = Duration::from_secs(10);
const IN_FLIGHT: usize = 16;

/// Reads every acknowledged record back through the client.
pub(super) async fn readable(
    records: &Records,
    acknowledged: &[(String, Vec<u8>)],
) -> anyhow::Result<()> {
    let mut reads = stream::iter(acknowledged)
        .map(async |(key, value)| (key, value, records.get(key, READ_LIMIT).await))
        .buffer_unordered(IN_FLIGHT);
    let mut wrong = Vec::new();
    while let Some((key, value, read)) = reads.next().await {
        match read {
            Ok(Some(found)) if found == *value => {}
            Ok(Some(_)) => wrong.push(format!("`{key}` has another value")),
            Ok(None) => wrong.push(format!(
                "`{key}` is lost (partition {})",
                records.locate(key).0
            )),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    complain(&wrong, acknowledged.len(), "acknowledged records")
}

/// Compares what every holder of every partition has with what was acknowledged.
pub(super) async fn on_every_copy(
    cluster: &Cluster,
    records: &Records,
    view: &View,
    acknowledged: &[(String, Vec<u8>)],
) -> anyhow::Result<()> {
    let mut expected: BTreeMap<usize, Vec<&(String, Vec<u8>)>> = BTreeMap::new();
    for record in acknowledged {
        expected
            .entry(records.locate(&record.0).0)
            .or_default()
            .push(record);
    }
    let mut copies = Vec::new();
    for (partition, records) in &expected {
        let row = view
            .partitions
            .get(*partition)
            .context("a partition beyond the map")?;
        for holder in row.holders().filter(|holder| !row.behind.contains(holder)) {
            copies.push((*partition, holder, records));
        }
    }
    let count = copies.len();
    let mut looks = stream::iter(copies)
        .map(async |(partition, holder, records)| {
            let address = cluster.member(holder)?.kv_address();
            let held = cluster.holdings(&address, partition).await?;
            let lost =
                |record: &&&(String, Vec<u8>)| held.get(&record.0) != Some(&encode(&record.1));
            let missing: Vec<&str> = records
                .iter()
                .filter(lost)
                .map(|(key, _)| key.as_str())
                .collect();
            ensure!(
                missing.is_empty(),
                "the copy of partition {partition} on {holder} lacks {} of {}: {}",
                missing.len(),
                records.len(),
                missing[0]
            );
            Ok(())
        })
        .buffer_unordered(IN_FLIGHT);
    let mut wrong = Vec::new();
    while let Some(look) = looks.next().await {
        if let Err(error) = look {
            wrong.push(format!("{error:#}"));
        }
    }
    complain(&wrong, count, "copies")
}

fn complain(wrong: &[String], of: usize, what: &str) -> anyhow::Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    let shown = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    bail!("{} of {of} {what} are wrong: {shown}", wrong.len());
}

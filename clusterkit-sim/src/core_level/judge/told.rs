//! Whoever has something new to do is told so.

use clusterkit_core::event::{ChangeStage, PartitionChanged, Role};
use clusterkit_core::id::{PartitionId, RaftId, StageId};
use clusterkit_core::partition::{Partition, Stage};
use clusterkit_core::state::ClusterState;

use super::super::world::{Check, ensure};

/// Checks that the events `told` say everything that the change from `old` to `new` asks of nodes.
pub(super) fn check(
    id: PartitionId,
    old: &Partition,
    new: &Partition,
    state: &ClusterState,
    told: &[PartitionChanged],
) -> Check {
    let about = |node: RaftId, stage: Option<StageId>, stages: &[ChangeStage]| {
        told.iter().any(|change| {
            (change.partition, change.target) == (id, node)
                && stages.contains(&change.stage)
                && stage.is_none_or(|stage| change.stage_id == stage)
        })
    };
    let ensure_told = |is_told: bool, node: RaftId, what: &str| {
        ensure(is_told, "the-concerned-are-told", || {
            format!("{id}: {node} is not told {what}: {told:?}")
        })
    };
    if let Some(primary) = new.primary.filter(|_| new.primary != old.primary) {
        let promoted = told.iter().any(|change| {
            (change.partition, change.target) == (id, primary)
                && (change.stage, change.role) == (ChangeStage::Switched, Role::Primary)
                && change.new_primary == new.primary
        });
        ensure_told(promoted, primary, "that it leads")?;
        if let Some(old) = old.primary.filter(|&old| state.is_live(old)) {
            let any = [
                ChangeStage::Syncing,
                ChangeStage::Switched,
                ChangeStage::Cleanup,
            ];
            ensure_told(about(old, None, &any), old, "that it leads no more")?;
        }
    }
    for (node, stage) in asked(new) {
        if !asked(old).any(|known| known == (node, stage)) {
            let syncing = [ChangeStage::Syncing];
            ensure_told(about(node, Some(stage), &syncing), node, "to copy")?;
        }
    }
    let stage = releasing_under(new);
    let known = |node: &RaftId| old.leaving().contains(node) && releasing_under(old) == stage;
    for &node in new.leaving().iter().filter(|node| !known(node)) {
        let stages = [ChangeStage::Cleanup, ChangeStage::Reverted];
        ensure_told(about(node, stage, &stages), node, "to let go")?;
    }
    Ok(())
}

fn asked(partition: &Partition) -> impl Iterator<Item = (RaftId, StageId)> + '_ {
    let behind = partition
        .behind
        .iter()
        .filter_map(|behind| Some((behind.node, behind.stage?)));
    let joining = partition
        .joining()
        .iter()
        .map(|joining| (joining.node, joining.stage));
    behind.chain(joining)
}

/// Returns the stage that those who let go answer.
const fn releasing_under(partition: &Partition) -> Option<StageId> {
    match &partition.stage {
        Stage::Stable => None,
        Stage::Syncing(migration) => Some(migration.id),
        Stage::Cleanup { id, .. } => Some(*id),
    }
}

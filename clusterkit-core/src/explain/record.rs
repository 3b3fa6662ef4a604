//! [`PlanRecord`]: what a plan was made from and what came out, to be stored, replayed, explained.
//!
//! The reasons for one partition on one node are found in `pair.rs`, figures in `study.rs`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::cause::Condition;
use super::pair;
use super::study::Study;
use super::{ExplainError, Placed, Reason};
use crate::coordinator::PlanRequest;
use crate::event::PlanTrigger;
use crate::id::{Epoch, NodeId, PartitionId, PlanId, RaftId};
use crate::partition::Stage;
use crate::pause::Work;
use crate::placement::{
    Placement, PlacementError, PlacementInput, PlacementStrategy, ShareBound, Verdict, VerifyError,
    verify,
};
use crate::state::ClusterState;
use crate::time::UnixMillis;

/// What a plan was made from and what came out.
///
/// A pure value: the same record gives the same answers anywhere. It grows with the number of
/// partitions (about 20 bytes each at replication factor 3); whoever keeps records bounds how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlanRecord {
    /// The plan in the log; none for one that was only computed.
    pub plan: Option<PlanId>,
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// What it was computed from: [`ClusterState::plan_basis`].
    pub basis: u64,
    /// When it was computed.
    pub at: UnixMillis,
    /// Why.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<NodeId>,
    /// The name of the strategy; empty where it is not known.
    pub strategy: String,
    /// What the strategy was given.
    pub input: PlacementInput,
    /// What it answered.
    pub placement: Placement,
    /// Per position in [`PlacementInput::nodes`], what the placement does not know of the node.
    pub nodes: Vec<RecordedNode>,
    /// The partitions that were moving, in order.
    pub moving: Vec<PartitionId>,
    /// The partitions that the plan in force was still to move, in order.
    pub waiting: Vec<PartitionId>,
    /// The partitions that stayed as they were because the work of moving them was paused, in
    /// order.
    pub paused: Vec<(PartitionId, Work)>,
    /// How many partitions may move at once.
    pub moves_in_flight: u32,
    /// How many copies one node may receive at once, and as many it may serve.
    pub moves_per_node: u32,
}

/// What a record knows of a node beside what placement was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordedNode {
    /// Its identity within the control plane.
    pub member: RaftId,
    /// Where it stood.
    pub condition: Condition,
}

/// The answer to a question about a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The plan in the log; none for one that was only computed.
    pub plan: Option<PlanId>,
    /// The epoch the plan was computed on.
    pub epoch: Epoch,
    /// When it was computed.
    pub at: UnixMillis,
    /// Why it was made.
    pub trigger: PlanTrigger,
    /// The node that caused it, where there is one.
    pub trigger_node: Option<NodeId>,
    /// The replicas it copies.
    pub moves: u32,
    /// The fewest that any placement within the same bounds needs, proven by the certificate; none
    /// when there is no valid certificate.
    pub minimum: Option<u32>,
    /// What holds for the cluster and the nodes asked about.
    pub reasons: Vec<Reason>,
    /// What holds for the partition asked about, one entry per node concerned.
    pub placed: Vec<Placed>,
}

impl PlanRecord {
    /// Records what `request`, made from `state`, was answered with by `strategy`.
    #[must_use]
    pub fn new(
        state: &ClusterState,
        request: &PlanRequest,
        placement: Placement,
        strategy: &str,
        at: UnixMillis,
    ) -> Self {
        let name = |id: RaftId| state.node_record(id).map(|node| node.id.clone());
        let gone = Condition::GONE;
        let nodes = request.members.iter().map(|&member| RecordedNode {
            member,
            condition: state.node(member).map_or(gone, |node| Condition::of(node)),
        });
        let moving = state
            .partitions_by_id()
            .filter(|(_, partition)| matches!(partition.stage, Stage::Syncing(_)));
        let waiting = state.plan().into_iter().flat_map(|plan| {
            let open = plan.targets.keys();
            open.copied().filter(|&id| {
                let partition = state.partition(id);
                partition.is_some_and(|it| !matches!(it.stage, Stage::Syncing(_)))
            })
        });
        Self {
            plan: None,
            epoch: request.base,
            basis: request.basis,
            at,
            trigger: request.trigger,
            trigger_node: request.trigger_node.and_then(name),
            strategy: String::from(strategy),
            input: request.input.clone(),
            placement,
            nodes: nodes.collect(),
            moving: moving.map(|(id, _)| id).collect(),
            waiting: waiting.collect(),
            paused: state.held_back(),
            moves_in_flight: state.config().moves_in_flight,
            moves_per_node: state.config().moves_per_node,
        }
    }

    /// Computes the placement again: equal to [`Self::placement`] where `strategy` is the one that
    /// made it, unless its answer was refuted and the systematic layout took its place.
    ///
    /// # Errors
    /// [`PlacementError`] when the input is beyond a limit of the strategy.
    pub fn replay(&self, strategy: &dyn PlacementStrategy) -> Result<Placement, PlacementError> {
        strategy.place(&self.input)
    }

    /// Checks the certificate again.
    ///
    /// # Errors
    /// [`VerifyError`] naming the first rule that does not hold.
    pub fn verify(&self) -> Result<Verdict, VerifyError> {
        verify(&self.input, &self.placement)
    }

    /// Tells whether the plan changes the members or the primary of `partition`.
    #[must_use]
    pub fn changes(&self, partition: PartitionId) -> bool {
        let at = partition.index();
        let (before, after) = (&self.input.current, &self.placement.rows);
        before.primary(at) != after.primary(at)
            || before.members(at).count() != after.members(at).count()
            || after.members(at).any(|node| !before.contains(at, node))
    }

    /// Answers why `partition` is where it is, why `node` holds what it holds, or, with both, why
    /// that partition is, or is not, on that node. With neither: every node.
    ///
    /// # Errors
    /// [`ExplainError`] when the record knows no such partition or node.
    pub fn explain(
        &self,
        partition: Option<PartitionId>,
        node: Option<&NodeId>,
    ) -> Result<Explanation, ExplainError> {
        let study = Study::new(self)?;
        let at = node.map(|node| self.position(node)).transpose()?;
        let mut reasons = Vec::new();
        self.explain_cluster(&study, &mut reasons);
        let mut placed = Vec::new();
        if let Some(partition) = partition {
            let last = self.input.partition_count.saturating_sub(1);
            if partition.0 > last {
                return Err(ExplainError::UnknownPartition { partition, last });
            }
            self.explain_progress(partition, &mut reasons);
            match at {
                Some(at) => placed.push(pair::explain(self, &study, partition, at)),
                None => {
                    let concerned = study.concerned(partition);
                    placed.extend(
                        concerned
                            .into_iter()
                            .map(|at| pair::explain(self, &study, partition, at)),
                    );
                }
            }
        }
        match (partition, at) {
            (_, Some(at)) => self.explain_node(&study, at, &mut reasons),
            (None, None) => {
                for at in 0..self.input.nodes.len() {
                    self.explain_node(&study, at, &mut reasons);
                }
            }
            (Some(_), None) => {}
        }
        Ok(Explanation {
            plan: self.plan,
            epoch: self.epoch,
            at: self.at,
            trigger: self.trigger,
            trigger_node: self.trigger_node.clone(),
            moves: self.placement.moves,
            minimum: self.verify().ok().map(|verdict| verdict.moves),
            reasons,
            placed,
        })
    }

    fn position(&self, node: &NodeId) -> Result<usize, ExplainError> {
        let found = self.find(node);
        found.ok_or_else(|| ExplainError::UnknownNode { node: node.clone() })
    }

    pub(super) fn find(&self, node: &NodeId) -> Option<usize> {
        self.input.nodes.iter().position(|known| known.id == *node)
    }

    /// Says what holds for the whole cluster.
    fn explain_cluster(&self, study: &Study<'_>, reasons: &mut Vec<Reason>) {
        let flags = &self.placement.flags;
        if flags.fallback {
            reasons.push(Reason::Fallback);
        }
        let wanted = self.input.replication_factor;
        if study.shares.factor < wanted {
            let nodes = study.shares.factor;
            reasons.push(Reason::UnderReplicated { wanted, nodes });
        }
        let (zones, per_zone) = (study.shares.zones, study.shares.per_zone);
        if zones > 1 && per_zone > 1 {
            reasons.push(Reason::ZoneCap { zones, per_zone });
        }
        let paused = self.paused_work();
        reasons.extend(paused.map(|(work, partitions)| Reason::WorkPaused { work, partitions }));
        let permille = self.input.policy.tolerance_permille;
        if permille > 0 {
            reasons.push(Reason::Tolerance { permille });
        }
    }

    /// Returns the paused work that moving `partition` would have been.
    pub(super) fn paused(&self, partition: PartitionId) -> Option<Work> {
        let found = self.paused.binary_search_by_key(&partition, |&(id, _)| id);
        Some(self.paused.get(found.ok()?)?.1)
    }

    /// Returns how many partitions stayed because work was paused, by work.
    pub(super) fn paused_work(&self) -> impl Iterator<Item = (Work, u32)> + '_ {
        let counted = Work::ALL.iter().map(|&work| {
            let held = self.paused.iter().filter(|(_, held)| *held == work);
            (work, u32::try_from(held.count()).unwrap_or(u32::MAX))
        });
        counted.filter(|&(_, partitions)| partitions > 0)
    }

    /// Says where the move of `partition` stands.
    fn explain_progress(&self, partition: PartitionId, reasons: &mut Vec<Reason>) {
        if self.moving.binary_search(&partition).is_ok() {
            reasons.push(Reason::InFlight { partition });
        } else if let Some(work) = self.paused(partition) {
            reasons.push(Reason::Paused { partition, work });
        } else if self.waiting.binary_search(&partition).is_ok() {
            reasons.push(Reason::Waiting {
                partition,
                in_flight: u32::try_from(self.moving.len()).unwrap_or(u32::MAX),
                in_flight_limit: self.moves_in_flight,
                per_node_limit: self.moves_per_node,
            });
        }
    }

    /// Says why the node at `at` is empty, or holds what it holds.
    fn explain_node(&self, study: &Study<'_>, at: usize, reasons: &mut Vec<Reason>) {
        let known = &self.input.nodes[at];
        let node = || known.id.clone();
        if let Some(cause) = self.cause(at) {
            reasons.push(Reason::TakesNothing {
                node: node(),
                cause,
            });
        }
        let Some(share) = study.shares.nodes[at] else {
            return;
        };
        if self.nodes.get(at).is_some_and(|it| it.condition.is_down()) {
            reasons.push(Reason::AwaitsReturn { node: node() });
        }
        let (before, after) = (study.before[at], study.after[at]);
        reasons.push(Reason::Share {
            node: node(),
            weight: known.weight,
            weights: study.shares.weights,
            replicas: study.shares.replicas,
            before,
            after,
            floor: share.floor,
            ceil: share.ceil,
        });
        if share.bound != ShareBound::Weight {
            reasons.push(Reason::BoundShare {
                node: node(),
                by_weight: share.by_weight,
                floor: share.floor,
                ceil: share.ceil,
                bound: share.bound,
                zone: String::from(&*known.zone),
                zone_nodes: share.zone_nodes,
                zone_least: share.zone_least,
                zone_most: share.zone_most,
            });
        }
        if share.floor + 1 == share.ceil {
            let holders = study.ceil_holders();
            if after == share.ceil {
                reasons.push(Reason::CeilUnit {
                    node: node(),
                    ceil: share.ceil,
                    holders,
                    kept: before >= share.ceil,
                });
            } else if after == share.floor && holders > 0 {
                reasons.push(Reason::FloorUnit {
                    node: node(),
                    floor: share.floor,
                    holders,
                });
            }
        }
        if share.pinned > 0 && self.paused.is_empty() {
            reasons.push(Reason::Pinned {
                node: node(),
                partitions: share.pinned,
            });
        }
        reasons.push(match known.may_lead {
            false => Reason::MayNotLead { node: node() },
            true => Reason::Leads {
                node: node(),
                before: study.led_before[at],
                after: study.led_after[at],
                floor: share.lead_floor,
                ceil: share.lead_ceil,
            },
        });
    }

    /// Returns what keeps the node at `at` from taking data.
    pub(super) fn cause(&self, at: usize) -> Option<super::Cause> {
        let node = self.input.nodes.get(at)?;
        let told = self.nodes.get(at)?.condition.cause(node.weight);
        match node.is_eligible() {
            true => None,
            false => Some(told.unwrap_or(match node.weight {
                0 => super::Cause::WeightZero,
                _ => super::Cause::Draining,
            })),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let all = self.reasons.iter();
        for reason in all.chain(self.placed.iter().flat_map(|placed| &placed.reasons)) {
            if !first {
                f.write_str("\n")?;
            }
            first = false;
            write!(f, "{reason}")?;
        }
        Ok(())
    }
}

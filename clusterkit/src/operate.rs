//! What operators ask of a running cluster: why it is as it is, what a change would move, and the
//! change itself.
//!
//! Explanations and previews are made in `clusterkit_core::explain`, from a plan computed for the
//! question and from the plans of the log, which every node remembers. Here is how a preview is
//! applied: the plan is computed again, compared by its id, and proposed against the epoch it was
//! computed on.

use std::sync::Arc;

use clusterkit_core::adjust::{Adjustment, MayStop, may_stop, what_if};
use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::config::{ConfigChange, ConfigError};
use clusterkit_core::control::{ControlPlane, ProposeError};
use clusterkit_core::coordinator::{PlanRequest, heirs_of, plan_request};
use clusterkit_core::event::PlanTrigger;
use clusterkit_core::explain::{ExplainError, Explanation, PlanRecord, Preview, PreviewId};
use clusterkit_core::id::{Epoch, LogIndex, NodeId, PartitionId, PlanId};
use clusterkit_core::state::ClusterState;
use clusterkit_raft::Execution;

use crate::error::NodeError;
use crate::inner::Inner;
use crate::node::ClusterKit;

/// What a rebalance does, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebalanceReport {
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// How many replicas are copied.
    pub moves: u32,
    /// The fewest copies that any placement within the same bounds needs, proven by the
    /// certificate; none for strategies that promise no minimum.
    pub minimum: Option<u32>,
    /// How many partitions change their primary.
    pub primary_changes: u32,
    /// Whether it was proposed and accepted.
    pub applied: bool,
    /// The plan in force since, none on a preview or when there was nothing to do.
    pub plan: Option<PlanId>,
    /// What to give to [`ClusterKit::apply_rebalance`] to have exactly this done; none for a
    /// change that was only previewed.
    pub id: Option<PreviewId>,
    /// Moves, primary changes, loads before and after, limits that bind.
    pub preview: Preview,
}

/// Why things are as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// From a plan computed for the question, on what this node knows now: why things are where
    /// they are, and what would move if a rebalance began now.
    pub present: Explanation,
    /// From the newest plan in the log that concerned what was asked about: why it moved. None
    /// where none did that this node remembers.
    pub recorded: Option<Explanation>,
    /// The log index after which this node remembers every plan, up to
    /// [`PLANS_KEPT`](clusterkit_core::explain::PLANS_KEPT) of them; 0 for the whole log. A node
    /// that started from a snapshot does not remember the plans before it.
    pub recorded_after: LogIndex,
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.present.fmt(f)
    }
}

impl ClusterKit {
    /// Computes what a rebalance would do now, without doing it.
    ///
    /// # Errors
    /// [`NodeError::Placement`] when no placement can be computed.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn preview_rebalance(&self) -> Result<RebalanceReport, NodeError> {
        self.inner().rebalance(true).await.map(|done| done.report)
    }

    /// Rebalances now: computes a placement and proposes it as the plan.
    ///
    /// # Errors
    /// [`NodeError`]; a plan refused because the topology changed meanwhile can be tried again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn rebalance(&self) -> Result<RebalanceReport, NodeError> {
        self.inner().rebalance(false).await.map(|done| done.report)
    }

    /// Carries out exactly the rebalance that was previewed as `id`, on any node.
    ///
    /// # Errors
    /// [`NodeError::StalePreview`] when the topology changed since, so that the plan is another one
    /// now; nothing was changed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn apply_rebalance(&self, id: PreviewId) -> Result<RebalanceReport, NodeError> {
        let done = self.inner().apply_rebalance(id).await?;
        Ok(done.report)
    }

    /// Says what `adjustment` would move, without carrying it out.
    ///
    /// # Errors
    /// [`NodeError`] as carrying it out would answer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn preview(&self, adjustment: &Adjustment) -> Result<RebalanceReport, NodeError> {
        let done = self.inner().preview(adjustment).await?;
        Ok(done.report)
    }

    /// Changes the share of the data that `node` takes relative to other nodes; 0 empties it. The
    /// cluster then moves what has to move by itself.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such node, or no other would take data.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn set_weight(&self, node: &NodeId, weight: u32) -> Result<(), NodeError> {
        let adjustment = Adjustment::Node {
            node: node.clone(),
            weight: Some(weight),
            zone: None,
        };
        self.inner().adjust(&adjustment).await.map(|_| ())
    }

    /// Changes the failure domain of `node`, at most 256 bytes; empty for none. The cluster then
    /// moves what has to move by itself.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such node, or the text is too long.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn set_zone(&self, node: &NodeId, zone: &str) -> Result<(), NodeError> {
        let adjustment = Adjustment::Node {
            node: node.clone(),
            weight: None,
            zone: Some(Arc::from(zone)),
        };
        self.inner().adjust(&adjustment).await.map(|_| ())
    }

    /// Changes how many copies every partition should have, 1 to 7, the primary included. The
    /// cluster then copies, or gives up, what it takes.
    ///
    /// # Errors
    /// [`NodeError`] when the number is out of bounds.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn set_replication_factor(&self, copies: u32) -> Result<(), NodeError> {
        let change = ConfigChange {
            replication_factor: Some(copies),
            ..ConfigChange::default()
        };
        self.configure(change).await
    }

    /// Changes settings that all nodes share: all that `change` names, or none.
    ///
    /// # Errors
    /// [`NodeError`] naming the field that would be out of bounds.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn configure(&self, change: ConfigChange) -> Result<(), NodeError> {
        let adjustment = Adjustment::Config(change);
        self.inner().adjust(&adjustment).await.map(|_| ())
    }

    /// Says whether `nodes` may be stopped together, and what would be lost where they may not: the
    /// last live copy of a partition, copies below
    /// [`min_in_sync`](crate::ClusterConfig::min_in_sync), the majority of the log.
    ///
    /// It holds for everything committed before the call; what is stopped meanwhile is not foreseen.
    ///
    /// # Errors
    /// [`NodeError::UnknownNode`] naming the first that is no member, [`NodeError::Propose`] where
    /// the log cannot be reached: nothing should be stopped then.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use clusterkit::{ClusterKit, Options};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let options = Options::new("node-1", "127.0.0.1:0").data_dir(dir.path());
    /// # let node = ClusterKit::start(options).await?;
    /// # node.wait_ready(Duration::from_secs(10)).await?;
    /// let alone = node.may_stop(&[node.node_id().clone()]).await?;
    /// assert!(!alone.is_yes(), "it holds the only copies");
    /// # node.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn may_stop(&self, nodes: &[NodeId]) -> Result<MayStop, NodeError> {
        self.inner().may_stop(nodes).await
    }

    /// Says why `partition` is where it is or, with `node`, why it is, or is not, on that node.
    ///
    /// Works on every node: a plan is computed for the question on what this node knows.
    ///
    /// # Errors
    /// [`NodeError::Invalid`] when there is no such partition, [`NodeError::UnknownNode`] when
    /// there is no such node.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn explain(
        &self,
        partition: PartitionId,
        node: Option<&NodeId>,
    ) -> Result<Explained, NodeError> {
        self.inner().explain(Some(partition), node).await
    }

    /// Says why `node` holds what it holds, or nothing.
    ///
    /// # Errors
    /// [`NodeError::UnknownNode`] when there is no such node.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn explain_node(&self, node: &NodeId) -> Result<Explained, NodeError> {
        self.inner().explain(None, Some(node)).await
    }

    /// Returns the last plans of the log that changed something, newest first, as far as this node
    /// remembers them, each with its proof where the strategy of this node can give it.
    ///
    /// # Errors
    /// [`NodeError::Placement`] when a proof cannot be computed.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn plans(&self) -> Result<Vec<PlanRecord>, NodeError> {
        self.inner().plans().await
    }
}

/// A rebalance that was computed, and perhaps proposed.
pub(crate) struct Rebalance {
    pub(crate) report: RebalanceReport,
    pub(crate) record: Arc<PlanRecord>,
}

impl Inner {
    /// Computes a placement of `state` as it stands, and what goes with it.
    async fn plan(
        &self,
        state: &ClusterState,
    ) -> Result<(PlanRequest, Arc<PlanRecord>), NodeError> {
        let request =
            plan_request(state, state.plan_basis()).ok_or_else(|| NodeError::Placement {
                reason: String::from("no node takes data"),
            })?;
        let (request, placement) = self.compute(request).await?;
        let (strategy, at) = (self.settings.strategy.name(), self.clock.wall());
        let record = PlanRecord::new(state, &request, placement, strategy, at);
        Ok((request, Arc::new(record)))
    }

    pub(crate) async fn rebalance(&self, dry_run: bool) -> Result<Rebalance, NodeError> {
        let (request, record) = self.plan(&self.view().state).await?;
        let mut done = report(self.settings.environment.execution, record).await?;
        if !dry_run {
            self.propose_plan(request, &mut done).await?;
        }
        Ok(done)
    }

    pub(crate) async fn apply_rebalance(&self, id: PreviewId) -> Result<Rebalance, NodeError> {
        let mut view = self.view();
        if view.state.epoch() < id.epoch {
            // Another node may have seen more; what is committed will come here, too.
            self.member_control().read_barrier().await?;
            view = self.view();
        }
        let stale = || NodeError::StalePreview {
            id,
            current: view.state.epoch(),
        };
        if view.state.epoch() != id.epoch {
            return Err(stale());
        }
        let (request, record) = self.plan(&view.state).await?;
        if record.preview_id() != id {
            return Err(stale());
        }
        let mut done = report(self.settings.environment.execution, record).await?;
        match self.propose_plan(request, &mut done).await {
            // The log has seen more than this node when it compared.
            Err(NodeError::Propose(ProposeError::Rejected(Rejected::StaleEpoch {
                current,
                ..
            }))) => Err(NodeError::StalePreview { id, current }),
            proposed => proposed.map(|()| done),
        }
    }

    async fn propose_plan(
        &self,
        request: PlanRequest,
        done: &mut Rebalance,
    ) -> Result<(), NodeError> {
        // Whatever is due anyway: it is done now because an operator asked for it.
        let request = PlanRequest {
            trigger: PlanTrigger::Manual,
            trigger_node: None,
            ..request
        };
        let command = request.command(&done.record.placement, self.clock.wall());
        let applied = self.member_control().propose(command).await?;
        let preview = &done.report.preview;
        let moved = !preview.transfers.is_empty() || !preview.primary_changes.is_empty();
        done.report.plan = moved.then_some(PlanId(applied.index.0));
        done.report.applied = true;
        Ok(())
    }

    pub(crate) async fn preview(&self, adjustment: &Adjustment) -> Result<Rebalance, NodeError> {
        let view = self.view();
        let command = adjustment
            .command(&view.state, self.clock.wall())
            .ok_or_else(|| unknown(adjustment))?;
        let then = what_if(&view.state, &command).map_err(ProposeError::Rejected)?;
        let (_, record) = self.plan(&then).await?;
        let mut done = report(self.settings.environment.execution, record).await?;
        // It is a plan for a state that does not exist: it cannot be asked for.
        done.report.id = None;
        done.report.epoch = view.state.epoch();
        Ok(done)
    }

    pub(crate) async fn adjust(&self, adjustment: &Adjustment) -> Result<Applied, NodeError> {
        let state = &self.view().state;
        let mut command = adjustment
            .command(state, self.clock.wall())
            .ok_or_else(|| unknown(adjustment))?;
        if let Command::SetIntent { node, heirs, .. } = &mut command {
            // The strategy shares the roles out; where it cannot, the state takes who is in sync.
            *heirs = heirs_of(&*self.settings.strategy, state, *node);
        }
        Ok(self.member_control().propose(command).await?)
    }

    pub(crate) async fn may_stop(&self, nodes: &[NodeId]) -> Result<MayStop, NodeError> {
        let control = self.member_control();
        control.read_barrier().await?;
        let voters = control.stats().voters;
        may_stop(&self.view().state, nodes, &voters).map_err(|error| NodeError::UnknownNode {
            node: error.node.to_string(),
        })
    }

    pub(crate) async fn explain(
        &self,
        partition: Option<PartitionId>,
        node: Option<&NodeId>,
    ) -> Result<Explained, NodeError> {
        let view = self.view();
        // What cannot be is refused before anything is computed.
        let count = view.state.config().partition_count;
        if let Some(partition) = partition
            && partition.0 >= count
        {
            let limit = format!("a whole number from 0 to {}", count.saturating_sub(1));
            let refused = ConfigError::new("partition", partition, limit);
            return Err(NodeError::Invalid(refused));
        }
        if let Some(node) = node
            && view.state.node_by_id(node.as_str()).is_none()
        {
            let node = node.to_string();
            return Err(NodeError::UnknownNode { node });
        }
        let (_, present) = self.plan(&view.state).await?;
        let (node, plans) = (node.cloned(), view.plans.clone());
        let strategy = Arc::clone(&self.settings.strategy);
        let answered = self.settings.environment.execution.run(move || {
            let node = node.as_ref();
            let mut kept = plans.newest_first();
            let recorded = kept.find(|record| record.concerns(partition, node));
            let proven = recorded.map(|record| record.proven(&*strategy)).transpose();
            let recorded = proven.map_err(ExplainError::Input)?;
            let recorded = recorded.map(|record| record.explain(partition, node));
            Ok(Explained {
                present: present.explain(partition, node)?,
                recorded: recorded.transpose()?,
                recorded_after: plans.after(),
            })
        });
        settle(answered.await)
    }

    pub(crate) async fn plans(&self) -> Result<Vec<PlanRecord>, NodeError> {
        let (plans, strategy) = (
            self.view().plans.clone(),
            Arc::clone(&self.settings.strategy),
        );
        let proven = self.settings.environment.execution.run(move || {
            let proven = plans.newest_first().map(|record| record.proven(&*strategy));
            proven
                .collect::<Result<_, _>>()
                .map_err(ExplainError::Input)
        });
        settle(proven.await)
    }
}

/// Says what carrying `record` out changes.
async fn report(execution: Execution, record: Arc<PlanRecord>) -> Result<Rebalance, NodeError> {
    let shared = Arc::clone(&record);
    let preview = settle(execution.run(move || shared.preview()).await)?;
    let report = RebalanceReport {
        epoch: preview.epoch,
        moves: preview.moves,
        minimum: preview.minimum,
        primary_changes: record.placement.primary_changes,
        applied: false,
        plan: None,
        id: Some(preview.id),
        preview,
    };
    Ok(Rebalance { report, record })
}

/// Turns what work on a thread of its own answered into ours.
fn settle<T>(answered: Result<Result<T, ExplainError>, String>) -> Result<T, NodeError> {
    match answered {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ExplainError::UnknownNode { node })) => Err(NodeError::UnknownNode {
            node: node.to_string(),
        }),
        Ok(Err(error)) => Err(NodeError::Placement {
            reason: error.to_string(),
        }),
        Err(panicked) => Err(NodeError::Placement { reason: panicked }),
    }
}

fn unknown(adjustment: &Adjustment) -> NodeError {
    let node = adjustment.node().map(ToString::to_string);
    NodeError::UnknownNode {
        node: node.unwrap_or_default(),
    }
}

/// Tells whether an operator's change was refused because a value is out of bounds.
pub(crate) const fn is_invalid(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Rejected(Rejected::Invalid(_)))
}

//! [`PlanHistory`]: the last plans of the log, as every node saw them applied.
//!
//! A plan in the log is rows and a reason; what it was made from is the state that it met. Both are
//! at hand on every node when the plan is applied, so every node can say why something moved,
//! whoever computed the plan and whoever leads now. Proofs are not in the log: they are computed
//! again when somebody asks, by [`PlanRecord::proven`].

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::PlanRecord;
use crate::command::{Applied, Command, Rejected};
use crate::coordinator::{PlanRequest, compute, plan_request};
use crate::id::{LogIndex, NodeId, PartitionId, PlanId, RaftId};
use crate::placement::{Placement, PlacementError, PlacementStrategy, Rows, verify};
use crate::state::ClusterState;

/// How many plans a node keeps the records of: about 30 bytes a partition each, at replication
/// factor 3.
pub const PLANS_KEPT: usize = 8;

/// The last plans of the log that changed something, newest last, at most [`PLANS_KEPT`].
///
/// Memory of the process, not part of the replicated state: a node that starts from a snapshot
/// knows only the plans after it, and [`Self::after`] says so.
#[derive(Clone, Debug, Default)]
pub struct PlanHistory {
    after: LogIndex,
    records: Arc<VecDeque<Arc<PlanRecord>>>,
}

impl PlanHistory {
    /// Returns a history that knows nothing of the log up to `after`: 0 for a log read from its
    /// beginning, the last index of a snapshot otherwise.
    #[must_use]
    pub fn starting_after(after: LogIndex) -> Self {
        Self {
            after,
            records: Arc::default(),
        }
    }

    /// Returns the log index after which every plan that changed something is known.
    #[must_use]
    pub const fn after(&self) -> LogIndex {
        self.after
    }

    /// Returns the records, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<PlanRecord>> {
        self.records.iter().rev()
    }

    /// Applies the command at log index `at` to `state` and keeps the record of a plan that was
    /// accepted and changes something.
    ///
    /// # Errors
    /// As [`ClusterState::apply`].
    pub fn apply(
        &mut self,
        state: &mut ClusterState,
        at: LogIndex,
        command: &Command,
    ) -> Result<Applied, Rejected> {
        // What a plan was made from is gone once it is applied.
        let record = PlanRecord::of_command(state, at, command);
        let applied = state.apply(at, command)?;
        if let Some(record) = record.filter(PlanRecord::changes_anything) {
            self.keep(record);
        }
        Ok(applied)
    }

    fn keep(&mut self, record: PlanRecord) {
        let records = Arc::make_mut(&mut self.records);
        if records.len() == PLANS_KEPT
            && let Some(PlanId(index)) = records.pop_front().and_then(|dropped| dropped.plan)
        {
            self.after = LogIndex(index);
        }
        records.push_back(Arc::new(record));
    }
}

impl PlanRecord {
    /// Returns the record of a plan in the log that meets `state`, without its proof; none for
    /// other commands, and for plans computed on another epoch, which are refused.
    fn of_command(state: &ClusterState, index: LogIndex, command: &Command) -> Option<Self> {
        let Command::Plan {
            base,
            trigger,
            trigger_node,
            basis,
            targets,
            at,
        } = command
        else {
            return None;
        };
        if *base != state.epoch() {
            return None;
        }
        let mut request = plan_request(state, *basis)?;
        (request.trigger, request.trigger_node) = (*trigger, *trigger_node);
        let placement = Placement::new(&request.input, rows(&request, targets));
        let mut record = Self::new(state, &request, placement, "", *at);
        record.plan = Some(PlanId(index.0));
        Some(record)
    }

    /// Returns the record with the proof that the log does not carry: the placement is computed
    /// again with `strategy`, and its certificate is kept where it proves these rows, too. Without
    /// such a proof the record is returned as it is.
    ///
    /// # Errors
    /// [`PlacementError`] when the input is beyond a limit of the strategy.
    pub fn proven(&self, strategy: &dyn PlacementStrategy) -> Result<Self, PlacementError> {
        let mut proven = self.clone();
        if self.placement.certificate.is_some() {
            return Ok(proven);
        }
        let (again, _) = compute(&self.input, strategy)?;
        if again.rows == self.placement.rows {
            proven.placement = again;
            proven.strategy = String::from(strategy.name());
        } else if again.certificate.is_some() {
            let mut claimed = self.placement.clone();
            (claimed.certificate, claimed.flags) = (again.certificate, again.flags);
            if verify(&self.input, &claimed).is_ok() {
                proven.placement = claimed;
            }
        }
        Ok(proven)
    }

    /// Tells whether the plan changes anything at all.
    #[must_use]
    pub fn changes_anything(&self) -> bool {
        (0..self.placement.rows.len()).any(|row| self.changes(PartitionId::from_index(row)))
    }

    /// Tells whether the plan has to do with what is asked about: it changes `partition` while it
    /// knows `node`, it gives or takes `node` a copy or a primary, or, with neither, it changes
    /// anything.
    #[must_use]
    pub fn concerns(&self, partition: Option<PartitionId>, node: Option<&NodeId>) -> bool {
        let at = node.map(|node| self.find(node).and_then(|at| u16::try_from(at).ok()));
        let (before, after) = (&self.input.current, &self.placement.rows);
        let touches = |node: u16| {
            (0..after.len()).any(|row| {
                before.contains(row, node) != after.contains(row, node)
                    || (before.primary(row) == Some(node)) != (after.primary(row) == Some(node))
            })
        };
        match (partition, at) {
            (_, Some(None)) => false,
            (Some(partition), _) => self.changes(partition),
            (None, Some(Some(node))) => touches(node),
            (None, None) => self.changes_anything(),
        }
    }
}

/// Returns the rows that `targets` ask for; what they do not name stays.
fn rows(request: &PlanRequest, targets: &[(PartitionId, Vec<RaftId>)]) -> Rows {
    let count = request.input.partition_count as usize;
    let mut named: Vec<Option<&[RaftId]>> = alloc::vec![None; count];
    for (partition, row) in targets {
        if let Some(place) = named.get_mut(partition.index()) {
            *place = Some(row);
        }
    }
    let position = |id: &RaftId| {
        let at = request.members.binary_search(id).ok()?;
        u16::try_from(at).ok()
    };
    let mut rows = Rows::with_capacity(count, request.input.replication_factor as usize);
    for (at, row) in named.into_iter().enumerate() {
        match row {
            Some(row) => rows.push(&row.iter().filter_map(position).collect::<Vec<u16>>()),
            None => rows.push(request.input.current.row(at)),
        }
    }
    rows
}

//! Which nodes may answer a call, and in which order: a decision over one snapshot.
//!
//! A [`RoutingPolicy`] only decides; trying, waiting and refreshing is the call's
//! ([`crate::Call`]), and whether to try again is the [`crate::RetryPolicy`]'s.

use std::fmt;

use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::node::Node;
use clusterkit_core::topology::Topology;

use crate::Role;

/// Who may answer a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadFrom {
    /// The primary only: what writes, and reads that must see the last write, need. The default.
    #[default]
    Primary,
    /// The primary; when it does not answer, in-sync replicas in order of preference.
    PrimaryFirst,
    /// All in-sync members alike: calls are spread over them.
    AnyInSync,
}

/// What a routing decision may depend on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RouteRequest<'a> {
    /// The snapshot to decide over.
    pub topology: &'a Topology,
    /// The partition of the key.
    pub partition: PartitionId,
    /// Who may answer.
    pub read_from: ReadFrom,
    /// The number of the call within this client, for policies that take turns.
    pub turn: u64,
}

impl<'a> RouteRequest<'a> {
    /// Asks for the candidates of call number `turn` on `partition`.
    #[must_use]
    pub const fn new(
        topology: &'a Topology,
        partition: PartitionId,
        read_from: ReadFrom,
        turn: u64,
    ) -> Self {
        Self {
            topology,
            partition,
            read_from,
            turn,
        }
    }
}

/// A node that may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "policies of applications build it"
)]
pub struct Candidate {
    /// The node. One that is not in the snapshot is skipped.
    pub node: RaftId,
    /// Its role for the partition.
    pub role: Role,
}

/// Chooses the candidates of a call and their order.
///
/// Pure and quick: it is asked on every call, and again after every refresh.
pub trait RoutingPolicy: fmt::Debug + Send + Sync + 'static {
    /// Appends to `candidates` who may answer, best first. Nobody at all means: wait for a newer
    /// topology.
    fn route(&self, request: &RouteRequest<'_>, candidates: &mut Vec<Candidate>);
}

/// The default routing: exactly what [`ReadFrom`] says, live nodes before those marked down.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DefaultRouting;

impl RoutingPolicy for DefaultRouting {
    fn route(&self, request: &RouteRequest<'_>, candidates: &mut Vec<Candidate>) {
        let RouteRequest {
            topology,
            partition,
            ..
        } = *request;
        let primary = topology.primary(partition).map(|node| Candidate {
            node: node.raft_id,
            role: Role::Primary,
        });
        candidates.extend(primary);
        if request.read_from == ReadFrom::Primary {
            return;
        }
        let replica = |node: &Node| Candidate {
            node: node.raft_id,
            role: Role::Replica,
        };
        let replicas = topology.in_sync(partition);
        let others = replicas.filter(|node| Some(node.raft_id) != primary.map(|p| p.node));
        let (live, down): (Vec<&Node>, Vec<&Node>) = others.partition(|node| node.status.is_live());
        candidates.extend(live.into_iter().map(replica));
        if request.read_from == ReadFrom::AnyInSync && !candidates.is_empty() {
            let count = candidates.len() as u64;
            let first = usize::try_from(request.turn % count).unwrap_or_default();
            candidates.rotate_left(first);
        }
        // Marked down is an opinion of some moments ago: better than no answer.
        candidates.extend(down.into_iter().map(replica));
    }
}

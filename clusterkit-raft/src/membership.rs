//! The leader's other duty: the members of the log follow the nodes of the cluster.
//!
//! Nodes are admitted and removed by commands; this loop, on the leader only, adds them as
//! learners, makes voters of some ([`choose_voters`]), follows address changes and drops those
//! that are gone. One change at a time, each decided on the membership it changes. Who votes is
//! chosen in `voters.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::{ProposeError, View};
use clusterkit_core::id::RaftId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::BasicNode;
use openraft::{ChangeMembers, Precondition, RaftMetrics};
use tokio::time::Instant;

use crate::clock;
use crate::control_plane::Local;
use crate::types::{LogId, TypeConfig};
use crate::voters::{VoterCandidate, choose_voters};

/// How often the leader looks at least, for what no event announces.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long it rests between two looks, so that a busy log does not keep it busy.
const REST: Duration = Duration::from_millis(20);

/// How many entries a member may lack and still count as caught up.
const CAUGHT_UP_LAG: u64 = 64;

/// How many heartbeats a member that is to go is still sent after its vote was taken away.
const FAREWELL_HEARTBEATS: u32 = 3;

/// How long one change may take before the loop looks again.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

type Metrics = RaftMetrics<TypeConfig>;
type Change = ChangeMembers<u64, BasicNode>;

/// Keeps the membership in step for as long as it runs.
pub(crate) async fn reconcile(local: Arc<Local>) {
    let mut views = local.view.subscribe();
    let mut tenure: Option<Tenure> = None;
    loop {
        let mut is_out_of_place = false;
        let change = {
            let view = Arc::clone(&views.borrow_and_update());
            let metrics = local.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state.is_leader() && view.leadership.is_leader {
                let tenure = tenure.insert(Tenure::at(tenure, &metrics));
                let based_on = *metrics.membership_config.log_id();
                let change = next_change(&local, &view, &metrics, tenure);
                is_out_of_place = change.is_none() && leads_without_a_vote(&local, &metrics);
                change.map(|change| (change, based_on))
            } else {
                tenure = None;
                None
            }
        };
        if let Some((change, based_on)) = change {
            carry_out(&local, change, based_on).await;
        } else if is_out_of_place && let Err(error) = hand_over(&local, &[]).await {
            tracing::warn!(%error, "a leader without a vote could not hand over");
        }
        tokio::time::sleep(REST).await;
        // Whichever comes first: a new view, or time to look again.
        let _ = tokio::time::timeout(LOOK_EVERY, views.changed()).await;
    }
}

/// Since when things are as they are for this leader.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    term: u64,
    /// Since when it leads in this term.
    leading_since: Instant,
    membership: Option<LogId>,
    /// Since when nobody came or went.
    unchanged_since: Instant,
}

impl Tenure {
    /// Returns what it is now, having been `before`.
    fn at(before: Option<Self>, metrics: &Metrics) -> Self {
        let now = clock::now();
        let (term, membership) = (metrics.current_term, *metrics.membership_config.log_id());
        let before = before.filter(|before| before.term == term);
        let same = before.filter(|before| before.membership == membership);
        Self {
            term,
            leading_since: before.map_or(now, |before| before.leading_since),
            membership,
            unchanged_since: same.map_or(now, |same| same.unchanged_since),
        }
    }
}

/// Tells whether this leader votes no more and nothing is under way that would end its leadership:
/// elected amid a change of voters that left it out, it has ended that change, or it could not hand over
/// after one of its own.
fn leads_without_a_vote(local: &Local, metrics: &Metrics) -> bool {
    let this = local.options.raft_id.0;
    let effective = &metrics.membership_config;
    let settled = metrics.committed_membership_config.log_id() == effective.log_id();
    let membership = effective.membership();
    settled && membership.get_node(&this).is_some() && !membership.voter_ids().any(|id| id == this)
}

async fn carry_out(local: &Local, change: Change, based_on: Option<LogId>) {
    tracing::info!(%change, "changing the members of the log");
    let precondition = Precondition::LastMembershipLogId {
        last_membership_log_id: based_on,
    };
    // Whoever votes no more stays as a learner: it is still a member of the cluster, and it may be this
    // leader. Who is no member goes in a step of its own.
    let changed = local
        .raft
        .change_membership_if(change, true, [precondition]);
    match tokio::time::timeout(CHANGE_LIMIT, changed).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the members of the log were not changed"),
        Err(_) => tracing::warn!("changing the members of the log takes long"),
    }
}

/// Returns the next step from the membership as it is to what it should be.
fn next_change(local: &Local, view: &View, metrics: &Metrics, tenure: &Tenure) -> Option<Change> {
    let effective = &metrics.membership_config;
    if metrics.committed_membership_config.log_id() != effective.log_id() {
        return None;
    }
    let membership = effective.membership();
    // A leader that is out leads until its removal is committed, and changes nothing any more.
    membership.get_node(&local.options.raft_id.0)?;
    if membership.get_joint_config().len() > 1 {
        // A leader before this one stopped between the two steps of a change.
        return Some(ChangeMembers::AddVoterIds(BTreeSet::new()));
    }
    // Before the cluster is formed, the log has a member and the state has none.
    view.state.cluster()?;

    let known: BTreeMap<u64, &BasicNode> = membership.nodes().map(|(id, n)| (*id, n)).collect();
    let wanted: BTreeMap<u64, BasicNode> = view
        .state
        .nodes()
        .map(|node| (node.raft_id.0, BasicNode::new(node.peer_address())))
        .collect();
    let current: BTreeSet<u64> = membership.voter_ids().collect();
    let voters = candidates(local, view, metrics, &current, tenure.leading_since);
    if let Some(chosen) = choose_voters(&voters, local.options.max_voters) {
        let chosen: BTreeSet<u64> = chosen.into_iter().map(|id| id.0).collect();
        if chosen != current {
            return Some(ChangeMembers::ReplaceAllVoters(chosen));
        }
    }
    let added: BTreeMap<u64, BasicNode> = wanted
        .iter()
        .filter(|(id, _)| !known.contains_key(id))
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    if !added.is_empty() {
        return Some(ChangeMembers::AddNodes(added));
    }
    let gone: BTreeSet<u64> = known
        .keys()
        .filter(|id| !wanted.contains_key(id) && !current.contains(id))
        .copied()
        .collect();
    // Whoever is out is told nothing more, and one that runs waits to hear that its vote is gone, which
    // comes with a heartbeat.
    let told = clock::now().saturating_duration_since(tenure.unchanged_since)
        >= local.options.heartbeat * FAREWELL_HEARTBEATS;
    if !gone.is_empty() && told {
        return Some(ChangeMembers::RemoveNodes(gone));
    }
    // Safe although it rewrites nodes: an address is followed, and whoever answers there must
    // prove to be this member on its own disk.
    let moved: BTreeMap<u64, BasicNode> = wanted
        .into_iter()
        .filter(|(id, node)| known.get(id).is_some_and(|known| *known != node))
        .collect();
    (!moved.is_empty()).then_some(ChangeMembers::SetNodes(moved))
}

/// Returns what is known of every member that is in the log and stays in the cluster.
fn candidates(
    local: &Local,
    view: &View,
    metrics: &Metrics,
    voters: &BTreeSet<u64>,
    leading_since: Instant,
) -> Vec<VoterCandidate> {
    let this = local.options.raft_id;
    let patience = local.options.member_timeout;
    // A new leader has heard of nobody yet: until it could have, voters count as alive.
    let settled = clock::now().saturating_duration_since(leading_since) >= patience;
    let last = metrics.last_log_index.unwrap_or(0);
    let membership = metrics.membership_config.membership();
    let members = view
        .state
        .nodes()
        .filter(|node| membership.get_node(&node.raft_id.0).is_some());
    members
        .map(|node| {
            let id = node.raft_id;
            let voter = voters.contains(&id.0);
            let heard = metrics
                .heartbeat
                .as_ref()
                .and_then(|acks| acks.get(&id.0).copied().flatten())
                .map(|at| clock::since(at.into_inner()));
            let answers = match heard {
                Some(ago) => ago < patience,
                None => voter && !settled,
            };
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|matched| matched.get(&id.0).cloned().flatten());
            let lag = matched.map(|matched: LogId| last.saturating_sub(matched.index()));
            VoterCandidate {
                id,
                alive: id == this || (node.status.is_live() && answers),
                voter,
                leader: id == this,
                caught_up: id == this || lag.is_some_and(|lag| lag <= CAUGHT_UP_LAG),
                zone: Arc::clone(&node.zone),
            }
        })
        .collect()
}

/// Gives leadership to the voter that is furthest, making one of a learner where there is none.
///
/// A member that has joined just now may not have answered yet, so finding nobody takes a moment
/// where the cluster has other live nodes.
pub(crate) async fn hand_over(local: &Local, preferred: &[RaftId]) -> Result<(), ProposeError> {
    let this = local.options.raft_id;
    let deadline = clock::now() + local.options.propose_timeout;
    let patience = 3 * local.options.election_max;
    let search_until = deadline.min(clock::now() + patience);
    let unfinished = |reason: String| ProposeError::Unknown { reason };
    loop {
        let (target, is_changing) = {
            let metrics = local.raft.metrics();
            let metrics = metrics.borrow_watched();
            if !metrics.state.is_leader() {
                return Ok(());
            }
            let membership = metrics.membership_config.membership();
            let is_changing = membership.get_joint_config().len() > 1;
            (successor(local, &metrics, preferred), is_changing)
        };
        // Between the two steps of a change whoever leads needs the votes of before, too. This member may
        // be the only one of those, and hands over in order to stop.
        if is_changing {
            if clock::now() >= deadline {
                return Err(unfinished(String::from(
                    "a change of the voters does not end",
                )));
            }
            tokio::time::sleep(REST).await;
            continue;
        }
        let Some((target, votes)) = target else {
            let view = local.view.current();
            let alone = !view
                .state
                .nodes()
                .any(|node| node.raft_id != this && node.status.is_live());
            if alone {
                return Ok(());
            }
            if clock::now() >= search_until {
                let reason = String::from("no other member answers");
                return Err(ProposeError::NoLeader { reason });
            }
            tokio::time::sleep(REST).await;
            continue;
        };
        if clock::now() >= deadline {
            return Err(unfinished(format!("member {target} did not take over")));
        }
        if votes {
            let asked = local.raft.trigger().transfer_leader(target.0).await;
            asked.map_err(|error| unfinished(error.to_string()))?;
        } else {
            let based_on = {
                let metrics = local.raft.metrics();
                *metrics.borrow_watched().membership_config.log_id()
            };
            let change = ChangeMembers::ReplaceAllVoters(BTreeSet::from([target.0]));
            let precondition = Precondition::LastMembershipLogId {
                last_membership_log_id: based_on,
            };
            let changed = local
                .raft
                .change_membership_if(change, true, [precondition]);
            let _ = tokio::time::timeout_at(deadline, changed).await;
            // This member leads on as a learner until it is asked to hand over.
            tokio::time::sleep(REST).await;
            continue;
        }
        let mut views = local.view.subscribe();
        let limit = deadline.min(clock::now() + patience);
        let taken = views.wait_for(|view| view.leadership.leader.is_some_and(|l| l != this));
        if let Ok(Ok(_)) = tokio::time::timeout_at(limit, taken).await {
            return Ok(());
        }
    }
}

/// Returns the live member that lacks least, and whether it votes; voters come first, then those
/// that answered just now, then those that are preferred.
fn successor(local: &Local, metrics: &Metrics, preferred: &[RaftId]) -> Option<(RaftId, bool)> {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let (acks, matched) = (metrics.heartbeat.as_ref()?, metrics.replication.as_ref()?);
    let heard_within = |id: &u64, limit: Duration| {
        let heard = acks.get(id).copied().flatten();
        heard.is_some_and(|at| clock::since(at.into_inner()) < limit)
    };
    let answers = |id: &u64| heard_within(id, local.options.member_timeout);
    let others = membership
        .nodes()
        .map(|(id, _)| *id)
        .filter(|id| *id != local.options.raft_id.0 && answers(id));
    others
        .max_by_key(|id| {
            let just_now = heard_within(id, local.options.election_max);
            let matched = matched.get(id).cloned().flatten();
            let wanted = preferred.contains(&RaftId(*id));
            (voters.contains(id), just_now, wanted, matched)
        })
        .map(|id| (RaftId(id), voters.contains(&id)))
}

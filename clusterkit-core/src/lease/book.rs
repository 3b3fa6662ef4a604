//! The leader's end: who may hold a live lease until when, what is granted, and the fence.
//!
//! The rules and why they suffice are in [`super`].

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::{LeadershipProof, LeaseGrant, LeaseRequest, LeaseTiming};
use crate::id::{Epoch, Incarnation, RaftId};
use crate::node::NodeStatus;
use crate::planted::{self, Bug};
use crate::state::ClusterState;
use crate::time::Instant;

/// How many requests of one process wait for a proof; the oldest give way.
const PENDING_MAX: usize = 64;

/// How many epochs wait for a proof; those beyond are seen again later.
const UNPROVEN_MAX: usize = 64;

/// What a leader granted, and what follows from it. Empty and idle while this process follows.
#[derive(Clone, Debug)]
pub struct LeaseBook {
    timing: LeaseTiming,
    era: Option<Era>,
    #[cfg(test)]
    pub(super) flaw: Option<Bug>,
}

/// One leadership.
#[derive(Clone, Debug)]
struct Era {
    term: u64,
    /// When this process learned that it leads: after it was elected.
    since: Instant,
    /// What a process must have applied to be granted a lease: the highest fence that anybody has
    /// said. None until a state of this leadership was seen.
    floor: Option<Epoch>,
    /// What this process had applied when a round began that proved its leadership. What it applies
    /// later may be a successor's.
    applied: Epoch,
    /// What it has applied since, and when it saw that first.
    unproven: VecDeque<(Instant, Epoch)>,
    /// The latest moment at which this leadership is proven.
    proven_at: Option<Instant>,
    /// Whoever may hold a live lease of ours. Invariant: everybody granted one within the wait.
    holders: BTreeMap<(RaftId, Incarnation), Holder>,
    /// When the first lease of `holders` ends, or earlier: nobody is to be dropped before.
    sweep_at: Instant,
    /// What the fence makes of `holders`: it is asked with every request of every node.
    lowest: Option<Lowest>,
    /// Nodes to be marked down: no lease until the log has done so and they are up again.
    condemned: BTreeMap<RaftId, Condemned>,
    /// The epoch on which all of `condemned` were last looked at: it is asked with every request, and
    /// what the log says of nodes changes with the epoch.
    looked: Option<Epoch>,
    /// What the log held a while ago: a process that has not applied it lags too far behind.
    due: Epoch,
    /// When and what to compare with next.
    sampled: (Instant, Epoch),
}

/// The lowest epoch among holders with a possibly live lease. Invariant: what looking at all of them
/// would give, until `until`.
#[derive(Clone, Copy, Debug)]
struct Lowest {
    released: Epoch,
    /// How many of them have applied just that.
    holders: usize,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Condemned {
    /// When it was last proposed.
    proposed_at: Instant,
    /// Whether the log has marked it down.
    marked: bool,
}

impl Era {
    /// Returns when the first lease still live `now` is over.
    fn first_over(&self, now: Instant, wait: Duration) -> Instant {
        let live = self.holders.values().map(|holder| holder.last + wait);
        let live = live.filter(|&over_at| now < over_at);
        live.fold(now + wait, Instant::min)
    }

    /// Returns the lowest epoch that any holder of a possibly live lease has applied, the highest
    /// there is where there are none.
    fn lowest(&mut self, now: Instant, wait: Duration) -> Epoch {
        if let Some(known) = self.lowest.filter(|known| now < known.until) {
            return known.released;
        }
        let until = self.first_over(now, wait);
        let live = self.holders.values().filter(|it| now < it.last + wait);
        let (mut released, mut holders) = (Epoch(u64::MAX), 0);
        for holder in live {
            if holder.released < released {
                (released, holders) = (holder.released, 0);
            }
            holders += usize::from(holder.released == released);
        }
        self.lowest = Some(Lowest {
            released,
            holders,
            until,
        });
        released
    }

    /// Takes note that a holder that had applied `known` has applied `released`, or is new.
    fn forget_lowest(&mut self, known: Option<Epoch>, released: Epoch) {
        let Some(lowest) = &mut self.lowest else {
            return;
        };
        match known {
            Some(known) if released > known && known == lowest.released => {
                lowest.holders = lowest.holders.saturating_sub(1);
                if lowest.holders == 0 {
                    self.lowest = None;
                }
            }
            Some(_) => {}
            None => self.lowest = None,
        }
    }
}

#[derive(Clone, Debug)]
struct Holder {
    /// When the last request that was or may be granted came in.
    last: Instant,
    /// What it had applied by then.
    released: Epoch,
    /// Requests that no proof covers yet, and the last one that a proof does.
    pending: VecDeque<(u64, Instant)>,
}

/// Why a request can never be granted. Asking again, later, may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseRefused {
    /// This process does not lead, or has not looked at the state since it does.
    #[error("this node does not lead")]
    NotLeading,
    /// The node is no live member, or another process of it is.
    #[error("process {incarnation} is not a live process of node {node}")]
    NotLive {
        /// The node.
        node: RaftId,
        /// The process that asked.
        incarnation: Incarnation,
    },
    /// It is being marked down.
    #[error("node {node} is being marked down")]
    Condemned {
        /// The node.
        node: RaftId,
    },
    /// It has not applied what others rely on.
    #[error("node {node} has applied epoch {applied}, a lease needs {needed}")]
    Behind {
        /// The node.
        node: RaftId,
        /// What it has applied.
        applied: Epoch,
        /// What it needs.
        needed: Epoch,
    },
}

impl LeaseBook {
    /// Returns the book of a process that does not lead.
    #[must_use]
    pub const fn new(timing: LeaseTiming) -> Self {
        Self {
            timing,
            era: None,
            #[cfg(test)]
            flaw: None,
        }
    }

    /// Takes note that this process leads in `term`, learned `now`. Idempotent; another term is
    /// another leadership, and whoever led between may have granted leases.
    pub fn lead(&mut self, term: u64, now: Instant) {
        if self.era.as_ref().is_some_and(|era| era.term == term) {
            return;
        }
        self.era = Some(Era {
            term,
            since: now,
            floor: None,
            applied: Epoch(0),
            unproven: VecDeque::new(),
            proven_at: None,
            holders: BTreeMap::new(),
            sweep_at: now,
            lowest: None,
            condemned: BTreeMap::new(),
            looked: None,
            due: Epoch(0),
            sampled: (now, Epoch(0)),
        });
    }

    /// Returns the term in which this process leads.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.era.as_ref().map(|era| era.term)
    }

    /// Takes note that this process does not lead.
    pub fn follow(&mut self) {
        self.era = None;
    }

    /// Takes note of the applied state, which must hold everything that was committed before this
    /// leadership began.
    pub fn observe(&mut self, state: &ClusterState, now: Instant) {
        let wait = self.wait();
        let lease = self.timing.lease;
        let Some(era) = &mut self.era else { return };
        let epoch = state.epoch();
        era.floor.get_or_insert(epoch);
        let known = era.unproven.back().map_or(era.applied, |&(_, epoch)| epoch);
        if epoch > known && era.unproven.len() < UNPROVEN_MAX {
            era.unproven.push_back((now, epoch));
        }
        if era.looked != Some(epoch) {
            era.looked = Some(epoch);
            era.condemned.retain(|&node, condemned| {
                let Some(node) = state.node(node) else {
                    return false;
                };
                let down = node.status == NodeStatus::Down;
                let up_again = condemned.marked && !down;
                condemned.marked |= down;
                !up_again
            });
        }
        if now.saturating_since(era.sampled.0) >= lease {
            era.due = era.sampled.1;
            era.sampled = (now, epoch);
        }
        if now >= era.sweep_at {
            era.holders.retain(|_, holder| now < holder.last + wait);
            era.sweep_at = era.first_over(now, wait);
            era.lowest = None;
        }
    }

    /// Takes in a request that was received `now`, judged by `state` as applied here.
    ///
    /// # Errors
    /// [`LeaseRefused`] when it will not be granted.
    pub fn handle_request(
        &mut self,
        request: &LeaseRequest,
        state: &ClusterState,
        now: Instant,
    ) -> Result<(), LeaseRefused> {
        self.observe(state, now);
        let (node, incarnation) = (request.node, request.incarnation);
        let Some((era, floor)) = self.era.as_mut().and_then(|era| {
            let floor = era.floor?;
            Some((era, floor))
        }) else {
            return Err(LeaseRefused::NotLeading);
        };
        let live = state
            .node(node)
            .is_some_and(|known| known.status.is_live() && known.incarnation == incarnation);
        if !live {
            return Err(LeaseRefused::NotLive { node, incarnation });
        }
        if era.condemned.contains_key(&node) {
            return Err(LeaseRefused::Condemned { node });
        }
        let needed = floor.max(era.due);
        if request.released < needed {
            return Err(LeaseRefused::Behind {
                node,
                applied: request.released,
                needed,
            });
        }
        let known = era.holders.get(&(node, incarnation));
        era.forget_lowest(known.map(|holder| holder.released), request.released);
        let holder = era.holders.entry((node, incarnation)).or_insert(Holder {
            last: now,
            released: request.released,
            pending: VecDeque::new(),
        });
        holder.last = holder.last.max(now);
        holder.released = holder.released.max(request.released);
        if holder.pending.len() == PENDING_MAX {
            holder.pending.pop_front();
        }
        holder.pending.push_back((request.number, now));
        Ok(())
    }

    /// Takes in a proof of leadership. One of another term proves nothing about this one.
    pub fn handle_proof(&mut self, proof: LeadershipProof) {
        if let Some(era) = self.era.as_mut().filter(|era| era.term == proof.term) {
            era.proven_at = era.proven_at.max(Some(proof.begun_at));
            while let Some(&(seen, epoch)) = era.unproven.front()
                && seen <= proof.begun_at
            {
                era.applied = epoch;
                era.unproven.pop_front();
            }
        }
    }

    /// Returns the best grant that can be given to a process `now`: for the newest of its requests
    /// that a proof covers. None when there is none, or the node is being marked down.
    pub fn grant(
        &mut self,
        node: RaftId,
        incarnation: Incarnation,
        now: Instant,
    ) -> Option<LeaseGrant> {
        // Planted: whoever thinks that it leads, leads.
        let unproven = self.is_flawed(Bug::GrantOnDeposedLeader);
        let fence = self.known_fence(now);
        let era = self.era.as_mut()?;
        if era.condemned.contains_key(&node) {
            return None;
        }
        let proven_at = era.proven_at;
        let holder = era.holders.get_mut(&(node, incarnation))?;
        let covered = |(_, received): &&(u64, Instant)| unproven || Some(*received) <= proven_at;
        let &(number, received) = holder.pending.iter().rev().find(covered)?;
        // The same request may be answered again, so that a newer fence gets there.
        holder.pending.retain(|(_, other)| *other >= received);
        // From now on nobody gets a lease who has not applied what this process relies on.
        era.floor = era.floor.max(Some(fence));
        Some(LeaseGrant {
            incarnation,
            number,
            fence,
        })
    }

    /// Returns the highest epoch that every process with a possibly live lease has applied; zero
    /// while predecessors' leases may live.
    #[must_use]
    pub fn fence(&self, now: Instant) -> Epoch {
        let wait = self.wait();
        let Some(era) = &self.era else {
            return Epoch(0);
        };
        if now < era.since + self.predecessors_wait() {
            return Epoch(0);
        }
        let live = era.holders.values().filter(|it| now < it.last + wait);
        let released = live.map(|holder| holder.released);
        released.fold(era.applied, Epoch::min)
    }

    /// Returns [`Self::fence`] without looking at every holder.
    fn known_fence(&mut self, now: Instant) -> Epoch {
        let (wait, predecessors) = (self.wait(), self.predecessors_wait());
        match &mut self.era {
            Some(era) if now >= era.since + predecessors => era.lowest(now, wait).min(era.applied),
            Some(_) | None => Epoch(0),
        }
    }

    /// Returns from when on no process of `node` can hold a live lease, unless it asks again.
    #[must_use]
    pub fn over_at(&self, node: RaftId) -> Instant {
        let wait = self.wait();
        let Some(era) = &self.era else {
            return Instant::FAR_FUTURE;
        };
        let asked = era
            .holders
            .iter()
            .filter(|((holder, _), _)| *holder == node);
        let ours = asked.map(|(_, holder)| holder.last + wait);
        ours.fold(era.since + self.predecessors_wait(), Instant::max)
    }

    /// Tells whether `node` may be marked down `now`: every lease that this leader or one before
    /// could have granted is over.
    #[must_use]
    pub fn may_commit_down(&self, node: RaftId, now: Instant) -> bool {
        self.over_at(node) <= now
    }

    /// Grants `nodes` nothing more until the log has marked them down and up again: they are
    /// proposed `now`, and a proposal may take effect at any later time of this leadership.
    pub fn condemn(&mut self, nodes: &[RaftId], now: Instant) {
        let Some(era) = &mut self.era else { return };
        era.looked = None;
        for &node in nodes {
            let condemned = era.condemned.entry(node).or_insert(Condemned {
                proposed_at: now,
                marked: false,
            });
            condemned.proposed_at = now;
        }
    }

    /// Returns the condemned nodes that the log has not marked down for so long that the proposal
    /// may be lost. They must be proposed again, heard from or not: nothing else ends it.
    #[must_use]
    pub fn unmarked(&self, now: Instant) -> Vec<RaftId> {
        let Some(era) = &self.era else {
            return Vec::new();
        };
        let waiting = era.condemned.iter().filter(|(_, it)| !it.marked);
        let wait = self.timing.wait();
        let overdue = waiting.filter(|(_, it)| it.proposed_at + wait <= now);
        overdue.map(|(&node, _)| node).collect()
    }

    fn wait(&self) -> Duration {
        // Planted: clocks run equally fast.
        match self.is_flawed(Bug::ForgetMargin) {
            true => self.timing.lease,
            false => self.timing.wait(),
        }
    }

    fn predecessors_wait(&self) -> Duration {
        // Planted: as if nobody had led before.
        match self.is_flawed(Bug::SkipLeaseWait) {
            true => Duration::ZERO,
            false => self.wait(),
        }
    }

    #[cfg_attr(
        not(test),
        allow(
            clippy::unused_self,
            reason = "only tests give one book a bug of its own"
        )
    )]
    fn is_flawed(&self, bug: Bug) -> bool {
        #[cfg(test)]
        if self.flaw == Some(bug) {
            return true;
        }
        planted::is_on(bug)
    }
}

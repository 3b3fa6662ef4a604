//! The node's end: its lease by its own clock, and the tokens it may make.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;

use super::{LeaseGrant, LeaseRequest};
use crate::id::{Epoch, Incarnation, PartitionId, RaftId};
use crate::partition::Partition;
use crate::planted::{self, Bug};
use crate::state::ClusterState;
use crate::time::Instant;

/// How many requests are remembered: a grant for an older one is worth nothing any more.
const ASKED_KEPT: usize = 64;

/// The lease of one process: renewed by grants, over by its own clock.
#[derive(Clone, Debug)]
pub struct Lease {
    me: RaftId,
    incarnation: Incarnation,
    lease: Duration,
    /// When the requests not yet answered were sent, oldest first.
    asked: VecDeque<(u64, Instant)>,
    next: u64,
    until: Option<Instant>,
    fence: Epoch,
    /// Tokens are made from this state. Invariant: never replaced by one of an earlier epoch.
    state: Arc<ClusterState>,
    #[cfg(test)]
    pub(super) flaw: Option<Bug>,
}

/// Proof that this process is the only one that may act as primary of a partition.
///
/// It ends at [`Self::valid_until`], and at once when the node learns that the ownership changed:
/// ask [`Lease::check`] before and after what must not happen twice. To storage that others can
/// reach, `(partition, epoch)` is the fencing token: it rises with every change of ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct OwnershipToken {
    partition: PartitionId,
    epoch: Epoch,
    valid_until: Instant,
}

impl OwnershipToken {
    /// Returns the partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Returns the epoch of the ownership.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns when it ends at the latest, by this process's clock. A later token of the same epoch
    /// lasts longer.
    #[must_use]
    pub const fn valid_until(&self) -> Instant {
        self.valid_until
    }
}

/// Why there is no token. Nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoToken {
    /// This process is not the partition's primary. The topology says who is.
    #[error("this process is not the primary of partition {partition}")]
    NotPrimary {
        /// The partition.
        partition: PartitionId,
    },
    /// The lease has run out, or none was granted yet: the leader cannot be reached, or this node
    /// has not caught up. A later try can succeed.
    #[error("the lease of this node is not live")]
    LeaseOver,
    /// The ownership is so young that its predecessor may still act. A later try can succeed.
    #[error("partition {partition} changed hands in epoch {epoch}, and others may be in {fence}")]
    NotReleased {
        /// The partition.
        partition: PartitionId,
        /// When its ownership changed.
        epoch: Epoch,
        /// Up to where everybody is known to have let go.
        fence: Epoch,
    },
    /// The token is of an earlier ownership.
    #[error("partition {partition} was owned again since epoch {given}, in epoch {current}")]
    Superseded {
        /// The partition.
        partition: PartitionId,
        /// The token's epoch.
        given: Epoch,
        /// The present one.
        current: Epoch,
    },
}

impl Lease {
    /// Returns the lease of the process `incarnation` of node `me`, not granted yet, that lasts
    /// `lease` ([`super::LeaseTiming::lease`], the same for all nodes).
    #[must_use]
    pub fn new(me: RaftId, incarnation: Incarnation, lease: Duration) -> Self {
        Self {
            me,
            incarnation,
            lease,
            asked: VecDeque::new(),
            next: 0,
            until: None,
            fence: Epoch(0),
            state: Arc::default(),
            #[cfg(test)]
            flaw: None,
        }
    }

    /// Takes over a newly applied state: what is owned in it no more is let go at once.
    pub fn observe(&mut self, state: &Arc<ClusterState>) {
        if state.applied() > self.state.applied() {
            self.state = Arc::clone(state);
        }
    }

    /// Returns a request, which must be sent `now` or later, and at most once.
    pub fn request(&mut self, now: Instant) -> LeaseRequest {
        self.next += 1;
        if self.asked.len() == ASKED_KEPT {
            self.asked.pop_front();
        }
        self.asked.push_back((self.next, now));
        LeaseRequest {
            node: self.me,
            incarnation: self.incarnation,
            number: self.next,
            released: self.state.epoch(),
        }
    }

    /// Takes a grant in, which arrived `now`. Late, doubled and foreign ones change nothing.
    pub fn handle_grant(&mut self, grant: LeaseGrant, now: Instant) {
        if grant.incarnation != self.incarnation {
            return;
        }
        // What is said of all processes stays true, whatever becomes of the lease.
        self.fence = self.fence.max(grant.fence);
        let asked = self
            .asked
            .iter()
            .find(|(number, _)| *number == grant.number);
        let Some(&(_, sent)) = asked else { return };
        self.asked.retain(|(number, _)| *number > grant.number);
        // Planted: counted from the arrival of the grant.
        let from = match self.is_flawed(Bug::RenewAfterExpiry) {
            true => now,
            false => sent,
        };
        let until = from + self.lease;
        self.until = Some(self.until.map_or(until, |known| known.max(until)));
    }

    /// Returns when the lease ends, if it was ever granted.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Tells whether the lease is live.
    #[must_use]
    pub fn is_live(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Returns up to which epoch everybody is known to have let go of what they owned before.
    #[must_use]
    pub const fn fence(&self) -> Epoch {
        self.fence
    }

    /// Tells whether this process is primary of something it gets no token of yet, because the fence
    /// is below: news from the leader is wanted sooner than usual.
    #[must_use]
    pub fn awaits_fence(&self) -> bool {
        let mine = |partition: &Partition| {
            partition.primary == Some(self.me) && partition.epoch > self.fence
        };
        self.state.epoch() > self.fence && self.state.partitions().iter().any(mine)
    }

    /// Returns the token of `partition`.
    ///
    /// # Errors
    /// [`NoToken`] when this process does not own it, or cannot prove so now.
    pub fn token(&self, partition: PartitionId, now: Instant) -> Result<OwnershipToken, NoToken> {
        let not_primary = NoToken::NotPrimary { partition };
        let record = self.state.partition(partition).ok_or(not_primary)?;
        // The log may have taken another process of this node for the present one.
        let is_me = |node: &crate::node::Node| node.incarnation == self.incarnation;
        let present = self.state.node(self.me).is_some_and(|node| is_me(node));
        if record.primary != Some(self.me) || !present {
            return Err(not_primary);
        }
        let valid_until = self.until.filter(|&until| now < until);
        let valid_until = valid_until.ok_or(NoToken::LeaseOver)?;
        if record.epoch > self.fence && !self.is_flawed(Bug::IgnoreFence) {
            return Err(NoToken::NotReleased {
                partition,
                epoch: record.epoch,
                fence: self.fence,
            });
        }
        Ok(OwnershipToken {
            partition,
            epoch: record.epoch,
            valid_until,
        })
    }

    /// Checks that `token` is still good.
    ///
    /// # Errors
    /// [`NoToken`] when it is not.
    pub fn check(&self, token: &OwnershipToken, now: Instant) -> Result<(), NoToken> {
        let current = self.token(token.partition, now)?;
        if current.epoch != token.epoch {
            return Err(NoToken::Superseded {
                partition: token.partition,
                given: token.epoch,
                current: current.epoch,
            });
        }
        if now < token.valid_until {
            Ok(())
        } else {
            Err(NoToken::LeaseOver)
        }
    }

    #[cfg_attr(
        not(test),
        allow(
            clippy::unused_self,
            reason = "only tests give one lease a bug of its own"
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
